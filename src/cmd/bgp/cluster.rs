//! The sessions of a whole cluster, as its nodes report them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use caracal_crds::{NodeNetworkStatus, SessionState, SessionStatus};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use serde::Serialize;

use super::{ago, counted, known};
use crate::cmd::Unreachable;
use crate::cmd::controller::client;
use crate::table;

/// What the nodes of a cluster say.
#[derive(Debug, Serialize)]
pub(super) struct Cluster {
    /// What was reported, by name of the node.
    pub(super) statuses: Vec<NodeNetworkStatus>,
    /// Nodes that have reported nothing.
    pub(super) silent: Vec<String>,
}

/// Asks the API server of all nodes, or of one.
///
/// # Errors
/// [`Unreachable`] where it does not answer.
pub(super) fn read(kubeconfig: &Path, only: Option<&str>) -> anyhow::Result<Cluster> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let cannot = |what: &str| Unreachable(format!("cannot list {what}"));
    runtime.block_on(async {
        let client = client(Some(kubeconfig)).await?;
        let statuses: kube::Api<NodeNetworkStatus> = kube::Api::all(client.clone());
        let nodes: kube::Api<Node> = kube::Api::all(client);
        let everything = ListParams::default();
        let statuses = statuses.list(&everything).await;
        let statuses = statuses.with_context(|| cannot("NodeNetworkStatuses"))?;
        let nodes = nodes.list(&everything).await;
        let nodes = nodes.with_context(|| cannot("Nodes"))?;
        let nodes = nodes.items.into_iter().filter_map(|it| it.metadata.name);
        Ok(Cluster::new(statuses.items, nodes, only))
    })
}

impl Cluster {
    /// Sorts out who has said something.
    pub(super) fn new(
        statuses: Vec<NodeNetworkStatus>,
        nodes: impl Iterator<Item = String>,
        only: Option<&str>,
    ) -> Self {
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let mut statuses: Vec<NodeNetworkStatus> = statuses
            .into_iter()
            .filter(|status| status.status.is_some() && wanted(name(status)))
            .collect();
        statuses.sort_by(|a, b| name(a).cmp(name(b)));
        let speaking: BTreeSet<&str> = statuses.iter().map(name).collect();
        let mut silent: Vec<String> = nodes
            .filter(|node| wanted(node) && !speaking.contains(node.as_str()))
            .collect();
        silent.sort();
        Self { statuses, silent }
    }
}

fn name(status: &NodeNetworkStatus) -> &str {
    status.metadata.name.as_deref().unwrap_or_default()
}

/// All sessions of all nodes, a line each.
pub(super) fn peers(cluster: &Cluster, now_ms: u64) -> String {
    let mut rows = Vec::new();
    let (mut up, mut hints) = (0, Vec::new());
    for status in &cluster.statuses {
        let node = name(status);
        let sessions = status.status.iter().flat_map(|status| &status.sessions);
        let sessions: Vec<&SessionStatus> = sessions.collect();
        let standing = sessions.iter().filter(|session| is_up(session)).count();
        rows.extend(sessions.iter().map(|session| row(node, session, now_ms)));
        up += standing;
        match (standing, sessions.len()) {
            (0, 0) => hints.push(format!("{node} has no session to have")),
            (0, _) => hints.push(format!("{node} has no session up: it is isolated")),
            (1, 2..) => hints.push(format!("{node} is one failure away from isolation")),
            _ => {}
        }
    }
    let header = ["NODE", "PEER", "ADDRESS", "AS", "STATE", "UPTIME", "WHY"];
    let mut text = table::render(&header, &rows);
    text.push_str(&format!(
        "{up} of {} established on {}\n",
        counted(rows.len(), "session"),
        counted(cluster.statuses.len(), "node")
    ));
    if !cluster.silent.is_empty() {
        let silent = cluster.silent.join(", ");
        hints.push(format!("these nodes have reported nothing: {silent}"));
    }
    if !hints.is_empty() {
        text.push('\n');
    }
    for hint in hints {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

fn row(node: &str, session: &SessionStatus, now_ms: u64) -> Vec<String> {
    let since = session.since.as_ref();
    let since = since.and_then(|since| u64::try_from(since.0.as_millisecond()).ok());
    let why = session.message.as_ref().or(session.reason.as_ref());
    vec![
        node.to_owned(),
        session.name.clone(),
        known(session.peer_ip),
        known(session.as_number),
        format!("{:?}", session.state),
        known(since.map(|since| ago(since, now_ms))),
        match is_up(session) {
            true => String::new(),
            false => why.cloned().unwrap_or_default(),
        },
    ]
}

fn is_up(session: &SessionStatus) -> bool {
    session.state == SessionState::Established
}
