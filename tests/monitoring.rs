//! What monitoring is told: running processes serve each metric that the documentation, the alert rules and the
//! dashboard name, and those of the way to the kernel and of BFD move for their own causes. Those of the agent and
//! the controller move in felix/agent/tests/agent/metrics.rs and ipam/controller/tests/cluster/metrics.rs.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caracal_lab::process::until;
use common::net::{Net, Started, caracal, transit_speaker};
use common::server::{Server, ours};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(30);

/// In each namespace.
const METRICS: &str = "127.0.0.1:9179";
/// Of the controller, beside whatever else may be there.
const CONTROLLER_METRICS: &str = "127.0.0.1:9180";

const DOCUMENT: &str = include_str!("../docs/metrics.md");
const RULES: &str = include_str!("../deploy/monitoring/rules.yaml");
const RULES_TEST: &str = include_str!("../deploy/monitoring/rules_test.yaml");
const DASHBOARD: &str = include_str!("../deploy/monitoring/dashboard.json");

/// What every process has stands before the first of these.
const PROCESS: &str = "# Metrics";
const BGP: &str = "## BGP and the kernel's routes";
const NODE: &str = "## Policy, addresses, and what a node has not told or heard";
const BLOCKS: &str = "## Blocks";
const OBJECTS: &str = "## Objects at the API server";

/// Name, type and labels of each metric.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;
/// Values by series.
type Samples = BTreeMap<String, f64>;

/// Two hosts on one link, each with a speaker and a BFD process.
struct Bench {
    net: Net,
    /// Everything that was ever served.
    served: Metrics,
}

impl Bench {
    fn new() -> Self {
        let net = Net::new(&["a", "b"]);
        net.cable([("a", "e1", "10.0.0.0/31"), ("b", "e1", "10.0.0.1/31")]);
        Self {
            net,
            served: Metrics::new(),
        }
    }

    fn start_bfd(&mut self, side: &str) -> Started {
        let mut command = self.net.command(side, caracal());
        command
            .args(["bfd", "--run-dir"])
            .arg(self.net.folder(side));
        self.net.start(side, command)
    }

    fn start_speaker(&mut self, side: &str, manifests: &str) {
        let more = ["--metrics", METRICS];
        self.net.start_speaker_with(side, manifests, &more);
    }

    /// The samples of the first host, by series; nothing while it does not answer.
    fn scrape(&mut self) -> Samples {
        let (mut served, samples) = scrape(&self.net, "a", METRICS);
        self.served.append(&mut served);
        samples
    }

    /// Waits until a series is as it should be, and says what it is.
    fn until(&mut self, series: &str, right: impl Fn(f64) -> bool) -> f64 {
        let net_log = self.net.log("a");
        let seen = until(series, SOON, || {
            let samples = self.scrape();
            match samples.get(series) {
                Some(value) if right(*value) => Ok(*value),
                value => Err(format!("{value:?} in {samples:#?}")),
            }
        });
        seen.unwrap_or_else(|error| panic!("{error}\n{net_log}"))
    }
}

/// What a process on a host serves; nothing while it does not answer.
fn scrape(net: &Net, host: &str, address: &str) -> (Metrics, Samples) {
    let url = format!("http://{address}/metrics");
    let mut command = net.command(host, "curl");
    let output = command.args(["-s", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    (metrics(&text), samples.collect())
}

/// What an exposition has, by the names of metrics as queries use them, without the endings of
/// histograms.
fn metrics(exposition: &str) -> Metrics {
    let types: BTreeMap<&str, &str> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let mut found = Metrics::new();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (sample, labels) = series.split_once('{').unwrap_or((series, ""));
        let endings = ["_bucket", "_sum", "_count"];
        let histogram = endings.iter().find_map(|ending| {
            let name = sample.strip_suffix(ending)?;
            (types.get(name) == Some(&"histogram")).then_some(name)
        });
        let name = histogram.unwrap_or(sample);
        // OpenMetrics types a counter without its ending.
        let family = name.strip_suffix("_total").unwrap_or(name);
        let kind = types.get(family).or(types.get(name)).unwrap();
        let metric = found
            .entry(name.to_owned())
            .or_insert_with(|| ((*kind).to_owned(), BTreeSet::new()));
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned());
        metric.1.extend(labels.filter(|label| label != "le"));
    }
    found
}

