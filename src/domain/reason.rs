//! The closed list of reasons: what a condition may say, who must act, and what follows.

use std::fmt;

/// Why a binding is in the state it is in. The name is the condition's reason and the Event's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The Secret holds the newest version received.
    Synced,
    /// Nothing is written because the spec asks for that; the sentence says what would be.
    Observed,
    /// The spec asks to leave the Secret alone.
    Suspended,
    /// No stream to the cloud yet.
    WaitingForCloud,
    /// The want stands; its answer has not come yet.
    WaitingForPayload,
    /// The cloud has no secret of that name yet.
    WaitingForSecret,
    /// A Secret of an earlier binding is still being collected.
    AwaitingCollection,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// The API server did not take a call; tried again.
    ClusterError,
    /// RBAC or admission refused a call.
    Forbidden,
    /// The admission policy that holds the agent is not in force.
    PolicyMissing,
    /// The target belongs to someone else.
    Collision,
    /// The target was ours, and a person took our label from it.
    Released,
    /// The target cannot become what the spec asks for without being made anew.
    RecreateNeeded,
    /// Another agent writes this binding.
    ManagedByAnotherAgent,
    /// The cloud grants this namespace no access to that secret.
    Denied,
    /// The spec and the payload do not fit.
    BadMapping,
    /// The payload is not usable.
    BadPayload,
    /// The secret was deleted in the cloud.
    SourceDeleted,
    /// The agent has no identity, and nothing to get one with.
    IdentityLost,
    /// A bootstrap token names another root than the pinned one.
    RootChanged,
    /// The cloud's signed time contradicts what is known to have passed.
    ClockDisagrees,
    /// The agent belongs to another organization than the one that wrote this binding's Secret.
    IdentityChanged,
    /// The cloud has banned this agent.
    Banned,
    /// Not signed by the cloud's key.
    BadSignature,
    /// Signed by a key that the keyset does not list.
    UnknownKey,
    /// Sealed for another agent, epoch, stream or session key.
    WrongRecipient,
    /// Sealed for another binding.
    WrongBinding,
    /// Another source than the one asked for.
    WrongSource,
    /// An older version than one already seen.
    Rollback,
    /// Signed well, but does not open.
    Undecryptable,
}

/// What kstatus and the truth table of DESIGN.md section 3 make of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Ready True.
    Synced,
    /// Ready Unknown, Reconciling True.
    Waiting,
    /// Ready False, Reconciling True: the agent tries again by itself.
    Retrying,
    /// Ready False, Stalled True: a person must act.
    Stalled,
}

impl Reason {
    /// All of them, for the documentation and its test.
    pub const ALL: [Self; 31] = [
        Self::Synced,
        Self::Observed,
        Self::Suspended,
        Self::WaitingForCloud,
        Self::WaitingForPayload,
        Self::WaitingForSecret,
        Self::AwaitingCollection,
        Self::NamespaceTerminating,
        Self::ClusterError,
        Self::Forbidden,
        Self::PolicyMissing,
        Self::Collision,
        Self::Released,
        Self::RecreateNeeded,
        Self::ManagedByAnotherAgent,
        Self::Denied,
        Self::BadMapping,
        Self::BadPayload,
        Self::SourceDeleted,
        Self::IdentityLost,
        Self::RootChanged,
        Self::ClockDisagrees,
        Self::IdentityChanged,
        Self::Banned,
        Self::BadSignature,
        Self::UnknownKey,
        Self::WrongRecipient,
        Self::WrongBinding,
        Self::WrongSource,
        Self::Rollback,
        Self::Undecryptable,
    ];

    /// Whether a delivery said so, which an agent that has just started has not heard again yet.
    pub fn is_of_a_delivery(self) -> bool {
        matches!(
            self,
            Self::SourceDeleted
                | Self::BadMapping
                | Self::BadPayload
                | Self::RecreateNeeded
                | Self::Denied
                | Self::IdentityChanged
        )
    }

    /// Whether it is the agent's link to the cloud that a person must mend: it says nothing about what the Secret holds.
    pub fn is_of_the_link(self) -> bool {
        matches!(self, Self::IdentityLost | Self::RootChanged | Self::ClockDisagrees | Self::Banned)
    }

    /// Whether what the Secret holds is as it was: it says what a person must mend before anything is written again.
    pub fn leaves_synced(self) -> bool {
        self.is_of_the_link() || self == Self::PolicyMissing
    }

    /// Whether it says that a delivery is not what the cloud's core sends for this binding.
    pub fn refuses_a_delivery(self) -> bool {
        matches!(
            self,
            Self::BadSignature
                | Self::UnknownKey
                | Self::WrongRecipient
                | Self::WrongBinding
                | Self::WrongSource
                | Self::Rollback
                | Self::Undecryptable
                | Self::BadPayload
        )
    }

    /// The row of the truth table.
    pub fn phase(self) -> Phase {
        match self {
            Self::Synced | Self::Observed | Self::Suspended => Phase::Synced,
            Self::WaitingForCloud | Self::WaitingForPayload | Self::WaitingForSecret | Self::AwaitingCollection => {
                Phase::Waiting
            }
            Self::NamespaceTerminating | Self::ClusterError => Phase::Retrying,
            Self::Forbidden
            | Self::PolicyMissing
            | Self::Collision
            | Self::Released
            | Self::RecreateNeeded
            | Self::ManagedByAnotherAgent
            | Self::Denied
            | Self::BadMapping
            | Self::BadPayload
            | Self::SourceDeleted
            | Self::IdentityLost
            | Self::RootChanged
            | Self::ClockDisagrees
            | Self::IdentityChanged
            | Self::Banned
            | Self::BadSignature
            | Self::UnknownKey
            | Self::WrongRecipient
            | Self::WrongBinding
            | Self::WrongSource
            | Self::Rollback
            | Self::Undecryptable => Phase::Stalled,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Characters of a sentence: the same one stands in up to three conditions, which the API server has to take.
const LONGEST: usize = 4000;

/// A reason with its sentence. Sentences are ours: no remote text, no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Problem {
    /// Why.
    pub reason: Reason,
    /// What is wrong, whose turn it is, and the command that mends it.
    pub message: String,
}

impl Problem {
    /// Joins the two.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
            message.push_str(" ...");
        }
        Self { reason, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_cut_before_the_api_server_refuses_it() {
        let long = Problem::new(Reason::BadMapping, "ü".repeat(1_000_000)).message;
        assert!(long.ends_with("ü ...") && long.chars().count() == LONGEST + 4);
        assert_eq!(Problem::new(Reason::BadMapping, "short").message, "short");
    }
}
