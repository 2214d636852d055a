//! TCP-AO (RFC 5925) between real sockets, where the kernel has it.

use std::net::IpAddr;

use caracal_bgp_speaker::Error;
use caracal_bgp_speaker::net::ao::{self, AoAlgorithm, AoKey, AoKeys};
use caracal_bgp_speaker::net::{
    Auth, Floors, Hops, KeyHandle, Keychain, Rekeyed, Remote, Secret, Transport,
};
use tokio::net::TcpStream;

use crate::support::*;

/// Keys by number; the first is preferred.
fn keys(list: &[(u8, AoAlgorithm, &str)]) -> AoKeys {
    let key = |(id, algorithm, secret): &(u8, AoAlgorithm, &str)| {
        AoKey::new(*id, *id, *algorithm, Secret::new(secret).unwrap())
    };
    AoKeys::new(list.iter().map(key).collect()).unwrap()
}

fn signed(keys: AoKeys) -> Transport {
    Transport {
        hops: Hops::System,
        auth: Auth::Ao(keys),
    }
}

fn keychain(peer: &str, auth: Auth) -> Keychain {
    let remote = Remote::Prefix(peer.parse().unwrap());
    Keychain::new([(remote, auth)]).0
}

fn ao_hosts<const N: usize>(tag: &str) -> Option<[Host; N]> {
    if !ao::supported().unwrap() {
        caracal_skip::skip!("this kernel has no TCP-AO (Linux 6.7 or newer with CONFIG_TCP_AO)");
        return None;
    }
    hosts(tag)
}

async fn dial(transport: &Transport, local: &str, remote: IpAddr) -> Option<TcpStream> {
    let local = Some(local.parse().unwrap());
    let dial = transport.dial(local, at(remote));
    tokio::time::timeout(NEVER, dial).await.ok()?.ok()
}

#[test]
fn without_it_every_use_says_so() {
    if ao::supported().unwrap() {
        caracal_skip::skip!("this kernel has TCP-AO");
        return;
    }
    let Some([host]) = hosts("noao") else {
        return;
    };
    let auth = Auth::Ao(keys(&[(1, AoAlgorithm::HmacSha1, "x")]));
    let mut listening = host.listen("127.0.0.1", &Keychain::default());
    host.run(async || {
        let faults = listening
            .listeners
            .apply(&keychain("127.0.0.2", auth.clone()), &Floors::default());
        assert!(matches!(faults[..], [Error::NoAo]), "{faults:?}");
        let transport = Transport {
            auth,
            ..Transport::default()
        };
        let server: IpAddr = "127.0.0.1".parse().unwrap();
        let error = transport
            .dial(None, at(server))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("CONFIG_TCP_AO"), "{error}");
    });
}

#[test]
fn peers_with_the_same_keys_connect_and_others_do_not() {
    let Some([host]) = ao_hosts("ao") else {
        return;
    };
    for address in [
        "10.0.0.1/32",
        "10.0.0.2/32",
        "2001:db8::1/128",
        "2001:db8::2/128",
    ] {
        add_address(&host, "lo", address);
    }
    for (server, client, range) in [
        ("10.0.0.1", "10.0.0.2", "10.0.0.0/24"),
        ("2001:db8::1", "2001:db8::2", "2001:db8::/64"),
    ] {
        let remote: IpAddr = server.parse().unwrap();
        for algorithm in [
            AoAlgorithm::HmacSha1,
            AoAlgorithm::CmacAes128,
            AoAlgorithm::HmacSha256,
        ] {
            let right = keys(&[(7, algorithm, "secret")]);
            let keychain = keychain(range, Auth::Ao(right.clone()));
            let mut listening = host.listen(server, &keychain);
            host.run(async || {
                for wrong in [
                    Transport::default(),
                    signed(keys(&[(7, algorithm, "other")])),
                    signed(keys(&[(8, algorithm, "secret")])),
                ] {
                    assert!(dial(&wrong, client, remote).await.is_none(), "{wrong:?}");
                }
                let transport = signed(right);
                let mut dialled = dial(&transport, client, remote).await.unwrap();
                let mut accepted = listening.next().await.unwrap().stream;
                transport.adopt(&accepted).unwrap();
                assert!(carries(&mut dialled, &mut accepted).await, "{algorithm:?}");
                assert!(carries(&mut accepted, &mut dialled).await, "{algorithm:?}");
                let status = ao::status(&accepted).unwrap().unwrap();
                assert!(status.good > 0 && status.bad == 0, "{status:?}");
                assert_eq!((status.current, status.next), (7, 7));
            });
            host.run(async || listening.listeners.close().await);
        }
    }
}

