//! `caracal bgp … --all-nodes` as people run it: two nodes with their agents, a third without one, and what
//! they have reported to an API server.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use caracal_lab::process::until;
use common::net::{Net, Started, caracal, transit_speaker};
use common::server::{Server, ours};
use serde_json::{Value, json};

/// A status waits for six seconds at most; a count, after others, for a while more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Routes of the router, half of which the nodes reject.
const MANY: usize = 90;

const DOCUMENT: &str = include_str!("../docs/operating-bgp.md");

/// Answered, though some nodes have reported nothing.
const PARTIAL: Option<i32> = Some(4);
const REFUSED: Option<i32> = Some(1);

/// What the documentation shows of a command.
fn documented(words: &str) -> &'static str {
    let prompt = format!("```\n$ caracal bgp {words}\n");
    let screen = DOCUMENT.split_once(&prompt);
    let (_, rest) = screen.unwrap_or_else(|| panic!("no screen of {words:?}"));
    rest.split_once("```").unwrap().0
}

/// A screen without what differs from run to run: ages, and how wide columns are for them.
fn shape(screen: &str) -> Vec<String> {
    let word = |word: &str| {
        let age = word.trim_matches(['(', ')']);
        let is_age = age.starts_with(|sign: char| sign.is_ascii_digit())
            && age.ends_with(['s', 'm', 'h'])
            && age
                .chars()
                .all(|sign| sign.is_ascii_digit() || "smhd".contains(sign));
        if is_age {
            word.replace(age, "AGE")
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        words.join(" ")
    };
    screen.lines().map(line).collect()
}

/// Two nodes, a router that both peer with, and another one that only the second does and that is not
/// there; a third node that only the API server knows.
struct Bench {
    net: Net,
    server: Server,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let net = Net::new(&["sw", "tor1", "tor2", "n1", "n2"]);
        net.switch(
            "sw",
            &[
                ("tor1", "10.0.0.1/24"),
                ("tor2", "10.0.0.2/24"),
                ("n1", "10.0.0.11/24"),
                ("n2", "10.0.0.12/24"),
            ],
        );
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = Server::start(&net, "tor1", "10.0.0.1:8080", runtime.handle());
        server.let_us_in(&net.folder("sw").join("kubeconfig"));
        for (number, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
            let address = format!("10.250.0.{}", number + 1);
            server.create(&json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": node},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address}],
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }));
            if node != "n3" {
                net.ip(node, &format!("addr add {address}/32 dev lo"));
                server.let_in(&net, node, "10.0.0.1:8080");
            }
        }
        let configuration = json!({
            "asNumber": 65000, "nodeToNodeMeshEnabled": false, "connectRetryTime": "1s",
        });
        server.create(&ours("BGPConfiguration", "default", &configuration));
        let filter = json!({"importV4": [
            {"name": "lab", "cidr": "20.1.0.0/16", "matchOperator": "In", "action": "Reject"},
        ]});
        server.create(&ours("BGPFilter", "no-lab", &filter));
        let off = json!({"enabled": false});
        let first =
            json!({"peerIP": "10.0.0.1", "asNumber": 65001, "bfd": off, "filters": ["no-lab"]});
        let second = json!({"peerIP": "10.0.0.2", "asNumber": 65002, "bfd": off, "node": "n2"});
        server.create(&ours("BGPPeer", "tor1", &first));
        server.create(&ours("BGPPeer", "tor2", &second));
        Self {
            net,
            server,
            _runtime: runtime,
        }
    }

    fn start_agent(&mut self, node: &str) -> Started {
        let folder = self.net.folder(node);
        let mut command = self.net.command(node, caracal());
        command
            .args(["node", "--node", node, "--run-dir"])
            .arg(&folder);
        command.arg("--kubeconfig").arg(folder.join("kubeconfig"));
        self.net.start(node, command)
    }

    /// Starts the router that is there.
    fn start_router(&mut self) {
        let peers: Vec<String> = [("n1", "10.0.0.11"), ("n2", "10.0.0.12")]
            .map(|(name, address)| {
                format!(
                    "apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: {name}}}
spec: {{peerIP: {address}, asNumber: 65000, bfd: {{enabled: false}}}}
"
                )
            })
            .to_vec();
        let many: Vec<String> = (0..MANY)
            .map(|at| format!("20.{}.{}.0/24", at % 2, at / 2))
            .collect();
        let manifests = transit_speaker(65_001, "10.0.0.1", &peers.join("---\n"), &many);
        self.net.start_speaker("tor1", &manifests);
    }

    /// Where no speaker is, with credentials for the cluster.
    fn bgp(&self, words: &str) -> Output {
        let folder = self.net.folder("sw");
        Command::new(caracal())
            .arg("bgp")
            .args(words.split_whitespace())
            .env("CARACAL_RUN_DIR", &folder)
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .output()
            .unwrap()
    }

    /// What a command prints that all but the third node can answer.
    fn says(&self, words: &str) -> String {
        let output = self.bgp(words);
        assert_eq!(output.status.code(), PARTIAL, "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a command prints all of `parts`.
    fn until(&self, words: &str, parts: &[&str]) -> String {
        let look = || {
            let text = self.says(words);
            match parts.iter().find(|part| !text.contains(**part)) {
                None => Ok(text),
                Some(part) => Err(format!("no {part:?} in\n{text}")),
            }
        };
        until(words, PATIENCE, look).unwrap()
    }

    /// Writes screens to files for `docs/operating-bgp.md`, if anybody wants them.
    fn print(&self, screens: &[(&str, &str)]) {
        if let Ok(folder) = std::env::var("CARACAL_SCREENS") {
            for (file, words) in screens {
                std::fs::write(format!("{folder}/{file}.txt"), self.says(words)).unwrap();
            }
        }
    }

    /// Waits until a command prints what the documentation shows.
    fn as_documented(&self, words: &str) {
        let expected = documented(words);
        let look = || {
            let text = self.says(words);
            let same = shape(&text) == shape(expected);
            let differs = || format!("{text}\nand the documentation shows\n{expected}");
            if same { Ok(()) } else { Err(differs()) }
        };
        until(words, PATIENCE, look).unwrap();
    }
}

#[test]
fn nodes_report_sessions_errors_and_rejected_routes_to_who_asks_the_cluster() {
    if !common::is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut bench = Bench::new();
    bench.start_agent("n1");
    let second = bench.start_agent("n2");
    let refused = ["n1 ", "n2 ", "0 of 3 sessions established on 2 nodes"];
    let text = bench.until("peers --all-nodes", &refused);
    assert_eq!(text.matches("connection refused").count(), 3, "{text}");

    bench.start_router();
    let words = "peers --all-nodes";
    bench.until(words, &["2 of 3 sessions established on 2 nodes", " 91 "]);
    bench.until(
        "routes --rejected -A",
        &["92 routes rejected on 2 of 2 nodes"],
    );
    bench.print(&[
        ("cluster", "peers --all-nodes"),
        ("cluster-rejected", "routes --rejected --all-nodes"),
        ("cluster-explain", "explain 20.1.7.7 --all-nodes"),
    ]);
    for words in [
        "peers --all-nodes",
        "routes --rejected --all-nodes",
        "explain 20.1.7.7 --all-nodes",
    ] {
        bench.as_documented(words);
    }
    let json: Value =
        serde_json::from_str(&bench.says("routes --rejected=tor1 -A -o json")).unwrap();
    let counts = json["rejected"].as_array().unwrap().iter();
    let counts: Vec<&Value> = counts.map(|it| &it["count"]).collect();
    assert_eq!(
        counts,
        [&json!(45), &json!(1), &json!(45), &json!(1)],
        "{json}"
    );
    // Where no speaker answers, sessions are those of the cluster.
    bench.until("peers", &["2 of 3 sessions established on 2 nodes"]);
    let one = bench.bgp("peers --node n1");
    assert!(one.status.success(), "{one:?}");
    assert!(
        !String::from_utf8_lossy(&one.stdout).contains("n2"),
        "{one:?}"
    );

    for (words, error) in [
        ("peers x -A", "error: no peer is called \"x\""),
        ("peers --node x", "error: no node is called \"x\""),
        (
            "routes -A",
            "error: nodes report no routes but those that they reject",
        ),
        (
            "history tor1 --node n1",
            "error: nodes do not report what has happened",
        ),
        (
            "clear --all -A --hard",
            "error: sessions are cleared by nobody but",
        ),
        ("explain x -A", "error: 'x' is not a prefix"),
    ] {
        let output = bench.bgp(words);
        assert_eq!(output.status.code(), REFUSED, "{words}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.starts_with(error), "{words}: {said}");
    }
    // Decisions are not reported: what the node names of them, and how to ask it itself.
    let output = bench.bgp("explain 20.1.7.7 --node n1");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("1 of 1 node names a rejected route that covers"),
        "{said}"
    );
    let end = "spec.nodeName=n1)\" -- caracal bgp explain 20.1.7.7\n";
    assert!(
        said.contains("to ask a node itself: kubectl -n ") && said.ends_with(end),
        "{said}"
    );
    let output = bench.bgp("history tor1 --node n1 --events");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let end = "spec.nodeName=n1)\" -- caracal bgp history tor1 --events\n";
    assert!(
        said.contains("hint: kubectl -n ") && said.ends_with(end),
        "{said}"
    );

    // The router tells one of them to come again, and says why.
    let folder = bench.net.folder("tor1");
    let clear = [
        "bgp",
        "clear",
        "n1",
        "--hard",
        "--message",
        "fibre",
        "--run-dir",
    ];
    let cleared = Command::new(caracal()).args(clear).arg(folder).output();
    assert!(cleared.unwrap().status.success());
    bench.until(
        "peers tor1 -A",
        &["fibre", "2 of 2 sessions established", " 91 "],
    );
    bench.print(&[("cluster-peer", "peers tor1 --all-nodes")]);
    bench.as_documented("peers tor1 --all-nodes");

    // An operator cordons one of them.
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let cordon = json!({"spec": {"unschedulable": true}});
    bench.server.api.merge(&node("n1"), &cordon).unwrap();
    bench.until("peers -A", &["draining: the node is cordoned"]);
    bench.print(&[("cluster-cordoned", "peers -A")]);
    bench.as_documented("peers -A");

    // A node whose machine is gone has said what it said.
    bench.net.signal(second, "-KILL");
    let unknown = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    bench
        .server
        .api
        .patch_status(&node("n2"), &unknown)
        .unwrap();
    let hint = "hint: n2 is not Ready: what it reported last may be old";
    bench.until(
        "peers -A",
        &["2 of 3 sessions established on 2 nodes", hint],
    );
}
