//! Roles (RFC 9234): who is let in as what, and where routes with Only to Customer go.

use caracal_bgp_core::types::{Asn, BgpRole};
use caracal_bgp_core::wire::{Capability, PathAttributes};

use crate::common::{LOCAL, established, name};
use crate::scripted::{Peer, Script, via};
use crate::stage::{Stage, peer};

/// Type code and flags of Only to Customer: optional and transitive (RFC 9234 §5).
const OTC: (u8, u8) = (35, 0xc0);

#[tokio::test(flavor = "multi_thread")]
async fn a_session_needs_roles_that_fit_or_a_peer_that_may_tell_none() {
    use BgpRole::{Customer, Peer as Lateral, Provider, RouteServer, RouteServerClient};
    // Our role, whether the peer must tell one, what it tells, and whether it is let in.
    #[rustfmt::skip]
    let cases: Vec<(Option<BgpRole>, bool, &[u8], bool)> = vec![
        (Some(Provider),          false, &[3],    true),
        (Some(Customer),          false, &[0],    true),
        (Some(RouteServer),       false, &[2],    true),
        (Some(RouteServerClient), false, &[1],    true),
        (Some(Lateral),           false, &[4],    true),
        (Some(Provider),          true,  &[3],    true),
        (Some(Provider),          false, &[0],    false),
        (Some(Provider),          false, &[4],    false),
        (Some(Customer),          false, &[3],    false),
        (Some(Customer),          false, &[1],    false),
        (Some(RouteServer),       false, &[1],    false),
        (Some(Lateral),           false, &[3],    false),
        // A value that nobody has assigned fits none.
        (Some(Lateral),           false, &[5],    false),
        // §4.2: the same several times is once, two different ones are a mismatch.
        (Some(Provider),          false, &[3, 3], true),
        (Some(Provider),          false, &[3, 4], false),
        // Who tells none is only refused by the strict.
        (Some(Customer),          false, &[],     true),
        (Some(Customer),          true,  &[],     false),
        (None,                    false, &[3],    true),
        (None,                    false, &[],     true),
    ];
    let asns: Vec<Asn> = (1..=cases.len() as u32).map(|n| Asn(65_000 + n)).collect();
    let stage = Stage::begin(&asns, |config| {
        for (number, (role, strict, ..)) in cases.iter().enumerate() {
            let peer = peer(config, number);
            (peer.role, peer.role_strict) = (*role, *strict);
        }
    })
    .await;
    for (number, (ours, strict, theirs, let_in)) in cases.into_iter().enumerate() {
        let what = format!("{ours:?}, strict {strict}, of {theirs:?}");
        let script = Script::of(asns[number], LOCAL);
        let roles = theirs.iter().copied().map(Capability::Role);
        let script = roles.fold(script, Script::with);
        let (at, to) = (stage.lab.peer(number), stage.lab.speaker());
        let peer = Peer::greet(at, to, &script).await;
        let over = |heard: &crate::scripted::Heard| heard.closed || heard.keepalives > 0;
        let heard = peer.until(&what, over).await;
        // What we are is said as its number, or not at all.
        let said: Vec<u8> = heard.open.iter().flat_map(|open| open.roles()).collect();
        let expected: Vec<u8> = ours.iter().map(|role| role.code()).collect();
        assert_eq!(said, expected, "{what}");
        if let_in {
            let seen = established(&stage.speaker, &name(number)).await;
            let agreed = seen.terms.unwrap().role;
            assert_eq!(agreed, ours.map(|role| role.to_string()), "{what}");
        } else {
            // OPEN Message Error, Role Mismatch.
            assert_eq!(heard.last_words.get(..2), Some(&[2, 11][..]), "{what}");
        }
    }
    stage.end().await;
}

/// The peers, by what we are to each.
const ROLES: [Option<BgpRole>; 6] = [
    Some(BgpRole::Provider),
    Some(BgpRole::Customer),
    Some(BgpRole::RouteServer),
    Some(BgpRole::RouteServerClient),
    Some(BgpRole::Peer),
    None,
];

/// An AS that no peer is of.
const FAR: u32 = 65_099;

fn asn(number: usize) -> u32 {
    65_001 + number as u32
}

