//! A route as all who take part can be asked to show it.
//!
//! Owns the one form in which what was sent is compared with what is said to have arrived. Does not own how
//! a daemon writes it, which is the affair of [`crate::daemons`].

use std::net::IpAddr;

use caracal_bgp_core::types::{Asn, Family, NextHop, Nlri, PathId, Prefix, RouterId};
use caracal_bgp_core::wire::{
    Aggregator, AsPath, Community, ExtendedCommunity, LargeCommunity, Origin, PathAttributes,
};
use caracal_bgp_speaker::snapshot::PathSnapshot;

/// One path to a prefix with everything that it carries. Ordered, so that sets of them compare.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) prefix: String,
    /// `None` where the session has one path per prefix, or where numbers are the sender's affair.
    pub(crate) path_id: Option<u32>,
    pub(crate) next_hop: String,
    /// Numbers with spaces between, the latest AS first.
    pub(crate) as_path: String,
    /// `igp`, `egp` or `incomplete`.
    pub(crate) origin: String,
    pub(crate) med: Option<u32>,
    /// `None` on external sessions, where nobody sends one.
    pub(crate) local_pref: Option<u32>,
    /// `aa:nn`, ascending by number.
    pub(crate) communities: Vec<String>,
    /// `aa:nn:mm`, ascending by number.
    pub(crate) large: Vec<String>,
    /// `0x` and 16 digits, ascending.
    pub(crate) extended: Vec<String>,
    pub(crate) atomic_aggregate: bool,
    /// AS number and router.
    pub(crate) aggregator: Option<String>,
    pub(crate) originator_id: Option<String>,
    pub(crate) cluster_list: Vec<String>,
}

