//! What leaves and enters, octet by octet: a scripted peer at the other end of a link.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::{NonZeroU8, NonZeroU32};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use caracal_bfdd::proto::{SessionConfig, SessionKey};
use caracal_bfdd::{Daemon, Error, Options};
use caracal_bgp_core::bfd::{Diag, Interval, MAX_PACKET_LEN, Packet, State};
use common::{Net, Process, SOON, can_make_namespaces, ip, ms, session, until};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

const PEER: NonZeroU32 = NonZeroU32::new(0xbeef).unwrap();

fn pair() -> Net {
    let net = Net::new(&["a", "b"]);
    net.link([
        ("a", "e1", &["10.0.0.0/31", "2001:db8::a/64"]),
        ("b", "e1", &["10.0.0.1/31", "2001:db8::b/64"]),
    ]);
    net
}

fn key_v4() -> SessionKey {
    SessionKey::single_hop(Some(ip("10.0.0.0")), ip("10.0.0.1"), Some("e1"))
}

/// A peer that says what it is told to.
struct Script {
    /// Receives on the port of BFD.
    socket: UdpSocket,
    us: SocketAddr,
    /// Sends, with a TTL of choice.
    from: Socket,
}

/// A packet as it arrived.
#[derive(Debug)]
struct Arrived {
    packet: Packet,
    from: SocketAddr,
    ttl: i32,
    class: i32,
}

impl Script {
    fn start(net: &Net, address: &str, us: &str, port: u16) -> Self {
        let address = ip(address);
        net.inside("b", || {
            let socket = UdpSocket::bind((address, port)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            let from = Socket::new(
                Domain::for_address((address, 0).into()),
                Type::DGRAM,
                Some(Protocol::UDP),
            )
            .unwrap();
            if address.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4RecvTtl, &true).unwrap();
                setsockopt(&socket, sockopt::IpRecvTos, &true).unwrap();
            } else {
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true).unwrap();
                setsockopt(&socket, sockopt::Ipv6RecvTClass, &true).unwrap();
            }
            from.bind(&SocketAddr::new(address, 50_000).into()).unwrap();
            let us = SocketAddr::new(ip(us), port);
            Self { socket, us, from }
        })
    }

    fn receive(&self) -> Arrived {
        let mut octets = [0; 256];
        let mut room = cmsg_space!(libc::c_int, libc::c_int);
        let mut slices = [IoSliceMut::new(&mut octets)];
        let descriptor = self.socket.as_raw_fd();
        let flags = MsgFlags::empty();
        let message =
            recvmsg::<SockaddrStorage>(descriptor, &mut slices, Some(&mut room), flags).unwrap();
        let (mut ttl, mut class) = (-1, -1);
        for ancillary in message.cmsgs().unwrap() {
            match ancillary {
                ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                    ttl = value
                }
                ControlMessageOwned::Ipv4Tos(value) => class = value.into(),
                ControlMessageOwned::Ipv6TClass(value) => class = value,
                other => panic!("{other:?}"),
            }
        }
        let sender = message.address.unwrap();
        let from = match (sender.as_sockaddr_in(), sender.as_sockaddr_in6()) {
            (Some(v4), _) => SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()),
            (_, Some(v6)) => SocketAddr::new(IpAddr::V6(v6.ip()), v6.port()),
            _ => panic!("{sender:?}"),
        };
        let len = message.bytes;
        let packet = Packet::decode(&octets[..len]).unwrap();
        Arrived {
            packet,
            from,
            ttl,
            class,
        }
    }

    /// The next packet that fits.
    fn receive_until(&self, fits: impl Fn(&Packet) -> bool) -> Arrived {
        let deadline = Instant::now() + SOON;
        loop {
            let arrived = self.receive();
            if fits(&arrived.packet) {
                return arrived;
            }
            assert!(Instant::now() < deadline, "last seen {arrived:?}");
        }
    }

    fn send(&self, packet: &Packet, ttl: u32) {
        let mut octets = [0; MAX_PACKET_LEN];
        let len = packet.encode(&mut octets);
        self.send_octets(&octets[..len], ttl);
    }

    fn send_octets(&self, octets: &[u8], ttl: u32) {
        if self.us.is_ipv4() {
            self.from.set_ttl_v4(ttl).unwrap();
        } else {
            self.from.set_unicast_hops_v6(ttl).unwrap();
        }
        self.from.send_to(octets, &self.us.into()).unwrap();
    }
}

