//! What single events lead to.

use super::*;

#[test]
fn a_learnt_route_is_told_only_after_the_fib_has_it_and_withdrawn_at_once() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.pull_all();
    assert!(world.believes(2, prefix(7)), "own routes do not wait");
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.pull_all();
    assert!(!world.believes(2, prefix(1)));
    world.answer_all();
    world.pull_all();
    assert!(world.believes(2, prefix(1)));
    assert!(!world.believes(0, prefix(1)), "split horizon");
    world.tell(
        0,
        Update {
            withdrawn: vec![(V4, vec![prefix(1).into()])],
            ..Update::default()
        },
    );
    world.pull_all();
    assert!(!world.believes(2, prefix(1)), "a withdrawal waited");
}

#[test]
fn a_route_that_the_fib_refuses_is_told_to_nobody() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.answer_all_with(Some("no space".to_owned()));
    world.pull_all();
    assert!(!world.believes(2, prefix(1)));
    let route = world.rib.covering(&prefix(1)).unwrap();
    assert_eq!(route.fib, FibState::Failed("no space".into()));
}

// RFC 4271 §9.1.2.1.
#[test]
fn a_path_by_a_next_hop_that_leads_nowhere_gives_way_to_a_worse_one_until_it_does() {
    let mut world = World::new(config(), None);
    for peer in [0, 1, 2] {
        world.up(peer);
    }
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.tell(1, announcement(1, &[prefix(1)], &[7]));
    let ways: Vec<Forward> = world.tracked.iter().copied().collect();
    let [better, worse] = ways[..] else {
        panic!("{ways:?}");
    };
    let reached = |world: &mut World, forward, reachability| {
        world.handle(Event::Reached(vec![(forward, reachability)]));
        world.answer_all();
        world.pull_all();
        world.fib[&prefix(1)].to_vec()
    };
    let told = |world: &World| world.believed[&2][&prefix(1)].0.as_path.to_string();
    assert_eq!(world.fib[&prefix(1)][..], [better]);
    assert_eq!(
        reached(&mut world, better, Reachability::Unreachable),
        [worse]
    );
    assert_eq!(told(&world), "65002 7");
    // There is nothing else to try, and the FIB says why it fails.
    assert_eq!(world.fib[&prefix(2)][..], [better]);
    let lost: Vec<_> = world.rib.routes(Some(prefix(1)))[0]
        .selection
        .clone()
        .unwrap()
        .lost_at;
    assert_eq!(lost, [Some(Step::NextHop), None]);
    // A route does not hold itself up.
    let over = Reachability::Over(prefix(1));
    assert_eq!(reached(&mut world, better, over), [worse]);
    let over = Reachability::Over(prefix(9));
    assert_eq!(reached(&mut world, better, over), [better]);
    assert_eq!(told(&world), "65001");
    world.down(0, &[]);
    world.down(1, &[]);
    world.pull_all();
    assert!(world.tracked.is_empty());
}

#[test]
fn next_hops_that_lead_nowhere_share_no_load() {
    let mut world = World::new(config(), None);
    for peer in [0, 1] {
        world.up(peer);
        world.tell(peer, announcement(peer, &[prefix(1)], &[]));
    }
    let ways: Vec<Forward> = world.tracked.iter().copied().collect();
    assert_eq!(world.fib[&prefix(1)][..], ways);
    world.handle(Event::Reached(vec![(ways[0], Reachability::Unreachable)]));
    assert_eq!(world.fib[&prefix(1)][..], ways[1..]);
    world.handle(Event::Reached(vec![(ways[0], Reachability::Direct)]));
    assert_eq!(world.fib[&prefix(1)][..], ways);
}