#[test]
fn both_sides_must_agree_whether_other_options_are_signed() {
    let Some([host]) = ao_hosts("aoopt") else {
        return;
    };
    let with = |exclude_options| {
        let secret = Secret::new("secret").unwrap();
        let mut key = AoKey::new(1, 1, AoAlgorithm::HmacSha1, secret);
        key.exclude_options = exclude_options;
        AoKeys::new(vec![key]).unwrap()
    };
    let keychain = keychain("127.0.0.2", Auth::Ao(with(true)));
    let mut listening = host.listen("127.0.0.1", &keychain);
    host.run(async || {
        let server = "127.0.0.1".parse().unwrap();
        assert!(
            dial(&signed(with(false)), "127.0.0.2", server)
                .await
                .is_none()
        );
        let transport = signed(with(true));
        let mut dialled = dial(&transport, "127.0.0.2", server).await.unwrap();
        let mut accepted = listening.next().await.unwrap().stream;
        assert!(carries(&mut dialled, &mut accepted).await);
    });
}

#[test]
fn a_connection_without_keys_is_refused_when_it_is_adopted() {
    let Some([host]) = ao_hosts("aolate") else {
        return;
    };
    let mut listening = host.listen("127.0.0.1", &Keychain::default());
    host.run(async || {
        let server = "127.0.0.1".parse().unwrap();
        let _dialled = dial(&Transport::default(), "127.0.0.2", server)
            .await
            .unwrap();
        let accepted = listening.next().await.unwrap().stream;
        let transport = signed(keys(&[(1, AoAlgorithm::HmacSha1, "x")]));
        let error = transport.adopt(&accepted).unwrap_err();
        assert!(matches!(error, Error::Unsigned { .. }), "{error}");
    });
}

#[test]
fn keys_are_rotated_one_side_after_the_other_with_no_silence() {
    let Some([host]) = ao_hosts("aorot") else {
        return;
    };
    for address in ["10.0.0.1/32", "10.0.0.2/32"] {
        add_address(&host, "lo", address);
    }
    let old = keys(&[(1, AoAlgorithm::HmacSha1, "old")]);
    let new = keys(&[(2, AoAlgorithm::CmacAes128, "new")]);
    let (old_auth, new_auth) = (Auth::Ao(old.clone()), Auth::Ao(new.clone()));
    assert!(old_auth.changes_live(&new_auth));
    let mut listening = host.listen("10.0.0.1", &keychain("10.0.0.2", old_auth.clone()));
    host.run(async || {
        let server: IpAddr = "10.0.0.1".parse().unwrap();
        let mut dialled = dial(&signed(old.clone()), "10.0.0.2", server)
            .await
            .unwrap();
        let mut accepted = listening.next().await.unwrap().stream;
        let handles = [
            KeyHandle::of(&accepted).unwrap(),
            KeyHandle::of(&dialled).unwrap(),
        ];
        // The first side has the new key and asks for it, which the other does not have yet.
        handles[0].rekey(&old_auth, &new_auth).unwrap();
        assert!(carries(&mut dialled, &mut accepted).await);
        assert!(carries(&mut accepted, &mut dialled).await);
        handles[1].rekey(&old_auth, &new_auth).unwrap();
        let mut progress = [Rekeyed::Waiting; 2];
        for _ in 0..10 {
            assert!(carries(&mut dialled, &mut accepted).await);
            assert!(carries(&mut accepted, &mut dialled).await);
            for (progress, handle) in progress.iter_mut().zip(&handles) {
                *progress = handle.rekey(&old_auth, &new_auth).unwrap();
            }
        }
        assert_eq!(progress, [Rekeyed::Done; 2]);
        let status = ao::status(&accepted).unwrap().unwrap();
        assert_eq!(
            (status.current, status.next, status.bad),
            (2, 2, 0),
            "{status:?}"
        );
        // The listener follows, also where the numbers stay and only the range changes.
        for range in ["10.0.0.2", "10.0.0.0/24", "10.0.0.0/16"] {
            let faults = listening
                .listeners
                .apply(&keychain(range, new_auth.clone()), &Floors::default());
            assert!(faults.is_empty(), "{faults:?}");
            assert!(
                dial(&signed(old.clone()), "10.0.0.2", server)
                    .await
                    .is_none()
            );
            assert!(
                dial(&signed(new.clone()), "10.0.0.2", server)
                    .await
                    .is_some()
            );
            listening.next().await.unwrap();
        }
    });
}
