//! BIRD and FRR as peers.

use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Net, SOON, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bird,
    Frr,
}

const BIRD: &str = "/usr/sbin/bird";
const FRR: &str = "/usr/lib/frr";

/// One session of a router.
#[derive(Clone, Debug)]
pub(crate) struct Peering {
    pub(crate) peer: &'static str,
    pub(crate) local: &'static str,
    pub(crate) interface: Option<&'static str>,
    pub(crate) interval_ms: u64,
    pub(crate) mult: u8,
    /// BIRD only: the lines of an authentication.
    pub(crate) auth: Option<String>,
}

impl Peering {
    fn is_multihop(&self) -> bool {
        self.interface.is_none()
    }
}

/// What a router says of its session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// In the router's own words.
    pub(crate) state: String,
    /// Since when, in the router's own words; the same as long as it has not flapped.
    pub(crate) since: String,
    /// How long it waits for us.
    pub(crate) timeout: Option<Duration>,
    /// All of it.
    pub(crate) text: String,
}

impl View {
    /// Whether the session has been in its state since the same moment as in `earlier`. BIRD works
    /// the time of day out anew each time, and is a millisecond off now and then.
    pub(crate) fn is_unbroken_since(&self, earlier: &Self) -> bool {
        let [now, then] = [self, earlier].map(|view| {
            let mut parts = view.since.split(':').map(|part| part.parse::<f64>());
            let mut next = || parts.next().and_then(Result::ok).unwrap();
            (next() * 60.0 + next()) * 60.0 + next()
        });
        self.state == earlier.state && (now - then).abs() < 0.05
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state.eq_ignore_ascii_case("up")
    }
}

/// A running router; gone when dropped.
pub(crate) struct Router {
    kind: Kind,
    folder: tempfile::TempDir,
    children: Vec<Child>,
}

impl Kind {
    /// Whether it is installed; says aloud if not.
    pub(crate) fn is_installed(self) -> bool {
        let program = match self {
            Self::Bird => BIRD.to_owned(),
            Self::Frr => format!("{FRR}/bfdd"),
        };
        let there = Path::new(&program).exists();
        if !there {
            caracal_skip::missing!("{program} is not installed");
        }
        there
    }
}

