//! Signing keys of a cluster change. R2: an attested agent reports them; R3: a person gives them (SECURITY.md 1.2).

use super::alarms::{Kind, NewAlarm, raise};
use super::enrolments::{self, MAX_KEYS, Purpose, Rolls, counts};
use super::{AdminError, Core, News};
use crate::attestation::{Jwk, parse_jwks};
use crate::names;
use crate::store::{Agent, EnrolledKey, Enrolment, Origin, StoreError, Table, Tx};
use serde::{Deserialize, Serialize};

/// A row of `agent keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// RFC 7638.
    pub thumbprint: String,
    /// By which tokens name it.
    pub kid: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// A token that it signed was shown.
    pub proven: bool,
    /// Whether it counts for joins now.
    pub joins: bool,
    /// Whether it counts for renewals now.
    pub renews: bool,
    /// Since when it is here. Unix milliseconds.
    pub since_ms: i64,
    /// Since when the cluster does not list it. Unix milliseconds.
    pub gone_ms: Option<i64>,
}

/// What a report changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// A key that was not there.
    Learnt(String),
    /// A key that is not listed any more.
    Gone(String),
    /// A key that is listed again.
    Back(String),
    /// A key that was gone for long enough.
    Dropped(String),
    /// A key that there is no room for.
    Surplus(String),
}

/// Holds what a cluster lists against what is enrolled. Keys are added only while `pinned`: the report stands beside a token
/// of a key that counts for joins. Those `taken` by another agent are not.
pub(super) fn report(
    enrolment: &mut Enrolment,
    listed: &[Jwk],
    taken: impl Fn(&str) -> bool,
    pinned: bool,
    now_ms: i64,
    rolls: Rolls,
) -> Vec<Noticed> {
    let mut noticed = Vec::new();
    if !pinned {
        return noticed;
    }
    for key in &mut enrolment.keys {
        let there = listed.iter().any(|jwk| jwk.thumbprint == key.jwk.thumbprint);
        match (there, key.gone_ms) {
            (true, Some(_)) => {
                key.gone_ms = None;
                noticed.push(Noticed::Back(key.jwk.thumbprint.clone()));
            }
            (false, None) => {
                key.gone_ms = Some(now_ms);
                noticed.push(Noticed::Gone(key.jwk.thumbprint.clone()));
            }
            _ => (),
        }
    }
    let over = |key: &EnrolledKey| key.gone_ms.is_some_and(|gone| now_ms >= gone.saturating_add(rolls.linger_ms));
    noticed
        .extend(enrolment.keys.iter().filter(|key| over(key)).map(|key| Noticed::Dropped(key.jwk.thumbprint.clone())));
    enrolment.keys.retain(|key| !over(key));
    for jwk in listed {
        let known = enrolment.keys.iter().any(|key| key.jwk.thumbprint == jwk.thumbprint);
        if known || taken(&jwk.thumbprint) {
            continue;
        }
        if enrolment.keys.len() >= MAX_KEYS {
            noticed.push(Noticed::Surplus(jwk.thumbprint.clone()));
            continue;
        }
        noticed.push(Noticed::Learnt(jwk.thumbprint.clone()));
        enrolment.keys.push(EnrolledKey {
            jwk: jwk.clone(),
            origin: Origin::Reported,
            since_ms: now_ms,
            proven: false,
            accepted: false,
            gone_ms: None,
        });
    }
    noticed
}

/// Takes an agent's report into its enrolment, which `signer` has just attested. Each change is in the log, and a key that was
/// learnt is an alarm too: nobody but the cluster's owner knows whether it is the cluster's.
pub(super) fn reported(
    tx: &mut Tx<'_, '_, News>,
    agent: &Agent,
    enrolment: &mut Enrolment,
    signer: &str,
    jwks: &[u8],
    rolls: Rolls,
) -> Result<(), StoreError> {
    // R1: a public issuer's keys come from it alone.
    if enrolment.public.is_some() {
        return Ok(());
    }
    // Nothing that can be read is no report: a cluster may keep its keys to itself.
    let Ok(listed) = parse_jwks(jwks) else { return Ok(()) };
    let now = tx.now_ms();
    let pinned =
        enrolment.keys.iter().any(|key| key.jwk.thumbprint == signer && counts(key, Purpose::Join, now, rolls));
    let others = enrolments::of_account(tx, &enrolment.subject, &enrolment.uid)?;
    let taken = |thumbprint: &str| {
        let foreign = others.iter().filter(|other| other.agent_id != agent.id && !other.void);
        foreign.flat_map(|other| &other.keys).any(|key| key.proven && key.jwk.thumbprint == thumbprint)
    };
    for noticed in report(enrolment, &listed, taken, pinned, now, rolls) {
        match &noticed {
            Noticed::Learnt(_) => raise(tx, &NewAlarm { kind: Kind::KeyReported, agent: agent.name.clone() })?,
            Noticed::Surplus(_) => raise(tx, &NewAlarm { kind: Kind::KeySurplus, agent: agent.name.clone() })?,
            Noticed::Gone(_) | Noticed::Back(_) | Noticed::Dropped(_) => (),
        }
        tracing::info!(agent = agent.name, change = ?noticed, "AUDIT: signing keys of its cluster");
    }
    Ok(())
}

