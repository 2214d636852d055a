//! ExaBGP: it has no table to pass anything on from, and tells what a program tells it to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;

use caracal_bgp_core::types::Family;
use caracal_bgp_core::wire::{Community, ExtendedCommunity};
use caracal_lab::process::Process;
use serde_json::Value;

use super::{Daemon, Place, tail, version_of};
use crate::arena::until;
use crate::route::Route;
use crate::setup::{AddPath, OUR_ASN, Setup, THEIR_ID};

pub(super) struct Exabgp;

/// What the program that ExaBGP starts does: it keeps all that it is told, and says what the test writes, from the
/// beginning after each start.
const PROGRAM: &str = "#!/bin/sh\n\
    exec 3<&0\n\
    cat <&3 >>\"$1/events\" &\n\
    exec tail -n +1 -s 0.05 -f \"$1/commands\"\n";

impl Daemon for Exabgp {
    fn name(&self) -> &'static str {
        "exabgp"
    }

    fn title(&self) -> &'static str {
        "ExaBGP"
    }

    fn version(&self) -> Result<String, String> {
        version_of("exabgp", "--version", "ExaBGP : ")
    }

    fn quirks(&self) -> &'static [&'static str] {
        &[
            "It passes nothing on and keeps nothing: what it tells is what its configuration or a program says, and there \
             is no table in a kernel to compare.",
            "With GTSM its listener answers with the system's TTL, so a session comes up only when it dials.",
            "`as-path` is sent as it stands, so its own AS has to be in it.",
            "It shows a next hop of a global and a link-local address (RFC 2545) as two routes.",
            "It listens with `exabgp.tcp.bind` and `passive true` alone.",
        ]
    }

    fn configure(&self, place: &Place, setup: &Setup) {
        place.write("exabgp.conf", &configuration(place, setup));
        place.write("program.sh", PROGRAM);
        place.write("commands", "");
        place.write("events", "");
    }

    fn start(&self, place: &Place, setup: &Setup, _again: bool, running: &mut Vec<Process>) {
        // What was heard in an earlier life does not count.
        place.write("events", "");
        let mut command = Command::new("exabgp");
        command
            .arg(place.at("exabgp.conf"))
            .env("exabgp.daemon.user", "root")
            .env("exabgp.tcp.port", "179")
            .env("exabgp.api.cli", "false")
            .env("exabgp.log.destination", "stdout")
            .env("exabgp.log.level", "INFO");
        if !dials(setup) {
            command.env("exabgp.tcp.bind", setup.their_address().to_string());
        }
        running.push(place.start_command("exabgp", command));
    }

    fn told(&self, place: &Place, setup: &Setup) -> Result<Vec<Route>, String> {
        let mut table = BTreeMap::new();
        for event in events(place)? {
            take_in(&event, setup, &mut table)?;
        }
        Ok(table.into_values().collect())
    }

    fn forwards(&self) -> bool {
        false
    }

    fn tell(&self, place: &Place, setup: &Setup, routes: &[Route]) {
        let before = place.read("commands");
        let mut paths = BTreeMap::new();
        let announced: Vec<String> = routes
            .iter()
            .map(|route| {
                let number: &mut u32 = paths.entry(&route.prefix).or_default();
                *number += 1;
                announcement(route, *number, setup)
            })
            .collect();
        let known = |line: &str| {
            line.split(" next-hop ")
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let mut text = String::new();
        let old = before
            .lines()
            .filter(|line| line.starts_with("announce route "));
        for line in old {
            if !announced.iter().any(|new| known(new) == known(line)) {
                let _ = writeln!(text, "{}", line.replacen("announce", "withdraw", 1));
            }
        }
        for line in announced {
            let _ = writeln!(text, "{line}");
        }
        say(place, &text);
    }

    fn ask_refresh(&self, place: &Place, _setup: &Setup) -> Result<(), String> {
        say(place, "announce route-refresh ipv4 unicast\n");
        Ok(())
    }

    fn shut_down(&self, place: &Place, setup: &Setup, message: &str) -> Result<(), String> {
        let before = place.read("events").matches("\nerror").count();
        let command = format!("neighbor {} teardown 2 {message}", setup.our_address());
        say(place, &format!("{command}\n"));
        until("an answer to teardown with a message", || {
            let text = place.read("events");
            if text.matches("\nerror").count() > before {
                Ok(())
            } else {
                Err(text)
            }
        });
        Err(format!("{command}: error"))
    }

    fn last_words(&self, place: &Place, _setup: &Setup) -> Result<String, String> {
        let down = down(place)?.unwrap_or_default();
        Ok(format!("{}\n{down}", place.read("exabgp.log")))
    }

    fn cannot_read(&self, shown: &str) -> Option<String> {
        shown
            .lines()
            .find(|line| line.contains("can not decode"))
            .map(str::to_owned)
    }

    fn refuses_refresh(&self, place: &Place) -> Option<String> {
        let reason = down(place).ok()??;
        Some(format!("state: down, reason: {reason}"))
    }

    fn kept(&self, place: &Place, lost: Option<String>) -> Result<(), String> {
        match (lost, down(place)?) {
            (Some(_), Some(reason)) => Err(format!("state: down, reason: {reason}")),
            (lost, _) => {
                assert_eq!(lost, None, "lost while we restarted");
                Ok(())
            }
        }
    }

    fn logs(&self, place: &Place) -> String {
        let (log, events) = (place.read("exabgp.log"), place.read("events"));
        format!(
            "{}\n{}\n{}",
            tail(&log, 30),
            tail(&events, 30),
            place.read("commands")
        )
    }
}

