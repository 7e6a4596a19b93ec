//! Why a restart waits, was skipped, or has failed: a word for machines and a sentence for people.

use std::fmt;

/// The word, as in `status.rollouts[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The Deployment is paused.
    Paused,
    /// A rollout of this content has failed, and nothing more restarts with it.
    Halted,
    /// A person decides: policy Manual.
    Manual,
    /// Workloads of an earlier wave are not up yet.
    AwaitingWave,
    /// Someone else's rollout is under way.
    AwaitingRollout,
    /// Outside of the windows.
    AwaitingWindow,
    /// A window that cannot be read.
    BadWindow,
    /// As many as may restart at once do.
    MaxConcurrent,
    /// The last restart is not long ago.
    MinInterval,
    /// updateStrategy OnDelete, or a set that waits for a pod which will not come up.
    AwaitingPodDeletion,
    /// The API server refused the patch.
    Refused,
    /// The admission policy that holds the agent to restarts is not in force.
    PolicyMissing,
    /// Nothing runs.
    NoReplicas,
    /// It carries the stamp already.
    RestartedAlready,
    /// Someone changed its template meanwhile, so it runs the content without our doing.
    RestartedByOthers,
    /// It failed, and another binding's change or somebody's new template was under way with it: what to take back is for a person
    /// to say.
    RevertAmbiguous,
    /// The Deployment's own deadline passed.
    ProgressDeadlineExceeded,
    /// The binding's timeout passed.
    TimedOut,
    /// Someone took the stamp away.
    StampRemoved,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A cause and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The word.
    pub cause: Cause,
    /// The sentence, with the command that mends it where there is one.
    pub message: String,
}

impl Why {
    /// Both.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }
}
