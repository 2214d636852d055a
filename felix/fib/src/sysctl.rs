//! Kernel settings under `/proc/sys/net`: the desired set, and repair that writes only differences.
//!
//! Owns the list of settings that a node and a pod's link need, with the reason for each. Does not
//! own when to repair. Everything here acts on the network namespace of the calling thread; use
//! [`crate::netns::Netns::run`] for another one.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// One kernel setting and the value it should have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// The key below `/proc/sys`, with slashes: link names may hold dots.
    pub key: String,
    /// What the value should be.
    pub rule: Rule,
}

/// Which values satisfy a [`Setting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// This number and no other.
    Is(i32),
    /// Where the first number stands, the second should; anything else is the owner's choice.
    Instead(i32, i32),
}

impl Rule {
    /// The number to write over `found`; `None` when it may stay.
    fn correction(self, found: i32) -> Option<i32> {
        match self {
            Self::Is(wanted) => (found != wanted).then_some(wanted),
            Self::Instead(from, to) => (found == from).then_some(to),
        }
    }
}

/// A setting that was not as it should be, and now is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key below `/proc/sys`.
    pub key: String,
    /// What stood there.
    pub from: i32,
    /// What stands there now.
    pub to: i32,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.from, self.to)
    }
}

/// What a repair did.
#[derive(Debug, Default)]
pub struct Report {
    /// Settings that were written; empty when everything was right.
    pub changed: Vec<Change>,
    /// Keys that this kernel does not have, or whose link is gone.
    pub missing: Vec<String>,
    /// Settings that could not be read or written.
    pub failed: Vec<Error>,
}

