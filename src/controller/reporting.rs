//! What the cloud is told: which version a binding's Secret holds, and whether its workloads run it.

use crate::cloud::reports::Phase;
use crate::controller::context::Context;
use crate::controller::workload::Reader;
use crate::crd::{EnnoteSecretBinding, RolloutPhase};
use crate::domain::outcome::Outcome;
use crate::domain::reason::Reason;
use crate::rollout::ledger::Ledger;
use crate::rollout::workload::Workload;

/// Where a binding stands after a pass. `seen`: the version that the pass was about, whatever came of it.
pub(super) fn binding(binding: &EnnoteSecretBinding, outcome: &Outcome, seen: Option<u64>, context: &Context) {
    let uid = binding.metadata.uid.as_deref().unwrap_or_default();
    let held = || binding.status.as_ref().and_then(|status| u64::try_from(status.held_version()?).ok());
    let told = match outcome {
        Outcome::Synced(_) => seen.map(|version| (version, Phase::Complete)),
        Outcome::Foreseen(_) => seen.map(|version| (version, Phase::Pending)),
        // A deletion is no version that anyone could hold.
        Outcome::Problem(problem) if problem.reason == Reason::SourceDeleted => None,
        Outcome::Problem(problem) if problem.reason.is_of_a_delivery() => seen.map(|version| (version, Phase::Failed)),
        Outcome::Unchanged | Outcome::Restored => held().map(|version| (version, Phase::Complete)),
        Outcome::Problem(_) | Outcome::Suspended => None,
    };
    if let Some((version, phase)) = told.filter(|(version, _)| *version > 0) {
        context.reports.set_binding(uid, version, phase);
    }
}

/// Where a workload stands with each binding that it restarts for.
pub(super) fn workload(workload: &Workload, readers: &[Reader], context: &Context) {
    for reader in readers.iter().filter(|reader| reader.ours) {
        let uid = reader.binding.metadata.uid.as_deref().unwrap_or_default();
        let phase = context.ledgers.read(&reader.binding, |ledger| phase(workload, reader, ledger));
        context.reports.set(uid, u64::try_from(reader.version).unwrap_or(0), workload.key(), phase);
    }
}

fn phase(workload: &Workload, reader: &Reader, ledger: &Ledger) -> Phase {
    let runs = ledger.baseline(workload.key()) == Some(&reader.reading.content);
    match ledger.rollout(workload.key()).map(|rollout| rollout.phase) {
        Some(RolloutPhase::Progressing) => Phase::Progressing,
        Some(RolloutPhase::Failed | RolloutPhase::Reverted) if runs => Phase::Failed,
        Some(RolloutPhase::Pending) => Phase::Pending,
        _ if runs => Phase::Complete,
        _ => Phase::Pending,
    }
}
