//! A few hosts on cables of their own, with real processes on them: what tests need that need no lab.
//!
//! Every name carries the process id; everything goes with the value, also on panic.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Hosts, each a network namespace and a folder.
pub(crate) struct Net {
    name: String,
    folder: tempfile::TempDir,
    hosts: Vec<String>,
    children: Vec<Child>,
}

/// A process that [`Net::start`] started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started(usize);

impl Net {
    /// The hosts, with nothing but `lo` up.
    pub(crate) fn new(hosts: &[&str]) -> Self {
        // Several of them may be alive in one process.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut net = Self {
            name: format!("ct{}x{number}", std::process::id()),
            folder: tempfile::tempdir().unwrap(),
            hosts: Vec::new(),
            children: Vec::new(),
        };
        for host in hosts {
            net.hosts.push((*host).to_owned());
            ip(&format!("netns add {}", net.namespace(host)));
            net.ip(host, "link set lo up");
            std::fs::create_dir(net.folder(host)).unwrap();
        }
        net
    }

    /// Name of a host's network namespace.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    /// Where files of a host are, its processes' sockets among them.
    pub(crate) fn folder(&self, host: &str) -> PathBuf {
        self.folder.path().join(host)
    }

    /// `ip` on a host.
    pub(crate) fn ip(&self, host: &str, words: &str) {
        ip(&format!("-n {} {words}", self.namespace(host)));
    }

    /// A cable between two hosts, with an address at each end.
    pub(crate) fn cable(&self, ends: [(&str, &str, &str); 2]) {
        let [(host, interface, _), (other, far, _)] = ends;
        let other = self.namespace(other);
        self.ip(
            host,
            &format!("link add {interface} type veth peer name {far} netns {other}"),
        );
        for (host, interface, address) in ends {
            self.ip(host, &format!("addr add {address} dev {interface}"));
            self.ip(host, &format!("link set {interface} up"));
        }
    }

    /// Hosts on one link, by a switch that is a host of its own.
    pub(crate) fn switch(&self, switch: &str, hosts: &[(&str, &str)]) {
        self.ip(switch, "link add br0 type bridge");
        self.ip(switch, "link set br0 up");
        for (number, (host, address)) in hosts.iter().enumerate() {
            let namespace = self.namespace(host);
            let add = format!("link add p{number} type veth peer name eth0 netns {namespace}");
            self.ip(switch, &add);
            self.ip(switch, &format!("link set p{number} master br0 up"));
            self.ip(host, &format!("addr add {address} dev eth0"));
            self.ip(host, "link set eth0 up");
        }
    }

    /// A program on a host.
    pub(crate) fn command(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(host)])
            .arg(program);
        command
    }

    /// Standard output of a program on a host that must succeed.
    pub(crate) fn output(&self, host: &str, program: &str, arguments: &[&str]) -> String {
        let output = self
            .command(host, program)
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a process that lives at most as long as the net; its output goes to `log` in the host's folder.
    pub(crate) fn start(&mut self, host: &str, mut command: Command) -> Started {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder(host).join("log"))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.children.push(command.spawn().unwrap());
        Started(self.children.len() - 1)
    }

    /// Sends a signal, as `kill` names it.
    pub(crate) fn signal(&self, process: Started, signal: &str) {
        let pid = self.children[process.0].id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(done.success());
    }

    /// How a process ends.
    pub(crate) fn wait(&mut self, process: Started) -> ExitStatus {
        self.children[process.0].wait().unwrap()
    }

    /// Starts `caracal speaker` with manifests; it answers in the host's folder.
    pub(crate) fn start_speaker(&mut self, host: &str, manifests: &str) {
        self.start_speaker_with(host, manifests, &[]);
    }

    /// The same with more arguments.
    pub(crate) fn start_speaker_with(&mut self, host: &str, manifests: &str, more: &[&str]) {
        let folder = self.folder(host);
        let file = folder.join("manifests.yaml");
        std::fs::write(&file, manifests).unwrap();
        let mut command = self.command(host, caracal());
        command
            .args(["speaker", "--node", host, "-f"])
            .arg(file)
            .arg("--run-dir")
            .arg(&folder)
            .arg("--bfd-socket")
            .arg(folder.join("bfd.sock"))
            .args(more);
        self.start(host, command);
    }

    /// What `caracal bgp …` answers about a host, as JSON; its error where it has one.
    pub(crate) fn bgp(&self, host: &str, question: &[&str]) -> Result<Value, String> {
        let output = Command::new(caracal())
            .arg("bgp")
            .args(question)
            .args(["-o", "json", "--run-dir"])
            .arg(self.folder(host))
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Whether as many sessions of a host are up, and none else is there.
    pub(crate) fn sessions_up(&self, host: &str, count: usize) -> Result<(), String> {
        let answer = self.bgp(host, &["peers"])?;
        let peers = answer["peers"].as_array().ok_or("no peers")?;
        let up = peers.iter().filter(|peer| peer["state"] == "Established");
        if up.count() == count && peers.len() == count {
            Ok(())
        } else {
            Err(format!("{host}: {answer}\n{}", self.log(host)))
        }
    }

    /// What the processes of a host wrote.
    pub(crate) fn log(&self, host: &str) -> String {
        std::fs::read_to_string(self.folder(host).join("log")).unwrap_or_default()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for host in &self.hosts {
            if std::thread::panicking() {
                eprintln!("--- log of {host}\n{}", self.log(host));
            }
            let name = self.namespace(host);
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// The program under test.
pub(crate) fn caracal() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_caracal"))
}

fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}

/// Manifests of a speaker that announces `prefixes`, passes on what it learns, and has the given peers.
pub(crate) fn transit_speaker(
    asn: u32,
    router_id: &str,
    peers: &str,
    prefixes: &[String],
) -> String {
    let prefixes: String = prefixes
        .iter()
        .map(|prefix| format!("  - {{cidr: {prefix}}}\n"))
        .collect();
    format!(
        "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec:
  asNumber: {asn}
  routerID: {router_id}
  nodeToNodeMeshEnabled: false
  transit: true
  connectRetryTime: 1s
  originatedPrefixes:
{prefixes}---
{peers}"
    )
}
