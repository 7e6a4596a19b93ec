//! The one reader of the wall clock. Everything else takes `now_ms` as an argument.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// From now on the clock is wrong by this much: how a test sees what agents make of a cloud whose clock disagrees.
pub(crate) fn set_wrong_by(seconds: i64) {
    OFFSET_MS.store(seconds.saturating_mul(1000), Ordering::Relaxed);
}

/// Unix milliseconds, as every time on the wire.
pub(crate) fn now_ms() -> i64 {
    let wall = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    wall.saturating_add(OFFSET_MS.load(Ordering::Relaxed))
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
