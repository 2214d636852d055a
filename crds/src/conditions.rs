//! Condition types, and the one way to write a condition.
//!
//! A condition is written only when it says something new: an unchanged one keeps its transition
//! time, so that a steady cluster writes nothing.

use crate::{Condition, Time};

/// An IPPool is usable: no other pool claims its addresses and its specification holds together.
pub const READY: &str = "Ready";
/// An IPPool shares addresses with another pool.
pub const OVERLAP: &str = "Overlap";
/// An IPPool has no free block left.
pub const EXHAUSTED: &str = "Exhausted";
/// An IPPool is being deleted and waits for its blocks.
pub const TERMINATING: &str = "Terminating";
/// An IPBlock rests because its node went away.
pub const QUARANTINED: &str = "Quarantined";
/// An IPBlockRequest has been granted.
pub const GRANTED: &str = "Granted";
/// A BGPPeer, BGPConfiguration or BGPFilter was taken over by the speakers that it names.
pub const ACCEPTED: &str = "Accepted";
/// Every session that a node should have is established.
pub const SESSIONS_ESTABLISHED: &str = "SessionsEstablished";
/// The kernel's routes are as the speaker wants them.
pub const ROUTES_PROGRAMMED: &str = "RoutesProgrammed";
/// The policy ruleset in the kernel is as the policies want it.
pub const POLICY_PROGRAMMED: &str = "PolicyProgrammed";
/// The node has addresses for new pods.
pub const ADDRESSES_AVAILABLE: &str = "AddressesAvailable";

/// What to say about one condition type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// One of this module's constants.
    pub condition: &'a str,
    /// Whether it holds.
    pub holds: bool,
    /// One of [`crate::reasons`].
    pub reason: &'a str,
    /// For people: which object, which field, what to do.
    pub message: String,
    /// `metadata.generation` of the object that was judged.
    pub observed_generation: Option<i64>,
}

/// Puts `statement` into `conditions`. Returns whether anything changed; the transition time moves
/// to `now` only when the status flips.
pub fn set(conditions: &mut Vec<Condition>, statement: &Statement<'_>, now: &Time) -> bool {
    let status = if statement.holds { "True" } else { "False" };
    let mut next = Condition {
        type_: statement.condition.to_owned(),
        status: status.to_owned(),
        reason: statement.reason.to_owned(),
        message: statement.message.clone(),
        observed_generation: statement.observed_generation,
        last_transition_time: now.clone(),
    };
    match conditions
        .iter_mut()
        .find(|c| c.type_ == statement.condition)
    {
        None => {
            conditions.push(next);
            conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
            true
        }
        Some(current) => {
            if current.status == next.status {
                next.last_transition_time = current.last_transition_time.clone();
            }
            let changed = *current != next;
            *current = next;
            changed
        }
    }
}

/// Whether `condition` is present and true.
pub fn holds(conditions: &[Condition], condition: &str) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == condition && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn ready(holds: bool, message: &str) -> Statement<'static> {
        Statement {
            condition: READY,
            holds,
            reason: crate::reasons::OK,
            message: message.to_owned(),
            observed_generation: Some(1),
        }
    }

    #[test]
    fn repeating_a_statement_changes_nothing() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, &ready(true, ""), &at(1)));
        let before = conditions.clone();
        assert!(!set(&mut conditions, &ready(true, ""), &at(9)));
        assert_eq!(conditions, before);
    }

    #[test]
    fn transition_time_moves_only_when_the_status_flips() {
        let mut conditions = Vec::new();
        set(&mut conditions, &ready(true, ""), &at(1));
        assert!(set(&mut conditions, &ready(true, "other words"), &at(2)));
        assert_eq!(conditions[0].last_transition_time, at(1));
        assert!(set(&mut conditions, &ready(false, "other words"), &at(3)));
        assert_eq!(conditions[0].last_transition_time, at(3));
    }
}
