//! The screens of sessions.

use std::fmt::Write;

use caracal_bgp_speaker::snapshot::{
    ErrorSnapshot, FamilySnapshot, PeerDetail, PeerSnapshot, SessionState, SpeakerSnapshot,
    StationSnapshot, TermsSnapshot,
};
use caracal_bgp_speaker::status::{Direction, DownReason, MessageCounts, Why};

use super::{ago, counted, known, moment};
use crate::table;

const HEADER: [&str; 9] = [
    "PEER", "ADDRESS", "AS", "STATE", "UPTIME", "RCVD", "ACPT", "ADV", "WHY",
];

/// Where figures are missing.
const BUSY: &str = "\nhint: the routing table was too busy to be counted; ask again\n";

/// All sessions of a speaker, a line each.
pub(super) fn all(speaker: &SpeakerSnapshot, now_ms: u64) -> String {
    let rows: Vec<Vec<String>> = speaker.peers.iter().map(|peer| row(peer, now_ms)).collect();
    let up = speaker.peers.iter().filter(|peer| is_up(peer)).count();
    let mut text = table::render(&HEADER, &rows);
    let count = counted(speaker.peers.len(), "session");
    text.push_str(&format!("{up} of {count} established\n"));
    for range in &speaker.ranges {
        let (name, prefixes) = (&range.name, range.prefixes.join(", "));
        let places = format!("{} of {} places taken", range.used, range.limit);
        text.push_str(&format!("range {name}, {prefixes}: {places}\n"));
    }
    for station in &speaker.stations {
        text.push_str(&format!("BMP station {}\n", told(station, now_ms)));
    }
    let Some(rib) = &speaker.rib else {
        text.push_str(BUSY);
        return text;
    };
    if rib.deferring {
        text.push_str(
            "\nhint: after a restart, routes are selected when every peer has told its own\n",
        );
    }
    let failed: usize = rib.fib.iter().map(|fib| fib.failed).sum();
    if failed > 0 {
        let count = counted(failed, "route");
        text.push_str(&format!(
            "\nhint: the kernel refused {count}; `caracal bgp routes` says which\n"
        ));
    }
    text
}

fn told(station: &StationSnapshot, now_ms: u64) -> String {
    let address = station.address;
    let since = ago(station.since_ms, now_ms);
    match (station.connected, station.synchronised) {
        (true, true) => format!("{address}: told everything, connected for {since}"),
        (true, false) => format!("{address}: being told the table, connected for {since}"),
        (false, _) if station.why.is_empty() => format!("{address}: not connected yet"),
        (false, _) => format!("{address}: not connected for {since}: {}", station.why),
    }
}

fn row(peer: &PeerSnapshot, now_ms: u64) -> Vec<String> {
    let sum = |count: fn(&FamilySnapshot) -> usize| {
        let routes = peer.routes.as_ref();
        known(routes.map(|routes| routes.families.iter().map(count).sum::<usize>()))
    };
    vec![
        peer.name.clone(),
        known(peer.remote.map(|remote| remote.ip())),
        known(peer.asn.map(|asn| asn.0)),
        peer.state.to_string(),
        match is_up(peer) {
            true => ago(peer.since_ms, now_ms),
            false => "-".to_owned(),
        },
        sum(|family| family.received),
        sum(|family| family.accepted),
        sum(|family| family.advertised),
        remark(peer, now_ms),
    ]
}

/// Why a session is down, when that was or since when, and the last error where that is another one; of one
/// that is up, what is unusual.
fn remark(peer: &PeerSnapshot, now_ms: u64) -> String {
    if is_up(peer) {
        return peer.remark();
    }
    let why = peer.why.as_ref().map(|why| timed(peer, why, now_ms));
    let mut remark = peer.with_link_trouble(why.unwrap_or_default());
    let said = |error: &ErrorSnapshot| {
        peer.why
            .as_ref()
            .is_some_and(|why| why.text.contains(&error.text))
    };
    // Who is left alone has been told why.
    if peer.state != SessionState::Idle
        && let Some((direction, error)) = peer.last_error().filter(|(_, error)| !said(error))
    {
        let direction = match direction {
            Direction::Sent => "sent",
            Direction::Received => "received",
        };
        let space = if remark.is_empty() { "" } else { "; " };
        remark.push_str(&format!("{space}last error {direction}: {}", error.text));
    }
    remark
}