/// Why the session went down last.
fn down(place: &Place) -> Result<Option<String>, String> {
    Ok(events(place)?.into_iter().rev().find_map(|event| {
        let neighbour = &event["neighbor"];
        let reason = neighbour["reason"].as_str()?.to_owned();
        (neighbour["state"] == "down").then_some(reason)
    }))
}

fn say(place: &Place, text: &str) {
    let path = place.folder.join("commands");
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// All events of this life, in their order; a line that is not written whole yet does not count.
fn events(place: &Place) -> Result<Vec<Value>, String> {
    let text = place.read("events");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")))
        .collect()
}

fn configuration(place: &Place, setup: &Setup) -> String {
    let (us, them) = (setup.our_address(), setup.their_address());
    let mut text = format!(
        "process test {{\n run /bin/sh {} {};\n encoder json;\n}}\n\
         neighbor {us} {{\n router-id {THEIR_ID};\n local-address {them};\n local-as {};\n peer-as {OUR_ASN};\n \
         hold-time 30;\n",
        place.at("program.sh"),
        place.folder.display(),
        setup.their_asn(),
    );
    if !dials(setup) {
        text.push_str(" passive true;\n");
    }
    if let Some(password) = &setup.password {
        let _ = writeln!(text, " md5-password \"{password}\";");
    }
    if setup.gtsm {
        text.push_str(" outgoing-ttl 255;\n incoming-ttl 255;\n");
    }
    text.push_str(" family {\n");
    for family in families(setup) {
        let _ = writeln!(text, "  {} unicast;", name(family));
    }
    text.push_str(" }\n capability {\n  route-refresh enable;\n");
    if setup.graceful_restart {
        text.push_str("  graceful-restart 60;\n");
    }
    match setup.add_path {
        AddPath::Off => {}
        AddPath::Sends => text.push_str("  add-path send;\n"),
        AddPath::Receives => text.push_str("  add-path receive;\n"),
    }
    if setup.extended_next_hop {
        text.push_str("  nexthop enable;\n");
    }
    text.push_str(" }\n");
    if setup.extended_next_hop {
        text.push_str(" nexthop {\n  ipv4 unicast ipv6;\n }\n");
    }
    text.push_str(
        " api {\n  processes [ test ];\n  neighbor-changes;\n  receive {\n   parsed;\n   update;\n   \
         notification;\n  }\n }\n}\n",
    );
    text
}

/// It forgets about next hops of a family that it does not speak itself.
fn families(setup: &Setup) -> Vec<Family> {
    if setup.extended_next_hop {
        return Family::ALL.to_vec();
    }
    setup.families.clone()
}

/// Its listener answers with a TTL that GTSM does not let pass.
fn dials(setup: &Setup) -> bool {
    setup.gtsm
}

fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "ipv4",
        Family::Ipv6Unicast => "ipv6",
    }
}

