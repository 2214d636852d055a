//! Peers that a range lets in.

use caracal_bgp_core::bfd::State;

use super::detection::{Process, strict};
use super::*;
use crate::config::{Endpoint, MaxPrefixAction, MaxPrefixes, OnBfdFailure, PeerAs};
use crate::snapshot::RangeSnapshot;

/// Longer than a place is kept for nothing.
const LONG: Duration = Duration::from_secs(8);

/// A speaker that takes up to `limit` peers of any other AS from the lab's subnet.
fn open_speaker(lab: &Lab, limit: usize) -> SpeakerConfig {
    let mut config = lab.speaker(1, 65_001);
    let subnet = Prefix::new(lab.address(0), 24).unwrap();
    let range = Endpoint::Range {
        prefixes: vec![subnet],
        limit,
    };
    let peer = PeerConfig {
        next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        next_hop_v6: Some("2001:db8:ffff::1".parse().unwrap()),
        ..PeerConfig::at(range, PeerAs::External)
    };
    config.peers.insert(PeerName::from("leaves"), peer);
    config
}

async fn range(handle: &SpeakerHandle) -> RangeSnapshot {
    handle.snapshot().await.unwrap().ranges.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_lets_peers_in_up_to_its_limit_and_frees_the_places_of_those_who_leave() {
    let lab = Lab::new();
    let config = open_speaker(&lab, 2);
    let mut others = Vec::new();
    for number in 2..=4 {
        let mut other = lab.speaker(number, 65_000 + u32::from(number));
        lab.add_peer(&mut other, &config);
        others.push(other);
    }
    let mut next = config.clone();
    let hub = start(config).await;
    let third = others.pop().unwrap();
    let mut running = Vec::new();
    for other in others {
        running.push(start(other).await);
    }
    for number in 2..=3 {
        reachable(&hub, own(number, Family::Ipv4Unicast)).await;
    }
    // What one leaf tells, the other hears.
    reachable(&running[0], own(3, Family::Ipv6Unicast)).await;
    let snapshot = hub.snapshot().await.unwrap();
    let names: Vec<&str> = snapshot.peers.iter().map(|peer| &*peer.name).collect();
    let expected = [2, 3].map(|number| format!("leaves/{}", lab.address(number)));
    assert_eq!(names, expected);
    assert_eq!(snapshot.peers[0].asn, Some(Asn(65_002)));
    assert_eq!(snapshot.peers[0].range.as_deref(), Some("leaves"));
    assert_eq!((range(&hub).await.used, range(&hub).await.limit), (2, 2));

    // A third one has to wait until a place is free.
    let third = start(third).await;
    let refused = |peer: &PeerSnapshot| {
        let error = peer.last_received_error.as_ref();
        error.is_some_and(|error| error.text.contains("connection rejected"))
    };
    until("refused", || peer(&third, 1), refused).await;
    assert_eq!(range(&hub).await.used, 2);
    let leaving = running.remove(0);
    let message = String::new();
    leaving.shutdown(How::Cease { message }).await;
    reachable(&hub, own(4, Family::Ipv4Unicast)).await;
    gone(&hub, own(2, Family::Ipv4Unicast)).await;

    // A change of the range's policy reaches who it has let in.
    let leaves = next.peers.get_mut(&PeerName::from("leaves")).unwrap();
    leaves.import = Policy::reject_all().into();
    hub.apply(next.clone()).await.unwrap();
    let rejected = |route: &Option<RouteSnapshot>| {
        let path = route.as_ref().map(|route| &route.paths[0]);
        path.is_some_and(|path| path.rejected.is_some())
    };
    let prefix = own(4, Family::Ipv4Unicast);
    until("rejected", || route(&hub, prefix), rejected).await;
    // Without the range nobody stays.
    next.peers.clear();
    hub.apply(next).await.unwrap();
    gone(&hub, prefix).await;
    assert!(hub.snapshot().await.unwrap().peers.is_empty());
}

/// The range's configuration in that of [`open_speaker`].
fn leaves(config: &mut SpeakerConfig) -> &mut PeerConfig {
    config.peers.get_mut(&PeerName::from("leaves")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_gets_a_configuration_of_its_own_leaves_the_range_that_had_let_it_in() {
    let lab = Lab::new();
    let mut config = open_speaker(&lab, 2);
    let mut other = lab.speaker(2, 65_002);
    lab.add_peer(&mut other, &config);
    let own_config = PeerConfig {
        // It waits, as the range does: who dials is not what decides.
        passive: true,
        ..PeerConfig::new(SocketAddr::new(lab.address(2), lab.port), other.asn)
    };
    let (hub, _other) = (start(config.clone()).await, start(other).await);
    let peers = async || hub.snapshot().await.unwrap().peers;
    let up = |name: String| {
        move |peers: &Vec<PeerSnapshot>| match &peers[..] {
            [peer] => peer.name == name && peer.state == SessionState::Established,
            _ => false,
        }
    };
    let admitted = format!("leaves/{}", lab.address(2));
    until("let in", &peers, up(admitted.clone())).await;

    // Names on both sides of the range's: the order of names is not what decides either.
    for name in ["apart", "zone"] {
        let own_name = PeerName::from(name);
        config.peers.insert(own_name.clone(), own_config.clone());
        hub.apply(config.clone()).await.unwrap();
        until(name, &peers, up(name.to_owned())).await;
        assert_eq!(range(&hub).await.used, 0);
        config.peers.remove(&own_name);
        hub.apply(config.clone()).await.unwrap();
        until("let in again", &peers, up(admitted.clone())).await;
    }

    // A peer at another address of ours is another peer.
    let elsewhere = PeerConfig {
        local_address: Some(lab.address(9)),
        ..own_config
    };
    config.peers.insert(PeerName::from("apart"), elsewhere);
    hub.apply(config).await.unwrap();
    let mut seen = peers().await;
    seen.retain(|peer| peer.range.is_some());
    assert!(up(admitted)(&seen), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_a_range_that_exceeds_its_limit_stays_down_for_as_long_as_that_lasts() {
    let lab = Lab::new();
    let mut config = open_speaker(&lab, 2);
    let never = MaxPrefixes {
        limit: 1,
        warning_percent: 100,
        action: MaxPrefixAction::Terminate {
            restart_after: None,
        },
    };
    leaves(&mut config).max_prefixes = [(Family::Ipv4Unicast, never)].into();
    let mut other = lab.speaker(2, 65_002);
    let more = "10.97.0.0/24".parse().unwrap();
    other.originate.insert(more, Origination::default());
    lab.add_peer(&mut other, &config);
    let (hub, _other) = (start(config).await, start(other).await);
    let peers = async || hub.snapshot().await.unwrap().peers;
    let down = |peers: &Vec<PeerSnapshot>| match &peers[..] {
        [peer] => {
            let why = peer.why.as_ref();
            let exceeded = |why: &Why| why.reason == DownReason::PrefixLimitExceeded;
            peer.state == SessionState::Idle && why.is_some_and(exceeded)
        }
        _ => false,
    };
    until("down for its prefixes", &peers, down).await;
    let began = Instant::now();
    while began.elapsed() < LONG {
        let seen = peers().await;
        assert!(down(&seen), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(range(&hub).await.used, 1);
    let name = PeerName(peers().await[0].name.clone());
    let clear = Clear::Hard {
        message: String::new(),
    };
    assert_eq!(hub.clear(Some(name), clear).await.unwrap(), 1);
    let again = |peers: &Vec<PeerSnapshot>| peers[0].established_count == 2;
    until("another chance", &peers, again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_a_range_whose_session_waits_for_bfd_keeps_its_place_while_it_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Down);
    let lab = Lab::new();
    let mut config = open_speaker(&lab, 2);
    leaves(&mut config).bfd = Some(strict(OnBfdFailure::PreferFailover));
    let mut other = lab.speaker(2, 65_002);
    lab.add_peer(&mut other, &config);
    let hub = Speaker::start(config, None, process.options())
        .await
        .unwrap();
    let first = start(other.clone()).await;
    let waits = |peer: &PeerSnapshot| peer.state == SessionState::OpenConfirm;
    until("the session waits", || peer(&first, 1), waits).await;
    first.shutdown(How::GracefulRestart).await;
    let began = Instant::now();
    while began.elapsed() < LONG {
        let asked: Vec<u32> = process.wanted().into_values().collect();
        assert_eq!((range(&hub).await.used, asked), (1, vec![1]));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    process.say(State::Up, true);
    let _second = start(other).await;
    reachable(&hub, own(2, Family::Ipv4Unicast)).await;
}
