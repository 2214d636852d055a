//! TCP MD5 signatures (RFC 2385) between real sockets.

use std::net::IpAddr;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::config::ListenConfig;
use caracal_bgp_speaker::net::{
    Auth, Floors, Hops, Keychain, Listeners, Remote, Secret, Transport, md5,
};
use tokio::net::TcpStream;

use crate::support::*;

pub(crate) fn signed(secret: &str) -> Transport {
    Transport {
        hops: Hops::System,
        auth: Auth::Md5(Secret::new(secret).unwrap()),
    }
}

/// `None`, said aloud, where the kernel does not sign.
pub(crate) fn md5_hosts<const N: usize>(tag: &str) -> Option<[Host; N]> {
    if !md5::supported().unwrap() {
        caracal_skip::skip!("no TCP MD5 signatures in this kernel");
        return None;
    }
    hosts(tag)
}

/// Keys for peers by prefix; no secret: a peer that does not sign.
pub(crate) fn keychain(peers: &[(&str, &str)]) -> Keychain {
    let peers = peers.iter().map(|(prefix, secret)| {
        let auth = match *secret {
            "" => Auth::None,
            secret => signed(secret).auth,
        };
        (Remote::Prefix(prefix.parse().unwrap()), auth)
    });
    let (keychain, conflicts) = Keychain::new(peers);
    assert!(conflicts.is_empty(), "{conflicts:?}");
    keychain
}

/// Dials, but not for long.
async fn dial(transport: &Transport, local: &str, remote: IpAddr) -> Option<TcpStream> {
    let local = Some(local.parse().unwrap());
    let dial = transport.dial(local, at(remote));
    tokio::time::timeout(NEVER, dial).await.ok()?.ok()
}

/// Why the kernel refuses a segment.
#[derive(Clone, Copy, Debug)]
enum Why {
    None,
    Unsigned,
    Unexpected,
    Wrong,
}

fn refusals(host: &Host, why: Why) -> u64 {
    let refused = host.inside(|| md5::refused().unwrap());
    match why {
        Why::None => 0,
        Why::Unsigned => refused.unsigned,
        Why::Unexpected => refused.unexpected,
        Why::Wrong => refused.wrong,
    }
}

#[test]
fn a_listener_takes_each_peer_with_its_own_key_only() {
    let Some([host]) = md5_hosts("key") else {
        return;
    };
    for address in ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "10.9.0.4/32"] {
        add_address(&host, "lo", address);
    }
    for address in ["2001:db8::1/128", "2001:db8::2/128", "2001:db8::3/128"] {
        add_address(&host, "lo", address);
    }
    let keys = keychain(&[
        ("10.0.0.2", "two"),
        ("10.0.0.3", ""),
        ("10.9.0.0/16", "range"),
        ("2001:db8::2", "six"),
    ]);
    let mut v4 = host.listen("10.0.0.1", &keys);
    let mut v6 = host.listen("2001:db8::1", &keys);
    let server: IpAddr = "10.0.0.1".parse().unwrap();
    let server6: IpAddr = "2001:db8::1".parse().unwrap();
    let none = Transport::default();
    let long = "x".repeat(80);
    let cases = [
        ("its own key", signed("two"), "10.0.0.2", true, Why::None),
        ("another key", signed("owt"), "10.0.0.2", false, Why::Wrong),
        (
            "a much longer key",
            signed(&long),
            "10.0.0.2",
            false,
            Why::Wrong,
        ),
        ("no key", none.clone(), "10.0.0.2", false, Why::Unsigned),
        (
            "no key where none is due",
            none.clone(),
            "10.0.0.3",
            true,
            Why::None,
        ),
        (
            "a key where none is due",
            signed("two"),
            "10.0.0.3",
            false,
            Why::Unexpected,
        ),
        (
            "the key of its range",
            signed("range"),
            "10.9.0.4",
            true,
            Why::None,
        ),
        (
            "the key of another",
            signed("two"),
            "10.9.0.4",
            false,
            Why::Wrong,
        ),
        ("its own key", signed("six"), "2001:db8::2", true, Why::None),
        ("no key", none.clone(), "2001:db8::2", false, Why::Unsigned),
        (
            "no key where none is due",
            none,
            "2001:db8::3",
            true,
            Why::None,
        ),
    ];
    for (name, transport, from, fits, why) in cases {
        let (listening, server) = if from.contains(':') {
            (&mut v6, server6)
        } else {
            (&mut v4, server)
        };
        let before = refusals(&host, why);
        host.run(async || {
            let dialled = dial(&transport, from, server).await;
            assert_eq!(dialled.is_some(), fits, "{name} from {from}");
            let Some(mut dialled) = dialled else {
                return;
            };
            let mut incoming = listening.next().await.unwrap();
            assert_eq!(incoming.source.address.to_string(), from);
            transport.adopt(&incoming.stream).unwrap();
            assert!(carries(&mut dialled, &mut incoming.stream).await, "{name}");
            assert!(carries(&mut incoming.stream, &mut dialled).await, "{name}");
        });
        if !fits {
            assert!(refusals(&host, why) > before, "{name} from {from}: {why:?}");
        }
    }
}

