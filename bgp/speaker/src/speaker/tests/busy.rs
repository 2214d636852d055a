//! A RIB that is busy for longer than hold times.

use super::*;

const HOLD: Duration = Duration::from_secs(3);
const BUSY: Duration = Duration::from_secs(8);
/// More than may wait for the RIB, so that reading from the peer stops.
const FLOOD: u16 = 20_000;

/// Two speakers with a session of a short hold time; the second dials the first.
async fn pair() -> (SpeakerHandle, SpeakerHandle, SpeakerConfig) {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    for config in [&mut a, &mut b] {
        for peer in config.peers.values_mut() {
            peer.hold_time = HOLD;
        }
    }
    let teller = b.clone();
    let (a, b) = (start(a).await, start(b).await);
    established(&a, 2).await;
    // One end is up a message before the other.
    established(&b, 1).await;
    (a, b, teller)
}

/// Has the RIB of `handle` do nothing for a while; returns when that has begun.
async fn keep_busy(handle: &SpeakerHandle) {
    let busy = Arc::new(std::sync::Barrier::new(2));
    let held = Arc::clone(&busy);
    handle
        .with_rib(move |_| {
            held.wait();
            thread::sleep(BUSY);
        })
        .await;
    tokio::task::spawn_blocking(move || busy.wait())
        .await
        .unwrap();
}

/// Watches the one session, as both ends see it, for as long as the RIB is busy.
async fn stays_up(a: &SpeakerHandle, b: &SpeakerHandle) {
    let began = Instant::now();
    while began.elapsed() < BUSY - Duration::from_secs(1) {
        let seen = peer(b, 1).await;
        assert_eq!(
            (seen.state, seen.established_count),
            (SessionState::Established, 1),
            "{seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(peer(a, 2).await.established_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_it() {
    let (a, b, _) = pair().await;
    keep_busy(&a).await;
    stays_up(&a, &b).await;
}

// Its KEEPALIVEs lie behind UPDATEs that nobody reads.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_it_while_the_peer_tells_more_than_may_wait() {
    let (a, b, mut teller) = pair().await;
    keep_busy(&a).await;
    let prefix = |number: u16| {
        Prefix::v4(
            Ipv4Addr::from_bits(0x6400_0000 + (u32::from(number) << 6)),
            26,
        )
    };
    for number in 0..FLOOD {
        // Its own MED makes each an UPDATE of its own.
        let told = Origination {
            med: Some(number.into()),
            ..Origination::default()
        };
        teller.originate.insert(prefix(number).unwrap(), told);
    }
    b.apply(teller).await.unwrap();
    stays_up(&a, &b).await;
    reachable(&a, prefix(FLOOD - 1).unwrap()).await;
    assert_eq!(peer(&b, 1).await.established_count, 1);
}
