//! GTSM (RFC 5082) from the first segment of a connection: the filter of listening sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::Error;
use caracal_bgp_speaker::net::{Auth, Floors, Hops, Keychain, Remote, Secret, Transport};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const SERVERS: [&str; 2] = ["10.0.0.1", "2001:db8::1"];

fn floors(peers: &[(&str, Hops)]) -> Floors {
    let remote = |prefix: &str| Remote::Prefix(prefix.parse().unwrap());
    Floors::new(peers.iter().map(|(prefix, hops)| (remote(prefix), *hops)))
}

/// Peers on the link alone.
fn secured(prefixes: &[&str]) -> Floors {
    let peers = prefixes.iter().map(|prefix| (*prefix, Hops::security(1)));
    floors(&peers.collect::<Vec<_>>())
}

/// A host with an address for the speaker, and for peers those that end in 2 to 7.
fn host(tag: &str) -> Option<Host> {
    let [host] = hosts(tag)?;
    for number in 1..=7 {
        add_address(&host, "lo", &format!("10.0.0.{number}/32"));
        add_address(&host, "lo", &format!("2001:db8::{number}/128"));
    }
    Some(host)
}

/// A peer's address of the family of `server`.
fn peer(server: &str, number: u8) -> IpAddr {
    let network = server.strip_suffix('1').unwrap();
    format!("{network}{number}").parse().unwrap()
}

/// A connection of `from` whose segments have `ttl`, if one comes about soon.
async fn dial(from: IpAddr, ttl: u8, server: &str) -> Option<TcpStream> {
    let transport = Transport {
        hops: Hops::Limit(NonZeroU8::new(ttl).unwrap()),
        auth: Auth::None,
    };
    let dial = transport.dial(Some(from), at(server.parse().unwrap()));
    tokio::time::timeout(NEVER, dial).await.ok()?.ok()
}

fn set_ttl(socket: &SockRef<'_>, ttl: u32, server: &str) {
    if server.contains(':') {
        socket.set_unicast_hops_v6(ttl).unwrap();
    } else {
        socket.set_ttl_v4(ttl).unwrap();
    }
}

/// Whether a filter was on `stream`; none is then.
fn had_filter(stream: &TcpStream) -> bool {
    match SockRef::from(stream).detach_filter() {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            false
        }
    }
}

#[test]
fn a_peer_that_dials_from_beyond_its_hops_does_not_get_a_handshake() {
    let Some(host) = host("syn") else {
        return;
    };
    let floors = floors(&[
        ("10.0.0.2", Hops::security(1)),
        ("2001:db8::2", Hops::security(1)),
        ("10.0.0.3", Hops::System),
        ("2001:db8::3", Hops::System),
        // 4 and 5 are a range, and 5 is a peer of its own.
        ("10.0.0.4/31", Hops::security(10)),
        ("2001:db8::4/127", Hops::security(10)),
        ("10.0.0.5", Hops::System),
        ("2001:db8::5", Hops::System),
    ]);
    for server in SERVERS {
        let mut listening = host.listen_guarded(server, &Keychain::default(), &floors);
        host.run(async || {
            for (number, ttl, heard) in [
                (2, 255, true),
                (2, 254, false),
                (2, 64, false),
                (3, 64, true),
                (3, 1, true),
                (4, 246, true),
                (4, 245, false),
                (5, 64, true),
                // A stranger is refused aloud, not by silence.
                (6, 64, true),
            ] {
                let dialled = dial(peer(server, number), ttl, server).await;
                assert_eq!(dialled.is_some(), heard, "{server}: {number}, TTL {ttl}");
                if heard {
                    let incoming = listening.next().await.unwrap();
                    assert_eq!(incoming.source.address, peer(server, number));
                }
            }
            assert!(listening.incoming.try_recv().is_err(), "one too many");
        });
    }
}

