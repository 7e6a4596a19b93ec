//! The workload controller: gather what its bindings hold, decide once, stamp, follow to the end.

use crate::cluster::error::{Chain, ClusterError};
use crate::cluster::status::Notice;
use crate::controller::context::{Context, List};
use crate::crd::{EnnoteSecretBinding, RolloutPhase, RolloutStatus};
use crate::domain::content::Content;
use crate::domain::request::Request;
use crate::rollout::ledger::Ledger;
use crate::rollout::progress::{self, TIMEOUT};
use crate::rollout::rollout_plan::{Decision, MIN_INTERVAL, Memory, QUIET, Reading, decide};
use crate::rollout::workload::{OptIn, Workload};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use kube::runtime::controller::Action;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A stamp that was refused is tried again after this long, and on the next event.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// While the lists of a namespace are not complete.
const UNLISTED: Duration = Duration::from_millis(250);

/// What is remembered of a workload in this life of the process.
#[derive(Clone, Debug, Default)]
struct Memo {
    /// Our stamp, as it stood.
    stamp: Option<String>,
    /// Set until the watch has shown the stamp that was just written.
    awaited: bool,
    /// resourceVersion that the stamp was written over.
    over: String,
    template_when_due: Option<String>,
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
struct Reader {
    binding: Arc<EnnoteSecretBinding>,
    reading: Reading,
    version: i64,
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
    if error.is_stale() { Action::requeue(Duration::from_millis(200)) } else { Action::requeue(REFUSED_AGAIN) }
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
    let request = Request::parse(&binding, &context.secret_prefix).ok()?;
    let status = binding.status.as_ref()?;
    let content = Content::from_text(status.content.as_ref()?);
    let (baseline, _) = context.ledgers.with(&binding, |ledger| ledger.baseline(workload.key()).cloned());
    let reading = Reading {
        binding: request.binding,
        content,
        baseline,
        changed_at: status.last_sync_time.as_ref().map(|t| t.0),
    };
    Some(Reader { reading, version: status.source.as_ref().map_or(0, |s| s.version), binding })
}

/// Bindings that remember this workload although it restarts for them no more.
fn forget_others(workload: &Workload, readers: &[Reader], context: &Context) {
    for name in context.ledgers.remembering(workload.namespace(), workload.key()) {
        let still = readers.iter().any(|r| r.reading.binding == name);
        if still || !context.lists.has(workload.namespace(), List::Bindings) {
            continue;
        }
        let Some(binding) = context.binding(workload.namespace(), &name) else { continue };
        // A binding without content yet has nothing to forget either.
        if binding.status.as_ref().is_none_or(|s| s.content.is_none()) {
            continue;
        }
        change(&binding, context, |ledger| ledger.forget(workload.key()));
    }
}

fn change<T>(binding: &EnnoteSecretBinding, context: &Context, act: impl FnOnce(&mut Ledger) -> T) -> T {
    let (result, dirty) = context.ledgers.with(binding, act);
    if dirty {
        let meta = &binding.metadata;
        let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        // The reporter lives as long as the controllers; what is dirty at shutdown is flushed.
        let _ = context.wake_report.send(key);
    }
    result
}

fn last_restart(workload: &Workload, readers: &[Reader], context: &Context) -> Option<Timestamp> {
    let started = |r: &Reader| {
        let (at, _) =
            context.ledgers.with(&r.binding, |l| l.rollout(workload.key()).and_then(|r| r.started_at.clone()));
        at.map(|t| t.0)
    };
    readers.iter().filter_map(started).max()
}

struct Pass<'a> {
    workload: &'a Workload,
    readers: &'a [Reader],
    context: &'a Context,
    now: Timestamp,
}

