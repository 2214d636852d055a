//! E. Lists and watches.

use std::time::{Duration, Instant};

use caracal_apiserver::{ApiServer, Options};
use serde_json::{Value, json};

use crate::harness::{Reply, Server, servers};

const WATCH_LIST: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

async fn labelled(server: &Server, name: &str, label: &str) -> Reply {
    let body = json!({"metadata": {"name": name, "labels": {"l": label}}});
    server
        .post(&server.core("configmaps"), &body)
        .await
        .expect(201)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn item_30_one_revision_counts_all_writes_and_lists_carry_it() {
    for server in servers().await {
        let number = |reply: &Reply| reply.version().parse::<u64>().expect("a decimal revision");
        let first = number(&server.config_map("a", &json!({})).await);
        let secret = json!({"metadata": {"name": "s"}});
        let second = number(
            &server
                .post(&server.core("secrets"), &secret)
                .await
                .expect(201),
        );
        assert!(second > first);
        let list = server.get(&server.core("secrets")).await.expect(200);
        assert!(number(&list) >= second);
        assert_eq!(
            list.body["items"][0]["metadata"]["resourceVersion"],
            second.to_string()
        );
    }
}

#[tokio::test]
async fn item_31_lists_honour_revisions_and_their_match_rules() {
    for server in servers().await {
        let first = server.config_map("c0", &json!({})).await.version();
        server.config_map("c1", &json!({})).await;
        let maps = server.core("configmaps");
        let list = async |query: &str| server.get(&format!("{maps}?{query}")).await;
        for query in [
            "",
            "resourceVersion=0",
            "resourceVersion=0&resourceVersionMatch=NotOlderThan",
        ] {
            assert!(
                names(&list(query).await.expect(200).body).contains(&"c1"),
                "{query}"
            );
        }
        let query = format!("resourceVersion={first}&resourceVersionMatch=Exact");
        let exact = list(&query).await.expect(200);
        assert!(!names(&exact.body).contains(&"c1"));
        assert_eq!(exact.version(), first);
        for query in [
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
        ] {
            assert!(list(query).await.code >= 400, "{query}");
        }
        assert!(list("resourceVersion=abc").await.code >= 400);
        let started = Instant::now();
        let ahead = list("resourceVersion=999999999")
            .await
            .refused(504, "Timeout");
        assert_eq!(ahead.body["details"]["retryAfterSeconds"], 1);
        assert!(
            started.elapsed() >= Duration::from_secs(2),
            "no chance to catch up"
        );
    }
}

#[tokio::test]
async fn item_32_pages_show_one_revision() {
    for server in servers().await {
        for name in ["a", "b", "c", "d", "e"] {
            labelled(&server, name, "page").await;
        }
        let maps = server.core("configmaps");
        let query = "labelSelector=l%3Dpage&limit=2";
        let first = server.get(&format!("{maps}?{query}")).await.expect(200);
        assert_eq!(names(&first.body), ["a", "b"]);
        assert!(first.body["metadata"].get("remainingItemCount").is_none());
        labelled(&server, "cc", "page").await;
        server
            .delete(&format!("{maps}/d"), &Value::Null)
            .await
            .expect(200);
        let token = first.body["metadata"]["continue"]
            .as_str()
            .expect("a token")
            .to_owned();
        let next = server
            .get(&format!("{maps}?{query}&continue={token}"))
            .await
            .expect(200);
        assert_eq!(names(&next.body), ["c", "d"]);
        assert_eq!(next.version(), first.version());
        let token = next.body["metadata"]["continue"]
            .as_str()
            .expect("a token")
            .to_owned();
        let last = server
            .get(&format!("{maps}?{query}&continue={token}"))
            .await
            .expect(200);
        assert_eq!(names(&last.body), ["e"]);
        assert!(last.body["metadata"].get("continue").is_none());
        let counted = server.get(&format!("{maps}?limit=1")).await.expect(200);
        assert!(
            counted.body["metadata"]["remainingItemCount"]
                .as_u64()
                .is_some_and(|n| n >= 4)
        );
        if let Some(embedded) = &server.embedded {
            embedded.compact();
            let expired = server
                .get(&format!("{maps}?{query}&continue={token}"))
                .await;
            let expired = expired.refused(410, "Expired");
            let token = expired.body["metadata"]["continue"]
                .as_str()
                .expect("a token");
            let rest = server
                .get(&format!("{maps}?{query}&continue={token}"))
                .await
                .expect(200);
            assert_eq!(names(&rest.body), ["e"]);
        }
    }
}

#[tokio::test]
async fn item_33_watches_begin_after_their_revision_or_with_everything() {
    for server in servers().await {
        let maps = server.core("configmaps");
        let first = labelled(&server, "a", "w").await;
        let select = "labelSelector=l%3Dw";
        let mut later = server
            .watch(
                &maps,
                &format!("{select}&resourceVersion={}", first.version()),
            )
            .await;
        let mut all = server
            .watch(&maps, &format!("{select}&resourceVersion=0"))
            .await;
        let mut unset = server.watch(&maps, select).await;
        all.expect("ADDED", "a").await;
        unset.expect("ADDED", "a").await;
        labelled(&server, "b", "w").await;
        let patch = json!({"data": {"x": "y"}});
        server
            .patch(&format!("{maps}/b"), "merge-patch", &patch)
            .await
            .expect(200);
        server
            .delete(&format!("{maps}/b"), &Value::Null)
            .await
            .expect(200);
        for watch in [&mut later, &mut all, &mut unset] {
            let added = watch.expect("ADDED", "b").await;
            let modified = watch.expect("MODIFIED", "b").await;
            let deleted = watch.expect("DELETED", "b").await;
            let revision = |event: &Value| {
                let text = event["object"]["metadata"]["resourceVersion"].as_str();
                text.and_then(|text| text.parse::<u64>().ok())
                    .expect("a revision")
            };
            assert!(revision(&added) < revision(&modified));
            assert!(revision(&modified) < revision(&deleted));
        }
        let mut ahead = server.watch(&maps, "resourceVersion=999999999").await;
        assert!(ahead.is_silent().await);
    }
}

#[tokio::test]
async fn item_34_an_expired_revision_is_said_in_band_and_ends_the_watch() {
    let options = Options {
        history: 3,
        ..Options::loopback()
    };
    let small = ApiServer::start(options)
        .await
        .expect("start on the loopback");
    let server = Server::over(small).await;
    let maps = server.core("configmaps");
    let mut versions = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        versions.push(server.config_map(name, &json!({})).await.version());
    }
    // Three events are kept: the newest dropped one is still a good place to begin after.
    let mut fits = server
        .watch(&maps, &format!("resourceVersion={}", versions[1]))
        .await;
    fits.expect("ADDED", "c").await;
    let mut expired = server
        .watch(&maps, &format!("resourceVersion={}", versions[0]))
        .await;
    let event = expired.next().await.expect("an event");
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["kind"], "Status");
    assert_eq!(event["object"]["code"], 410);
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(expired.next().await, None);
}