/// The tables of the documentation below these headings.
fn documented(headings: &[&str]) -> Metrics {
    let mut found = Metrics::new();
    for heading in headings {
        let lines = DOCUMENT.lines().skip_while(|line| line != heading).skip(1);
        let section = lines.take_while(|line| !line.starts_with("## "));
        let rows = section.filter(|line| line.starts_with("| `caracal_"));
        let before = found.len();
        found.extend(rows.map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let labels = cells[3].split(", ").filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.trim_matches('`').to_owned());
            let name = cells[1].trim_matches('`').to_owned();
            (name, (cells[2].to_owned(), labels.collect()))
        }));
        assert!(found.len() > before, "no metric below {heading}");
    }
    found
}

/// A metric that a query names, with the labels by which it selects.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    name: String,
    labels: Vec<String>,
}

/// The metrics that a query is about.
fn selectors(query: &str) -> Vec<Selector> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = query.match_indices("caracal_").map(|(at, _)| at);
    starts
        .map(|at| {
            let rest = &query[at..];
            let end = rest.find(|c| !of_name(c)).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let matchers = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'))
                .map_or("", |(matchers, _)| matchers);
            let labels = matchers.split(", ").filter_map(|matcher| {
                let end = matcher.find(|c| !of_name(c))?;
                Some(matcher[..end].to_owned())
            });
            Selector {
                name: name.to_owned(),
                labels: labels.collect(),
            }
        })
        .collect()
}

/// Labels that a query groups or joins by.
fn groupings(query: &str) -> Vec<String> {
    let lists = ["by (", "on ("].map(|word| {
        let parts = query.split(word).skip(1);
        parts
            .filter_map(|part| part.split_once(')'))
            .flat_map(|(list, _)| list.split(", "))
    });
    lists.into_iter().flatten().map(str::to_owned).collect()
}

