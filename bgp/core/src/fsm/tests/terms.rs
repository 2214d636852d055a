//! What two OPENs agree on.

use super::*;
use crate::types::{BgpRole, FamilySet, PeerAs, PeerKind};
use crate::wire::{LongLived, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN};

const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

/// The OPEN that `config` sends.
fn offer(config: Config) -> Open {
    let mut bench = Bench::new(config);
    bench.event(Event::Admin(Admin::Up));
    let sent = bench.connected(CONN, Role::Active).iter();
    let mut opens = sent.filter_map(|action| match action {
        Action::Send {
            message: Message::Open(open),
            ..
        } => Some(open.clone()),
        _ => None,
    });
    opens.next().expect("an OPEN was sent")
}

/// [`open`] with more capabilities.
fn open_with(capabilities: impl IntoIterator<Item = Capability>) -> Open {
    let mut open = open();
    open.capabilities.extend(capabilities);
    open
}

fn terms(config: Config, open: Open) -> Negotiated {
    let bench = Bench::established(config, open);
    bench.peer.negotiated().unwrap().clone()
}

/// The codes of the NOTIFICATION that answers `open`, or `None` when it is accepted.
fn refused(config: Config, open: Open) -> Option<(u8, u8)> {
    let mut bench = Bench::new(config);
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Active);
    bench.receive(CONN, Incoming::Open(open));
    let told = bench.notified(CONN);
    assert_eq!(bench.closed(CONN), !told.is_empty());
    told.first().copied()
}

fn set(families: &[Family]) -> FamilySet {
    families.iter().copied().collect()
}

fn add_path(send: &[Family], receive: &[Family]) -> AddPath {
    AddPath {
        send: set(send),
        receive: set(receive),
    }
}

#[test]
fn a_plain_session_is_what_two_plain_speakers_agree_on() {
    let mut plain = config();
    plain.graceful_restart = None;
    plain.hold_time = Duration::from_secs(90);
    let mut open = open();
    open.hold_time = Duration::from_secs(90);
    let expected = Negotiated::plain(Asn(65000), Asn(65001), RouterId(10));
    assert_eq!(terms(plain, open), expected);
}

#[test]
fn a_session_of_a_speaker_with_itself_has_every_extension() {
    let mut all = config();
    all.add_path = add_path(&Family::ALL, &Family::ALL);
    all.extended_next_hop = true;
    all.link_local_next_hop = true;
    all.extended_messages = true;
    all.long_lived = Some(LocalLongLived {
        stale_times: vec![(V4, Duration::from_secs(86400))],
        longest: None,
    });
    all.identity = Identity {
        host: Some(("leaf1".into(), "example".into())),
        software: Some("caracal 1\n".into()),
    };
    let mut mirror = all.clone();
    mirror.local_asn = Asn(65001);
    mirror.peer_asn = Asn(65000).into();
    mirror.router_id = RouterId(10);
    let terms = terms(all.clone(), offer(mirror));
    assert!(terms.enhanced_route_refresh && terms.route_refresh && terms.four_octet_as);
    assert_eq!(terms.add_path, all.add_path);
    assert!(terms.extended_next_hop && terms.link_local_next_hop);
    assert_eq!(terms.max_send_len, MAX_EXTENDED_LEN);
    assert_eq!(
        terms.long_lived,
        Some(vec![PeerLongLived {
            family: V4,
            forwarding: true,
            stale_time: Duration::from_secs(86400),
        }])
    );
    // What a peer tells of itself is shown, and never trusted to be text.
    assert_eq!(terms.peer_identity.host, all.identity.host);
    assert_eq!(
        terms.peer_identity.software.as_deref(),
        Some("caracal 1\\n")
    );
    assert_eq!(terms.decode_context().add_path, FamilySet::ALL);
    assert!(terms.decode_context().extended_next_hop);
    assert_eq!(terms.encode_context().max_len, MAX_EXTENDED_LEN);
}

