//! What policy drops can be asked for, and is counted against the right pods.

use std::time::Duration;

use crate::common::{Rig, addresses, can_run, pings, until};
use caracal_agent::policy_api::{self, ClassDrops, Direction};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(5);

/// The one class of that direction that `default/{pod}` is in.
fn class_of(rig: &Rig, pod: &str, direction: Direction) -> Result<ClassDrops, Vec<ClassDrops>> {
    let socket = rig.run_dir().join(policy_api::SOCKET);
    let all = policy_api::classes(&socket).expect("the agent answers");
    let pod = format!("default/{pod}");
    let mut of_pod = all
        .iter()
        .filter(|class| class.direction == direction && class.endpoints.contains(&pod));
    match (of_pod.next(), of_pod.next()) {
        (Some(only), None) => Ok(only.clone()),
        _ => Err(all),
    }
}

#[test]
fn a_refused_probe_is_counted_against_its_class_and_direction() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    for name in ["client", "server", "mute"] {
        rig.api.pod(name, &json!({"app": name}));
    }
    let (client, server, mute) = (rig.sandbox(), rig.sandbox(), rig.sandbox());
    let c_has = addresses(&rig.add("client", "cc", &client));
    let s_has = addresses(&rig.add("server", "cs", &server));
    rig.add("mute", "cm", &mute);
    for (name, app, direction) in [("deny", "server", "Ingress"), ("hush", "mute", "Egress")] {
        rig.api.create(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": [direction]},
        }));
    }
    let incoming = until("server's class", PATIENCE, || {
        class_of(&rig, "server", Direction::Ingress)
    });
    let outgoing = until("mute's class", PATIENCE, || {
        class_of(&rig, "mute", Direction::Egress)
    });
    assert_eq!(incoming.policies, ["default/deny"]);
    assert_eq!(incoming.endpoints, ["default/server"]);
    assert_eq!(outgoing.policies, ["default/hush"]);
    assert_eq!((incoming.dropped_packets, outgoing.dropped_packets), (0, 0));

    assert!(!pings(&client, &s_has[0]), "{}", rig.log());
    let after = class_of(&rig, "server", Direction::Ingress).expect("its class");
    assert_eq!((&after.class, after.dropped_packets), (&incoming.class, 1));
    assert!(!pings(&mute, &c_has[1]), "{}", rig.log());
    let after = class_of(&rig, "mute", Direction::Egress).expect("its class");
    assert_eq!((&after.class, after.dropped_packets), (&outgoing.class, 1));
    assert!(class_of(&rig, "server", Direction::Egress).is_err());

    // What no class drops is counted by its reason.
    let socket = rig.run_dir().join(policy_api::SOCKET);
    // Nobody created an object for this one, so ADD isolates it when its patience ends.
    let stranger = rig.sandbox();
    let has = addresses(&rig.add("stranger", "cx", &stranger));
    let before = policy_api::other_drops(&socket).expect("the agent answers");
    assert_eq!(before.isolated, 0, "{before:?}");
    assert!(!pings(&client, &has[0]), "{}", rig.log());
    let after = policy_api::other_drops(&socket).expect("the agent answers");
    assert_eq!(after.isolated, 1, "{after:?}");

    // A restart finds the same classes with their counts.
    rig.kill_agent();
    rig.start_agent();
    rig.ready();
    let again = class_of(&rig, "server", Direction::Ingress).expect("its class");
    assert_eq!((again.class, again.dropped_packets), (incoming.class, 1));
    rig.stop_agent();
}
