//! FRR: zebra, bgpd, and bfdd where it is asked for.

use std::fmt::Write as _;
use std::os::unix::fs::chown;
use std::path::Path;

use caracal_bgp_core::types::Family;
use caracal_lab::process::Process;
use serde_json::Value;

use super::{Daemon, Place, extended_from_words, tail, version_of};
use crate::arena::{their_source, until};
use crate::route::Route;
use crate::setup::{AddPath, OUR_ASN, Setup, THEIR_ID, Transport};

pub(super) struct Frr;

/// Where Debian keeps the daemons; bgpd has the name of OpenBGPD's.
const FOLDER: &str = "/usr/lib/frr";
/// The account that they drop to.
const USER: &str = "frr";

impl Daemon for Frr {
    fn name(&self) -> &'static str {
        "frr"
    }

    fn title(&self) -> &'static str {
        "FRR"
    }

    fn version(&self) -> Result<String, String> {
        version_of(&format!("{FOLDER}/bgpd"), "--version", "bgpd version ")
    }

    fn quirks(&self) -> &'static [&'static str] {
        &[
            "It tells us our own routes again, with its AS in front; we refuse them for their path.",
            "A route that it reflects and that has no MULTI_EXIT_DISC gets one of 0.",
            "An eBGP peer without route maps exchanges nothing unless `no bgp ebgp-requires-policy` stands there.",
            "It waits up to a minute between attempts to connect, and lets changes wait: `timers connect 1` and \
             `advertisement-interval 0` make it as quick as we are.",
            "After its own restart it says that it kept on forwarding only with `bgp graceful-restart \
             preserve-fw-state`; without, we drop its routes when it comes back, as RFC 4724 §4.2 demands.",
        ]
    }

    fn configure(&self, place: &Place, setup: &Setup) {
        let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
        let give = |path: &Path| chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        give(&place.folder).unwrap();
        for (name, text) in [
            ("zebra.conf", "hostname router\n".to_owned()),
            ("bfdd.conf", "hostname router\n".to_owned()),
            ("bgpd.conf", configuration(setup)),
        ] {
            place.write(name, &text);
            give(&place.folder.join(name)).unwrap();
        }
    }

    fn start(&self, place: &Place, _setup: &Setup, _again: bool, running: &mut Vec<Process>) {
        if running.is_empty() {
            running.push(launch(place, "zebra", &["-K", "60"]));
            // The one that stays besides zebra, so that their number is always the same.
            let control = place.at("bfdd.ctl");
            running.push(launch(place, "bfdd", &["--bfdctl", &control]));
        }
        let _ = std::fs::remove_file(place.folder.join("bgpd.vty"));
        running.push(launch(place, "bgpd", &[]));
    }

    fn stays(&self) -> usize {
        2
    }

    fn told(&self, place: &Place, setup: &Setup) -> Result<Vec<Route>, String> {
        let mut routes = Vec::new();
        for family in &setup.families {
            let family = name(*family);
            let list = vtysh(place, &[format!("show bgp {family} unicast json")])?;
            let list = list.first().and_then(|list| list["routes"].as_object());
            let prefixes = list.into_iter().flat_map(|list| list.keys());
            let commands: Vec<String> = prefixes
                .map(|prefix| format!("show bgp {family} unicast {prefix} json"))
                .collect();
            if commands.is_empty() {
                continue;
            }
            for entry in vtysh(place, &commands)? {
                let prefix = entry["prefix"].as_str().unwrap_or_default().to_owned();
                for path in entry["paths"].as_array().into_iter().flatten() {
                    if from_us(path, setup) {
                        routes.push(route(&prefix, path, setup)?);
                    }
                }
            }
        }
        Ok(routes)
    }

    fn echoes(&self) -> bool {
        true
    }

    fn as_told(&self, setup: &Setup, mut route: Route) -> Route {
        if setup.they_reflect {
            route.med = route.med.or(Some(0));
        }
        route
    }

    fn has_kernel(&self) -> bool {
        true
    }

    fn ask_refresh(&self, place: &Place, setup: &Setup) -> Result<(), String> {
        let command = format!("clear bgp ipv4 unicast {} soft in", setup.our_address());
        place
            .run("vtysh", &["--vty_socket", &place.at(""), "-c", &command])
            .map(drop)
    }

    fn shut_down(&self, place: &Place, setup: &Setup, message: &str) -> Result<(), String> {
        let commands = [
            "configure terminal".to_owned(),
            format!("router bgp {}", setup.their_asn()),
            format!(
                "neighbor {} shutdown message {message}",
                setup.our_address()
            ),
        ];
        let folder = place.at("");
        let mut arguments = vec!["--vty_socket", &folder];
        for command in &commands {
            arguments.extend(["-c", command]);
        }
        place.run("vtysh", &arguments).map(drop)
    }

    fn last_words(&self, place: &Place, setup: &Setup) -> Result<String, String> {
        let command = format!("show bgp neighbors {} json", setup.our_address());
        let shown = vtysh(place, &[command])?;
        Ok(format!("{shown:?}"))
    }

    fn bfd(&self, place: &Place, setup: &Setup) -> Result<(), String> {
        let shown = vtysh(place, &["show bfd peers json".to_owned()])?;
        let us = setup.our_address().to_string();
        let mut peers = shown.iter().flat_map(|list| list.as_array()).flatten();
        if peers.any(|peer| peer["peer"] == us.as_str() && peer["status"] == "up") {
            Ok(())
        } else {
            Err(format!("{shown:?}"))
        }
    }

    fn logs(&self, place: &Place) -> String {
        tail(&place.read("messages"), 30)
    }
}

