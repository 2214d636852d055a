//! Tests of one session, of two against each other, and of what packets may look like.

mod auth;
mod demux;
mod limits;
mod packet;
mod pair;
mod poll;
mod property;
mod table;

use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use super::*;

const OURS: NonZeroU32 = NonZeroU32::new(0x1111).unwrap();
const THEIRS: NonZeroU32 = NonZeroU32::new(0x2222).unwrap();

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn timing(tx: u64, rx: u64, mult: u8) -> Timing {
    Timing::new(ms(tx), ms(rx), mult).unwrap()
}

fn config() -> Config {
    Config {
        discriminator: OURS,
        timing: timing(300, 300, 3),
        passive: false,
        auth: None,
        control_plane_independent: true,
        seed: 1,
    }
}

/// What a peer in `state` with the usual timing sends.
fn packet(state: State) -> Packet {
    let up = state == State::Up;
    Packet {
        diag: Diag::None,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: true,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: THEIRS,
        your_discriminator: Some(OURS),
        desired_min_tx: Interval::from_micros(if up { 300_000 } else { 1_000_000 }),
        required_min_rx: Interval::from_micros(300_000),
        required_min_echo_rx: Interval::ZERO,
        auth: None,
    }
}

/// One session and a clock of its own.
struct Bench {
    session: Session,
    now: Instant,
    out: Vec<Action>,
}

impl Bench {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(config, now),
            now,
            out: Vec::new(),
        }
    }

    /// A session that went by the usual way to `state`, and has sent what that takes.
    fn at(state: State) -> Self {
        let mut bench = Self::new(config());
        bench.go_to(state);
        bench
    }

    fn go_to(&mut self, state: State) {
        self.timeout();
        match state {
            State::Down => {}
            State::Init => {
                self.receive(packet(State::Down));
            }
            State::Up => {
                self.receive(packet(State::Down));
                self.receive(packet(State::Up));
            }
            State::AdminDown => {
                let diag = Diag::AdministrativelyDown;
                self.event(Event::Disable { diag });
            }
        }
        assert_eq!(self.session.state(), state);
    }

    /// Up, with the Poll Sequence of coming up over and done with.
    fn settled() -> Self {
        let mut bench = Self::at(State::Up);
        bench.settle();
        bench
    }

    fn settle(&mut self) {
        let answer = Packet {
            is_final: true,
            ..packet(State::Up)
        };
        self.receive(answer);
        self.receive(packet(State::Up));
        assert!(!self.session.polling());
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.session.handle(self.now, event, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn receive(&mut self, packet: Packet) -> Vec<Action> {
        self.event(Event::Received(packet))
    }

    fn timeout(&mut self) -> Vec<Action> {
        self.session.handle_timeout(self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// Runs timers until `end`; the actions with their times from now on.
    fn run(&mut self, length: Duration) -> Vec<(Duration, Action)> {
        let (start, end) = (self.now, self.now + length);
        let mut seen = Vec::new();
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "a timer in the past");
            self.now = due;
            let at = due - start;
            seen.extend(self.timeout().into_iter().map(|action| (at, action)));
        }
        self.now = end;
        seen
    }

    /// The gaps between packets over `length`, while the peer keeps the session alive.
    fn gaps(&mut self, length: Duration, alive: Packet) -> Vec<Duration> {
        let end = self.now + length;
        let mut sent = Vec::new();
        while self.now < end {
            let step = self.session.poll_timeout().unwrap_or(end).min(end);
            self.now = step;
            let actions = self.timeout();
            if actions.iter().any(|a| matches!(a, Action::Send(_))) {
                sent.push(self.now);
            }
            self.receive(alive);
        }
        sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

fn sent(actions: &[Action]) -> Vec<Packet> {
    let packet = |action: &Action| match action {
        Action::Send(packet) => Some(*packet),
        _ => None,
    };
    actions.iter().filter_map(packet).collect()
}

fn changes(actions: &[Action]) -> Vec<Change> {
    let change = |action: &Action| match action {
        Action::Changed(change) => Some(*change),
        _ => None,
    };
    actions.iter().filter_map(change).collect()
}

fn discards(actions: &[Action]) -> Vec<Discard> {
    let discard = |action: &Action| match action {
        Action::Discarded(reason) => Some(*reason),
        _ => None,
    };
    actions.iter().filter_map(discard).collect()
}
