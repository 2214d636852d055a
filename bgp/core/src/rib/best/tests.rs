use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::rib::path::PathPeer;
use crate::types::Asn;
use crate::wire::{AsPath, PathAttributes};

const MULTI: Multipath = Multipath {
    maximum: 8,
    relax: false,
};

/// A path from external peer number `index` of AS 65000 + `index`.
fn path(index: u32) -> Path {
    learnt(index, false, |_| ())
}

fn learnt(index: u32, internal: bool, change: impl FnOnce(&mut PathAttributes)) -> Path {
    let asn = Asn(65_000 + index);
    let mut attributes = PathAttributes {
        as_path: AsPath::new([asn]),
        ..PathAttributes::default()
    };
    change(&mut attributes);
    Path {
        source: Source::Peer(Arc::new(PathPeer {
            index: PeerIndex(index),
            asn,
            router_id: RouterId(index),
            address: std::net::Ipv4Addr::from_bits(0x0a00_0000 + index).into(),
            internal,
            client: false,
            role: None,
            interface: None,
            interface_name: None,
            own_v4: None,
            own_v6: None,
        })),
        attributes: Arc::new(attributes),
        blackhole: false,
        next_hop: Some(IpAddr::from(std::net::Ipv4Addr::from_bits(index)).into()),
        long_lived: false,
    }
}

/// The decision among paths that may all be used.
fn decide(paths: &[Path], multipath: Multipath) -> Selection {
    let ranks: Vec<Rank> = paths.iter().map(Rank::of).collect();
    let candidates: Vec<Option<Candidate<'_>>> = paths
        .iter()
        .zip(&ranks)
        .map(|(path, rank)| Some(candidate(path, rank, 0)))
        .collect();
    best_path(&candidates, multipath).unwrap()
}

fn candidate<'a>(path: &'a Path, rank: &'a Rank, id: u32) -> Candidate<'a> {
    Candidate {
        rank,
        id: PathId(id),
        unconfirmed: false,
        unreachable: false,
        path,
    }
}

#[test]
fn whoever_holds_a_block_beats_one_who_may_and_shares_nothing_with_it() {
    let winner = learnt(2, true, |_| ());
    // Whatever else speaks for it: an intruder chooses its attributes.
    let losers = [
        learnt(1, true, |_| ()),
        learnt(1, true, |a| a.local_pref = Some(500)),
        learnt(2, true, |_| ()),
    ];
    for loser in losers {
        let ranks = [Rank::of(&loser), Rank::of(&winner)];
        let loser = Candidate {
            unconfirmed: true,
            ..candidate(&loser, &ranks[0], 0)
        };
        let winner = candidate(&winner, &ranks[1], 1);
        for (candidates, best) in [([loser, winner], 1), ([winner, loser], 0)] {
            let selection = best_path(&candidates.map(Some), MULTI).unwrap();
            assert_eq!(selection.multipath, [best]);
            assert_eq!(selection.decided_by, Some(Step::BlockHolder));
        }
        // Alone it is better than nothing.
        let selection = best_path(&[Some(loser)], MULTI).unwrap();
        assert_eq!((selection.best, selection.decided_by), (0, None));
    }
}

