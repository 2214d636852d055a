//! Sessions on real links: the next hops that are named, how far a session reaches, its own address, its keys.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use caracal_bgp_core::policy::InterfaceGlob;
use caracal_bgp_core::types::{Asn, Prefix, RouterId};
use caracal_bgp_speaker::config::{
    AoAlgorithm, AoKey, AoKeys, Auth, Endpoint, ListenConfig, NextHopMode, Origination, Secret, Ttl,
};
use caracal_bgp_speaker::handle::{PeerSnapshot, SessionState};
use caracal_bgp_speaker::net::{Hops, Transport, ao};
use caracal_bgp_speaker::{
    How, PeerConfig, PeerName, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions,
};

use crate::common::{LOCAL, established, snapshot, told, until};
use crate::hosts::{Host, NEVER, PORT, add_address, hosts, link};
use crate::scripted::{Peer, Script, via};

const OTHER: Asn = Asn(65_001);

async fn start(config: SpeakerConfig) -> SpeakerHandle {
    Speaker::start(config, None, SpeakerOptions::default())
        .await
        .unwrap()
}

/// A speaker that tells on what it learns and listens on every address.
fn speaker(asn: Asn, router_id: u32, port: u16) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(asn, RouterId(router_id));
    let addrs = Vec::new();
    config.listen = Some(ListenConfig { addrs, port });
    config.transit = true;
    config
}