fn launch(place: &Place, daemon: &str, more: &[&str]) -> Process {
    let (file, pid) = (
        place.at(&format!("{daemon}.conf")),
        place.at(&format!("{daemon}.pid")),
    );
    let (zserv, folder) = (place.at("zserv.api"), place.at(""));
    let log = format!("file:{}", place.at("messages"));
    let mut arguments = vec!["-P", "0", "-f", &file, "-i", &pid, "-z", &zserv];
    arguments.extend(["--vty_socket", &folder, "--log", &log]);
    arguments.extend(more);
    let process = place.start(daemon, format!("{FOLDER}/{daemon}"), &arguments);
    let socket = place.folder.join(format!("{daemon}.vty"));
    until(&format!("{daemon} answers"), || {
        if socket.exists() {
            Ok(())
        } else {
            Err(place.read("messages"))
        }
    });
    process
}

fn vtysh(place: &Place, commands: &[String]) -> Result<Vec<Value>, String> {
    let folder = place.at("");
    let mut arguments = vec!["--vty_socket", &folder];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    let text = place.run("vtysh", &arguments)?;
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect();
    values.map_err(|error| format!("{error}: {text}"))
}

fn configuration(setup: &Setup) -> String {
    let local = setup.their_asn();
    let mut text = format!(
        "log file /dev/null\n\
         router bgp {local}\n \
         bgp router-id {THEIR_ID}\n \
         bgp cluster-id {THEIR_ID}\n \
         no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n \
         no bgp network import-check\n \
         bgp graceful-restart\n \
         bgp graceful-restart preserve-fw-state\n \
         bgp graceful-restart restart-time 60\n"
    );
    let us = setup.our_name();
    let mut neighbours = vec![(us.clone(), OUR_ASN)];
    for number in 1..=setup.their_sources {
        let address = their_source(number, Family::Ipv4Unicast).to_string();
        neighbours.push((address, setup.their_source_asn()));
    }
    for (neighbour, asn) in &neighbours {
        let interface = if setup.transport == Transport::Unnumbered && *neighbour == us {
            "interface "
        } else {
            ""
        };
        let _ = write!(
            text,
            " neighbor {neighbour} {interface}remote-as {asn}\n \
             neighbor {neighbour} timers 10 30\n \
             neighbor {neighbour} timers connect 1\n \
             neighbor {neighbour} advertisement-interval 0\n"
        );
    }
    if let Some(password) = &setup.password {
        let _ = writeln!(text, " neighbor {us} password {password}");
    }
    for (wanted, line) in [
        (setup.gtsm, "ttl-security hops 1"),
        (setup.bfd, "bfd 3 100 100"),
        (setup.extended_next_hop, "capability extended-nexthop"),
    ] {
        if wanted {
            let _ = writeln!(text, " neighbor {us} {line}");
        }
    }
    for family in Family::ALL {
        let _ = writeln!(text, " address-family {} unicast", name(family));
        for (neighbour, _) in &neighbours {
            if *neighbour != us || setup.families.contains(&family) {
                let _ = writeln!(text, "  neighbor {neighbour} activate");
                if setup.they_reflect {
                    let _ = writeln!(text, "  neighbor {neighbour} route-reflector-client");
                }
            }
        }
        if setup.families.contains(&family) {
            for (wanted, line) in [
                (setup.add_path == AddPath::Sends, "addpath-tx-all-paths"),
                (setup.next_hop_self(), "next-hop-self"),
            ] {
                if wanted {
                    let _ = writeln!(text, "  neighbor {us} {line}");
                }
            }
        }
        text.push_str(" exit-address-family\n");
    }
    text
}

