//! What is told of a session to whoever asks, with reasons in words.
//!
//! Owns the words. Does not own what they are about.

use caracal_bgp_core::bfd::{Diag, State, Why};

use crate::engine::{Details, MachineDetails};
use crate::proto::{Counters, Owner, SessionEvent, SessionStatus, Standing};

/// Puts together what the engine and the registry know.
pub(crate) fn status(
    details: Details,
    owners: Vec<Owner>,
    standing: Standing,
    history: Vec<SessionEvent>,
) -> SessionStatus {
    let why = why(&details);
    let machine = details.machine.as_ref();
    SessionStatus {
        owners,
        standing,
        why,
        local_address: details.local_address,
        source_port: details.source_port,
        local_discriminator: machine.map_or(0, |machine| machine.discriminator),
        remote_discriminator: machine
            .and_then(|machine| machine.remote.discriminator)
            .map(std::num::NonZeroU32::get),
        desired_min_tx_us: details.timing.desired_min_tx.as_micros(),
        required_min_rx_us: details.timing.required_min_rx.as_micros(),
        detect_mult: details.timing.detect_mult.get(),
        transmit_us: machine.and_then(|m| m.transmit).map(|i| i.as_micros()),
        receive_us: machine.and_then(|m| m.receive).map(|i| i.as_micros()),
        detection_us: machine
            .and_then(|machine| machine.detection)
            .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        remote_detect_mult: machine
            .and_then(|machine| machine.remote.detect_mult)
            .map(std::num::NonZeroU8::get),
        auth: details.auth,
        counters: Counters {
            sent: details.sent,
            unsent: details.unsent,
            received: details.received,
            discarded: details.discarded,
            last_discard: details.last_discard.map(|reason| reason.to_string()),
        },
        history,
        key: details.key,
    }
}

/// Why a session is not up; empty when it is.
fn why(details: &Details) -> String {
    let machine = details.machine.as_ref();
    if machine.is_some_and(|machine| machine.state == State::Up) {
        return String::new();
    }
    let mut why = match (&details.problem, machine) {
        (Some(problem), _) => problem.clone(),
        (None, Some(machine)) => why_down(machine, details.received),
        (None, None) => "starting".to_owned(),
    };
    // Thrown away packets are the likeliest reason of all.
    if let Some(reason) = details.last_discard {
        let count = details.discarded;
        why.push_str(&format!("; {count} packets thrown away, last: {reason}"));
    }
    why
}

fn why_down(machine: &MachineDetails, received: u64) -> String {
    if machine.state == State::Init {
        return "the peer is heard, and does not say yet that it hears us".to_owned();
    }
    match machine.why {
        Why::NeverUp | Why::Heard if received == 0 => "nothing heard from the peer yet".to_owned(),
        Why::NeverUp | Why::Heard => "never been up".to_owned(),
        Why::DetectionTimeExpired => "nothing heard for the detection time".to_owned(),
        Why::NeighborSignaledDown(Diag::DetectionTimeExpired) => {
            "the peer does not hear us (its detection time expired)".to_owned()
        }
        Why::NeighborSignaledDown(diag) => format!("the peer went down: {diag}"),
        Why::NeighborAdminDown(Diag::None | Diag::AdministrativelyDown) => {
            "held down by the peer's administrator".to_owned()
        }
        Why::NeighborAdminDown(diag) => format!("held down by the peer's administrator: {diag}"),
        Why::AdminDown(_) => "no longer wanted; the peer is being told".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use caracal_bgp_core::bfd::{Discard, Interval, Remote, Timing};
    use std::time::Duration;

    use super::*;
    use crate::proto::SessionKey;

    fn details(state: State, why: Why, received: u64) -> Details {
        let interval = Duration::from_millis(300);
        let machine = MachineDetails {
            state,
            why,
            remote: Remote {
                discriminator: None,
                state: State::Down,
                diag: Diag::None,
                demand: false,
                control_plane_independent: false,
                desired_min_tx: Interval::ZERO,
                required_min_rx: Interval::ZERO,
                detect_mult: None,
            },
            discriminator: 1,
            transmit: None,
            receive: None,
            detection: None,
        };
        Details {
            key: SessionKey::single_hop(None, [10, 0, 0, 1].into(), None),
            problem: None,
            local_address: None,
            source_port: None,
            timing: Timing::new(interval, interval, 3).unwrap(),
            auth: None,
            machine: Some(machine),
            sent: 0,
            unsent: 0,
            received,
            discarded: 0,
            last_discard: None,
        }
    }

    #[test]
    fn every_no_has_a_reason() {
        let down = |why, received| details(State::Down, why, received);
        let admin = Diag::AdministrativelyDown;
        let cases = [
            (details(State::Up, Why::Heard, 9), ""),
            (down(Why::NeverUp, 0), "nothing heard from the peer yet"),
            (down(Why::NeverUp, 5), "never been up"),
            (
                details(State::Init, Why::NeverUp, 5),
                "the peer is heard, and does not say yet that it hears us",
            ),
            (
                down(Why::DetectionTimeExpired, 5),
                "nothing heard for the detection time",
            ),
            (
                down(Why::NeighborSignaledDown(Diag::DetectionTimeExpired), 5),
                "the peer does not hear us (its detection time expired)",
            ),
            (
                down(Why::NeighborSignaledDown(Diag::PathDown), 5),
                "the peer went down: path down",
            ),
            (
                down(Why::NeighborAdminDown(admin), 5),
                "held down by the peer's administrator",
            ),
            (
                down(Why::NeighborAdminDown(Diag::Unknown(30)), 5),
                "held down by the peer's administrator: code 30",
            ),
            (
                details(State::AdminDown, Why::AdminDown(admin), 5),
                "no longer wanted; the peer is being told",
            ),
            (
                Details {
                    machine: None,
                    ..down(Why::NeverUp, 0)
                },
                "starting",
            ),
            (
                Details {
                    problem: Some("no interface e1".to_owned()),
                    ..down(Why::NeverUp, 0)
                },
                "no interface e1",
            ),
            (
                Details {
                    discarded: 3,
                    last_discard: Some(Discard::AuthDigest),
                    ..down(Why::NeverUp, 0)
                },
                "nothing heard from the peer yet; 3 packets thrown away, last: wrong password or digest",
            ),
        ];
        for (details, expected) in cases {
            assert_eq!(why(&details), expected);
        }
    }
}