impl Pass<'_> {
    async fn act(&self, decision: Decision, memo: &mut Memo) -> Result<Action, ClusterError> {
        match decision {
            Decision::Nothing => Ok(self.follow().await),
            Decision::Adopt => {
                self.each(|ledger, reader| {
                    if reader.reading.baseline.is_none() {
                        ledger.record(self.workload.key(), &reader.reading.content);
                    }
                });
                // What else is due is decided with the baselines in place.
                Ok(Action::requeue(Duration::ZERO))
            }
            Decision::Record(why) => {
                self.record(why);
                Ok(self.follow().await)
            }
            Decision::Wait(until) => {
                if until.duration_since(self.now) > QUIET {
                    self.pending(&format!("restarts are at least {} s apart", MIN_INTERVAL.as_secs()));
                }
                Ok(Action::requeue(Duration::try_from(until.duration_since(self.now)).unwrap_or_default()))
            }
            Decision::Pending(why) => {
                self.pending(&why);
                Ok(Action::await_change())
            }
            Decision::Reverted => {
                self.revert();
                memo.stamp = None;
                Ok(Action::await_change())
            }
            Decision::Stamp(value) => self.stamp(&value, memo).await,
        }
    }

    fn each(&self, mut act: impl FnMut(&mut Ledger, &Reader)) {
        for reader in self.readers {
            change(&reader.binding, self.context, |ledger| act(ledger, reader));
        }
    }

    fn due(reader: &Reader) -> bool {
        reader.reading.baseline.as_ref() != Some(&reader.reading.content)
    }

    fn rollout(&self, reader: &Reader, phase: RolloutPhase, message: &str) -> RolloutStatus {
        RolloutStatus {
            kind: self.workload.kind.to_string(),
            name: self.workload.name.clone(),
            version: reader.version,
            phase,
            ready: progress::ready(self.workload),
            desired: self.workload.numbers.desired,
            started_at: None,
            finished_at: None,
            message: message.to_owned(),
        }
    }

    /// It runs the new content without our doing, or ours was forgotten.
    fn record(&self, why: &str) {
        let skipped = self.workload.numbers.desired == 0;
        self.each(|ledger, reader| {
            if !Self::due(reader) {
                return;
            }
            let phase = if skipped { RolloutPhase::Skipped } else { RolloutPhase::Progressing };
            let rollout = RolloutStatus { started_at: Some(Time(self.now)), ..self.rollout(reader, phase, why) };
            if ledger.record(self.workload.key(), &reader.reading.content) {
                ledger.set_rollout(rollout);
            }
        });
    }

    fn pending(&self, why: &str) {
        self.each(|ledger, reader| {
            if Self::due(reader) {
                // When it was last restarted is what the next restart keeps its distance from.
                let started_at = ledger.rollout(self.workload.key()).and_then(|r| r.started_at.clone());
                ledger.set_rollout(RolloutStatus { started_at, ..self.rollout(reader, RolloutPhase::Pending, why) });
            }
        });
    }

    fn revert(&self) {
        self.each(|ledger, _| {
            if let Some(known) = ledger.rollout(self.workload.key()).cloned() {
                let message = "the stamp was taken away by someone else; not repeated".to_owned();
                ledger.set_rollout(RolloutStatus {
                    phase: RolloutPhase::Reverted,
                    finished_at: Some(Time(self.now)),
                    message,
                    ..known
                });
            }
        });
    }

    async fn stamp(&self, value: &str, memo: &mut Memo) -> Result<Action, ClusterError> {
        let (namespace, workload) = (self.workload.namespace(), self.workload.key());
        match self.context.workloads.stamp(self.workload, value).await {
            Ok(()) => {}
            Err(error) if error.code() == Some(403) || error.code() == Some(422) => {
                let problem = error.problem(&format!("patch {}", plural(self.workload)), namespace);
                tracing::warn!(namespace, workload, mend = problem.message, "cannot restart");
                self.pending(&problem.message);
                return Ok(Action::requeue(REFUSED_AGAIN));
            }
            Err(error) => {
                tracing::debug!(namespace, workload, error = %Chain(&error), "not stamped");
                return Err(error);
            }
        }
        *memo = Memo {
            stamp: Some(value.to_owned()),
            awaited: true,
            over: self.workload.metadata.resource_version.clone().unwrap_or_default(),
            template_when_due: None,
        };
        self.each(|ledger, reader| {
            if Self::due(reader) && ledger.record(self.workload.key(), &reader.reading.content) {
                let rollout = RolloutStatus { ready: 0, ..self.rollout(reader, RolloutPhase::Progressing, "") };
                ledger.set_rollout(RolloutStatus { started_at: Some(Time(self.now)), ..rollout });
            }
        });
        let bindings: Vec<&str> =
            self.readers.iter().filter(|r| Self::due(r)).map(|r| r.reading.binding.as_str()).collect();
        tracing::info!(namespace, workload, bindings = bindings.join(","), "restarted");
        let note = format!("restarted for a new version of {}", bindings.join(", "));
        self.notify(self.reference(), None, false, "Restarted", &note).await;
        Ok(Action::requeue(Duration::try_from(TIMEOUT).unwrap_or_default()))
    }

    /// Follows a restart of ours to its end.
    async fn follow(&self) -> Action {
        let mut ended = Vec::new();
        let mut until: Option<SignedDuration> = None;
        self.each(|ledger, reader| {
            let Some(known) = ledger.rollout(self.workload.key()).cloned() else { return };
            let open = matches!(known.phase, RolloutPhase::Progressing | RolloutPhase::Failed | RolloutPhase::Pending);
            if !open || Self::due(reader) {
                return;
            }
            let started = known.started_at.clone().unwrap_or(Time(self.now));
            let (phase, message) = progress::of(self.workload, started.0, self.now);
            let over = matches!(phase, RolloutPhase::Complete | RolloutPhase::Failed);
            if phase != known.phase && over {
                ended.push((reader.binding.clone(), phase, message.clone()));
            }
            if !over {
                until = Some(TIMEOUT - self.now.duration_since(started.0));
            }
            let finished_at =
                if phase == known.phase { known.finished_at.clone() } else { over.then_some(Time(self.now)) };
            ledger.set_rollout(RolloutStatus {
                phase,
                ready: progress::ready(self.workload),
                desired: self.workload.numbers.desired,
                started_at: Some(started),
                finished_at,
                message,
                ..known
            });
        });
        for (binding, phase, message) in ended {
            self.announce(&binding, phase, &message).await;
        }
        until.map_or_else(Action::await_change, |left| {
            Action::requeue(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
        })
    }

    async fn announce(&self, binding: &EnnoteSecretBinding, phase: RolloutPhase, message: &str) {
        let (namespace, workload) = (self.workload.namespace(), self.workload.key());
        let failed = phase == RolloutPhase::Failed;
        if failed {
            tracing::warn!(namespace, workload, message, "the rollout failed");
        } else {
            tracing::info!(namespace, workload, "the rollout is complete");
        }
        let (reason, note) = if failed {
            ("RolloutFailed", format!("{workload}: {message}"))
        } else {
            ("RolloutComplete", format!("{workload} is up"))
        };
        self.notify(binding.object_ref(&()), Some(self.reference()), failed, reason, &note).await;
    }

    async fn notify(
        &self,
        about: ObjectReference,
        related: Option<ObjectReference>,
        warning: bool,
        reason: &str,
        note: &str,
    ) {
        self.context.status.event(Notice { about, related, warning, reason, action: "Restart", note }).await;
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some(self.workload.kind.to_string()),
            name: Some(self.workload.name.clone()),
            namespace: self.workload.metadata.namespace.clone(),
            uid: self.workload.metadata.uid.clone(),
            ..ObjectReference::default()
        }
    }
}

fn plural(workload: &Workload) -> String {
    format!("{}s", workload.kind.to_string().to_lowercase())
}
