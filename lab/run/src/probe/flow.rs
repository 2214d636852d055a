//! Steady flows of numbered datagrams, one way, 1,000 a second each: what a fault costs is what is missing.
//!
//! All namespaces share one clock, so the delay is one way and a gap's length is its number of datagrams in
//! milliseconds.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::namespace::Namespace;

/// Time between two datagrams of a flow.
pub const INTERVAL: Duration = Duration::from_millis(1);

/// Where flows are received: a port that no echo server uses.
const PORT: u16 = 40_000;

/// After the last datagram: the slowest path on one machine is far quicker.
const DRAIN: Duration = Duration::from_millis(300);

/// Receive buffer: a receiver that is not scheduled for a second still loses nothing.
const RECEIVE_BUFFER: usize = 16 << 20;

/// A flow's ends. Several flows between the same ends differ in source port and so in path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Name for reports, for example `shop/frontend-1 -> data/db-1 ipv4 #2`.
    pub name: String,
    /// Where it starts.
    pub from: Namespace,
    /// Where it ends.
    pub to: Namespace,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub target: IpAddr,
}

/// What a flow lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowLoss {
    /// The flow's name.
    pub name: String,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that never arrived.
    pub lost: u64,
    /// Longest run of consecutive losses.
    pub longest_gap: u64,
    /// When the longest run began, since the flows were started.
    pub gap_at: Option<Duration>,
}

type Worker<T> = JoinHandle<anyhow::Result<T>>;

/// Datagrams sent, by number of the flow.
type Sent = Vec<(u32, u64)>;

/// Bit sets of the sequence numbers received, by number of the flow.
type Arrived = Vec<(u32, Vec<u64>)>;

/// Running flows.
pub struct Flows {
    flows: Vec<Flow>,
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    senders: Vec<Worker<Sent>>,
    receivers: Vec<Worker<Arrived>>,
    started: Instant,
}

impl Flows {
    /// Starts every flow. One thread sends for a namespace and one receives.
    ///
    /// # Errors
    /// A namespace cannot be entered or a socket not be bound.
    pub fn start(flows: Vec<Flow>) -> anyhow::Result<Self> {
        let stop_sending = Arc::new(AtomicBool::new(false));
        let stop_receiving = Arc::new(AtomicBool::new(false));
        let mut receivers = Vec::new();
        let mut targets: BTreeMap<std::path::PathBuf, &Namespace> = BTreeMap::new();
        let mut sources: BTreeMap<std::path::PathBuf, (&Namespace, Vec<u32>)> = BTreeMap::new();
        for (number, flow) in flows.iter().enumerate() {
            targets.insert(flow.to.path().to_owned(), &flow.to);
            let (_, numbers) = sources
                .entry(flow.from.path().to_owned())
                .or_insert_with(|| (&flow.from, Vec::new()));
            numbers.push(number as u32);
        }
        for namespace in targets.into_values() {
            let socket = namespace.run(receiving_socket)?;
            let stop = Arc::clone(&stop_receiving);
            receivers.push(namespace.spawn("receiver", move || receive(&socket, &stop))?);
        }
        let mut senders = Vec::new();
        for (namespace, numbers) in sources.into_values() {
            let sockets = namespace.run(|| {
                numbers
                    .iter()
                    .map(|&number| sending_socket(number, &flows[number as usize]))
                    .collect::<anyhow::Result<Vec<_>>>()
            })?;
            let stop = Arc::clone(&stop_sending);
            senders.push(namespace.spawn("sender", move || Ok(send(&sockets, &stop)))?);
        }
        Ok(Self {
            flows,
            stop_sending,
            stop_receiving,
            senders,
            receivers,
            started: Instant::now(),
        })
    }

    /// Time since the start, to relate gaps to events.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the flows and says what each lost.
    ///
    /// # Errors
    /// A sender or receiver failed on its way.
    pub fn finish(self) -> anyhow::Result<Vec<FlowLoss>> {
        self.stop_sending.store(true, Ordering::Relaxed);
        let mut sent = BTreeMap::new();
        for sender in self.senders {
            sent.extend(join(sender)?);
        }
        std::thread::sleep(DRAIN);
        self.stop_receiving.store(true, Ordering::Relaxed);
        let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for receiver in self.receivers {
            seen.extend(join(receiver)?);
        }
        Ok(self
            .flows
            .iter()
            .enumerate()
            .map(|(number, flow)| {
                let number = number as u32;
                let arrived = seen.get(&number).map_or(&[][..], Vec::as_slice);
                account(
                    &flow.name,
                    sent.get(&number).copied().unwrap_or_default(),
                    arrived,
                )
            })
            .collect())
    }
}

