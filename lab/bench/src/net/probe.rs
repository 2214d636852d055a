//! Traffic through the daemon's namespace: a thousand packets a second in each of several flows.
//!
//! Owns sending, receiving and what the gaps mean. Does not own the routes that it follows.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, recv, setsockopt, socket,
    sockopt,
};

use super::arena::Arena;
use super::netns::pin;

/// Flows: with a hash over ports, a chance of one in thirty thousand that all of them take one of two ways.
pub const FLOWS: usize = 16;
const PORT: u16 = 9000;
const INTERVAL: Duration = Duration::from_millis(1);

/// A packet that arrived.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: Instant,
    link: usize,
    number: u32,
}

/// What came, by flow.
#[derive(Debug, Default)]
pub struct Log {
    flows: Vec<Vec<Arrival>>,
    failed: Option<String>,
}

/// What a failure did to the flows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damage {
    /// From the failure until the last flow that lost packets had one through again; zero when none was lost.
    pub restored: Duration,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Flows that lost any.
    pub flows: usize,
}

impl Log {
    /// Which flows have had a packet over `link` at or after `since`.
    pub fn flows_on(&self, link: usize, since: Instant) -> usize {
        let on = |arrivals: &&Vec<Arrival>| {
            let recent = arrivals
                .iter()
                .rev()
                .take_while(|arrival| arrival.at >= since);
            recent.take(1).any(|arrival| arrival.link == link)
        };
        self.flows.iter().filter(on).count()
    }

    /// The flows that have had a packet since `since` over any link but `dead`.
    pub fn flowing(&self, since: Instant, dead: Option<usize>) -> usize {
        let alive = |arrivals: &&Vec<Arrival>| {
            let last = arrivals
                .iter()
                .rev()
                .find(|arrival| Some(arrival.link) != dead);
            last.is_some_and(|arrival| arrival.at >= since)
        };
        self.flows.iter().filter(alive).count()
    }

    /// What happened after `failure`, when what comes over `dead` goes nowhere from then on.
    pub fn damage(&self, failure: Instant, dead: Option<usize>) -> Damage {
        let mut damage = Damage {
            restored: Duration::ZERO,
            lost: 0,
            flows: 0,
        };
        for arrivals in &self.flows {
            let delivered = |arrival: &&Arrival| arrival.at < failure || Some(arrival.link) != dead;
            let mut last: Option<Arrival> = None;
            let mut lost = 0;
            for arrival in arrivals.iter().filter(delivered) {
                if let Some(last) = last
                    && arrival.at >= failure
                    && arrival.number > last.number + 1
                {
                    lost += u64::from(arrival.number - last.number - 1);
                    damage.restored = damage.restored.max(arrival.at.duration_since(failure));
                }
                last = Some(*arrival);
            }
            damage.lost += lost;
            damage.flows += usize::from(lost > 0);
        }
        damage
    }
}

