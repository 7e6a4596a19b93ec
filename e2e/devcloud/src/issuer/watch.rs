//! Looks at new enrolments once, and fetches the keys of those whose issuer is public whenever their time has come.

use super::Fetcher;
use crate::attestation::{Jwk, parse_jwks};
use crate::core::{Core, DueIssuer, News};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

/// Without `Cache-Control`.
const USUAL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is read of OpenID Connect Discovery 1.0, section 3.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Runs until the cloud stops.
pub async fn watch(core: Arc<Core>) {
    let mut news = core.hub.listen();
    let mut stopped = core.hub.stopped();
    loop {
        let wait = match core.due_issuers() {
            Ok((due, wait)) => {
                // What is due now will be due again, and its issuer says only now when.
                let wait = if due.is_empty() { wait } else { wait.min(core.lives.issuer_pause) };
                for issuer in due {
                    tokio::select! {
                        () = look(&core, issuer) => (),
                        () = &mut stopped => return,
                    }
                }
                wait
            }
            Err(error) => {
                tracing::error!(%error, "cannot look for issuers");
                USUAL
            }
        };
        let changed = async {
            loop {
                match news.recv().await {
                    Ok(News::Agent { .. }) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => (),
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = sleep(wait) => (),
            // One look answers all that have joined by now.
            () = changed => while news.try_recv().is_ok() {},
            () = &mut stopped => return,
        }
    }
}

async fn look(core: &Core, due: DueIssuer) {
    let agent = due.agent.clone();
    let (found, next) = match &due.jwks_uri {
        Some(uri) => {
            let fetched = keys(&core.fetcher, uri).await;
            // A public issuer that does not answer is asked again as soon as may be: its keys may be rolling just now.
            fetched.map_or_else(|why| (Err(why), Duration::ZERO), |(keys, next)| (Ok((uri.clone(), keys)), next))
        }
        None => match discover(&core.fetcher, &due.issuer).await {
            Ok((uri, keys, next)) => (Ok((uri, keys)), next),
            Err(why) => (Err(why), USUAL),
        },
    };
    if let Err(why) = &found {
        tracing::info!(agent, issuer = due.issuer, why, "the issuer's keys were not fetched");
    }
    let next = next.clamp(core.lives.issuer_pause, LONGEST.max(core.lives.issuer_pause));
    if let Err(error) = core.issuer_looked_at(due, found.ok(), next).await {
        tracing::error!(agent, %error, "what an issuer said could not be kept");
    }
}

async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<(String, Vec<Jwk>, Duration), String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = fetcher.get(&url).await.map_err(|error| error.to_string())?;
    let document: Discovery = serde_json::from_slice(&document.body).map_err(|_| "no discovery document".to_owned())?;
    if document.issuer != issuer {
        return Err("the discovery document is of another issuer".to_owned());
    }
    let (keys, next) = keys(fetcher, &document.jwks_uri).await?;
    Ok((document.jwks_uri, keys, next))
}

async fn keys(fetcher: &Fetcher, uri: &str) -> Result<(Vec<Jwk>, Duration), String> {
    let answer = fetcher.get(uri).await.map_err(|error| error.to_string())?;
    let keys = parse_jwks(&answer.body).map_err(|error| error.to_string())?;
    Ok((keys, answer.max_age.unwrap_or(USUAL)))
}