fn packet(state: State, yours: Option<NonZeroU32>) -> Packet {
    Packet {
        diag: Diag::None,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: true,
        demand: false,
        detect_mult: NonZeroU8::new(20).unwrap(),
        my_discriminator: PEER,
        your_discriminator: yours,
        desired_min_tx: Interval::from_micros(1_000_000),
        required_min_rx: Interval::from_micros(50_000),
        required_min_echo_rx: Interval::ZERO,
        auth: None,
    }
}

fn packets_are_as_the_rfcs_want_them(local: &str, peer: &str, multihop: bool) {
    if !can_make_namespaces() {
        return;
    }
    let net = pair();
    let port = if multihop { 4784 } else { 3784 };
    let script = Script::start(&net, peer, local, port);
    let process = Process::start(&net, "a");
    let key = SessionKey {
        multihop,
        ..SessionKey::single_hop(None, ip(peer), None)
    };
    let mut client = process.client();
    client.apply(&[session(&key, ms(50), 3)]);

    let first = script.receive();
    // RFC 5881 §4, §5; RFC 5880 §6.8.3.
    assert_eq!(first.from.ip(), ip(local), "the kernel's choice");
    assert!(first.from.port() >= 49152, "{first:?}");
    assert_eq!((first.ttl, first.class), (255, 0xc0));
    assert_eq!(first.packet.state, State::Down);
    assert_eq!(first.packet.your_discriminator, None);
    assert!(first.packet.desired_min_tx >= Interval::SLOW);
    assert!(first.packet.control_plane_independent && !first.packet.demand);
    assert_eq!(first.packet.required_min_echo_rx, Interval::ZERO);

    let yours = Some(first.packet.my_discriminator);
    script.send(&packet(State::Down, None), 255);
    let second = script.receive_until(|packet| packet.state == State::Init);
    assert_eq!(second.packet.your_discriminator, Some(PEER));
    script.send(&packet(State::Init, yours), 255);
    let third = script.receive_until(|packet| packet.state == State::Up);
    assert!(third.packet.poll);
    assert_eq!(third.packet.desired_min_tx.as_micros(), 50_000);
    let answer = Packet {
        is_final: true,
        ..packet(State::Up, yours)
    };
    script.send(&answer, 255);
    script.receive_until(|packet| !packet.poll);

    // The negotiated pace: 50 ms less up to a quarter, and a millisecond for the thread to wake.
    let (mut last, mut gaps) = (Instant::now(), Vec::new());
    let mut ports = BTreeSet::new();
    for _ in 0..40 {
        let arrived = script.receive();
        ports.insert(arrived.from.port());
        gaps.push(last.elapsed());
        last = Instant::now();
    }
    assert_eq!(ports.len(), 1, "one port for the life of a session");
    gaps.sort_unstable();
    let median = gaps[gaps.len() / 2];
    assert!(median > ms(36) && median < ms(55), "{gaps:?}");

    // A poll is answered at once. The best of five: we wait for a core now and then, too.
    let poll = Packet {
        poll: true,
        ..packet(State::Up, yours)
    };
    let answered = (0..5).map(|_| {
        let asked = Instant::now();
        script.send(&poll, 255);
        script.receive_until(|packet| packet.is_final);
        asked.elapsed()
    });
    let quickest = answered.min().unwrap();
    assert!(quickest < ms(15), "{quickest:?}");

    // The end is told.
    client.apply(&[]);
    let last = script.receive_until(|packet| packet.state == State::AdminDown);
    assert_eq!(last.packet.diag, Diag::AdministrativelyDown);
}

