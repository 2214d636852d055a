//! The screens of sessions of a cluster.

use std::collections::BTreeSet;

use caracal_crds::{
    ErrorDirection, NodeNetworkStatusStatus, PrefixCounts, SessionError, SessionState,
    SessionStatus, Time,
};

use super::super::{ago, counted, known};
use super::rejected::Rejections;
use super::{Cluster, Hints, name};
use crate::table;

const HEADER: [&str; 10] = [
    "NODE", "PEER", "ADDRESS", "AS", "STATE", "UPTIME", "RCVD", "ACPT", "ADV", "WHY",
];

/// What precedes a node's name in the name of a session of the mesh.
const MESH_PREFIX: &str = "mesh:";

/// All sessions of all nodes, a line each.
pub(in super::super) fn all(cluster: &Cluster, now_ms: u64) -> String {
    let mut text = sessions(cluster, now_ms);
    let mut hints = Hints::default();
    isolation(cluster, &mut hints);
    let cut = |status: &NodeNetworkStatusStatus| status.sessions_left_out.is_some();
    hints.add(&nodes_that(cluster, cut), |nodes, one| match one {
        true => format!("{nodes} has more sessions than its NodeNetworkStatus holds"),
        false => format!("{nodes} have more sessions than their NodeNetworkStatus holds"),
    });
    cluster.hints(&mut hints);
    hints.print(&mut text);
    text
}

/// What the nodes say of one peer: its sessions, the last error of each, what is rejected of it.
pub(in super::super) fn one(cluster: &Cluster, now_ms: u64) -> String {
    let mut text = sessions(cluster, now_ms);
    let errors: Vec<Vec<String>> = each(cluster)
        .filter_map(|(node, session)| Some((node, session.last_error.as_ref()?)))
        .map(|(node, error)| {
            vec![
                node.to_owned(),
                direction(error).to_owned(),
                format!("{} ago", since(&error.time, now_ms)),
                error.message.clone(),
            ]
        })
        .collect();
    if !errors.is_empty() {
        text.push('\n');
        text.push_str(&table::render(
            &["NODE", "LAST-ERROR", "WHEN", "SAYS"],
            &errors,
        ));
    }
    let rejected = Rejections::of(cluster).table();
    if !rejected.is_empty() {
        text.push('\n');
        text.push_str(&rejected);
    }
    let mut hints = Hints::default();
    cluster.hints(&mut hints);
    hints.print(&mut text);
    text
}

impl Cluster {
    /// What the nodes say of one peer; nothing where none of them has one of the name.
    pub(in super::super) fn of_peer(mut self, peer: &str) -> Option<Self> {
        for status in self.statuses.iter_mut().filter_map(|it| it.status.as_mut()) {
            status.sessions.retain(|session| session.name == peer);
            status.rejected.retain(|rejected| rejected.session == peer);
        }
        let has = |status: &NodeNetworkStatusStatus| !status.sessions.is_empty();
        self.statuses
            .retain(|it| it.status.as_ref().is_some_and(has));
        (!self.statuses.is_empty()).then_some(self)
    }
}

fn sessions(cluster: &Cluster, now_ms: u64) -> String {
    let rows: Vec<Vec<String>> = each(cluster)
        .map(|(node, session)| row(node, session, now_ms))
        .collect();
    let up = each(cluster).filter(|(_, session)| is_up(session)).count();
    let mut text = table::render(&HEADER, &rows);
    text.push_str(&format!(
        "{up} of {} established on {}\n",
        counted(rows.len(), "session"),
        counted(cluster.statuses.len(), "node")
    ));
    text
}

fn row(node: &str, session: &SessionStatus, now_ms: u64) -> Vec<String> {
    let uptime = session.since.as_ref().filter(|_| is_up(session));
    let count = |count: fn(&PrefixCounts) -> u32| known(session.prefixes.as_ref().map(count));
    vec![
        node.to_owned(),
        session.name.clone(),
        known(session.peer_ip),
        known(session.as_number),
        format!("{:?}", session.state),
        known(uptime.map(|uptime| since(uptime, now_ms))),
        count(|prefixes| prefixes.received),
        count(|prefixes| prefixes.accepted),
        count(|prefixes| prefixes.advertised),
        why(session, now_ms),
    ]
}