/// Why a session is down: a state for as long as it lasts, or what happened last and how often.
fn timed(peer: &PeerSnapshot, why: &Why, now_ms: u64) -> String {
    let time = ago(peer.why_ms, now_ms);
    let lasts = peer.state == SessionState::Idle
        || (peer.state == SessionState::OpenSent && why.reason == DownReason::AwaitsPath);
    match (lasts, peer.attempts) {
        (true, _) => format!("{why} (for {time})"),
        (_, 0) => format!("{why} ({time} ago)"),
        (_, 1) => format!("{why} ({time} ago, 1 try)"),
        (_, tries) => format!("{why} ({time} ago, {tries} tries)"),
    }
}

fn is_up(peer: &PeerSnapshot) -> bool {
    peer.state == SessionState::Established
}

/// Everything about one session.
pub(super) fn one(detail: &PeerDetail, now_ms: u64) -> String {
    let peer = &detail.peer;
    let mut facts = Facts::default();
    facts.add("peer", described(peer));
    facts.add("found by", found_by(peer));
    facts.add("ends", ends(peer));
    facts.add("state", state(peer, now_ms));
    if let Some(why) = &peer.why {
        facts.add("why", timed(peer, why, now_ms));
    }
    if let Some(link) = &peer.link_trouble {
        facts.add("link", link.clone());
    }
    for (what, error) in [
        ("last error sent", &peer.last_sent_error),
        ("last error received", &peer.last_received_error),
    ] {
        if let Some(error) = error {
            let when = ago(error.at_ms, now_ms);
            facts.add(
                what,
                format!("{} ({when} ago, {})", error.text, moment(error.at_ms)),
            );
        }
    }
    facts.add("authentication", peer.authentication.clone());
    if let Some(missing) = peer.without_policy() {
        facts.add("policy", missing);
    }
    if let Some(why) = &peer.draining {
        facts.add("draining", format!("traffic is turned away: {why}"));
    }
    match &peer.routes {
        None => facts.add("routes", "not known".to_owned()),
        Some(routes) if is_up(peer) && routes.untold > 0 => {
            facts.add("still to tell", counted(routes.untold, "change"));
        }
        Some(_) => {}
    }
    if let Some(bfd) = &peer.bfd {
        let since = ago(bfd.since_ms, now_ms);
        let mut text = format!(
            "{} for {since} ({}), peer says {}",
            bfd.state, bfd.reason, bfd.remote_state
        );
        if let Some(us) = bfd.detected_us {
            text.push_str(&format!(", last failure seen after {} ms", us / 1000));
        }
        facts.add("BFD", text);
    }
    if let Some(terms) = &peer.terms {
        agreed(terms, &mut facts);
    }
    let mut text = table::render(&["", ""], &facts.0);
    // The head of that table is empty.
    text.drain(..=text.find('\n').unwrap_or(0));
    if !peer.families().is_empty() {
        text.push('\n');
        text.push_str(&families(peer));
    }
    text.push('\n');
    text.push_str(&counters(peer));
    if !detail.rejected.is_empty() {
        text.push('\n');
        text.push_str(&rejected(detail));
    }
    if peer.routes.is_none() {
        text.push_str(BUSY);
    }
    text
}

/// Names and values, one pair per line.
#[derive(Default)]
struct Facts(Vec<Vec<String>>);

impl Facts {
    fn add(&mut self, name: &str, value: String) {
        self.0.push(vec![name.to_owned(), value]);
    }
}

fn described(peer: &PeerSnapshot) -> String {
    match peer.description.as_str() {
        "" => peer.name.clone(),
        description => format!("{} ({description})", peer.name),
    }
}

fn found_by(peer: &PeerSnapshot) -> String {
    match &peer.range {
        Some(range) => format!("{}, let in by range {range}", peer.endpoint),
        None => peer.endpoint.clone(),
    }
}

fn ends(peer: &PeerSnapshot) -> String {
    let kind = if peer.internal { "iBGP" } else { "eBGP" };
    let mut text = format!(
        "{} AS {} to {} AS {}, {kind}",
        known(peer.local_address),
        peer.local_asn,
        known(peer.remote),
        known(peer.asn)
    );
    if let Some(interface) = &peer.interface {
        text.push_str(&format!(", on {interface}"));
    }
    if let Some(router_id) = &peer.router_id {
        text.push_str(&format!(", identifier {router_id}"));
    }
    text
}

fn state(peer: &PeerSnapshot, now_ms: u64) -> String {
    let times = match peer.established_count {
        0 => "never up".to_owned(),
        1 => "up once".to_owned(),
        count => format!("up {count} times"),
    };
    let since = ago(peer.since_ms, now_ms);
    format!("{} for {since}, {times} since the start", peer.state)
}

