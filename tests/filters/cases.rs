//! What the tests of filters try: routes, conditions, operations, and what must come of them.
//!
//! Owns the tables alone.

use serde_json::{Value, json};

use crate::route::{Route, route_target};

pub(crate) const OUR_ASN: u32 = 65_000;
pub(crate) const OURS: &str = "10.0.0.1";
/// Whoever tells the routes of [`routes`], from outside and from inside the AS.
pub(crate) const OUTSIDE: (&str, u32) = ("10.0.0.10", 65_010);
pub(crate) const INSIDE: (&str, u32) = ("10.0.0.11", OUR_ASN);
/// Hears all that is best, inside the AS.
pub(crate) const WATCHER: (&str, u32) = ("10.0.0.12", OUR_ASN);
/// The route that operations change.
pub(crate) const CHANGED: &str = "10.50.0.0/24";

/// Routes by the letter that stands for each in [`conditions`].
pub(crate) fn routes() -> Vec<(char, (&'static str, u32), Route)> {
    let outside = |prefix: &str, path: &str| Route::new(prefix).via(OUTSIDE.0).path(path);
    vec![
        (
            'a',
            OUTSIDE,
            outside("10.20.0.0/16", "65010 65050")
                .communities(["65000:1"])
                .med(50),
        ),
        (
            'b',
            OUTSIDE,
            outside("10.20.7.0/24", "65010 65060 65050")
                .large(["65000:1:7", "65000:2:7"])
                .med(100),
        ),
        (
            'c',
            OUTSIDE,
            outside("10.20.7.1/32", "65010")
                .communities(["65000:1", "65000:2"])
                .large(["65000:1:7"]),
        ),
        (
            'd',
            OUTSIDE,
            outside("192.0.2.0/24", "65010 65060 165050")
                .origin("incomplete")
                .extended([&route_target(65_000, 1)]),
        ),
        (
            'e',
            OUTSIDE,
            outside("10.30.0.0/20", "65010 65050 1 2 3")
                .origin("egp")
                .via("10.0.0.77"),
        ),
        (
            'i',
            INSIDE,
            Route::new("10.40.0.0/24")
                .via("10.0.0.78")
                .path("65077")
                .local_pref(300)
                .med(7),
        ),
    ]
}

/// An own route.
pub(crate) const OWN: (char, &str) = ('o', "10.244.0.0/26");

/// Conditions, and the letters of the routes for which they hold.
#[rustfmt::skip]
pub(crate) fn conditions() -> Vec<(Value, &'static str)> {
    vec![
        (json!({}), "abcdeio"),
        (json!({"cidr": "10.20.0.0/16", "matchOperator": "Equal"}), "a"),
        (json!({"cidr": "10.20.0.0/16", "matchOperator": "In"}), "abc"),
        (json!({"cidr": "10.20.0.0/16", "matchOperator": "NotEqual"}), "bcdeio"),
        (json!({"cidr": "10.20.0.0/16", "matchOperator": "NotIn"}), "deio"),
        (json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 17, "max": 24}}), "bei"),
        (json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 25}}), "co"),
        (json!({"cidr": "10.0.0.0/8", "matchOperator": "NotIn", "prefixLength": {"max": 24}}), "cdo"),
        (json!({"prefixes": [
            {"cidr": "10.20.0.0/16", "prefixLength": {"max": 24}},
            {"cidr": "192.0.2.0/24", "matchOperator": "Equal"},
            {"cidr": "10.0.0.0/8", "matchOperator": "Equal"},
        ]}), "abd"),
        (json!({"source": "RemotePeers"}), "abcdei"),
        (json!({"source": "ExternalPeers"}), "abcde"),
        (json!({"source": "InternalPeers"}), "i"),
        (json!({"source": "Local"}), "o"),
        (json!({"peerType": "eBGP"}), "abcdeio"),
        (json!({"peerType": "iBGP"}), ""),
        (json!({"interface": "e?"}), "abcdei"),
        (json!({"interface": "f*"}), ""),
        (json!({"communities": {"values": ["65000:1"]}}), "ac"),
        (json!({"communities": {"anyOf": ["65000:2", "65000:*:7"]}}), "bc"),
        (json!({"communities": {"allOf": ["65000:1", "65000:2"]}}), "c"),
        (json!({"communities": {"anyOf": ["65000:2:7", "65000:9:9"]}}), "b"),
        (json!({"communities": {"allOf": ["65000:1:7", "65000:2:7"]}}), "b"),
        (json!({"communities": {"allOf": ["65000:1", "65000:1:7"]}}), "c"),
        (json!({"communities": {"values": ["rt:65000:1"]}}), "d"),
        (json!({"asPathPrefix": [65010, 65050]}), "ae"),
        (json!({"asPathRegex": "_65050$"}), "ab"),
        (json!({"asPathRegex": "_65060_"}), "bd"),
        (json!({"asPathRegex": "^65010$"}), "c"),
        (json!({"asPathRegex": "^$"}), "o"),
        (json!({"asPathRegex": "^65010(_65050|_65060)+$"}), "ab"),
        (json!({"asPathLength": {"min": 3}}), "bde"),
        (json!({"asPathLength": {"max": 1}}), "cio"),
        (json!({"origin": "Incomplete"}), "d"),
        (json!({"origin": "EGP"}), "e"),
        (json!({"med": {"min": 50, "max": 60}}), "a"),
        (json!({"med": {"max": 60}}), "ai"),
        (json!({"localPref": {"min": 200}}), "i"),
        (json!({"localPref": {"min": 100, "max": 100}}), "abcdeo"),
        (json!({"priority": 2_147_483_347_u32}), "i"),
        (json!({"nextHopCIDRs": ["10.0.0.77/32", "10.0.0.78/32"]}), "ei"),
        (json!({"cidr": "10.20.0.0/16", "matchOperator": "In", "asPathRegex": "_65050$", "med": {"max": 60}}), "a"),
    ]
}

