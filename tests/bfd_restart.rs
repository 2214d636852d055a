//! A node's agent is killed with its process group and its whole cgroup, as a container runtime does it,
//! and comes back in another: BFD with the router goes on without a packet that says otherwise, the
//! routes stay, and the C bit that promised so was true.
//!
//! Everything is real: `caracal node`, `caracal bfd` in a cgroup of its own, an API server, BIRD. What
//! the router is sent is counted by its kernel, packet by packet, so a short lapse shows too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caracal_lab::process::until;
use common::is_root;
use common::manifests::{Deployed, allow};
use common::net::{Net, caracal};
use common::server::{Server, ours};
use k8s_openapi::api::rbac::v1::ClusterRole;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// The node's block, and its loopback address.
const ANNOUNCED: [&str; 2] = ["10.64.0.0/26", "10.250.0.1/32"];
/// What the router announces.
const THEIRS: &str = "10.99.0.0/24";

/// Packets of BFD that the router must see while no agent is alive: as many as six times the detection
/// time holds.
const WHILE_DEAD: u64 = 30;

/// Version 2 of cgroups, which can kill a whole one.
fn cgroups() -> Option<PathBuf> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = roots
        .into_iter()
        .find(|root| root.join("cgroup.controllers").exists());
    if root.is_none() {
        caracal_skip::skip!("there is no cgroup v2");
    }
    root.map(Path::to_owned)
}

/// A process alone in a process group and a cgroup of its own.
struct Contained {
    child: Child,
    cgroup: PathBuf,
}

