//! What bindings hold and how their workloads came along: written as streams say it, read by `secret status`.

use super::{AdminError, Core, News};
use crate::names;
use crate::reports::{Change, MAX_WORKLOADS, Said};
use crate::store::{Agent, Holding, Phase, Presence, Secret, Standing, StoreError, Table, Tx, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bindings of one agent that are kept: as many as a stream may want.
const MAX_HOLDINGS: u64 = 50_000;

/// What `secret status` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretStatus {
    /// Name.
    pub name: String,
    /// Workspace.
    pub workspace: String,
    /// `KEYS_VALUES` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Newest.
    pub version: u64,
    /// Whether that is a tombstone.
    pub deleted: bool,
    /// Unix milliseconds.
    pub committed_at_ms: i64,
    /// Failed first, then by agent, namespace and name.
    pub bindings: Vec<BindingStatus>,
}

/// One binding of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingStatus {
    /// Name of its agent, which is its cluster.
    pub agent: String,
    /// Whether the agent has a stream open.
    pub connected: bool,
    /// When the agent was last heard. Unix milliseconds.
    pub seen_at_ms: i64,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub binding: String,
    /// Its uid.
    pub binding_uid: String,
    /// The version that it asks for; None: the newest.
    pub pin: Option<u64>,
    /// The version that its Secret holds; 0: none, or it is being written anew.
    pub version: u64,
    /// Since when. Unix milliseconds.
    pub since_ms: i64,
    /// The version that it refused.
    pub refused: Option<u64>,
    /// In one word.
    pub state: State,
    /// Failed first.
    pub workloads: Vec<WorkloadStatus>,
}

/// One workload of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// KIND/NAME.
    pub workload: String,
    /// The version that it runs, or is to run.
    pub version: u64,
    /// How far.
    pub phase: Phase,
    /// Since when. Unix milliseconds.
    pub since_ms: i64,
}

/// Where a binding stands, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A workload did not come up with it.
    Failed,
    /// Its agent did not take the version that it wants.
    Refused,
    /// Its namespace may not have the secret.
    Denied,
    /// Its Secret does not hold the version that it wants.
    Behind,
    /// Its Secret does; workloads are still to follow.
    RollingOut,
    /// Its Secret does; no workload restarts for it.
    InSync,
    /// Its Secret does, and all its workloads run it.
    RolledOut,
}

impl Core {
    /// Writes down what a stream of this epoch said, and that its agent was heard just now. What an agent says that is not
    /// welcome any more is not kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record(&self, agent_id: &str, epoch: u64, said: Vec<(String, Change)>) -> Result<(), StoreError> {
        let agent_id = agent_id.to_owned();
        self.store
            .write(move |tx| {
                let Some(mut presence) = presence(tx, &agent_id, epoch)? else { return Ok(()) };
                for (uid, change) in said {
                    write(tx, &mut presence, &agent_id, &uid, change)?;
                }
                tx.put(Table::Presences, &[&agent_id], &presence)
            })
            .await
    }

    /// The bindings of an agent that its stream does not name, and of those that it does the workloads that it does not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unsaid(&self, agent_id: &str, said: &Said) -> Result<Vec<(String, Change)>, StoreError> {
        let all: Vec<Holding> = self.store.view()?.all(Table::Holdings)?;
        let of_it = all.into_iter().filter(|holding| holding.agent_id == agent_id);
        let forgotten = of_it.filter_map(|holding| {
            let Some(named) = said.workloads_of(&holding.binding_uid) else {
                return Some((holding.binding_uid, Change { anew: true, ..Change::default() }));
            };
            let own = holding.own.iter().map(|_| String::new());
            let workloads = holding.workloads.into_keys().chain(own).filter(|workload| !named.contains(workload));
            let reports: BTreeMap<_, _> = workloads.map(|workload| (workload, None)).collect();
            (!reports.is_empty()).then_some((holding.binding_uid, Change { reports, ..Change::default() }))
        });
        Ok(forgotten.collect())
    }

    /// Who holds which version of a secret, and how its workloads came along.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn secret_status(&self, workspace: Option<&str>, name: &str) -> Result<SecretStatus, AdminError> {
        let workspace = self.workspace_or_default(workspace)?;
        let name = names::secret(name)?;
        let view = self.store.view()?;
        let known: Option<Secret> = view.get(Table::Secrets, &[&workspace, &name])?;
        let secret = known.ok_or_else(|| AdminError::NoSecret { workspace: workspace.clone(), name: name.clone() })?;
        let newest: Option<Version> = view.get(Table::Versions, &[&workspace, &name, &secret.version.to_string()])?;
        let mut agents: BTreeMap<String, Option<(Agent, i64)>> = BTreeMap::new();
        let mut bindings = Vec::new();
        for holding in view.all::<Holding>(Table::Holdings)? {
            if holding.workspace != workspace || holding.secret != name {
                continue;
            }
            if !agents.contains_key(&holding.agent_id) {
                let presence: Option<Presence> = view.get(Table::Presences, &[&holding.agent_id])?;
                let agent: Option<Agent> = view.get(Table::Agents, &[&holding.agent_id])?;
                let seen = |agent: Agent| {
                    let seen_at_ms = presence.map_or(0, |presence| presence.seen_at_ms).max(agent.joined_at_ms);
                    (agent, seen_at_ms)
                };
                agents.insert(holding.agent_id.clone(), agent.map(seen));
            }
            if let Some(Some((agent, seen_at_ms))) = agents.get(&holding.agent_id) {
                let connected = self.hub.streams_of(&agent.id) > 0;
                bindings.push(binding(holding, agent, connected, *seen_at_ms, secret.version));
            }
        }
        bindings.sort_by(|a, b| {
            let of = |x: &BindingStatus| (x.state, x.agent.clone(), x.namespace.clone(), x.binding.clone());
            of(a).cmp(&of(b))
        });
        Ok(SecretStatus {
            name,
            workspace,
            kind: secret.kind,
            version: secret.version,
            deleted: secret.deleted,
            committed_at_ms: newest.map_or(secret.updated_at_ms, |newest| newest.committed_at_ms),
            bindings,
        })
    }
}

