use std::net::IpAddr;

use caracal_bgp_core::bfd::{Interval, Remote};
use proptest::prelude::*;

use super::*;
use crate::config::{AuthConfig, AuthMethod, KeyConfig, SecretConfig};

const HOLD: Duration = Duration::from_secs(600);
const SILENCE: Duration = Duration::from_millis(150);

struct Bench {
    registry: Registry,
    now: Moment,
    orders: Vec<Order>,
}

fn key(last: u8) -> SessionKey {
    SessionKey::single_hop(None, IpAddr::from([10, 0, 0, last]), None)
}

fn config(last: u8) -> SessionConfig {
    SessionConfig::new(key(last))
}

fn spec(config: &SessionConfig) -> Spec {
    config.check().unwrap()
}

fn remote(state: State) -> Remote {
    Remote {
        discriminator: None,
        state,
        diag: Diag::None,
        demand: false,
        control_plane_independent: true,
        desired_min_tx: Interval::ZERO,
        required_min_rx: Interval::ZERO,
        detect_mult: None,
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            registry: Registry::new(HOLD),
            now: Moment::now(),
            orders: Vec::new(),
        }
    }

    fn wait(&mut self, seconds: u64) {
        let time = Duration::from_secs(seconds);
        self.now.at += time;
        self.now.unix += time;
    }

    fn orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    fn apply(&mut self, owner: &str, configs: &[SessionConfig]) -> Applied {
        self.registry
            .apply(self.now, owner, configs, &mut self.orders)
    }

    fn add(&mut self, owner: &str, config: &SessionConfig) -> Applied {
        self.registry.add(self.now, owner, config, &mut self.orders)
    }

    fn remove(&mut self, owner: &str, last: u8) {
        self.registry.remove(owner, &key(last), &mut self.orders);
    }

    fn left(&mut self, owner: &str) {
        self.registry.owner_left(self.now, owner);
    }

    fn timeout(&mut self) -> Vec<(SessionKey, String)> {
        self.registry.handle_timeout(self.now, &mut self.orders)
    }

    fn changed(&mut self, last: u8, number: u64, to: State) {
        let (from, why) = match to {
            State::Up => (State::Down, Why::Heard),
            _ => (State::Up, Why::DetectionTimeExpired),
        };
        let change = Change {
            from,
            to,
            diag: Diag::None,
            why,
            remote: remote(to),
            silence: (why == Why::DetectionTimeExpired).then_some(SILENCE),
        };
        let transition = Transition {
            number,
            at: self.now.at,
            change,
        };
        self.registry.changed(self.now, &key(last), transition);
    }
}

fn adopted(applied: &Applied) -> Vec<(SessionKey, bool)> {
    let adopted = applied.sessions.iter();
    adopted.map(|s| (s.key.clone(), s.existed)).collect()
}

#[test]
fn an_owner_gets_what_it_names_and_loses_what_it_does_not() {
    let mut bench = Bench::new();
    let applied = bench.apply("node", &[config(1), config(2)]);
    assert_eq!(adopted(&applied), [(key(1), false), (key(2), false)]);
    let set = |last| Order::Set(key(last), spec(&config(last)));
    assert_eq!(bench.orders(), [set(1), set(2)]);

    let applied = bench.apply("node", &[config(2), config(3)]);
    assert_eq!(adopted(&applied), [(key(2), true), (key(3), false)]);
    assert_eq!(bench.orders(), [set(3), Order::Remove(key(1))]);

    // The same again is nothing to do.
    bench.apply("node", &[config(3), config(2)]);
    assert_eq!(bench.orders(), []);

    let faster = SessionConfig {
        desired_min_tx_us: 50_000,
        ..config(2)
    };
    bench.apply("node", &[faster.clone(), config(3)]);
    assert_eq!(bench.orders(), [Order::Set(key(2), spec(&faster))]);

    bench.remove("node", 3);
    bench.remove("node", 3);
    bench.remove("node", 9);
    assert_eq!(bench.orders(), [Order::Remove(key(3))]);
    bench.add("node", &config(4));
    assert_eq!(bench.orders(), [set(4)]);
}

