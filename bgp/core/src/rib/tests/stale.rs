//! Routes that a peer has not told again, after a restart and in a refresh.

use super::*;

const LONG: Duration = Duration::from_secs(3600);

impl World {
    /// The session ends, and its routes are kept long.
    fn down_for_long(&mut self, peer: u32) {
        let peer = self.sessions.remove(&peer).unwrap();
        let retain = vec![Retention {
            long_lived_time: LONG,
            ..retention(V4)
        }];
        self.handle(Event::PeerDown { peer, retain });
    }

    fn refresh_begins(&mut self, peer: u32) {
        let (peer, family) = (self.sessions[&peer], V4);
        self.handle(Event::RefreshBegun { peer, family });
    }

    fn refresh_ends(&mut self, peer: u32) {
        let (peer, family) = (self.sessions[&peer], V4);
        self.handle(Event::RefreshEnded { peer, family });
    }

    fn known(&self) -> Vec<Prefix> {
        self.fib.keys().copied().collect()
    }

    /// All that a peer is told now, in a word for each message.
    fn words(&mut self, peer: u32) -> Vec<&'static str> {
        let mut words = Vec::new();
        while let Some(octets) = self.rib.pull(self.now, self.sessions[&peer], 100) {
            let mut stream = BytesMut::from(&octets[..]);
            while let Some(frame) = wire::frame(&mut stream, wire::MAX_MESSAGE_LEN).unwrap() {
                words.push(match (frame.kind, &frame.body[..]) {
                    (MessageType::RouteRefresh, [_, _, 1, _]) => "begin",
                    (MessageType::RouteRefresh, [_, _, 2, _]) => "end",
                    (MessageType::Update, [0, 0, 0, 0]) => "end of RIB",
                    (MessageType::Update, [0, 0, 0, 6, ..]) => "end of RIB, IPv6",
                    (MessageType::Update, _) => "routes",
                    other => panic!("{other:?}"),
                });
            }
        }
        words
    }
}

fn enhanced(peer: u32) -> Negotiated {
    Negotiated {
        enhanced_route_refresh: true,
        ..negotiated(peer)
    }
}

#[test]
fn stale_routes_stay_until_end_of_rib_and_only_what_was_told_again_remains() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down(0, &[V4]);
    assert_eq!(world.fib.len(), 2, "retained");
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    assert_eq!(world.fib.len(), 2);
    world.end_of_rib(0);
    assert_eq!(world.known(), [prefix(1)]);
}

#[test]
fn stale_routes_of_a_family_go_at_its_own_end_and_at_no_others() {
    let six: Prefix = "2001:db8:f::/64".parse().unwrap();
    let mut told = announcement(0, &[], &[]);
    told.reach = vec![Reach {
        family: Family::Ipv6Unicast,
        next_hop: std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]).into(),
        nlri: vec![six.into()],
    }];
    for (ended, left) in [(V4, six), (Family::Ipv6Unicast, prefix(1))] {
        let mut world = World::new(config(), None);
        world.up(0);
        world.tell(0, announcement(0, &[prefix(1)], &[]));
        world.tell(0, told.clone());
        world.down(0, &Family::ALL);
        world.up(0);
        assert_eq!(world.fib.len(), 2, "retained");
        world.end_of_family(0, ended);
        assert_eq!(world.known(), [left]);
    }
}

#[test]
fn stale_routes_go_when_the_peer_does_not_come_back_in_time() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    world.advance(RESTART - Duration::from_secs(1));
    assert_eq!(world.fib.len(), 1);
    world.advance(Duration::from_secs(1));
    assert!(world.fib.is_empty());
    assert_eq!(world.rib.poll_timeout(), None);
}

#[test]
fn stale_routes_go_at_once_when_the_peer_lost_its_forwarding_state_or_its_path() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    let mut lost = negotiated(0);
    lost.graceful_restart.as_mut().unwrap().families = vec![(V4, false)];
    world.up_with(0, lost);
    assert!(world.fib.is_empty(), "F bit clear");

    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    world.handle(Event::PathDown {
        index: PeerIndex(0),
    });
    assert!(world.fib.is_empty(), "path down");
}

#[test]
fn a_second_restart_drops_what_was_stale_from_the_first() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down(0, &[V4]);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    assert_eq!(world.known(), [prefix(1)]);
}

#[test]
fn routes_kept_beyond_the_restart_time_are_a_last_resort_and_go_at_last() {
    let mut world = World::new(config(), None);
    (0..3).for_each(|peer| world.up(peer));
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    let asks_not_to = announcement(0, &[prefix(3)], &[]);
    world.tell(0, with_communities(asks_not_to, &[Community::NO_LLGR]));
    // Longer, so that it loses until the other is a last resort.
    world.tell(1, announcement(1, &[prefix(1)], &[7, 7, 7]));
    let only = |world: &World, number| world.fib[&prefix(number)][0].interface;
    assert_eq!(only(&world, 1), Some(1));
    let id = world.sessions.remove(&0).unwrap();
    world.handle(Event::PeerDown {
        peer: id,
        retain: vec![Retention {
            long_lived_time: Duration::from_secs(3600),
            ..retention(V4)
        }],
    });
    assert_eq!(only(&world, 1), Some(1), "used like any other at first");
    world.advance(RESTART);
    assert_eq!(only(&world, 1), Some(2), "the other peer's is better now");
    assert_eq!(only(&world, 2), Some(1), "there is nothing else");
    assert!(
        !world.fib.contains_key(&prefix(3)),
        "it asked not to be kept"
    );
    world.answer_all();
    world.pull_all();
    assert!(world.believes(2, prefix(7)));
    assert!(!world.believes(2, prefix(2)), "the peer would not know it");
    world.advance(Duration::from_secs(3600));
    assert!(!world.fib.contains_key(&prefix(2)));
    assert_eq!(world.rib.poll_timeout(), None);
}