/// Forgets all bindings of an agent: it is not let in any more.
pub(super) fn forget(tx: &mut Tx<'_, '_, News>, agent_id: &str) -> Result<(), StoreError> {
    for holding in tx.all::<Holding>(Table::Holdings)? {
        if holding.agent_id == agent_id {
            tx.remove(Table::Holdings, &[agent_id, &holding.binding_uid]);
        }
    }
    tx.remove(Table::Presences, &[agent_id]);
    Ok(())
}

fn presence(tx: &Tx<'_, '_, News>, agent_id: &str, epoch: u64) -> Result<Option<Presence>, StoreError> {
    let agent: Option<Agent> = tx.get(Table::Agents, &[agent_id])?;
    if !agent.is_some_and(|agent| agent.epoch == epoch && !agent.revoked && !agent.banned) {
        return Ok(None);
    }
    let mut presence: Presence = tx.get(Table::Presences, &[agent_id])?.unwrap_or_default();
    presence.seen_at_ms = tx.now_ms();
    Ok(Some(presence))
}

fn write(
    tx: &mut Tx<'_, '_, News>,
    presence: &mut Presence,
    agent_id: &str,
    uid: &str,
    change: Change,
) -> Result<(), StoreError> {
    let (key, now) = ([agent_id, uid], tx.now_ms());
    let old: Option<Holding> = tx.get(Table::Holdings, &key)?;
    let was_there = old.is_some();
    let mut holding = old.clone().filter(|_| !change.anew);
    if let Some((wanted, known)) = change.want {
        let same = |row: &Holding| {
            (&row.workspace, &row.secret, row.pin) == (&wanted.workspace, &wanted.secret, wanted.pin)
                && (&row.namespace, &row.binding) == (&wanted.namespace, &wanted.binding)
        };
        let mut row = holding.filter(same).unwrap_or_else(|| Holding {
            agent_id: agent_id.to_owned(),
            namespace: wanted.namespace,
            binding: wanted.binding,
            binding_uid: uid.to_owned(),
            workspace: wanted.workspace,
            secret: wanted.secret,
            pin: wanted.pin,
            known: 0,
            version: 0,
            since_ms: now,
            before: (0, now),
            own: None,
            workloads: BTreeMap::new(),
        });
        row.know(known, now);
        holding = Some(row);
    }
    let Some(mut holding) = holding else {
        if was_there {
            tx.remove(Table::Holdings, &key);
            presence.holdings = presence.holdings.saturating_sub(1);
        }
        return Ok(());
    };
    for (workload, said) in change.reports {
        let known = workload.is_empty() || said.is_none() || holding.workloads.contains_key(&workload);
        if known || holding.workloads.len() < MAX_WORKLOADS {
            holding.say(&workload, said, now);
        }
    }
    if old.as_ref() == Some(&holding) {
        return Ok(());
    }
    if !was_there {
        if presence.holdings >= MAX_HOLDINGS {
            return Ok(());
        }
        presence.holdings += 1;
    }
    tx.put(Table::Holdings, &key, &holding)
}

fn binding(holding: Holding, agent: &Agent, connected: bool, seen_at_ms: i64, newest: u64) -> BindingStatus {
    let refused = holding.refused();
    let wanted = if holding.pin == 0 { newest } else { holding.pin };
    let workload = |(workload, standing): (String, Standing)| {
        let Standing { version, phase, since_ms } = standing;
        WorkloadStatus { workload, version, phase, since_ms }
    };
    let mut workloads: Vec<WorkloadStatus> = holding.workloads.into_iter().map(workload).collect();
    workloads.sort_by_key(|workload| match workload.phase {
        Phase::Failed => 0,
        Phase::Progressing => 1,
        Phase::Pending => 2,
        Phase::Complete => 3,
    });
    let runs = |workload: &WorkloadStatus| workload.phase == Phase::Complete && workload.version >= holding.version;
    let state = match () {
        () if workloads.iter().any(|workload| workload.phase == Phase::Failed) => State::Failed,
        () if !agent.may(&holding.namespace, &holding.workspace, &holding.secret) => State::Denied,
        () if refused.is_some() => State::Refused,
        () if holding.version != wanted => State::Behind,
        () if workloads.is_empty() => State::InSync,
        () if workloads.iter().all(runs) => State::RolledOut,
        () => State::RollingOut,
    };
    BindingStatus {
        agent: agent.name.clone(),
        connected,
        seen_at_ms,
        namespace: holding.namespace,
        binding: holding.binding,
        binding_uid: holding.binding_uid,
        pin: (holding.pin > 0).then_some(holding.pin),
        version: holding.version,
        since_ms: holding.since_ms,
        refused,
        state,
        workloads,
    }
}