#[test]
fn a_session_of_two_owners_serves_the_more_demanding_and_lives_as_long_as_either_wants() {
    let mut bench = Bench::new();
    let tuned = |tx, rx, mult| SessionConfig {
        desired_min_tx_us: tx,
        required_min_rx_us: rx,
        detect_mult: mult,
        ..config(1)
    };
    let (slow, fast) = (tuned(300_000, 100_000, 5), tuned(50_000, 500_000, 3));
    bench.add("node", &slow);
    bench.orders();
    let applied = bench.add("speaker", &fast);
    assert_eq!(adopted(&applied), [(key(1), true)]);
    let both = spec(&tuned(50_000, 100_000, 3));
    assert_eq!(bench.orders(), [Order::Set(key(1), both)]);
    bench.apply("speaker", &[]);
    assert_eq!(bench.orders(), [Order::Set(key(1), spec(&slow))]);
    bench.remove("node", 1);
    assert_eq!(bench.orders(), [Order::Remove(key(1))]);
}

#[test]
fn two_owners_must_agree_on_keys_and_the_first_keeps_what_it_has() {
    let mut bench = Bench::new();
    let keyed = |secret: &str| SessionConfig {
        auth: Some(AuthConfig {
            method: AuthMethod::KeyedSha1,
            send_key: 1,
            keys: vec![KeyConfig {
                id: 1,
                secret: SecretConfig::Text(secret.to_owned()),
            }],
        }),
        ..config(1)
    };
    bench.add("node", &keyed("one"));
    bench.orders();
    for other in [keyed("two"), config(1)] {
        let applied = bench.add("speaker", &other);
        assert!(applied.refused[0].why.contains("other keys"), "{applied:?}");
    }
    assert_eq!(bench.orders(), []);
    bench.add("speaker", &keyed("one"));
    // Alone, an owner may change them.
    bench.remove("speaker", 1);
    bench.add("node", &keyed("two"));
    assert_eq!(bench.orders(), [Order::Set(key(1), spec(&keyed("two")))]);
}

#[test]
fn sessions_of_an_owner_that_is_away_stay_for_the_hold_time() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1), config(2)]);
    bench.add("speaker", &config(2));
    bench.orders();
    assert_eq!(bench.registry.poll_timeout(), None);
    bench.left("node");
    let due = bench.registry.poll_timeout().unwrap();
    assert_eq!(due - bench.now.at, HOLD);
    bench.wait(599);
    assert_eq!(bench.timeout(), []);
    let (owners, ..) = bench.registry.describe(bench.now, &key(1)).unwrap();
    assert_eq!(owners[0].forgotten_in_s, Some(1));
    bench.wait(1);
    let node = "node".to_owned();
    assert_eq!(bench.timeout(), [(key(1), node.clone()), (key(2), node)]);
    // The other one has an owner that is still there.
    assert_eq!(bench.orders(), [Order::Remove(key(1))]);
    assert_eq!(bench.registry.poll_timeout(), None);
}

#[test]
fn an_owner_that_returns_learns_what_it_missed_and_what_it_does_not_name_goes_on_ageing() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1), config(2), config(3)]);
    bench.orders();
    bench.changed(1, 1, State::Up);
    bench.left("node");
    bench.wait(100);
    bench.changed(1, 2, State::Down);
    bench.wait(1);
    bench.changed(1, 3, State::Up);
    bench.wait(9);
    let applied = bench.add("node", &config(1));
    let session = &applied.sessions[0];
    assert!(session.existed);
    assert_eq!(session.standing.state, State::Up);
    assert_eq!(session.standing.age_us, 9_000_000);
    let missed: Vec<_> = session
        .missed
        .iter()
        .map(|event| (event.standing.state, event.failure, event.standing.age_us))
        .collect();
    let down = (State::Down, true, 10_000_000);
    assert_eq!(missed, [down, (State::Up, false, 9_000_000)]);
    assert_eq!(bench.orders(), []);
    // Told once.
    assert_eq!(bench.add("node", &config(1)).sessions[0].missed, []);
    bench.wait(490);
    let forgotten: Vec<_> = bench.timeout().into_iter().map(|(key, _)| key).collect();
    assert_eq!(forgotten, [key(2), key(3)]);
}

