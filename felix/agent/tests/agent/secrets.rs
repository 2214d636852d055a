//! Sessions whose keys are in Secrets: waited for by name, changed under a living session.

use std::fs;
use std::time::Duration;

use crate::common::router::{REMOTE, Router};
use crate::common::{Rig, can_run, until};
use caracal_bgp_speaker::PeerConfig;
use caracal_bgp_speaker::net::{Auth, Secret, md5};
use caracal_crds::conditions;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(15);

fn can_sign() -> bool {
    let can = can_run() && md5::supported().expect("the kernel answers");
    if !can {
        caracal_skip::skip!("this kernel does not sign TCP segments (CONFIG_TCP_MD5SIG)");
    }
    can
}

/// Signs with `secret`.
fn signed(secret: &str) -> impl FnOnce(&mut PeerConfig) {
    let secret = Secret::new(secret).expect("length");
    move |peer| peer.authentication = Auth::Md5(secret)
}

/// A peer whose key is `tor` of the Secret `bgp`.
fn peer_with_password() -> Value {
    json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"},
        "spec": {
            "peerIP": "192.0.2.1", "asNumber": 65001,
            "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}},
        },
    })
}

fn secret(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": name, "namespace": "default"}, "data": data,
    })
}

/// Waits until the node says of its resources what `wanted` contains; nothing is wrong where empty.
fn until_told(rig: &Rig, wanted: &str) {
    until(&format!("the node says {wanted:?}"), PATIENCE, || {
        let status = rig.api.node_status().and_then(|object| object.status);
        let accepted = status.and_then(|status| {
            let mut conditions = status.conditions.into_iter();
            let accepted = conditions.find(|it| it.type_ == conditions::ACCEPTED)?;
            Some((accepted.status, accepted.message))
        });
        match accepted {
            Some((status, _)) if wanted.is_empty() && status == "True" => Ok(()),
            Some((_, told)) if !wanted.is_empty() && told.contains(wanted) => Ok(()),
            other => Err((other, rig.log())),
        }
    });
}

fn until_learnt(rig: &Rig, prefix: &str) {
    until(&format!("the node learns {prefix}"), PATIENCE, || {
        let route = rig.on_node(&["ip", "route", "show", prefix]);
        if route.is_empty() {
            Err(rig.log())
        } else {
            Ok(())
        }
    });
}

#[test]
fn a_session_waits_for_its_secret_and_is_rekeyed_without_a_flap() {
    if !can_sign() {
        return;
    }
    let mut rig = Rig::new();
    let router = Router::start(&rig, signed("orchid"));
    rig.api.create(&peer_with_password());
    // "unrelated", which is nobody's here.
    rig.api
        .create(&secret("other", &json!({"tor": "dW5yZWxhdGVk"})));
    rig.start_agent();
    rig.ready();
    until_told(
        &rig,
        "there is no Secret bgp in namespace default: the session is held (MissingSecret)",
    );
    assert_eq!(router.sessions(), 0);

    // "orchid", and "unneeded" that no session names.
    let data = json!({"tor": "b3JjaGlk", "spare": "dW5uZWVkZWQ="});
    rig.api.create(&secret("bgp", &data));
    until_learnt(&rig, REMOTE);
    until_told(&rig, "");
    assert_eq!(router.sessions(), 1);

    // "walnut": each side changes on its own, as operators do.
    let data = json!({"data": {"tor": "d2FsbnV0"}});
    rig.api.patch("v1", "Secret", "default", "bgp", &data);
    let later = "10.99.1.0/24";
    router.apply(&[REMOTE, later], signed("walnut"));
    until_learnt(&rig, later);
    assert_eq!(router.sessions(), 1, "the session went down");

    // A restart takes the key from the snapshot: the API server may be away then.
    let snapshot = || fs::read_to_string(rig.run_dir().join("snapshot")).expect("snapshot");
    until("the snapshot has the key", PATIENCE, || {
        let snapshot = snapshot();
        if snapshot.contains("d2FsbnV0") {
            Ok(())
        } else {
            Err(snapshot.len())
        }
    });
    let snapshot = snapshot();
    for foreign in ["dW5yZWxhdGVk", "dW5uZWVkZWQ=", "b3JjaGlk"] {
        assert!(
            !snapshot.contains(foreign),
            "{foreign} is of no session now"
        );
    }
    rig.kill_agent();
    rig.api.partition();
    rig.start_agent();
    until("the session is back", PATIENCE, || {
        match router.sessions() {
            2 => Ok(()),
            other => Err((other, rig.log())),
        }
    });
    rig.api.heal();
    rig.ready();

    // Nothing but lists and watches of the one namespace. That they are by name does not show here; what
    // came of it is judged above.
    let requests = rig.api.secret_requests();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    assert_eq!(requests, ["list default/", "watch default/"]);
    // What is gone is missing, and says so again.
    rig.api.delete("v1", "Secret", "default", "bgp");
    until_told(&rig, "there is no Secret bgp in namespace default");
    let log = fs::read_to_string(rig.directory.path().join("agent.log")).expect("log");
    for held in [
        "orchid",
        "walnut",
        "b3JjaGlk",
        "d2FsbnV0",
        "unrelated",
        "unneeded",
    ] {
        assert!(!log.contains(held), "{held} is in the log:\n{log}");
    }
    rig.stop_agent();
}

#[test]
fn a_secret_that_no_role_lets_the_agent_read_is_said_to_be_unreadable() {
    if !can_sign() {
        return;
    }
    let mut rig = Rig::new();
    let router = Router::start(&rig, signed("orchid"));
    rig.api.create(&peer_with_password());
    rig.api.create(&secret("bgp", &json!({"tor": "b3JjaGlk"})));
    rig.api.refuse_secrets();
    rig.start_agent();
    rig.ready();
    until_told(
        &rig,
        "Secret bgp in namespace default cannot be read: secrets is forbidden",
    );
    assert_eq!(router.sessions(), 0);
    // The Role is mended: nobody restarts the agent.
    rig.api.heal();
    until(
        "the session comes up",
        Duration::from_secs(45),
        || match router.sessions() {
            1 => Ok(()),
            other => Err((other, rig.log())),
        },
    );
    rig.stop_agent();
}
