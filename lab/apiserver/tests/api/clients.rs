//! kube-rs clients: typed access, watchers, reflectors and server-side apply.

use std::time::Duration;

use caracal_apiserver::{ApiServer, Fault, Options, Target};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};

use crate::harness::PATIENCE;

type Events = BoxStream<'static, Result<watcher::Event<ConfigMap>, watcher::Error>>;

fn map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    };
    ConfigMap {
        metadata,
        ..ConfigMap::default()
    }
}

/// An embedded server used in process, without any socket.
async fn in_process() -> (ApiServer, Api<ConfigMap>) {
    let server = ApiServer::start(Options::default())
        .await
        .expect("start without listener");
    let client = kube::Client::new(server.service(), "default");
    (server, Api::default_namespaced(client))
}

async fn next(events: &mut Events) -> Result<watcher::Event<ConfigMap>, watcher::Error> {
    let event = tokio::time::timeout(PATIENCE, events.next()).await;
    event
        .expect("an event in time")
        .expect("the stream goes on")
}

/// Reads until an object of this name was seen.
async fn until_seen(events: &mut Events, name: &str) {
    let mut seen = Vec::new();
    loop {
        let event = next(events).await;
        if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = &event
            && object.metadata.name.as_deref() == Some(name)
        {
            return;
        }
        seen.push(format!("{event:?}"));
        assert!(seen.len() < 100, "{name} not among {seen:?}");
    }
}

#[tokio::test]
async fn watchers_with_and_without_streaming_lists_see_all_changes() {
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let (_server, api) = in_process().await;
        api.create(&PostParams::default(), &map("before"))
            .await
            .expect("create");
        let mut events: Events = watcher(api.clone(), config).boxed();
        assert!(matches!(next(&mut events).await, Ok(watcher::Event::Init)));
        until_seen(&mut events, "before").await;
        assert!(matches!(
            next(&mut events).await,
            Ok(watcher::Event::InitDone)
        ));
        api.create(&PostParams::default(), &map("after"))
            .await
            .expect("create");
        until_seen(&mut events, "after").await;
        api.delete("after", &kube::api::DeleteParams::default())
            .await
            .expect("delete");
        assert!(matches!(
            next(&mut events).await,
            Ok(watcher::Event::Delete(_))
        ));
    }
}

#[tokio::test]
async fn reflectors_recover_from_expired_watches_by_listing_again() {
    for fault in [Fault::GoneInBand, Fault::Gone] {
        let (server, api) = in_process().await;
        let (reader, writer) = reflector::store();
        let stream = watcher(api.clone(), watcher::Config::default()).default_backoff();
        let reflect = reflector(writer, stream).for_each(|_| std::future::ready(()));
        let running = tokio::spawn(reflect);
        tokio::time::timeout(PATIENCE, reader.wait_until_ready())
            .await
            .expect("ready in time")
            .expect("the writer lives");
        server
            .faults()
            .inject_times(Target::resource("configmaps").verb("watch"), fault, 1);
        server.compact();
        api.create(&PostParams::default(), &map("after"))
            .await
            .expect("create");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while reader.state().is_empty() {
            let late = tokio::time::Instant::now() > deadline;
            assert!(
                !late,
                "the object made after the expiry is not in the store"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running.abort();
    }
}

#[tokio::test]
async fn server_side_apply_through_the_typed_client() {
    let (_server, api) = in_process().await;
    let mut wanted = map("c");
    wanted.data = Some([("a".to_owned(), "1".to_owned())].into());
    let mine = PatchParams::apply("mine");
    let made = api
        .patch("c", &mine, &Patch::Apply(&wanted))
        .await
        .expect("apply");
    let again = api
        .patch("c", &mine, &Patch::Apply(&wanted))
        .await
        .expect("apply again");
    assert_eq!(
        made.metadata.resource_version,
        again.metadata.resource_version
    );
    wanted.data = Some([("a".to_owned(), "2".to_owned())].into());
    let theirs = PatchParams::apply("theirs");
    let refused = api.patch("c", &theirs, &Patch::Apply(&wanted)).await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409),
        "{refused:?}"
    );
    let forced = api
        .patch("c", &theirs.force(), &Patch::Apply(&wanted))
        .await
        .expect("by force");
    assert_eq!(forced.data, wanted.data);
}
