//! `caracal bfd` as people run it: two processes on one link, what they show, what they refuse, how
//! they end.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use caracal_lab::process::until;
use common::net::{Net, Started, caracal};

const SOON: Duration = Duration::from_secs(20);

/// Two hosts on one link.
struct Bench {
    net: Net,
}

impl Bench {
    fn new() -> Self {
        let net = Net::new(&["a", "b"]);
        net.cable([("a", "e1", "10.0.0.0/31"), ("b", "e1", "10.0.0.1/31")]);
        Self { net }
    }

    /// `caracal bfd` on a host.
    fn caracal(&self, side: &str, run_dir: &Path) -> Command {
        let mut command = self.net.command(side, caracal());
        command
            .args(["bfd", "--run-dir"])
            .arg(run_dir)
            .stdin(Stdio::null());
        command
    }

    fn start(&mut self, side: &str) -> Started {
        let command = self.caracal(side, &self.net.folder(side));
        self.net.start(side, command)
    }

    /// A client that stays for as long as its answer is kept.
    fn want(&self, side: &str, sessions: &str) -> UnixStream {
        let socket = self.net.folder(side).join("bfd.sock");
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
        let output = Command::new(caracal())
            .args(["bfd", "sessions", "--run-dir"])
            .arg(self.net.folder(side))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn sessions_are_shown_mistakes_explained_and_the_end_is_orderly() {
    if !common::is_root() {
        caracal_skip::missing!("network namespaces need root");
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

    let json = Command::new(caracal())
        .args(["bfd", "sessions", "-o", "json"])
        .env("CARACAL_RUN_DIR", bench.net.folder("a"))
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["sessions"][0]["state"], "Up");
    assert_eq!(json["sessions"][0]["remote_c"], true);
    assert_eq!(json["sessions"][0]["owners"][0]["name"], "test");

    // What cannot be is said in one line, with a hint.
    let elsewhere = bench.net.folder("c");
    std::fs::create_dir(&elsewhere).unwrap();
    let error = refusal(&bench.caracal("a", &elsewhere).output().unwrap());
    assert!(
        error.starts_with("error: UDP port 0.0.0.0:3784 is in use"),
        "{error}"
    );
    assert!(error.contains("hint: "), "{error}");
    let error = refusal(
        &Command::new(caracal())
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
    bench.net.signal(a, "-TERM");
    let told = || {
        let text = bench.sessions("b");
        let told = text.contains("held down by the peer's administrator");
        if told { Ok(()) } else { Err(text) }
    };
    until("the peer told", SOON, told).unwrap();
    assert_eq!(bench.net.wait(a).code(), Some(0));
    bench.net.signal(b, "-TERM");
    let log = bench.net.folder("b").join("log");
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
    bench.net.signal(b, "-TERM");
    assert_eq!(bench.net.wait(b).code(), Some(1));
    assert!(second.elapsed() < Duration::from_secs(2));
}
