//! Points in time without a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since an origin that the caller chooses once.
///
/// The controller counts from the Unix epoch, because its deadlines start at times written in
/// objects. A node counts from boot (`CLOCK_BOOTTIME`): like the log on tmpfs it survives a restart
/// of the process and ends with a reboot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// `self + duration`, at the end of time where that does not fit.
    #[must_use]
    pub fn after(self, duration: Duration) -> Moment {
        Moment(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// Time from `earlier` to `self`; zero where `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
