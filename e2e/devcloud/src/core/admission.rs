//! Who an answered challenge makes, inside one transaction. The first that holds (PROTOCOL.md, "IdentityService"): (a) an
//! unspent bootstrap token, (b) that token again by the same key, (c) the ServiceAccount token of an enrolled ServiceAccount.

use super::alarms::{Kind, NewAlarm};
use super::enrolments::{self, Purpose, Rolls};
use super::{Hub, News, Proven, Refusal, epochs, rolls, tokens};
use crate::attestation::{Attested, Fault, Rules, Unverified};
use crate::entropy;
use crate::signed::hash;
use crate::store::{AccessToken, Agent, Enrolment, Spent, StoreError, Table, Token, Tx};
use crate::suite::Suite;
use data_encoding::BASE32_NOPAD;
use std::sync::Arc;

/// Live tokens of one agent that are remembered; the oldest go first.
const MAX_TOKENS: usize = 64;

/// What a join is judged by. Durations in milliseconds.
pub(super) struct Terms {
    pub(super) hub: Arc<Hub>,
    pub(super) audiences: Vec<String>,
    pub(super) access_token_ms: i64,
    /// For how long the same key may repeat its join.
    pub(super) retry_ms: i64,
    /// Within which epochs from two pods are counted.
    pub(super) epochs_ms: i64,
    /// What a key that has founded an epoch gets to open its first stream.
    pub(super) opening_ms: i64,
    pub(super) rolls: Rolls,
}

impl Terms {
    pub(super) fn rules(&self, now_ms: i64) -> Rules<'_> {
        Rules { audiences: &self.audiences, now_ms }
    }
}

/// A refusal, and what a person should hear of it. Nothing else of its transaction is written.
pub(super) struct Denied {
    pub(super) refusal: Refusal,
    pub(super) alarm: Option<NewAlarm>,
    /// Nobody has enrolled the ServiceAccount: what is wrong with its token is told outside the transaction, which others wait
    /// for.
    pub(super) stranger: bool,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, alarm: None, stranger: false }
    }
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        Refusal::Identity(fault).into()
    }
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

/// A bootstrap token, as far as this key is concerned.
enum Bootstrap {
    /// None of this cloud.
    None,
    /// Good.
    Unspent(Token),
    /// This key has spent it a moment ago, and it is still its agent's.
    Again(Agent),
    /// Used. `by_other`: by another key.
    Spent { agent: String, by_other: bool },
    /// Not used in time.
    Late,
}

/// The agent that the credential names, with this key as its newest.
pub(super) fn admit(tx: &mut Tx<'_, '_, News>, proven: &Proven, terms: &Terms) -> Result<Agent, Denied> {
    let (refusal, alarm) = match bootstrap(tx, proven, terms)? {
        Bootstrap::Unspent(token) => return enrol(tx, token, proven, terms),
        Bootstrap::Again(agent) => return Ok(agent),
        Bootstrap::Spent { agent, by_other } => {
            (Refusal::TokenSpent, by_other.then_some(NewAlarm { kind: Kind::TokenReused, agent }))
        }
        Bootstrap::Late => (Refusal::TokenLate, None),
        Bootstrap::None => (Refusal::Identity(Fault::NoCredential), None),
    };
    if proven.sa_token.trim().is_empty() {
        return Err(Denied { alarm, ..refusal.into() });
    }
    // A spent token beside a good one is what every restarted pod has. Beside a bad one it is as good as alone.
    re_attest(tx, proven, terms).map_err(|denied| Denied { alarm: denied.alarm.or(alarm), ..denied })
}

fn bootstrap(tx: &Tx<'_, '_, News>, proven: &Proven, terms: &Terms) -> Result<Bootstrap, Denied> {
    let Some(id) = tokens::id_of(&proven.bootstrap_token) else { return Ok(Bootstrap::None) };
    let text_hash = hash(&[proven.bootstrap_token.as_bytes()]);
    let token: Option<Token> = tx.get(Table::Tokens, &[&id])?;
    let Some(token) = token.filter(|token| token.text_hash == text_hash) else { return Ok(Bootstrap::None) };
    let now = tx.now_ms();
    let Some(spent) = &token.spent else {
        return Ok(if now >= token.expires_at_ms { Bootstrap::Late } else { Bootstrap::Unspent(token) });
    };
    let by_other = spent.agent_key != proven.agent_key;
    if !by_other && now < spent.at_ms.saturating_add(terms.retry_ms) {
        let agent: Option<Agent> = tx.get(Table::Agents, &[&spent.agent_id])?;
        if let Some(agent) = agent.filter(|agent| agent.agent_key == proven.agent_key) {
            welcome(&agent)?;
            return Ok(Bootstrap::Again(agent));
        }
    }
    Ok(Bootstrap::Spent { agent: token.agent, by_other })
}