/// The flows, which run until it is dropped.
#[derive(Debug)]
pub struct Probe {
    log: Arc<Mutex<Log>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Probe {
    /// Starts flows from the arena's prober to `destinations`, addresses that lie behind the generator's end of
    /// every link.
    ///
    /// # Errors
    /// There is no prober, or sockets cannot be had.
    pub fn start(
        arena: &Arena,
        destinations: &[Ipv4Addr],
        core: Option<usize>,
    ) -> anyhow::Result<Self> {
        let Some(prober) = &arena.prober else {
            bail!("the arena has no prober");
        };
        let own: String = destinations
            .iter()
            .map(|address| format!("address add {address}/32 dev lo\n"))
            .collect();
        arena.generator.ip(&own)?;
        let receivers = arena.generator.run(None, || {
            let ends = arena.links.iter();
            ends.map(|link| receiver(&link.generator_end))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let senders = prober.run(None, || {
            (0..FLOWS)
                .map(|flow| {
                    let to = destinations[flow % destinations.len()];
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                    socket.connect((to, PORT))?;
                    Ok(socket)
                })
                .collect::<std::io::Result<Vec<_>>>()
                .context("cannot open a UDP socket")
        })?;
        let log = Arc::new(Mutex::new(Log {
            flows: vec![Vec::new(); FLOWS],
            failed: None,
        }));
        let end = Arc::new(AtomicBool::new(false));
        let mut probe = Self {
            log: log.clone(),
            end: end.clone(),
            threads: Vec::new(),
        };
        let ended = end.clone();
        probe.spawn("probe-receiver", core, move || {
            receive(&receivers, &log, &ended);
        })?;
        probe.spawn("probe-sender", core, move || transmit(&senders, &end))?;
        Ok(probe)
    }

    /// What has come so far.
    ///
    /// # Errors
    /// The receiver has failed.
    pub fn log(&self) -> anyhow::Result<MutexGuard<'_, Log>> {
        let log = self.log.lock().unwrap_or_else(|poison| poison.into_inner());
        match &log.failed {
            Some(reason) => bail!("the probes cannot be received: {reason}"),
            None => Ok(log),
        }
    }

    fn spawn(
        &mut self,
        name: &str,
        core: Option<usize>,
        work: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<()> {
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // A thread that cannot be pinned measures all the same.
                let _ = pin(core);
                work();
            });
        self.threads.push(thread.context("cannot start a thread")?);
        Ok(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn receiver(interface: &str) -> anyhow::Result<OwnedFd> {
    let descriptor = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    setsockopt(&descriptor, sockopt::BindToDevice, &interface.into())
        .with_context(|| format!("cannot bind to {interface}"))?;
    setsockopt(&descriptor, sockopt::RcvBuf, &(4 << 20))?;
    let any = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT));
    bind(descriptor.as_raw_fd(), &any).context("cannot bind a UDP socket")?;
    Ok(descriptor)
}

fn receive(sockets: &[OwnedFd], log: &Mutex<Log>, end: &AtomicBool) {
    let mut packet = [0; 64];
    while !end.load(Ordering::Relaxed) {
        let mut descriptors: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut descriptors, PollTimeout::from(20_u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                log.lock()
                    .unwrap_or_else(|poison| poison.into_inner())
                    .failed = Some(error.to_string());
                return;
            }
        }
        let mut log = log.lock().unwrap_or_else(|poison| poison.into_inner());
        for (link, socket) in sockets.iter().enumerate() {
            while let Ok(8) = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                let word = |at: usize| {
                    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
                };
                let arrival = Arrival {
                    at: Instant::now(),
                    link,
                    number: word(4),
                };
                if let Some(flow) = log.flows.get_mut(word(0) as usize) {
                    flow.push(arrival);
                }
            }
        }
    }
}

fn transmit(sockets: &[UdpSocket], end: &AtomicBool) {
    let mut next = Instant::now();
    let mut number = 0_u32;
    while !end.load(Ordering::Relaxed) {
        for (flow, socket) in sockets.iter().enumerate() {
            let mut packet = [0; 8];
            packet[..4].copy_from_slice(&(flow as u32).to_be_bytes());
            packet[4..].copy_from_slice(&number.to_be_bytes());
            // What does not go out counts as lost, and so it should: an error here is the router's word.
            let _ = socket.send(&packet);
        }
        number += 1;
        next += INTERVAL;
        // The pace of the traffic, not a wait for anything.
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(begin: Instant, flows: &[&[(u64, usize, u32)]]) -> Log {
        let arrival = |(millis, link, number): &(u64, usize, u32)| Arrival {
            at: begin + Duration::from_millis(*millis),
            link: *link,
            number: *number,
        };
        Log {
            flows: flows
                .iter()
                .map(|flow| flow.iter().map(arrival).collect())
                .collect(),
            failed: None,
        }
    }

    #[test]
    fn damage_is_what_was_lost_after_the_failure_and_how_long_it_went_on() {
        let begin = Instant::now();
        let failure = begin + Duration::from_millis(10);
        let log = log(
            begin,
            &[
                // Unharmed, though late once.
                &[(9, 0, 9), (10, 0, 10), (40, 0, 11)],
                // Lost three, and was back after 4 ms.
                &[(9, 1, 9), (14, 0, 13)],
                // Lost some before the failure, which is not its fault.
                &[(5, 0, 1), (9, 0, 9), (10, 0, 10)],
                // Went on over the dead link for a while.
                &[(9, 1, 9), (10, 1, 10), (11, 1, 11), (12, 0, 12)],
            ],
        );
        let damage = log.damage(failure, Some(1));
        assert_eq!(
            damage,
            Damage {
                restored: Duration::from_millis(4),
                lost: 3 + 2,
                flows: 2,
            }
        );
        assert_eq!(log.flowing(failure, Some(1)), 4);
        assert_eq!(log.flowing(failure + Duration::from_millis(5), None), 1);
        assert_eq!(log.flows_on(0, begin), 4);
        assert_eq!(log.flows_on(1, begin), 0);
    }
}
