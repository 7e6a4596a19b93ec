//! The binding controller: parse, observe, open, plan, apply, report. A failure is an outcome too, so status is written on
//! every path.

use crate::cloud::inbox::Wanted;
use crate::cluster::error::ClusterError;
use crate::controller::binding_status;
use crate::controller::context::{Context, Fact, List, Memo};
use crate::controller::delivery::{Taken, take_in};
use crate::crd::{EnnoteSecretBinding, EnnoteSecretBindingStatus};
use crate::domain::conditions::find;
use crate::domain::deletions;
use crate::domain::high_water;
use crate::domain::observed::Observed;
use crate::domain::outcome::Outcome;
use crate::domain::ownership;
use crate::domain::reason::{Phase, Problem, Reason};
use crate::domain::request::Request;
use crate::domain::sync_plan::known_version;
use crate::entropy::spread;
use kube::runtime::controller::Action;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A fresh want is given this long to be answered before status says that it waits: most answers are there in milliseconds,
/// and a status that is right at once costs one write instead of two.
const GRACE: Duration = Duration::from_secs(1);
/// Every binding is looked at again after about this long.
const REVISIT: Duration = Duration::from_secs(300);
/// A denial turns a binding that is synced no more often than this: it is unsigned.
const TURNS_APART: Duration = Duration::from_secs(30);
/// A pass that has just asked about a denial again need not come back sooner.
const MIN_DENY_PAUSE: Duration = Duration::from_secs(48);
/// While the lists of a namespace are not complete.
const UNLISTED: Duration = Duration::from_millis(250);

/// One pass over a binding.
///
/// # Errors
/// Only if the status could not be written; the pass is then repeated.
pub async fn reconcile(binding: Arc<EnnoteSecretBinding>, context: Arc<Context>) -> Result<Action, ClusterError> {
    let binding = context.latest.newest(binding);
    if binding.metadata.deletion_timestamp.is_some() {
        context.inbox.unwant(uid(&binding));
        return Ok(Action::await_change());
    }
    let (outcome, again, acknowledge) = match pass(&binding, &context).await {
        Pass::Hold(pause) => return Ok(Action::requeue(pause)),
        Pass::Done { outcome, again, acknowledge } => (outcome, again, acknowledge),
    };
    binding_status::write(&binding, &outcome, &context).await?;
    // Only now: the API server has taken it.
    if let Some((wanted, version)) = acknowledge {
        context.want(&wanted, version, true);
    }
    Ok(Action::requeue(again.unwrap_or_else(|| REVISIT.mul_f64(0.8 + 0.4 * spread()))))
}

/// After a status write that failed.
pub fn on_error(_: Arc<EnnoteSecretBinding>, error: &ClusterError, _: Arc<Context>) -> Action {
    Action::requeue(after(error))
}

/// 404 and 409: gone, or moved, and the watch wakes us with what it is now. Anything else is the API server's trouble, which
/// all bindings together should not add to.
pub(super) fn after(error: &ClusterError) -> Duration {
    let longest = Duration::from_secs(if error.is_stale() { 2 } else { 30 });
    longest.mul_f64(0.1 + 0.9 * spread())
}

enum Pass {
    /// Say this, and look again then.
    Done { outcome: Outcome, again: Option<Duration>, acknowledge: Option<(Wanted, u64)> },
    /// Too early to say anything.
    Hold(Duration),
}

impl Pass {
    fn say(outcome: impl Into<Outcome>) -> Self {
        Self::Done { outcome: outcome.into(), again: None, acknowledge: None }
    }

    fn say_until(outcome: impl Into<Outcome>, again: Duration) -> Self {
        Self::Done { outcome: outcome.into(), again: Some(again), acknowledge: None }
    }
}

async fn pass(binding: &EnnoteSecretBinding, context: &Context) -> Pass {
    let request = match Request::parse(binding, &context.secret_prefix) {
        Ok(request) => request,
        Err(problem) => {
            context.inbox.unwant(uid(binding));
            return Pass::say(problem);
        }
    };
    if !context.lists.has(&request.namespace, List::Secrets) || !context.settled(&request.namespace) {
        return Pass::Hold(UNLISTED);
    }
    let memo = context.memos.of(&request);
    let observed = context.index.observe(&request.namespace, request.target.as_str());
    if let Some(Memo { fact: Fact::Gone(version, problem), .. }) = &memo
        && let Some(problem) = tombstone(binding, &request, &observed, *version, problem, context).await
        && !context.inbox.arrived_for(&request.uid)
    {
        // The want stands for what comes after the deletion, also if its acknowledgement was lost with a status write.
        context.want(&wanted(&request), *version, true);
        return Pass::say(problem);
    }
    if let Err(problem) = ownership::check(&request, &observed) {
        // A payload could not be used: none is asked for until the target is free.
        context.inbox.unwant(&request.uid);
        context.memos.forget(&request.uid);
        return Pass::say(problem);
    }
    let wanted = wanted(&request);
    match context.inbox.take(&request.uid) {
        Some(arrival) => {
            let taken = take_in(binding, &request, arrival, context).await;
            settle(binding, &request, wanted, taken, memo.map_or(0, |m| m.failures), context)
        }
        None => ask(binding, &request, &wanted, &observed, memo, context),
    }
}

