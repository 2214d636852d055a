//! Two sessions over a simulated link: virtual time, latency, loss, duplication, reordering.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What becomes of packets on their way to one side.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// One-way delay, least and most.
    pub(super) delay: (Duration, Duration),
    /// Of the packets sent, in circles, whether each is lost.
    pub(super) loss: Vec<bool>,
    /// Of 100 packets, how many come twice.
    pub(super) duplicates: u64,
    /// Nothing gets through.
    pub(super) cut: bool,
    /// How many packets were sent this way: where in the schedule we are.
    pub(super) sent: usize,
}

impl Way {
    pub(super) fn perfect(delay: Duration) -> Self {
        Self {
            delay: (delay, delay),
            loss: Vec::new(),
            duplicates: 0,
            cut: false,
            sent: 0,
        }
    }
}

pub(super) struct Link {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) sides: [Session; 2],
    /// Ways to each side.
    pub(super) ways: [Way; 2],
    in_flight: BTreeMap<(Instant, u64), (usize, Packet)>,
    pub(super) changes: Vec<(Duration, usize, Change)>,
    pub(super) discards: Vec<(usize, Discard)>,
    /// When each side last heard something.
    pub(super) heard: [Instant; 2],
    random: u64,
    number: u64,
}

impl Link {
    pub(super) fn new(configs: [Config; 2], ways: [Way; 2], seed: u64) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            start,
            sides: configs.map(|config| Session::new(config, start)),
            ways,
            in_flight: BTreeMap::new(),
            changes: Vec::new(),
            discards: Vec::new(),
            heard: [start; 2],
            random: seed,
            number: 0,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below.max(1)
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        let way = &mut self.ways[to];
        let lost = !way.loss.is_empty() && way.loss[way.sent % way.loss.len()];
        way.sent += 1;
        if way.cut || lost {
            return;
        }
        let (least, most) = way.delay;
        let copies = 1 + u64::from(self.random(100) < self.ways[to].duplicates);
        for _ in 0..copies {
            let spread = self.random((most - least).as_micros() as u64 + 1);
            let at = self.now + least + Duration::from_micros(spread);
            self.number += 1;
            self.in_flight.insert((at, self.number), (to, packet));
        }
    }

    pub(super) fn inject(&mut self, side: usize, event: Event) {
        let mut out = Vec::new();
        let now = self.now;
        self.sides[side].handle(now, event, &mut out);
        self.perform(side, out);
    }

    fn perform(&mut self, side: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(packet) => self.deliver(1 - side, packet),
                Action::Changed(change) => {
                    self.changes.push((self.now - self.start, side, change));
                }
                Action::Discarded(reason) => self.discards.push((side, reason)),
                Action::Finished => {}
            }
        }
    }

    /// Lets time pass until `done`, or until `end` (from the start); says whether it was done.
    pub(super) fn run_until(&mut self, end: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.start + end;
        loop {
            if done(self) {
                return true;
            }
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let timers = self.sides.iter().filter_map(Session::poll_timeout);
            let Some(next) = timers.chain(arrival).min().filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            assert!(next >= self.now, "time runs backwards");
            self.now = next;
            // What has arrived is looked at before timers, as in any careful shell.
            while let Some(entry) = self.in_flight.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (side, packet) = entry.remove();
                self.heard[side] = self.now;
                self.inject(side, Event::Received(packet));
            }
            for side in 0..2 {
                let mut out = Vec::new();
                let now = self.now;
                self.sides[side].handle_timeout(now, &mut out);
                self.perform(side, out);
            }
        }
    }

    pub(super) fn run(&mut self, length: Duration) {
        let end = self.now - self.start + length;
        self.run_until(end, |_| false);
    }

    pub(super) fn both_up(&self) -> bool {
        self.sides.iter().all(|side| side.state() == State::Up)
    }

    pub(super) fn downs(&self) -> usize {
        let down = |(_, _, change): &&(Duration, usize, Change)| change.from == State::Up;
        self.changes.iter().filter(down).count()
    }
}

pub(super) fn sides(timings: [Timing; 2], auth: Option<Auth>) -> [Config; 2] {
    let side = |discriminator, timing, seed| Config {
        discriminator,
        timing,
        seed,
        auth: auth.clone(),
        ..config()
    };
    [side(OURS, timings[0], 11), side(THEIRS, timings[1], 22)]
}

#[test]
fn two_sides_come_up_within_three_trips_and_agree_on_intervals() {
    let timings = [timing(300, 100, 3), timing(50, 200, 5)];
    let mut link = Link::new(sides(timings, None), [0, 1].map(|_| Way::perfect(ms(1))), 7);
    assert!(link.run_until(ms(1000), Link::both_up));
    assert!(link.now - link.start <= ms(4));
    link.run(ms(2000));
    let [a, b] = &link.sides;
    assert_eq!(a.send_interval().unwrap().as_duration(), ms(300));
    assert_eq!(b.receive_interval(), a.send_interval());
    assert_eq!(b.send_interval().unwrap().as_duration(), ms(100));
    assert_eq!(a.receive_interval(), b.send_interval());
    assert_eq!(a.detection_time(), Some(ms(500)));
    assert_eq!(b.detection_time(), Some(ms(900)));
    assert!(!a.polling() && !b.polling());
    assert_eq!(link.downs(), 0);
}

fn any_timing() -> impl Strategy<Value = Timing> {
    (10_u64..1500, 10_u64..1500, 1_u8..6).prop_map(|(tx, rx, mult)| timing(tx, rx, mult))
}

/// A schedule of losses in which no run, also around the end, has as many as `limit`.
fn bounded_loss(limit: usize) -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec((0..limit.max(1), 1_usize..5), 1..12).prop_map(|runs| {
        let mut schedule = Vec::new();
        for (lost, kept) in runs {
            schedule.extend(std::iter::repeat_n(true, lost));
            schedule.extend(std::iter::repeat_n(false, kept));
        }
        schedule
    })
}

