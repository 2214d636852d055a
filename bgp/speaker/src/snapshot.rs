//! What a speaker tells about itself, ready for people and for JSON.
//!
//! Owns the shapes that the local API answers with, so that the program that asks reads them back
//! into the same types. Does not own the state behind them.

mod route;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use caracal_bgp_core::types::{Asn, Family, Prefix, RouterId};

pub use route::{
    Explanation, FibSnapshot, KernelNextHop, KernelRoute, KernelSnapshot, PathSnapshot,
    PolicyTrace, RouteSnapshot, ToldSnapshot,
};

use crate::status::{CounterSnapshot, Direction, HistogramSnapshot, Why};

/// The whole speaker at one moment, without its routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeakerSnapshot {
    /// The AS that the speaker belongs to.
    #[serde(with = "number")]
    pub asn: Asn,
    /// Its BGP identifier.
    #[serde(with = "text")]
    pub router_id: RouterId,
    /// The table. Absent when the RIB was too busy to say; then of the sessions' routes nothing is known
    /// either.
    pub rib: Option<RibSnapshot>,
    /// What it takes to bring routes into the kernel; absent where nothing is forwarded.
    pub forwarding: Option<ForwardingSnapshot>,
    /// What waits between the parts of the speaker.
    pub channels: Vec<ChannelSnapshot>,
    /// Sessions by name.
    pub peers: Vec<PeerSnapshot>,
    /// Ranges that let peers in, by name.
    pub ranges: Vec<RangeSnapshot>,
    /// Stations that are told by BMP.
    pub stations: Vec<StationSnapshot>,
}

/// The table, without its routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RibSnapshot {
    /// Whether selection still waits for peers after a restart.
    pub deferring: bool,
    /// Prefixes in it, rejected ones included.
    pub prefixes: usize,
    /// Routes on their way to the kernel, by family.
    pub fib: Vec<FibCountSnapshot>,
}

/// A station that is told about sessions and routes by BMP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationSnapshot {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether there is a connection.
    pub connected: bool,
    /// Whether it has been told the whole table once on this connection.
    pub synchronised: bool,
    /// Since when there is, or is no, connection, in milliseconds since the beginning of 1970.
    pub since_ms: u64,
    /// Why there is none; empty where there is, or has not yet been one.
    pub why: String,
    /// How many there have been.
    pub connections: u64,
    /// What it has been told over all of them.
    pub octets_sent: u64,
}

/// How many routes of a family stand where on their way to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibCountSnapshot {
    /// Which family.
    #[serde(with = "text")]
    pub family: Family,
    /// Handed over, not yet acknowledged.
    pub pending: usize,
    /// In the kernel.
    pub installed: usize,
    /// Refused.
    pub failed: usize,
    /// How often what peers are told has changed since the start.
    pub best_path_changes: u64,
}

/// What it takes to bring routes into the kernel, and to keep them there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardingSnapshot {
    /// From UPDATEs to the kernel, by family.
    pub update_to_fib: Vec<UpdateToFibSnapshot>,
    /// Batches written to the kernel, by what became of them.
    pub writes: Vec<WriteSnapshot>,
    /// What others changed and was put right, by kind.
    pub repairs: Vec<RepairSnapshot>,
}

/// How long routes of a family took from the UPDATE that caused them to the kernel's acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateToFibSnapshot {
    /// Which family.
    #[serde(with = "text")]
    pub family: Family,
    /// One for each route, and for each withdrawal.
    pub took: HistogramSnapshot,
}

/// How long batches took that came to the same end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSnapshot {
    /// `acknowledged`, `refused` or `failed`.
    pub outcome: String,
    /// One for each batch.
    pub took: HistogramSnapshot,
}

/// What others changed in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairSnapshot {
    /// In which way: see [`crate::Drift`].
    pub kind: String,
    /// How much of it was put right since the start.
    pub count: u64,
}

/// What waits between two parts of the speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSnapshot {
    /// Whom it waits for, in one word that never changes.
    pub name: String,
    /// How much waits.
    pub depth: usize,
    /// How much has been left out since the start; absent where nothing ever is, and the sender waits.
    pub dropped: Option<u64>,
}

/// One peer, with what becomes of its routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerDetail {
    /// The session.
    pub peer: PeerSnapshot,
    /// Its routes that must not be used, by reason; the most frequent first.
    pub rejected: Vec<RejectedSnapshot>,
}

/// Routes that are rejected for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedSnapshot {
    /// The kind of reason, in one word that never changes.
    pub reason: String,
    /// The rule of the import policy that says no, where one does.
    pub rule: Option<String>,
    /// How many.
    pub count: usize,
    /// The first of their prefixes in their order, a few, and never none.
    #[serde(with = "texts")]
    pub examples: Vec<Prefix>,
    /// Why the first one is, for people.
    pub why: String,
}

