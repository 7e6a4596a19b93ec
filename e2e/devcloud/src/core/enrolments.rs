//! Who a ServiceAccount token is: the enrolled (JWK thumbprint, subject, UID), unique in the whole cloud.

use super::admission::{Denied, Terms};
use super::alarms::{self, Kind, NewAlarm};
use super::{News, Proven};
use crate::attestation::{Attested, Fault, Jwk, Unverified, parse_jwks};
use crate::store::{Agent, EnrolledKey, Enrolment, Origin, StoreError, Table, Token, Tx};

/// Keys of one enrolment that an agent may bring by itself.
pub(super) const MAX_KEYS: usize = 4;

/// Keys by which a stranger's token is tried, only to tell it what is wrong.
const MAX_TRIED: usize = 8;

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
    tx: &mut Tx<'_, '_, News>,
    text: &str,
    terms: &Terms,
) -> Result<(Agent, Enrolment, Attested, String), Denied> {
    let token = Unverified::read(text)?;
    let (subject, uid) = token.owner()?;
    let mut enrolled = of_account(tx, subject, uid)?;
    if enrolled.is_empty() {
        return Err(Denied { stranger: true, ..Fault::IssuerUnknown.into() });
    }
    // One that was revoked is found only if nobody else is.
    enrolled.sort_by_key(|enrolment| enrolment.void);
    let now = tx.now_ms();
    let (mut fault, mut disputed) = (Fault::KeyUnknown, None);
    for enrolment in &enrolled {
        let keys = enrolment.keys.iter().filter(|key| counts(key, Purpose::Join, now, terms.rolls));
        match token.signed_by(keys.map(|key| &key.jwk)) {
            Err(Fault::KeyUnknown) => (),
            Err(other) => fault = other,
            Ok(key) if !undisputed(enrolment, &key.thumbprint, &enrolled) => disputed = Some(&enrolment.agent_id),
            Ok(key) => {
                let key = key.clone();
                let (attested, _) = token.judged([&key], terms.rules(now))?;
                let mut enrolment = enrolment.clone();
                prove(tx, &mut enrolment, &key.thumbprint)?;
                let agent = tx.get(Table::Agents, &[&enrolment.agent_id])?.ok_or(Fault::IssuerUnknown)?;
                return Ok((agent, enrolment, attested, key.thumbprint));
            }
        }
    }
    let Some(agent_id) = disputed else { return Err(fault.into()) };
    let alarm = NewAlarm { kind: Kind::AccountShared, agent: name_of(tx, agent_id)? };
    Err(Denied { alarm: Some(alarm), ..Fault::KeyUnknown.into() })
}

/// Whether a key of the enrolment makes its agent known at a join. Anyone may list any key: where several agents are enrolled
/// for one ServiceAccount, only one by which a token was shown counts, or one that a person gave to this agent alone.
fn undisputed(enrolment: &Enrolment, thumbprint: &str, all: &[Enrolment]) -> bool {
    let weight = |of: &Enrolment| {
        let key = of.keys.iter().find(|key| key.jwk.thumbprint == thumbprint);
        key.map_or(0, |key| if key.proven { 2 } else { u8::from(key.accepted) })
    };
    let mut rivals = all.iter().filter(|other| other.agent_id != enrolment.agent_id && !other.void);
    rivals.all(|rival| weight(enrolment) > weight(rival))
}

/// Notes that a token of this key was shown: it is this agent's, and no other's any more.
pub(super) fn prove(tx: &mut Tx<'_, '_, News>, enrolment: &mut Enrolment, thumbprint: &str) -> Result<(), StoreError> {
    let new = enrolment.keys.iter_mut().find(|own| own.jwk.thumbprint == thumbprint && !own.proven);
    let Some(key) = new else { return Ok(()) };
    key.proven = true;
    let others = of_account(tx, &enrolment.subject, &enrolment.uid)?;
    let others = others.into_iter().filter(|other| other.agent_id != enrolment.agent_id && !other.void);
    others.into_iter().try_for_each(|other| strip(tx, other, thumbprint))
}

