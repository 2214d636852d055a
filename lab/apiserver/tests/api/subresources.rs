//! D. Subresources. `/scale`, pod subresources and tokens are not offered.

use serde_json::json;

use crate::harness::servers;

#[tokio::test]
async fn item_25_status_is_written_through_its_subresource_alone() {
    for server in servers().await {
        let (_, things) = server.define(json!({})).await;
        let path = format!("{things}/t");
        let body = json!({"metadata": {"name": "t"}, "spec": {"a": 1}, "status": {"s": 1}});
        let made = server.post(&things, &body).await.expect(201).body;
        assert!(made.get("status").is_none());
        let mut put = made.clone();
        put["status"] = json!({"s": 2});
        put["spec"] = json!({"a": 2});
        let written = server.put(&path, &put).await.expect(200).body;
        assert!(written.get("status").is_none());
        let mut put = written.clone();
        put["status"] = json!({"s": 3});
        put["spec"] = json!({"a": 3});
        let written = server
            .put(&format!("{path}/status"), &put)
            .await
            .expect(200)
            .body;
        assert_eq!(
            (&written["status"]["s"], &written["spec"]["a"]),
            (&json!(3), &json!(2))
        );
        assert_eq!(written["metadata"]["generation"], 2);
        let got = server.get(&format!("{path}/status")).await.expect(200).body;
        assert_eq!(got["status"]["s"], 3);
        let patch = json!({"status": {"s": 4}, "spec": {"a": 4}});
        let path = format!("{path}/status");
        let patched = server
            .patch(&path, "merge-patch", &patch)
            .await
            .expect(200)
            .body;
        assert_eq!(
            (&patched["status"]["s"], &patched["spec"]["a"]),
            (&json!(4), &json!(2))
        );

        let pods = server.core("pods");
        let pod = json!({
            "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running"},
        });
        let made = server.post(&pods, &pod).await.expect(201).body;
        assert_eq!(made["status"]["phase"], "Pending");
        let patch = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}});
        let path = format!("{pods}/p/status");
        let patched = server
            .patch(&path, "strategic-merge-patch", &patch)
            .await
            .expect(200)
            .body;
        assert_eq!(patched["status"]["podIPs"][0]["ip"], "10.0.0.1");
        server
            .get(&server.core("configmaps/x/status"))
            .await
            .expect(404);
    }
}

#[tokio::test]
async fn item_26_generation_counts_changes_of_the_specification() {
    for server in servers().await {
        let (_, things) = server.define(json!({})).await;
        let path = format!("{things}/t");
        let body = json!({"metadata": {"name": "t"}, "spec": {"a": 1}});
        server.post(&things, &body).await.expect(201);
        for (patch, generation) in [
            (json!({"metadata": {"labels": {"a": "b"}}}), 1),
            (json!({"spec": {"a": 2}}), 2),
            (json!({"spec": {"a": 2}}), 2),
            (json!({"spec": {"b": 1}}), 3),
        ] {
            let patched = server
                .patch(&path, "merge-patch", &patch)
                .await
                .expect(200)
                .body;
            assert_eq!(
                patched["metadata"]["generation"], generation,
                "after {patch}"
            );
        }
        let status = json!({"status": {"x": 1}});
        let path = format!("{path}/status");
        let patched = server
            .patch(&path, "merge-patch", &status)
            .await
            .expect(200)
            .body;
        assert_eq!(patched["metadata"]["generation"], 3);
    }
}
