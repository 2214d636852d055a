//! What the agent says about its node, as the status of a NodeNetworkStatus.
//!
//! Owns the summary: from the speaker's and the dataplane's own accounts to the resource. Does not
//! own when it is written (see [`crate::pacing`]) nor by whom (see [`crate::publish`]).

use std::collections::BTreeMap;

use caracal_bgp_core::types::Family as BgpFamily;
use caracal_bgp_speaker::handle::{PeerSnapshot, SessionState as Speaking, SpeakerSnapshot};
use caracal_crds::conditions::{self, Statement};
use caracal_crds::{
    BlockPhase, BlockSummary, DataplaneSummary, Family, NodeNetworkStatusStatus, RouteCounts,
    SessionState, SessionStatus, Time, reasons,
};
use caracal_resolve::Finding;
use jiff::Timestamp;

/// Everything that the summary is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// The speaker, once it runs.
    pub(crate) speaker: Option<SpeakerSnapshot>,
    /// Routes installed.
    pub(crate) routes: RouteCounts,
    /// What the BGP resources ask of this node and it does not do; none before the speaker runs.
    pub(crate) findings: Option<Vec<Finding>>,
    /// Own blocks.
    pub(crate) blocks: BTreeMap<String, BlockPhase>,
    /// Sizes of the ruleset.
    pub(crate) dataplane: DataplaneSummary,
    /// Why the ruleset in the kernel is not what the policies want.
    pub(crate) policy_failure: Option<String>,
    /// Addresses that a pod could get now.
    pub(crate) free_addresses: usize,
}

/// The status that says `facts`, with the transition times of `previous` where nothing flipped.
pub(crate) fn summarise(
    facts: &Facts,
    previous: &NodeNetworkStatusStatus,
    now: Timestamp,
) -> NodeNetworkStatusStatus {
    let peers = facts.speaker.iter().flat_map(|speaker| &speaker.peers);
    let sessions: Vec<SessionStatus> = peers.map(session).collect();
    let up = sessions
        .iter()
        .filter(|s| s.state == SessionState::Established)
        .count();
    let mut conditions = previous.conditions.clone();
    for statement in statements(facts, &sessions, up) {
        conditions::set(&mut conditions, &statement, &Time(now));
    }
    NodeNetworkStatusStatus {
        agent_version: Some(env!("CARGO_PKG_VERSION").into()),
        as_number: facts.speaker.as_ref().map(|speaker| speaker.asn.0),
        router_id: facts
            .speaker
            .as_ref()
            .map(|speaker| speaker.router_id.0.into()),
        sessions_established: Some(format!("{up}/{}", sessions.len())),
        sessions,
        routes: Some(facts.routes),
        blocks: facts
            .blocks
            .iter()
            .map(|(name, phase)| BlockSummary {
                name: name.clone(),
                phase: *phase,
            })
            .collect(),
        dataplane: Some(facts.dataplane),
        conditions,
    }
}

fn statements(facts: &Facts, sessions: &[SessionStatus], up: usize) -> Vec<Statement<'static>> {
    let say = |condition, failure: Option<(&'static str, String)>| {
        let holds = failure.is_none();
        let (reason, message) = failure.unwrap_or((reasons::OK, String::new()));
        Statement {
            condition,
            holds,
            reason,
            message,
            observed_generation: None,
        }
    };
    let down = sessions
        .iter()
        .find(|session| session.state != SessionState::Established);
    let sessions_failure = match down {
        _ if sessions.is_empty() => {
            Some((reasons::NO_PEERS, "no BGPPeer names this node".to_owned()))
        }
        None => None,
        Some(session) => Some((
            session_reason(session.reason.as_deref()),
            format!(
                "{up} of {} sessions are up; {} ({}): {}",
                sessions.len(),
                session.name,
                session
                    .peer_ip
                    .map_or_else(|| "address not known".to_owned(), |ip| ip.to_string()),
                session
                    .message
                    .as_deref()
                    .unwrap_or("no attempt has ended yet"),
            ),
        )),
    };
    let failed = facts.routes.failed;
    let mut statements = vec![
        say(conditions::SESSIONS_ESTABLISHED, sessions_failure),
        say(
            conditions::ROUTES_PROGRAMMED,
            (failed > 0).then(|| {
                (
                    KERNEL_REFUSED,
                    format!("the kernel refused {failed} routes"),
                )
            }),
        ),
        say(
            conditions::POLICY_PROGRAMMED,
            facts
                .policy_failure
                .clone()
                .map(|why| (KERNEL_REFUSED, why)),
        ),
        say(
            conditions::ADDRESSES_AVAILABLE,
            (facts.free_addresses == 0).then(|| {
                (
                    reasons::NO_FREE_BLOCKS,
                    "no free address in the node's blocks".into(),
                )
            }),
        ),
    ];
    if let Some(findings) = &facts.findings {
        statements.push(say(conditions::ACCEPTED, not_accepted(findings)));
    }
    statements
}

