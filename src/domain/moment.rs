//! A moment of the machine's monotonic time. What time it is now, an edge says (`clock`).

use std::time::Duration;

/// The time since the machine started, suspended time included. Worth nothing on another machine or after another start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// At so long after the machine started.
    pub fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long after `earlier` this is; zero if it is before it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This much later.
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// Milliseconds since the machine started.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// 1 s doubling to 5 min, by how often in a row it did not go well.
pub fn back_off(times: u32) -> Duration {
    Duration::from_secs(1 << times.min(9)).min(Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_is_not_taken_is_asked_for_after_1_s_to_5_min() {
        let pauses: Vec<u64> = [0, 1, 2, 8, 9, 40].map(|n| back_off(n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn time_goes_on_and_never_below_zero() {
        let start = Moment::new(Duration::from_secs(7));
        let later = start.after(Duration::from_millis(1500));
        assert_eq!((later.since(start), start.since(later)), (Duration::from_millis(1500), Duration::ZERO));
        assert_eq!((later.millis(), later.after(Duration::MAX) > later), (8500, true));
    }
}
