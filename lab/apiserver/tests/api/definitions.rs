//! G. Custom resource definitions.

use serde_json::{Value, json};

use crate::harness::{Reply, Server, definition, servers, spec_schema, unique};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

async fn make(server: &Server, things: &str, name: &str, spec: Value) -> Reply {
    server
        .post(things, &json!({"metadata": {"name": name}, "spec": spec}))
        .await
}

fn fields(reply: &Reply) -> Vec<&str> {
    let causes = reply.body["details"]["causes"].as_array();
    causes
        .into_iter()
        .flatten()
        .filter_map(|cause| cause["field"].as_str())
        .collect()
}

#[tokio::test]
async fn item_44_definitions_are_established_and_discovered() {
    for server in servers().await {
        let group = format!("{}.example.com", unique("g"));
        server
            .post(DEFINITIONS, &definition(&group, Value::Null))
            .await
            .expect(201);
        let path = format!("{DEFINITIONS}/things.{group}");
        let established = server
            .until(&path, "established", |reply| {
                let conditions = reply.body["status"]["conditions"].as_array();
                conditions.into_iter().flatten().any(|condition| {
                    condition["type"] == "Established" && condition["status"] == "True"
                })
            })
            .await
            .body;
        let status = &established["status"];
        assert_eq!(status["acceptedNames"]["kind"], "Thing");
        assert_eq!(status["acceptedNames"]["listKind"], "ThingList");
        assert_eq!(status["storedVersions"], json!(["v1"]));
        let conditions = status["conditions"].as_array().expect("conditions");
        assert!(
            conditions
                .iter()
                .any(|c| c["type"] == "NamesAccepted" && c["status"] == "True")
        );
        let path = format!("/apis/{group}/v1");
        let list = server.until(&path, "discovered", |reply| {
            reply.body["resources"]
                .as_array()
                .is_some_and(|list| list.len() == 2)
        });
        assert_eq!(list.await.body["resources"][0]["kind"], "Thing");

        for (path, value) in [
            ("/metadata/name", json!("other.example.com")),
            ("/spec/scope", json!("Galactic")),
            ("/spec/versions/0/storage", json!(false)),
            (
                "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
                json!({"properties": {}}),
            ),
        ] {
            let group = format!("{}.example.com", unique("bad"));
            let mut bad = definition(&group, Value::Null);
            *bad.pointer_mut(path).expect("a field of the definition") = value;
            server.post(DEFINITIONS, &bad).await.refused(422, "Invalid");
        }
    }
}

#[tokio::test]
async fn item_45_structural_schemas_prune_and_preserve() {
    let schema = spec_schema(json!({"type": "object", "properties": {
        "known": {"type": "string"},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "either": {"x-kubernetes-int-or-string": true},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {
            "a": {"type": "string"},
        }}},
        "null": {"type": "string", "nullable": true},
        "embedded": {
            "type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object"}},
        },
    }}));
    for server in servers().await {
        let (_, things) = server.define(schema.clone()).await;
        let spec = json!({
            "known": "k", "unknown": 1, "open": {"anything": [1]}, "either": 5,
            "map": {"x": {"a": "1", "b": "2"}}, "null": null,
            "embedded": {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "nonsense": 1,
            },
        });
        let made = make(&server, &things, "t", spec).await.expect(201).body;
        let expected = json!({
            "known": "k", "open": {"anything": [1]}, "either": 5, "map": {"x": {"a": "1"}},
            "null": null,
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}},
        });
        assert_eq!(made["spec"], expected);
        make(&server, &things, "s", json!({"either": "five"}))
            .await
            .expect(201);
        make(&server, &things, "b", json!({"either": true}))
            .await
            .refused(422, "Invalid");
        make(&server, &things, "n", json!({"known": null}))
            .await
            .refused(422, "Invalid");
        let bare = json!({"embedded": {"spec": {}}});
        make(&server, &things, "e", bare)
            .await
            .refused(422, "Invalid");
    }
}