#[test]
fn loops_and_protected_prefixes_are_kept_with_their_reason_and_never_used() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.tell(0, announcement(0, &[prefix(1)], &[65_000]));
    let protected: Prefix = "10.255.3.0/26".parse().unwrap();
    world.tell(0, announcement(0, &[protected], &[]));
    let mut looped = announcement(2, &[prefix(2)], &[]);
    looped.attributes.as_mut().unwrap().originator_id = Some(RouterId(1));
    world.tell(2, looped);
    let mut looped = announcement(2, &[prefix(3)], &[]);
    looped.attributes.as_mut().unwrap().cluster_list = [RouterId(5), RouterId(1)].into();
    world.tell(2, looped);
    let mut own_next_hop = announcement(2, &[prefix(4)], &[]);
    own_next_hop.reach[0].next_hop = NextHop::V4([172, 16, 0, 2].into());
    world.tell(2, own_next_hop);
    assert!(world.fib.is_empty());
    let why = |prefix| world.rib.routes(Some(prefix))[0].paths[0].rejected.clone();
    assert_eq!(why(prefix(1)), Some(Rejection::AsLoop));
    assert_eq!(
        why(protected),
        Some(Rejection::Protected("10.255.0.0/16".parse().unwrap()))
    );
    assert_eq!(why(prefix(2)), Some(Rejection::OriginatorIsSelf));
    assert_eq!(why(prefix(3)), Some(Rejection::ClusterLoop));
    assert_eq!(why(prefix(4)), Some(Rejection::OwnNextHop));
}

#[test]
fn a_new_import_policy_judges_old_routes_without_a_word_from_the_peer() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    let mut closed = config();
    closed.peers.get_mut(&PeerIndex(0)).unwrap().import = Arc::new(Policy::reject_all());
    world.handle(Event::Configure(closed));
    assert!(world.fib.is_empty());
    world.handle(Event::Configure(config()));
    assert!(world.fib.contains_key(&prefix(1)));
}

// Found in other speakers: the policy of a peer that had been deleted judged its successor.
#[test]
fn a_peer_taken_away_leaves_nothing_and_comes_back_under_another_policy() {
    let mut without = config();
    without.peers.remove(&PeerIndex(0));
    let mut otherwise = config();
    otherwise.peers.get_mut(&PeerIndex(0)).unwrap().import =
        Arc::new(Policy::only("two", vec![PrefixMatch::orlonger(prefix(2))]));
    for stale in [false, true] {
        let mut world = World::new(config(), None);
        world.up(0);
        world.up(2);
        world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
        world.answer_all();
        if stale {
            world.down(0, &[V4]);
        }
        world.handle(Event::Configure(without.clone()));
        world.tell(0, announcement(0, &[prefix(3)], &[]));
        world.pull_all();
        assert!(world.fib.is_empty());
        assert_eq!(world.believed[&2].keys().collect::<Vec<_>>(), [&prefix(7)]);

        world.handle(Event::Configure(otherwise.clone()));
        world.up(0);
        world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
        assert_eq!(world.fib.keys().copied().collect::<Vec<_>>(), [prefix(2)]);
    }
}

#[test]
fn equal_paths_become_one_route_with_many_ways() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(1);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.tell(1, announcement(1, &[prefix(1)], &[]));
    assert_eq!(world.fib[&prefix(1)].len(), 2);
    world.down(1, &[]);
    assert_eq!(world.fib[&prefix(1)].len(), 1);
}

#[test]
fn events_of_an_older_session_are_ignored() {
    let mut world = World::new(config(), None);
    world.up(0);
    let old = world.sessions[&0];
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.handle(Event::PeerDown {
        peer: old,
        retain: vec![],
    });
    world.handle(Event::Updates {
        peer: old,
        updates: vec![announcement(0, &[prefix(2)], &[])],
    });
    assert_eq!(world.fib.keys().copied().collect::<Vec<_>>(), [prefix(1)]);
}

#[test]
fn after_a_restart_selection_waits_for_every_peer_that_takes_part() {
    let mut world = World::new(config(), Some(Duration::from_secs(30)));
    for peer in [0, 1, 2] {
        world.up(peer);
    }
    world.up_with(3, no_restart(3));
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.end_of_rib(0);
    world.pull_all();
    assert!(world.believes(2, prefix(7)), "own routes do not wait");
    world.end_of_rib(1);
    assert!(world.fib.is_empty() && world.complete == 0);
    assert!(world.rib.deferring());
    world.end_of_rib(2);
    world.advance(SETTLE);
    assert!(
        world.rib.deferring(),
        "two peers have ended without a route"
    );
    world.tell(1, announcement(1, &[prefix(1)], &[]));
    world.tell(2, announcement(2, &[prefix(2)], &[]));
    assert!(world.fib.is_empty(), "more may follow");
    world.advance(SETTLE);
    assert_eq!((world.fib.len(), world.complete), (2, 1));
    world.pull_all();
    assert!(world.ended[&2].is_empty(), "the FIB has not answered yet");
    world.answer_all();
    world.pull_all();
    assert!(world.believes(2, prefix(1)));
    assert_eq!(world.ended[&2].len(), 2);
}

