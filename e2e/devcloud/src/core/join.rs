//! Who an answered challenge makes: the bootstrap token redeemed, epochs, access tokens, renewals, opening of streams.

use super::{Core, News, Proven, Refusal, tokens};
use crate::signed::{self, Label, hash};
use crate::store::{AccessToken, Agent, Spent, Table, Token, Tx};
use crate::suite::Suite;
use crate::{clock, entropy, wire};
use data_encoding::BASE32_NOPAD;
use prost::Message;
use zeroize::Zeroizing;

/// Live tokens of one agent that are remembered; the oldest go first.
const MAX_TOKENS: usize = 64;

/// The lifetimes that a join is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    /// Of the access token, in milliseconds.
    pub access_token_ms: i64,
    /// For how long the same key may repeat its join, in milliseconds.
    pub retry_ms: i64,
}

impl Core {
    /// Begin of a join.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn begin(&self, request: &wire::BeginRequest) -> Result<wire::BeginResponse, Refusal> {
        self.refresh_keyset().await?;
        let now = Self::now_ms();
        let (begun, answer) = self.challenge(request, now)?;
        self.challenges.keep(begun, now)?;
        Ok(answer)
    }

    /// Finish of a join: redeems the bootstrap token.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn finish(&self, request: &wire::FinishRequest) -> Result<wire::FinishResponse, Refusal> {
        let begun = self.challenges.take(&request.challenge_id)?;
        let proven = self.prove(begun, request, Self::now_ms())?;
        let token_id = tokens::id_of(&proven.bootstrap_token).ok_or(Refusal::IdentityUnknown)?;
        let text_hash = hash(&[proven.bootstrap_token.as_bytes()]);
        let access = Zeroizing::new(entropy::bytes::<32>());
        let (lives, t) = (self.joining(), proven.t);
        let access_hash = hash(&[access.as_slice()]);
        let suite = proven.suite;
        let agent = self
            .store
            .write(move |tx| {
                let token: Option<Token> = tx.get(Table::Tokens, &[&token_id])?;
                let token = token.filter(|token| token.text_hash == text_hash).ok_or(Refusal::IdentityUnknown)?;
                let mut agent = redeem(tx, token, &proven, lives)?;
                grant_access(&mut agent, access_hash, suite, tx.now_ms(), lives);
                tx.put(Table::Agents, &[&agent.id], &agent)?;
                tx.announce(News::Agent { agent_id: agent.id.clone() });
                Ok::<_, Refusal>(agent)
            })
            .await?;
        tracing::info!(agent = agent.name, id = agent.id, epoch = agent.epoch, build = agent.build, "joined");
        Ok(self.joined(&agent, t, &access))
    }

    /// Finish of a renewal on an open stream: by key alone, while the stream lasts.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn renew(&self, agent_id: &str, epoch: u64, proven: Proven) -> Result<wire::FinishResponse, Refusal> {
        let access = Zeroizing::new(entropy::bytes::<32>());
        let (lives, t, agent_id) = (self.joining(), proven.t, agent_id.to_owned());
        let access_hash = hash(&[access.as_slice()]);
        let suite = proven.suite;
        let agent = self
            .store
            .write(move |tx| {
                let agent: Option<Agent> = tx.get(Table::Agents, &[&agent_id])?;
                let mut agent = agent.ok_or(Refusal::EpochUnknown)?;
                current(&agent, epoch)?;
                if agent.agent_key != proven.agent_key {
                    return Err(Refusal::Challenge);
                }
                agent.build = proven.build;
                grant_access(&mut agent, access_hash, suite, tx.now_ms(), lives);
                tx.put(Table::Agents, &[&agent.id], &agent)?;
                Ok::<_, Refusal>(agent)
            })
            .await?;
        tracing::info!(agent = agent.name, epoch = agent.epoch, "access token renewed on the stream");
        Ok(self.joined(&agent, t, &access))
    }

    /// Checks an open frame against its stream's nonce. Gives the agent, and its token.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open_stream(
        &self,
        nonce: &[u8; 32],
        frame: &wire::OpenFrame,
        now_ms: i64,
    ) -> Result<(Agent, AccessToken), Refusal> {
        let signed = frame.open.as_ref().ok_or(Refusal::Malformed("the open frame holds no open"))?;
        // Read before it is verified only to learn whose key has to verify it.
        let open =
            wire::Open::decode(signed.body.as_slice()).map_err(|_| Refusal::Malformed("the open does not decode"))?;
        let agent = self.agent(&open.agent_id)?.ok_or(Refusal::EpochUnknown)?;
        current(&agent, open.epoch)?;
        signed::body(&agent.agent_key, Label::Open, signed).map_err(|_| Refusal::Unproven)?;
        let token_hash = hash(&[&frame.access_token]);
        if open.stream_nonce != nonce || open.access_token_hash != token_hash {
            return Err(Refusal::Unproven);
        }
        let token = agent.tokens.iter().find(|token| token.hash == token_hash && token.expires_at_ms > now_ms);
        let token = token.cloned().ok_or(Refusal::TokenExpired)?;
        // The suite of the join, which its challenge made final.
        if open.suite != token.suite.on_wire() as i32 {
            return Err(Refusal::Suite);
        }
        Ok((agent, token))
    }

    /// An agent as it is now.
    ///
    /// # Errors
    /// `Internal`.
    pub fn agent(&self, agent_id: &str) -> Result<Option<Agent>, Refusal> {
        Ok(self.store.view()?.get(Table::Agents, &[agent_id])?)
    }

    fn joining(&self) -> Joining {
        Joining {
            access_token_ms: clock::millis(self.lives.access_token_life),
            retry_ms: clock::millis(self.lives.join_retry),
        }
    }

    fn joined(&self, agent: &Agent, t: [u8; 64], access: &[u8; 32]) -> wire::FinishResponse {
        let joined = wire::Joined {
            t: t.to_vec(),
            agent_id: agent.id.clone(),
            organization: self.organization().to_owned(),
            workspace: agent.workspace.clone(),
            epoch: agent.epoch,
            access_token: access.to_vec(),
            lives_s: u32::try_from(self.lives.access_token_life.as_secs()).unwrap_or(u32::MAX),
            server_time_ms: Self::now_ms(),
        };
        wire::FinishResponse { joined: Some(signed::sign(&self.keys().join, Label::Joined, joined.encode_to_vec())) }
    }
}

