//! What an API server's refusal means to a binding. Texts carry codes and reasons, never a message of the server's about a
//! Secret: such messages may quote values.

use crate::domain::observed::Existing;
use crate::domain::reason::{Problem, Reason};
use kube::core::Status;
use kube::core::response::StatusCause;

/// What the API server itself says in `reason` (k8s.io/apimachinery, `StatusReason`). A webhook can put anything there.
const REASONS: [&str; 19] = [
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Invalid",
    "ServerTimeout",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "BadRequest",
    "MethodNotAllowed",
    "NotAcceptable",
    "RequestEntityTooLarge",
    "UnsupportedMediaType",
    "InternalError",
    "Expired",
    "ServiceUnavailable",
];

/// Characters of a refusal that are kept.
const MAX_SENTENCE: usize = 500;

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No configuration.
    #[error("no cluster to talk to: set KUBECONFIG, or run in a pod with a ServiceAccount")]
    Configure(#[source] Box<kube::config::InferConfigError>),
    /// No client.
    #[error("the client for the API server could not be built")]
    Connect(#[source] Box<kube::Error>),
    /// The server answered with a refusal.
    #[error("the API server answered {code} {reason}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// `reason` of the Status, as in `AlreadyExists`; empty where it is none of the API server's own.
        reason: String,
        /// `details.causes[]` of the Status, without their messages.
        causes: Vec<Cause>,
        /// The sentence, where it is one about who may do what. Others may quote values, and are never kept.
        sentence: Option<String>,
    },
    /// The admission policy refused a write to a Secret of somebody else's, and told whose it is.
    #[error("the admission policy refused it: the Secret is somebody else's")]
    Foreign(Box<Existing>),
    /// What was to be created is there by now.
    #[error("the Secret is there by now")]
    Appeared,
    /// No answer in time.
    #[error("the API server did not answer within {} s", super::DEADLINE.as_secs())]
    TimedOut,
    /// The connection failed.
    #[error("the API server cannot be reached")]
    Unreachable(#[source] Box<kube::Error>),
    /// An answer that cannot be read.
    #[error("an answer of the API server cannot be read")]
    Unreadable,
}

/// One thing that the server does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What is wrong with it, as in `FieldValueTooLong`.
    pub reason: String,
    /// Where.
    pub field: String,
}

/// More than 1 MiB in `data` of a Secret, also if only with the keys of others.
const TOO_LONG: &str = "FieldValueTooLong";

impl ClusterError {
    /// From a Status body; anything else gives the code alone.
    pub(super) fn refused(code: u16, body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Status>(body).unwrap_or_default();
        from_status(&Status { code, ..status })
    }

    /// From a Status that was the answer to a proof, which holds nothing of anybody's: its sentence may be kept.
    pub(super) fn refused_proof(code: u16, status: Status) -> Self {
        let sentence = one_line(&status.message);
        match from_status(&Status { code, ..status }) {
            Self::Refused { code: code @ (403 | 422 | 400), reason, causes, .. } => {
                Self::Refused { code, reason, causes, sentence: Some(sentence).filter(|text| !text.is_empty()) }
            }
            other => other,
        }
    }

    /// HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Why a request was refused for good, in the API server's words where it says who refused; `None` for what may go well
    /// when it is tried again.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Refused { code: 404 | 409 | 429 | 500.., .. } => None,
            Self::Refused { sentence: Some(sentence), .. } => Some(sentence.clone()),
            Self::Refused { code, reason, causes, .. } => {
                let field = causes.iter().find(|cause| !cause.field.is_empty());
                let field = field.map(|cause| format!(" of {}", cause.field)).unwrap_or_default();
                Some(format!("{code} {reason}{field}"))
            }
            _ => None,
        }
    }

    /// Whether what was observed is out of date: observe again and decide anew.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Foreign(_) | Self::Appeared) || matches!(self.code(), Some(404 | 409))
    }

    fn causes(&self) -> &[Cause] {
        match self {
            Self::Refused { causes, .. } => causes,
            _ => &[],
        }
    }

    /// Whether a field of a Secret was to change that cannot: its type, or any of an immutable one.
    pub fn is_of_what_cannot_change(&self) -> bool {
        let fixed = |field: &str| matches!(field, "type" | "immutable" | "data" | "stringData");
        let any = self.causes().iter().any(|cause| fixed(&cause.field) && cause.reason != TOO_LONG);
        self.code() == Some(422) && any
    }

    /// Whether the data is more than the API server takes.
    fn is_too_long(&self) -> bool {
        let any = self.causes().iter().any(|cause| cause.field == "data" && cause.reason == TOO_LONG);
        self.code() == Some(413) || (self.code() == Some(422) && any)
    }

    /// As a problem of a binding. `what` is the act, as in `create secrets`.
    pub fn problem(&self, what: &str, namespace: &str) -> Problem {
        match self {
            Self::Refused { causes, .. } if causes.iter().any(|cause| cause.reason == "NamespaceTerminating") => {
                Problem::new(Reason::NamespaceTerminating, format!("namespace {namespace} is being deleted"))
            }
            Self::Refused { code: 403, .. } => Problem::new(
                Reason::Forbidden,
                format!(
                    "the API server refused to {what} in {namespace}; the chart's Role grants it: \
                     helm upgrade with watchNamespaces including {namespace}, or ask who runs the admission policy"
                ),
            ),
            too_long if too_long.is_too_long() => Problem::new(
                Reason::BadMapping,
                "the Secret is larger than the API server takes, with the keys of others that are kept in it (kubectl describe \
                 secret shows them); pick fewer keys with spec.data, or remove those of others",
            ),
            Self::Refused { code: 422, reason, .. } | Self::Refused { code: 400, reason, .. } => Problem::new(
                Reason::Forbidden,
                format!(
                    "the API server refused to {what} in {namespace} as {reason}; the log of the API server says what it does not take"
                ),
            ),
            other => Problem::new(
                Reason::ClusterError,
                format!("could not {what} in {namespace}: {other}; the agent tries again"),
            ),
        }
    }
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => from_status(&status),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Unreadable,
            other => Self::Unreachable(Box::new(other)),
        }
    }
}

