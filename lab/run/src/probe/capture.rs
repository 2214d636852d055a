//! Captures in the middle of every cable at once: what the outer header of each packet really says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use caracal_lab_topology::Plan;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::namespace::Namespace;

/// What pods and hosts send with; Linux's default.
const INITIAL_TTL: u8 = 64;

/// IANA protocol numbers of IP in IP, IPv6 in IP and GRE.
const TUNNEL_PROTOCOLS: [u8; 3] = [4, 41, 47];

/// IANA protocol number of UDP.
const UDP: u8 = 17;

/// UDP ports of VXLAN and Geneve.
const TUNNEL_PORTS: [u16; 2] = [4789, 6081];

/// A matrix of thousands of cells in one second must fit while the reader is not scheduled.
const RECEIVE_BUFFER: usize = 64 << 20;

/// Kernel's mark for a frame that leaves through the port instead of entering by it.
const PACKET_OUTGOING: u8 = 4;

/// A running capture.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Observed>>,
}

/// What was seen on the cables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Packets between watched addresses.
    pub packets: u64,
    /// Cables that carried them, by number.
    pub links: BTreeSet<usize>,
    /// Pairs of watched addresses that were seen as outer addresses.
    pub pairs: BTreeSet<(IpAddr, IpAddr)>,
    /// Largest packet between watched addresses that no router may fragment, in octets, by family.
    pub largest_whole: [u16; 2],
    /// What must not be: encapsulation, or a TTL that did not fall by the hop count; a sample of each kind.
    pub violations: BTreeMap<String, u64>,
}

/// The watched addresses with the box that they sit on and how many hops away from its cables they are:
/// 1 for a pod, 0 for the box's own.
pub type Watched = BTreeMap<IpAddr, (String, u8)>;