/// The longest account of findings, in characters: a cluster-wide mistake stands in every node's
/// status.
const FINDINGS_LENGTH: usize = 1024;

/// The first finding's reason, and all of them in words. They stand here and not on the objects that
/// they are about: what one node cannot follow another may, and a thousand nodes would contend for
/// one object.
fn not_accepted(findings: &[Finding]) -> Option<(&'static str, String)> {
    let first = findings.first()?;
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let message = all.join("; ").chars().take(FINDINGS_LENGTH).collect();
    Some((first.reason, message))
}

/// The kernel did not take what it was told.
const KERNEL_REFUSED: &str = "KernelRefused";

/// A condition needs a reason even before the session has one.
const CONNECTING: &str = "Connecting";

fn session_reason(reason: Option<&str>) -> &'static str {
    let known = [
        reasons::CONNECTION_REFUSED,
        reasons::CONNECT_TIMEOUT,
        reasons::HOLD_TIMER_EXPIRED,
        reasons::NOTIFICATION_RECEIVED,
        reasons::NOTIFICATION_SENT,
    ];
    known
        .into_iter()
        .find(|known| reason == Some(known))
        .unwrap_or(CONNECTING)
}

fn session(peer: &PeerSnapshot) -> SessionStatus {
    let state = match peer.state {
        Speaking::Idle => SessionState::Idle,
        // Dialling comes and goes several times a minute while a peer is away. Each turn would be a
        // write; for whoever reads this it is one state.
        Speaking::Connect | Speaking::Active | Speaking::OpenSent | Speaking::OpenConfirm => {
            SessionState::Active
        }
        Speaking::Established => SessionState::Established,
    };
    let up = state == SessionState::Established;
    let since = i64::try_from(peer.since_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    SessionStatus {
        name: peer.name.clone(),
        peer_ip: peer.remote.map(|remote| remote.ip()),
        as_number: peer.asn.map(|asn| asn.0),
        state,
        since: since.filter(|_| up).map(Time),
        reason: (!up).then(|| reason(peer)).flatten().map(str::to_owned),
        message: (!up && !peer.why.is_empty()).then(|| peer.why.chars().take(1024).collect()),
        families: peer
            .families()
            .iter()
            .map(|family| match family.family {
                BgpFamily::Ipv4Unicast => Family::Ipv4Unicast,
                BgpFamily::Ipv6Unicast => Family::Ipv6Unicast,
            })
            .collect(),
    }
}

fn reason(peer: &PeerSnapshot) -> Option<&'static str> {
    let why = peer.why.to_lowercase();
    if why.contains("refused") {
        Some(reasons::CONNECTION_REFUSED)
    } else if why.contains("timed out") || why.contains("unreachable") {
        Some(reasons::CONNECT_TIMEOUT)
    } else if why.contains("hold timer") {
        Some(reasons::HOLD_TIMER_EXPIRED)
    } else if peer.last_received_error.is_some() {
        Some(reasons::NOTIFICATION_RECEIVED)
    } else if peer.last_sent_error.is_some() {
        Some(reasons::NOTIFICATION_SENT)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use caracal_bgp_core::types::{Asn, RouterId};
    use caracal_bgp_speaker::snapshot::{
        FamilySnapshot, FibCountSnapshot, PeerRoutesSnapshot, RibSnapshot,
    };
    use caracal_bgp_speaker::status::CounterSnapshot;
    use caracal_resolve::ObjectRef;

    use super::*;
    use crate::routing::Account;

    fn peer(state: Speaking, since_ms: u64, why: &str) -> PeerSnapshot {
        PeerSnapshot {
            name: "tor-1".into(),
            description: String::new(),
            endpoint: "10.0.0.1:179".into(),
            range: None,
            remote: "10.0.0.1:179".parse().ok(),
            local_address: None,
            interface: None,
            asn: Some(Asn(65001)),
            local_asn: Asn(65000),
            internal: false,
            router_id: None,
            authentication: "none".into(),
            admin_enabled: true,
            draining: false,
            state,
            since_ms,
            why: why.into(),
            last_sent_error: None,
            last_received_error: None,
            established_count: 0,
            terms: None,
            bfd: None,
            counters: CounterSnapshot::default(),
            routes: None,
        }
    }

    fn facts(peer: PeerSnapshot) -> Facts {
        let speaker = SpeakerSnapshot {
            asn: Asn(65000),
            router_id: RouterId(1),
            rib: None,
            forwarding: None,
            channels: Vec::new(),
            peers: vec![peer],
            ranges: Vec::new(),
            stations: Vec::new(),
        };
        Facts {
            speaker: Some(speaker),
            free_addresses: 1,
            ..Facts::default()
        }
    }

    #[test]
    fn what_a_busy_rib_did_not_count_is_as_it_was() {
        let mut known = peer(Speaking::Established, 1, "");
        known.routes = Some(PeerRoutesSnapshot {
            untold: 0,
            families: vec![FamilySnapshot {
                family: BgpFamily::Ipv6Unicast,
                received: 3,
                accepted: 3,
                stale: 0,
                advertised: 1,
                end_of_rib_received: true,
                end_of_rib_sent: true,
            }],
        });
        let mut speaker = facts(known.clone()).speaker.unwrap();
        speaker.rib = Some(RibSnapshot {
            fib: vec![FibCountSnapshot {
                family: BgpFamily::Ipv6Unicast,
                pending: 0,
                installed: 3,
                failed: 0,
                best_path_changes: 3,
            }],
            ..RibSnapshot::default()
        });
        let counted = Account::default().followed_by(speaker.clone());
        assert_eq!(counted.routes.ipv6, 3);
        speaker.rib = None;
        speaker.peers[0].routes = None;
        let busy = counted.followed_by(speaker);
        assert_eq!(busy.routes, counted.routes);
        assert_eq!(busy.speaker.unwrap().peers, [known]);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_dialling_peer_is_one_state_and_writes_once() {
        let refused = "connection refused";
        let first = summarise(
            &facts(peer(Speaking::Connect, 1, refused)),
            &NodeNetworkStatusStatus::default(),
            at(1),
        );
        let second = summarise(&facts(peer(Speaking::Active, 2, refused)), &first, at(2));
        assert_eq!(first, second);
        assert_eq!(first.sessions_established.as_deref(), Some("0/1"));
        let condition = first
            .conditions
            .iter()
            .find(|c| c.type_ == conditions::SESSIONS_ESTABLISHED)
            .unwrap();
        assert_eq!(condition.reason, reasons::CONNECTION_REFUSED);
        assert!(
            condition.message.contains("tor-1 (10.0.0.1)"),
            "{}",
            condition.message
        );
    }

    #[test]
    fn what_the_resources_ask_and_nobody_does_is_a_condition_with_its_reason() {
        let accepted = |findings| {
            let facts = Facts {
                findings,
                ..Facts::default()
            };
            let status = summarise(&facts, &NodeNetworkStatusStatus::default(), at(1));
            let mut conditions = status.conditions.into_iter();
            conditions
                .find(|it| it.type_ == conditions::ACCEPTED)
                .map(|it| (it.status, it.reason, it.message))
        };
        let finding = |name: &str, reason| Finding {
            object: ObjectRef {
                kind: "BGPPeer",
                name: name.into(),
            },
            field: "spec.nodeSelector".into(),
            reason,
            message: "cannot be read".into(),
        };
        assert_eq!(accepted(None), None, "nothing is known yet");
        let (status, reason, _) = accepted(Some(Vec::new())).unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("True", reasons::OK));
        let findings = vec![
            finding("a", reasons::INVALID_SELECTOR),
            finding("b", reasons::DUPLICATE_PEER),
        ];
        let (status, reason, message) = accepted(Some(findings)).unwrap();
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", reasons::INVALID_SELECTOR)
        );
        assert_eq!(
            message,
            "BGPPeer a: spec.nodeSelector: cannot be read (InvalidSelector); \
             BGPPeer b: spec.nodeSelector: cannot be read (DuplicatePeer)"
        );
    }

    #[test]
    fn conditions_flip_with_their_time() {
        let down = summarise(
            &facts(peer(Speaking::Active, 1, "")),
            &NodeNetworkStatusStatus::default(),
            at(1),
        );
        let up = summarise(&facts(peer(Speaking::Established, 5, "")), &down, at(9));
        assert!(conditions::holds(
            &up.conditions,
            conditions::SESSIONS_ESTABLISHED
        ));
        let flipped = up
            .conditions
            .iter()
            .find(|c| c.type_ == conditions::SESSIONS_ESTABLISHED)
            .unwrap();
        assert_eq!(flipped.last_transition_time, Time(at(9)));
        let steady = up
            .conditions
            .iter()
            .find(|c| c.type_ == conditions::ROUTES_PROGRAMMED);
        assert_eq!(steady.unwrap().last_transition_time, Time(at(1)));
    }
}
