//! Properties of the pure parts that read what clients send.

use caracal_apiserver::crud::protobuf;
use caracal_apiserver::field_set::{FieldSet, difference};
use caracal_apiserver::patch;
use proptest::prelude::*;
use serde_json::{Value, json};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", value(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn field_sets_survive_their_wire_form(object in object()) {
        let set = FieldSet::of(&object, None);
        prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()), set);
    }

    #[test]
    fn an_object_differs_from_itself_in_nothing(object in object()) {
        let difference = difference(&object, &object, None);
        prop_assert!(difference.changed.is_empty() && difference.removed.is_empty());
    }

    #[test]
    fn applying_the_same_twice_changes_nothing(live in object(), config in object()) {
        let once = patch::apply::merge(&live, &config, None);
        prop_assert_eq!(patch::apply::merge(&once, &config, None), once);
    }

    #[test]
    fn merge_patches_are_idempotent(target in object(), patch in object()) {
        let mut once = target;
        patch::merge::apply(&mut once, &patch);
        let mut twice = once.clone();
        patch::merge::apply(&mut twice, &patch);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn a_failed_json_patch_leaves_the_document_alone(target in object(), new in value()) {
        let mut patched = target.clone();
        let operations = json!([
            {"op": "add", "path": "/new", "value": new},
            {"op": "test", "path": "/new", "value": "never this"},
        ]);
        prop_assert!(patch::json::apply(&mut patched, &operations).is_err());
        prop_assert_eq!(patched, target);
    }

    #[test]
    fn no_bytes_make_the_protobuf_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut framed = b"k8s\0".to_vec();
        framed.extend(&bytes);
        let _ = protobuf::decode(&framed);
        let mut named = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
        named.push(u8::try_from(bytes.len()).expect("fewer than 128 bytes"));
        named.extend(&bytes);
        let _ = protobuf::decode(&named);
    }
}
