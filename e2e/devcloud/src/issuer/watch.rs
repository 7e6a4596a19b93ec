//! Looks at new enrolments once, and fetches the keys of those whose issuer is public whenever their time has come.

use super::Fetcher;
use crate::attestation::{Jwk, parse_jwks};
use crate::core::{Core, DueIssuer, News};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Issuers that are asked at once: one that does not answer holds nobody else up.
const AT_ONCE: usize = 8;
/// Without `Cache-Control`.
const USUAL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is remembered of an agent's issuer.
struct Asked {
    /// None: it is being asked. Else it is not asked before then, whatever came of it.
    rests_until: Option<Instant>,
    /// Looks in a row that brought nothing.
    failures: u32,
}

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
    let mut looks: JoinSet<(String, u32)> = JoinSet::new();
    let mut asked: HashMap<String, Asked> = HashMap::new();
    loop {
        let now = Instant::now();
        asked.retain(|_, asked| asked.failures > 0 || asked.rests_until.is_none_or(|until| until > now));
        let wait = match core.due_issuers() {
            Ok((due, wait)) => {
                for issuer in due {
                    let known =
                        asked.entry(issuer.agent.clone()).or_insert(Asked { rests_until: Some(now), failures: 0 });
                    if looks.len() < AT_ONCE && known.rests_until.is_some_and(|until| until <= now) {
                        known.rests_until = None;
                        let (core, before) = (core.clone(), known.failures);
                        looks.spawn(async move {
                            let agent = issuer.agent.clone();
                            (agent, look(&core, issuer, before).await)
                        });
                    }
                }
                let rests = asked.values().filter_map(|asked| asked.rests_until).filter(|until| *until > now);
                rests.min().map_or(wait, |until| wait.min(until - now))
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
            Some(looked) = looks.join_next() => match looked {
                Ok((agent, failures)) => {
                    let rests_until = Some(Instant::now() + core.lives.issuer_pause);
                    asked.insert(agent, Asked { rests_until, failures });
                }
                Err(error) => tracing::error!(%error, "a look at an issuer broke off"),
            },
            // One look answers all that have joined by now.
            () = changed => while news.try_recv().is_ok() {},
            () = &mut stopped => return,
        }
    }
}

/// Gives how often in a row its issuer has failed now.
async fn look(core: &Core, due: DueIssuer, before: u32) -> u32 {
    let agent = due.agent.clone();
    let (found, next) = match &due.jwks_uri {
        Some(uri) => {
            let fetched = keys(&core.fetcher, uri).await;
            let next = pause_after(before, core.lives.issuer_pause);
            fetched.map_or_else(|why| (Err(why), next), |(keys, next)| (Ok((uri.clone(), keys)), next))
        }
        None => match discover(&core.fetcher, &due.issuer).await {
            Ok((uri, keys, next)) => (Ok((uri, keys)), next),
            Err(why) => (Err(why), USUAL),
        },
    };
    if let Err(why) = &found {
        tracing::info!(agent, issuer = due.issuer, why, "the issuer's keys were not fetched");
    }
    let failures = if found.is_ok() { 0 } else { before.saturating_add(1) };
    let next = next.clamp(core.lives.issuer_pause, LONGEST.max(core.lives.issuer_pause));
    if let Err(error) = core.issuer_looked_at(due, found.ok(), next).await {
        tracing::error!(agent, %error, "what an issuer said could not be kept");
    }
    failures
}

/// A public issuer that does not answer is asked again as soon as may be, as its keys may be rolling just now; and one that
/// goes on not answering ever more rarely.
fn pause_after(failures: u32, pause: Duration) -> Duration {
    pause.saturating_mul(1 << failures.min(10)).min(USUAL.max(pause))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_fails_is_asked_ever_more_rarely_and_at_least_once_an_hour() {
        let pauses = [0, 1, 2, 5, 6, u32::MAX].map(|failures| pause_after(failures, Duration::from_secs(60)).as_secs());
        assert_eq!(pauses, [60, 120, 240, 1920, 3600, 3600]);
        let long = Duration::from_secs(7200);
        assert_eq!(pause_after(3, long), long, "never more often than the setting says");
    }
}