#[test]
fn a_link_local_peer_is_checked_on_its_link() {
    let Some([a, b]) = md5_hosts("ll") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    let (ours, theirs) = (link_local(&a, "e1"), link_local(&b, "e1"));
    let on_link = |address| {
        let IpAddr::V6(address) = address else {
            unreachable!("link-local addresses are IPv6")
        };
        let remote = Remote::Interface {
            address: Some(address),
        };
        Keychain::new([(remote, signed("link").auth)]).0
    };
    let mut listening = a.listen("::", &on_link(theirs));
    let index = b.inside(|| nix::net::if_::if_nametoindex("e1").unwrap());
    let remote = caracal_bgp_speaker::net::Source {
        address: ours,
        ifindex: Some(index),
    };
    let dialled = b.run(async || {
        let wrong = signed("other");
        let dial = wrong.dial(None, remote.at(PORT));
        assert!(tokio::time::timeout(NEVER, dial).await.is_err());
        let right = signed("link");
        let dial = right.dial(Some(theirs), remote.at(PORT));
        tokio::time::timeout(DEADLINE, dial).await.unwrap().unwrap()
    });
    let incoming = a.run(async || listening.next().await.unwrap());
    let expected = a.inside(|| nix::net::if_::if_nametoindex("e1").unwrap());
    assert_eq!(incoming.source.address, theirs);
    assert_eq!(incoming.source.ifindex, Some(expected));
    drop(dialled);
}

#[test]
fn a_mesh_of_2500_with_one_password_fits_on_a_listener_and_2500_passwords_say_what_helps() {
    let Some([host]) = md5_hosts("mesh") else {
        return;
    };
    for address in ["10.0.0.1/32", "10.1.3.7/32", "10.1.9.195/32"] {
        add_address(&host, "lo", address);
    }
    let mesh = |secret: &dyn Fn(u32) -> String| {
        let peers = (0..2500_u32).map(|number| {
            let address = std::net::Ipv4Addr::from_bits(0x0a01_0000 + number);
            let remote = Remote::Prefix(Prefix::host(address.into()));
            (remote, signed(&secret(number)).auth)
        });
        Keychain::new(peers).0
    };
    let shared = mesh(&|_| "mesh".into());
    let mut listening = host.listen("10.0.0.1", &shared);
    let server: IpAddr = "10.0.0.1".parse().unwrap();
    host.run(async || {
        for from in ["10.1.3.7", "10.1.9.195"] {
            assert!(dial(&Transport::default(), from, server).await.is_none());
            assert!(dial(&signed("mesh"), from, server).await.is_some());
            listening.next().await.unwrap();
        }
        // One key each is more than the socket's option memory holds.
        let each = mesh(&|number| format!("secret {number}"));
        let faults = listening.listeners.apply(&each, &Floors::default());
        assert_eq!(faults.len(), 1, "one word for all, not a thousand");
        let fault = faults[0].to_string();
        assert!(fault.contains("net.core.optmem_max"), "{fault}");
    });
    if !host.inside(|| std::path::Path::new("/proc/sys/net/core/optmem_max").exists()) {
        caracal_skip::skip!("the rest: net.core.optmem_max is not of the namespace");
        return;
    }
    // What the message says does help, and what failed before is done then.
    host.sysctl("net/core/optmem_max", "1000000");
    host.run(async || {
        let each = mesh(&|number| format!("secret {number}"));
        let faults = listening.listeners.apply(&each, &Floors::default());
        assert!(faults.is_empty(), "{faults:?}");
        assert!(dial(&signed("mesh"), "10.1.3.7", server).await.is_none());
        let own = signed(&format!("secret {}", 3 * 256 + 7));
        assert!(dial(&own, "10.1.3.7", server).await.is_some());
    });
}