#[test]
fn each_step_decides_and_is_named() {
    let long = |a: &mut PathAttributes| a.as_path = a.as_path.prepended(Asn(1), 1);
    let cases: Vec<(Step, Path, Path)> = vec![
        (
            Step::OwnRoute,
            Path {
                source: Source::Local,
                next_hop: None,
                ..learnt(0, false, |_| ())
            },
            learnt(1, false, |a| a.local_pref = Some(500)),
        ),
        (
            Step::LocalPref,
            learnt(2, true, |a| {
                a.local_pref = Some(200);
                long(a);
            }),
            path(1),
        ),
        (Step::AsPathLength, path(2), learnt(1, false, long)),
        (
            Step::Origin,
            path(2),
            learnt(1, false, |a| a.origin = Origin::Incomplete),
        ),
        (
            Step::Med,
            learnt(2, false, |a| a.as_path = AsPath::new([Asn(7)])),
            learnt(1, false, |a| {
                a.as_path = AsPath::new([Asn(7)]);
                a.med = Some(1);
            }),
        ),
        (Step::External, path(2), learnt(1, true, |_| ())),
        (Step::RouterId, path(1), path(2)),
        (
            Step::RouterId,
            learnt(2, true, |a| a.originator_id = Some(RouterId(0))),
            learnt(1, true, |_| ()),
        ),
        (
            Step::ClusterListLength,
            learnt(2, true, |a| a.originator_id = Some(RouterId(1))),
            learnt(1, true, |a| a.cluster_list = [RouterId(9)].into()),
        ),
        (
            Step::PeerAddress,
            learnt(1, true, |a| a.originator_id = Some(RouterId(1))),
            learnt(2, true, |a| a.originator_id = Some(RouterId(1))),
        ),
    ];
    for (step, winner, loser) in cases {
        let selection = decide(&[loser.clone(), winner.clone()], MULTI);
        assert_eq!(selection.best, 1, "{step}");
        assert_eq!(selection.decided_by, Some(step));
        assert_eq!(selection.lost_at, [Some(step), None], "{step}");
        let swapped = decide(&[winner, loser], MULTI);
        assert_eq!(swapped.best, 0, "{step} swapped");
    }
}

#[test]
fn med_is_compared_within_one_neighbouring_as_whatever_lies_between() {
    // Pairwise comparison in the order of arrival would pick different winners here: the first
    // beats the second by router ID, the second the third likewise, the third the first by MED.
    let via = |index, asn, med| {
        learnt(index, false, |a| {
            a.as_path = AsPath::new([Asn(asn)]);
            a.med = Some(med);
        })
    };
    let paths = [via(1, 7, 20), via(2, 8, 0), via(3, 7, 10)];
    let selection = decide(&paths, MULTI);
    assert_eq!(selection.best, 1);
    assert_eq!(
        selection.lost_at,
        [Some(Step::Med), None, Some(Step::RouterId)]
    );
}

#[test]
fn a_path_that_lost_before_med_did_not_lose_by_med() {
    let told = |index, local_pref, med| {
        learnt(index, true, |a| {
            a.as_path = AsPath::new([Asn(6 + local_pref / 100)]);
            a.local_pref = Some(local_pref);
            a.med = Some(med);
        })
    };
    let paths = [told(1, 100, 5), told(2, 100, 1), told(3, 200, 0)];
    let selection = decide(&paths, MULTI);
    let lost = Some(Step::LocalPref);
    assert_eq!(selection.lost_at, [lost, lost, None]);
    assert_eq!(selection.decided_by, lost);
}

#[test]
fn equal_paths_share_load_up_to_the_maximum_and_unequal_ones_do_not() {
    let same_as = |index| learnt(index, false, |a| a.as_path = AsPath::new([Asn(7)]));
    let paths = [same_as(3), path(2), same_as(1)];
    let strict = decide(&paths, MULTI);
    assert_eq!(strict.multipath, [2, 0], "AS paths differ without relax");
    let relaxed = Multipath {
        relax: true,
        ..MULTI
    };
    assert_eq!(decide(&paths, relaxed).multipath, [2, 1, 0]);
    let two = Multipath {
        maximum: 2,
        relax: true,
    };
    assert_eq!(decide(&paths, two).multipath, [2, 1]);
    let mixed = [path(1), learnt(2, true, |_| ())];
    assert_eq!(decide(&mixed, relaxed).multipath, [0]);
}

#[test]
fn unusable_paths_take_no_part() {
    let path = path(2);
    let rank = Rank::of(&path);
    assert_eq!(best_path(&[None], MULTI), None);
    let selection = best_path(&[None, Some(candidate(&path, &rank, 0))], MULTI).unwrap();
    assert_eq!((selection.best, selection.decided_by), (1, None));
}

#[test]
fn between_paths_of_one_peer_the_lowest_identifier_decides() {
    let path = path(1);
    let rank = Rank::of(&path);
    let paths = [7, 3].map(|id| Some(candidate(&path, &rank, id)));
    let selection = best_path(&paths, MULTI).unwrap();
    assert_eq!(selection.decided_by, Some(Step::PathId));
    assert_eq!((selection.best, selection.multipath), (1, vec![1, 0]));
}