fn agreed(terms: &TermsSnapshot, facts: &mut Facts) {
    facts.add(
        "timers",
        match terms.hold_time_secs {
            0 => "none".to_owned(),
            hold => format!("hold {hold} s, keepalive {} s", terms.keepalive_secs),
        },
    );
    let mut agreed = Vec::new();
    for (has, what) in [
        (terms.four_octet_as, "4-octet AS"),
        (terms.enhanced_route_refresh, "enhanced route refresh"),
        (
            terms.route_refresh && !terms.enhanced_route_refresh,
            "route refresh",
        ),
        (terms.extended_next_hop, "extended next hop"),
        (terms.link_local_next_hop, "link-local next hop"),
        (terms.bfd_strict, "BFD strict mode"),
    ] {
        if has {
            agreed.push(what.to_owned());
        }
    }
    for (families, what) in [
        (&terms.add_path_send, "add-path sent"),
        (&terms.add_path_receive, "add-path received"),
    ] {
        if !families.is_empty() {
            agreed.push(format!("{what} ({})", families.join(", ")));
        }
    }
    agreed.push(format!("messages up to {} octets", terms.longest_message));
    if let Some(role) = &terms.role {
        agreed.push(format!("role {role}"));
    }
    facts.add("agreed", agreed.join(", "));
    if terms.graceful_restart {
        let mut kept = format!("kept for {} s", terms.restart_time_secs);
        if terms.keeps_over_notification {
            kept.push_str(", also over a NOTIFICATION");
        }
        if let Some(long) = terms.long_lived_secs {
            kept.push_str(&format!(", long-lived for {long} s more"));
        }
        facts.add("its routes", kept);
    }
    let identity: Vec<&str> = [&terms.host, &terms.software]
        .into_iter()
        .filter_map(|known| known.as_deref())
        .collect();
    if !identity.is_empty() {
        facts.add("says it is", identity.join(", "));
    }
}

fn families(peer: &PeerSnapshot) -> String {
    let end = |seen: bool| if seen { "yes" } else { "not yet" }.to_owned();
    let rows: Vec<Vec<String>> = peer
        .families()
        .iter()
        .map(|family| {
            vec![
                family.family.to_string(),
                family.received.to_string(),
                family.accepted.to_string(),
                family.received.saturating_sub(family.accepted).to_string(),
                family.stale.to_string(),
                family.advertised.to_string(),
                end(family.end_of_rib_received),
                end(family.end_of_rib_sent),
            ]
        })
        .collect();
    let header = [
        "FAMILY", "RCVD", "ACPT", "REJ", "STALE", "ADV", "EOR-RCVD", "EOR-SENT",
    ];
    table::render(&header, &rows)
}

fn counters(peer: &PeerSnapshot) -> String {
    let row = |name: &str, counts: &MessageCounts| {
        let numbers = [
            counts.open,
            counts.update,
            counts.notification,
            counts.keepalive,
            counts.route_refresh,
            counts.octets,
        ];
        let mut row = vec![name.to_owned()];
        row.extend(numbers.map(|number| number.to_string()));
        row
    };
    let counters = &peer.counters;
    let rows = [
        row("received", &counters.received),
        row("sent", &counters.sent),
    ];
    let header = [
        "MESSAGES",
        "OPEN",
        "UPDATE",
        "NOTIFICATION",
        "KEEPALIVE",
        "REFRESH",
        "OCTETS",
    ];
    let mut text = table::render(&header, &rows);
    let mut faults = Vec::new();
    for (count, what) in [
        (counters.discarded_attributes, "attributes discarded"),
        (
            counters.treated_as_withdraw,
            "UPDATEs treated as withdrawals",
        ),
    ] {
        if count > 0 {
            faults.push(format!("{what}: {count}"));
        }
    }
    for (reason, count) in &counters.flaps {
        faults.push(format!("ended by {}: {count}", reason.word()));
    }
    if !faults.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", faults.join(", "));
    }
    text
}

fn rejected(detail: &PeerDetail) -> String {
    let rows: Vec<Vec<String>> = detail
        .rejected
        .iter()
        .map(|rejected| {
            vec![
                rejected.count.to_string(),
                rejected.reason.clone(),
                known(rejected.rule.as_deref()),
                known(rejected.examples.first()),
                rejected.why.clone(),
            ]
        })
        .collect();
    table::render(&["REJECTED", "REASON", "RULE", "SUCH AS", "WHY"], &rows)
}
