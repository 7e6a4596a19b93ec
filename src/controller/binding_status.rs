//! The binding controller's part of the status, written when it moved, and Events on its transitions.

use crate::clock;
use crate::cluster::error::{Chain, ClusterError};
use crate::cluster::status::{BINDING_MANAGER, Notice};
use crate::controller::context::Context;
use crate::crd::{EnnoteSecretBinding, EnnoteSecretBindingStatus};
use crate::domain::claim;
use crate::domain::conditions::{self, find};
use crate::domain::drift;
use crate::domain::high_water;
use crate::domain::observed::Observed;
use crate::domain::outcome::Outcome;
use crate::domain::reason::Phase;
use crate::domain::request::{self, Request, SYNC};
use kube::Resource;

/// Writes status if it moved; Events on transitions only. `handled`: the cloud has answered what persons asked for.
pub(super) async fn write(
    binding: &EnnoteSecretBinding,
    outcome: &Outcome,
    handled: bool,
    context: &Context,
) -> Result<(), ClusterError> {
    let old = binding.status.clone().unwrap_or_default();
    let freshness = context.link.borrow().freshness(clock::now());
    let generation = binding.metadata.generation.unwrap_or_default();
    let mut next = conditions::next(&old, outcome, freshness, generation, context.now());
    let target = next.target.as_ref().filter(|_| binding.spec.suspend != Some(true));
    if let Some(target) = target
        && let Observed::Present(secret) =
            context.index.observe(binding.metadata.namespace.as_deref().unwrap_or_default(), &target.name)
        && secret.uid == target.uid
    {
        conditions::name_others(&mut next, drift::other_keys(&secret));
    }
    if let Some(text) = high_water::moot(binding) {
        next.last_handled.get_or_insert_default().accept = Some(text);
    }
    next.agent = Some(context.agent.clone());
    if let Some(at) = claim::question(&old, &context.agent) {
        next.claim_answered = Some(at.clone());
    }
    if handled && let Some(text) = request::asks(binding).remove(SYNC) {
        next.last_handled.get_or_insert_default().sync = Some(text);
    }
    if next == conditions::own(&old) {
        return Ok(());
    }
    let answer = match context.status.write(binding, BINDING_MANAGER, &next).await {
        Ok(answer) => answer,
        // Gone: there is nobody to tell.
        Err(error) if error.code() == Some(404) => return Ok(()),
        Err(error) => {
            tracing::warn!(namespace = binding.metadata.namespace, binding = binding.metadata.name, error = %Chain(&error), "status could not be written; trying again");
            return Err(error);
        }
    };
    context.latest.answered(answer);
    if next.content != old.content
        && let Ok(request) = Request::parse(binding, &context.defaults)
    {
        context.wake_workloads_of(binding, &request);
    }
    announce(binding, &old, &next, outcome, context).await;
    Ok(())
}

async fn announce(
    binding: &EnnoteSecretBinding,
    old: &EnnoteSecretBindingStatus,
    next: &EnnoteSecretBindingStatus,
    outcome: &Outcome,
    context: &Context,
) {
    let Some(ready) = find(next, "Ready") else { return };
    let moved = find(old, "Ready").is_none_or(|was| was.reason != ready.reason);
    let (namespace, name) = (&binding.metadata.namespace, &binding.metadata.name);
    let phase = match outcome {
        Outcome::Problem(problem) => problem.reason.phase(),
        Outcome::Synced(held) => {
            if held.written_at.is_some() {
                let (version, latency) = (held.source.version, held.latency_millis);
                tracing::info!(
                    namespace,
                    binding = name,
                    version,
                    latency_ms = latency,
                    secret = held.target.name,
                    "synced"
                );
            }
            Phase::Synced
        }
        Outcome::Restored | Outcome::Suspended | Outcome::Foreseen(_) => Phase::Synced,
        Outcome::Unchanged => return,
    };
    if !moved || phase == Phase::Waiting {
        return;
    }
    let warning = phase != Phase::Synced;
    if warning {
        tracing::warn!(namespace, binding = name, reason = ready.reason, mend = ready.message, "not in sync");
    }
    let notice = Notice {
        about: binding.object_ref(&()),
        related: None,
        warning,
        reason: &ready.reason,
        action: "Sync",
        note: &ready.message,
    };
    context.status.event(notice).await;
}
