//! The one clock of decisions: CLOCK_BOOTTIME. It neither jumps with the wall clock nor stops while the machine sleeps, and it
//! is the same for every process of the machine.

use crate::domain::moment::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Now.
pub fn now() -> Moment {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    Moment::new(seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs() {
        let start = now();
        assert!(start > Moment::default() && now() >= start);
    }
}
