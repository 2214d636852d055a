//! A node in a namespace of its own: embedded API server beside it, a real agent process in it, pods
//! wired by the real plugin.
//!
//! Everything has a unique name and goes with the value, also on panic.

#![allow(unreachable_pub, reason = "pub is what the tests use")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use caracal_fib::netns::NamedNetns;
use serde_json::Value;

mod api;
mod process;
pub mod router;
pub mod traffic;
pub use api::{Api, NODE as NODE_NAME};

/// The address of the API server on the management link, and the node's.
pub const SERVER: &str = "192.0.2.1";
const NODE: &str = "192.0.2.2";

/// The node's loopback addresses.
pub const LOOPBACKS: [&str; 2] = ["10.250.0.1", "fd00:250::1"];

/// Where the agent serves metrics, in the node's namespace.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9179);

/// True where the kernel lets this process do what the tests need; says SKIP where not.
pub fn can_run() -> bool {
    let name = unique("probe");
    match NamedNetns::create(&name) {
        Ok(_) => true,
        Err(error) => {
            caracal_skip::missing!("cannot make network namespaces: {error}");
            false
        }
    }
}

fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ca-{what}-{}-{number}", std::process::id())
}

/// Waits until `look` gives something; fails with what it last saw.
pub fn until<T, E: Debug>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < deadline, "{what}: last seen {last:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program and gives its standard output; fails where it fails.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The node, its API server and its files.
pub struct Rig {
    pub api: Api,
    pub node: NamedNetns,
    pub directory: tempfile::TempDir,
    agent: Option<Child>,
    /// Where the API server is, at the other end of the node's link.
    pub management: NamedNetns,
}

