//! What happened in one pass over a binding.

use crate::crd::{SourceStatus, TargetStatus};
use crate::domain::content::Content;
use crate::domain::forecast::Forecast;
use crate::domain::reason::Problem;
use k8s_openapi::jiff::Timestamp;

/// The result of a pass; a failure is one too.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The Secret holds this.
    Synced(Box<Held>),
    /// Nothing moved and nothing is known that status does not say already.
    Unchanged,
    /// The Secret holds what status says, and what stood between agent and cloud is mended.
    Restored,
    /// The spec asks to leave the Secret alone.
    Suspended,
    /// The spec asks to say what would be written.
    Foreseen(Forecast),
    /// Waiting or failed; what the Secret holds did not change.
    Problem(Problem),
}

/// What the Secret holds after a pass that synced.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The new high-water mark.
    pub source: SourceStatus,
    /// What the target holds.
    pub content: Content,
    /// The Secret as written.
    pub target: TargetStatus,
    /// The acceptance that it took.
    pub accepted: Option<String>,
    /// Set when the content changed in this pass.
    pub written_at: Option<Timestamp>,
    /// Commit to answer of the API server; only for a version committed while its want stood.
    pub latency_millis: Option<i64>,
}

impl From<Problem> for Outcome {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
