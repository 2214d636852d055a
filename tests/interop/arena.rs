//! Where a cell of the matrix is played: three network namespaces, two or three links, one folder.
//!
//! ```text
//!   scripted speakers ── e2 ── ours ── e1 ── theirs ── e3 ── scripted speakers
//! ```
//!
//! Owns names, addresses and the end of everything, also after a panic. Does not own what runs there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use caracal_bgp_core::types::Family;
use caracal_lab::namespace::Namespace;
use caracal_lab::process::kill_all_in;

/// Our end of the link with the router.
pub(crate) const OURS_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The router's end.
pub(crate) const THEIRS_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Our end of the link with the router.
pub(crate) const OURS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0xa);
/// The router's end.
pub(crate) const THEIRS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0xb);
/// Our link-local address on the link with the router.
pub(crate) const OURS_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa);
/// The router's.
pub(crate) const THEIRS_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb);
/// Our end of the link with scripted speakers.
pub(crate) const OURS_TO_SOURCES: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The router's end of its link with scripted speakers.
pub(crate) const THEIRS_TO_SOURCES: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);

/// Addresses of scripted speaker number `number` on our link.
pub(crate) fn source(number: u8, family: Family) -> IpAddr {
    match family {
        Family::Ipv4Unicast => Ipv4Addr::new(10, 0, 1, 10 + number).into(),
        Family::Ipv6Unicast => {
            Ipv6Addr::new(0x2001, 0xdb8, 0x1ff, 0, 0, 0, 0, 0x10 + u16::from(number)).into()
        }
    }
}

/// Addresses of scripted speaker number `number` on the router's link.
pub(crate) fn their_source(number: u8, family: Family) -> IpAddr {
    match family {
        Family::Ipv4Unicast => Ipv4Addr::new(10, 0, 2, 10 + number).into(),
        Family::Ipv6Unicast => {
            Ipv6Addr::new(0x2001, 0xdb8, 0x2ff, 0, 0, 0, 0, 0x10 + u16::from(number)).into()
        }
    }
}

/// A router on the link between us and the router that neither is: what internal routes name as next hop. Nobody
/// is there.
pub(crate) fn third_party(family: Family) -> IpAddr {
    match family {
        Family::Ipv4Unicast => Ipv4Addr::new(10, 0, 0, 77).into(),
        Family::Ipv6Unicast => Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0x77).into(),
    }
}

/// The namespaces with their links; gone when dropped, with whatever runs in them.
#[derive(Debug)]
pub(crate) struct Arena {
    folder: tempfile::TempDir,
    pub(crate) ours: Namespace,
    pub(crate) theirs: Namespace,
    /// Where scripted speakers are.
    pub(crate) elsewhere: Namespace,
}

impl Arena {
    /// With addresses of these families on the link with the router, beside link-local ones.
    pub(crate) fn new(families: &[Family]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("caracal-interop-")
            .tempdir()
            .unwrap();
        // Daemons that give up root must get to their own folders.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let [ours, theirs, elsewhere] = ["ours", "theirs", "elsewhere"].map(|name| {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            Namespace::create(&folder.path().join(format!("{name}.net"))).unwrap()
        });
        let arena = Self {
            folder,
            ours,
            theirs,
            elsewhere,
        };
        arena.link(families);
        arena
    }

    fn link(&self, families: &[Family]) {
        let (ours, theirs) = (&self.ours, &self.theirs);
        let elsewhere = self.elsewhere.path().display();
        let router = theirs.path().display();
        let mut here = vec![
            "link set lo up".to_owned(),
            format!("link add e1 type veth peer name e1 netns {router}"),
            format!("link add e2 type veth peer name e2 netns {elsewhere}"),
            "link set e1 addrgenmode none".to_owned(),
            format!("addr add {OURS_LINK_LOCAL}/64 dev e1 nodad"),
            format!("addr add {OURS_TO_SOURCES}/24 dev e2"),
            "addr add 2001:db8:1ff::1/64 dev e2 nodad".to_owned(),
        ];
        let mut there = vec![
            "link set lo up".to_owned(),
            format!("link add e3 type veth peer name e3 netns {elsewhere}"),
            "link set e1 addrgenmode none".to_owned(),
            format!("addr add {THEIRS_LINK_LOCAL}/64 dev e1 nodad"),
            format!("addr add {THEIRS_TO_SOURCES}/24 dev e3"),
            "addr add 2001:db8:2ff::1/64 dev e3 nodad".to_owned(),
        ];
        if families.contains(&Family::Ipv4Unicast) {
            here.push(format!("addr add {OURS_V4}/24 dev e1"));
            there.push(format!("addr add {THEIRS_V4}/24 dev e1"));
        }
        if families.contains(&Family::Ipv6Unicast) {
            here.push(format!("addr add {OURS_V6}/64 dev e1 nodad"));
            there.push(format!("addr add {THEIRS_V6}/64 dev e1 nodad"));
        }
        here.extend(["link set e1 up".to_owned(), "link set e2 up".to_owned()]);
        there.extend(["link set e1 up".to_owned(), "link set e3 up".to_owned()]);
        let mut beyond = Vec::new();
        for number in 1..=3 {
            for family in Family::ALL {
                let length = if family == Family::Ipv4Unicast {
                    24
                } else {
                    64
                };
                for (device, address) in [
                    ("e2", source(number, family)),
                    ("e3", their_source(number, family)),
                ] {
                    let nodad = nodad(address);
                    beyond.push(format!("addr add {address}/{length} dev {device} {nodad}"));
                }
            }
        }
        beyond.extend(["link set e2 up".to_owned(), "link set e3 up".to_owned()]);
        ip(ours, &here);
        ip(theirs, &there);
        ip(&self.elsewhere, &beyond);
    }

    /// Folder of our processes.
    pub(crate) fn our_folder(&self) -> PathBuf {
        self.folder.path().join("ours")
    }

    /// Folder of the router.
    pub(crate) fn their_folder(&self) -> PathBuf {
        self.folder.path().join("theirs")
    }

    /// The root of everything here; what error messages must not show.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let namespaces = [&self.ours, &self.theirs, &self.elsewhere].map(Clone::clone);
        kill_all_in(&namespaces);
        for namespace in namespaces {
            if let Err(error) = namespace.delete() {
                eprintln!("teardown: {error:#}");
            }
        }
    }
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "nodad" } else { "" }
}

/// Runs `ip` with all of `commands` in a namespace.
pub(crate) fn ip(namespace: &Namespace, commands: &[String]) {
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(commands.join("\n").as_bytes()).unwrap();
    let output = run(namespace, Command::new("ip").arg("-batch").arg(file.path()));
    assert!(output.is_ok(), "ip {commands:?}: {output:?}");
}

/// Runs a command in a namespace: what it printed, or what it complained about.
pub(crate) fn run(namespace: &Namespace, command: &mut Command) -> Result<String, String> {
    let output = namespace
        .run(|| Ok(command.output()?))
        .map_err(|error| format!("{error:#}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {text}{error}"))
}

/// How long anything may take before the test gives up on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);
/// Looking starts a program, so it is not done all the time.
const POLL: Duration = Duration::from_millis(100);

/// Waits until `look` gives a value; when it never does, panics with what it saw last.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("{what}: not within {DEADLINE:?}, last seen:\n{seen}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
