//! Rows about who may join again without a bootstrap token, and about what deserves a person's eye. Fields are only added.

use crate::attestation::Jwk;
use serde::{Deserialize, Serialize};

/// The ServiceAccount by which an agent comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolment {
    /// The agent.
    pub agent_id: String,
    /// `iss` of the token that enrolled it. Not unique and not trusted; for people, and for R1.
    pub issuer: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// The ServiceAccount's UID.
    pub uid: String,
    /// Keys that may sign.
    pub keys: Vec<EnrolledKey>,
    /// The agent was revoked: nothing is enrolled, but who it was can still be told.
    #[serde(default)]
    pub void: bool,
    /// Its issuer was asked for a discovery document, or a person has said which keys count.
    #[serde(default)]
    pub looked_at: bool,
    /// R1: the issuer is public, and its keys come from it alone.
    #[serde(default)]
    pub public: Option<PublicIssuer>,
}

/// An issuer whose discovery document matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicIssuer {
    /// Where its keys are.
    pub jwks_uri: String,
    /// When they are fetched again. Unix milliseconds.
    pub next_ms: i64,
}

/// A key of an enrolment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolledKey {
    /// It.
    pub jwk: Jwk,
    /// Where it comes from.
    pub origin: Origin,
    /// Since when it is here. Unix milliseconds.
    pub since_ms: i64,
    /// A token that it signed was shown for this ServiceAccount.
    #[serde(default)]
    pub proven: bool,
    /// A person said yes.
    #[serde(default)]
    pub accepted: bool,
    /// Since when the cluster does not list it any more. Unix milliseconds.
    #[serde(default)]
    pub gone_ms: Option<i64>,
}

/// Where a key comes from, which decides what it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Enrolled with a bootstrap token.
    Enrolled,
    /// R1: fetched from a public issuer.
    Issuer,
    /// R2: reported by an attested agent.
    Reported,
    /// R3: given by a person.
    Given,
}

/// A ServiceAccount token that was shown, until it has run out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// `jti`, or the token's hash.
    pub id: String,
    /// The agent key that showed it last.
    pub agent_key: [u8; 32],
    /// That key's epoch.
    pub epoch: u64,
    /// How many agent keys have shown it.
    pub keys: u32,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
}

/// An epoch's beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founded {
    /// Its number.
    pub epoch: u64,
    /// Its agent key.
    pub agent_key: [u8; 32],
    /// The pod's UID, if a ServiceAccount token said it.
    pub pod_uid: Option<String>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Where it lies.
    pub slot: usize,
    /// One word, as `TOKEN_REUSED`.
    pub kind: String,
    /// The agent's name.
    pub agent: String,
    /// What happened, and what to do.
    pub sentence: String,
    /// When it happened first. Unix milliseconds.
    pub first_ms: i64,
    /// When it happened last. Unix milliseconds.
    pub at_ms: i64,
    /// How often.
    pub count: u64,
}
