//! The binding controller: parse, observe, open, plan, apply, report. A failure is an outcome too, so status is written on
//! every path.

use crate::cloud::inbox::Wanted;
use crate::cluster::error::ClusterError;
use crate::controller::asking::{ask, holds};
use crate::controller::binding_status;
use crate::controller::claiming::{Stand, stand};
use crate::controller::context::{Context, Fact, Memo};
use crate::controller::deletion::{clean_up, make_anew, not_patched, tombstone};
use crate::controller::delivery::{Taken, take_in};
use crate::controller::lists::List;
use crate::controller::looking;
use crate::controller::observing;
use crate::controller::pass::{Pass, deny_pause, is_ready, trouble};
use crate::controller::proving::{self, Standing};
use crate::controller::self_check::{explained, unlisted};
use crate::controller::{reporting, reverting, rollout_asks};
use crate::crd::{EnnoteSecretBinding, Hold, Mode};
use crate::domain::conditions::is_synced;
use crate::domain::deletions;
use crate::domain::drift;
use crate::domain::metadata;
use crate::domain::moment::back_off;
use crate::domain::observed::{Existing, Observed};
use crate::domain::outcome::Outcome;
use crate::domain::ownership;
use crate::domain::reason::Reason;
use crate::domain::request::Request;
use crate::entropy::spread;
use kube::runtime::controller::Action;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Every binding is looked at again after about this long.
const REVISIT: Duration = Duration::from_secs(300);
/// A denial turns a binding that is synced no more often than this: it is unsigned.
const TURNS_APART: Duration = Duration::from_secs(30);
/// A version that is to be held and is said to be gone is asked for again after this long.
const ONCE_MORE: Duration = Duration::from_secs(5);
/// While the lists of a namespace are not complete.
const UNLISTED: Duration = Duration::from_millis(250);

/// One pass over a binding.
///
/// # Errors
/// Only if the status could not be written; the pass is then repeated.
pub async fn reconcile(binding: Arc<EnnoteSecretBinding>, context: Arc<Context>) -> Result<Action, ClusterError> {
    let binding = context.latest.newest(binding);
    let _runs = context.pulse.pass(uid(&binding));
    if binding.metadata.deletion_timestamp.is_some() {
        context.inbox.unwant(uid(&binding));
        return Ok(Action::await_change());
    }
    let binding = match stand(binding, &context).await? {
        Stand::Ours(binding) => binding,
        Stand::Theirs(again) => return Ok(Action::requeue(again)),
    };
    context.pulse.step(uid(&binding));
    let (outcome, again, acknowledge) = match pass(&binding, &context).await {
        Pass::Hold(pause) => return Ok(Action::requeue(pause)),
        Pass::Done { outcome, again, acknowledge } => (outcome, again, acknowledge),
    };
    let outcome = explained(outcome, binding.metadata.namespace.as_deref().unwrap_or_default(), &context).await;
    context.pulse.step(uid(&binding));
    // What was known already answers no ask: the word that was asked for is still to come.
    let handled = acknowledge.is_some() && !(outcome == Outcome::Unchanged && again.is_none());
    binding_status::write(&binding, &outcome, handled, &context).await?;
    reporting::binding(&binding, &outcome, acknowledge.as_ref().map(|(_, version)| *version), &context);
    // Only now: the API server has taken it.
    if let Some((wanted, version)) = acknowledge {
        context.want(&wanted, version, true);
    }
    Ok(Action::requeue(again.unwrap_or_else(|| REVISIT.mul_f64(0.8 + 0.4 * spread()))))
}

/// After a status write that failed.
pub fn on_error(binding: Arc<EnnoteSecretBinding>, error: &ClusterError, context: Arc<Context>) -> Action {
    // No condition can tell it, but the log can.
    if error.code() == Some(403) {
        context.self_check.suspect(binding.metadata.namespace.as_deref().unwrap_or_default());
    }
    Action::requeue(after(error))
}

/// 404 and 409: gone, or moved, and the watch wakes us with what it is now. Anything else is the API server's trouble, which
/// all bindings together should not add to.
pub(super) fn after(error: &ClusterError) -> Duration {
    let longest = Duration::from_secs(if error.is_stale() { 2 } else { 30 });
    longest.mul_f64(0.1 + 0.9 * spread())
}

