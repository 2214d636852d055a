//! OpenBGPD, as ported to Linux: it writes nothing to the kernel there.

use std::fmt::Write as _;

use caracal_bgp_core::types::Family;
use caracal_lab::process::Process;
use serde_json::Value;

use super::{Daemon, Place, extended_from_words, tail, version_of};
use crate::arena::{THEIRS_TO_SOURCES, their_source};
use crate::route::Route;
use crate::setup::{AddPath, OUR_ASN, OUR_ID, Setup, THEIR_ID};

pub(super) struct Openbgpd;

/// FRR has a program of the same name elsewhere.
const PROGRAM: &str = "/usr/sbin/bgpd";

impl Daemon for Openbgpd {
    fn name(&self) -> &'static str {
        "openbgpd"
    }

    fn title(&self) -> &'static str {
        "OpenBGPD"
    }

    fn version(&self) -> Result<String, String> {
        version_of(PROGRAM, "-V", "OpenBGPD ")
    }

    fn quirks(&self) -> &'static [&'static str] {
        &[
            "On Linux it writes nothing to the kernel, so there is nothing there to compare.",
            "Its JSON has a `metric` of 0 where a route has no MULTI_EXIT_DISC, and `true_nexthop` is not the NEXT_HOP of \
             the route; `exit_nexthop` is.",
            "As a reflector it shows ORIGINATOR_ID and CLUSTER_LIST on what a client has told it, before it reflects it.",
            "On Linux its listener takes no connection signed by TCP MD5; a session comes up when it dials.",
            "To a neighbour with an IPv4 session it names `::1` as next hop of IPv6 routes.",
            "It makes no folder for itself: `/run/openbgpd` must be there.",
        ]
    }

    fn configure(&self, place: &Place, setup: &Setup) {
        place.write("bgpd.conf", &configuration(place, setup));
    }

    fn start(&self, place: &Place, _setup: &Setup, _again: bool, running: &mut Vec<Process>) {
        // Its processes lock themselves in here; the package leaves it to the service to make.
        std::fs::create_dir_all("/run/openbgpd").unwrap();
        let file = place.at("bgpd.conf");
        running.push(place.start("bgpd", PROGRAM, &["-d", "-v", "-f", &file]));
    }

    fn told(&self, place: &Place, setup: &Setup) -> Result<Vec<Route>, String> {
        let us = setup.our_address().to_string();
        let text = bgpctl(
            place,
            &["-j", "show", "rib", "in", "detail", "neighbor", &us],
        )?;
        let table: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let entries = table["rib"].as_array().into_iter().flatten();
        let mut routes: Vec<Route> = entries
            .map(|entry| route(entry, setup))
            .collect::<Result<_, _>>()?;
        if setup.they_reflect {
            for route in &mut routes {
                as_received(route);
            }
        }
        Ok(routes)
    }

    fn ask_refresh(&self, place: &Place, setup: &Setup) -> Result<(), String> {
        let us = setup.our_address().to_string();
        bgpctl(place, &["neighbor", &us, "refresh"]).map(drop)
    }

    fn shut_down(&self, place: &Place, setup: &Setup, message: &str) -> Result<(), String> {
        let us = setup.our_address().to_string();
        bgpctl(place, &["neighbor", &us, "down", message]).map(drop)
    }

    fn last_words(&self, place: &Place, setup: &Setup) -> Result<String, String> {
        let us = setup.our_address().to_string();
        bgpctl(place, &["show", "neighbor", &us])
    }

    fn refuses_refresh(&self, place: &Place) -> Option<String> {
        let log = place.read("bgpd.log");
        let line = log.lines().find(|line| line.contains("route refresh: "))?;
        line.split_once("route refresh: ")
            .map(|(_, words)| words.to_owned())
    }

    fn logs(&self, place: &Place) -> String {
        tail(&place.read("bgpd.log"), 30)
    }
}

/// As a reflector it marks routes when it takes them in, and so shows them.
fn as_received(route: &mut Route) {
    if route.originator_id.as_deref() == Some(OUR_ID) {
        route.originator_id = None;
    }
    if route.cluster_list.first().is_some_and(|id| id == THEIR_ID) {
        route.cluster_list.remove(0);
    }
}

