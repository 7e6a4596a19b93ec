//! How the link waits between one stream and the next: a pure decision, and the wait itself, which asks nothing but the clock
//! and the credential files.

use crate::cloud::retry::{Recovery, pause};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often credentials are read again while the agent waits for others.
const REREAD: Duration = Duration::from_secs(2);
/// Lost credentials are tried again after this long even if they are the same.
const RETRY_LOST: Duration = Duration::from_secs(300);
/// A link that was healthy for this long starts its pauses anew.
const HEALTHY: Duration = Duration::from_secs(60);

/// So many streams may follow one another by a Drain within [`HANDOVERS_IN`]; one more ends in a pause.
const HANDOVERS: usize = 6;
const HANDOVERS_IN: Duration = Duration::from_secs(60);

/// The latest times that one stream took over from another.
#[derive(Debug, Default)]
pub struct Handovers(VecDeque<Instant>);

impl Handovers {
    /// Whether one more is in order.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.0.retain(|at| now.duration_since(*at) < HANDOVERS_IN);
        self.0.push_back(now);
        self.0.len() <= HANDOVERS
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// This long.
    Time(Duration),
    /// Until the credential files hold something else than was shown, at most this long.
    OtherCredentials(Duration),
}

/// Failures in a row.
#[derive(Debug)]
pub struct Attempts {
    failures: u32,
    stand_by: Duration,
}

impl Attempts {
    /// None yet. `stand_by` is what a newer agent of this identity gets before the cloud is asked whether it still lives.
    pub fn new(stand_by: Duration) -> Self {
        Self { failures: 0, stand_by }
    }

    /// A stream lived so long.
    pub fn lived(&mut self, time: Duration) {
        if time >= HEALTHY {
            self.failures = 0;
        }
    }

    /// What one more failure is answered with. `asked` is the cloud's RetryInfo, `spread` uniform in 0..=1.
    pub fn failed(&mut self, recovery: Recovery, asked: Option<Duration>, spread: f64) -> Wait {
        let attempt = self.failures;
        self.failures = attempt.saturating_add(1);
        match recovery {
            Recovery::Lost => Wait::OtherCredentials(RETRY_LOST),
            // 5 to 30 minutes (PROTOCOL.md, table of statuses). A new token may be what lifts it.
            Recovery::Banned => Wait::OtherCredentials(RETRY_LOST.mul_f64(1.0 + 5.0 * spread.clamp(0.0, 1.0))),
            // By then the cloud has missed the stream of a container that was killed.
            Recovery::InUse => Wait::OtherCredentials(self.stand_by),
            Recovery::Superseded => Wait::Time(self.stand_by),
            Recovery::Rejoin if attempt == 0 => Wait::Time(Duration::ZERO),
            // An unsigned status may slow the agent down, not drive it.
            Recovery::Rejoin | Recovery::BackOff => {
                let own = pause(attempt, spread);
                Wait::Time(asked.map_or(own, |asked| asked.max(own)))
            }
        }
    }
}

