//! Bootstrap tokens: `ennt1.ID.SECRET.ROOT`, of which only the hash is kept.

use super::{AdminError, Core};
use crate::attestation::parse_jwks;
use crate::signed::hash;
use crate::store::{Table, Token};
use crate::{clock, entropy, names};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use zeroize::Zeroizing;

const PREFIX: &str = "ennt1";

/// What a token is made for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The agent that it will make, or re-enrol if there is one of that name.
    pub agent: String,
    /// Namespaces that may have every secret of the workspace.
    pub namespaces: Vec<String>,
    /// Default: the installation's.
    pub workspace: Option<String>,
    /// How long it can be used. Default, and most: the server's setting.
    #[serde(default)]
    pub life: Option<Duration>,
    /// JSON Web Key Set of the cluster it is for: then the first use is not on trust.
    #[serde(default)]
    pub jwks: Option<String>,
    /// The issuer of the ServiceAccount token that has to stand beside it.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The ServiceAccount of that token, as `NAME` or `NAMESPACE/NAME`.
    #[serde(default)]
    pub service_account: Option<String>,
}

/// A token, shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewToken {
    /// Its text.
    pub token: Zeroizing<String>,
    /// The agent.
    pub agent: String,
    /// Its workspace.
    pub workspace: String,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// Whether it will re-enrol an agent that exists.
    pub re_enrols: bool,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewToken({})", self.agent)
    }
}

impl Core {
    /// Makes a bootstrap token.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_token(&self, request: &TokenRequest) -> Result<NewToken, AdminError> {
        let agent = names::plain("agent", &request.agent)?;
        let workspace = self.workspace_or_default(request.workspace.as_deref())?;
        let mut namespaces =
            request.namespaces.iter().map(|given| names::namespace(given.trim())).collect::<Result<Vec<_>, _>>()?;
        namespaces.sort();
        namespaces.dedup();
        if namespaces.is_empty() && request.service_account.is_none() {
            return Err(AdminError::NoNamespace);
        }
        let jwks = request.jwks.as_ref().map(|text| parse_jwks(text.as_bytes())).transpose()?;
        let (issuer, account) = (request.issuer.clone(), request.service_account.clone());
        let longest = self.lives.bootstrap_token_life;
        let life = request.life.unwrap_or(longest);
        if life > longest {
            return Err(AdminError::LongLife(longest));
        }
        let id = BASE32_NOPAD.encode(&entropy::bytes::<10>()).to_lowercase();
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(Zeroizing::new(entropy::bytes::<32>()).as_slice()));
        let root = BASE64URL_NOPAD.encode(&self.root_hash());
        let text = Zeroizing::new(format!("{PREFIX}.{id}.{}.{root}", secret.as_str()));
        let (text_hash, life) = (hash(&[text.as_bytes()]), clock::millis(life));
        let row = move |expires_at_ms| Token {
            id,
            text_hash,
            agent,
            workspace,
            namespaces,
            expires_at_ms,
            spent: None,
            jwks,
            issuer,
            account,
        };
        self.store
            .write(move |tx| {
                let row = row(tx.now_ms().saturating_add(life));
                let re_enrols = tx.get::<String>(Table::AgentNames, &[&row.agent])?.is_some();
                tx.put(Table::Tokens, &[&row.id], &row)?;
                let Token { agent, workspace, namespaces, expires_at_ms, .. } = row;
                Ok::<_, AdminError>(NewToken { token: text, agent, workspace, namespaces, re_enrols, expires_at_ms })
            })
            .await
    }
}

/// The id in a token's text, if it has the form of one.
pub(super) fn id_of(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').collect();
    match parts[..] {
        [PREFIX, id, secret, root] if !id.is_empty() && !secret.is_empty() && !root.is_empty() => Some(id.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_a_token_has_an_id() {
        assert_eq!(id_of("ennt1.abc.secret.root").as_deref(), Some("abc"));
        for text in
            ["", "ennt1", "ennt1.abc.secret", "ennt2.abc.secret.root", "ennt1..s.r", "ennt1.a.b.c.d", "ennt1.a.b."]
        {
            assert_eq!(id_of(text), None, "{text:?}");
        }
    }
}
