//! The core: the only holder of identities, sealing and signing keys, and the only user of the store.
//!
//! All doors lead here: `cloud` (gRPC, for agents and for the published command line) and `admin` (the socket, for people). Everything takes its time from the
//! caller or from the commit it is part of.

mod admission;
mod agents;
mod alarms;
mod challenges;
mod enrolments;
mod epochs;
mod holdings;
mod hub;
mod interop;
mod issuers;
mod join;
mod keyset;
mod open;
mod pats;
mod refusal;
mod rolls;
mod rotation;
mod secrets;
mod tokens;

pub use agents::{AccountEntry, AgentEntry, Revoked};
pub use challenges::{Begun, Proven};
pub use holdings::{BindingStatus, SecretStatus, State, WorkloadStatus};
pub use hub::{Hub, News, Registration, Role};
pub use interop::{Given, InteropError, Taken, Upload};
pub use issuers::DueIssuer;
pub use keyset::{Keys, SealKey};
pub use open::{AlreadyInitialised, Core, InitOptions, OpenError};
pub use pats::{BadPat, MAX_PAT_LIFE, NewPat, PatEntry, PatRequest, Principal};
pub use refusal::Refusal;
pub use rolls::KeyEntry;
pub use rotation::{KeysetEntry, ListedKey};
pub use secrets::{Fetched, SecretEntry, VersionEntry};
pub use tokens::{NewToken, TokenRequest};

use crate::names::BadName;
use crate::payload::BadPayload;
use crate::store::StoreError;

/// Why an administrator's wish was not met: what is wrong, and what mends it.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum AdminError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Name(#[from] BadName),
    #[error(transparent)]
    Payload(#[from] BadPayload),
    #[error("there is no workspace {0:?}; make it with: ennote-devcloud workspace create {0}")]
    NoWorkspace(String),
    #[error("workspace {0:?} exists already")]
    WorkspaceExists(String),
    #[error(
        "there is no secret {name:?} in workspace {workspace:?}; see: ennote-devcloud secret list --workspace {workspace}"
    )]
    NoSecret { workspace: String, name: String },
    #[error("secret {name:?} was deleted at version {version}; put it again to bring it back as version {}", version + 1)]
    Deleted { name: String, version: u64 },
    #[error(
        "secret {name:?} has no version {version}; see: ennote-devcloud secret versions {}",
        crate::names::quoted(name)
    )]
    NoVersion { name: String, version: u64 },
    #[error("version {version} of secret {name:?} was erased when the secret was deleted")]
    Erased { name: String, version: u64 },
    #[error("there is no agent {0:?}; see: ennote-devcloud agent list")]
    NoAgent(String),
    #[error("a bootstrap token lives {} at most; `serve --bootstrap-token-life` sets that", humantime::format_duration(*.0))]
    LongLife(std::time::Duration),
    #[error("a personal access token lives 30d at most")]
    LongPat,
    #[error("there is a live personal access token {0:?}; revoke it first with: ennote-devcloud pat revoke {0}")]
    PatExists(String),
    #[error("there is no live personal access token {0:?}; see: ennote-devcloud pat list")]
    NoPat(String),
    #[error("this cloud sends no faults; a test of an agent starts it with: ennote-devcloud serve --allow-faults")]
    NoFaults,
    #[error("name at least one namespace: --namespace NAMESPACE; or a --service-account, whose own is meant then")]
    NoNamespace,
    #[error("agent {0:?} has no ServiceAccount enrolled; it gets one with: ennote-devcloud token create --agent {0}")]
    NotEnrolled(String),
    #[error("there are eight keys of that use; drop one first with: ennote-devcloud keyset drop ID")]
    ManyKeys,
    #[error(
        "{0:?} does not name one key of the keyset (eight characters of its id at least); see: ennote-devcloud keyset show"
    )]
    NoSuchKey(String),
    #[error("no enrolled key has the thumbprint {0:?}; see: ennote-devcloud agent keys NAME")]
    NoKey(String),
    #[error(
        "another agent is enrolled with one of these keys for the same ServiceAccount; see: ennote-devcloud agent list"
    )]
    KeyTaken,
    #[error("the key set cannot be used: {0}; take it from the cluster with: kubectl get --raw /openid/v1/jwks")]
    Jwks(#[from] crate::attestation::BadJwks),
}
