//! A node's sessions and rejected routes, as its status has them.
//!
//! Owns what of them is told, how briefly, and which times stay as they were said before: a peer that is
//! away must not be news each time that it is tried again.

use std::collections::BTreeMap;

use caracal_bgp_core::types::{Family as BgpFamily, Prefix};
use caracal_bgp_speaker::config::PeerName;
use caracal_bgp_speaker::handle::{PeerSnapshot, SessionState as Speaking};
use caracal_bgp_speaker::snapshot::{FamilySnapshot, RejectedSnapshot};
use caracal_bgp_speaker::status::{Direction, DownReason};
use caracal_crds::{
    ErrorDirection, Family, NodeNetworkStatusStatus, PrefixCounts, RejectedRoutes, SessionError,
    SessionState, SessionStatus, Time, reasons,
};
use jiff::Timestamp;

/// Sessions that a status has at most; the schema allows no more.
const MOST_SESSIONS: usize = 1024;
/// Octets that they take together, about: an API server takes no object of more than 1.5 MiB, and
/// quotes in words count twice.
const SESSIONS_ROOM: usize = 512 * 1024;
/// What one takes without its name and words.
const SESSION_OCTETS: usize = 320;
/// Reasons for rejected routes that a status has at most; the schema allows no more.
const MOST_REASONS: usize = 64;
/// The longest words of one session or reason, in octets.
const WORDS: usize = 256;

/// The sessions of a node, in their order, with those times that `previous` has said where nothing has
/// happened since; and how many there was no room for.
pub(super) fn sessions<'a>(
    peers: impl Iterator<Item = &'a PeerSnapshot>,
    previous: &NodeNetworkStatusStatus,
) -> Sessions {
    let said = previous.sessions.iter().map(|said| (&said.name, said));
    let said: BTreeMap<_, _> = said.collect();
    let all = peers.map(|peer| session(peer, said.get(&peer.name).copied()));
    let mut all: Vec<SessionStatus> = all.collect();
    let (total, up) = (all.len(), all.iter().filter(|it| is_up(it)).count());
    // Who looks does so for what is down.
    all.sort_by_key(is_up);
    let mut room = SESSIONS_ROOM;
    let fits = |session: &SessionStatus| {
        let left = room.checked_sub(octets(session));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let mut shown: Vec<SessionStatus> = all
        .into_iter()
        .take(MOST_SESSIONS)
        .take_while(fits)
        .collect();
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    Sessions { total, up, shown }
}

/// The sessions of a node.
pub(super) struct Sessions {
    /// How many it should have.
    pub(super) total: usize,
    /// How many are established.
    pub(super) up: usize,
    /// Those that there is room for.
    pub(super) shown: Vec<SessionStatus>,
}

impl Sessions {
    /// How many there is no room for; none where there are none.
    pub(super) fn left_out(&self) -> Option<u32> {
        let left_out = self.total - self.shown.len();
        (left_out > 0).then(|| number(left_out))
    }
}

/// What a node rejects, for its status.
pub(super) fn rejected(all: &[(PeerName, RejectedSnapshot)]) -> Vec<RejectedRoutes> {
    let rejected = all.iter().take(MOST_REASONS);
    let rejected = rejected.map(|(peer, rejected)| RejectedRoutes {
        session: peer.0.clone(),
        reason: rejected.reason.clone(),
        rule: rejected.rule.as_deref().map(words),
        count: number(rejected.count),
        prefixes: rejected.examples.iter().filter_map(network).collect(),
        message: words(&rejected.why),
    });
    rejected.collect()
}

fn network(prefix: &Prefix) -> Option<ipnetwork::IpNetwork> {
    // Every prefix is a network: its length fits its address.
    ipnetwork::IpNetwork::new(prefix.addr(), prefix.len()).ok()
}

fn session(peer: &PeerSnapshot, said: Option<&SessionStatus>) -> SessionStatus {
    let state = state(peer.state);
    let up = state == SessionState::Established;
    // Each attempt has states and errors of its own: while a session stays down, the first ones count.
    let said = said.filter(|said| !up && !is_up(said));
    let remark = peer.remark();
    SessionStatus {
        name: peer.name.clone(),
        peer_ip: peer.remote.map(|remote| remote.ip()),
        as_number: peer.asn.map(|asn| asn.0),
        state,
        since: said
            .and_then(|said| said.since.clone())
            .or_else(|| time(peer.since_ms)),
        reason: reason(peer).map(str::to_owned),
        message: (!remark.is_empty()).then(|| words(&remark)),
        last_error: last_error(peer, said.and_then(|said| said.last_error.as_ref())),
        families: peer
            .families()
            .iter()
            .map(|family| match family.family {
                BgpFamily::Ipv4Unicast => Family::Ipv4Unicast,
                BgpFamily::Ipv6Unicast => Family::Ipv6Unicast,
            })
            .collect(),
        prefixes: peer.routes.as_ref().map(|routes| {
            let sum = |count: fn(&FamilySnapshot) -> usize| {
                number(routes.families.iter().map(count).sum())
            };
            PrefixCounts {
                received: sum(|family| family.received),
                accepted: sum(|family| family.accepted),
                advertised: sum(|family| family.advertised),
            }
        }),
    }
}

fn state(state: Speaking) -> SessionState {
    match state {
        Speaking::Idle => SessionState::Idle,
        // Dialling comes and goes several times a minute while a peer is away. Each turn would be a
        // write; for whoever reads this it is one state.
        Speaking::Connect | Speaking::Active | Speaking::OpenSent | Speaking::OpenConfirm => {
            SessionState::Active
        }
        Speaking::Established => SessionState::Established,
    }
}

/// The later one of both directions, or the one that was `said` if that is alike.
fn last_error(peer: &PeerSnapshot, said: Option<&SessionError>) -> Option<SessionError> {
    let (direction, error) = peer.last_error()?;
    let last = SessionError {
        direction: match direction {
            Direction::Sent => ErrorDirection::Sent,
            Direction::Received => ErrorDirection::Received,
        },
        time: time(error.at_ms)?,
        message: words(&error.text),
    };
    let is_alike =
        |said: &&SessionError| (said.direction, &said.message) == (last.direction, &last.message);
    Some(said.filter(is_alike).cloned().unwrap_or(last))
}

fn reason(peer: &PeerSnapshot) -> Option<&'static str> {
    if peer.state == Speaking::Established {
        let policies = peer.no_import_policy.is_empty() && peer.no_export_policy.is_empty();
        return (!policies).then_some(reasons::NO_POLICY);
    }
    let why = peer.why.as_ref();
    Some(why.map_or(reasons::CONNECTING, |why| down_reason(why.reason)))
}

