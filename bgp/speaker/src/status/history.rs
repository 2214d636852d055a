//! What happened last in a session: a ring of events and a ring of messages.
//!
//! Owns the records and their bound. Does not own their meaning. Records are made where messages
//! pass, so they are small and take their words only when somebody asks.

use std::collections::VecDeque;

use caracal_bgp_core::fsm::{DownWhy, State};
use caracal_bgp_core::types::Family;
use caracal_bgp_core::wire::{Notification, Open, RouteRefresh};
use serde::{Deserialize, Serialize};

use crate::status::counters::Direction;

/// Records kept of each kind.
const DEPTH: usize = 128;
/// Octets kept of a message that was faulty.
const EXCERPT: usize = 128;

/// What happened to a session.
#[derive(Clone, Debug)]
pub(crate) enum EventNote {
    State { from: State, to: State },
    AttemptFailed(DownWhy),
    Down(DownWhy),
    Other(String),
}

/// A message that passed.
#[derive(Clone, Debug)]
pub(crate) enum MessageNote {
    Open(Box<Open>),
    Update(UpdateNote),
    /// Messages with routes, written together.
    Routes(u32),
    Notification(Notification),
    Keepalive,
    Refresh(RouteRefresh),
    Malformed(Box<Malformed>),
}

/// What an UPDATE held.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UpdateNote {
    pub(crate) announced: u32,
    pub(crate) withdrawn: u32,
    pub(crate) end_of_rib: Option<Family>,
}

/// A message with a fault.
#[derive(Clone, Debug)]
pub(crate) struct Malformed {
    /// What was wrong and what it cost.
    why: String,
    /// The beginning of its body.
    excerpt: Vec<u8>,
}

impl MessageNote {
    pub(crate) fn malformed(why: String, body: &[u8]) -> Self {
        Self::Malformed(Box::new(Malformed {
            why,
            excerpt: body[..body.len().min(EXCERPT)].to_vec(),
        }))
    }
}

/// The last events and messages of one peer.
#[derive(Debug, Default)]
pub(crate) struct History {
    events: VecDeque<Happened>,
    messages: VecDeque<Passed>,
}

#[derive(Debug)]
struct Happened {
    at_ms: u64,
    note: EventNote,
    /// Attempts in a row that failed alike count as one record.
    times: u32,
}

#[derive(Debug)]
struct Passed {
    at_ms: u64,
    direction: Direction,
    octets: u32,
    note: MessageNote,
    /// Keepalives in a row count as one record.
    times: u32,
}

impl History {
    pub(crate) fn event(&mut self, at_ms: u64, note: EventNote) {
        if let EventNote::AttemptFailed(why) = &note
            && let Some(alike) = self.alike(why)
        {
            self.events.truncate(alike + 1);
            let first = &mut self.events[alike];
            (first.at_ms, first.times) = (at_ms, first.times.saturating_add(1));
            return;
        }
        let times = 1;
        let happened = Happened { at_ms, note, times };
        push(&mut self.events, happened);
    }

    /// The last attempt, if it failed alike and nothing has happened since but another attempt: a
    /// peer that is away for an hour must not push out how it went.
    fn alike(&self, why: &DownWhy) -> Option<usize> {
        for (at, happened) in self.events.iter().enumerate().rev() {
            match &happened.note {
                EventNote::State { from, to } if up(*from) || up(*to) => return None,
                EventNote::State { .. } => {}
                EventNote::AttemptFailed(before) => return (before == why).then_some(at),
                EventNote::Down(_) | EventNote::Other(_) => return None,
            }
        }
        None
    }

    pub(crate) fn message(
        &mut self,
        at_ms: u64,
        direction: Direction,
        octets: usize,
        note: MessageNote,
    ) {
        let alike = |last: &Passed| {
            last.direction == direction && matches!(last.note, MessageNote::Keepalive)
        };
        if matches!(note, MessageNote::Keepalive)
            && let Some(last) = self
                .messages
                .iter_mut()
                .rev()
                .take(2)
                .find(|last| alike(last))
        {
            last.times += 1;
            last.at_ms = at_ms;
            return;
        }
        let passed = Passed {
            at_ms,
            direction,
            octets: u32::try_from(octets).unwrap_or(u32::MAX),
            note,
            times: 1,
        };
        push(&mut self.messages, passed);
    }

    pub(crate) fn snapshot(&self) -> HistorySnapshot {
        let events = self.events.iter().map(|happened| EventRecord {
            at_ms: happened.at_ms,
            text: match (event_text(&happened.note), happened.times) {
                (text, 1) => text,
                (text, times) => format!("{text} ({times} times)"),
            },
        });
        let messages = self.messages.iter().map(|passed| MessageRecord {
            at_ms: passed.at_ms,
            direction: passed.direction,
            octets: passed.octets,
            kind: kind(&passed.note).to_owned(),
            text: message_text(&passed.note, passed.times),
        });
        HistorySnapshot {
            events: events.collect(),
            messages: messages.collect(),
        }
    }
}

