//! What follows from how a join or a stream ended: a table, and full jitter.

use crate::domain::reason::{Problem, Reason};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An unsigned status may slow the agent down, not stop it.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Join again, once at once, then with pauses.
    Rejoin,
    /// The same step again after a pause.
    BackOff,
    /// The credentials are worth nothing: wait for others.
    Lost,
    /// Another epoch took over.
    Superseded,
    /// Wait for a person in the cloud.
    Banned,
}

/// `reason` of the ErrorInfo, if there is one.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// RetryInfo, if the cloud sent one.
pub fn asked_pause(status: &Status) -> Option<Duration> {
    Some(status.get_details_retry_info()?.retry_delay?.min(LONGEST_ASKED))
}

/// PROTOCOL.md, table of statuses.
pub fn recover(status: &Status) -> Recovery {
    match (status.code(), reason(status).as_deref()) {
        (Code::Unauthenticated, Some("TOKEN_EXPIRED" | "EPOCH_UNKNOWN" | "EVICTED")) => Recovery::Rejoin,
        (Code::Unauthenticated, Some("IDENTITY_UNKNOWN" | "TOKEN_SPENT" | "TOKEN_LATE")) => Recovery::Lost,
        (Code::Aborted, Some("SUPERSEDED")) => Recovery::Superseded,
        (Code::PermissionDenied, Some("BANNED")) => Recovery::Banned,
        _ => Recovery::BackOff,
    }
}

/// What a binding says while there is no stream.
pub fn problem(recovery: Recovery, status: Option<&Status>, authority: &str) -> Problem {
    let why = status.and_then(reason);
    match recovery {
        Recovery::Lost => Problem::new(
            Reason::IdentityLost,
            format!(
                "the bootstrap token is {}; make a new one in Ennote for this agent and put it into the token Secret \
                 (ennote.auth.existingSecretName); the agent takes it up by itself",
                match why.as_deref() {
                    Some("TOKEN_SPENT") => "used up",
                    Some("TOKEN_LATE") => "older than 2 hours",
                    _ => "not known to the cloud",
                }
            ),
        ),
        Recovery::Banned => Problem::new(
            Reason::Banned,
            "the cloud has banned this agent; an administrator of the organization lifts it",
        ),
        Recovery::Superseded => Problem::new(
            Reason::WaitingForCloud,
            "another agent with the same identity took over; is the chart installed twice with one token?",
        ),
        Recovery::Rejoin | Recovery::BackOff => Problem::new(
            Reason::WaitingForCloud,
            format!("no stream to {authority} yet; the agent keeps trying (see its log)"),
        ),
    }
}

/// Full jitter: uniform in 0..=min(60 s, 0.5 s * 2^attempt), never under 50 ms. `spread` is uniform in 0..=1.
pub fn pause(attempt: u32, spread: f64) -> Duration {
    let ceiling = Duration::from_millis(500).saturating_mul(1 << attempt.min(10)).min(Duration::from_secs(60));
    ceiling.mul_f64(spread.clamp(0.0, 1.0)).max(Duration::from_millis(50))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn status(code: Code, reason: &str) -> Status {
        Status::with_error_details(
            code,
            "",
            ErrorDetails::with_error_info(reason, "ennote.io", std::collections::HashMap::new()),
        )
    }

    #[test]
    fn each_status_has_its_recovery() {
        for (code, reason, want) in [
            (Code::Unauthenticated, "TOKEN_EXPIRED", Recovery::Rejoin),
            (Code::Unauthenticated, "EPOCH_UNKNOWN", Recovery::Rejoin),
            (Code::Unauthenticated, "EVICTED", Recovery::Rejoin),
            (Code::Unauthenticated, "IDENTITY_UNKNOWN", Recovery::Lost),
            (Code::Unauthenticated, "TOKEN_SPENT", Recovery::Lost),
            (Code::Unauthenticated, "TOKEN_LATE", Recovery::Lost),
            (Code::FailedPrecondition, "CHALLENGE", Recovery::BackOff),
            (Code::FailedPrecondition, "SEQUENCE", Recovery::BackOff),
            (Code::Aborted, "SUPERSEDED", Recovery::Superseded),
            (Code::PermissionDenied, "BANNED", Recovery::Banned),
            (Code::Unavailable, "", Recovery::BackOff),
            (Code::Unauthenticated, "something new", Recovery::BackOff),
        ] {
            assert_eq!(recover(&status(code, reason)), want, "{code:?} {reason}");
        }
        assert_eq!(recover(&Status::unknown("")), Recovery::BackOff);
    }

    #[test]
    fn a_pause_that_the_cloud_asks_for_is_honoured_up_to_five_minutes() {
        let asked = |seconds| {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
            asked_pause(&Status::with_error_details(Code::Unavailable, "", details)).map(|d| d.as_secs())
        };
        assert_eq!((asked(7), asked(u64::MAX / 4)), (Some(7), Some(300)));
        assert_eq!(asked_pause(&Status::unknown("")), None);
    }

    #[test]
    fn pauses_grow_to_a_minute_with_full_jitter() {
        assert_eq!(pause(0, 1.0), Duration::from_millis(500));
        assert_eq!(pause(3, 1.0), Duration::from_secs(4));
        assert_eq!(pause(30, 1.0), Duration::from_secs(60));
        assert_eq!(pause(30, 0.5), Duration::from_secs(30));
        assert_eq!(pause(30, 0.0), Duration::from_millis(50), "never a busy loop");
    }
}