#[test]
fn after_a_restart_selection_waits_no_longer_than_its_deadline() {
    let mut world = World::new(config(), Some(Duration::from_secs(30)));
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.advance(Duration::from_secs(29));
    assert!(world.fib.is_empty());
    world.advance(Duration::from_secs(1));
    assert_eq!((world.fib.len(), world.complete), (1, 1));
}

#[test]
fn after_a_restart_a_peer_behind_a_dead_link_is_not_waited_for() {
    let mut world = World::new(config(), Some(Duration::from_secs(30)));
    for peer in 1..PEERS {
        world.up(peer);
        world.end_of_rib(peer);
    }
    assert!(world.rib.deferring());
    world.handle(Event::PathDown {
        index: PeerIndex(0),
    });
    world.advance(EARLY_END_OF_RIB);
    assert!(!world.rib.deferring());
}

#[test]
fn after_a_restart_a_peer_that_is_kept_down_is_not_waited_for() {
    let mut down = config();
    let peer = down.peers.get_mut(&PeerIndex(0)).unwrap();
    peer.graceful_restart = false;
    for since_the_start in [true, false] {
        let first = if since_the_start {
            down.clone()
        } else {
            config()
        };
        let mut world = World::new(first, Some(Duration::from_secs(30)));
        if !since_the_start {
            // Its session is up, and about to go.
            world.up(0);
        }
        for peer in 1..PEERS {
            world.up(peer);
            world.end_of_rib(peer);
        }
        assert!(world.rib.deferring());
        world.handle(Event::Configure(down.clone()));
        world.advance(EARLY_END_OF_RIB);
        assert!(!world.rib.deferring(), "since the start: {since_the_start}");
    }
}

#[test]
fn end_of_rib_does_not_wait_for_a_stuck_fib_for_ever() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.pull_all();
    assert!(world.ended[&0].is_empty());
    assert!(world.rib.poll_timeout().is_some());
    world.advance(Duration::from_secs(11));
    world.pull_all();
    assert_eq!(world.ended[&0].len(), 2);
    assert_eq!(world.rib.poll_timeout(), None);
}

#[test]
fn a_refresh_tells_everything_again() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.pull_all();
    world.believed.get_mut(&0).unwrap().clear();
    world.handle(Event::Refresh {
        peer: world.sessions[&0],
        family: V4,
    });
    world.pull_all();
    assert!(world.believes(0, prefix(7)));
}

#[test]
fn a_reader_that_fell_behind_is_told_the_difference_from_the_table() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.answer_all();
    world.pull_all();
    for round in 0..4000 {
        world.tell(0, announcement(0, &[prefix(1)], &[1 + round % 2]));
        if round == 2000 {
            world.tell(
                0,
                Update {
                    withdrawn: vec![(V4, vec![prefix(2).into()])],
                    ..Update::default()
                },
            );
        }
    }
    world.answer_all();
    let journal = world.rib.footprint().journal;
    assert!(journal < 2000, "journal grew to {journal}");
    world.pull_all();
    assert!(!world.believes(2, prefix(2)));
    let (attributes, _) = &world.believed[&2][&prefix(1)];
    assert_eq!(attributes.as_path.to_string(), "65001 2");
}

#[test]
fn memory_returns_to_its_baseline_after_churn() {
    let mut world = World::new(config(), None);
    world.up(2);
    world.pull_all();
    let before = world.rib.footprint();
    for round in 0..50_u32 {
        world.up(0);
        for hop in 1..100 {
            world.tell(
                0,
                announcement(0, &[prefix((hop % 7) as u8)], &[hop, round + 1]),
            );
        }
        world.answer_all();
        world.pull_all();
        world.down(0, &[]);
        world.pull_all();
        world.sessions.remove(&0);
    }
    assert_eq!(world.rib.footprint(), before);
    assert_eq!(world.rib.len(), 1, "the own route is left");
}
