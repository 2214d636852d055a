//! A node that was broken into announces addresses of others: nobody sends it a packet for them, and
//! everybody can say why.
//!
//! Real speakers on one link, each with the manifests that a cluster would give it. The evil one has
//! the same, and what an intruder would add to them. Judged by the others' kernels, where packets
//! go, and by `caracal bgp explain`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use caracal_lab::process::until;
use common::is_root;
use common::net::Net;

const PATIENCE: Duration = Duration::from_secs(30);

/// What everybody knows: three nodes with a block each, and a block whose node is gone.
const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1, uid: u1}
status: {addresses: [{type: InternalIP, address: 10.1.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, uid: u2}
status: {addresses: [{type: InternalIP, address: 10.1.0.2}]}
---
apiVersion: v1
kind: Node
metadata: {name: n3, uid: u3}
status: {addresses: [{type: InternalIP, address: 10.1.0.3}]}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {subnets: [{ipv4: 10.244.0.0/16}]}
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {name: pods-1}
spec: {pool: pods, index: 1, ipv4: 10.244.1.0/26, nodeName: n1, nodeUID: u1, epoch: 1}
status: {phase: Active}
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {name: pods-2}
spec: {pool: pods, index: 2, ipv4: 10.244.2.0/26, nodeName: n2, nodeUID: u2, epoch: 1}
status: {phase: Active}
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {name: pods-3}
spec: {pool: pods, index: 3, ipv4: 10.244.3.0/26, nodeName: n3, nodeUID: u3, epoch: 2}
status: {phase: Active}
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {name: pods-8}
spec: {pool: pods, index: 8, ipv4: 10.244.8.0/26, nodeName: n1, nodeUID: u1, epoch: 1}
status: {phase: Quarantined}
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {name: pods-9}
spec: {pool: pods, index: 9, ipv4: 10.244.9.0/26, nodeName: n9, nodeUID: u9, epoch: 1}
status: {phase: Quarantined}
";

/// What an intruder on n2 adds: n1's block, parts of it, what n2 held before n3 got it, the blocks that
/// are in quarantine, what nobody holds, and n1's own address.
const INTRUDER: &str = "\
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: node.n2}
spec:
  originatedPrefixes:
    - {cidr: 10.244.1.0/26}
    - {cidr: 10.244.1.32/27}
    - {cidr: 10.244.1.7/32}
    - {cidr: 10.244.3.0/26}
    - {cidr: 10.244.8.0/26}
    - {cidr: 10.244.9.0/26}
    - {cidr: 10.244.77.0/26}
    - {cidr: 10.1.0.1/32}
";

/// What is said of n1's own address, told by n2.
const FOREIGN_NODE: &str =
    "is rejected: it lies in 10.1.0.1/32, which belongs to node n1, and comes from 10.1.0.2";

/// n1 still forwards for the pods of its block in quarantine.
const STILL_FORWARDING: &str = "\
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: node.n1}
spec: {originatedPrefixes: [{cidr: 10.244.8.0/26}]}
";

fn cluster(default: &str, more: &str) -> String {
    format!(
        "{CLUSTER}---\napiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {default}\n{more}"
    )
}

/// What `caracal bgp explain` says on a host: a line for each path, then its sentences.
fn explain(net: &Net, host: &str, asked: &str) -> Result<String, String> {
    let answer = net.bgp(host, &["explain", asked])?;
    let paths = answer["route"]["paths"].as_array().ok_or("no route")?;
    let word =
        |path: &serde_json::Value, field: &str| path[field].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = paths
        .iter()
        .map(|path| {
            let verdict = match (path["best"] == true, word(path, "rejected")) {
                (true, _) => "is best".to_owned(),
                (false, why) => format!("is rejected: {why}"),
            };
            let unconfirmed = match path["unconfirmed"] == true {
                true => ", unconfirmed,",
                false => "",
            };
            let (from, next_hop) = (word(path, "from"), word(path, "next_hop"));
            format!("{from} via {next_hop}{unconfirmed} {verdict}")
        })
        .collect();
    let sentences = answer["sentences"].as_array().ok_or("no sentences")?;
    lines.extend(
        sentences
            .iter()
            .filter_map(|line| line.as_str().map(str::to_owned)),
    );
    Ok(lines.join("\n"))
}

fn explained(net: &Net, host: &str, asked: &str, wanted: &str) {
    let told = || {
        let text = explain(net, host, asked)?;
        let found = text.contains(wanted);
        found.then_some(()).ok_or(text)
    };
    until(&format!("{host} on {asked}: {wanted:?}"), PATIENCE, told).unwrap();
}

/// Where packets to `address` go on a host: the gateway; nothing where there is no route.
fn gateway(net: &Net, host: &str, address: &str) -> String {
    let output = net
        .command(host, "ip")
        .args(["route", "get", address])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "via");
    words.nth(1).unwrap_or_default().to_owned()
}

fn goes_to(net: &Net, host: &str, address: &str, wanted: &str) {
    let look = || match gateway(net, host, address) {
        found if found == wanted => Ok(()),
        found => Err(found),
    };
    until(
        &format!("{address} goes to {wanted:?} on {host}"),
        PATIENCE,
        look,
    )
    .unwrap();
}

#[test]
fn in_the_mesh_nobody_takes_what_a_node_does_not_hold() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["sw", "n1", "n2", "n3"]);
    net.switch(
        "sw",
        &[
            ("n1", "10.1.0.1/24"),
            ("n2", "10.1.0.2/24"),
            ("n3", "10.1.0.3/24"),
        ],
    );
    let mesh = "{asNumber: 65000}";
    net.start_speaker("n1", &cluster(mesh, STILL_FORWARDING));
    net.start_speaker("n2", &cluster(mesh, INTRUDER));
    net.start_speaker("n3", &cluster(mesh, ""));
    for host in ["n1", "n2", "n3"] {
        until("the mesh", PATIENCE, || net.sessions_up(host, 2)).unwrap();
    }

    // What is n2's own is taken from it: it is judged by what it announces, not shut out.
    for host in ["n1", "n3"] {
        goes_to(&net, host, "10.244.2.1", "10.1.0.2");
    }
    // The block of another, and parts of it.
    let foreign = "is rejected: it lies in 10.244.1.0/26, which belongs to node n1, and comes from";
    for prefix in ["10.244.1.0/26", "10.244.1.32/27", "10.244.1.7/32"] {
        let wanted = format!("mesh:n2 via 10.1.0.2 {foreign} 10.1.0.2");
        explained(&net, "n3", prefix, &wanted);
    }
    explained(&net, "n3", "10.244.1.32/27", "No path can be used.");
    for address in ["10.244.1.1", "10.244.1.7", "10.244.1.33"] {
        goes_to(&net, "n3", address, "10.1.0.1");
    }
    // What it held before: n3 got it since.
    let former = "it lies in 10.244.3.0/26, which belongs to node n3, and comes from 10.1.0.2";
    explained(&net, "n1", "10.244.3.0/26", former);
    goes_to(&net, "n1", "10.244.3.1", "10.1.0.3");
    // Its holder does not give its own block away either.
    explained(&net, "n3", "10.244.3.0/26", former);
    assert_eq!(gateway(&net, "n3", "10.244.3.1"), "");

    // The address of a node: packets to it go straight to it, by the subnet.
    let node = "10.1.0.1/32";
    let hijacked = format!("mesh:n2 via 10.1.0.2 {FOREIGN_NODE}");
    explained(&net, "n3", node, &hijacked);
    explained(&net, "n3", node, "No path can be used.");
    explained(&net, "n1", node, FOREIGN_NODE);
    assert_eq!(gateway(&net, "n3", "10.1.0.1"), "");

    // In quarantine: the holder's word counts for more than that of another.
    explained(
        &net,
        "n3",
        "10.244.8.0/26",
        "The decision fell by holder of the block.",
    );
    goes_to(&net, "n3", "10.244.8.1", "10.1.0.1");
    // Where the holder is gone nobody can be asked: it is taken, and marked.
    explained(
        &net,
        "n3",
        "10.244.9.0/26",
        "mesh:n2 via 10.1.0.2, unconfirmed, is best",
    );
    goes_to(&net, "n3", "10.244.9.1", "10.1.0.2");
    // Nor where no block is known: its object may be on its way.
    explained(
        &net,
        "n3",
        "10.244.77.0/26",
        "mesh:n2 via 10.1.0.2, unconfirmed, is best",
    );
    goes_to(&net, "n3", "10.244.77.1", "10.1.0.2");
}

