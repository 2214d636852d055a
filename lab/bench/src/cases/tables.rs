//! Tables through a daemon between external peers: one sender, ten with tables of their own, ten with the same
//! prefixes.

use std::sync::Arc;
use std::time::Duration;

use super::{Case, minutes};
use crate::daemons::Daemon;
use crate::digest::{Catalogue, Sender, Terms};
use crate::engine::{Engine, PeerId};
use crate::ledger::{Ledger, TableId};
use crate::measure::{Bound, Metric, Sample, Target, Unit};
use crate::routes::{Feed, Group, Routes, Shape};
use crate::stage::{DAEMON_ASN, Phase, Run, Scene, Stage, peers, perform};
use crate::wire::{Voice, announce, put_end_of_rib, withdraw};

/// One sender, one receiver.
pub(super) const ONE: Case = Case {
    name: "table",
    title: "1 sender × 800,000 prefixes → 1 receiver",
    about: "An external sender announces a table as large as most of the Internet's, in one UPDATE for each set \
            of attributes; then it withdraws it, in UPDATEs as full as can be. Times run from the sender's first \
            octet until the receiver holds exactly the table, and exactly nothing.",
    metrics: &[
        ANNOUNCE,
        WITHDRAW,
        CPU,
        CPU_WITHDRAW,
        MEMORY,
        UPDATES,
        ANNOUNCEMENTS,
        MESSAGES,
        VOLUME,
        GENERATOR,
    ],
    targets: &[
        ratio("announce", Daemon::Bird, 0.8),
        ratio("withdraw", Daemon::Bird, 0.8),
        ratio("memory", Daemon::Bird, 1.2),
    ],
    limit: Duration::from_secs(60),
    usual: minutes(15),
    lacks: |_| None,
    run: one,
};

/// Ten senders, two receivers.
pub(super) const TEN: Case = Case {
    name: "fan-in",
    title: "10 senders × 80,000 prefixes of their own → 2 receivers",
    about: "All peers are external and alike: the daemon tells each the routes of all others. The time runs until \
            both receivers hold exactly all 800,000 prefixes; what the senders are told is only counted.",
    metrics: &[
        ANNOUNCE,
        CPU,
        MEMORY,
        UPDATES,
        ANNOUNCEMENTS,
        MESSAGES,
        VOLUME,
        GENERATOR,
    ],
    targets: &[
        ratio("announce", Daemon::Bird, 0.4),
        ratio("memory", Daemon::Bird, 1.2),
    ],
    limit: Duration::from_secs(90),
    usual: minutes(20),
    lacks: |_| None,
    run: ten,
};

/// Ten senders of the same prefixes.
pub(super) const BEST: Case = Case {
    name: "best-path",
    title: "10 senders, the same 80,000 prefixes each → 2 receivers; then 5 senders die",
    about: "Every prefix has ten paths and one best by the length of its AS path, with five senders as with ten, so \
            that all daemons must come to the same table. Then five senders close their connections without a \
            word; the time runs until both receivers hold exactly what the other five offer.",
    metrics: &[
        ANNOUNCE,
        FAILOVER,
        CPU,
        CPU_FAILOVER,
        MEMORY,
        UPDATES,
        ANNOUNCEMENTS,
        MESSAGES,
        VOLUME,
        GENERATOR,
    ],
    targets: &[
        ratio("announce", Daemon::Bird, 0.6),
        ratio("failover", Daemon::Bird, 0.6),
    ],
    limit: Duration::from_secs(60),
    usual: minutes(14),
    lacks: no_paths_in_direct,
    run: best,
};

fn no_paths_in_direct(daemon: Daemon) -> Option<&'static str> {
    (daemon == Daemon::Direct).then_some("there is no choice to make without a daemon")
}

