//! The one reader of the wall clock. Everything else takes `now_ms` as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix milliseconds, as every time on the wire.
pub(crate) fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