#[test]
fn without_validation_the_same_node_gets_the_packets_of_others() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["sw", "n1", "n2", "n3"]);
    net.switch(
        "sw",
        &[
            ("n1", "10.1.0.1/24"),
            ("n2", "10.1.0.2/24"),
            ("n3", "10.1.0.3/24"),
        ],
    );
    let mesh = "{asNumber: 65000, originValidation: Disabled}";
    net.start_speaker("n1", &cluster(mesh, ""));
    net.start_speaker("n2", &cluster(mesh, INTRUDER));
    net.start_speaker("n3", &cluster(mesh, ""));
    // This is what the other tests would see if nothing were checked.
    goes_to(&net, "n3", "10.244.1.33", "10.1.0.2");
    goes_to(&net, "n3", "10.244.1.7", "10.1.0.2");
    goes_to(&net, "n3", "10.1.0.1", "10.1.0.2");
}

#[test]
fn a_reflector_does_not_pass_on_what_a_node_does_not_hold() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["sw", "n1", "n2", "n3", "rr"]);
    net.switch(
        "sw",
        &[
            ("n1", "10.1.0.1/24"),
            ("n2", "10.1.0.2/24"),
            ("n3", "10.1.0.3/24"),
            ("rr", "10.1.0.9/24"),
        ],
    );
    let reflector = "\
---
apiVersion: v1
kind: Node
metadata: {name: rr, uid: u4, labels: {caracal.dev/route-reflector-cluster-id: 10.9.9.9}}
status: {addresses: [{type: InternalIP, address: 10.1.0.9}]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: reflectors}
spec:
  nodeSelector: '!has(caracal.dev/route-reflector-cluster-id)'
  peerSelector: has(caracal.dev/route-reflector-cluster-id)
