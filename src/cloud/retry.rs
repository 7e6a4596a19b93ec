//! What follows from how a join or a stream ended: a table, and full jitter.

use crate::cloud::channel::distrusts;
use crate::domain::reason::{Problem, Reason};
use crate::identity::join::JoinError;
use crate::identity::trust::TrustError;
use k8s_openapi::jiff::Timestamp;
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
    /// The ServiceAccount token is in use by a key whose stream lives: that of our own container before it was restarted, which
    /// the cloud has not missed yet, or somebody else's.
    InUse,
    /// Another epoch took over.
    Superseded,
    /// Wait for a person in the cloud.
    Banned,
}

/// `reason` of the ErrorInfo, if there is one.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// What exactly failed of a ServiceAccount token, if the cloud says.
fn detail(status: &Status) -> Option<String> {
    status.get_details_error_info()?.metadata.remove("detail")
}

/// RetryInfo, if the cloud sent one.
pub fn asked_pause(status: &Status) -> Option<Duration> {
    Some(status.get_details_retry_info()?.retry_delay?.min(LONGEST_ASKED))
}

/// PROTOCOL.md, table of statuses.
pub fn recover(status: &Status) -> Recovery {
    match (status.code(), reason(status).as_deref()) {
        (Code::Unauthenticated, Some("TOKEN_EXPIRED" | "EPOCH_UNKNOWN" | "EVICTED")) => Recovery::Rejoin,
        (Code::Unauthenticated, Some("IDENTITY_UNKNOWN")) if detail(status).as_deref() == Some("REPLAYED") => {
            Recovery::InUse
        }
        (Code::Unauthenticated, Some("IDENTITY_UNKNOWN" | "TOKEN_SPENT" | "TOKEN_LATE")) => Recovery::Lost,
        (Code::Aborted, Some("SUPERSEDED")) => Recovery::Superseded,
        (Code::PermissionDenied, Some("BANNED")) => Recovery::Banned,
        _ => Recovery::BackOff,
    }
}

/// What a binding says while there is no stream.
pub fn problem(recovery: Recovery, status: Option<&Status>, authority: &str) -> Problem {
    match recovery {
        Recovery::Lost | Recovery::InUse => Problem::new(Reason::IdentityLost, lost(status)),
        Recovery::Banned => Problem::new(
            Reason::Banned,
            "the cloud has banned this agent; the Secrets are kept as they are. Who administers Ennote lifts it: \
             agent unban NAME, or a new bootstrap token after a revocation",
        ),
        Recovery::Superseded => {
            Problem::new(Reason::WaitingForCloud, "a newer agent with the same identity is at work; this one stands by")
        }
        Recovery::Rejoin | Recovery::BackOff if status.is_some_and(|status| distrusts(status)) => Problem::new(
            Reason::WaitingForCloud,
            format!(
                "the certificate of {authority} is not vouched for by any CA that the agent trusts, so nothing is said to it; \
                 give the cloud's CA to the chart (ennote.api.caCert), or ask who runs the network what answers there"
            ),
        ),
        Recovery::Rejoin | Recovery::BackOff => Problem::new(
            Reason::WaitingForCloud,
            format!("no stream to {authority} yet; the agent keeps trying (see its log)"),
        ),
    }
}

/// What nothing but a person mends: which proof is worth nothing, and the command that gives another. No remote text.
fn lost(status: Option<&Status>) -> String {
    let new_token = "make a new bootstrap token in Ennote (token create --agent NAME --namespace NAMESPACE) and put it into the \
                     token Secret (ennote.auth.existingSecretName); the agent takes it up by itself";
    let enrol = "the ServiceAccount token of this pod is signed by a key that is not enrolled for this agent, nor one that the \
                 bootstrap token was made with: either paste the cluster's keys into Ennote (kubectl get --raw /openid/v1/jwks | agent jwks NAME --file -), or";
    let (why, detail) = (status.and_then(reason), status.and_then(detail));
    match (why.as_deref(), detail.as_deref()) {
        (_, Some("KEY_UNKNOWN")) => format!("{enrol} {new_token}"),
        (_, Some("AUDIENCE")) => "the ServiceAccount token is made out to another audience than this cloud's: set \
                                  ennote.auth.audience to https://HOST/agent-join, HOST as the cloud names itself, and upgrade the chart"
            .to_owned(),
        (_, Some("ALREADY_ENROLLED")) => "this ServiceAccount is enrolled for another agent: revoke that one first (agent revoke \
                                          NAME), or install the chart under another ServiceAccount"
            .to_owned(),
        (_, Some("UNBOUND" | "LIFE" | "MALFORMED" | "SIGNATURE")) => format!(
            "the file of ENNOTE_SA_TOKEN_FILE holds no token of a pod that lives at most 30 minutes: mount it as the chart does, or {new_token}"
        ),
        (_, Some("EXPIRED")) => "the ServiceAccount token has expired by the cloud's clock: see that the kubelet renews it, and compare the \
                                 clocks of cluster and cloud"
            .to_owned(),
        (_, Some("REPLAYED")) => "this pod's ServiceAccount token is in use by another agent key whose stream lives; the agent tries again. If \
                                  no second agent runs in this pod, someone else holds its token: tell who runs the cluster"
            .to_owned(),
        (_, Some("UID" | "SUBJECT")) => format!(
            "this ServiceAccount is not the enrolled one, nor the one that the bootstrap token was made for (it was made again, or has \
             another name): {new_token}"
        ),
        (Some("TOKEN_SPENT"), _) => format!("the bootstrap token is used up: {new_token}"),
        (Some("TOKEN_LATE"), _) => format!("the bootstrap token is older than 2 hours: {new_token}"),
        _ => format!(
            "the bootstrap token is used up, too old or none of this cloud's, and no agent is enrolled for this pod's ServiceAccount: \
             {new_token}. If no agent of yours has used the token, someone has a copy of it: see the alarms in Ennote"
        ),
    }
}