/// Peers that need not be named one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeSnapshot {
    /// What the configuration calls it.
    pub name: String,
    /// Where peers may come from.
    pub prefixes: Vec<String>,
    /// How many there may be at a time.
    pub limit: usize,
    /// How many there are.
    pub used: usize,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSnapshot {
    /// What the configuration calls it.
    pub name: String,
    /// What the configuration says of it; may be empty.
    pub description: String,
    /// How it is found: an address and a port, or an interface.
    pub endpoint: String,
    /// The range that let it in, if one did.
    pub range: Option<String>,
    /// Where it is, once that is known.
    pub remote: Option<SocketAddr>,
    /// Our end of the established session, else the configured address.
    pub local_address: Option<IpAddr>,
    /// The interface that carries our end.
    pub interface: Option<String>,
    /// Its AS; not known of a peer that may be of any, before it has said so.
    #[serde(with = "maybe_number")]
    pub asn: Option<Asn>,
    /// Our AS towards it.
    #[serde(with = "number")]
    pub local_asn: Asn,
    /// Whether it is in our AS.
    pub internal: bool,
    /// The peer's identifier while a session is up.
    pub router_id: Option<String>,
    /// How packets are signed: `none`, `md5` or `tcp-ao`.
    pub authentication: String,
    /// Whether the configuration lets it run: it may be held for want of a key nevertheless.
    pub admin_enabled: bool,
    /// Why its policies turn traffic away before it goes down, if they do.
    pub draining: Option<String>,
    /// Session state.
    pub state: SessionState,
    /// When the state was entered, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Why the session is not up; absent while it is, and before anything has happened.
    pub why: Option<Why>,
    /// Since when that is so, of failed attempts when the last one was, milliseconds since the Unix epoch.
    pub why_ms: u64,
    /// Attempts that have failed since it was up, or since it was left alone.
    pub attempts: u32,
    /// The last NOTIFICATION that we sent.
    pub last_sent_error: Option<ErrorSnapshot>,
    /// The last NOTIFICATION that the peer sent.
    pub last_received_error: Option<ErrorSnapshot>,
    /// How often the session came up since start.
    pub established_count: u64,
    /// What was agreed on, while a session is up.
    pub terms: Option<TermsSnapshot>,
    /// What BFD says of the path, once it has said anything.
    pub bfd: Option<BfdSnapshot>,
    /// What is wrong with the link that leads to it, while no session is up, for people.
    pub link_trouble: Option<String>,
    /// Families of which nothing is taken, as nobody has configured a policy (RFC 8212).
    #[serde(with = "texts")]
    pub no_import_policy: Vec<Family>,
    /// Families of which nothing is told, as nobody has configured a policy (RFC 8212).
    #[serde(with = "texts")]
    pub no_export_policy: Vec<Family>,
    /// Messages, errors and flaps since start.
    pub counters: CounterSnapshot,
    /// How its routes stand; absent when the RIB was too busy to say.
    pub routes: Option<PeerRoutesSnapshot>,
}

impl PeerSnapshot {
    /// What is known of each negotiated family: nothing when the RIB was too busy to say.
    pub fn families(&self) -> &[FamilySnapshot] {
        let routes = self.routes.as_ref();
        routes.map_or(&[], |routes| &routes.families)
    }

    /// In a line why the session is down, or what is unusual about one that is up; may be empty.
    pub fn remark(&self) -> String {
        if self.state != SessionState::Established {
            let why = self.why.as_ref().map(ToString::to_string);
            return self.with_link_trouble(why.unwrap_or_default());
        }
        let mut remarks: Vec<String> = self.without_policy().into_iter().collect();
        if let Some(why) = &self.draining {
            remarks.push(format!("draining: {why}"));
        }
        match self.families().iter().map(|family| family.stale).sum() {
            0usize => {}
            1 => remarks.push("1 stale route".to_owned()),
            stale => remarks.push(format!("{stale} stale routes")),
        }
        if let Some(bfd) = self.bfd.as_ref().filter(|bfd| bfd.state != "Up") {
            remarks.push(format!("BFD {}: {}", bfd.state, bfd.reason));
        }
        remarks.join(", ")
    }

    /// `why` and, where there is something, what is wrong with the link.
    pub fn with_link_trouble(&self, why: String) -> String {
        match &self.link_trouble {
            Some(link) if why.is_empty() => link.clone(),
            Some(link) => format!("{why}; {link}"),
            None => why,
        }
    }

    /// What is not exchanged for want of a policy (RFC 8212), if anything.
    pub fn without_policy(&self) -> Option<String> {
        let named = |families: &[Family]| {
            let names: Vec<String> = families.iter().map(ToString::to_string).collect();
            names.join(" and ")
        };
        let (import, export) = (&self.no_import_policy, &self.no_export_policy);
        let taken = || format!("no import policy for {}: nothing is taken", named(import));
        let told = || format!("no export policy for {}: nothing is told", named(export));
        let text = match (import.is_empty(), export.is_empty()) {
            (true, true) => return None,
            (false, true) => taken(),
            (true, false) => told(),
            (false, false) if import == export => {
                let families = named(import);
                format!("no policy for {families}: nothing is taken or told")
            }
            (false, false) => format!("{}, {}", taken(), told()),
        };
        Some(text + " (RFC 8212)")
    }

