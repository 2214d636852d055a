//! A peer that a test scripts: it offers the capabilities that it is given, tells what it is told to, and
//! keeps every change that it hears, with the octets in which it came.
//!
//! Owns one connection. Does not own a judgement, except that what the speaker sends can be read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::types::{Asn, Family, NextHop, PeerKind, Prefix, RouterId};
use caracal_bgp_core::wire::{
    self, AsPath, Capability, DecodeContext, Frame, GracefulRestart, LongLived, MAX_EXTENDED_LEN,
    Message, MessageType, Notification, Open, PathAttributes, Reach, Update, UpdateOutcome,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::common::{dial, encoded, until};

/// How long a peer is given to be let in after its last session.
const PATIENCE: Duration = Duration::from_secs(40);

/// Who a scripted peer is and what it offers.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) asn: Asn,
    pub(crate) kind: PeerKind,
    pub(crate) hold_time: Duration,
    pub(crate) four_octet_as: bool,
    pub(crate) capabilities: Vec<Capability>,
}

impl Script {
    /// Offers both families, route refresh and four-octet AS numbers.
    pub(crate) fn of(asn: Asn, speaker: Asn) -> Self {
        let mut capabilities: Vec<Capability> = Family::ALL
            .map(|family| Capability::Multiprotocol(family.into()))
            .into();
        capabilities.push(Capability::RouteRefresh);
        Self {
            asn,
            kind: if asn == speaker {
                PeerKind::Internal
            } else {
                PeerKind::External
            },
            // Without keepalives silence is never what ends the session.
            hold_time: Duration::ZERO,
            four_octet_as: true,
            capabilities,
        }
    }

    pub(crate) fn with(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// Keeps its routes of IPv4 over a restart that takes at most `restart_time`.
    pub(crate) fn restarts(self, restart_time: u64, notification: bool, kept: bool) -> Self {
        self.with(Capability::GracefulRestart(GracefulRestart {
            restarting: kept,
            notification,
            restart_time: Duration::from_secs(restart_time),
            families: vec![(Family::Ipv4Unicast.into(), kept)],
        }))
    }

    /// Knows routes that are kept long, and has its own of IPv4 kept for `stale_time`.
    pub(crate) fn long_lived(self, stale_time: u64, kept: bool) -> Self {
        self.with(Capability::LongLivedRestart(vec![LongLived {
            family: Family::Ipv4Unicast.into(),
            forwarding: kept,
            stale_time: Duration::from_secs(stale_time),
        }]))
    }

    fn open(&self, address: IpAddr) -> Bytes {
        let IpAddr::V4(address) = address else {
            panic!("{address} is not of IPv4");
        };
        let mut capabilities = self.capabilities.clone();
        if self.four_octet_as {
            capabilities.push(Capability::FourOctetAs(self.asn));
        }
        encoded(&Message::Open(Open {
            asn: self.asn,
            hold_time: self.hold_time,
            router_id: RouterId(address.into()),
            capabilities,
        }))
    }
}

/// A route as the speaker told it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) next_hop: NextHop,
    pub(crate) attributes: PathAttributes,
    /// The path attributes as octets.
    octets: Vec<u8>,
}

impl Told {
    /// Flags and value of an attribute, by its type code, found by no decoder of ours.
    pub(crate) fn octets(&self, code: u8) -> Option<(u8, Vec<u8>)> {
        let mut rest = &self.octets[..];
        while let [flags, found, tail @ ..] = rest {
            let (length, tail) = if flags & 0x10 == 0 {
                (usize::from(tail[0]), &tail[1..])
            } else {
                let length = u16::from_be_bytes([tail[0], tail[1]]);
                (usize::from(length), &tail[2..])
            };
            if *found == code {
                return Some((*flags, tail[..length].to_vec()));
            }
            rest = &tail[length..];
        }
        None
    }

    pub(crate) fn communities(&self) -> Vec<String> {
        let communities = self.attributes.communities.iter();
        communities.map(ToString::to_string).collect()
    }
}

/// A change that the speaker told, and when it came.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) prefix: Prefix,
    /// `None` for a withdrawal.
    pub(crate) told: Option<Told>,
}

/// What came from the speaker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) changes: Vec<Change>,
    pub(crate) open: Option<Open>,
    pub(crate) notification: Option<Notification>,
    /// The body of the NOTIFICATION.
    pub(crate) last_words: Vec<u8>,
    pub(crate) keepalives: usize,
    pub(crate) closed: bool,
    /// What could not be read.
    fault: Option<String>,
}

impl Heard {
    /// What stands after all changes.
    pub(crate) fn table(&self) -> BTreeMap<Prefix, Told> {
        let mut table = BTreeMap::new();
        for change in &self.changes {
            match &change.told {
                Some(told) => table.insert(change.prefix, told.clone()),
                None => table.remove(&change.prefix),
            };
        }
        table
    }

    /// The changes of one prefix, in their order.
    pub(crate) fn of(&self, prefix: &str) -> Vec<Change> {
        let prefix: Prefix = prefix.parse().unwrap();
        let changes = self.changes.iter();
        let of = changes.filter(|change| change.prefix == prefix);
        of.cloned().collect()
    }
}

