//! Changing the key of connections that are up, while data flows.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caracal_bgp_speaker::net::{Auth, KeyHandle, Rekeyed, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::md5::{keychain, md5_hosts, signed};
use crate::support::*;

fn md5(secret: &str) -> Auth {
    Auth::Md5(Secret::new(secret).unwrap())
}

/// One direction of a connection: numbers are sent without end and must arrive without a gap.
struct Flow {
    arrived: Arc<AtomicU64>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

/// What a number takes.
const WORD: u64 = 8;

/// Lets data flow both ways over the connection.
fn flow(a: TcpStream, b: TcpStream) -> [Flow; 2] {
    let (a_read, a_write) = a.into_split();
    let (b_read, b_write) = b.into_split();
    let direction = |mut write: tokio::net::tcp::OwnedWriteHalf,
                     mut read: tokio::net::tcp::OwnedReadHalf| {
        let arrived = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&arrived);
        let sender = tokio::spawn(async move {
            for number in 0_u64.. {
                if write.write_all(&number.to_be_bytes()).await.is_err() {
                    return;
                }
                // A session speaks now and then; it does not fill the pipe.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let receiver = tokio::spawn(async move {
            for expected in 0_u64.. {
                let mut word = [0; WORD as usize];
                if read.read_exact(&mut word).await.is_err() {
                    return;
                }
                assert_eq!(u64::from_be_bytes(word), expected, "a gap in the stream");
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Flow {
            arrived,
            tasks: [sender, receiver],
        }
    };
    [direction(a_write, b_read), direction(b_write, a_read)]
}

impl Flow {
    fn count(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Neither end has seen an error or a gap.
    fn lives(&self) -> bool {
        self.tasks.iter().all(|task| !task.is_finished())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Waits until every flow has moved on, and says how long that took.
async fn moves(flows: &[Flow]) -> Duration {
    let start = Instant::now();
    let before: Vec<u64> = flows.iter().map(Flow::count).collect();
    let look = async || {
        let counts = flows.iter().zip(&before);
        counts
            .map(|(flow, before)| flow.count() - before)
            .collect::<Vec<_>>()
    };
    until("every flow moves on", look, |moved| {
        moved.iter().all(|words| *words > 20)
    })
    .await;
    start.elapsed()
}

#[test]
fn both_ends_of_two_connections_get_a_new_key_while_data_flows_and_nothing_is_lost() {
    let Some([a, b]) = md5_hosts("rot") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    for (host, v4, v6) in [
        (&a, "10.0.0.1/24", "2001:db8::1/64"),
        (&b, "10.0.0.2/24", "2001:db8::2/64"),
    ] {
        add_address(host, "e1", v4);
        add_address(host, "e1", v6);
    }
    // In the first connection the side that was dialled goes first, in the second the dialler.
    for (server, client, accepted_first) in [
        ("10.0.0.1", "10.0.0.2", true),
        ("2001:db8::1", "2001:db8::2", false),
    ] {
        let mut listening = a.listen(server, &keychain(&[(client, "old")]));
        let remote: IpAddr = server.parse().unwrap();
        let dialled = b.run(async || signed("old").dial(None, at(remote)).await.unwrap());
        let accepted = a.run(async || listening.next().await.unwrap().stream);
        signed("old").adopt(&accepted).unwrap();
        let mut handles = [
            KeyHandle::of(&accepted).unwrap(),
            KeyHandle::of(&dialled).unwrap(),
        ];
        if !accepted_first {
            handles.reverse();
        }
        a.run(async || {
            let flows = flow(accepted, dialled);
            moves(&flows).await;
            // Several times, as a fleet is rolled again and again.
            for (old, new) in [
                ("old", "new"),
                ("new", "newer, and much longer than before"),
            ] {
                let rekeyed = handles[0].rekey(&md5(old), &md5(new)).unwrap();
                assert_eq!(rekeyed, Rekeyed::Done);
                // What each side says is now refused by the other. Segments that were under way
                // may still arrive, then nothing does.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let stopped: Vec<u64> = flows.iter().map(Flow::count).collect();
                tokio::time::sleep(Duration::from_secs(2)).await;
                let still: Vec<u64> = flows.iter().map(Flow::count).collect();
                assert_eq!(stopped, still, "the old key must not be taken any more");
                assert!(flows.iter().all(Flow::lives), "the connection has ended");

                handles[1].rekey(&md5(old), &md5(new)).unwrap();
                let took = moves(&flows).await;
                // The silence of 2 s, and at most as much again until the next repetition.
                assert!(took < Duration::from_secs(5), "{took:?}");
                println!("{server}: flowing again {took:?} after the second change");
            }
            // And with no silence at all, when both change at once.
            let (old, new) = (md5("newer, and much longer than before"), md5("last"));
            for handle in &handles {
                handle.rekey(&old, &new).unwrap();
            }
            let took = moves(&flows).await;
            assert!(took < Duration::from_secs(2), "{took:?}");
            assert!(flows.iter().all(Flow::lives), "the connection has ended");
        });
        for host in [&a, &b] {
            let refused = host.inside(|| caracal_bgp_speaker::net::md5::refused().unwrap());
            assert!(refused.wrong > 0, "{refused:?}");
        }
    }
}

#[test]
fn a_living_connection_gains_a_key_and_loses_it_again() {
    let Some([host]) = md5_hosts("gain") else {
        return;
    };
    for address in ["10.0.0.1/32", "10.0.0.2/32"] {
        add_address(&host, "lo", address);
    }
    let mut listening = host.listen("10.0.0.1", &keychain(&[]));
    host.run(async || {
        let remote: IpAddr = "10.0.0.1".parse().unwrap();
        let unsigned = caracal_bgp_speaker::net::Transport::default();
        let dialled = unsigned
            .dial(Some("10.0.0.2".parse().unwrap()), at(remote))
            .await
            .unwrap();
        let accepted = listening.next().await.unwrap().stream;
        let handles = [
            KeyHandle::of(&accepted).unwrap(),
            KeyHandle::of(&dialled).unwrap(),
        ];
        let flows = flow(accepted, dialled);
        moves(&flows).await;
        let secret = md5("secret");
        for (old, new) in [(&Auth::None, &secret), (&secret, &Auth::None)] {
            for handle in &handles {
                handle.rekey(old, new).unwrap();
            }
            moves(&flows).await;
            assert!(flows.iter().all(Flow::lives), "the connection has ended");
        }
    });
}
