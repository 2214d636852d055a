//! Routes for people: snapshots of the table, and the account of a decision.
//!
//! Owns wording and order. Does not own reasons, which paths and exports carry themselves.

use std::collections::BTreeMap;

use caracal_bgp_core::policy::Explained;
use caracal_bgp_core::rib::{
    Exported, FibState, Path, PeerIndex, ReceivedPath, RouteView, Selection, TablePath, Withheld,
};
use caracal_bgp_core::types::{PathId, Prefix};
use caracal_bgp_core::wire::PathAttributes;

use crate::config::PeerName;
use crate::snapshot::{
    Explanation, FibSnapshot, KernelSnapshot, PathSnapshot, PolicyTrace, RouteSnapshot,
    ToldSnapshot,
};

/// Names of peers by their numbers.
pub(crate) type Names = BTreeMap<PeerIndex, PeerName>;

/// What the RIB says of a prefix, all at one moment.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The longest prefix that covers it.
    pub(crate) view: Option<RouteView>,
    /// What the import policy made of each of its paths.
    pub(crate) import: Vec<Option<Explained>>,
    /// What the kernel holds there.
    pub(crate) kernel: Option<KernelSnapshot>,
    /// What each peer with a session is told about it.
    pub(crate) told: Vec<(PeerIndex, Result<Exported, Withheld>)>,
}

/// One prefix for people.
pub(crate) fn route(view: &RouteView, names: &Names) -> RouteSnapshot {
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
        paths,
        ..bare(view)
    }
}

/// What a peer told about a prefix, as it told it.
pub(crate) fn received(view: &RouteView, paths: &[ReceivedPath], names: &Names) -> RouteSnapshot {
    let paths = paths.iter().map(|received| PathSnapshot {
        from: source(&received.told, names),
        path_id: received.entry.id.0,
        next_hop: received.told.next_hop.map(|next_hop| next_hop.addr()),
        best: received.best,
        multipath: received.multipath,
        stale: received.entry.stale,
        rejected: received.entry.rejected.as_ref().map(ToString::to_string),
        lost_at: received.lost_at.map(|step| step.to_string()),
        ..attributes(&received.told.attributes)
    });
    RouteSnapshot {
        paths: paths.collect(),
        ..bare(view)
    }
}

/// What a peer was told about a prefix, in the words that it read.
pub(crate) fn advertised(
    view: &RouteView,
    told: &[(PathId, Exported)],
    names: &Names,
) -> RouteSnapshot {
    // Of several it is not known which is whose.
    let from = match (told, &view.announced) {
        ([_], Some(path)) => source(path, names),
        _ => String::new(),
    };
    let paths = told.iter().map(|(id, exported)| PathSnapshot {
        from: from.clone(),
        path_id: id.0,
        next_hop: Some(exported.next_hop.addr()),
        ..attributes(&exported.attributes)
    });
    RouteSnapshot {
        paths: paths.collect(),
        ..bare(view)
    }
}

/// What a peer is not told although others may be, and why.
pub(crate) fn withheld(view: &RouteView, why: &Withheld, names: &Names) -> RouteSnapshot {
    let paths = view.announced.iter().map(|path| PathSnapshot {
        from: source(path, names),
        next_hop: path.next_hop.map(|next_hop| next_hop.addr()),
        rejected: Some(why.to_string()),
        ..attributes(&path.attributes)
    });
    RouteSnapshot {
        paths: paths.collect(),
        ..bare(view)
    }
}

fn bare(view: &RouteView) -> RouteSnapshot {
    RouteSnapshot {
        prefix: view.prefix,
        fib: match &view.fib {
            FibState::None => FibSnapshot::None,
            FibState::Pending => FibSnapshot::Pending,
            FibState::Installed => FibSnapshot::Installed,
            FibState::Failed(why) => FibSnapshot::Failed(why.clone()),
        },
        announced: view.announced.is_some(),
        paths: Vec::new(),
    }
}