";
    let default = "{asNumber: 65000, nodeToNodeMeshEnabled: false}";
    for (host, more) in [("n1", ""), ("n2", INTRUDER), ("n3", ""), ("rr", "")] {
        net.start_speaker(host, &cluster(default, &format!("{reflector}{more}")));
    }
    for (host, count) in [("n1", 1), ("n2", 1), ("n3", 1), ("rr", 3)] {
        until("the sessions", PATIENCE, || net.sessions_up(host, count)).unwrap();
    }
    goes_to(&net, "n3", "10.244.2.1", "10.1.0.2");
    for prefix in ["10.244.1.0/26", "10.244.1.32/27", "10.244.1.7/32"] {
        let wanted = "it lies in 10.244.1.0/26, which belongs to node n1, and comes from 10.1.0.2";
        explained(&net, "rr", prefix, wanted);
    }
    for address in ["10.244.1.1", "10.244.1.7", "10.244.1.33"] {
        goes_to(&net, "n3", address, "10.1.0.1");
    }
    explained(&net, "rr", "10.1.0.1/32", FOREIGN_NODE);
    assert_eq!(gateway(&net, "n3", "10.1.0.1"), "");
    // Nobody behind the reflector even hears of it.
    for prefix in ["10.244.1.32/27", "10.1.0.1/32"] {
        let heard = net.bgp("n3", &["routes", prefix]).unwrap();
        assert_eq!(heard, serde_json::json!([]), "{prefix}");
    }
    // What nobody can judge is passed on, and marked there as well: the reflector tells who brought it in.
    explained(&net, "n3", "10.244.9.0/26", ", unconfirmed, is best");
}
