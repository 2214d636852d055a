//! Peers at the other ends of links: the test says who is found there, and what BFD says of the path.

use std::net::Ipv6Addr;

use caracal_bfdd::proto::SessionKey;
use caracal_bgp_core::bfd::State;

use super::detection::{Process, awaits_path, strict};
use super::*;
use crate::config::{Endpoint, OnBfdFailure};
use crate::net::LinkState;

const LINK: &str = "lo";
const HERE: Ipv6Addr = Ipv6Addr::LOCALHOST;
const ELSEWHERE: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 2);

/// Has the first speaker find this on its link.
async fn finds(handle: &SpeakerHandle, state: LinkState) {
    let report = LinkReport {
        interface: LINK.to_owned(),
        ifindex: Some(1),
        state,
        trouble: None,
    };
    handle.found(vec![report]).await;
}

fn router(address: Ipv6Addr) -> LinkState {
    let heard = Instant::now();
    LinkState::Neighbor { address, heard }
}

/// Two speakers with a session; the first has found the second on a link and watches the path.
async fn found(process: &Process) -> (SpeakerHandle, SpeakerHandle) {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let port = lab.port - 10_000 + u16::from(lab.subnet);
    a.listen = None;
    b.listen = Some(ListenConfig {
        addrs: vec![HERE.into()],
        port,
    });
    let (to_b, to_a) = (
        a.peers.get_mut(&name(2)).unwrap(),
        b.peers.get_mut(&name(1)).unwrap(),
    );
    for peer in [&mut *to_a, &mut *to_b] {
        peer.local_address = None;
    }
    to_a.remote = Endpoint::Address(SocketAddr::new(HERE.into(), 0));
    to_b.remote = Endpoint::Interface {
        name: LINK.to_owned(),
        port,
    };
    to_b.bfd = Some(strict(OnBfdFailure::PreferFailover));
    let a = Speaker::start(a, None, process.options()).await.unwrap();
    let b = start(b).await;
    // What is really on the link is not told a second time.
    let looked = |peer: &PeerSnapshot| {
        let why = peer.why.as_ref();
        why.is_some_and(|why| why.reason == DownReason::InterfaceNotReady)
    };
    until("the link was looked at", || peer(&a, 2), looked).await;
    finds(&a, router(HERE)).await;
    assert_eq!(established(&a, 2).await.established_count, 1);
    (a, b)
}

/// The far ends of the paths that are watched.
fn watched(process: &Process) -> Vec<IpAddr> {
    process.wanted().into_keys().map(|key| key.peer).collect()
}

fn says_up(peer: &PeerSnapshot) -> bool {
    peer.bfd.as_ref().is_some_and(|bfd| bfd.state == "Up")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_a_session_is_watched_while_nobody_is_found_on_its_link_or_several_are() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Up);
    let (a, _b) = found(&process).await;
    finds(&a, LinkState::Silent).await;
    let seen = peer(&a, 2).await;
    assert!(says_up(&seen), "{seen:?}");
    process.say(State::Down, true);
    awaits_path(&a, 2).await;
    process.say(State::Up, true);
    assert_eq!(established(&a, 2).await.established_count, 2);

    finds(&a, LinkState::Several(vec![HERE, ELSEWHERE])).await;
    let seen = peer(&a, 2).await;
    assert!(says_up(&seen), "{seen:?}");
    process.say(State::Down, true);
    let open = |peer: &PeerSnapshot| {
        let why = peer.why.as_ref();
        why.is_some_and(|why| why.reason == DownReason::SeveralPeers)
    };
    until("none is begun", || peer(&a, 2), open).await;
    let key = SessionKey::single_hop(None, HERE.into(), Some(LINK));
    assert_eq!(process.wanted(), BTreeMap::from([(key, 1)]), "asked once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_found_elsewhere_is_watched_there_once_its_session_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Up);
    let (a, _b) = found(&process).await;
    finds(&a, router(ELSEWHERE)).await;
    let seen = peer(&a, 2).await;
    assert!(says_up(&seen), "{seen:?}");
    process.say(State::Down, true);
    let moved = |watched: &Vec<IpAddr>| watched == &[IpAddr::from(ELSEWHERE)];
    until("the path there", async || watched(&process), moved).await;
    finds(&a, router(HERE)).await;
    assert_eq!(established(&a, 2).await.established_count, 2);
    assert_eq!(watched(&process), [IpAddr::from(HERE)]);
}
