//! Traffic while a link of a group loses its carrier.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caracal_bgp_speaker::{Fib, FibChange, FibEvent, FibNextHop, FibRoute};
use caracal_fib::link::{self, Via};
use caracal_fib::{FibOptions, KernelFib, NamedNetns, PreferredSource};

use common::{Fabric, addr, ip, prepare, rtnl, until};

/// Flows that the hash spreads over both uplinks.
const FLOWS: usize = 16;
/// One packet per flow and tick: 1,000 packets/s.
const TICK: Duration = Duration::from_millis(1);
const TICKS: usize = 600;
/// When the carrier goes, and when it comes back.
const CUT_AT: usize = 200;
const HEAL_AT: usize = 400;
/// Consecutive packets that a flow may miss when the carrier goes: the time in which the kernel acts
/// on the carrier, at 1 ms each.
const MOST_LOST_AT_CUT: usize = 10;

#[test]
fn traffic_survives_the_carrier_loss_of_one_of_two_members() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    prepare(node.netns());
    ip(node, "addr add 10.200.0.1/32 dev lo");
    for (number, router) in (1..).zip(&fabric.routers) {
        ip(router, "addr add 10.99.0.1/32 dev lo");
        way_back(router, number);
    }
    let options = FibOptions {
        preferred_source: PreferredSource {
            v4: Some("10.200.0.1".parse().unwrap()),
            v6: None,
        },
        ..FibOptions::default()
    };
    let (mut fib, _control, mut events) = KernelFib::start(node.netns(), options).unwrap();
    let next_hops = ["10.0.1.2", "10.0.2.2"].map(|address| FibNextHop {
        address: addr(address),
        link_local: None,
        interface: None,
    });
    fib.apply(vec![FibChange {
        prefix: "10.99.0.0/24".parse().unwrap(),
        route: Some(FibRoute {
            next_hops: next_hops.into(),
        }),
        seq: 1,
    }]);
    fib.initial_sync_complete();
    until("installed", || match events.try_recv() {
        Ok(FibEvent::Installed { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let ended = Arc::new(AtomicBool::new(false));
    let echoes: Vec<_> = fabric
        .routers
        .iter()
        .map(|router| {
            let socket = bind(router, "10.99.0.1:7");
            let ended = ended.clone();
            thread::spawn(move || echo(&socket, &ended))
        })
        .collect();
    let sockets: Vec<UdpSocket> = (0..FLOWS)
        .map(|_| {
            let socket = bind(node, "0.0.0.0:0");
            socket.connect("10.99.0.1:7").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    // Faults come from elsewhere: a sender that is busy with them would pause and then hurry.
    let clock = AtomicUsize::new(0);
    let answered = thread::scope(|scope| {
        scope.spawn(|| {
            reach(&clock, CUT_AT);
            fabric.set_carrier(1, false);
            reach(&clock, HEAL_AT);
            fabric.set_carrier(1, true);
            // The router lost its own way back with its link, and runs nothing that restores it.
            way_back(&fabric.routers[0], 1);
        });
        probe(&sockets, &clock)
    });
    ended.store(true, Ordering::Relaxed);
    let served: Vec<u64> = echoes
        .into_iter()
        .map(|echo| echo.join().unwrap())
        .collect();
    println!("packets by router: {served:?}");
    assert!(
        served.iter().all(|&count| count > 0),
        "flows take both uplinks"
    );

    let cut = worst_gap(&answered, 0, HEAL_AT);
    let heal = worst_gap(&answered, HEAL_AT, TICKS);
    println!("worst gap of a flow: {cut} packets (ms) at the cut, {heal} at the return");
    assert!(
        cut <= MOST_LOST_AT_CUT,
        "{cut} packets in a row lost at the cut"
    );
    // A link that is back has to find its neighbour first; the kernel queues meanwhile.
    assert!(
        heal <= MOST_LOST_AT_CUT,
        "{heal} packets in a row lost at the return"
    );
    fib.stop();
}

fn way_back(router: &NamedNetns, uplink: u8) {
    let node = "10.200.0.1/32".parse().unwrap();
    let via = Via::Gateway(addr(&format!("10.0.{uplink}.1")));
    const STATIC: u8 = 4;
    link::set_route(&mut rtnl(router), node, via, STATIC).unwrap();
}

fn bind(netns: &NamedNetns, address: &str) -> UdpSocket {
    let open = || UdpSocket::bind(address).unwrap();
    netns.netns().run(open).unwrap()
}

/// Returns every datagram; how many those were.
fn echo(socket: &UdpSocket, ended: &AtomicBool) -> u64 {
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let (mut buffer, mut count) = ([0; 16], 0);
    while !ended.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            count += 1;
            // A router that has just lost the link cannot answer; that is what is measured.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    count
}

/// Waits until the sender's clock shows `tick`.
fn reach(clock: &AtomicUsize, tick: usize) {
    until("the sender goes on", || {
        match clock.load(Ordering::Relaxed) {
            now if now >= tick => Ok(()),
            now => Err(now.to_string()),
        }
    });
}

/// Sends one numbered packet per flow and tick; per flow, which numbers came back. Never more than
/// one per tick: a sender that was held up does not catch up.
fn probe(sockets: &[UdpSocket], clock: &AtomicUsize) -> Vec<Vec<bool>> {
    let mut answered = vec![vec![false; TICKS]; sockets.len()];
    for tick in 0..TICKS {
        clock.store(tick, Ordering::Relaxed);
        for socket in sockets {
            // Refused sends are lost packets, and are counted as such.
            let _ = socket.send(&(tick as u64).to_ne_bytes());
        }
        collect(sockets, &mut answered);
        thread::sleep(TICK);
    }
    let deadline = Instant::now() + Duration::from_millis(200);
    while Instant::now() < deadline {
        collect(sockets, &mut answered);
        thread::sleep(TICK);
    }
    answered
}

fn collect(sockets: &[UdpSocket], answered: &mut [Vec<bool>]) {
    let mut buffer = [0; 8];
    for (socket, answers) in sockets.iter().zip(answered) {
        loop {
            match socket.recv(&mut buffer) {
                Ok(_) => answers[u64::from_ne_bytes(buffer) as usize] = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error that arrived for an earlier packet.
                Err(_) => {}
            }
        }
    }
}

/// The longest run of lost packets of any flow between two ticks.
fn worst_gap(answered: &[Vec<bool>], from: usize, to: usize) -> usize {
    let longest = |flow: &Vec<bool>| {
        let runs = flow[from..to].split(|answered| *answered);
        runs.map(<[bool]>::len).max().unwrap_or(0)
    };
    answered.iter().map(longest).max().unwrap_or(0)
}
