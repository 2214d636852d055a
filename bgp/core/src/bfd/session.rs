//! The session machine (RFC 5880 §6.8).
//!
//! Owns the state variables of §6.8.1, the timers, Poll Sequences and sequence numbers of one
//! session. Does not own the choice of the session for a packet, nor sockets.
//!
//! ```text
//!            +-----------------------+   hears Down    +------+
//!            |         Down          |---------------->| Init |
//!            +-----------------------+<----------------+------+
//!              |  ^        hears AdminDown, or silence   |
//!  hears Init  |  |                                      | hears Init, Up
//!              v  | hears Down, AdminDown, or silence    v
//!            +--------------------------------------------------+
//!            |                        Up                        |
//!            +--------------------------------------------------+
//! ```

use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use super::auth::Auth;
use super::event::{Action, Change, Config, Event, Remote, Timing, Why};
use super::iana::{Diag, State};
use super::interval::{Chance, Interval};
use super::packet::{Discard, Packet};

/// The longest time over which a peer is told AdminDown, when it wishes to hear very seldom.
const LONGEST_FAREWELL: Duration = Duration::from_secs(30);

/// One BFD session. Any sequence of events is valid input.
#[derive(Clone, Debug)]
pub struct Session {
    discriminator: NonZeroU32,
    passive: bool,
    control_plane_independent: bool,
    auth: Option<Auth>,
    timing: Timing,
    /// New timing that waits for the end of the Poll Sequence under way.
    queued: Option<Timing>,
    state: State,
    diag: Diag,
    why: Why,
    remote: Remote,
    /// What packets say (bfd.DesiredMinTxInterval, bfd.RequiredMinRxInterval).
    advertised: Rates,
    /// What is acted upon; differs from what is advertised during a Poll Sequence only.
    in_force: Rates,
    poll: Poll,
    chance: Chance,
    /// bfd.XmitAuthSeq.
    sequence: u32,
    /// bfd.RcvAuthSeq, while bfd.AuthSeqKnown.
    received_sequence: Option<u32>,
    /// The last packet sent, without its authentication section.
    sent: Option<Packet>,
    /// When the last periodic packet, or one that took its place, was sent.
    last_sent: Option<Instant>,
    next_send: Option<Instant>,
    /// The interval by which `next_send` was chosen.
    scheduled: Option<Interval>,
    /// When the last packet came that was not thrown away.
    heard: Option<Instant>,
    /// When silence is long enough to count.
    silent_at: Option<Instant>,
    farewell_until: Option<Instant>,
    finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    tx: Interval,
    rx: Interval,
}

/// RFC 5880 §6.5, §6.8.3: a Final is only clear in meaning if the sequence before it is over, which
/// the first packet without F shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    /// Periodic packets carry P. `again`: what they say has changed since the first of them.
    Active {
        again: bool,
    },
    /// The Final has come, and nothing after it.
    Settling {
        again: bool,
    },
}

impl Session {
    /// A session in state Down, whose first packet is due at once unless it is passive.
    pub fn new(config: Config, now: Instant) -> Self {
        let mut chance = Chance::new(config.seed);
        let rates = Rates {
            tx: config.timing.desired_min_tx.max(Interval::SLOW),
            rx: config.timing.required_min_rx,
        };
        let mut session = Self {
            discriminator: config.discriminator,
            passive: config.passive,
            control_plane_independent: config.control_plane_independent,
            auth: config.auth,
            timing: config.timing,
            queued: None,
            state: State::Down,
            diag: Diag::None,
            why: Why::NeverUp,
            remote: Remote::INITIAL,
            advertised: rates,
            in_force: rates,
            poll: Poll::Idle,
            // RFC 5880 §6.8.1: bfd.XmitAuthSeq begins anywhere.
            sequence: chance.next() as u32,
            chance,
            received_sequence: None,
            sent: None,
            last_sent: None,
            next_send: None,
            scheduled: None,
            heard: None,
            silent_at: None,
            farewell_until: None,
            finished: false,
        };
        session.schedule(now);
        session
    }

    /// bfd.SessionState.
    pub fn state(&self) -> State {
        self.state
    }

    /// bfd.LocalDiag: what packets say about why the session last went down.
    pub fn diag(&self) -> Diag {
        self.diag
    }

    /// What led to the state.
    pub fn why(&self) -> Why {
        self.why
    }