fn bgpctl(place: &Place, words: &[&str]) -> Result<String, String> {
    let socket = place.at("bgpd.sock");
    let mut arguments = vec!["-s", &socket];
    arguments.extend(words);
    place.run("bgpctl", &arguments)
}

fn configuration(place: &Place, setup: &Setup) -> String {
    let local = setup.their_asn();
    let us = setup.our_address();
    let mut text = format!(
        "AS {local}\nrouter-id {THEIR_ID}\nholdtime 30\nconnect-retry 1\nfib-update no\nsocket \"{}\"\n\
         listen on {}\nlisten on {THEIRS_TO_SOURCES}\nlog updates\n",
        place.at("bgpd.sock"),
        setup.their_address(),
    );
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
            "neighbor {neighbour} {{\n remote-as {asn}\n local-address {local_address}\n \
             announce refresh yes\n announce enhanced refresh yes\n"
        );
        // Its listener on Linux does not take signed connections, so it dials where there is a password.
        if !is_us || setup.password.is_none() {
            text.push_str(" passive\n");
        }
        for family in Family::ALL {
            let name = match family {
                Family::Ipv4Unicast => "IPv4",
                Family::Ipv6Unicast => "IPv6",
            };
            let word = if families.contains(&family) {
                "unicast"
            } else {
                "none"
            };
            let _ = writeln!(text, " announce {name} {word}");
        }
        if setup.they_reflect {
            let _ = writeln!(text, " route-reflector {THEIR_ID}");
        }
        if is_us {
            let restart = if setup.graceful_restart { "yes" } else { "no" };
            let _ = writeln!(text, " announce restart {restart}");
            if let Some(password) = &setup.password {
                let _ = writeln!(text, " tcp md5sig password \"{password}\"");
            }
            if setup.gtsm {
                text.push_str(" ttl-security yes\n");
            }
            match setup.add_path {
                AddPath::Off => {}
                AddPath::Sends => text.push_str(" announce add-path send all\n"),
                AddPath::Receives => text.push_str(" announce add-path recv yes\n"),
            }
        }
        text.push_str("}\n");
    }
    text.push_str("allow from any\nallow to any\n");
    if setup.next_hop_self() {
        let _ = writeln!(text, "match to {us} set nexthop self");
    }
    text
}

fn route(entry: &Value, setup: &Setup) -> Result<Route, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let list = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(text).collect()
    };
    let prefix = entry["prefix"].as_str().unwrap_or_default();
    let mut route = Route::new(prefix);
    route.origin = text(&entry["origin"])
        .unwrap_or_default()
        .to_ascii_lowercase();
    route.as_path = text(&entry["aspath"]).unwrap_or_default().trim().to_owned();
    route.next_hop = text(&entry["exit_nexthop"]).unwrap_or_default();
    // It shows 0 where there is none.
    route.med = number(&entry["metric"]).filter(|med| *med != 0);
    if setup.internal {
        route.local_pref = number(&entry["localpref"]);
    }
    route.communities = list(&entry["communities"]);
    for name in &mut route.communities {
        *name = name.to_ascii_lowercase().replace('_', "-");
        if name == "graceful-shutdown" || name == "65535:0" {
            "graceful-shutdown".clone_into(name);
        }
    }
    route.large = list(&entry["large_communities"]);
    for word in list(&entry["extended_communities"]) {
        let octets = word.split_once(' ').and_then(|(kind, value)| {
            let (first, second) = value.rsplit_once(':')?;
            extended_from_words(kind, first, second)
        });
        route
            .extended
            .push(octets.ok_or_else(|| entry.to_string())?);
    }
    for attribute in entry["attributes"].as_array().into_iter().flatten() {
        match attribute["type"].as_str().unwrap_or_default() {
            "Atomic Aggregate" => route.atomic_aggregate = true,
            "Aggregator" => {
                let router = attribute["router_id"].as_str().unwrap_or_default();
                route.aggregator = Some(format!("{} {router}", attribute["AS"]));
            }
            "Originator Id" => route.originator_id = text(&attribute["originator"]),
            "Cluster Id List" => route.cluster_list = list(&attribute["cluster_list"]),
            _ => {}
        }
    }
    Ok(route)
}