/// Why packets to `asked` go where they go, and who is told.
pub(crate) fn explain(asked: Prefix, account: Account, names: &Names) -> Explanation {
    let Some(view) = &account.view else {
        return Explanation {
            asked,
            route: None,
            kernel: None,
            sentences: vec![format!("No peer has told a route that covers {asked}.")],
            import: Vec::new(),
            told: Vec::new(),
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
    match &view.selection {
        None => sentences.push("No path can be used.".to_owned()),
        Some(selection) => {
            let decision = selection.decided_by;
            sentences.extend(decision.map(|step| format!("The decision fell by {step}.")));
        }
    }
    // Where the kernel was looked at, the route that it holds says it.
    if route.fib != FibSnapshot::Installed || account.kernel.is_none() {
        sentences.extend(fib_sentence(&route.fib));
    }
    let traced = view.paths.iter().zip(&account.import);
    let traces = traced.filter_map(|(path, explained)| {
        let explained = explained.as_ref()?;
        let steps = explained.to_string();
        Some(PolicyTrace {
            from: source(&path.path, names),
            path_id: path.id.0,
            steps: steps.lines().map(str::to_owned).collect(),
        })
    });
    let mut import: Vec<PolicyTrace> = traces.collect();
    let place = |trace: &PolicyTrace| {
        let same = |path: &PathSnapshot| path.from == trace.from && path.path_id == trace.path_id;
        route.paths.iter().position(same)
    };
    import.sort_by_key(place);
    let mut told: Vec<ToldSnapshot> = account
        .told
        .iter()
        .map(|(index, told)| ToldSnapshot {
            peer: name(*index, names),
            next_hop: told.as_ref().ok().map(|told| told.next_hop.addr()),
            withheld: told.as_ref().err().map(ToString::to_string),
        })
        .collect();
    told.sort_by(|a, b| a.peer.cmp(&b.peer));
    Explanation {
        asked,
        route: Some(route),
        kernel: account.kernel,
        sentences,
        import,
        told,
    }
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
    names: &Names,
) -> PathSnapshot {
    let path = &entry.path;
    PathSnapshot {
        from: source(path, names),
        path_id: entry.id.0,
        next_hop: path.next_hop.map(|next_hop| next_hop.addr()),
        local_pref: Some(path.local_pref()),
        best: selection.is_some_and(|selection| selection.best == index),
        multipath: selection.is_some_and(|selection| selection.multipath.contains(&index)),
        stale: entry.stale,
        unconfirmed: entry.validity.is_unconfirmed(),
        rejected: entry.rejected.as_ref().map(ToString::to_string),
        lost_at: selection
            .and_then(|selection| selection.lost_at[index])
            .map(|step| step.to_string()),
        ..attributes(&path.attributes)
    }
}

fn attributes(attributes: &PathAttributes) -> PathSnapshot {
    fn text<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }
    PathSnapshot {
        as_path: attributes.as_path.to_string(),
        origin: attributes.origin.to_string(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: text(&attributes.communities),
        large_communities: text(&attributes.large_communities),
        extended_communities: text(attributes.ext_communities()),
        atomic_aggregate: attributes.atomic_aggregate,
        aggregator: attributes
            .aggregator()
            .map(|aggregator| format!("{} {}", aggregator.asn, aggregator.router)),
        originator_id: attributes.originator_id.map(|id| id.to_string()),
        cluster_list: text(&attributes.cluster_list),
        ..PathSnapshot::default()
    }
}

fn source(path: &Path, names: &Names) -> String {
    match path.source.index() {
        None => "local".to_owned(),
        Some(index) => name(index, names),
    }
}

fn name(index: PeerIndex, names: &Names) -> String {
    // A peer that was removed may show until the RIB has taken that in.
    names
        .get(&index)
        .map_or_else(|| "a removed peer".to_owned(), ToString::to_string)
}