/// Whether this epoch of the agent is the one that counts.
///
/// # Errors
/// `Banned`, `Superseded`, `EpochUnknown`.
pub(super) fn current(agent: &Agent, epoch: u64) -> Result<(), Refusal> {
    match epoch.cmp(&agent.epoch) {
        _ if agent.revoked => Err(Refusal::Banned),
        std::cmp::Ordering::Less => Err(Refusal::Superseded),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Refusal::EpochUnknown),
    }
}

/// An unspent token makes or re-enrols its agent and is spent; the key that spent it may repeat for a while.
fn redeem(tx: &mut Tx<'_, '_, News>, mut token: Token, proven: &Proven, lives: Joining) -> Result<Agent, Refusal> {
    let now = tx.now_ms();
    if let Some(spent) = &token.spent {
        let again = spent.agent_key == proven.agent_key && now < spent.at_ms.saturating_add(lives.retry_ms);
        if !again {
            if spent.agent_key != proven.agent_key {
                tracing::warn!(agent = token.agent, "ALARM: a spent bootstrap token was shown by another key");
            }
            return Err(Refusal::TokenSpent);
        }
        let agent: Agent = tx.get(Table::Agents, &[&spent.agent_id])?.ok_or(Refusal::IdentityUnknown)?;
        return match agent.agent_key == proven.agent_key {
            _ if agent.revoked => Err(Refusal::Banned),
            true => Ok(agent),
            false => Err(Refusal::TokenSpent),
        };
    }
    if now >= token.expires_at_ms {
        return Err(Refusal::TokenLate);
    }
    let known: Option<String> = tx.get(Table::AgentNames, &[&token.agent])?;
    let known: Option<Agent> = known.map(|id| tx.get(Table::Agents, &[&id])).transpose()?.flatten();
    let agent = match known {
        None => {
            let id = format!("agt_{}", BASE32_NOPAD.encode(&entropy::bytes::<10>()).to_lowercase());
            tx.put(Table::AgentNames, &[&token.agent], &id)?;
            Agent {
                id,
                name: token.agent.clone(),
                workspace: token.workspace.clone(),
                namespaces: token.namespaces.clone(),
                grants: Vec::new(),
                epoch: 1,
                agent_key: proven.agent_key,
                tokens: Vec::new(),
                build: proven.build.clone(),
                created_at_ms: now,
                joined_at_ms: now,
                revoked: false,
            }
        }
        Some(known) => {
            let same_key = known.agent_key == proven.agent_key;
            Agent {
                workspace: token.workspace.clone(),
                namespaces: token.namespaces.clone(),
                // The epoch belongs to the key: a new one gets the next number, and the old one's tokens are void.
                epoch: if same_key { known.epoch } else { known.epoch + 1 },
                tokens: if same_key { known.tokens } else { Vec::new() },
                agent_key: proven.agent_key,
                build: proven.build.clone(),
                joined_at_ms: now,
                revoked: false,
                ..known
            }
        }
    };
    token.spent = Some(Spent { agent_key: proven.agent_key, agent_id: agent.id.clone(), at_ms: now });
    tx.put(Table::Tokens, &[&token.id], &token)?;
    Ok(agent)
}

fn grant_access(agent: &mut Agent, hash: [u8; 32], suite: Suite, now_ms: i64, lives: Joining) {
    agent.tokens.retain(|token| token.expires_at_ms > now_ms);
    let surplus = (agent.tokens.len() + 1).saturating_sub(MAX_TOKENS);
    agent.tokens.drain(..surplus);
    agent.tokens.push(AccessToken { hash, suite, expires_at_ms: now_ms.saturating_add(lives.access_token_ms) });
}
