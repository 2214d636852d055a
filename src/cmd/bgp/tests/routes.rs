//! How routes read: listings, and why one is as it is.

use caracal_bgp_speaker::api::RoutesView;
use caracal_bgp_speaker::snapshot::{
    Explanation, FibSnapshot, KernelNextHop, KernelRoute, KernelSnapshot, PathSnapshot,
    PolicyTrace, RouteSnapshot, ToldSnapshot,
};
use insta::assert_snapshot;

use super::{MINUTE, NOW};
use crate::cmd::bgp::explain;
use crate::cmd::bgp::routes::Screen;

fn path(from: &str, as_path: &str) -> PathSnapshot {
    PathSnapshot {
        from: from.to_owned(),
        next_hop: Some("10.0.1.1".parse().unwrap()),
        as_path: as_path.to_owned(),
        origin: "IGP".to_owned(),
        local_pref: Some(100),
        ..PathSnapshot::default()
    }
}

fn route(prefix: &str, fib: FibSnapshot, paths: Vec<PathSnapshot>) -> RouteSnapshot {
    RouteSnapshot {
        prefix: prefix.parse().unwrap(),
        fib,
        announced: true,
        paths,
    }
}

/// A route with a path of each fate.
fn contested() -> RouteSnapshot {
    let best = PathSnapshot {
        best: true,
        multipath: true,
        communities: vec!["65000:1".to_owned(), "65000:2".to_owned()],
        ..path("tor1", "65001 65013")
    };
    let shares = PathSnapshot {
        multipath: true,
        stale: true,
        ..path("tor2", "65002 65013")
    };
    let lost = PathSnapshot {
        lost_at: Some("the shortest AS path".to_owned()),
        path_id: 7,
        med: Some(5),
        ..path("tor1", "65001 65007 65013")
    };
    let rejected = PathSnapshot {
        rejected: Some("our AS is in its path".to_owned()),
        ..path("mesh-n3", "65000")
    };
    let paths = vec![best, shares, lost, rejected];
    route("10.244.3.0/26", FibSnapshot::Installed, paths)
}

fn page(view: RoutesView, limit: Option<usize>, pages: Vec<Vec<RouteSnapshot>>) -> String {
    let mut screen = Screen::new(view, limit);
    let mut text = String::new();
    for routes in pages {
        if screen.full() {
            break;
        }
        text.push_str(&screen.page(routes));
    }
    text + &screen.end()
}

#[test]
fn routes_stand_in_lines_with_marks_and_reasons() {
    let own = PathSnapshot {
        next_hop: None,
        best: true,
        multipath: true,
        ..path("local", "")
    };
    let pages = vec![
        vec![
            route("10.0.0.1/32", FibSnapshot::None, vec![own]),
            contested(),
        ],
        vec![route(
            "2001:db8:0:244::/64",
            FibSnapshot::Failed("no route to the next hop".to_owned()),
            vec![PathSnapshot {
                best: true,
                multipath: true,
                ..path("tor1", "65001")
            }],
        )],
    ];
    assert_snapshot!("routes", page(RoutesView::Table, None, pages));
}

#[test]
fn what_a_peer_was_told_has_no_marks_and_what_it_was_not_has_reasons() {
    let told = PathSnapshot {
        local_pref: None,
        ..path("", "65000 65001")
    };
    let told = vec![route("10.1.0.0/16", FibSnapshot::Installed, vec![told])];
    assert_snapshot!("advertised", page(RoutesView::Advertised, None, vec![told]));
    let withheld = PathSnapshot {
        rejected: Some("the peer told us".to_owned()),
        ..path("tor1", "65001")
    };
    let withheld = vec![route("10.2.0.0/16", FibSnapshot::Installed, vec![withheld])];
    assert_snapshot!("withheld", page(RoutesView::Withheld, None, vec![withheld]));
}

#[test]
fn a_listing_that_is_cut_says_so_and_one_without_routes_too() {
    let one = |prefix: &str| route(prefix, FibSnapshot::Installed, vec![path("tor1", "65001")]);
    let pages = || {
        vec![
            vec![one("10.1.0.0/16"), one("10.2.0.0/16")],
            vec![one("10.3.0.0/16")],
        ]
    };
    let last = |limit| {
        let text = page(RoutesView::Table, limit, pages());
        (
            text.lines().count(),
            text.lines().last().unwrap().to_owned(),
        )
    };
    assert_eq!(last(Some(1)), (3, "1 prefix, and more".to_owned()));
    assert_eq!(last(Some(2)), (4, "2 prefixes, and more".to_owned()));
    assert_eq!(last(Some(3)), (5, "3 prefixes".to_owned()));
    assert_eq!(last(None), (5, "3 prefixes".to_owned()));
    assert_eq!(page(RoutesView::Table, None, vec![vec![]]), "0 prefixes\n");
}