fn up(state: State) -> bool {
    state == State::Established
}

fn push<T>(ring: &mut VecDeque<T>, record: T) {
    if ring.len() == DEPTH {
        ring.pop_front();
    }
    ring.push_back(record);
}

fn event_text(note: &EventNote) -> String {
    match note {
        EventNote::State { from, to } => format!("{from:?} -> {to:?}"),
        EventNote::AttemptFailed(why) => format!("attempt failed: {why}"),
        EventNote::Down(why) => format!("session ended: {why}"),
        EventNote::Other(text) => text.clone(),
    }
}

fn kind(note: &MessageNote) -> &'static str {
    match note {
        MessageNote::Open(_) => "OPEN",
        MessageNote::Update(_) | MessageNote::Routes(_) => "UPDATE",
        MessageNote::Notification(_) => "NOTIFICATION",
        MessageNote::Keepalive => "KEEPALIVE",
        MessageNote::Refresh(_) => "ROUTE-REFRESH",
        MessageNote::Malformed(_) => "MALFORMED",
    }
}

fn message_text(note: &MessageNote, times: u32) -> String {
    match note {
        MessageNote::Open(open) => format!(
            "AS {}, identifier {}, hold time {} s, {} capabilities",
            open.asn,
            open.router_id,
            open.hold_time.as_secs(),
            open.capabilities.len()
        ),
        MessageNote::Update(UpdateNote {
            end_of_rib: Some(family),
            ..
        }) => format!("End-of-RIB {family}"),
        MessageNote::Update(update) => format!(
            "{} announced, {} withdrawn",
            update.announced, update.withdrawn
        ),
        MessageNote::Routes(1) => String::new(),
        MessageNote::Routes(count) => format!("{count} messages"),
        MessageNote::Notification(notification) => notification.to_string(),
        MessageNote::Keepalive if times > 1 => format!("{times} times"),
        MessageNote::Keepalive => String::new(),
        MessageNote::Refresh(refresh) => format!("{:?} of {}", refresh.kind, refresh.family),
        MessageNote::Malformed(malformed) => {
            let hex = malformed.excerpt.iter().map(|octet| format!("{octet:02x}"));
            format!("{}: {}", malformed.why, hex.collect::<String>())
        }
    }
}

/// The last events and messages of one peer, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistorySnapshot {
    /// What happened to the session.
    pub events: Vec<EventRecord>,
    /// What was said.
    pub messages: Vec<MessageRecord>,
}

/// One thing that happened, or several attempts in a row that failed alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When, of several the last, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What, for people.
    pub text: String,
}

/// One message, or several of a kind in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// When the last of them passed, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who sent it.
    pub direction: Direction,
    /// Octets of the first of them.
    pub octets: u32,
    /// The type, as the RFC writes it.
    pub kind: String,
    /// What it said, for people.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_are_kept_and_keepalives_in_a_row_are_one() {
        let mut history = History::default();
        for at in 0..300 {
            let update = UpdateNote {
                announced: at,
                ..UpdateNote::default()
            };
            history.message(
                at.into(),
                Direction::Received,
                23,
                MessageNote::Update(update),
            );
            history.event(at.into(), EventNote::Other(at.to_string()));
        }
        for at in 300..400 {
            for direction in [Direction::Sent, Direction::Received] {
                history.message(at, direction, 19, MessageNote::Keepalive);
            }
        }
        let seen = history.snapshot();
        assert_eq!((seen.events.len(), seen.messages.len()), (DEPTH, DEPTH));
        assert_eq!(seen.events[0].text, "172");
        let last = &seen.messages[DEPTH - 1];
        assert_eq!(
            (last.at_ms, last.kind.as_str(), last.text.as_str()),
            (399, "KEEPALIVE", "100 times")
        );
        assert_eq!(seen.messages[DEPTH - 3].text, "299 announced, 0 withdrawn");
    }

    #[test]
    fn a_peer_that_stays_away_does_not_push_out_how_it_went() {
        let mut history = History::default();
        let state = |from, to| EventNote::State { from, to };
        history.event(0, state(State::Established, State::Idle));
        history.event(0, EventNote::Down(DownWhy::HoldTimerExpired));
        for at in 1..500 {
            history.event(at, state(State::Active, State::Connect));
            history.event(at, state(State::Connect, State::Active));
            let why = match at {
                1..400 => DownWhy::PeerRestarted,
                _ => DownWhy::CollisionLost,
            };
            history.event(at, EventNote::AttemptFailed(why));
        }
        let seen = history.snapshot().events;
        let times: Vec<&str> = seen
            .iter()
            .filter_map(|event| event.text.rsplit_once(" (").map(|(_, times)| times))
            .collect();
        assert_eq!(times, ["399 times)", "100 times)"], "{seen:#?}");
        assert_eq!(seen[0].text, "Established -> Idle");
        assert_eq!(seen.last().map(|event| event.at_ms), Some(499));
        assert!(seen.len() < 10, "{seen:#?}");
    }
}