    /// The last NOTIFICATION of either direction, and who sent it.
    pub fn last_error(&self) -> Option<(Direction, &ErrorSnapshot)> {
        let sent = self.last_sent_error.as_ref();
        let received = self.last_received_error.as_ref();
        let errors = [
            sent.map(|error| (Direction::Sent, error)),
            received.map(|error| (Direction::Received, error)),
        ];
        let errors = errors.into_iter().flatten();
        errors.max_by_key(|(_, error)| error.at_ms)
    }
}

/// How the routes of a session stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRoutesSnapshot {
    /// Changes of routes that the peer has not been told yet, before policy; the whole table for one
    /// that is told everything anew.
    pub untold: usize,
    /// Per negotiated family.
    pub families: Vec<FamilySnapshot>,
}

/// The BFD session that watches the path to a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdSnapshot {
    /// `Up`, `Init`, `Down` or `AdminDown`.
    pub state: String,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What led to it.
    pub reason: String,
    /// The state that the peer says its side is in.
    pub remote_state: String,
    /// Our diagnostic (RFC 5880 §4.1).
    pub diagnostic: String,
    /// Whether both ends' BFD outlives their BGP (C bit): only then does a failure during a graceful
    /// restart prove that the path is dead.
    pub independent: bool,
    /// How often the state has changed.
    pub transitions: u64,
    /// The last time that the peer's silence took it down: how long nothing had been heard, in
    /// microseconds.
    #[serde(default)]
    pub detected_us: Option<u64>,
}

/// What two speakers have agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsSnapshot {
    /// Silence after which the session ends; zero means never.
    pub hold_time_secs: u64,
    /// Time between our keepalives.
    pub keepalive_secs: u64,
    /// Whether the peer tells its routes again when asked (RFC 2918).
    pub route_refresh: bool,
    /// Whether it says where such a telling begins and ends (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// AS numbers of four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Octets of the longest message that the peer takes (RFC 8654).
    pub longest_message: usize,
    /// Whether the peer takes IPv6 next hops for IPv4 routes (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether both say that a link-local address alone is a next hop (draft-ietf-idr-linklocal-capability).
    pub link_local_next_hop: bool,
    /// Whether both sides wait with the session until BFD is up.
    pub bfd_strict: bool,
    /// Families of which we tell several paths (RFC 7911).
    pub add_path_send: Vec<String>,
    /// Families of which the peer tells several paths.
    pub add_path_receive: Vec<String>,
    /// Whether the peer offers to keep or restore routes over a restart (RFC 4724).
    pub graceful_restart: bool,
    /// How long its routes are kept while it is away.
    pub restart_time_secs: u64,
    /// Whether that outlives NOTIFICATIONs (RFC 8538).
    pub keeps_over_notification: bool,
    /// How long its routes are kept beyond that (RFC 9494); absent where not agreed on.
    pub long_lived_secs: Option<u64>,
    /// Our role (RFC 9234).
    pub role: Option<String>,
    /// What the peer calls its host.
    pub host: Option<String>,
    /// What the peer runs.
    pub software: Option<String>,
}

/// The state of a session, as people know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SessionState {
    /// Not trying.
    #[default]
    Idle,
    /// A TCP connection is under way.
    Connect,
    /// Waiting to dial again or to be dialled.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received and accepted.
    OpenConfirm,
    /// Up.
    Established,
}

impl std::fmt::Display for SessionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// One family of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilySnapshot {
    /// Which family.
    #[serde(with = "text")]
    pub family: Family,
    /// Routes that the peer told.
    pub received: usize,
    /// Those of them that passed every check.
    pub accepted: usize,
    /// Those of them kept from before the peer's restart.
    pub stale: usize,
    /// Routes that the peer was told.
    pub advertised: usize,
    /// Whether the peer has sent End-of-RIB in this session.
    pub end_of_rib_received: bool,
    /// Whether we have sent End-of-RIB in this session.
    pub end_of_rib_sent: bool,
}

/// A NOTIFICATION.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorSnapshot {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Code, subcode and message in words.
    pub text: String,
}

/// (De)serialises what reads back from its `Display` form.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The same of several.
mod texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(deserializer)?.into_iter();
        let values = texts.map(|text| text.parse().map_err(de::Error::custom));
        values.collect()
    }
}

/// (De)serialises an AS number as a number.
mod number {
    use caracal_bgp_core::types::Asn;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(asn: &Asn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(asn.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Asn, D::Error> {
        u32::deserialize(deserializer).map(Asn)
    }
}

/// (De)serialises an AS number that may not be known.
mod maybe_number {
    use caracal_bgp_core::types::Asn;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        asn: &Option<Asn>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        asn.map(|asn| asn.0).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Asn>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(Asn))
    }
}