fn forwarding(ways: &[(&str, &str)]) -> KernelRoute {
    let next_hops = ways.iter().map(|(address, interface)| KernelNextHop {
        address: address.parse().unwrap(),
        interface: (*interface).to_owned(),
    });
    KernelRoute::Forwarding {
        protocol: 214,
        next_hops: next_hops.collect(),
    }
}

#[test]
fn what_the_kernel_holds_stands_in_a_line() {
    let line = |fib, route, in_sync| {
        let mut shown = contested();
        shown.fib = fib;
        let explanation = Explanation {
            asked: shown.prefix,
            route: Some(shown),
            kernel: Some(KernelSnapshot {
                route,
                in_sync,
                checked_ms: NOW - MINUTE,
            }),
            sentences: Vec::new(),
            import: Vec::new(),
            told: Vec::new(),
        };
        let text = explain::screen(&explanation, NOW);
        let line = text.lines().find_map(|line| line.strip_prefix("kernel: "));
        line.map(str::to_owned)
    };
    let dropping = KernelRoute::Dropping { protocol: 214 };
    let foreign = KernelRoute::Foreign { protocol: 16 };
    let refused = FibSnapshot::Failed("no route to the next hop".to_owned());
    for (fib, route, in_sync, expected) in [
        (
            FibSnapshot::Pending,
            forwarding(&[("fe80::1", "eth1")]),
            false,
            Some("proto 214 next hops fe80::1 eth1   not as it should be"),
        ),
        (
            FibSnapshot::None,
            dropping,
            true,
            Some("proto 214 packets are dropped   in sync"),
        ),
        (
            refused,
            foreign,
            false,
            Some("proto 16 of another program   not as it should be"),
        ),
        (
            FibSnapshot::Pending,
            KernelRoute::Absent,
            false,
            Some("no route   not as it should be"),
        ),
        (FibSnapshot::None, KernelRoute::Absent, true, None),
    ] {
        let expected = expected.map(|text| format!("10.244.3.0/26 {text} (checked 1m00s ago)"));
        assert_eq!(line(fib, route, in_sync), expected);
    }
}

#[test]
fn an_explanation_goes_from_the_candidates_to_those_who_are_told() {
    let trace = |from: &str, path_id, steps: [&str; 2]| PolicyTrace {
        from: from.to_owned(),
        path_id,
        steps: steps.map(str::to_owned).to_vec(),
    };
    let explanation = Explanation {
        asked: "10.244.3.7/32".parse().unwrap(),
        route: Some(contested()),
        kernel: Some(KernelSnapshot {
            route: forwarding(&[("10.0.1.1", "eth1"), ("10.0.2.1", "eth2")]),
            in_sync: true,
            checked_ms: NOW - 3000,
        }),
        sentences: vec![
            "10.244.3.0/26 is the longest prefix that covers 10.244.3.7/32.".to_owned(),
            "The decision fell by the shortest AS path.".to_owned(),
        ],
        import: vec![
            trace(
                "tor1",
                0,
                [
                    "'pods' matches (prefix in 10.244.0.0/16 ge 26): accept",
                    "accepted by 'pods'",
                ],
            ),
            trace(
                "tor1",
                7,
                [
                    "'pods' matches (prefix in 10.244.0.0/16 ge 26): accept",
                    "accepted by 'pods'",
                ],
            ),
        ],
        told: vec![
            ToldSnapshot {
                peer: "mesh-n2".to_owned(),
                next_hop: Some("10.0.1.0".parse().unwrap()),
                withheld: None,
            },
            ToldSnapshot {
                peer: "tor1".to_owned(),
                next_hop: None,
                withheld: Some("the peer told us".to_owned()),
            },
        ],
    };
    assert_snapshot!("explain", explain::screen(&explanation, NOW));
    let unknown = Explanation {
        asked: "10.9.9.9/32".parse().unwrap(),
        route: None,
        kernel: None,
        sentences: vec!["No peer has told a route that covers 10.9.9.9/32.".to_owned()],
        import: Vec::new(),
        told: Vec::new(),
    };
    assert_eq!(
        explain::screen(&unknown, NOW),
        "No peer has told a route that covers 10.9.9.9/32.\n"
    );
}