fn wanted(request: &Request) -> Wanted {
    Wanted {
        namespace: request.namespace.clone(),
        binding: request.binding.clone(),
        binding_uid: request.uid.clone(),
        workspace: request.source.workspace.clone(),
        secret: request.source.secret.clone(),
        pin: request.source.pin,
    }
}

/// What a delivery means for the next pass.
fn settle(
    binding: &EnnoteSecretBinding,
    request: &Request,
    wanted: Wanted,
    taken: Taken,
    failures: u32,
    context: &Context,
) -> Pass {
    let remember = |fact, failures| context.remember(request, fact, failures);
    match taken {
        Taken::Held(held) => {
            context.memos.forget(&request.uid);
            // What the Secret holds: below the mark where it is pinned.
            let version = held.target.version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
            Pass::Done { outcome: Outcome::Synced(held), again: None, acknowledge: Some((wanted, version)) }
        }
        Taken::Seen(version, problem) => {
            remember(Fact::Seen(version, problem.clone()), 0);
            Pass::Done { outcome: problem.into(), again: None, acknowledge: Some((wanted, version)) }
        }
        Taken::Gone(version, problem) => {
            remember(Fact::Gone(version, problem.clone()), 0);
            let again = context.cleanup_orphans.then_some(Duration::ZERO);
            // What status says of this deletion already is more than we know after a restart: that it is held, for one.
            let told = deletions::told(binding, &deletions::notice(&request.source.secret, version)).is_some();
            let outcome = if told && again.is_some() { Outcome::Unchanged } else { problem.into() };
            Pass::Done { outcome, again, acknowledge: Some((wanted, version)) }
        }
        Taken::Duplicate(known) => {
            tracing::debug!(namespace = request.namespace, binding = request.binding, "a version was sent again");
            Pass::Done { outcome: Outcome::Unchanged, again: None, acknowledge: Some((wanted, known)) }
        }
        Taken::Standing(problem) => {
            let again = deny_pause(failures, spread());
            // Unsigned: what is synced turns by a denial once in a while, whatever the network makes up.
            if !context.memos.may_turn(&request.uid, TURNS_APART) && is_ready(binding) {
                remember(Fact::Doubted(Instant::now() + TURNS_APART), failures);
                return Pass::say_until(Outcome::Unchanged, TURNS_APART);
            }
            remember(Fact::Standing(Instant::now() + again, problem.clone()), failures.saturating_add(1));
            // Asked for in any case from now on: once granted again, the cloud would have nothing above what the target holds
            // to send, and the denial would never be seen lifted.
            Pass::Done { outcome: problem.into(), again: Some(again), acknowledge: Some((wanted, 0)) }
        }
        Taken::Again(problem) => {
            let pause = back_off(failures);
            // Until it is asked for again, it must not count against what the cloud has under way for others.
            context.inbox.unwant(&request.uid);
            remember(Fact::Retry(Instant::now() + pause, problem.clone()), failures.saturating_add(1));
            Pass::say_until(trouble(binding, problem), pause)
        }
    }
}

/// A delivery that has to wait does not make what is synced less so; anything else does.
fn trouble(binding: &EnnoteSecretBinding, problem: Problem) -> Outcome {
    if is_ready(binding) && problem.reason.phase() == Phase::Waiting { Outcome::Unchanged } else { problem.into() }
}

fn is_ready(binding: &EnnoteSecretBinding) -> bool {
    binding.status.as_ref().and_then(|status| find(status, "Ready")).is_some_and(|ready| ready.status == "True")
}

/// 1 s to 5 min, by deliveries in a row that were not taken.
fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(9)).min(Duration::from_secs(300))
}

/// 1 to 5 minutes, by denials in a row, and up to a fifth less.
fn deny_pause(failures: u32, spread: f64) -> Duration {
    let longest = Duration::from_secs(60 << failures.min(3)).min(Duration::from_secs(300));
    longest.mul_f64(1.0 - 0.2 * spread)
}

