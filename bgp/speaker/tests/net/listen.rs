//! Listening sockets under many peers at once, and by address.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use caracal_bgp_speaker::Error;
use caracal_bgp_speaker::config::ListenConfig;
use caracal_bgp_speaker::net::{Floors, Keychain, Listeners, Transport, raise_file_limit};
use tokio::sync::mpsc;

use crate::support::*;

const PEERS: usize = 2500;

#[test]
fn two_thousand_five_hundred_peers_that_dial_at_once_are_all_accepted() {
    let Some([host]) = hosts("many") else {
        return;
    };
    let limit = raise_file_limit().unwrap();
    if limit < 3 * PEERS as u64 {
        caracal_skip::skip!("{limit} open files are too few");
        return;
    }
    let config = ListenConfig {
        addrs: vec!["127.0.0.1".parse().unwrap()],
        port: PORT,
    };
    host.run(async || {
        let (mut listeners, _) =
            Listeners::bind(&config, &Keychain::default(), &Floors::default()).unwrap();
        let server: IpAddr = "127.0.0.1".parse().unwrap();
        let start = Instant::now();
        let mut dials = tokio::task::JoinSet::new();
        for _ in 0..PEERS {
            dials.spawn(async move { Transport::default().dial(None, at(server)).await.unwrap() });
        }
        // Nobody accepts yet, as if the speaker were busy: the kernel takes all of them.
        let dialled = tokio::time::timeout(DEADLINE, dials.join_all())
            .await
            .unwrap();
        let took = start.elapsed();
        println!("{PEERS} connections in {took:?}");
        let (arrivals, mut incoming) = mpsc::channel(4);
        listeners.serve(&arrivals);
        let (mut accepted, mut batches) = (Vec::new(), 0);
        while accepted.len() < PEERS {
            let batch = tokio::time::timeout(DEADLINE, incoming.recv()).await;
            let mut batch = batch.unwrap().unwrap();
            assert!(batch.len() <= 64);
            batches += 1;
            accepted.append(&mut batch);
        }
        assert!(
            batches < PEERS / 8,
            "{batches} batches for {PEERS} connections"
        );
        drop(dialled);
    });
    // A SYN that was dropped comes again after a second; none was.
    for counter in ["ListenOverflows", "ListenDrops", "TCPReqQFullDrop"] {
        assert_eq!(host.counter(counter), 0, "{counter}");
    }
}

#[test]
fn a_speaker_listens_where_it_is_told_and_nowhere_else() {
    let Some([host]) = hosts("bind") else {
        return;
    };
    add_address(&host, "lo", "10.0.0.1/32");
    add_address(&host, "lo", "10.0.0.2/32");
    let reached = async |address: &str| {
        let dial = Transport::default();
        let dial = dial.dial(None, at(address.parse().unwrap()));
        tokio::time::timeout(DEADLINE, dial).await.unwrap().is_ok()
    };
    let config = |addrs: &[&str]| ListenConfig {
        addrs: addrs
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        port: PORT,
    };
    host.run(async || {
        let (one, _) = Listeners::bind(
            &config(&["10.0.0.1"]),
            &Keychain::default(),
            &Floors::default(),
        )
        .unwrap();
        assert!(reached("10.0.0.1").await);
        assert!(!reached("10.0.0.2").await);
        let taken = Listeners::bind(
            &config(&["10.0.0.1"]),
            &Keychain::default(),
            &Floors::default(),
        );
        assert!(matches!(taken, Err(Error::PortInUse { .. })), "{taken:?}");
        let nobodys = Listeners::bind(
            &config(&["10.0.0.9"]),
            &Keychain::default(),
            &Floors::default(),
        );
        assert!(matches!(nobodys, Err(Error::Listen { .. })), "{nobodys:?}");
        one.close().await;
        let (every, _) =
            Listeners::bind(&config(&[]), &Keychain::default(), &Floors::default()).unwrap();
        let addresses: Vec<String> = every.addresses().map(|a| a.to_string()).collect();
        assert_eq!(addresses, ["0.0.0.0:179", "[::]:179"]);
        for address in ["10.0.0.1", "10.0.0.2", "127.0.0.1", "::1"] {
            assert!(reached(address).await, "{address}");
        }
    });
    host.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    host.run(async || {
        // Let the accepted sockets of the former life go.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (every, _) =
            Listeners::bind(&config(&[]), &Keychain::default(), &Floors::default()).unwrap();
        assert!(every.addresses().any(|address| address.is_ipv4()));
    });
}

#[test]
fn connections_wait_in_the_kernel_while_nobody_takes_them() {
    let Some([host]) = hosts("full") else {
        return;
    };
    let config = ListenConfig {
        addrs: vec!["127.0.0.1".parse().unwrap()],
        port: PORT,
    };
    host.run(async || {
        let (mut listeners, _) =
            Listeners::bind(&config, &Keychain::default(), &Floors::default()).unwrap();
        let (arrivals, mut incoming) = mpsc::channel(1);
        listeners.serve(&arrivals);
        let mut dialled = Vec::new();
        for _ in 0..300 {
            let transport = Transport::default();
            let server = "127.0.0.1".parse().unwrap();
            dialled.push(transport.dial(None, at(server)).await.unwrap());
        }
        // One batch in the channel and one in hand; the rest has not been accepted.
        let mut accepted = 0;
        while accepted < 300 {
            let batch = tokio::time::timeout(DEADLINE, incoming.recv()).await;
            accepted += batch.unwrap().unwrap().len();
        }
        assert_eq!(accepted, 300);
    });
}