    /// What the peer said last.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Our name for the session.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// As configured last, also where it is not in force yet.
    pub fn timing(&self) -> Timing {
        self.queued.unwrap_or(self.timing)
    }

    /// How often we send, before jitter; `None` while nothing is sent periodically.
    pub fn send_interval(&self) -> Option<Interval> {
        // RFC 5880 §6.1: the passive side waits to be spoken to.
        if self.finished || self.passive && self.remote.discriminator.is_none() {
            return None;
        }
        // RFC 5880 §6.8.7: zero asks for none, and so does a peer in Demand mode, but for polls.
        if self.remote.required_min_rx.is_zero() || self.spared() && !self.polling() {
            return None;
        }
        Some(self.in_force.tx.max(self.remote.required_min_rx))
    }

    /// How often the peer sends, as agreed; `None` while there is no peer.
    pub fn receive_interval(&self) -> Option<Interval> {
        self.remote.discriminator?;
        Some(self.in_force.rx.max(self.remote.desired_min_tx))
    }

    /// How long the peer may be silent (RFC 5880 §6.8.4); `None` while there is no peer.
    pub fn detection_time(&self) -> Option<Duration> {
        self.remote.discriminator?;
        Some(self.last_detection_time())
    }

    /// Whether a Poll Sequence is under way.
    pub fn polling(&self) -> bool {
        matches!(self.poll, Poll::Active { .. })
    }