/// A peer that is told, and the next hops that it is to read.
struct Listener {
    name: &'static str,
    address: &'static str,
    asn: Asn,
    mode: NextHopMode,
    /// For each of [`ROUTES`]; an empty word for a route that it is not told.
    next_hops: [&'static str; 9],
}

/// Next hops as they are told to the speaker, by external sources and internal ones; `-` for an own route.
#[rustfmt::skip]
const ROUTES: [(&str, Asn, &str); 9] = [
    ("10.1.0.0/24",       OTHER, "10.0.1.11"),
    ("10.1.1.0/24",       OTHER, "10.0.1.99"),
    ("10.1.2.0/24",       OTHER, "192.0.2.9"),
    // That of the first listener.
    ("10.1.3.0/24",       OTHER, "10.0.1.21"),
    ("10.1.4.0/24",       LOCAL, "10.0.1.98"),
    ("10.1.5.0/24",       LOCAL, "192.0.2.8"),
    ("10.1.6.0/24",       LOCAL, "-"),
    ("2001:db8:11::/64",  OTHER, "2001:db8:1::99"),
    ("2001:db8:12::/64",  OTHER, "2001:db8:9::9"),
];

const OURS: &str = "10.0.1.1";
const OURS_6: &str = "2001:db8:1::1";
const OURSELVES: [&str; 9] = [OURS, OURS, OURS, OURS, OURS, OURS, OURS, OURS_6, OURS_6];
#[rustfmt::skip]
const AS_LEARNT: [&str; 9] = [
    "10.0.1.11", "10.0.1.99", "192.0.2.9", "10.0.1.21", "10.0.1.98", "192.0.2.8", OURS,
    "2001:db8:1::99", "2001:db8:9::9",
];

#[rustfmt::skip]
const LISTENERS: [Listener; 6] = [
    // RFC 4271 §5.1.3: a third party on the subnet of the session is named, others are not; and nobody is told that
    // the way leads through himself.
    Listener { name: "external, auto", address: "10.0.1.21", asn: Asn(65_021), mode: NextHopMode::Auto, next_hops: [
        "10.0.1.11", "10.0.1.99", OURS, "", "10.0.1.98", OURS, OURS, OURS_6, OURS_6,
    ] },
    Listener { name: "external, self", address: "10.0.1.22", asn: Asn(65_022), mode: NextHopMode::Self_,
        next_hops: OURSELVES },
    Listener { name: "external, keep", address: "10.0.1.23", asn: Asn(65_023), mode: NextHopMode::Keep,
        next_hops: AS_LEARNT },
    Listener { name: "internal, auto", address: "10.0.1.24", asn: LOCAL, mode: NextHopMode::Auto,
        next_hops: AS_LEARNT },
    // Also of what we reflect.
    Listener { name: "internal, self", address: "10.0.1.25", asn: LOCAL, mode: NextHopMode::Self_,
        next_hops: OURSELVES },
    Listener { name: "internal, keep", address: "10.0.1.26", asn: LOCAL, mode: NextHopMode::Keep,
        next_hops: AS_LEARNT },
];

#[test]
fn peers_are_told_the_next_hop_that_their_mode_and_their_subnet_ask_for() {
    let Some([us, them]) = hosts("nh") else {
        return;
    };
    const SOURCES: [(&str, Asn); 2] = [("10.0.1.11", OTHER), ("10.0.1.12", LOCAL)];
    link((&us, "e1"), (&them, "e1"));
    add_address(&us, "e1", "10.0.1.1/24");
    add_address(&us, "e1", "2001:db8:1::1/64");
    let addresses = LISTENERS.iter().map(|listener| listener.address);
    for address in addresses.chain(SOURCES.map(|(address, _)| address)) {
        add_address(&them, "e1", &format!("{address}/24"));
    }
    let mut config = speaker(LOCAL, 0x0a00_0101, PORT);
    let mut add = |name: &str, address: &str, asn, mode| {
        let remote = SocketAddr::new(address.parse().unwrap(), PORT);
        let peer = PeerConfig {
            passive: true,
            next_hop_mode: mode,
            route_reflector_client: asn == LOCAL,
            ..PeerConfig::new(remote, asn)
        };
        config.peers.insert(PeerName::from(name), peer);
    };
    for (address, asn) in SOURCES {
        add(address, address, asn, NextHopMode::Auto);
    }
    for listener in &LISTENERS {
        add(listener.name, listener.address, listener.asn, listener.mode);
    }
    let own = ROUTES.iter().filter(|(_, _, next_hop)| *next_hop == "-");
    let own = own.map(|(prefix, ..)| (prefix.parse().unwrap(), Origination::default()));
    config.originate.extend(own);
    let speaker = us.run(async || start(config).await);
    them.run(async || {
        let to = SocketAddr::new(OURS.parse().unwrap(), PORT);
        let mut listeners = Vec::new();
        for listener in &LISTENERS {
            let script = Script::of(listener.asn, LOCAL);
            let peer = Peer::establish(listener.address.parse().unwrap(), to, &script).await;
            listeners.push(peer);
        }
        let mut sources = Vec::new();
        for (address, asn) in SOURCES {
            let script = Script::of(asn, LOCAL);
            let mut peer = Peer::establish(address.parse().unwrap(), to, &script).await;
            let path: &[u32] = if asn == LOCAL { &[] } else { &[asn.0] };
            let routes = ROUTES
                .iter()
                .filter(|(_, from, next_hop)| *from == asn && *next_hop != "-");
            for (prefix, _, next_hop) in routes {
                peer.tell_by(prefix, next_hop, via(path)).await;
            }
            sources.push(peer);
        }
        for (listener, peer) in LISTENERS.iter().zip(&listeners) {
            let expected = ROUTES.iter().zip(listener.next_hops);
            let expected = expected.filter(|(_, next_hop)| !next_hop.is_empty());
            let expected: BTreeMap<Prefix, IpAddr> = expected
                .map(|((prefix, ..), next_hop)| {
                    (prefix.parse().unwrap(), next_hop.parse().unwrap())
                })
                .collect();
            let table = async || {
                let table = peer.heard().table().into_iter();
                let table = table.map(|(prefix, told)| (prefix, told.next_hop.addr()));
                table.collect::<BTreeMap<_, _>>()
            };
            until(listener.name, table, |table| *table == expected).await;
        }
    });
    us.run(async || speaker.shutdown(How::GracefulRestart).await);
}

#[test]
fn an_interface_that_is_ignored_since_gives_no_next_hop_in_the_next_session_either() {
    let Some([us, them]) = hosts("ign") else {
        return;
    };
    link((&us, "e1"), (&them, "e1"));
    add_address(&us, "e1", "10.0.1.1/24");
    add_address(&us, "e1", "2001:db8:1::1/64");
    add_address(&them, "e1", "10.0.1.21/24");
    let name = PeerName::from("peer");
    let remote = SocketAddr::new("10.0.1.21".parse().unwrap(), PORT);
    let mut config = speaker(LOCAL, 0x0a00_0101, PORT);
    let passive = PeerConfig {
        passive: true,
        ..PeerConfig::new(remote, OTHER)
    };
    config.peers.insert(name.clone(), passive);
    let [v4, v6]: [Prefix; 2] = ["10.2.0.0/16", "2001:db8:2::/48"].map(|it| it.parse().unwrap());
    for prefix in [v4, v6] {
        config.originate.insert(prefix, Origination::default());
    }
    let speaker = us.run(async || start(config.clone()).await);
    them.run(async || {
        let to = SocketAddr::new(OURS.parse().unwrap(), PORT);
        let script = Script::of(OTHER, LOCAL);
        let connect = async || Peer::establish(remote.ip(), to, &script).await;
        let hears = async |peer: &Peer, expected: &[Prefix]| {
            let table = async || peer.heard().table().into_keys().collect::<Vec<_>>();
            until("what is told", table, |told| told == expected).await;
        };
        let peer = connect().await;
        hears(&peer, &[v4, v6]).await;
        // The IPv6 address is the interface's, and not the session's own.
        config.ignored_interfaces.push(InterfaceGlob::new("e*"));
        speaker.apply(config).await.unwrap();
        hears(&peer, &[v4]).await;

        drop(peer);
        let peer = connect().await;
        let look = || snapshot(&speaker, &name);
        let all_told = |seen: &PeerSnapshot| {
            let ended = seen.families().iter().filter(|it| it.end_of_rib_sent);
            seen.established_count == 2 && ended.count() == 2
        };
        let seen = until("all that there is to tell", look, all_told).await;
        let told = seen.families().iter().map(|family| family.advertised);
        assert_eq!(told.collect::<Vec<_>>(), [1, 0], "{seen:#?}");
        hears(&peer, &[v4]).await;
    });
    us.run(async || speaker.shutdown(How::GracefulRestart).await);
}

/// `near` and `far` with a router between them. To `near` the second address of `far` looks as if it were on its own
/// subnet, as the router answers for it.
fn routed() -> Option<[Host; 3]> {
    let [near, router, far] = hosts("hop")?;
    link((&near, "e1"), (&router, "e1"));
    link((&router, "e2"), (&far, "e1"));
    router.sysctl("net/ipv4/ip_forward", "1");
    for (host, interface, address) in [
        (&near, "e1", "10.0.1.1/24"),
        (&near, "e1", "10.0.1.2/24"),
        (&near, "e1", "10.9.0.1/16"),
        (&router, "e1", "10.0.1.254/24"),
        (&router, "e2", "10.0.2.254/24"),
        (&far, "e1", "10.0.2.1/24"),
        (&far, "e1", "10.9.2.1/32"),
    ] {
        add_address(host, interface, address);
    }
    near.ip(&["route", "add", "default", "via", "10.0.1.254"]);
    far.ip(&["route", "add", "default", "via", "10.0.2.254"]);
    router.ip(&["route", "add", "10.9.2.1", "via", "10.0.2.1"]);
    router.ip(&["route", "add", "10.9.0.1", "via", "10.0.1.1"]);
    router.sysctl("net/ipv4/conf/e1/proxy_arp", "1");
    Some([near, router, far])
}

/// A session across the router: who is dialled from where, how far each side lets it reach, and whether it comes up.
struct Reach {
    what: &'static str,
    near: &'static str,
    far: &'static str,
    ours: Ttl,
    theirs: Ttl,
    up: bool,
}

const REACH: Reach = Reach {
    what: "nothing is configured",
    near: "10.0.1.1",
    far: "10.0.2.1",
    ours: Ttl::Automatic,
    theirs: Ttl::Automatic,
    up: true,
};

#[rustfmt::skip]
const REACHES: [Reach; 10] = [
    REACH,
    Reach { what: "another own address", near: "10.0.1.2", ..REACH },
    Reach { what: "two hops", ours: Ttl::Send(2), theirs: Ttl::Send(2), ..REACH },
    Reach { what: "one hop", ours: Ttl::Send(1), up: false, ..REACH },
    Reach { what: "one hop there", theirs: Ttl::Send(1), up: false, ..REACH },
    Reach { what: "security for two hops", ours: Ttl::Security { hops: 2 }, theirs: Ttl::Security { hops: 2 },
        ..REACH },
    Reach { what: "security for one hop", ours: Ttl::Security { hops: 1 }, theirs: Ttl::Security { hops: 1 },
        up: false, ..REACH },
    Reach { what: "security on one side", ours: Ttl::Security { hops: 2 }, up: false, ..REACH },
    // Who seems to be on the subnet must be there, or be said not to be.
    Reach { what: "a peer that seems to be on the subnet", near: "10.9.0.1", far: "10.9.2.1", up: false, ..REACH },
    Reach { what: "the same, two hops", near: "10.9.0.1", far: "10.9.2.1", ours: Ttl::Send(2), ..REACH },
];

#[test]
fn a_session_reaches_as_far_as_both_sides_let_it() {
    let Some([near, _router, far]) = routed() else {
        return;
    };
    let name = PeerName::from("peer");
    let mut pairs = Vec::new();
    for (number, reach) in REACHES.iter().enumerate() {
        // A pair of speakers each, so that all are tried at once.
        let port = 2000 + u16::try_from(number).unwrap();
        let config = |asn, id, own: &str, other: &str, other_asn, ttl| {
            let mut config = speaker(asn, id, port);
            let remote = SocketAddr::new(other.parse().unwrap(), port);
            let peer = PeerConfig {
                local_address: Some(own.parse().unwrap()),
                ttl,
                ..PeerConfig::new(remote, other_asn)
            };
            config.peers.insert(name.clone(), peer);
            config
        };
        let ours = config(LOCAL, 1, reach.near, reach.far, OTHER, reach.ours);
        let theirs = config(OTHER, 2, reach.far, reach.near, LOCAL, reach.theirs);
        let ours = near.run(async || start(ours).await);
        let theirs = far.run(async || start(theirs).await);
        pairs.push((ours, theirs));
    }
    near.run(async || {
        for (reach, (ours, theirs)) in REACHES.iter().zip(&pairs).filter(|(reach, _)| reach.up) {
            for (at, own, other) in [
                (ours, reach.near, reach.far),
                (theirs, reach.far, reach.near),
            ] {
                let seen = established(at, &name).await;
                let ends = (seen.local_address, seen.remote.map(|remote| remote.ip()));
                let expected = (own.parse().ok(), other.parse().ok());
                assert_eq!(ends, expected, "{}", reach.what);
            }
        }
        // The others have been trying for as long, and may try again.
        tokio::time::sleep(NEVER).await;
        for (reach, (ours, theirs)) in REACHES.iter().zip(&pairs) {
            // Nor does he believe to be heard who does not look himself: of what comes from beyond, not even a SYN passes.
            for at in [ours, theirs] {
                let seen = snapshot(at, &name).await;
                let is_up = seen.state == SessionState::Established;
                assert_eq!(is_up, reach.up, "{}: {seen:#?}", reach.what);
                let before = u64::from(reach.up);
                assert_eq!(seen.established_count, before, "{}", reach.what);
            }
        }
    });
    for (ours, theirs) in pairs {
        near.run(async || ours.shutdown(How::GracefulRestart).await);
        far.run(async || theirs.shutdown(How::GracefulRestart).await);
    }
}

#[test]
fn peers_with_security_are_heard_from_their_first_segment_or_not_at_all_as_the_configuration_changes()
 {
    let Some([host]) = hosts("first") else {
        return;
    };
    for number in 1..=5 {
        add_address(&host, "lo", &format!("10.0.0.{number}/32"));
        add_address(&host, "lo", &format!("2001:db8::{number}/128"));
    }
    let near = Ttl::Security { hops: 1 };
    let mut config = speaker(LOCAL, 1, PORT);
    for address in ["10.0.0.2", "10.0.0.3", "2001:db8::2", "2001:db8::3"] {
        let remote = SocketAddr::new(address.parse().unwrap(), PORT);
        let peer = PeerConfig {
            passive: true,
            ttl: if address.ends_with('2') {
                near
            } else {
                Ttl::Automatic
            },
            ..PeerConfig::new(remote, OTHER)
        };
        config.peers.insert(PeerName::from(address), peer);
    }
    let range = PeerConfig {
        remote: Endpoint::Range {
            prefixes: vec![
                "10.0.0.0/29".parse().unwrap(),
                "2001:db8::/125".parse().unwrap(),
            ],
            limit: 10,
        },
        ttl: near,
        ..config.peers[&PeerName::from("10.0.0.3")].clone()
    };
    config.peers.insert(PeerName::from("range"), range);
    // Whether a connection comes about whose segments are sent with this TTL, as if over so many hops less.
    let reaches = async |number: u8, ttl: u8| {
        let mut reached = [false; 2];
        for (network, reached) in ["10.0.0.", "2001:db8::"].iter().zip(&mut reached) {
            let [from, to] =
                [number, 1].map(|number| format!("{network}{number}").parse().unwrap());
            let transport = Transport {
                hops: Hops::Limit(ttl.try_into().unwrap()),
                auth: Auth::None,
            };
            let dial = transport.dial(Some(from), SocketAddr::new(to, PORT));
            *reached = matches!(tokio::time::timeout(NEVER, dial).await, Ok(Ok(_)));
        }
        assert_eq!(
            reached[0], reached[1],
            "IPv4 and IPv6 of {number}, TTL {ttl}"
        );
        reached[0]
    };
    host.run(async || {
        let speaker = start(config.clone()).await;
        for (number, ttl, heard) in [
            (2, 64, false),
            (2, 254, false),
            (2, 255, true),
            // One without it, within a range of those with it.
            (3, 64, true),
            (4, 64, false),
            (4, 255, true),
        ] {
            assert_eq!(reaches(number, ttl).await, heard, "{number}, TTL {ttl}");
        }
        for (name, peer) in &mut config.peers {
            peer.ttl = match name.0.as_str() {
                "10.0.0.3" | "2001:db8::3" => Ttl::Security { hops: 2 },
                _ => Ttl::Automatic,
            };
        }
        speaker.apply(config.clone()).await.unwrap();
        for (number, ttl, heard) in [
            (2, 64, true),
            (3, 253, false),
            (3, 254, true),
            (4, 64, true),
        ] {
            assert_eq!(
                reaches(number, ttl).await,
                heard,
                "then {number}, TTL {ttl}"
            );
        }
        for peer in config.peers.values_mut() {
            peer.ttl = Ttl::Automatic;
        }
        speaker.apply(config).await.unwrap();
        assert!(reaches(3, 64).await, "in the end");
        speaker.shutdown(How::GracefulRestart).await;
    });
}

/// Two speakers on one host, one with a key of TCP-AO and one with another, the same or none.
struct Signed {
    ours: SpeakerHandle,
    theirs: SpeakerHandle,
}

impl Signed {
    const PREFIX: &str = "10.2.0.0/16";

