//! Two machines over a simulated network: virtual time, latency, loss, simultaneous open.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What is on its way to one side.
#[derive(Clone, Debug)]
enum Delivery {
    Event(Event),
    /// The answer to the dial of this number; void when that was replaced or cancelled.
    Dialled(u64, Event),
}

struct Side {
    peer: Peer,
    dial: u64,
    ups: usize,
    /// UPDATEs that the machine said to hand to the RIB.
    delivered: usize,
    downs: Vec<DownWhy>,
    on: Option<ConnId>,
}

struct Network {
    now: Instant,
    start: Instant,
    sides: [Side; 2],
    in_flight: BTreeMap<(Instant, u64), (usize, Delivery)>,
    /// When the last octet towards a side arrives, by connection: TCP keeps order.
    last_arrival: BTreeMap<(ConnId, usize), Instant>,
    /// Connections that are gone on a side.
    dead: Vec<(ConnId, usize)>,
    sequence: u64,
    random: u64,
    /// One-way delay, in microseconds from and to.
    latency: (u64, u64),
    /// Of 100 dials, how many are lost.
    dial_loss: u64,
    partitioned: bool,
}

impl Network {
    fn new(configs: [Config; 2], seed: u64, latency: (u64, u64), dial_loss: u64) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            start,
            sides: configs.map(|config| Side {
                peer: Peer::new(config),
                dial: 0,
                ups: 0,
                delivered: 0,
                downs: Vec::new(),
                on: None,
            }),
            in_flight: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            dead: Vec::new(),
            sequence: 0,
            random: seed,
            latency,
            dial_loss,
            partitioned: false,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below.max(1)
    }

    fn delay(&mut self) -> Duration {
        let spread = self.random(self.latency.1 - self.latency.0 + 1);
        Duration::from_micros(self.latency.0 + spread)
    }

    fn deliver(&mut self, at: Instant, side: usize, delivery: Delivery) {
        self.sequence += 1;
        self.in_flight.insert((at, self.sequence), (side, delivery));
    }

    /// Something in order on a connection, towards `side`.
    fn stream(&mut self, conn: ConnId, side: usize, event: Event) {
        if self.partitioned || self.dead.contains(&(conn, side)) {
            return;
        }
        let delay = self.delay();
        let earliest = self.last_arrival.get(&(conn, side)).copied();
        let at = earliest.map_or(self.now + delay, |last| last.max(self.now + delay));
        self.last_arrival.insert((conn, side), at);
        self.deliver(at, side, Delivery::Event(event));
    }

    fn inject(&mut self, side: usize, event: Event) {
        let mut out = Vec::new();
        let now = self.now;
        self.sides[side].peer.handle(now, event, &mut out);
        self.perform(side, out);
    }

    fn perform(&mut self, side: usize, actions: Vec<Action>) {
        let far = 1 - side;
        for action in actions {
            match action {
                Action::Dial => self.dial(side),
                Action::CancelDial => self.sides[side].dial += 1,
                Action::Send { conn, message } => {
                    let message = Incoming::from(message);
                    self.stream(conn, far, Event::Received { conn, message });
                }
                Action::Close { conn } => {
                    self.dead.push((conn, side));
                    let why = CloseWhy::Eof;
                    self.stream(conn, far, Event::Closed { conn, why });
                }
                Action::Up { conn, .. } => {
                    self.sides[side].ups += 1;
                    self.sides[side].on = Some(conn);
                    // The RIB has something to say, at least End-of-RIB.
                    let message = Incoming::Update;
                    self.stream(conn, far, Event::Received { conn, message });
                }
                Action::Down { why, .. } => {
                    self.sides[side].downs.push(why);
                    self.sides[side].on = None;
                }
                Action::Deliver { conn } => {
                    assert_eq!(self.sides[side].on, Some(conn));
                    self.sides[side].delivered += 1;
                }
                Action::DropRetained | Action::Note(_) => {}
            }
        }
    }

    fn dial(&mut self, side: usize) {
        self.sides[side].dial += 1;
        let number = self.sides[side].dial;
        if self.partitioned || self.random(100) < self.dial_loss {
            return;
        }
        self.sequence += 1;
        let conn = ConnId(self.sequence);
        let (there, back) = (self.delay(), self.delay());
        let accepted = Event::Connected {
            conn,
            role: Role::Passive,
        };
        let answered = Event::Connected {
            conn,
            role: Role::Active,
        };
        let at = self.now + there;
        self.last_arrival.insert((conn, side), at + back);
        self.last_arrival.insert((conn, 1 - side), at);
        self.deliver(at, 1 - side, Delivery::Event(accepted));
        self.deliver(at + back, side, Delivery::Dialled(number, answered));
    }

    fn step(&mut self) {
        let timers = self
            .sides
            .iter()
            .filter_map(|side| side.peer.poll_timeout());
        let timer = timers.min();
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        if arrival.is_some_and(|at| timer.is_none_or(|timer| at <= timer)) {
            let ((at, _), (side, delivery)) = self.in_flight.pop_first().unwrap();
            self.now = self.now.max(at);
            self.arrive(side, delivery);
            return;
        }
        let Some(at) = timer else {
            panic!("nothing will ever happen again");
        };
        self.now = self.now.max(at);
        for side in 0..2 {
            let mut out = Vec::new();
            let now = self.now;
            self.sides[side].peer.handle_timeout(now, &mut out);
            self.perform(side, out);
        }
    }

    fn arrive(&mut self, side: usize, delivery: Delivery) {
        match delivery {
            Delivery::Event(event) => self.inject(side, event),
            Delivery::Dialled(number, event) if number == self.sides[side].dial => {
                self.inject(side, event);
            }
            Delivery::Dialled(_, Event::Connected { conn, .. }) => {
                // The kernel completed a dial that is no longer wanted and closes it.
                self.dead.push((conn, side));
                let why = CloseWhy::Eof;
                self.stream(conn, 1 - side, Event::Closed { conn, why });
            }
            Delivery::Dialled(..) => {}
        }
    }

    fn run_until(&mut self, end: Duration, done: impl Fn(&Self) -> bool) -> bool {
        while self.now - self.start < end {
            if done(self) {
                return true;
            }
            self.step();
        }
        done(self)
    }

    /// Each side came up once, stayed up, and has heard what the other had to say.
    fn up_once(&self) -> bool {
        let once = |side: &Side| side.ups == 1 && side.delivered == 1 && side.downs.is_empty();
        self.agreed() && self.sides.iter().all(once)
    }

    fn agreed(&self) -> bool {
        self.sides[0].on.is_some() && self.sides[0].on == self.sides[1].on
    }

    fn show(&self) -> String {
        let show = |side: &Side| {
            let (state, ups, delivered) = (side.peer.state(), side.ups, side.delivered);
            format!(
                "{state:?} {:?}, {ups} up, {delivered} delivered, {:?}",
                side.on, side.downs
            )
        };
        format!(
            "after {:?}: {} | {}",
            self.now - self.start,
            show(&self.sides[0]),
            show(&self.sides[1])
        )
    }
}