impl Setup {
    /// What the router calls us: an address, or its interface.
    fn our_name(&self) -> String {
        match self.transport {
            Transport::Unnumbered => "e1".to_owned(),
            _ => self.our_address().to_string(),
        }
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "ipv4",
        Family::Ipv6Unicast => "ipv6",
    }
}

fn from_us(path: &Value, setup: &Setup) -> bool {
    let peer = &path["peer"];
    peer["peerId"] == setup.our_address().to_string().as_str() || peer["interface"] == "e1"
}

fn route(prefix: &str, path: &Value, setup: &Setup) -> Result<Route, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let words = |value: &Value| -> Vec<String> {
        let text = value["string"].as_str().unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let mut route = Route::new(prefix);
    route.origin = text(&path["origin"])
        .unwrap_or_default()
        .to_ascii_lowercase();
    let as_path = text(&path["aspath"]["string"]).unwrap_or_default();
    if as_path != "Local" {
        route.as_path = as_path;
    }
    // Of a global and a link-local one, the first.
    let hops = path["nexthops"].as_array();
    let first = hops.and_then(|hops| hops.iter().find(|hop| hop["scope"] != "link-local"));
    let first = first.or_else(|| hops?.first());
    route.next_hop = first.and_then(|hop| text(&hop["ip"])).unwrap_or_default();
    route.med = number(&path["metric"]).filter(|_| path.get("metric").is_some());
    if setup.internal {
        route.local_pref = number(&path["locPrf"]);
    }
    route.communities = words(&path["community"]);
    for name in &mut route.communities {
        // Its names for those that RFCs have named otherwise.
        *name = match name.as_str() {
            "local-AS" => "no-export-subconfed",
            other => other,
        }
        .to_owned();
    }
    route.large = words(&path["largeCommunity"]);
    for word in words(&path["extendedCommunity"]) {
        let mut parts = word.splitn(3, ':');
        let octets = match (parts.next(), parts.next(), parts.next()) {
            (Some(kind), Some(first), Some(second)) => extended_from_words(kind, first, second),
            _ => None,
        };
        route
            .extended
            .push(octets.ok_or_else(|| format!("{path}"))?);
    }
    route.atomic_aggregate = path["atomicAggregate"] == true;
    if let (Some(asn), Some(router)) = (number(&path["aggregatorAs"]), text(&path["aggregatorId"]))
    {
        route.aggregator = Some(format!("{asn} {router}"));
    }
    route.originator_id = text(&path["originatorId"]);
    let clusters = path["clusterList"]["list"].as_array();
    route.cluster_list = clusters.into_iter().flatten().filter_map(text).collect();
    Ok(route)
}