/// The route that is told, with everything that a rule may change.
pub(crate) fn changed() -> Route {
    Route::new(CHANGED)
        .via(OUTSIDE.0)
        .path("65010 65050")
        .origin("incomplete")
        .med(50)
        .communities(["65000:1", "65000:2"])
        .large(["65000:1:7", "65000:2:7"])
        .extended([&route_target(65_000, 1)])
}

/// As an external peer hears it where no rule changes it: MED is not for others (RFC 4271 §5.1.4), and a router on
/// the subnet that all share is named itself (§5.1.3).
pub(crate) fn outside() -> Route {
    Route {
        med: None,
        ..changed().through(OUR_ASN)
    }
}

/// As an internal peer hears it.
pub(crate) fn inside() -> Route {
    changed().local_pref(100)
}

/// What is done to a route on its way out, and how the peer then hears it.
pub(crate) struct Change {
    pub(crate) operations: Value,
    pub(crate) internal: bool,
    pub(crate) mode: &'static str,
    pub(crate) heard: Route,
}

#[rustfmt::skip]
pub(crate) fn changes() -> Vec<Change> {
    let change = |operations, internal, heard| Change { operations, internal, mode: "Auto", heard };
    let out = |operations, heard| change(operations, false, heard);
    let within = |operations, heard| change(operations, true, heard);
    let target = route_target(65_000, 1);
    // Site of origin, by an address.
    let site = "0x01030a0000010005";
    vec![
        out(json!([]), outside()),
        out(json!([{"addCommunity": {"value": "65000:9"}}]),
            outside().communities(["65000:1", "65000:2", "65000:9"])),
        out(json!([{"addCommunity": {"value": "65000:9:9"}}]),
            outside().large(["65000:1:7", "65000:2:7", "65000:9:9"])),
        out(json!([{"addCommunity": {"value": "soo:10.0.0.1:5"}}]), outside().extended([&target, site])),
        out(json!([{"removeCommunity": {"value": "65000:1"}}]), outside().communities(["65000:2"])),
        out(json!([{"removeCommunity": {"value": "65000:*"}}]), outside().communities([])),
        out(json!([{"removeCommunity": {"value": "65000:*:7"}}]), outside().large([])),
        out(json!([{"removeCommunity": {"value": "rt:65000:1"}}]), outside().extended([])),
        out(json!([{"setCommunities": {"standard": ["no-export", "65000:5"]}}]),
            outside().communities(["65000:5", "no-export"])),
        out(json!([{"setCommunities": {"extended": []}}]), outside().extended([])),
        out(json!([{"setCommunities": {"large": ["1:2:3"], "standard": []}}]),
            outside().large(["1:2:3"]).communities([])),
        out(json!([{"prependASPath": {"prefix": [65000, 65000]}}]), outside().path("65000 65000 65000 65010 65050")),
        out(json!([{"prependASPath": {"prefix": [1, 2]}}]), outside().path("65000 1 2 65010 65050")),
        out(json!([{"setMED": {"value": 77}}]), outside().med(77)),
        out(json!([{"addMED": {"value": 5}}]), outside().med(5)),
        out(json!([{"setLocalPref": {"value": 222}}]), outside()),
        out(json!([{"setOrigin": {"value": "EGP"}}]), outside().origin("egp")),
        out(json!([{"setNextHop": {"address": "10.0.0.99"}}]), outside().via("10.0.0.99")),
        out(json!([{"setNextHop": {"mode": "Self"}}]), outside().via(OURS)),
        Change { mode: "Self", ..out(json!([]), outside().via(OURS)) },
        Change { mode: "Self", ..out(json!([{"setNextHop": {"mode": "Unchanged"}}]), outside()) },
        // In their order.
        out(json!([{"removeCommunity": {"value": "65000:*"}}, {"addCommunity": {"value": "65000:9"}}]),
            outside().communities(["65000:9"])),
        out(json!([{"addCommunity": {"value": "65000:9"}}, {"removeCommunity": {"value": "65000:*"}}]),
            outside().communities([])),
        within(json!([]), inside()),
        within(json!([{"removeMED": {}}]), Route { med: None, ..inside() }),
        within(json!([{"addMED": {"value": 7}}]), inside().med(57)),
        within(json!([{"addMED": {"value": -20}}]), inside().med(30)),
        within(json!([{"addMED": {"value": -100}}]), inside().med(0)),
        within(json!([{"setLocalPref": {"value": 222}}]), inside().local_pref(222)),
        within(json!([{"setPriority": {"value": 100}}]), inside().local_pref(2_147_483_547)),
        within(json!([{"setNextHop": {"mode": "Self"}}]), inside().via(OURS)),
    ]
}