impl Capture {
    /// Starts to read every cable.
    ///
    /// # Errors
    /// The wire namespace cannot be entered or no packet socket be had.
    pub fn start(wire: &Namespace, plan: &Plan, watched: Watched) -> anyhow::Result<Self> {
        let (socket, ports) = wire.run(|| Ok((packet_socket()?, ports(plan)?)))?;
        let distances: BTreeMap<String, BTreeMap<String, u8>> = plan
            .nodes
            .keys()
            .map(|name| {
                let from = plan.distances(name);
                (
                    name.clone(),
                    from.into_iter()
                        .map(|(to, hops)| (to.to_owned(), hops))
                        .collect(),
                )
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || {
                let mut observed = Observed::default();
                read(&socket, &stopped, |interface, packet| {
                    if let Some(port) = ports.get(&interface) {
                        observed.judge(packet, port, &distances, &watched);
                    }
                })?;
                Ok(observed)
            })
            .context("cannot start a thread")?;
        Ok(Self { stop, thread })
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// The socket failed on the way.
    pub fn finish(self) -> anyhow::Result<Observed> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(observed) => observed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// A cable's port: which cable, and which box sends into it.
struct Port {
    link: usize,
    sender: String,
}

fn ports(plan: &Plan) -> anyhow::Result<BTreeMap<usize, Port>> {
    let mut ports = BTreeMap::new();
    for link in &plan.links {
        for (suffix, end) in [('u', &link.upper), ('d', &link.lower)] {
            let name = format!("w{}{suffix}", link.index);
            let index = nix::net::if_::if_nametoindex(name.as_str())
                .with_context(|| format!("there is no cable port {name}"))?;
            ports.insert(
                index as usize,
                Port {
                    link: link.index,
                    sender: end.node.clone(),
                },
            );
        }
    }
    Ok(ports)
}

fn packet_socket() -> anyhow::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("cannot open a packet socket")?;
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
    Ok(fd)
}

/// Hands every packet that enters by an interface to `judge`, with the interface's index.
fn read(
    socket: &OwnedFd,
    stop: &AtomicBool,
    mut judge: impl FnMut(usize, &Packet),
) -> anyhow::Result<()> {
    let mut frame = [0; 128];
    while !stop.load(Ordering::Relaxed) {
        let (length, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            Ok((length, Some(from))) => (length.min(frame.len()), from),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("cannot read packets"),
        };
        if from.pkttype() == PACKET_OUTGOING {
            continue;
        }
        if let Some(packet) = Packet::parse(&frame[..length]) {
            judge(from.ifindex(), &packet);
        }
    }
    Ok(())
}

/// Counts, on the management network, the packets that have no business there.
pub struct StrayCounter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl StrayCounter {
    /// Starts to count packets of which either address is none of the network's own.
    ///
    /// # Errors
    /// The namespace cannot be entered or no packet socket be had.
    pub fn start(management: &Namespace, own: fn(IpAddr) -> bool) -> anyhow::Result<Self> {
        let socket = management.run(packet_socket)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("strays".into())
            .spawn(move || {
                let mut strays = 0;
                read(&socket, &stopped, |_, packet| {
                    strays += u64::from(!own(packet.source) || !own(packet.target));
                })?;
                Ok(strays)
            })
            .context("cannot start a thread")?;
        Ok(Self { stop, thread })
    }

    /// Ends and counts.
    ///
    /// # Errors
    /// The socket failed on the way.
    pub fn finish(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(strays) => strays,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Observed {
    fn judge(
        &mut self,
        packet: &Packet,
        port: &Port,
        distances: &BTreeMap<String, BTreeMap<String, u8>>,
        watched: &Watched,
    ) {
        if let Some(tunnel) = packet.tunnel() {
            self.violate(format!(
                "{tunnel} from {} to {}",
                packet.source, packet.target
            ));
        }
        let (Some((box_, hops)), Some(_)) =
            (watched.get(&packet.source), watched.get(&packet.target))
        else {
            return;
        };
        self.packets += 1;
        if packet.whole {
            let largest = &mut self.largest_whole[usize::from(packet.source.is_ipv6())];
            *largest = packet.length.max(*largest);
        }
        self.links.insert(port.link);
        self.pairs.insert((packet.source, packet.target));
        let distance = distances
            .get(box_)
            .and_then(|from| from.get(&port.sender))
            .copied()
            .unwrap_or_default();
        let expected = INITIAL_TTL - hops - distance;
        if packet.ttl != expected {
            self.violate(format!(
                "TTL {} instead of {expected} from {} as sent by {}",
                packet.ttl, packet.source, port.sender
            ));
        }
    }

    fn violate(&mut self, what: String) {
        /// A broken run could name every packet; a report needs a few.
        const SAMPLES: usize = 20;
        if self.violations.len() < SAMPLES || self.violations.contains_key(&what) {
            *self.violations.entry(what).or_default() += 1;
        }
    }
}

/// The outer header of a frame.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    source: IpAddr,
    target: IpAddr,
    ttl: u8,
    protocol: u8,
    target_port: Option<u16>,
    /// Octets of the whole packet.
    length: u16,
    /// Don't Fragment is set; always so for IPv6.
    whole: bool,
}

impl Packet {
    fn parse(frame: &[u8]) -> Option<Self> {
        let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
        let packet = &frame[14..];
        let (source, target, ttl, protocol, header): (IpAddr, IpAddr, u8, u8, usize) =
            match ethertype {
                0x0800 => {
                    let octets =
                        |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
                    (
                        Ipv4Addr::from(octets(12)?).into(),
                        Ipv4Addr::from(octets(16)?).into(),
                        *packet.get(8)?,
                        *packet.get(9)?,
                        usize::from(packet.first()? & 0x0f) * 4,
                    )
                }
                0x86dd => {
                    let octets = |at: usize| -> Option<[u8; 16]> {
                        packet.get(at..at + 16)?.try_into().ok()
                    };
                    (
                        Ipv6Addr::from(octets(8)?).into(),
                        Ipv6Addr::from(octets(24)?).into(),
                        *packet.get(7)?,
                        *packet.get(6)?,
                        40,
                    )
                }
                _ => return None,
            };
        let port = || {
            let octets = packet.get(header + 2..header + 4)?;
            Some(u16::from_be_bytes(octets.try_into().ok()?))
        };
        let target_port = if protocol == UDP { port() } else { None };
        let sixteen = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
        };
        let (length, whole) = match source {
            IpAddr::V4(_) => (sixteen(2)?, sixteen(6)? & 0x4000 != 0),
            IpAddr::V6(_) => (sixteen(4)?.saturating_add(40), true),
        };
        Some(Self {
            source,
            target,
            ttl,
            protocol,
            target_port,
            length,
            whole,
        })
    }

    fn tunnel(&self) -> Option<String> {
        if TUNNEL_PROTOCOLS.contains(&self.protocol) {
            return Some(format!("encapsulation (protocol {})", self.protocol));
        }
        self.target_port
            .filter(|port| TUNNEL_PORTS.contains(port))
            .map(|port| format!("encapsulation (udp/{port})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 63, protocol, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34]);
        frame.extend(port.to_be_bytes());
        frame.extend([0, 8, 0, 0]);
        frame
    }

    #[test]
    fn the_outer_header_is_read_and_tunnels_are_told() {
        let plain = Packet::parse(&ipv4(17, 8080)).expect("a whole header");
        assert_eq!((plain.ttl, plain.target_port), (63, Some(8080)));
        assert_eq!(plain.source.to_string(), "10.0.0.1");
        assert_eq!(plain.tunnel(), None);
        for (protocol, port) in [(4, 0), (41, 0), (47, 0), (17, 4789), (17, 6081)] {
            assert!(
                Packet::parse(&ipv4(protocol, port))
                    .expect("whole")
                    .tunnel()
                    .is_some()
            );
        }
    }

    #[test]
    fn a_truncated_frame_is_no_packet() {
        let frame = ipv4(6, 80);
        for length in 0..30 {
            assert_eq!(Packet::parse(&frame[..length]), None, "{length}");
        }
    }
}
