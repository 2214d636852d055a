//! AS_PATH as peers are told it, octet by octet, and which paths with our own AS in them are taken.

use caracal_bgp_core::types::Asn;
use caracal_bgp_speaker::PeerConfig;
use caracal_bgp_speaker::config::PrivateAs;

use crate::common::{LOCAL, until};
use crate::scripted::{Peer, Script, via};
use crate::stage::{Stage, peer};

const AS_PATH: u8 = 2;
const AS4_PATH: u8 = 17;

/// Who tells the route, and with what path.
const SOURCE: Asn = Asn(65_010);
/// An AS of the ranges for private use (RFC 6996), as 65010, 65020 and ours are, in two octets and in four.
const PRIVATE: u32 = 64_512;
const PRIVATE_4: u32 = 4_200_000_001;
/// Not private, in two octets and in four.
const PUBLIC: u32 = 3_000;
const PUBLIC_4: u32 = 400_000;
/// The AS of the peers that are told; not private.
const TOLD: u32 = 2_000;
/// Our AS by another number.
const OLD: u32 = 1_000;
const LEARNT: [u32; 6] = [SOURCE.0, PUBLIC, TOLD, PRIVATE, PRIVATE_4, PUBLIC_4];

/// What is configured of the peer, what it offers, and AS_PATH and AS4_PATH as it hears them.
struct Case {
    what: &'static str,
    configure: fn(&mut PeerConfig),
    internal: bool,
    four_octet_as: bool,
    as_path: &'static [u32],
    as4_path: &'static [u32],
}

const CASE: Case = Case {
    what: "nothing",
    configure: |_| {},
    internal: false,
    four_octet_as: true,
    as_path: &[],
    as4_path: &[],
};