/// What is done to a route on its way in, and how the watcher then hears of it.
pub(crate) struct Taken {
    pub(crate) name: &'static str,
    /// What the peer has beside its address.
    pub(crate) peer: Value,
    pub(crate) rules: Value,
    /// As it is told, but for its prefix and the next hop.
    pub(crate) told: Route,
    /// As the watcher hears it, likewise.
    pub(crate) heard: Option<Route>,
    /// How the kernel then forwards.
    pub(crate) kernel: &'static str,
}

pub(crate) const THEIRS: u32 = 65_020;

/// Of the peer that stands at `address`, told and heard for `prefix`.
#[rustfmt::skip]
pub(crate) fn taken(address: &str, prefix: &str) -> Vec<Taken> {
    let told = || Route::new(prefix).via(address).path("65020 65050").communities(["65000:1"]).med(50);
    let heard = || told().local_pref(100);
    let taken = |name, operations, heard| Taken {
        name, peer: json!({}), rules: json!([{"action": "Accept", "operations": operations}]),
        told: told(), heard: Some(heard), kernel: "via",
    };
    let asking = |community: &str| told().communities([community]);
    let blackhole = json!([
        {"cidr": "10.60.0.0/16", "matchOperator": "In", "prefixLength": {"min": 32},
         "communities": {"values": ["blackhole"]}, "action": "Accept", "operations": [{"blackhole": {}}]},
        {"communities": {"values": ["blackhole"]}, "action": "Reject"},
    ]);
    vec![
        taken("as it is", json!([]), heard()),
        taken("preference", json!([{"setLocalPref": {"value": 200}}]), heard().local_pref(200)),
        taken("metric", json!([{"setMED": {"value": 5}}]), heard().med(5)),
        taken("more metric", json!([{"addMED": {"value": 5}}]), heard().med(55)),
        taken("no metric", json!([{"removeMED": {}}]), Route { med: None, ..heard() }),
        taken("community", json!([{"addCommunity": {"value": "65000:9"}}]),
            heard().communities(["65000:1", "65000:9"])),
        taken("prepended", json!([{"prependASPath": {"prefix": [65020, 65020]}}]),
            heard().path("65020 65020 65020 65050")),
        taken("next hop", json!([{"setNextHop": {"address": "10.0.0.77"}}]), heard().via("10.0.0.77")),
        Taken { told: told().via("10.0.0.79"),
            ..taken("the peer itself", json!([{"setNextHop": {"mode": "PeerAddress"}}]), heard()) },
        // What an earlier rule has made of it is what later ones see.
        Taken { rules: json!([
                {"action": "Continue", "operations": [{"removeCommunity": {"value": "65000:*"}}]},
                {"communities": {"values": ["65000:1"]}, "action": "Reject"},
                {"asPathRegex": "_65050$", "action": "Accept", "operations": [{"setLocalPref": {"value": 7}}]},
                {"action": "Reject"},
            ]), ..taken("rule after rule", json!([]), heard().communities([]).local_pref(7)) },
        Taken { rules: json!([{"asPathRegex": "_65050$", "action": "Reject"}]), heard: None, kernel: "",
            ..taken("rejected", json!([]), heard()) },
        // RFC 8326 §4.1: whatever the filter says.
        Taken { told: asking("graceful-shutdown"), ..taken("their shutdown", json!([{"setLocalPref": {"value": 200}}]),
            heard().communities(["graceful-shutdown"]).local_pref(0)) },
        // §4.2, of a peer that we drain.
        Taken { peer: json!({"drain": true}), ..taken("our shutdown", json!([{"setLocalPref": {"value": 200}}]),
            heard().local_pref(0)) },
        // RFC 7999: where a rule allows it, packets are dropped, and the route stays in the AS (§3.2).
        Taken { rules: blackhole.clone(), told: asking("blackhole"), kernel: "blackhole",
            ..taken("dropped", json!([]), heard().communities(["blackhole", "no-export"])) },
        // Elsewhere it is a community like any other.
        Taken { told: asking("blackhole"), ..taken("not dropped", json!([]), heard().communities(["blackhole"])) },
    ]
}

/// What a peer with `drain` hears (RFC 8326 §4.2): the community, and inside the AS the preference, too.
pub(crate) fn drained(internal: bool) -> Route {
    let route = if internal {
        inside().local_pref(0)
    } else {
        outside()
    };
    route.communities(["65000:1", "65000:2", "graceful-shutdown"])
}