#[test]
fn path_identifiers_go_where_one_side_sends_and_the_other_receives() {
    // RFC 7911 §4: 1 receive, 2 send, 3 both.
    let cases = [
        (add_path(&[], &[]), 3, add_path(&[], &[])),
        (add_path(&[V4], &[]), 3, add_path(&[V4], &[])),
        (add_path(&[V4], &[]), 1, add_path(&[V4], &[])),
        (add_path(&[V4], &[]), 2, add_path(&[], &[])),
        (add_path(&[], &[V4]), 2, add_path(&[], &[V4])),
        (add_path(&[], &[V4]), 1, add_path(&[], &[])),
        (add_path(&[V4], &[V4]), 3, add_path(&[V4], &[V4])),
        (add_path(&[V4], &[V4]), 1, add_path(&[V4], &[])),
        // Any other value: not understood.
        (add_path(&[V4], &[V4]), 0, add_path(&[], &[])),
        (add_path(&[V4], &[V4]), 4, add_path(&[], &[])),
        // Another family's offer is not this one's.
        (add_path(&[V6], &[V6]), 3, add_path(&[], &[])),
    ];
    for (own, theirs, agreed) in cases {
        let mut config = config();
        config.add_path = own;
        let open = open_with([Capability::AddPath(vec![(V4.into(), theirs)])]);
        assert_eq!(terms(config, open).add_path, agreed, "{own:?} and {theirs}");
    }
}

#[test]
fn our_offer_of_path_identifiers_names_each_family_once() {
    let mut config = config();
    config.add_path = add_path(&[V4], &[V4, V6]);
    let offered = offer(config).capabilities;
    let expected = Capability::AddPath(vec![(V4.into(), 3), (V6.into(), 1)]);
    assert!(offered.contains(&expected), "{offered:?}");
    let none = offer(super::config()).capabilities;
    assert!(!none.iter().any(|c| matches!(c, Capability::AddPath(_))));
}

#[test]
fn ipv6_next_hops_for_ipv4_need_the_offer_of_whoever_receives_them() {
    let theirs = || Capability::ExtendedNextHop(vec![(V4.into(), 2)]);
    for (ours, offered, send, accept) in [
        (true, true, true, true),
        (true, false, false, true),
        (false, true, false, false),
    ] {
        let mut config = config();
        config.extended_next_hop = ours;
        let open = open_with(offered.then(theirs));
        let terms = terms(config, open);
        assert_eq!(terms.extended_next_hop, send);
        assert_eq!(terms.decode_context().extended_next_hop, accept);
    }
    // Neither another SAFI nor another next hop family will do.
    for wrong in [(AfiSafi { afi: 1, safi: 128 }, 2), (V4.into(), 1)] {
        let mut config = config();
        config.extended_next_hop = true;
        let open = open_with([Capability::ExtendedNextHop(vec![wrong])]);
        assert!(!terms(config, open).extended_next_hop);
    }
}

#[test]
fn link_local_next_hops_are_agreed_on_where_both_say_so() {
    for (ours, theirs) in [(true, true), (true, false), (false, true)] {
        let mut config = config();
        config.link_local_next_hop = ours;
        let open = open_with(theirs.then_some(Capability::LinkLocalNextHop));
        assert_eq!(terms(config, open).link_local_next_hop, ours && theirs);
    }
}

#[test]
fn long_messages_go_to_peers_that_take_them_and_come_as_soon_as_we_offer() {
    for (ours, theirs) in [(true, true), (true, false), (false, true)] {
        let mut config = config();
        config.extended_messages = ours;
        let receive = if ours {
            MAX_EXTENDED_LEN
        } else {
            MAX_MESSAGE_LEN
        };
        assert_eq!(config.max_receive_len(), receive);
        let open = open_with(theirs.then_some(Capability::ExtendedMessage));
        let send = if ours && theirs {
            MAX_EXTENDED_LEN
        } else {
            MAX_MESSAGE_LEN
        };
        assert_eq!(terms(config, open).max_send_len, send);
    }
}

