//! Writes the workload controller's part of the status: the first change at once, then at most once per binding in 2 s.

use crate::cluster::error::{Chain, ClusterError};
use crate::cluster::status::WORKLOAD_MANAGER;
use crate::controller::context::Context;
use crate::controller::lists::List;
use crate::crd::EnnoteSecretBinding;
use crate::rollout::workload::Kind;
use kube::runtime::reflector::ObjectRef;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// At most one write per binding in this time.
const APART: Duration = Duration::from_secs(2);
/// A write that failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs until all wakers are gone.
pub async fn run(context: Arc<Context>, mut wakes: mpsc::UnboundedReceiver<(String, String)>) {
    let mut due: HashMap<(String, String), Instant> = HashMap::new();
    let mut written: HashMap<(String, String), Instant> = HashMap::new();
    loop {
        let next = due.values().min().copied();
        let idle = Instant::now() + APART;
        tokio::select! {
            wake = wakes.recv() => {
                let Some(key) = wake else { return };
                let earliest = written.get(&key).map_or_else(Instant::now, |at| *at + APART);
                due.entry(key).or_insert(earliest);
            }
            () = sleep_until(next.unwrap_or(idle)), if next.is_some() => {
                let now = Instant::now();
                let ready: Vec<(String, String)> = due.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
                written.retain(|_, at| now.duration_since(*at) < APART);
                for key in ready {
                    due.remove(&key);
                    match write(&context, &key.0, &key.1).await {
                        Ok(()) => drop(written.insert(key, Instant::now())),
                        Err(_) => drop(due.insert(key, Instant::now() + AGAIN)),
                    }
                }
            }
        }
    }
}

/// Persists all that is not yet, at shutdown.
pub async fn flush(context: &Context) {
    for (namespace, name) in context.ledgers.dirty() {
        let _ = write(context, &namespace, &name).await;
    }
}

/// Persists one ledger, if it differs from what is persisted.
///
/// # Errors
/// The API server's refusal. A binding that is gone is none.
pub async fn write(context: &Context, namespace: &str, name: &str) -> Result<(), ClusterError> {
    let _turn = context.ledgers.turn(namespace, name).await;
    let Some(binding) = context.binding(namespace, name) else { return Ok(()) };
    if context.is_theirs(&binding) {
        return Ok(());
    }
    prune(context, &binding, namespace);
    let (ledger, dirty) = context.ledgers.with(&binding, |ledger| ledger.clone());
    if !dirty {
        return Ok(());
    }
    let old = binding.status.clone().unwrap_or_default();
    let status = ledger.to_status(&old, binding.metadata.generation.unwrap_or_default(), context.now());
    match context.status.write(&binding, WORKLOAD_MANAGER, &status).await {
        Ok(answer) => {
            context.ledgers.persisted(&binding, &ledger);
            context.latest.answered(answer);
            Ok(())
        }
        Err(error) if error.is_stale() => Ok(()),
        Err(error) => {
            tracing::warn!(namespace, binding = name, error = %Chain(&error), "rollouts could not be written to status; trying again");
            Err(error)
        }
    }
}

/// Workloads that went while nobody watched.
fn prune(context: &Context, binding: &EnnoteSecretBinding, namespace: &str) {
    let listed =
        |workload: &str| Kind::of_key(workload).is_some_and(|kind| context.lists.has(namespace, List::Workloads(kind)));
    let gone = |workload: &String| {
        listed(workload) && context.seen_workloads.get(&ObjectRef::new(workload).within(namespace)).is_none()
    };
    context.ledgers.with(binding, |ledger| {
        for workload in ledger.workloads().into_iter().filter(gone) {
            context.reports.forget_workload(binding.metadata.uid.as_deref().unwrap_or_default(), &workload);
            ledger.forget(&workload);
        }
    });
}