#[test]
fn packets_are_as_the_rfcs_want_them_over_ipv4() {
    packets_are_as_the_rfcs_want_them("10.0.0.0", "10.0.0.1", false);
}

#[test]
fn packets_are_as_the_rfcs_want_them_over_ipv6() {
    packets_are_as_the_rfcs_want_them("2001:db8::a", "2001:db8::b", false);
}

#[test]
fn packets_are_as_the_rfcs_want_them_over_several_hops() {
    packets_are_as_the_rfcs_want_them("10.0.0.0", "10.0.0.1", true);
    packets_are_as_the_rfcs_want_them("2001:db8::a", "2001:db8::b", true);
}

#[test]
fn what_must_be_thrown_away_is_counted_and_said_and_does_nothing() {
    if !can_make_namespaces() {
        return;
    }
    let net = pair();
    let script = Script::start(&net, "10.0.0.1", "10.0.0.0", 3784);
    let process = Process::start(&net, "a");
    let key = key_v4();
    let mut client = process.client();
    client.apply(&[session(&key, ms(50), 3)]);
    let yours = Some(script.receive().packet.my_discriminator);
    let forget = |what: &str, reason: &str| {
        until(what, SOON, || {
            let snapshot = process.snapshot();
            let seen = snapshot.unmatched.get(reason).copied() == Some(1);
            seen.then_some(()).ok_or(format!("{snapshot:#?}"))
        });
        assert_eq!(process.session(&key).standing.state, State::Down, "{what}");
        assert_eq!(process.session(&key).counters.received, 0, "{what}");
    };
    script.send(&packet(State::Down, None), 254);
    forget("from beyond the link", "hop_limit");
    assert!(
        process
            .session(&key)
            .why
            .contains("came with TTL 254, at least 255 is needed")
    );
    script.send(&packet(State::Init, NonZeroU32::new(12345)), 255);
    forget("for nobody", "no_such_discriminator");
    script.send_octets(&[0x20, 0x40, 3], 255);
    forget("too short", "truncated");
    script.send_octets(&[], 255);
    script.send_octets(&[0x40; 600], 255);
    forget("another version", "version");
    script.send(&packet(State::Down, None), 255);
    process.until_state(&key, State::Init);
    script.send(&packet(State::Up, yours), 255);
    process.until_state(&key, State::Up);
}

#[test]
fn a_flood_for_nobody_takes_no_session_down() {
    if !can_make_namespaces() {
        return;
    }
    let net = pair();
    let (ours, theirs) = (Process::start(&net, "a"), Process::start(&net, "b"));
    let key = key_v4();
    let their_key = SessionKey::single_hop(Some(ip("10.0.0.1")), ip("10.0.0.0"), Some("e1"));
    ours.client().apply(&[session(&key, ms(50), 3)]);
    theirs.client().apply(&[session(&their_key, ms(50), 3)]);
    ours.until_state(&key, State::Up);
    theirs.until_state(&their_key, State::Up);
    let (before, since) = (ours.session(&key).standing.transitions, Instant::now());
    let counted = || ours.snapshot().unmatched.values().sum::<u64>();
    // The other end may have begun first.
    let early = counted();
    let mut sent = 0;
    net.inside("b", || {
        let socket = UdpSocket::bind("10.0.0.1:50001").unwrap();
        let mut octets = [0; MAX_PACKET_LEN];
        let stranger = packet(State::Up, NonZeroU32::new(1));
        let len = stranger.encode(&mut octets);
        while since.elapsed() < ms(2000) {
            for _ in 0..20 {
                socket.send_to(&octets[..len], "10.0.0.0:3784").unwrap();
                sent += 1;
            }
            std::thread::sleep(ms(1));
        }
    });
    until("all of it counted", SOON, || {
        if counted() == early + sent {
            Ok(())
        } else {
            let unmatched = ours.snapshot().unmatched;
            Err(format!("{early} before, {sent} sent: {unmatched:?}"))
        }
    });
    assert_eq!(ours.session(&key).standing.transitions, before);
    println!("{sent} packets in two seconds");
}

