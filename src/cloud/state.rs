//! What the rest of the agent may know of the link: one watch, read by everyone.

use crate::domain::conditions::Freshness;
use crate::domain::moment::Moment;
use crate::domain::reason::Problem;
use crate::identity::access_token::{Identity, Session};
use std::sync::Arc;
use std::time::Duration;

/// Silence for this long turns `Fresh` False.
const STALE: Duration = Duration::from_secs(600);
/// The ask that the newest beat acknowledges was sent at most this long ago.
pub const FRESH: Duration = Duration::from_secs(60);
/// So many streams in a row from which a delivery was withheld turn `Fresh` False.
const WITHHELD: u32 = 2;

/// The link to the cloud.
#[derive(Clone, Default)]
pub struct LinkState {
    /// The one session. Every caller takes identity, token and keys from here.
    pub session: Option<Arc<Session>>,
    /// Whether a stream is open and its first full beat has come.
    pub live: bool,
    /// Why there is no stream, for conditions.
    pub problem: Option<Problem>,
    /// When the link was last fresh, or when the process started.
    pub fresh_at: Option<Moment>,
    /// Signed server time and when it was heard.
    pub server_time: Option<(i64, Moment)>,
    /// Streams in a row that ended because a delivery was withheld.
    pub withheld: u32,
}

impl LinkState {
    /// Who the agent is, as far as it is known.
    pub fn identity(&self) -> Option<&Identity> {
        self.session.as_deref().map(|session| &session.identity)
    }

    /// The cloud's time, by its last signed word and our monotonic clock. Late by the time that word took to arrive.
    pub fn server_now_ms(&self, now: Moment) -> Option<i64> {
        let (at, heard) = self.server_time?;
        Some(at.saturating_add(i64::try_from(now.since(heard).as_millis()).unwrap_or(0)))
    }

    /// Whether the cloud spoke so lately that its word may be acted on (PROTOCOL.md, "Versions").
    pub fn heard_lately(&self, now: Moment) -> bool {
        self.fresh_at.is_some_and(|at| now.since(at) < FRESH)
    }

    /// Whether deliveries are kept back behind live beats.
    pub fn is_withheld(&self) -> bool {
        self.withheld >= WITHHELD
    }

    /// What `Fresh` may say.
    pub fn freshness(&self, now: Moment) -> Freshness {
        match self.fresh_at.map(|at| now.since(at)) {
            _ if self.is_withheld() => Freshness::Withheld,
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

    fn at(millis: u64) -> Moment {
        Moment::new(Duration::from_millis(millis))
    }

    #[test]
    fn fresh_is_a_matter_of_the_last_acknowledged_ask() {
        let state = LinkState { live: true, fresh_at: Some(at(0)), ..LinkState::default() };
        assert_eq!(state.freshness(at(60_000)), Freshness::Fresh);
        assert_eq!(state.freshness(at(61_000)), Freshness::Silent);
        assert_eq!(state.freshness(at(601_000)), Freshness::Stale);
        assert!(state.heard_lately(at(59_999)) && !state.heard_lately(at(60_000)));
        assert_eq!(LinkState { live: false, ..state }.freshness(at(1_000)), Freshness::Silent);
        assert_eq!(LinkState::default().freshness(at(9_999_000)), Freshness::Silent);
        assert!(!LinkState::default().heard_lately(at(0)));
    }

    #[test]
    fn a_delivery_that_is_withheld_twice_in_a_row_is_said_at_once() {
        let state = |withheld| LinkState { live: true, fresh_at: Some(at(0)), withheld, ..LinkState::default() };
        assert_eq!(state(1).freshness(at(1)), Freshness::Fresh, "once is an accident");
        assert_eq!(state(2).freshness(at(1)), Freshness::Withheld);
    }

    #[test]
    fn the_clouds_time_goes_on_with_our_monotonic_clock() {
        let state = LinkState { server_time: Some((1_000, at(70))), ..LinkState::default() };
        assert_eq!(state.server_now_ms(at(320)), Some(1_250));
        assert_eq!(LinkState::default().server_now_ms(at(0)), None);
    }
}
