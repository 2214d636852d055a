//! B. Create, read, update and delete.

use serde_json::{Value, json};

use crate::harness::{servers, unique};

#[tokio::test]
async fn item_07_create_fills_in_metadata_and_generates_names() {
    for server in servers().await {
        let (_, things) = server.define(json!({})).await;
        let made = server
            .post(&things, &thing("a", json!({"spec": {"n": 1}})))
            .await
            .expect(201)
            .body;
        let metadata = &made["metadata"];
        assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
        assert!(metadata["creationTimestamp"].is_string());
        assert!(metadata["resourceVersion"].is_string());
        assert_eq!(metadata["generation"], 1);
        assert_eq!(metadata["namespace"], server.namespace);
        assert!(metadata["managedFields"].is_array());

        let maps = server.core("configmaps");
        let body = json!({"metadata": {"generateName": "gen-"}});
        let made = server.post(&maps, &body).await.expect(201).body;
        let name = made["metadata"]["name"].as_str().expect("a name");
        let suffix = name.strip_prefix("gen-").expect("the prefix");
        let letters = "bcdfghjklmnpqrstvwxz2456789";
        assert!(
            suffix.len() == 5 && suffix.chars().all(|c| letters.contains(c)),
            "{name}"
        );

        let body = json!({"metadata": {"name": "x", "namespace": "default"}});
        server.post(&maps, &body).await.refused(400, "BadRequest");
        server.post(&maps, &json!({})).await.refused(422, "Invalid");
        let body = json!({"metadata": {"name": "x"}});
        server.post(&maps, &body).await.expect(201);
        server
            .post(&maps, &body)
            .await
            .refused(409, "AlreadyExists");
        let body = json!({"metadata": {"name": "y", "resourceVersion": "1"}});
        server.post(&maps, &body).await.refused(400, "BadRequest");
    }
}