impl Core {
    /// The signing keys enrolled for an agent.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn agent_keys(&self, name: &str) -> Result<Vec<KeyEntry>, AdminError> {
        let name = names::plain("agent", name)?;
        let view = self.store.view()?;
        let id: String = view.get(Table::AgentNames, &[&name])?.ok_or_else(|| AdminError::NoAgent(name.clone()))?;
        let enrolment: Option<Enrolment> = view.get(Table::Enrolments, &[&id])?;
        let enrolment = enrolment.filter(|enrolment| !enrolment.void).ok_or(AdminError::NotEnrolled(name))?;
        Ok(entries(&enrolment, Self::now_ms(), self.terms.rolls))
    }

    /// Replaces the signing keys of an agent's cluster by these: they count at once, and no other does.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn give_keys(&self, name: &str, jwks: &str) -> Result<Vec<KeyEntry>, AdminError> {
        let given = parse_jwks(jwks.as_bytes())?;
        self.change_keys(name, move |enrolment, now_ms| {
            let proven = |jwk: &Jwk| enrolment.keys.iter().any(|k| k.proven && k.jwk.thumbprint == jwk.thumbprint);
            let keys = given.into_iter().map(|jwk| EnrolledKey {
                proven: proven(&jwk),
                jwk,
                origin: Origin::Given,
                since_ms: now_ms,
                accepted: true,
                gone_ms: None,
            });
            enrolment.keys = keys.collect();
            (enrolment.looked_at, enrolment.public) = (true, None);
            Ok(())
        })
        .await
    }

    /// A person's yes to a key that was reported.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn accept_key(&self, name: &str, thumbprint: &str) -> Result<Vec<KeyEntry>, AdminError> {
        let thumbprint = thumbprint.to_owned();
        self.change_keys(name, move |enrolment, _| {
            let key = enrolment.keys.iter_mut().find(|key| key.jwk.thumbprint == thumbprint);
            key.ok_or(AdminError::NoKey(thumbprint))?.accepted = true;
            Ok(())
        })
        .await
    }

    async fn change_keys(
        &self,
        name: &str,
        change: impl FnOnce(&mut Enrolment, i64) -> Result<(), AdminError> + Send + 'static,
    ) -> Result<Vec<KeyEntry>, AdminError> {
        let (name, rolls) = (names::plain("agent", name)?, self.terms.rolls);
        self.store
            .write(move |tx| {
                let agent = super::agents::by_name(tx, &name)?;
                let enrolment: Option<Enrolment> = tx.get(Table::Enrolments, &[&agent.id])?;
                let mut enrolment = enrolment
                    .filter(|enrolment| !enrolment.void)
                    .ok_or_else(|| AdminError::NotEnrolled(name.clone()))?;
                change(&mut enrolment, tx.now_ms())?;
                let others = enrolments::of_account(tx, &enrolment.subject, &enrolment.uid)?;
                let own = |key: &EnrolledKey| enrolment.keys.iter().any(|k| k.jwk.thumbprint == key.jwk.thumbprint);
                let foreign = others.iter().filter(|other| other.agent_id != agent.id && !other.void);
                if foreign.flat_map(|other| &other.keys).any(|key| key.proven && own(key)) {
                    return Err(AdminError::KeyTaken);
                }
                tx.put(Table::Enrolments, &[&agent.id], &enrolment)?;
                tracing::info!(agent = name, "AUDIT: a person changed the signing keys of its cluster");
                Ok(entries(&enrolment, tx.now_ms(), rolls))
            })
            .await
    }
}

