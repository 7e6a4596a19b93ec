//! Personal access tokens: what people and their pipelines show at the `cli.v1` door, and nowhere else.
//!
//! Three parts with dots between, as the published client's `auth status` wants them: base64url of a JSON header and of JSON
//! claims, which anyone may read, and random bytes. Nothing is signed and nothing in a text is believed: a token counts
//! because the hash of its whole text has a row.

use super::{AdminError, Core};
use crate::signed::hash;
use crate::store::{Pat, Table};
use crate::{clock, entropy, names};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::time::Duration;
use zeroize::Zeroizing;

/// The hard limit, as published.
pub const MAX_PAT_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Random bytes of a token. Not 32: the last part of a bootstrap token is a root hash of 32 bytes, and whoever hands an agent a
/// personal access token by mistake is to be told just that.
const RANDOM: usize = 48;
/// No token that this cloud made is longer.
const MAX_TEXT: usize = 1024;

/// What a token is made for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PatRequest {
    /// Names it to people. No two live tokens have the same.
    pub name: String,
    /// The one workspace it reads and writes. Default: the installation's.
    pub workspace: Option<String>,
    /// Default, and most: [`MAX_PAT_LIFE`].
    pub life: Option<Duration>,
}

/// A token, shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewPat {
    /// Its text.
    pub token: Zeroizing<String>,
    /// Name.
    pub name: String,
    /// Organization, as the client has to name it.
    pub organization: String,
    /// Workspace.
    pub workspace: String,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
}

impl fmt::Debug for NewPat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewPat({})", self.name)
    }
}

/// A row of `pat list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatEntry {
    /// Name.
    pub name: String,
    /// Id, as in its claims.
    pub id: String,
    /// Workspace.
    pub workspace: String,
    /// `live`, `expired` or `revoked`.
    pub state: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
}

/// Why a call's token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum BadPat {
    #[error(
        "that is no personal access token of this cloud; an administrator makes one with: ennote-devcloud pat create --name NAME"
    )]
    Unknown,
    #[error(
        "the personal access token has expired; an administrator makes another with: ennote-devcloud pat create --name NAME"
    )]
    Expired,
    #[error("the personal access token was revoked")]
    Revoked,
    #[error("the cloud could not read its database; its log says why")]
    Store,
}

/// Who a live token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's name.
    pub name: String,
    /// The one workspace it may use.
    pub workspace: String,
}

