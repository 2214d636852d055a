//! Hosts in network namespaces of their own.

#[path = "../common/until.rs"]
mod waiting;

use std::fs::File;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use caracal_bgp_speaker::config::ListenConfig;
use caracal_bgp_speaker::net::{Floors, Incoming, Keychain, Listeners};
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

pub(crate) use waiting::{DEADLINE, until};

/// How long something that must not happen is given to happen.
pub(crate) const NEVER: Duration = Duration::from_millis(1500);
pub(crate) const PORT: u16 = 179;

/// A namespace, and a runtime whose threads live in it. Gone when dropped, also by a panic.
pub(crate) struct Host {
    pub(crate) name: String,
    runtime: Option<Runtime>,
}

/// `N` hosts without links, or `None`, said aloud, where this machine cannot have them.
pub(crate) fn hosts<const N: usize>(tag: &str) -> Option<[Host; N]> {
    if !nix::unistd::geteuid().is_root() {
        caracal_skip::missing!("network namespaces need root");
        return None;
    }
    let unique = format!("cnet{}{tag}", std::process::id());
    Some(std::array::from_fn(|number| {
        Host::new(format!("{unique}{number}"))
    }))
}

impl Host {
    fn new(name: String) -> Self {
        run("ip", &["netns", "add", &name]);
        let mut host = Self {
            name,
            runtime: None,
        };
        host.ip(&["link", "set", "lo", "up"]);
        let runtime = host.inside(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
        });
        host.runtime = Some(runtime);
        host
    }

    /// Runs `ip` in the namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        run("ip", &[&["-n", &self.name], arguments].concat());
    }

    /// Runs many commands of `ip` in the namespace at once.
    pub(crate) fn ip_batch(&self, commands: &str) {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(commands.as_bytes()).unwrap();
        self.ip(&["-batch", file.path().to_str().unwrap()]);
    }

    /// Writes a sysctl of the namespace.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        self.inside(|| std::fs::write(format!("/proc/sys/{path}"), value).unwrap());
    }

    /// Runs `body` on a thread within the namespace.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `body` in the host's runtime; what it spawns goes on afterwards.
    pub(crate) fn run<T: Send, F: Future<Output = T>>(&self, body: impl FnOnce() -> F + Send) -> T {
        let runtime = self.runtime.as_ref().unwrap();
        self.inside(|| runtime.block_on(async { body().await }))
    }

    /// A counter of the namespace's TCP, by the name in /proc/net/netstat.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let text =
            self.inside(|| std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap());
        let lines: Vec<&str> = text.lines().collect();
        let pairs = lines
            .chunks(2)
            .flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()));
        let found = pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value);
        found.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// Listens on `address` with `keys`.
    pub(crate) fn listen(&self, address: &str, keys: &Keychain) -> Listening {
        self.listen_guarded(address, keys, &Floors::default())
    }

    /// Listens on `address` with `keys` and `floors`.
    pub(crate) fn listen_guarded(
        &self,
        address: &str,
        keys: &Keychain,
        floors: &Floors,
    ) -> Listening {
        let addrs = vec![address.parse().unwrap()];
        let config = ListenConfig { addrs, port: PORT };
        self.run(|| async {
            let (mut listeners, faults) = Listeners::bind(&config, keys, floors).unwrap();
            assert!(faults.is_empty(), "{faults:?}");
            let (arrivals, incoming) = mpsc::channel(64);
            listeners.serve(&arrivals);
            Listening {
                listeners,
                incoming,
            }
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Listeners, and what they accept.
pub(crate) struct Listening {
    pub(crate) listeners: Listeners,
    pub(crate) incoming: mpsc::Receiver<Vec<Incoming>>,
}

impl Listening {
    /// The next connection, if one comes soon.
    pub(crate) async fn next(&mut self) -> Option<Incoming> {
        let batch = tokio::time::timeout(NEVER, self.incoming.recv()).await;
        let mut batch = batch.ok()?.unwrap();
        assert_eq!(batch.len(), 1, "{batch:?}");
        batch.pop()
    }
}

/// Joins two hosts by a cable; interfaces are up, and addresses usable at once.
pub(crate) fn link(a: (&Host, &str), b: (&Host, &str)) {
    run(
        "ip",
        &[
            "link", "add", a.1, "netns", &a.0.name, "type", "veth", "peer", "name", b.1, "netns",
            &b.0.name,
        ],
    );
    for (host, interface) in [a, b] {
        // Nobody else is on the cable who could have our address.
        host.sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0");
        host.ip(&["link", "set", interface, "up"]);
    }
}

/// Joins the `e1` of hosts by a switch.
pub(crate) fn join(hosts: &[&Host], switch: &Host) {
    switch.ip(&["link", "add", "br0", "type", "bridge"]);
    switch.ip(&["link", "set", "br0", "up"]);
    for (number, host) in hosts.iter().enumerate() {
        let port = format!("p{}", number + 1);
        link((host, "e1"), (switch, &port));
        switch.ip(&["link", "set", &port, "master", "br0"]);
    }
}

/// Gives `address` to an interface.
pub(crate) fn add_address(host: &Host, interface: &str, address: &str) {
    let mut words = vec!["addr", "add", address, "dev", interface];
    if address.contains(':') {
        words.push("nodad");
    }
    host.ip(&words);
}

/// The link-local address of an interface.
pub(crate) fn link_local(host: &Host, interface: &str) -> IpAddr {
    let look = || {
        let output = Command::new("ip")
            .args([
                "-n", &host.name, "-o", "-6", "addr", "show", "dev", interface,
            ])
            .args(["scope", "link", "-tentative"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let word = text
            .split_whitespace()
            .find(|word| word.starts_with("fe80:"))?;
        word.split('/').next()?.parse().ok()
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(address) = look() {
            return address;
        }
        assert!(
            Instant::now() < deadline,
            "{interface} has no link-local address"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

pub(crate) fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, PORT)
}

/// Whether what is written on one end arrives at the other.
pub(crate) async fn carries(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    from.write_all(b"word").await.unwrap();
    let mut word = [0; 4];
    let read = tokio::time::timeout(NEVER, to.read_exact(&mut word)).await;
    matches!(read, Ok(Ok(_))) && word == *b"word"
}
