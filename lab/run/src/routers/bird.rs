//! BIRD 2: one process that speaks and programs the kernel.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use caracal_lab_topology::{Plan, PlannedNode, Role, Session, SessionKind};

use super::{Launch, RESTART_SECONDS, StartKind};

/// The version, when BIRD is installed.
pub(super) fn detect() -> Option<String> {
    let output = Command::new("bird").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().last().map(str::to_owned)
}

/// What to start.
pub(super) fn launches(folder: &Path, start: StartKind) -> Vec<Launch> {
    let mut arguments = vec![
        "-f".to_owned(),
        "-c".to_owned(),
        folder.join("bird.conf").display().to_string(),
        "-s".to_owned(),
        control(folder).display().to_string(),
        "-P".to_owned(),
        folder.join("bird.pid").display().to_string(),
    ];
    if start == StartKind::Recovery {
        // Graceful restart recovery: keeps what the kernel has until the peers have told everything.
        arguments.push("-R".to_owned());
    }
    vec![Launch {
        program: "bird".into(),
        arguments,
        ready: Some(control(folder)),
    }]
}

/// Configuration files by name.
pub(super) fn render(plan: &Plan, node: &PlannedNode, folder: &Path) -> Vec<(PathBuf, String)> {
    vec![(
        "bird.conf".into(),
        bird_conf(plan, node, folder, "announce"),
    )]
}

/// Stops announcing anything, while all that was learnt stays installed.
pub(super) fn drain(folder: &Path, plan: &Plan, node: &PlannedNode) -> anyhow::Result<()> {
    let path = folder.join("bird.conf");
    std::fs::write(&path, bird_conf(plan, node, folder, "silence"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    birdc(folder, &["configure"])?;
    Ok(())
}

/// Number of established sessions.
pub(super) fn established(folder: &Path) -> anyhow::Result<usize> {
    let text = birdc(folder, &["show", "protocols"])?;
    Ok(text
        .lines()
        .filter(|line| line.contains(" BGP ") && line.trim_end().ends_with("Established"))
        .count())
}

fn bird_conf(plan: &Plan, node: &PlannedNode, folder: &Path, export: &str) -> String {
    let outside: Vec<&str> = plan
        .ends(&node.name)
        .filter(|(_, _, far)| plan.nodes[&far.node].role == Role::Outside)
        .map(|(_, own, _)| own.interface.as_str())
        .collect();
    let interfaces = std::iter::once("lo")
        .chain(outside)
        .map(|name| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(", ");
    let mut text = format!(
        r#"log "{log}" {{ info, warning, error, fatal, bug, remote }};
router id {id};
graceful restart wait {wait};

filter announce {{ if source = RTS_BGP then accept; if source = RTS_DEVICE then accept; reject; }}
filter silence {{ reject; }}

protocol device {{ scan time 2; }}
protocol direct {{ ipv4; ipv6; interface {interfaces}; }}
protocol kernel {{
  ipv4 {{ import none; export where source = RTS_BGP; }};
  merge paths on limit 16; persist; graceful restart; scan time 10;
}}
protocol kernel {{
  ipv6 {{ import none; export where source = RTS_BGP; }};
  merge paths on limit 16; persist; graceful restart; scan time 10;
}}
"#,
        log = folder.join("bird.log").display(),
        id = node.loopback_v4,
        wait = RECOVERY_WAIT_SECONDS,
    );
    for session in plan.sessions(&node.name) {
        let _ = write!(text, "{}", protocol(node, &session, export));
    }
    text
}

/// Longest wait for the peers' End-of-RIB after a restart. A peer that is down as well must not hold up
/// the rest for long.
const RECOVERY_WAIT_SECONDS: u32 = 20;

fn protocol(node: &PlannedNode, session: &Session<'_>, export: &str) -> String {
    let client = session.kind == SessionKind::ToClient;
    let channel = format!(
        "import all; export filter {export};{}",
        if client { " next hop self;" } else { "" }
    );
    format!(
        r#"protocol bgp {name} {{
  local {local} as {asn};
  neighbor {remote} as {peer_asn};
  direct;
  connect delay time 1; connect retry time 1; error wait time 1, 1; error forget time 1;
  graceful restart on; graceful restart time {RESTART_SECONDS};
{client}  ipv4 {{ {channel} }};
  ipv6 {{ {channel} }};
}}
"#,
        name = format_args!(
            "{}_{}",
            session.peer.name.replace('-', "_"),
            session.local.interface
        ),
        local = session.local.v4,
        asn = node.asn,
        remote = session.remote.v4,
        peer_asn = session.peer.asn,
        client = if client {
            format!("  rr client; rr cluster id {};\n", node.loopback_v4)
        } else {
            String::new()
        },
    )
}

fn birdc(folder: &Path, command: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("birdc")
        .arg("-s")
        .arg(control(folder))
        .args(command)
        .output()
        .context("cannot run birdc")?;
    if !output.status.success() {
        bail!(
            "birdc in {}: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn control(folder: &Path) -> PathBuf {
    folder.join("bird.ctl")
}
