//! BIRD 2.

use std::fmt::Write as _;

use caracal_bgp_core::types::Family;
use caracal_lab::process::Process;

use super::{Daemon, Place, extended_from_words, tail, version_of};
use crate::arena::{THEIRS_TO_SOURCES, their_source};
use crate::route::Route;
use crate::setup::{AddPath, OUR_ASN, Setup, THEIR_ID};

pub(super) struct Bird;

impl Daemon for Bird {
    fn name(&self) -> &'static str {
        "bird"
    }

    fn title(&self) -> &'static str {
        "BIRD"
    }

    fn version(&self) -> Result<String, String> {
        version_of("bird", "--version", "BIRD version ")
    }

    fn quirks(&self) -> &'static [&'static str] {
        &[
            "`show route` has no path identifiers: paths of one prefix are told apart by what they carry.",
            "It looks for interfaces once a minute: without `protocol device { scan time 1; }`, a session on a link \
             that has just come up waits that long.",
            "After a failure it waits a minute, and longer each time: `error wait time 1, 1` brings it back as fast \
             as we dial.",
        ]
    }

    fn configure(&self, place: &Place, setup: &Setup) {
        place.write("bird.conf", &configuration(place, setup));
    }

    fn start(&self, place: &Place, _setup: &Setup, again: bool, running: &mut Vec<Process>) {
        let (file, socket) = (place.at("bird.conf"), place.at("bird.ctl"));
        let mut arguments = vec!["-f", "-c", &file, "-s", &socket];
        if again {
            arguments.push("-R");
        }
        running.push(place.start("bird", "bird", &arguments));
    }

    fn told(&self, place: &Place, setup: &Setup) -> Result<Vec<Route>, String> {
        let text = birdc(place, "show route protocol ours all")?;
        routes(&text, setup)
    }

    fn has_kernel(&self) -> bool {
        true
    }

    fn ask_refresh(&self, place: &Place, _setup: &Setup) -> Result<(), String> {
        birdc(place, "reload in ours").map(drop)
    }

    fn shut_down(&self, place: &Place, _setup: &Setup, message: &str) -> Result<(), String> {
        birdc(place, &format!("disable ours \"{message}\"")).map(drop)
    }

    fn last_words(&self, place: &Place, _setup: &Setup) -> Result<String, String> {
        Ok(place.read("messages"))
    }

    fn bfd(&self, place: &Place, setup: &Setup) -> Result<(), String> {
        let text = birdc(place, "show bfd sessions")?;
        let us = setup.our_address().to_string();
        let up = text
            .lines()
            .any(|line| line.starts_with(&us) && line.contains(" Up "));
        if up { Ok(()) } else { Err(text) }
    }

    fn logs(&self, place: &Place) -> String {
        tail(&place.read("messages"), 30)
    }
}

fn birdc(place: &Place, command: &str) -> Result<String, String> {
    place.run("birdc", &["-s", &place.at("bird.ctl"), command])
}

