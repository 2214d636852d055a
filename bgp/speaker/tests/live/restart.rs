//! What outlives a session (RFC 4724, RFC 8538): each way in which one ends, with and without the N bit.

use std::time::Duration;

use caracal_bgp_core::types::{Asn, Family};
use caracal_bgp_core::wire::{Cease, Message, Notification};
use caracal_bgp_speaker::config::{Activation, MaxPrefixAction, MaxPrefixes};
use caracal_bgp_speaker::handle::{Clear, SessionState};

use crate::common::{LOCAL, encoded, name, snapshot, until};
use crate::scripted::{Heard, Peer, Script, via};
use crate::stage::{Stage, peer};

const ASN: Asn = Asn(65_001);
const WATCHER: Asn = Asn(65_003);
/// The shortest that there is (RFC 4271 §4.2).
const HOLD_TIME: Duration = Duration::from_secs(3);
const LIMIT: u32 = 2;

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Lost,
    TheyReset,
    TheyResetHard,
    TheyFallSilent,
    TheySendGarbage,
    TheyTellTooMuch,
    WeClear,
    WeShutDown,
    WeRemoveThem,
}

struct Case {
    end: End,
    /// The peer's N bit; ours is always there.
    notification: bool,
    kept: bool,
    /// Our NOTIFICATION: code and subcode, and what a Hard Reset (6/9) has inside.
    said: &'static [u8],
}

#[rustfmt::skip]
const CASES: [Case; 18] = [
    Case { end: End::Lost,            notification: false, kept: true,  said: &[] },
    Case { end: End::Lost,            notification: true,  kept: true,  said: &[] },
    Case { end: End::TheyReset,       notification: false, kept: false, said: &[] },
    Case { end: End::TheyReset,       notification: true,  kept: true,  said: &[] },
    Case { end: End::TheyResetHard,   notification: false, kept: false, said: &[] },
    Case { end: End::TheyResetHard,   notification: true,  kept: false, said: &[] },
    Case { end: End::TheyFallSilent,  notification: false, kept: false, said: &[4, 0] },
    Case { end: End::TheyFallSilent,  notification: true,  kept: true,  said: &[4, 0] },
    Case { end: End::TheySendGarbage, notification: false, kept: false, said: &[1, 1] },
    Case { end: End::TheySendGarbage, notification: true,  kept: true,  said: &[1, 1] },
    Case { end: End::TheyTellTooMuch, notification: false, kept: false, said: &[6, 1] },
    Case { end: End::TheyTellTooMuch, notification: true,  kept: false, said: &[6, 9, 6, 1] },
    Case { end: End::WeClear,         notification: false, kept: false, said: &[6, 4] },
    Case { end: End::WeClear,         notification: true,  kept: true,  said: &[6, 4] },
    Case { end: End::WeShutDown,      notification: false, kept: false, said: &[6, 2] },
    Case { end: End::WeShutDown,      notification: true,  kept: false, said: &[6, 9, 6, 2] },
    Case { end: End::WeRemoveThem,    notification: false, kept: false, said: &[6, 3] },
    Case { end: End::WeRemoveThem,    notification: true,  kept: false, said: &[6, 9, 6, 3] },
];

impl Case {
    fn script(&self, again: bool) -> Script {
        let script = Script::of(ASN, LOCAL).restarts(60, self.notification, again);
        match self.end {
            End::TheyFallSilent => Script {
                hold_time: HOLD_TIME,
                ..script
            },
            _ => script,
        }
    }
}

