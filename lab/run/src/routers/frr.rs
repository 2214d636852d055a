//! FRR: zebra forwards, bgpd speaks. Both are started by hand with private sockets, so that any number of
//! them can run beside each other and beside a system-wide FRR.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use caracal_lab_topology::{Fabric, Plan, PlannedNode, Session, SessionKind};

use super::{Launch, RESTART_SECONDS, StopKind, own_prefixes};

/// The account that the daemons drop to. They insist on one that belongs to FRR's group for terminals.
pub(super) const USER: &str = "frr";

/// Where Debian keeps the daemons; they are not on the PATH.
const DAEMONS: &str = "/usr/lib/frr";

/// The version, when FRR is installed.
pub(super) fn detect() -> Option<String> {
    let bgpd = Path::new(DAEMONS).join("bgpd");
    let output = Command::new(bgpd).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next()?.split_whitespace().last()?;
    Some(version.to_owned())
}

/// What to start, in order: zebra owns the kernel, so bgpd waits for it by its socket.
pub(super) fn launches(folder: &Path) -> Vec<Launch> {
    let common = |daemon: &str| {
        vec![
            "-f".to_owned(),
            folder.join(format!("{daemon}.conf")).display().to_string(),
            "-i".to_owned(),
            folder.join(format!("{daemon}.pid")).display().to_string(),
            "-z".to_owned(),
            folder.join("zserv.api").display().to_string(),
            "--vty_socket".to_owned(),
            folder.display().to_string(),
            "--log".to_owned(),
            format!("file:{}", folder.join(format!("{daemon}.log")).display()),
        ]
    };
    let mut zebra = common("zebra");
    // -K keeps the kernel's routes over a restart until BGP has relearnt them; -r keeps them at the end.
    // --v6-rr-semantics changes IPv6 routes in place, as the kernel has long been able to; without it
    // zebra deletes each and adds it anew, and packets fall in between.
    zebra.extend([
        "-P".to_owned(),
        "0".to_owned(),
        "-K".to_owned(),
        RESTART_SECONDS.to_string(),
        "-r".to_owned(),
        "--v6-rr-semantics".to_owned(),
    ]);
    let mut bgpd = common("bgpd");
    bgpd.extend(["-P".to_owned(), "0".to_owned()]);
    vec![
        Launch {
            program: Path::new(DAEMONS).join("zebra"),
            arguments: zebra,
            ready: Some(folder.join("zserv.api")),
        },
        Launch {
            program: Path::new(DAEMONS).join("bgpd"),
            arguments: bgpd,
            ready: Some(folder.join("bgpd.vty")),
        },
    ]
}

/// Configuration files by name.
pub(super) fn render(plan: &Plan, node: &PlannedNode) -> Vec<(PathBuf, String)> {
    vec![
        // The kernel drops next-hop objects when a carrier goes, without telling, and zebra goes on to
        // refer to them: routes come out complete only with next hops of their own.
        (
            "zebra.conf".into(),
            format!("hostname {}\nno zebra nexthop kernel enable\n", node.name),
        ),
        ("bgpd.conf".into(), bgpd_conf(plan, node)),
    ]
}

fn bgpd_conf(plan: &Plan, node: &PlannedNode) -> String {
    let sessions = plan.sessions(&node.name);
    let mut text = String::new();
    let out = &mut text;
    line(out, 0, format_args!("hostname {}", node.name));
    route_maps(out);
    line(out, 0, format_args!("router bgp {}", node.asn));
    line(out, 1, format_args!("bgp router-id {}", node.loopback_v4));
    line(out, 1, format_args!("no bgp ebgp-requires-policy"));
    line(out, 1, format_args!("no bgp default ipv4-unicast"));
    line(out, 1, format_args!("bgp bestpath as-path multipath-relax"));
    line(out, 1, format_args!("bgp graceful-restart"));
    line(
        out,
        1,
        format_args!("bgp graceful-restart preserve-fw-state"),
    );
    line(
        out,
        1,
        format_args!("bgp graceful-restart restart-time {RESTART_SECONDS}"),
    );
    line(
        out,
        1,
        format_args!("bgp graceful-restart stalepath-time {RESTART_SECONDS}"),
    );
    // Routes are passed on only once zebra has them in the kernel, so a returning router draws no
    // traffic that it cannot forward yet.
    line(out, 1, format_args!("bgp suppress-fib-pending"));
    if plan.fabric == Fabric::IbgpRack {
        line(out, 1, format_args!("bgp cluster-id {}", node.loopback_v4));
    }
    for session in &sessions {
        let peer = session.remote.v4;
        line(
            out,
            1,
            format_args!("neighbor {peer} remote-as {}", session.peer.asn),
        );
        line(
            out,
            1,
            format_args!("neighbor {peer} description {}", session.peer.name),
        );
        line(out, 1, format_args!("neighbor {peer} timers connect 1"));
        line(
            out,
            1,
            format_args!("neighbor {peer} advertisement-interval 0"),
        );
    }
    for (family, prefixes) in own_prefixes(plan, node) {
        line(out, 1, format_args!("address-family {family} unicast"));
        for prefix in prefixes {
            line(out, 2, format_args!("network {prefix}"));
        }
        line(out, 2, format_args!("maximum-paths 16"));
        line(out, 2, format_args!("maximum-paths ibgp 16"));
        for session in &sessions {
            activate(out, session);
            if family == "ipv6" {
                let peer = session.remote.v4;
                line(
                    out,
                    2,
                    format_args!("neighbor {peer} route-map prefer-global in"),
                );
                line(
                    out,
                    2,
                    format_args!("neighbor {peer} route-map announce out"),
                );
            }
        }
        line(out, 1, format_args!("exit-address-family"));
    }
    text
}

