//! Two connections with one peer (RFC 4271 §6.8), over real TCP.

use bytes::BytesMut;
use caracal_bgp_core::types::NextHop;
use caracal_bgp_core::wire::{
    self, AsPath, Capability, EncodeContext, Message, Open, PathAttributes, Reach, Update,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_dials_end_in_one_session() {
    for _ in 0..5 {
        let lab = Lab::new();
        let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
        lab.add_peer(&mut a, &b);
        lab.add_peer(&mut b, &a);
        let (a, b) = tokio::join!(start(a), start(b));
        let ended = |peer: &PeerSnapshot| {
            !peer.families().is_empty() && peer.families().iter().all(|f| f.end_of_rib_received)
        };
        until("a full session", || peer(&a, 2), ended).await;
        until("a full session", || peer(&b, 1), ended).await;
        reachable(&a, own(2, Family::Ipv4Unicast)).await;
        reachable(&b, own(1, Family::Ipv4Unicast)).await;
        let counts = [peer(&a, 2).await, peer(&b, 1).await].map(|peer| peer.established_count);
        assert_eq!(counts, [1, 1], "sessions each side has seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_on_the_connection_that_would_lose_a_collision_brings_it_up_and_counts() {
    let lab = Lab::new();
    let (peer_side, mut ours) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.add_peer(&mut ours, &peer_side);
    let listener = TcpListener::bind((lab.address(1), lab.port));
    let listener = listener.await.unwrap();
    let ours = start(ours).await;
    // The speaker's own dial would win: its identifier is higher. It gets no OPEN.
    let (mut winner, _) = listener.accept().await.unwrap();
    winner.peek(&mut [0]).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((lab.address(1), 0).into()).unwrap();
    let speaker = SocketAddr::new(lab.address(2), lab.port);
    let mut loser = socket.connect(speaker).await.unwrap();
    let open = Message::Open(Open {
        asn: Asn(65_001),
        hold_time: Duration::from_secs(90),
        router_id: RouterId(1),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::FourOctetAs(Asn(65_001)),
        ],
    });
    let prefix = own(1, Family::Ipv4Unicast);
    let update = Message::Update(Update {
        reach: vec![Reach {
            family: Family::Ipv4Unicast,
            next_hop: NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)),
            nlri: vec![prefix.into()],
        }],
        attributes: Some(PathAttributes {
            as_path: AsPath::new(vec![Asn(65_001)]),
            ..PathAttributes::default()
        }),
        ..Update::default()
    });
    let mut octets = BytesMut::new();
    let context = EncodeContext::default();
    for message in [open, Message::Keepalive, update] {
        wire::encode(&message, context, &mut octets).unwrap();
    }
    loser.write_all(&octets).await.unwrap();
    reachable(&ours, prefix).await;
    assert_eq!(peer(&ours, 1).await.established_count, 1);
    // The speaker has ended its own connection: OPEN, Cease, end.
    let mut rest = Vec::new();
    winner.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest[rest.len() - 2..], [6, 7], "{rest:?}");
}