#[test]
fn long_retention_needs_both_capabilities_of_both_sides() {
    let long = |seconds| {
        Capability::LongLivedRestart(vec![LongLived {
            family: V4.into(),
            forwarding: false,
            stale_time: Duration::from_secs(seconds),
        }])
    };
    let with_both = |seconds| {
        let mut open = restart_open(&[(V4, true)], true, false);
        open.capabilities.push(long(seconds));
        open
    };
    let ours = |longest: Option<u64>| {
        let mut config = config();
        config.long_lived = Some(LocalLongLived {
            stale_times: Vec::new(),
            longest: longest.map(Duration::from_secs),
        });
        config
    };
    let agreed = |config, open| {
        terms(config, open).long_lived.map(|families| {
            let times = families.iter().map(|listed| listed.stale_time.as_secs());
            times.collect::<Vec<u64>>()
        })
    };
    assert_eq!(agreed(ours(None), with_both(600)), Some(vec![600]));
    assert_eq!(agreed(ours(Some(60)), with_both(600)), Some(vec![60]));
    assert_eq!(agreed(config(), with_both(600)), None);
    // RFC 9494 §4.5: ignored without the other capability.
    assert_eq!(agreed(ours(None), open_with([long(600)])), None);
    let mut alone = ours(None);
    alone.graceful_restart = None;
    assert_eq!(agreed(alone.clone(), with_both(600)), None);
    let offered = offer(alone).capabilities;
    assert!(
        !offered
            .iter()
            .any(|c| matches!(c, Capability::LongLivedRestart(_)))
    );
}

#[test]
fn our_offer_of_long_retention_says_which_state_survived() {
    let mut config = config();
    let restart = config.graceful_restart.as_mut().unwrap();
    restart.families = vec![(V4, true), (V6, false)];
    config.long_lived = Some(LocalLongLived {
        stale_times: vec![(V4, Duration::from_secs(1)), (V6, Duration::from_secs(2))],
        longest: None,
    });
    let open = offer(config);
    let offered = open.long_lived_restart().unwrap();
    let said: Vec<(bool, u64)> = offered
        .iter()
        .map(|listed| (listed.forwarding, listed.stale_time.as_secs()))
        .collect();
    assert_eq!(said, [(true, 1), (false, 2)]);
}

#[test]
fn roles_must_fit_and_in_strict_mode_must_be_said() {
    use BgpRole::{Customer, Peer, Provider, RouteServer, RouteServerClient};
    let mismatch = Some((2, 11));
    let roles = [Provider, RouteServer, RouteServerClient, Customer, Peer];
    for own in roles {
        for theirs in 0..=u8::MAX {
            let mut config = config();
            config.role = Some(LocalRole {
                role: own,
                strict: false,
            });
            let fits = theirs == own.counterpart().code();
            let answer = refused(config, open_with([Capability::Role(theirs)]));
            assert_eq!(answer, (!fits).then_some((2, 11)), "{own} and {theirs}");
        }
    }
    let with = |role, strict| {
        let mut config = config();
        config.role = Some(LocalRole { role, strict });
        config
    };
    assert_eq!(refused(with(Provider, false), open()), None);
    assert_eq!(refused(with(Provider, true), open()), mismatch);
    let twice = |a, b| open_with([Capability::Role(a), Capability::Role(b)]);
    assert_eq!(refused(with(Provider, true), twice(3, 3)), None);
    assert_eq!(refused(with(Provider, false), twice(3, 4)), mismatch);
    // Whoever contradicts himself is refused by those without a role too.
    assert_eq!(refused(config(), twice(3, 4)), mismatch);
    assert_eq!(refused(config(), twice(4, 4)), None);
    let terms = terms(with(Customer, false), open());
    assert_eq!(terms.role, Some(Customer));
}

