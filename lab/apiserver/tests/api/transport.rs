//! A. Transport and discovery.

use serde_json::Value;

use crate::harness::{Server, servers};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[tokio::test]
async fn item_01_answers_http1_and_http2_on_one_port() {
    let server = Server::embedded().await;
    server.get("/version").await.expect(200);
    let url = server.embedded.as_ref().expect("embedded").url();
    let address = url.trim_start_matches("http://").to_owned();
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("connect");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .expect("HTTP/2 handshake");
    tokio::spawn(connection);
    let request = http::Request::get(format!("{url}/version"))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .expect("a valid request");
    let response = sender
        .send_request(request)
        .await
        .expect("an answer over HTTP/2");
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn item_02_tells_its_version_and_health() {
    for server in servers().await {
        let version = server.get("/version").await.expect(200).body;
        assert_eq!(version["major"], "1");
        assert!(
            version["gitVersion"]
                .as_str()
                .is_some_and(|text| text.starts_with("v1."))
        );
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(server.get(path).await.expect(200).text, "ok");
        }
    }
}

#[tokio::test]
async fn item_03_lists_groups_versions_and_resources() {
    for server in servers().await {
        let versions = server.get("/api").await.expect(200).body;
        assert_eq!(versions["kind"], "APIVersions");
        assert_eq!(versions["versions"][0], "v1");
        let groups = server.get("/apis").await.expect(200).body;
        assert_eq!(groups["kind"], "APIGroupList");
        let group = server.get("/apis/networking.k8s.io").await.expect(200).body;
        assert_eq!(group["kind"], "APIGroup");
        assert_eq!(
            group["preferredVersion"]["groupVersion"],
            "networking.k8s.io/v1"
        );
        let list = server.get("/api/v1").await.expect(200).body;
        assert_eq!(list["kind"], "APIResourceList");
        let find = |name: &str| -> Value {
            let resources = list["resources"].as_array().expect("a list of resources");
            resources
                .iter()
                .find(|entry| entry["name"] == name)
                .cloned()
                .unwrap_or_default()
        };
        let pods = find("pods");
        assert_eq!(
            (&pods["kind"], &pods["singularName"]),
            (&"Pod".into(), &"pod".into())
        );
        assert_eq!(pods["shortNames"][0], "po");
        assert_eq!(pods["categories"][0], "all");
        assert_eq!(pods["namespaced"], true);
        assert!(
            pods["verbs"]
                .as_array()
                .is_some_and(|verbs| verbs.contains(&"watch".into()))
        );
        assert_eq!(find("nodes")["namespaced"], false);
        assert_eq!(find("pods/status")["kind"], "Pod");
        server.get("/apis/nothing.example.com/v1").await.expect(404);
    }
}

#[tokio::test]
async fn item_04_aggregates_discovery_in_both_versions() {
    for server in servers().await {
        for path in ["/api", "/apis"] {
            let reply = server
                .get_as(path, &format!("{AGGREGATED},application/json"))
                .await;
            let reply = reply.expect(200);
            assert_eq!(reply.header("content-type"), AGGREGATED);
            assert_eq!(reply.body["kind"], "APIGroupDiscoveryList");
            assert_eq!(reply.body["apiVersion"], "apidiscovery.k8s.io/v2");
            let resources = &reply.body["items"][0]["versions"][0]["resources"];
            assert!(
                resources.as_array().is_some_and(|list| !list.is_empty()),
                "{}",
                reply.text
            );
        }
        let core = server.get_as("/api", AGGREGATED).await.expect(200).body;
        let resources = core["items"][0]["versions"][0]["resources"].clone();
        let resources = resources.as_array().expect("a list of resources");
        let pods = resources
            .iter()
            .find(|entry| entry["resource"] == "pods")
            .expect("pods");
        assert_eq!(pods["scope"], "Namespaced");
        assert_eq!(pods["responseKind"]["kind"], "Pod");
        let below = pods["subresources"].as_array().expect("subresources");
        assert!(below.iter().any(|entry| entry["subresource"] == "status"));
    }
    let embedded = Server::embedded().await;
    let older = AGGREGATED.replace("v=v2", "v=v2beta1");
    let reply = embedded.get_as("/apis", &older).await.expect(200);
    assert_eq!(reply.header("content-type"), older);
    assert_eq!(reply.body["apiVersion"], "apidiscovery.k8s.io/v2beta1");
}

#[tokio::test]
async fn item_05_publishes_openapi_v3_for_builtins_and_custom_resources() {
    for server in servers().await {
        let (group, _) = server.define(Value::Null).await;
        let index = server.get("/openapi/v3").await.expect(200).body;
        let url = index["paths"]["api/v1"]["serverRelativeURL"]
            .as_str()
            .expect("a URL");
        let core = server.get(url).await.expect(200).body;
        let schemas = &core["components"]["schemas"];
        let pod = &schemas["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-map-keys"][0], "name");
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        let path = format!("/openapi/v3/apis/{group}/v1");
        let custom = server
            .until(&path, "published", |reply| reply.code == 200)
            .await
            .body;
        let reversed: Vec<&str> = group.rsplit('.').collect();
        let name = format!("{}.v1.Thing", reversed.join("."));
        assert_eq!(custom["components"]["schemas"][&name]["type"], "object");
    }
}

#[tokio::test]
async fn item_06_refuses_what_it_does_not_serve() {
    for server in servers().await {
        server.get("/nowhere").await.expect(404);
        server.get("/api/v1/nowhere").await.refused(404, "NotFound");
        let pods = server.core("pods");
        server
            .send("PUT", &pods, &[], "{}")
            .await
            .refused(405, "MethodNotAllowed");
        server
            .get_as(&pods, "application/x-nothing")
            .await
            .refused(406, "NotAcceptable");
        let headers = [("content-type", "application/x-nothing")];
        let reply = server.send("POST", &pods, &headers, "{}").await;
        reply.refused(415, "UnsupportedMediaType");
        // Clients that prefer a form that is not there, and take JSON too, get JSON.
        let accept = "application/x-nothing, application/json";
        let reply = server.get_as(&pods, accept).await.expect(200);
        assert_eq!(reply.header("content-type"), "application/json");
    }
}
