//! The daemons that are measured: whether they are here, how each is configured and started.
//!
//! Owns the differences between them. Their configurations are the files in `lab/bench/daemons`, written as
//! somebody who knows the daemon would for speed. Does not own processes ([`crate::process`]).

mod template;
mod versions;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::process::Launch;
use template::{Filling, Values, fill};

/// A daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Daemon {
    /// Our speaker.
    Caracal,
    /// BIRD 2.
    Bird,
    /// FRR's bgpd, with zebra where routes go into the kernel.
    Frr,
    /// GoBGP.
    Gobgp,
    /// OpenBGPD.
    Openbgpd,
    /// None: a second generator in its place, which writes to the receivers at once what a daemon would say. It
    /// shows what the generator itself can take.
    Direct,
}

impl Daemon {
    /// All of them, ours first.
    pub const ALL: [Self; 6] = [
        Self::Caracal,
        Self::Bird,
        Self::Frr,
        Self::Gobgp,
        Self::Openbgpd,
        Self::Direct,
    ];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caracal => "caracal",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Openbgpd => "openbgpd",
            Self::Direct => "direct",
        }
    }

    /// The name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Caracal => "Caracal",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
            Self::Openbgpd => "OpenBGPD",
            Self::Direct => "(generator)",
        }
    }

    /// The version that is installed.
    ///
    /// # Errors
    /// Why the daemon cannot be run here.
    pub fn version(self, caracal: &Path) -> Result<String, String> {
        versions::of(self, caracal)
    }

    /// Writes the configuration for `setup` into `folder` and says what to start.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn prepare(
        self,
        setup: &Setup,
        caracal: &Path,
        folder: &Path,
    ) -> anyhow::Result<Vec<Launch>> {
        let write = |name: &str, template: &str| -> anyhow::Result<String> {
            let path = folder.join(name);
            setup.write(&path, template, folder, 0)?;
            Ok(path.display().to_string())
        };
        Ok(match self {
            Self::Caracal => {
                let mut arguments = strings(&["speaker", "--node", "bench", "-f"]);
                arguments.push(write("speaker.yaml", CARACAL)?);
                // A file of manifests holds 1,024 at most.
                for (number, peers) in setup.peers.chunks(PEERS_PER_FILE).enumerate() {
                    let part = Setup {
                        peers: peers.to_vec(),
                        ..setup.clone()
                    };
                    let name = format!("peers-{number}.yaml");
                    let path = folder.join(&name);
                    part.write(&path, CARACAL_PEERS, folder, number * PEERS_PER_FILE)?;
                    arguments.extend(["-f".to_owned(), path.display().to_string()]);
                }
                if !setup.kernel {
                    arguments.push("--no-fib".to_owned());
                }
                vec![launch(caracal, arguments)]
            }
            Self::Bird => {
                let file = write("bird.conf", BIRD)?;
                let socket = folder.join("bird.ctl").display().to_string();
                vec![launch("bird", strings(&["-f", "-c", &file, "-s", &socket]))]
            }
            Self::Frr => frr(setup, folder, write)?,
            Self::Gobgp => {
                let file = write("gobgpd.toml", GOBGP)?;
                let arguments = [
                    "-f",
                    &file,
                    "--log-level=panic",
                    "--disable-stdlog",
                    "--pprof-disable",
                    "--api-hosts=127.0.0.1:50051",
                ];
                vec![launch("gobgpd", strings(&arguments))]
            }
            Self::Openbgpd => {
                let file = write("bgpd.conf", OPENBGPD)?;
                // Its processes lock themselves in here; the package leaves it to the service to make.
                std::fs::create_dir_all("/run/openbgpd").context("cannot make /run/openbgpd")?;
                vec![launch("/usr/sbin/bgpd", strings(&["-d", "-f", &file]))]
            }
            Self::Direct => Vec::new(),
        })
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Daemon {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|daemon| daemon.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no daemon {text}; there are {names}")
        })
    }
}

/// What a daemon is to do.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its AS.
    pub asn: u32,
    /// Its identifier, and its cluster's.
    pub router_id: Ipv4Addr,
    /// Its addresses, where it waits for peers.
    pub addresses: Vec<Ipv4Addr>,
    /// Who they are. All of them dial.
    pub peers: Vec<PeerSetup>,
    /// Whether all peers are internal and its clients; else all are external.
    pub reflector: bool,
    /// Whether it writes routes to the kernel.
    pub kernel: bool,
}

/// A peer as the daemon sees it.
#[derive(Clone, Debug)]
pub struct PeerSetup {
    /// The peer's address.
    pub address: Ipv4Addr,
    /// The daemon's address on the session.
    pub local: Ipv4Addr,
    /// The peer's AS.
    pub asn: u32,
}