async fn pass(binding: &EnnoteSecretBinding, context: &Context) -> Pass {
    if binding.spec.suspend == Some(true) {
        // Its content does not move, so nothing is restarted for it; a restart that is due already goes its way.
        context.inbox.unwant(uid(binding));
        return Pass::say(Outcome::Suspended);
    }
    let request = match Request::parse(binding, &context.defaults) {
        Ok(request) => request,
        Err(problem) => {
            context.inbox.unwant(uid(binding));
            return Pass::say(problem);
        }
    };
    rollout_asks::take_up(binding, &request, context);
    // A binding that is not known yet would pass for gone.
    let listed = [List::Bindings, List::Secrets].into_iter().all(|list| context.lists.has(&request.namespace, list));
    if !listed || !context.settled(&request.namespace) {
        return unlisted(&request, context).unwrap_or(Pass::Hold(UNLISTED));
    }
    if let Some(pass) = unproved(binding, &request, context).await {
        return pass;
    }
    let observed = match looking::observe(&request, context).await {
        Ok(observed) => observed,
        Err(error) => return not_patched(&error, &request, context),
    };
    let pass = decide(binding, &request, observed, context).await;
    looking::awaits(&request, &pass, context);
    // What cannot be watched is looked at again in time.
    pass.within(context.looks.as_ref().map(|looks| looks.left(&request)))
}

/// Nothing is written where the API server would not hold the agent to what it may do, and no payload is asked for.
async fn unproved(binding: &EnnoteSecretBinding, request: &Request, context: &Context) -> Option<Pass> {
    if request.mode == Mode::Observe {
        return None;
    }
    match proving::secrets(request, context).await {
        Standing::Holds => None,
        Standing::NotYet(pause) => Some(Pass::Hold(pause)),
        Standing::Missing(problem) => {
            context.inbox.unwant(&request.uid);
            context.memos.forget(&request.uid);
            Some(Pass::say_until(problem, proving::AGAIN))
        }
        Standing::Unknown(error) => {
            let problem = proving::unanswered(&error, &request.namespace);
            Some(Pass::say_until(trouble(binding, problem), after(&error)))
        }
    }
}

async fn decide(binding: &EnnoteSecretBinding, request: &Request, observed: Observed, context: &Context) -> Pass {
    let memo = context.memos.of(request);
    let allowed = ownership::check(request, &observed, &context.rights(binding, request, &observed));
    if request.mode == Mode::Observe && (allowed.is_err() || !context.inbox.arrived_for(&request.uid)) {
        let wanted = wanted(request);
        return observing::pass(binding, request, &wanted, (&observed, allowed), memo, context);
    }
    if let Some(Memo { fact: Fact::Gone(version, problem), .. }) = &memo
        && request.mode == Mode::Sync
        && let Some(pass) =
            tombstone(binding, request, (&observed, allowed.is_ok()), (*version, problem), context).await
        && !context.inbox.arrived_for(&request.uid)
    {
        // The want stands for what comes after the deletion, also if its acknowledgement was lost with a status write.
        context.want(&wanted(request), *version, true);
        return pass;
    }
    if let Err(problem) = allowed {
        // A payload could not be used: none is asked for until the target is free.
        context.inbox.unwant(&request.uid);
        context.memos.forget(&request.uid);
        return Pass::say(problem);
    }
    let (mut memo, mut kept) = (memo, None);
    match &observed {
        Observed::Present(secret) if request.mode == Mode::Sync => {
            match keep(binding, request, secret, context).await {
                Kept::Done(pass) => return pass,
                Kept::For(time) => kept = time,
            }
        }
        // What could not be changed is gone.
        Observed::Absent if memo.as_ref().is_some_and(needs_anew) => {
            context.memos.forget(&request.uid);
            memo = None;
        }
        _ => {}
    }
    let hold = reverting::hold(binding, request, context);
    let wanted = match &hold {
        Some(hold) => held_back(request, hold, &observed, binding, context),
        None => wanted(request),
    };
    match context.inbox.take(&request.uid) {
        Some(arrival) => {
            let missing = arrival.pin.is_some() && hold.is_some();
            let mut taken = take_in(binding, request, arrival, context).await;
            if missing && matches!(&taken, Taken::Standing(denied) if denied.reason == Reason::Rollback) {
                // Unsigned, so it is asked once more before it is believed.
                let failures = memo.as_ref().map_or(0, |memo| memo.failures);
                if failures > 0 {
                    return reverting::give_up(binding, context);
                }
                context.inbox.unwant(&request.uid);
                context.remember(request, Fact::Doubted(Instant::now() + ONCE_MORE), failures + 1);
                return Pass::say_until(Outcome::Unchanged, ONCE_MORE);
            }
            if let Taken::Held(_) = taken
                && let Err(problem) = clean_up(binding, request, context).await
            {
                taken = Taken::Again(problem);
            }
            settle(binding, request, wanted, taken, memo.map_or(0, |m| m.failures), context)
        }
        None => ask(binding, request, &wanted, &observed, hold.map(|hold| hold.failed), memo, context).within(kept),
    }
}

