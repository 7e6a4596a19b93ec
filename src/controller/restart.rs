//! Carries out what was decided for a workload, and follows a restart of ours to its end.

use crate::cluster::error::{Chain, ClusterError};
use crate::controller::context::Context;
use crate::controller::proving::{self, Standing};
use crate::controller::reverting;
use crate::controller::workload::{Memo, Reader};
use crate::crd::{EnnoteSecretBinding, OnFailure, RolloutPhase, RolloutStatus};
use crate::rollout::cause::{Cause, Why};
use crate::rollout::ledger::Ledger;
use crate::rollout::progress::{self, HELD_UP};
use crate::rollout::rollout_plan::Decision;
use crate::rollout::workload::{Stamp, Workload};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use std::time::Duration;

/// A stamp that was refused is tried again after this long, and on the next event.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// What waits for a time is looked at again after this long at the latest: the time is the cloud's, and may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// `alsoFor` names at most this many bindings.
const ALSO_FOR: usize = 20;

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

fn until(again: Option<Duration>) -> Action {
    again.map_or_else(Action::await_change, Action::requeue)
}

/// All but one, and not too many to be written down.
fn others(carried: &[String], but: &str) -> Vec<String> {
    carried.iter().filter(|other| *other != but).take(ALSO_FOR).cloned().collect()
}

/// One pass over a workload, after the decision.
pub(super) struct Pass<'a> {
    pub(super) workload: &'a Workload,
    pub(super) readers: &'a [Reader],
    pub(super) context: &'a Context,
    pub(super) now: Timestamp,
}

impl<'a> Pass<'a> {
    /// `before` is what [`Self::begin`] gave where a restart is begun.
    pub(super) async fn act(
        &self,
        decision: Decision,
        before: Vec<Option<RolloutStatus>>,
        memo: &mut Memo,
    ) -> Result<Action, ClusterError> {
        match decision {
            Decision::Nothing => Ok(until(self.follow().await)),
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
            Decision::Pass(bindings) => {
                self.each(|ledger, reader| {
                    if bindings.contains(&reader.reading.binding) {
                        ledger.record(self.workload.key(), &reader.reading.content);
                        let waited =
                            ledger.rollout(self.workload.key()).is_some_and(|r| r.phase == RolloutPhase::Pending);
                        if waited {
                            ledger.drop_rollout(self.workload.key());
                        }
                    }
                });
                Ok(Action::requeue(Duration::ZERO))
            }
            Decision::Record(why) => {
                self.record(&why);
                self.wake_those_that_wait();
                // It is followed with the baselines in place.
                Ok(Action::requeue(Duration::ZERO))
            }
            Decision::Wait(until, why) => {
                why.iter().for_each(|why| self.pending(why));
                let left = Duration::try_from(until.duration_since(self.now)).unwrap_or_default();
                Ok(self.wait(left.min(LOOK_AGAIN)).await)
            }
            Decision::Pending(why) => {
                self.pending(&why);
                Ok(self.wait(LOOK_AGAIN).await)
            }
            Decision::Reverted => {
                self.revert();
                memo.stamp = None;
                Ok(Action::await_change())
            }
            Decision::Stamp(value) => self.stamp(&value, before, memo).await,
        }
    }

    /// What waits for one binding may be under way for another, and is followed meanwhile.
    async fn wait(&self, longest: Duration) -> Action {
        Action::requeue(self.follow().await.map_or(longest, |again| again.min(longest)))
    }

