//! Carries out what was decided for a workload, and follows a restart of ours to its end.

use crate::cluster::error::{Chain, ClusterError};
use crate::cluster::status::Notice;
use crate::controller::context::Context;
use crate::controller::workload::{Memo, Reader};
use crate::crd::{EnnoteSecretBinding, RolloutPhase, RolloutStatus};
use crate::rollout::ledger::Ledger;
use crate::rollout::progress::{self, TIMEOUT};
use crate::rollout::rollout_plan::{Decision, MIN_INTERVAL, QUIET};
use crate::rollout::workload::Workload;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use kube::runtime::controller::Action;
use std::time::Duration;

/// A stamp that was refused is tried again after this long, and on the next event.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// Changes a ledger and has it written if it moved.
pub(super) fn change<T>(binding: &EnnoteSecretBinding, context: &Context, act: impl FnOnce(&mut Ledger) -> T) -> T {
    let (result, dirty) = context.ledgers.with(binding, act);
    if dirty {
        let meta = &binding.metadata;
        let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        // The reporter lives as long as the controllers; what is dirty at shutdown is flushed.
        let _ = context.wake_report.send(key);
    }
    result
}

/// One pass over a workload, after the decision.
pub(super) struct Pass<'a> {
    pub(super) workload: &'a Workload,
    pub(super) readers: &'a [Reader],
    pub(super) context: &'a Context,
    pub(super) now: Timestamp,
}

impl Pass<'_> {
    pub(super) async fn act(&self, decision: Decision, memo: &mut Memo) -> Result<Action, ClusterError> {
        match decision {
            Decision::Nothing => Ok(self.follow().await),
            Decision::Adopt => {
                let mut full = false;
                self.each(|ledger, reader| {
                    if reader.reading.baseline.is_none() {
                        full |= !ledger.record(self.workload.key(), &reader.reading.content);
                    }
                });
                if full {
                    let (namespace, workload) = (self.workload.namespace(), self.workload.key());
                    tracing::warn!(namespace, workload, "not restarted: its binding remembers 2,000 workloads already");
                    return Ok(Action::await_change());
                }
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
        for reader in self.readers.iter().filter(|reader| reader.ours) {
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
