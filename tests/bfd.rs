//! `caracal bfd` as people run it: two processes on one link, what they show, what they refuse, how
//! they end.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use caracal_lab::process::until;

const SOON: Duration = Duration::from_secs(20);

/// Two namespaces on one link, and a folder for each; gone when dropped.
struct Bench {
    name: String,
    folder: tempfile::TempDir,
    children: Vec<Child>,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            name: format!("cbfdcli{}", std::process::id()),
            folder: tempfile::tempdir().unwrap(),
            children: Vec::new(),
        };
        let [a, b] = ["a", "b"].map(|side| bench.namespace(side));
        for (side, name) in [("a", &a), ("b", &b)] {
            ip(&format!("netns add {name}"));
            std::fs::create_dir(bench.run_dir(side)).unwrap();
        }
        ip(&format!(
            "-n {a} link add e1 type veth peer name e1 netns {b}"
        ));
        for (name, address) in [(&a, "10.0.0.0/31"), (&b, "10.0.0.1/31")] {
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} addr add {address} dev e1"));
            ip(&format!("-n {name} link set e1 up"));
        }
        bench
    }

    fn namespace(&self, side: &str) -> String {
        format!("{}{side}", self.name)
    }

    fn run_dir(&self, side: &str) -> PathBuf {
        self.folder.path().join(side)
    }

    /// `caracal bfd` in a namespace.
    fn caracal(&self, side: &str, run_dir: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(side)])
            .args([env!("CARGO_BIN_EXE_caracal"), "bfd", "--run-dir"])
            .arg(run_dir)
            .stdin(Stdio::null());
        command
    }

    fn start(&mut self, side: &str) -> usize {
        let log = std::fs::File::create(self.run_dir(side).join("log")).unwrap();
        let child = self
            .caracal(side, &self.run_dir(side))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
        self.children.len() - 1
    }

    /// A client that stays for as long as its answer is kept.
    fn want(&self, side: &str, sessions: &str) -> UnixStream {
        let socket = self.run_dir(side).join("bfd.sock");
        let connect = || UnixStream::connect(&socket).map_err(|error| error.to_string());
        let mut stream = until("the process to listen", SOON, connect).unwrap();
        let request = format!(r#"{{"verb":"apply","owner":"test","sessions":{sessions}}}"#);
        writeln!(stream, "{request}").unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.contains(r#""refused":[]"#), "{answer}");
        stream
    }

    fn sessions(&self, side: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_caracal"))
            .args(["bfd", "sessions", "--run-dir"])
            .arg(self.run_dir(side))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn signal(&self, child: usize, signal: &str) {
        let pid = self.children[child].id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for side in ["a", "b"] {
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.run_dir(side).join("log"));
                eprintln!("log of {side}:\n{}", log.unwrap_or_default());
            }
            let name = self.namespace(side);
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn sessions_are_shown_mistakes_explained_and_the_end_is_orderly() {
    if !common::is_root() {
        println!("SKIP network namespaces need root");
        return;
    }
    let mut bench = Bench::new();
    let (a, b) = (bench.start("a"), bench.start("b"));
    let _ours = bench.want(
        "a",
        r#"[{"key":{"peer":"10.0.0.1","interface":"e1"}},
            {"key":{"peer":"10.9.9.9","multihop":true}},
            {"key":{"peer":"fe80::1","interface":"e7"}}]"#
            .replace('\n', " ")
            .as_str(),
    );
    let _theirs = bench.want(
        "b",
        r#"[{"key":{"peer":"10.0.0.0","interface":"e1"},"detect_mult":5}]"#,
    );
    let settled = || {
        let text = bench.sessions("a");
        let up = text.contains(" Up ") && text.contains("300ms  300ms");
        if up { Ok(text) } else { Err(text) }
    };
    let text = until("a session up and at its pace", SOON, settled).unwrap();
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    let header = "PEER LOCAL IFACE STATE DIAG TX RX MULT UPTIME WHY";
    assert_eq!(lines[0].join(" "), header);
    assert_eq!(
        lines[1][..8],
        [
            "10.0.0.1", "10.0.0.0", "e1", "Up", "-", "300ms", "300ms", "3/5"
        ]
    );
    let unreachable =
        "10.9.9.9 - multihop Down - - - 3 - no way to 10.9.9.9: Network is unreachable";
    assert_eq!(lines[2].join(" "), unreachable);
    assert_eq!(
        lines[3].join(" "),
        "fe80::1 - e7 Down - - - 3 - no interface e7: No such device"
    );
    assert_eq!(lines[4].join(" "), "1 of 3 sessions up");

    let json = Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(["bfd", "sessions", "-o", "json"])
        .env("CARACAL_RUN_DIR", bench.run_dir("a"))
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["sessions"][0]["state"], "Up");
    assert_eq!(json["sessions"][0]["remote_c"], true);
    assert_eq!(json["sessions"][0]["owners"][0]["name"], "test");

    // What cannot be is said in one line, with a hint.
    let elsewhere = bench.folder.path().join("c");
    std::fs::create_dir(&elsewhere).unwrap();
    let error = refusal(&bench.caracal("a", &elsewhere).output().unwrap());
    assert!(
        error.starts_with("error: UDP port 0.0.0.0:3784 is in use"),
        "{error}"
    );
    assert!(error.contains("hint: "), "{error}");
    let error = refusal(
        &Command::new(env!("CARGO_BIN_EXE_caracal"))
            .args(["bfd", "sessions", "--run-dir"])
            .arg(&elsewhere)
            .output()
            .unwrap(),
    );
    assert!(
        error.starts_with("error: cannot ask the BFD process at "),
        "{error}"
    );
    assert!(
        error.contains("hint: `caracal bfd` must be running"),
        "{error}"
    );

    // One signal: peers are told first. Two: at once.
    bench.signal(a, "-TERM");
    let told = || {
        let text = bench.sessions("b");
        let told = text.contains("held down by the peer's administrator");
        if told { Ok(()) } else { Err(text) }
    };
    until("the peer told", SOON, told).unwrap();
    assert_eq!(bench.children[a].wait().unwrap().code(), Some(0));
    bench.signal(b, "-TERM");
    let log = bench.run_dir("b").join("log");
    let heard = || {
        let log = std::fs::read_to_string(&log).unwrap();
        if log.contains("telling peers") {
            Ok(())
        } else {
            Err(log)
        }
    };
    until("the first signal heard", SOON, heard).unwrap();
    let second = Instant::now();
    bench.signal(b, "-TERM");
    assert_eq!(bench.children[b].wait().unwrap().code(), Some(1));
    assert!(second.elapsed() < Duration::from_secs(2));
}