pub(super) const ANNOUNCE: Metric = metric("announce", "all arrived", Unit::Seconds);
const WITHDRAW: Metric = metric("withdraw", "all gone", Unit::Seconds);
const FAILOVER: Metric = metric("failover", "after the death", Unit::Seconds);
pub(super) const CPU: Metric = metric("cpu", "CPU, arrival", Unit::Seconds);
const CPU_WITHDRAW: Metric = metric("cpu_withdraw", "CPU, withdrawal", Unit::Seconds);
const CPU_FAILOVER: Metric = metric("cpu_failover", "CPU, death", Unit::Seconds);
pub(super) const MEMORY: Metric = metric("memory", "peak memory", Unit::Mebibytes);
pub(super) const UPDATES: Metric = metric("updates_per_prefix", "UPDATEs per prefix", Unit::Ratio);
pub(super) const ANNOUNCEMENTS: Metric = metric(
    "announcements_per_prefix",
    "announcements per prefix",
    Unit::Ratio,
);
pub(super) const MESSAGES: Metric = metric("messages", "UPDATEs per receiver", Unit::Count);
pub(super) const VOLUME: Metric = metric("volume", "received per receiver", Unit::Mebibytes);
pub(super) const GENERATOR: Metric = metric("generator", "CPU of the generator", Unit::Seconds);

pub(super) const fn metric(key: &'static str, label: &'static str, unit: Unit) -> Metric {
    Metric { key, label, unit }
}

pub(super) const fn ratio(metric: &'static str, to: Daemon, at_most: f64) -> Target {
    Target {
        metric,
        bound: Bound::Ratio { to, at_most },
    }
}

/// Senders and receivers around a daemon, all external.
struct Cast {
    routes: Routes,
    /// What each sender says.
    feeds: Vec<Feed>,
    receivers: usize,
    seed_groups: Vec<Vec<u32>>,
}

impl Cast {
    fn draw(run: &Run<'_>, prefixes: usize, receivers: usize) -> Self {
        let (routes, seed_groups) = Routes::draw(prefixes, run.options.prefixes_per_path, SEED);
        Self {
            routes,
            feeds: Vec::new(),
            receivers,
            seed_groups,
        }
    }
}

/// Every workload begins with this number.
pub(super) const SEED: u64 = 0x00ca_2aca_1000;
const FIRST_SENDER: u32 = 65001;
const FIRST_RECEIVER: u32 = 65101;

fn shape(sender: usize) -> Shape {
    Shape {
        sender: sender as u32,
        external: Some(FIRST_SENDER + sender as u32),
        length: None,
    }
}

/// The senders and receivers at work.
struct Play<'a, 'b> {
    stage: &'a mut Stage<'b>,
    engine: Engine,
    routes: Arc<Routes>,
    feeds: Vec<Feed>,
    table: TableId,
    receivers: usize,
    /// Peers that are senders; none where the generator stands in for the daemon.
    senders: usize,
    sample: Sample,
}