    /// Changes that are of no interest to anybody while the API server has not answered: they are not written to status.
    fn each_quietly(&self, mut act: impl FnMut(&mut Ledger, &'a Reader)) {
        for reader in self.readers.iter().filter(|reader| reader.ours) {
            self.context.ledgers.with(&reader.binding, |ledger| act(ledger, reader));
        }
    }

    fn each(&self, mut act: impl FnMut(&mut Ledger, &'a Reader)) {
        for reader in self.readers.iter().filter(|reader| reader.ours) {
            change(&reader.binding, self.context, |ledger| act(ledger, reader));
        }
    }

    fn due(reader: &Reader) -> bool {
        reader.reading.baseline.as_ref() != Some(&reader.reading.content)
    }

    fn rollout(&self, reader: &Reader, phase: RolloutPhase, why: Option<&Why>) -> RolloutStatus {
        RolloutStatus {
            kind: self.workload.kind.to_string(),
            name: self.workload.name.clone(),
            version: reader.version,
            phase,
            ready: progress::ready(self.workload),
            desired: self.workload.numbers.desired,
            started_at: None,
            finished_at: None,
            reason: why.map(|why| why.cause.to_string()),
            message: why.map(|why| why.message.clone()).unwrap_or_default(),
            also_for: vec![],
        }
    }

    /// It runs the new content without our doing, or ours was forgotten.
    fn record(&self, why: &Why) {
        let skipped = self.workload.numbers.desired == 0;
        let carried = self.carried();
        self.each(|ledger, reader| {
            if !Self::due(reader) {
                return;
            }
            let phase = if skipped { RolloutPhase::Skipped } else { RolloutPhase::Progressing };
            let rollout = RolloutStatus {
                started_at: Some(Time(self.now)),
                also_for: others(&carried, &reader.reading.binding),
                ..self.rollout(reader, phase, Some(why))
            };
            if ledger.record(self.workload.key(), &reader.reading.content) {
                ledger.set_rollout(rollout);
            }
        });
    }

    fn pending(&self, why: &Why) {
        self.each(|ledger, reader| {
            if reader.reading.moves() {
                // When it was last restarted is what the next restart keeps its distance from; and one that is not over is
                // ours, however long this one waits.
                let known = ledger.rollout(self.workload.key()).cloned();
                let over = known.as_ref().is_some_and(|r| r.phase != RolloutPhase::Failed);
                let finished_at = known.as_ref().and_then(|r| r.finished_at.clone()).filter(|_| over);
                let started_at = known.and_then(|r| r.started_at);
                let rollout = self.rollout(reader, RolloutPhase::Pending, Some(why));
                ledger.set_rollout(RolloutStatus { started_at, finished_at, ..rollout });
            }
        });
    }

    fn revert(&self) {
        self.each(|ledger, _| {
            if let Some(known) = ledger.rollout(self.workload.key()).cloned() {
                ledger.set_rollout(RolloutStatus {
                    phase: RolloutPhase::Reverted,
                    finished_at: Some(Time(self.now)),
                    reason: Some(Cause::StampRemoved.to_string()),
                    message: "the stamp was taken away by someone else; not repeated".to_owned(),
                    ..known
                });
            }
        });
    }

    async fn stamp(
        &self,
        value: &Stamp,
        before: Vec<Option<RolloutStatus>>,
        memo: &mut Memo,
    ) -> Result<Action, ClusterError> {
        let (namespace, workload) = (self.workload.namespace(), self.workload.key());
        match proving::workload(self.workload, self.context).await {
            Standing::Holds => {}
            Standing::NotYet(pause) => {
                self.take_back(before);
                return Ok(Action::requeue(pause));
            }
            Standing::Missing(problem) => {
                self.take_back(before);
                tracing::warn!(
                    namespace,
                    workload,
                    mend = problem.message,
                    "not restarted: the admission policy is missing"
                );
                self.pending(&Why::new(Cause::PolicyMissing, problem.message));
                return Ok(self.wait(proving::AGAIN).await);
            }
            Standing::Unknown(error) => {
                self.take_back(before);
                return match error.refusal() {
                    Some(said) => Ok(self.refused(said).await),
                    None => Ok(Action::requeue(proving::AGAIN)),
                };
            }
        }
        if let Err(error) = self.context.workloads.stamp(self.workload, value).await {
            self.take_back(before);
            let Some(said) = error.refusal() else {
                tracing::debug!(namespace, workload, error = %Chain(&error), "not stamped");
                return Err(error);
            };
            return Ok(self.refused(said).await);
        }
        *memo = Memo {
            stamp: Some(value.text(self.workload.kind)),
            awaited: true,
            over: self.workload.metadata.resource_version.clone().unwrap_or_default(),
            doubts: memo.doubts.take(),
            ..Memo::default()
        };
        self.each(|ledger, reader| {
            ledger.record(self.workload.key(), &reader.reading.content);
        });
        let bindings: Vec<&str> = self.moved().collect();
        tracing::info!(namespace, workload, bindings = bindings.join(","), "restarted");
        let note = format!("restarted for a new version of {}", bindings.join(", "));
        self.notify(self.reference(), None, false, "Restarted", &note).await;
        Ok(Action::requeue(self.again_after(self.now)))
    }

    async fn refused(&self, said: String) -> Action {
        let (namespace, workload) = (self.workload.namespace(), self.workload.key());
        let said = self.context.self_check.why_not_stamped(namespace, &self.workload.kind.to_string(), said).await;
        tracing::warn!(namespace, workload, said, "cannot restart");
        self.pending(&Why::new(Cause::Refused, format!("the API server refused the restart: {said}")));
        self.wait(REFUSED_AGAIN).await
    }

    /// The bindings whose content a restart brings: those that moved, and those whose own restart is not over yet.
    fn carried(&self) -> Vec<String> {
        let carries = |reader: &&Reader| {
            let unfinished = |ledger: &Ledger| ledger.is_under_way(self.workload.key());
            Self::due(reader) || (reader.ours && self.context.ledgers.read(&reader.binding, unfinished))
        };
        self.readers.iter().filter(carries).map(|reader| reader.reading.binding.clone()).collect()
    }

    fn moved(&self) -> impl Iterator<Item = &str> {
        self.readers.iter().filter(|r| Self::due(r)).map(|r| r.reading.binding.as_str())
    }

    /// Counts as restarting from here on: other workloads are decided while the API server is asked. Gives what was.
    pub(super) fn begin(&self) -> Vec<Option<RolloutStatus>> {
        let mut before = Vec::new();
        let carried = self.carried();
        self.each_quietly(|ledger, reader| {
            let known = ledger.rollout(self.workload.key()).cloned();
            before.push(known.clone());
            let also_for = others(&carried, &reader.reading.binding);
            if let Some(known) = known.filter(|_| !Self::due(reader) && carried.contains(&reader.reading.binding)) {
                ledger.set_rollout(RolloutStatus { also_for, ..known });
            } else if Self::due(reader) {
                let started_at = Some(Time(self.now));
                let rollout = self.rollout(reader, RolloutPhase::Progressing, None);
                ledger.set_rollout(RolloutStatus { ready: 0, started_at, also_for, ..rollout });
            }
        });
        before
    }

    fn take_back(&self, before: Vec<Option<RolloutStatus>>) {
        let mut before = before.into_iter();
        self.each_quietly(|ledger, _| match before.next().flatten() {
            Some(known) => ledger.set_rollout(known),
            None => ledger.drop_rollout(self.workload.key()),
        });
    }

    /// When a restart that began then is to be looked at without an event.
    fn again_after(&self, started: Timestamp) -> Duration {
        let timeout = self.readers.iter().map(|r| r.reading.policy.timeout).min().unwrap_or_default();
        let since = self.now.duration_since(started);
        let next = [HELD_UP, timeout].into_iter().map(|at| at - since).filter(|left| left.is_positive()).min();
        let left = next.and_then(|left| Duration::try_from(left).ok()).unwrap_or(LOOK_AGAIN);
        left.min(LOOK_AGAIN) + Duration::from_secs(1)
    }

    /// Follows a restart of ours to its end. Gives when to look again, if no event tells.
    async fn follow(&self) -> Option<Duration> {
        let mut ended = Vec::new();
        let mut again: Option<Duration> = None;
        let any = self
            .readers
            .iter()
            .any(|r| self.context.ledgers.read(&r.binding, |ledger| ledger.rollout(self.workload.key()).is_some()));
        if !any {
            return None;
        }
        self.each(|ledger, reader| {
            let Some(known) = ledger.rollout(self.workload.key()).cloned() else { return };
            let open = matches!(known.phase, RolloutPhase::Progressing | RolloutPhase::Failed | RolloutPhase::Pending);
            if !open || reader.reading.moves() {
                return;
            }
            let begun = known
                .started_at
                .clone()
                .filter(|_| known.phase != RolloutPhase::Pending || known.finished_at.is_none());
            let Some(started) = begun else {
                // What it waited for is not wanted any more.
                ledger.drop_rollout(self.workload.key());
                return;
            };
            let (phase, why) = progress::of(self.workload, started.0, reader.reading.policy.timeout, self.now);
            let over = matches!(phase, RolloutPhase::Complete | RolloutPhase::Failed);
            let ends = phase != known.phase && over;
            if !over {
                again = Some(self.again_after(started.0));
            }
            let told = RolloutStatus {
                ready: progress::ready(self.workload),
                desired: self.workload.numbers.desired,
                started_at: Some(started),
                ..known
            };
            ledger.set_rollout(if phase == RolloutPhase::Failed && told.phase == phase {
                told
            } else {
                let finished_at =
                    if phase == told.phase { told.finished_at.clone() } else { over.then_some(Time(self.now)) };
                match &why {
                    // Why it is under way without our doing stays said.
                    None if phase == told.phase => RolloutStatus { finished_at, ..told },
                    _ => {
                        let (reason, message) = why.clone().map(|why| (why.cause.to_string(), why.message)).unzip();
                        RolloutStatus { phase, finished_at, reason, message: message.unwrap_or_default(), ..told }
                    }
                }
            });
            if ends {
                // In the same change as the failure: between two, the agent might be killed, and never come back to it.
                let reverts = phase == RolloutPhase::Failed && reader.reading.policy.on_failure == OnFailure::Revert;
                let held = reverts.then(|| reverting::begin(reader, self.workload, ledger, self.now));
                ended.push((reader, phase, why, held));
            }
        });
        for (reader, phase, why, held) in &ended {
            let message = why.as_ref().map(|why| why.message.as_str()).unwrap_or_default();
            self.announce(&reader.binding, *phase, message).await;
            if let Some(held) = held {
                reverting::tell(reader, self.workload, *held, self.context).await;
            }
        }
        if !ended.is_empty() {
            self.wake_those_that_wait();
        }
        again
    }

    /// Workloads of later waves, and those beyond maxConcurrent.
    fn wake_those_that_wait(&self) {
        for reader in self.readers.iter().filter(|reader| reader.ours) {
            let waiting =
                self.context.ledgers.read(&reader.binding, |ledger| ledger.pending().cloned().collect::<Vec<_>>());
            for workload in waiting {
                self.context.wake_workload(self.workload.namespace(), &workload);
            }
        }
    }
}
