//! `caracal bgp` as people run it: two speakers on one link, every screen and every verb.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use caracal_lab::process::until;
use common::net::{Net, caracal, transit_speaker};

const SOON: Duration = Duration::from_secs(30);

/// In each namespace.
const METRICS: &str = "127.0.0.1:9179";

/// Routes of the second speaker, half of which the first one rejects.
const MANY: usize = 90;

const DOCUMENT: &str = include_str!("../docs/operating-bgp.md");

/// What the documentation shows of a command, each time that it does.
fn documented(words: &str) -> Vec<&'static str> {
    let prompt = format!("```\n$ caracal bgp {words}\n");
    let screens = DOCUMENT.split(&prompt).skip(1);
    let screens: Vec<&str> = screens
        .filter_map(|rest| Some(rest.split_once("```")?.0))
        .collect();
    assert!(!screens.is_empty(), "no screen of {words:?}");
    screens
}

/// A screen without what differs from run to run: numbers, and how wide columns are for them.
fn shape(screen: &str) -> String {
    let mut shape = String::new();
    for sign in screen.chars() {
        let sign = if sign.is_ascii_digit() { '0' } else { sign };
        if !(matches!(sign, '0' | ' ') && shape.ends_with(sign)) {
            shape.push(sign);
        }
    }
    shape
}

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

    /// Starts a speaker with these manifests.
    fn start(&mut self, side: &str, manifests: &str) {
        let more = ["--metrics", METRICS];
        self.net.start_speaker_with(side, manifests, &more);
    }

    /// What `curl` says of the metrics.
    fn metrics(&self, side: &str, path: &str) -> String {
        let url = format!("http://{METRICS}{path}");
        self.net.output(side, "curl", &["-s", "-i", &url])
    }

    fn bgp(&self, side: &str, words: &str) -> Output {
        Command::new(caracal())
            .arg("bgp")
            .args(words.split_whitespace())
            .arg("--run-dir")
            .arg(self.net.folder(side))
            .env_remove("KUBECONFIG")
            .output()
            .unwrap()
    }

    /// What a command prints that succeeds.
    fn says(&self, side: &str, words: &str) -> String {
        let output = self.bgp(side, words);
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a command prints all of `parts`.
    fn until(&self, side: &str, words: &str, parts: &[&str]) -> String {
        let look = || {
            let output = self.bgp(side, words);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            match parts.iter().find(|part| !text.contains(**part)) {
                None => Ok(text),
                Some(part) => Err(format!("no {part:?} in {text}{output:?}")),
            }
        };
        until(words, SOON, look).unwrap()
    }

    /// Waits until a command prints what the documentation shows, the `nth` time that it does.
    fn as_documented(&self, words: &str, nth: usize) {
        let expected = documented(words)[nth];
        let look = || {
            let text = self.says("a", words);
            let same = shape(&text) == shape(expected);
            let differs = || format!("{text}\nand the documentation shows\n{expected}");
            if same { Ok(()) } else { Err(differs()) }
        };
        until(words, SOON, look).unwrap();
    }

    fn refusal(&self, words: &str) -> (Option<i32>, String) {
        let output = self.bgp("a", words);
        assert!(output.stdout.is_empty(), "{words}: {output:?}");
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

const B: &str = "apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: b}
spec:
  description: the other one
  peerIP: 10.0.0.1
  localAddress: 10.0.0.0
  asNumber: 65002
  bfd: {enabled: false}
  filters: [no-lab]
---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: no-lab}
spec:
  importV4:
  - {name: lab, cidr: 20.1.0.0/16, matchOperator: In, action: Reject}
";

const A: &str = "apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: a}
spec: {peerIP: 10.0.0.0, localAddress: 10.0.0.1, asNumber: 65001, bfd: {enabled: false}}
";

#[test]
fn every_screen_of_two_speakers_tells_what_is_and_why() {
    if !common::is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut bench = Bench::new();
    let (code, error) = bench.refusal("peers");
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("there is no speaker at"), "{error}");
    assert!(error.contains("hint: "), "{error}");
    let (code, error) = bench.refusal("peers b");
    assert_eq!(code, Some(3), "{error}");
    assert!(
        error.starts_with("error: cannot ask the speaker"),
        "{error}"
    );

    let own = ["10.1.0.0/24".to_owned()];
    bench.start("a", &transit_speaker(65_001, "10.0.0.10", B, &own));
    let down = bench.until("a", "peers", &["connection refused (", " tries)"]);
    assert!(down.contains("0 of 1 session established"), "{down}");
    bench.as_documented("peers", 0);

    let many: Vec<String> = (0..MANY)
        .map(|at| format!("20.{}.{}.0/24", at % 2, at / 2))
        .collect();
    bench.start("b", &transit_speaker(65_002, "10.0.0.20", A, &many));
    bench.until("a", "peers", &["1 of 1 session established", " 90 "]);

    let detail = bench.until("a", "peers b", &["Established", "yes"]);
    for part in [
        "b (the other one)",
        "10.0.0.0 AS 65001 to 10.0.0.1:179 AS 65002, eBGP, on e1, identifier 10.0.0.20",
        "policy",
        "no-lab",
    ] {
        assert!(detail.contains(part), "no {part:?} in\n{detail}");
    }

    let table = bench.says("a", "routes");
    assert!(table.ends_with("91 prefixes\n"), "{table}");
    bench.until("a", "routes 20.0.7.0/24", &["* ", "10.0.0.1", "installed"]);
    let rejected = bench.says("a", "routes --rejected=b 20.1.0.0/20");
    assert!(rejected.ends_with("16 prefixes\n"), "{rejected}");
    assert!(rejected.contains("no-lab"), "{rejected}");
    let received = bench.says("a", "routes --received b --limit 2");
    assert!(received.ends_with("2 prefixes, and more\n"), "{received}");
    let told = bench.until("a", "routes --advertised b", &["10.1.0.0/24", "65001"]);
    assert!(told.ends_with("1 prefix\n"), "{told}");
    let withheld = bench.says("a", "routes --withheld b 20.0.0.0/24");
    assert!(withheld.contains("the peer told us"), "{withheld}");
    let json = bench.says("a", "routes -o json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), MANY + 1);

    let why = bench.says("a", "explain 20.1.7.7");
    for part in [
        "20.1.7.0/24 is the longest prefix that covers 20.1.7.7/32.",
        "No path can be used.",
        "rejected: the import policy rejects it",
        "rejected by 'no-lab",
    ] {
        assert!(why.contains(part), "no {part:?} in\n{why}");
    }
    let kernel = "kernel: 20.0.7.0/24 proto 214 next hops 10.0.0.1 e1   in sync (checked ";
    let why = bench.until("a", "explain 20.0.7.7", &[kernel]);
    assert!(why.contains("the peer told us"), "{why}");

    let parts = [
        "HTTP/1.1 200 OK",
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        r#"caracal_bgp_session_up{peer="b",peer_asn="65002"} 1"#,
        r#"caracal_bgp_prefixes{peer="b",family="ipv4-unicast",stage="rejected"} 45"#,
        r#"caracal_fib_routes{family="ipv4-unicast",state="installed"} 45"#,
        "# EOF",
    ];
    // The kernel may still be taking routes.
    let scraped = || {
        let metrics = bench.metrics("a", "/metrics");
        let lacks = parts.iter().find(|part| !metrics.contains(**part));
        lacks.map_or(Ok(()), |part| Err(format!("no {part:?} in\n{metrics}")))
    };
    until("metrics", SOON, scraped).unwrap();
    let elsewhere = bench.metrics("a", "/");
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");

    assert_eq!(bench.says("a", "clear b"), "1 peer cleared\n");
    assert_eq!(
        bench.says("a", "clear --all --hard --message fibre"),
        "1 peer cleared\n"
    );
    bench.until("a", "peers b", &["up 2 times", "fibre"]);
    let history = bench.says("a", "history b");
    for part in ["OpenConfirm -> Established", "OPEN", "KEEPALIVE", "fibre"] {
        assert!(history.contains(part), "no {part:?} in\n{history}");
    }
    let events = bench.says("a", "history b --events");
    assert!(!events.contains("KEEPALIVE"), "{events}");
    bench.until("b", "peers a", &["last error received", "fibre"]);

    for (words, expected) in [
        ("peers x", "error: no peer is called \"x\"\n"),
        ("history x", "error: no peer is called \"x\"\n"),
        ("clear x", "error: no peer is called \"x\"\n"),
        ("routes --received x", "error: no peer is called \"x\"\n"),
        ("routes x", "error: 'x' is not a prefix"),
    ] {
        let (code, error) = bench.refusal(words);
        assert_eq!(code, Some(1), "{words}: {error}");
        assert!(error.starts_with(expected), "{words}: {error}");
    }

    bench.as_documented("peers", 1);
    for words in [
        "peers b",
        "routes 20.0.0.0/22",
        "routes --rejected=b 20.1.0.0/22",
        "routes --advertised b",
        "explain 20.0.7.7",
        "explain 20.1.7.7",
    ] {
        bench.as_documented(words, 0);
    }

    if let Ok(folder) = std::env::var("CARACAL_SCREENS") {
        // For docs/operating-bgp.md.
        std::fs::write(format!("{folder}/peers-down.txt"), down).unwrap();
        for (file, words) in [
            ("peers", "peers"),
            ("peer", "peers b"),
            ("routes", "routes 20.0.0.0/22"),
            ("rejected", "routes --rejected=b 20.1.0.0/22"),
            ("advertised", "routes --advertised b"),
            ("explain", "explain 20.1.7.7"),
            ("explain-best", "explain 20.0.7.7"),
            ("history", "history b"),
        ] {
            let text = bench.says("a", words);
            std::fs::write(format!("{folder}/{file}.txt"), text).unwrap();
        }
    }
}

#[test]
fn lint_names_file_and_line_and_exits_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bgp.yaml");
    let lint = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_caracal"))
            .args(["bgp", "lint", "-f", "bgp.yaml"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let good = transit_speaker(65_001, "10.0.0.10", B, &["10.1.0.0/24".to_owned()]);
    assert_eq!(lint(&good), (Some(0), "nothing found\n".to_owned()));
    let wrong = good.replace("filters: [no-lab]", "filters: [no-lib]");
    let (code, text) = lint(&wrong);
    assert_eq!(code, Some(1));
    let line = 1 + wrong
        .lines()
        .position(|line| line.contains("no-lib"))
        .unwrap();
    let start = format!("bgp.yaml:{line}: warning: BGPPeer b: spec.filters[0]: ");
    assert!(text.contains(&start), "{text}");
    assert!(
        text.contains("note: BGPFilter no-lab: no BGPPeer names it (Unused)"),
        "{text}"
    );
    let (code, text) = lint(&good.replace("asNumber: 65002", "asNumber: x"));
    assert_eq!(code, Some(1));
    assert!(
        text.contains(": error: BGPPeer b: spec.asNumber: "),
        "{text}"
    );
    assert!(text.ends_with("1 problem found\n"), "{text}");
    let output = Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(["bgp", "lint", "-f", "/nowhere"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
