//! What each feature asks beyond the course that all cells take.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caracal_bgp_core::types::Family;
use caracal_bgp_core::wire::{Capability, GracefulRestart, Open, RefreshKind};
use caracal_bgp_speaker::snapshot::SessionState;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::arena::{Arena, until};
use crate::cell::{Cell, kernel};
use crate::daemons::Daemon;
use crate::feature::Feature;
use crate::ours::ROUTER;
use crate::route::{Route, difference};
use crate::setup::{AddPath, Setup, Transport};
use crate::tap::{From, Passed, Seen};
use crate::told::{first, second};

/// How a cell ended; one that failed has panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pass,
    /// With the router's own refusal.
    Unsupported(String),
}

const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

/// Plays one cell.
pub(crate) fn play(daemon: &dyn Daemon, feature: Feature) -> Outcome {
    let arena = Arena::new(match feature {
        Feature::Unnumbered => &[],
        // Who has an IPv4 address names that.
        Feature::ExtendedNextHop => &[V6],
        _ => &[V4, V6],
    });
    if let Some(words) = daemon.refusal(feature, &arena) {
        let folder = arena.folder().display().to_string();
        return Outcome::Unsupported(words.replace(&folder, "…"));
    }
    let setup = setup(feature);
    let own = vec![
        Route::new("10.1.0.0/26").communities(["65001:7"]),
        Route::new("2001:db8:1::/64").large(["65001:7:7"]),
    ];
    let mut cell = Cell::new(&arena, daemon, setup, own);
    let (ours, theirs) = first(&cell.setup, feature);
    cell.tell(&ours, &theirs);
    cell.start();
    if let Err(words) = offered(&cell, feature) {
        return Outcome::Unsupported(words);
    }
    cell.agree("after establishing");
    on_the_wire(&cell, feature);
    let (ours, theirs) = second(&cell.setup, feature);
    cell.tell(&ours, &theirs);
    cell.agree("after a change");
    let refused = match feature {
        Feature::WeRestart => we_restart(&mut cell),
        Feature::TheyRestart => they_restart(&mut cell),
        Feature::WeReflect | Feature::TheyReflect => reflected(&cell),
        Feature::Communities => carried(&cell),
        Feature::WellKnown => kept_inside(&cell),
        Feature::Bfd => bfd(&cell),
        Feature::WeAskRefresh => we_ask(&cell),
        Feature::TheyAskRefresh => they_ask(&cell),
        Feature::OurLastWords => our_last_words(&mut cell),
        Feature::TheirLastWords => their_last_words(&mut cell),
        _ => Ok(()),
    };
    if let Err(words) = refused {
        return Outcome::Unsupported(words);
    }
    cell.restart_router();
    cell.agree("after a restart");
    cell.tap
        .look(|seen| assert_eq!(seen.faults, [] as [&str; 0]));
    Outcome::Pass
}

/// The session that a feature is tried on.
pub(crate) fn setup(feature: Feature) -> Setup {
    let plain = Setup::new([V4]);
    match feature {
        Feature::Ipv6 => Setup::new([V6]).over(Transport::V6),
        Feature::ExtendedNextHop => Setup {
            extended_next_hop: true,
            ..plain.over(Transport::V6)
        },
        Feature::WeSendPaths => Setup {
            add_path: AddPath::Receives,
            our_sources: 2,
            ..plain
        },
        Feature::TheySendPaths => Setup {
            add_path: AddPath::Sends,
            their_sources: 2,
            ..plain
        },
        Feature::Md5 => Setup {
            password: Some("correct-horse".to_owned()),
            ..plain
        },
        Feature::Gtsm => Setup {
            gtsm: true,
            ..plain
        },
        Feature::WeReflect => Setup {
            internal: true,
            internal_sources: true,
            ..plain
        }
        .with("routeReflectorClient", json!(true)),
        Feature::TheyReflect => Setup {
            internal: true,
            they_reflect: true,
            internal_their_sources: true,
            ..plain
        },
        Feature::WellKnown => Setup {
            internal: true,
            ..plain
        },
        Feature::Bfd => Setup { bfd: true, ..plain },
        Feature::Unnumbered => Setup {
            extended_next_hop: true,
            ..Setup::new([V4, V6]).over(Transport::Unnumbered)
        },
        _ => plain,
    }
}