/// A path in its place: what the decision knows of it beside the path itself.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    path: Path,
    id: u32,
    unconfirmed: bool,
    unreachable: bool,
}

fn decide_placed(paths: &[Placed], multipath: Multipath) -> Selection {
    let ranks: Vec<Rank> = paths.iter().map(|placed| Rank::of(&placed.path)).collect();
    let candidates = paths.iter().zip(&ranks).map(|(placed, rank)| {
        Some(Candidate {
            unconfirmed: placed.unconfirmed,
            unreachable: placed.unreachable,
            ..candidate(&placed.path, rank, placed.id)
        })
    });
    best_path(&candidates.collect::<Vec<_>>(), multipath).unwrap()
}

/// A path of this peer under this identifier.
fn any_path(
    (index, internal, router_id): (u32, bool, u32),
    id: u32,
) -> impl Strategy<Value = Placed> {
    (
        prop::option::of(99_u32..102),
        prop::collection::vec(1_u32..4, 1..4),
        0_u32..3,
        prop::sample::select(vec![Origin::Igp, Origin::Egp, Origin::Incomplete]),
        prop::option::of(0_u32..3),
        0_usize..2,
        prop::bool::weighted(0.2),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
    )
        .prop_map(
            move |(
                local_pref,
                hops,
                med,
                origin,
                originator,
                clusters,
                long_lived,
                (unconfirmed, unreachable),
            )| {
                let mut path = learnt(index, internal, |a| {
                    a.local_pref = local_pref;
                    a.as_path = AsPath::new(hops.into_iter().map(Asn).collect::<Vec<_>>());
                    a.origin = origin;
                    a.med = (med > 0).then_some(med);
                    a.originator_id = originator.map(RouterId);
                    a.cluster_list = vec![RouterId(1); clusters].into();
                });
                if let Source::Peer(peer) = &mut path.source {
                    Arc::make_mut(peer).router_id = RouterId(router_id);
                }
                path.long_lived = long_lived;
                Placed {
                    path,
                    id,
                    unconfirmed,
                    unreachable,
                }
            },
        )
}

/// Paths of several peers, up to three of each, and perhaps our own.
fn any_paths() -> impl Strategy<Value = (Vec<Placed>, Vec<Placed>)> {
    let peers = prop::collection::vec((any::<bool>(), 0_u32..3, 1_u32..4), 1..5);
    let told = peers.prop_flat_map(|peers| {
        let mut paths = Vec::new();
        for (index, (internal, router_id, count)) in (0..).zip(peers) {
            paths.extend((0..count).map(|id| any_path((index, internal, router_id), id)));
        }
        paths
    });
    (told, prop::bool::weighted(0.2))
        .prop_map(|(mut paths, own)| {
            paths.extend(own.then(|| Placed {
                path: Path {
                    source: Source::Local,
                    next_hop: None,
                    ..learnt(0, false, |a| a.as_path = AsPath::default())
                },
                id: 0,
                unconfirmed: false,
                unreachable: false,
            }));
            paths
        })
        .prop_flat_map(|paths| (Just(paths.clone()), Just(paths).prop_shuffle()))
}