/// Route maps stand before whoever uses them: bgpd refuses every route while a map is unknown, and looks
/// again 5 s later.
fn route_maps(out: &mut String) {
    line(out, 0, format_args!("bgp route-map delay-timer 0"));
    line(out, 0, format_args!("route-map silence deny 10"));
    // bgpd 8 does not notice that a link-local next hop went with its interface, so routes that it retains
    // for a peer that restarts would outlive the cable; a global next hop is tracked.
    line(out, 0, format_args!("route-map prefer-global permit 10"));
    line(out, 1, format_args!("set ipv6 next-hop prefer-global"));
    line(out, 0, format_args!("exit"));
    // bgpd takes the mark that this leaves on a route for a next hop set on the way out, and ignores
    // next-hop-self; a route map on the way out, of whatever content, takes the mark off first.
    line(out, 0, format_args!("route-map announce permit 10"));
}

fn activate(out: &mut String, session: &Session<'_>) {
    let peer = session.remote.v4;
    line(out, 2, format_args!("neighbor {peer} activate"));
    if session.kind == SessionKind::ToClient {
        line(
            out,
            2,
            format_args!("neighbor {peer} route-reflector-client"),
        );
        // Without `force` a reflected route keeps the originating node's address, which the other
        // nodes of the rack cannot resolve.
        line(out, 2, format_args!("neighbor {peer} next-hop-self force"));
    }
}

/// Stops announcing anything, while all that was learnt stays installed: traffic moves away before the
/// router goes.
pub(super) fn drain(folder: &Path, plan: &Plan, node: &PlannedNode) -> anyhow::Result<()> {
    let mut commands = vec![
        "configure terminal".to_owned(),
        format!("router bgp {}", node.asn),
    ];
    for family in ["ipv4", "ipv6"] {
        commands.push(format!("address-family {family} unicast"));
        for session in plan.sessions(&node.name) {
            commands.push(format!(
                "neighbor {} route-map silence out",
                session.remote.v4
            ));
        }
        commands.push("exit-address-family".to_owned());
    }
    vtysh(folder, &commands)?;
    Ok(())
}

/// Number of established sessions, both families activated.
pub(super) fn established(folder: &Path) -> anyhow::Result<usize> {
    let text = vtysh(folder, &["show bgp ipv4 unicast summary json".to_owned()])?;
    let summary: serde_json::Value =
        serde_json::from_str(&text).context("cannot read bgpd's summary")?;
    let peers = summary["peers"].as_object().map(|peers| {
        peers
            .values()
            .filter(|peer| peer["state"] == "Established")
            .count()
    });
    Ok(peers.unwrap_or(0))
}

/// How daemons are asked to stop; a kill leaves the kernel's routes, as does an orderly stop (`-r`).
pub(super) fn stop_signal(kind: StopKind) -> nix::sys::signal::Signal {
    match kind {
        StopKind::Kill => nix::sys::signal::Signal::SIGKILL,
        StopKind::Orderly => nix::sys::signal::Signal::SIGTERM,
    }
}

fn vtysh(folder: &Path, commands: &[String]) -> anyhow::Result<String> {
    let mut command = Command::new("vtysh");
    command.arg("--vty_socket").arg(folder);
    for text in commands {
        command.arg("-c").arg(text);
    }
    let output = command.output().context("cannot run vtysh")?;
    if !output.status.success() {
        bail!(
            "vtysh in {}: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn line(out: &mut String, depth: usize, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{:depth$}{text}", "");
}