#[test]
fn keys_of_a_listener_change_without_a_word_to_connections_that_are_up() {
    let Some([host]) = md5_hosts("chg") else {
        return;
    };
    for address in ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"] {
        add_address(&host, "lo", address);
    }
    let mut listening = host.listen("10.0.0.1", &keychain(&[("10.0.0.2", "old")]));
    let server: IpAddr = "10.0.0.1".parse().unwrap();
    host.run(async || {
        let mut up = dial(&signed("old"), "10.0.0.2", server).await.unwrap();
        let mut accepted = listening.next().await.unwrap().stream;
        for (keys, old, new, none) in [
            (
                keychain(&[("10.0.0.2", "new"), ("10.0.0.3", "x")]),
                false,
                true,
                false,
            ),
            (keychain(&[("10.0.0.0/24", "new")]), false, true, false),
            (keychain(&[("10.0.0.2", "")]), false, false, true),
            (keychain(&[("10.0.0.2", "old")]), true, false, false),
        ] {
            let faults = listening.listeners.apply(&keys, &Floors::default());
            assert!(faults.is_empty(), "{faults:?}");
            for (transport, fits) in [
                (signed("old"), old),
                (signed("new"), new),
                (Transport::default(), none),
            ] {
                let dialled = dial(&transport, "10.0.0.2", server).await;
                assert_eq!(dialled.is_some(), fits, "{transport:?} with {keys:?}");
                if fits {
                    listening.next().await.unwrap();
                }
            }
            assert!(carries(&mut up, &mut accepted).await, "{keys:?}");
            assert!(carries(&mut accepted, &mut up).await, "{keys:?}");
        }
    });
}

#[test]
fn a_connection_that_came_before_the_key_is_not_heard_once_it_is_adopted() {
    let Some([host]) = md5_hosts("late") else {
        return;
    };
    for address in ["10.0.0.1/32", "10.0.0.2/32"] {
        add_address(&host, "lo", address);
    }
    let mut listening = host.listen("10.0.0.1", &Keychain::default());
    host.run(async || {
        let server = "10.0.0.1".parse().unwrap();
        let mut unsigned = dial(&Transport::default(), "10.0.0.2", server)
            .await
            .unwrap();
        let mut accepted = listening.next().await.unwrap().stream;
        signed("secret").adopt(&accepted).unwrap();
        assert!(!carries(&mut unsigned, &mut accepted).await);
    });
}

#[test]
fn keys_are_there_before_the_socket_listens() {
    let Some([host]) = md5_hosts("syn") else {
        return;
    };
    add_address(&host, "lo", "10.0.0.1/32");
    add_address(&host, "lo", "10.0.0.2/32");
    // A peer that dials without a key, and without a pause, while listeners come and go: the first
    // SYN that finds one must find its key too.
    let config = ListenConfig {
        addrs: vec!["10.0.0.1".parse().unwrap()],
        port: PORT,
    };
    host.run(async || {
        let keys = keychain(&[("10.0.0.2", "secret")]);
        let dialler = tokio::spawn(async {
            let mut connected = 0;
            loop {
                let local = Some("10.0.0.2".parse().unwrap());
                let transport = Transport::default();
                let dial = transport.dial(local, at("10.0.0.1".parse().unwrap()));
                let wait = std::time::Duration::from_millis(2);
                if let Ok(Ok(_)) = tokio::time::timeout(wait, dial).await {
                    connected += 1;
                    assert_eq!(connected, 0, "an unsigned connection was made");
                }
            }
        });
        for _ in 0..200 {
            let (listeners, faults) = Listeners::bind(&config, &keys, &Floors::default()).unwrap();
            assert!(faults.is_empty(), "{faults:?}");
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            listeners.close().await;
        }
        assert!(!dialler.is_finished(), "an unsigned connection was made");
        dialler.abort();
    });
}
