//! Peers that mean harm, or are broken in ways that come to the same: whatever they do, the sessions
//! of others stay up, their routes pass, and memory stays bounded.
//!
//! In each test a witness, another speaker with a hold time of three seconds, has a session with the
//! besieged one; at the end it must still be the first.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use caracal_bgp_core::types::{Prefix, RouterId};
use caracal_bgp_core::vectors::PEER_ASN;
use caracal_bgp_core::wire::{LargeCommunity, Message, MessageType};
use caracal_bgp_speaker::config::{Endpoint, Origination, PeerAs};
use caracal_bgp_speaker::handle::SessionState;
use caracal_bgp_speaker::net::raise_file_limit;
use caracal_bgp_speaker::status::DownReason;
use caracal_bgp_speaker::{
    How, PeerConfig, PeerName, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use common::{
    Lab, Offer, RawPeer, WATCHER, attributes, dial, encoded, established, name, sentinel, snapshot,
    told, until, update,
};

/// Memory is the process's, so that tests must not share time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What no siege may cost, beside what sockets of tests take.
const MEMORY: usize = 24 << 20;
/// Nor what it may leave in the log at `warn` and above.
const LINES: usize = 20;
/// Short enough to notice who waits for something that it should not.
const HOLD_TIME: Duration = Duration::from_secs(3);
const WITNESS: &str = "witness";
const BESIEGED: &str = "besieged";

/// A speaker, and the witness.
struct Siege {
    lab: Lab,
    speaker: SpeakerHandle,
    witness: SpeakerHandle,
    witness_config: SpeakerConfig,
    memory: usize,
    /// How many there were at the beginning.
    lines: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Siege {
    /// With `peers` peers beside the witness, who are external, and more by `edit`.
    async fn begin(peers: usize, edit: impl FnOnce(&Lab, &mut SpeakerConfig)) -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let lab = Lab::new();
        let mut config = lab.config();
        for number in 0..peers {
            lab.add(&mut config, number, PEER_ASN);
        }
        let at = witness_address(&lab);
        let to_witness = PeerConfig {
            hold_time: HOLD_TIME,
            passive: true,
            ..PeerConfig::new(SocketAddr::new(at, lab.port), WATCHER)
        };
        config.peers.insert(PeerName::from(WITNESS), to_witness);
        edit(&lab, &mut config);
        let mut witness_config = SpeakerConfig::new(WATCHER, RouterId(0x7f00_0002));
        witness_config.listen = None;
        let to_speaker = PeerConfig {
            hold_time: HOLD_TIME,
            local_address: Some(at),
            next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, 253)),
            ..PeerConfig::new(lab.speaker(), config.asn)
        };
        witness_config
            .peers
            .insert(PeerName::from(BESIEGED), to_speaker);
        let speaker = start(config).await;
        let witness = start(witness_config.clone()).await;
        established(&speaker, &PeerName::from(WITNESS)).await;
        established(&witness, &PeerName::from(BESIEGED)).await;
        Self {
            lab,
            speaker,
            witness,
            witness_config,
            memory: resident(),
            lines: lines(),
            _alone: alone,
        }
    }

    /// The witness has seen nothing of it, its routes pass, memory is what it was, nearly, and the log can
    /// still be read.
    async fn stands(mut self) {
        for (at, peer) in [(&self.speaker, WITNESS), (&self.witness, BESIEGED)] {
            let seen = snapshot(at, &PeerName::from(peer)).await;
            assert_eq!(
                (seen.state, seen.established_count),
                (SessionState::Established, 1),
                "{seen:#?}"
            );
        }
        self.tell("10.77.0.0/24".parse().unwrap()).await;
        let grown = resident().saturating_sub(self.memory);
        println!("memory has grown by {} KiB", grown >> 10);
        assert!(grown < MEMORY, "memory has grown by {grown} octets");
        let lines = lines() - self.lines;
        println!("the log has grown by {lines} lines");
        assert!(lines < LINES, "the log has grown by {lines} lines");
        self.witness.shutdown(How::GracefulRestart).await;
        self.speaker.shutdown(How::GracefulRestart).await;
    }

    /// Has the witness tell a route, and waits until the besieged speaker has it.
    async fn tell(&mut self, prefix: Prefix) {
        let own = Origination::default();
        self.witness_config.originate.insert(prefix, own);
        self.witness
            .apply(self.witness_config.clone())
            .await
            .unwrap();
        until(
            &format!("{prefix} of the witness"),
            async || {
                let routes = self.speaker.routes(Some(prefix)).await.unwrap();
                routes.iter().any(|route| route.prefix == prefix)
            },
            |there| *there,
        )
        .await;
    }
}

