//! A speaker on loopback addresses and peers whose octets a test chooses.
//!
//! Owns the addresses, the raw peer and the waiting. Does not own a judgement: what octets must lead
//! to is said in the tests.

#![allow(
    dead_code,
    reason = "each test binary takes its own part of what they share"
)]

mod until;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::types::{Asn, Family, Prefix, RouterId};
use caracal_bgp_core::vectors;
use caracal_bgp_core::wire::{
    self, Capability, EncodeContext, Frame, MAX_EXTENDED_LEN, Message, MessageType, Open,
};
use caracal_bgp_speaker::config::ListenConfig;
use caracal_bgp_speaker::handle::{PeerSnapshot, RouteSnapshot, SessionState};
use caracal_bgp_speaker::{PeerConfig, PeerName, SpeakerConfig, SpeakerHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use until::DEADLINE;
pub(crate) use until::until;

/// Our speaker's AS, which no vector has in its path.
pub(crate) const LOCAL: Asn = Asn(65_200);
/// An AS of the peer that hears what is told on.
pub(crate) const WATCHER: Asn = Asn(65_300);

/// Addresses that no other test of this process uses; the port keeps processes apart.
pub(crate) struct Lab {
    net: u8,
    pub(crate) port: u16,
}

impl Lab {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(100);
        Self {
            net: NEXT.fetch_add(1, Ordering::Relaxed),
            port: 30_000 + u16::try_from(std::process::id() % 10_000).unwrap(),
        }
    }

    pub(crate) fn speaker(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::new(127, self.net, 0, 1).into(), self.port)
    }

    /// Where peer number `number` is.
    pub(crate) fn peer(&self, number: usize) -> IpAddr {
        let high = u8::try_from(1 + number / 250).unwrap();
        let low = u8::try_from(1 + number % 250).unwrap();
        Ipv4Addr::new(127, self.net, high, low).into()
    }

    /// A speaker that tells on what it learns, without peers yet.
    pub(crate) fn config(&self) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(LOCAL, RouterId(0x7f00_0001));
        config.listen = Some(ListenConfig {
            addrs: vec![self.speaker().ip()],
            port: self.port,
        });
        config.transit = true;
        config
    }

    /// Peer number `number`, which is never dialled.
    pub(crate) fn add(&self, config: &mut SpeakerConfig, number: usize, asn: Asn) -> PeerName {
        let name = name(number);
        let remote = SocketAddr::new(self.peer(number), self.port);
        let peer = PeerConfig {
            passive: true,
            // Loopback addresses are no next hops; these stand for the addresses of a link.
            next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, 254)),
            next_hop_v6: Some("2001:db8:ffff::254".parse().unwrap()),
            ..PeerConfig::new(remote, asn)
        };
        config.peers.insert(name.clone(), peer);
        name
    }
}

pub(crate) fn name(number: usize) -> PeerName {
    PeerName(format!("p{number}"))
}

/// What a raw peer offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) asn: Asn,
    pub(crate) four_octet_as: bool,
    pub(crate) extended_messages: bool,
    pub(crate) hold_time: Duration,
}

impl Offer {
    pub(crate) fn of(asn: Asn) -> Self {
        Self {
            asn,
            four_octet_as: true,
            extended_messages: false,
            // Without keepalives silence is never what ends the session.
            hold_time: Duration::ZERO,
        }
    }

    pub(crate) fn open(self, address: IpAddr) -> Bytes {
        let IpAddr::V4(address) = address else {
            panic!("{address} is not of IPv4");
        };
        let mut capabilities: Vec<Capability> = Family::ALL
            .map(|family| Capability::Multiprotocol(family.into()))
            .into();
        capabilities.extend([Capability::RouteRefresh, Capability::EnhancedRouteRefresh]);
        if self.four_octet_as {
            capabilities.push(Capability::FourOctetAs(self.asn));
        }
        if self.extended_messages {
            capabilities.push(Capability::ExtendedMessage);
        }
        encoded(&Message::Open(Open {
            asn: self.asn,
            hold_time: self.hold_time,
            router_id: RouterId(address.into()),
            capabilities,
        }))
    }
}

/// A message of ours that is as it should be.
pub(crate) fn encoded(message: &Message) -> Bytes {
    let mut octets = BytesMut::new();
    let context = EncodeContext {
        max_len: MAX_EXTENDED_LEN,
        ..EncodeContext::default()
    };
    wire::encode(message, context, &mut octets).unwrap();
    octets.freeze()
}

/// An UPDATE of these parts.
pub(crate) fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    let body = [&[0, 0][..], &length.to_be_bytes(), attributes, nlri].concat();
    vectors::framed(2, &body)
}

