use caracal_bgp_core::types::{Asn, Family as BgpFamily, RouterId};
use caracal_bgp_speaker::SpeakerSnapshot;
use caracal_bgp_speaker::config::PeerName;
use caracal_bgp_speaker::handle::{ErrorSnapshot, PeerSnapshot, SessionState as Speaking};
use caracal_bgp_speaker::snapshot::{
    FamilySnapshot, FibCountSnapshot, PeerRoutesSnapshot, RejectedSnapshot, RibSnapshot,
};
use caracal_bgp_speaker::status::{CounterSnapshot, DownReason, Why};
use caracal_crds::{ErrorDirection, PrefixCounts, SessionError, SessionStatus};
use caracal_resolve::ObjectRef;

use super::*;

mod one_session;

fn peer(state: Speaking, since_ms: u64, why: Option<Why>) -> PeerSnapshot {
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
        draining: None,
        state,
        since_ms,
        why,
        why_ms: since_ms,
        attempts: 0,
        last_sent_error: None,
        last_received_error: None,
        established_count: 0,
        terms: None,
        bfd: None,
        link_trouble: None,
        no_import_policy: Vec::new(),
        no_export_policy: Vec::new(),
        counters: CounterSnapshot::default(),
        routes: None,
    }
}

fn why(reason: DownReason, text: &str) -> Option<Why> {
    let text = text.to_owned();
    Some(Why { reason, text })
}

fn refused() -> Option<Why> {
    why(DownReason::ConnectionRefused, "connection refused")
}

fn error(at_ms: u64, text: &str) -> Option<ErrorSnapshot> {
    let text = text.to_owned();
    Some(ErrorSnapshot { at_ms, text })
}

fn family(family: BgpFamily, received: usize, accepted: usize) -> FamilySnapshot {
    FamilySnapshot {
        family,
        received,
        accepted,
        stale: 0,
        advertised: 1,
        end_of_rib_received: true,
        end_of_rib_sent: true,
    }
}

fn routes(families: Vec<FamilySnapshot>) -> Option<PeerRoutesSnapshot> {
    let untold = 0;
    Some(PeerRoutesSnapshot { untold, families })
}

