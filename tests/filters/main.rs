//! Every condition and every operation of a BGPFilter, a drained peer and the communities that ask for
//! something: `caracal speaker` reads them from manifests, and peers that the test scripts hear what comes of
//! them, each route as it came over the wire.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../interop/route.rs"]
#[allow(dead_code, reason = "the matrix takes the rest of it")]
mod route;
#[path = "../interop/scripted.rs"]
#[allow(dead_code, reason = "the matrix takes the rest of it")]
mod scripted;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use caracal_lab::namespace::Namespace;
use caracal_lab::process::until;
use cases::*;
use common::is_root;
use common::net::Net;
use route::{Route, difference};
use scripted::{Identity, Scripted};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// What every peer hears in the end.
const FENCES: [&str; 2] = ["10.99.0.0/24", "10.99.1.0/24"];

/// Who hears what: a peer with its filter and the routes that it is to hear in the end, by a name for people.
struct Hearer {
    what: String,
    address: String,
    asn: u32,
    spec: Value,
    rules: Option<Value>,
    expected: Vec<Route>,
    /// Whether it is asked for what the tellers tell; the others are asked for all else.
    watches: bool,
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "caracal.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// `more`'s fields in `spec`.
fn with(mut spec: Value, more: &Value) -> Value {
    let fields = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    spec
}

fn accept(prefix: &str) -> Value {
    json!({"cidr": prefix, "matchOperator": "Equal", "action": "Accept"})
}

/// Those who hear what conditions let pass and what operations make.
fn hearers() -> Vec<Hearer> {
    let mut hearers = Vec::new();
    let mut add = |what: String, internal: bool, spec, rules, expected| {
        let number = hearers.len();
        hearers.push(Hearer {
            what,
            address: format!("10.0.1.{}", number + 1),
            asn: if internal {
                OUR_ASN
            } else {
                64_600 + u32::try_from(number).unwrap()
            },
            spec,
            rules,
            expected,
            watches: false,
        });
    };
    let fences = FENCES.map(accept).to_vec();
    for (condition, letters) in conditions() {
        let rule = with(condition.clone(), &json!({"action": "Accept"}));
        let changed = json!({"cidr": CHANGED, "matchOperator": "Equal", "action": "Reject"});
        let rules = [
            fences.clone(),
            vec![changed, rule, json!({"action": "Reject"})],
        ]
        .concat();
        let told = routes()
            .into_iter()
            .filter(|(letter, ..)| letters.contains(*letter));
        let told = told.map(|(_, _, route)| Route {
            med: None,
            local_pref: None,
            ..route.through(OUR_ASN)
        });
        let own = Route::new(OWN.1).via(OURS).path("65000");
        let own = letters.contains(OWN.0).then_some(own);
        let expected = told.chain(own).collect();
        let what = condition.to_string();
        add(what, false, json!({}), Some(json!(rules)), expected);
    }
    for change in changes() {
        let rule = json!({
            "cidr": CHANGED, "matchOperator": "Equal",
            "action": "Accept", "operations": change.operations,
        });
        let rules = [fences.clone(), vec![rule, json!({"action": "Reject"})]].concat();
        let spec = json!({"nextHopMode": change.mode, "routeReflectorClient": change.internal});
        let what = format!(
            "{}, {}, internal {}",
            change.operations, change.mode, change.internal
        );
        let internal = change.internal;
        add(what, internal, spec, Some(json!(rules)), vec![change.heard]);
    }
    for internal in [false, true] {
        let spec = json!({"drain": true, "routeReflectorClient": internal});
        let rules = [
            fences.clone(),
            vec![accept(CHANGED), json!({"action": "Reject"})],
        ]
        .concat();
        let what = format!("drained, internal {internal}");
        add(
            what,
            internal,
            spec,
            Some(json!(rules)),
            vec![drained(internal)],
        );
    }
    hearers
}

/// The address of the peer whose routes are taken in as number `number` of [`taken`], and its prefix.
fn teller(number: usize) -> (String, String) {
    (
        format!("10.0.2.{}", number + 1),
        format!("10.60.0.{}/32", number + 1),
    )
}

fn tellers() -> Vec<(String, Taken)> {
    let count = taken("10.0.2.1", "10.60.0.1/32").len();
    (0..count)
        .map(|number| {
            let (address, prefix) = teller(number);
            let taken = taken(&address, &prefix).swap_remove(number);
            (address, taken)
        })
        .collect()
}

/// The speaker under test, and what is special about it.
fn configuration(more: &Value) -> Value {
    let spec = json!({
        "asNumber": OUR_ASN,
        "routerID": OURS,
        "nodeToNodeMeshEnabled": false,
        "transit": true,
        "originatedPrefixes": [{"cidr": OWN.1}],
    });
    object("BGPConfiguration", "default", &with(spec, more))
}

fn manifests(hearers: &[Hearer]) -> String {
    let mut objects = vec![configuration(&json!({}))];
    let mut peer = |address: &str, asn: u32, more: &Value, filter: Option<(&str, &Value)>| {
        let spec = json!({"peerIP": address, "asNumber": asn, "passive": true, "families": ["ipv4-unicast"]});
        let mut spec = with(spec, more);
        if asn != OUR_ASN {
            spec.as_object_mut().unwrap().remove("routeReflectorClient");
        }
        if let Some((field, rules)) = filter {
            spec = with(spec, &json!({"filters": [format!("of-{address}")]}));
            let mut filter = json!({});
            filter[field] = rules.clone();
            objects.push(object("BGPFilter", &format!("of-{address}"), &filter));
        }
        objects.push(object("BGPPeer", &format!("peer-{address}"), &spec));
    };
    let client = json!({"routeReflectorClient": true});
    for (address, asn) in [OUTSIDE, INSIDE, WATCHER] {
        peer(address, asn, &client, None);
    }
    for hearer in hearers {
        let rules = hearer.rules.as_ref().map(|rules| ("exportV4", rules));
        peer(&hearer.address, hearer.asn, &hearer.spec, rules);
    }
    for (address, taken) in tellers() {
        peer(
            &address,
            THEIRS,
            &taken.peer,
            Some(("importV4", &taken.rules)),
        );
    }
    let mut text = String::new();
    for object in objects {
        let _ = writeln!(
            text,
            "---\n{}",
            serde_json::to_string_pretty(&object).unwrap()
        );
    }
    text
}

/// Waits until the peers hear a route that all of them are told.
///
/// What was to be told before may come with it or behind it; after a second one nothing of it is left.
fn fence(outside: &Scripted, told: &mut Vec<Route>, peers: &[(&str, &Scripted)]) {
    for prefix in FENCES {
        told.push(Route::new(prefix).via(OUTSIDE.0).path("65010"));
        outside.tell(told);
        for (what, peer) in peers {
            let heard = || {
                let heard = peer.heard();
                let there = heard.iter().any(|route| route.prefix == prefix);
                there.then_some(()).ok_or(format!("{what}: {heard:#?}"))
            };
            until(prefix, PATIENCE, heard).unwrap();
        }
    }
}

/// Where the scripted peers are.
fn namespace(net: &Net) -> Namespace {
    Namespace::at(Path::new(&format!("/run/netns/{}", net.namespace("p"))))
}

fn scripted(there: &Namespace, (address, asn): (&str, u32)) -> Scripted {
    let identity = Identity {
        asn,
        address: address.parse().unwrap(),
        remote: OURS.parse().unwrap(),
        remote_asn: OUR_ASN,
    };
    Scripted::start(there, identity)
}

#[test]
fn what_a_filter_says_is_what_peers_hear() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["r", "p"]);
    net.cable([("r", "e1", "10.0.0.1/16"), ("p", "e1", "10.0.0.2/16")]);
    let mut hearers = hearers();
    let tellers = tellers();
    let addresses = [OUTSIDE.0, INSIDE.0, WATCHER.0]
        .map(str::to_owned)
        .into_iter();
    let addresses = addresses
        .chain(hearers.iter().map(|hearer| hearer.address.clone()))
        .chain(tellers.iter().map(|(address, _)| address.clone()));
    for address in addresses {
        net.ip("p", &format!("addr add {address}/16 dev e1"));
    }
    net.start_speaker("r", &manifests(&hearers));

    let there = namespace(&net);
    let scripted = |address: &str, asn| scripted(&there, (address, asn));
    let outside = scripted(OUTSIDE.0, OUTSIDE.1);
    let inside = scripted(INSIDE.0, INSIDE.1);
    // The watcher hears everything; it is judged by what the tellers tell.
    hearers.push(Hearer {
        what: "the watcher".to_owned(),
        address: WATCHER.0.to_owned(),
        asn: WATCHER.1,
        spec: json!({}),
        rules: None,
        expected: tellers
            .iter()
            .filter_map(|(_, taken)| taken.heard.clone())
            .collect(),
        watches: true,
    });
    let hearing: Vec<Scripted> = hearers
        .iter()
        .map(|hearer| scripted(&hearer.address, hearer.asn))
        .collect();
    let telling: Vec<Scripted> = tellers
        .iter()
        .map(|(address, taken)| {
            let peer = scripted(address, THEIRS);
            peer.tell(std::slice::from_ref(&taken.told));
            peer
        })
        .collect();
    let by = |source: (&str, u32)| {
        let routes = routes()
            .into_iter()
            .filter(move |(_, from, _)| *from == source);
        routes.map(|(_, _, route)| route).collect::<Vec<_>>()
    };
    let mut told = by(OUTSIDE);
    told.push(changed());
    outside.tell(&told);
    inside.tell(&by(INSIDE));
    for peer in telling.iter().chain(&hearing).chain([&outside, &inside]) {
        until("sessions", PATIENCE, || peer.settled()).unwrap();
    }
    // In the table, and in the kernel where they lead somewhere.
    let wanted = routes().len() + 2 + tellers.len();
    let arrived = || {
        let routes = net.bgp("r", &["routes"])?;
        let routes = routes.as_array().ok_or("no routes")?;
        let pending = routes
            .iter()
            .filter(|route| route["fib"]["state"] == "pending");
        match (routes.len(), pending.count()) {
            (count, 0) if count == wanted => Ok(()),
            counts => Err(format!("{counts:?} of {wanted}\n{}", net.log("r"))),
        }
    };
    until("all routes", PATIENCE, arrived).unwrap();
    let named: Vec<(&str, &Scripted)> = hearers.iter().map(|it| &*it.what).zip(&hearing).collect();
    fence(&outside, &mut told, &named);

    let mut wrong = String::new();
    for (hearer, peer) in hearers.iter().zip(&hearing) {
        let mut heard = peer.heard();
        heard.retain(|route| {
            let of_tellers = route.prefix.starts_with("10.60.");
            of_tellers == hearer.watches && !FENCES.contains(&&*route.prefix)
        });
        for route in &mut heard {
            // The marks of a reflector are another's test.
            route.originator_id = None;
            route.cluster_list.clear();
        }
        if let Some(difference) = difference(&hearer.expected, &heard) {
            let _ = writeln!(wrong, "{}:\n{difference}", hearer.what);
        }
    }
    for (number, (_, taken)) in tellers.iter().enumerate() {
        let prefix = teller(number).1;
        let kernel = net.output("r", "ip", &["route", "show", &prefix]);
        let as_expected = match taken.kernel {
            "" => kernel.is_empty(),
            // Through a next-hop object or by itself.
            "via" => !kernel.is_empty() && !kernel.contains("blackhole"),
            words => kernel.contains(words),
        };
        // RFC 1997: what is to stay in the AS does.
        let stays = |route: &Route| route.communities.iter().any(|it| it == "no-export");
        let stays = taken.heard.as_ref().is_some_and(stays);
        for (hearer, peer) in hearers.iter().zip(&hearing) {
            let heard = peer.heard().iter().any(|route| route.prefix == prefix);
            if heard && stays && hearer.asn != OUR_ASN {
                let _ = writeln!(wrong, "{}: told to {}", taken.name, hearer.what);
            }
        }
        if !as_expected {
            let _ = writeln!(wrong, "{}: kernel has '{kernel}'", taken.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    // Each takes a moment to end.
    std::thread::scope(|scope| {
        for peer in telling.into_iter().chain(hearing) {
            scope.spawn(|| drop(peer));
        }
    });
    // The manifests were what they were meant to be.
    let log = net.log("r");
    assert!(
        !log.contains("InvalidSpec") && !log.contains("NoPolicy"),
        "{log}"
    );
}

/// The whole speaker, by its `gracefulShutdown`: what a watcher inside and one outside the AS hear of a route that
/// asks for nothing, of one that asks to be avoided, and of an own one.
#[test]
fn a_speaker_that_drains_says_so_to_everybody_and_may_ignore_that_others_do() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    const BEYOND: (&str, u32) = ("10.0.0.13", 65_013);
    const ASKING: &str = "10.51.0.0/24";
    let plain = || Route::new(CHANGED).via(OUTSIDE.0).path("65010");
    let asking = || Route::new(ASKING).via(OUTSIDE.0).path("65010");
    let own = || Route::new(OWN.1).via(OURS);
    let words = |asks| {
        if asks {
            vec!["graceful-shutdown".to_owned()]
        } else {
            Vec::new()
        }
    };
    let heard = |route: Route, asks, local_pref| Route {
        communities: words(asks),
        local_pref,
        ..route
    };
    // Whether each of the three routes carries the community, and its preference inside the AS.
    for (shutdown, expected) in [
        (json!({}), [(false, 100), (true, 0), (false, 100)]),
        (
            json!({"honor": false}),
            [(false, 100), (true, 100), (false, 100)],
        ),
        (json!({"drain": true}), [(true, 0), (true, 0), (true, 0)]),
        (
            json!({"drain": true, "honor": false}),
            [(true, 0), (true, 0), (true, 0)],
        ),
    ] {
        let mut net = Net::new(&["r", "p"]);
        net.cable([("r", "e1", "10.0.0.1/16"), ("p", "e1", "10.0.0.2/16")]);
        let mut objects = vec![configuration(&json!({"gracefulShutdown": shutdown}))];
        for (address, asn) in [OUTSIDE, WATCHER, BEYOND] {
            let spec = json!({"peerIP": address, "asNumber": asn, "families": ["ipv4-unicast"]});
            objects.push(object("BGPPeer", &format!("peer-{address}"), &spec));
            net.ip("p", &format!("addr add {address}/16 dev e1"));
        }
        let texts = objects.iter().map(|object| format!("---\n{object:#}\n"));
        net.start_speaker("r", &texts.collect::<String>());
        let there = namespace(&net);
        let outside = scripted(&there, OUTSIDE);
        let asks = asking().communities(["graceful-shutdown"]);
        outside.tell(&[plain(), asks]);
        let routes = [plain(), asking(), own()].into_iter().zip(expected);
        let routes: Vec<_> = routes.collect();
        let inside = routes.iter().cloned();
        let inside = inside.map(|(route, (asks, preference))| heard(route, asks, Some(preference)));
        let beyond = routes.iter().cloned();
        let beyond = beyond.map(|(route, (asks, _))| heard(route.through(OUR_ASN), asks, None));
        for (who, expected) in [
            (WATCHER, inside.collect()),
            (BEYOND, beyond.collect::<Vec<_>>()),
        ] {
            let peer = scripted(&there, who);
            let heard = || difference(&expected, &peer.heard()).map_or(Ok(()), Err);
            let what = format!("what {} hears with {shutdown}", who.0);
            until(&what, PATIENCE, heard).unwrap_or_else(|why| panic!("{why}\n{}", net.log("r")));
        }
    }
}
