//! What the rest of the agent may know of the link: one watch, read by everyone.

use crate::domain::conditions::Freshness;
use crate::domain::reason::Problem;
use crate::identity::access_token::Identity;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Silence for this long turns `Fresh` False.
const STALE: Duration = Duration::from_secs(600);
/// The ask that the newest beat acknowledges was sent at most this long ago.
const FRESH: Duration = Duration::from_secs(60);

/// The link to the cloud.
#[derive(Clone, Default)]
pub struct LinkState {
    /// The one identity. Every caller takes the token from here.
    pub identity: Option<Arc<Identity>>,
    /// Whether a stream is open and its first full beat has come.
    pub live: bool,
    /// Why there is no stream, for conditions.
    pub problem: Option<Problem>,
    /// When the link was last fresh, or when the process started.
    pub fresh_at: Option<Instant>,
    /// Signed server time and when it was heard.
    pub server_time: Option<(i64, Instant)>,
}

impl LinkState {
    /// The cloud's time, by its last signed word and our monotonic clock. Late by the time that word took to arrive.
    pub fn server_now_ms(&self, now: Instant) -> Option<i64> {
        let (at, heard) = self.server_time?;
        Some(at + i64::try_from(now.duration_since(heard).as_millis()).unwrap_or(0))
    }

    /// What `Fresh` may say.
    pub fn freshness(&self, now: Instant) -> Freshness {
        match self.fresh_at.map(|at| now.duration_since(at)) {
            Some(age) if age <= FRESH && self.live => Freshness::Fresh,
            Some(age) if age <= STALE => Freshness::Silent,
            Some(_) => Freshness::Stale,
            None => Freshness::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_is_a_matter_of_the_last_acknowledged_ask() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let state = LinkState { live: true, fresh_at: Some(start), ..LinkState::default() };
        assert_eq!(state.freshness(after(60)), Freshness::Fresh);
        assert_eq!(state.freshness(after(61)), Freshness::Silent);
        assert_eq!(state.freshness(after(601)), Freshness::Stale);
        assert_eq!(LinkState { live: false, ..state }.freshness(after(1)), Freshness::Silent);
        assert_eq!(LinkState::default().freshness(after(9999)), Freshness::Silent);
    }

    #[test]
    fn the_clouds_time_goes_on_with_our_monotonic_clock() {
        let start = Instant::now();
        let state = LinkState { server_time: Some((1_000, start)), ..LinkState::default() };
        assert_eq!(state.server_now_ms(start + Duration::from_millis(250)), Some(1_250));
        assert_eq!(LinkState::default().server_now_ms(start), None);
    }
}
