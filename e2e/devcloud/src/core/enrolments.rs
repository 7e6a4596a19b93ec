//! Who a ServiceAccount token is: the enrolled (JWK thumbprint, subject, UID), unique in the whole cloud.

use super::admission::{Denied, Terms};
use super::alarms::{self, Kind, NewAlarm};
use super::{News, Proven};
use crate::attestation::{Attested, Fault, Jwk, Unverified, parse_jwks};
use crate::store::{Agent, EnrolledKey, Enrolment, Origin, StoreError, Table, Token, Tx};

/// Keys of one enrolment that an agent may bring by itself.
pub(super) const MAX_KEYS: usize = 4;

/// What a key has to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Join,
    Renewal,
}

/// When a key counts that came after the enrolment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rolls {
    /// A reported key counts for joins after this long, in milliseconds.
    pub(super) wait_ms: i64,
    /// A key that its cluster does not list any more counts for this long, in milliseconds.
    pub(super) linger_ms: i64,
    /// A reported key counts for nothing before a person's yes.
    pub(super) strict: bool,
}

/// Whether a key counts for a purpose.
pub(super) fn counts(key: &EnrolledKey, purpose: Purpose, now_ms: i64, rolls: Rolls) -> bool {
    let there = key.gone_ms.is_none_or(|gone| now_ms < gone.saturating_add(rolls.linger_ms));
    let trusted = key.origin != Origin::Reported || key.accepted;
    let waited = purpose == Purpose::Renewal || now_ms >= key.since_ms.saturating_add(rolls.wait_ms);
    there && (trusted || (waited && !rolls.strict))
}

/// The agent of a ServiceAccount token, and the thumbprint of the key that signed it.
pub(super) fn holder(
    tx: &Tx<'_, '_, News>,
    text: &str,
    terms: &Terms,
) -> Result<(Agent, Enrolment, Attested, String), Denied> {
    let token = Unverified::read(text)?;
    let (subject, uid) = token.owner()?;
    let mut enrolled = of_account(tx, subject, uid)?;
    if enrolled.is_empty() {
        return Err(stranger(tx, &token)?.into());
    }
    // One that was revoked is found only if nobody else is.
    enrolled.sort_by_key(|enrolment| enrolment.void);
    let now = tx.now_ms();
    let mut fault = Fault::KeyUnknown;
    for mut enrolment in enrolled {
        let keys = enrolment.keys.iter().filter(|key| counts(key, Purpose::Join, now, terms.rolls));
        match token.signed_by(keys.map(|key| &key.jwk)) {
            Err(Fault::KeyUnknown) => (),
            Err(other) => fault = other,
            Ok(key) => {
                let key = key.clone();
                let (attested, _) = token.judged([&key], terms.rules(now))?;
                prove(&mut enrolment, &key.thumbprint);
                let agent = tx.get(Table::Agents, &[&enrolment.agent_id])?.ok_or(Fault::IssuerUnknown)?;
                return Ok((agent, enrolment, attested, key.thumbprint));
            }
        }
    }
    Err(fault.into())
}

/// Notes that a token of this key was shown.
pub(super) fn prove(enrolment: &mut Enrolment, thumbprint: &str) {
    enrolment.keys.iter_mut().for_each(|own| own.proven |= own.jwk.thumbprint == thumbprint);
}

/// What is wrong with a token whose ServiceAccount nobody has enrolled.
fn stranger(tx: &Tx<'_, '_, News>, token: &Unverified<'_>) -> Result<Fault, StoreError> {
    let subject = token.owner().map_or("", |(subject, _)| subject);
    let all: Vec<Enrolment> = tx.all(Table::Enrolments)?;
    let live: Vec<&Enrolment> = all.iter().filter(|enrolment| !enrolment.void).collect();
    let signed = |enrolment: &&&Enrolment| token.signed_by(enrolment.keys.iter().map(|key| &key.jwk)).is_ok();
    Ok(match live.iter().find(|enrolment| enrolment.subject == subject && signed(enrolment)) {
        Some(_) => Fault::Uid,
        None if live.iter().any(|enrolment| signed(&enrolment)) => Fault::Subject,
        None if live.iter().any(|enrolment| token.issuer() == Some(enrolment.issuer.as_str())) => Fault::KeyUnknown,
        None => Fault::IssuerUnknown,
    })
}

