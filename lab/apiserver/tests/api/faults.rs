//! Faults that the embedded server shows on demand.

use std::time::{Duration, Instant};

use caracal_apiserver::{ApiServer, Fault, Options, Target};
use serde_json::json;

use crate::harness::Server;

async fn faulty() -> (Server, caracal_apiserver::Faults) {
    let server = Server::embedded().await;
    let faults = server.embedded.as_ref().expect("embedded").faults();
    (server, faults)
}

#[tokio::test]
async fn a_partitioned_client_gets_no_answer_and_loses_its_watches() {
    let (server, faults) = faulty().await;
    let maps = server.core("configmaps");
    let request = || {
        http::Request::get(maps.as_str())
            .header("user-agent", "cut-off/1")
            .body(kube::client::Body::empty())
            .expect("a valid request")
    };
    assert!(server.client.send(request()).await.is_ok());
    let headers = [("user-agent", "cut-off/1")];
    let path = format!("{maps}?watch=true");
    let running = server.open("GET", &path, &headers, "").await;
    let fault = faults.inject(Target::client("cut-off"), Fault::Partition);
    assert!(server.client.send(request()).await.is_err());
    server.get(&maps).await.expect(200);
    let end = http_body_util::BodyExt::collect(running.into_body());
    let end = tokio::time::timeout(Duration::from_secs(5), end)
        .await
        .expect("the watch ends");
    assert!(end.is_err(), "a clean end instead of a broken connection");
    faults.lift(fault);
    assert!(server.client.send(request()).await.is_ok());
}

#[tokio::test]
async fn answers_are_delayed_refused_or_time_out_after_the_write() {
    let (server, faults) = faulty().await;
    let maps = server.core("configmaps");
    let time = Duration::from_millis(200);
    faults.inject_times(
        Target::resource("configmaps").verb("list"),
        Fault::Delay(time),
        1,
    );
    let started = Instant::now();
    server.get(&maps).await.expect(200);
    assert!(started.elapsed() >= time);

    faults.inject_times(Target::resource("configmaps"), Fault::TooManyRequests(7), 1);
    let refused = server.get(&maps).await.refused(429, "TooManyRequests");
    assert_eq!(refused.header("retry-after"), "7");

    faults.inject_times(Target::resource("configmaps"), Fault::Forbidden, 1);
    server.get(&maps).await.refused(403, "Forbidden");

    faults.inject_times(
        Target::default().verb("create"),
        Fault::TimeoutAfterWrite,
        1,
    );
    let body = json!({"metadata": {"name": "c"}});
    server.post(&maps, &body).await.refused(504, "Timeout");
    server.get(&format!("{maps}/c")).await.expect(200);
}

#[tokio::test]
async fn watches_expire_by_status_or_in_band_and_stall() {
    let (server, faults) = faulty().await;
    let maps = server.core("configmaps");
    let watches = || Target::resource("configmaps").verb("watch");
    faults.inject_times(watches(), Fault::Gone, 1);
    server
        .get(&format!("{maps}?watch=true"))
        .await
        .refused(410, "Expired");

    let mut watch = server.watch(&maps, "resourceVersion=1").await;
    let fault = faults.inject(watches(), Fault::GoneInBand);
    let mut last = watch.next().await.expect("an event");
    while last["type"] != "ERROR" {
        last = watch.next().await.expect("an error before the end");
    }
    assert_eq!(last["object"]["code"], 410);
    assert_eq!(watch.next().await, None);
    faults.lift(fault);

    let mut watch = server.watch(&maps, "resourceVersion=0").await;
    let fault = faults.inject(watches(), Fault::Stall);
    server.config_map("unseen", &json!({})).await;
    assert!(watch.is_silent().await);
    faults.lift(fault);
    watch.expect("ADDED", "unseen").await;
}

#[tokio::test]
async fn listeners_made_by_the_caller_are_served_and_shutdown_frees_them() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let listen = vec![caracal_apiserver::Listen::Listener(listener)];
    let server = ApiServer::start(Options {
        listen,
        ..Options::default()
    })
    .await
    .expect("start");
    assert_eq!(server.addresses(), [address]);
    let server = Server::over(server).await;
    let _watch = server.watch(&server.core("configmaps"), "").await;
    let embedded = server.embedded.expect("embedded");
    tokio::time::timeout(Duration::from_secs(5), embedded.shutdown())
        .await
        .expect("an end");
    std::net::TcpListener::bind(address).expect("the port is free again");
}
