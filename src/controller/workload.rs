//! The workload controller: gather what its bindings hold and decide once; `restart` carries it out.

use crate::cluster::error::ClusterError;
use crate::controller::binding::after;
use crate::controller::context::Context;
use crate::controller::lists::List;
use crate::controller::restart::{Pass, change};
use crate::controller::{reporting, rollout_asks};
use crate::crd::{EnnoteSecretBinding, Mode, OnFailure, RolloutPhase};
use crate::domain::content::Content;
use crate::domain::request::Request;
use crate::rollout::ledger::Ledger;
use crate::rollout::policy::Policy;
use crate::rollout::progress::{is_rolling, is_settled};
use crate::rollout::rollout_plan::{Decision, Memory, Reading, decide};
use crate::rollout::workload::Workload;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use std::collections::{BTreeSet, HashMap};
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
    pub(super) due_since: Option<Timestamp>,
    pub(super) others_since: Option<Timestamp>,
    /// What was said of its annotations.
    pub(super) doubts: Option<String>,
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
    pub(super) request: Request,
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
    let _runs = shared.pulse.pass(workload.metadata.uid.as_deref().unwrap_or_default());
    if workload.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !shared.lists.has(workload.namespace(), List::Bindings) {
        return Ok(Action::requeue(UNLISTED));
    }
    let mut memo = context.memos.of(&workload);
    let now = shared.now();
    // Passes run at the same time, on several threads. Who restarts next depends on who restarts already, so that a decision and
    // what is reserved by it are one step.
    let turn = shared.deciding.lock().unwrap_or_else(PoisonError::into_inner);
    let readers = gather(&workload, shared);
    forget_others(&workload, &readers, shared);
    if readers.is_empty() {
        return Ok(Action::await_change());
    }
    if memo.awaited
        && workload.stamp != memo.stamp
        && workload.metadata.resource_version.as_deref() == Some(memo.over.as_str())
    {
        // The watch has not shown our own stamp yet: its event wakes us.
        return Ok(Action::await_change());
    }
    memo.awaited = false;
    let stripped = memo.stamp.is_some() && workload.stamp != memo.stamp;
    let others = is_rolling(&workload) && !readers.iter().any(|r| restarts_for(&workload, r, shared));
    memo.others_since = others.then(|| memo.others_since.unwrap_or(now));
    let memory = Memory {
        last_restart: last_restart(&workload, &readers, shared),
        due_since: memo.due_since,
        template_when_due: memo.template_when_due.clone(),
        stripped,
        others_since: memo.others_since,
    };
    let readings: Vec<Reading> = readers.iter().map(|r| r.reading.clone()).collect();
    let decision = decide(&workload, &readings, &memory, now);
    let pass = Pass { workload: &workload, readers: &readers, context: shared, now };
    let before = if matches!(decision, Decision::Stamp(_)) { pass.begin() } else { vec![] };
    drop(turn);
    memo.stamp = workload.stamp.clone();
    let due = matches!(decision, Decision::Wait(..) | Decision::Pending(_) | Decision::Stamp(_));
    memo.template_when_due = due.then(|| memory.template_when_due.unwrap_or_else(|| workload.template.clone()));
    // Only of the quiet period: what waited for something else begins one of its own when that has come.
    memo.due_since = matches!(decision, Decision::Wait(_, None)).then(|| memory.due_since.unwrap_or(now));
    let doubts = workload.doubts(shared.rollouts.reloader);
    if doubts != memo.doubts {
        if let Some(text) = &doubts {
            pass.warn(text).await;
        }
        memo.doubts = doubts;
    }
    let action = pass.act(decision, before, &mut memo).await;
    reporting::workload(&workload, &readers, shared);
    context.memos.set(&workload, memo);
    action
}

/// After a stamp that was refused.
pub fn on_error(_: Arc<Workload>, error: &ClusterError, _: Arc<WorkloadContext>) -> Action {
    Action::requeue(after(error))
}

/// Before the content of a Secret moves: workloads that restart for the binding get a baseline where they have none, which is what
/// the Secret holds until now; and what the decisions after it will have to know. True if there is something to persist.
pub fn before_a_move(
    binding: &EnnoteSecretBinding,
    request: &Request,
    (held, content): (i64, &Content),
    next: &Next<'_>,
    context: &Context,
) -> bool {
    let workloads = context.workloads_of(binding, request);
    let policy = Policy::parse(binding.spec.rollout.as_ref());
    let (_, dirty) = context.ledgers.with(binding, |ledger| {
        for workload in &workloads {
            if ledger.baseline(workload.key()).is_none() {
                ledger.record(workload.key(), content);
            }
        }
        if next.of_another {
            ledger.another_source();
        } else if policy.on_failure == OnFailure::Revert {
            ledger.moving((held, content), next.version);
        }
        // Where the Secret holds the data already, and only the word of it was lost, the keys are known from the first time.
        let again = next.repeated && ledger.changed_since(content).is_some();
        if !policy.changed_keys {
            ledger.keys_change(content, &next.content, None);
        } else if !again {
            ledger.keys_change(content, &next.content, next.changed);
        }
    });
    dirty
}