/// What the feature needs both sides to offer. We do; what the router does not offer, it refuses.
fn offered(cell: &Cell<'_>, feature: Feature) -> Result<(), String> {
    let such = |capability: &Capability| match feature {
        Feature::ExtendedNextHop | Feature::Unnumbered => {
            *capability == Capability::ExtendedNextHop(vec![(V4.into(), 2)])
        }
        Feature::WeSendPaths | Feature::TheySendPaths => {
            matches!(capability, Capability::AddPath(_))
        }
        // RFC 4724 §3: without families it keeps the routes of others over their restart, all the same.
        Feature::WeRestart => matches!(capability, Capability::GracefulRestart(_)),
        Feature::TheyRestart => {
            matches!(capability, Capability::GracefulRestart(restart) if !restart.families.is_empty())
        }
        Feature::WeAskRefresh | Feature::TheyAskRefresh => *capability == Capability::RouteRefresh,
        _ => true,
    };
    let offers = |open: &Open| open.capabilities.iter().any(such);
    let open = |from| {
        until("an OPEN of each side", || {
            let open = cell.tap.look(|seen| seen.open(from).cloned());
            open.ok_or_else(|| format!("none of {from:?}"))
        })
    };
    let (ours, theirs) = (open(From::Us), open(From::Them));
    assert!(offers(&ours), "{ours:?}");
    if offers(&theirs) {
        return Ok(());
    }
    // Names of hosts are this machine's affair.
    let mut capabilities = theirs.capabilities;
    capabilities.retain(|capability| !matches!(capability, Capability::Hostname { .. }));
    Err(format!("its OPEN offers {capabilities:?}"))
}

/// What must be seen on the link of a session that is up.
fn on_the_wire(cell: &Cell<'_>, feature: Feature) {
    cell.tap.look(|seen| match feature {
        Feature::Md5 => assert_eq!(seen.signed, seen.segments),
        Feature::Gtsm => assert!(
            seen.ttls.iter().all(|(_, ttl)| *ttl == 255),
            "{:?}",
            seen.ttls
        ),
        _ => {}
    });
}

fn restart_of(seen: &Seen, from: From) -> GracefulRestart {
    let open = seen.open(from).unwrap();
    let found = open
        .capabilities
        .iter()
        .find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart.clone()),
            _ => None,
        });
    found.unwrap_or_else(|| panic!("{from:?}: {open:?}"))
}

/// For so long nothing may go, once it was seen that the other side is away.
const QUIET: Duration = Duration::from_millis(1500);

/// We die; the router keeps our routes until we are back, and nobody behind it hears of it.
fn we_restart(cell: &mut Cell<'_>) -> Result<(), String> {
    let expected = cell.ours_at_router();
    for source in cell.their_sources.iter().filter_map(|s| s.speaker.as_ref()) {
        source.watch();
    }
    cell.tap.forget();
    cell.ours.kill();
    let since = Instant::now();
    while since.elapsed() < QUIET {
        let seen = cell.daemon.told(&cell.place, &cell.setup)?;
        let lost = difference(&expected, &seen);
        cell.daemon.kept(&cell.place, lost)?;
    }
    cell.ours.start();
    cell.agree("after our restart");
    cell.tap.look(|seen| {
        let restart = restart_of(seen, From::Us);
        assert!(restart.restarting, "{restart:?}");
        assert!(
            restart.families.iter().all(|(_, kept)| *kept),
            "{restart:?}"
        );
    });
    for source in cell.their_sources.iter().filter_map(|s| s.speaker.as_ref()) {
        assert_eq!(source.withdrawals(), 0, "behind the router");
    }
    Ok(())
}

/// The router dies; we keep its routes until it is back, and nobody behind us hears of it.
fn they_restart(cell: &mut Cell<'_>) -> Result<(), String> {
    let expected = cell.theirs_at_us();
    let before = cell.ours.peer(ROUTER)?.established_count;
    for source in cell.our_sources.iter().filter_map(|s| s.speaker.as_ref()) {
        source.watch();
    }
    cell.tap.forget();
    cell.end_router(Signal::SIGKILL);
    let held = || {
        let peer = cell.ours.peer(ROUTER)?;
        if peer.state == SessionState::Established {
            return Err(format!("{peer:#?}"));
        }
        let told = cell.told()?;
        if let Some(path) = told.iter().find(|(_, path)| !path.stale || !path.used) {
            return Err(format!("{path:?}"));
        }
        let seen: Vec<Route> = told.into_iter().map(|(route, _)| route).collect();
        difference(&expected, &seen).map_or(Ok(()), Err)
    };
    until("its routes held while it is away", held);
    let since = Instant::now();
    while since.elapsed() < QUIET {
        held().unwrap();
        for family in &cell.setup.families {
            let table = kernel(&cell.arena.ours, *family)?;
            for route in expected.iter().filter(|route| route.family() == *family) {
                assert!(table.contains_key(&route.prefix), "{route:?}");
            }
        }
    }
    cell.start_router(true);
    cell.session_after(before);
    cell.agree("after its restart");
    let restart = cell.tap.look(|seen| restart_of(seen, From::Them));
    cell.daemon.kept_forwarding(&restart)?;
    for source in cell.our_sources.iter().filter_map(|s| s.speaker.as_ref()) {
        assert_eq!(source.withdrawals(), 0, "behind us");
    }
    Ok(())
}

