//! C. Patches and server-side apply.

use serde_json::{Value, json};

use crate::harness::{Server, servers, spec_schema};

async fn apply(server: &Server, path: &str, manager: &str, body: &Value) -> crate::harness::Reply {
    server
        .patch(&format!("{path}?fieldManager={manager}"), "apply", body)
        .await
}

#[tokio::test]
async fn item_19_merge_patch_merges_replaces_and_removes() {
    for server in servers().await {
        server
            .config_map("c", &json!({"keep": "1", "change": "1", "drop": "1"}))
            .await;
        let patch = json!({"data": {"change": "2", "drop": null, "new": "3"}});
        let path = server.core("configmaps/c");
        let patched = server
            .patch(&path, "merge-patch", &patch)
            .await
            .expect(200)
            .body;
        assert_eq!(
            patched["data"],
            json!({"keep": "1", "change": "2", "new": "3"})
        );
        let gone = server.core("configmaps/gone");
        server
            .patch(&gone, "merge-patch", &patch)
            .await
            .refused(404, "NotFound");
    }
}

#[tokio::test]
async fn item_20_json_patch_applies_all_operations_or_none() {
    for server in servers().await {
        let path = server.core("configmaps/c");
        server.config_map("c", &json!({"a": "1", "b/c": "2"})).await;
        let patch = json!([
            {"op": "test", "path": "/data/a", "value": "1"},
            {"op": "add", "path": "/data/new", "value": "x"},
            {"op": "replace", "path": "/data/a", "value": "y"},
            {"op": "move", "from": "/data/b~1c", "path": "/data/moved"},
            {"op": "copy", "from": "/data/new", "path": "/data/copied"},
        ]);
        let patched = server
            .patch(&path, "json-patch", &patch)
            .await
            .expect(200)
            .body;
        assert_eq!(
            patched["data"],
            json!({"a": "y", "new": "x", "moved": "2", "copied": "x"})
        );
        let patch = json!([
            {"op": "remove", "path": "/data/new"},
            {"op": "test", "path": "/data/a", "value": "1"},
        ]);
        server
            .patch(&path, "json-patch", &patch)
            .await
            .refused(422, "Invalid");
        let kept = server.get(&path).await.expect(200).body;
        assert_eq!(kept["data"]["new"], "x");
        let patch = json!([{"op": "remove", "path": "/data/gone"}]);
        server
            .patch(&path, "json-patch", &patch)
            .await
            .refused(422, "Invalid");
    }
}

fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
}

#[tokio::test]
async fn item_21_strategic_patch_merges_lists_by_key_for_builtins_only() {
    for server in servers().await {
        let path = server.core("services/s");
        let service = json!({"metadata": {"name": "s", "finalizers": ["example.com/a"]}, "spec": {
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53}],
            "selector": {"app": "a", "tier": "b"},
        }});
        server
            .post(&server.core("services"), &service)
            .await
            .expect(201);
        let patch = json!({
            "metadata": {"finalizers": ["example.com/b"]},
            "spec": {
                "ports": [{"port": 53, "$patch": "delete"}, {"port": 443, "name": "https"}, {"port": 80, "name": "web"}],
                "$setElementOrder/ports": [{"port": 443}, {"port": 80}],
                "selector": {"$patch": "replace", "app": "c"},
            },
        });
        let patched = server
            .patch(&path, "strategic-merge-patch", &patch)
            .await
            .expect(200)
            .body;
        let names: Vec<&Value> = patched["spec"]["ports"]
            .as_array()
            .expect("ports")
            .iter()
            .map(|p| &p["name"])
            .collect();
        assert_eq!(names, ["https", "web"]);
        assert_eq!(patched["spec"]["selector"], json!({"app": "c"}));
        assert_eq!(
            patched["metadata"]["finalizers"],
            json!(["example.com/a", "example.com/b"])
        );
        let patch = json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["example.com/a", "example.com/b"],
        }});
        let patched = server
            .patch(&path, "strategic-merge-patch", &patch)
            .await
            .expect(200)
            .body;
        assert!(
            patched["metadata"]
                .get("finalizers")
                .is_none_or(|list| list == &json!([]))
        );

        let (_, things) = server.define(json!({})).await;
        server
            .post(&things, &json!({"metadata": {"name": "t"}}))
            .await
            .expect(201);
        let reply = server
            .patch(&format!("{things}/t"), "strategic-merge-patch", &json!({}))
            .await;
        reply.refused(415, "UnsupportedMediaType");
    }
}

