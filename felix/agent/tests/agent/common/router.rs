//! A router at the far end of the node's only link: our speaker, in the test's own process.

use std::net::Ipv4Addr;

use caracal_bgp_core::types::{Asn, RouterId};
use caracal_bgp_speaker::config::{ListenConfig, Origination};
use caracal_bgp_speaker::{
    Forwarding, PeerConfig, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions,
};
use caracal_fib::{FibOptions, KernelFib};
use tokio::runtime::Runtime;

use super::{Rig, SERVER, inside};

/// What the router announces.
pub const REMOTE: &str = "10.99.0.0/24";

/// Where the second router is.
pub const SECOND: &str = "192.0.2.3";

pub struct Router {
    runtime: Runtime,
    handle: SpeakerHandle,
    address: &'static str,
    asn: Asn,
}

impl Router {
    /// A router that announces [`REMOTE`] to the node, whose session is as `change` leaves it.
    pub fn start(rig: &Rig, change: impl FnOnce(&mut PeerConfig)) -> Router {
        Router::start_at(rig, (SERVER, Asn(65001)), &[REMOTE], None, change)
    }

    /// A router that announces nothing, and whose kernel has what it learns.
    pub fn silent(rig: &Rig) -> Router {
        let options = FibOptions::default();
        let (fib, _, events) =
            KernelFib::start(rig.management.netns(), options).expect("kernel routes");
        let fib = Box::new(fib);
        let forwarding = Some(Forwarding { fib, events });
        Router::start_at(rig, (SERVER, Asn(65001)), &[], forwarding, |_| {})
    }

    /// Another router on the same link, at [`SECOND`] in AS 65003, which announces nothing.
    pub fn second(rig: &Rig) -> Router {
        let address = format!("{SECOND}/24");
        inside(
            &rig.management,
            &["ip", "addr", "add", &address, "dev", "eth0"],
        );
        Router::start_at(rig, (SECOND, Asn(65003)), &[], None, |_| {})
    }

    fn start_at(
        rig: &Rig,
        (address, asn): (&'static str, Asn),
        announced: &[&str],
        forwarding: Option<Forwarding>,
        change: impl FnOnce(&mut PeerConfig),
    ) -> Router {
        // Threads begin in the namespace of the thread that starts them.
        let build = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
        };
        let runtime = rig
            .management
            .netns()
            .run(build)
            .expect("namespace")
            .expect("runtime");
        let config = Router::config(address, asn, announced, change);
        let options = SpeakerOptions::default();
        let started = runtime.spawn(Speaker::start(config, forwarding, options));
        let handle = runtime.block_on(started).expect("task").expect("speaker");
        Router {
            runtime,
            handle,
            address,
            asn,
        }
    }

    fn config(
        address: &str,
        asn: Asn,
        announced: &[&str],
        change: impl FnOnce(&mut PeerConfig),
    ) -> SpeakerConfig {
        let address: Ipv4Addr = address.parse().expect("address");
        let mut config = SpeakerConfig::new(asn, RouterId::from(address));
        config.listen = Some(ListenConfig {
            addrs: vec![address.into()],
            ..ListenConfig::default()
        });
        let node = PeerConfig::new("192.0.2.2:179".parse().expect("address"), Asn(65000));
        let mut node = PeerConfig {
            passive: true,
            ..node
        };
        change(&mut node);
        config.peers.insert("node".into(), node);
        for prefix in announced {
            let prefix = prefix.parse().expect("prefix");
            config.originate.insert(prefix, Origination::default());
        }
        config
    }

    /// Takes over what it announces and a session as `change` leaves it.
    pub fn apply(&self, announced: &[&str], change: impl FnOnce(&mut PeerConfig)) {
        let config = Router::config(self.address, self.asn, announced, change);
        self.runtime
            .block_on(self.handle.apply(config))
            .expect("speaker");
    }

    /// How often the session came up.
    pub fn sessions(&self) -> u64 {
        let snapshot = self
            .runtime
            .block_on(self.handle.snapshot())
            .expect("speaker");
        snapshot.peers[0].established_count
    }

    pub fn knows(&self, prefix: &str) -> Result<(), Vec<String>> {
        let routes = self
            .runtime
            .block_on(self.handle.routes(None))
            .expect("speaker");
        let known: Vec<String> = routes
            .iter()
            .map(|route| route.prefix.to_string())
            .collect();
        if known.iter().any(|known| known == prefix) {
            Ok(())
        } else {
            Err(known)
        }
    }

    /// Whether a route carries these communities, ascending, and no others.
    pub fn has_communities(&self, prefix: &str, wanted: &[&str]) -> Result<(), Vec<String>> {
        let prefix = prefix.parse().expect("prefix");
        let routes = self
            .runtime
            .block_on(self.handle.routes(Some(prefix)))
            .expect("speaker");
        let paths = routes.into_iter().flat_map(|route| route.paths);
        let found: Vec<String> = paths.flat_map(|path| path.communities).collect();
        if found == wanted { Ok(()) } else { Err(found) }
    }

    /// Whether the node offers to restart gracefully; `None` without a session.
    pub fn is_offered_restart(&self) -> Option<bool> {
        let snapshot = self
            .runtime
            .block_on(self.handle.snapshot())
            .expect("speaker");
        let terms = snapshot.peers[0].terms.as_ref()?;
        Some(terms.graceful_restart)
    }
}
