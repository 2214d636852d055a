//! Malformed messages against a live speaker: each vector of `tests/vectors/bgp` is sent over a
//! socket and costs what the RFCs say, no less and no more.
//!
//! Behind each UPDATE comes a sentinel, a route that is as it should be: once it is there, or once the
//! session has ended, whatever the UPDATE has led to has happened. A second peer hears what is told on.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::collections::BTreeMap;

use caracal_bgp_core::types::{Asn, PeerKind, Prefix};
use caracal_bgp_core::vectors::{self, Cost, MessageVector, PEER_ASN, UpdateVector};
use caracal_bgp_core::wire::{
    DecodeContext, MessageType, PathAttributes, UpdateOutcome, decode_update,
};
use caracal_bgp_speaker::handle::{PathSnapshot, SessionState};
use caracal_bgp_speaker::{How, PeerName, Speaker, SpeakerHandle, SpeakerOptions};

use common::{
    LOCAL, Lab, Offer, RawPeer, WATCHER, attributes, established, name, sentinel, snapshot, told,
    until, update,
};

/// The prefixes that vectors are about, as they stand in NLRI.
const ABOUT: [(&str, &[u8]); 3] = [
    ("10.0.0.0/24", &[0x18, 0x0a, 0, 0]),
    ("10.0.1.0/24", &[0x18, 0x0a, 0, 1]),
    (
        "2001:db8:0:1::/64",
        &[0x40, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1],
    ),
];
/// MP_REACH_NLRI for 2001:db8:0:1::/64.
const MP_REACH: [u8; 33] = [
    0x80, 14, 30, 0, 2, 1, 16, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0x40,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1,
];
/// LARGE_COMMUNITY 65000:7:7: what was there before the UPDATE under test.
const MARK: [u8; 15] = [0xc0, 32, 12, 0, 0, 0xfd, 0xe8, 0, 0, 0, 7, 0, 0, 0, 7];
const MARKED: &str = "65000:7:7";
const OPTIONAL_TRANSITIVE_PARTIAL: u8 = 0xe0;

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_an_external_peer_cost_what_rfc_7606_says() {
    updates_cost_what_they_must(PeerKind::External).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_an_internal_peer_cost_what_rfc_7606_says() {
    updates_cost_what_they_must(PeerKind::Internal).await;
}

async fn updates_cost_what_they_must(kind: PeerKind) {
    let lab = Lab::new();
    let asn = match kind {
        PeerKind::External => PEER_ASN,
        PeerKind::Internal => LOCAL,
    };
    let vectors = vectors::updates();
    let mut config = lab.config();
    let watching = vectors.len();
    for number in 0..watching {
        lab.add(&mut config, number, asn);
    }
    let watcher_name = lab.add(&mut config, watching, WATCHER);
    let speaker = start(config).await;
    let offer = Offer {
        extended_messages: true,
        ..Offer::of(WATCHER)
    };
    let watcher = RawPeer::establish(lab.peer(watching), lab.speaker(), offer).await;
    let mut watcher = Watcher {
        peer: watcher,
        table: BTreeMap::new(),
    };
    established(&speaker, &watcher_name).await;
    let mut wrong = Vec::new();
    for (number, vector) in vectors.iter().enumerate() {
        let case = Case {
            lab: &lab,
            speaker: &speaker,
            number,
            name: name(number),
            kind,
            asn,
            vector,
        };
        if let Err(problem) = case.run(&mut watcher).await {
            wrong.push(format!("{} ({}): {problem}", vector.name, vector.source));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} {kind:?}:\n{}",
        wrong.len(),
        vectors.len(),
        wrong.join("\n")
    );
    // What one peer did has cost no other anything.
    let watched = snapshot(&speaker, &watcher_name).await;
    assert_eq!(
        (watched.state, watched.established_count),
        (SessionState::Established, 1)
    );
    speaker.shutdown(How::GracefulRestart).await;
}

async fn start(config: caracal_bgp_speaker::SpeakerConfig) -> SpeakerHandle {
    Speaker::start(config, None, SpeakerOptions::default())
        .await
        .unwrap()
}

/// One UPDATE under test, sent by a peer of its own.
struct Case<'a> {
    lab: &'a Lab,
    speaker: &'a SpeakerHandle,
    number: usize,
    name: PeerName,
    kind: PeerKind,
    asn: Asn,
    vector: &'a UpdateVector,
}

