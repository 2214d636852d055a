//! F. Content negotiation.

use serde_json::{Value, json};

use crate::harness::{servers, spec_schema};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

#[tokio::test]
async fn item_42_metadata_alone_is_served_for_gets_lists_and_watches() {
    for server in servers().await {
        let maps = server.core("configmaps");
        server.config_map("c", &json!({"a": "b"})).await;
        let one = server
            .get_as(&format!("{maps}/c"), METADATA)
            .await
            .expect(200)
            .body;
        assert_eq!(one["kind"], "PartialObjectMetadata");
        assert_eq!(one["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(one["metadata"]["name"], "c");
        assert!(one.get("data").is_none());
        let list = server.get_as(&maps, METADATA_LIST).await.expect(200).body;
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert!(list["metadata"]["resourceVersion"].is_string());
        let query = "resourceVersion=0&fieldSelector=metadata.name%3Dc";
        let mut watch = server.watch_as(&maps, query, METADATA).await;
        let event = watch.expect("ADDED", "c").await;
        assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
        assert!(event["object"].get("data").is_none());
    }
}

#[tokio::test]
async fn item_43_tables_are_served_for_gets_lists_and_watches() {
    for server in servers().await {
        let mut version = spec_schema(json!({"type": "object", "properties": {
            "size": {"type": "integer"},
            "parts": {"type": "array", "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "value": {"type": "string"},
            }}},
        }}));
        version["additionalPrinterColumns"] = json!([
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "First", "type": "string", "jsonPath": ".spec.parts[0].name"},
            {"name": "B", "type": "string", "jsonPath": ".spec.parts[?(@.name==\"b\")].value", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]);
        let (_, things) = server.define(version).await;
        let body = json!({"metadata": {"name": "t"}, "spec": {
            "size": 3, "parts": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
        }});
        server.post(&things, &body).await.expect(201);
        let list = server.get_as(&things, TABLE).await.expect(200);
        assert!(list.header("content-type").contains("as=Table"));
        let table = list.body;
        assert_eq!(
            (&table["kind"], &table["apiVersion"]),
            (&json!("Table"), &json!("meta.k8s.io/v1"))
        );
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let headers: Vec<(&Value, &Value, &Value)> = columns
            .iter()
            .map(|c| (&c["name"], &c["type"], &c["priority"]))
            .collect();
        let column =
            |name: &str, kind: &str, priority: i64| (json!(name), json!(kind), json!(priority));
        let expected = [
            column("Name", "string", 0),
            column("Size", "integer", 0),
            column("First", "string", 0),
            column("B", "string", 1),
            column("Age", "date", 0),
        ];
        assert_eq!(
            headers,
            expected
                .iter()
                .map(|(a, b, c)| (a, b, c))
                .collect::<Vec<_>>()
        );
        assert_eq!(columns[0]["format"], "name");
        let row = &table["rows"][0];
        let cells = row["cells"].as_array().expect("cells");
        assert_eq!(cells[..4], [json!("t"), json!(3), json!("a"), json!("2")]);
        assert!(
            cells[4].as_str().is_some_and(|age| age.ends_with('s')),
            "{cells:?}"
        );
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(row["object"]["metadata"]["name"], "t");

        let path = format!("{things}?includeObject=Object");
        let whole = server.get_as(&path, TABLE).await.expect(200).body;
        assert_eq!(whole["rows"][0]["object"]["spec"]["size"], 3);
        let path = format!("{things}?includeObject=None");
        let none = server.get_as(&path, TABLE).await.expect(200).body;
        assert!(none["rows"][0].get("object").is_none_or(Value::is_null));
        let one = server
            .get_as(&format!("{things}/t"), TABLE)
            .await
            .expect(200)
            .body;
        assert_eq!(one["rows"].as_array().map(Vec::len), Some(1));

        let mut watch = server.watch_as(&things, "resourceVersion=0", TABLE).await;
        let first = watch.next().await.expect("an event");
        assert_eq!(first["object"]["kind"], "Table");
        assert!(first["object"]["columnDefinitions"].is_array());
        let patch = json!({"spec": {"size": 4}});
        server
            .patch(&format!("{things}/t"), "merge-patch", &patch)
            .await
            .expect(200);
        let second = watch.next().await.expect("an event");
        assert_eq!(second["object"]["rows"][0]["cells"][1], 4);
        assert!(second["object"]["columnDefinitions"].is_null());
    }
}
