//! The routers on the other side: how each is configured, started, asked and told.
//!
//! Owns the differences between them, and what each cannot do with the attempt that shows it. Does not own what
//! the cells expect, which is the same for all.

mod bird;
mod exabgp;
mod frr;
mod gobgp;
mod openbgpd;

use std::path::{Path, PathBuf};
use std::process::Command;

use caracal_bgp_core::wire::GracefulRestart;
use caracal_lab::namespace::Namespace;
use caracal_lab::process::Process;

use crate::arena::{self, Arena};
use crate::feature::Feature;
use crate::route::Route;
use crate::setup::Setup;

/// Where a router runs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) namespace: Namespace,
    pub(crate) folder: PathBuf,
}

impl Place {
    pub(crate) fn of(arena: &Arena) -> Self {
        Self {
            namespace: arena.theirs.clone(),
            folder: arena.their_folder(),
        }
    }

    /// A file of the router, as text for its arguments.
    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        // OpenBGPD refuses a configuration that others could write.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        let octets = std::fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }

    /// What a program prints that runs beside the router; or its complaint.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        arena::run(&self.namespace, Command::new(program).args(arguments))
    }

    fn start(&self, name: &str, program: impl AsRef<Path>, arguments: &[&str]) -> Process {
        let mut command = Command::new(program.as_ref());
        command.args(arguments);
        self.start_command(name, command)
    }

    fn start_command(&self, name: &str, command: Command) -> Process {
        let log = self.folder.join(format!("{name}.log"));
        Process::start(name, &self.namespace, command, &log).unwrap()
    }
}

/// A router that Debian packages.
pub(crate) trait Daemon: Sync {
    /// In file names and tables.
    fn name(&self) -> &'static str;

    /// For people.
    fn title(&self) -> &'static str;

    /// The version that is installed, or why it cannot run here.
    fn version(&self) -> Result<String, String>;

    /// What it does that others do not, for those who peer with it; one sentence each.
    fn quirks(&self) -> &'static [&'static str];

    /// Writes its configuration.
    fn configure(&self, place: &Place, setup: &Setup);

    /// Starts what is not running yet; `again` after it was killed. Those that are restarted come last, from
    /// the index that [`Self::restarted`] gives.
    fn start(&self, place: &Place, setup: &Setup, again: bool, running: &mut Vec<Process>);

    /// How many processes stay while the router's BGP restarts.
    fn stays(&self) -> usize {
        0
    }

    /// The paths that it has from us.
    fn told(&self, place: &Place, setup: &Setup) -> Result<Vec<Route>, String>;

    /// Whether it passes on what other peers tell it; else [`Self::tell`] makes it tell.
    fn forwards(&self) -> bool {
        true
    }

    /// Makes these all that it tells us, for one that has nothing to pass on.
    fn tell(&self, _place: &Place, _setup: &Setup, _routes: &[Route]) {}

    /// Whether it tells us our own routes again; we refuse them.
    fn echoes(&self) -> bool {
        false
    }

    /// A route with what it adds to those that it passes on, beyond what the RFCs say.
    fn as_told(&self, _setup: &Setup, route: Route) -> Route {
        route
    }

    /// Whether it writes routes to the kernel.
    fn has_kernel(&self) -> bool {
        false
    }

    /// Has it ask us for all routes again.
    fn ask_refresh(&self, place: &Place, setup: &Setup) -> Result<(), String>;

    /// Has it end the session with a message for us.
    fn shut_down(&self, place: &Place, setup: &Setup, message: &str) -> Result<(), String>;

    /// Where it would show the message with which we ended the session.
    fn last_words(&self, place: &Place, setup: &Setup) -> Result<String, String>;

    /// Its complaint about our message, in what it shows.
    fn cannot_read(&self, _shown: &str) -> Option<String> {
        None
    }

    /// Its refusal to tell all routes again, where it shows one.
    fn refuses_refresh(&self, _place: &Place) -> Option<String> {
        None
    }

    /// Whether it still has all our routes while we are away; `lost` says which it has not. An error is its refusal
    /// to keep them.
    fn kept(&self, _place: &Place, lost: Option<String>) -> Result<(), String> {
        assert_eq!(lost, None, "lost while we restarted");
        Ok(())
    }

    /// Whether it says to have forwarded packets while it was away, which alone lets us keep its routes over its
    /// return; an error is its own word for not having done so.
    fn kept_forwarding(&self, restart: &GracefulRestart) -> Result<(), String> {
        let kept = restart.families.iter().all(|(_, kept)| *kept);
        assert!(kept && !restart.families.is_empty(), "{restart:?}");
        Ok(())
    }

    /// What it says of BFD with us: nothing wrong when it is up.
    fn bfd(&self, _place: &Place, _setup: &Setup) -> Result<(), String> {
        Err("it has no BFD".to_owned())
    }

    /// Its refusal of a feature, in its own words, from an attempt in this very place; `None` where it takes it.
    fn refusal(&self, _feature: Feature, _arena: &Arena) -> Option<String> {
        None
    }

    /// The end of its logs, for a cell that failed.
    fn logs(&self, place: &Place) -> String;
}

/// All of them, in the order of the table.
pub(crate) const ALL: [&dyn Daemon; 5] = [
    &bird::Bird,
    &frr::Frr,
    &gobgp::Gobgp,
    &openbgpd::Openbgpd,
    &exabgp::Exabgp,
];

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The version in the output of a program, behind `before`.
fn version_of(program: &str, argument: &str, before: &str) -> Result<String, String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let found = text.split_once(before).and_then(|(_, rest)| {
        let rest = rest.split_whitespace().next()?;
        Some(rest.trim_end_matches([',', '.']).to_owned())
    });
    found.ok_or_else(|| format!("{program} {argument}: {text}"))
}

/// The route targets and other extended communities that cells use, from the words of a daemon's CLI
/// (`rt 65009 5`) to octets.
fn extended_from_words(kind: &str, first: &str, second: &str) -> Option<String> {
    let subtype: u8 = match kind.to_ascii_lowercase().as_str() {
        "rt" => 0x02,
        "ro" | "soo" | "so" => 0x03,
        _ => return None,
    };
    let value: u32 = second.parse().ok()?;
    if let Ok(address) = first.parse::<std::net::Ipv4Addr>() {
        let number = u32::from(address);
        return Some(format!("0x01{subtype:02x}{number:08x}{:04x}", value as u16));
    }
    let asn: u32 = first.parse().ok()?;
    Some(match u16::try_from(asn) {
        Ok(asn) => format!("0x00{subtype:02x}{asn:04x}{value:08x}"),
        Err(_) => format!("0x02{subtype:02x}{asn:08x}{:04x}", value as u16),
    })
}