/// Takes a key from an agent that had only listed it.
fn strip(tx: &mut Tx<'_, '_, News>, mut from: Enrolment, thumbprint: &str) -> Result<(), StoreError> {
    let before = from.keys.len();
    from.keys.retain(|own| own.proven || own.jwk.thumbprint != thumbprint);
    if from.keys.len() == before {
        return Ok(());
    }
    let agent = name_of(tx, &from.agent_id)?;
    alarms::raise(tx, &NewAlarm { kind: Kind::KeyClaimed, agent })?;
    tx.put(Table::Enrolments, &[&from.agent_id], &from)
}

fn name_of(tx: &Tx<'_, '_, News>, agent_id: &str) -> Result<String, StoreError> {
    let agent: Option<Agent> = tx.get(Table::Agents, &[agent_id])?;
    Ok(agent.map_or_else(|| agent_id.to_owned(), |agent| agent.name))
}

/// What is wrong with a token whose ServiceAccount nobody has enrolled. Anybody may ask, so only a few keys are tried: those
/// that the token names, of enrolments for its subject or under its issuer.
pub(super) fn stranger(all: &[Enrolment], token: &Unverified<'_>) -> Fault {
    let subject = token.owner().map_or("", |(subject, _)| subject);
    let of_issuer = |enrolment: &Enrolment| token.issuer() == Some(enrolment.issuer.as_str());
    let related = |of: &&Enrolment| !of.void && (of.subject == subject || of_issuer(of));
    let mut related: Vec<&Enrolment> = all.iter().filter(related).collect();
    related.sort_by_key(|of| of.subject != subject);
    let mut tried: Vec<(&Jwk, bool)> = Vec::new();
    let keys = related.iter().flat_map(|of| of.keys.iter().map(|key| (&key.jwk, of.subject == subject)));
    for (key, of_subject) in keys.filter(|(key, _)| token.names(key)) {
        if tried.iter().all(|(other, _)| other.thumbprint != key.thumbprint) {
            tried.push((key, of_subject));
        }
        if tried.len() == MAX_TRIED {
            break;
        }
    }
    match token.signed_by(tried.iter().map(|(key, _)| *key)) {
        Ok(key) if tried.contains(&(key, true)) => Fault::Uid,
        Ok(_) => Fault::Subject,
        Err(_) if related.iter().any(|of| of_issuer(of)) => Fault::KeyUnknown,
        Err(_) => Fault::IssuerUnknown,
    }
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
        // A person took them from the cluster.
        accepted: token.jwks.is_some(),
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

/// Makes sure that no other agent holds one of the keys for this ServiceAccount; the first of them has signed. A key by which
/// nobody has shown a token is only listed, as anyone can list it: it goes to the agent that shows one, and to no other.
fn claim(
    tx: &mut Tx<'_, '_, News>,
    token: &Token,
    agent_id: &str,
    attested: &Attested,
    keys: &[&Jwk],
) -> Result<(), Denied> {
    let among = |own: &EnrolledKey| keys.iter().any(|key| key.thumbprint == own.jwk.thumbprint);
    let others = of_account(tx, &attested.subject, &attested.uid)?;
    for other in others.into_iter().filter(|other| other.agent_id != agent_id && !other.void) {
        if other.keys.iter().any(|own| own.proven && among(own)) {
            let alarm = NewAlarm { kind: Kind::AlreadyEnrolled, agent: token.agent.clone() };
            return Err(Denied { alarm: Some(alarm), ..Fault::AlreadyEnrolled.into() });
        }
        alarms::raise(tx, &NewAlarm { kind: Kind::AccountShared, agent: token.agent.clone() })?;
        if let Some(signer) = keys.first() {
            strip(tx, other, &signer.thumbprint)?;
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
