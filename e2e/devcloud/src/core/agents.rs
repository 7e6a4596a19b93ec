//! What administrators see and change of agents.

use super::{AdminError, Core, News, holdings};
use crate::names;
use crate::store::{Agent, Enrolment, Grant, StoreError, Table, Token, Tx};
use serde::{Deserialize, Serialize};

/// A row of `agent list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentEntry {
    /// Name.
    pub name: String,
    /// Id.
    pub id: String,
    /// Its own workspace.
    pub workspace: String,
    /// Namespaces that its bootstrap token named.
    pub namespaces: Vec<String>,
    /// By `agent grant`.
    pub grants: Vec<Grant>,
    /// Newest.
    pub epoch: u64,
    /// Open streams.
    pub streams: usize,
    /// What it calls itself.
    pub build: String,
    /// How it renews its access token. `key`: by key alone, while a stream lasts. `service-account`: with a ServiceAccount
    /// token, by which it also comes back.
    pub renewal: String,
    /// The ServiceAccount by which it comes back.
    pub account: Option<AccountEntry>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether it is banned.
    pub banned: bool,
    /// Last join, Unix milliseconds.
    pub joined_at_ms: i64,
}

/// The ServiceAccount of an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountEntry {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// Its UID.
    pub uid: String,
}

/// What `agent revoke` and `agent ban` did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// The agent's id.
    pub id: String,
    /// Streams that were open.
    pub streams: usize,
}

impl Core {
    /// All agents, by name.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn agents(&self) -> Result<Vec<AgentEntry>, AdminError> {
        let view = self.store.view()?;
        let entry = |agent: Agent| Ok::<_, StoreError>(self.entry(view.get(Table::Enrolments, &[&agent.id])?, agent));
        let mut all: Vec<AgentEntry> =
            view.all(Table::Agents)?.into_iter().map(entry).collect::<Result<_, StoreError>>()?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Ends an agent's streams and lets it open and join no more, until a new bootstrap token for it is used. Unspent
    /// tokens made for it and its enrolment are void.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn revoke_agent(&self, name: &str) -> Result<Revoked, AdminError> {
        let name = names::plain("agent", name)?;
        let id = self
            .store
            .write(move |tx| {
                let mut agent = by_name(tx, &name)?;
                agent.revoked = true;
                agent.tokens.clear();
                let now = tx.now_ms();
                for mut token in tx.all::<Token>(Table::Tokens)? {
                    if token.agent == name && token.spent.is_none() && token.expires_at_ms > now {
                        token.expires_at_ms = now;
                        tx.put(Table::Tokens, &[&token.id], &token)?;
                    }
                }
                if let Some(mut enrolment) = tx.get::<Enrolment>(Table::Enrolments, &[&agent.id])? {
                    enrolment.void = true;
                    tx.put(Table::Enrolments, &[&agent.id], &enrolment)?;
                }
                holdings::forget(tx, &agent.id)?;
                tx.put(Table::Agents, &[&agent.id], &agent)?;
                tx.announce(News::Agent { agent_id: agent.id.clone() });
                Ok::<_, AdminError>(agent.id.clone())
            })
            .await?;
        let streams = self.hub.streams_of(&id);
        tracing::info!(id, "revoked");
        Ok(Revoked { id, streams })
    }

    /// Ends an agent's streams and lets it open and join no more, whatever it shows, until it is unbanned.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn ban_agent(&self, name: &str, banned: bool) -> Result<Revoked, AdminError> {
        let name = names::plain("agent", name)?;
        let id = self
            .store
            .write(move |tx| {
                let mut agent = by_name(tx, &name)?;
                agent.banned = banned;
                tx.put(Table::Agents, &[&agent.id], &agent)?;
                tx.announce(News::Agent { agent_id: agent.id.clone() });
                Ok::<_, AdminError>(agent.id)
            })
            .await?;
        let streams = self.hub.streams_of(&id);
        tracing::info!(id, banned, "ban");
        Ok(Revoked { id, streams })
    }

    /// Lets a namespace of an agent have a secret, or all of a workspace. Wants that were denied are answered at once.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn grant(
        &self,
        agent: &str,
        namespace: &str,
        workspace: Option<&str>,
        secret: Option<&str>,
    ) -> Result<Grant, AdminError> {
        let name = names::plain("agent", agent)?;
        let namespace = names::namespace(namespace)?;
        let secret = secret.map(names::secret).transpose()?;
        let named = workspace.map(|given| self.workspace_or_default(Some(given))).transpose()?;
        self.store
            .write(move |tx| {
                let mut agent = by_name(tx, &name)?;
                let grant = Grant { namespace, workspace: named.unwrap_or_else(|| agent.workspace.clone()), secret };
                if !agent.grants.contains(&grant) {
                    agent.grants.push(grant.clone());
                }
                tx.put(Table::Agents, &[&agent.id], &agent)?;
                tx.announce(News::Agent { agent_id: agent.id.clone() });
                Ok(grant)
            })
            .await
    }

    fn entry(&self, enrolment: Option<Enrolment>, agent: Agent) -> AgentEntry {
        let account = enrolment.filter(|enrolment| !enrolment.void);
        let account = account.map(|Enrolment { issuer, subject, uid, .. }| AccountEntry { issuer, subject, uid });
        AgentEntry {
            streams: self.hub.streams_of(&agent.id),
            name: agent.name,
            id: agent.id,
            workspace: agent.workspace,
            namespaces: agent.namespaces,
            grants: agent.grants,
            epoch: agent.epoch,
            build: agent.build,
            renewal: if agent.attested && account.is_some() { "service-account" } else { "key" }.to_owned(),
            account,
            revoked: agent.revoked,
            banned: agent.banned,
            joined_at_ms: agent.joined_at_ms,
        }
    }
}

pub(super) fn by_name(tx: &Tx<'_, '_, News>, name: &str) -> Result<Agent, AdminError> {
    let id: Option<String> = tx.get(Table::AgentNames, &[name])?;
    let agent = id.map(|id| tx.get::<Agent>(Table::Agents, &[&id])).transpose()?.flatten();
    agent.ok_or_else(|| AdminError::NoAgent(name.to_owned()))
}
