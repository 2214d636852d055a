//! The speaker against BIRD and FRR, each in a network namespace of its own on one veth link.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

#[path = "common/until.rs"]
mod waiting;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caracal_bgp_core::types::{Asn, Family, Prefix};
use caracal_bgp_speaker::config::Origination;
use caracal_bgp_speaker::handle::{PeerSnapshot, RouteSnapshot, SessionState};
use caracal_bgp_speaker::{
    How, PeerConfig, PeerName, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions,
};
use nix::sched::{CloneFlags, setns};
use waiting::until;

const OURS: [&str; 2] = ["10.1.0.0/26", "2001:db8:1::/64"];
const THEIRS: [&str; 2] = ["198.51.100.0/24", "2001:db8:64::/48"];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Bird,
    Frr,
}

const BIRD: &str = "/usr/sbin/bird";
const FRR: &str = "/usr/lib/frr/bgpd";

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Bird => BIRD,
            Self::Frr => FRR,
        }
    }

    fn configure(self, directory: &Path) {
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        match self {
            Self::Bird => write(
                "bird.conf",
                "router id 10.0.0.1;
                 protocol device { scan time 1; }
                 protocol static s4 { ipv4; route 198.51.100.0/24 blackhole; }
                 protocol static s6 { ipv6; route 2001:db8:64::/48 blackhole; }
                 protocol bgp session {
                   local 10.0.0.1 as 65002; neighbor 10.0.0.0 as 65001;
                   hold time 30; connect delay time 1; connect retry time 1;
                   error wait time 1, 2; graceful restart on; graceful restart time 30;
                   ipv4 { import all; export all; };
                   ipv6 { import all; export all; };
                 }\n",
            ),
            Self::Frr => {
                // The next hop is named: where the session comes up before zebra has told bgpd of the
                // interface's addresses, bgpd would announce one mapped from IPv4.
                write("zebra.conf", "hostname r\n");
                write(
                    "bgpd.conf",
                    "router bgp 65002
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 bgp graceful-restart
 neighbor 10.0.0.0 remote-as 65001
 neighbor 10.0.0.0 timers 10 30
 neighbor 10.0.0.0 timers connect 1
 address-family ipv4 unicast
  network 198.51.100.0/24
  neighbor 10.0.0.0 activate
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:64::/48
  neighbor 10.0.0.0 activate
  neighbor 10.0.0.0 route-map v6 out
 exit-address-family
route-map v6 permit 10
 set ipv6 next-hop global 2001:db8:ff::1
",
                );
            }
        }
    }

    /// The daemons to run, in order.
    fn commands(self, directory: &Path, again: bool) -> Vec<Vec<String>> {
        let at = |name: &str| directory.join(name).display().to_string();
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self {
            Self::Bird => {
                let mut bird = words(&[BIRD, "-f", "-c", &at("bird.conf"), "-s", &at("bird.ctl")]);
                if again {
                    bird.push("-R".into());
                }
                vec![bird]
            }
            Self::Frr => {
                let common = |daemon: &str| {
                    words(&[
                        &format!("/usr/lib/frr/{daemon}"),
                        "-f",
                        &at(&format!("{daemon}.conf")),
                        "-i",
                        &at(&format!("{daemon}.pid")),
                        "-z",
                        &at("zserv.api"),
                        "--vty_socket",
                        &directory.display().to_string(),
                        "-P",
                        "0",
                    ])
                };
                let mut zebra = common("zebra");
                zebra.push("-K".into());
                zebra.push("60".into());
                vec![zebra, common("bgpd")]
            }
        }
    }

    /// What the router says of `prefix`.
    fn show(self, directory: &Path, prefix: &str) -> String {
        let output = match self {
            Self::Bird => Command::new("birdc")
                .args(["-s", &directory.join("bird.ctl").display().to_string()])
                .arg(format!("show route {prefix} all"))
                .output(),
            Self::Frr => {
                let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
                Command::new("vtysh")
                    .args(["--vty_socket", &directory.display().to_string()])
                    .args(["-c", &format!("show bgp {family} unicast {prefix}")])
                    .output()
            }
        };
        let output = output.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How the router writes our AS as the whole path.
    fn path(self) -> &'static str {
        match self {
            Self::Bird => "BGP.as_path: 65001",
            Self::Frr => "65001",
        }
    }
}