impl Case<'_> {
    async fn run(&self, watcher: &mut Watcher) -> Result<(), String> {
        let offer = Offer {
            asn: self.asn,
            four_octet_as: self.vector.four_octet_as,
            extended_messages: true,
            ..Offer::of(self.asn)
        };
        let external = self.kind == PeerKind::External;
        let at = self.lab.peer(self.number);
        let mut peer = RawPeer::establish(at, self.lab.speaker(), offer).await;
        let before = attributes(offer, external, &MARK);
        peer.send(&update(&before, &[ABOUT[0].1, ABOUT[1].1].concat()))
            .await;
        let before_v6 = [&before[..], &MP_REACH].concat();
        peer.send(&update(&before_v6, &[])).await;
        let all = |routes: &Vec<_>| routes.len() == ABOUT.len();
        let what = format!("routes before '{}'", self.vector.name);
        until(&what, || told(self.speaker, &self.name), all).await;

        peer.send(&vectors::framed(2, &self.vector.body)).await;
        let (beyond, octets) = sentinel(self.number, offer, external);
        peer.send(&octets).await;
        let what = format!("a sentinel or an end behind '{}'", self.vector.name);
        let (ended, there) = until(
            &what,
            async || {
                let heard = peer.heard();
                (heard.closed, self.paths().await.contains_key(&beyond))
            },
            |(ended, there)| *ended || *there,
        )
        .await;
        let cost = match self.kind {
            PeerKind::External => self.vector.external,
            PeerKind::Internal => self.vector.internal,
        };
        let heard = peer.heard();
        let outcome = match cost {
            Cost::Session(code, subcode) => {
                let notification = heard.notification();
                if ended && !there && notification == Some((code, subcode)) {
                    self.check_ended().await
                } else {
                    Err(format!(
                        "not {cost}: heard {notification:?}, ended: {ended}"
                    ))
                }
            }
            _ if ended => Err(format!("not {cost}: ended, {:?}", heard.notification())),
            _ => match self.check_table(cost).await {
                Ok(()) => self.check_told(watcher, beyond).await,
                wrong => wrong,
            },
        };
        drop(peer);
        let gone = |paths: &BTreeMap<_, _>| paths.is_empty();
        until("the end of the routes", || self.paths(), gone).await;
        outcome
    }

    /// What the peer has told, as the speaker has it.
    async fn paths(&self) -> BTreeMap<Prefix, PathSnapshot> {
        let routes = told(self.speaker, &self.name).await.into_iter();
        let paths = routes.map(|mut route| (route.prefix, route.paths.remove(0)));
        paths.collect()
    }

    /// The session is over, and with it everything that the peer told.
    async fn check_ended(&self) -> Result<(), String> {
        let gone = |paths: &BTreeMap<_, _>| paths.is_empty();
        until("the end of the routes", || self.paths(), gone).await;
        let seen = snapshot(self.speaker, &self.name).await;
        if seen.state == SessionState::Established {
            return Err("the session is there".into());
        }
        if seen.last_sent_error.is_none() {
            return Err("no error is shown".into());
        }
        Ok(())
    }

    /// The session lives, and the table and the counts are what `cost` makes of them.
    async fn check_table(&self, cost: Cost) -> Result<(), String> {
        let seen = snapshot(self.speaker, &self.name).await;
        if (seen.state, seen.established_count) != (SessionState::Established, 1) {
            return Err(format!("the session is not what it was: {seen:?}"));
        }
        let counts = (
            seen.counters.treated_as_withdraw,
            seen.counters.discarded_attributes > 0,
        );
        let expected = match cost {
            Cost::Nothing => (0, false),
            Cost::Attribute => (0, true),
            _ => (1, counts.1),
        };
        if counts != expected {
            return Err(format!("not {cost}: counts {counts:?}"));
        }
        let paths = self.paths().await;
        for (prefix, octets) in ABOUT {
            let prefix: Prefix = prefix.parse().unwrap();
            let marked = paths
                .get(&prefix)
                .map(|path| path.large_communities.iter().any(|it| it == MARKED));
            let touch = touch(&self.vector.body, octets);
            let expected = match (touch, cost) {
                (Touch::Not, _) => Some(true),
                (Touch::Withdrawn, _) | (Touch::Announced, Cost::Routes) => None,
                (Touch::Announced, _) => Some(false),
            };
            if marked != expected {
                return Err(format!(
                    "not {cost}: {prefix} is {touch:?}, its mark is {marked:?}"
                ));
            }
        }
        Ok(())
    }

    /// Others are told what is usable of it, and nothing that is malformed.
    async fn check_told(&self, watcher: &mut Watcher, beyond: Prefix) -> Result<(), String> {
        let paths = self.paths().await;
        watcher.hear(beyond).await?;
        for (prefix, octets) in ABOUT {
            let prefix: Prefix = prefix.parse().unwrap();
            let expected = paths.get(&prefix).filter(|path| path.rejected.is_none());
            let told = watcher.table.get(&prefix);
            if expected.is_some() != told.is_some() {
                return Err(format!(
                    "{prefix}: told on {told:?}, in the table {expected:?}"
                ));
            }
            let Some((told, path)) = told.zip(expected) else {
                continue;
            };
            // What belongs to our AS, or to the peer's, stays here.
            if told.local_pref.is_some() || told.med.is_some() || told.originator_id.is_some() {
                return Err(format!("{prefix}: told on with {told:?}"));
            }
            let communities: Vec<String> =
                told.communities.iter().map(ToString::to_string).collect();
            if communities != path.communities {
                return Err(format!("{prefix}: told on with {communities:?}"));
            }
            // RFC 4271 §5: what we do not know goes on or stays here as its flags say.
            let carried = told.unknown().iter();
            let carried: Vec<_> = carried.map(|raw| (raw.code, raw.value.clone())).collect();
            let expected = match touch(&self.vector.body, octets) {
                Touch::Announced => &self.vector.told_on[..],
                Touch::Not | Touch::Withdrawn => &[],
            };
            if carried != expected {
                return Err(format!("{prefix}: told on with {carried:02x?}"));
            }
        }
        // A path that another AS must not have told is the one reason not to use one here.
        let rejected = paths.values().filter_map(|path| path.rejected.as_ref());
        match rejected.into_iter().find(|why| !why.contains("AS")) {
            Some(why) => Err(format!("rejected: {why}")),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    Not,
    Announced,
    Withdrawn,
}

/// What an UPDATE says of a prefix, found by its octets and by no decoder of ours.
fn touch(body: &[u8], prefix: &[u8]) -> Touch {
    let length = |at: usize| {
        let octets = body.get(at..at + 2);
        octets.map_or(0, |octets| {
            usize::from(octets[0]) << 8 | usize::from(octets[1])
        })
    };
    let withdrawn = 2 + length(0);
    let nlri = withdrawn + 2 + length(withdrawn);
    let within = |octets: &[u8]| octets.windows(prefix.len()).any(|window| window == prefix);
    let attributes = &body[withdrawn + 2..nlri];
    if within(&body[nlri..]) {
        return Touch::Announced;
    }
    if within(&body[2..withdrawn]) {
        return Touch::Withdrawn;
    }
    if !within(attributes) {
        return Touch::Not;
    }
    // MP_UNREACH_NLRI of IPv6 unicast has its prefixes right behind the family.
    let unreach = [&[15, 12, 0, 2, 1][..], prefix].concat();
    match attributes.windows(unreach.len()).any(|it| it == unreach) {
        true => Touch::Withdrawn,
        false => Touch::Announced,
    }
}

/// A peer that keeps what it is told, and takes nothing that is not as it should be.
struct Watcher {
    peer: RawPeer,
    table: BTreeMap<Prefix, PathAttributes>,
}

impl Watcher {
    /// Hears everything up to and with `prefix`.
    async fn hear(&mut self, prefix: Prefix) -> Result<(), String> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !self.table.contains_key(&prefix) {
            for frame in self.peer.take() {
                if frame.kind == MessageType::Update {
                    self.note(&frame.body)?;
                }
            }
            if std::time::Instant::now() > deadline {
                return Err(format!("{prefix} was not told on"));
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn note(&mut self, body: &[u8]) -> Result<(), String> {
        let context = DecodeContext::new(PeerKind::External);
        let UpdateOutcome::Valid(update) = decode_update(body, &context) else {
            return Err(format!("told on malformed: {body:02x?}"));
        };
        for (_, nlri) in update.withdrawn {
            for path in nlri {
                self.table.remove(&path.prefix);
            }
        }
        let attributes = update.attributes.unwrap_or_default();
        // RFC 4271 §5: what we do not know goes on with the Partial bit.
        for raw in attributes.unknown() {
            if raw.flags & OPTIONAL_TRANSITIVE_PARTIAL != OPTIONAL_TRANSITIVE_PARTIAL {
                return Err(format!("{} told on with flags {:02x}", raw.code, raw.flags));
            }
        }
        for reach in update.reach {
            for path in reach.nlri {
                self.table.insert(path.prefix, attributes.clone());
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_are_answered_as_the_rfcs_say_and_cost_later_ones_nothing() {
    let vectors = vectors::opens();
    let lab = Lab::new();
    let speaker = start_for(&lab, vectors.len()).await;
    for (number, vector) in vectors.iter().enumerate() {
        let MessageVector {
            name: what, octets, ..
        } = vector;
        let mut peer = RawPeer::connect(lab.peer(number), lab.speaker()).await;
        peer.send(octets).await;
        let answered = peer
            .until(&format!("an answer to '{what}'"), |heard| {
                heard.closed || heard.count(MessageType::Keepalive) > 0
            })
            .await;
        assert_eq!(answered.notification(), vector.refused, "{what}");
        assert_eq!(answered.closed, vector.refused.is_some(), "{what}");
        drop(peer);
        let offer = Offer::of(PEER_ASN);
        let peer = RawPeer::establish(lab.peer(number), lab.speaker(), offer).await;
        established(&speaker, &name(number)).await;
        drop(peer);
    }
    speaker.shutdown(How::GracefulRestart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_out_of_step_end_with_the_exact_notification_and_others_go_on() {
    let vectors = vectors::messages();
    let lab = Lab::new();
    let speaker = start_for(&lab, vectors.len()).await;
    for (number, vector) in vectors.iter().enumerate() {
        let what = vector.name;
        let offer = Offer::of(PEER_ASN);
        let mut peer = RawPeer::establish(lab.peer(number), lab.speaker(), offer).await;
        established(&speaker, &name(number)).await;
        peer.send(&vector.octets).await;
        let (beyond, octets) = sentinel(number, offer, true);
        peer.send(&octets).await;
        let (heard, there) = until(
            &format!("a sentinel or an end behind '{what}'"),
            async || {
                let routes = told(&speaker, &name(number)).await;
                let there = routes.iter().any(|route| route.prefix == beyond);
                (peer.heard(), there)
            },
            |(heard, there)| heard.closed || *there,
        )
        .await;
        assert_eq!(heard.notification(), vector.refused, "{what}");
        let farewell = vector.octets[18] == 3;
        assert_eq!(there, vector.refused.is_none() && !farewell, "{what}");
    }
    speaker.shutdown(How::GracefulRestart).await;
}

/// A speaker with `count` external peers that take no extended messages.
async fn start_for(lab: &Lab, count: usize) -> SpeakerHandle {
    let mut config = lab.config();
    for number in 0..count {
        let name = lab.add(&mut config, number, PEER_ASN);
        config.peers.get_mut(&name).unwrap().extended_messages = false;
    }
    start(config).await
}
