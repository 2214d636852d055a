//! TTL and GTSM (RFC 5082) across real routers.

use std::net::IpAddr;
use std::num::NonZeroU8;

use caracal_bgp_speaker::net::{Auth, Hops, Keychain, Transport};
use tokio::net::TcpStream;

use crate::support::*;

fn within(hops: u8) -> Transport {
    Transport {
        hops: Hops::Security(NonZeroU8::new(hops).unwrap()),
        auth: Auth::None,
    }
}

fn limited(hops: u8) -> Transport {
    Transport {
        hops: Hops::Limit(NonZeroU8::new(hops).unwrap()),
        auth: Auth::None,
    }
}

/// `near` and `far` with `router` between them, and both with an address on their links.
fn routed(tag: &str) -> Option<[Host; 3]> {
    let [near, router, far] = hosts(tag)?;
    link((&near, "e1"), (&router, "e1"));
    link((&router, "e2"), (&far, "e1"));
    router.sysctl("net/ipv4/ip_forward", "1");
    router.sysctl("net/ipv6/conf/all/forwarding", "1");
    for (host, interface, v4, v6) in [
        (&near, "e1", "10.0.1.1/24", "2001:db8:1::1/64"),
        (&router, "e1", "10.0.1.254/24", "2001:db8:1::fe/64"),
        (&router, "e2", "10.0.2.254/24", "2001:db8:2::fe/64"),
        (&far, "e1", "10.0.2.1/24", "2001:db8:2::1/64"),
    ] {
        add_address(host, interface, v4);
        add_address(host, interface, v6);
    }
    for (host, v4, v6) in [
        (&near, "10.0.1.254", "2001:db8:1::fe"),
        (&far, "10.0.2.254", "2001:db8:2::fe"),
    ] {
        host.ip(&["route", "add", "default", "via", v4]);
        host.ip(&["-6", "route", "add", "default", "via", v6]);
    }
    Some([near, router, far])
}

/// Dials, but not for long.
async fn dial(transport: &Transport, remote: IpAddr) -> Option<TcpStream> {
    let dial = transport.dial(None, at(remote));
    tokio::time::timeout(NEVER, dial).await.ok()?.ok()
}

#[test]
fn a_peer_that_dials_is_heard_from_as_far_as_the_hops_allow() {
    let Some([near, router, far]) = routed("in") else {
        return;
    };
    for (server, ours) in [("10.0.2.1", "IPv4"), ("2001:db8:2::1", "IPv6")] {
        let remote: IpAddr = server.parse().unwrap();
        let mut listening = far.listen(server, &Keychain::default());
        for (client, distance, allowed, heard) in [
            (&router, "on the link", 1, true),
            (&near, "beyond a router", 1, false),
            (&near, "beyond a router", 2, true),
            (&router, "on the link", 2, true),
        ] {
            let drops = far.counter("TCPMinTTLDrop");
            // The dialler sends with 255 too, and takes anything.
            let mut dialled = client.run(async || dial(&limited(255), remote).await.unwrap());
            far.run(async || {
                let mut incoming = listening.next().await.unwrap();
                within(allowed).adopt(&incoming.stream).unwrap();
                let carried = carries(&mut dialled, &mut incoming.stream).await;
                assert_eq!(carried, heard, "{ours}: {distance}, {allowed} hops");
            });
            if !heard {
                assert!(far.counter("TCPMinTTLDrop") > drops, "{ours}: {distance}");
            }
        }
    }
}

#[test]
fn a_peer_that_is_dialled_is_reached_as_far_as_the_hops_allow() {
    let Some([near, router, far]) = routed("out") else {
        return;
    };
    for server in ["10.0.2.1", "2001:db8:2::1"] {
        let remote: IpAddr = server.parse().unwrap();
        let mut listening = far.listen(server, &Keychain::default());
        for (client, distance, transport, reached) in [
            // That these are reached says that the listener answers with 255.
            (&router, "on the link", within(1), true),
            (&near, "beyond a router", within(2), true),
            (&near, "beyond a router", within(1), false),
            (&router, "on the link", limited(1), true),
            (&near, "beyond a router", limited(1), false),
            (&near, "beyond a router", limited(2), true),
            (&near, "beyond a router", Transport::default(), true),
        ] {
            let hops = transport.hops;
            let drops = client.counter("TCPMinTTLDrop");
            let dialled = client.run(async || dial(&transport, remote).await);
            assert_eq!(dialled.is_some(), reached, "{server} {distance}: {hops}");
            if let (Hops::Security(_), false) = (hops, reached) {
                assert!(
                    client.counter("TCPMinTTLDrop") > drops,
                    "{server} {distance}: {hops}"
                );
            }
            // Those that were refused by the dialler are half open here.
            far.run(async || while listening.incoming.try_recv().is_ok() {});
        }
    }
}

#[test]
fn an_adopted_connection_sends_with_its_own_ttl_and_not_the_listeners() {
    let Some([host]) = hosts("ttl") else {
        return;
    };
    for (server, default) in [("127.0.0.1", 64), ("::1", 64)] {
        let mut listening = host.listen(server, &Keychain::default());
        host.run(async || {
            for (transport, expected) in [
                (Transport::default(), default),
                (limited(1), 1),
                (within(1), 255),
            ] {
                let _dialled = dial(&Transport::default(), server.parse().unwrap())
                    .await
                    .unwrap();
                let incoming = listening.next().await.unwrap();
                transport.adopt(&incoming.stream).unwrap();
                let socket = socket2::SockRef::from(&incoming.stream);
                let ttl = if server.contains(':') {
                    socket.unicast_hops_v6()
                } else {
                    socket.ttl_v4()
                };
                assert_eq!(ttl.unwrap(), expected, "{server}: {}", transport.hops);
            }
        });
    }
}