/// Two timings, and for the way to each side a schedule whose runs are `margin` short of what that
/// side's peer says must be missing.
fn timings_and_loss(margin: usize) -> impl Strategy<Value = ([Timing; 2], [Vec<bool>; 2])> {
    [any_timing(), any_timing()].prop_flat_map(move |timings| {
        let limit = |timing: Timing| usize::from(timing.detect_mult.get()) + 1 - margin;
        let loss = [
            bounded_loss(limit(timings[1])),
            bounded_loss(limit(timings[0])),
        ];
        (Just(timings), loss)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn runs_of_loss_shorter_than_the_multiplier_never_take_a_session_down(
        (timings, loss) in timings_and_loss(1),
        changes in prop::collection::vec(
            (100_u64..3000, 0_usize..2, 10_u64..1500, 10_u64..1500),
            0..5,
        ),
        delay in 0_u64..20,
        duplicates in 0_u64..30,
        seed: u64,
        authenticated: bool,
    ) {
        let auth = authenticated.then(|| auth::auth(AuthKind::KeyedSha1));
        let ways = loss.map(|loss| Way {
            loss,
            duplicates,
            ..Way::perfect(ms(delay))
        });
        let mut link = Link::new(sides(timings, auth), ways, seed);
        prop_assert!(link.run_until(ms(60_000), Link::both_up), "never up");
        for (wait, side, tx, rx) in changes {
            link.run(ms(wait));
            // The multiplier stays: losses are bounded by it.
            let mult = timings[side].detect_mult.get();
            link.inject(side, Event::Timing(timing(tx, rx, mult)));
        }
        link.run(ms(30_000));
        prop_assert_eq!(link.downs(), 0, "{:#?}", link.changes);
        let [a, b] = &link.sides;
        // A schedule of one packet in two may lose every Final; else all is agreed by now.
        if !a.polling() && !b.polling() {
            prop_assert_eq!(a.send_interval(), b.receive_interval());
            prop_assert_eq!(b.send_interval(), a.receive_interval());
        }
    }

    #[test]
    fn packets_that_overtake_each_other_do_no_harm_once_both_are_up(
        (timings, loss) in timings_and_loss(2),
        meticulous: bool,
        seed: u64,
    ) {
        // With one packet less to lose there is an interval to spare for the delay.
        let slowest = |a: Interval, b: Interval| a.max(b).as_duration();
        let quickest = slowest(timings[0].desired_min_tx, timings[1].required_min_rx)
            .min(slowest(timings[1].desired_min_tx, timings[0].required_min_rx));
        // With a multiplier of one there is none, only the tenth that jitter leaves.
        let delay = (Duration::ZERO, quickest / 11);
        let auth = meticulous.then(|| auth::auth(AuthKind::KeyedMd5));
        let ways = loss.map(|loss| Way {
            loss,
            delay,
            duplicates: 20,
            ..Way::perfect(delay.0)
        });
        let mut link = Link::new(sides(timings, auth), ways, seed);
        // Packets of the time before that are still under way take effect.
        let settled = |link: &Link| {
            let in_flight = link.in_flight.values();
            link.both_up() && in_flight.into_iter().all(|(_, packet)| packet.state == State::Up)
        };
        prop_assert!(link.run_until(ms(120_000), settled), "never up");
        let before = link.downs();
        link.run(ms(20_000));
        prop_assert_eq!(link.downs(), before, "{:#?}", link.changes);
    }

    #[test]
    fn a_cut_is_noticed_when_the_detection_time_is_over_and_not_before(
        timings in [any_timing(), any_timing()],
        both: bool,
        at in 3000_u64..6000,
        delay in 0_u64..50,
        seed: u64,
    ) {
        let ways = [0, 1].map(|_| Way::perfect(ms(delay)));
        let mut link = Link::new(sides(timings, None), ways, seed);
        prop_assert!(link.run_until(ms(10_000), Link::both_up), "never up");
        link.run(ms(at));
        prop_assert_eq!(link.downs(), 0);
        link.ways[0].cut = true;
        link.ways[1].cut = both;
        let cut = link.now;
        let time = link.sides[0].detection_time().unwrap();
        let seen = link.run_until(link.now - link.start + time + ms(delay), |link| {
            link.sides[0].state() == State::Down
        });
        prop_assert!(seen, "not noticed within {time:?}");
        let (_, side, change) = link.changes.last().unwrap();
        // One way only: the far side may be told of it before anything else happens.
        let change = if *side == 0 { *change } else { link.changes.iter().rfind(|c| c.1 == 0).unwrap().2 };
        prop_assert_eq!(change.why, Why::DetectionTimeExpired);
        prop_assert!(change.is_failure());
        prop_assert_eq!(link.now, link.heard[0] + time, "not exactly then");
        prop_assert!(link.now >= cut);
        // The far side is told, or notices.
        let far = link.sides[1].detection_time().unwrap_or(ms(2 * delay));
        link.run_until(link.now - link.start + far.max(ms(2 * delay)), |link| {
            link.sides[1].state() != State::Up
        });
        prop_assert!(link.sides[1].state() != State::Up);
        // And back.
        link.run(ms(2000));
        for way in &mut link.ways {
            way.cut = false;
        }
        let back = link.now - link.start;
        // At most a slow interval until somebody speaks, and three trips; the slower of the wishes
        // counts if it is slower still.
        let slow = ms(1500).max(timings[0].desired_min_tx.as_duration());
        prop_assert!(link.run_until(back + slow + ms(4 * delay), Link::both_up), "not back up");
    }
}
