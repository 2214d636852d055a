//! Waiting for what tests expect: by looking again, never by sleeping long enough.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// For what takes a kernel, a router or a busy machine a moment.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

/// Looks until `check` is content; the last look is shown when it never is.
pub(crate) async fn until<T: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    check: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = look().await;
        if check(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: last seen {seen:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
