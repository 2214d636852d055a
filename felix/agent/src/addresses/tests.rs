use caracal_cni::PodReference;
use serde_json::json;

use super::*;
use crate::world::{Change, TableChange};

fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A world with one node, one pool and one block of four addresses.
fn world() -> World {
    let mut world = World::default();
    let node = json!({"metadata": {"name": "n1", "uid": "u1"}});
    let namespace = json!({"metadata": {"name": "shop"}});
    let pool = json!({"metadata": {"name": "pods"}, "spec": {
        "subnets": [{"ipv4": "10.0.0.0/24", "ipv6": "fd00::/120"}], "blockBits": 2}});
    world.apply(Change::Node(TableChange::Applied(parse(node))));
    world.apply(Change::Namespace(TableChange::Applied(parse(namespace))));
    world.apply(Change::IpPool(TableChange::Applied(parse(pool))));
    world.apply(Change::IpBlock(TableChange::Applied(block(
        "Offered", "u1",
    ))));
    world
}

fn block(phase: &str, node_uid: &str) -> IpBlock {
    parse(
        json!({"metadata": {"name": "pods-3", "uid": "b3", "resourceVersion": "10"},
        "spec": {"pool": "pods", "index": 3, "nodeName": "n1", "nodeUID": node_uid, "epoch": 7,
            "ipv4": "10.0.0.12/30", "ipv6": "fd00::c/126"},
        "status": {"phase": phase, "observedNodeUID": "u1"}}),
    )
}

fn facts() -> NodeFacts {
    NodeFacts {
        uid: "u1".into(),
        ..NodeFacts::default()
    }
}

fn open(directory: &Path, world: &World) -> Addresses {
    let mut addresses = Addresses::open(directory, "n1", 5 << 16, Instant::now()).unwrap();
    addresses.absorb(world, &facts());
    let links = addresses
        .held()
        .map(|held| (held.key, held.addresses))
        .collect();
    assert!(addresses.judge(&links).is_empty());
    addresses.open_for_pods();
    addresses
}

fn attachment(number: u32) -> Attachment {
    Attachment {
        key: caracal_cni::AttachmentKey {
            container_id: format!("c{number}"),
            interface: "eth0".into(),
        },
        netns: Some("/run/netns/x".into()),
        pod: Some(PodReference {
            namespace: "shop".into(),
            name: "web".into(),
            uid: None,
        }),
    }
}

fn assign(addresses: &mut Addresses, world: &World, number: u32) -> Result<Held, CniError> {
    addresses.assign(&attachment(number), String::new(), world, Instant::now())
}

#[test]
fn an_offered_block_is_taken_up_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world();
    let mut addresses = open(directory.path(), &world);
    let (blocks, _) = addresses.wanted(&world);
    let status = &blocks["pods-3"].status;
    assert_eq!(
        (status.phase, status.observed_epoch),
        (BlockPhase::Active, Some(7))
    );
    assert_eq!(status.observed_node_uid.as_deref(), Some("u1"));
    assert_eq!(
        addresses.wanted(&world).0,
        blocks,
        "asked twice, the same is wanted"
    );
    world.apply(Change::IpBlock(TableChange::Applied(block("Active", "u1"))));
    addresses.absorb(&world, &facts());
    assert!(addresses.wanted(&world).0.is_empty());
}

#[test]
fn what_was_judged_of_one_grant_is_not_said_of_the_next_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world();
    let mut addresses = open(directory.path(), &world);
    let mut draining = block("Active", "u1");
    draining.spec.drain = true;
    world.apply(Change::IpBlock(TableChange::Applied(draining)));
    addresses.absorb(&world, &facts());
    let write = addresses.wanted(&world).0["pods-3"].clone();
    assert_eq!(write.status.phase, BlockPhase::Released);
    assert_eq!(
        (write.uid.as_str(), write.resource_version.as_str()),
        ("b3", "10")
    );

    let mut next = block("Offered", "u1");
    next.metadata.uid = Some("b4".into());
    next.metadata.resource_version = Some("20".into());
    world.apply(Change::IpBlock(TableChange::Applied(next)));
    assert!(
        addresses.wanted(&world).0.is_empty(),
        "the new grant was not judged yet"
    );
    addresses.absorb(&world, &facts());
    let write = addresses.wanted(&world).0["pods-3"].clone();
    assert_eq!(write.status.phase, BlockPhase::Active);
    assert_eq!(
        (write.uid.as_str(), write.resource_version.as_str()),
        ("b4", "20")
    );
}

