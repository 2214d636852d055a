//! The agent's process: what is opened, in which order, and the loop around [`Core`].

use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use caracal_fib::Rtnl;
use caracal_nft::Options;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::addresses::Addresses;
use crate::cni_server::{self, CniCall};
use crate::config::Config;
use crate::core::{Core, Parts, StatusReporter};
use crate::endpoint::Endpoints;
use crate::error::Error;
use crate::metrics::{self, Counts, Inquiry};
use crate::policy::PolicyLayer;
use crate::policy_server::{self, Question};
use crate::routing::Routing;
use crate::secrets::{News, SecretWatch};
use crate::world::{Change, World};
use crate::{client, node, publish, snapshot, watch};

/// Name of the node's nftables table.
const TABLE: &str = "caracal";

/// MTU of pod links where the node has no uplink to take it from, in octets.
const DEFAULT_MTU: u32 = 1500;

/// Changes taken in before they are acted upon. A burst becomes one transaction, yet a stream that
/// never ends does not keep the kernel waiting for ever.
const BATCH: usize = 512;

/// The node agent.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// Serves the node of the calling thread's network namespace until `shutdown`, and leaves the
    /// kernel as it is: routes, rules and links stay, and peers are told to wait.
    ///
    /// Kernel calls happen on the task that awaits this; give it a thread of its own, so that no
    /// BGP timer waits for them. [`Agent::run_blocking`] does.
    ///
    /// # Errors
    /// What keeps an agent from starting: no privilege, no nf_tables, unreadable credentials, a
    /// port or socket in use. Whatever fails later is logged, shown in conditions and tried again.
    pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
        let now = Instant::now();
        // A socket for every session, and a few for every watch and every pod's link.
        if let Err(error) = caracal_bgp_speaker::net::raise_file_limit() {
            warn!(%error, "as many sessions and pods as the system gives files");
        }
        make_directory(&config.run_dir)?;
        let random = random();
        let mut tasks = JoinSet::new();
        let counts = Arc::new(Counts::default());
        let inquiries = match config.metrics {
            Some(address) => metrics::serve(address, Arc::clone(&counts), &mut tasks),
            // Closed: nobody asks.
            None => mpsc::channel(1).1,
        };
        let client = client::connect(&config.api, &config.node_name).await?;
        let namespace = config.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let (secret_watch, secrets) = SecretWatch::start(client.clone(), namespace, &mut tasks);
        let shared = Shared {
            client: &client,
            counts: &counts,
        };
        let core = open(&config, &shared, secret_watch, random, &mut tasks, now).await?;
        let socket = config.cni_socket();
        let calls = cni_server::listen(&socket, &mut tasks).map_err(|source| Error::File {
            doing: "listen for the CNI plugin at",
            path: socket,
            source,
        })?;
        let socket = config.policy_socket();
        let questions =
            policy_server::listen(&socket, &mut tasks).map_err(|source| Error::File {
                doing: "listen for questions about policy at",
                path: socket,
                source,
            })?;
        let changes = watch::start(&client, &config.node_name, &counts.watches, &mut tasks);
        let inputs = Inputs {
            changes,
            secrets,
            calls,
            questions,
            inquiries,
        };
        drive(core, inputs, shutdown).await
    }

    /// [`Agent::run`] on a thread of its own, of the current runtime.
    ///
    /// # Errors
    /// Those of [`Agent::run`].
    pub async fn run_blocking(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
        let runtime = tokio::runtime::Handle::current();
        let thread =
            tokio::task::spawn_blocking(move || runtime.block_on(Agent::run(config, shutdown)));
        match thread.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// What several parts have in common.
struct Shared<'a> {
    client: &'a kube::Client,
    counts: &'a Arc<Counts>,
}

async fn open(
    config: &Config,
    shared: &Shared<'_>,
    secrets: SecretWatch,
    random: u64,
    tasks: &mut JoinSet<()>,
    now: Instant,
) -> Result<Core, Error> {
    let Shared { client, counts } = *shared;
    let network = |doing| move |source| Error::Network { doing, source };
    let mut rtnl = Rtnl::open().map_err(network("open a netlink socket"))?;
    caracal_fib::link::set_loopback_up(&mut rtnl).map_err(network("set the loopback up"))?;
    let world = match snapshot::read(&config.snapshot_path()) {
        Ok(Some(world)) => {
            info!("starting from the snapshot");
            world
        }
        Ok(None) => World::default(),
        Err(error) => {
            warn!(%error, "starting without the snapshot");
            World::default()
        }
    };
    let options = Options {
        table: TABLE.into(),
        owner: config.own_table,
        interface_prefix: config.interface_prefix.clone(),
    };
    let policy = PolicyLayer::open(&config.node_name, options, Arc::clone(counts));
    let policy = policy.map_err(Error::Dataplane)?;
    let mtu = config
        .pod_mtu
        .or_else(|| node::fabric_mtu(&mut rtnl, &config.interface_prefix))
        .unwrap_or(DEFAULT_MTU);
    let endpoints =
        Endpoints::open(&config.interface_prefix, mtu).map_err(network("work with pods' links"))?;
    let addresses = Addresses::open(&config.run_dir, &config.node_name, random, now)?;
    let routing = Routing::open(config, Arc::clone(counts)).map_err(network("work with routes"))?;
    let wanted = publish::start(client.clone(), Arc::clone(counts), tasks);
    let said = publish::node_status(client, &config.node_name).await;
    let reporter = StatusReporter::new(wanted, said, random, now);
    let config = config.clone();
    let parts = Parts {
        config,
        rtnl,
        world,
        addresses,
        endpoints,
        policy,
        routing,
        secrets,
        reporter,
    };
    Ok(Core::new(parts, now))
}

/// What reaches the loop from outside.
struct Inputs {
    changes: mpsc::Receiver<Change>,
    secrets: mpsc::Receiver<News>,
    calls: mpsc::Receiver<CniCall>,
    questions: mpsc::Receiver<Question>,
    inquiries: mpsc::Receiver<Inquiry>,
}

async fn drive(mut core: Core, inputs: Inputs, shutdown: CancellationToken) -> Result<(), Error> {
    let Inputs {
        mut changes,
        mut secrets,
        mut calls,
        mut questions,
        mut inquiries,
    } = inputs;
    loop {
        core.settle(Instant::now()).await?;
        let deadline = core.deadline(Instant::now()).into();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(change) = changes.recv() => {
                core.take(change);
                for _ in 1..BATCH {
                    let Ok(change) = changes.try_recv() else { break };
                    core.take(change);
                }
            }
            Some(news) = secrets.recv() => core.take_secret(news),
            Some(call) = calls.recv(), if core.begun() => core.call(call, Instant::now()),
            Some(question) = questions.recv(), if core.begun() => core.question(question),
            Some(inquiry) = inquiries.recv() => core.inquiry(inquiry),
            () = core.routing_changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
    core.end().await;
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| Error::File {
        doing: "make the directory",
        path: path.into(),
        source,
    })
}

/// A number that differs from start to start; where the system gives none, from the clock.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(error) => {
            warn!(%error, "no random numbers");
            u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default()
        }
    }
}
