//! Speakers that talk to each other over real TCP on loopback addresses.

mod busy;
mod collision;
mod configure;
mod detection;
mod dumps;
mod listings;
mod local_api;
mod ranges;
mod stations;
mod unnumbered;
#[path = "../../tests/common/until.rs"]
mod waiting;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use caracal_bgp_core::rib::NextHopMode;
use caracal_bgp_core::types::{Asn, Family, Prefix, RouterId};

use tokio::sync::oneshot;
use waiting::{DEADLINE, until};

use super::*;
use crate::config::{ListenConfig, Origination, PeerConfig, Policy};
use crate::fib::{Fib, FibChange, FibNextHop, FibWindow};
use crate::net::InterfaceTable;
use crate::snapshot::{
    Explanation, FibSnapshot, KernelRoute, KernelSnapshot, PeerSnapshot, RouteSnapshot,
    SessionState, SpeakerSnapshot, UpdateToFibSnapshot,
};
use crate::status::{Direction, DownReason, FlapReason, Why};

/// Addresses that no other test of this process uses; the port keeps processes apart.
struct Lab {
    subnet: u8,
    port: u16,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        Self {
            subnet: NEXT.fetch_add(1, Ordering::Relaxed),
            port: 20_000 + u16::try_from(std::process::id() % 10_000).unwrap(),
        }
    }

    fn address(&self, speaker: u8) -> IpAddr {
        Ipv4Addr::new(127, 77, self.subnet, speaker).into()
    }

    /// Speaker number `speaker` with a prefix of each family of its own.
    fn speaker(&self, speaker: u8, asn: u32) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(Asn(asn), RouterId(u32::from(speaker)));
        config.listen = Some(ListenConfig {
            addrs: vec![self.address(speaker)],
            port: self.port,
        });
        config.transit = true;
        config.multipath_relax = true;
        for family in Family::ALL {
            config
                .originate
                .insert(own(speaker, family), Origination::default());
        }
        config
    }

    /// Makes `a` and `b` peers of each other; `a` dials.
    fn link(&self, a: &mut SpeakerConfig, b: &mut SpeakerConfig) {
        self.add_peer(a, b);
        self.add_peer(b, a);
        let waiting = u8::try_from(a.router_id.0).unwrap();
        b.peers.get_mut(&name(waiting)).unwrap().passive = true;
    }

    fn add_peer(&self, config: &mut SpeakerConfig, other: &SpeakerConfig) {
        let [ours, theirs] =
            [&*config, other].map(|config| u8::try_from(config.router_id.0).unwrap());
        let remote = SocketAddr::new(self.address(theirs), self.port);
        let peer = PeerConfig {
            local_address: Some(self.address(ours)),
            // Loopback addresses are no next hops; these stand for the addresses of a link.
            next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, ours)),
            next_hop_v6: Some(format!("2001:db8:ffff::{ours}").parse().unwrap()),
            ..PeerConfig::new(remote, other.asn)
        };
        config.peers.insert(name(theirs), peer);
    }
}

fn name(speaker: u8) -> PeerName {
    PeerName(format!("s{speaker}"))
}

fn own(speaker: u8, family: Family) -> Prefix {
    match family {
        Family::Ipv4Unicast => format!("10.{speaker}.0.0/26"),
        Family::Ipv6Unicast => format!("2001:db8:{speaker}::/64"),
    }
    .parse()
    .unwrap()
}

async fn start(config: SpeakerConfig) -> SpeakerHandle {
    Speaker::start(config, None, SpeakerOptions::default())
        .await
        .unwrap()
}

fn forwarding(fib: SilentFib, events: mpsc::Receiver<FibEvent>) -> Option<Forwarding> {
    let fib = Box::new(fib);
    Some(Forwarding { fib, events })
}

async fn peer(handle: &SpeakerHandle, other: u8) -> PeerSnapshot {
    let snapshot = handle.snapshot().await.unwrap();
    let name = name(other).0;
    let mut peers = snapshot.peers.into_iter();
    peers.find(|peer| peer.name == name).unwrap()
}

