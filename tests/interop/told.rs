//! What the sources on both sides tell, first and after a change.

use crate::feature::Feature;
use crate::route::{Route, extended, route_target};
use crate::setup::{SOURCE_ASN, Setup, THEIR_SOURCE_ASN};

/// Prefixes of our side's sources have 18 in them, those of the router's 19.
fn source_asn(side: u8) -> u32 {
    if side == 18 {
        SOURCE_ASN
    } else {
        THEIR_SOURCE_ASN
    }
}

/// By source, ours and theirs.
pub(crate) type Told = (Vec<Vec<Route>>, Vec<Vec<Route>>);

/// Routes with every attribute that crosses the session, of both families, told in our AS or from outside.
fn base(external: bool, side: u8) -> Vec<Route> {
    let asn = source_asn(side);
    let path = |rest: &str| {
        if external {
            format!("{asn} {rest}").trim().to_owned()
        } else {
            rest.to_owned()
        }
    };
    let v4 = |third: u8, length: u8| Route::new(&format!("198.{side}.{third}.0/{length}"));
    let v6 = |third: u8| Route::new(&format!("2001:db8:{side}0{third}::/48"));
    let rich = |route: Route| {
        route
            .path(&path("64512 4200000001"))
            .origin("incomplete")
            .communities(["65009:1", "65009:65535"])
            .large(["65009:1:2", "4200000000:4294967295:0"])
            .extended([&route_target(65009, 5)].map(String::as_str))
    };
    let routes = [
        rich(v4(1, 24)).med(70),
        v4(2, 25)
            .path(&path("65010"))
            .origin("egp")
            .aggregated(65010, "192.0.2.1"),
        v4(3, 32).path(&path("")),
        rich(v6(1)).med(70),
        v6(2).path(&path("65010")).aggregated(65010, "192.0.2.1"),
    ];
    // RFC 4271 §5.1.5: with LOCAL_PREF to internal peers, without to external ones.
    let preferred = (200..).zip(routes).map(|(local_pref, route)| {
        if external {
            route
        } else {
            route.local_pref(local_pref)
        }
    });
    preferred.collect()
}

/// What is told first.
pub(crate) fn first(setup: &Setup, feature: Feature) -> Told {
    let mut ours = vec![base(!setup.internal_sources, 18)];
    let mut theirs = vec![base(!setup.internal_their_sources, 19)];
    for (count, told) in [
        (setup.our_sources, &mut ours),
        (setup.their_sources, &mut theirs),
    ] {
        if count == 2 {
            told.push(vec![other_path(&told[0][0])]);
        }
    }
    for (told, side) in [(&mut ours, 18), (&mut theirs, 19)] {
        match feature {
            Feature::Communities => told[0].push(many(side)),
            Feature::WellKnown => told[0].extend(marked(side)),
            _ => {}
        }
    }
    (ours, theirs)
}

/// What is told then: one route is another, one is gone, one is new, and of two paths one is gone.
pub(crate) fn second(setup: &Setup, feature: Feature) -> Told {
    let (mut ours, mut theirs) = first(setup, feature);
    for (told, side) in [(&mut ours, 18), (&mut theirs, 19)] {
        for at in [0, 3] {
            let route = told[0][at].clone();
            told[0][at] = route.origin("igp").communities(["65009:2"]).large([]);
        }
        told[0].remove(1);
        let path = told[0][1].as_path.clone();
        let mut new = Route::new(&format!("198.{side}.9.0/24")).path(&path);
        new.local_pref = told[0][1].local_pref;
        told[0].push(new);
        if told.len() == 2 {
            // The other path stays for one prefix, and there is now a second one for another.
            let other = other_path(&told[0][1]);
            told[1] = vec![other];
        }
    }
    (ours, theirs)
}

/// Another path to the same prefix, as good.
fn other_path(route: &Route) -> Route {
    let mut numbers: Vec<&str> = route.as_path.split(' ').collect();
    for (number, other) in numbers.iter_mut().skip(1).zip(["64999", "64998"]) {
        *number = other;
    }
    Route::new(&route.prefix)
        .path(&numbers.join(" "))
        .communities(["65009:99"])
}

/// A route with many communities of each kind.
fn many(side: u8) -> Route {
    let path = source_asn(side).to_string();
    let mut many = Route::new(&format!("198.{side}.20.0/24")).path(&path);
    many.communities = (1..=40).map(|number| format!("65009:{number}")).collect();
    many.large = (1..=20).map(|number| format!("65009:0:{number}")).collect();
    many.extended = (1..=10).map(|number| route_target(65009, number)).collect();
    // Route targets of the two other kinds, and a site of origin.
    many.extended.push("0x0102c00002010007".to_owned());
    many.extended.push("0x0202fa56ea010007".to_owned());
    many.extended.push(extended(0, 3, 65009, 11));
    many
}

/// One route for each community that has a meaning, and one that may go everywhere.
pub(crate) fn marked(side: u8) -> Vec<Route> {
    let path = source_asn(side).to_string();
    let route = |third: u8| Route::new(&format!("198.{side}.{third}.0/24")).path(&path);
    vec![
        route(20).communities(["65009:3"]),
        route(21).communities(["no-export"]),
        route(22).communities(["no-advertise"]),
        route(23).communities(["no-export-subconfed"]),
        route(24).communities(["graceful-shutdown", "65009:3"]),
        route(25).communities(["blackhole", "no-export"]),
    ]
}
