//! Routes for people: snapshots of the table, and sentences that explain a decision.
//!
//! Owns wording and order. Does not own reasons, which paths and exports carry themselves.

use std::collections::BTreeMap;

use caracal_bgp_core::rib::{
    Exported, FibState, PeerIndex, RouteView, Selection, Source, TablePath, Withheld,
};
use caracal_bgp_core::types::Prefix;

use crate::config::PeerName;
use crate::snapshot::{Explanation, FibSnapshot, PathSnapshot, RouteSnapshot};

/// What each peer with a session is told about a route.
pub(crate) type Told = Vec<(PeerIndex, Result<Exported, Withheld>)>;

/// One prefix for people.
pub(crate) fn route(view: &RouteView, names: &BTreeMap<PeerIndex, PeerName>) -> RouteSnapshot {
    let selection = view.selection.as_ref();
    let mut paths: Vec<PathSnapshot> = view
        .paths
        .iter()
        .enumerate()
        .map(|(index, path)| path_snapshot(index, path, selection, names))
        .collect();
    // Stable: what ranks equal stays in the order of peers.
    paths.sort_by_key(|path| (!path.best, !path.multipath, path.rejected.is_some()));
    RouteSnapshot {
        prefix: view.prefix,
        fib: match &view.fib {
            FibState::None => FibSnapshot::None,
            FibState::Pending => FibSnapshot::Pending,
            FibState::Installed => FibSnapshot::Installed,
            FibState::Failed(why) => FibSnapshot::Failed(why.clone()),
        },
        announced: view.announced.is_some(),
        paths,
    }
}

/// Why packets to `asked` go where they go, and who is told.
pub(crate) fn explain(
    asked: Prefix,
    view: Option<&RouteView>,
    told: &Told,
    names: &BTreeMap<PeerIndex, PeerName>,
) -> Explanation {
    let Some(view) = view else {
        return Explanation {
            asked,
            route: None,
            sentences: vec![format!("No peer has told a route that covers {asked}.")],
        };
    };
    let route = route(view, names);
    let mut sentences = Vec::new();
    if view.prefix != asked {
        sentences.push(format!(
            "{} is the longest prefix that covers {asked}.",
            view.prefix
        ));
    }
    for path in &route.paths {
        sentences.push(path_sentence(path));
    }
    if let Some(step) = view
        .selection
        .as_ref()
        .and_then(|selection| selection.decided_by)
    {
        sentences.push(format!("The decision fell by {step}."));
    }
    if view.selection.is_none() {
        sentences.push("No path can be used.".to_owned());
    }
    sentences.extend(fib_sentence(&route.fib));
    for (index, told) in told {
        let peer = name(*index, names);
        sentences.push(match told {
            Ok(exported) => format!("{peer} is told, with next hop {}.", exported.next_hop),
            Err(why) => format!("{peer} is not told: {why}."),
        });
    }
    Explanation {
        asked,
        route: Some(route),
        sentences,
    }
}

fn path_sentence(path: &PathSnapshot) -> String {
    let via = path
        .next_hop
        .map(|next_hop| format!(" via {next_hop}"))
        .unwrap_or_default();
    let stale = if path.stale {
        ", kept from before its restart"
    } else {
        ""
    };
    let unconfirmed = if path.unconfirmed {
        ", in a block whose holder cannot be confirmed,"
    } else {
        ""
    };
    let verdict = if path.best {
        "is best".to_owned()
    } else if path.multipath {
        "shares the load".to_owned()
    } else if let Some(why) = &path.rejected {
        format!("is rejected: {why}")
    } else if let Some(step) = &path.lost_at {
        format!("lost by {step}")
    } else {
        "waits for the selection".to_owned()
    };
    format!(
        "The path from {}{via}{stale}{unconfirmed} {verdict}.",
        path.from
    )
}

fn fib_sentence(fib: &FibSnapshot) -> Option<String> {
    match fib {
        FibSnapshot::None => None,
        FibSnapshot::Pending => {
            Some("The FIB has not acknowledged it yet; peers hear of it then.".into())
        }
        FibSnapshot::Installed => Some("The FIB has installed it.".into()),
        FibSnapshot::Failed(why) => Some(format!("The FIB refused it: {why}.")),
    }
}

fn path_snapshot(
    index: usize,
    entry: &TablePath,
    selection: Option<&Selection>,
    names: &BTreeMap<PeerIndex, PeerName>,
) -> PathSnapshot {
    let path = &entry.path;
    let attributes = &path.attributes;
    PathSnapshot {
        from: match &path.source {
            Source::Local => "local".to_owned(),
            Source::Peer(peer) => name(peer.index, names),
        },
        next_hop: path.next_hop.map(|next_hop| next_hop.addr()),
        as_path: attributes.as_path.to_string(),
        origin: attributes.origin.to_string(),
        local_pref: path.local_pref(),
        med: attributes.med,
        communities: attributes
            .communities
            .iter()
            .map(ToString::to_string)
            .collect(),
        large_communities: attributes
            .large_communities
            .iter()
            .map(ToString::to_string)
            .collect(),
        originator_id: attributes.originator_id.map(|id| id.to_string()),
        cluster_list: attributes
            .cluster_list
            .iter()
            .map(ToString::to_string)
            .collect(),
        best: selection.is_some_and(|selection| selection.best == index),
        multipath: selection.is_some_and(|selection| selection.multipath.contains(&index)),
        stale: entry.stale,
        unconfirmed: entry.validity.is_unconfirmed(),
        rejected: entry.rejected.as_ref().map(ToString::to_string),
        lost_at: selection
            .and_then(|selection| selection.lost_at[index])
            .map(|step| step.to_string()),
    }
}

fn name(index: PeerIndex, names: &BTreeMap<PeerIndex, PeerName>) -> String {
    // A peer that was removed may show until the RIB has taken that in.
    names
        .get(&index)
        .map_or_else(|| "a removed peer".to_owned(), ToString::to_string)
}
