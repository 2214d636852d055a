//! The topologies in `lab/topologies` load, plan and say what they mean to say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use caracal_lab_topology::{Clab, Driver, Fabric, Plan, Role, Sidecar};

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".clab.yml"))
        .collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    files
}

fn load(path: &Path) -> (Clab, Sidecar) {
    let clab = Clab::parse("clab", &std::fs::read_to_string(path).unwrap()).unwrap();
    let sidecar = path.to_string_lossy().replace(".clab.yml", ".lab.yml");
    let sidecar = Sidecar::parse("lab", &std::fs::read_to_string(sidecar).unwrap()).unwrap();
    (clab, sidecar)
}

#[test]
fn every_shipped_topology_plans_both_ways_and_its_sidecar_names_only_its_nodes() {
    for path in shipped() {
        let (clab, sidecar) = load(&path);
        assert!(
            clab.ignored.is_empty(),
            "{path:?} uses keys the lab ignores: {:?}",
            clab.ignored
        );
        for fabric in [Fabric::Ebgp, Fabric::IbgpRack] {
            let plan = Plan::new("clab", &clab, fabric).unwrap();
            for pod in &sidecar.cluster.pods {
                assert_eq!(
                    plan.nodes[&pod.node].role,
                    Role::Node,
                    "{path:?} {}",
                    pod.name
                );
            }
            for fault in &sidecar.faults {
                assert!(
                    plan.nodes.contains_key(&fault.node),
                    "{path:?} {}",
                    fault.node
                );
            }
        }
    }
}

#[test]
fn two_rack_has_every_driver_among_its_tors_and_dual_homed_nodes() {
    let path = shipped()
        .into_iter()
        .find(|p| p.ends_with("two-rack.clab.yml"))
        .unwrap();
    let (clab, sidecar) = load(&path);
    let plan = Plan::new("clab", &clab, Fabric::Ebgp).unwrap();
    let drivers: std::collections::BTreeSet<Driver> =
        plan.with_role(Role::Tor).map(|n| n.driver).collect();
    assert_eq!(drivers, [Driver::Frr, Driver::Bird, Driver::Caracal].into());
    for node in plan.with_role(Role::Node) {
        assert_eq!(plan.sessions(&node.name).len(), 2, "{}", node.name);
    }
    assert_eq!(sidecar.cluster.pods.len(), 12);
}

#[test]
fn shipped_topologies_are_valid_for_containerlab() {
    let schema =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/containerlab/clab.schema.json");
    let Ok(schema) = std::fs::read_to_string(&schema) else {
        caracal_skip::skip!("containerlab's schema is not beside the project");
        return;
    };
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let instance: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{path:?}: {errors:#?}");
    }
}