    async fn start(port: u16, ours: Auth, theirs: Auth) -> Self {
        let config = |asn, id, own: &str, other: &str, other_asn, authentication| {
            let mut config = speaker(asn, id, port);
            config.listen = Some(ListenConfig {
                addrs: vec![own.parse().unwrap()],
                port,
            });
            let remote = SocketAddr::new(other.parse().unwrap(), port);
            let peer = PeerConfig {
                local_address: Some(own.parse().unwrap()),
                authentication,
                ..PeerConfig::new(remote, other_asn)
            };
            config.peers.insert(PeerName::from("peer"), peer);
            config
        };
        let ours = config(LOCAL, 1, "10.0.0.1", "10.0.0.2", OTHER, ours);
        let mut theirs = config(OTHER, 2, "10.0.0.2", "10.0.0.1", LOCAL, theirs);
        let prefix = Self::PREFIX.parse().unwrap();
        theirs.originate.insert(prefix, Origination::default());
        let theirs = start(theirs).await;
        Self {
            ours: start(ours).await,
            theirs,
        }
    }

    async fn ours(&self) -> PeerSnapshot {
        snapshot(&self.ours, &PeerName::from("peer")).await
    }

    async fn end(self) {
        self.ours.shutdown(How::GracefulRestart).await;
        self.theirs.shutdown(How::GracefulRestart).await;
    }
}

fn key(id: u8, algorithm: AoAlgorithm, secret: &str) -> Auth {
    let key = AoKey::new(id, id, algorithm, Secret::new(secret).unwrap());
    Auth::Ao(AoKeys::new(vec![key]).unwrap())
}

fn one_host(tag: &str) -> Option<Host> {
    let [host] = hosts(tag)?;
    for address in ["10.0.0.1/32", "10.0.0.2/32"] {
        add_address(&host, "lo", address);
    }
    Some(host)
}

#[test]
fn a_session_with_keys_of_tcp_ao_comes_up_with_the_same_keys_alone() {
    if !ao::supported().unwrap() {
        caracal_skip::skip!("this kernel has no TCP-AO (Linux 6.7 or newer with CONFIG_TCP_AO)");
        return;
    }
    let Some(host) = one_host("sao") else {
        return;
    };
    host.run(async || {
        let peer = PeerName::from("peer");
        let right = || key(7, AoAlgorithm::HmacSha1, "secret");
        let mut refused = Vec::new();
        for (number, (theirs, up)) in [
            (right(), true),
            (key(7, AoAlgorithm::HmacSha1, "other"), false),
            (key(8, AoAlgorithm::HmacSha1, "secret"), false),
            (key(7, AoAlgorithm::CmacAes128, "secret"), false),
            (Auth::None, false),
        ]
        .into_iter()
        .enumerate()
        {
            let port = 2000 + u16::try_from(number).unwrap();
            let pair = Signed::start(port, right(), theirs).await;
            if up {
                let seen = established(&pair.ours, &peer).await;
                assert_eq!(seen.authentication, "tcp-ao");
                let there = async || told(&pair.ours, &peer).await.len();
                until("a route over it", there, |count| *count == 1).await;
                pair.end().await;
            } else {
                refused.push(pair);
            }
        }
        tokio::time::sleep(NEVER).await;
        for pair in refused {
            let seen = pair.ours().await;
            assert_eq!(seen.established_count, 0, "{seen:#?}");
            pair.end().await;
        }
    });
}

#[test]
fn a_session_that_needs_tcp_ao_stays_down_without_it_and_says_so() {
    if ao::supported().unwrap() {
        caracal_skip::skip!("this kernel has TCP-AO");
        return;
    }
    let Some(host) = one_host("sno") else {
        return;
    };
    host.run(async || {
        let keys = key(7, AoAlgorithm::HmacSha1, "secret");
        // Not even with a peer that asks for none.
        for theirs in [keys.clone(), Auth::None] {
            let pair = Signed::start(PORT, keys.clone(), theirs).await;
            let look = || pair.ours();
            let why = |seen: &PeerSnapshot| {
                let why = seen.why.as_ref();
                why.is_some_and(|why| why.text.contains("CONFIG_TCP_AO"))
            };
            until("the reason", look, why).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let seen = pair.ours().await;
            assert_eq!(seen.established_count, 0, "{seen:#?}");
            pair.end().await;
        }
    });
}
