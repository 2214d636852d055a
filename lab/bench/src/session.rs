//! One BGP session of the generator: a socket, a phase, what is still to be written.
//!
//! Owns connecting, the opening exchange and the two byte streams. Does not own when things happen
//! ([`crate::engine`]) nor what UPDATEs mean ([`crate::ledger`]).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockopt, setsockopt, socket,
    sockopt,
};

use crate::ledger::{Ledger, ViewId};
use crate::wire;

/// What the generator proposes: long enough that no daemon under load loses a session by it.
const HOLD_SECONDS: u16 = 180;
/// A router with a short connect-retry time gives up a connection that hangs, too. The kernel alone would try
/// at longer and longer intervals, and daemons with a short queue would wait for nothing but its clock.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// A third of a third: the generator's keepalives are never what ends a session.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);

/// How a session is to be.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// The generator's address.
    pub local: Ipv4Addr,
    /// The daemon's.
    pub remote: Ipv4Addr,
    /// The generator's AS on this session.
    pub asn: u32,
    /// The daemon's.
    pub remote_asn: u32,
    /// Whether the generator waits to be dialled: only where it stands in for a daemon.
    pub accepts: bool,
    /// Octets of receive buffer; the kernel's choice when `None`.
    pub receive_buffer: Option<usize>,
    /// Whose table the UPDATEs change; they are only counted when `None`.
    pub view: Option<ViewId>,
    /// What is said as soon as the session stands.
    pub initially: Option<Arc<Vec<u8>>>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not dialled, or waiting until it may be dialled again.
    Idle,
    /// The kernel connects.
    Connecting,
    /// OPEN sent.
    OpenSent,
    /// OPEN received and answered.
    OpenConfirm,
    /// Routes may flow.
    Established,
}

/// A session and its socket.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) spec: PeerSpec,
    pub(crate) phase: Phase,
    stream: Option<TcpStream>,
    /// The beginning of a message of which the rest has not come.
    partial: Vec<u8>,
    outbox: VecDeque<(Arc<Vec<u8>>, usize)>,
    last_sent: Instant,
    dialled: Instant,
    pub(crate) last_heard: Instant,
    hold: Duration,
    /// Whether the engine reads from it.
    pub(crate) reads: bool,
    /// When it may be dialled, while it is idle.
    pub(crate) dial_at: Option<Instant>,
    /// Octets read of anything.
    pub(crate) octets: u64,
}

/// Why a session is over.
pub(crate) type Ended = String;

impl Peer {
    pub(crate) fn new(spec: PeerSpec) -> Self {
        let now = Instant::now();
        Self {
            spec,
            phase: Phase::Idle,
            stream: None,
            partial: Vec::new(),
            outbox: VecDeque::new(),
            last_sent: now,
            dialled: now,
            last_heard: now,
            hold: Duration::ZERO,
            reads: true,
            dial_at: None,
            octets: 0,
        }
    }

    pub(crate) fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Opens a socket in the calling thread's network namespace and begins to connect.
    pub(crate) fn dial(&mut self) -> io::Result<()> {
        let descriptor = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        if let Some(octets) = self.spec.receive_buffer {
            setsockopt(&descriptor, sockopt::RcvBuf, &octets)?;
        }
        let local = SockaddrIn::from(SocketAddrV4::new(self.spec.local, 0));
        bind(descriptor.as_raw_fd(), &local)?;
        let remote = SockaddrIn::from(SocketAddrV4::new(self.spec.remote, BGP_PORT));
        match connect(descriptor.as_raw_fd(), &remote) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.stream = Some(descriptor.into());
        self.phase = Phase::Connecting;
        self.dialled = Instant::now();
        self.dial_at = None;
        Ok(())
    }

    /// Takes a connection that the other side opened.
    pub(crate) fn take(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.stream = Some(stream);
        self.opened()
    }