fn entries(enrolment: &Enrolment, now_ms: i64, rolls: Rolls) -> Vec<KeyEntry> {
    let entry = |key: &EnrolledKey| KeyEntry {
        thumbprint: key.jwk.thumbprint.clone(),
        kid: key.jwk.kid.clone(),
        origin: key.origin,
        proven: key.proven,
        joins: counts(key, Purpose::Join, now_ms, rolls),
        renews: counts(key, Purpose::Renewal, now_ms, rolls),
        since_ms: key.since_ms,
        gone_ms: key.gone_ms,
    };
    enrolment.keys.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Noticed::{Back, Dropped, Gone, Learnt, Surplus};

    const ROLLS: Rolls = Rolls { wait_ms: 100, linger_ms: 50, strict: false };

    fn jwk(n: u8) -> Jwk {
        let x = data_encoding::BASE64URL_NOPAD.encode(&[n; 32]);
        parse_jwks(format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#).as_bytes()).unwrap().remove(0)
    }

    fn enrolment(keys: &[u8]) -> Enrolment {
        let key = |n: &u8| EnrolledKey {
            jwk: jwk(*n),
            origin: Origin::Enrolled,
            since_ms: 0,
            proven: true,
            accepted: false,
            gone_ms: None,
        };
        Enrolment {
            agent_id: "a".into(),
            issuer: "i".into(),
            subject: "s".into(),
            uid: "u".into(),
            keys: keys.iter().map(key).collect(),
            void: false,
            looked_at: false,
            public: None,
        }
    }

    #[test]
    fn a_report_adds_keys_and_an_old_one_lingers_after_it_has_vanished() {
        let mut of = enrolment(&[1]);
        let print = |n: u8| jwk(n).thumbprint;
        let mut hear = |listed: &[u8], pinned: bool, now: i64| {
            let listed: Vec<Jwk> = listed.iter().map(|n| jwk(*n)).collect();
            report(&mut of, &listed, |thumbprint| thumbprint == print(9), pinned, now, ROLLS)
        };
        assert_eq!(hear(&[1, 2], false, 0), [], "only beside a token of a pinned key");
        assert_eq!(hear(&[1, 2, 9], true, 0), [Learnt(print(2))], "another agent's key is not taken");
        assert_eq!(hear(&[1, 2], true, 1), []);
        assert_eq!(hear(&[2], true, 10), [Gone(print(1))]);
        assert_eq!(hear(&[1, 2], true, 20), [Back(print(1))]);
        assert_eq!(hear(&[2], true, 30), [Gone(print(1))]);
        assert_eq!(hear(&[2], true, 79), []);
        assert_eq!(hear(&[2], true, 80), [Dropped(print(1))]);
        let many = [Learnt(print(3)), Learnt(print(4)), Learnt(print(5)), Surplus(print(6))];
        assert_eq!(hear(&[2, 3, 4, 5, 6], true, 90), many, "at most four");
    }

    #[test]
    fn a_reported_key_renews_at_once_and_joins_after_a_day_or_a_persons_yes() {
        let key = |edit: fn(&mut EnrolledKey)| {
            let mut key = enrolment(&[1]).keys.remove(0);
            key.origin = Origin::Reported;
            edit(&mut key);
            key
        };
        let strict = Rolls { strict: true, ..ROLLS };
        for (what, key, rolls, now, joins, renews) in [
            ("fresh", key(|_| ()), ROLLS, 99, false, true),
            ("waited", key(|_| ()), ROLLS, 100, true, true),
            ("accepted", key(|k| k.accepted = true), ROLLS, 0, true, true),
            ("strict", key(|_| ()), strict, 1000, false, false),
            ("strict, accepted", key(|k| k.accepted = true), strict, 0, true, true),
            ("enrolled", key(|k| k.origin = Origin::Enrolled), strict, 0, true, true),
            ("gone", key(|k| (k.origin, k.gone_ms) = (Origin::Enrolled, Some(0))), ROLLS, 49, true, true),
            ("gone for long", key(|k| (k.origin, k.gone_ms) = (Origin::Enrolled, Some(0))), ROLLS, 50, false, false),
        ] {
            assert_eq!(counts(&key, Purpose::Join, now, rolls), joins, "{what}");
            assert_eq!(counts(&key, Purpose::Renewal, now, rolls), renews, "{what}");
        }
    }
}
