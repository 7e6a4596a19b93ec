//! What the agent has to show in a join, gathered again before each attempt: mounted files change in a living pod, and so do
//! the cluster's keys.

use crate::config::{RunSettings, TokenText};
use crate::crypto::signed::{hash, hash_parts};
use crate::identity::join::{Credentials, Issuer};
use crate::identity::trust::root_of_token;
use data_encoding::BASE64URL_NOPAD;
use futures::future::BoxFuture;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

/// Asks the cluster for its issuer and keys; `None` when it does not say.
pub type Discover = Arc<dyn Fn() -> BoxFuture<'static, Option<Issuer>> + Send + Sync>;

/// How long the cluster is asked for the key that signed the token, and how often.
const ROLL: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Where credentials come from.
#[derive(Clone, Default)]
pub struct CredentialSource {
    /// From the environment: fixed for the life of the process.
    pub token: Option<TokenText>,
    /// A mounted file; wins over the environment when it holds something.
    pub token_file: Option<PathBuf>,
    /// The pod's projected ServiceAccount token, renewed by the kubelet at 80 % of its life.
    pub sa_token_file: Option<PathBuf>,
    /// The cluster.
    pub discover: Option<Discover>,
    /// What the cluster said last: better than nothing while it is silent.
    pub known: Arc<Mutex<Issuer>>,
}

/// The two secrets, as the files held them at one moment.
pub struct Files {
    bootstrap_token: Zeroizing<String>,
    sa_token: Zeroizing<String>,
}

impl Files {
    /// Tells two states of the files apart, and nothing else.
    pub fn mark(&self) -> [u8; 32] {
        hash_parts(&[&hash(self.bootstrap_token.as_bytes()), &hash(self.sa_token.as_bytes())])
    }
}

/// What can be said of a token without showing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// No file is set.
    Unset,
    /// There is no such file.
    Missing(PathBuf),
    /// It cannot be read, and why.
    Unreadable(PathBuf, String),
    /// There is nothing in it.
    Empty(PathBuf),
    /// A token.
    Token {
        /// It has the form of a bootstrap token.
        is_bootstrap: bool,
        /// What it says of itself, if it is a JWT. Not verified.
        claims: Option<Claims>,
    },
}

/// Claims of a ServiceAccount token (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `aud`.
    pub audiences: Vec<String>,
    /// `exp`, Unix seconds.
    pub expires_at_s: Option<i64>,
}

/// Both of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The bootstrap token.
    pub bootstrap: Held,
    /// The ServiceAccount token.
    pub service_account: Held,
}

impl CredentialSource {
    /// The files and variables of the settings. The cluster is not asked.
    pub fn of(settings: &RunSettings) -> Self {
        Self {
            token: settings.auth_token.clone(),
            token_file: settings.auth_token_file.clone(),
            sa_token_file: settings.sa_token_file.clone(),
            ..Self::default()
        }
    }

    /// What can be said of the tokens without showing them.
    pub fn facts(&self) -> Facts {
        let bootstrap = match (held(self.token_file.as_deref()), &self.token) {
            (Held::Unset | Held::Missing(_) | Held::Empty(_), Some(text)) => told(text.expose()),
            (held, _) => held,
        };
        Facts { bootstrap, service_account: held(self.sa_token_file.as_deref()) }
    }

    /// Reads what is there now. A file that is not there yet is no credential, not an error.
    pub fn files(&self) -> Files {
        let of_env = || self.token.as_ref().map(|t| Zeroizing::new(t.expose().to_owned()));
        let of_file = |path: &Option<PathBuf>| path.as_deref().and_then(text_of);
        Files {
            bootstrap_token: of_file(&self.token_file).or_else(of_env).unwrap_or_default(),
            sa_token: of_file(&self.sa_token_file).unwrap_or_default(),
        }
    }

    /// All that there is to show. The cluster is asked for its keys only where there is a token that they sign.
    pub async fn complete(&self, Files { bootstrap_token, sa_token }: Files) -> Credentials {
        let issuer = if sa_token.is_empty() { Issuer::default() } else { self.issuer(&sa_token).await };
        Credentials { bootstrap_token, sa_token, issuer }
    }

