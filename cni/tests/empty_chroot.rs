//! The plugin runs where the host offers nothing: no libc, no /etc, no /proc, only the file itself
//! and the agent's socket.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io::Write, thread};

use caracal_cni::protocol::{Call, Outcome, Reply, Request, read_frame, write_frame};
use caracal_cni::result::{AddResult, IpConfig};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the plugin as it is shipped, in a target directory of this test's own: the flags differ
/// from the workspace's and would rebuild everything else.
fn build_static() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--offline",
            "--bin",
            "caracal-cni",
            "--target",
            TARGET,
        ])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "static build of the plugin: {status}");
    target.join(TARGET).join("debug/caracal-cni")
}

fn call(root: &Path, command: &str, stdin: &str) -> (Option<i32>, String) {
    let mut child = Command::new("chroot")
        .arg(root)
        .arg("/caracal-cni")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", "/run/netns/c1")
        .env("CNI_IFNAME", "eth0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("chroot runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(stdin.as_bytes())
        .expect("the plugin reads its input");
    let output = child.wait_with_output().expect("the plugin ends");
    (
        output.status.code(),
        String::from_utf8(output.stdout).expect("JSON is UTF-8"),
    )
}

#[test]
fn the_static_plugin_works_in_an_empty_chroot() {
    let id = Command::new("id")
        .arg("-u")
        .output()
        .map(|out| out.stdout)
        .unwrap_or_default();
    if id.trim_ascii() != b"0" {
        caracal_skip::missing!("chroot needs root");
        return;
    }
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        caracal_skip::skip!("the static build is made for {TARGET}");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    fs::copy(build_static(), root.path().join("caracal-cni")).unwrap();

    let (status, stdout) = call(root.path(), "VERSION", "");
    assert_eq!(status, Some(0), "{stdout}");
    assert!(stdout.contains(r#""supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]"#));

    let listener = UnixListener::bind(root.path().join("agent.sock")).unwrap();
    let agent = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request: Request = read_frame(&mut stream).unwrap();
        let ip = IpConfig {
            address: "fd00::1/128".into(),
            gateway: None,
            interface: None,
        };
        let result = AddResult {
            ips: vec![ip],
            ..Default::default()
        };
        write_frame(&mut stream, &Reply::new(Outcome::Added(result))).unwrap();
        request
    });
    let stdin = r#"{"cniVersion":"1.1.0","name":"n","type":"caracal","socket":"/agent.sock"}"#;
    let (status, stdout) = call(root.path(), "ADD", stdin);
    assert_eq!(status, Some(0), "{stdout}");
    assert!(stdout.contains(r#""address":"fd00::1/128""#), "{stdout}");
    assert!(matches!(agent.join().unwrap().call, Call::Add { .. }));

    // The listener is gone: DEL leaves its tombstone beside the socket, in a directory it makes.
    let (status, stdout) = call(root.path(), "DEL", stdin);
    assert_eq!((status, stdout.as_str()), (Some(0), ""));
    assert!(root.path().join("cni-del/c1.eth0").is_file());
}
