//! From resources to routes: the speaker and the kernel's side of it.
//!
//! Owns starting the speaker with what the resources mean and telling it when they change. Does not
//! own the meaning of resources (see [`caracal_resolve`]), the account of what the speaker does (see
//! [`crate::account`]), nor any route.
//!
//! The speaker starts once the node's own object and every BGP resource are known. It is then told
//! that it restarts if an earlier agent's routes are still in the kernel: peers keep what they
//! learnt from us, and nothing is removed from the kernel before they have told everything again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::handle::BfdOptions;
use caracal_bgp_speaker::{Forwarding, How, Speaker, SpeakerHandle, SpeakerOptions};
use caracal_crds::{BlockPhase, IpBlock};
use caracal_fib::{FibControl, FibOptions, KernelFib, Netns, PreferredSource};
use caracal_resolve::{Finding, Inputs, KernelFeatures, Resolved, Secrets, resolve};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::account::{self, Account};
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Counts;
use crate::world::World;

/// The speaker, once it runs.
pub(crate) struct Routing {
    node_name: String,
    api_socket: PathBuf,
    bfd_socket: PathBuf,
    counts: Arc<Counts>,
    netns: Netns,
    kernel: KernelFeatures,
    running: Option<Running>,
}

/// What the meaning of the resources depends on.
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    /// What sits on `lo`.
    pub(crate) loopbacks: &'a BTreeSet<IpAddr>,
    /// Those of the node's blocks, as the agent sees them.
    pub(crate) phases: &'a BTreeMap<String, BlockPhase>,
    /// Where Secrets are.
    pub(crate) namespace: &'a str,
    /// Why some of them could not be read.
    pub(crate) unread: &'a BTreeMap<String, String>,
}

struct Running {
    handle: SpeakerHandle,
    control: FibControl,
    applied: Resolved,
    /// The speaker may do something else than `applied` says.
    unsure: bool,
    account: watch::Receiver<Account>,
    accountant: JoinHandle<()>,
}

impl Routing {
    /// For the calling thread's namespace. Starts nothing. Those who are to tell of the speaker find
    /// it in `counts` once it runs.
    ///
    /// # Errors
    /// Where the namespace cannot be opened.
    pub(crate) fn open(
        config: &Config,
        counts: Arc<Counts>,
    ) -> Result<Routing, caracal_fib::Error> {
        Ok(Routing {
            node_name: config.node_name.clone(),
            api_socket: config.run_dir.join("bgp.sock"),
            bfd_socket: config.run_dir.join("bfd.sock"),
            counts,
            netns: Netns::current()?,
            kernel: KernelFeatures::probe(),
            running: None,
        })
    }

    /// Whether the speaker runs.
    pub(crate) fn running(&self) -> bool {
        self.running.is_some()
    }

    /// Brings the speaker to what the resources mean; starts it at the first call.
    ///
    /// # Errors
    /// Where the speaker or its kernel side cannot be started or has ended.
    pub(crate) async fn apply(&mut self, resolved: Resolved) -> Result<(), Error> {
        match &mut self.running {
            None => self.start(resolved).await,
            Some(running) => running.change(resolved).await,
        }
    }

    /// What the resources ask of this node and it does not do; none before the speaker runs.
    pub(crate) fn findings(&self) -> Option<&[Finding]> {
        let running = self.running.as_ref()?;
        Some(&running.applied.findings)
    }

    /// What the speaker does, as last told.
    pub(crate) fn account(&self) -> Account {
        let running = self.running.as_ref();
        running
            .map(|running| running.account.borrow().clone())
            .unwrap_or_default()
    }

    /// Waits until there is something new in the account.
    pub(crate) async fn changed(&mut self) {
        if let Some(running) = &mut self.running
            && running.account.changed().await.is_ok()
        {
            return;
        }
        // No speaker, or one that has ended: the next `apply` says so.
        std::future::pending().await
    }

    /// Ends the speaker without a word to its peers, which therefore keep our routes; the kernel's
    /// stay too.
    pub(crate) async fn end(&mut self) {
        if let Some(running) = self.running.take() {
            running.accountant.abort();
            running.handle.shutdown(How::GracefulRestart).await;
        }
    }

