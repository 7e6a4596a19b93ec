//! onFailure Revert: the version before comes back, is rolled out like any other, and is held until a newer one comes or a person
//! says so. The hold stands in status; the binding controller asks the cloud for exactly that version.

use crate::cluster::status::Notice;
use crate::controller::context::Context;
use crate::controller::pass::Pass;
use crate::controller::restart::change;
use crate::controller::workload::Reader;
use crate::crd::{EnnoteSecretBinding, EnnoteSecretBindingStatus, Hold};
use crate::domain::request::Request;
use crate::rollout::cause::Cause;
use crate::rollout::ledger::{Ledger, NoRevert};
use crate::rollout::workload::Workload;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use std::time::Duration;

/// A restart for this binding has failed: holds the version before, or says why not.
pub(super) fn begin(
    reader: &Reader,
    workload: &Workload,
    ledger: &mut Ledger,
    now: Timestamp,
) -> Result<i64, NoRevert> {
    if reader.request.source.pin.is_some() {
        return Err(NoRevert::Pinned);
    }
    let held = ledger.begin_hold(workload.key(), reader.version, now);
    if held == Err(NoRevert::Ambiguous) {
        ledger.explain(workload.key(), Cause::RevertAmbiguous, &ambiguous(workload));
    }
    held
}

fn ambiguous(workload: &Workload) -> String {
    format!(
        "{} restarted for more than this binding, so what of it to take back is for a person to say",
        workload.key()
    )
}

/// Says what came of it, and has the version that is held asked for.
pub(super) async fn tell(reader: &Reader, workload: &Workload, held: Result<i64, NoRevert>, context: &Context) {
    let (namespace, name) = (&reader.request.namespace, &reader.request.binding);
    let failed = reader.version;
    let (reason, note) = match held {
        Ok(version) => {
            tracing::warn!(namespace, binding = name, failed, version, "the version before is held");
            context.wake_binding(namespace, name);
            (
                "RolledBack",
                format!("version {failed} failed on {}; version {version} is held in its place", workload.key()),
            )
        }
        Err(NoRevert::Ambiguous) => ("RevertAmbiguous", ambiguous(workload)),
        Err(NoRevert::Pinned) => (
            "RevertImpossible",
            "spec.source.version names the version that failed: a person has to move it".to_owned(),
        ),
        Err(NoRevert::NothingBefore) => {
            ("RevertImpossible", "no earlier version is known with which all was well".to_owned())
        }
        Err(NoRevert::DoneAlready) => return,
    };
    let about = reader.binding.object_ref(&());
    context.status.event(Notice { about, related: None, warning: true, reason, action: "Revert", note: &note }).await;
}

/// The hold of a binding, while it counts: of exactly this source, as long as nothing newer than what failed was taken.
pub(super) fn hold(binding: &EnnoteSecretBinding, request: &Request, context: &Context) -> Option<Hold> {
    let hold = context.ledgers.read(binding, |ledger| ledger.hold().cloned());
    hold.filter(|hold| counts(hold, request, binding.status.as_ref()))
}

/// The cloud no longer has the version that is to be held: nothing more can be done by ourselves.
pub(super) fn give_up(binding: &EnnoteSecretBinding, context: &Context) -> Pass {
    change(binding, context, Ledger::hold_is_unavailable);
    Pass::Hold(Duration::ZERO)
}

/// Whether a hold still counts for the binding as it is.
pub(super) fn counts(hold: &Hold, request: &Request, status: Option<&EnnoteSecretBindingStatus>) -> bool {
    let Some(mark) = status.and_then(|status| status.source.as_ref()) else { return false };
    let same = mark.secret == request.source.secret
        && (request.source.workspace.is_empty() || mark.workspace == request.source.workspace);
    request.source.pin.is_none() && same && mark.version <= hold.failed
}
