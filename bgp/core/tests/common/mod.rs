//! What both tests of foreign decoders need: their input, and a way to run them.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::types::{Asn, Family, NextHop, Prefix, RouterId};
use caracal_bgp_core::wire::{
    self, Announcement, AsPath, Capability, Community, EncodeContext, LargeCommunity, Message,
    Open, PathAttributes,
};

/// Runs `command` with `input`; what it printed, or `None` when it is not there.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Option<String> {
    let started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that gives up early says why on its standard error.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let err = String::from_utf8_lossy(&err);
    assert!(output.status.success(), "{command:?}: {err}");
    Some(String::from_utf8(out).unwrap())
}

pub(crate) fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: AsPath::new([Asn(4_200_000_001), Asn(65_002)]),
        med: Some(50),
        local_pref: Some(200),
        communities: [Community(0xfde8_0007), Community::NO_EXPORT].into(),
        large_communities: [LargeCommunity {
            global: 65_000,
            local1: 1,
            local2: 2,
        }]
        .into(),
        ..PathAttributes::default()
    }
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn next_hop(text: &str) -> NextHop {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn update(prefix: Prefix, next_hop: &NextHop) -> BytesMut {
    let context = EncodeContext::default();
    let mut octets = BytesMut::new();
    Announcement::new(&attributes(), next_hop, prefix.family(), context)
        .unwrap()
        .write(&[prefix.into()], context, &mut octets);
    octets
}

pub(crate) fn bgp(message: &Message) -> Bytes {
    let mut octets = BytesMut::new();
    wire::encode(message, EncodeContext::default(), &mut octets).unwrap();
    octets.freeze()
}

pub(crate) fn open(asn: u32) -> Bytes {
    bgp(&Message::Open(Open {
        asn: Asn(asn),
        hold_time: Duration::from_secs(90),
        router_id: RouterId(0x0a00_0002),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv6Unicast.into()),
            Capability::FourOctetAs(Asn(asn)),
        ],
    }))
}

/// What the program made of it; ends the test aloud where there is no program.
#[macro_export]
macro_rules! or_skip {
    ($seen:expr, $program:literal) => {
        match $seen {
            Some(seen) => seen,
            None => {
                caracal_skip::missing!("{} is not installed", $program);
                return;
            }
        }
    };
}