#[tokio::test]
async fn item_46_defaults_are_filled_in_on_write_and_on_read() {
    let schema = spec_schema(json!({"type": "object", "properties": {
        "n": {"type": "integer", "default": 3, "minimum": 1},
        "inner": {"type": "object", "default": {}, "properties": {
            "mode": {"type": "string", "default": "Auto"},
        }},
    }}));
    for server in servers().await {
        let (group, things) = server.define(schema.clone()).await;
        let made = make(&server, &things, "t", json!({}))
            .await
            .expect(201)
            .body;
        assert_eq!(made["spec"], json!({"n": 3, "inner": {"mode": "Auto"}}));
        // A default that comes later shows in objects stored before.
        let patch = json!([{
            "op": "add",
            "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/late",
            "value": {"type": "string", "default": "new"},
        }]);
        let path = format!("{DEFINITIONS}/things.{group}");
        server.patch(&path, "json-patch", &patch).await.expect(200);
        let path = format!("{things}/t");
        server
            .until(&path, "defaulted on read", |reply| {
                reply.body["spec"]["late"] == "new"
            })
            .await;
        server
            .until(&things, "defaulted in lists", |reply| {
                reply.body["items"][0]["spec"]["late"] == "new"
            })
            .await;
    }
}

#[tokio::test]
async fn item_47_values_are_validated_with_the_path_of_the_field() {
    let schema = spec_schema(
        json!({"type": "object", "required": ["must"], "properties": {
            "must": {"type": "string"},
            "enum": {"type": "string", "enum": ["a", "b"]},
            "pattern": {"type": "string", "pattern": "^x+$"},
            "number": {"type": "integer", "minimum": 1, "maximum": 9},
            "length": {"type": "string", "minLength": 2, "maxLength": 3},
            "items": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}},
            "keys": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
            "cidr": {"type": "string", "format": "cidr"},
            "ip": {"type": "string", "format": "ipv4"},
            "time": {"type": "string", "format": "date-time"},
            "duration": {"type": "string", "format": "duration"},
            "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            "any": {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 1}]},
            "not": {"type": "integer", "not": {"minimum": 5, "maximum": 5}},
        }}),
    );
    for server in servers().await {
        let (_, things) = server.define(schema.clone()).await;
        let good = json!({
            "must": "", "enum": "a", "pattern": "xx", "number": 9, "length": "äö", "items": [1],
            "keys": {"a": "b"}, "cidr": "10.0.0.0/8", "ip": "10.0.0.1", "set": ["a", "b"],
            "time": "2026-01-01T00:00:00Z", "duration": "1h2m", "one": {"a": ""}, "any": 10, "not": 4,
        });
        make(&server, &things, "good", good.clone())
            .await
            .expect(201);
        for (field, bad, path) in [
            ("enum", json!("c"), "spec.enum"),
            ("pattern", json!("y"), "spec.pattern"),
            ("number", json!(10), "spec.number"),
            ("number", json!(0), "spec.number"),
            ("number", json!("1"), "spec.number"),
            ("length", json!("x"), "spec.length"),
            ("length", json!("xxxx"), "spec.length"),
            ("items", json!([]), "spec.items"),
            ("items", json!([1, 2, 3]), "spec.items"),
            ("items", json!([1, "x"]), "spec.items[1]"),
            ("keys", json!({"a": "", "b": ""}), "spec.keys"),
            ("cidr", json!("10.0.0.0"), "spec.cidr"),
            ("ip", json!("::1"), "spec.ip"),
            ("time", json!("yesterday"), "spec.time"),
            ("duration", json!("long"), "spec.duration"),
            ("set", json!(["a", "a"]), "spec.set[1]"),
            ("one", json!({"a": "", "b": ""}), "spec.one"),
            ("any", json!(5), "spec.any"),
            ("not", json!(5), "spec.not"),
        ] {
            let mut spec = good.clone();
            spec[field] = bad.clone();
            let reply = make(&server, &things, "bad", spec)
                .await
                .refused(422, "Invalid");
            assert!(
                fields(&reply).contains(&path),
                "{field} = {bad}: {}",
                reply.text
            );
        }
        let reply = make(&server, &things, "bad", json!({}))
            .await
            .refused(422, "Invalid");
        assert_eq!(fields(&reply), ["spec.must"]);
        assert_eq!(
            reply.body["details"]["causes"][0]["reason"],
            "FieldValueRequired"
        );
    }
}