#[test]
fn internal_peers_have_no_roles() {
    let mut config = config();
    config.peer_asn = PeerAs::Internal;
    config.role = Some(LocalRole {
        role: BgpRole::Peer,
        strict: true,
    });
    let offered = offer(config.clone()).capabilities;
    assert!(!offered.iter().any(|c| matches!(c, Capability::Role(_))));
    let mut open = open_with([Capability::Role(0), Capability::Role(1)]);
    open.asn = config.local_asn;
    assert_eq!(terms(config, open).role, None);
}

#[test]
fn peers_are_admitted_by_number_or_by_kind() {
    let cases = [
        (PeerAs::Internal, 65000, None, PeerKind::Internal),
        (PeerAs::Internal, 65001, Some((2, 2)), PeerKind::Internal),
        (PeerAs::External, 65001, None, PeerKind::External),
        (PeerAs::External, 4_200_000_000, None, PeerKind::External),
        (PeerAs::External, 65000, Some((2, 2)), PeerKind::External),
        (PeerAs::External, 0, Some((2, 2)), PeerKind::External),
        (PeerAs::External, 23456, Some((2, 2)), PeerKind::External),
    ];
    for (configured, shown, answer, kind) in cases {
        let mut config = config();
        config.peer_asn = configured;
        assert_eq!(config.peer_kind(), kind);
        let mut open = open();
        open.asn = Asn(shown);
        assert_eq!(refused(config.clone(), open.clone()), answer, "{shown}");
        if answer.is_none() {
            let terms = terms(config, open);
            assert_eq!(terms.peer_asn, Asn(shown));
            assert_eq!(terms.peer_kind(), kind);
            assert_eq!(terms.decode_context().peer, kind);
        }
    }
}

#[test]
fn a_session_with_an_old_number_of_ours_is_judged_by_that_number() {
    let mut config = config();
    config.local_asn = Asn(64999);
    config.peer_asn = PeerAs::Internal;
    let mut open = open();
    open.asn = Asn(64999);
    assert_eq!(offer(config.clone()).asn, Asn(64999));
    let terms = terms(config, open);
    assert_eq!(terms.local_asn, Asn(64999));
    assert_eq!(terms.peer_kind(), PeerKind::Internal);
}

#[test]
fn keepalives_come_at_least_thrice_per_hold_time_and_at_most_once_a_second() {
    let cases = [
        (None, 30, 10_000),
        (Some(5_000), 30, 5_000),
        (Some(20_000), 30, 10_000),
        (Some(0), 30, 1_000),
        (Some(10), 30, 1_000),
        (None, 3, 1_000),
        (None, 4, 1_333),
        (Some(5_000), 0, 0),
    ];
    for (keepalive, hold, expected) in cases {
        let mut config = config();
        config.keepalive = keepalive.map(Duration::from_millis);
        let mut open = open();
        open.hold_time = Duration::from_secs(hold);
        let agreed = terms(config, open).keepalive;
        assert_eq!(agreed.as_millis(), expected, "{keepalive:?}, hold {hold}");
    }
}

#[test]
fn the_send_hold_time_is_longer_than_the_hold_time_or_off() {
    let cases = [
        (None, 30, 480),
        (None, 300, 600),
        (Some(60), 30, 60),
        (Some(10), 30, 31),
        (Some(0), 30, 0),
        (Some(60), 0, 0),
        (None, 0, 0),
    ];
    for (configured, hold, expected) in cases {
        let mut config = config();
        config.hold_time = Duration::from_secs(300);
        config.send_hold_time = configured.map(Duration::from_secs);
        let mut open = open();
        open.hold_time = Duration::from_secs(hold);
        let agreed = terms(config, open).send_hold_time;
        assert_eq!(agreed.as_secs(), expected, "{configured:?}, hold {hold}");
    }
}

#[test]
fn a_peer_with_enhanced_refresh_alone_can_be_asked_too() {
    let mut open = open_with([Capability::EnhancedRouteRefresh]);
    open.capabilities.retain(|c| *c != Capability::RouteRefresh);
    let terms = terms(config(), open);
    assert!(terms.enhanced_route_refresh && terms.can_refresh(V4) && terms.can_refresh(V6));
}
