//! The screen of what happened last.

use caracal_bgp_speaker::status::{Direction, HistorySnapshot};

use super::moment;
use crate::table;

/// Events and messages in the order of time.
pub(super) fn screen(history: &HistorySnapshot) -> String {
    let mut lines: Vec<(u64, Vec<String>)> = Vec::new();
    for event in &history.events {
        let row = ["", "session", "", &event.text];
        lines.push((event.at_ms, row.map(str::to_owned).to_vec()));
    }
    for message in &history.messages {
        let direction = match message.direction {
            Direction::Received => "received",
            Direction::Sent => "sent",
        };
        let octets = message.octets.to_string();
        let row = [direction, &message.kind, &octets, &message.text];
        lines.push((message.at_ms, row.map(str::to_owned).to_vec()));
    }
    // Stable: what happened within a millisecond stays in its order.
    lines.sort_by_key(|(at_ms, _)| *at_ms);
    if lines.is_empty() {
        return "nothing has happened\n".to_owned();
    }
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|(at_ms, mut row)| {
            row.insert(0, moment(at_ms));
            row
        })
        .collect();
    table::render(&["WHEN", "", "WHAT", "OCTETS", "SAYS"], &rows)
}