/// What came of the look at a Secret that is ours.
enum Kept {
    /// That is all for now.
    Done(Pass),
    /// Go on, and look at it again within this time, if at any.
    For(Option<Duration>),
}

/// What a Secret that is ours needs besides its data, if anything.
async fn keep(binding: &EnnoteSecretBinding, request: &Request, secret: &Existing, context: &Context) -> Kept {
    if let Some(pass) = make_anew(request, secret, context).await {
        return Kept::Done(pass);
    }
    let differs = metadata::difference(request, secret);
    let due = context.memos.until_repair(&request.uid);
    if !due.is_zero() {
        let waits = !drift::intact(secret) && is_synced_of(binding) && !context.inbox.arrived_for(&request.uid);
        if waits {
            return Kept::Done(Pass::say_until(Outcome::Unchanged, due));
        }
        return Kept::For(differs.map(|_| due));
    }
    let Some(metadata) = differs else { return Kept::For(None) };
    let (namespace, target) = (&request.namespace, request.target.as_str());
    match context.secrets.amend(namespace, target, secret, &metadata).await {
        Ok(now) => {
            context.memos.repaired(&request.uid);
            let done = metadata::difference(request, &now).is_none();
            context.index.seen(namespace, target, now);
            // Where somebody takes it away in the same moment, as an admission webhook can, the rest must not wait for it.
            if done {
                Kept::Done(Pass::Hold(Duration::ZERO))
            } else {
                Kept::For(Some(context.memos.until_repair(&request.uid)))
            }
        }
        Err(error) => Kept::Done(not_patched(&error, request, context)),
    }
}

/// Whether this very spec is synced: what differs then is somebody else's doing.
fn is_synced_of(binding: &EnnoteSecretBinding) -> bool {
    let generation = binding.metadata.generation.unwrap_or_default();
    binding.status.as_ref().is_some_and(|status| is_synced(status, generation))
}

fn needs_anew(memo: &Memo) -> bool {
    matches!(&memo.fact, Fact::Seen(_, problem) if problem.reason == Reason::RecreateNeeded)
}

/// While a version is held in place of a newer one: exactly that one, until the Secret holds it; then whatever is newer than the
/// one that failed.
fn held_back(
    request: &Request,
    hold: &Hold,
    observed: &Observed,
    binding: &EnnoteSecretBinding,
    context: &Context,
) -> Wanted {
    let version = u64::try_from(hold.version).unwrap_or(0);
    let there = holds(request, observed, binding, context) == version;
    let renews = binding.status.as_ref().is_some_and(|status| request.renews(status));
    Wanted { pin: (!there || renews).then_some(version), ..wanted(request) }
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
            // A version that is held back was asked for by its number; what is newer has to be asked for from now on.
            let again = (wanted.pin != request.source.pin).then_some(Duration::ZERO);
            Pass::Done { outcome: Outcome::Synced(held), again, acknowledge: Some((wanted, version)) }
        }
        Taken::Foreseen(version, expected) => {
            let observed = context.index.observe(&request.namespace, request.target.as_str());
            let forecast = observing::forecast(request, &observed, &expected);
            remember(Fact::Foreseen(version, expected), 0);
            Pass::Done { outcome: Outcome::Foreseen(forecast), again: None, acknowledge: Some((wanted, version)) }
        }
        Taken::Seen(version, problem) => {
            remember(Fact::Seen(version, problem.clone()), 0);
            Pass::Done { outcome: problem.into(), again: None, acknowledge: Some((wanted, version)) }
        }
        Taken::Gone(version, problem) => {
            remember(Fact::Gone(version, problem.clone()), 0);
            let again = request.shape.goes_with_source.then_some(Duration::ZERO);
            // What status says of this deletion already is more than we know after a restart: that it is held, for one.
            let told = deletions::told(binding, &deletions::notice(&request.source.secret, version)).is_some();
            let outcome = if told && again.is_some() { Outcome::Unchanged } else { problem.into() };
            Pass::Done { outcome, again, acknowledge: Some((wanted, version)) }
        }
        Taken::Duplicate(known) => {
            tracing::debug!(namespace = request.namespace, binding = request.binding, "a version was sent again");
            // It was on its way before the spec was edited: what the Secret holds is known, and not what it should hold.
            let answered =
                is_synced_of(binding) || context.memos.of(request).is_some_and(|memo| memo.fact.is_of_a_version());
            let known = if answered { known } else { 0 };
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

fn uid(binding: &EnnoteSecretBinding) -> &str {
    binding.metadata.uid.as_deref().unwrap_or_default()
}