/// An UPDATE that announces 10.250.x.y/32 with a path that begins with `asn` where the session is
/// external.
pub(crate) fn sentinel(number: usize, offer: Offer, external: bool) -> (Prefix, Vec<u8>) {
    let octets = u16::try_from(number).unwrap().to_be_bytes();
    let address = Ipv4Addr::new(10, 250, octets[0], octets[1]);
    let prefix = Prefix::v4(address, 32).unwrap();
    let nlri = [&[32][..], &address.octets()].concat();
    (prefix, update(&attributes(offer, external, &[]), &nlri))
}

/// ORIGIN, AS_PATH and NEXT_HOP with which a path is taken, and `more`.
pub(crate) fn attributes(offer: Offer, external: bool, more: &[u8]) -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0];
    let asn = offer.asn.0.to_be_bytes();
    match (external, offer.four_octet_as) {
        (false, _) => attributes.extend([0x40, 2, 0]),
        (true, true) => attributes.extend([&[0x40, 2, 6, 2, 1][..], &asn].concat()),
        (true, false) => attributes.extend([&[0x40, 2, 4, 2, 1][..], &asn[2..]].concat()),
    }
    attributes.extend([0x40, 3, 4, 192, 0, 2, 1]);
    attributes.extend(more);
    attributes
}

/// A peer without a machine: it sends what it is told and keeps what comes.
pub(crate) struct RawPeer {
    pub(crate) address: IpAddr,
    write: OwnedWriteHalf,
    heard: Arc<Mutex<Heard>>,
    reader: tokio::task::JoinHandle<()>,
}

/// What came from the speaker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) frames: Vec<Frame>,
    pub(crate) closed: bool,
}

impl Heard {
    /// Code and subcode of the NOTIFICATION, when one came.
    pub(crate) fn notification(&self) -> Option<(u8, u8)> {
        let mut frames = self.frames.iter();
        let frame = frames.find(|frame| frame.kind == MessageType::Notification)?;
        Some((frame.body[0], frame.body[1]))
    }

    pub(crate) fn count(&self, kind: MessageType) -> usize {
        let frames = self.frames.iter();
        frames.filter(|frame| frame.kind == kind).count()
    }
}

impl RawPeer {
    pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> Self {
        let (read, write) = dial(from, to).await.unwrap().into_split();
        let heard = Arc::new(Mutex::new(Heard::default()));
        Self {
            address: from,
            write,
            heard: Arc::clone(&heard),
            reader: tokio::spawn(read_all(read, heard)),
        }
    }

    /// Connects until the speaker lets the session come up.
    pub(crate) async fn establish(from: IpAddr, to: SocketAddr, offer: Offer) -> Self {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut peer = Self::connect(from, to).await;
            peer.send(&offer.open(from)).await;
            peer.send(&encoded(&Message::Keepalive)).await;
            let over = |heard: &Heard| heard.closed || heard.count(MessageType::Keepalive) > 0;
            let heard = peer.until("an answer to an OPEN", over).await;
            if !heard.closed {
                return peer;
            }
            assert!(Instant::now() < deadline, "never established: {heard:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends; that the speaker has closed already shows in what was heard.
    pub(crate) async fn send(&mut self, octets: &[u8]) {
        let _ = self.write.write_all(octets).await;
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    /// Takes what came since the last time.
    pub(crate) fn take(&self) -> Vec<Frame> {
        std::mem::take(&mut self.heard.lock().unwrap().frames)
    }

    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Heard) -> bool) -> Heard {
        until(what, async || self.heard(), check).await
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

pub(crate) async fn dial(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn read_all(mut read: OwnedReadHalf, heard: Arc<Mutex<Heard>>) {
    let mut buffer = BytesMut::new();
    loop {
        // A reset is an end like any other.
        let ended = !matches!(read.read_buf(&mut buffer).await, Ok(1..));
        let mut heard = heard.lock().unwrap();
        while let Some(frame) = wire::frame(&mut buffer, MAX_EXTENDED_LEN).unwrap() {
            heard.frames.push(frame);
        }
        if ended {
            heard.closed = true;
            return;
        }
    }
}

pub(crate) async fn snapshot(speaker: &SpeakerHandle, name: &PeerName) -> PeerSnapshot {
    let snapshot = speaker.snapshot().await.unwrap();
    let mut peers = snapshot.peers.into_iter();
    peers.find(|peer| peer.name == name.0).unwrap()
}

pub(crate) async fn established(speaker: &SpeakerHandle, name: &PeerName) -> PeerSnapshot {
    until(
        &format!("session with {name}"),
        || snapshot(speaker, name),
        |peer| peer.state == SessionState::Established,
    )
    .await
}

/// The routes to which `name` has told a path, with no other paths.
pub(crate) async fn told(speaker: &SpeakerHandle, name: &PeerName) -> Vec<RouteSnapshot> {
    let routes = speaker.routes(None).await.unwrap().into_iter();
    let of_peer = routes.map(|mut route| {
        route.paths.retain(|path| path.from == name.0);
        route
    });
    of_peer.filter(|route| !route.paths.is_empty()).collect()
}