/// (a): makes or re-enrols the agent that the token was made for, and enrols the ServiceAccount that stands beside it.
fn enrol(tx: &mut Tx<'_, '_, News>, mut token: Token, proven: &Proven, terms: &Terms) -> Result<Agent, Denied> {
    let now = tx.now_ms();
    let known: Option<String> = tx.get(Table::AgentNames, &[&token.agent])?;
    let known: Option<Agent> = known.map(|id| tx.get(Table::Agents, &[&id])).transpose()?.flatten();
    let mut agent = known.unwrap_or_else(|| new_agent(&token, now));
    if agent.banned {
        return Err(Refusal::Banned.into());
    }
    let beside = enrolments::beside(tx, &token, &agent.id, proven, terms)?;
    if let Some((_, attested)) = &beside {
        unseen(&agent, attested, proven, terms, now)?;
    }
    let attested = beside.as_ref().map(|(_, attested)| attested);
    agent.workspace.clone_from(&token.workspace);
    agent.namespaces.clone_from(&token.namespaces);
    if agent.namespaces.is_empty() {
        agent.namespaces.extend(attested.map(|attested| attested.namespace.clone()));
    }
    agent.revoked = false;
    agent.attested = beside.is_some();
    settle(tx, &mut agent, attested, proven, terms)?;
    match &beside {
        Some((enrolment, _)) => enrolments::put(tx, enrolment)?,
        // What a revocation had left.
        None => {
            let old: Option<Enrolment> = tx.get(Table::Enrolments, &[&agent.id])?;
            if old.is_some_and(|old| old.void) {
                enrolments::drop_of(tx, &agent.id)?;
            }
        }
    }
    token.spent = Some(Spent { agent_key: proven.agent_key, agent_id: agent.id.clone(), at_ms: now });
    tx.put(Table::AgentNames, &[&token.agent], &agent.id)?;
    tx.put(Table::Tokens, &[&token.id], &token)?;
    Ok(agent)
}

/// (c): the agent of an enrolled ServiceAccount.
fn re_attest(tx: &mut Tx<'_, '_, News>, proven: &Proven, terms: &Terms) -> Result<Agent, Denied> {
    let (mut agent, mut enrolment, attested, signer) = enrolments::holder(tx, &proven.sa_token, terms)?;
    welcome(&agent)?;
    unseen(&agent, &attested, proven, terms, tx.now_ms())?;
    // A standby: its key was overtaken, and who overtook it is at work, or about to be.
    let at_work = || {
        let opening = tx.now_ms() < agent.joined_at_ms.saturating_add(terms.opening_ms);
        opening || terms.hub.live(&agent.id, agent.epoch)
    };
    let superseded = epochs::superseded(&agent, &proven.agent_key);
    let twice = epochs::of_one_pod(&agent, &proven.agent_key);
    let twice = twice.then(|| NewAlarm { kind: Kind::PodTwice, agent: agent.name.clone() });
    if superseded && at_work() {
        return Err(Denied { alarm: twice, ..Refusal::Superseded.into() });
    }
    if let Some(twice) = twice {
        super::alarms::raise(tx, &twice)?;
    }
    agent.attested = true;
    settle(tx, &mut agent, Some(&attested), proven, terms)?;
    rolls::reported(tx, &agent, &mut enrolment, &signer, &proven.jwks, terms.rolls)?;
    tx.put(Table::Enrolments, &[&agent.id], &enrolment)?;
    Ok(agent)
}

