//! What a status says of a session.

use super::*;

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
    let documented = include_str!("../../../../../docs/operating-bgp.md");
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
            "BFD has not said yet",
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
        draining: Some("the node is cordoned".into()),
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
        "since": "1970-01-01T00:00:05Z", "message": "draining: the node is cordoned",
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
