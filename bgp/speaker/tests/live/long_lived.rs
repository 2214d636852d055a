//! Long-lived graceful restart (RFC 9494): what those hear who are told on the routes of a peer that
//! stays away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_bgp_core::policy::{
    Action, AnyCommunity, Condition, Operation, PrefixMatch, PrefixSet,
};
use caracal_bgp_core::types::{Asn, Family};
use caracal_bgp_core::wire::{Community, PathAttributes};
use caracal_bgp_speaker::SpeakerConfig;
use caracal_bgp_speaker::config::{Policy, Rule, Verdict};

use crate::common::LOCAL;
use crate::scripted::{Heard, Peer, Script, via};
use crate::stage::{Stage, peer};

/// The peer that goes away.
const SLEEPER: (usize, Asn) = (0, Asn(65_001));
/// It has longer paths to some of the same.
const BACKUP: (usize, Asn) = (1, Asn(65_002));
/// External and internal peers that know long-lived routes, or do not.
const KNOWING: (usize, Asn) = (2, Asn(65_003));
const UNKNOWING: (usize, Asn) = (3, Asn(65_004));
const KNOWING_INSIDE: usize = 4;
const UNKNOWING_INSIDE: usize = 5;

const ALONE: &str = "10.1.0.0/24";
const BACKED: &str = "10.1.1.0/24";
const NOT_LONG: &str = "10.1.2.0/24";
/// Marked by a rule of ours.
const RULED: &str = "10.1.3.0/24";
const OTHER_FAMILY: &str = "2001:db8:1::/64";

struct Watchers {
    knowing: Peer,
    unknowing: Peer,
    knowing_inside: Peer,
    unknowing_inside: Peer,
}

impl Watchers {
    async fn new(stage: &Stage) -> Self {
        let knowing = |asn| Script::of(asn, LOCAL).restarts(60, true, false);
        let (external, internal) = (knowing(KNOWING.1), knowing(LOCAL));
        let (external, internal) = (
            external.long_lived(60, false),
            internal.long_lived(60, false),
        );
        Self {
            knowing: stage.establish(KNOWING.0, &external).await,
            unknowing: stage.plain(UNKNOWING.0).await,
            knowing_inside: stage.establish(KNOWING_INSIDE, &internal).await,
            unknowing_inside: stage.plain(UNKNOWING_INSIDE).await,
        }
    }

    fn all(&self) -> [&Peer; 4] {
        [
            &self.knowing,
            &self.unknowing,
            &self.knowing_inside,
            &self.unknowing_inside,
        ]
    }

    /// What each was told of a prefix, in the order of [`Self::all`].
    fn histories(&self, prefix: &str) -> [Vec<String>; 4] {
        self.all().map(|peer| history(&peer.heard(), prefix))
    }
}

async fn stage(edit: impl FnOnce(&mut SpeakerConfig)) -> Stage {
    let asns = [SLEEPER.1, BACKUP.1, KNOWING.1, UNKNOWING.1, LOCAL, LOCAL];
    Stage::begin(&asns, |config| {
        // The longest that we keep what a peer asks to be kept.
        config.graceful_restart.long_lived_stale_time = Duration::from_secs(600);
        edit(config);
    })
    .await
}

/// AS path and communities of each change, or that the route has gone.
fn history(heard: &Heard, prefix: &str) -> Vec<String> {
    let changes = heard.of(prefix).into_iter();
    let words = changes.map(|change| match change.told {
        None => "gone".to_owned(),
        Some(told) => {
            let path = told.attributes.as_path.to_string();
            [vec![path], told.communities()].concat().join(" ")
        }
    });
    words.collect()
}

