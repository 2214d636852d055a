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
        draining: false,
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
fn a_dialling_peer_is_one_state_and_writes_once() {
    let first = summarise(
        &facts(peer(Speaking::Connect, 1, refused())),
        &NodeNetworkStatusStatus::default(),
        at(1),
    );
    let again = PeerSnapshot {
        attempts: 7,
        ..peer(Speaking::Active, 2, refused())
    };
    let second = summarise(&facts(again), &first, at(2));
    assert_eq!(first, second);
    assert_eq!(first.sessions[0].since, Some(Time(at_ms(1))));
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

fn kebab(camel: &str) -> String {
    let mut word = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

#[test]
fn the_reason_of_a_session_is_what_ended_it_and_not_what_was_said_once() {
    let cleared = error(1, "cease: administrative reset");
    let said = |reason, text| {
        let down = PeerSnapshot {
            last_received_error: cleared.clone(),
            last_sent_error: cleared.clone(),
            ..peer(Speaking::Idle, 5, why(reason, text))
        };
        let status = first(down);
        let mut all = status.conditions.into_iter();
        let condition = all.find(|it| it.type_ == conditions::SESSIONS_ESTABLISHED);
        let reason = status.sessions[0].reason.clone().unwrap();
        assert_eq!(condition.unwrap().reason, reason);
        assert_eq!(status.sessions[0].message.as_deref(), Some(text));
        reason
    };
    let shutdown =
        "the peer sent cease: administrative shutdown (\"refused; hold timer timed out\")";
    let documented = include_str!("../../../../docs/operating-bgp.md");
    for (reason, text, expected) in [
        (
            DownReason::AdminDown,
            "administratively down",
            reasons::ADMIN_DOWN,
        ),
        (
            DownReason::Cleared,
            "cleared by an operator",
            reasons::CLEARED,
        ),
        (DownReason::Reconfigured, "changed", reasons::RECONFIGURED),
        (
            DownReason::Deconfigured,
            "peer removed",
            reasons::DECONFIGURED,
        ),
        (
            DownReason::Restarting,
            "this speaker restarts",
            reasons::RESTARTING,
        ),
        (
            DownReason::MissingSecret,
            "no Secret",
            reasons::MISSING_SECRET,
        ),
        (
            DownReason::MissingSecretKey,
            "no key",
            reasons::MISSING_SECRET_KEY,
        ),
        (
            DownReason::InvalidSecret,
            "it is empty",
            reasons::INVALID_SECRET,
        ),
        (
            DownReason::NotSupportedByKernel,
            "the kernel has no TCP-AO",
            reasons::NOT_SUPPORTED_BY_KERNEL,
        ),
        (
            DownReason::InvalidSpec,
            "two keys are one",
            reasons::INVALID_SPEC,
        ),
        (
            DownReason::InterfaceNotReady,
            "eth2: there is no such interface",
            reasons::INTERFACE_NOT_READY,
        ),
        (
            DownReason::PeerNotFound,
            "eth2: nobody",
            reasons::PEER_NOT_FOUND,
        ),
        (
            DownReason::SeveralPeers,
            "eth2: several",
            reasons::SEVERAL_PEERS,
        ),
        (
            DownReason::LinkDown,
            "path down: link down",
            reasons::LINK_DOWN,
        ),
        (
            DownReason::BfdDown,
            "path down: BFD down",
            reasons::BFD_DOWN,
        ),
        (
            DownReason::AwaitsPath,
            "waiting until BFD",
            reasons::AWAITS_PATH,
        ),
        (
            DownReason::HoldTimerExpired,
            "hold timer expired",
            reasons::HOLD_TIMER_EXPIRED,
        ),
        (
            DownReason::SendHoldTimerExpired,
            "send hold timer expired",
            reasons::SEND_HOLD_TIMER_EXPIRED,
        ),
        (
            DownReason::NotificationReceived,
            shutdown,
            reasons::NOTIFICATION_RECEIVED,
        ),
        (
            DownReason::NotificationSent,
            "we sent OPEN error: bad peer AS",
            reasons::NOTIFICATION_SENT,
        ),
        (
            DownReason::ConnectionRefused,
            "connection refused",
            reasons::CONNECTION_REFUSED,
        ),
        (
            DownReason::ConnectTimeout,
            "timed out",
            reasons::CONNECT_TIMEOUT,
        ),
        (
            DownReason::Unreachable,
            "No route to host",
            reasons::UNREACHABLE,
        ),
        (
            DownReason::ConnectionClosed,
            "the peer closed the connection",
            reasons::CONNECTION_CLOSED,
        ),
        (
            DownReason::ConnectionFailed,
            "Cannot assign requested address",
            reasons::CONNECTION_FAILED,
        ),
        (
            DownReason::PeerRestarted,
            "it restarted",
            reasons::PEER_RESTARTED,
        ),
        (DownReason::CollisionLost, "lost", reasons::COLLISION_LOST),
        (
            DownReason::PrefixLimitExceeded,
            "the peer sent more than 5 prefixes",
            reasons::PREFIX_LIMIT_EXCEEDED,
        ),
    ] {
        assert_eq!(said(reason, text), expected, "{text}");
        // One word, here and in the speaker's JSON.
        let word = serde_json::to_value(reason).unwrap();
        assert_eq!(word.as_str(), Some(&*kebab(expected)));
        assert!(documented.contains(&format!("`{expected}`")), "{expected}");
    }
    let nothing = first(PeerSnapshot {
        last_received_error: cleared.clone(),
        ..peer(Speaking::Connect, 5, None)
    });
    assert_eq!(
        nothing.sessions[0].reason.as_deref(),
        Some(reasons::CONNECTING)
    );
}

#[test]
fn a_peer_that_refuses_each_attempt_alike_writes_once() {
    let refused = |at_ms, text| PeerSnapshot {
        last_received_error: error(at_ms, text),
        ..peer(
            Speaking::Active,
            at_ms,
            why(DownReason::NotificationReceived, "the peer sent it"),
        )
    };
    let bad_as = "OPEN error: bad peer AS";
    let first = first(refused(1000, bad_as));
    assert_eq!(after(&first, refused(9000, bad_as)), first);
    let other = after(&first, refused(9000, "cease: connection rejected"));
    let last = other.sessions[0].last_error.clone().unwrap();
    assert_eq!(
        (last.direction, last.time, &*last.message),
        (
            ErrorDirection::Received,
            Time(at(9)),
            "cease: connection rejected"
        )
    );
    assert_eq!(other.sessions[0].since, first.sessions[0].since);

    // The same after a session was up is another one.
    let up = PeerSnapshot {
        last_received_error: error(1000, bad_as),
        ..peer(Speaking::Established, 2000, None)
    };
    let up = after(&first, up);
    let again = after(&up, refused(9000, bad_as));
    let times: Vec<_> = [&up, &again]
        .map(|status| status.sessions[0].last_error.clone().unwrap().time)
        .to_vec();
    assert_eq!(times, [Time(at(1)), Time(at(9))]);
}

#[test]
fn a_session_has_counts_of_all_families_and_the_later_error_and_says_what_is_unusual() {
    let up = PeerSnapshot {
        draining: true,
        last_sent_error: error(3000, "hold timer expired"),
        last_received_error: error(2000, "cease: administrative reset"),
        routes: routes(vec![
            family(BgpFamily::Ipv4Unicast, 14, 12),
            family(BgpFamily::Ipv6Unicast, 3, 3),
        ]),
        ..peer(Speaking::Established, 5000, None)
    };
    let mut facts = facts(up);
    facts.account.rejected.push(rejected(2));
    let status = summarise(&facts, &NodeNetworkStatusStatus::default(), at(1));
    let expected = serde_json::json!({
        "name": "tor-1", "peerIP": "10.0.0.1", "asNumber": 65001, "state": "Established",
        "since": "1970-01-01T00:00:05Z", "message": "draining",
        "lastError": {
            "direction": "Sent", "time": "1970-01-01T00:00:03Z", "message": "hold timer expired",
        },
        "families": ["ipv4-unicast", "ipv6-unicast"],
        "prefixes": {"received": 17, "accepted": 15, "advertised": 2},
    });
    assert_eq!(serde_json::to_value(&status.sessions[0]).unwrap(), expected);
    let expected = serde_json::json!([{
        "session": "tor-1", "reason": "policy", "rule": "no-lab: lab", "count": 2,
        "prefixes": ["10.99.0.0/16", "fd00::/64"],
        "message": "the import policy rejects it: rule 'no-lab: lab'",
    }]);
    assert_eq!(serde_json::to_value(&status.rejected).unwrap(), expected);
}

#[test]
fn a_session_without_a_policy_says_so_although_it_is_up() {
    let (v4, v6) = (BgpFamily::Ipv4Unicast, BgpFamily::Ipv6Unicast);
    let said = |import: &[BgpFamily], export: &[BgpFamily]| {
        let up = PeerSnapshot {
            no_import_policy: import.to_vec(),
            no_export_policy: export.to_vec(),
            ..peer(Speaking::Established, 1, None)
        };
        let status = first(up);
        assert!(conditions::holds(
            &status.conditions,
            conditions::SESSIONS_ESTABLISHED
        ));
        let session = status.sessions.into_iter().next().unwrap();
        assert_eq!(session.state, SessionState::Established);
        session.reason.zip(session.message)
    };
    assert_eq!(said(&[], &[]), None);
    for (import, export, expected) in [
        (
            vec![v4, v6],
            vec![v4, v6],
            "no policy for ipv4-unicast and ipv6-unicast: nothing is taken or told (RFC 8212)",
        ),
        (
            vec![v6],
            vec![],
            "no import policy for ipv6-unicast: nothing is taken (RFC 8212)",
        ),
        (
            vec![],
            vec![v4],
            "no export policy for ipv4-unicast: nothing is told (RFC 8212)",
        ),
        (
            vec![v4],
            vec![v6],
            "no import policy for ipv4-unicast: nothing is taken, \
             no export policy for ipv6-unicast: nothing is told (RFC 8212)",
        ),
    ] {
        let (reason, message) = said(&import, &export).unwrap();
        assert_eq!((&*reason, &*message), (reasons::NO_POLICY, expected));
    }
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
