//! A whole cluster, as its nodes report it.
//!
//! Owns who is asked, and what is said of those that say nothing. The screens are functions of what was
//! reported, one module each.

pub(super) mod peers;
pub(super) mod rejected;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::path::Path;

use anyhow::{Context, bail};
use caracal_crds::NodeNetworkStatus;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cmd::Unreachable;
use crate::cmd::controller::client;

/// Objects that the API server is asked for at a time.
const PAGE: u32 = 500;

/// Names that stand in a hint before the rest is only counted.
const NAMED: usize = 8;

/// What the nodes of a cluster say.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cluster {
    /// What was reported, by name of the node.
    pub(super) statuses: Vec<NodeNetworkStatus>,
    /// Nodes that have reported nothing.
    pub(super) silent: Vec<String>,
    /// Those of the others whose kubelet does not answer: perhaps their agent runs no more, either.
    pub(super) not_ready: Vec<String>,
}

/// Asks the API server of all nodes, or of one. Credentials are looked for where they usually are if no
/// file is named.
///
/// # Errors
/// [`Unreachable`] where it does not answer.
pub(super) fn read(kubeconfig: Option<&Path>, only: Option<&str>) -> anyhow::Result<Cluster> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let cannot = |what: &str| Unreachable(format!("cannot list {what}"));
    runtime.block_on(async {
        let client = client(kubeconfig).await;
        let client = client.context(Unreachable("cannot ask a cluster".to_owned()))?;
        let statuses = list(&Api::<NodeNetworkStatus>::all(client.clone())).await;
        let statuses = statuses.with_context(|| cannot("NodeNetworkStatuses"))?;
        let nodes = list(&Api::<Node>::all(client)).await;
        let nodes = nodes.with_context(|| cannot("Nodes"))?;
        Cluster::new(statuses, &nodes, only)
    })
}

/// All objects of a kind, page by page: those of thousands of nodes are many megabytes.
async fn list<K: Clone + DeserializeOwned + Debug>(api: &Api<K>) -> kube::Result<Vec<K>> {
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let listed = api.list(&page).await?;
        objects.extend(listed.items);
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

impl Cluster {
    /// Sorts out who has said something.
    ///
    /// # Errors
    /// Where there is no node `only`.
    pub(super) fn new(
        statuses: Vec<NodeNetworkStatus>,
        nodes: &[Node],
        only: Option<&str>,
    ) -> anyhow::Result<Self> {
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let mut statuses: Vec<NodeNetworkStatus> = statuses
            .into_iter()
            .filter(|status| status.status.is_some() && wanted(name(status)))
            .collect();
        statuses.sort_by(|a, b| name(a).cmp(name(b)));
        let speaking: BTreeSet<&str> = statuses.iter().map(name).collect();
        let (mut silent, mut not_ready) = (Vec::new(), Vec::new());
        for node in nodes {
            let Some(name) = node.metadata.name.as_deref().filter(|name| wanted(name)) else {
                continue;
            };
            if !speaking.contains(name) {
                silent.push(name.to_owned());
            } else if !is_ready(node) {
                not_ready.push(name.to_owned());
            }
        }
        if let Some(only) = only.filter(|_| statuses.is_empty() && silent.is_empty()) {
            bail!("no node is called {only:?}");
        }
        silent.sort();
        not_ready.sort();
        Ok(Self {
            statuses,
            silent,
            not_ready,
        })
    }

    /// Whether every node has reported.
    pub(super) fn is_whole(&self) -> bool {
        self.silent.is_empty()
    }

    /// What is to be said of the nodes themselves.
    fn hints(&self, hints: &mut Hints) {
        hints.add(&self.not_ready, |nodes, one| match one {
            true => format!("{nodes} is not Ready: what it reported last may be old"),
            false => format!("{nodes} are not Ready: what they reported last may be old"),
        });
        hints.add(&self.silent, |nodes, one| match one {
            true => format!("{nodes} has reported nothing"),
            false => format!("{nodes} have reported nothing"),
        });
    }
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.iter();
    let mut conditions = status.flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    ready.is_none_or(|ready| ready.status == "True")
}

fn name(status: &NodeNetworkStatus) -> &str {
    status.metadata.name.as_deref().unwrap_or_default()
}

/// Lines below a screen.
#[derive(Default)]
struct Hints(Vec<String>);

impl Hints {
    /// One line about `nodes`, if there are any. `say` is given their names, and whether it is one alone.
    fn add<T: AsRef<str>>(&mut self, nodes: &[T], say: impl FnOnce(&str, bool) -> String) {
        if !nodes.is_empty() {
            self.0.push(say(&named(nodes), nodes.len() == 1));
        }
    }

    fn print(&self, text: &mut String) {
        if !self.0.is_empty() {
            text.push('\n');
        }
        for hint in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "hint: {hint}");
        }
    }
}

/// `n1`, `n1 and n2`, `n1, n2 and 12 more`.
fn named<T: AsRef<str>>(nodes: &[T]) -> String {
    let mut names: Vec<String> = nodes.iter().map(|it| it.as_ref().to_owned()).collect();
    if names.len() > NAMED {
        names.truncate(NAMED - 1);
        names.push(format!("{} more", nodes.len() - names.len()));
    }
    let last = names.pop().unwrap_or_default();
    match names.is_empty() {
        true => last,
        false => format!("{} and {last}", names.join(", ")),
    }
}