#[test]
fn a_block_of_an_earlier_node_of_the_name_gives_no_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world();
    world.apply(Change::IpBlock(TableChange::Applied(block(
        "Active", "another",
    ))));
    let mut addresses = open(directory.path(), &world);
    let refused = assign(&mut addresses, &world, 1).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TryAgainLater, "{refused}");
}

#[test]
fn the_log_brings_back_every_attachment_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let world = world();
    let mut addresses = open(directory.path(), &world);
    let first = assign(&mut addresses, &world, 1).unwrap();
    let second = assign(&mut addresses, &world, 2).unwrap();
    assert_eq!(
        assign(&mut addresses, &world, 1).unwrap(),
        first,
        "idempotent"
    );
    assert_eq!(first.addresses.len(), 2);
    addresses.release(&second.key).unwrap();
    drop(addresses);

    let mut reopened = open(directory.path(), &world);
    assert_eq!(reopened.held().collect::<Vec<_>>(), [first]);
    let third = assign(&mut reopened, &world, 3).unwrap();
    assert_ne!(
        third.addresses, second.addresses,
        "a freed address rests across the restart"
    );
}

#[test]
fn an_exhausted_node_asks_for_a_block_and_refuses_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world();
    let mut addresses = open(directory.path(), &world);
    assert!(addresses.wanted(&world).1.is_empty());
    for number in 0..4 {
        assign(&mut addresses, &world, number).unwrap();
    }
    let refused = assign(&mut addresses, &world, 9).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TryAgainLater);
    assert!(
        refused.details.contains("another block has been asked for"),
        "{refused}"
    );
    addresses.absorb(&world, &facts());
    let (_, requests) = addresses.wanted(&world);
    let request = requests["n1.pods"].clone();
    assert_eq!((request.generation, request.want), (1, 1));

    let object = json!({"metadata": {"name": "n1.pods"}, "spec": request});
    world.apply(Change::IpBlockRequest(TableChange::Applied(parse(object))));
    addresses.absorb(&world, &facts());
    assert!(
        addresses.wanted(&world).1.is_empty(),
        "the server holds it, nothing is left to write"
    );
}

#[test]
fn only_pools_that_select_node_and_namespace_are_used_best_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = world();
    let addresses = open(directory.path(), &world);
    for (name, spec) in [
        ("a-late", json!({"priority": 200})),
        ("b-first", json!({"priority": 1})),
        ("c-other-node", json!({"nodeSelector": "rack == 'b'"})),
        (
            "d-other-namespace",
            json!({"namespaceSelector": "tier == 'gold'"}),
        ),
        ("e-not-for-pods", json!({"uses": ["LoadBalancer"]})),
    ] {
        let mut spec = spec;
        spec["subnets"] = json!([{"ipv4": "10.1.0.0/24"}]);
        let pool = json!({"metadata": {"name": name}, "spec": spec});
        world.apply(Change::IpPool(TableChange::Applied(parse(pool))));
    }
    let names: Vec<String> = addresses
        .pools(&attachment(1), &world)
        .into_iter()
        .map(|pool| pool.0)
        .collect();
    assert_eq!(names, ["b-first", "pods", "a-late"]);
}

#[test]
fn an_attachment_without_link_and_namespace_is_freed_at_the_second_look() {
    let directory = tempfile::tempdir().unwrap();
    let world = world();
    let mut addresses = open(directory.path(), &world);
    let held = assign(&mut addresses, &world, 1).unwrap();
    assert!(addresses.judge(&BTreeMap::new()).is_empty());
    assert_eq!(addresses.judge(&BTreeMap::new()), [held.key]);
}
