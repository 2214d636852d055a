//! Sessions on links without numbers: who is heard on a link decides whether one begins.

use std::time::Duration;

use caracal_bgp_core::types::{Asn, RouterId};
use caracal_bgp_speaker::config::{Endpoint, ListenConfig, PeerAs};
use caracal_bgp_speaker::handle::{Clear, PeerSnapshot, SessionState};
use caracal_bgp_speaker::net::{Discovery, Interfaces, LinkState};
use caracal_bgp_speaker::status::DownReason;
use caracal_bgp_speaker::{
    How, PeerConfig, PeerName, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions,
};

use crate::common::{LOCAL, established, snapshot, until};
use crate::hosts::{Host, NEVER, PORT, hosts, join, link};

const OTHER: Asn = Asn(65_001);

/// A speaker whose peer is at the other end of its one link.
fn config(name: &PeerName, router_id: u32, [own, other]: [Asn; 2]) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(own, RouterId(router_id));
    let addrs = Vec::new();
    config.listen = Some(ListenConfig { addrs, port: PORT });
    let remote = Endpoint::Interface {
        name: "e1".to_owned(),
        port: PORT,
    };
    let peer = PeerConfig::at(remote, PeerAs::Number(other));
    config.peers.insert(name.clone(), peer);
    config
}

fn start(host: &Host, config: SpeakerConfig) -> SpeakerHandle {
    host.run(async || {
        let options = SpeakerOptions::default();
        Speaker::start(config, None, options).await.unwrap()
    })
}

#[test]
fn with_several_routers_on_a_link_the_session_that_lives_stays_and_none_begins() {
    let Some([a, b, c, switch]) = hosts("sev") else {
        return;
    };
    join(&[&a, &b, &c], &switch);
    let name = PeerName::from("other");
    let ours = start(&a, config(&name, 1, [LOCAL, OTHER]));
    let theirs = start(&b, config(&name, 2, [OTHER, LOCAL]));
    a.run(async || established(&ours, &name).await);

    let third = c.run(async || {
        let discovery = Discovery::start(Interfaces::start().unwrap(), 3);
        discovery.set(["e1".to_owned()].into());
        let both = |state: &LinkState| matches!(state, LinkState::Several(_));
        let look = async || discovery.reports().into_iter().any(|it| both(&it.state));
        until("all three on the link", look, |found| *found).await;
        discovery
    });
    a.run(async || {
        let seen = snapshot(&ours, &name).await;
        assert_eq!(seen.state, SessionState::Established, "{seen:#?}");
        // Nothing shows when the third one has been heard but that no session comes any more.
        let clear = async || {
            let message = String::new();
            let hard = Clear::Hard { message };
            ours.clear(Some(name.clone()), hard).await.unwrap();
            snapshot(&ours, &name).await
        };
        let left_alone = |seen: &PeerSnapshot| {
            let why = seen.why.as_ref();
            why.is_some_and(|why| why.reason == DownReason::SeveralPeers)
        };
        let seen = until("left alone", clear, left_alone).await;
        assert_eq!(seen.state, SessionState::Idle);
        tokio::time::sleep(NEVER).await;
        let later = snapshot(&ours, &name).await;
        assert!(left_alone(&later), "{later:#?}");
        assert_eq!(later.established_count, seen.established_count);
    });

    // What was heard on a link is forgotten when it goes.
    c.run(async || drop(third));
    for port in ["p1", "p2"] {
        switch.ip(&["link", "set", port, "down"]);
        switch.ip(&["link", "set", port, "up"]);
    }
    a.run(async || established(&ours, &name).await);
    a.run(async || ours.shutdown(How::GracefulRestart).await);
    b.run(async || theirs.shutdown(How::GracefulRestart).await);
}

#[test]
fn after_a_restart_a_peer_that_cannot_be_found_behind_a_dead_link_is_not_waited_for() {
    let Some([a, b]) = hosts("dead") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    b.ip(&["link", "set", "e1", "down"]);
    let mut restarting = config(&PeerName::from("other"), 1, [LOCAL, OTHER]);
    restarting.restarting = true;
    // Longer than anybody waits here.
    restarting.graceful_restart.selection_deferral = Duration::from_secs(600);
    let ours = start(&a, restarting);
    a.run(async || {
        let deferring = async || ours.snapshot().await.unwrap().rib.unwrap().deferring;
        until("selection", deferring, |deferring| !deferring).await;
        ours.shutdown(How::GracefulRestart).await;
    });
}
