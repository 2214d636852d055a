//! A node's agent and a router: routes both ways, and a kill that moves no route.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use caracal_bgp_core::types::{Asn, RouterId};
use caracal_bgp_speaker::config::Origination;
use caracal_bgp_speaker::{PeerConfig, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions};
use caracal_crds::BlockPhase;
use common::{Rig, can_run, until};
use serde_json::json;
use tokio::runtime::Runtime;

/// What the router announces.
const REMOTE: &str = "10.99.0.0/24";

struct Router {
    runtime: Runtime,
    handle: SpeakerHandle,
}

impl Router {
    /// A router at the far end of the node's only link.
    fn start(rig: &Rig) -> Router {
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
        let mut config = SpeakerConfig::new(Asn(65001), RouterId(0xc000_0201));
        let node = PeerConfig::new("192.0.2.2:179".parse().expect("address"), Asn(65000));
        config.peers.insert(
            "node".into(),
            PeerConfig {
                passive: true,
                ..node
            },
        );
        config
            .originate
            .insert(REMOTE.parse().expect("prefix"), Origination::default());
        let started = runtime.spawn(Speaker::start(config, None, SpeakerOptions::default()));
        let handle = runtime.block_on(started).expect("task").expect("speaker");
        Router { runtime, handle }
    }

    /// How often the session came up.
    fn sessions(&self) -> u64 {
        let snapshot = self
            .runtime
            .block_on(self.handle.snapshot())
            .expect("speaker");
        snapshot.peers[0].established_count
    }

    fn knows(&self, prefix: &str) -> Result<(), Vec<String>> {
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

#[test]
fn routes_go_both_ways_and_a_killed_agent_moves_none() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    let router = Router::start(&rig);
    rig.api.create(&json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"},
        "spec": {"peerIP": "192.0.2.1", "asNumber": 65001},
    }));
    rig.start_agent();
    rig.ready();
    let patience = Duration::from_secs(15);
    for prefix in ["10.64.0.0/26", "10.250.0.1/32"] {
        until(&format!("the router learns {prefix}"), patience, || {
            router.knows(prefix)
        });
    }
    let route = || rig.on_node(&["ip", "route", "show", REMOTE]);
    until("the node learns its route", patience, || {
        let route = route();
        if route.contains("src 10.250.0.1") {
            Ok(())
        } else {
            Err((route, rig.log()))
        }
    });
    let before = rig.kernel_state();

    let monitor = Command::new("ip")
        .args(["-n", rig.node.name(), "monitor", "route", "nexthop"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the monitor starts");
    let sessions = router.sessions();
    rig.kill_agent();
    rig.start_agent();
    rig.ready();
    until("the session is back", patience, || {
        match router.sessions() {
            now if now > sessions => Ok(()),
            now => Err((now, rig.log())),
        }
    });
    router
        .knows("10.64.0.0/26")
        .expect("the router keeps the node's routes");
    rig.settled();
    let mut monitor = monitor;
    monitor.kill().expect("kill");
    let seen = monitor.wait_with_output().expect("the monitor ends");
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout),
        "",
        "routes moved\n{}",
        rig.log()
    );
    let after = rig.kernel_state();
    assert_eq!(before["routes"], after["routes"]);
    assert_eq!(before["nexthops"], after["nexthops"]);
    let status = rig
        .api
        .node_status()
        .and_then(|object| object.status)
        .expect("status");
    assert_eq!(status.sessions_established.as_deref(), Some("1/1"));
    rig.stop_agent();
}

#[test]
fn a_block_is_withdrawn_before_it_is_released_and_the_next_grant_of_its_name_stands() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    let router = Router::start(&rig);
    rig.api.create(&json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"},
        "spec": {"peerIP": "192.0.2.1", "asNumber": 65001},
    }));
    rig.start_agent();
    rig.ready();
    let patience = Duration::from_secs(15);
    let phase = |wanted| {
        until(
            &format!("the block is {wanted:?}"),
            patience,
            || match rig.api.block(0).phase() {
                phase if phase == wanted => Ok(()),
                other => Err((other, rig.log())),
            },
        );
    };
    let block = "10.64.0.0/26";
    until("the router learns the block", patience, || {
        router.knows(block)
    });
    phase(BlockPhase::Active);

    // Released cannot be written, yet the block is announced no more.
    rig.api.refuse_block_writes();
    rig.api.drain_block(0);
    until("the router loses the block", patience, || {
        match router.knows(block) {
            Ok(()) => Err(rig.log()),
            Err(_) => Ok(()),
        }
    });
    assert_eq!(rig.api.block(0).phase(), BlockPhase::Active);
    rig.api
        .delete("caracal.dev/v1alpha1", "IPBlock", "", "default-0");
    rig.api.grant_block(0);
    rig.api.heal();
    phase(BlockPhase::Active);
    until("the router learns the block again", patience, || {
        router.knows(block)
    });

    rig.api.drain_block(0);
    phase(BlockPhase::Released);
    rig.stop_agent();
}