fn configuration(place: &Place, setup: &Setup) -> String {
    let mut text = format!(
        "log \"{}\" all;\n\
         debug protocols {{ states, events }};\n\
         router id {THEIR_ID};\n\
         protocol device {{ scan time 1; }}\n\
         protocol kernel {{ graceful restart; ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ graceful restart; ipv6 {{ import none; export where source = RTS_BGP; }}; }}\n",
        place.at("messages"),
    );
    if setup.bfd {
        text.push_str(
            "protocol bfd { interface \"e1\" { min rx interval 100 ms; min tx interval 100 ms; }; }\n",
        );
    }
    let local = setup.their_asn();
    let restart = if setup.graceful_restart { "on" } else { "off" };
    let _ = write!(
        text,
        "template bgp common {{\n\
         hold time 30; connect delay time 1; connect retry time 1; error wait time 1, 1;\n\
         graceful restart {restart}; graceful restart time 60;\n\
         }}\n\
         protocol bgp ours from common {{\n\
         local {} as {local}; neighbor {} as {OUR_ASN};\n",
        setup.their_address(),
        setup.our_address(),
    );
    if let Some(password) = &setup.password {
        let _ = writeln!(text, "password \"{password}\";");
    }
    for (wanted, line) in [
        (setup.gtsm, "ttl security on;"),
        (setup.bfd, "bfd on;"),
        (setup.they_reflect, "rr client;"),
        (setup.internal, "direct;"),
    ] {
        if wanted {
            let _ = writeln!(text, "{line}");
        }
    }
    let add_paths = match setup.add_path {
        AddPath::Off => "off",
        AddPath::Sends => "tx",
        AddPath::Receives => "rx",
    };
    for family in &setup.families {
        let _ = writeln!(
            text,
            "{} {{ import all; export where source = RTS_BGP; add paths {add_paths}; {} }};",
            name(*family),
            if setup.next_hop_self() {
                "next hop self;"
            } else if setup.extended_next_hop && *family == Family::Ipv4Unicast {
                "extended next hop on;"
            } else {
                ""
            },
        );
    }
    text.push_str("}\n");
    for number in 1..=setup.their_sources {
        let _ = writeln!(
            text,
            "protocol bgp source{number} from common {{\n\
             local {THEIRS_TO_SOURCES} as {local}; neighbor {} as {}; passive on; direct; {}\n\
             ipv4 {{ import all; export where source = RTS_BGP; }};\n\
             ipv6 {{ import all; export where source = RTS_BGP; }};\n}}",
            their_source(number, Family::Ipv4Unicast),
            setup.their_source_asn(),
            if setup.they_reflect { "rr client;" } else { "" },
        );
    }
    text
}

fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "ipv4",
        Family::Ipv6Unicast => "ipv6",
    }
}

/// Reads `show route all`: a line for each path, which begins with the prefix where it is the first of its
/// prefix, and indented lines for its attributes.
fn routes(text: &str, setup: &Setup) -> Result<Vec<Route>, String> {
    let mut routes: Vec<Route> = Vec::new();
    let mut prefix = String::new();
    for line in text.lines() {
        if line.contains(" [ours ") {
            if !line.starts_with(char::is_whitespace) {
                prefix = line
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
            }
            routes.push(Route::new(&prefix));
            continue;
        }
        let (Some(route), Some((key, value))) = (routes.last_mut(), line.trim().split_once(':'))
        else {
            continue;
        };
        let value = value.trim();
        match key {
            "BGP.origin" => route.origin = value.to_ascii_lowercase(),
            "BGP.as_path" => value.clone_into(&mut route.as_path),
            "BGP.next_hop" => {
                let first = value.split_whitespace().next().unwrap_or_default();
                first.clone_into(&mut route.next_hop);
            }
            "BGP.med" => route.med = value.parse().ok(),
            "BGP.local_pref" if setup.internal => route.local_pref = value.parse().ok(),
            "BGP.community" => {
                let numbers = groups(value);
                route.communities = numbers.iter().map(|group| group.join(":")).collect();
            }
            "BGP.large_community" => {
                let numbers = groups(value);
                route.large = numbers.iter().map(|group| group.join(":")).collect();
            }
            "BGP.ext_community" => {
                for group in groups(value) {
                    let octets = match group.as_slice() {
                        [generic, high, low] if generic == "generic" => {
                            let number = |text: &str| {
                                u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
                            };
                            number(high)
                                .zip(number(low))
                                .map(|(high, low)| format!("0x{high:08x}{low:08x}"))
                        }
                        [kind, first, second] => extended_from_words(kind, first, second),
                        _ => None,
                    };
                    route.extended.push(octets.ok_or_else(|| line.to_owned())?);
                }
            }
            "BGP.atomic_aggr" => route.atomic_aggregate = true,
            "BGP.aggregator" => {
                let (router, asn) = value.split_once(" AS").ok_or_else(|| line.to_owned())?;
                route.aggregator = Some(format!("{asn} {router}"));
            }
            "BGP.originator_id" => route.originator_id = Some(value.to_owned()),
            "BGP.cluster_list" => {
                route.cluster_list = value.split_whitespace().map(str::to_owned).collect();
            }
            _ => {}
        }
    }
    Ok(routes)
}

/// `(a,b) (c, d)` in parts.
fn groups(text: &str) -> Vec<Vec<String>> {
    text.split(['(', ')'])
        .filter(|part| !part.trim().is_empty())
        .map(|part| part.split(',').map(|word| word.trim().to_owned()).collect())
        .collect()
}