impl Contained {
    /// `None`, and says so, where this machine gives no cgroup that can be killed.
    fn start(root: &Path, name: &str, command: &Command, log: &Path) -> Option<Self> {
        let cgroup = root.join(format!("caracal-{name}-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&cgroup) {
            caracal_skip::skip!("no cgroup {}: {error}", cgroup.display());
            return None;
        }
        if !cgroup.join("cgroup.kill").exists() {
            caracal_skip::skip!("this kernel has no cgroup.kill");
            std::fs::remove_dir(&cgroup).unwrap();
            return None;
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        // Joins the cgroup, then becomes the program, so that nothing of it was ever elsewhere.
        let child = Command::new("sh")
            .arg("-c")
            .arg("echo $$ > \"$CGROUP/cgroup.procs\" && exec \"$0\" \"$@\"")
            .arg(command.get_program())
            .args(command.get_args())
            .env("CGROUP", &cgroup)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        Some(Self { child, cgroup })
    }

    /// Kills all that is in the cgroup and the process group, and takes the cgroup away.
    fn destroy(mut self) {
        self.end();
        assert!(!self.cgroup.exists());
    }

    fn end(&mut self) {
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        let group = Pid::from_raw(self.child.id().try_into().unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        let removed = || match std::fs::remove_dir(&self.cgroup) {
            Err(error) if self.cgroup.exists() => Err(error.to_string()),
            _ => Ok(()),
        };
        let _ = until("the cgroup gone", PATIENCE, removed);
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if self.cgroup.exists() {
            self.end();
        }
    }
}

struct Rig {
    net: Net,
    cgroups: PathBuf,
    server: Server,
    _runtime: tokio::runtime::Runtime,
}

impl Rig {
    fn new(cgroups: PathBuf) -> Self {
        let net = Net::new(&["node", "tor"]);
        net.cable([("node", "e1", "10.0.0.0/31"), ("tor", "e1", "10.0.0.1/31")]);
        net.ip("node", "addr add 10.250.0.1/32 dev lo");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = serve(&net, &runtime);
        let rules = "\
table inet bfd {
  counter independent { }
  counter dependent { }
  counter other { }
  chain input {
    type filter hook input priority 0;
    udp dport 3784 @th,72,8 & 0xc8 == 0xc8 counter name independent
    udp dport 3784 @th,72,8 & 0xc8 == 0xc0 counter name dependent
    udp dport 3784 @th,72,8 & 0xc0 != 0xc0 counter name other
  }
}
";
        let file = net.folder("tor").join("bfd.nft");
        std::fs::write(&file, rules).unwrap();
        net.output("tor", "nft", &["-f", file.to_str().unwrap()]);
        Self {
            net,
            cgroups,
            server,
            _runtime: runtime,
        }
    }

    fn start_bird(&mut self) {
        let folder = self.net.folder("tor");
        let log = folder.join("bird.log");
        let text = format!(
            r#"log "{}" all;
router id 192.0.2.1;
protocol device {{ scan time 2; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol static {{ ipv4; route {THEIRS} unreachable; }}
protocol bfd {{
  interface "e1" {{ min rx interval 200 ms; min tx interval 200 ms; multiplier 5; }};
}}
protocol bgp node {{
  local 10.0.0.1 as 65001;
  neighbor 10.0.0.0 as 65000;
  direct; bfd on; debug all;
  connect delay time 1; connect retry time 1; error wait time 1, 1; error forget time 1;
  graceful restart on; graceful restart time 120;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"#,
            log.display()
        );
        let configuration = folder.join("bird.conf");
        std::fs::write(&configuration, text).unwrap();
        let mut command = self.net.command("tor", "bird");
        command.args(["-f", "-c"]).arg(&configuration);
        command.arg("-s").arg(folder.join("bird.ctl"));
        command.arg("-P").arg(folder.join("bird.pid"));
        self.net.start("tor", command);
    }

    fn start_bfd(&self) -> Option<Contained> {
        let folder = self.net.folder("node");
        let mut command = self.net.command("node", caracal());
        command.args(["bfd", "--run-dir"]).arg(&folder);
        Contained::start(&self.cgroups, "bfd", &command, &folder.join("log"))
    }

    /// `name` tells the agent's second life from its first: its cgroup is another.
    fn start_agent(&self, name: &str) -> Option<Contained> {
        let folder = self.net.folder("node");
        let mut command = self.net.command("node", caracal());
        command.args(["node", "--node", "n1", "--run-dir"]);
        command.arg(&folder).arg("--kubeconfig");
        command.arg(folder.join("kubeconfig"));
        Contained::start(&self.cgroups, name, &command, &folder.join("log"))
    }

    fn birdc(&self, question: &[&str]) -> String {
        let output = Command::new("birdc")
            .arg("-s")
            .arg(self.net.folder("tor").join("bird.ctl"))
            .args(question)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// State of the router's BFD session and since when in the day.
    fn bird_bfd(&self) -> Result<(String, Duration), String> {
        let text = self.birdc(&["show", "bfd", "sessions"]);
        let line = text.lines().find(|line| line.starts_with("10.0.0.0 "));
        let line = line.ok_or_else(|| text.clone())?;
        // IP address, interface, state, since, interval, timeout.
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, _, state, since, ..] => Ok((state.to_owned(), clock(since).ok_or(text.clone())?)),
            _ => Err(text),
        }
    }

    fn bird_established(&self) -> Result<(), String> {
        let text = self.birdc(&["show", "protocols", "all", "node"]);
        let up = text.contains("BGP state:          Established");
        up.then_some(()).ok_or_else(|| self.with_logs(text))
    }

    fn bird_knows(&self, prefix: &str) -> Result<(), String> {
        let text = self.birdc(&["show", "route", prefix]);
        let known = text.contains(&format!("{prefix} "));
        known.then_some(()).ok_or_else(|| self.with_logs(text))
    }

    /// Packets of the node's BFD that have reached the router, by counter.
    fn counted(&self, counter: &str) -> u64 {
        let text = self.net.output(
            "tor",
            "nft",
            &["-j", "list", "counter", "inet", "bfd", counter],
        );
        let answer: Value = serde_json::from_str(&text).unwrap();
        let objects = answer["nftables"].as_array().unwrap();
        let counter = objects.iter().find_map(|object| object.get("counter"));
        counter.unwrap()["packets"].as_u64().unwrap()
    }

    /// The node's BFD session, as its process tells.
    fn bfd_session(&self) -> Result<Value, String> {
        let output = Command::new(caracal())
            .args(["bfd", "sessions", "-o", "json", "--run-dir"])
            .arg(self.net.folder("node"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        answer["sessions"].get(0).cloned().ok_or(text)
    }

    /// Routes by BGP in the kernels of both.
    fn kernel_routes(&self) -> String {
        let node = self.net.output("node", "ip", &["route", "show", THEIRS]);
        let tor = self
            .net
            .output("tor", "ip", &["route", "show", "proto", "bird"]);
        node + &tor
    }

    fn with_logs(&self, text: String) -> String {
        let folder = self.net.folder("tor");
        let bird = std::fs::read_to_string(folder.join("bird.log")).unwrap_or_default();
        let last: Vec<&str> = bird.lines().rev().take(20).collect();
        format!("{text}\n{last:#?}")
    }
}

/// An API server that the node reaches over its only link, with what the cluster would have.
fn serve(net: &Net, runtime: &tokio::runtime::Runtime) -> Server {
    let server = Server::start(net, "tor", "10.0.0.1:8080", runtime.handle());
    server.let_in(net, "node", "10.0.0.1:8080");
    server.create(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.250.0.1"}]},
    }));
    let nodes = server.api.list("v1", "Node").unwrap();
    let uid = nodes[0].metadata.uid.clone().unwrap();
    server.create(&ours(
        "IPPool",
        "default",
        &json!({"subnets": [{"ipv4": "10.64.0.0/20"}]}),
    ));
    server.create(&ours(
        "IPBlock",
        "default-0",
        &json!({
            "pool": "default", "index": 0, "nodeName": "n1", "nodeUID": uid, "epoch": 1,
            "ipv4": ANNOUNCED[0],
        }),
    ));
    server.create(&ours(
        "BGPConfiguration",
        "default",
        &json!({
            "asNumber": 65000, "nodeToNodeMeshEnabled": false,
            "gracefulRestart": {"restartTime": "120s"},
        }),
    ));
    server.create(&ours(
        "BGPPeer",
        "tor",
        &json!({
            "peerIP": "10.0.0.1", "asNumber": 65001,
            "bfd": {
                "minimumTransmitInterval": "200ms", "minimumReceiveInterval": "200ms",
                "detectMultiplier": 5,
            },
        }),
    ));
    server
}

/// `HH:MM:SS.mmm` as time since midnight.
fn clock(text: &str) -> Option<Duration> {
    let mut parts = text.splitn(3, ':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs((hours * 60 + minutes) * 60) + Duration::from_secs_f64(seconds))
}

#[test]
fn bfd_and_routes_outlive_the_process_group_and_cgroup_of_the_agent() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    for program in ["bird", "nft"] {
        if Command::new(program).arg("--version").output().is_err() {
            caracal_skip::missing!("{program} is not installed");
            return;
        }
    }
    let Some(cgroups) = cgroups() else { return };
    let mut rig = Rig::new(cgroups);
    rig.start_bird();
    let Some(bfd) = rig.start_bfd() else { return };
    let Some(agent) = rig.start_agent("agent-1") else {
        return;
    };
    until("the session", PATIENCE, || rig.bird_established()).unwrap();
    for prefix in ANNOUNCED {
        until("the node's routes", PATIENCE, || rig.bird_knows(prefix)).unwrap();
    }
    let up = || match rig.bird_bfd() {
        Ok((state, since)) if state == "Up" => Ok(since),
        other => Err(format!("{other:?}")),
    };
    let since = until("BFD up", PATIENCE, up).unwrap();
    let both = || {
        let routes = rig.kernel_routes();
        let complete = routes.lines().count() == 3;
        complete.then_some(routes.clone()).ok_or(routes)
    };
    let routes = until("routes in both kernels", PATIENCE, both).unwrap();
    // The first packets were sent before the session was up, as they must be.
    let settled = || match rig.counted("independent") {
        enough if enough > 10 => Ok(()),
        few => Err(few.to_string()),
    };
    until("packets that say up", PATIENCE, settled).unwrap();
    let before = rig.bfd_session().unwrap();
    assert_eq!(before["state"], "Up", "{before}");
    let (other, dependent) = (rig.counted("other"), rig.counted("dependent"));
    assert_eq!(dependent, 0, "the C bit is missing in a session that is up");
    let unbroken = |what: &str| {
        assert_eq!(rig.counted("other"), other, "{what}: no longer up");
        assert_eq!(rig.counted("dependent"), 0, "{what}: without the C bit");
        let (state, now_since) = rig.bird_bfd().unwrap();
        assert_eq!(state, "Up", "{what}");
        // BIRD reckons the time anew for each answer, and may be a millisecond off.
        let moved = now_since.abs_diff(since);
        assert!(moved < Duration::from_millis(100), "{what}: {moved:?}");
        assert_eq!(rig.kernel_routes(), routes, "{what}: routes moved");
    };

    // Dead for several times the detection time. The router keeps what it was told.
    let killed = Instant::now();
    agent.destroy();
    let gone = || match rig.bird_established() {
        Ok(()) => Err("still established".to_owned()),
        Err(_) => Ok(()),
    };
    until("the router notices", PATIENCE, gone).unwrap();
    let heard = rig.counted("independent");
    let more = || match rig.counted("independent") - heard {
        enough if enough >= WHILE_DEAD => Ok(()),
        few => Err(few.to_string()),
    };
    until("BFD without an agent", PATIENCE, more).unwrap();
    unbroken("while the agent was dead");
    for prefix in ANNOUNCED {
        rig.bird_knows(prefix).unwrap();
    }
    println!("without an agent for {:?}", killed.elapsed());

    // Another life in another cgroup: it finds the session as it is.
    let Some(agent) = rig.start_agent("agent-2") else {
        panic!("a second cgroup where the first was given");
    };
    until("the session again", PATIENCE, || rig.bird_established()).unwrap();
    let told = || {
        let answer = rig.net.bgp("node", &["peers"])?;
        let bfd = &answer["peers"][0]["bfd"];
        let up = bfd["state"] == "Up" && bfd["transitions"] != Value::Null;
        up.then_some(()).ok_or(answer.to_string())
    };
    until("the agent knows of BFD", PATIENCE, told).unwrap();
    // The router ends its graceful restart once everything was told again.
    let over = || {
        let text = rig.birdc(&["show", "protocols", "all", "node"]);
        let waits = text.contains("Graceful restart active") || text.contains("wait for");
        (!waits).then_some(()).ok_or(text)
    };
    until("the end of the restart", PATIENCE, over).unwrap();
    unbroken("after the agent came back");
    let after = rig.bfd_session().unwrap();
    for field in [
        "state",
        "local_discriminator",
        "remote_discriminator",
        "key",
    ] {
        assert_eq!(before[field], after[field], "{field}: {before} {after}");
    }

    // All that the agent asked of the API server is in the role that deploy/ gives it.
    let role: ClusterRole = Deployed::node().read("ClusterRole", "caracal-node");
    let rules = role.rules.unwrap();
    let asked = rig.server.requests().counts().into_keys();
    let asked: Vec<_> = asked
        .filter(|kind| kind.user_agent.contains("caracal-node/"))
        .filter(|kind| !kind.resource.starts_with('/'))
        .collect();
    assert!(!asked.is_empty(), "no request is the agent's");
    for kind in asked {
        let allowed = allow(&rules, &kind.verb, &kind.resource);
        assert!(allowed, "deploy/node.yaml does not let it {kind:?}");
    }

    // The counterproof: it was that process and no other that kept the session.
    bfd.destroy();
    let down = || match rig.bird_bfd() {
        Ok((state, _)) if state == "Up" => Err(state),
        _ => Ok(()),
    };
    until("BFD down without its process", PATIENCE, down).unwrap();
    agent.destroy();
}
