//! R1: enrolments whose issuer is public take their keys from it.

use super::enrolments;
use super::{AdminError, Core, News};
use crate::attestation::Jwk;
use crate::clock;
use crate::store::{EnrolledKey, Enrolment, Origin, PublicIssuer, Table, Tx};
use std::time::Duration;

/// An issuer to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueIssuer {
    /// Id of the agent that is enrolled under it.
    pub agent: String,
    /// `iss`.
    pub issuer: String,
    /// Where its keys are, once its discovery document has matched.
    pub jwks_uri: Option<String>,
}

/// When nothing is due, a look is taken after this long at the latest.
const IDLE: Duration = Duration::from_secs(3600);

impl Core {
    /// The issuers whose time has come, and how long it is until the next one's.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn due_issuers(&self) -> Result<(Vec<DueIssuer>, Duration), AdminError> {
        let now = Self::now_ms();
        let (mut due, mut wait) = (Vec::new(), IDLE);
        for enrolment in self.store.view()?.all::<Enrolment>(Table::Enrolments)? {
            let (agent, issuer) = (enrolment.agent_id, enrolment.issuer);
            match enrolment.public {
                _ if enrolment.void => (),
                None if !enrolment.looked_at => due.push(DueIssuer { agent, issuer, jwks_uri: None }),
                None => (),
                Some(public) if public.next_ms <= now => {
                    due.push(DueIssuer { agent, issuer, jwks_uri: Some(public.jwks_uri) });
                }
                Some(public) => wait = wait.min(Duration::from_millis((public.next_ms - now).unsigned_abs())),
            }
        }
        Ok((due, wait))
    }

    /// Keeps what an issuer said, or that it said nothing. Its first answer counts only if it lists a key by which the agent
    /// has shown a token: else the name is someone else's, and the issuer stays a private one.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn issuer_looked_at(
        &self,
        due: DueIssuer,
        said: Option<(String, Vec<Jwk>)>,
        next: Duration,
    ) -> Result<(), AdminError> {
        let next = clock::millis(next);
        self.store
            .write(move |tx: &mut Tx<'_, '_, News>| {
                let now = tx.now_ms();
                let enrolment: Option<Enrolment> = tx.get(Table::Enrolments, &[&due.agent])?;
                let same = |enrolment: &Enrolment| {
                    let uri = enrolment.public.as_ref().map(|public| &public.jwks_uri);
                    enrolment.issuer == due.issuer && uri == due.jwks_uri.as_ref()
                };
                // Enrolled anew, or given keys by a person, while the issuer was asked.
                let Some(mut enrolment) = enrolment.filter(same) else { return Ok(()) };
                enrolment.looked_at = true;
                match said {
                    None => {
                        if let Some(public) = &mut enrolment.public {
                            public.next_ms = now.saturating_add(next);
                        }
                    }
                    Some((jwks_uri, listed)) => {
                        let others = enrolments::of_account(tx, &enrolment.subject, &enrolment.uid)?;
                        let others: Vec<_> = others.into_iter().filter(|other| other.agent_id != due.agent).collect();
                        if due.jwks_uri.is_some() || matches(&enrolment, &listed) {
                            enrolment.keys = taken(&enrolment, listed, &others, now);
                            enrolment.public = Some(PublicIssuer { jwks_uri, next_ms: now.saturating_add(next) });
                            tracing::info!(
                                agent = due.agent,
                                issuer = due.issuer,
                                "AUDIT: keys fetched from the public issuer"
                            );
                        }
                    }
                }
                tx.put(Table::Enrolments, &[&due.agent], &enrolment)?;
                Ok(())
            })
            .await
    }
}

fn matches(enrolment: &Enrolment, listed: &[Jwk]) -> bool {
    let proven = enrolment.keys.iter().filter(|key| key.proven);
    proven.into_iter().any(|key| listed.iter().any(|jwk| jwk.thumbprint == key.jwk.thumbprint))
}

/// The issuer's keys in place of those before; what it does not list any more is revoked at once.
fn taken(enrolment: &Enrolment, listed: Vec<Jwk>, others: &[Enrolment], now_ms: i64) -> Vec<EnrolledKey> {
    let foreign = |jwk: &Jwk| {
        let live = others.iter().filter(|other| !other.void);
        live.flat_map(|other| &other.keys).any(|key| key.proven && key.jwk.thumbprint == jwk.thumbprint)
    };
    let known = |jwk: &Jwk| enrolment.keys.iter().find(|key| key.jwk.thumbprint == jwk.thumbprint);
    let key = |jwk: Jwk| {
        let old = known(&jwk).map_or((false, now_ms, false), |key| (key.proven, key.since_ms, key.accepted));
        let (proven, since_ms, accepted) = old;
        EnrolledKey { jwk, origin: Origin::Issuer, since_ms, proven, accepted, gone_ms: None }
    };
    listed.into_iter().filter(|jwk| !foreign(jwk)).map(key).collect()
}