/// Every query of the rules and the dashboard, with where it stands.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap().to_owned();
        queries.push((alert, rule["expr"].as_str().unwrap().to_owned()));
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array();
        assert!(
            panel["type"] == "row" || targets.is_some_and(|targets| !targets.is_empty()),
            "{title} shows nothing"
        );
        for target in targets.into_iter().flatten() {
            queries.push((title.clone(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["query"].as_str().unwrap().to_owned();
        if query != "prometheus" {
            queries.push((variable["name"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

fn rules() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(RULES).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.cloned().collect()
}

#[test]
fn whatever_rules_and_dashboard_ask_for_is_documented() {
    let served = documented(&[PROCESS, BGP, NODE, BLOCKS, OBJECTS]);
    let rows = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `caracal_"));
    assert_eq!(rows.count(), served.len(), "a table under another heading");
    for (place, query) in queries() {
        let selectors = selectors(&query);
        assert!(!selectors.is_empty(), "{place}: {query}");
        let mut known = BTreeSet::from(["instance".to_owned(), "le".to_owned()]);
        for Selector { name, labels } in &selectors {
            let histogram = name.strip_suffix("_bucket");
            let metric = served.get(histogram.unwrap_or(name));
            let (kind, has) = metric.unwrap_or_else(|| panic!("{place}: nobody serves {name}"));
            assert_eq!(histogram.is_some(), kind == "histogram", "{place}: {query}");
            known.extend(has.iter().cloned());
            for label in labels {
                assert!(
                    has.contains(label) || label == "instance",
                    "{place}: {name} has no {label}"
                );
            }
        }
        for label in groupings(&query) {
            assert!(known.contains(&label), "{place}: no {label} in {query}");
        }
    }
}

#[test]
fn queries_are_read_as_prometheus_reads_them() {
    let query = r#"sum by (instance, le) (rate(caracal_x_bucket{peer=~"$peer", le="1"}[5m])) and on (peer) caracal_y == 1"#;
    let selector = |name: &str, labels: &[&str]| Selector {
        name: name.to_owned(),
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
    };
    assert_eq!(
        selectors(query),
        [
            selector("caracal_x_bucket", &["peer", "le"]),
            selector("caracal_y", &[])
        ]
    );
    assert_eq!(groupings(query), ["instance", "le", "peer"]);
}

#[test]
fn every_alert_is_explained_and_tested() {
    let alerts: Vec<String> = rules()
        .iter()
        .map(|rule| rule["alert"].as_str().unwrap().to_owned())
        .collect();
    let rows = DOCUMENT.lines().skip_while(|line| *line != "## Alerts");
    let explained: Vec<&str> = rows
        .filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
        .map(|(alert, _)| alert)
        .collect();
    let sorted = |names: &[&str]| {
        names
            .iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    };
    let known: BTreeSet<String> = alerts.iter().cloned().collect();
    assert_eq!(known.len(), alerts.len(), "an alert twice");
    assert_eq!(sorted(&explained), known);
    for alert in alerts {
        let tested = format!("alertname: {alert}\n");
        assert!(RULES_TEST.contains(&tested), "{alert} has no test");
    }
}

/// The first host has a range, too, so that there is everything to serve.
const B: &str = "apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: b}
spec: {peerIP: 10.0.0.1, localAddress: 10.0.0.0, asNumber: 65002, bfd: {enabled: true}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: pods}
spec: {listenRange: [10.9.0.0/16], listenLimit: 7, asNumber: 65009, bfd: {enabled: false}}
";

const A: &str = "apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: a}
spec: {peerIP: 10.0.0.0, localAddress: 10.0.0.1, asNumber: 65001, bfd: {enabled: true}}
";

#[test]
fn each_metric_of_a_speaker_is_served_and_moves_for_its_cause() {
    if !common::is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut bench = Bench::new();
    bench.start_bfd("a");
    let far = bench.start_bfd("b");
    let own = ["30.1.0.0/24".to_owned()];
    bench.start_speaker("a", &transit_speaker(65_001, "10.0.0.10", B, &own));
    let in_kernel = r#"caracal_bgp_update_to_fib_seconds_count{family="ipv4-unicast"}"#;
    bench.until(in_kernel, |count| count == 0.0);
    bench.until(r#"caracal_bgp_range_limit{range="pods"}"#, |limit| {
        limit == 7.0
    });

    // UPDATEs reach the kernel.
    let routes: Vec<String> = (0..6).map(|at| format!("20.0.{at}.0/24")).collect();
    bench.start_speaker("b", &transit_speaker(65_002, "10.0.0.20", A, &routes));
    let count = bench.until(in_kernel, |count| count >= routes.len() as f64);
    assert_eq!(count, routes.len() as f64, "each route once");
    let sum = bench.scrape()[r#"caracal_bgp_update_to_fib_seconds_sum{family="ipv4-unicast"}"#];
    assert!(sum > 0.0 && sum < SOON.as_secs_f64(), "{sum}");
    let written = r#"caracal_fib_apply_seconds_count{outcome="acknowledged"}"#;
    let batches = bench.until(written, |count| count >= 1.0);
    bench.until(r#"caracal_bgp_untold_changes{peer="b"}"#, |left| {
        left == 0.0
    });
    bench.until(r#"caracal_channel_depth{channel="fib"}"#, |left| {
        left == 0.0
    });

    // Somebody deletes one.
    let missing = r#"caracal_fib_drift_total{kind="missing"}"#;
    assert_eq!(bench.scrape()[missing], 0.0, "our own writes are no drift");
    bench.net.ip("a", "route del 20.0.1.0/24 metric 512");
    bench.until(missing, |count| count == 1.0);
    let kernel = bench
        .net
        .output("a", "ip", &["route", "show", "20.0.1.0/24"]);
    assert!(kernel.contains("20.0.1.0/24"), "{kernel:?}");
    bench.until(written, |count| count > batches);
    assert_eq!(bench.scrape()[in_kernel], count, "a repair has no UPDATE");

    // The peer's BFD dies: three times 300 ms of silence.
    let up = r#"caracal_bfd_session_up{peer="b"}"#;
    bench.until(up, |up| up == 1.0);
    let detected = r#"caracal_bfd_detect_seconds{peer="b"}"#;
    assert!(!bench.scrape().contains_key(detected), "not before it has");
    bench.net.signal(far, "-KILL");
    let silence = bench.until(detected, |_| true);
    assert!((0.9..SOON.as_secs_f64()).contains(&silence), "{silence}");
    bench.until(up, |up| up == 0.0);
    let ended = r#"caracal_bgp_session_flaps_total{peer="b",reason="path-down"}"#;
    bench.until(ended, |count| count >= 1.0);

    let documented = documented(&[PROCESS, BGP]);
    assert_eq!(documented, bench.served, "docs/metrics.md and the speaker");
}

/// A cluster of one node, whose only link leads to where the API server and the controller are.
fn cluster(net: &mut Net, runtime: &Runtime) -> Server {
    const SERVER: &str = "10.0.0.1:8080";
    let server = Server::start(net, "hub", SERVER, runtime.handle());
    let bgp = json!({"asNumber": 65000, "nodeToNodeMeshEnabled": false});
    let pool = json!({"subnets": [{"ipv4": "10.64.0.0/20"}]});
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.250.0.1"}]},
    });
    for object in [
        ours("BGPConfiguration", "default", &bgp),
        ours("IPPool", "default", &pool),
        node,
    ] {
        server.create(&object);
    }
    let folder = net.folder("node").join("run");
    let node = [
        "node",
        "--node",
        "n1",
        "--run-dir",
        folder.to_str().unwrap(),
    ];
    let processes = [
        ("node", &node[..], METRICS),
        ("hub", &["controller"], CONTROLLER_METRICS),
    ];
    for (host, arguments, metrics) in processes {
        server.let_in(net, host, SERVER);
        let mut command = net.command(host, caracal());
        command.args(arguments).args(["--metrics", metrics]);
        command
            .arg("--kubeconfig")
            .arg(net.folder(host).join("kubeconfig"));
        net.start(host, command);
    }
    server
}

#[test]
fn node_and_controller_serve_what_the_document_says_of_them() {
    if !common::is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let runtime = Runtime::new().unwrap();
    let mut net = Net::new(&["node", "hub"]);
    net.cable([("node", "e1", "10.0.0.0/31"), ("hub", "e1", "10.0.0.1/31")]);
    net.ip("node", "addr add 10.250.0.1/32 dev lo");
    let _server = cluster(&mut net, &runtime);
    let until_served = |host: &str, address: &str, series: &str, value: f64| {
        let seen = until(series, SOON, || {
            let (served, samples) = scrape(&net, host, address);
            match samples.get(series) {
                Some(seen) if *seen == value => Ok(served),
                seen => Err(format!("{seen:?} among {:?}", samples.keys())),
            }
        });
        seen.unwrap_or_else(|error| panic!("{error}\n{}", net.log(host)))
    };

    let granted = r#"caracal_ipam_blocks{pool="default",state="used"}"#;
    let controller = until_served("hub", CONTROLLER_METRICS, granted, 1.0);
    let documented_there = documented(&[PROCESS, BLOCKS, OBJECTS]);
    assert_eq!(documented_there, controller, "docs and controller");

    let taken = r#"caracal_ipam_addresses{pool="default",state="free"}"#;
    let node = until_served("node", METRICS, taken, 64.0);
    // Of sessions there are none to tell of.
    let of_bgp = documented(&[BGP]);
    let (bgp, others): (Metrics, Metrics) = node
        .into_iter()
        .partition(|(name, _)| of_bgp.contains_key(name));
    assert!(bgp.contains_key("caracal_bgp_rib_prefixes"), "{bgp:?}");
    assert_eq!(
        documented(&[PROCESS, NODE, OBJECTS]),
        others,
        "docs and agent"
    );
}
