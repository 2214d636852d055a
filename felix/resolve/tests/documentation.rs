//! The documentation says what is so: every field stands in it, and its examples are carried out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use caracal_bgp_core::policy::{
    AnyCommunity, ApplyContext, NextHopChange, Policy, RouteFacts, RouteSource,
};
use caracal_bgp_core::types::{Asn, NextHop, PeerKind, Prefix};
use caracal_bgp_core::wire::{AsPath, Origin, PathAttributes};
use caracal_bgp_speaker::config::PeerConfig;
use caracal_crds::manifest::Manifests;
use caracal_resolve::{Inputs, Resolved, resolve};
use serde_json::Value;

fn page(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of all code in a page.
fn code_words(page: &str) -> BTreeSet<&str> {
    let code = page.split('`').skip(1).step_by(2);
    code.flat_map(|span| span.split(|c: char| !c.is_alphanumeric()))
        .collect()
}

/// Names of all fields below `spec`.
fn fields(schema: &Value, found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.insert(name.clone());
        fields(property, found);
        fields(&property["items"], found);
    }
}

#[test]
fn every_field_of_the_speakers_resources_is_documented() {
    for (kind, page_name) in [
        ("BGPConfiguration", "speaker.md"),
        ("BGPPeer", "speaker.md"),
        ("BGPFilter", "bgp-filters.md"),
    ] {
        let definitions = caracal_crds::all();
        let definition = definitions
            .iter()
            .find(|definition| definition.spec.names.kind == kind)
            .unwrap();
        let definition = serde_json::to_value(definition).unwrap();
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        let mut wanted = BTreeSet::new();
        fields(definition.pointer(spec).unwrap(), &mut wanted);
        assert!(wanted.len() > 5, "{kind}: {wanted:?}");
        let page = page(page_name);
        let words = code_words(&page);
        let missing: Vec<_> = wanted
            .iter()
            .filter(|field| !words.contains(field.as_str()))
            .collect();
        assert!(missing.is_empty(), "{kind} in {page_name}: {missing:?}");
    }
}

/// A block of YAML with the rows of the table that follows it.
struct Example {
    title: String,
    yaml: String,
    rows: Vec<[String; 4]>,
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut title = "";
    let mut in_yaml = false;
    for line in page.lines() {
        match line {
            "```yaml" => {
                in_yaml = true;
                examples.push(Example {
                    title: title.to_owned(),
                    yaml: String::new(),
                    rows: Vec::new(),
                });
            }
            "```" => in_yaml = false,
            _ if in_yaml => {
                let example = examples.last_mut().unwrap();
                example.yaml += line;
                example.yaml.push('\n');
            }
            _ => {
                title = line.strip_prefix("### ").unwrap_or(title);
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                if let ["", way @ ("import" | "export"), route, carries, becomes, ""] = &cells[..] {
                    let row = [*way, *route, *carries, *becomes].map(str::to_owned);
                    examples.last_mut().unwrap().rows.push(row);
                }
            }
        }
    }
    examples
}

/// What an example leaves unsaid: a speaker that passes routes on.
const SPEAKER: &str = "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 65000, routerID: 10.0.0.1, nodeToNodeMeshEnabled: false, transit: true}
---
";

fn resolved(title: &str, yaml: &str) -> Resolved {
    let mut manifests = Manifests::default();
    manifests
        .read(Path::new(title), yaml)
        .unwrap_or_else(|problems| panic!("{problems}"));
    resolve(&Inputs::standalone("r1", &manifests))
}

/// A route as a cell of a table describes it.
struct Route {
    attributes: PathAttributes,
    next_hop: Option<NextHop>,
    interface: Option<String>,
    source: RouteSource,
}

fn route(carries: &str, source: RouteSource) -> Route {
    let mut route = Route {
        attributes: PathAttributes::default(),
        next_hop: None,
        interface: None,
        source,
    };
    let attributes = &mut route.attributes;
    for part in carries
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
        match word {
            "own" => route.source = RouteSource::Own,
            "from" => {
                route.source = RouteSource::Peer(match rest {
                    "iBGP" => PeerKind::Internal,
                    "eBGP" => PeerKind::External,
                    other => panic!("{other}"),
                });
            }
            "as-path" => {
                let asns = rest.split(' ').map(|asn| Asn(asn.parse().unwrap()));
                attributes.as_path = AsPath::new(asns.collect::<Vec<_>>());
            }
            "communities" => {
                for community in rest.split(' ') {
                    carry(attributes, community.parse().unwrap());
                }
            }
            "med" => attributes.med = Some(rest.parse().unwrap()),
            "local-pref" => attributes.local_pref = Some(rest.parse().unwrap()),
            "origin" => {
                let all = [Origin::Igp, Origin::Egp, Origin::Incomplete];
                let origin = all.into_iter().find(|origin| origin.to_string() == rest);
                attributes.origin = origin.unwrap();
            }
            "next-hop" => route.next_hop = Some(rest.parse::<IpAddr>().unwrap().into()),
            "interface" => route.interface = Some(rest.to_owned()),
            other => panic!("{other}"),
        }
    }
    route
}