fn route(number: usize) -> String {
    format!("10.1.{number}.0/24")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_a_session_depends_on_how_it_ends_and_on_the_n_bit() {
    let mut asns = vec![ASN; CASES.len()];
    asns.push(WATCHER);
    let mut stage = Stage::begin(&asns, |config| {
        for (number, case) in CASES.iter().enumerate() {
            if case.end == End::TheyTellTooMuch {
                let limit = MaxPrefixes {
                    limit: LIMIT,
                    warning_percent: 100,
                    action: MaxPrefixAction::Terminate {
                        restart_after: None,
                    },
                };
                let limits = &mut peer(config, number).max_prefixes;
                limits.insert(Family::Ipv4Unicast, limit);
            }
        }
    })
    .await;
    let watcher = stage.plain(CASES.len()).await;
    let mut peers = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let mut peer = stage.establish(number, &case.script(false)).await;
        let open = peer.heard().open.unwrap();
        // RFC 8538 §2: ours says that NOTIFICATIONs cost nothing here.
        assert!(open.graceful_restart().unwrap().notification, "{open:?}");
        let terms = snapshot(&stage.speaker, &name(number)).await.terms.unwrap();
        assert_eq!(terms.keeps_over_notification, case.notification);
        peer.tell(&route(number), via(&[ASN.0])).await;
        peers.push(Some(peer));
    }
    for number in 0..CASES.len() {
        watcher.hears(route(number).parse().unwrap()).await;
    }

    for (number, case) in CASES.iter().enumerate() {
        end(&mut stage, number, case.end, &mut peers[number]).await;
    }
    for (number, case) in CASES.iter().enumerate() {
        let what = format!("{:?}, N {}", case.end, case.notification);
        if case.end != End::WeRemoveThem {
            let look = async || snapshot(&stage.speaker, &name(number)).await.state;
            let over = |state: &_| *state != SessionState::Established;
            until(&what, look, over).await;
        }
        if let Some(peer) = &peers[number] {
            let heard = peer.until(&what, |heard| heard.closed).await;
            let words = heard.last_words.get(..case.said.len());
            assert_eq!(words, Some(case.said), "{what}: {:?}", heard.last_words);
            // A Hard Reset says why, any other is none.
            assert_eq!(heard.last_words.is_empty(), case.said.is_empty(), "{what}");
        }
        if !case.kept {
            let gone = |heard: &Heard| heard.of(&route(number)).len() == 2;
            watcher.until(&format!("{what}: the end"), gone).await;
        }
    }
    drop(peers);
    stage.settle(&[&watcher]).await;
    for (number, case) in CASES.iter().enumerate() {
        let what = format!("{:?}, N {}", case.end, case.notification);
        let path = stage.path(number, &route(number)).await;
        assert_eq!(path.is_some_and(|path| path.stale), case.kept, "{what}");
        let changes = watcher.heard().of(&route(number)).len();
        assert_eq!(changes, if case.kept { 1 } else { 2 }, "{what}");
    }

    // Who comes back having kept forwarding, and tells the same again, was never away for others.
    let kept = || {
        let cases = CASES.iter().enumerate();
        cases.filter(|(_, case)| case.kept)
    };
    let mut returned = Vec::new();
    for (number, case) in kept() {
        let mut peer = stage.establish(number, &case.script(true)).await;
        peer.tell(&route(number), via(&[ASN.0])).await;
        peer.end_of_rib(Family::Ipv4Unicast).await;
        let fresh = async || stage.path(number, &route(number)).await.unwrap().stale;
        until("a fresh route", fresh, |stale| !stale).await;
        returned.push(peer);
    }
    stage.settle(&[&watcher]).await;
    for (number, case) in kept() {
        let changes = watcher.heard().of(&route(number));
        assert_eq!(changes.len(), 1, "{:?}: {changes:?}", case.end);
    }
    drop(returned);
    stage.end().await;
}

async fn end(stage: &mut Stage, number: usize, end: End, peer: &mut Option<Peer>) {
    let talking = peer.as_mut().unwrap();
    match end {
        End::Lost => *peer = None,
        End::TheyReset | End::TheyResetHard => {
            let reset = Notification::cease(Cease::AdministrativeReset, "");
            let reset = match end {
                End::TheyResetHard => reset.into_hard_reset(),
                _ => reset,
            };
            talking.send(&encoded(&Message::Notification(reset))).await;
        }
        End::TheyFallSilent => {}
        End::TheySendGarbage => talking.send(&[0; 19]).await,
        End::TheyTellTooMuch => {
            for more in 0..LIMIT {
                let prefix = format!("10.2.{number}.{more}/32");
                talking.tell(&prefix, via(&[ASN.0])).await;
            }
        }
        End::WeClear => {
            let message = String::new();
            let hard = Clear::Hard { message };
            let cleared = stage.speaker.clear(Some(name(number)), hard).await;
            assert_eq!(cleared.unwrap(), 1);
        }
        End::WeShutDown => {
            let message = "for good".to_owned();
            let down = Activation::Down { message };
            stage.edit(number, |peer| peer.activation = down).await;
        }
        End::WeRemoveThem => {
            stage.config.peers.remove(&name(number));
            stage.speaker.apply(stage.config.clone()).await.unwrap();
        }
    }
}
