//! Peers as a monitoring station sees them: one for each table of each session.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::fsm::{DownWhy, PathWhy};
use crate::types::{Asn, Family, FamilySet, RouterId};
use crate::wire::{self, Capability, EncodeContext, Notification, Open};

/// Whose routes a message is about (RFC 7854 §4.2). A station tells peers apart by everything but
/// the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHeader {
    /// Which of the tables.
    pub table: Table,
    /// In which of the instances of the speaker.
    pub instance: Instance,
    /// The peer's address; unspecified for [`Table::LocRib`] (RFC 9069 §5.1).
    pub address: IpAddr,
    /// The peer's AS; our own for [`Table::LocRib`].
    pub asn: Asn,
    /// The peer's identifier; our own for [`Table::LocRib`].
    pub router_id: RouterId,
    /// Whether AS paths in the UPDATEs told of take two octets for a number.
    pub two_octet_as: bool,
    /// When the routes came, since the beginning of 1970; zero when nobody knows.
    pub time: Duration,
}

/// Where routes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// As the peer sent them (RFC 7854 §5).
    AdjRibIn {
        /// Whether import policy has been applied.
        post_policy: bool,
    },
    /// As the peer is told them (RFC 8671 §5).
    AdjRibOut {
        /// Whether export policy has been applied.
        post_policy: bool,
    },
    /// The best ones (RFC 9069 §5).
    LocRib {
        /// Whether some are left out.
        filtered: bool,
    },
}

/// An instance of a speaker that has several routing tables (RFC 7854 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instance {
    /// The one that has no distinguisher.
    #[default]
    Global,
    /// A VPN's, by its route distinguisher.
    RouteDistinguisher(u64),
    /// Another, by a number of our own.
    Local(u64),
}

/// A session as it came up (RFC 7854 §4.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUp {
    /// Which.
    pub peer: PeerHeader,
    /// Our end of the connection; unspecified and zero for [`Table::LocRib`].
    pub local: SocketAddr,
    /// The port of the peer's end.
    pub remote_port: u16,
    /// The OPEN that we sent, header included. For [`Table::LocRib`], one that says in capabilities
    /// what its UPDATEs need (RFC 9069 §5.2).
    pub sent_open: Bytes,
    /// The OPEN that came, header included; for [`Table::LocRib`] the same as was sent.
    pub received_open: Bytes,
    /// What the table is called (RFC 9069 §5.2.1); empty is left out.
    pub table_name: String,
    /// What an operator calls the peer's export (RFC 8671 §6.3.1); empty is left out.
    pub admin_label: String,
    /// Anything else; empty is left out.
    pub text: String,
}

impl PeerUp {
    /// Says that the Loc-RIB is told of from now on, in UPDATEs of these families, of which those in
    /// `add_path` carry path identifiers (RFC 9069 §§4, 5.2).
    pub fn of_loc_rib(
        asn: Asn,
        router_id: RouterId,
        families: &[Family],
        add_path: FamilySet,
        table_name: &str,
    ) -> Self {
        // RFC 9069 §5.2: the OPENs are made up, and alike. They must say how to read the UPDATEs.
        let mut capabilities: Vec<Capability> = families
            .iter()
            .map(|family| Capability::Multiprotocol((*family).into()))
            .collect();
        capabilities.push(Capability::FourOctetAs(asn));
        if !add_path.is_empty() {
            const BOTH: u8 = 3;
            let families = add_path.iter().map(|family| (family.into(), BOTH));
            capabilities.push(Capability::AddPath(families.collect()));
        }
        let open = wire::Message::Open(Open {
            asn,
            hold_time: Duration::ZERO,
            router_id,
            capabilities,
        });
        let mut octets = BytesMut::new();
        wire::encode(&open, EncodeContext::default(), &mut octets)
            .expect("only UPDATEs can be too long");
        let open = octets.freeze();
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            peer: PeerHeader {
                table: Table::LocRib { filtered: false },
                instance: Instance::Global,
                address: nowhere,
                asn,
                router_id,
                two_octet_as: false,
                time: Duration::ZERO,
            },
            local: SocketAddr::new(nowhere, 0),
            remote_port: 0,
            sent_open: open.clone(),
            received_open: open,
            table_name: table_name.to_owned(),
            admin_label: String::new(),
            text: String::new(),
        }
    }
}

/// Why a peer is gone (RFC 7854 §4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerDownReason {
    /// We ended the session with this NOTIFICATION.
    LocalNotification(Notification),
    /// We ended it without a word, for this event of the state machine (RFC 4271 §8.1).
    LocalEvent(u16),
    /// The peer ended it with this NOTIFICATION.
    RemoteNotification(Notification),
    /// It ended without a word of the peer's.
    RemoteClosed,
    /// The session may go on; it is no longer told of.
    NoLongerMonitored,
    /// The table is gone (RFC 9069 §5.3).
    LocalTable {
        /// As in [`PeerUp`].
        table_name: String,
    },
}

impl PeerDownReason {
    /// Why a session ended, as a station is told it. `sent` is the NOTIFICATION that was sent on its
    /// connection, if any.
    pub fn of(why: &DownWhy, sent: Option<Notification>) -> Self {
        if let Some(sent) = sent {
            return Self::LocalNotification(sent);
        }
        match why {
            DownWhy::NotificationReceived(notification) => {
                Self::RemoteNotification(notification.clone())
            }
            DownWhy::NotificationSent(notification) => {
                Self::LocalNotification(notification.clone())
            }
            DownWhy::ConnectionLost(_) => Self::RemoteClosed,
            _ => Self::LocalEvent(event(why)),
        }
    }
}

/// The event of RFC 4271 §8.1 that comes nearest to an end of our making without a NOTIFICATION.
fn event(why: &DownWhy) -> u16 {
    const MANUAL_STOP: u16 = 2;
    const AUTOMATIC_STOP: u16 = 8;
    const HOLD_TIMER_EXPIRES: u16 = 10;
    const TCP_CONNECTION_CONFIRMED: u16 = 17;
    const TCP_CONNECTION_FAILS: u16 = 18;
    const OPEN_COLLISION_DUMP: u16 = 23;
    /// RFC 9687 §3.
    const SEND_HOLD_TIMER_EXPIRES: u16 = 29;
    match why {
        DownWhy::AdminDown
        | DownWhy::AdminClear
        | DownWhy::Reconfigured
        | DownWhy::Deconfigured => MANUAL_STOP,
        DownWhy::LocalRestart
        | DownWhy::PrefixLimit { .. }
        | DownWhy::PathUnproved
        | DownWhy::PathDown(PathWhy::BfdDown | PathWhy::BfdSilent) => AUTOMATIC_STOP,
        DownWhy::HoldTimerExpired => HOLD_TIMER_EXPIRES,
        DownWhy::SendHoldTimerExpired => SEND_HOLD_TIMER_EXPIRES,
        // RFC 4724 §5: the new connection of a restarted peer is what ends the old one.
        DownWhy::PeerRestarted => TCP_CONNECTION_CONFIRMED,
        DownWhy::CollisionLost => OPEN_COLLISION_DUMP,
        DownWhy::PathDown(PathWhy::LinkDown)
        | DownWhy::ConnectionLost(_)
        | DownWhy::NotificationReceived(_)
        | DownWhy::OwnAsRefused { .. }
        | DownWhy::NotificationSent(_)
        | DownWhy::PeerAsRefused { .. } => TCP_CONNECTION_FAILS,
    }
}