fn down_reason(reason: DownReason) -> &'static str {
    match reason {
        DownReason::AdminDown => reasons::ADMIN_DOWN,
        DownReason::Cleared => reasons::CLEARED,
        DownReason::Reconfigured => reasons::RECONFIGURED,
        DownReason::Deconfigured => reasons::DECONFIGURED,
        DownReason::Restarting => reasons::RESTARTING,
        DownReason::MissingSecret => reasons::MISSING_SECRET,
        DownReason::MissingSecretKey => reasons::MISSING_SECRET_KEY,
        DownReason::InvalidSecret => reasons::INVALID_SECRET,
        DownReason::NotSupportedByKernel => reasons::NOT_SUPPORTED_BY_KERNEL,
        DownReason::InvalidSpec => reasons::INVALID_SPEC,
        DownReason::InterfaceNotReady => reasons::INTERFACE_NOT_READY,
        DownReason::PeerNotFound => reasons::PEER_NOT_FOUND,
        DownReason::SeveralPeers => reasons::SEVERAL_PEERS,
        DownReason::LinkDown => reasons::LINK_DOWN,
        DownReason::BfdDown => reasons::BFD_DOWN,
        DownReason::AwaitsPath => reasons::AWAITS_PATH,
        DownReason::HoldTimerExpired => reasons::HOLD_TIMER_EXPIRED,
        DownReason::SendHoldTimerExpired => reasons::SEND_HOLD_TIMER_EXPIRED,
        DownReason::NotificationReceived => reasons::NOTIFICATION_RECEIVED,
        DownReason::NotificationSent => reasons::NOTIFICATION_SENT,
        DownReason::ConnectionRefused => reasons::CONNECTION_REFUSED,
        DownReason::ConnectTimeout => reasons::CONNECT_TIMEOUT,
        DownReason::Unreachable => reasons::UNREACHABLE,
        DownReason::ConnectionClosed => reasons::CONNECTION_CLOSED,
        DownReason::ConnectionFailed => reasons::CONNECTION_FAILED,
        DownReason::PeerRestarted => reasons::PEER_RESTARTED,
        DownReason::CollisionLost => reasons::COLLISION_LOST,
        DownReason::PrefixLimitExceeded => reasons::PREFIX_LIMIT_EXCEEDED,
    }
}

fn is_up(session: &SessionStatus) -> bool {
    session.state == SessionState::Established
}

fn octets(session: &SessionStatus) -> usize {
    let message = session.message.as_ref().map_or(0, String::len);
    let error = session.last_error.as_ref().map_or(0, |it| it.message.len());
    SESSION_OCTETS + session.name.len() + message + error
}

/// The beginning of `text`, as much as there is room for.
fn words(text: &str) -> String {
    text[..text.floor_char_boundary(WORDS)].to_owned()
}

fn time(ms: u64) -> Option<Time> {
    let ms = i64::try_from(ms).ok()?;
    Timestamp::from_millisecond(ms).ok().map(Time)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
