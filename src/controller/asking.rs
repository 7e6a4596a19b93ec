//! Nothing has arrived: which want stands, when it is declared again, and what is said meanwhile.

use crate::cloud::inbox::Wanted;
use crate::controller::context::{Context, Fact, Memo};
use crate::controller::pass::{Pass, deny_pause, trouble};
use crate::crd::{EnnoteSecretBinding, EnnoteSecretBindingStatus, Mode};
use crate::domain::conditions::{find, is_synced};
use crate::domain::high_water;
use crate::domain::observed::Observed;
use crate::domain::outcome::Outcome;
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;
use crate::domain::sync_plan::known_version;
use crate::entropy::spread;
use std::time::Duration;
use tokio::time::Instant;

/// A fresh want is given this long to be answered before status says that it waits: most answers are there in milliseconds,
/// and a status that is right at once costs one write instead of two.
const GRACE: Duration = Duration::from_secs(1);
/// A pass that has just asked about a denial again need not come back sooner.
const MIN_DENY_PAUSE: Duration = Duration::from_secs(48);

/// The version that the Secret demonstrably holds, or 0.
pub(super) fn holds(request: &Request, observed: &Observed, binding: &EnnoteSecretBinding, context: &Context) -> u64 {
    let session = context.link.borrow().session.clone();
    let home = session.as_ref().map(|s| (s.identity.organization.as_str(), s.identity.workspace.as_str()));
    let status = binding.status.clone().unwrap_or_default();
    known_version(request, observed, &status, home)
}

/// Nothing has arrived: see that the want stands, and say what is waited for. `passed_over` is a version whose rollout failed, in
/// place of which another is held.
pub(super) fn ask(
    binding: &EnnoteSecretBinding,
    request: &Request,
    wanted: &Wanted,
    observed: &Observed,
    passed_over: Option<i64>,
    memo: Option<Memo>,
    context: &Context,
) -> Pass {
    let status = binding.status.clone().unwrap_or_default();
    // What a person accepts counts from the next word of the cloud on, which therefore has to come in any case.
    let accepts = high_water::accepted(binding).is_ok_and(|accepted| accepted.is_some());
    // So it has where a person asks to sync again, and where nothing is known of what the Secret should hold.
    let renews = request.renews(&status);
    let known = if let Some(failed) = passed_over.filter(|_| wanted.pin.is_none()) {
        u64::try_from(failed).unwrap_or(0)
    } else if accepts || renews || request.mode == Mode::Observe {
        0
    } else {
        holds(request, observed, binding, context)
    };
    let now = Instant::now();
    match memo.as_ref().map(|m| &m.fact) {
        // Not on this way: `observing` has spoken.
        Some(Fact::Foreseen(version, _)) => {
            context.want(wanted, *version, true);
            Pass::say(Outcome::Unchanged)
        }
        Some(Fact::Seen(version, problem) | Fact::Gone(version, problem)) => {
            context.want(wanted, *version, true);
            Pass::say(problem.clone())
        }
        Some(Fact::Retry(at, problem)) if *at > now => Pass::say_until(trouble(binding, problem.clone()), *at - now),
        Some(Fact::Retry(_, problem)) => {
            context.want(wanted, known, true);
            Pass::say(trouble(binding, problem.clone()))
        }
        Some(Fact::Doubted(at)) if *at > now => Pass::say_until(Outcome::Unchanged, *at - now),
        Some(Fact::Doubted(_)) => {
            context.memos.forget(&request.uid);
            context.want(wanted, known, false);
            context.inbox.declare_again(&request.uid);
            Pass::say(standing(request, &status, context))
        }
        Some(Fact::Standing(at, problem)) => {
            context.want(wanted, known, false);
            if *at <= now {
                context.inbox.declare_again(&request.uid);
                let failures = memo.as_ref().map_or(0, |m| m.failures);
                context.remember(
                    request,
                    Fact::Standing(now + deny_pause(failures, spread()), problem.clone()),
                    failures,
                );
            }
            let outcome = waiting_for_link(context).map_or_else(|| problem.clone().into(), |_| Outcome::Unchanged);
            Pass::say_until(outcome, at.saturating_duration_since(now).max(MIN_DENY_PAUSE))
        }
        // The Secret holds what it should, as far as is known: that stays said until the answer is there.
        _ if renews && is_synced(&status, request.generation) => {
            context.want(wanted, 0, true);
            Pass::say(standing(request, &status, context))
        }
        _ if known > 0 => {
            // A want that rests here is one whose delivery never reached the status, as when the API server refused it.
            context.want(wanted, known, true);
            Pass::say(standing(request, &status, context))
        }
        fact => {
            context.want(wanted, 0, true);
            // A denial leaves its want standing, which is not declared again by itself.
            if renews && fact.is_none() {
                context.inbox.declare_again(&request.uid);
                context.remember(request, Fact::Asked(now), 0);
            }
            if was_told(&status, request.generation) {
                return Pass::say(Outcome::Unchanged);
            }
            if let Some(problem) = waiting_for_link(context) {
                return Pass::say(problem);
            }
            let asked = match fact {
                Some(Fact::Asked(at)) => *at,
                _ => {
                    context.remember(request, Fact::Asked(now), 0);
                    now
                }
            };
            let left = GRACE.saturating_sub(now.duration_since(asked));
            if left.is_zero() {
                Pass::say(Problem::new(Reason::WaitingForPayload, "asked; the cloud has not answered yet"))
            } else {
                Pass::Hold(left)
            }
        }
    }
}

/// What a person must mend of the link.
pub(super) fn link_problem(context: &Context) -> Option<Problem> {
    waiting_for_link(context).filter(|problem| problem.reason.is_of_the_link())
}

/// Whether status holds what a delivery said of this spec. An agent that has just started knows less: a deletion that is held
/// for a person, for one, must not be forgotten by a restart.
fn was_told(status: &EnnoteSecretBindingStatus, generation: i64) -> bool {
    let ready = find(status, "Ready").filter(|c| c.observed_generation == Some(generation));
    ready.is_some_and(|c| {
        Reason::ALL.into_iter().any(|r| (r.is_of_a_delivery() || r == Reason::Observed) && r.to_string() == c.reason)
    })
}

/// The Secret holds what it should. Whether more would come is a matter of the link.
fn standing(request: &Request, status: &EnnoteSecretBindingStatus, context: &Context) -> Outcome {
    match waiting_for_link(context) {
        Some(problem) if problem.reason.is_of_the_link() => problem.into(),
        Some(_) => Outcome::Unchanged,
        None if request.mode == Mode::Sync && find(status, "Ready").is_some_and(|c| c.status != "True") => {
            Outcome::Restored
        }
        None => Outcome::Unchanged,
    }
}

fn waiting_for_link(context: &Context) -> Option<Problem> {
    let link = context.link.borrow();
    if link.live {
        return None;
    }
    let starting =
        || Problem::new(Reason::WaitingForCloud, "no stream to Ennote yet; the agent keeps trying (see its log)");
    Some(link.problem.clone().unwrap_or_else(starting))
}