impl Router {
    pub(crate) fn start(kind: Kind, net: &Net, name: &str, peerings: &[Peering]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // FRR's daemons give up root for a user of their own.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let mut router = Self {
            kind,
            folder,
            children: Vec::new(),
        };
        match kind {
            Kind::Bird => {
                router.write("bird.conf", &bird_conf(peerings));
                let (config, control) = (router.at("bird.conf"), router.at("bird.ctl"));
                router.launch(net, name, BIRD, &["-f", "-c", &config, "-s", &control]);
            }
            Kind::Frr => {
                router.write("zebra.conf", "hostname r\n");
                router.write("bfdd.conf", &frr_conf(peerings));
                for daemon in ["zebra", "bfdd"] {
                    router.launch_frr(net, name, daemon);
                }
            }
        }
        router
    }

    fn launch_frr(&mut self, net: &Net, name: &str, daemon: &str) {
        let (config, pid) = (
            self.at(&format!("{daemon}.conf")),
            self.at(&format!("{daemon}.pid")),
        );
        let (zserv, folder) = (self.at("zserv.api"), self.at(""));
        let control = self.at("bfdd.ctl");
        let mut arguments = vec!["-f", &config, "-i", &pid, "-z", &zserv];
        arguments.extend(["--vty_socket", &folder, "-P", "0"]);
        if daemon == "bfdd" {
            arguments.extend(["--bfdctl", &control]);
        }
        self.launch(net, name, &format!("{FRR}/{daemon}"), &arguments);
        until(&format!("{daemon} answers"), SOON, || {
            let ready = Path::new(&self.at(&format!("{daemon}.vty"))).exists();
            ready.then_some(()).ok_or_else(|| self.log())
        });
    }

    fn launch(&mut self, net: &Net, name: &str, program: &str, arguments: &[&str]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.at("log"))
            .unwrap();
        // A router that waits for a core says what no test wants to know.
        let child = net
            .command(name, "nice")
            .args(["-n", "-20", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    /// What it says of the session with `peer`; the reason when it does not say.
    pub(crate) fn view(&self, peer: &str) -> Result<View, String> {
        match self.kind {
            Kind::Bird => self.bird_view(peer),
            Kind::Frr => self.frr_view(peer),
        }
    }

    /// Waits until the session with `peer` is as `check` wants it.
    pub(crate) fn until(&self, peer: &str, what: &str, check: impl Fn(&View) -> bool) -> View {
        until(&format!("{:?}: {what}", self.kind), SOON, || {
            let view = self.view(peer)?;
            if check(&view) {
                Ok(view)
            } else {
                Err(format!("{view:?}"))
            }
        })
    }

    fn bird_view(&self, peer: &str) -> Result<View, String> {
        let output = Command::new("birdc")
            .args(["-s", &self.at("bird.ctl"), "show", "bfd", "sessions"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(peer));
        let Some(line) = line else {
            return Err(text);
        };
        // IP address, interface, state, since, interval, timeout.
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, state, since, _, timeout] = words[..] else {
            return Err(text);
        };
        Ok(View {
            state: state.to_owned(),
            since: since.to_owned(),
            timeout: timeout.parse().ok().map(Duration::from_secs_f64),
            text,
        })
    }

    fn frr_view(&self, peer: &str) -> Result<View, String> {
        let json = self.vtysh("show bfd peers json");
        let peers: Vec<Value> = serde_json::from_str(&json).map_err(|_| json.clone())?;
        let found = peers.iter().find(|entry| entry["peer"] == peer);
        let found = found.ok_or(json)?;
        let remote = found["remote-transmit-interval"].as_u64().unwrap_or(0);
        let ours = found["receive-interval"].as_u64().unwrap_or(0);
        let mult = found["remote-detect-multiplier"].as_u64().unwrap_or(0);
        Ok(View {
            state: found["status"].as_str().unwrap_or_default().to_owned(),
            // Seconds since it came up or went down: the moment is what stays.
            since: found["uptime"].to_string(),
            timeout: Some(Duration::from_millis(remote.max(ours) * mult)),
            text: found.to_string(),
        })
    }

    /// How often FRR's session went down.
    pub(crate) fn frr_downs(&self, peer: &str) -> u64 {
        let json = self.vtysh("show bfd peers counters json");
        let peers: Vec<Value> = serde_json::from_str(&json).unwrap();
        let found = peers.iter().find(|entry| entry["peer"] == peer).unwrap();
        found["session-down"].as_u64().unwrap()
    }

    pub(crate) fn vtysh(&self, command: &str) -> String {
        let output = Command::new("vtysh")
            .args(["--vty_socket", &self.at(""), "-c", command])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Takes the session with a peer down, or up again, by its administrator.
    pub(crate) fn shutdown_frr(&self, peering: &Peering, down: bool) {
        let no = if down { "" } else { "no " };
        let output = Command::new("vtysh")
            .args(["--vty_socket", &self.at("")])
            .args(["-c", "configure terminal", "-c", "bfd"])
            .args(["-c", &frr_peer(peering)])
            .args(["-c", &format!("{no}shutdown")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of {:?}:\n{}", self.kind, self.log());
        }
    }
}

fn bird_conf(peerings: &[Peering]) -> String {
    let mut text =
        "router id 10.0.0.9; protocol device { scan time 1; }\nprotocol bfd {\n".to_owned();
    for peering in peerings {
        let Peering {
            peer,
            local,
            interval_ms,
            mult,
            ..
        } = peering;
        let scope = match peering.interface {
            Some(interface) => format!("interface \"{interface}\""),
            None => "multihop".to_owned(),
        };
        let auth = peering.auth.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {scope} {{ min rx interval {interval_ms} ms; min tx interval {interval_ms} ms; \
             idle tx interval 1000 ms; multiplier {mult}; {auth} }};"
        );
        let way = match peering.interface {
            Some(interface) => format!("dev \"{interface}\" local {local}"),
            None => format!("local {local} multihop on"),
        };
        let _ = writeln!(text, "  neighbor {peer} {way};");
    }
    text.push_str("}\n");
    text
}

fn frr_peer(peering: &Peering) -> String {
    let Peering { peer, local, .. } = peering;
    match peering.interface {
        Some(interface) => format!("peer {peer} local-address {local} interface {interface}"),
        None => format!("peer {peer} multihop local-address {local}"),
    }
}

fn frr_conf(peerings: &[Peering]) -> String {
    let mut text = "bfd\n".to_owned();
    for peering in peerings {
        let (interval, mult) = (peering.interval_ms, peering.mult);
        let _ = writeln!(text, " {}", frr_peer(peering));
        let _ = writeln!(text, "  receive-interval {interval}");
        let _ = writeln!(text, "  transmit-interval {interval}");
        let _ = writeln!(text, "  detect-multiplier {mult}");
        if peering.is_multihop() {
            text.push_str("  minimum-ttl 250\n");
        }
        text.push_str("  no shutdown\n !\n");
    }
    text
}
