//! Every way in which an agent is refused: status, ErrorInfo.reason, and a sentence (PROTOCOL.md, the table of reasons).

use crate::attestation::Fault;
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "ennote.io";

/// Why an agent was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The access token is unknown or ran out.
    TokenExpired,
    /// No such agent or epoch.
    EpochUnknown,
    /// No credential names an agent.
    Identity(Fault),
    /// A bootstrap token that was used before.
    TokenSpent,
    /// A bootstrap token that was not used in time.
    TokenLate,
    /// A challenge that is unknown, used, late, or not answered by its key.
    Challenge,
    /// No common suite.
    Suite,
    /// A gap in the asks.
    Sequence,
    /// A newer epoch exists.
    Superseded,
    /// Revoked or banned.
    Banned,
    /// A key was dropped from the keyset since the agent joined.
    Evicted,
    /// A signature or nonce that does not belong to this stream.
    Unproven,
    /// A message that breaks the protocol.
    Malformed(&'static str),
    /// A third stream of one epoch.
    Replaced,
    /// No frame for too long.
    Silent,
    /// The stream's life is over.
    StreamOver,
    /// Too many of something at once.
    Crowded(&'static str),
    /// This process is stopping.
    Stopping,
    /// The store failed. The details are in this process's log.
    Internal,
}

impl Refusal {
    /// `ErrorInfo.reason`.
    pub fn reason(&self) -> &'static str {
        self.parts().1
    }

    fn parts(&self) -> (Code, &'static str, &'static str) {
        match self {
            Self::TokenExpired => {
                (Code::Unauthenticated, "TOKEN_EXPIRED", "the access token is unknown or has run out; join again")
            }
            Self::EpochUnknown => {
                (Code::Unauthenticated, "EPOCH_UNKNOWN", "this cloud does not know that agent or epoch; join again")
            }
            Self::Identity(fault) => (Code::Unauthenticated, "IDENTITY_UNKNOWN", fault.sentence()),
            Self::TokenSpent => (
                Code::Unauthenticated,
                "TOKEN_SPENT",
                "the bootstrap token was used before; an administrator makes another with: ennote-devcloud token create",
            ),
            Self::TokenLate => (
                Code::Unauthenticated,
                "TOKEN_LATE",
                "the bootstrap token was not used in time; an administrator makes another with: ennote-devcloud token create",
            ),
            Self::Challenge => (
                Code::FailedPrecondition,
                "CHALLENGE",
                "the challenge is unknown, used, late, or not answered by the key it was made for; begin again",
            ),
            Self::Suite => (
                Code::FailedPrecondition,
                "SUITE",
                "no suite of this cloud was offered, or not the one of the join was kept to",
            ),
            Self::Sequence => {
                (Code::FailedPrecondition, "SEQUENCE", "the asks of a stream count 1, 2, 3 ...; open another stream")
            }
            Self::Superseded => {
                (Code::Aborted, "SUPERSEDED", "a newer key of this agent has joined; only the newest opens streams")
            }
            Self::Banned => (
                Code::PermissionDenied,
                "BANNED",
                "this agent was revoked or banned; an administrator lets it in again with: ennote-devcloud token create --agent NAME, or ennote-devcloud agent unban NAME",
            ),
            Self::Evicted => (
                Code::Unauthenticated,
                "EVICTED",
                "a key of this cloud was revoked; join again to learn which ones count",
            ),
            Self::Unproven => (Code::Unauthenticated, "UNPROVEN", "not signed by the agent's key for this stream"),
            Self::Malformed(what) => (Code::InvalidArgument, "MALFORMED", what),
            Self::Replaced => {
                (Code::Unavailable, "REPLACED", "a third stream of this epoch was opened; two are served")
            }
            Self::Silent => (Code::Unavailable, "SILENT", "no frame came for too long"),
            Self::StreamOver => (Code::Unavailable, "DRAINED", "the life of this stream is over; open another"),
            Self::Crowded(what) => (Code::ResourceExhausted, "CROWDED", what),
            Self::Stopping => (Code::Unavailable, "STOPPING", "this cloud is being stopped; try again later"),
            Self::Internal => {
                (Code::Internal, "INTERNAL", "the cloud could not read or write its database; its log says why")
            }
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason, text) = refusal.parts();
        let detail = match refusal {
            Refusal::Identity(fault) => HashMap::from([("detail".to_owned(), fault.detail().to_owned())]),
            _ => HashMap::new(),
        };
        Self::with_error_details(code, text, ErrorDetails::with_error_info(reason, DOMAIN, detail))
    }
}

impl From<crate::store::StoreError> for Refusal {
    fn from(error: crate::store::StoreError) -> Self {
        tracing::error!(%error, "the store failed an agent");
        Self::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_its_reason_as_error_info() {
        for (refusal, code, reason) in [
            (Refusal::TokenSpent, Code::Unauthenticated, "TOKEN_SPENT"),
            (Refusal::Challenge, Code::FailedPrecondition, "CHALLENGE"),
            (Refusal::Superseded, Code::Aborted, "SUPERSEDED"),
            (Refusal::Banned, Code::PermissionDenied, "BANNED"),
            (Refusal::Identity(Fault::Replayed), Code::Unauthenticated, "IDENTITY_UNKNOWN"),
        ] {
            let detail = matches!(refusal, Refusal::Identity(_)).then_some("REPLAYED");
            let status = Status::from(refusal);
            assert_eq!(status.code(), code);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "ennote.io"));
            assert_eq!(info.metadata.get("detail").map(String::as_str), detail);
        }
    }
}
