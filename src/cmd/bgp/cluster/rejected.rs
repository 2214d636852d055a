//! The screens of rejected routes of a cluster.
//!
//! Nodes count all that they reject and name the first few of each reason. What no node names may be
//! rejected nevertheless, and the screens say so.

use caracal_bgp_core::types::Prefix;
use caracal_crds::RejectedRoutes;
use serde::Serialize;

use super::super::{counted, known};
use super::{Cluster, Hints, name};
use crate::table;

/// Prefixes of one reason that stand in a line.
const SHOWN: usize = 3;

/// The reason of what the import policy rejects.
const BY_POLICY: &str = "policy";

/// What nodes reject, by node, session and reason.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct Rejections<'a> {
    rejected: Vec<Rejection<'a>>,
    /// Nodes that reject more than they name.
    unnamed: Vec<&'a str>,
    silent: &'a [String],
    not_ready: &'a [String],
    #[serde(skip)]
    cluster: &'a Cluster,
}

#[derive(Clone, Debug, Serialize)]
struct Rejection<'a> {
    node: &'a str,
    #[serde(flatten)]
    routes: &'a RejectedRoutes,
}

/// Which of the named routes are asked for.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Wanted {
    /// Those that packets to it could take.
    Covering(Prefix),
    /// It, and what lies inside it.
    Inside(Prefix),
}

impl Wanted {
    fn takes(self, prefix: &Prefix) -> bool {
        match self {
            Self::Covering(asked) => prefix.contains(&asked),
            Self::Inside(asked) => asked.contains(prefix),
        }
    }
}

impl<'a> Rejections<'a> {
    /// Of all nodes that have reported.
    pub(in super::super) fn of(cluster: &'a Cluster) -> Self {
        let rejected = cluster.statuses.iter().flat_map(|status| {
            let rejected = status.status.iter().flat_map(|status| &status.rejected);
            let node = name(status);
            rejected.map(move |routes| Rejection { node, routes })
        });
        let rejected: Vec<Rejection<'_>> = rejected.collect();
        let more = rejected.iter().filter(|it| it.has_more());
        let mut unnamed: Vec<&str> = more.map(|it| it.node).collect();
        unnamed.dedup();
        Self {
            rejected,
            unnamed,
            silent: &cluster.silent,
            not_ready: &cluster.not_ready,
            cluster,
        }
    }

    /// Only those that name a route that is `wanted`.
    pub(in super::super) fn naming(mut self, wanted: Wanted) -> Self {
        let names = |rejection: &Rejection<'_>| rejection.prefixes().any(|it| wanted.takes(&it));
        self.rejected.retain(names);
        self
    }

    /// How much is rejected, a line for each reason.
    pub(in super::super) fn summary(&self) -> String {
        let mut text = self.table();
        let count: u64 = self
            .rejected
            .iter()
            .map(|it| u64::from(it.routes.count))
            .sum();
        let (rejecting, all) = (self.nodes(), self.cluster.statuses.len());
        let routes = counted(usize::try_from(count).unwrap_or(usize::MAX), "route");
        text.push_str(&format!(
            "{routes} rejected on {rejecting} of {}\n",
            counted(all, "node")
        ));
        let mut hints = Hints::default();
        self.cluster.hints(&mut hints);
        hints.print(&mut text);
        text
    }

    /// The routes that are `wanted`, a line for each; `more` is how to learn more.
    pub(in super::super) fn named(&self, wanted: Wanted, more: &str) -> String {
        let mut rows = Vec::new();
        for rejection in &self.rejected {
            let mut prefixes = rejection.prefixes();
            let first = prefixes.next();
            let all = first.into_iter().chain(prefixes);
            for prefix in all.filter(|it| wanted.takes(it)) {
                let why = match first.filter(|first| *first != prefix) {
                    // What is said of the first may name what is its own; a rule says no to all alike.
                    Some(first) if rejection.routes.reason != BY_POLICY => {
                        format!("as {first}: {}", rejection.routes.message)
                    }
                    _ => rejection.routes.message.clone(),
                };
                rows.push(vec![
                    rejection.node.to_owned(),
                    rejection.routes.session.clone(),
                    prefix.to_string(),
                    rejection.routes.reason.clone(),
                    known(rejection.routes.rule.as_ref()),
                    why,
                ]);
            }
        }
        let mut text = String::new();
        if !rows.is_empty() {
            let header = ["NODE", "PEER", "PREFIX", "REASON", "RULE", "WHY"];
            text.push_str(&table::render(&header, &rows));
        }
        let asked = match wanted {
            Wanted::Covering(asked) => format!("that covers {asked}"),
            Wanted::Inside(asked) => format!("inside {asked}"),
        };
        let (naming, all) = (self.nodes(), counted(self.cluster.statuses.len(), "node"));
        let name = if naming == 1 { "names" } else { "name" };
        text.push_str(&format!(
            "{naming} of {all} {name} a rejected route {asked}\n"
        ));
        let mut hints = Hints::default();
        hints.add(&self.unnamed, |nodes, one| match one {
            true => {
                format!("{nodes} rejects more routes than it names: there may be more of these")
            }
            false => {
                format!("{nodes} reject more routes than they name: there may be more of these")
            }
        });
        self.cluster.hints(&mut hints);
        hints.0.push(more.to_owned());
        hints.print(&mut text);
        text
    }

    /// A line for each reason; empty where there is none.
    pub(super) fn table(&self) -> String {
        if self.rejected.is_empty() {
            return String::new();
        }
        let rows: Vec<Vec<String>> = self.rejected.iter().map(Rejection::row).collect();
        let header = [
            "NODE", "PEER", "REJECTED", "REASON", "RULE", "SUCH AS", "WHY",
        ];
        table::render(&header, &rows)
    }

    /// How many nodes it is about.
    fn nodes(&self) -> usize {
        let mut nodes: Vec<&str> = self.rejected.iter().map(|it| it.node).collect();
        nodes.dedup();
        nodes.len()
    }
}

impl Rejection<'_> {
    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let networks = self.routes.prefixes.iter();
        // Every network is a prefix: the resource takes none with host bits.
        networks.filter_map(|network| Prefix::new(network.ip(), network.prefix()).ok())
    }

    fn has_more(&self) -> bool {
        usize::try_from(self.routes.count).is_ok_and(|count| count > self.routes.prefixes.len())
    }

    fn row(&self) -> Vec<String> {
        let mut such: Vec<String> = self
            .prefixes()
            .take(SHOWN)
            .map(|it| it.to_string())
            .collect();
        if self.routes.prefixes.len() > SHOWN || self.has_more() {
            such.push("…".to_owned());
        }
        vec![
            self.node.to_owned(),
            self.routes.session.clone(),
            self.routes.count.to_string(),
            self.routes.reason.clone(),
            known(self.routes.rule.as_ref()),
            such.join(" "),
            self.routes.message.clone(),
        ]
    }
}
