//! A node with pods behind veths, each in a namespace of its own.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use caracal_policy::plan::{Binding, EndpointPlan, InterfaceName};

use super::Netns;

/// Ports that every pod serves.
pub(crate) const PORTS: [u16; 3] = [80, 81, 82];
/// The node's own addresses.
pub(crate) const NODE4: &str = "192.0.2.1";
pub(crate) const NODE6: &str = "fd00:ffff::1";
const GATEWAY: &str = "169.254.1.1";

/// A pod namespace with TCP and UDP servers on [`PORTS`], both families.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) name: &'static str,
    pub(crate) addresses: [IpAddr; 2],
    _listeners: Vec<TcpListener>,
    stop: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
    }
}

impl Pod {
    pub(crate) fn interface(&self) -> InterfaceName {
        InterfaceName::new(format!("px-{}", self.name)).unwrap()
    }

    pub(crate) fn endpoint(&self, ingress: Binding, egress: Binding) -> EndpointPlan {
        EndpointPlan {
            addresses: self.addresses.into(),
            ingress,
            egress,
        }
    }
}

pub(crate) struct Node {
    // Before the node's namespace, so that the servers end first.
    pub(crate) pods: Vec<Pod>,
    pub(crate) netns: Netns,
}

impl Node {
    pub(crate) fn new(pods: &[(&'static str, u8)]) -> Option<Self> {
        let netns = Netns::new("node")?;
        netns.sysctl("net/ipv4/ip_forward", "1");
        netns.sysctl("net/ipv6/conf/all/forwarding", "1");
        netns.ip(&format!("addr add {NODE4}/32 dev lo"));
        netns.ip(&format!("addr add {NODE6}/128 dev lo"));
        let pods = pods
            .iter()
            .map(|(name, host)| pod(&netns, name, *host))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { pods, netns })
    }

    pub(crate) fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name == name).unwrap()
    }
}

fn pod(node: &Netns, name: &'static str, host: u8) -> Option<Pod> {
    let netns = Netns::new(name)?;
    let v4 = IpAddr::from([10, 9, 0, host]);
    let v6: IpAddr = format!("fd00::{host}").parse().unwrap();
    let link = format!("px-{name}");
    netns.sysctl("net/ipv6/conf/default/accept_dad", "0");
    node.ip(&format!(
        "link add {link} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {}",
        netns.name
    ));
    node.ip(&format!("addr add fe80::1/64 dev {link} nodad"));
    node.ip(&format!("link set {link} up"));
    netns.ip(&format!("addr add {v4}/32 dev eth0"));
    netns.ip(&format!("addr add {v6}/128 dev eth0 nodad"));
    netns.ip("link set eth0 up");
    netns.ip(&format!("route add {GATEWAY} dev eth0 scope link"));
    netns.ip(&format!(
        "neigh replace {GATEWAY} lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent"
    ));
    netns.ip(&format!("route add default via {GATEWAY} src {v4}"));
    // No permanent neighbour for fe80::1 nor for the pod's IPv6 address: neighbour discovery has to
    // pass the policy table in both directions.
    netns.ip(&format!(
        "-6 route add default via fe80::1 dev eth0 src {v6}"
    ));
    node.ip(&format!(
        "route add {v4}/32 dev {link} scope link src {NODE4}"
    ));
    node.ip(&format!("-6 route add {v6}/128 dev {link} src {NODE6}"));

    let stop = Arc::new(AtomicBool::new(false));
    let (mut listeners, mut servers) = (Vec::new(), Vec::new());
    netns.run(|| {
        for address in [v4, v6] {
            for port in PORTS {
                let address = SocketAddr::new(address, port);
                listeners.push(TcpListener::bind(address).unwrap());
                let socket = UdpSocket::bind(address).unwrap();
                let stop = Arc::clone(&stop);
                socket
                    .set_read_timeout(Some(Duration::from_millis(50)))
                    .unwrap();
                servers.push(std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                            let _ = socket.send_to(&buffer[..length], peer);
                        }
                    }
                }));
            }
        }
    });
    Some(Pod {
        netns,
        name,
        addresses: [v4, v6],
        _listeners: listeners,
        stop,
        servers,
    })
}
