//! The local socket, as programs ask it.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_local_api_answers_line_by_line() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bgp.sock");
    let options = SpeakerOptions {
        bfd: None,
        api_socket: Some(path.clone()),
    };
    let a = Speaker::start(a, None, options).await.unwrap();
    let _b = start(b).await;
    reachable(&a, own(2, Family::Ipv4Unicast)).await;

    let (read, mut write) = tokio::net::UnixStream::connect(&path)
        .await
        .unwrap()
        .into_split();
    let mut lines = BufReader::new(read).lines();
    let mut ask = async |request: &str| {
        write
            .write_all(format!("{request}\n").as_bytes())
            .await
            .unwrap();
        lines.next_line().await.unwrap().unwrap()
    };
    let answer = ask(r#"{"verb":"peers"}"#).await;
    let api::Response::Ok(snapshot) = serde_json::from_str(&answer).unwrap() else {
        panic!("{answer}");
    };
    let snapshot: SpeakerSnapshot = snapshot;
    assert_eq!(snapshot.peers[0].state, SessionState::Established);
    let answer = ask(r#"{"verb":"routes","prefix":"10.2.0.0/16"}"#).await;
    let routes: api::Response<Vec<RouteSnapshot>> = serde_json::from_str(&answer).unwrap();
    assert!(matches!(routes, api::Response::Ok(routes) if routes.len() == 1));
    let answer = ask(r#"{"verb":"explain","prefix":"10.2.0.7"}"#).await;
    let api::Response::Ok(explained) = serde_json::from_str(&answer).unwrap() else {
        panic!("{answer}");
    };
    let explained: Explanation = explained;
    let expected = ["10.2.0.0/26 is the longest prefix that covers 10.2.0.7/32."];
    assert_eq!(explained.sentences, expected);
    assert_eq!(explained.import[0].steps, ["accepted: no rule decides"]);
    let told = &explained.told[0];
    assert_eq!(
        (told.peer.as_str(), told.withheld.as_deref()),
        ("s2", Some("the peer told us"))
    );
    for (request, problem) in [
        (r#"{"verb":"routes","prefix":"x"}"#, "'x' is not a prefix"),
        (r#"{"verb":"fly"}"#, "unknown variant"),
    ] {
        let answer = ask(request).await;
        assert!(
            answer.contains(problem) && answer.contains("error"),
            "{answer}"
        );
    }
    a.shutdown(How::GracefulRestart).await;
    assert!(!path.exists(), "the socket was left behind");
}