#[tokio::test]
async fn item_22_server_side_apply_creates_and_reports_conflicts() {
    for server in servers().await {
        let path = server.core("configmaps/c");
        let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
        server
            .patch(&path, "apply", &config(json!({})))
            .await
            .expect(400);
        let first = config(json!({"a": "1", "b": "1"}));
        let made = apply(&server, &path, "one", &first).await.expect(201).body;
        let entry = &made["metadata"]["managedFields"][0];
        assert_eq!(
            (&entry["manager"], &entry["operation"]),
            (&"one".into(), &"Apply".into())
        );
        assert_eq!(entry["fieldsV1"], json!({"f:data": {"f:a": {}, "f:b": {}}}));

        let conflict = apply(&server, &path, "two", &config(json!({"a": "2"}))).await;
        let conflict = conflict.refused(409, "Conflict").body;
        let cause = &conflict["details"]["causes"][0];
        assert_eq!(cause["reason"], "FieldManagerConflict");
        assert_eq!(cause["field"], ".data.a");
        assert_eq!(cause["message"], "conflict with \"one\"");

        // The same value is no conflict: both own it then.
        apply(&server, &path, "two", &config(json!({"a": "1"})))
            .await
            .expect(200);
        let by_force = format!("{path}?fieldManager=two&force=true");
        let forced = server
            .patch(&by_force, "apply", &config(json!({"a": "2"})))
            .await;
        assert_eq!(forced.expect(200).body["data"], json!({"a": "2", "b": "1"}));
        // What was taken from the first is not removed when it stops to want it.
        let kept = apply(&server, &path, "one", &config(json!({})))
            .await
            .expect(200)
            .body;
        assert_eq!(kept["data"], json!({"a": "2"}));
        let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {y: 'yes'}\n";
        let headers = [("content-type", "application/apply-patch+yaml")];
        let path_three = format!("{path}?fieldManager=three");
        let reply = server
            .send("PATCH", &path_three, &headers, yaml)
            .await
            .expect(200);
        assert_eq!(reply.body["data"]["y"], "yes");
        let mut stale = config(json!({"y": "no"}));
        stale["metadata"]["resourceVersion"] = json!("1");
        apply(&server, &path, "three", &stale)
            .await
            .refused(409, "Conflict");
    }
}

#[tokio::test]
async fn item_22_server_side_apply_of_the_same_is_no_write() {
    for server in servers().await {
        let path = server.core("configmaps/c");
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"},
        });
        let first = apply(&server, &path, "one", &config).await.expect(201);
        let second = apply(&server, &path, "one", &config).await.expect(200);
        assert_eq!(first.version(), second.version());
    }
}

#[tokio::test]
async fn item_22_server_side_apply_merges_lists_by_their_keys() {
    for server in servers().await {
        let path = server.core("pods/p");
        let config = |containers: Value| {
            let mut pod = pod(containers);
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["labels"] = json!({"a": "b"});
            pod
        };
        let one = config(json!([{"name": "x", "image": "i:1", "ports": [{"containerPort": 80}]}]));
        let made = apply(&server, &path, "one", &one).await.expect(201).body;
        let fields = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"];
        let container = &fields["k:{\"name\":\"x\"}"];
        assert_eq!(container["."], json!({}));
        assert_eq!(container["f:image"], json!({}));
        let port = &container["f:ports"]["k:{\"containerPort\":80,\"protocol\":\"TCP\"}"];
        assert_eq!(port["f:containerPort"], json!({}), "{fields}");
        let two = config(json!([{"name": "x", "image": "i:2"}]));
        let conflict = apply(&server, &path, "two", &two)
            .await
            .refused(409, "Conflict")
            .body;
        let field = &conflict["details"]["causes"][0]["field"];
        assert_eq!(*field, ".spec.containers[name=\"x\"].image");
        let by_force = format!("{path}?fieldManager=two&force=true");
        let forced = server
            .patch(&by_force, "apply", &two)
            .await
            .expect(200)
            .body;
        assert_eq!(forced["spec"]["containers"][0]["image"], "i:2");
        assert_eq!(
            forced["spec"]["containers"][0]["ports"][0]["containerPort"],
            80
        );
    }
}