fn carry(attributes: &mut PathAttributes, community: AnyCommunity) {
    match community {
        AnyCommunity::Standard(community) => {
            attributes.communities.insert(community);
        }
        AnyCommunity::Extended(community) => {
            attributes.edit_ext_communities(|held| {
                held.insert(community);
            });
        }
        AnyCommunity::Large(community) => {
            attributes.large_communities.insert(community);
        }
    }
}

fn communities(attributes: &PathAttributes) -> String {
    let standard = attributes.communities.iter().copied();
    let standard = standard.map(AnyCommunity::Standard);
    let extended = attributes.ext_communities().iter().copied();
    let large = attributes.large_communities.iter().copied();
    let all: Vec<String> = standard
        .chain(extended.map(AnyCommunity::Extended))
        .chain(large.map(AnyCommunity::Large))
        .map(|community| community.to_string())
        .collect();
    all.join(" ")
}

/// What becomes of the route, in the words of the tables.
fn becomes(policy: &Policy, prefix: &Prefix, route: &Route, peer: PeerKind) -> String {
    let facts = RouteFacts {
        attributes: &route.attributes,
        next_hop: route.next_hop.as_ref(),
        source: route.source,
        interface: route.interface.as_deref(),
        peer,
    };
    let decision = policy.evaluate(prefix, &facts);
    if !decision.accepts() {
        let rule = decision.rule.and_then(|rule| policy.name_of(rule));
        return format!("rejected by `{}`", rule.unwrap_or("nothing"));
    }
    let address = |text: &str| Some(NextHop::from(text.parse::<IpAddr>().unwrap()));
    let context = ApplyContext {
        own: address("192.0.2.251"),
        peer: address("192.0.2.252"),
    };
    let before = &route.attributes;
    let applied = policy.apply(&decision, before.clone(), &context);
    let after = &applied.attributes;
    let number = |number: Option<u32>| number.map_or("none".to_owned(), |n| n.to_string());
    let mut parts = vec!["accepted".to_owned()];
    if after.origin != before.origin {
        parts.push(format!("origin {}", after.origin));
    }
    if after.as_path != before.as_path {
        parts.push(format!("as-path {}", after.as_path));
    }
    if after.med != before.med {
        parts.push(format!("med {}", number(after.med)));
    }
    if after.local_pref != before.local_pref {
        parts.push(format!("local-pref {}", number(after.local_pref)));
    }
    if communities(after) != communities(before) {
        parts.push(format!("communities {}", communities(after)));
    }
    match applied.next_hop {
        NextHopChange::None => {}
        NextHopChange::Unchanged => parts.push("next-hop unchanged".to_owned()),
        NextHopChange::Unavailable => parts.push("next-hop unavailable".to_owned()),
        to if to == context.own.map_or(to, NextHopChange::To) => {
            parts.push("next-hop own".to_owned());
        }
        to if to == context.peer.map_or(to, NextHopChange::To) => {
            parts.push("next-hop peer".to_owned());
        }
        NextHopChange::To(next_hop) => parts.push(format!("next-hop {next_hop}")),
    }
    if applied.blackhole {
        parts.push("blackhole".to_owned());
    }
    parts.join("; ")
}

fn only_session(resolved: &Resolved) -> &PeerConfig {
    let mut sessions = resolved.config.peers.values();
    let session = sessions.next().expect("an example has a peer");
    assert!(sessions.next().is_none(), "an example has one peer");
    session
}

#[test]
fn the_examples_of_filters_do_what_their_tables_say() {
    let examples = examples(&page("bgp-filters.md"));
    assert!(examples.len() >= 9, "{}", examples.len());
    for Example { title, yaml, rows } in &examples {
        assert!(!rows.is_empty(), "{title}");
        let resolved = resolved(title, &format!("{SPEAKER}{yaml}"));
        let unexpected = resolved.findings.iter().filter(|f| f.reason != "NoPolicy");
        assert_eq!(unexpected.count(), 0, "{title}: {:?}", resolved.findings);
        let session = only_session(&resolved);
        let internal = session.peer_as.is_internal(resolved.config.asn);
        let kind = if internal {
            PeerKind::Internal
        } else {
            PeerKind::External
        };
        for [way, prefix, carries, expected] in rows {
            let (policy, source) = match way.as_str() {
                "import" => (&session.import, RouteSource::Peer(kind)),
                _ => (&session.export, RouteSource::Own),
            };
            let prefix: Prefix = prefix.parse().unwrap();
            let found = becomes(policy, &prefix, &route(carries, source), kind);
            assert_eq!(&found, expected, "{title}: {way} {prefix} {carries}");
        }
    }
}

#[test]
fn the_example_of_a_speaker_is_whole() {
    let page = page("speaker.md");
    let examples = examples(&page);
    assert!(!examples.is_empty());
    for example in examples {
        let resolved = resolved("speaker.md", &example.yaml);
        assert_eq!(resolved.findings, [], "{}", example.yaml);
        assert!(!resolved.config.peers.is_empty());
    }
}
