use caracal_apiserver::{ApiServer, Fault, Options, Target};
use caracal_crds::BlockPhase;
use kube::ResourceExt;
use kube::api::DeleteParams;

use super::*;

const BLOCK: &str = "pods-3";

/// How long something may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    server: ApiServer,
    client: Client,
}

impl Server {
    /// A server that knows the CRDs.
    async fn start() -> Server {
        let options = Options {
            listen: Vec::new(),
            ..Options::default()
        };
        let server = ApiServer::start(options).await.unwrap();
        let client = Client::new(server.service(), "default");
        let definitions = Api::all(client.clone());
        for definition in caracal_crds::all() {
            definitions
                .create(&PostParams::default(), &definition)
                .await
                .unwrap();
        }
        let server = Server { server, client };
        let blocks = server.blocks();
        until("blocks are served", async || {
            blocks.list(&Default::default()).await.is_ok()
        })
        .await;
        server
    }

    fn blocks(&self) -> Api<IpBlock> {
        Api::all(self.client.clone())
    }

    async fn grant(&self) -> IpBlock {
        let block = serde_json::from_value(json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "IPBlock", "metadata": {"name": BLOCK},
            "spec": {"pool": "pods", "index": 3, "nodeName": "n1", "nodeUID": "u1", "epoch": 7,
                "ipv4": "10.0.0.12/30"},
        }))
        .unwrap();
        let parameters = PostParams::default();
        self.blocks().create(&parameters, &block).await.unwrap()
    }

    async fn phase(&self) -> BlockPhase {
        self.blocks().get(BLOCK).await.unwrap().phase()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn wish(block: &IpBlock, phase: BlockPhase) -> Wanted {
    let write = BlockWrite {
        uid: block.uid().unwrap(),
        resource_version: block.resource_version().unwrap(),
        status: IpBlockStatus {
            phase,
            observed_node_uid: Some("u1".into()),
            ..IpBlockStatus::default()
        },
    };
    Wanted {
        blocks: [(BLOCK.to_owned(), write)].into(),
        ..Wanted::default()
    }
}

#[tokio::test]
async fn a_late_release_does_not_hit_the_next_grant_of_the_name() {
    let server = Server::start().await;
    let first = server.grant().await;
    let fault = server.server.faults().inject(
        Target::resource("ipblocks").verb("patch"),
        Fault::TooManyRequests(0),
    );
    let mut publisher = Publisher {
        client: server.client.clone(),
        written: Wanted::default(),
        counts: Arc::default(),
    };
    let stale = wish(&first, BlockPhase::Released);
    assert!(!publisher.converge(&stale).await, "the server is busy");

    let parameters = DeleteParams::default();
    server.blocks().delete(BLOCK, &parameters).await.unwrap();
    assert!(!publisher.converge(&stale).await, "still busy");
    let second = server.grant().await;
    assert_ne!(first.uid(), second.uid());
    server.server.faults().lift(fault);

    assert!(publisher.converge(&stale).await, "refused for good");
    assert_eq!(server.phase().await, BlockPhase::Offered);
    let before = server.server.revision();
    assert!(publisher.converge(&stale).await, "not tried again");
    assert_eq!(server.server.revision(), before);

    // What is judged from the new object is written.
    let fresh = wish(&second, BlockPhase::Active);
    assert!(publisher.converge(&fresh).await);
    assert_eq!(server.phase().await, BlockPhase::Active);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_and_a_newer_one_end_in_the_newer() {
    let server = Server::start().await;
    let offered = server.grant().await;
    server.server.faults().inject_times(
        Target::resource("ipblocks").verb("patch"),
        Fault::TimeoutAfterWrite,
        1,
    );
    let mut publisher = Publisher {
        client: server.client.clone(),
        written: Wanted::default(),
        counts: Arc::default(),
    };
    assert!(
        !publisher
            .converge(&wish(&offered, BlockPhase::Active))
            .await
    );
    assert_eq!(server.phase().await, BlockPhase::Active);
    // Judged before the watch told of Active: it waits for the object that does.
    let blind = wish(&offered, BlockPhase::Released);
    assert!(publisher.converge(&blind).await);
    assert_eq!(server.phase().await, BlockPhase::Active);
    let newest = server.blocks().get(BLOCK).await.unwrap();
    assert!(
        publisher
            .converge(&wish(&newest, BlockPhase::Released))
            .await
    );
    assert_eq!(server.phase().await, BlockPhase::Released);
    // The first write, were it still on its way, would find another version.
    assert!(
        publisher
            .converge(&wish(&offered, BlockPhase::Active))
            .await
    );
    assert_eq!(server.phase().await, BlockPhase::Released);
}