impl Core {
    /// Makes a personal access token.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn create_pat(&self, request: &PatRequest) -> Result<NewPat, AdminError> {
        let name = names::plain("personal access token", &request.name)?;
        let workspace = self.workspace_or_default(request.workspace.as_deref())?;
        let life = request.life.unwrap_or(MAX_PAT_LIFE);
        if life > MAX_PAT_LIFE {
            return Err(AdminError::LongPat);
        }
        let organization = self.organization().to_owned();
        self.store
            .write(move |tx| {
                let now = tx.now_ms();
                let known: Vec<Pat> = tx.all(Table::Pats)?;
                if known.iter().any(|pat| pat.name == name && state(pat, now) == State::Live) {
                    return Err(AdminError::PatExists(name));
                }
                let id = format!("pat_{}", BASE32_NOPAD.encode(&entropy::bytes::<10>()).to_lowercase());
                let expires_at_ms = now.saturating_add(clock::millis(life));
                let token = text(&id, &name, &organization, &workspace, now / 1000, expires_at_ms / 1000);
                let text_hash = hash(&[token.as_bytes()]);
                let row =
                    Pat { id, text_hash, name, workspace, created_at_ms: now, expires_at_ms, revoked_at_ms: None };
                tx.put(Table::Pats, &[&HEXLOWER.encode(&text_hash)], &row)?;
                let Pat { name, workspace, .. } = row;
                Ok(NewPat { token, name, organization, workspace, expires_at_ms })
            })
            .await
    }

    /// All tokens, by name, the newest of a name first.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn pats(&self) -> Result<Vec<PatEntry>, AdminError> {
        let now = Self::now_ms();
        let mut all: Vec<PatEntry> =
            self.store.view()?.all(Table::Pats)?.into_iter().map(|pat| entry(pat, now)).collect();
        all.sort_by(|a, b| (&a.name, -a.created_at_ms, &a.id).cmp(&(&b.name, -b.created_at_ms, &b.id)));
        Ok(all)
    }

    /// Revokes the live token of a name: the next call with it is refused.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn revoke_pat(&self, name: &str) -> Result<PatEntry, AdminError> {
        let name = names::plain("personal access token", name)?;
        let revoked = self
            .store
            .write(move |tx| {
                let now = tx.now_ms();
                let known: Vec<Pat> = tx.all(Table::Pats)?;
                let live = known.into_iter().find(|pat| pat.name == name && state(pat, now) == State::Live);
                let mut pat = live.ok_or(AdminError::NoPat(name))?;
                pat.revoked_at_ms = Some(now);
                tx.put(Table::Pats, &[&HEXLOWER.encode(&pat.text_hash)], &pat)?;
                Ok::<_, AdminError>(entry(pat, now))
            })
            .await?;
        tracing::info!(name = revoked.name, id = revoked.id, "personal access token revoked");
        Ok(revoked)
    }

    /// Who shows this text. Asked anew for every call.
    ///
    /// # Errors
    /// [`BadPat`].
    pub fn principal(&self, text: &str) -> Result<Principal, BadPat> {
        if text.len() > MAX_TEXT {
            return Err(BadPat::Unknown);
        }
        let failed = |error| {
            tracing::error!(%error, "the store failed a personal access token");
            BadPat::Store
        };
        let row = HEXLOWER.encode(&hash(&[text.as_bytes()]));
        let found: Option<Pat> = self.store.view().and_then(|view| view.get(Table::Pats, &[&row])).map_err(failed)?;
        let pat = found.ok_or(BadPat::Unknown)?;
        match state(&pat, Self::now_ms()) {
            State::Live => Ok(Principal { name: pat.name, workspace: pat.workspace }),
            State::Expired => Err(BadPat::Expired),
            State::Revoked => Err(BadPat::Revoked),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Expired,
    Revoked,
}

fn state(pat: &Pat, now_ms: i64) -> State {
    match pat.revoked_at_ms {
        Some(_) => State::Revoked,
        None if now_ms >= pat.expires_at_ms => State::Expired,
        None => State::Live,
    }
}

fn entry(pat: Pat, now_ms: i64) -> PatEntry {
    let state = match state(&pat, now_ms) {
        State::Live => "live",
        State::Expired => "expired",
        State::Revoked => "revoked",
    };
    let Pat { name, id, workspace, created_at_ms, expires_at_ms, .. } = pat;
    PatEntry { name, id, workspace, state: state.to_owned(), created_at_ms, expires_at_ms }
}

/// `iat` and `exp` in seconds, as in a JWT; the client shows `name` and `exp`.
fn text(id: &str, name: &str, organization: &str, workspace: &str, iat: i64, exp: i64) -> Zeroizing<String> {
    let header = json!({"typ": "ennote-pat"});
    let claims = json!({"jti": id, "name": name, "org": organization, "workspace": workspace, "iat": iat, "exp": exp});
    let part = |value: serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let random = Zeroizing::new(BASE64URL_NOPAD.encode(Zeroizing::new(entropy::bytes::<RANDOM>()).as_slice()));
    Zeroizing::new(format!("{}.{}.{}", part(header), part(claims), random.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_three_parts_of_which_the_middle_one_says_when_it_ends() {
        let token = text("pat_1", "ci", "acme", "prod", 5, 65);
        let parts: Vec<&str> = token.split('.').collect();
        let [_, claims, random] = parts[..] else { panic!("not three parts") };
        let claims: serde_json::Value =
            serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
        assert_eq!((&claims["exp"], &claims["name"], &claims["jti"]), (&json!(65), &json!("ci"), &json!("pat_1")));
        assert_eq!(BASE64URL_NOPAD.decode(random.as_bytes()).unwrap().len(), RANDOM);
        assert_ne!(token, text("pat_1", "ci", "acme", "prod", 5, 65));
        let longest = "n".repeat(63);
        assert!(text("pat_0123456789abcdef", &longest, &longest, &longest, i64::MAX, i64::MAX).len() <= MAX_TEXT);
    }
}