/// Performs `act` with the cast around the daemon.
fn play(
    run: Run<'_>,
    cast: Cast,
    keys: &[&'static str],
    act: impl FnOnce(&mut Play<'_, '_>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Sample> {
    let Cast {
        routes,
        feeds,
        receivers,
        ..
    } = cast;
    let senders = if run.daemon == Daemon::Direct {
        0
    } else {
        feeds.len()
    };
    let asns = (0..senders as u32)
        .map(|number| FIRST_SENDER + number)
        .chain((0..receivers as u32).map(|number| FIRST_RECEIVER + number));
    let scene = Scene {
        asns: asns.collect(),
        links: vec![senders + receivers],
        prober: false,
        reflector: false,
        kernel: false,
    };
    perform(run, &scene, |stage| {
        let known = (0..feeds.len()).map(|number| {
            // Where the generator stands in for the daemon, that is the only next hop anybody names.
            let seat = stage.seats.get(number).unwrap_or(&stage.seats[0]);
            Sender {
                next_hop: seat.local,
                router_id: seat.local.to_bits(),
            }
        });
        let terms = Terms::External { asn: DAEMON_ASN };
        let daemon = stage.arena.links[0].daemon;
        let catalogue = Catalogue::new(&routes, terms, daemon, known.collect());
        let routes = Arc::new(routes);
        let mut ledger = Ledger::new(routes.clone(), catalogue);
        let table = ledger.add_table();
        let views: Vec<_> = (0..receivers)
            .map(|_| ledger.add_view(table, None))
            .collect();
        let mut engine = Engine::new(ledger)?;
        for seat in &stage.seats[..senders] {
            engine.add(seat.session());
        }
        for (seat, view) in stage.seats[senders..].iter().zip(views) {
            let mut session = seat.session();
            session.view = Some(view);
            engine.add(session);
        }
        if run.daemon == Daemon::Direct {
            stage.direct_listen(None)?;
        }
        let mut sample = Sample::default();
        if stage.establish(&mut engine, &mut sample, keys)?.is_none() {
            return Ok(sample);
        }
        let mut play = Play {
            stage,
            engine,
            routes,
            feeds,
            table,
            receivers,
            senders,
            sample,
        };
        act(&mut play)?;
        play.stage.record_memory(&mut play.sample, "memory");
        Ok(play.sample)
    })
}

impl Play<'_, '_> {
    /// Everybody announces, until the receivers hold exactly that.
    fn announce(&mut self) -> anyhow::Result<Phase> {
        let voice = |seat: usize| match self.senders {
            0 => Voice::External {
                asn: DAEMON_ASN,
                next_hop: self.stage.arena.links[0].daemon,
            },
            _ => Voice::Sender(self.stage.seats[seat].local),
        };
        let said: Vec<Arc<Vec<u8>>> = self
            .feeds
            .iter()
            .enumerate()
            .map(|(number, feed)| {
                let mut octets = announce(&self.routes, feed, voice(number));
                put_end_of_rib(&mut octets);
                Arc::new(octets)
            })
            .collect();
        let expected = self.expected(0);
        self.engine.ledger.expect(self.table, expected);
        self.say("announce", said)
    }

    /// Everybody withdraws, until the receivers hold nothing.
    fn withdraw(&mut self) -> anyhow::Result<Phase> {
        let said: Vec<Arc<Vec<u8>>> = self
            .feeds
            .iter()
            .map(|feed| Arc::new(withdraw(&self.routes, feed)))
            .collect();
        let nothing = self.routes.table([]);
        self.engine.ledger.expect(self.table, nothing);
        self.say("withdraw", said)
    }

    fn say(&mut self, key: &'static str, said: Vec<Arc<Vec<u8>>>) -> anyhow::Result<Phase> {
        let direct = self.stage.direct();
        self.stage
            .phase(&mut self.engine, &mut self.sample, key, |engine| {
                for (number, octets) in said.into_iter().enumerate() {
                    match &direct {
                        Some(direct) => direct.send(octets)?,
                        None => engine.send(PeerId(number), octets)?,
                    }
                }
                Ok(())
            })
    }

    /// The table when the first `dead` senders say nothing: the shortest AS path wins, and there is always one.
    fn expected(&self, dead: usize) -> Vec<crate::routes::PathId> {
        let mut table = self.routes.table([]);
        let length = |path: crate::routes::PathId| self.routes.paths[path.0 as usize].as_path.len();
        for Group { path, prefixes } in self.feeds.iter().skip(dead).flatten() {
            for number in prefixes {
                let held = &mut table[*number as usize];
                if *held == crate::routes::PathId::NONE || length(*path) < length(*held) {
                    *held = *path;
                }
            }
        }
        table
    }

    fn record_arrival(&mut self, phase: &Phase) {
        let prefixes = self.routes.prefixes.len();
        self.stage
            .record_arrival(&mut self.sample, phase, prefixes, self.receivers);
    }
}

fn one(run: Run<'_>) -> anyhow::Result<Sample> {
    let mut cast = Cast::draw(&run, run.options.scaled(800_000, 100), 1);
    let groups = std::mem::take(&mut cast.seed_groups);
    cast.feeds = vec![cast.routes.feed(&groups, shape(0))];
    play(run, cast, &["announce", "withdraw"], |play| {
        let arrival = play.announce()?;
        play.record_arrival(&arrival);
        if arrival.seconds.is_none() {
            play.sample
                .not_in("withdraw", play.stage.run.limit.as_secs_f64());
            return Ok(());
        }
        let gone = play.withdraw()?;
        play.stage
            .record_cpu(&mut play.sample, "cpu_withdraw", gone.cpu);
        Ok(())
    })
}

fn ten(run: Run<'_>) -> anyhow::Result<Sample> {
    let mut cast = Cast::draw(&run, run.options.scaled(800_000, 100), 2);
    let groups = std::mem::take(&mut cast.seed_groups);
    let share = groups.len().div_ceil(SENDERS);
    cast.feeds = groups
        .chunks(share)
        .enumerate()
        .map(|(sender, groups)| cast.routes.feed(groups, shape(sender)))
        .collect();
    play(run, cast, &["announce"], |play| {
        let arrival = play.announce()?;
        play.record_arrival(&arrival);
        Ok(())
    })
}

fn best(run: Run<'_>) -> anyhow::Result<Sample> {
    let mut cast = Cast::draw(&run, run.options.scaled(80_000, 100), 2);
    cast.feeds = contested(&mut cast.routes, &cast.seed_groups);
    play(run, cast, &["announce", "failover"], |play| {
        let arrival = play.announce()?;
        play.record_arrival(&arrival);
        if arrival.seconds.is_none() {
            play.sample
                .not_in("failover", play.stage.run.limit.as_secs_f64());
            return Ok(());
        }
        let expected = play.expected(DYING);
        play.engine.ledger.expect(play.table, expected);
        let failover =
            play.stage
                .phase(&mut play.engine, &mut play.sample, "failover", |engine| {
                    peers(0..DYING).for_each(|peer| engine.close(peer));
                    Ok(())
                })?;
        play.stage
            .record_cpu(&mut play.sample, "cpu_failover", failover.cpu);
        Ok(())
    })
}

const SENDERS: usize = 10;
/// The first of the senders, which die.
const DYING: usize = 5;

/// A path from each sender for each group. One has the shortest AS path of all, and among those of the senders
/// that survive one has the shortest as well; the others tie as they may.
fn contested(routes: &mut Routes, groups: &[Vec<u32>]) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = vec![Feed::new(); SENDERS];
    for group in groups {
        let rng = routes.rng();
        let winner = rng.below(SENDERS as u32) as usize;
        let survivor = if winner < DYING {
            DYING + rng.below((SENDERS - DYING) as u32) as usize
        } else {
            winner
        };
        let lengths: Vec<usize> = (0..SENDERS)
            .map(|sender| match sender {
                _ if sender == winner => 3,
                _ if sender == survivor => 4,
                _ => rng.between(5, 8) as usize,
            })
            .collect();
        for (sender, length) in lengths.into_iter().enumerate() {
            let path = routes.draw_path(Shape {
                length: Some(length),
                ..shape(sender)
            });
            feeds[sender].push(Group {
                path,
                prefixes: group.clone(),
            });
        }
    }
    feeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_has_one_shortest_path_before_and_after_the_death() {
        let (mut routes, groups) = Routes::draw(2_000, 6.0, 7);
        let feeds = contested(&mut routes, &groups);
        for dead in [0, DYING] {
            let mut lengths: Vec<Vec<usize>> = vec![Vec::new(); 2_000];
            for group in feeds.iter().skip(dead).flatten() {
                for number in &group.prefixes {
                    let path = &routes.paths[group.path.0 as usize];
                    lengths[*number as usize].push(path.as_path.len());
                }
            }
            for of_one in &mut lengths {
                assert_eq!(of_one.len(), SENDERS - dead);
                of_one.sort_unstable();
                assert!(of_one[0] < of_one[1], "{of_one:?}");
            }
        }
    }

    #[test]
    fn a_death_changes_about_half_of_the_table() {
        let (mut routes, groups) = Routes::draw(5_000, 6.0, 7);
        let feeds = contested(&mut routes, &groups);
        let of_the_dying = feeds[..DYING]
            .iter()
            .flatten()
            .filter(|group| routes.paths[group.path.0 as usize].as_path.len() == 3)
            .map(|group| group.prefixes.len())
            .sum::<usize>();
        assert!((2_000..3_000).contains(&of_the_dying), "{of_the_dying}");
    }
}