fn marked(community: Community, attributes: PathAttributes) -> PathAttributes {
    PathAttributes {
        communities: vec![community].into(),
        ..attributes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_a_peer_that_stays_away_are_a_last_resort_until_their_time_is_over() {
    const RESTART: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(2);
    let mut stage = stage(|config| {
        let ruled = PrefixSet::new([PrefixMatch::exact(RULED.parse().unwrap())]);
        let mark = Operation::AddCommunity(AnyCommunity::Standard(Community::NO_LLGR));
        let (ruled, mark) = (vec![Condition::Prefix(ruled)], Action::Accept(vec![mark]));
        let rules = vec![Rule::new("not long", ruled, mark)];
        peer(config, SLEEPER.0).import = Arc::new(Policy::new(rules, Verdict::Accept));
    })
    .await;
    let watchers = Watchers::new(&stage).await;
    let mut backup = stage.plain(BACKUP.0).await;
    let script = Script::of(SLEEPER.1, LOCAL)
        .restarts(RESTART.as_secs(), false, false)
        .long_lived(LONG.as_secs(), false);
    let mut sleeper = stage.establish(SLEEPER.0, &script).await;

    let own = || via(&[SLEEPER.1.0]);
    let longer = || via(&[BACKUP.1.0, 65_100]);
    backup.tell(BACKED, longer()).await;
    backup.tell(NOT_LONG, longer()).await;
    sleeper.tell(ALONE, own()).await;
    sleeper.tell(BACKED, own()).await;
    sleeper
        .tell(NOT_LONG, marked(Community::NO_LLGR, own()))
        .await;
    sleeper.tell(RULED, own()).await;
    sleeper.tell_by(OTHER_FAMILY, "2001:db8::9", own()).await;
    for prefix in [ALONE, BACKED, NOT_LONG, OTHER_FAMILY, RULED] {
        stage.has(SLEEPER.0, prefix).await;
    }
    stage.has(BACKUP.0, NOT_LONG).await;
    stage.settle(&watchers.all()).await;
    // What was told before the last of it came is of no interest here.
    let skipped = |prefix: &str| watchers.histories(prefix).map(|history| history.len() - 1);
    let skipped =
        [ALONE, BACKED, NOT_LONG, OTHER_FAMILY, RULED].map(|prefix| (prefix, skipped(prefix)));
    let left = Instant::now();
    drop(sleeper);

    let gone = |heard: &Heard| heard.of(ALONE).last().unwrap().told.is_none();
    let last = watchers
        .knowing
        .until("the end of the long time", gone)
        .await;
    stage.settle(&watchers.all()).await;
    let after = |at: usize| {
        let (prefix, skipped) = skipped[at];
        let mut histories = watchers.histories(prefix);
        for (history, skipped) in histories.iter_mut().zip(skipped) {
            history.drain(..skipped);
        }
        histories.map(|history| history.join(", "))
    };
    // RFC 9494 §4.2, §4.3: LLGR_STALE is put on, and said to those who know it; others, also inside the AS
    // (§4.6 would let us, with NO_EXPORT), lose the route.
    assert_eq!(
        after(0),
        [
            "65200 65001, 65200 65001 llgr-stale, gone",
            "65200 65001, gone",
            "65001, 65001 llgr-stale, gone",
            "65001, gone",
        ],
        "{ALONE}"
    );
    // §4.3: any other path is preferred, be it ever so long.
    assert_eq!(
        after(1),
        [
            "65200 65001, 65200 65002 65100",
            "65200 65001, 65200 65002 65100",
            "65001, 65002 65100",
            "65001, 65002 65100",
        ],
        "{BACKED}"
    );
    assert_eq!(
        after(2),
        [
            "65200 65001 no-llgr, 65200 65002 65100",
            "65200 65001 no-llgr, 65200 65002 65100",
            "65001 no-llgr, 65002 65100",
            "65001 no-llgr, 65002 65100",
        ],
        "{NOT_LONG}"
    );
    // Of IPv6 the peer has said nothing.
    assert_eq!(
        after(3),
        [
            "65200 65001, gone",
            "65200 65001, gone",
            "65001, gone",
            "65001, gone"
        ],
        "{OTHER_FAMILY}"
    );
    // §4.2: as if the peer had said so.
    assert_eq!(
        after(4),
        [
            "65200 65001 no-llgr, gone",
            "65200 65001 no-llgr, gone",
            "65001 no-llgr, gone",
            "65001 no-llgr, gone"
        ],
        "{RULED}"
    );
    // First the restart time as it was, then the long one.
    let lost = watchers.unknowing.heard().of(ALONE).pop().unwrap().at;
    let end = last.of(ALONE).pop().unwrap().at;
    assert!(lost - left >= RESTART, "{:?}", lost - left);
    let long = end - lost;
    // What leaves at once is read by two tasks.
    assert!(long + Duration::from_millis(200) >= LONG, "{long:?}");
    for prefix in [ALONE, BACKED, NOT_LONG, RULED] {
        assert_eq!(stage.path(SLEEPER.0, prefix).await, None, "{prefix}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_returns_has_its_routes_back_as_they_were_if_it_kept_forwarding() {
    const AGAIN: &str = ALONE;
    const NOT_AGAIN: &str = NOT_LONG;
    // Whether the peer has kept its routes; what is then heard of the one that it tells again and of the other.
    let stale = "65200 65001, 65200 65001 llgr-stale";
    for (kept, again, not_again) in [
        (
            true,
            format!("{stale}, 65200 65001"),
            format!("{stale}, gone"),
        ),
        (
            false,
            format!("{stale}, gone, 65200 65001"),
            format!("{stale}, gone"),
        ),
    ] {
        let mut stage = stage(|_| {}).await;
        let watchers = Watchers::new(&stage).await;
        // Without a restart time the long one begins at once.
        let script = |kept| {
            Script::of(SLEEPER.1, LOCAL)
                .restarts(0, false, kept)
                .long_lived(60, kept)
        };
        let mut sleeper = stage.establish(SLEEPER.0, &script(false)).await;
        for prefix in [AGAIN, NOT_AGAIN] {
            sleeper.tell(prefix, via(&[SLEEPER.1.0])).await;
            stage.has(SLEEPER.0, prefix).await;
        }
        stage.settle(&watchers.all()).await;
        drop(sleeper);
        for prefix in [AGAIN, NOT_AGAIN] {
            let stale = |heard: &Heard| heard.of(prefix).len() == 2;
            watchers.knowing.until("a stale route", stale).await;
        }
        let mut sleeper = stage.establish(SLEEPER.0, &script(kept)).await;
        if !kept {
            let gone = |heard: &Heard| heard.of(AGAIN).len() == 3;
            watchers.knowing.until("a route that goes", gone).await;
        }
        sleeper.tell(AGAIN, via(&[SLEEPER.1.0])).await;
        sleeper.end_of_rib(Family::Ipv4Unicast).await;
        let settled = |heard: &Heard| {
            let told = |prefix| heard.of(prefix).last().unwrap().told.is_some();
            history(heard, AGAIN).last().unwrap() == "65200 65001" && !told(NOT_AGAIN)
        };
        watchers.knowing.until("what the peer has", settled).await;
        stage.settle(&watchers.all()).await;
        let heard = watchers.knowing.heard();
        assert_eq!(history(&heard, AGAIN).join(", "), again, "kept: {kept}");
        assert_eq!(
            history(&heard, NOT_AGAIN).join(", "),
            not_again,
            "kept: {kept}"
        );
        let heard = watchers.unknowing.heard();
        assert_eq!(
            history(&heard, AGAIN),
            ["65200 65001", "gone", "65200 65001"],
            "kept: {kept}"
        );
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_somebody_before_us_keeps_is_a_last_resort_here_too() {
    let mut stage = stage(|config| {
        // RFC 9494 §4.3: LLGR_STALE stays on the route whatever a rule removes, on the way in or out.
        let bare = || Action::Accept(vec![Operation::SetCommunities(Vec::new())]);
        let rules = || vec![Rule::new("bare", Vec::new(), bare())];
        peer(config, SLEEPER.0).import = Arc::new(Policy::new(rules(), Verdict::Accept));
        peer(config, KNOWING_INSIDE).export = Arc::new(Policy::new(rules(), Verdict::Accept));
    })
    .await;
    let watchers = Watchers::new(&stage).await;
    let mut backup = stage.plain(BACKUP.0).await;
    let mut sleeper = stage.plain(SLEEPER.0).await;
    let stale = || marked(Community::LLGR_STALE, via(&[SLEEPER.1.0]));
    backup.tell(BACKED, via(&[BACKUP.1.0, 65_100])).await;
    stage.has(BACKUP.0, BACKED).await;
    for prefix in [ALONE, BACKED] {
        sleeper.tell(prefix, stale()).await;
        stage.has(SLEEPER.0, prefix).await;
    }
    stage.settle(&watchers.all()).await;
    let told = |prefix| watchers.histories(prefix).map(|history| history.join(", "));
    assert_eq!(
        told(ALONE),
        ["65200 65001 llgr-stale", "", "65001 llgr-stale", ""]
    );
    assert_eq!(
        told(BACKED),
        [
            "65200 65002 65100",
            "65200 65002 65100",
            "65002 65100",
            "65002 65100"
        ]
    );
    let why = stage.withheld(UNKNOWING.0, ALONE).await.unwrap();
    assert!(why.starts_with("it is kept beyond its time"), "{why}");
    stage.end().await;
}