impl Wait {
    /// Waits. `others` reads whether the credential files hold anything else than what was shown last.
    pub async fn over(self, others: impl Fn() -> bool) {
        match self {
            Self::Time(time) => sleep(time).await,
            Self::OtherCredentials(at_most) => {
                let changed = async {
                    while !others() {
                        sleep(REREAD).await;
                    }
                };
                let _unchanged = timeout(at_most, changed).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const MINUTE: Duration = Duration::from_secs(60);

    /// How long a wait takes by the paused clock; `changes_at` is when the files hold something else.
    async fn takes(wait: Wait, changes_at: Duration) -> Duration {
        let began = Instant::now();
        wait.over(|| began.elapsed() >= changes_at).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn lost_credentials_are_read_again_all_the_time_and_tried_again_as_soon_as_they_differ() {
        let wait = || Attempts::new(MINUTE).failed(Recovery::Lost, Some(MINUTE), 0.5);
        let reads = Cell::new(0);
        wait()
            .over(|| {
                reads.set(reads.get() + 1);
                false
            })
            .await;
        assert!(reads.get() > 10, "at least every 30 s of the 300: {}", reads.get());
        let after = takes(wait(), Duration::from_secs(100)).await;
        assert!((Duration::from_secs(100)..=Duration::from_secs(130)).contains(&after), "{after:?}");
        assert_eq!(takes(wait(), Duration::MAX).await.as_secs(), 300, "the cloud may have been mended");
        assert_eq!(takes(wait(), Duration::ZERO).await, Duration::ZERO, "they changed while the others were refused");
    }

    #[tokio::test(start_paused = true)]
    async fn the_banned_wait_5_to_30_minutes_unless_a_new_token_comes() {
        for (spread, minutes) in [(0.0, 5), (0.2, 10), (1.0, 30), (9.0, 30)] {
            let wait = Attempts::new(MINUTE).failed(Recovery::Banned, None, spread);
            assert_eq!(takes(wait, Duration::MAX).await, minutes * MINUTE, "{spread}");
            assert!(takes(wait, MINUTE).await <= MINUTE + Duration::from_secs(30));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_superseded_agent_stands_by_for_a_minute_whatever_the_files_hold() {
        let wait = Attempts::new(MINUTE).failed(Recovery::Superseded, Some(Duration::ZERO), 0.0);
        assert_eq!(takes(wait, Duration::ZERO).await, MINUTE);
        let wait = || Attempts::new(MINUTE).failed(Recovery::InUse, None, 0.0);
        assert_eq!(takes(wait(), Duration::MAX).await, MINUTE, "and one whose token is in use asks again as soon");
        assert!(takes(wait(), MINUTE / 4).await < MINUTE / 2, "or at once, with another token");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_each_failure_up_to_a_minute_and_start_anew_after_a_minute_of_health() {
        let mut attempts = Attempts::new(MINUTE);
        let mut longest = Vec::new();
        for _ in 0..9 {
            longest.push(takes(attempts.failed(Recovery::BackOff, None, 1.0), Duration::MAX).await.as_millis());
        }
        assert_eq!(longest, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        attempts.lived(MINUTE - Duration::from_millis(1));
        let of = |attempts: &mut Attempts, spread| attempts.failed(Recovery::BackOff, None, spread);
        assert_eq!(of(&mut attempts, 0.25), Wait::Time(MINUTE / 4), "full jitter: anything up to the longest");
        attempts.lived(MINUTE);
        assert_eq!(of(&mut attempts, 1.0), Wait::Time(Duration::from_millis(500)));
    }

    #[test]
    fn a_cloud_that_drains_every_new_stream_is_left_for_a_while() {
        let (mut handovers, start) = (Handovers::default(), Instant::now());
        assert!((0..6).all(|n| handovers.allow(start + Duration::from_secs(n))));
        assert!(!handovers.allow(start + Duration::from_secs(6)));
        assert!(handovers.allow(start + Duration::from_secs(130)));
    }

    #[test]
    fn the_first_joining_again_is_at_once_and_the_clouds_own_pause_is_honoured() {
        let mut attempts = Attempts::new(MINUTE);
        let mut next = |recovery, asked| attempts.failed(recovery, asked, 1.0);
        assert_eq!(next(Recovery::Rejoin, Some(MINUTE)), Wait::Time(Duration::ZERO));
        assert_eq!(next(Recovery::Rejoin, None), Wait::Time(Duration::from_secs(1)), "once, then with pauses");
        assert_eq!(next(Recovery::Rejoin, Some(MINUTE)), Wait::Time(MINUTE));
        assert_eq!(next(Recovery::BackOff, Some(MINUTE)), Wait::Time(MINUTE));
        assert_eq!(
            next(Recovery::BackOff, Some(Duration::ZERO)),
            Wait::Time(Duration::from_secs(8)),
            "no busy loop on demand"
        );
    }
}
