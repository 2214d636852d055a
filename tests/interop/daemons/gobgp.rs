//! GoBGP.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caracal_bgp_core::types::Family;
use caracal_lab::process::Process;
use serde_json::Value;

use super::{Daemon, Place, tail, version_of};
use crate::arena::{Arena, THEIRS_TO_SOURCES, their_source, until};
use crate::cell::Cell;
use crate::feature::Feature;
use crate::route::Route;
use crate::setup::{AddPath, OUR_ASN, Setup, THEIR_ID};
use crate::{course, told};

pub(super) struct Gobgp;

impl Daemon for Gobgp {
    fn name(&self) -> &'static str {
        "gobgp"
    }

    fn title(&self) -> &'static str {
        "GoBGP"
    }

    fn version(&self) -> Result<String, String> {
        version_of("gobgpd", "--version", "gobgpd version ")
    }

    fn quirks(&self) -> &'static [&'static str] {
        &[
            "A route of a client that it passes on to an internal peer that is none carries neither ORIGINATOR_ID nor \
             CLUSTER_LIST (RFC 4456 §8 has both); between clients they are there.",
            "To internal peers it names itself as next hop by a policy with `set-next-hop = \"self\"` alone.",
            "It tells no route to a peer whose AS is in the path.",
            "`neighbor … shutdown --reason` sends the message and dials again; `disable --reason` stays down and sends \
             none.",
            "It shows the message of a NOTIFICATION as base64 in its log only.",
        ]
    }

    fn configure(&self, place: &Place, setup: &Setup) {
        place.write("gobgpd.toml", &configuration(setup));
    }

    fn start(&self, place: &Place, _setup: &Setup, again: bool, running: &mut Vec<Process>) {
        let file = place.at("gobgpd.toml");
        let mut arguments = vec!["-f", &file, "--log-level=debug", "--pprof-disable"];
        arguments.push("--api-hosts=127.0.0.1:50051");
        if again {
            arguments.push("-r");
        }
        running.push(place.start("gobgpd", "gobgpd", &arguments));
    }

    fn told(&self, place: &Place, setup: &Setup) -> Result<Vec<Route>, String> {
        let us = setup.our_address().to_string();
        let mut routes = Vec::new();
        for family in &setup.families {
            let family = name(*family);
            let text = place.run("gobgp", &["-j", "neighbor", &us, "adj-in", "-a", family])?;
            if text.trim().is_empty() {
                continue;
            }
            let table: Value =
                serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
            for (prefix, paths) in table.as_object().into_iter().flatten() {
                for path in paths.as_array().into_iter().flatten() {
                    routes.push(route(prefix, path, setup));
                }
            }
        }
        Ok(routes)
    }

    fn ask_refresh(&self, place: &Place, setup: &Setup) -> Result<(), String> {
        // It judges again what it has; the command that would ask does not exist.
        let us = setup.our_address().to_string();
        place.run("gobgp", &["neighbor", &us, "softresetin"])?;
        match place.run("gobgp", &["neighbor", &us, "refresh"]) {
            Ok(answer) => Err(answer),
            Err(complaint) => {
                let line = complaint.lines().find(|line| line.starts_with("Error"));
                Err(line.unwrap_or(&complaint).to_owned())
            }
        }
    }

    fn shut_down(&self, place: &Place, setup: &Setup, message: &str) -> Result<(), String> {
        let us = setup.our_address().to_string();
        place
            .run("gobgp", &["neighbor", &us, "shutdown", "--reason", message])
            .map(drop)
    }

    fn last_words(&self, place: &Place, _setup: &Setup) -> Result<String, String> {
        // It writes the octets of a NOTIFICATION in base64.
        let text = place.read("gobgpd.log");
        let data = text.split("\"Data\":\"").skip(1);
        let octets = data.filter_map(|rest| STANDARD.decode(rest.split('"').next()?).ok());
        let said: Vec<String> = octets
            .map(|octets| String::from_utf8_lossy(&octets).into_owned())
            .collect();
        Ok(said.join("\n"))
    }

    fn refusal(&self, feature: Feature, arena: &Arena) -> Option<String> {
        if feature != Feature::WellKnown {
            return None;
        }
        let setup = course::setup(feature);
        let mut cell = Cell::new(arena, &Gobgp, setup, Vec::new());
        let theirs = told::marked(19);
        cell.tell(&[Vec::new()], std::slice::from_ref(&theirs));
        cell.start();
        let (us, secret) = (cell.setup.our_address().to_string(), &theirs[2].prefix);
        Some(until("a route with NO_ADVERTISE that it tells us", || {
            let text = cell.place.run("gobgp", &["neighbor", &us, "adj-out"])?;
            let line = text
                .lines()
                .find_map(|line| Some(&line[line.find(secret.as_str())?..]));
            line.map(|line| format!("adj-out: {line}")).ok_or(text)
        }))
    }

    fn logs(&self, place: &Place) -> String {
        tail(&place.read("gobgpd.log"), 30)
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "ipv4",
        Family::Ipv6Unicast => "ipv6",
    }
}