/// Two namespaces, a link, and a router in the second; all gone when dropped, also by a panic.
struct Lab {
    kind: Kind,
    ours: String,
    theirs: String,
    directory: PathBuf,
    _keep: tempfile::TempDir,
    children: Vec<Child>,
}

impl Lab {
    /// `None`, said aloud, where this machine cannot run it.
    fn new(kind: Kind, tag: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            caracal_skip::missing!("network namespaces need root");
            return None;
        }
        if !Path::new(kind.program()).exists() {
            caracal_skip::missing!("{} is not installed", kind.program());
            return None;
        }
        let keep = tempfile::tempdir().unwrap();
        let unique = format!("cbgp{}{tag}", std::process::id());
        let lab = Self {
            kind,
            ours: format!("{unique}a"),
            theirs: format!("{unique}b"),
            directory: keep.path().to_owned(),
            _keep: keep,
            children: Vec::new(),
        };
        let (a, b) = (lab.ours.as_str(), lab.theirs.as_str());
        for namespace in [a, b] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        ip(&[
            "link", "add", "e1", "netns", a, "type", "veth", "peer", "name", "e1", "netns", b,
        ]);
        for (namespace, host) in [(a, "0"), (b, "1")] {
            ip(&[
                "-n",
                namespace,
                "addr",
                "add",
                &format!("10.0.0.{host}/31"),
                "dev",
                "e1",
            ]);
            let v6 = format!("2001:db8:ff::{host}/127");
            ip(&["-n", namespace, "addr", "add", &v6, "dev", "e1", "nodad"]);
            ip(&["-n", namespace, "link", "set", "e1", "up"]);
        }
        kind.configure(&lab.directory);
        // FRR's daemons give up root for a user of their own.
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&lab.directory, open).unwrap();
        Some(lab)
    }

    fn start_router(&mut self, again: bool) {
        for command in self.kind.commands(&self.directory, again) {
            let log = File::options()
                .create(true)
                .append(true)
                .open(self.directory.join("log"))
                .unwrap();
            let child = Command::new("ip")
                .args(["netns", "exec", &self.theirs])
                .args(command)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            self.children.push(child);
        }
    }

    /// Kills every daemon without a chance to say good-bye. `ip netns exec` replaces itself, so
    /// the child is the daemon.
    fn kill_router(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs `body` on a runtime whose threads live in our namespace.
    fn run<T: Send>(&mut self, body: impl AsyncFnOnce(&mut Self) -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.ours)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(body(self))
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_router();
        for namespace in [&self.ours, &self.theirs] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
}

fn config(restarting: bool) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(Asn(65_001), "10.0.0.0".parse().unwrap());
    config.restarting = restarting;
    for prefix in OURS {
        let origination = Origination {
            communities: vec!["65001:7".parse().unwrap()],
            med: Some(30),
            ..Origination::default()
        };
        config
            .originate
            .insert(prefix.parse().unwrap(), origination);
    }
    let peer = PeerConfig {
        local_address: Some("10.0.0.0".parse().unwrap()),
        hold_time: Duration::from_secs(30),
        ..PeerConfig::new("10.0.0.1:179".parse().unwrap(), Asn(65_002))
    };
    config.peers.insert(PeerName::from("router"), peer);
    config
}

async fn speaker(restarting: bool) -> SpeakerHandle {
    Speaker::start(config(restarting), None, SpeakerOptions::default())
        .await
        .unwrap()
}