    /// While the cluster's keys roll, its API server restarts: a token signed by the new key is shown with the key, or the cloud
    /// would not know it. A cluster that has never named its keys is not waited for.
    async fn issuer(&self, sa_token: &str) -> Issuer {
        let asking = async {
            loop {
                let told = match &self.discover {
                    Some(discover) => discover().await,
                    None => None,
                };
                if let Some(told) = told {
                    *self.known() = told;
                }
                let known = self.known().jwks.clone();
                if known.is_empty() || lists_key_of(&known, sa_token) {
                    return;
                }
                sleep(ASK_AGAIN).await;
            }
        };
        let _unlisted = timeout(ROLL, asking).await;
        self.known().clone()
    }

    fn known(&self) -> MutexGuard<'_, Issuer> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a key set lists the key that a token names. One that names none cannot be missing.
fn lists_key_of(jwks: &[u8], sa_token: &str) -> bool {
    #[derive(Deserialize)]
    struct Named {
        kid: Option<String>,
    }
    #[derive(Deserialize)]
    struct Listed {
        keys: Vec<Named>,
    }
    let header = sa_token.split('.').next().and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
    let named = header.and_then(|header| serde_json::from_slice::<Named>(&header).ok()?.kid);
    let Some(kid) = named else { return true };
    let listed = serde_json::from_slice::<Listed>(jwks);
    listed.is_ok_and(|listed| listed.keys.iter().any(|key| key.kid.as_ref() == Some(&kid)))
}

fn held(path: Option<&Path>) -> Held {
    let Some(path) = path else { return Held::Unset };
    match std::fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) if text.trim().is_empty() => Held::Empty(path.to_owned()),
        Ok(text) => told(text.trim()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Held::Missing(path.to_owned()),
        Err(error) => Held::Unreadable(path.to_owned(), error.kind().to_string()),
    }
}

fn told(token: &str) -> Held {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Told {
        aud: Audience,
        exp: Option<i64>,
    }
    let body =
        token.split('.').nth(1).and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok()).map(Zeroizing::new);
    let claims = body.and_then(|body| serde_json::from_slice::<Told>(&body).ok()).map(|told| Claims {
        audiences: match told.aud {
            Audience::One(one) => vec![one],
            Audience::Many(many) => many,
        },
        expires_at_s: told.exp,
    });
    Held::Token { is_bootstrap: root_of_token(token).is_some(), claims }
}