    /// What the resources mean for this node.
    pub(crate) fn resolve(&self, view: &View<'_>) -> Resolved {
        let View {
            world,
            loopbacks,
            phases,
            namespace,
            unread,
        } = *view;
        let taken_up = phases
            .iter()
            .filter(|(_, phase)| matches!(phase, BlockPhase::Active | BlockPhase::Draining))
            .map(|(name, _)| name.clone())
            .collect();
        let released: Vec<&String> = phases
            .iter()
            .filter(|(_, phase)| **phase == BlockPhase::Released)
            .map(|(name, _)| name)
            .collect();
        // The object says Released only after the routes are withdrawn, so it cannot be asked.
        let without_released: BTreeMap<String, IpBlock>;
        let mut blocks = world.ip_blocks.by_name();
        if !released.is_empty() {
            without_released = blocks
                .iter()
                .filter(|(name, _)| !released.contains(name))
                .map(|(name, block)| (name.clone(), block.clone()))
                .collect();
            blocks = &without_released;
        }
        resolve(&Inputs {
            node_name: &self.node_name,
            nodes: world.nodes.by_name(),
            configurations: world.bgp_configurations.by_name(),
            peers: world.bgp_peers.by_name(),
            filters: world.bgp_filters.by_name(),
            secrets: Secrets {
                objects: world.secrets.by_name(),
                namespace: Some(namespace),
                unread,
            },
            kernel: self.kernel,
            pools: world.ip_pools.by_name(),
            blocks,
            taken_up: &taken_up,
            loopbacks,
            // Known once the kernel's routes are read, see `Routing::start`.
            restarting: false,
        })
    }

    async fn start(&mut self, resolved: Resolved) -> Result<(), Error> {
        report(&[], &resolved);
        let options = FibOptions {
            blackholes: blackholes(&resolved),
            preferred_source: source(&resolved),
            ..FibOptions::default()
        };
        let (fib, control, events) =
            KernelFib::start(&self.netns, options).map_err(|source| Error::Network {
                doing: "work with the kernel's routes",
                source,
            })?;
        let options = SpeakerOptions {
            api_socket: Some(self.api_socket.clone()),
            bfd: Some(BfdOptions {
                socket: self.bfd_socket.clone(),
                owner: format!("agent:{}", self.node_name),
            }),
        };
        let mut config = resolved.config.clone();
        // RFC 4724 §4.1: the Restart State bit, and the Forwarding State bit with it, only when the
        // kernel really kept what an earlier agent gave it.
        config.restarting = control.inherited() > 0;
        let restarting = config.restarting;
        let fib = Box::new(fib);
        let handle = Speaker::start(config, Some(Forwarding { fib, events }), options)
            .await
            .map_err(|source| Error::Speaker {
                doing: "start",
                source,
            })?;
        info!(
            asn = resolved.config.asn.0,
            peers = resolved.config.peers.len(),
            restarting,
            "speaker started"
        );
        // There is but one in the life of an agent.
        let _ = self.counts.speaker.set(handle.clone());
        let (sender, account) = watch::channel(Account::default());
        let accountant = tokio::spawn(account::keep(handle.clone(), sender));
        self.running = Some(Running {
            handle,
            control,
            applied: resolved,
            unsure: false,
            account,
            accountant,
        });
        Ok(())
    }
}

impl Running {
    async fn change(&mut self, resolved: Resolved) -> Result<(), Error> {
        if resolved == self.applied && !self.unsure {
            return Ok(());
        }
        report(&self.applied.findings, &resolved);
        // Blackholes come before the announcement of their blocks and go after the withdrawal.
        let (before, after) = (blackholes(&self.applied), blackholes(&resolved));
        let both: BTreeSet<Prefix> = before.union(&after).copied().collect();
        if both != before {
            self.control.set_blackholes(both.clone());
        }
        if resolved.preferred_source != self.applied.preferred_source {
            self.control.set_preferred_source(source(&resolved));
        }
        let failed = |source| Error::Speaker {
            doing: "configure",
            source,
        };
        if resolved.config != self.applied.config || self.unsure {
            // What fails may be carried out in part.
            self.unsure = true;
            self.handle
                .apply(resolved.config.clone())
                .await
                .map_err(failed)?;
            // The table takes its changes in order: once it answers about a block, it has withdrawn
            // it. Only then may somebody be told that the block is free.
            for gone in before.difference(&after) {
                self.handle.routes(Some(*gone)).await.map_err(failed)?;
            }
            self.unsure = false;
        }
        if both != after {
            self.control.set_blackholes(after);
        }
        self.applied = resolved;
        Ok(())
    }
}

/// Logs what is new among the things that the resources ask for and nobody does.
fn report(before: &[Finding], now: &Resolved) {
    for finding in now
        .findings
        .iter()
        .filter(|finding| !before.contains(finding))
    {
        warn!(
            object = %finding.object,
            field = finding.field,
            finding = finding.reason,
            reason = finding.message,
            "not as the resources ask"
        );
    }
}

fn blackholes(resolved: &Resolved) -> BTreeSet<Prefix> {
    let (blocks, configured) = (&resolved.own_blocks, &resolved.dropped);
    blocks.iter().chain(configured).copied().collect()
}

fn source(resolved: &Resolved) -> PreferredSource {
    let caracal_resolve::PreferredSource { v4, v6 } = resolved.preferred_source;
    PreferredSource { v4, v6 }
}
