//! FRR as the other end of an unnumbered link.

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use caracal_bgp_speaker::config::ListenConfig;
use caracal_bgp_speaker::net::{Floors, Keychain, Listeners};
use tokio::sync::mpsc;

use crate::discovery::{discover, found};
use crate::support::*;

const DAEMONS: &str = "/usr/lib/frr";

/// zebra and bgpd of one host; killed when dropped.
struct Frr {
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl Frr {
    fn start(host: &Host) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // FRR's daemons give up root for a user of their own.
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write("zebra.conf", "hostname r\n");
        write(
            "bgpd.conf",
            "router bgp 65002
 bgp router-id 10.0.0.2
 no bgp ebgp-requires-policy
 neighbor e1 interface remote-as external
 neighbor e1 timers connect 1
",
        );
        let mut frr = Self {
            directory,
            children: Vec::new(),
        };
        for daemon in ["zebra", "bgpd"] {
            frr.spawn(host, daemon);
        }
        frr
    }

    fn spawn(&mut self, host: &Host, daemon: &str) {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        let log = File::create(at(&format!("{daemon}.log"))).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &host.name])
            .arg(format!("{DAEMONS}/{daemon}"))
            .args(["-f", &at(&format!("{daemon}.conf"))])
            .args(["-i", &at(&format!("{daemon}.pid"))])
            .args(["-z", &at("zserv.api"), "--vty_socket", &at(""), "-P", "0"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    fn show(&self, command: &str) -> String {
        let output = Command::new("vtysh")
            .args(["--vty_socket", &self.directory.path().display().to_string()])
            .args(["-c", command])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn frr_and_we_find_each_other_on_an_interface_without_addresses() {
    if !Path::new(DAEMONS).join("bgpd").exists() {
        caracal_skip::missing!("{DAEMONS}/bgpd is not installed");
        return;
    }
    let Some([a, b]) = hosts("frr") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    let (ours, theirs) = (link_local(&a, "e1"), link_local(&b, "e1"));
    let index = a.inside(|| nix::net::if_::if_nametoindex("e1").unwrap());
    let discovery = discover(&a, ["e1"]);
    let (listeners, mut incoming) = a.run(async || {
        let config = ListenConfig::default();
        let (mut listeners, _) =
            Listeners::bind(&config, &Keychain::default(), &Floors::default()).unwrap();
        let (arrivals, incoming) = mpsc::channel(16);
        listeners.serve(&arrivals);
        (listeners, incoming)
    });
    let frr = Frr::start(&b);
    let start = Instant::now();
    a.run(async || {
        // We learn its address from its advertisement.
        let heard = async || found(&discovery, "e1").map(IpAddr::from);
        until("FRR on the link", heard, |address| *address == Some(theirs)).await;
        println!("heard FRR after {:?}", start.elapsed());
        // It learns ours from our advertisement, as nothing else tells it, and dials us there.
        let batch = tokio::time::timeout(DEADLINE, incoming.recv()).await;
        let Ok(Some(batch)) = batch else {
            panic!("FRR has not dialled: {}", frr.show("show interface e1"));
        };
        println!("FRR dialled after {:?}", start.elapsed());
        let connection = &batch[0];
        assert_eq!(connection.local, ours);
        assert_eq!(connection.source.address, theirs);
        assert_eq!(connection.source.ifindex, Some(index));
        let shown = async || frr.show("show bgp neighbors e1");
        let ours = ours.to_string();
        until("our address at FRR", shown, |text| text.contains(&ours)).await;
    });
    drop(listeners);
}