fn join<T>(thread: Worker<T>) -> anyhow::Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// `arrived` is a bit set of the sequence numbers that were received.
fn account(name: &str, sent: u64, arrived: &[u64]) -> FlowLoss {
    let (mut lost, mut gap, mut longest, mut start) = (0, 0, 0, None);
    for sequence in 0..sent {
        let word = arrived
            .get((sequence / 64) as usize)
            .copied()
            .unwrap_or_default();
        if word >> (sequence % 64) & 1 == 1 {
            gap = 0;
            continue;
        }
        lost += 1;
        gap += 1;
        if gap > longest {
            longest = gap;
            start = Some(INTERVAL * (sequence + 1 - gap) as u32);
        }
    }
    FlowLoss {
        name: name.to_owned(),
        sent,
        lost,
        longest_gap: longest,
        gap_at: start,
    }
}

fn receiving_socket() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, PORT))
        .with_context(|| format!("cannot bind udp/{PORT}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::RcvBufForce,
        &RECEIVE_BUFFER,
    )
    .context("cannot enlarge a receive buffer")?;
    Ok(socket)
}

fn sending_socket(number: u32, flow: &Flow) -> anyhow::Result<(u32, UdpSocket)> {
    let socket = UdpSocket::bind(SocketAddr::new(flow.source, 0))
        .with_context(|| format!("cannot bind {}", flow.source))?;
    let target = SocketAddr::new(flow.target, PORT);
    socket
        .connect(target)
        .with_context(|| format!("cannot address {target}"))?;
    socket.set_nonblocking(true)?;
    Ok((number, socket))
}

/// Sends a round of all flows every millisecond; a late round is made up for, so that none is left out.
fn send(sockets: &[(u32, UdpSocket)], stop: &AtomicBool) -> Sent {
    let start = Instant::now();
    let mut sequence: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = start + INTERVAL * sequence as u32;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        for (number, socket) in sockets {
            let mut datagram = [0; 12];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            datagram[4..].copy_from_slice(&sequence.to_be_bytes());
            // A datagram that the kernel refuses (no route) is one that does not arrive: a loss.
            let _ = socket.send(&datagram);
        }
        sequence += 1;
    }
    sockets
        .iter()
        .map(|(number, _)| (*number, sequence))
        .collect()
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> anyhow::Result<Arrived> {
    let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut datagram = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let length = match socket.recv(&mut datagram) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("cannot receive probes"),
        };
        let Some((number, sequence)) = parse(&datagram[..length]) else {
            continue;
        };
        let words = seen.entry(number).or_default();
        let word = (sequence / 64) as usize;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (sequence % 64);
    }
    Ok(seen.into_iter().collect())
}

fn parse(datagram: &[u8]) -> Option<(u32, u64)> {
    let (number, sequence) = datagram.split_first_chunk::<4>()?;
    Some((
        u32::from_be_bytes(*number),
        u64::from_be_bytes(sequence.try_into().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(sequences: &[u64]) -> Vec<u64> {
        let mut words = vec![0; 4];
        for sequence in sequences {
            words[(sequence / 64) as usize] |= 1 << (sequence % 64);
        }
        words
    }

    #[test]
    fn losses_are_counted_and_the_longest_run_is_placed_in_time() {
        let all: Vec<u64> = (0..100)
            .filter(|n| *n != 3 && !(70..80).contains(n))
            .collect();
        let loss = account("f", 100, &bits(&all));
        assert_eq!((loss.lost, loss.longest_gap), (11, 10));
        assert_eq!(loss.gap_at, Some(Duration::from_millis(70)));
    }

    #[test]
    fn a_flow_of_which_nothing_arrives_loses_everything() {
        let loss = account("f", 10, &[]);
        assert_eq!((loss.lost, loss.longest_gap), (10, 10));
    }

    #[test]
    fn nothing_lost_has_no_gap() {
        let loss = account("f", 64, &bits(&(0..64).collect::<Vec<_>>()));
        assert_eq!((loss.lost, loss.gap_at), (0, None));
    }
}
