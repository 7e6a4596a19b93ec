//! What persons ask of a binding's restarts by annotation, and the lines that ask for it.

use crate::controller::context::Context;
use crate::controller::restart::change;
use crate::controller::reverting;
use crate::crd::EnnoteSecretBinding;
use crate::domain::content::Content;
use crate::domain::request::Request;
use crate::rollout::policy::Policy;

/// Annotation on a binding: what waits for a person or for a window restarts now. Each value works once.
pub(super) const RESTART_NOW: &str = "ennote.io/restart-now";
/// Annotation on a binding: failures with this content are set aside, and a version that is held back is tried again. Each value
/// works once.
pub(super) const RESUME: &str = "ennote.io/resume";

/// The line that releases what waits.
pub(super) fn release(request: &Request) -> String {
    line(request, RESTART_NOW)
}

/// Why nothing more restarts with this content.
pub(super) fn halted(request: &Request, failed: &[&str]) -> String {
    let (first, more) = (failed.first().copied().unwrap_or_default(), failed.len().saturating_sub(1));
    let others = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{first}{others} failed with this content; a newer version goes on, or: {}", line(request, RESUME))
}

fn line(request: &Request, annotation: &str) -> String {
    let (binding, namespace) = (&request.binding, &request.namespace);
    format!("kubectl annotate --overwrite ennotesecretbinding {binding} -n {namespace} {annotation}=$(date +%s)")
}

/// Takes up what is asked by annotation, and says what keeps the binding as a whole from restarting anything.
pub(super) fn take_up(binding: &EnnoteSecretBinding, request: &Request, context: &Context) {
    let content = binding.status.as_ref().and_then(|s| s.content.as_deref()).map(Content::from_text);
    let policy = Policy::parse(binding.spec.rollout.as_ref());
    let obstacle = obstacle(&policy, context);
    let moved = change(binding, context, |ledger| {
        ledger.set_obstacle(obstacle);
        if ledger.any_hold().is_some_and(|hold| !reverting::counts(hold, request, binding.status.as_ref())) {
            ledger.end_hold();
        }
        ledger.answer(request.asks.get(RESTART_NOW), request.asks.get(RESUME), content.as_ref())
    });
    if moved {
        context.wake_workloads_of(binding, request);
    }
}

fn obstacle(policy: &Policy, context: &Context) -> Option<(String, String)> {
    if let Some(why) = &policy.bad_window {
        return Some(("BadWindow".to_owned(), format!("nothing restarts: spec.rollout.windows: {why}")));
    }
    if policy.consumers && !context.rollouts.consumers {
        let message = "spec.rollout.workloads is Consumers, which this agent may not do: the chart's value \
                       rollouts.consumers is false. Workloads with the annotation ennote.io/restart restart all the same";
        return Some(("ConsumersOff".to_owned(), message.to_owned()));
    }
    None
}