fn from_status(status: &Status) -> ClusterError {
    let cause = |cause: &StatusCause| Cause { reason: cause.reason.clone(), field: cause.field.clone() };
    let causes = status.details.iter().flat_map(|details| &details.causes).map(cause).collect();
    // RBAC and most webhooks answer 403, a policy 422. What else is not valid, or not readable, is quoted by the API server.
    let of_secrets = status.details.as_ref().is_some_and(|details| details.kind == "secrets");
    let message = &status.message;
    let admission = message.starts_with("admission webhook ") || message.contains(": ValidatingAdmissionPolicy '");
    let sentence = ((status.code == 403 || admission) && !of_secrets && !message.is_empty()).then(|| one_line(message));
    let reason = REASONS.iter().find(|known| **known == status.reason).copied().unwrap_or_default().to_owned();
    ClusterError::Refused { code: status.code, reason, causes, sentence }
}

fn one_line(message: &str) -> String {
    message.replace(|c: char| c.is_control(), " ").chars().take(MAX_SENTENCE).collect()
}

/// An error with its sources, for one log line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_become_reasons_and_never_quote_the_server() {
        let body = br#"{"kind":"Status","reason":"Forbidden","message":"canary","details":{"causes":[{"reason":"NamespaceTerminating"}]}}"#;
        let problem = |code, body: &[u8]| ClusterError::refused(code, body).problem("create secrets", "shop");
        assert_eq!(problem(403, body).reason, Reason::NamespaceTerminating);
        assert_eq!(problem(403, br#"{"reason":"Forbidden","message":"canary"}"#).reason, Reason::Forbidden);
        assert_eq!(problem(422, br#"{"reason":"Invalid","message":"canary"}"#).reason, Reason::Forbidden);
        assert_eq!(problem(500, b"canary").reason, Reason::ClusterError);
        for code in [403, 422, 500] {
            assert!(!problem(code, br#"{"reason":"canary","message":"canary"}"#).message.contains("canary"));
            let told = ClusterError::refused(code, br#"{"reason":"canary","message":"canary"}"#).to_string();
            assert!(!told.contains("canary"), "{told}");
        }
        let data = |reason: &str| {
            let causes = serde_json::json!([{"reason": "FieldValueRequired", "field": "metadata.name"}, {"reason": reason, "field": "data"}]);
            let body = serde_json::json!({"reason": "Invalid", "details": {"causes": causes}}).to_string();
            ClusterError::refused(422, body.as_bytes())
        };
        assert!(data("FieldValueForbidden").is_of_what_cannot_change(), "it is immutable");
        let long = data("FieldValueTooLong");
        assert!(!long.is_of_what_cannot_change(), "made anew, the keys of others would be lost");
        let told = long.problem("patch secrets", "shop");
        assert!(told.reason == Reason::BadMapping && told.message.contains("keys of others"), "{}", told.message);
        assert_eq!(problem(413, b"").reason, Reason::BadMapping);
        let refusal = |code, body: &[u8]| ClusterError::refused(code, body).refusal();
        assert_eq!(refusal(403, br#"{"reason":"Forbidden","message":"not\non Fridays"}"#).unwrap(), "not on Fridays");
        let denied = br#"{"message":"admission webhook \"w\" denied the request: no"}"#;
        assert!(refusal(400, denied).unwrap().ends_with("denied the request: no"));
        let policy =
            br#"{"message":"deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: no"}"#;
        assert!(refusal(422, policy).unwrap().ends_with("denied request: no"));
        let of_secrets = br#"{"reason":"Forbidden","message":"canary","details":{"kind":"secrets"}}"#;
        assert_eq!(refusal(403, of_secrets).unwrap(), "403 Forbidden");
        assert_eq!(refusal(422, br#"{"reason":"Invalid","message":"canary"}"#).unwrap(), "422 Invalid");
        assert_eq!((refusal(409, b""), refusal(503, b""), refusal(429, b"")), (None, None, None));
        assert!(ClusterError::refused(409, b"").is_stale() && !ClusterError::refused(403, b"").is_stale());
    }
}