/// What the Secret is about to hold.
pub struct Next<'a> {
    /// Which version.
    pub version: i64,
    /// Its content.
    pub content: Content,
    /// The keys that it changes; `None`: unknown.
    pub changed: Option<&'a BTreeSet<String>>,
    /// Whether the Secret holds it already.
    pub repeated: bool,
    /// Whether it comes from another secret than what was held.
    pub of_another: bool,
}

fn gather(workload: &Workload, context: &Context) -> Vec<Reader> {
    let bindings = context.bindings_of(workload);
    bindings.into_iter().filter_map(|binding| reader(workload, binding, context)).collect()
}

/// A binding that has not synced yet holds nothing that a workload could run.
fn reader(workload: &Workload, binding: Arc<EnnoteSecretBinding>, context: &Context) -> Option<Reader> {
    if binding.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let request = Request::parse(&binding, &context.defaults).ok()?;
    let policy = Arc::new(Policy::parse(binding.spec.rollout.as_ref()));
    let status = binding.status.as_ref()?;
    let content = Content::from_text(status.content.as_ref()?);
    let target = request.target.as_str();
    let mut reading = context.ledgers.read(&binding, |ledger| {
        let baseline = ledger.baseline(workload.key()).cloned();
        let failed = ledger.failed_with(&content);
        Reading {
            binding: request.binding.clone(),
            touches: !policy.changed_keys || touches(workload, target, baseline.as_ref(), ledger),
            released: ledger.has_released(&content),
            halted: (policy.on_failure != OnFailure::Continue && !failed.is_empty())
                .then(|| rollout_asks::halted(&request, &failed)),
            awaited: None,
            running: ledger.running_besides(workload.key()),
            release: rollout_asks::release(&request),
            changed_at: status.last_sync_time.as_ref().map(|t| t.0),
            content: content.clone(),
            policy: policy.clone(),
            baseline,
        }
    });
    let ours = !context.is_theirs(&binding);
    // Nothing restarts for a binding that only observes, nor for another agent's, as if the workload ran what is there already.
    // What is recorded stays, and the stamp speaks of all, so that two agents mean the same by it.
    if request.mode == Mode::Observe || !ours {
        reading.baseline = Some(content);
    } else if reading.baseline.as_ref() != Some(&content) {
        reading.awaited = earlier_wave(workload, &binding, &request, &content, context);
    }
    Some(Reader { reading, request, version: status.held_version().unwrap_or(0), ours, binding })
}

/// Whether what changed since a content is something that the workload reads. A workload that names the binding and reads
/// the Secret in a way that its template does not show may read any key.
fn touches(workload: &Workload, target: &str, baseline: Option<&Content>, ledger: &Ledger) -> bool {
    let changed = baseline.and_then(|baseline| ledger.changed_since(baseline));
    changed.is_none_or(|keys| !workload.reads.contains_key(target) || workload.reads_any(target, keys))
}

/// A workload of an earlier wave that is not up yet with this content.
fn earlier_wave(
    workload: &Workload,
    binding: &EnnoteSecretBinding,
    request: &Request,
    content: &Content,
    context: &Context,
) -> Option<String> {
    let earlier: Vec<Arc<Workload>> = context
        .workloads_of(binding, request)
        .into_iter()
        .filter(|other| other.wave < workload.wave && other.metadata.deletion_timestamp.is_none())
        .collect();
    let goes_on = binding.spec.rollout.as_ref().and_then(|r| r.on_failure) == Some(OnFailure::Continue);
    context.ledgers.read(binding, |ledger| {
        let failed: Vec<&str> = if goes_on { ledger.failed_now(content) } else { ledger.set_aside(content) };
        let up = |other: &Workload| {
            let over = ledger.rollout(other.key()).is_some() || is_settled(other);
            (ledger.is_up(other.key(), content) && over) || failed.contains(&other.key())
        };
        earlier.iter().find(|other| !up(other)).map(|other| other.key().to_owned())
    })
}

/// Whether the rollout that is under way is one that the agent began for this binding.
fn restarts_for(workload: &Workload, reader: &Reader, context: &Context) -> bool {
    context.ledgers.read(&reader.binding, |ledger| {
        ledger
            .rollout(workload.key())
            .is_some_and(|r| r.started_at.is_some() && (r.finished_at.is_none() || r.phase == RolloutPhase::Failed))
    })
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
        // Nor is anything known of one whose spec cannot be read for now.
        if Request::parse(&binding, &context.defaults).is_err() {
            continue;
        }
        // A binding without content yet has nothing to forget either.
        if context.is_theirs(&binding) || binding.status.as_ref().is_none_or(|s| s.content.is_none()) {
            continue;
        }
        change(&binding, context, |ledger| ledger.forget(workload.key()));
        context.reports.forget_workload(binding.metadata.uid.as_deref().unwrap_or_default(), workload.key());
    }
}

fn last_restart(workload: &Workload, readers: &[Reader], context: &Context) -> Option<Timestamp> {
    let started = |r: &Reader| {
        let at = context.ledgers.read(&r.binding, |l| l.rollout(workload.key()).and_then(|r| r.started_at.clone()));
        at.map(|t| t.0)
    };
    readers.iter().filter_map(started).max()
}
