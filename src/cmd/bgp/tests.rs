//! How each screen reads. What it shall look like stands in `snapshots/`.

use caracal_bgp_speaker::status::{Direction, EventRecord, HistorySnapshot, MessageRecord};
use insta::assert_snapshot;

use super::history;

mod routes;
mod sessions;

/// 2026-11-25 12:00:00 UTC.
const NOW: u64 = 1_795_608_000_000;
const MINUTE: u64 = 60_000;

#[test]
fn history_puts_events_and_messages_in_the_order_of_time() {
    let message = |at_ms, direction, kind: &str, octets, text: &str| MessageRecord {
        at_ms,
        direction,
        octets,
        kind: kind.to_owned(),
        text: text.to_owned(),
    };
    let event = |at_ms, text: &str| EventRecord {
        at_ms,
        text: text.to_owned(),
    };
    let history = HistorySnapshot {
        events: vec![
            event(NOW, "Active -> OpenSent"),
            event(NOW + 31, "OpenSent -> OpenConfirm"),
            event(NOW + 40, "OpenConfirm -> Established"),
        ],
        messages: vec![
            message(
                NOW + 1,
                Direction::Sent,
                "OPEN",
                59,
                "AS 65000, identifier 10.0.0.2",
            ),
            message(
                NOW + 31,
                Direction::Received,
                "OPEN",
                61,
                "AS 65001, identifier 10.0.0.1",
            ),
            message(
                NOW + 90_000,
                Direction::Received,
                "KEEPALIVE",
                19,
                "3 times",
            ),
        ],
    };
    assert_snapshot!("history", history::screen(&history));
    assert_eq!(
        history::screen(&HistorySnapshot::default()),
        "nothing has happened\n"
    );
}