#[test]
fn every_session_has_a_source_port_and_a_discriminator_of_its_own() {
    if !can_make_namespaces() {
        return;
    }
    let net = pair();
    let mut sessions = Vec::new();
    for last in 1..=200 {
        net.ip("a", &format!("addr add 10.3.0.{last}/32 dev lo"));
        let local = Some(ip(&format!("10.3.0.{last}")));
        sessions.push(SessionConfig::new(SessionKey::multihop(
            local,
            ip("10.0.0.1"),
        )));
    }
    let process = Process::start(&net, "a");
    process.client().apply(&sessions);
    let (ports, discriminators) = until("all are open", SOON, || {
        let sessions = process.snapshot().sessions;
        let ports: BTreeSet<u16> = sessions.iter().filter_map(|s| s.source_port).collect();
        let names: BTreeSet<u32> = sessions.iter().map(|s| s.local_discriminator).collect();
        if ports.len() == 200 && !names.contains(&0) {
            Ok((ports, names.len()))
        } else {
            Err(format!("{ports:?}"))
        }
    });
    assert!(ports.iter().all(|port| *port >= 49152));
    assert_eq!(discriminators, 200);
}

#[test]
fn what_is_in_the_way_is_said_and_overcome_when_it_is_gone() {
    if !can_make_namespaces() {
        return;
    }
    let net = Net::new(&["a", "b"]);
    let process = Process::start(&net, "a");
    let key = key_v4();
    let mut client = process.client();
    client.apply(&[session(&key, ms(50), 3)]);
    let why = |expected: &str| {
        until(expected, SOON, || {
            let why = process.session(&key).why;
            why.contains(expected).then_some(()).ok_or(why)
        });
    };
    why("no interface e1: No such device");
    let ends = [("a", "e1", &[][..]), ("b", "e1", &["10.0.0.1/31"])];
    net.link(ends);
    why("no sending from 10.0.0.0: Cannot assign requested address");
    net.ip("a", "addr add 10.0.0.0/31 dev e1");
    why("the peer answers that nothing listens for BFD there");
    let other = Process::start(&net, "b");
    let their_key = SessionKey::single_hop(Some(ip("10.0.0.1")), ip("10.0.0.0"), Some("e1"));
    other.client().apply(&[session(&their_key, ms(50), 3)]);
    process.until_state(&key, State::Up);
    assert_eq!(process.session(&key).why, "");
    let port = process.session(&key).source_port;

    // Another interface by the same name.
    net.ip("a", "link del e1");
    process.until_state(&key, State::Down);
    net.link([("a", "e1", &["10.0.0.0/31"]), ("b", "e1", &["10.0.0.1/31"])]);
    process.until_state(&key, State::Up);
    assert_eq!(process.session(&key).source_port, port);
}

#[test]
fn the_ports_and_the_socket_belong_to_one_process() {
    if !can_make_namespaces() {
        return;
    }
    let net = Net::new(&["a", "b"]);
    let mut process = Process::start(&net, "a");
    let start = |name: &str, socket| net.inside(name, || Daemon::start(Options::new(socket)));
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("bfd.sock");
    let refused = start("a", elsewhere.clone()).unwrap_err();
    assert!(matches!(refused, Error::PortInUse { .. }), "{refused}");
    assert!(refused.to_string().contains("0.0.0.0:3784"), "{refused}");
    assert!(!elsewhere.exists());
    let refused = start("b", process.socket.clone()).unwrap_err();
    assert!(matches!(refused, Error::Served { .. }), "{refused}");
    let mode = std::fs::metadata(&process.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // What a former life left behind is in nobody's way.
    process.stop();
    assert!(process.socket.exists());
    let again = start("a", process.socket.clone()).unwrap();
    again.stopper().stop();
    again.wait().unwrap();
}