    /// When [`Self::handle_timeout`] has something to do; `None` while nothing is armed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.next_send, self.silent_at, self.farewell_until];
        timers.into_iter().flatten().min()
    }

    /// Takes in what happened and appends what the shell must do.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Received(packet) => match self.receive(now, &packet, out) {
                Ok(()) => {}
                Err(reason) => out.push(Action::Discarded(reason)),
            },
            Event::Timing(timing) => self.retime(timing),
            Event::Auth(auth) => {
                let kind = |auth: &Option<Auth>| auth.as_ref().map(Auth::kind);
                if kind(&auth) != kind(&self.auth) {
                    self.received_sequence = None;
                }
                self.auth = auth;
            }
            Event::Passive(passive) => self.passive = passive,
            Event::Enable => {
                if self.state == State::AdminDown {
                    self.farewell_until = None;
                    self.finished = false;
                    self.change(State::Down, Diag::None, Why::NeverUp, out);
                    self.send(now, false, out);
                }
            }
            Event::Disable { diag } => {
                if self.state != State::AdminDown {
                    self.change(State::AdminDown, diag, Why::AdminDown(diag), out);
                    self.farewell_until = Some(now + self.farewell());
                    self.send(now, false, out);
                }
            }
        }
        self.schedule(now);
    }

    /// Runs every timer that is due; spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        let due = |timer: Option<Instant>| timer.is_some_and(|at| at <= now);
        if due(self.silent_at) {
            self.silence(now, out);
        }
        if due(self.farewell_until) {
            self.farewell_until = None;
            self.finished = true;
            out.push(Action::Finished);
        }
        // Who has gone took its wish for a slower pace along, so that a packet may be overdue by now.
        self.schedule(now);
        if due(self.next_send) && !self.finished {
            self.send(now, false, out);
            self.schedule(now);
        }
    }

    /// RFC 5880 §6.8.6, from the authentication on.
    fn receive(
        &mut self,
        now: Instant,
        packet: &Packet,
        out: &mut Vec<Action>,
    ) -> Result<(), Discard> {
        self.authenticate(now, packet)?;
        self.remote = Remote {
            discriminator: Some(packet.my_discriminator),
            state: packet.state,
            diag: packet.diag,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            detect_mult: Some(packet.detect_mult),
        };
        self.heard_poll_bits(packet);
        self.heard = Some(now);
        if self.state == State::AdminDown {
            return Err(Discard::AdminDown);
        }
        let changed = self.follow(packet, out);
        // RFC 5880 §6.8.7: a poll is answered at once, whatever else holds; one packet serves for
        // the answer and for the news.
        if packet.poll {
            self.answer(now, changed, out);
        } else if changed {
            self.send(now, false, out);
        }
        Ok(())
    }

    fn authenticate(&mut self, now: Instant, packet: &Packet) -> Result<(), Discard> {
        let Some(auth) = &self.auth else {
            return match packet.auth {
                Some(_) => Err(Discard::AuthUnexpected),
                None => Ok(()),
            };
        };
        // RFC 5880 §6.8.1: after twice the detection time without a packet, any number will do.
        let patience = 2 * self.last_detection_time();
        let forgotten = self
            .heard
            .is_none_or(|heard| now.saturating_duration_since(heard) >= patience);
        let last = self.received_sequence.filter(|_| !forgotten);
        self.received_sequence = auth.verify(packet, last)?;
        Ok(())
    }

    /// The state machine of RFC 5880 §6.8.6; says whether the state changed.
    fn follow(&mut self, packet: &Packet, out: &mut Vec<Action>) -> bool {
        let down = Diag::NeighborSignaledDown;
        let (to, diag, why) = match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) => {
                (State::Down, down, Why::NeighborAdminDown(packet.diag))
            }
            (State::Down, State::AdminDown) => {
                self.why = Why::NeighborAdminDown(packet.diag);
                return false;
            }
            (State::Down, State::Down) => (State::Init, self.diag, self.why),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                (State::Up, Diag::None, Why::Heard)
            }
            (State::Up, State::Down) => (State::Down, down, Why::NeighborSignaledDown(packet.diag)),
            (State::Down, State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up)
            | (State::AdminDown, _) => return false,
        };
        self.change(to, diag, why, out);
        true
    }

    fn heard_poll_bits(&mut self, packet: &Packet) {
        match self.poll {
            Poll::Active { again } if packet.is_final => {
                // RFC 5880 §6.8.3: now the peer knows, and what waited for it takes effect.
                self.in_force = self.advertised;
                self.poll = Poll::Settling { again };
            }
            Poll::Settling { again } if !packet.is_final => {
                self.poll = Poll::Idle;
                if let Some(timing) = self.queued.take() {
                    self.retime(timing);
                }
                if again {
                    self.start_poll();
                }
            }
            Poll::Idle | Poll::Active { .. } | Poll::Settling { .. } => {}
        }
    }

    /// RFC 5880 §6.8.4, §6.8.1: the detection time has passed without a packet.
    fn silence(&mut self, now: Instant, out: &mut Vec<Action>) {
        let went_down = matches!(self.state, State::Init | State::Up);
        if went_down {
            let diag = Diag::DetectionTimeExpired;
            let heard = self.heard;
            let silence = heard.map(|heard| now.saturating_duration_since(heard));
            self.change_after(silence, State::Down, diag, Why::DetectionTimeExpired, out);
        }
        // Who comes next is somebody new, with a name and wishes of its own. Its C bit is kept: the
        // client judges by it what the silence meant.
        self.remote = Remote {
            diag: self.remote.diag,
            control_plane_independent: self.remote.control_plane_independent,
            desired_min_tx: self.remote.desired_min_tx,
            detect_mult: self.remote.detect_mult,
            ..Remote::INITIAL
        };
        self.poll = Poll::Idle;
        self.in_force = self.advertised;
        if went_down {
            self.send(now, false, out);
        }
    }

    fn change(&mut self, to: State, diag: Diag, why: Why, out: &mut Vec<Action>) {
        self.change_after(None, to, diag, why, out);
    }

    fn change_after(
        &mut self,
        silence: Option<Duration>,
        to: State,
        diag: Diag,
        why: Why,
        out: &mut Vec<Action>,
    ) {
        let from = self.state;
        (self.state, self.diag, self.why) = (to, diag, why);
        out.push(Action::Changed(Change {
            from,
            to,
            diag,
            why,
            remote: self.remote,
            silence,
        }));
        if to != State::Up
            && let Some(timing) = self.queued.take()
        {
            self.timing = timing;
        }
        self.advertise();
        // RFC 5880 §6.6: a peer in Demand mode hears of nothing unless polled.
        if self.remote.demand {
            self.start_poll();
        }
    }

    fn retime(&mut self, timing: Timing) {
        if timing == self.timing() {
            return;
        }
        // RFC 5880 §6.8.3: one change per Poll Sequence, or the Final would be ambiguous.
        if self.state == State::Up && self.poll != Poll::Idle {
            self.queued = Some(timing);
            return;
        }
        self.timing = timing;
        self.queued = None;
        // The detect multiplier has a say in the jitter.
        self.scheduled = None;
        self.advertise();
        if self.spared() {
            self.start_poll();
        }
    }

    /// Brings what packets say, and what is acted upon, in line with timing and state.
    fn advertise(&mut self) {
        let up = self.state == State::Up;
        let rates = Rates {
            // RFC 5880 §6.8.3: not faster than once a second while not up.
            tx: if up {
                self.timing.desired_min_tx
            } else {
                self.timing.desired_min_tx.max(Interval::SLOW)
            },
            rx: self.timing.required_min_rx,
        };
        // RFC 5880 §6.8.3: while up, what would make the peer's or our detection time too short
        // waits for the end of the Poll Sequence: sending more slowly, expecting more often.
        if !up || rates.tx < self.in_force.tx {
            self.in_force.tx = rates.tx;
        }
        if !up || rates.rx > self.in_force.rx {
            self.in_force.rx = rates.rx;
        }
        if rates != self.advertised {
            self.advertised = rates;
            self.start_poll();
        }
    }

    /// RFC 5880 §6.5. Without a peer there is nobody to answer, and the first packet that it hears
    /// says it all.
    fn start_poll(&mut self) {
        if self.remote.discriminator.is_none() {
            return;
        }
        self.poll = match self.poll {
            Poll::Idle => Poll::Active { again: false },
            Poll::Active { .. } => Poll::Active { again: true },
            Poll::Settling { .. } => Poll::Settling { again: true },
        };
    }

    /// The detection time of the peer, or of the one that was there last.
    fn last_detection_time(&self) -> Duration {
        let packets = self.remote.detect_mult.map_or(1, NonZeroU8::get);
        let interval = self.in_force.rx.max(self.remote.desired_min_tx);
        interval.as_duration() * u32::from(packets)
    }

    /// Whether Demand mode is active on the peer, so that it must be spared periodic packets (RFC
    /// 5880 §6.6).
    fn spared(&self) -> bool {
        self.remote.demand && self.state == State::Up && self.remote.state == State::Up
    }

    /// RFC 5880 §6.8.16: at least the time after which the peer would have noticed by itself.
    fn farewell(&self) -> Duration {
        if self.last_sent.is_none() {
            return Duration::ZERO;
        }
        let interval = self.advertised.tx.max(self.remote.required_min_rx);
        let packets = u32::from(self.timing.detect_mult.get());
        (interval.as_duration() * packets).min(LONGEST_FAREWELL)
    }

    /// Sends, in place of the next periodic packet.
    fn send(&mut self, now: Instant, is_final: bool, out: &mut Vec<Action>) {
        // RFC 5880 §6.8.7.
        if self.passive && self.remote.discriminator.is_none() {
            return;
        }
        self.last_sent = Some(now);
        (self.next_send, self.scheduled) = (None, None);
        let packet = self.packet(is_final);
        out.push(Action::Send(packet));
    }

    /// Answers a poll. `news` tells whether it takes the place of a periodic packet, too.
    fn answer(&mut self, now: Instant, news: bool, out: &mut Vec<Action>) {
        if news {
            self.send(now, true, out);
        } else {
            let packet = self.packet(true);
            out.push(Action::Send(packet));
        }
    }

    fn packet(&mut self, is_final: bool) -> Packet {
        let mut packet = Packet {
            diag: self.diag,
            state: self.state,
            poll: self.polling() && !is_final,
            is_final,
            control_plane_independent: self.control_plane_independent,
            // RFC 5880 §6.6: we never ask to be spared.
            demand: false,
            detect_mult: self.timing.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.advertised.tx,
            required_min_rx: self.advertised.rx,
            required_min_echo_rx: Interval::ZERO,
            auth: None,
        };
        if let Some(auth) = &self.auth {
            // RFC 5880 §6.7.3: a new number with every packet, or with every packet that differs.
            if auth.kind().is_meticulous() || self.sent != Some(packet) {
                self.sequence = self.sequence.wrapping_add(1);
            }
            self.sent = Some(packet);
            auth.sign(&mut packet, self.sequence);
        }
        packet
    }

    /// Brings the timers in line with the rest.
    fn schedule(&mut self, now: Instant) {
        self.silent_at = self
            .heard
            .zip(self.detection_time())
            .map(|(heard, time)| heard + time);
        let interval = self.send_interval();
        if interval.is_some() && interval == self.scheduled {
            return;
        }
        // RFC 5880 §6.8.3: a new interval counts from the last packet, and one that has passed
        // already makes the next packet due.
        self.next_send = interval.map(|interval| {
            let wait = self.chance.jitter(interval, self.timing.detect_mult.get());
            self.last_sent.map_or(now, |last| (last + wait).max(now))
        });
        self.scheduled = interval;
    }
}