/// A custom object.
fn thing(name: &str, rest: Value) -> Value {
    let mut body = json!({"metadata": {"name": name}});
    for (key, value) in rest.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn item_08_names_labels_and_annotations_are_checked() {
    let too_long = "a".repeat(254);
    for server in servers().await {
        for name in ["Upper", "under_score", "-dash", "dot.", too_long.as_str()] {
            let body = json!({"metadata": {"name": name}});
            let reply = server.post(&server.core("configmaps"), &body).await;
            let reply = reply.refused(422, "Invalid");
            let cause = &reply.body["details"]["causes"][0];
            assert_eq!(cause["reason"], "FieldValueInvalid", "{}", reply.text);
            assert_eq!(cause["field"], "metadata.name");
        }
        let body = json!({"metadata": {"name": "a.b"}});
        server
            .post("/api/v1/namespaces", &body)
            .await
            .refused(422, "Invalid");
        let body = json!({"metadata": {"name": "x", "labels": {"k": "not a value"}}});
        let reply = server.post(&server.core("configmaps"), &body).await;
        assert_eq!(
            reply.refused(422, "Invalid").body["details"]["causes"][0]["field"],
            "metadata.labels"
        );
    }
}

#[tokio::test]
async fn item_09_get_returns_the_object_or_says_what_is_missing() {
    for server in servers().await {
        server.config_map("here", &json!({"a": "b"})).await;
        let here = server
            .get(&server.core("configmaps/here"))
            .await
            .expect(200)
            .body;
        assert_eq!(
            (&here["kind"], &here["data"]["a"]),
            (&"ConfigMap".into(), &"b".into())
        );
        let path = server.group("networking.k8s.io", "networkpolicies/gone");
        let missing = server.get(&path).await.refused(404, "NotFound").body;
        let details =
            json!({"name": "gone", "group": "networking.k8s.io", "kind": "networkpolicies"});
        assert_eq!(missing["details"], details);
        assert_eq!(
            missing["message"],
            "networkpolicies.networking.k8s.io \"gone\" not found"
        );
    }
}

#[tokio::test]
async fn item_10_replace_checks_version_uid_and_name() {
    for server in servers().await {
        let path = server.core("configmaps/c");
        let made = server.config_map("c", &json!({"n": "1"})).await.body;
        let mut body = made.clone();
        body["data"]["n"] = json!("2");
        let second = server.put(&path, &body).await.expect(200).body;
        assert_eq!(second["metadata"]["uid"], made["metadata"]["uid"]);
        server.put(&path, &body).await.refused(409, "Conflict");
        body["metadata"]["resourceVersion"] = json!("");
        body["data"]["n"] = json!("3");
        server.put(&path, &body).await.expect(200);
        body["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
        server.put(&path, &body).await.refused(409, "Conflict");
        let other = json!({"metadata": {"name": "other"}});
        server.put(&path, &other).await.refused(400, "BadRequest");
        server
            .put(&server.core("configmaps/other"), &other)
            .await
            .refused(404, "NotFound");
        let changed =
            json!({"metadata": {"name": "c", "creationTimestamp": "2000-01-01T00:00:00Z"}});
        let kept = server.put(&path, &changed).await.expect(200).body;
        assert_eq!(
            kept["metadata"]["creationTimestamp"],
            made["metadata"]["creationTimestamp"]
        );

        let (_, things) = server.define(json!({})).await;
        let made = server
            .post(&things, &thing("t", json!({})))
            .await
            .expect(201)
            .body;
        let mut body = made;
        body["metadata"]
            .as_object_mut()
            .expect("metadata")
            .remove("resourceVersion");
        let reply = server
            .put(&format!("{things}/t"), &body)
            .await
            .refused(422, "Invalid");
        assert_eq!(
            reply.body["details"]["causes"][0]["field"],
            "metadata.resourceVersion"
        );

        let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
        let path = server.group("coordination.k8s.io", "leases/l");
        server.put(&path, &lease).await.expect(201);
    }
}

#[tokio::test]
async fn item_11_writes_that_change_nothing_are_none() {
    for server in servers().await {
        let path = server.core("configmaps/c");
        let made = server.config_map("c", &json!({"a": "b"})).await;
        let query = format!("resourceVersion={}", made.version());
        let mut watch = server.watch(&server.core("configmaps"), &query).await;
        let put = server.put(&path, &made.body).await.expect(200);
        let patched = server
            .patch(&path, "merge-patch", &json!({"data": {"a": "b"}}))
            .await;
        let patched = patched.expect(200);
        assert_eq!(
            (put.version(), patched.version()),
            (made.version(), made.version())
        );
        assert!(
            watch.is_silent().await,
            "an event for a write that changed nothing"
        );
    }
}

#[tokio::test]
async fn item_12_delete_honours_preconditions_and_answers_success() {
    for server in servers().await {
        let path = server.core("configmaps/c");
        let made = server.config_map("c", &json!({})).await;
        let wrong = json!({"preconditions": {"uid": "00000000-0000-4000-8000-000000000000"}});
        server.delete(&path, &wrong).await.refused(409, "Conflict");
        let wrong = json!({"preconditions": {"resourceVersion": "1"}});
        server.delete(&path, &wrong).await.refused(409, "Conflict");
        let wrong = json!({"propagationPolicy": "Sideways"});
        assert!(server.delete(&path, &wrong).await.code >= 400);
        let uid = &made.body["metadata"]["uid"];
        let right = json!({"preconditions": {"uid": uid}, "propagationPolicy": "Background"});
        let status = server.delete(&path, &right).await.expect(200).body;
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["status"], "Success");
        assert_eq!(status["details"]["uid"], *uid);
        server
            .delete(&path, &Value::Null)
            .await
            .refused(404, "NotFound");
    }
}

#[tokio::test]
async fn item_13_finalizers_hold_an_object_until_the_last_is_gone() {
    for server in servers().await {
        let (_, things) = server.define(json!({})).await;
        let path = format!("{things}/t");
        let body = json!({"metadata": {"name": "t", "finalizers": ["example.com/hold"]}});
        let made = server.post(&things, &body).await.expect(201);
        let mut watch = server
            .watch(&things, &format!("resourceVersion={}", made.version()))
            .await;
        let pending = server.delete(&path, &Value::Null).await.expect(200).body;
        assert!(pending["metadata"]["deletionTimestamp"].is_string());
        assert_eq!(pending["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(pending["metadata"]["generation"], 2);
        watch.expect("MODIFIED", "t").await;
        let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
        server
            .patch(&path, "merge-patch", &more)
            .await
            .refused(422, "Invalid");
        let none = json!({"metadata": {"finalizers": null}});
        server.patch(&path, "merge-patch", &none).await.expect(200);
        loop {
            let event = watch.next().await.expect("the stream goes on");
            if event["type"] == "DELETED" {
                break;
            }
            assert_eq!(event["type"], "MODIFIED");
        }
        server.get(&path).await.refused(404, "NotFound");
    }
}

#[tokio::test]
async fn item_14_delete_collection_takes_what_a_list_would_return() {
    for server in servers().await {
        let maps = server.core("configmaps");
        for (name, group) in [("a", "x"), ("b", "y"), ("c", "x")] {
            let body = json!({"metadata": {"name": name, "labels": {"g": group}}});
            server.post(&maps, &body).await.expect(201);
        }
        let path = format!("{maps}?labelSelector=g%3Dx");
        server.delete(&path, &Value::Null).await.expect(200);
        let path = format!("{maps}?labelSelector=g");
        let left = server.get(&path).await.expect(200).body;
        let names: Vec<&Value> = left["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|i| &i["metadata"]["name"])
            .collect();
        assert_eq!(names, ["b"]);
    }
}

#[tokio::test]
async fn item_15_dry_run_stores_nothing() {
    for server in servers().await {
        let maps = server.core("configmaps");
        let body = json!({"metadata": {"name": "d"}, "data": {"a": "b"}});
        let tried = server
            .post(&format!("{maps}?dryRun=All"), &body)
            .await
            .expect(201)
            .body;
        assert_eq!(tried["data"]["a"], "b");
        server.get(&format!("{maps}/d")).await.expect(404);
        let made = server.post(&maps, &body).await.expect(201);
        let path = format!("{maps}/d?dryRun=All");
        let change = json!({"data": {"a": "c"}});
        let tried = server
            .patch(&path, "merge-patch", &change)
            .await
            .expect(200)
            .body;
        assert_eq!(tried["data"]["a"], "c");
        let mut put = made.body.clone();
        put["data"]["a"] = json!("d");
        server.put(&path, &put).await.expect(200);
        server.delete(&path, &Value::Null).await.expect(200);
        server
            .delete(&format!("{maps}/d"), &json!({"dryRun": ["All"]}))
            .await
            .expect(200);
        let kept = server.get(&format!("{maps}/d")).await.expect(200);
        assert_eq!(kept.version(), made.version());
        assert!(
            server
                .post(&format!("{maps}?dryRun=Some"), &body)
                .await
                .code
                >= 400
        );
    }
}

#[tokio::test]
async fn item_16_unknown_and_duplicate_fields_are_ignored_warned_about_or_refused() {
    let body = r#"{"metadata":{"name":"f"},"data":{"a":"1","a":"2"},"nonsense":1}"#;
    for server in servers().await {
        let post = async |validation: &str| {
            let path = format!("{}?{validation}", server.core("configmaps"));
            server
                .send("POST", &path, &[("content-type", "application/json")], body)
                .await
        };
        let strict = post("fieldValidation=Strict")
            .await
            .refused(400, "BadRequest");
        assert!(strict.text.contains("unknown field"), "{}", strict.text);
        assert!(strict.text.contains("duplicate field"), "{}", strict.text);
        let warned = post("fieldValidation=Warn&dryRun=All").await.expect(201);
        let warnings: Vec<&str> = warned
            .headers
            .get_all("warning")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings.iter().all(|text| text.starts_with("299 - ")),
            "{warnings:?}"
        );
        let ignored = post("fieldValidation=Ignore").await.expect(201);
        assert_eq!(ignored.header("warning"), "");
        assert!(ignored.body.get("nonsense").is_none());
        assert_eq!(ignored.body["data"]["a"], "2");
    }
}

#[tokio::test]
async fn item_17_bodies_over_three_megabytes_are_refused() {
    for server in servers().await {
        let body = json!({"metadata": {"name": "big"}, "data": {"a": "x".repeat(3 << 20)}});
        server
            .post(&server.core("configmaps"), &body)
            .await
            .refused(413, "RequestEntityTooLarge");
    }
}

#[tokio::test]
async fn item_18_namespaces_have_to_exist_and_not_be_terminating() {
    for server in servers().await {
        for name in ["default", "kube-system", "kube-node-lease"] {
            let path = format!("/api/v1/namespaces/{name}");
            let namespace = server
                .until(&path, "there", |reply| reply.code == 200)
                .await
                .body;
            assert_eq!(namespace["status"]["phase"], "Active");
        }
        let body = json!({"metadata": {"name": "c"}});
        let path = "/api/v1/namespaces/not-there/configmaps";
        server.post(path, &body).await.refused(404, "NotFound");

        let name = unique("ending");
        let namespace = json!({"metadata": {"name": name}});
        server
            .post("/api/v1/namespaces", &namespace)
            .await
            .expect(201);
        let path = format!("/api/v1/namespaces/{name}");
        let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
        server
            .post(&format!("{path}/configmaps"), &held)
            .await
            .expect(201);
        server.delete(&path, &Value::Null).await.expect(200);
        let reply = server.post(&format!("{path}/configmaps"), &body).await;
        let reply = reply.refused(403, "Forbidden");
        let cause = &reply.body["details"]["causes"][0]["reason"];
        assert_eq!(*cause, "NamespaceTerminating", "{}", reply.text);
        server
            .delete("/api/v1/namespaces/default", &Value::Null)
            .await
            .refused(403, "Forbidden");
        let free = json!({"metadata": {"finalizers": null}});
        server
            .patch(&format!("{path}/configmaps/held"), "merge-patch", &free)
            .await
            .expect(200);
    }
}
