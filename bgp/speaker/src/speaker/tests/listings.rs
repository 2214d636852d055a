//! What operators ask of many routes, over the local API as their tool does.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use caracal_bgp_core::policy::{
    Action as RuleAction, Condition, PrefixMatch, PrefixSet, Rule, Verdict,
};

use super::*;
use crate::api::{ClearHow, Request as Asked, Response, RoutesView};

/// More than two pages.
const MANY: u32 = 700;

fn long(index: u32) -> Prefix {
    let [_, _, high, low] = index.to_be_bytes();
    Prefix::v4(Ipv4Addr::new(20, high, low, 0), 24).unwrap()
}

/// One connection to the API of a speaker.
struct Client(BufReader<UnixStream>);

impl Client {
    async fn new(path: &std::path::Path) -> Self {
        Self(BufReader::new(UnixStream::connect(path).await.unwrap()))
    }

    async fn write(&mut self, request: &Asked) {
        let line = serde_json::to_string(request).unwrap() + "\n";
        self.0.get_mut().write_all(line.as_bytes()).await.unwrap();
    }

    async fn read<T: serde::de::DeserializeOwned>(&mut self) -> Response<T> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// All pages of a listing; how many there were.
    async fn list(
        &mut self,
        view: RoutesView,
        peer: Option<&str>,
        prefix: Option<&str>,
    ) -> (Vec<RouteSnapshot>, usize) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (peer, prefix) = (owned(peer), owned(prefix));
        self.write(&Asked::Routes { view, peer, prefix }).await;
        let mut routes = Vec::new();
        for pages in 1.. {
            match self.read::<Vec<RouteSnapshot>>().await {
                Response::Part(page) => routes.extend(page),
                Response::Ok(page) => {
                    routes.extend(page);
                    return (routes, pages);
                }
                Response::Error(why) => panic!("{view:?}: {why}"),
            }
        }
        unreachable!("the last page ends the loop")
    }
}

/// Speaker 1 tells many routes to speaker 2, which refuses all of 20.1.0.0/16 and does not tell
/// its own IPv4 prefix; with the second one's socket.
async fn pair(directory: &std::path::Path) -> (SpeakerHandle, SpeakerHandle, std::path::PathBuf) {
    pair_with(directory, MANY).await
}

