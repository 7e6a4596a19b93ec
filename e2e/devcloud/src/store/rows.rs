//! What the rows hold, as JSON before sealing. Fields are only added.

use super::{Founded, Shown};
use crate::attestation::Jwk;
use crate::suite::Suite;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What `init` made.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Installation {
    /// The one organization of this cloud.
    pub organization: String,
    /// The workspace that is meant when none is named.
    pub workspace: String,
    /// Further names of the server's certificate.
    pub tls_names: Vec<String>,
    /// Ed25519 seed of the root.
    pub root_seed: [u8; 32],
    /// PKCS#8 PEM of the certificate authority's key.
    pub ca_key: String,
    /// PEM.
    pub ca_certificate: String,
}

/// The newest keyset and its private halves.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct KeysetRow {
    /// Only grows.
    pub version: u64,
    /// Unix milliseconds.
    pub issued_at_ms: i64,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
    /// Ed25519: challenge, joined, beat.
    pub join_seed: [u8; 32],
    /// Ed25519: sealed, gone.
    pub payload_seed: [u8; 32],
    /// Suite A: receives credentials.
    pub seal_key: [u8; 32],
    /// Suite B, as a seed. None in a row from before there was one: the next version of the keyset gets it.
    #[serde(default)]
    pub seal_key_b: Option<[u8; 32]>,
    /// Keys that were added to the first ones, oldest first.
    #[serde(default)]
    pub added: Vec<AddedKey>,
    /// How many keys were dropped. A stream or access token from before the last one does not count.
    #[serde(default)]
    pub evictions: u64,
}

/// A key that was added by `keyset rotate`.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct AddedKey {
    /// What for.
    #[zeroize(skip)]
    pub r#use: KeyUse,
    /// Its private half.
    pub secret: [u8; 32],
    /// Since when keysets list it. Unix milliseconds.
    pub listed_at_ms: i64,
}

/// What a key of the keyset is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUse {
    /// Signs challenge, joined, beat.
    Join,
    /// Signs sealed, gone.
    Payload,
    /// Receives credentials of suite A.
    SealA,
    /// Receives credentials of suite B.
    SealB,
}

/// The ML-KEM key of the `cli.v1` door. It opens nothing else, and no other key opens what is sealed to it.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct KemRow {
    /// What blobs name it by.
    pub version: String,
    /// d || z of FIPS 203: 64 bytes.
    pub seed: Vec<u8>,
}

/// A workspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workspace {
    /// Its name, which is its id.
    pub name: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// The newest state of a secret's name. Stays when the secret is deleted, so that versions only grow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// Workspace.
    pub workspace: String,
    /// Free text.
    pub name: String,
    /// Newest version, a tombstone included.
    pub version: u64,
    /// First version since the name was last created: payloads before it are erased.
    pub first: u64,
    /// Whether the newest version is a tombstone.
    pub deleted: bool,
    /// Payload type, as `KEYS_VALUES`.
    pub kind: String,
    /// When the newest version was committed. Unix milliseconds.
    pub updated_at_ms: i64,
}

/// One version.
#[derive(Clone, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub version: u64,
    /// Payload type.
    pub kind: String,
    /// Taken as its transaction begins to commit. Unix milliseconds.
    pub committed_at_ms: i64,
    /// A tombstone.
    pub deleted: bool,
    /// The JSON text as it was given; absent in tombstones and in versions that a deletion erased.
    pub payload: Option<String>,
}

impl Drop for Version {
    fn drop(&mut self) {
        self.payload.zeroize();
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.version)
    }
}

/// A bootstrap token. Its text is not kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Token {
    /// The second part of its text.
    pub id: String,
    /// SHA-256 of the whole text.
    pub text_hash: [u8; 32],
    /// Name of the agent it was made for.
    pub agent: String,
    /// That agent's workspace.
    pub workspace: String,
    /// Namespaces it may ask for. None: the ServiceAccount's own, which `account` names.
    pub namespaces: Vec<String>,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
    /// Once used.
    pub spent: Option<Spent>,
    /// The keys one of which has to have signed the ServiceAccount token beside it.
    #[serde(default)]
    pub jwks: Option<Vec<Jwk>>,
    /// That token's issuer.
    #[serde(default)]
    pub issuer: Option<String>,
    /// That token's ServiceAccount, as `NAME` or `NAMESPACE/NAME`.
    #[serde(default)]
    pub account: Option<String>,
}

