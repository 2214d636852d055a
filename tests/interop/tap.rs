//! What really passes between us and the router, as the link sees it.
//!
//! Owns the capture and the messages in it: what a peer offers in its OPEN, with which TTL and with which TCP
//! options its packets come, are judged here and not by either side's word. Does not own judgements.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::BytesMut;
use caracal_bgp_core::wire::{
    self, MAX_EXTENDED_LEN, Message, MessageType, Notification, Open, RouteRefresh,
};
use caracal_lab::namespace::Namespace;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::arena::{OURS_LINK_LOCAL, OURS_V4, OURS_V6};

const BGP: u16 = 179;
/// IANA protocol number of TCP.
const TCP: u8 = 6;
/// TCP option kind of MD5 signatures (RFC 2385 §3).
const MD5_OPTION: u8 = 19;

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum From {
    Us,
    Them,
}

/// A message that passed. What an UPDATE says is read where it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    Open(Open),
    Update,
    Notification(Notification),
    Keepalive,
    Refresh(RouteRefresh),
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Messages in their order, with who sent each.
    pub(crate) messages: Vec<(From, Passed)>,
    /// The TTL or hop limit of every segment.
    pub(crate) ttls: Vec<(From, u8)>,
    /// Segments that carry an MD5 signature, and all of them.
    pub(crate) signed: u64,
    pub(crate) segments: u64,
    /// What could not be read.
    pub(crate) faults: Vec<String>,
}

impl Seen {
    /// The last OPEN of one side.
    pub(crate) fn open(&self, from: From) -> Option<&Open> {
        let mut messages = self.messages.iter().rev();
        messages.find_map(|(sender, message)| match message {
            Passed::Open(open) if *sender == from => Some(open),
            _ => None,
        })
    }

    /// Whether one side has sent such a message.
    pub(crate) fn any(&self, from: From, such: impl Fn(&Passed) -> bool) -> bool {
        let mut messages = self.messages.iter();
        messages.any(|(sender, message)| *sender == from && such(message))
    }
}

/// A running capture.
pub(crate) struct Tap {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens to our end of the link with the router.
    pub(crate) fn start(ours: &Namespace) -> Self {
        let (socket, index) = ours.run(packet_socket).unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("tap".into())
            .spawn(move || read(&socket, index, &stopped, &into))
            .unwrap();
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// Looks at what was seen so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets what was seen so far.
    pub(crate) fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the reader shows in its own words.
            let _ = thread.join();
        }
    }
}

fn packet_socket() -> anyhow::Result<(OwnedFd, usize)> {
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    setsockopt(&fd, sockopt::RcvBufForce, &(4 << 20))?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000))?;
    let index = nix::net::if_::if_nametoindex("e1")?;
    Ok((fd, index as usize))
}

fn read(socket: &OwnedFd, index: usize, stop: &AtomicBool, into: &Mutex<Seen>) {
    let mut frame = vec![0; 1 << 17];
    let mut streams = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        let length = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            Ok((length, Some(from))) if from.ifindex() == index => length,
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => panic!("cannot read packets: {error}"),
        };
        let Some(segment) = Segment::parse(&frame[..length]) else {
            continue;
        };
        let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take(&segment, &mut streams);
    }
}

/// One TCP segment to or from the port of BGP.
struct Segment<'a> {
    from: From,
    ttl: u8,
    /// Ports, the sender's first.
    ports: (u16, u16),
    sequence: u32,
    syn: bool,
    reset: bool,
    signed: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let two = |octets: &[u8], at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
        };
        let packet = frame.get(14..)?;
        let (source, ttl, protocol, tcp): (IpAddr, u8, u8, &[u8]) = match two(frame, 12)? {
            0x0800 => {
                let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let whole = usize::from(two(packet, 2)?);
                let tcp = packet.get(header..whole)?;
                (Ipv4Addr::from(source).into(), packet[8], packet[9], tcp)
            }
            0x86dd => {
                let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
                let whole = 40 + usize::from(two(packet, 4)?);
                let tcp = packet.get(40..whole)?;
                (Ipv6Addr::from(source).into(), packet[7], packet[6], tcp)
            }
            _ => return None,
        };
        let ports = (two(tcp, 0)?, two(tcp, 2)?);
        if protocol != TCP || (ports.0 != BGP && ports.1 != BGP) {
            return None;
        }
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        let ours = [OURS_V4.into(), OURS_V6.into(), OURS_LINK_LOCAL.into()];
        Some(Self {
            from: if ours.contains(&source) {
                From::Us
            } else {
                From::Them
            },
            ttl,
            ports,
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            syn: tcp.get(13)? & 0x02 != 0,
            reset: tcp.get(13)? & 0x04 != 0,
            signed: has_option(tcp.get(20..header)?, MD5_OPTION),
            payload: tcp.get(header..)?,
        })
    }
}

fn has_option(mut options: &[u8], wanted: u8) -> bool {
    loop {
        match options {
            [] | [0, ..] => return false,
            [1, rest @ ..] => options = rest,
            [kind, ..] if *kind == wanted => return true,
            [_, length, ..] => {
                let Some(rest) = options.get(usize::from(*length).max(2)..) else {
                    return false;
                };
                options = rest;
            }
            [_] => return false,
        }
    }
}

/// One direction of a connection, put together again.
#[derive(Default)]
struct Stream {
    next: u32,
    buffer: BytesMut,
}

type Streams = HashMap<(From, (u16, u16)), Stream>;

impl Seen {
    fn take(&mut self, segment: &Segment<'_>, streams: &mut Streams) {
        if !segment.reset {
            // A RST may come from where no speaker runs yet.
            self.segments += 1;
            self.signed += u64::from(segment.signed);
            self.ttls.push((segment.from, segment.ttl));
        }
        let key = (segment.from, segment.ports);
        if segment.syn {
            let next = segment.sequence.wrapping_add(1);
            let buffer = BytesMut::new();
            streams.insert(key, Stream { next, buffer });
            return;
        }
        let Some(stream) = streams.get_mut(&key) else {
            return;
        };
        // A link without loss hands segments over in their order; what comes again was seen.
        let offset = stream.next.wrapping_sub(segment.sequence) as usize;
        let Some(fresh) = segment
            .payload
            .get(offset..)
            .filter(|fresh| !fresh.is_empty())
        else {
            return;
        };
        stream.buffer.extend_from_slice(fresh);
        stream.next = stream.next.wrapping_add(fresh.len() as u32);
        loop {
            match wire::frame(&mut stream.buffer, MAX_EXTENDED_LEN) {
                Ok(None) => return,
                Ok(Some(frame)) => match passed(&frame) {
                    Ok(message) => self.messages.push((segment.from, message)),
                    Err(error) => self.faults.push(error),
                },
                Err(error) => {
                    self.faults.push(error.to_string());
                    stream.buffer.clear();
                    return;
                }
            }
        }
    }
}

fn passed(frame: &wire::Frame) -> Result<Passed, String> {
    if frame.kind == MessageType::Update {
        return Ok(Passed::Update);
    }
    match wire::decode_control(frame) {
        Ok(Message::Open(open)) => Ok(Passed::Open(open)),
        Ok(Message::Notification(notification)) => Ok(Passed::Notification(notification)),
        Ok(Message::RouteRefresh(refresh)) => Ok(Passed::Refresh(refresh)),
        Ok(Message::Keepalive) => Ok(Passed::Keepalive),
        Ok(Message::Update(_)) => Ok(Passed::Update),
        Err(error) => Err(error.to_string()),
    }
}