impl Route {
    /// A route with the mandatory attributes: of origin IGP, born where it is told.
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            path_id: None,
            next_hop: String::new(),
            as_path: String::new(),
            origin: "igp".to_owned(),
            med: None,
            local_pref: None,
            communities: Vec::new(),
            large: Vec::new(),
            extended: Vec::new(),
            atomic_aggregate: false,
            aggregator: None,
            originator_id: None,
            cluster_list: Vec::new(),
        }
    }

    pub(crate) fn via(mut self, next_hop: impl ToString) -> Self {
        self.next_hop = next_hop.to_string();
        self
    }

    pub(crate) fn path(mut self, as_path: &str) -> Self {
        as_path.clone_into(&mut self.as_path);
        self
    }

    pub(crate) fn origin(mut self, origin: &str) -> Self {
        origin.clone_into(&mut self.origin);
        self
    }

    pub(crate) fn med(mut self, med: u32) -> Self {
        self.med = Some(med);
        self
    }

    pub(crate) fn local_pref(mut self, local_pref: u32) -> Self {
        self.local_pref = Some(local_pref);
        self
    }

    pub(crate) fn communities<const N: usize>(mut self, communities: [&str; N]) -> Self {
        self.communities = communities.map(str::to_owned).into();
        self
    }

    pub(crate) fn large<const N: usize>(mut self, large: [&str; N]) -> Self {
        self.large = large.map(str::to_owned).into();
        self
    }

    pub(crate) fn extended<const N: usize>(mut self, extended: [&str; N]) -> Self {
        self.extended = extended.map(str::to_owned).into();
        self
    }

    pub(crate) fn aggregated(mut self, asn: u32, router: &str) -> Self {
        self.atomic_aggregate = true;
        self.aggregator = Some(format!("{asn} {router}"));
        self
    }

    /// The family of its prefix.
    pub(crate) fn family(&self) -> Family {
        if self.prefix.contains(':') {
            Family::Ipv6Unicast
        } else {
            Family::Ipv4Unicast
        }
    }

    /// With `asn` in front of its path.
    pub(crate) fn through(mut self, asn: u32) -> Self {
        self.as_path = format!("{asn} {}", self.as_path).trim().to_owned();
        self
    }

    /// As we show a path that a peer has told us.
    pub(crate) fn shown(prefix: Prefix, path: &PathSnapshot, internal: bool) -> Self {
        let next_hop = path.next_hop.map(|next_hop| next_hop.to_string());
        Self {
            prefix: prefix.to_string(),
            path_id: (path.path_id != 0).then_some(path.path_id),
            next_hop: next_hop.unwrap_or_default(),
            as_path: path.as_path.clone(),
            origin: path.origin.clone(),
            med: path.med,
            // What is shown is what the selection uses, also where nobody sent one.
            local_pref: path.local_pref.filter(|_| internal),
            communities: path.communities.clone(),
            large: path.large_communities.clone(),
            extended: path.extended_communities.clone(),
            atomic_aggregate: path.atomic_aggregate,
            aggregator: path.aggregator.clone(),
            originator_id: path.originator_id.clone(),
            cluster_list: path.cluster_list.clone(),
        }
    }

    /// As it goes on the wire.
    pub(crate) fn encoded(&self) -> (Nlri, NextHop, PathAttributes) {
        let number = |text: &str| text.parse::<u32>().unwrap();
        let as_path: AsPath = self
            .as_path
            .split_whitespace()
            .map(|asn| Asn(number(asn)))
            .collect();
        let mut attributes = PathAttributes {
            origin: match self.origin.as_str() {
                "igp" => Origin::Igp,
                "egp" => Origin::Egp,
                _ => Origin::Incomplete,
            },
            as_path,
            med: self.med,
            local_pref: self.local_pref,
            atomic_aggregate: self.atomic_aggregate,
            communities: parsed::<Community>(&self.communities),
            large_communities: parsed::<LargeCommunity>(&self.large),
            originator_id: self.originator_id.as_ref().map(|id| id.parse().unwrap()),
            cluster_list: self
                .cluster_list
                .iter()
                .map(|id| id.parse::<RouterId>().unwrap())
                .collect(),
            ..PathAttributes::default()
        };
        attributes.set_aggregator(self.aggregator.as_ref().map(|text| {
            let (asn, router) = text.split_once(' ').unwrap();
            Aggregator {
                asn: Asn(number(asn)),
                router: router.parse().unwrap(),
            }
        }));
        attributes.edit_ext_communities(|set| {
            set.extend(self.extended.iter().map(|text| {
                let octets = u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
                ExtendedCommunity(octets.to_be_bytes())
            }));
        });
        let nlri = Nlri {
            prefix: self.prefix.parse().unwrap(),
            id: PathId(self.path_id.unwrap_or_default()),
        };
        let next_hop: IpAddr = self.next_hop.parse().unwrap();
        (nlri, next_hop.into(), attributes)
    }

    /// As it came over the wire.
    pub(crate) fn decoded(nlri: &Nlri, next_hop: &NextHop, attributes: &PathAttributes) -> Self {
        let texts = |set: &mut dyn Iterator<Item = String>| set.collect::<Vec<_>>();
        Self {
            prefix: nlri.prefix.to_string(),
            path_id: (nlri.id != PathId(0)).then_some(nlri.id.0),
            next_hop: next_hop.to_string(),
            as_path: attributes.as_path.to_string(),
            origin: attributes.origin.to_string(),
            med: attributes.med,
            local_pref: attributes.local_pref,
            communities: texts(&mut attributes.communities.iter().map(ToString::to_string)),
            large: texts(&mut attributes.large_communities.iter().map(ToString::to_string)),
            extended: texts(&mut attributes.ext_communities().iter().map(ToString::to_string)),
            atomic_aggregate: attributes.atomic_aggregate,
            aggregator: attributes
                .aggregator()
                .map(|aggregator| format!("{} {}", aggregator.asn, aggregator.router)),
            originator_id: attributes.originator_id.map(|id| id.to_string()),
            cluster_list: texts(&mut attributes.cluster_list.iter().map(ToString::to_string)),
        }
    }

    /// Brings lists into their order, and names of well-known communities into ours.
    pub(crate) fn canonical(mut self) -> Self {
        let communities: caracal_bgp_core::wire::SortedSet<Community> = parsed(&self.communities);
        self.communities = communities.iter().map(ToString::to_string).collect();
        let large: caracal_bgp_core::wire::SortedSet<LargeCommunity> = parsed(&self.large);
        self.large = large.iter().map(ToString::to_string).collect();
        self.extended.sort();
        self.extended.dedup();
        self
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug> + Ord>(
    texts: &[String],
) -> caracal_bgp_core::wire::SortedSet<T> {
    texts
        .iter()
        .map(|text| {
            text.parse()
                .unwrap_or_else(|error| panic!("{text}: {error:?}"))
        })
        .collect()
}

/// The route target `asn:value` of the two-octet kind, as it goes on the wire.
pub(crate) fn route_target(asn: u16, value: u32) -> String {
    extended(0x00, 0x02, asn, value)
}

/// An extended community of the two-octet AS kind.
pub(crate) fn extended(kind: u8, subtype: u8, asn: u16, value: u32) -> String {
    format!("0x{kind:02x}{subtype:02x}{asn:04x}{value:08x}")
}

/// What differs between two sets of routes, one line each; nothing when they are alike.
pub(crate) fn difference(expected: &[Route], seen: &[Route]) -> Option<String> {
    use std::fmt::Write as _;
    let order = |routes: &[Route]| {
        let mut routes: Vec<Route> = routes.iter().cloned().map(Route::canonical).collect();
        routes.sort();
        routes
    };
    let (expected, seen) = (order(expected), order(seen));
    let mut text = String::new();
    for route in expected.iter().filter(|route| !seen.contains(route)) {
        let _ = writeln!(text, "  missing {route:?}");
    }
    for route in seen.iter().filter(|route| !expected.contains(route)) {
        let _ = writeln!(text, "  instead {route:?}");
    }
    if text.is_empty() && expected.len() != seen.len() {
        let _ = writeln!(
            text,
            "  {} routes instead of {}",
            seen.len(),
            expected.len()
        );
    }
    (!text.is_empty()).then_some(text)
}
