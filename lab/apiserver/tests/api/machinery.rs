//! H. What clusters do by themselves. A bare kube-apiserver does none of it, so these run against
//! the embedded server alone, but for the reviews.

use serde_json::{Value, json};

use crate::harness::{Server, servers, unique};

async fn owner(server: &Server, name: &str) -> Value {
    let made = server.config_map(name, &json!({})).await.body;
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": made["metadata"]["uid"],
        "blockOwnerDeletion": true,
    })
}

async fn owned(server: &Server, name: &str, owners: &[&Value]) {
    let body = json!({"metadata": {"name": name, "ownerReferences": owners}});
    server
        .post(&server.core("secrets"), &body)
        .await
        .expect(201);
}

#[tokio::test]
async fn item_51_dependents_go_with_their_last_owner() {
    let server = Server::embedded().await;
    let (a, b) = (owner(&server, "a").await, owner(&server, "b").await);
    owned(&server, "of-a", &[&a]).await;
    owned(&server, "of-both", &[&a, &b]).await;
    server
        .delete(&server.core("configmaps/a"), &Value::Null)
        .await
        .expect(200);
    server.get(&server.core("secrets/of-a")).await.expect(404);
    let kept = server
        .get(&server.core("secrets/of-both"))
        .await
        .expect(200)
        .body;
    assert_eq!(
        kept["metadata"]["ownerReferences"].as_array().map(Vec::len),
        Some(1)
    );
    let mut other = b.clone();
    other["uid"] = json!("00000000-0000-4000-8000-000000000000");
    owned(&server, "of-another-life", &[&other]).await;
    server
        .get(&server.core("secrets/of-another-life"))
        .await
        .expect(404);
}

#[tokio::test]
async fn item_51_foreground_deletion_waits_for_dependents_and_orphans_stay() {
    let server = Server::embedded().await;
    let a = owner(&server, "a").await;
    let body = json!({"metadata": {
        "name": "held", "ownerReferences": [a], "finalizers": ["example.com/hold"],
    }});
    server
        .post(&server.core("secrets"), &body)
        .await
        .expect(201);
    let foreground = json!({"propagationPolicy": "Foreground"});
    server
        .delete(&server.core("configmaps/a"), &foreground)
        .await
        .expect(200);
    let waiting = server
        .get(&server.core("configmaps/a"))
        .await
        .expect(200)
        .body;
    assert_eq!(
        waiting["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let free = json!({"metadata": {"finalizers": null}});
    server
        .patch(&server.core("secrets/held"), "merge-patch", &free)
        .await
        .expect(200);
    server.get(&server.core("secrets/held")).await.expect(404);
    server.get(&server.core("configmaps/a")).await.expect(404);

    let b = owner(&server, "b").await;
    owned(&server, "orphan", &[&b]).await;
    let orphan = json!({"propagationPolicy": "Orphan"});
    server
        .delete(&server.core("configmaps/b"), &orphan)
        .await
        .expect(200);
    server.get(&server.core("configmaps/b")).await.expect(404);
    let kept = server
        .get(&server.core("secrets/orphan"))
        .await
        .expect(200)
        .body;
    assert!(kept["metadata"].get("ownerReferences").is_none());
}

#[tokio::test]
async fn item_52_a_deleted_namespace_takes_its_objects_along() {
    let server = Server::embedded().await;
    let name = unique("swept");
    let namespace = json!({"metadata": {"name": name}});
    server
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201);
    let path = format!("/api/v1/namespaces/{name}");
    let map = json!({"metadata": {"name": "c"}});
    server
        .post(&format!("{path}/configmaps"), &map)
        .await
        .expect(201);
    let held = json!({"metadata": {"name": "h", "finalizers": ["example.com/hold"]}});
    server
        .post(&format!("{path}/configmaps"), &held)
        .await
        .expect(201);
    let pending = server.delete(&path, &Value::Null).await.expect(200).body;
    assert_eq!(pending["status"]["phase"], "Terminating");
    server
        .get(&format!("{path}/configmaps/c"))
        .await
        .expect(404);
    let free = json!({"metadata": {"finalizers": null}});
    server
        .patch(&format!("{path}/configmaps/h"), "merge-patch", &free)
        .await
        .expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn item_53_leases_are_objects_with_conflict_checks() {
    for server in servers().await {
        let leases = server.group("coordination.k8s.io", "leases");
        let lease = json!({"metadata": {"name": "l"}, "spec": {
            "holderIdentity": "a", "leaseDurationSeconds": 15,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        }});
        let made = server.post(&leases, &lease).await.expect(201).body;
        let mut taken = made.clone();
        taken["spec"]["holderIdentity"] = json!("b");
        server.put(&format!("{leases}/l"), &taken).await.expect(200);
        let mut late = made;
        late["spec"]["holderIdentity"] = json!("c");
        server
            .put(&format!("{leases}/l"), &late)
            .await
            .refused(409, "Conflict");
    }
}

#[tokio::test]
async fn item_55_everybody_may_do_everything() {
    for server in servers().await {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "delete", "resource": "pods"}},
        });
        let answer = server.post(path, &review).await.expect(201).body;
        assert_eq!(answer["status"]["allowed"], true);
    }
}

#[tokio::test]
async fn item_56_requests_are_counted_by_client_verb_and_resource() {
    let server = Server::embedded().await;
    let requests = server.embedded.as_ref().expect("embedded").requests();
    requests.reset();
    let headers = [("user-agent", "caracal-agent/1.0")];
    let path = server.core("pods");
    server.send("GET", &path, &headers, "").await.expect(200);
    server.send("GET", &path, &headers, "").await.expect(200);
    assert_eq!(requests.writes_by("caracal-agent"), 0);
    let lists = requests.count(|kind| {
        kind.user_agent == "caracal-agent/1.0" && kind.verb == "list" && kind.resource == "pods"
    });
    assert_eq!(lists, 2);
    server.config_map("c", &json!({})).await;
    assert_eq!(requests.count(caracal_apiserver::RequestKind::is_write), 1);
    let last = requests.recent().pop().expect("a record");
    assert_eq!(
        (last.kind.resource.as_str(), last.code),
        ("configmaps", 201)
    );
    assert_eq!(last.namespace, server.namespace);
}