/// Nothing has arrived: see that the want stands, and say what is waited for.
fn ask(
    binding: &EnnoteSecretBinding,
    request: &Request,
    wanted: &Wanted,
    observed: &Observed,
    memo: Option<Memo>,
    context: &Context,
) -> Pass {
    let status = binding.status.clone().unwrap_or_default();
    let session = context.link.borrow().session.clone();
    let home = session.as_ref().map(|s| (s.identity.organization.as_str(), s.identity.workspace.as_str()));
    // What a person accepts counts from the next word of the cloud on, which therefore has to come in any case.
    let accepts = high_water::accepted(binding).is_ok_and(|accepted| accepted.is_some());
    let known = if accepts { 0 } else { known_version(request, observed, &status, home) };
    let now = Instant::now();
    match memo.as_ref().map(|m| &m.fact) {
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
            Pass::say(standing(&status, context))
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
        _ if known > 0 => {
            // A want that rests here is one whose delivery never reached the status, as when the API server refused it.
            context.want(wanted, known, true);
            Pass::say(standing(&status, context))
        }
        fact => {
            context.want(wanted, 0, true);
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

/// Whether status holds what a delivery said of this spec. An agent that has just started knows less: a deletion that is held
/// for a person, for one, must not be forgotten by a restart.
fn was_told(status: &EnnoteSecretBindingStatus, generation: i64) -> bool {
    let ready = find(status, "Ready").filter(|c| c.observed_generation == Some(generation));
    ready.is_some_and(|c| Reason::ALL.into_iter().any(|r| r.is_of_a_delivery() && r.to_string() == c.reason))
}

/// The Secret holds what it should. Whether more would come is a matter of the link.
fn standing(status: &EnnoteSecretBindingStatus, context: &Context) -> Outcome {
    match waiting_for_link(context) {
        Some(problem) if problem.reason.is_of_the_link() => problem.into(),
        Some(_) => Outcome::Unchanged,
        None if find(status, "Ready").is_some_and(|c| c.status != "True") => Outcome::Restored,
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

/// The secret is gone in the cloud. Absence never deletes: only this signed tombstone does, only when the settings ask for
/// it, and only under the fuse.
async fn tombstone(
    binding: &EnnoteSecretBinding,
    request: &Request,
    observed: &Observed,
    version: u64,
    problem: &Problem,
    context: &Context,
) -> Option<Problem> {
    if !context.cleanup_orphans {
        return None;
    }
    let notice = deletions::notice(&request.source.secret, version);
    let say = |text: String| Some(Problem::new(Reason::SourceDeleted, format!("{notice}{text}")));
    let target = &request.target;
    let Observed::Present(secret) = observed else { return say(format!(", and Secret {target} with it")) };
    if ownership::check(request, observed).is_err() {
        return None;
    }
    // The status must say so first: the fuse counts what it says.
    let Some(told) = deletions::told(binding, &notice) else { return Some(problem.clone()) };
    let held = format!(
        "; Secret {target} is kept: more than a few at once, or one an hour ago, are deleted only when a person says so: \
         kubectl annotate --overwrite ennotesecretbinding {} -n {} {}={version}",
        request.binding,
        request.namespace,
        deletions::CONFIRM
    );
    let bindings = context.bindings.state();
    let newest: Vec<_> = bindings.into_iter().map(|b| context.latest.newest(b)).collect();
    // Once held, always held: that others are out of the way by now does not make the deletion more wanted.
    let free = told.message != format!("{notice}{held}")
        && deletions::within_fuse(binding, newest.iter().map(AsRef::as_ref), context.now());
    if !free && !deletions::confirmed(binding, version) {
        return say(held);
    }
    match context.secrets.hand_over(&request.namespace, target.as_str(), secret).await {
        Ok(()) => say(format!("; Secret {target} was handed to the garbage collector")),
        Err(error) => Some(error.problem("patch secrets", &request.namespace)),
    }
}

fn uid(binding: &EnnoteSecretBinding) -> &str {
    binding.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_asked_about_again_after_1_to_5_minutes() {
        let pauses: Vec<u64> = [0, 1, 2, 3, 40].map(|n| deny_pause(n, 0.0).as_secs()).into();
        assert_eq!(pauses, [60, 120, 240, 300, 300]);
        assert_eq!(deny_pause(0, 1.0).as_secs(), 48);
    }

    #[test]
    fn a_delivery_that_is_not_taken_is_asked_for_after_1_s_to_5_min() {
        let pauses: Vec<u64> = [0, 1, 2, 8, 9, 40].map(|n| back_off(n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn a_delivery_that_waits_does_not_turn_a_synced_binding() {
        let binding = |status: &str| -> EnnoteSecretBinding {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
                "metadata": {"name": "db"}, "spec": {"source": {"secret": "s"}},
                "status": {"conditions": [{"type": "Ready", "status": status, "reason": "r", "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap()
        };
        let said = |status: &str, reason| trouble(&binding(status), Problem::new(reason, "m"));
        assert_eq!(said("True", Reason::WaitingForCloud), Outcome::Unchanged);
        assert_eq!(said("Unknown", Reason::WaitingForCloud), Problem::new(Reason::WaitingForCloud, "m").into());
        assert_eq!(said("True", Reason::ClusterError), Problem::new(Reason::ClusterError, "m").into());
    }
}
