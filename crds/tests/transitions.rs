//! Rules over an old and a new object, as an API server would judge an update.

use kube::CustomResourceExt;
use serde_json::{Value, json};

fn judge<T: CustomResourceExt>(old: &Value, new: &Value) -> Result<(), String> {
    let definition = serde_json::to_value(T::crd()).expect("a definition is plain data");
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    kube::core::cel::Validator::new()
        .validate(schema, new, Some(old))
        .map_err(|errors| errors.to_string())
}

fn pool(subnets: Value, block_bits: u8) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"subnets": subnets, "blockBits": block_bits}})
}

fn block(node: &str, drain: bool) -> Value {
    json!({"metadata": {"name": "p-3"}, "spec": {
        "pool": "p", "index": 3, "ipv4": "10.64.0.192/26", "ipv6": "fd00:64::c0/122",
        "nodeName": node, "nodeUID": "u1", "epoch": 1, "requestGeneration": 0, "drain": drain}})
}

#[test]
fn subnets_are_append_only_in_order() {
    let (a, b) = (
        json!({"ipv4": "10.64.0.0/24"}),
        json!({"ipv4": "10.65.0.0/24"}),
    );
    let old = pool(json!([a, b]), 6);
    let c = json!({"ipv4": "10.66.0.0/24"});
    for (new, accepted) in [
        (json!([a, b]), true),
        (json!([a, b, c]), true),
        (
            json!([{"ipv4": "10.64.0.0/24", "state": "Draining"}, b]),
            true,
        ),
        (json!([a]), false),
        (json!([b, a]), false),
        (json!([a, c, b]), false),
        (json!([a, {"ipv4": "10.65.0.0/23"}]), false),
    ] {
        let result = judge::<caracal_crds::IpPool>(&old, &pool(new.clone(), 6));
        assert_eq!(result.is_ok(), accepted, "{new}: {result:?}");
    }
}

#[test]
fn block_bits_are_immutable() {
    let subnets = json!([{"ipv4": "10.64.0.0/24"}]);
    let error = judge::<caracal_crds::IpPool>(&pool(subnets.clone(), 6), &pool(subnets, 5));
    assert!(error.unwrap_err().contains("blockBits is immutable"));
}

#[test]
fn a_block_changes_only_to_draining() {
    let judge = |old: &Value, new: &Value| judge::<caracal_crds::IpBlock>(old, new);
    assert_eq!(judge(&block("n1", false), &block("n1", true)), Ok(()));
    assert!(judge(&block("n1", true), &block("n1", false)).is_err());
    assert!(judge(&block("n1", false), &block("n2", false)).is_err());
    let mut other = block("n1", false);
    other["spec"]["ipv6"] = Value::Null;
    other["spec"].as_object_mut().unwrap().remove("ipv6");
    assert!(judge(&block("n1", false), &other).is_err());
}