impl Rig {
    /// A node that starts hostile, with an API server that knows the CRDs and the Node object.
    pub fn new() -> Rig {
        let management = NamedNetns::create(&unique("mgmt")).expect("namespace");
        let node = NamedNetns::create(&unique("node")).expect("namespace");
        let (m, n) = (management.name().to_owned(), node.name().to_owned());
        let ip = |arguments: &str| {
            must("ip", &arguments.split(' ').collect::<Vec<_>>());
        };
        ip(&format!(
            "-n {m} link add eth0 type veth peer name eth0 netns {n}"
        ));
        for (namespace, address) in [(&m, SERVER), (&n, NODE)] {
            // Link-local addresses at once: their detection would end amid the tests.
            for key in ["all.accept_dad", "eth0.accept_dad", "eth0.dad_transmits"] {
                let set = format!("net.ipv6.conf.{key}=0");
                must("ip", &["netns", "exec", namespace, "sysctl", "-qw", &set]);
            }
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} addr add {address}/24 dev eth0"));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
        // They come with the carrier, of which the kernel tells up to a second later.
        for namespace in [&m, &n] {
            until("a link-local address", Duration::from_secs(5), || {
                let show = [
                    "-n", namespace, "-6", "addr", "show", "dev", "eth0", "scope", "link",
                ];
                let shown = Command::new("ip").args(show).output().expect("ip runs");
                let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
                let there = shown.contains("fe80::") && !shown.contains("tentative");
                there.then_some(()).ok_or(shown)
            });
        }
        for address in LOOPBACKS {
            let length = if address.contains(':') { 128 } else { 32 };
            ip(&format!("-n {n} addr add {address}/{length} dev lo"));
        }
        let api = Api::start(&management);
        let directory = tempfile::tempdir().expect("directory");
        Rig {
            api,
            node,
            directory,
            agent: None,
            management,
        }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn socket(&self) -> PathBuf {
        self.run_dir().join("cni.sock")
    }

    /// Starts the agent: this test program again, in the node's namespace.
    pub fn start_agent(&mut self) {
        assert!(self.agent.is_none(), "one agent at a time");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("agent.log"))
            .expect("log");
        let child = Command::new("ip")
            .args(["netns", "exec", self.node.name()])
            .arg(std::env::current_exe().expect("own path"))
            .args([
                "common::process::agent_process",
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("AGENT_RUN_DIR", self.run_dir())
            .env("AGENT_API", self.api.url())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.agent = Some(child);
    }

    /// `kill -9`.
    pub fn kill_agent(&mut self) {
        let mut child = self.agent.take().expect("an agent runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// SIGTERM, and waits for the end.
    pub fn stop_agent(&mut self) {
        let mut child = self.agent.take().expect("an agent runs");
        must("kill", &["-TERM", &child.id().to_string()]);
        until("the agent ends", Duration::from_secs(10), || {
            match child.try_wait() {
                Ok(Some(status)) => Ok(status),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Waits until the agent can serve ADD.
    pub fn ready(&self) {
        until("the agent is ready", Duration::from_secs(20), || {
            let output = self.plugin("STATUS", "probe", "", "{}");
            if output.status.success() {
                Ok(())
            } else {
                Err((text(&output), self.log()))
            }
        });
    }

    /// Waits until the kernel has not changed for a second and the agent has said so.
    pub fn settled(&self) {
        Self::rests("the node", || (self.kernel_state(), self.api.writes()));
    }

    /// Waits until the agent has said all that it has to say.
    pub fn reported(&self) {
        Self::rests("the agent", || self.api.writes());
    }

    fn rests<T: PartialEq>(what: &str, look: impl Fn() -> T) {
        let mut last = look();
        let mut since = Instant::now();
        until(&format!("{what} rests"), Duration::from_secs(20), || {
            let now = look();
            if now != last {
                last = now;
                since = Instant::now();
            }
            // Longer than the status of a node waits to be written.
            if since.elapsed() > Duration::from_secs(7) {
                Ok(())
            } else {
                Err(since.elapsed())
            }
        });
    }

    /// The end of the agent's log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Calls the plugin as a runtime does.
    pub fn plugin(&self, verb: &str, container: &str, netns: &str, more: &str) -> Output {
        self.plugin_for(verb, container, netns, "", more)
    }

    fn plugin_for(
        &self,
        verb: &str,
        container: &str,
        netns: &str,
        args: &str,
        more: &str,
    ) -> Output {
        let mut configuration: Value = serde_json::from_str(more).expect("JSON");
        configuration["cniVersion"] = "1.1.0".into();
        configuration["name"] = "pods".into();
        configuration["type"] = "caracal".into();
        configuration["socket"] = self.socket().to_str().expect("UTF-8").into();
        let mut child = Command::new(plugin_binary())
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        let stdin = child.stdin.take();
        stdin
            .expect("piped")
            .write_all(configuration.to_string().as_bytes())
            .expect("write");
        child.wait_with_output().expect("the plugin ends")
    }

    /// A namespace for a pod, `lo` up as a runtime leaves it.
    pub fn sandbox(&self) -> NamedNetns {
        let sandbox = NamedNetns::create(&unique("pod")).expect("namespace");
        must("ip", &["-n", sandbox.name(), "link", "set", "lo", "up"]);
        sandbox
    }

    /// ADD; the result.
    pub fn add(&self, pod: &str, container: &str, sandbox: &NamedNetns) -> Value {
        let output = self.try_add(pod, container, sandbox);
        assert!(
            output.status.success(),
            "ADD {pod}: {}\n{}",
            text(&output),
            self.log()
        );
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// ADD, whatever comes of it.
    pub fn try_add(&self, pod: &str, container: &str, sandbox: &NamedNetns) -> Output {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}");
        let path = sandbox.path().to_str().expect("UTF-8").to_owned();
        self.plugin_for("ADD", container, &path, &args, "{}")
    }

    /// DEL; must succeed.
    pub fn del(&self, pod: &str, container: &str, netns: &str) {
        let args = format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}");
        let output = self.plugin_for("DEL", container, netns, &args, "{}");
        assert!(
            output.status.success(),
            "DEL {pod}: {}\n{}",
            text(&output),
            self.log()
        );
    }

    /// Runs a program in the node's namespace.
    pub fn on_node(&self, arguments: &[&str]) -> String {
        inside(&self.node, arguments)
    }

    /// What the agent serves at this moment, by series; why not where it does not.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>, String> {
        let output = Command::new("ip")
            .args(["netns", "exec", self.node.name(), "curl", "-sS"])
            .arg(format!("http://{METRICS}/metrics"))
            .output()
            .expect("curl runs");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = text(&output);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Ok(samples.collect())
    }

    /// Waits until a series is as it should be, and says what it is.
    pub fn until_metric(&self, series: &str, right: impl Fn(f64) -> bool) -> f64 {
        until(series, Duration::from_secs(20), || {
            match self.metrics()?.get(series) {
                Some(value) if right(*value) => Ok(*value),
                value => Err(format!("{value:?}")),
            }
        })
    }

    /// What the kernel of the node holds, in text that is equal when nothing changed.
    pub fn kernel_state(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            (
                "routes",
                self.on_node(&["ip", "-d", "route", "show", "table", "all"]),
            ),
            (
                "routes6",
                self.on_node(&["ip", "-6", "-d", "route", "show", "table", "all"]),
            ),
            ("nexthops", self.on_node(&["ip", "-d", "nexthop", "show"])),
            (
                "neighbors",
                self.on_node(&["ip", "neigh", "show", "nud", "permanent"]),
            ),
            ("links", self.on_node(&["ip", "-d", "link", "show"])),
            ("rules", unowned(&self.on_node(&["nft", "list", "ruleset"]))),
        ])
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut child) = self.agent.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("--- agent log\n{}", self.log());
        }
    }
}

/// A ruleset without the mark of the process that owns it: taking a table over is a write, so the
/// next agent leaves that to its first real change.
fn unowned(ruleset: &str) -> String {
    let kept = ruleset
        .lines()
        .filter(|line| !line.trim_start().starts_with("flags "));
    let without_owner = kept.map(|line| line.split(" # progname").next().unwrap_or(line));
    without_owner.collect::<Vec<_>>().join("\n")
}

/// Runs a program in a namespace and gives its standard output; fails where it fails.
pub fn inside(namespace: &NamedNetns, arguments: &[&str]) -> String {
    must(
        "ip",
        &[&["netns", "exec", namespace.name()], arguments].concat(),
    )
}

/// Whether one echo request is answered within a second.
pub fn pings(namespace: &NamedNetns, target: &str) -> bool {
    Command::new("ip")
        .args([
            "netns",
            "exec",
            namespace.name(),
            "ping",
            "-n",
            "-c1",
            "-W1",
            target,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The addresses of an ADD result, IPv4 first, without lengths.
pub fn addresses(result: &Value) -> Vec<String> {
    let mut addresses: Vec<IpAddr> = result["ips"]
        .as_array()
        .expect("ips")
        .iter()
        .map(|ip| {
            let text = ip["address"].as_str().expect("address");
            text.split('/')
                .next()
                .expect("address")
                .parse()
                .expect("address")
        })
        .collect();
    addresses.sort();
    addresses
        .into_iter()
        .map(|address| address.to_string())
        .collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The plugin, built once per test run.
fn plugin_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let status = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--offline",
                "--package",
                "caracal-cni",
                "--bin",
                "caracal-cni",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("--target-dir")
            .arg(&target)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "build of the plugin: {status}");
        target.join("debug/caracal-cni")
    })
}