/// What is reflected arrives at the far end as RFC 4456 says.
fn reflected(cell: &Cell<'_>) -> Result<(), String> {
    let (sources, others, id, cluster, them) = if cell.setup.they_reflect {
        let others = cell.ours_at_router();
        (
            &cell.their_sources,
            others,
            crate::setup::OUR_ID,
            crate::setup::THEIR_ID,
            "it",
        )
    } else {
        let others = cell.theirs_at_us();
        (
            &cell.our_sources,
            others,
            crate::setup::THEIR_ID,
            crate::setup::OUR_ID,
            "us",
        )
    };
    let expected: Vec<Route> = others
        .into_iter()
        .map(|mut route| {
            route.originator_id = Some(id.to_owned());
            route.cluster_list = vec![cluster.to_owned()];
            if cell.setup.they_reflect {
                cell.daemon.as_told(&cell.setup, route)
            } else {
                route
            }
        })
        .collect();
    for source in sources.iter().filter_map(|s| s.speaker.as_ref()) {
        until(&format!("what {them} reflected"), || {
            let heard = source.heard();
            let heard: Vec<Route> = heard
                .into_iter()
                .filter(|route| !route.prefix.starts_with("10.1.") || cell.setup.they_reflect)
                .filter(|route| cell.setup.families.contains(&route.family()))
                .collect();
            difference(&expected, &heard).map_or(Ok(()), Err)
        });
    }
    Ok(())
}

/// Communities go on through both, to whoever is behind.
fn carried(cell: &Cell<'_>) -> Result<(), String> {
    far_end(cell, |_, _| ());
    Ok(())
}

/// What may not leave the AS does not.
fn kept_inside(cell: &Cell<'_>) -> Result<(), String> {
    far_end(cell, |heard, side| {
        for third in [21, 22, 23, 25] {
            let prefix = format!("198.{side}.{third}.0/24");
            let leak = heard.iter().find(|route| route.prefix == prefix);
            assert!(leak.is_none(), "{leak:?}");
        }
    });
    Ok(())
}

/// Waits until the speakers behind both have heard number 20 with its communities, and looks at all they heard.
fn far_end(cell: &Cell<'_>, look: impl Fn(&[Route], u8)) {
    for (sources, whose, side) in [
        (&cell.our_sources, cell.theirs_at_us(), 19),
        (&cell.their_sources, cell.ours_at_router(), 18),
    ] {
        let prefix = format!("198.{side}.20.0/24");
        let expected = whose.iter().find(|route| route.prefix == prefix).unwrap();
        for source in sources.iter().filter_map(|s| s.speaker.as_ref()) {
            until("a route with communities behind both", || {
                let heard = source.heard();
                let found = heard.iter().find(|route| route.prefix == prefix);
                let found = found.cloned().ok_or_else(|| format!("{heard:?}"))?;
                let alike = |route: &Route| {
                    let route = route.clone().canonical();
                    (route.communities, route.large, route.extended)
                };
                if alike(&found) != alike(expected) {
                    return Err(format!("{found:?}"));
                }
                look(&heard, side);
                Ok(())
            });
        }
    }
}

/// BFD is up on both sides; when its packets stop, the session ends long before its hold timer, and takes the
/// routes along, though the router would have them kept across a restart.
fn bfd(cell: &Cell<'_>) -> Result<(), String> {
    until("BFD at the router", || {
        cell.daemon.bfd(&cell.place, &cell.setup)
    });
    until("BFD at us", || {
        let peer = cell.ours.peer(ROUTER)?;
        let up = peer.bfd.as_ref().is_some_and(|bfd| bfd.state == "Up");
        if up {
            Ok(())
        } else {
            Err(format!("{peer:#?}"))
        }
    });
    let before = cell.ours.peer(ROUTER)?.established_count;
    nft(
        cell,
        "table inet cut {\n chain in {\n type filter hook input priority 0\n udp dport 3784 drop\n }\n}\n",
    );
    let since = Instant::now();
    let why = until("the end of the session", || {
        let peer = cell.ours.peer(ROUTER)?;
        // Even of one who cannot tell a dead path from dead BGP (no C bit, RFC 5882 §4.3).
        let left = cell.ours.told_by(ROUTER)?;
        // The router hears of it from our BFD, and its Cease may be here before our BFD's word.
        let noticed = peer.bfd.as_ref().is_some_and(|bfd| bfd.state == "Down");
        if peer.state != SessionState::Established && left.is_empty() && noticed {
            Ok(peer.bfd.map(|bfd| bfd.reason).unwrap_or_default())
        } else {
            Err(format!("{peer:#?}\n{left:?}"))
        }
    });
    assert_eq!(why, "nothing heard for the detection time");
    // The hold timer would take 30 s.
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    nft(cell, "delete table inet cut\n");
    cell.session_after(before);
    cell.agree("after the path is back");
    Ok(())
}