// RFC 9494 §4.2.
#[test]
fn routes_kept_long_outlive_the_next_restart_and_nothing_moves_their_time() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down_for_long(0);
    world.advance(RESTART);
    let left = RESTART / 2;
    world.advance(LONG - left);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down_for_long(0);
    assert_eq!(world.known(), [prefix(1), prefix(2)]);
    world.advance(left);
    assert_eq!(
        world.known(),
        [prefix(1)],
        "stale of the second restart alone"
    );
    world.advance(RESTART - left);
    world.advance(LONG - Duration::from_secs(1));
    assert_eq!(world.known(), [prefix(1)]);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.known(), []);
    assert_eq!(world.rib.poll_timeout(), None);
}

#[test]
fn a_peer_that_is_back_does_not_prolong_what_is_kept_long() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down_for_long(0);
    world.advance(RESTART);
    let left = Duration::from_secs(5);
    world.advance(LONG - left);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.advance(left);
    assert_eq!(world.known(), [prefix(1)]);
}

#[test]
fn what_is_kept_of_an_earlier_session_does_not_count_against_a_limit() {
    let limit = MaxPrefixes {
        limit: 3,
        warn_at: 3,
        terminates: true,
    };
    let mut limited = config();
    limited.peers.get_mut(&PeerIndex(0)).unwrap().max_prefixes[0] = Some(limit);
    let mut world = World::new(limited, None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down(0, &[V4]);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(3), prefix(4)], &[]));
    assert_eq!((world.fib.len(), &world.limits[..]), (4, &[][..]));
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    assert_eq!(world.limits, [true]);
}

#[test]
fn what_a_peer_does_not_tell_again_in_a_refresh_is_gone_at_its_end() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.end_of_rib(0);
    world.refresh_begins(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    assert_eq!(world.fib.len(), 2);
    world.refresh_ends(0);
    assert_eq!(world.known(), [prefix(1)]);
}

#[test]
fn the_end_of_a_refresh_that_has_not_begun_says_nothing() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down(0, &[V4]);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.refresh_ends(0);
    assert_eq!(world.known(), [prefix(1), prefix(2)]);
}

// RFC 7313 §4.
#[test]
fn a_refresh_that_begins_before_the_end_of_rib_is_not_heard_of_a_peer_that_restarts() {
    for (terms, left) in [(negotiated(0), vec![prefix(1)]), (no_restart(0), vec![])] {
        let mut world = World::new(config(), None);
        world.up_with(0, terms);
        world.tell(0, announcement(0, &[prefix(1)], &[]));
        world.refresh_begins(0);
        world.end_of_rib(0);
        assert_eq!(world.known(), [prefix(1)]);
        world.refresh_ends(0);
        assert_eq!(world.known(), left);
    }
}

#[test]
fn a_session_lost_amid_a_refresh_leaves_what_was_not_told_again_as_well() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.end_of_rib(0);
    world.refresh_begins(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    assert_eq!(world.known(), [prefix(1), prefix(2)]);
    world.advance(RESTART);
    assert_eq!(world.known(), []);
    assert_eq!(world.rib.poll_timeout(), None);
}

#[test]
fn a_refresh_that_never_ends_ends_in_time() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.end_of_rib(0);
    world.refresh_begins(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.advance(Duration::from_secs(299));
    assert_eq!(world.known(), [prefix(1), prefix(2)]);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.known(), [prefix(1)]);
}

#[test]
fn a_refresh_that_was_asked_for_is_enclosed_where_the_peer_knows_that() {
    for (terms, words) in [
        (enhanced(0), vec!["begin", "routes", "end"]),
        (negotiated(0), vec!["routes"]),
    ] {
        let mut world = World::new(config(), None);
        world.up_with(0, terms);
        world.pull_all();
        let peer = world.sessions[&0];
        world.handle(Event::Refresh { peer, family: V4 });
        assert_eq!(world.words(0), words);
    }
}

// RFC 7313 §4.
#[test]
fn a_refresh_that_is_asked_for_early_begins_behind_the_end_of_rib() {
    let mut world = World::new(config(), Some(Duration::from_secs(30)));
    world.up_with(0, enhanced(0));
    let peer = world.sessions[&0];
    world.handle(Event::Refresh { peer, family: V4 });
    assert_eq!(world.words(0), ["routes"], "our own");
    world.advance(Duration::from_secs(30));
    assert_eq!(
        world.words(0),
        ["end of RIB", "end of RIB, IPv6", "begin", "routes", "end"]
    );
}

// RFC 2918 §4.
#[test]
fn a_refresh_of_a_family_that_the_session_does_not_carry_is_ignored() {
    let mut world = World::new(config(), None);
    let terms = Negotiated {
        families: vec![V4],
        ..enhanced(0)
    };
    world.up_with(0, terms);
    world.pull_all();
    let index = PeerIndex(0);
    let family = Family::Ipv6Unicast;
    world.handle(Event::Resend { index, family });
    assert_eq!(world.words(0), [""; 0]);
}