fn configuration(setup: &Setup) -> String {
    let local = setup.their_asn();
    let mut text =
        format!("[global.config]\n as = {local}\n router-id = \"{THEIR_ID}\"\n port = 179\n");
    if setup.next_hop_self() {
        text.push_str(NEXT_HOP_SELF);
    }
    let us = setup.our_address();
    let mut neighbours = vec![(us, setup.their_address(), OUR_ASN, setup.families.clone())];
    for number in 1..=setup.their_sources {
        let address = their_source(number, Family::Ipv4Unicast);
        let asn = setup.their_source_asn();
        neighbours.push((address, THEIRS_TO_SOURCES.into(), asn, Family::ALL.to_vec()));
    }
    for (neighbour, local_address, asn, families) in neighbours {
        let is_us = neighbour == us;
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\n neighbor-address = \"{neighbour}\"\n peer-as = {asn}\n"
        );
        if let Some(password) = setup.password.as_ref().filter(|_| is_us) {
            let _ = writeln!(text, " auth-password = \"{password}\"");
        }
        let _ = write!(
            text,
            "[neighbors.transport.config]\n passive-mode = true\n local-address = \"{local_address}\"\n\
             [neighbors.timers.config]\n hold-time = 30\n keepalive-interval = 10\n connect-retry = 1\n \
             idle-hold-time-after-reset = 1\n"
        );
        if setup.gtsm && is_us {
            text.push_str("[neighbors.ttl-security.config]\n enabled = true\n ttl-min = 255\n");
        }
        if setup.they_reflect {
            let _ = write!(
                text,
                "[neighbors.route-reflector.config]\n route-reflector-client = true\n \
                 route-reflector-cluster-id = \"{THEIR_ID}\"\n"
            );
        }
        if setup.graceful_restart && is_us {
            text.push_str(
                "[neighbors.graceful-restart.config]\n enabled = true\n restart-time = 60\n \
                 deferral-time = 10\n notification-enabled = true\n",
            );
        }
        for family in families {
            let _ = write!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n afi-safi-name = \"{}-unicast\"\n",
                name(family)
            );
            if setup.graceful_restart && is_us {
                text.push_str(
                    "[neighbors.afi-safis.mp-graceful-restart.config]\n enabled = true\n",
                );
            }
            if is_us && setup.add_path != AddPath::Off {
                text.push_str("[neighbors.afi-safis.add-paths.config]\n");
                text.push_str(match setup.add_path {
                    AddPath::Sends => " send-max = 8\n",
                    _ => " receive = true\n",
                });
            }
        }
    }
    text
}

/// It names itself to internal peers by policy alone.
const NEXT_HOP_SELF: &str = r#"[global.apply-policy.config]
 export-policy-list = ["self"]
 default-export-policy = "accept-route"
[[policy-definitions]]
 name = "self"
 [[policy-definitions.statements]]
  [policy-definitions.statements.actions]
   route-disposition = "accept-route"
   [policy-definitions.statements.actions.bgp-actions]
    set-next-hop = "self"
"#;

fn route(prefix: &str, path: &Value, setup: &Setup) -> Route {
    let mut route = Route::new(prefix);
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for attribute in list(&path["attrs"]) {
        let value = &attribute["value"];
        match attribute["type"].as_u64() {
            Some(1) => {
                route.origin = match value.as_u64() {
                    Some(0) => "igp",
                    Some(1) => "egp",
                    _ => "incomplete",
                }
                .to_owned();
            }
            Some(2) => {
                let segments = list(&attribute["as_paths"]);
                let numbers = segments.iter().flat_map(|segment| list(&segment["asns"]));
                let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
                route.as_path = numbers.join(" ");
            }
            Some(3 | 14) => {
                let next_hop = attribute["nexthop"].as_str().unwrap_or_default();
                next_hop.clone_into(&mut route.next_hop);
            }
            Some(4) => route.med = number(&attribute["metric"]).or_else(|| number(value)),
            Some(5) if setup.internal => route.local_pref = number(value),
            Some(6) => route.atomic_aggregate = true,
            Some(7) => {
                let router = attribute["address"].as_str().unwrap_or_default();
                route.aggregator = Some(format!("{} {router}", attribute["as"]));
            }
            Some(8) => {
                let pairs = list(&attribute["communities"]);
                let pairs = pairs.iter().filter_map(number);
                route.communities = pairs
                    .map(|pair| format!("{}:{}", pair >> 16, pair & 0xffff))
                    .collect();
            }
            Some(9) => route.originator_id = value.as_str().map(str::to_owned),
            Some(10) => {
                let ids = list(value).into_iter();
                route.cluster_list = ids
                    .filter_map(|id| id.as_str().map(str::to_owned))
                    .collect();
            }
            Some(16) => {
                let set = list(value);
                route.extended = set.iter().map(extended).collect();
            }
            Some(32) => {
                let set = list(value);
                let text = |entry: &Value| {
                    format!(
                        "{}:{}:{}",
                        entry["ASN"], entry["LocalData1"], entry["LocalData2"]
                    )
                };
                route.large = set.iter().map(text).collect();
            }
            _ => {}
        }
    }
    route
}

/// `{"type": 0, "subtype": 2, "value": "65009:5"}` in octets.
fn extended(entry: &Value) -> String {
    let octet = |value: &Value| value.as_u64().unwrap_or_default() as u8;
    let (kind, subtype) = (octet(&entry["type"]), octet(&entry["subtype"]));
    let words = match subtype {
        2 => "rt",
        3 => "soo",
        _ => "?",
    };
    let parts = entry["value"]
        .as_str()
        .and_then(|value| value.rsplit_once(':'));
    let octets = parts.and_then(|(first, second)| {
        // Large numbers stand there with a dot.
        let first = match first.split_once('.') {
            Some((high, low)) if kind == 2 => {
                let (high, low): (u32, u32) = (high.parse().ok()?, low.parse().ok()?);
                ((high << 16) | low).to_string()
            }
            _ => first.to_owned(),
        };
        super::extended_from_words(words, &first, second)
    });
    octets.unwrap_or_else(|| entry.to_string())
}