/// What comes of a route that peer `number` tells with `otc`.
struct Row {
    from: usize,
    /// As told: absent, that of the peer itself, or of an AS far away.
    otc: Option<u32>,
    /// Only to Customer as each of the peers hears it, in the order of [`ROLES`]: a number, `-` for a route
    /// without, and an empty word for no route.
    heard: [&'static str; 6],
}

/// Comes from a customer, or from who has said nothing: goes everywhere, and is marked on the way down and to
/// lateral peers.
const FROM_BELOW: [&str; 6] = ["65200", "-", "65200", "-", "65200", "-"];
const LEAKED: [&str; 6] = [""; 6];

#[rustfmt::skip]
const ROWS: [Row; 17] = [
    // We are the provider: a customer must not send what is for customers only.
    Row { from: 0, otc: None,        heard: FROM_BELOW },
    Row { from: 0, otc: Some(65001), heard: LEAKED },
    Row { from: 0, otc: Some(FAR),   heard: LEAKED },
    // The customer: what comes from above goes down, with the mark of who set it first.
    Row { from: 1, otc: None,        heard: ["65002", "", "65002", "", "", "65002"] },
    Row { from: 1, otc: Some(65002), heard: ["65002", "", "65002", "", "", "65002"] },
    Row { from: 1, otc: Some(FAR),   heard: ["65099", "", "65099", "", "", "65099"] },
    // The route server.
    Row { from: 2, otc: None,        heard: FROM_BELOW },
    Row { from: 2, otc: Some(FAR),   heard: LEAKED },
    // Its client.
    Row { from: 3, otc: None,        heard: ["65004", "", "65004", "", "", "65004"] },
    Row { from: 3, otc: Some(FAR),   heard: ["65099", "", "65099", "", "", "65099"] },
    // A lateral peer: it may mark its own routes, and must not send those that another marked.
    Row { from: 4, otc: None,        heard: ["65005", "", "65005", "", "", "65005"] },
    Row { from: 4, otc: Some(65005), heard: ["65005", "", "65005", "", "", "65005"] },
    Row { from: 4, otc: Some(FAR),   heard: LEAKED },
    Row { from: 4, otc: Some(65001), heard: LEAKED },
    // No role: the attribute is carried, and heeded where there is one.
    Row { from: 5, otc: None,        heard: FROM_BELOW },
    Row { from: 5, otc: Some(65006), heard: ["65006", "", "65006", "", "", "65006"] },
    Row { from: 5, otc: Some(FAR),   heard: ["65099", "", "65099", "", "", "65099"] },
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_customers_only_goes_down_and_is_refused_from_below() {
    let asns: Vec<Asn> = (0..ROLES.len()).map(|number| Asn(asn(number))).collect();
    let mut stage = Stage::begin(&asns, |config| {
        for (number, role) in ROLES.into_iter().enumerate() {
            peer(config, number).role = role;
        }
    })
    .await;
    let mut peers = Vec::new();
    for number in 0..ROLES.len() {
        // §4.2: without a role of the peer's, ours alone says what the session is.
        peers.push(stage.plain(number).await);
    }
    let prefix = |row: usize| format!("10.1.{row}.0/24");
    for (number, row) in ROWS.iter().enumerate() {
        let attributes = PathAttributes {
            otc: row.otc.map(Asn),
            ..via(&[asn(row.from)])
        };
        peers[row.from].tell(&prefix(number), attributes).await;
    }
    for (number, row) in ROWS.iter().enumerate() {
        let path = stage.has(row.from, &prefix(number)).await;
        let leak = path
            .rejected
            .is_some_and(|why| why.starts_with("route leak"));
        assert_eq!(leak, row.heard == LEAKED, "{:?} from {}", row.otc, row.from);
    }
    let all: Vec<&Peer> = peers.iter().collect();
    stage.settle(&all).await;
    for (number, row) in ROWS.iter().enumerate() {
        for (to, peer) in peers.iter().enumerate() {
            let prefix = prefix(number);
            let told = peer.heard().table().remove(&prefix.parse().unwrap());
            let heard = told.map(|told| match told.octets(OTC.0) {
                None => "-".to_owned(),
                Some((flags, value)) => {
                    assert_eq!(flags, OTC.1, "{prefix}");
                    u32::from_be_bytes(value.try_into().unwrap()).to_string()
                }
            });
            // Nobody is told what it has told.
            let expected = if to == row.from { "" } else { row.heard[to] };
            assert_eq!(
                heard.unwrap_or_default(),
                expected,
                "OTC {:?} from {:?} to {:?}",
                row.otc,
                ROLES[row.from],
                ROLES[to]
            );
            if row.heard != LEAKED && expected.is_empty() && to != row.from {
                let why = stage.withheld(to, &prefix).await.unwrap();
                assert!(why.contains("to customers only"), "{why}");
            }
        }
    }
    stage.end().await;
}