#[tokio::test]
async fn item_48_cel_rules_hold_with_old_self_messages_and_reasons() {
    let schema = spec_schema(json!({
        "type": "object",
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"},
            "fixed": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "fixed is immutable"},
            ]},
            "cidr": {"type": "string", "maxLength": 50, "x-kubernetes-validations": [
                {"rule": "isCIDR(self)", "messageExpression": "'not a block: ' + self"},
            ]},
            "once": {"type": "string", "maxLength": 20},
        },
        "x-kubernetes-validations": [
            {
                "rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
                "message": "min must not exceed max", "fieldPath": ".min",
                "reason": "FieldValueForbidden",
            },
            {"rule": "!has(oldSelf.once) || has(self.once)", "message": "once set, it stays"},
        ],
    }));
    for server in servers().await {
        let (_, things) = server.define(schema.clone()).await;
        let reply = make(&server, &things, "t", json!({"min": 2, "max": 1})).await;
        let reply = reply.refused(422, "Invalid");
        let cause = &reply.body["details"]["causes"][0];
        assert_eq!(cause["reason"], "FieldValueForbidden");
        assert_eq!(cause["field"], "spec.min");
        assert!(reply.text.contains("min must not exceed max"));
        let reply = make(&server, &things, "t", json!({"cidr": "10.0.0.0"})).await;
        assert!(
            reply
                .refused(422, "Invalid")
                .text
                .contains("not a block: 10.0.0.0")
        );

        let spec = json!({"min": 1, "fixed": "a", "once": "x", "cidr": "10.0.0.0/8"});
        make(&server, &things, "t", spec).await.expect(201);
        let path = format!("{things}/t");
        let patch = async |spec: Value| {
            server
                .patch(&path, "merge-patch", &json!({"spec": spec}))
                .await
        };
        patch(json!({"fixed": "a", "min": 2})).await.expect(200);
        let reply = patch(json!({"fixed": "b"})).await.refused(422, "Invalid");
        assert_eq!(fields(&reply), ["spec.fixed"]);
        assert!(reply.text.contains("fixed is immutable"));
        patch(json!({"once": null})).await.refused(422, "Invalid");
    }
}

#[tokio::test]
async fn item_48_unchanged_invalid_values_are_tolerated_on_update() {
    for server in servers().await {
        let loose = spec_schema(json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 20}, "b": {"type": "string"},
            "c": {"type": "string", "maxLength": 20},
        }}));
        let (group, things) = server.define(loose).await;
        make(
            &server,
            &things,
            "t",
            json!({"a": "bad", "b": "1", "c": "bad"}),
        )
        .await
        .expect(201);
        let stricter = json!([
            {
                "op": "add",
                "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/a/enum",
                "value": ["good"],
            },
            {
                "op": "add",
                "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/c/x-kubernetes-validations",
                "value": [{"rule": "self == 'good'"}],
            },
        ]);
        let path = format!("{DEFINITIONS}/things.{group}");
        server
            .patch(&path, "json-patch", &stricter)
            .await
            .expect(200);
        let refused = async || make(&server, &things, "u", json!({"a": "bad"})).await.code == 422;
        let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
        while !refused().await {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the stricter schema is not in force"
            );
            server.delete(&format!("{things}/u"), &Value::Null).await;
        }
        let path = format!("{things}/t");
        let patch = json!({"spec": {"b": "2"}});
        server.patch(&path, "merge-patch", &patch).await.expect(200);
        for field in ["a", "c"] {
            let patch = json!({"spec": {field: "worse"}});
            server
                .patch(&path, "merge-patch", &patch)
                .await
                .refused(422, "Invalid");
        }
    }
}

#[tokio::test]
async fn item_50_a_deleted_definition_takes_its_instances_along() {
    for server in servers().await {
        let (group, things) = server.define(Value::Null).await;
        let held = json!({"metadata": {"name": "h", "finalizers": ["example.com/hold"]}});
        server.post(&things, &held).await.expect(201);
        make(&server, &things, "t", json!({})).await.expect(201);
        let path = format!("{DEFINITIONS}/things.{group}");
        let definition = server.get(&path).await.expect(200).body;
        let finalizer = "customresourcecleanup.apiextensions.k8s.io";
        assert_eq!(definition["metadata"]["finalizers"], json!([finalizer]));
        server.delete(&path, &Value::Null).await.expect(200);
        server
            .until(&format!("{things}/t"), "gone", |reply| reply.code == 404)
            .await;
        let waiting = server.get(&path).await.expect(200).body;
        assert!(waiting["metadata"]["deletionTimestamp"].is_string());
        let free = json!({"metadata": {"finalizers": null}});
        server
            .patch(&format!("{things}/h"), "merge-patch", &free)
            .await
            .expect(200);
        server.until(&path, "gone", |reply| reply.code == 404).await;
        server
            .until(&things, "no longer served", |reply| reply.code == 404)
            .await;
    }
}