#[rustfmt::skip]
const CASES: [Case; 14] = [
    Case { as_path: &[65_200, 65_010, PUBLIC, TOLD, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
    Case { what: "an internal peer", internal: true,
        as_path: &[65_010, PUBLIC, TOLD, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
    Case { what: "two octets", four_octet_as: false,
        as_path: &[65_200, 65_010, PUBLIC, TOLD, PRIVATE, 23_456, 23_456],
        as4_path: &[65_200, 65_010, PUBLIC, TOLD, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
    Case { what: "override", configure: |peer| peer.as_override = true,
        as_path: &[65_200, 65_010, PUBLIC, 65_200, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
    Case { what: "no private numbers", configure: |peer| peer.private_as = PrivateAs::Remove,
        as_path: &[65_200, PUBLIC, TOLD, PUBLIC_4], ..CASE },
    Case { what: "no private numbers, two octets", configure: |peer| peer.private_as = PrivateAs::Remove,
        four_octet_as: false,
        as_path: &[65_200, PUBLIC, TOLD, 23_456],
        as4_path: &[65_200, PUBLIC, TOLD, PUBLIC_4], ..CASE },
    Case { what: "ours for private numbers", configure: |peer| peer.private_as = PrivateAs::Replace,
        as_path: &[65_200, 65_200, PUBLIC, TOLD, 65_200, 65_200, PUBLIC_4], ..CASE },
    Case { what: "override, no private numbers",
        configure: |peer| (peer.as_override, peer.private_as) = (true, PrivateAs::Remove),
        as_path: &[65_200, PUBLIC, 65_200, PUBLIC_4], ..CASE },
    Case { what: "an old number", configure: |peer| peer.local_asn = Some(Asn(OLD)),
        as_path: &[OLD, 65_010, PUBLIC, TOLD, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
    Case { what: "an old number, override",
        configure: |peer| (peer.local_asn, peer.as_override) = (Some(Asn(OLD)), true),
        as_path: &[OLD, 65_010, PUBLIC, OLD, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
    Case { what: "an old number, no private numbers",
        configure: |peer| (peer.local_asn, peer.private_as) = (Some(Asn(OLD)), PrivateAs::Remove),
        as_path: &[OLD, PUBLIC, TOLD, PUBLIC_4], ..CASE },
    Case { what: "an old number for private numbers",
        configure: |peer| (peer.local_asn, peer.private_as) = (Some(Asn(OLD)), PrivateAs::Replace),
        as_path: &[OLD, OLD, PUBLIC, TOLD, OLD, OLD, PUBLIC_4], ..CASE },
    // Inside the AS nothing of it holds.
    Case { what: "an internal peer, no private numbers", internal: true,
        configure: |peer| peer.private_as = PrivateAs::Remove,
        as_path: &[65_010, PUBLIC, TOLD, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
    Case { what: "an internal peer, override", internal: true,
        configure: |peer| peer.as_override = true,
        as_path: &[65_010, PUBLIC, TOLD, PRIVATE, PRIVATE_4, PUBLIC_4], ..CASE },
];

/// One AS_SEQUENCE, each number in two octets or four.
fn sequence(asns: &[u32], four_octet_as: bool) -> Vec<u8> {
    const AS_SEQUENCE: u8 = 2;
    let mut octets = vec![AS_SEQUENCE, u8::try_from(asns.len()).unwrap()];
    for asn in asns {
        if four_octet_as {
            octets.extend(asn.to_be_bytes());
        } else {
            octets.extend(u16::try_from(*asn).unwrap().to_be_bytes());
        }
    }
    octets
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_told_as_the_peer_is_to_see_them() {
    const PREFIX: &str = "10.1.0.0/24";
    let asns = CASES.iter().map(|case| match case.internal {
        true => LOCAL,
        false => Asn(TOLD),
    });
    let asns: Vec<Asn> = asns.chain([SOURCE]).collect();
    let stage = Stage::begin(&asns, |config| {
        for (number, case) in CASES.iter().enumerate() {
            (case.configure)(peer(config, number));
        }
    })
    .await;
    let mut peers: Vec<Peer> = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let script = Script {
            four_octet_as: case.four_octet_as,
            ..Script::of(asns[number], LOCAL)
        };
        let peer = stage.establish(number, &script).await;
        // The number by which the peer knows us stands in the OPEN as well.
        let ours = stage.config.peers[&crate::common::name(number)].local_asn;
        let open = peer.heard().open.unwrap();
        assert_eq!(open.asn, ours.unwrap_or(LOCAL), "{}", case.what);
        peers.push(peer);
    }
    let mut source = stage.plain(CASES.len()).await;
    source.tell(PREFIX, via(&LEARNT)).await;
    for (case, peer) in CASES.iter().zip(&peers) {
        let told = peer.hears(PREFIX.parse().unwrap()).await;
        let value = |code| told.octets(code).map(|(_, value)| value);
        let as_path = sequence(case.as_path, case.four_octet_as);
        assert_eq!(value(AS_PATH), Some(as_path), "{}", case.what);
        let as4_path = (!case.as4_path.is_empty()).then(|| sequence(case.as4_path, true));
        assert_eq!(value(AS4_PATH), as4_path, "{}", case.what);
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_number_may_stand_in_a_path_as_often_as_is_allowed() {
    // By either number, where the peer knows us by an old one.
    let once: &[u32] = &[SOURCE.0, 65_200, PUBLIC];
    let twice: &[u32] = &[SOURCE.0, 65_200, PUBLIC, 65_200];
    let thrice: &[u32] = &[SOURCE.0, 65_200, 65_200, 65_200];
    let old: &[u32] = &[SOURCE.0, OLD];
    let both: &[u32] = &[SOURCE.0, OLD, 65_200];
    let never: &[u32] = &[SOURCE.0, PUBLIC];
    type Paths<'a> = Vec<&'a [u32]>;
    // How often it may stand there, the old number, and the paths that are taken and that are not.
    #[rustfmt::skip]
    let cases: Vec<(u8, Option<u32>, Paths<'_>, Paths<'_>)> = vec![
        (0, None,      vec![never, old],                    vec![once, twice, thrice, both]),
        (1, None,      vec![never, once, old, both],        vec![twice, thrice]),
        (2, None,      vec![never, once, twice, old, both], vec![thrice]),
        (0, Some(OLD), vec![never],                         vec![once, twice, thrice, old, both]),
        (1, Some(OLD), vec![never, once, old],              vec![twice, thrice, both]),
        (2, Some(OLD), vec![never, once, twice, old, both], vec![thrice]),
    ];
    let prefix = |peer: usize, path: usize| format!("10.{}.{path}.0/24", peer + 1);
    let asns = vec![SOURCE; cases.len()];
    let mut stage = Stage::begin(&asns, |config| {
        for (number, (allowed, old, ..)) in cases.iter().enumerate() {
            let peer = peer(config, number);
            (peer.allowed_local_as, peer.local_asn) = (*allowed, old.map(Asn));
        }
    })
    .await;
    let mut peers = Vec::new();
    for (number, (allowed, old, taken, refused)) in cases.iter().enumerate() {
        let mut peer = stage.plain(number).await;
        let paths = taken.iter().map(|path| (true, path));
        let paths = paths.chain(refused.iter().map(|path| (false, path)));
        for (at, (taken, path)) in paths.enumerate() {
            let prefix = prefix(number, at);
            peer.tell(&prefix, via(path)).await;
            let seen = stage.has(number, &prefix).await;
            let what = format!("{path:?} with {allowed} allowed, {old:?}: {seen:?}");
            assert_eq!(seen.rejected.is_none(), taken, "{what}");
        }
        peers.push(peer);
    }
    // What is allowed later is judged anew, and the peer need not tell it again.
    let last = prefix(0, cases[0].2.len() + cases[0].3.len() - 1);
    stage.edit(0, |peer| peer.allowed_local_as = 3).await;
    let taken = async || stage.path(0, &last).await.unwrap().rejected;
    until("a path that is allowed now", taken, Option::is_none).await;
    stage.end().await;
}
