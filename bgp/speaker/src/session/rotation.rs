//! The keys of a peer's living connections, from one configuration to the next.
//!
//! Owns what these connections may hold and when the kernel is asked again to let go of it. Does not own
//! sockets. Takes the time as an argument.

use std::time::{Duration, Instant};

use crate::net::{Auth, Rekeyed};

/// How often a change of keys that waits for the peer is looked after.
const PAUSE: Duration = Duration::from_millis(200);

/// One change after the other, of which an earlier one need not be through.
#[derive(Debug)]
pub(super) struct Rotation {
    /// All that connections may hold: what is configured, and what the peer still used when it was to go.
    held: Auth,
    /// When to try again.
    due: Option<Instant>,
}

impl Rotation {
    /// Connections are signed with what is configured.
    pub(super) fn new(configured: &Auth) -> Self {
        Self {
            held: configured.clone(),
            due: None,
        }
    }

    /// What living connections may hold.
    pub(super) fn held(&self) -> &Auth {
        &self.held
    }

    /// `next` is configured now. Whether living connections can take it over; those that cannot are to end.
    pub(super) fn turn_to(&mut self, next: &Auth) -> bool {
        let live = self.held.changes_live(next);
        if live {
            self.held = self.held.with(next);
        } else {
            *self = Self::new(next);
        }
        live
    }

    /// Connections were asked to take over what is `configured`, and each has answered so.
    pub(super) fn tried(
        &mut self,
        configured: &Auth,
        answers: impl IntoIterator<Item = Option<Rekeyed>>,
        now: Instant,
    ) {
        let mut all_done = true;
        self.due = None;
        for answer in answers {
            all_done &= answer == Some(Rekeyed::Done);
            if answer == Some(Rekeyed::Waiting) {
                self.due = Some(now + PAUSE);
            }
        }
        if all_done {
            *self = Self::new(configured);
        }
    }

    /// When connections are to be asked again. It stays where it is however much happens meanwhile.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AoAlgorithm, AoKey, AoKeys, Secret};

    /// Keys by number and secret.
    fn keys<const N: usize>(keys: [(u8, &str); N]) -> Auth {
        let key = |(id, secret)| {
            let secret = Secret::new(secret).unwrap();
            AoKey::new(id, id, AoAlgorithm::HmacSha1, secret)
        };
        Auth::Ao(AoKeys::new(keys.map(key).to_vec()).unwrap())
    }

    /// The numbers that connections may hold.
    fn numbers(rotation: &Rotation) -> Vec<u8> {
        let Auth::Ao(keys) = rotation.held() else {
            return Vec::new();
        };
        let mut numbers: Vec<u8> = keys.keys().iter().map(|key| key.id.send).collect();
        numbers.sort_unstable();
        numbers
    }

    const WAITING: Option<Rekeyed> = Some(Rekeyed::Waiting);
    const DONE: Option<Rekeyed> = Some(Rekeyed::Done);
    const REFUSED: Option<Rekeyed> = None;

    #[test]
    fn a_key_that_the_peer_still_used_is_not_forgotten_over_the_next_change() {
        let now = Instant::now();
        let [first, second, third] = [1, 2, 3].map(|id| keys([(id, "secret")]));
        let mut rotation = Rotation::new(&first);
        assert!(rotation.turn_to(&second));
        rotation.tried(&second, [WAITING, DONE], now);
        assert!(rotation.turn_to(&third));
        assert_eq!(numbers(&rotation), [1, 2, 3]);
        // Where it cannot be said how far a connection came, it may hold anything.
        rotation.tried(&third, [REFUSED, DONE], now);
        assert_eq!(numbers(&rotation), [1, 2, 3]);
        rotation.tried(&third, [DONE, DONE], now);
        assert_eq!(rotation.held(), &third);
    }

    #[test]
    fn a_number_gets_another_secret_on_a_living_connection_once_the_old_one_is_gone() {
        let now = Instant::now();
        let (old, other) = (keys([(1, "old")]), keys([(2, "other")]));
        let again = keys([(1, "new")]);
        let mut rotation = Rotation::new(&old);
        for (answer, live) in [(WAITING, false), (DONE, true)] {
            rotation.turn_to(&other);
            rotation.tried(&other, [answer], now);
            assert_eq!(rotation.turn_to(&again), live, "{answer:?}");
            rotation.tried(&again, [DONE], now);
            assert_eq!(rotation.held(), &again);
            rotation = Rotation::new(&old);
        }
        // The key itself may come back before it was gone.
        rotation.turn_to(&other);
        rotation.tried(&other, [WAITING], now);
        assert!(rotation.turn_to(&old));
        assert_eq!(numbers(&rotation), [1, 2]);
    }

    #[test]
    fn a_change_that_waits_is_tried_again_after_a_pause_and_one_that_is_through_is_not() {
        let now = Instant::now();
        let (old, new) = (keys([(1, "old")]), keys([(2, "new")]));
        let mut rotation = Rotation::new(&old);
        rotation.turn_to(&new);
        assert_eq!(rotation.poll_timeout(), None);
        for (answers, due) in [
            (vec![WAITING, DONE], Some(now + PAUSE)),
            (vec![WAITING, REFUSED], Some(now + PAUSE)),
            // Asking again would be refused again.
            (vec![DONE, REFUSED], None),
            (vec![DONE, DONE], None),
            // They have ended.
            (vec![], None),
        ] {
            rotation.tried(&new, answers.clone(), now);
            assert_eq!(rotation.poll_timeout(), due, "{answers:?}");
        }
    }

    #[test]
    fn connections_that_cannot_follow_are_not_waited_for() {
        let now = Instant::now();
        let (old, new) = (keys([(1, "old")]), keys([(2, "new")]));
        let password = Auth::Md5(Secret::new("password").unwrap());
        for next in [&Auth::None, &password, &keys([(2, "newer")])] {
            let mut rotation = Rotation::new(&old);
            rotation.turn_to(&new);
            rotation.tried(&new, [WAITING], now);
            assert!(!rotation.turn_to(next), "{next:?}");
            assert_eq!((rotation.held(), rotation.poll_timeout()), (next, None));
        }
    }
}