/// Why a session is down, for how long, and the last error where that is another one; of one that is up,
/// what is unusual.
fn why(session: &SessionStatus, now_ms: u64) -> String {
    let why = session.message.as_ref().or(session.reason.as_ref());
    let mut why = why.cloned().unwrap_or_default();
    if is_up(session) {
        return why;
    }
    let error = session.last_error.as_ref();
    let error = error.filter(|error| !why.contains(&error.message));
    if let Some(down) = &session.since {
        let space = if why.is_empty() { "" } else { " " };
        why.push_str(&format!("{space}(for {})", since(down, now_ms)));
    }
    if let Some(error) = error {
        let said = (direction(error), &error.message);
        why.push_str(&format!("; last error {}: {}", said.0, said.1));
    }
    why
}

fn direction(error: &SessionError) -> &'static str {
    match error.direction {
        ErrorDirection::Sent => "sent",
        ErrorDirection::Received => "received",
    }
}

fn since(time: &Time, now_ms: u64) -> String {
    // A time before 1970 is long ago.
    ago(u64::try_from(time.0.as_millisecond()).unwrap_or(0), now_ms)
}

/// Which nodes are, or soon could be, without a way out. Sessions between nodes do not count where there
/// are others: they end with the links that those use.
fn isolation(cluster: &Cluster, hints: &mut Hints) {
    let nodes = cluster.statuses.iter().map(name);
    let nodes: BTreeSet<&str> = nodes
        .chain(cluster.silent.iter().map(String::as_str))
        .collect();
    let leads_out = |session: &&SessionStatus| {
        let mesh = session.name.starts_with(MESH_PREFIX);
        let node = session.name.split_once('/').map(|(_, node)| node);
        !mesh && !node.is_some_and(|node| nodes.contains(node))
    };
    let (mut alone, mut isolated, mut nearly) = (Vec::new(), Vec::new(), Vec::new());
    for status in &cluster.statuses {
        let all = status.status.iter().flat_map(|status| &status.sessions);
        let all: Vec<&SessionStatus> = all.collect();
        let mut out: Vec<&SessionStatus> = all.iter().copied().filter(leads_out).collect();
        if out.is_empty() {
            out = all;
        }
        match (out.iter().filter(|it| is_up(it)).count(), out.len()) {
            (0, 0) => alone.push(name(status)),
            (0, _) => isolated.push(name(status)),
            (1, 2..) => nearly.push(name(status)),
            _ => {}
        }
    }
    hints.add(&nearly, |nodes, one| match one {
        true => format!("{nodes} is one failure away from isolation"),
        false => format!("{nodes} are one failure away from isolation"),
    });
    hints.add(&isolated, |nodes, one| match one {
        true => format!("{nodes} is isolated: no session leads out of it"),
        false => format!("{nodes} are isolated: no session leads out of them"),
    });
    hints.add(&alone, |nodes, one| match one {
        true => format!("{nodes} has no sessions: no BGPPeer names it"),
        false => format!("{nodes} have no sessions: no BGPPeer names them"),
    });
}

fn nodes_that(cluster: &Cluster, holds: impl Fn(&NodeNetworkStatusStatus) -> bool) -> Vec<&str> {
    let nodes = cluster.statuses.iter();
    let nodes = nodes.filter(|it| it.status.as_ref().is_some_and(&holds));
    nodes.map(name).collect()
}

fn each(cluster: &Cluster) -> impl Iterator<Item = (&str, &SessionStatus)> {
    cluster.statuses.iter().flat_map(|status| {
        let sessions = status.status.iter().flat_map(|status| &status.sessions);
        sessions.map(|session| (name(status), session))
    })
}

fn is_up(session: &SessionStatus) -> bool {
    session.state == SessionState::Established
}