/// A renewal by the key of the newest epoch. Where a ServiceAccount token founded it, renewals need a good one too: a key
/// stolen from memory is worth no more than the life of an access token.
pub(super) fn renew(
    tx: &mut Tx<'_, '_, News>,
    agent_id: &str,
    epoch: u64,
    proven: &Proven,
    terms: &Terms,
) -> Result<Agent, Denied> {
    let mut agent: Agent = tx.get(Table::Agents, &[agent_id])?.ok_or(Refusal::EpochUnknown)?;
    current(&agent, epoch)?;
    if agent.agent_key != proven.agent_key {
        return Err(Refusal::Challenge.into());
    }
    if agent.attested {
        let enrolment: Option<Enrolment> = tx.get(Table::Enrolments, &[agent_id])?;
        let mut enrolment = enrolment.filter(|enrolment| !enrolment.void).ok_or(Fault::IssuerUnknown)?;
        let now = tx.now_ms();
        let keys = enrolment.keys.iter().filter(|key| enrolments::counts(key, Purpose::Renewal, now, terms.rolls));
        let token = Unverified::read(&proven.sa_token)?;
        let (attested, signer) = token.judged(keys.map(|key| &key.jwk), terms.rules(now))?;
        let signer = signer.thumbprint.clone();
        if attested.subject != enrolment.subject {
            return Err(Fault::Subject.into());
        }
        if attested.uid != enrolment.uid {
            return Err(Fault::Uid.into());
        }
        unseen(&agent, &attested, proven, terms, now)?;
        epochs::remember(&mut agent, &attested, now);
        enrolments::prove(tx, &mut enrolment, &signer)?;
        rolls::reported(tx, &agent, &mut enrolment, &signer, &proven.jwks, terms.rolls)?;
        tx.put(Table::Enrolments, &[agent_id], &enrolment)?;
    }
    agent.build.clone_from(&proven.build);
    Ok(agent)
}

/// Whether this epoch of the agent is the one that counts.
///
/// # Errors
/// `Banned`, `Superseded`, `EpochUnknown`.
pub(super) fn current(agent: &Agent, epoch: u64) -> Result<(), Refusal> {
    welcome(agent)?;
    match epoch.cmp(&agent.epoch) {
        std::cmp::Ordering::Less => Err(Refusal::Superseded),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Refusal::EpochUnknown),
    }
}

fn welcome(agent: &Agent) -> Result<(), Refusal> {
    if agent.revoked || agent.banned { Err(Refusal::Banned) } else { Ok(()) }
}

/// Whether this key may show this ServiceAccount token.
fn unseen(agent: &Agent, attested: &Attested, proven: &Proven, terms: &Terms, now_ms: i64) -> Result<(), Denied> {
    if !epochs::has_room(agent, attested, now_ms) {
        return Err(Refusal::Crowded("this agent has shown too many ServiceAccount tokens within half an hour").into());
    }
    let live = |epoch| terms.hub.live(&agent.id, epoch);
    epochs::shown_by(agent, attested, &proven.agent_key, live).map_err(|kind| {
        let alarm = Some(NewAlarm { kind, agent: agent.name.clone() });
        Denied { alarm, ..Fault::Replayed.into() }
    })
}

/// Makes the key the agent's newest.
fn settle(
    tx: &mut Tx<'_, '_, News>,
    agent: &mut Agent,
    attested: Option<&Attested>,
    proven: &Proven,
    terms: &Terms,
) -> Result<(), StoreError> {
    let now = tx.now_ms();
    let pod = attested.map(|attested| attested.pod_uid.clone());
    if epochs::found(agent, proven.agent_key, pod, now, terms.epochs_ms) {
        super::alarms::raise(tx, &NewAlarm { kind: Kind::Epochs, agent: agent.name.clone() })?;
    }
    if let Some(attested) = attested {
        epochs::remember(agent, attested, now);
    }
    agent.build.clone_from(&proven.build);
    agent.joined_at_ms = now;
    Ok(())
}

/// Lets the agent open streams with one more access token, made under a challenge of this suite and count of evictions.
pub(super) fn grant_access(
    agent: &mut Agent,
    hash: [u8; 32],
    (suite, evictions): (Suite, u64),
    now_ms: i64,
    terms: &Terms,
) {
    agent.tokens.retain(|token| token.expires_at_ms > now_ms);
    let surplus = (agent.tokens.len() + 1).saturating_sub(MAX_TOKENS);
    agent.tokens.drain(..surplus);
    agent.tokens.push(AccessToken {
        evictions,
        hash,
        suite,
        expires_at_ms: now_ms.saturating_add(terms.access_token_ms),
    });
}

/// Of epoch 0, which no key has.
fn new_agent(token: &Token, now_ms: i64) -> Agent {
    Agent {
        id: format!("agt_{}", BASE32_NOPAD.encode(&entropy::bytes::<10>()).to_lowercase()),
        name: token.agent.clone(),
        workspace: token.workspace.clone(),
        namespaces: Vec::new(),
        grants: Vec::new(),
        epoch: 0,
        agent_key: [0; 32],
        tokens: Vec::new(),
        build: String::new(),
        created_at_ms: now_ms,
        joined_at_ms: now_ms,
        revoked: false,
        banned: false,
        attested: false,
        shown: Vec::new(),
        founded: Vec::new(),
    }
}