fn nft(cell: &Cell<'_>, rules: &str) {
    use std::io::Write as _;
    let child = cell.arena.ours.run(|| {
        let mut command = Command::new("nft");
        Ok(command.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?)
    });
    let mut child = child.unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "nft: {rules}");
}

fn asked(seen: &Seen, from: From, kind: RefreshKind) -> bool {
    seen.any(
        from,
        |message| matches!(message, Passed::Refresh(refresh) if refresh.kind == kind),
    )
}

fn updates(seen: &Seen, from: From) -> usize {
    let messages = seen.messages.iter();
    messages
        .filter(|message| **message == (from, Passed::Update))
        .count()
}

/// Whether both sides offered to bracket refreshes (RFC 7313).
fn enhanced(seen: &Seen) -> bool {
    [From::Us, From::Them].into_iter().all(|from| {
        let open = seen.open(from);
        open.is_some_and(|open| {
            open.capabilities
                .contains(&Capability::EnhancedRouteRefresh)
        })
    })
}

/// After `ask`, whoever was asked tells all of it again, in brackets where both know them.
fn refreshed(
    cell: &Cell<'_>,
    asks: From,
    ask: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let told = if asks == From::Us {
        From::Them
    } else {
        From::Us
    };
    let (before, brackets) = cell.tap.look(|seen| (updates(seen, told), enhanced(seen)));
    ask()?;
    until("all routes again, or a refusal", || {
        if told == From::Them
            && let Some(words) = cell.daemon.refuses_refresh(&cell.place)
        {
            return Ok(Err(words));
        }
        cell.tap.look(|seen| {
            let again = updates(seen, told) > before;
            let bracketed = !brackets
                || (asked(seen, told, RefreshKind::Begin) && asked(seen, told, RefreshKind::End));
            if asked(seen, asks, RefreshKind::Request) && again && bracketed {
                Ok(Ok(()))
            } else {
                Err(format!("{:?}", seen.messages))
            }
        })
    })?;
    cell.agree("after a refresh");
    Ok(())
}

fn we_ask(cell: &Cell<'_>) -> Result<(), String> {
    refreshed(cell, From::Us, || {
        cell.ours.refresh();
        Ok(())
    })
}

fn they_ask(cell: &Cell<'_>) -> Result<(), String> {
    refreshed(cell, From::Them, || {
        cell.daemon.ask_refresh(&cell.place, &cell.setup)
    })
}

/// What peers of ours read when the speaker is stopped.
const OUR_WORDS: &str = "the speaker was stopped";

fn our_last_words(cell: &mut Cell<'_>) -> Result<(), String> {
    cell.ours.stop();
    let complaint = until("our message at the router", || {
        let text = cell.daemon.last_words(&cell.place, &cell.setup)?;
        if text.contains(OUR_WORDS) {
            Ok(None)
        } else {
            cell.daemon.cannot_read(&text).map(Some).ok_or(text)
        }
    });
    if let Some(words) = complaint {
        return Err(words);
    }
    cell.ours.start();
    cell.agree("after we are back");
    Ok(())
}

/// What the router is to say.
const THEIR_WORDS: &str = "line card 3 is changed, back at 4";

fn their_last_words(cell: &mut Cell<'_>) -> Result<(), String> {
    cell.daemon
        .shut_down(&cell.place, &cell.setup, THEIR_WORDS)?;
    until("its message at us", || {
        let peer = cell.ours.peer(ROUTER)?;
        let said = peer.last_received_error.as_ref().map(|error| &error.text);
        let heard = said.is_some_and(|text| text.contains(THEIR_WORDS));
        if heard {
            Ok(())
        } else {
            Err(format!("{peer:#?}"))
        }
    });
    // Some stay down then, some come back by themselves.
    let gone = || {
        let left = cell.ours.told_by(ROUTER)?;
        let state = cell.ours.peer(ROUTER)?.state;
        if left.is_empty() || state == SessionState::Established {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    };
    until("its routes gone with it", gone);
    Ok(())
}