async fn pair_with(
    directory: &std::path::Path,
    many: u32,
) -> (SpeakerHandle, SpeakerHandle, std::path::PathBuf) {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    for index in 0..many {
        a.originate.insert(long(index), Origination::default());
    }
    let refuse = |name: &str, prefix: Prefix| {
        let set = PrefixSet::new(vec![PrefixMatch::orlonger(prefix)]);
        let rule = Rule::new(name, vec![Condition::Prefix(set)], RuleAction::Reject);
        Arc::new(Policy::new(vec![rule], Verdict::Accept))
    };
    let to_first = b.peers.get_mut(&name(1)).unwrap();
    to_first.import = refuse("no-lab", "20.1.0.0/16".parse().unwrap());
    to_first.export = refuse("not-mine", own(2, Family::Ipv4Unicast));
    let socket = directory.join("bgp.sock");
    let options = SpeakerOptions {
        bfd: None,
        api_socket: Some(socket.clone()),
    };
    let b = Speaker::start(b, None, options).await.unwrap();
    let a = start(a).await;
    let all = |peer: &PeerSnapshot| {
        let mut families = peer.families().iter();
        families.any(|family| family.received == many as usize + 1)
    };
    until("all routes", || peer(&b, 1), all).await;
    (a, b, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_come_in_pages_by_what_a_peer_told_was_told_and_was_not() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b, socket) = pair(directory.path()).await;
    let mut client = Client::new(&socket).await;

    let (table, pages) = client.list(RoutesView::Table, None, None).await;
    assert!(pages > 2, "{pages} pages");
    assert_eq!(table.len(), MANY as usize + 4);
    assert!(table.is_sorted_by_key(|route| route.prefix));

    let (received, _) = client.list(RoutesView::Received, Some("s1"), None).await;
    assert_eq!(received.len(), MANY as usize + 2);
    let path = &received[0].paths[0];
    assert_eq!(
        (&*path.from, &*path.as_path, path.local_pref),
        ("s1", "65001", None)
    );

    // 20.1.0.0/16 holds those from 256 to 511.
    for peer in [Some("s1"), None] {
        let (rejected, _) = client.list(RoutesView::Rejected, peer, None).await;
        assert_eq!(rejected.len(), 256, "{peer:?}");
        let why = rejected[0].paths[0].rejected.as_deref();
        assert_eq!(why, Some("the import policy rejects it: rule 'no-lab'"));
    }
    let inside = Some("20.1.7.0/24");
    let (rejected, _) = client.list(RoutesView::Rejected, Some("s1"), inside).await;
    assert_eq!(rejected.len(), 1);

    let told = |b: SpeakerHandle| async move { peer(&b, 1).await.families().to_vec() };
    let one = |families: &Vec<crate::snapshot::FamilySnapshot>| {
        families.iter().all(|family| family.end_of_rib_sent)
    };
    until("everything told", || told(b.clone()), one).await;
    let (advertised, _) = client.list(RoutesView::Advertised, Some("s1"), None).await;
    let prefixes: Vec<Prefix> = advertised.iter().map(|route| route.prefix).collect();
    assert_eq!(prefixes, [own(2, Family::Ipv6Unicast)]);
    let path = &advertised[0].paths[0];
    assert_eq!((&*path.from, &*path.as_path), ("local", "65002"));
    assert_eq!(path.next_hop, Some("2001:db8:ffff::2".parse().unwrap()));

    let (withheld, _) = client.list(RoutesView::Withheld, Some("s1"), None).await;
    let why = |prefix| {
        let route = withheld.iter().find(|route| route.prefix == prefix);
        route.and_then(|route| route.paths[0].rejected.as_deref())
    };
    assert_eq!(
        why(own(2, Family::Ipv4Unicast)),
        Some("the export policy rejects it: rule 'not-mine'")
    );
    assert_eq!(why(long(0)), Some("the peer told us"));
    assert_eq!(why(long(256)), None, "nobody may be told");

    client.write(&Asked::Peer { peer: "s1".into() }).await;
    let Response::Ok(detail) = client.read::<crate::snapshot::PeerDetail>().await else {
        panic!("no detail");
    };
    let [rejected] = &detail.rejected[..] else {
        panic!("{:?}", detail.rejected);
    };
    assert_eq!(
        (&*rejected.reason, rejected.rule.as_deref(), rejected.count),
        ("policy", Some("no-lab"), 256)
    );
    let first: Vec<Prefix> = (256..264).map(long).collect();
    assert_eq!(rejected.examples, first);
    let all = b.rejected().await.unwrap();
    assert_eq!(all, [(name(1), rejected.clone())]);
    assert_eq!(a.rejected().await.unwrap(), [], "nothing is rejected there");
    for speaker in [a, b] {
        speaker.shutdown(How::GracefulRestart).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_a_listing_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    // Far more than a socket holds of what nobody reads.
    let (_a, b, socket) = pair_with(directory.path(), 10 * MANY).await;
    let routes = Asked::Routes {
        view: RoutesView::Table,
        peer: None,
        prefix: None,
    };
    // More than may be listed at a time.
    let mut lazy = Vec::new();
    for _ in 0..6 {
        let mut client = Client::new(&socket).await;
        client.write(&routes).await;
        lazy.push(client);
    }
    let _dump = b.dump(Dump::Table).await.unwrap();
    let mut last = Client::new(&socket).await;
    last.write(&routes).await;
    let mut client = Client::new(&socket).await;
    let mut ask = async |request| {
        client.write(&request).await;
        let answer = client.read::<serde_json::Value>();
        let answer = tokio::time::timeout(DEADLINE, answer).await;
        let answer =
            answer.unwrap_or_else(|_| panic!("{request:?} waits for those who do not read"));
        assert!(matches!(answer, Response::Ok(_)), "{request:?}");
    };
    let peer = || name(1).0;
    let prefix = long(0).to_string();
    ask(Asked::Peers).await;
    ask(Asked::Peer { peer: peer() }).await;
    ask(Asked::Explain { prefix }).await;
    ask(Asked::History { peer: peer() }).await;
    let rejected = tokio::time::timeout(DEADLINE, b.rejected()).await;
    assert_eq!(rejected.unwrap().unwrap().len(), 1);
    // All that while the listings were stuck indeed: the last of them has to wait.
    let page = tokio::time::timeout(Duration::from_millis(300), last.read::<serde_json::Value>());
    assert!(page.await.is_err(), "there was room for another listing");
    let end = b.shutdown(How::GracefulRestart);
    assert!(
        tokio::time::timeout(DEADLINE, end).await.is_ok(),
        "the end waits for those who do not read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_busy_rib_does_not_say_is_not_shown_as_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_a, b, _) = pair(directory.path()).await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    // Ends when `release` goes, at the latest with the test.
    let hold = move |_: &caracal_bgp_core::rib::Rib| {
        let _ = held.recv();
    };
    b.with_rib(hold).await;
    let snapshot = b.snapshot().await.unwrap();
    assert_eq!(snapshot.peers[0].state, SessionState::Established);
    assert_eq!(snapshot.peers[0].routes, None);
    assert!(snapshot.rib.is_none() && snapshot.peers[0].families().is_empty());
    drop(release);
    let known = |peer: &PeerSnapshot| peer.routes.is_some();
    until("figures again", || peer(&b, 1), known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_clears_by_the_api_and_is_told_of_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let (_a, b, socket) = pair(directory.path()).await;
    let mut client = Client::new(&socket).await;
    let clear = |peer: Option<&str>, how, message: &str| Asked::Clear {
        peer: peer.map(str::to_owned),
        how,
        message: message.to_owned(),
    };
    for request in [
        clear(Some("s1"), ClearHow::In, ""),
        clear(None, ClearHow::Out, ""),
        clear(Some("s1"), ClearHow::Hard, "new optics"),
    ] {
        client.write(&request).await;
        assert_eq!(client.read::<usize>().await, Response::Ok(1), "{request:?}");
    }
    let anew = |peer: &PeerSnapshot| peer.established_count == 2;
    let seen = until("a second session", || peer(&b, 1), anew).await;
    assert!(seen.last_sent_error.unwrap().text.contains("new optics"));
    let history = b.history(name(1)).await.unwrap().unwrap();
    let asked = history
        .messages
        .iter()
        .filter(|message| message.direction == Direction::Sent)
        .filter(|message| message.text.starts_with("Request of"));
    assert_eq!(asked.count(), 2, "one per family: {:#?}", history.messages);

    let routes = |view, peer: Option<&str>| Asked::Routes {
        view,
        peer: peer.map(str::to_owned),
        prefix: None,
    };
    for (request, why) in [
        (
            clear(Some("x"), ClearHow::In, ""),
            "no peer is called \"x\"",
        ),
        (
            clear(Some("s1"), ClearHow::Hard, &"x".repeat(256)),
            "the message has more than 255 octets",
        ),
        (routes(RoutesView::Received, None), "this view needs a peer"),
        (
            routes(RoutesView::Withheld, Some("x")),
            "no peer is called \"x\"",
        ),
        (
            routes(RoutesView::Table, Some("s1")),
            "this view is of no peer",
        ),
    ] {
        client.write(&request).await;
        let answer = client.read::<serde_json::Value>().await;
        assert_eq!(answer, Response::Error(why.to_owned()), "{request:?}");
    }
}