/// Judges the ServiceAccount token beside an unspent bootstrap token, and makes the enrolment that it brings for an agent.
/// None: there is none, and none was asked for.
pub(super) fn beside(
    tx: &mut Tx<'_, '_, News>,
    token: &Token,
    agent_id: &str,
    proven: &Proven,
    terms: &Terms,
) -> Result<Option<(Enrolment, Attested)>, Denied> {
    let asked = token.jwks.is_some() || token.issuer.is_some() || token.account.is_some();
    let shown = match Unverified::read(&proven.sa_token) {
        Err(Fault::NoCredential) if !asked => return Ok(None),
        other => other?,
    };
    let now = tx.now_ms();
    let listed = match &token.jwks {
        Some(given) => given.clone(),
        None if proven.jwks.is_empty() => return Err(Fault::KeyUnknown.into()),
        None => parse_jwks(&proven.jwks).map_err(|_| Fault::Malformed)?,
    };
    let (attested, signer) = shown.judged(&listed, terms.rules(now))?;
    if token.issuer.as_ref().is_some_and(|issuer| *issuer != attested.issuer) {
        return Err(Fault::IssuerUnknown.into());
    }
    if token.account.as_ref().is_some_and(|account| !names(account, &attested)) {
        return Err(Fault::Subject.into());
    }
    let most = if token.jwks.is_some() { listed.len() } else { MAX_KEYS };
    let others = listed.iter().filter(|key| key.thumbprint != signer.thumbprint);
    let keys: Vec<&Jwk> = std::iter::once(signer).chain(others).take(most).collect();
    claim(tx, token, agent_id, &attested, &keys)?;
    let keys = keys.into_iter().map(|key| EnrolledKey {
        proven: key.thumbprint == signer.thumbprint,
        jwk: key.clone(),
        origin: Origin::Enrolled,
        since_ms: now,
        accepted: false,
        gone_ms: None,
    });
    let enrolment = Enrolment {
        agent_id: agent_id.to_owned(),
        issuer: attested.issuer.clone(),
        subject: attested.subject.clone(),
        uid: attested.uid.clone(),
        keys: keys.collect(),
        void: false,
        looked_at: false,
        public: None,
    };
    Ok(Some((enrolment, attested)))
}

/// `NAME` or `NAMESPACE/NAME`.
fn names(account: &str, attested: &Attested) -> bool {
    match account.split_once('/') {
        Some((namespace, name)) => namespace == attested.namespace && name == attested.service_account,
        None => account == attested.service_account,
    }
}

/// Makes sure that no other agent holds one of the keys for this ServiceAccount. A key by which nobody has shown a token is
/// only listed, as anyone can list it: it goes to the agent that shows one.
fn claim(
    tx: &mut Tx<'_, '_, News>,
    token: &Token,
    agent_id: &str,
    attested: &Attested,
    keys: &[&Jwk],
) -> Result<(), Denied> {
    let among = |own: &EnrolledKey| keys.iter().any(|key| key.thumbprint == own.jwk.thumbprint);
    let others = of_account(tx, &attested.subject, &attested.uid)?;
    for mut other in others.into_iter().filter(|other| other.agent_id != agent_id && !other.void) {
        if other.keys.iter().any(|own| own.proven && among(own)) {
            let alarm = NewAlarm { kind: Kind::AlreadyEnrolled, agent: token.agent.clone() };
            return Err(Denied { alarm: Some(alarm), ..Fault::AlreadyEnrolled.into() });
        }
        let before = other.keys.len();
        other.keys.retain(|own| own.proven || !among(own));
        if other.keys.len() < before {
            let holder: Option<Agent> = tx.get(Table::Agents, &[&other.agent_id])?;
            let agent = holder.map_or_else(|| other.agent_id.clone(), |holder| holder.name);
            alarms::raise(tx, &NewAlarm { kind: Kind::KeyClaimed, agent })?;
            tx.put(Table::Enrolments, &[&other.agent_id], &other)?;
        }
    }
    Ok(())
}

/// Writes an enrolment in place of the agent's earlier one.
pub(super) fn put(tx: &mut Tx<'_, '_, News>, enrolment: &Enrolment) -> Result<(), StoreError> {
    drop_of(tx, &enrolment.agent_id)?;
    let (account, id) = ([enrolment.subject.as_str(), enrolment.uid.as_str()], &enrolment.agent_id);
    let mut ids: Vec<String> = tx.get(Table::Accounts, &account)?.unwrap_or_default();
    ids.push(id.clone());
    tx.put(Table::Accounts, &account, &ids)?;
    tx.put(Table::Enrolments, &[id], enrolment)
}

/// Removes an agent's enrolment.
pub(super) fn drop_of(tx: &mut Tx<'_, '_, News>, agent_id: &str) -> Result<(), StoreError> {
    let Some(old) = tx.get::<Enrolment>(Table::Enrolments, &[agent_id])? else { return Ok(()) };
    let account = [old.subject.as_str(), old.uid.as_str()];
    let mut ids: Vec<String> = tx.get(Table::Accounts, &account)?.unwrap_or_default();
    ids.retain(|id| id != agent_id);
    if ids.is_empty() {
        tx.remove(Table::Accounts, &account);
    } else {
        tx.put(Table::Accounts, &account, &ids)?;
    }
    tx.remove(Table::Enrolments, &[agent_id]);
    Ok(())
}

pub(super) fn of_account(tx: &Tx<'_, '_, News>, subject: &str, uid: &str) -> Result<Vec<Enrolment>, StoreError> {
    let ids: Vec<String> = tx.get(Table::Accounts, &[subject, uid])?.unwrap_or_default();
    let rows = ids.iter().map(|id| tx.get(Table::Enrolments, &[id]));
    rows.filter_map(Result::transpose).collect()
}