fn configs(ids: (u32, u32), seed: u64) -> [Config; 2] {
    let mut left = config();
    left.router_id = RouterId(ids.0);
    left.jitter_seed = seed;
    left.hold_time = Duration::from_secs(9);
    let mut right = left.clone();
    right.router_id = RouterId(ids.1);
    right.local_asn = left.peer_asn.number().unwrap();
    right.peer_asn = left.local_asn.into();
    right.jitter_seed = seed ^ 0xdead_beef;
    [left, right]
}

fn restarting_configs(ids: (u32, u32), seed: u64, restarting: (bool, bool)) -> [Config; 2] {
    let mut configs = configs(ids, seed);
    for (config, restarting) in configs.iter_mut().zip([restarting.0, restarting.1]) {
        config.graceful_restart.as_mut().unwrap().restarting = restarting;
    }
    configs
}

fn start_both(network: &mut Network, gap: Duration) {
    network.inject(0, Event::Admin(Admin::Up));
    network.now += gap;
    network.inject(1, Event::Admin(Admin::Up));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn two_speakers_agree_on_one_connection_and_stay_on_it(
        seed in any::<u64>(),
        ids in (1..50_u32, 1..50_u32),
        restarting in any::<(bool, bool)>(),
        gap in 0..300_000_u64,
        least in 1..50_000_u64,
        spread in 0..100_000_u64,
        loss in prop_oneof![Just(0), 0..60_u64],
    ) {
        let latency = (least, least + spread);
        let configs = restarting_configs(ids, seed, restarting);
        let mut network = Network::new(configs, seed, latency, loss);
        start_both(&mut network, Duration::from_micros(gap));
        let up = network.run_until(Duration::from_secs(60), Network::agreed);
        prop_assert!(up, "{}", network.show());
        network.run_until(Duration::from_secs(400), |_| false);
        prop_assert!(network.up_once(), "{}", network.show());
    }

    #[test]
    fn a_partition_ends_the_session_and_its_end_brings_it_back(
        seed in any::<u64>(),
        ids in (1..50_u32, 1..50_u32),
        length in 1..120_u64,
    ) {
        let mut network = Network::new(configs(ids, seed), seed, (100, 5000), 0);
        start_both(&mut network, Duration::ZERO);
        prop_assert!(network.run_until(Duration::from_secs(60), Network::agreed));
        network.partitioned = true;
        let heal = network.now - network.start + Duration::from_secs(length);
        network.run_until(heal, |_| false);
        if length > 10 {
            prop_assert!(network.sides.iter().all(|side| side.on.is_none()));
        }
        network.partitioned = false;
        // Octets lost in the partition are not sent again here, so a session that outlived it
        // is as good as ever: only its keepalives were missed.
        let deadline = heal + Duration::from_secs(60);
        prop_assert!(network.run_until(deadline, Network::agreed), "{}", network.show());
    }
}