impl Setup {
    /// Writes `template`, filled, to `path`. Peers are numbered from `first`.
    fn write(
        &self,
        path: &Path,
        template: &str,
        folder: &Path,
        first: usize,
    ) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, fill(template, &self.filling(folder, first)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        // OpenBGPD refuses a configuration that others could write.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    fn filling(&self, folder: &Path, first: usize) -> Filling {
        let mut flags = Vec::new();
        if self.kernel {
            flags.push("kernel");
        }
        flags.push(if self.reflector {
            "reflector"
        } else {
            "external"
        });
        let peers = self.peers.iter().enumerate().map(|(number, peer)| {
            Values::from([
                ("name", format!("p{}", first + number)),
                ("address", peer.address.to_string()),
                ("local", peer.local.to_string()),
                ("peer_asn", peer.asn.to_string()),
            ])
        });
        let addresses = self
            .addresses
            .iter()
            .map(|address| Values::from([("listen", address.to_string())]));
        Filling {
            flags,
            values: Values::from([
                ("asn", self.asn.to_string()),
                ("router_id", self.router_id.to_string()),
                ("folder", folder.display().to_string()),
            ]),
            lists: BTreeMap::from([("peer", peers.collect()), ("address", addresses.collect())]),
        }
    }
}

const CARACAL: &str = include_str!("../../daemons/caracal.yaml");
const CARACAL_PEERS: &str = include_str!("../../daemons/caracal-peers.yaml");
const PEERS_PER_FILE: usize = 500;
const BIRD: &str = include_str!("../../daemons/bird.conf");
const FRR_BGPD: &str = include_str!("../../daemons/frr-bgpd.conf");
const FRR_ZEBRA: &str = include_str!("../../daemons/frr-zebra.conf");
const GOBGP: &str = include_str!("../../daemons/gobgpd.toml");
const OPENBGPD: &str = include_str!("../../daemons/openbgpd.conf");

/// Where Debian keeps FRR's daemons; one of them has the name of OpenBGPD's.
const FRR_USER: &str = "frr";
const FRR_FOLDER: &str = "/usr/lib/frr";

fn frr(
    setup: &Setup,
    folder: &Path,
    write: impl Fn(&str, &str) -> anyhow::Result<String>,
) -> anyhow::Result<Vec<Launch>> {
    let common = |daemon: &str, file: &str| {
        let in_folder = |name: String| folder.join(name).display().to_string();
        strings(&[
            "-P",
            "0",
            "-f",
            file,
            "-i",
            &in_folder(format!("{daemon}.pid")),
            "-z",
            &in_folder("zserv.api".into()),
            "--vty_socket",
            &folder.display().to_string(),
        ])
    };
    // Its daemons drop to this account, and make their sockets as it.
    let user = nix::unistd::User::from_name(FRR_USER)?
        .with_context(|| format!("there is no user {FRR_USER}"))?;
    let give = |path: &Path| {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("cannot give {} to {FRR_USER}", path.display()))
    };
    give(folder)?;
    let write = |name: &str, template: &str| -> anyhow::Result<String> {
        let file = write(name, template)?;
        give(Path::new(&file))?;
        Ok(file)
    };
    let mut launches = Vec::new();
    if setup.kernel {
        let file = write("zebra.conf", FRR_ZEBRA)?;
        launches.push(Launch {
            program: Path::new(FRR_FOLDER).join("zebra"),
            arguments: common("zebra", &file),
            ready: Some(folder.join("zserv.api")),
        });
    }
    let file = write("bgpd.conf", FRR_BGPD)?;
    let mut arguments = common("bgpd", &file);
    if !setup.kernel {
        arguments.push("-Z".to_owned());
        arguments.push("-n".to_owned());
    }
    launches.push(launch(Path::new(FRR_FOLDER).join("bgpd"), arguments));
    Ok(launches)
}

fn launch(program: impl Into<PathBuf>, arguments: Vec<String>) -> Launch {
    Launch {
        program: program.into(),
        arguments,
        ready: None,
    }
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_daemon_is_told_of_every_peer() {
        let peers = (1..=3).map(|number| PeerSetup {
            address: Ipv4Addr::new(10, 20, 1, number),
            local: Ipv4Addr::new(10, 20, 0, 1),
            asn: 65000 + u32::from(number),
        });
        let setup = Setup {
            asn: 65000,
            router_id: Ipv4Addr::new(10, 20, 0, 1),
            addresses: vec![Ipv4Addr::new(10, 20, 0, 1)],
            peers: peers.collect(),
            reflector: false,
            kernel: false,
        };
        for (daemon, file) in [
            (Daemon::Caracal, "peers-0.yaml"),
            (Daemon::Bird, "bird.conf"),
            (Daemon::Frr, "bgpd.conf"),
            (Daemon::Gobgp, "gobgpd.toml"),
            (Daemon::Openbgpd, "bgpd.conf"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let launches = daemon
                .prepare(&setup, Path::new("caracal"), folder.path())
                .unwrap();
            assert_eq!(launches.len(), 1, "{daemon}");
            let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
            for number in 1..=3 {
                assert!(
                    text.contains(&format!("10.20.1.{number}")),
                    "{daemon}: {text}"
                );
                assert!(text.contains(&format!("6500{number}")), "{daemon}: {text}");
            }
            assert!(
                !text.contains("{{") && !text.contains("%%"),
                "{daemon}: {text}"
            );
            assert!(!text.contains("reflector"), "{daemon}: {text}");
        }
    }

    #[test]
    fn names_read_back() {
        for daemon in Daemon::ALL {
            assert_eq!(daemon.name().parse(), Ok(daemon));
        }
        assert!("quagga".parse::<Daemon>().unwrap_err().contains("openbgpd"));
    }
}
