//! Awaiting a condition with a deadline, in place of sleeping.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Blocks until `condition` holds; panics with `what` when `timeout` has passed.
#[track_caller]
pub fn until(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    until_some(timeout, what, || condition().then_some(()));
}

/// Blocks until `attempt` gives a value; panics with `what` when `timeout` has passed.
#[track_caller]
pub fn until_some<T>(timeout: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(started.elapsed() < timeout, "not within {timeout:?}: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The same as [`until`] for an asynchronous condition; does not block the runtime.
pub async fn eventually<F>(timeout: Duration, what: &str, mut condition: F)
where
    F: AsyncFnMut() -> bool,
{
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    while !condition().await {
        assert!(started.elapsed() < timeout, "not within {timeout:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