async fn established(handle: &SpeakerHandle, other: u8) -> PeerSnapshot {
    until(
        &format!("session with s{other}"),
        || peer(handle, other),
        |peer| peer.state == SessionState::Established,
    )
    .await
}

async fn route(handle: &SpeakerHandle, prefix: Prefix) -> Option<RouteSnapshot> {
    let routes = handle.routes(Some(prefix)).await.unwrap();
    routes.into_iter().find(|route| route.prefix == prefix)
}

/// Waits until `handle` has a usable route to `prefix`.
async fn reachable(handle: &SpeakerHandle, prefix: Prefix) -> RouteSnapshot {
    let usable = |route: &Option<RouteSnapshot>| {
        route
            .as_ref()
            .is_some_and(|route| route.paths.iter().any(|path| path.best))
    };
    until(
        &format!("route to {prefix}"),
        || route(handle, prefix),
        usable,
    )
    .await
    .unwrap()
}

async fn gone(handle: &SpeakerHandle, prefix: Prefix) {
    let none = |route: &Option<RouteSnapshot>| route.is_none();
    until(
        &format!("no route to {prefix}"),
        || route(handle, prefix),
        none,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_families_cross_one_session_and_are_withdrawn() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let (a_config, a, b) = (a.clone(), start(a).await, start(b).await);
    for family in Family::ALL {
        let there = reachable(&b, own(1, family)).await;
        assert_eq!(there.paths[0].as_path, "65001");
        assert_eq!(
            there.fib,
            FibSnapshot::None,
            "this speaker does not forward"
        );
        let next_hop = there.paths[0].next_hop.unwrap().to_string();
        assert!(
            ["192.0.2.1", "2001:db8:ffff::1"].contains(&next_hop.as_str()),
            "{next_hop}"
        );
        reachable(&a, own(2, family)).await;
    }
    let ended = |peer: &PeerSnapshot| {
        !peer.families().is_empty()
            && peer
                .families()
                .iter()
                .all(|f| f.end_of_rib_received && f.end_of_rib_sent)
    };
    until("End-of-RIB both ways", || peer(&a, 2), ended).await;

    let mut silent = a_config;
    silent.originate.remove(&own(1, Family::Ipv6Unicast));
    a.apply(silent).await.unwrap();
    gone(&b, own(1, Family::Ipv6Unicast)).await;
    assert!(route(&b, own(1, Family::Ipv4Unicast)).await.is_some());
    assert_eq!(peer(&b, 1).await.established_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_pass_a_transit_speaker_and_stop_at_one_that_is_none() {
    let lab = Lab::new();
    let mut configs = [
        lab.speaker(1, 65_001),
        lab.speaker(2, 65_002),
        lab.speaker(3, 65_003),
    ];
    let [a, b, c] = &mut configs;
    lab.link(a, b);
    lab.link(b, c);
    let [a, b, c] = configs;
    let mut node = b.clone();
    let (_a, b, c) = (start(a).await, start(b).await, start(c).await);
    let there = reachable(&c, own(1, Family::Ipv4Unicast)).await;
    assert_eq!(there.paths[0].as_path, "65002 65001");
    node.transit = false;
    b.apply(node).await.unwrap();
    gone(&c, own(1, Family::Ipv4Unicast)).await;
    assert!(route(&c, own(2, Family::Ipv4Unicast)).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_tells_clients_each_others_routes_with_itself_as_next_hop_if_so_told() {
    let lab = Lab::new();
    let mut configs = [1, 2, 3].map(|speaker| lab.speaker(speaker, 65_000));
    let [reflector, b, c] = &mut configs;
    lab.link(reflector, b);
    lab.link(reflector, c);
    for peer in reflector.peers.values_mut() {
        peer.route_reflector_client = true;
    }
    let towards_c = reflector.peers.get_mut(&name(3)).unwrap();
    towards_c.next_hop_mode = NextHopMode::Self_;
    let [reflector, b, c] = configs;
    let (_reflector, b, c) = (start(reflector).await, start(b).await, start(c).await);
    let at_c = reachable(&c, own(2, Family::Ipv6Unicast)).await;
    let path = &at_c.paths[0];
    assert_eq!(path.next_hop.unwrap().to_string(), "2001:db8:ffff::1");
    assert_eq!(path.originator_id.as_deref(), Some("0.0.0.2"));
    assert_eq!(path.cluster_list, ["0.0.0.1"]);
    assert_eq!((path.as_path.as_str(), path.local_pref), ("", Some(100)));
    let at_b = reachable(&b, own(3, Family::Ipv4Unicast)).await;
    let next_hop = at_b.paths[0].next_hop.unwrap().to_string();
    assert_eq!(next_hop, "192.0.2.3", "unchanged by default");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_paths_through_different_ases_share_the_load() {
    let lab = Lab::new();
    let mut configs = [
        lab.speaker(1, 65_001),
        lab.speaker(2, 65_002),
        lab.speaker(3, 65_003),
    ];
    let shared: Prefix = "10.99.0.0/24".parse().unwrap();
    let [a, b, c] = &mut configs;
    lab.link(a, b);
    lab.link(a, c);
    b.originate.insert(shared, Origination::default());
    c.originate.insert(shared, Origination::default());
    let [a, b, c] = configs;
    let (a, _b, c) = (start(a).await, start(b).await, start(c).await);
    let ways = |route: &Option<RouteSnapshot>| {
        route.as_ref().map_or(0, |route| {
            route.paths.iter().filter(|path| path.multipath).count()
        })
    };
    until("two ways", || route(&a, shared), |route| ways(route) == 2).await;
    let cease = How::Cease {
        message: "maintenance".into(),
    };
    c.shutdown(cease).await;
    until("one way", || route(&a, shared), |route| ways(route) == 1).await;
    let seen = peer(&a, 3).await;
    let error = seen.last_received_error.expect("a NOTIFICATION").text;
    assert!(error.contains("maintenance"), "{error}");
}

/// Keeps what it is asked and answers only when the test does.
#[derive(Clone, Default)]
struct SilentFib(Arc<Mutex<BTreeMap<Prefix, FibChange>>>);

impl Fib for SilentFib {
    fn apply(&mut self, changes: Vec<FibChange>) {
        let mut asked = self.0.lock().unwrap();
        for change in changes {
            asked.insert(change.prefix, change);
        }
    }

    fn lose(&mut self, _: Vec<FibNextHop>) {}

    fn initial_sync_complete(&mut self) {}

    fn work(&self) -> Arc<FibWork> {
        Arc::default()
    }
}

/// Holds the same at every prefix.
struct ShownFib(KernelSnapshot);

impl Fib for ShownFib {
    fn apply(&mut self, _: Vec<FibChange>) {}

    fn lose(&mut self, _: Vec<FibNextHop>) {}

    fn initial_sync_complete(&mut self) {}

    fn work(&self) -> Arc<FibWork> {
        Arc::default()
    }

    fn window(&self) -> Option<Arc<dyn FibWindow>> {
        Some(Arc::new(Self(self.0.clone())))
    }
}

impl FibWindow for ShownFib {
    fn look(&self, _: Prefix, answer: oneshot::Sender<KernelSnapshot>) {
        let _ = answer.send(self.0.clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_has_what_the_fib_holds() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let _b = start(b).await;
    let held = KernelSnapshot {
        route: KernelRoute::Dropping { protocol: 214 },
        in_sync: false,
        checked_ms: 7,
    };
    let (_events, events) = mpsc::channel(16);
    let fib = Box::new(ShownFib(held.clone()));
    let a = Speaker::start(
        a,
        Some(Forwarding { fib, events }),
        SpeakerOptions::default(),
    )
    .await
    .unwrap();
    let prefix = own(2, Family::Ipv4Unicast);
    reachable(&a, prefix).await;
    let explained = a.explain(prefix).await.unwrap();
    assert_eq!(explained.kernel, Some(held));
    let nowhere = a.explain("203.0.113.0/24".parse().unwrap()).await.unwrap();
    assert_eq!(nowhere.kernel, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_told_on_only_after_the_fib_has_acknowledged_it() {
    let lab = Lab::new();
    let mut configs = [
        lab.speaker(1, 65_001),
        lab.speaker(2, 65_002),
        lab.speaker(3, 65_003),
    ];
    let [a, b, c] = &mut configs;
    lab.link(a, b);
    lab.link(b, c);
    let [a, b, c] = configs;
    let fib = SilentFib::default();
    let (events, answers) = mpsc::channel(16);
    let _a = start(a).await;
    let b = Speaker::start(
        b,
        forwarding(fib.clone(), answers),
        SpeakerOptions::default(),
    )
    .await
    .unwrap();
    let c = start(c).await;
    let prefix = own(1, Family::Ipv4Unicast);
    assert_eq!(reachable(&b, prefix).await.fib, FibSnapshot::Pending);
    reachable(&c, own(2, Family::Ipv4Unicast)).await;
    assert!(
        route(&c, prefix).await.is_none(),
        "told before the FIB had it"
    );
    let asked = fib.0.lock().unwrap()[&prefix].clone();
    assert_eq!(
        asked.route.unwrap().next_hops[0].address.to_string(),
        "192.0.2.1"
    );
    let seq = asked.seq;
    let acknowledged = async || {
        let forwarding = b.snapshot().await.unwrap().forwarding.unwrap();
        let of = |it: &UpdateToFibSnapshot| it.family == Family::Ipv4Unicast;
        let update_to_fib = forwarding.update_to_fib.into_iter().find(of);
        update_to_fib.unwrap().took.count()
    };
    assert_eq!(acknowledged().await, 0, "measured before the FIB had it");
    let answer = async |first| {
        let event = FibEvent::Installed { prefix, seq, first };
        events.send(event).await.unwrap();
    };
    answer(false).await;
    reachable(&c, prefix).await;
    assert_eq!(acknowledged().await, 0, "it had failed before: no measure");
    answer(true).await;
    until("measured", &acknowledged, |count| *count == 1).await;
    // Own routes are no UPDATE's.
    let other = own(2, Family::Ipv4Unicast);
    assert!(!fib.0.lock().unwrap().contains_key(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_speaker_that_restarts_keeps_its_routes_at_the_peer_and_stale_ones_are_swept() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    let dropped: Prefix = "10.98.0.0/24".parse().unwrap();
    a.originate.insert(dropped, Origination::default());
    lab.link(&mut a, &mut b);
    let mut again = a.clone();
    let (first, b) = (start(a).await, start(b).await);
    let prefix = own(1, Family::Ipv4Unicast);
    reachable(&b, dropped).await;
    reachable(&b, prefix).await;
    first.shutdown(How::GracefulRestart).await;
    let stale = |route: &Option<RouteSnapshot>| {
        route
            .as_ref()
            .is_some_and(|route| route.paths[0].stale && route.paths[0].best)
    };
    until("stale and used", || route(&b, prefix), stale).await;
    until("stale and used", || route(&b, dropped), stale).await;

    again.restarting = true;
    again.originate.remove(&dropped);
    let second = start(again).await;
    let fresh =
        |route: &Option<RouteSnapshot>| route.as_ref().is_some_and(|route| !route.paths[0].stale);
    until("told again", || route(&b, prefix), fresh).await;
    gone(&b, dropped).await;
    reachable(&second, own(2, Family::Ipv4Unicast)).await;
    assert!(!second.snapshot().await.unwrap().rib.unwrap().deferring);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link_ends_its_sessions_at_once_and_nothing_is_retained() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let (events, answers) = mpsc::channel(16);
    let fib = SilentFib::default();
    let a = Speaker::start(a, forwarding(fib, answers), SpeakerOptions::default())
        .await
        .unwrap();
    let b = start(b).await;
    reachable(&a, own(2, Family::Ipv4Unicast)).await;
    let table = InterfaceTable::read().unwrap();
    let interface = table.interface_of(lab.address(1), None).unwrap();
    b.shutdown(How::GracefulRestart).await;
    let stale =
        |route: &Option<RouteSnapshot>| route.as_ref().is_some_and(|route| route.paths[0].stale);
    until("retained", || route(&a, own(2, Family::Ipv4Unicast)), stale).await;
    let down = FibEvent::LinkDown {
        ifindex: interface.index,
        name: interface.name.clone(),
    };
    events.send(down).await.unwrap();
    gone(&a, own(2, Family::Ipv4Unicast)).await;
    // Attempts fail in their own ways: that it is the link stands beside.
    let seen = peer(&a, 2).await;
    let trouble = format!("link {} has no carrier", interface.name);
    assert_eq!(seen.link_trouble.as_ref(), Some(&trouble));
    assert!(seen.remark().ends_with(&format!("; {trouble}")), "{seen:?}");
    let up = FibEvent::LinkUp {
        ifindex: interface.index,
        name: interface.name,
    };
    events.send(up).await.unwrap();
    let sound = |peer: &PeerSnapshot| peer.link_trouble.is_none();
    until("carrier again", || peer(&a, 2), sound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_one_clear_error() {
    let lab = Lab::new();
    let config = lab.speaker(1, 65_001);
    let _first = start(config.clone()).await;
    let error = Speaker::start(config, None, SpeakerOptions::default())
        .await
        .unwrap_err()
        .to_string();
    let address = SocketAddr::new(lab.address(1), lab.port);
    assert_eq!(
        error,
        format!("cannot listen for BGP on {address}: the port is in use")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_dial_is_told_as_refused_before_and_after_a_session() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let a = start(a).await;
    let told = |peer: &PeerSnapshot| peer.why.is_some();
    let seen = until("a reason", || peer(&a, 2), told).await;
    let refused = Why {
        reason: DownReason::ConnectionRefused,
        text: "connection refused".to_owned(),
    };
    assert_eq!(seen.why.as_ref(), Some(&refused));
    let more = |peer: &PeerSnapshot| peer.attempts > seen.attempts && peer.why_ms > seen.why_ms;
    until("another attempt", || peer(&a, 2), more).await;
    let b = start(b).await;
    let up = established(&a, 2).await;
    assert_eq!((up.why, up.attempts), (None, 0));
    b.shutdown(How::GracefulRestart).await;
    let refused = |peer: &PeerSnapshot| peer.why.as_ref() == Some(&refused);
    until(
        "the dial after the session refused",
        || peer(&a, 2),
        refused,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_counts_tell_how_a_session_went() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let (a, b) = (start(a).await, start(b).await);
    for family in Family::ALL {
        reachable(&a, own(2, family)).await;
    }
    let before = established(&a, 2).await.counters;
    assert_eq!((before.sent.open, before.received.open), (1, 1));
    assert!(before.received.update >= 2, "{before:?}");
    assert!(before.received.octets > 100, "{before:?}");
    b.shutdown(How::Cease {
        message: "moving house".into(),
    })
    .await;
    let ended = |peer: &PeerSnapshot| peer.state != SessionState::Established;
    let after = until("end of the session", || peer(&a, 2), ended)
        .await
        .counters;
    assert_eq!(after.flaps.values().sum::<u64>(), 1);
    assert_eq!(after.flaps[&FlapReason::NotificationReceived], 1);
    let cease = &after.notifications[0];
    assert_eq!(
        (cease.direction, cease.code, cease.subcode, cease.count),
        // Between peers that keep routes over a NOTIFICATION, an end for good is a Hard Reset
        // (RFC 8538 §3).
        (Direction::Received, 6, 9, 1)
    );

    let history = a.history(name(2)).await.unwrap().unwrap();
    let said = |kind: &str, direction| {
        let mut messages = history.messages.iter();
        messages.any(|message| message.kind == kind && message.direction == direction)
    };
    for kind in ["OPEN", "KEEPALIVE", "UPDATE"] {
        for direction in [Direction::Received, Direction::Sent] {
            assert!(said(kind, direction), "{kind} {direction:?}: {history:#?}");
        }
    }
    let events: Vec<&str> = history.events.iter().map(|event| &*event.text).collect();
    assert!(events.contains(&"OpenConfirm -> Established"), "{events:?}");
    assert!(
        events.iter().any(|event| event.contains("moving house")),
        "{events:?}"
    );
    assert!(a.history(PeerName::from("nobody")).await.unwrap().is_none());
}