#[test]
fn a_second_absence_before_the_first_is_over_counts_from_the_first() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1)]);
    bench.left("node");
    bench.changed(1, 1, State::Up);
    bench.wait(500);
    // It came, and left again before it named anything.
    bench.left("node");
    bench.wait(50);
    let applied = bench.add("node", &config(1));
    assert_eq!(applied.sessions[0].missed.len(), 1);
    bench.left("node");
    bench.wait(599);
    assert_eq!(bench.timeout(), []);
}

#[test]
fn of_a_long_history_the_end_is_kept_and_the_rest_is_counted() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1)]);
    bench.left("node");
    for number in 1..=50 {
        let state = [State::Down, State::Up][usize::from(number % 2 == 1)];
        bench.changed(1, number, state);
    }
    let applied = bench.add("node", &config(1));
    let session = &applied.sessions[0];
    let numbers = session
        .missed
        .iter()
        .map(|event| event.standing.transitions);
    assert!(numbers.eq(35..=50));
    assert_eq!(session.missed_more, 34);
}

#[test]
fn who_was_not_told_of_all_changes_learns_of_the_latest_failure_of_each_session() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1), config(2), config(3)]);
    for number in 1..=5 {
        let state = [State::Down, State::Up][usize::from(number % 2 == 1)];
        bench.changed(1, number, state);
    }
    bench.changed(2, 1, State::Up);
    let told = bench.registry.standings(bench.now).into_iter();
    let told = told.map(|session| {
        let missed = session.missed.into_iter();
        let failures: Vec<_> = missed
            .map(|event| (event.standing.transitions, event.failure))
            .collect();
        (session.key, session.standing.state, failures)
    });
    let expected = [
        (key(1), State::Up, vec![(4, true)]),
        (key(2), State::Up, vec![]),
        (key(3), State::Down, vec![]),
    ];
    assert!(told.eq(expected));
}

#[test]
fn a_session_on_its_way_out_is_taken_back_and_counts_as_new() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1)]);
    bench.apply("node", &[]);
    bench.orders();
    let applied = bench.add("node", &config(1));
    assert_eq!(adopted(&applied), [(key(1), false)]);
    assert_eq!(bench.orders(), [Order::Set(key(1), spec(&config(1)))]);
}

#[test]
fn what_has_ended_is_forgotten_unless_somebody_wants_it_again() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1)]);
    bench.changed(1, 1, State::Up);
    bench.apply("node", &[]);
    assert!(bench.registry.describe(bench.now, &key(1)).is_some());
    bench.registry.gone(bench.now, &key(1));
    assert!(bench.registry.describe(bench.now, &key(1)).is_none());
    // Wanted again while the end was on its way here: a new session.
    bench.apply("node", &[config(1)]);
    bench.changed(1, 1, State::Up);
    bench.apply("node", &[]);
    bench.apply("node", &[config(1)]);
    bench.registry.gone(bench.now, &key(1));
    let (_, standing, history) = bench.registry.describe(bench.now, &key(1)).unwrap();
    assert_eq!((standing.state, standing.transitions), (State::Down, 0));
    assert_eq!(history, []);
}