/// The command for a route, which is the `number`th path to its prefix.
fn announcement(route: &Route, number: u32, setup: &Setup) -> String {
    let mut text = format!("announce route {}", route.prefix);
    if setup.add_path == AddPath::Sends {
        let _ = write!(text, " path-information 0.0.0.{number}");
    }
    let _ = write!(text, " next-hop {} origin {}", route.next_hop, route.origin);
    let _ = write!(text, " as-path [ {} ]", route.as_path);
    if let Some(med) = route.med {
        let _ = write!(text, " med {med}");
    }
    if let Some(local_pref) = route.local_pref {
        let _ = write!(text, " local-preference {local_pref}");
    }
    let communities: Vec<String> = route.communities.iter().map(|name| numeric(name)).collect();
    for (name, list) in [
        ("community", &communities),
        ("large-community", &route.large),
        ("extended-community", &route.extended),
        ("cluster-list", &route.cluster_list),
    ] {
        if !list.is_empty() {
            let _ = write!(text, " {name} [ {} ]", list.join(" "));
        }
    }
    if route.atomic_aggregate {
        text.push_str(" atomic-aggregate");
    }
    if let Some((asn, router)) = route
        .aggregator
        .as_ref()
        .and_then(|text| text.split_once(' '))
    {
        let _ = write!(text, " aggregator ( {asn}:{router} )");
    }
    if let Some(id) = &route.originator_id {
        let _ = write!(text, " originator-id {id}");
    }
    text
}

/// A community without a name, of which it does not know all.
fn numeric(community: &str) -> String {
    let Community(number) = community.parse().unwrap();
    format!("{}:{}", number >> 16, number & 0xffff)
}

/// Makes the change that an event tells.
fn take_in(
    event: &Value,
    setup: &Setup,
    table: &mut BTreeMap<(String, String), Route>,
) -> Result<(), String> {
    let neighbour = &event["neighbor"];
    if neighbour["state"] == "down" || neighbour["state"] == "connected" {
        table.clear();
    }
    let update = &neighbour["message"]["update"];
    let key = |nlri: &Value| {
        let path = nlri["path-information"].as_str().unwrap_or_default();
        (
            nlri["nlri"].as_str().unwrap_or_default().to_owned(),
            path.to_owned(),
        )
    };
    for (_, gone) in update["withdraw"].as_object().into_iter().flatten() {
        for nlri in gone.as_array().into_iter().flatten() {
            table.remove(&key(nlri));
        }
    }
    for (_, reach) in update["announce"].as_object().into_iter().flatten() {
        let ways = reach.as_object().into_iter().flatten();
        // Of two addresses in one next hop (RFC 2545 §3) each comes by itself: the global one counts.
        let global = |address: &str| !address.starts_with("fe80:");
        let counts = |address: &str| global(address) || !ways.clone().any(|(one, _)| global(one));
        for (next_hop, list) in ways.clone().filter(|(address, _)| counts(address)) {
            for nlri in list.as_array().into_iter().flatten() {
                let key = key(nlri);
                let mut route = Route::new(&key.0).via(next_hop);
                attributes(&update["attribute"], setup, &mut route)
                    .ok_or_else(|| update.to_string())?;
                table.insert(key, route);
            }
        }
    }
    Ok(())
}

fn attributes(set: &Value, setup: &Setup, route: &mut Route) -> Option<()> {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let joined = |value: &Value| {
        let parts: Vec<String> = list(value).iter().map(ToString::to_string).collect();
        parts.join(":")
    };
    set["origin"].as_str()?.clone_into(&mut route.origin);
    route.as_path = joined(&set["as-path"]).replace(':', " ");
    route.med = number(&set["med"]);
    if setup.internal {
        route.local_pref = number(&set["local-preference"]);
    }
    for community in list(&set["community"]) {
        let community: Community = joined(&community).parse().ok()?;
        route.communities.push(community.to_string());
    }
    route.large = list(&set["large-community"]).iter().map(joined).collect();
    for community in list(&set["extended-community"]) {
        let octets = community["value"].as_u64()?.to_be_bytes();
        route.extended.push(ExtendedCommunity(octets).to_string());
    }
    route.atomic_aggregate = set["atomic-aggregate"] == true;
    let aggregator = set["aggregator"].as_str();
    route.aggregator = aggregator.map(|text| text.replace(':', " "));
    route.originator_id = set["originator-id"].as_str().map(str::to_owned);
    let clusters = list(&set["cluster-list"]).into_iter();
    route.cluster_list = clusters
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    Some(())
}