async fn peer(handle: &SpeakerHandle) -> PeerSnapshot {
    handle.snapshot().await.unwrap().peers.remove(0)
}

async fn route(handle: &SpeakerHandle, prefix: &str) -> Option<RouteSnapshot> {
    let prefix: Prefix = prefix.parse().unwrap();
    handle.routes(Some(prefix)).await.unwrap().pop()
}

/// Waits until each side has the other's routes, with the attributes that it should see.
async fn exchanged(lab: &Lab, handle: &SpeakerHandle) {
    let up = |peer: &PeerSnapshot| {
        peer.state == SessionState::Established
            && peer.families().len() == Family::ALL.len()
            && peer
                .families()
                .iter()
                .all(|family| family.end_of_rib_received)
    };
    until(
        "session with both families and End-of-RIB",
        || peer(handle),
        up,
    )
    .await;
    for (prefix, next_hop) in THEIRS.iter().zip(["10.0.0.1", "2001:db8:ff::1"]) {
        // Selected as well as told: after a restart, selection waits for routes that may still follow.
        let fresh = |route: &Option<RouteSnapshot>| {
            route
                .as_ref()
                .is_some_and(|route| !route.paths[0].stale && route.paths[0].best)
        };
        let route = until(prefix, || route(handle, prefix), fresh)
            .await
            .unwrap();
        let path = &route.paths[0];
        assert_eq!(path.as_path, "65002");
        assert_eq!(path.next_hop.unwrap().to_string(), next_hop);
    }
    for (prefix, next_hop) in OURS.iter().zip(["10.0.0.0", "2001:db8:ff::"]) {
        let shown = until(
            &format!("{prefix} at the router"),
            async || lab.kind.show(&lab.directory, prefix),
            |shown: &String| shown.contains(lab.kind.path()),
        )
        .await;
        for expected in [next_hop, "30"] {
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
        assert!(
            shown.contains("65001:7") || shown.contains("(65001,7)"),
            "community in {shown}"
        );
    }
}

fn exchanges_both_families_and_restarts_both_ways(kind: Kind, tag: &str) {
    let Some(mut lab) = Lab::new(kind, tag) else {
        return;
    };
    lab.start_router(false);
    lab.run(async |lab: &mut Lab| {
        let first = speaker(false).await;
        exchanged(lab, &first).await;

        // We restart: the router keeps our routes meanwhile, and takes them back afterwards.
        first.shutdown(How::GracefulRestart).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for prefix in OURS {
            let shown = lab.kind.show(&lab.directory, prefix);
            assert!(
                shown.contains(lab.kind.path()),
                "{prefix} was dropped: {shown}"
            );
        }
        let second = speaker(true).await;
        exchanged(lab, &second).await;
        let deferring = async || second.snapshot().await.unwrap().rib.unwrap().deferring;
        until("the end of our restart", deferring, |deferring| !deferring).await;

        // The router restarts: we keep its routes meanwhile, and take them back afterwards.
        lab.kill_router();
        let stale = |route: &Option<RouteSnapshot>| {
            route
                .as_ref()
                .is_some_and(|route| route.paths[0].stale && route.paths[0].best)
        };
        for prefix in THEIRS {
            until(&format!("{prefix} stale"), || route(&second, prefix), stale).await;
        }
        lab.start_router(true);
        exchanged(lab, &second).await;
        second
            .shutdown(How::Cease {
                message: "done".into(),
            })
            .await;
        let gone = |shown: &String| !shown.contains(lab.kind.path());
        let show = async || lab.kind.show(&lab.directory, OURS[0]);
        until("our route gone after Cease", show, gone).await;
    });
}

#[test]
fn bird_exchanges_both_families_and_restarts_both_ways() {
    exchanges_both_families_and_restarts_both_ways(Kind::Bird, "x");
}

#[test]
fn frr_exchanges_both_families_and_restarts_both_ways() {
    exchanges_both_families_and_restarts_both_ways(Kind::Frr, "y");
}