#[test]
fn without_loss_a_session_is_up_within_two_seconds_of_the_later_start() {
    for seed in 0..200 {
        let ids = (20, if seed % 2 == 0 { 10 } else { 30 });
        let mut network = Network::new(configs(ids, seed), seed, (50, 300), 0);
        start_both(&mut network, Duration::ZERO);
        let up = network.run_until(Duration::from_secs(2), Network::agreed);
        assert!(up, "seed {seed}: {}", network.show());
    }
}

#[test]
fn simultaneous_dials_bring_each_side_up_exactly_once_whatever_the_latency() {
    let mut wrong = Vec::new();
    for seed in 0..4000_u64 {
        let ids = (20, [10, 20, 30][(seed % 3) as usize]);
        // Links of one room up to ones around the globe, steady and not.
        let least = 1 << (seed % 17);
        let latency = (least, least * [1, 2, 20][(seed / 17 % 3) as usize]);
        let latency = (least, latency.1.min(200_000));
        let restarting = (seed & 4 != 0, seed & 8 != 0);
        let configs = restarting_configs(ids, seed, restarting);
        let mut network = Network::new(configs, seed, latency, 0);
        let gap = network.random(3 * latency.1);
        start_both(&mut network, Duration::from_micros(gap));
        network.run_until(Duration::from_secs(30), |_| false);
        if !network.up_once() {
            let show = network.show();
            wrong.push(format!(
                "seed {seed}, latency {latency:?}, gap {gap}: {show}"
            ));
        }
    }
    let few = &wrong[..wrong.len().min(5)];
    assert!(wrong.is_empty(), "{} of 4000: {few:#?}", wrong.len());
}