#[tokio::test]
async fn item_22_server_side_apply_follows_the_list_types_of_custom_schemas() {
    let schema = spec_schema(json!({"type": "object", "properties": {
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "map": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {
                "k": {"type": "string"}, "v": {"type": "integer"},
            }},
        },
        "atomic": {"type": "array", "items": {"type": "string"}},
        "whole": {
            "type": "object", "x-kubernetes-map-type": "atomic",
            "additionalProperties": {"type": "string"},
        },
    }}));
    for server in servers().await {
        let (group, things) = server.define(schema.clone()).await;
        let path = format!("{things}/t");
        let config = |spec: Value| {
            json!({
                "apiVersion": format!("{group}/v1"), "kind": "Thing",
                "metadata": {"name": "t"}, "spec": spec,
            })
        };
        let one = config(json!({"set": ["a"], "map": [{"k": "x", "v": 1}], "atomic": ["1"]}));
        apply(&server, &path, "one", &one).await.expect(201);
        let two = config(json!({"set": ["b"], "map": [{"k": "y", "v": 2}]}));
        let both = apply(&server, &path, "two", &two).await.expect(200).body;
        let mut set: Vec<&str> = both["spec"]["set"]
            .as_array()
            .expect("set")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        set.sort_unstable();
        assert_eq!(set, ["a", "b"]);
        assert_eq!(both["spec"]["map"].as_array().map(Vec::len), Some(2));
        let three = config(json!({"atomic": ["2"]}));
        apply(&server, &path, "three", &three)
            .await
            .refused(409, "Conflict");
        // Dropped by its only owner: gone, element and all.
        let left = apply(&server, &path, "one", &config(json!({})))
            .await
            .expect(200)
            .body;
        assert_eq!(
            left["spec"],
            json!({"set": ["b"], "map": [{"k": "y", "v": 2}]})
        );
        apply(&server, &path, "one", &config(json!({"whole": {"a": "1"}})))
            .await
            .expect(200);
        let whole = apply(&server, &path, "two", &config(json!({"whole": {"b": "1"}}))).await;
        let cause = whole.refused(409, "Conflict").body["details"]["causes"][0]["field"].clone();
        assert_eq!(cause, ".spec.whole");
    }
}

#[tokio::test]
async fn item_22_server_side_apply_on_status_owns_status_alone() {
    for server in servers().await {
        let (group, things) = server.define(json!({})).await;
        let path = format!("{things}/t");
        let config = json!({
            "apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": {"name": "t"},
            "spec": {"a": 1}, "status": {"s": 1},
        });
        let made = apply(&server, &path, "one", &config).await.expect(201).body;
        assert!(made.get("status").is_none());
        let status = apply(&server, &format!("{path}/status"), "one", &config).await;
        let status = status.expect(200).body;
        assert_eq!(status["status"], json!({"s": 1}));
        let entries = status["metadata"]["managedFields"]
            .as_array()
            .expect("entries");
        let of_status = entries
            .iter()
            .find(|entry| entry["subresource"] == "status")
            .expect("a status entry");
        assert_eq!(of_status["fieldsV1"], json!({"f:status": {"f:s": {}}}));
        assert_eq!(entries.len(), 2);
    }
}

#[tokio::test]
async fn item_23_updates_are_tracked_by_manager_and_can_be_cleared() {
    for server in servers().await {
        let maps = server.core("configmaps");
        let body = json!({"metadata": {"name": "c"}, "data": {"a": "1"}});
        server
            .post(&format!("{maps}?fieldManager=maker"), &body)
            .await
            .expect(201);
        let headers = [
            ("content-type", "application/merge-patch+json"),
            ("user-agent", "agent/1.2 (linux)"),
        ];
        let path = format!("{maps}/c");
        let patch = json!({"data": {"b": "1"}}).to_string();
        let patched = server
            .send("PATCH", &path, &headers, patch)
            .await
            .expect(200)
            .body;
        let entries = patched["metadata"]["managedFields"]
            .as_array()
            .expect("entries")
            .clone();
        let of = |manager: &str| {
            entries
                .iter()
                .find(|entry| entry["manager"] == manager)
                .cloned()
                .unwrap_or_default()
        };
        assert_eq!(of("maker")["operation"], "Update");
        assert_eq!(
            of("maker")["fieldsV1"],
            json!({"f:data": {".": {}, "f:a": {}}})
        );
        assert_eq!(of("agent")["fieldsV1"], json!({"f:data": {"f:b": {}}}));
        let clear = json!({"metadata": {"managedFields": [{}]}});
        let cleared = server
            .patch(&path, "merge-patch", &clear)
            .await
            .expect(200)
            .body;
        assert!(
            cleared["metadata"].get("managedFields").is_none(),
            "{cleared}"
        );
    }
}

#[tokio::test]
async fn item_24_a_resource_version_in_a_patch_is_a_precondition() {
    for server in servers().await {
        let path = server.core("configmaps/c");
        let made = server.config_map("c", &json!({"a": "1"})).await;
        server
            .patch(&path, "merge-patch", &json!({"data": {"a": "2"}}))
            .await
            .expect(200);
        let stale = json!({"metadata": {"resourceVersion": made.version()}, "data": {"a": "3"}});
        server
            .patch(&path, "merge-patch", &stale)
            .await
            .refused(409, "Conflict");
        // Without one, concurrent patches all go through.
        let mut patches = Vec::new();
        for n in 0..8 {
            let patch = json!({"data": {format!("k{n}"): "x"}});
            patches.push({
                let path = path.clone();
                let server = &server;
                async move { server.patch(&path, "merge-patch", &patch).await.expect(200) }
            });
        }
        futures::future::join_all(patches).await;
        let all = server.get(&path).await.expect(200).body;
        assert_eq!(all["data"].as_object().map(serde_json::Map::len), Some(9));
    }
}