#[tokio::test]
async fn item_35_watch_lists_end_their_initial_events_with_a_bookmark() {
    for server in servers().await {
        let maps = server.core("configmaps");
        labelled(&server, "a", "w").await;
        let query = format!("{WATCH_LIST}&allowWatchBookmarks=true&labelSelector=l%3Dw");
        let mut watch = server.watch(&maps, &query).await;
        watch.expect("ADDED", "a").await;
        let bookmark = watch.next().await.expect("a bookmark");
        assert_eq!(bookmark["type"], "BOOKMARK");
        let object = &bookmark["object"];
        assert_eq!(object["kind"], "ConfigMap");
        assert_eq!(
            object["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        assert!(object["metadata"]["resourceVersion"].is_string());
        labelled(&server, "b", "w").await;
        watch.expect("ADDED", "b").await;

        let query = "watch=true&sendInitialEvents=true";
        server
            .get(&format!("{maps}?{query}"))
            .await
            .refused(422, "Invalid");
        let query = "watch=true&resourceVersion=1&resourceVersionMatch=NotOlderThan";
        server
            .get(&format!("{maps}?{query}"))
            .await
            .refused(422, "Invalid");
        let query = format!("watch=true&{WATCH_LIST}&resourceVersion=999999999");
        let ahead = server
            .get(&format!("{maps}?{query}"))
            .await
            .refused(504, "Timeout");
        assert_eq!(ahead.body["details"]["retryAfterSeconds"], 1);
    }
}

#[tokio::test]
async fn item_36_bookmarks_come_shortly_before_the_end() {
    let server = Server::embedded().await;
    let query = "allowWatchBookmarks=true&timeoutSeconds=3&resourceVersion=1";
    let mut watch = server.watch(&server.core("configmaps"), query).await;
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    let keys: Vec<&String> = bookmark["object"]
        .as_object()
        .expect("an object")
        .keys()
        .collect();
    assert_eq!(keys, ["apiVersion", "kind", "metadata"]);
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn item_37_a_timeout_ends_a_watch_cleanly() {
    for server in servers().await {
        let started = Instant::now();
        let mut watch = server
            .watch(
                &server.core("secrets"),
                "timeoutSeconds=1&resourceVersion=0",
            )
            .await;
        assert_eq!(watch.next().await, None);
        assert!(started.elapsed() >= Duration::from_millis(900));
    }
}

#[tokio::test]
async fn item_38_objects_enter_and_leave_the_selection_of_a_watch() {
    for server in servers().await {
        let maps = server.core("configmaps");
        let made = labelled(&server, "a", "no").await;
        let query = format!("labelSelector=l%3Dyes&resourceVersion={}", made.version());
        let mut watch = server.watch(&maps, &query).await;
        let path = format!("{maps}/a");
        let relabel = |label: &str| json!({"metadata": {"labels": {"l": label}}});
        server
            .patch(&path, "merge-patch", &relabel("yes"))
            .await
            .expect(200);
        watch.expect("ADDED", "a").await;
        let left = server
            .patch(&path, "merge-patch", &relabel("no"))
            .await
            .expect(200);
        let gone = watch.expect("DELETED", "a").await;
        assert_eq!(gone["object"]["metadata"]["labels"]["l"], "yes");
        assert_eq!(
            gone["object"]["metadata"]["resourceVersion"],
            left.version()
        );
    }
}

#[tokio::test]
async fn item_39_single_objects_are_watched_by_field_selector() {
    for server in servers().await {
        let maps = server.core("configmaps");
        let made = server.config_map("a", &json!({})).await;
        server.config_map("b", &json!({})).await;
        let query = format!(
            "fieldSelector=metadata.name%3Da&resourceVersion={}",
            made.version()
        );
        let mut watch = server.watch(&maps, &query).await;
        server
            .delete(&format!("{maps}/b"), &Value::Null)
            .await
            .expect(200);
        server
            .delete(&format!("{maps}/a"), &Value::Null)
            .await
            .expect(200);
        watch.expect("DELETED", "a").await;
    }
}

#[tokio::test]
async fn item_40_field_selectors_know_the_fields_that_are_offered() {
    for server in servers().await {
        let pods = server.core("pods");
        for (name, node) in [("p1", "n1"), ("p2", "n2")] {
            let pod = json!({"metadata": {"name": name}, "spec": {
                "nodeName": node, "containers": [{"name": "c", "image": "i"}],
            }});
            server.post(&pods, &pod).await.expect(201);
        }
        let select = async |selector: &str| {
            server
                .get(&format!("{pods}?fieldSelector={selector}"))
                .await
        };
        for (selector, expected) in [
            ("metadata.name%3Dp1", &["p1"][..]),
            ("spec.nodeName%3Dn2", &["p2"]),
            ("spec.nodeName!%3Dn2", &["p1"]),
            ("spec.nodeName%3D%3Dn1,metadata.name%3Dp2", &[]),
            ("status.phase%3DPending", &["p1", "p2"]),
        ] {
            assert_eq!(
                names(&select(selector).await.expect(200).body),
                expected,
                "{selector}"
            );
        }
        select("spec.nonsense%3Dx").await.refused(400, "BadRequest");
        let schema = crate::harness::spec_schema(json!({
            "type": "object", "properties": {"color": {"type": "string"}},
        }));
        let mut version = schema;
        version["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
        let (_, things) = server.define(version).await;
        for (name, color) in [("r", "red"), ("g", "green")] {
            let body = json!({"metadata": {"name": name}, "spec": {"color": color}});
            server.post(&things, &body).await.expect(201);
        }
        let list = server
            .get(&format!("{things}?fieldSelector=spec.color%3Dred"))
            .await;
        assert_eq!(names(&list.expect(200).body), ["r"]);
    }
}

#[tokio::test]
async fn item_41_label_selectors_have_the_whole_grammar() {
    for server in servers().await {
        let maps = server.core("configmaps");
        for (name, labels) in [
            ("a", json!({"k": "1", "only": "a"})),
            ("b", json!({"k": "2"})),
            ("c", json!({"k": "3", "example.com/x": ""})),
        ] {
            let body = json!({"metadata": {"name": name, "labels": labels}});
            server.post(&maps, &body).await.expect(201);
        }
        for (selector, expected) in [
            ("k=1", &["a"][..]),
            ("k==2", &["b"]),
            ("k,k!=2", &["a", "c"]),
            ("k in (1, 2)", &["a", "b"]),
            ("k,k notin (1,2)", &["c"]),
            ("k,!only", &["b", "c"]),
            ("only", &["a"]),
            ("k in (1,2),!only", &["b"]),
            ("example.com/x=", &["c"]),
        ] {
            let encoded = selector
                .replace('=', "%3D")
                .replace(' ', "+")
                .replace('!', "%21");
            let list = server
                .get(&format!("{maps}?labelSelector={encoded}"))
                .await
                .expect(200);
            assert_eq!(names(&list.body), expected, "{selector}");
        }
        for bad in ["k+in", "k+in+(1", "k+near+(1)", "%3Dv", "k%3D-"] {
            let reply = server.get(&format!("{maps}?labelSelector={bad}")).await;
            assert_eq!(reply.code, 400, "{bad}");
        }
    }
}