    /// Asks the kernel how connecting went, and says OPEN.
    pub(crate) fn connected(&mut self) -> io::Result<()> {
        let stream = self.open_stream()?;
        match getsockopt(&stream.as_fd(), sockopt::SocketError)? {
            0 => self.opened(),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn opened(&mut self) -> io::Result<()> {
        self.open_stream()?.set_nodelay(true)?;
        self.partial.clear();
        self.outbox.clear();
        self.phase = Phase::OpenSent;
        self.last_heard = Instant::now();
        self.hold = Duration::from_secs(HOLD_SECONDS.into());
        let mut open = Vec::new();
        let own = wire::Open {
            asn: self.spec.asn,
            hold: HOLD_SECONDS,
            router_id: self.spec.local.to_bits(),
            four_octets: true,
        };
        wire::put_open(&own, &mut open);
        self.send(Arc::new(open))
    }

    /// Queues `octets` and writes what the kernel takes.
    pub(crate) fn send(&mut self, octets: Arc<Vec<u8>>) -> io::Result<()> {
        self.outbox.push_back((octets, 0));
        self.flush()
    }

    /// Writes what the kernel takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        while let Some((octets, written)) = self.outbox.front_mut() {
            match stream.write(&octets[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.last_sent = Instant::now();
                    *written += count;
                    if *written == octets.len() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something waits for the kernel to take it.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.phase == Phase::Connecting || !self.outbox.is_empty()
    }

    /// Reads what is there through `scratch`, the buffer that all sessions share, and acts on it.
    ///
    /// Returns when the session became established, if it did.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        ledger: &mut Ledger,
    ) -> Result<Option<Instant>, Ended> {
        let mut established = None;
        // Bounded, so that one sender of much does not keep the others waiting.
        for _ in 0..READS_PER_TURN {
            let kept = self.partial.len();
            scratch[..kept].copy_from_slice(&self.partial);
            let Some(stream) = &mut self.stream else {
                return Ok(established);
            };
            let count = match stream.read(&mut scratch[kept..]) {
                Ok(0) => return Err("the daemon closed the connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("cannot read: {error}")),
            };
            self.octets += count as u64;
            self.last_heard = Instant::now();
            self.partial.clear();
            let mut left = &scratch[..kept + count];
            while let Some(message) = wire::message(left).map_err(|e| e.to_string())? {
                left = &left[wire::HEADER + message.body.len()..];
                if self.message(message.kind, message.body, ledger)? {
                    // Routes may follow in the same breath.
                    established = Some(Instant::now());
                }
            }
            self.partial.extend_from_slice(left);
            if kept + count < scratch.len() {
                break;
            }
        }
        Ok(established)
    }

    fn message(&mut self, kind: u8, body: &[u8], ledger: &mut Ledger) -> Result<bool, Ended> {
        match (kind, self.phase) {
            (wire::UPDATE, Phase::Established) => {
                if let Some(view) = self.spec.view {
                    ledger
                        .update(view, body)
                        .map_err(|error| format!("an UPDATE of the daemon: {error}"))?;
                }
            }
            (wire::KEEPALIVE, Phase::OpenConfirm) => {
                self.phase = Phase::Established;
                if let Some(octets) = self.spec.initially.clone() {
                    self.send(octets)
                        .map_err(|e| format!("cannot write: {e}"))?;
                }
                return Ok(true);
            }
            (wire::KEEPALIVE, Phase::Established) => {}
            (wire::OPEN, Phase::OpenSent) => self.answer(body)?,
            (wire::NOTIFICATION, _) => {
                return Err(match body {
                    [code, subcode, text @ ..] => format!(
                        "the daemon sent NOTIFICATION {code}/{subcode} {}",
                        String::from_utf8_lossy(text)
                    ),
                    _ => "the daemon sent a NOTIFICATION without content".into(),
                });
            }
            (kind, phase) => {
                return Err(format!(
                    "the daemon sent a message of type {kind} in {phase:?}"
                ));
            }
        }
        Ok(false)
    }

    fn answer(&mut self, body: &[u8]) -> Result<(), Ended> {
        let open = wire::open(body).map_err(|error| error.to_string())?;
        if open.asn != self.spec.remote_asn || !open.four_octets {
            return Err(format!(
                "the daemon is AS {} (four octets: {}), not {}",
                open.asn, open.four_octets, self.spec.remote_asn
            ));
        }
        self.hold = Duration::from_secs(open.hold.min(HOLD_SECONDS).into());
        self.phase = Phase::OpenConfirm;
        let mut keepalive = Vec::new();
        wire::put_keepalive(&mut keepalive);
        self.send(Arc::new(keepalive))
            .map_err(|error| format!("cannot write: {error}"))
    }

    /// What time asks for: a keepalive, or the end.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Ended> {
        if self.phase == Phase::Connecting && now.duration_since(self.dialled) > CONNECT_PATIENCE {
            return Err(format!("the daemon did not answer in {CONNECT_PATIENCE:?}"));
        }
        if self.phase != Phase::Established {
            return Ok(());
        }
        if now.duration_since(self.last_sent) > KEEPALIVE_EVERY && self.outbox.is_empty() {
            let mut keepalive = Vec::new();
            wire::put_keepalive(&mut keepalive);
            self.send(Arc::new(keepalive))
                .map_err(|error| format!("cannot write: {error}"))?;
        }
        // One that does not read cannot know whether it was spoken to.
        if self.reads && !self.hold.is_zero() && now.duration_since(self.last_heard) > self.hold {
            return Err(format!("the daemon said nothing for {:?}", self.hold));
        }
        Ok(())
    }

    /// Closes the socket without a word.
    pub(crate) fn close(&mut self) {
        self.stream = None;
        self.phase = Phase::Idle;
        self.partial.clear();
        self.outbox.clear();
    }

    fn open_stream(&self) -> io::Result<&TcpStream> {
        self.stream
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// The port that IANA gave BGP.
pub const BGP_PORT: u16 = 179;
const READS_PER_TURN: usize = 4;
