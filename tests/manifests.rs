//! The manifests in `deploy/` say what the API server understands and the program takes, and their names
//! lead somewhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use common::manifests::{Deployed, allow};
use common::net::caracal;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, PodSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

const DAEMON_SETS: [&str; 2] = ["caracal-bfd", "caracal-node"];

fn pod(set: &DaemonSet) -> &PodSpec {
    let spec = &set.spec;
    spec.template.spec.as_ref().unwrap()
}

#[test]
fn names_lead_to_what_is_there() {
    let deployed = Deployed::node();
    let expected = [
        ("ClusterRole", "caracal-node"),
        ("ClusterRoleBinding", "caracal-node"),
        ("DaemonSet", "caracal-bfd"),
        ("DaemonSet", "caracal-node"),
        ("Namespace", "caracal-system"),
        ("Role", "caracal-node-secrets"),
        ("RoleBinding", "caracal-node-secrets"),
        ("ServiceAccount", "caracal-node"),
    ];
    assert_eq!(deployed.names(), expected);
    let namespace: Namespace = deployed.read("Namespace", "caracal-system");
    let namespace = namespace.metadata.name;
    let account: ServiceAccount = deployed.read("ServiceAccount", "caracal-node");
    assert_eq!(account.metadata.namespace, namespace);
    let role: Role = deployed.read("Role", "caracal-node-secrets");
    assert_eq!(role.metadata.namespace, namespace);

    let binding: ClusterRoleBinding = deployed.read("ClusterRoleBinding", "caracal-node");
    let role_binding: RoleBinding = deployed.read("RoleBinding", "caracal-node-secrets");
    assert_eq!(role_binding.metadata.namespace, namespace);
    for (role, subjects) in [
        (&binding.role_ref, binding.subjects),
        (&role_binding.role_ref, role_binding.subjects),
    ] {
        assert!(expected.contains(&(&*role.kind, &*role.name)), "{role:?}");
        let subjects = subjects.unwrap();
        let [subject] = &subjects[..] else {
            panic!("{subjects:?}");
        };
        assert!(expected.contains(&(&*subject.kind, &*subject.name)));
        assert_eq!(subject.namespace, namespace);
    }

    for name in DAEMON_SETS {
        let set: DaemonSet = deployed.read("DaemonSet", name);
        assert_eq!(set.metadata.namespace, namespace);
        let spec = &set.spec;
        let labels = spec.template.metadata.as_ref().unwrap().labels.as_ref();
        assert_eq!(spec.selector.match_labels.as_ref(), labels, "{name}");
        let pod = pod(&set);
        if let Some(account) = &pod.service_account_name {
            assert!(expected.contains(&("ServiceAccount", account)), "{name}");
        }
        let volumes = pod.volumes.as_ref().unwrap();
        for mount in pod.containers[0].volume_mounts.as_ref().unwrap() {
            assert!(volumes.iter().any(|it| it.name == mount.name), "{mount:?}");
        }
    }
}

#[test]
fn the_program_takes_the_arguments_and_both_meet_in_one_folder() {
    let deployed = Deployed::node();
    for name in DAEMON_SETS {
        let set: DaemonSet = deployed.read("DaemonSet", name);
        let pod = pod(&set);
        let container = &pod.containers[0];
        let arguments = container.args.as_ref().unwrap();
        // An argument that it does not know is refused before help is given.
        let output = Command::new(caracal())
            .args(arguments)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        let variables = || container.env.iter().flatten();
        for variable in variables() {
            // Some are only there for others to name.
            let named = format!("$({})", variable.name);
            let mut values = variables().filter_map(|it| it.value.as_ref());
            let wanted = format!("[env: {}=", variable.name);
            assert!(
                help.contains(&wanted) || values.any(|value| value.contains(&named)),
                "{name}: {wanted} in {help}"
            );
        }
        let folder = arguments.last().unwrap();
        let mounts = container.volume_mounts.as_ref().unwrap();
        let mount = mounts.iter().find(|mount| mount.mount_path == *folder);
        let volume = mount.unwrap().name.as_str();
        let volumes = pod.volumes.as_ref().unwrap();
        let volume = volumes.iter().find(|it| it.name == volume).unwrap();
        assert_eq!(volume.host_path.as_ref().unwrap().path, "/run/caracal");
        assert_eq!(pod.host_network, Some(true), "{name}");
    }
}

#[test]
fn metrics_are_served_on_the_address_of_a_node_of_either_family() {
    let set: DaemonSet = Deployed::node().read("DaemonSet", "caracal-node");
    let container = &pod(&set).containers[0];
    let value = |name: &str| {
        let variable = container.env.iter().flatten().find(|it| it.name == name);
        variable.unwrap()
    };
    let source = value("NODE_IP").value_from.as_ref().unwrap();
    let field = &source.field_ref.as_ref().unwrap().field_path;
    assert_eq!(field, "status.hostIP");
    let metrics = value("CARACAL_METRICS").value.as_ref().unwrap();
    let port = container.ports.as_ref().unwrap()[0].container_port;
    assert!(metrics.ends_with(&format!(":{port}")), "{metrics}");
    let template = set.spec.template.metadata.as_ref().unwrap();
    let annotations = template.annotations.as_ref().unwrap();
    assert_eq!(annotations["prometheus.io/port"], port.to_string());

    let nowhere = tempfile::tempdir().unwrap();
    for address in ["192.0.2.1", "2001:db8::1"] {
        let output = Command::new(caracal())
            .args(["node", "--node", "n1", "--run-dir"])
            .arg(nowhere.path())
            .arg("--kubeconfig")
            .arg(nowhere.path().join("kubeconfig"))
            .env("CARACAL_METRICS", metrics.replace("$(NODE_IP)", address))
            .output()
            .unwrap();
        // It misses its credentials, and has nothing against its arguments: that would be 2.
        assert_eq!(output.status.code(), Some(1), "{address}: {output:?}");
    }
}

#[test]
fn bfd_is_left_alone_and_knows_no_api_server() {
    let set: DaemonSet = Deployed::node().read("DaemonSet", "caracal-bfd");
    let strategy = set.spec.update_strategy.as_ref();
    assert_eq!(strategy.unwrap().type_.as_deref(), Some("OnDelete"));
    let pod = pod(&set);
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.service_account_name, None);
    // Peers are told of the end for five seconds at most.
    assert!(pod.termination_grace_period_seconds.unwrap() > 5);
}

#[test]
fn secrets_are_readable_one_by_one_only() {
    let deployed = Deployed::node();
    let role: Role = deployed.read("Role", "caracal-node-secrets");
    let rules = role.rules.unwrap();
    let [rule] = &rules[..] else {
        panic!("{rules:?}");
    };
    assert_eq!(rule.resources.as_deref().unwrap(), ["secrets"]);
    assert_eq!(rule.verbs, ["list", "watch"]);
    assert!(!rule.resource_names.as_ref().unwrap().is_empty());
    let role: ClusterRole = deployed.read("ClusterRole", "caracal-node");
    let rules = role.rules.unwrap();
    for verb in [
        "get", "list", "watch", "create", "update", "patch", "delete", "*",
    ] {
        for resource in ["secrets", "*"] {
            assert!(!allow(&rules, verb, resource), "{verb} {resource}");
        }
    }
}