/// Brings every setting to its value in the order given; writes only where the value differs, and
/// goes on after a failure.
pub fn repair(settings: &[Setting]) -> Report {
    let mut report = Report::default();
    for setting in settings {
        match repair_one(setting) {
            Ok(None) => {}
            Ok(Some(change)) => report.changed.push(change),
            Err(Error::Sysctl { key, source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                report.missing.push(key);
            }
            Err(error) => report.failed.push(error),
        }
    }
    report
}

/// Reads a number.
///
/// # Errors
/// [`Error::Sysctl`] when the key cannot be read, [`Error::SysctlValue`] when it holds no number.
pub fn read(key: &str) -> Result<i32> {
    let text = fs::read_to_string(path_of(key)).map_err(|source| Error::Sysctl {
        doing: "read",
        key: key.to_owned(),
        source,
    })?;
    text.trim().parse().map_err(|_| Error::SysctlValue {
        key: key.to_owned(),
        text,
    })
}

/// Writes a number.
///
/// # Errors
/// [`Error::Sysctl`] when the key cannot be written.
pub fn write(key: &str, value: i32) -> Result<()> {
    fs::write(path_of(key), value.to_string()).map_err(|source| Error::Sysctl {
        doing: "write",
        key: key.to_owned(),
        source,
    })
}

/// What a node needs to route for its pods, given the links that exist now; links that begin with
/// `pod_link_prefix` are left to [`host_link_settings`].
///
/// # Errors
/// [`Error::Sysctl`] when the links cannot be listed.
pub fn node_settings(pod_link_prefix: &str) -> Result<Vec<Setting>> {
    let mut uplinks = links()?;
    uplinks.retain(|link| link != "lo" && !link.starts_with(pod_link_prefix));
    let mut settings = Vec::new();
    for link in &uplinks {
        // Forwarding turns off the reception of router advertisements where accept_ra is 1. A host
        // that has its default route from them must not lose it; 2 means: even when forwarding.
        // Stands first, because the loss happens when forwarding is switched on.
        settings.push(Setting {
            key: format!("net/ipv6/conf/{link}/accept_ra"),
            rule: Rule::Instead(1, 2),
        });
    }
    let node: &[(&str, i32)] = &[
        ("net/ipv4/ip_forward", 1),
        ("net/ipv6/conf/all/forwarding", 1),
        // Hash over ports as well: by addresses alone all flows between two pods share one path.
        ("net/ipv4/fib_multipath_hash_policy", 1),
        ("net/ipv6/fib_multipath_hash_policy", 1),
        // With ECMP a packet may come in by another uplink than the one towards its source, which
        // strict filtering (1) drops. The kernel takes the larger of `all` and the link's own value,
        // so 2 (loose) in `all` overrules a 1 on any link, present or future; a 0 would not.
        ("net/ipv4/conf/all/rp_filter", 2),
        // A route whose carrier is gone must not attract packets until the address is removed.
        ("net/ipv4/conf/all/ignore_routes_with_linkdown", 1),
        ("net/ipv4/conf/default/ignore_routes_with_linkdown", 1),
        ("net/ipv6/conf/all/ignore_routes_with_linkdown", 1),
        ("net/ipv6/conf/default/ignore_routes_with_linkdown", 1),
        // IPv6 addresses, unlike IPv4 ones, vanish when a link is set down and do not come back.
        ("net/ipv6/conf/all/keep_addr_on_down", 1),
        // Otherwise each change of a next-hop group is told once for every route that leads to it, to
        // us and to whoever else listens: 100,000 messages for the loss of a neighbour.
        ("net/ipv4/nexthop_compat_mode", 0),
        // fib_multipath_use_neigh is not in the list: next-hop groups always skip a member whose
        // neighbour is known to be unreachable, whatever it says.
    ];
    settings.extend(node.iter().map(|&(key, value)| is(key.to_owned(), value)));
    for link in &uplinks {
        // IPv4 forwarding and the IPv6 link-down rule count per link, and `all` only writes through
        // at the moment of a change: a link that was set back by hand stays so.
        settings.push(is(format!("net/ipv4/conf/{link}/forwarding"), 1));
        for family in ["ipv4", "ipv6"] {
            let key = format!("net/{family}/conf/{link}/ignore_routes_with_linkdown");
            settings.push(is(key, 1));
        }
    }
    Ok(settings)
}

/// What the host's end of a pod's link needs.
pub fn host_link_settings(link: &str) -> Vec<Setting> {
    let v4 = |key: &str, value| is(format!("net/ipv4/conf/{link}/{key}"), value);
    let v6 = |key: &str, value| is(format!("net/ipv6/conf/{link}/{key}"), value);
    vec![
        v4("forwarding", 1),
        // Both ends have permanent neighbour entries; answering for others would only hide mistakes.
        v4("proxy_arp", 0),
        // A pod must not move the node's routes.
        v4("accept_redirects", 0),
        v6("accept_redirects", 0),
        v6("accept_ra", 0),
        v6("autoconf", 0),
        v6("disable_ipv6", 0),
        // A link-local address that waits for duplicate detection cannot be a source yet.
        v6("accept_dad", 0),
        v6("dad_transmits", 0),
    ]
}

/// What the pod's end needs, in the pod's namespace.
pub fn pod_link_settings(link: &str) -> Vec<Setting> {
    let v6 = |key: &str, value| is(format!("net/ipv6/conf/{link}/{key}"), value);
    vec![
        // Some runtimes turn IPv6 off in new namespaces.
        v6("disable_ipv6", 0),
        // Addresses and routes come from the node, never from an advertisement.
        v6("accept_ra", 0),
        v6("autoconf", 0),
        v6("accept_dad", 0),
        v6("dad_transmits", 0),
    ]
}

fn repair_one(setting: &Setting) -> Result<Option<Change>> {
    let from = read(&setting.key)?;
    let Some(to) = setting.rule.correction(from) else {
        return Ok(None);
    };
    write(&setting.key, to)?;
    Ok(Some(Change {
        key: setting.key.clone(),
        from,
        to,
    }))
}

fn is(key: String, value: i32) -> Setting {
    Setting {
        key,
        rule: Rule::Is(value),
    }
}

fn path_of(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

fn links() -> Result<Vec<String>> {
    const CONF: &str = "net/ipv4/conf";
    let failed = |source| Error::Sysctl {
        doing: "list",
        key: CONF.to_owned(),
        source,
    };
    let mut links = Vec::new();
    for entry in fs::read_dir(path_of(CONF)).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // The kernel allows any octets in a link's name; such a link is beyond the text interface.
        if let Ok(name) = name.into_string()
            && name != "all"
            && name != "default"
        {
            links.push(name);
        }
    }
    links.sort();
    Ok(links)
}