fn rejected(count: usize) -> (PeerName, RejectedSnapshot) {
    let rejected = RejectedSnapshot {
        reason: "policy".into(),
        rule: Some("no-lab: lab".into()),
        count,
        examples: vec![
            "10.99.0.0/16".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        why: "the import policy rejects it: rule 'no-lab: lab'".into(),
    };
    ("tor-1".into(), rejected)
}

fn speaker(peers: Vec<PeerSnapshot>) -> SpeakerSnapshot {
    SpeakerSnapshot {
        asn: Asn(65000),
        router_id: RouterId(1),
        rib: Some(RibSnapshot {
            fib: vec![FibCountSnapshot {
                family: BgpFamily::Ipv6Unicast,
                pending: 0,
                installed: 3,
                failed: 0,
                best_path_changes: 3,
            }],
            ..RibSnapshot::default()
        }),
        forwarding: None,
        channels: Vec::new(),
        peers,
        ranges: Vec::new(),
        stations: Vec::new(),
    }
}

fn facts(peer: PeerSnapshot) -> Facts {
    Facts {
        account: Account::default().followed_by(speaker(vec![peer])),
        free_addresses: 1,
        ..Facts::default()
    }
}

/// The status of a node with one session, after `previous`.
fn after(previous: &NodeNetworkStatusStatus, peer: PeerSnapshot) -> NodeNetworkStatusStatus {
    summarise(&facts(peer), previous, at(1))
}

fn first(peer: PeerSnapshot) -> NodeNetworkStatusStatus {
    after(&NodeNetworkStatusStatus::default(), peer)
}

#[test]
fn what_a_busy_rib_did_not_count_is_as_it_was() {
    let known = PeerSnapshot {
        routes: routes(vec![family(BgpFamily::Ipv6Unicast, 3, 2)]),
        ..peer(Speaking::Established, 1, None)
    };
    let mut speaker = speaker(vec![known.clone()]);
    let mut counted = Account::default().followed_by(speaker.clone());
    assert_eq!(counted.routes.ipv6, 3);
    counted.rejected.push(rejected(1));
    speaker.rib = None;
    speaker.peers[0].routes = None;
    let busy = counted.followed_by(speaker);
    assert_eq!(busy.routes, counted.routes);
    assert_eq!(busy.rejected, counted.rejected);
    assert_eq!(busy.speaker.unwrap().peers, [known]);
}

#[test]
fn rejected_routes_are_forgotten_when_there_are_none() {
    let told = |received, accepted| {
        let routes = routes(vec![family(BgpFamily::Ipv4Unicast, received, accepted)]);
        let up = peer(Speaking::Established, 1, None);
        speaker(vec![PeerSnapshot { routes, ..up }])
    };
    let mut account = Account::default().followed_by(told(5, 4));
    account.rejected.push(rejected(1));
    assert_eq!(account.followed_by(told(6, 5)).rejected, [rejected(1)]);
    assert_eq!(account.followed_by(told(5, 5)).rejected, []);
}

fn at(second: i64) -> Timestamp {
    at_ms(second * 1000)
}

fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

#[test]
fn routes_that_come_and_go_are_counts_and_all_else_is_not() {
    type Change = fn(&mut NodeNetworkStatusStatus);
    let up = PeerSnapshot {
        routes: routes(vec![family(BgpFamily::Ipv4Unicast, 1, 1)]),
        ..peer(Speaking::Established, 1, None)
    };
    let said = first(up);
    let cases: [(&str, Change, bool); 8] = [
        ("nothing", |_| {}, false),
        (
            "routes of a session",
            |status| status.sessions[0].prefixes = Some(PrefixCounts::default()),
            true,
        ),
        (
            "routes in the kernel",
            |status| status.routes = Some(RouteCounts::default()),
            true,
        ),
        (
            "rejected routes",
            |status| status.rejected = sessions::rejected(&[rejected(1)]),
            true,
        ),
        (
            "routes that the kernel refuses",
            |status| status.routes.as_mut().unwrap().failed = 1,
            false,
        ),
        (
            "a state",
            |status| status.sessions[0].state = SessionState::Active,
            false,
        ),
        (
            "an error",
            |status| {
                status.sessions[0].last_error = Some(SessionError {
                    direction: ErrorDirection::Sent,
                    time: Time(at(1)),
                    message: "cease".into(),
                });
            },
            false,
        ),
        ("the AS", |status| status.as_number = None, false),
    ];
    for (what, change, counts_alone) in cases {
        let mut other = said.clone();
        change(&mut other);
        assert_eq!(
            differ_in_counts_alone(&said, &other),
            counts_alone,
            "{what}"
        );
    }
}

#[test]
fn a_status_is_bounded_however_much_there_is_to_say() {
    let talkative = |index: usize, state| PeerSnapshot {
        name: format!("{index:04}{}", "n".repeat(500)),
        last_sent_error: error(1, &"ü".repeat(2000)),
        ..peer(
            state,
            1,
            why(DownReason::NotificationReceived, &"\"".repeat(2000)),
        )
    };
    let peers = (0..5000).map(|index| match index % 100 {
        99 => talkative(index, Speaking::Active),
        _ => talkative(index, Speaking::Established),
    });
    let mut facts = facts(peer(Speaking::Active, 1, None));
    facts.account.speaker = Some(speaker(peers.collect()));
    facts.account.rejected = (0..1000)
        .map(|index| {
            let (_, mut rejected) = rejected(index);
            rejected.why = "w".repeat(2000);
            rejected.rule = Some("r".repeat(2000));
            rejected.examples = (0..8)
                .map(|at| format!("fd00::{at}/128").parse().unwrap())
                .collect();
            (PeerName("n".repeat(500)), rejected)
        })
        .collect();
    let status = summarise(&facts, &NodeNetworkStatusStatus::default(), at(1));
    let octets = serde_json::to_vec(&status).unwrap().len();
    assert!(octets < 1024 * 1024, "{octets}");
    let shown = status.sessions.len();
    assert_eq!(
        status.sessions_left_out,
        Some(u32::try_from(5000 - shown).unwrap())
    );
    assert_eq!(status.sessions_established.as_deref(), Some("4950/5000"));
    let down = |session: &&SessionStatus| session.state != SessionState::Established;
    assert_eq!(
        status.sessions.iter().filter(down).count(),
        50,
        "of {shown}"
    );
    assert!(status.sessions.is_sorted_by_key(|session| &session.name));

    let peers = (0..1024).map(|index| PeerSnapshot {
        name: format!("mesh:node-{index:04}"),
        ..peer(Speaking::Active, 1, refused())
    });
    facts.account.speaker = Some(speaker(peers.collect()));
    let status = summarise(&facts, &NodeNetworkStatusStatus::default(), at(1));
    assert_eq!(
        (status.sessions.len(), status.sessions_left_out),
        (1024, None)
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
    let lone = accepted(Some(vec![finding("tor", reasons::NO_POLICY)]));
    let (status, reason, _) = lone.unwrap();
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", reasons::NO_POLICY)
    );
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
        &facts(peer(Speaking::Active, 1, None)),
        &NodeNetworkStatusStatus::default(),
        at(1),
    );
    let up = summarise(&facts(peer(Speaking::Established, 5, None)), &down, at(9));
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