#[test]
fn a_mistake_in_new_parameters_leaves_the_old_ones() {
    let mut bench = Bench::new();
    bench.apply("node", &[config(1), config(2)]);
    bench.orders();
    bench.left("node");
    let mistaken = SessionConfig {
        detect_mult: 0,
        ..config(1)
    };
    let applied = bench.apply("node", &[mistaken, config(2), config(2)]);
    let why: Vec<_> = applied
        .refused
        .iter()
        .map(|refused| &*refused.why)
        .collect();
    let zero = "a detect multiplier of zero would never see a peer up";
    assert_eq!(why, [zero, "the request names this session twice"]);
    // Also for the hold time: it has been named.
    assert_eq!(bench.registry.poll_timeout(), None);
    assert_eq!(bench.orders(), []);
}

#[test]
fn there_is_a_limit_and_it_is_said() {
    let mut bench = Bench::new();
    let many: Vec<SessionConfig> = (0..MAX_SESSIONS + 1)
        .map(|n| {
            let [_, _, high, low] = u32::try_from(n).unwrap().to_be_bytes();
            SessionConfig::new(SessionKey::single_hop(
                None,
                IpAddr::from([10, 1, high, low]),
                None,
            ))
        })
        .collect();
    let applied = bench.apply("node", &many);
    assert_eq!(applied.sessions.len(), MAX_SESSIONS);
    assert_eq!(applied.refused[0].why, "there are 4096 sessions already");
}

#[derive(Clone, Debug)]
enum Op {
    Apply(usize, Vec<u8>),
    Add(usize, u8),
    Remove(usize, u8),
    Left(usize),
    Wait(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    let keys = prop::collection::vec(0_u8..5, 0..5);
    prop_oneof![
        (0_usize..3, keys).prop_map(|(owner, keys)| Op::Apply(owner, keys)),
        (0_usize..3, 0_u8..5).prop_map(|(owner, key)| Op::Add(owner, key)),
        (0_usize..3, 0_u8..5).prop_map(|(owner, key)| Op::Remove(owner, key)),
        (0_usize..3).prop_map(Op::Left),
        (0_u64..700).prop_map(Op::Wait),
    ]
}

proptest! {
    /// What the engine is told to run is what somebody wants, and was not away for too long.
    #[test]
    fn what_runs_is_what_is_wanted(ops in prop::collection::vec(any_op(), 0..60)) {
        const OWNERS: [&str; 3] = ["a", "b", "c"];
        let mut bench = Bench::new();
        let mut wanted: BTreeMap<(usize, u8), Option<Instant>> = BTreeMap::new();
        let mut running = BTreeSet::new();
        for op in ops {
            match op {
                Op::Apply(owner, keys) => {
                    let keys: BTreeSet<u8> = keys.into_iter().collect();
                    let configs: Vec<_> = keys.iter().map(|key| config(*key)).collect();
                    bench.apply(OWNERS[owner], &configs);
                    wanted.retain(|(other, _), _| *other != owner);
                    wanted.extend(keys.into_iter().map(|key| ((owner, key), None)));
                }
                Op::Add(owner, key) => {
                    bench.add(OWNERS[owner], &config(key));
                    wanted.insert((owner, key), None);
                }
                Op::Remove(owner, key) => {
                    bench.remove(OWNERS[owner], key);
                    wanted.remove(&(owner, key));
                }
                Op::Left(owner) => {
                    bench.left(OWNERS[owner]);
                    for (_, away) in wanted.iter_mut().filter(|((other, _), _)| *other == owner) {
                        away.get_or_insert(bench.now.at);
                    }
                }
                Op::Wait(seconds) => {
                    bench.wait(seconds);
                    bench.timeout();
                    wanted.retain(|_, away| away.is_none_or(|since| since + HOLD > bench.now.at));
                }
            }
            for order in bench.orders() {
                match order {
                    Order::Set(key, _) => {
                        running.insert(key);
                    }
                    Order::Remove(key) => prop_assert!(running.remove(&key), "{} twice", key),
                }
            }
            let expected: BTreeSet<_> = wanted.keys().map(|(_, last)| key(*last)).collect();
            prop_assert_eq!(&running, &expected);
        }
    }
}