fn witness_address(lab: &Lab) -> IpAddr {
    let IpAddr::V4(speaker) = lab.speaker().ip() else {
        unreachable!("the lab is of IPv4");
    };
    let [a, b, c, _] = speaker.octets();
    Ipv4Addr::new(a, b, c, 2).into()
}

async fn start(config: SpeakerConfig) -> SpeakerHandle {
    Speaker::start(config, None, SpeakerOptions::default())
        .await
        .unwrap()
}

/// Octets of this process in memory.
/// How many lines the process has logged so far at `warn` and above.
fn lines() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    struct Counter;

    impl Subscriber for Counter {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= Level::WARN
        }

        fn event(&self, _: &Event<'_>) {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }

        // There are no spans.
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    static COUNTER: Once = Once::new();
    COUNTER.call_once(|| tracing::subscriber::set_global_default(Counter).unwrap());
    COUNT.load(Ordering::Relaxed)
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().unwrap() << 10
}

/// How many of the connections the other side has not closed.
fn still_open(connections: &mut Vec<TcpStream>) -> usize {
    connections.retain(|connection| {
        let mut octets = [0; 4096];
        loop {
            match connection.try_read(&mut octets) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    });
    connections.len()
}

/// Numbers that look random and are the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_that_say_nothing_are_let_go_or_few() {
    const LIMIT: usize = 20;
    raise_file_limit().unwrap();
    let siege = Siege::begin(1, |lab, config| {
        let IpAddr::V4(speaker) = lab.speaker().ip() else {
            unreachable!("the lab is of IPv4");
        };
        let [a, b, ..] = speaker.octets();
        let range = Endpoint::Range {
            prefixes: vec![Prefix::v4(Ipv4Addr::new(a, b, 64, 0), 18).unwrap()],
            limit: LIMIT,
        };
        let range = PeerConfig::at(range, PeerAs::External);
        config.peers.insert(PeerName::from("range"), range);
    })
    .await;
    let to = siege.lab.speaker();
    let IpAddr::V4(speaker) = to.ip() else {
        unreachable!("the lab is of IPv4");
    };
    let [a, b, ..] = speaker.octets();
    let (mut strangers, mut known, mut ranged) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..500_u16 {
        let [high, low] = [(number / 250) as u8, (number % 250) as u8 + 1];
        let stranger = Ipv4Addr::new(a, b, 32 + high, low).into();
        for _ in 0..3 {
            strangers.push(dial(stranger, to).await.unwrap());
        }
        known.push(dial(siege.lab.peer(0), to).await.unwrap());
        let in_range = Ipv4Addr::new(a, b, 64 + high, low).into();
        ranged.push(dial(in_range, to).await.unwrap());
    }
    let left = async || [&mut strangers, &mut known, &mut ranged].map(still_open);
    // Of a peer two connections can collide; each other one is one too many.
    let few = |left: &[usize; 3]| left[0] == 0 && left[1] <= 2 && left[2] <= 2 * LIMIT;
    until("connections left", left, few).await;
    let ranges = siege.speaker.snapshot().await.unwrap().ranges;
    assert!(ranges[0].used <= LIMIT, "{ranges:?}");
    // The silent ones keep nobody out for good.
    drop((strangers, known, ranged));
    let offer = Offer::of(PEER_ASN);
    let _peer = RawPeer::establish(siege.lab.peer(0), to, offer).await;
    siege.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_are_all_malformed_are_counted_and_not_logged_one_by_one() {
    const EACH: usize = 500;
    let siege = Siege::begin(1, |_, _| {}).await;
    let offer = Offer::of(PEER_ASN);
    let mut peer = RawPeer::establish(siege.lab.peer(0), siege.lab.speaker(), offer).await;
    // LOCAL_PREF of an external peer is discarded, COMMUNITIES of three octets cost the routes.
    let discarded = attributes(offer, true, &[0x40, 5, 4, 0, 0, 0, 100]);
    let withdrawn = attributes(offer, true, &[0xc0, 8, 3, 0, 0, 0]);
    for number in 0..EACH {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        for attributes in [&discarded, &withdrawn] {
            peer.send(&update(attributes, &[32, 10, 251, high, low]))
                .await;
        }
    }
    let counted = async || {
        let counters = snapshot(&siege.speaker, &name(0)).await.counters;
        [counters.discarded_attributes, counters.treated_as_withdraw]
    };
    until("each counted", counted, |counts| {
        *counts == [EACH as u64; 2]
    })
    .await;
    siege.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_that_come_one_at_a_time_make_messages_nevertheless() {
    const ROUTES: usize = 40;
    let siege = Siege::begin(1, |_, _| {}).await;
    let (at, to) = (siege.lab.peer(0), siege.lab.speaker());
    let offer = Offer::of(PEER_ASN);
    let mut peer = RawPeer::connect(at, to).await;
    let mut octets = [offer.open(at), encoded(&Message::Keepalive)].concat();
    for number in 0..ROUTES {
        octets.extend(sentinel(number, offer, true).1);
    }
    for octet in octets {
        peer.send(&[octet]).await;
        tokio::task::yield_now().await;
    }
    until(
        "all routes",
        async || told(&siege.speaker, &name(0)).await.len(),
        |count| *count == ROUTES,
    )
    .await;
    siege.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_any_stage_ends_one_connection_and_no_more() {
    const PEERS: usize = 10;
    let siege = Siege::begin(PEERS, |_, _| {}).await;
    let to = siege.lab.speaker();
    let offer = Offer::of(PEER_ASN);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..300 {
        let at = siege.lab.peer(round % PEERS);
        let mut peer = RawPeer::connect(at, to).await;
        let mut octets = match round % 3 {
            0 => Vec::new(),
            // What looks like a message.
            1 => [&[0xff; 16][..], &noise.octets(3)].concat(),
            _ => [offer.open(at), encoded(&Message::Keepalive)].concat(),
        };
        let count = 19 + noise.next() as usize % 4000;
        octets.extend(noise.octets(count));
        peer.send(&octets).await;
        if round % 3 != 1 {
            // A length that is a length may be waited for; a marker that is none is not.
            let heard = peer.until("the end", |heard| heard.closed).await;
            let notification = heard.notification();
            // The first connection of two may have been closed for the other one.
            assert!(
                matches!(notification, Some((1, 1) | (6, _)) | None),
                "{notification:?}"
            );
        }
    }
    for number in 0..PEERS {
        let at = siege.lab.peer(number);
        let _peer = RawPeer::establish(at, to, offer).await;
        established(&siege.speaker, &name(number)).await;
    }
    siege.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_opens_end_the_session_that_they_come_in() {
    const PEERS: usize = 20;
    let siege = Siege::begin(PEERS, |_, _| {}).await;
    for number in 0..PEERS {
        let at = siege.lab.peer(number);
        let offer = Offer::of(PEER_ASN);
        let mut peer = RawPeer::establish(at, siege.lab.speaker(), offer).await;
        established(&siege.speaker, &name(number)).await;
        peer.send(&offer.open(at).repeat(5000)).await;
        let heard = peer.until("the end", |heard| heard.closed).await;
        // RFC 6608 §3: unexpected message in Established.
        assert_eq!(heard.notification(), Some((5, 3)));
        assert_eq!(heard.count(MessageType::Open), 1);
    }
    siege.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_ends_does_not_hold_a_session_up() {
    let siege = Siege::begin(1, |_, _| {}).await;
    let offer = Offer {
        hold_time: HOLD_TIME,
        extended_messages: true,
        ..Offer::of(PEER_ASN)
    };
    let mut peer = RawPeer::establish(siege.lab.peer(0), siege.lab.speaker(), offer).await;
    established(&siege.speaker, &name(0)).await;
    let began = Instant::now();
    peer.send(&[&[0xff; 16][..], &[0xff, 0xff, 2]].concat())
        .await;
    while !peer.heard().closed {
        assert!(began.elapsed() < 10 * HOLD_TIME, "the session goes on");
        peer.send(&[0]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // RFC 4271 §6.5: octets are not a message; the hold time counts from the last whole one.
    assert_eq!(peer.heard().notification(), Some((4, 0)));
    siege.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_attributes_again_and_again_leave_nothing_behind() {
    // Nearly sixty million octets.
    const ROUNDS: usize = 400;
    let siege = Siege::begin(1, |_, _| {}).await;
    let offer = Offer {
        extended_messages: true,
        ..Offer::of(PEER_ASN)
    };
    let mut peer = RawPeer::establish(siege.lab.peer(0), siege.lab.speaker(), offer).await;
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    for _ in 0..ROUNDS {
        // Sixty thousand octets of COMMUNITIES, others each time; then as many of a length that is
        // wrong; then as many attributes as there are types, all unknown.
        let communities = |octets: Vec<u8>| {
            let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
            [&[0xd0, 8][..], &length, &octets].concat()
        };
        let unknown = (128..=255).flat_map(|code| {
            let value = [code; 200];
            [&[0xc0, code, 200][..], &value].concat()
        });
        let bombs = [
            communities(noise.octets(60_000)),
            communities(noise.octets(59_999)),
            unknown.collect(),
        ];
        for bomb in bombs {
            let attributes = attributes(offer, true, &bomb);
            peer.send(&update(&attributes, &[24, 10, 66, 6])).await;
        }
    }
    let (beyond, octets) = sentinel(0, offer, true);
    peer.send(&octets).await;
    until(
        "the sentinel",
        async || {
            let routes = told(&siege.speaker, &name(0)).await;
            routes.iter().any(|route| route.prefix == beyond)
        },
        |there| *there,
    )
    .await;
    let seen = snapshot(&siege.speaker, &name(0)).await.counters;
    assert_eq!(seen.treated_as_withdraw, ROUNDS as u64);
    siege.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_costs_no_memory_and_is_let_go_in_time() {
    const ROUNDS: u8 = 60;
    const ROUTES: u32 = 2000;
    // As UPDATEs the changes take more than twice as much.
    const GROWTH: usize = 4 << 20;
    let hold_time = Duration::from_secs(6);
    let mut siege = Siege::begin(1, |_, config| {
        let peer = config.peers.get_mut(&name(0)).unwrap();
        peer.send_hold_time = hold_time + Duration::from_secs(2);
    })
    .await;
    let mut deaf = deaf_peer(&siege.lab, hold_time).await;
    established(&siege.speaker, &name(0)).await;
    let keepalive = encoded(&Message::Keepalive);
    for round in 0..ROUNDS {
        // Every route is another each time.
        for route in 0..ROUTES {
            let [_, _, high, low] = route.to_be_bytes();
            let prefix = Prefix::v4(Ipv4Addr::new(10, 100 + high, low, 0), 24).unwrap();
            let large = LargeCommunity {
                global: route,
                local1: round.into(),
                local2: 0,
            };
            let own = Origination {
                large_communities: vec![large],
                ..Origination::default()
            };
            siege.witness_config.originate.insert(prefix, own);
        }
        let mark = Prefix::v4(Ipv4Addr::new(10, 99, round, 0), 24).unwrap();
        siege.tell(mark).await;
        // It speaks, so that only its not reading can end the session.
        let _ = deaf.write_all(&keepalive).await;
        if round == 3 {
            // Tables have their size.
            siege.memory = resident();
        }
    }
    let grown = resident().saturating_sub(siege.memory);
    println!("memory has grown by {} KiB in {ROUNDS} rounds", grown >> 10);
    assert!(grown < GROWTH, "memory has grown by {grown} octets");
    let seen = until(
        "the end of the session",
        async || {
            let _ = deaf.write_all(&keepalive).await;
            snapshot(&siege.speaker, &name(0)).await
        },
        |seen| seen.state != SessionState::Established,
    )
    .await;
    let why = seen.why.as_ref().map(|why| why.reason);
    assert_eq!(why, Some(DownReason::SendHoldTimerExpired), "{seen:#?}");
    siege.stands().await;
}

/// A session of which nothing is read any more once it is up.
async fn deaf_peer(lab: &Lab, hold_time: Duration) -> TcpStream {
    let at = lab.peer(0);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::new(at, 0)).unwrap();
    let mut stream = socket.connect(lab.speaker()).await.unwrap();
    let offer = Offer {
        hold_time,
        ..Offer::of(PEER_ASN)
    };
    let octets = [offer.open(at), encoded(&Message::Keepalive)].concat();
    stream.write_all(&octets).await.unwrap();
    // The answer to an OPEN is an OPEN: enough to know that it has been read.
    let mut header = [0; 19];
    stream.read_exact(&mut header).await.unwrap();
    stream
}