/// Where each path goes when the steps are taken as RFC 4271 §9.1.2.2 writes them down: one after
/// another, each removing from all that are left those that are not the best at it.
fn eliminated(paths: &[Placed]) -> Vec<Option<Step>> {
    fn keep_least<K: Ord>(
        gone: &mut [Option<Step>],
        paths: &[Placed],
        step: Step,
        key: impl Fn(&Placed) -> K,
    ) {
        let left = (0..paths.len()).filter(|index| gone[*index].is_none());
        let least = left.clone().map(|index| key(&paths[index])).min().unwrap();
        for index in left.collect::<Vec<_>>() {
            if key(&paths[index]) != least {
                gone[index] = Some(step);
            }
        }
    }
    let peer = |placed: &Placed| placed.path.source.peer().cloned();
    let attributes = |placed: &Placed| Arc::clone(&placed.path.attributes);
    let mut gone = vec![None; paths.len()];

    keep_least(&mut gone, paths, Step::OwnRoute, |p| peer(p).is_some());
    keep_least(&mut gone, paths, Step::BlockHolder, |p| p.unconfirmed);
    keep_least(&mut gone, paths, Step::NextHop, |p| p.unreachable);
    keep_least(&mut gone, paths, Step::LongLived, |p| p.path.long_lived);
    keep_least(&mut gone, paths, Step::LocalPref, |p| {
        std::cmp::Reverse(attributes(p).local_pref.unwrap_or(100))
    });
    keep_least(&mut gone, paths, Step::AsPathLength, |p| {
        attributes(p).as_path.asns().len()
    });
    keep_least(&mut gone, paths, Step::Origin, |p| {
        attributes(p).origin as u8
    });
    for neighbour in [1, 2, 3] {
        let told_by_it =
            |index: &usize| attributes(&paths[*index]).as_path.first() == Some(Asn(neighbour));
        let med = |index: usize| attributes(&paths[index]).med.unwrap_or(0);
        let left: Vec<usize> = (0..paths.len())
            .filter(|index| gone[*index].is_none() && told_by_it(index))
            .collect();
        let lowest = left.iter().map(|index| med(*index)).min();
        for index in left {
            if Some(med(index)) != lowest {
                gone[index] = Some(Step::Med);
            }
        }
    }
    keep_least(&mut gone, paths, Step::External, |p| {
        peer(p).is_some_and(|peer| peer.internal)
    });
    keep_least(&mut gone, paths, Step::RouterId, |p| {
        let of_the_peer = || peer(p).map_or(0, |peer| peer.router_id.0);
        attributes(p)
            .originator_id
            .map_or_else(of_the_peer, |id| id.0)
    });
    keep_least(&mut gone, paths, Step::ClusterListLength, |p| {
        attributes(p).cluster_list.len()
    });
    keep_least(&mut gone, paths, Step::PeerAddress, |p| {
        peer(p).map(|peer| peer.address)
    });
    keep_least(&mut gone, paths, Step::PathId, |p| p.id);
    gone
}

proptest! {
    #[test]
    fn the_steps_are_taken_in_the_order_of_the_rfc((paths, _) in any_paths()) {
        let multipath = Multipath { maximum: 1, relax: false };
        let selection = decide_placed(&paths, multipath);
        let gone = eliminated(&paths);
        prop_assert_eq!(gone[selection.best], None);
        prop_assert_eq!(&selection.lost_at, &gone);
        prop_assert_eq!(selection.decided_by, gone.iter().flatten().max().copied());
    }

    #[test]
    fn the_order_of_paths_has_no_influence((paths, shuffled) in any_paths(), relax: bool) {
        let multipath = Multipath { maximum: 3, relax };
        let a = decide_placed(&paths, multipath);
        let b = decide_placed(&shuffled, multipath);
        prop_assert_eq!(&paths[a.best], &shuffled[b.best]);
        prop_assert_eq!(a.decided_by, b.decided_by);
        let set = |paths: &[Placed], selection: &Selection| -> Vec<Placed> {
            selection.multipath.iter().map(|index| paths[*index].clone()).collect()
        };
        prop_assert_eq!(set(&paths, &a), set(&shuffled, &b));
        prop_assert_eq!(a.multipath[0], a.best);
        for (index, path) in paths.iter().enumerate() {
            let at = shuffled.iter().position(|other| other == path).unwrap();
            prop_assert_eq!(a.lost_at[index], b.lost_at[at]);
            prop_assert_eq!(a.lost_at[index].is_none(), index == a.best);
        }
        // What comes before all else, whatever the paths carry.
        let own = |placed: &Placed| placed.path.source == Source::Local;
        let best = &paths[a.best];
        prop_assert_eq!(own(best), paths.iter().any(own));
        if !own(best) {
            let confirmed = |placed: &Placed| !placed.unconfirmed;
            prop_assert_eq!(confirmed(best), paths.iter().any(confirmed));
        }
    }
}