/// Who used a bootstrap token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spent {
    /// The agent's public key.
    pub agent_key: [u8; 32],
    /// The agent it made or re-enrolled.
    pub agent_id: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A personal access token of the `cli.v1` door. Its text is not kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pat {
    /// In its claims.
    pub id: String,
    /// SHA-256 of the whole text.
    pub text_hash: [u8; 32],
    /// What people call it.
    pub name: String,
    /// The one workspace it may use.
    pub workspace: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
    /// Unix milliseconds.
    pub revoked_at_ms: Option<i64>,
}

/// An agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Given at the first join.
    pub id: String,
    /// As in `token create --agent`.
    pub name: String,
    /// Where its wants look when they name no workspace.
    pub workspace: String,
    /// Of its last bootstrap token: each may have every secret of `workspace`.
    pub namespaces: Vec<String>,
    /// By `agent grant`. Kept over re-enrolment.
    pub grants: Vec<Grant>,
    /// Of `agent_key`.
    pub epoch: u64,
    /// The public key of the newest epoch.
    pub agent_key: [u8; 32],
    /// Live access tokens of the newest epoch.
    pub tokens: Vec<AccessToken>,
    /// What it calls itself.
    pub build: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub joined_at_ms: i64,
    /// By `agent revoke`; a new bootstrap token lifts it.
    pub revoked: bool,
    /// By `agent ban`; only `agent unban` lifts it.
    #[serde(default)]
    pub banned: bool,
    /// A ServiceAccount token stood beside what founded this epoch, so renewals need one too.
    #[serde(default)]
    pub attested: bool,
    /// ServiceAccount tokens that were shown and have not run out.
    #[serde(default)]
    pub shown: Vec<Shown>,
    /// The last epochs and who founded them.
    #[serde(default)]
    pub founded: Vec<Founded>,
}

/// An access token of which only the hash is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessToken {
    /// [`KeysetRow::evictions`] when it was made.
    #[serde(default)]
    pub evictions: u64,
    /// SHA-256.
    pub hash: [u8; 32],
    /// Of the join that gave it, and of the streams that it opens.
    #[serde(default)]
    pub suite: Suite,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
}

/// A namespace of an agent may have a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Workspace.
    pub workspace: String,
    /// One secret, or all.
    pub secret: Option<String>,
}

impl Agent {
    /// Whether a want of `namespace` may have `secret` of `workspace`.
    pub fn may(&self, namespace: &str, workspace: &str, secret: &str) -> bool {
        let by_token = workspace == self.workspace && self.namespaces.iter().any(|n| n == namespace);
        by_token
            || self.grants.iter().any(|grant| {
                grant.namespace == namespace
                    && grant.workspace == workspace
                    && grant.secret.as_deref().is_none_or(|one| one == secret)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_its_namespace_workspace_and_secret_and_nothing_else() {
        let grant = |namespace: &str, workspace: &str, secret: Option<&str>| Grant {
            namespace: namespace.into(),
            workspace: workspace.into(),
            secret: secret.map(Into::into),
        };
        let agent = Agent {
            id: "agt_1".into(),
            name: "a".into(),
            workspace: "own".into(),
            namespaces: vec!["shop".into()],
            grants: vec![grant("ops", "own", Some("db")), grant("shop", "other", None)],
            epoch: 1,
            agent_key: [0; 32],
            tokens: vec![],
            build: String::new(),
            created_at_ms: 0,
            joined_at_ms: 0,
            revoked: false,
            banned: false,
            attested: false,
            shown: vec![],
            founded: vec![],
        };
        for (namespace, workspace, secret, may) in [
            ("shop", "own", "anything", true),
            ("shop", "other", "anything", true),
            ("shop", "third", "anything", false),
            ("ops", "own", "db", true),
            ("ops", "own", "other", false),
            ("ops", "other", "db", false),
            ("", "own", "db", false),
        ] {
            assert_eq!(agent.may(namespace, workspace, secret), may, "{namespace} {workspace} {secret}");
        }
    }
}