fn text_of(path: &Path) -> Option<Zeroizing<String>> {
    let text = Zeroizing::new(std::fs::read_to_string(path).ok()?);
    let text = text.trim();
    (!text.is_empty()).then(|| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ennote-{name}-{}", std::process::id()))
    }

    #[test]
    fn the_file_wins_and_is_read_anew_each_time() {
        let file = file("token");
        let source = CredentialSource {
            token: Some("env".parse().unwrap()),
            token_file: Some(file.clone()),
            ..CredentialSource::default()
        };
        let token = || source.files().bootstrap_token.to_string();
        assert_eq!(token(), "env");
        std::fs::write(&file, " one\n").unwrap();
        assert_eq!(token(), "one");
        std::fs::write(&file, "two").unwrap();
        assert_eq!(token(), "two");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(token(), "env");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(CredentialSource::default().files().bootstrap_token.as_str(), "");
        let files = |bootstrap: &str, sa: &str| Files {
            bootstrap_token: Zeroizing::new(bootstrap.to_owned()),
            sa_token: Zeroizing::new(sa.to_owned()),
        };
        assert_eq!(files("a", "b").mark(), files("a", "b").mark());
        assert!(files("a", "b").mark() != files("ab", "").mark() && files("", "a").mark() != files("a", "").mark());
    }

    #[test]
    fn what_is_said_of_a_token_does_not_show_it() {
        let path = file("facts");
        let of = |token: Option<&str>| {
            let token = token.map(|text| text.parse().unwrap());
            CredentialSource { token, sa_token_file: Some(path.clone()), ..CredentialSource::default() }.facts()
        };
        assert_eq!(of(None), Facts { bootstrap: Held::Unset, service_account: Held::Missing(path.clone()) });
        for (claims, audiences, expires_at_s) in [
            (r#"{"aud":"a","exp":5}"#, vec!["a"], Some(5)),
            (r#"{"aud":["a","b"],"sub":"canary"}"#, vec!["a", "b"], None),
        ] {
            std::fs::write(&path, format!("h.{}.canary", BASE64URL_NOPAD.encode(claims.as_bytes()))).unwrap();
            let audiences = audiences.into_iter().map(str::to_owned).collect();
            let claims = Some(Claims { audiences, expires_at_s });
            let facts = of(Some("ennt1.canary"));
            assert_eq!(facts.service_account, Held::Token { is_bootstrap: false, claims });
            assert_eq!(facts.bootstrap, Held::Token { is_bootstrap: false, claims: None });
            assert!(!format!("{facts:?}").contains("canary"));
        }
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(of(None).service_account, Held::Empty(path.clone()));
        std::fs::remove_file(&path).unwrap();
        let root = format!("ennt1.a.b.{}", BASE64URL_NOPAD.encode(&[1; 32]));
        assert_eq!(of(Some(&root)).bootstrap, Held::Token { is_bootstrap: true, claims: None });
    }

    #[tokio::test]
    async fn the_clusters_keys_are_asked_for_each_time_and_the_last_ones_kept() {
        let path = file("sa-token");
        let silent = Arc::new(AtomicBool::new(false));
        let told = silent.clone();
        let issuer = Issuer { url: "https://kubernetes.default.svc".to_owned(), jwks: b"{}".to_vec() };
        let answer = issuer.clone();
        let discover: Discover = Arc::new(move || {
            let said = (!told.load(Ordering::Relaxed)).then(|| answer.clone());
            async move { said }.boxed()
        });
        let source = CredentialSource {
            sa_token_file: Some(path.clone()),
            discover: Some(discover),
            ..CredentialSource::default()
        };
        assert_eq!(
            source.complete(source.files()).await.issuer,
            Issuer::default(),
            "nothing to verify, nothing to ask"
        );
        std::fs::write(&path, "token").unwrap();
        assert_eq!(source.complete(source.files()).await.issuer, issuer);
        silent.store(true, Ordering::Relaxed);
        let gathered = source.complete(source.files()).await;
        assert_eq!((gathered.sa_token.as_str(), gathered.issuer), ("token", issuer));
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_has_rolled_is_asked_for_until_the_cluster_names_it() {
        let path = file("sa-token-rolled");
        let token = |kid: &str| {
            let header = BASE64URL_NOPAD.encode(format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#).as_bytes());
            std::fs::write(&path, format!("{header}.e30.c2ln")).unwrap();
        };
        let keys =
            |kid: &str| Issuer { url: "i".to_owned(), jwks: format!(r#"{{"keys":[{{"kid":"{kid}"}}]}}"#).into() };
        let asked = Arc::new(AtomicUsize::new(0));
        let (old, new, count) = (keys("old"), keys("new"), asked.clone());
        let discover: Discover = Arc::new(move || {
            let said = match count.fetch_add(1, Ordering::Relaxed) {
                0 => Some(old.clone()),
                // The API server restarts.
                1 | 2 => None,
                _ => Some(new.clone()),
            };
            async move { said }.boxed()
        });
        let (sa_token_file, discover) = (Some(path.clone()), Some(discover));
        let source = CredentialSource { sa_token_file, discover, ..CredentialSource::default() };
        token("old");
        assert_eq!((source.complete(source.files()).await.issuer, asked.load(Ordering::Relaxed)), (keys("old"), 1));
        token("new");
        assert_eq!((source.complete(source.files()).await.issuer, asked.load(Ordering::Relaxed)), (keys("new"), 4));
        token("never");
        assert_eq!(source.complete(source.files()).await.issuer, keys("new"), "what there is, in the end");
        let never = CredentialSource { discover: Some(Arc::new(|| async { None }.boxed())), ..source.clone() };
        let never = CredentialSource { known: Arc::default(), ..never };
        let began = tokio::time::Instant::now();
        assert_eq!(never.complete(never.files()).await.issuer, Issuer::default());
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for a cluster that does not tell");
        std::fs::remove_file(&path).unwrap();
    }
}