#[test]
fn a_handshake_is_not_ended_from_beyond_the_hops() {
    let Some(host) = host("ack") else {
        return;
    };
    for server in SERVERS {
        let floors = secured(&["10.0.0.2", "2001:db8::2"]);
        let mut listening = host.listen_guarded(server, &Keychain::default(), &floors);
        host.run(async || {
            let remote = at(server.parse().unwrap());
            let socket = Socket::new(Domain::for_address(remote), Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let from = SocketAddr::new(peer(server, 2), 0);
            socket.bind(&from.into()).unwrap();
            set_ttl(&SockRef::from(&socket), 255, server);
            // It hears the answer to its SYN only when that is sent again; it answers with another TTL then.
            let nothing = SockFilter::new(u16::try_from(libc::BPF_RET).unwrap(), 0, 0, 0);
            socket.attach_filter(&[nothing]).unwrap();
            let connecting = socket.connect(&remote.into()).unwrap_err();
            assert_eq!(connecting.raw_os_error(), Some(libc::EINPROGRESS));
            set_ttl(&SockRef::from(&socket), 64, server);
            socket.detach_filter().unwrap();
            let mut dialled = TcpStream::from_std(socket.into()).unwrap();
            let up = tokio::time::timeout(DEADLINE, dialled.writable()).await;
            up.unwrap().unwrap();
            assert!(dialled.peer_addr().is_ok(), "{server}: up for the peer");
            assert!(listening.next().await.is_none(), "{server}: up for us");
            set_ttl(&SockRef::from(&dialled), 255, server);
            dialled.write_all(b"word").await.unwrap();
            let accepted = tokio::time::timeout(DEADLINE, listening.incoming.recv()).await;
            assert_eq!(accepted.unwrap().unwrap().len(), 1, "{server}");
        });
    }
}

#[test]
fn what_comes_from_afar_between_accept_and_adoption_is_not_delivered_and_nothing_is_checked_twice()
{
    let Some(host) = host("wait") else {
        return;
    };
    for server in SERVERS {
        let floors = secured(&["10.0.0.2", "2001:db8::2"]);
        let mut listening = host.listen_guarded(server, &Keychain::default(), &floors);
        host.run(async || {
            let mut dialled = dial(peer(server, 2), 255, server).await.unwrap();
            let mut incoming = listening.next().await.unwrap();
            set_ttl(&SockRef::from(&dialled), 64, server);
            let heard = carries(&mut dialled, &mut incoming.stream).await;
            assert!(!heard, "{server}: before adoption");
            // It is sent again until it is heard.
            set_ttl(&SockRef::from(&dialled), 255, server);
            let mut word = [0; 4];
            let read = incoming.stream.read_exact(&mut word);
            tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
            assert_eq!(&word, b"word", "{server}");

            let within = Transport {
                hops: Hops::security(1),
                auth: Auth::None,
            };
            within.adopt(&incoming.stream).unwrap();
            assert!(!had_filter(&incoming.stream), "{server}: after adoption");
            assert!(carries(&mut dialled, &mut incoming.stream).await);
            let drops = host.counter("TCPMinTTLDrop");
            set_ttl(&SockRef::from(&dialled), 64, server);
            let heard = carries(&mut dialled, &mut incoming.stream).await;
            assert!(!heard, "{server}: after adoption");
            assert!(host.counter("TCPMinTTLDrop") > drops, "{server}");
        });
    }
}

#[test]
fn floors_of_a_listener_change_while_it_listens_and_the_last_takes_the_filter_with_it() {
    let Some(host) = host("live") else {
        return;
    };
    for server in SERVERS {
        let mut listening = host.listen(server, &Keychain::default());
        host.run(async || {
            const BOTH: [&str; 4] = ["10.0.0.2", "10.0.0.3", "2001:db8::2", "2001:db8::3"];
            for (what, floors, second, third) in [
                ("nobody", Floors::default(), true, true),
                ("both", secured(&BOTH), false, false),
                ("the third", secured(&[BOTH[1], BOTH[3]]), true, false),
                ("nobody any more", Floors::default(), true, true),
            ] {
                let faults = listening.listeners.apply(&Keychain::default(), &floors);
                assert!(faults.is_empty(), "{faults:?}");
                for (number, heard) in [(2, second), (3, third)] {
                    let dialled = dial(peer(server, number), 64, server).await;
                    assert_eq!(dialled.is_some(), heard, "{server}: {what}, {number}");
                    if heard {
                        listening.next().await.unwrap();
                    }
                }
                let _dialled = dial(peer(server, 2), 255, server).await.unwrap();
                let incoming = listening.next().await.unwrap();
                let expected = floors != Floors::default();
                assert_eq!(had_filter(&incoming.stream), expected, "{server}: {what}");
            }
        });
    }
}

/// `count` peers with GTSM that do not stand side by side, and 10.0.0.2.
fn many(count: u32) -> Floors {
    let others = (0..count).map(|number| Ipv4Addr::from_bits(0x0a01_0000 + 2 * number));
    let addresses = others.chain(["10.0.0.2".parse().unwrap()]);
    Floors::new(addresses.map(|address| {
        let prefix = Prefix::host(address.into());
        (Remote::Prefix(prefix), Hops::security(1))
    }))
}

#[test]
fn a_filter_that_is_too_long_is_told_and_floors_hold_from_adoption() {
    let Some(host) = host("long") else {
        return;
    };
    let server = SERVERS[0];
    let mut listening = host.listen_guarded(server, &Keychain::default(), &many(1));
    host.run(async || {
        assert!(dial(peer(server, 2), 64, server).await.is_none());
        let faults = listening.listeners.apply(&Keychain::default(), &many(5000));
        assert!(
            matches!(faults[..], [Error::FilterLength { .. }]),
            "{faults:?}"
        );
        assert!(faults[0].is_late_security());
        let fault = faults[0].to_string();
        let named = "10.0.0.2/32, 10.1.0.0/32, 10.1.0.2/32 and 4998 others";
        assert!(fault.contains(named), "{fault}");
        let mut dialled = dial(peer(server, 2), 64, server).await.unwrap();
        let mut incoming = listening.next().await.unwrap();
        assert!(!had_filter(&incoming.stream), "the old one went");
        let within = Transport {
            hops: Hops::security(1),
            auth: Auth::None,
        };
        within.adopt(&incoming.stream).unwrap();
        assert!(!carries(&mut dialled, &mut incoming.stream).await);
        // And as soon as there are fewer, it is there again.
        let faults = listening.listeners.apply(&Keychain::default(), &many(2900));
        assert!(faults.is_empty(), "{faults:?}");
        assert!(dial(peer(server, 2), 64, server).await.is_none());
        assert!(dial(peer(server, 2), 255, server).await.is_some());
    });
}

#[test]
fn keys_go_before_the_filter_where_there_is_no_room_for_both() {
    let Some(host) = host("room") else {
        return;
    };
    if !caracal_bgp_speaker::net::md5::supported().unwrap() {
        caracal_skip::skip!("this kernel has no TCP MD5 signatures");
        return;
    }
    if !host.inside(|| std::path::Path::new("/proc/sys/net/core/optmem_max").exists()) {
        caracal_skip::skip!("net.core.optmem_max is not of the namespace");
        return;
    }
    host.sysctl("net/core/optmem_max", "20480");
    let server = SERVERS[0];
    // A key each, of some 136 octets.
    let keys = |count: u32| {
        let peers = (0..count).map(|number| {
            let address = Ipv4Addr::from_bits(0x0a02_0000 + 2 * number);
            let secret = Secret::new(format!("secret {number}")).unwrap();
            let remote = Remote::Prefix(Prefix::host(address.into()));
            (remote, Auth::Md5(secret))
        });
        Keychain::new(peers).0
    };
    let floors = many(400);
    let mut listening = host.listen_guarded(server, &Keychain::default(), &floors);
    host.run(async || {
        let barred = async || dial(peer(server, 2), 64, server).await.is_none();
        assert!(barred().await);
        for _ in 0..2 {
            // All keys, also when it is tried again.
            let faults = listening.listeners.apply(&keys(140), &floors);
            assert!(
                matches!(faults[..], [Error::FilterRoom { .. }]),
                "{faults:?}"
            );
            let fault = faults[0].to_string();
            assert!(fault.contains("net.core.optmem_max (now"), "{fault}");
            assert!(!barred().await);
        }
        let faults = listening.listeners.apply(&keys(10), &floors);
        assert!(faults.is_empty(), "{faults:?}");
        assert!(barred().await);
    });
}
