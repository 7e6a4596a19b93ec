//! The workload controller: gather what its bindings hold and decide once; `restart` carries it out.

use crate::cluster::error::ClusterError;
use crate::controller::binding::after;
use crate::controller::context::{Context, List};
use crate::controller::restart::{Pass, change};
use crate::crd::{EnnoteSecretBinding, Mode};
use crate::domain::content::Content;
use crate::domain::request::Request;
use crate::rollout::rollout_plan::{Decision, Memory, Reading, decide};
use crate::rollout::workload::{OptIn, Workload};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// While the lists of a namespace are not complete.
const UNLISTED: Duration = Duration::from_millis(250);

/// What is remembered of a workload in this life of the process.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo {
    /// Our stamp, as it stood.
    pub(super) stamp: Option<String>,
    /// Set until the watch has shown the stamp that was just written.
    pub(super) awaited: bool,
    /// resourceVersion that the stamp was written over.
    pub(super) over: String,
    pub(super) template_when_due: Option<String>,
}

/// Memos by workload uid.
#[derive(Default)]
pub struct WorkloadMemos(Mutex<HashMap<String, Memo>>);

impl WorkloadMemos {
    fn of(&self, workload: &Workload) -> Memo {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(uid(workload)).cloned().unwrap_or_default()
    }

    fn set(&self, workload: &Workload, memo: Memo) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid(workload).to_owned(), memo);
    }

    /// Forgets a workload that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

fn uid(workload: &Workload) -> &str {
    workload.metadata.uid.as_deref().unwrap_or_default()
}

/// Handles of this controller.
pub struct WorkloadContext {
    /// Shared with the binding controller.
    pub shared: Arc<Context>,
    /// Its own memory.
    pub memos: WorkloadMemos,
}

/// One binding that a workload restarts for, and what goes with it.
pub(super) struct Reader {
    pub(super) binding: Arc<EnnoteSecretBinding>,
    pub(super) reading: Reading,
    pub(super) version: i64,
    /// Not another agent's.
    pub(super) ours: bool,
}

/// One pass over a workload.
///
/// # Errors
/// Only if the API server could not be asked to stamp; the pass is then repeated.
pub async fn reconcile(workload: Arc<Workload>, context: Arc<WorkloadContext>) -> Result<Action, ClusterError> {
    let shared = &context.shared;
    if workload.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !shared.lists.has(workload.namespace(), List::Bindings) {
        return Ok(Action::requeue(UNLISTED));
    }
    let readers = gather(&workload, shared);
    forget_others(&workload, &readers, shared);
    if readers.is_empty() {
        return Ok(Action::await_change());
    }
    let now = shared.now();
    let mut memo = context.memos.of(&workload);
    if memo.awaited
        && workload.stamp != memo.stamp
        && workload.metadata.resource_version.as_deref() == Some(memo.over.as_str())
    {
        // The watch has not shown our own stamp yet: its event wakes us.
        return Ok(Action::await_change());
    }
    memo.awaited = false;
    let stripped = memo.stamp.is_some() && workload.stamp != memo.stamp;
    let memory = Memory {
        last_restart: last_restart(&workload, &readers, shared),
        template_when_due: memo.template_when_due.clone(),
        stripped,
    };
    let readings: Vec<Reading> = readers.iter().map(|r| r.reading.clone()).collect();
    let decision = decide(&workload, &readings, &memory, now);
    let pass = Pass { workload: &workload, readers: &readers, context: shared, now };
    memo.stamp = workload.stamp.clone();
    let due = matches!(decision, Decision::Wait(_) | Decision::Pending(_) | Decision::Stamp(_));
    memo.template_when_due = due.then(|| memory.template_when_due.unwrap_or_else(|| workload.template.clone()));
    let action = pass.act(decision, &mut memo).await;
    context.memos.set(&workload, memo);
    action
}

/// After a stamp that was refused.
pub fn on_error(_: Arc<Workload>, error: &ClusterError, _: Arc<WorkloadContext>) -> Action {
    Action::requeue(after(error))
}

/// Gives the workloads that restart for a binding a baseline, where they have none: what the Secret holds until now. True if
/// there is something to persist.
pub fn record_missing(binding: &EnnoteSecretBinding, request: &Request, content: &str, context: &Context) -> bool {
    let workloads = context.workloads_of(&request.namespace, &request.binding, request.target.as_str());
    let content = Content::from_text(content);
    let (_, dirty) = context.ledgers.with(binding, |ledger| {
        for workload in &workloads {
            if ledger.baseline(workload.key()).is_none() {
                ledger.record(workload.key(), &content);
            }
        }
    });
    dirty
}

fn gather(workload: &Workload, context: &Context) -> Vec<Reader> {
    let namespace = workload.namespace();
    let names: Vec<String> = match &workload.opt_in {
        OptIn::Never => return vec![],
        OptIn::Bindings(names) => names.iter().cloned().collect(),
        OptIn::Auto => workload.reads.iter().flat_map(|secret| context.targets.bindings(namespace, secret)).collect(),
    };
    names.iter().filter_map(|name| reader(workload, context.binding(namespace, name)?, context)).collect()
}

/// A binding that has not synced yet holds nothing that a workload could run.
fn reader(workload: &Workload, binding: Arc<EnnoteSecretBinding>, context: &Context) -> Option<Reader> {
    if binding.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let request = Request::parse(&binding, &context.defaults).ok()?;
    let status = binding.status.as_ref()?;
    let content = Content::from_text(status.content.as_ref()?);
    let (baseline, _) = context.ledgers.with(&binding, |ledger| ledger.baseline(workload.key()).cloned());
    let ours = !context.is_theirs(&binding);
    // Nothing restarts for a binding that only observes, nor for another agent's, as if the workload ran what is there already.
    // What is recorded stays, and the stamp speaks of all, so that two agents mean the same by it.
    let baseline = if request.mode == Mode::Observe || !ours { Some(content.clone()) } else { baseline };
    let reading = Reading {
        binding: request.binding,
        content,
        baseline,
        changed_at: status.last_sync_time.as_ref().map(|t| t.0),
    };
    Some(Reader { reading, version: status.held_version().unwrap_or(0), ours, binding })
}

/// Bindings that remember this workload although it restarts for them no more. The caller has seen that their list is
/// complete.
fn forget_others(workload: &Workload, readers: &[Reader], context: &Context) {
    for name in context.ledgers.remembering(workload.namespace(), workload.key()) {
        let still = readers.iter().any(|r| r.reading.binding == name);
        if still {
            continue;
        }
        let Some(binding) = context.binding(workload.namespace(), &name) else { continue };
        // A binding without content yet has nothing to forget either.
        if context.is_theirs(&binding) || binding.status.as_ref().is_none_or(|s| s.content.is_none()) {
            continue;
        }
        change(&binding, context, |ledger| ledger.forget(workload.key()));
    }
}

fn last_restart(workload: &Workload, readers: &[Reader], context: &Context) -> Option<Timestamp> {
    let started = |r: &Reader| {
        let (at, _) =
            context.ledgers.with(&r.binding, |l| l.rollout(workload.key()).and_then(|r| r.started_at.clone()));
        at.map(|t| t.0)
    };
    readers.iter().filter_map(started).max()
}
