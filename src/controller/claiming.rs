//! Before a pass: whether this agent writes the binding, or another one does. A binding of another agent gets no status, no
//! Secret, no want and no restart from this one; only its question whether the other lives, and an Event.

use crate::clock;
use crate::cluster::error::ClusterError;
use crate::cluster::status::{BINDING_MANAGER, Notice};
use crate::controller::context::Context;
use crate::crd::{Claim, EnnoteSecretBinding, EnnoteSecretBindingStatus};
use crate::domain::claim::{self, Act, Belief};
use crate::domain::conditions;
use crate::domain::moment::Moment;
use crate::domain::reason::Reason;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is remembered of other agents in this life of the process.
#[derive(Default)]
pub struct Claims(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// By namespace and name of the other agent: it may live and not watch this namespace any more.
    beliefs: HashMap<(String, String), Belief>,
    /// Uids of bindings that were ours when last seen.
    ours: HashSet<String>,
    /// Of which agent was told, by uid.
    told: HashMap<String, String>,
}

impl Claims {
    fn decide(
        &self,
        binding: &EnnoteSecretBinding,
        own: &str,
        patience: Duration,
        (now, clock): (Moment, Timestamp),
    ) -> Act {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = &mut *memory;
        let unseen = EnnoteSecretBindingStatus::default();
        let status = binding.status.as_ref().unwrap_or(&unseen);
        let meta = &binding.metadata;
        let uid = meta.uid.clone().unwrap_or_default();
        let other = claim::other(Some(status), own).map(str::to_owned);
        let key = other.map(|other| (meta.namespace.clone().unwrap_or_default(), other));
        if let Some(key) = &key {
            // Who took it from us lives, whatever was believed.
            if memory.ours.remove(&uid) {
                memory.beliefs.remove(key);
            }
        }
        let belief = key.as_ref().and_then(|key| memory.beliefs.remove(key));
        let act = claim::decide(status, &uid, own, belief.as_ref(), patience, (now, clock));
        match (key, claim::learn(&act, &uid, belief, now)) {
            (Some(key), Some(belief)) => drop(memory.beliefs.insert(key, belief)),
            _ => drop(memory.ours.insert(uid)),
        }
        act
    }

    /// Whether this is news.
    fn tell(&self, uid: &str, other: &str) -> bool {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.told.insert(uid.to_owned(), other.to_owned()).as_deref() != Some(other)
    }

    /// The binding is gone.
    pub fn forget(&self, uid: &str) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.ours.remove(uid);
        memory.told.remove(uid);
    }
}

/// Whose a binding is.
pub(super) enum Stand {
    /// Ours, as it now is.
    Ours(Arc<EnnoteSecretBinding>),
    /// Another agent's. Look again after this long.
    Theirs(Duration),
}

/// Finds out whose a binding is, by the rules of `domain::claim`.
///
/// # Errors
/// If a question, or our name, could not be written.
pub(super) async fn stand(binding: Arc<EnnoteSecretBinding>, context: &Context) -> Result<Stand, ClusterError> {
    let act = context.claims.decide(&binding, &context.agent, context.patience, (clock::now(), context.now()));
    let other = claim::other(binding.status.as_ref(), &context.agent).unwrap_or_default();
    let (namespace, name) = (&binding.metadata.namespace, &binding.metadata.name);
    if !matches!(act, Act::Mine(_) | Act::TakeOver) {
        leave(&binding, context);
    }
    Ok(match act {
        Act::Mine(_) => Stand::Ours(binding),
        Act::TakeOver => {
            tracing::warn!(namespace, binding = name, other, "taken over from an agent that does not answer");
            // Our name comes first: from then on the other one, should it be back, writes nothing.
            let status = binding.status.clone().unwrap_or_default();
            let next = EnnoteSecretBindingStatus { agent: Some(context.agent.clone()), ..conditions::own(&status) };
            let answer = context.status.write(&binding, BINDING_MANAGER, &next).await?;
            leave(&binding, context);
            context.latest.answered(answer.clone());
            Stand::Ours(Arc::new(answer))
        }
        Act::Challenge(at) => {
            tracing::debug!(namespace, binding = name, other, "asking another agent whether it lives");
            let answer = context.status.claim(&binding, &Claim { by: context.agent.clone(), at }).await?;
            context.latest.answered(answer);
            Stand::Theirs(context.patience)
        }
        Act::StandBack(again) => {
            if context.claims.tell(binding.metadata.uid.as_deref().unwrap_or_default(), other) {
                say(&binding, other, context).await;
            }
            Stand::Theirs(again)
        }
        Act::Wait(pause) => Stand::Theirs(pause),
    })
}

/// What is remembered of it is of no use: another agent has written since, or will.
fn leave(binding: &EnnoteSecretBinding, context: &Context) {
    let meta = &binding.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let uid = text(&meta.uid);
    context.inbox.unwant(&uid);
    context.memos.forget(&uid);
    context.ledgers.remove(&text(&meta.namespace), &text(&meta.name), &uid);
}

async fn say(binding: &EnnoteSecretBinding, other: &str, context: &Context) {
    let (namespace, name) = (binding.metadata.namespace.as_deref().unwrap_or_default(), &binding.metadata.name);
    let note = format!(
        "agent {other} writes this binding and lives; agent {} leaves it alone. Take namespace {namespace} from watchNamespaces of one \
         of the two: helm upgrade",
        context.agent
    );
    let reason = Reason::ManagedByAnotherAgent.to_string();
    tracing::warn!(namespace, binding = name, reason, mend = note, "another agent's binding");
    let about = binding.object_ref(&());
    context
        .status
        .event(Notice { about, related: None, warning: true, reason: &reason, action: "Sync", note: &note })
        .await;
}
