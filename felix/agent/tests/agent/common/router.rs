//! A router at the far end of the node's only link: our speaker, in the test's own process.

use caracal_bgp_core::types::{Asn, RouterId};
use caracal_bgp_speaker::config::Origination;
use caracal_bgp_speaker::{PeerConfig, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions};
use tokio::runtime::Runtime;

use super::Rig;

/// What the router announces.
pub const REMOTE: &str = "10.99.0.0/24";

pub struct Router {
    runtime: Runtime,
    handle: SpeakerHandle,
}

impl Router {
    /// A router that announces [`REMOTE`] to the node, whose session is as `change` leaves it.
    pub fn start(rig: &Rig, change: impl FnOnce(&mut PeerConfig)) -> Router {
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
        let config = Router::config(&[REMOTE], change);
        let started = runtime.spawn(Speaker::start(config, None, SpeakerOptions::default()));
        let handle = runtime.block_on(started).expect("task").expect("speaker");
        Router { runtime, handle }
    }

    fn config(announced: &[&str], change: impl FnOnce(&mut PeerConfig)) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(Asn(65001), RouterId(0xc000_0201));
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
        let config = Router::config(announced, change);
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
}