/// What follows from a refusal on our side.
pub fn refused(error: &JoinError, authority: &str) -> (Recovery, Problem) {
    let untrusted = || {
        let message = format!("{authority} does not prove to be the trusted cloud: {error}");
        Problem::new(Reason::WaitingForCloud, message)
    };
    match error {
        JoinError::Trust(TrustError::NoRoot) => {
            let message = "there is no bootstrap token yet (one begins with ennt1): make one in Ennote for this agent and put it into the token Secret \
                           (ennote.auth.existingSecretName); the agent takes it up by itself";
            (Recovery::Lost, Problem::new(Reason::IdentityLost, message))
        }
        JoinError::Trust(TrustError::RootChanged) => {
            (Recovery::Lost, Problem::new(Reason::RootChanged, error.to_string()))
        }
        JoinError::Trust(TrustError::ClockDisagrees { server_ms, floor_ms }) => {
            let message = format!(
                "Ennote's signed time is {}, but {} has passed for certain (by the build of this agent, a ServiceAccount token, or \
                 Ennote's own earlier word): correct the clock of the cloud, or of the API server that issues such tokens",
                shown(*server_ms),
                shown(*floor_ms)
            );
            (Recovery::Rejoin, Problem::new(Reason::ClockDisagrees, message))
        }
        // The keyset of the session is over: a join brings the next one.
        JoinError::Trust(TrustError::Expired) => (Recovery::Rejoin, untrusted()),
        _ => (Recovery::BackOff, untrusted()),
    }
}

fn shown(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |at| at.to_string())
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
    fn a_lost_identity_names_what_is_worth_nothing_and_its_mend() {
        let said = |reason: &str, detail: Option<&str>| {
            let metadata: std::collections::HashMap<_, _> =
                detail.map(|d| ("detail".to_owned(), d.to_owned())).into_iter().collect();
            let details = ErrorDetails::with_error_info(reason, "ennote.io", metadata);
            let status = Status::with_error_details(Code::Unauthenticated, "canary", details);
            let problem = problem(recover(&status), Some(&status), "cloud:443");
            assert_eq!(problem.reason, Reason::IdentityLost);
            let in_use = recover(&status) == Recovery::InUse;
            assert_eq!(in_use, detail == Some("REPLAYED"), "{detail:?}: only this one passes by itself");
            assert!(!problem.message.contains("canary"), "no remote text");
            problem.message
        };
        assert!(said("TOKEN_SPENT", None).contains("used up: make a new bootstrap token"));
        assert!(said("TOKEN_LATE", None).contains("older than 2 hours"));
        let messages =
            ["KEY_UNKNOWN", "AUDIENCE", "ALREADY_ENROLLED", "UNBOUND", "EXPIRED", "REPLAYED", "UID", "canary"]
                .map(|detail| said("IDENTITY_UNKNOWN", Some(detail)));
        assert!(messages[0].contains("kubectl get --raw /openid/v1/jwks | agent jwks NAME --file -"));
        assert!(messages[1].contains("ennote.auth.audience"));
        assert_eq!(messages.iter().collect::<std::collections::BTreeSet<_>>().len(), messages.len());
    }

    #[test]
    fn what_we_refuse_has_its_own_reason_where_a_person_must_act() {
        let said = |error: TrustError| {
            let (recovery, problem) = refused(&error.into(), "cloud:443");
            (recovery, problem.reason)
        };
        assert_eq!(said(TrustError::NoRoot), (Recovery::Lost, Reason::IdentityLost));
        assert_eq!(said(TrustError::RootChanged), (Recovery::Lost, Reason::RootChanged));
        let disagrees = TrustError::ClockDisagrees { server_ms: 0, floor_ms: 1_800_000_000_000 };
        assert_eq!(said(disagrees), (Recovery::Rejoin, Reason::ClockDisagrees));
        let message = refused(&disagrees.into(), "").1.message;
        assert!(message.contains("1970-01-01T00:00:00Z") && message.contains("2027-01-15T08:00:00Z"), "{message}");
        assert_eq!(said(TrustError::Expired), (Recovery::Rejoin, Reason::WaitingForCloud));
        assert_eq!(said(TrustError::WrongRoot), (Recovery::BackOff, Reason::WaitingForCloud));
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