/// One connection with the speaker. It ends without a word when dropped.
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    write: OwnedWriteHalf,
    heard: Arc<Mutex<Heard>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Peer {
    /// Connects and says OPEN and KEEPALIVE, whatever comes of it.
    pub(crate) async fn greet(from: IpAddr, to: SocketAddr, script: &Script) -> Self {
        let (read, write) = dial(from, to).await.unwrap().into_split();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut peer = Self {
            address: from,
            write,
            heard: Arc::clone(&heard),
            reader: tokio::spawn(read_all(read, heard, script.clone())),
        };
        peer.send(&script.open(from)).await;
        peer.send(&encoded(&Message::Keepalive)).await;
        peer
    }

    /// Connects until the speaker lets the session come up.
    pub(crate) async fn establish(from: IpAddr, to: SocketAddr, script: &Script) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let peer = Self::greet(from, to, script).await;
            let over = |heard: &Heard| heard.closed || heard.keepalives > 0;
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

    /// Tells a route whose packets come to `next_hop`.
    pub(crate) async fn tell_by(
        &mut self,
        prefix: &str,
        next_hop: &str,
        attributes: PathAttributes,
    ) {
        let prefix: Prefix = prefix.parse().unwrap();
        let next_hop: IpAddr = next_hop.parse().unwrap();
        let update = Message::Update(Update {
            reach: vec![Reach {
                family: prefix.family(),
                next_hop: next_hop.into(),
                nlri: vec![prefix.into()],
            }],
            attributes: Some(attributes),
            ..Update::default()
        });
        self.send(&encoded(&update)).await;
    }

    /// Tells a route whose packets come to an address that nobody looks at.
    pub(crate) async fn tell(&mut self, prefix: &str, attributes: PathAttributes) {
        self.tell_by(prefix, "192.0.2.1", attributes).await;
    }

    pub(crate) async fn end_of_rib(&mut self, family: Family) {
        let mut octets = BytesMut::new();
        wire::end_of_rib(family, &mut octets);
        self.send(&octets).await;
    }

    pub(crate) fn heard(&self) -> Heard {
        let heard = lock(&self.heard).clone();
        assert_eq!(heard.fault, None, "what came from the speaker");
        heard
    }

    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Heard) -> bool) -> Heard {
        until(what, async || self.heard(), check).await
    }

    /// Waits for a route to be told, unless it stands already.
    pub(crate) async fn hears(&self, prefix: Prefix) -> Told {
        let what = format!("{prefix} told to {}", self.address);
        let heard = self
            .until(&what, |heard| heard.table().contains_key(&prefix))
            .await;
        heard.table().remove(&prefix).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_all(mut read: OwnedReadHalf, heard: Arc<Mutex<Heard>>, script: Script) {
    let mut buffer = BytesMut::new();
    loop {
        // A reset is an end like any other.
        let ended = !matches!(read.read_buf(&mut buffer).await, Ok(1..));
        let mut heard = lock(&heard);
        while let Some(frame) = wire::frame(&mut buffer, MAX_EXTENDED_LEN).unwrap() {
            if let Err(fault) = note(&mut heard, &frame, &script) {
                heard.fault.get_or_insert(fault);
            }
        }
        if ended {
            heard.closed = true;
            return;
        }
    }
}

fn note(heard: &mut Heard, frame: &Frame, script: &Script) -> Result<(), String> {
    if frame.kind == MessageType::Update {
        return note_update(heard, &frame.body, script);
    }
    match wire::decode_control(frame).map_err(|why| format!("{frame:?}: {why}"))? {
        Message::Open(open) => heard.open = Some(open),
        Message::Keepalive => heard.keepalives += 1,
        Message::Notification(notification) => {
            heard.notification = Some(notification);
            heard.last_words = frame.body.to_vec();
        }
        Message::Update(_) | Message::RouteRefresh(_) => {}
    }
    Ok(())
}

fn note_update(heard: &mut Heard, body: &[u8], script: &Script) -> Result<(), String> {
    let context = DecodeContext {
        four_octet_as: script.four_octet_as,
        ..DecodeContext::new(script.kind)
    };
    let UpdateOutcome::Valid(update) = wire::decode_update(body, &context) else {
        return Err(format!("malformed: {body:02x?}"));
    };
    let at = Instant::now();
    let withdrawn = update.withdrawn.iter().flat_map(|(_, gone)| gone);
    heard.changes.extend(withdrawn.map(|nlri| Change {
        at,
        prefix: nlri.prefix,
        told: None,
    }));
    let attributes = update.attributes.unwrap_or_default();
    let octets = attribute_octets(body);
    for reach in update.reach {
        for nlri in reach.nlri {
            let told = Told {
                next_hop: reach.next_hop,
                attributes: attributes.clone(),
                octets: octets.to_vec(),
            };
            heard.changes.push(Change {
                at,
                prefix: nlri.prefix,
                told: Some(told),
            });
        }
    }
    Ok(())
}

/// The path attributes of an UPDATE that could be read.
fn attribute_octets(body: &[u8]) -> &[u8] {
    let length = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let begin = 4 + length(0);
    &body[begin..begin + length(begin - 2)]
}

/// Attributes of a path through these ASes.
pub(crate) fn via(asns: &[u32]) -> PathAttributes {
    let asns: Vec<Asn> = asns.iter().copied().map(Asn).collect();
    PathAttributes {
        as_path: AsPath::new(asns),
        ..PathAttributes::default()
    }
}
