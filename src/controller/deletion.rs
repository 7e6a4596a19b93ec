//! A secret that was deleted in the cloud: whether its Secret goes too.

use crate::cluster::error::ClusterError;
use crate::controller::binding::after;
use crate::controller::context::Context;
use crate::controller::looking;
use crate::controller::pass::Pass;
use crate::crd::EnnoteSecretBinding;
use crate::domain::deletions::{self, NOBODY};
use crate::domain::metadata::is_ours;
use crate::domain::observed::{Existing, Observed};
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::{RECREATE, Request};

/// How often what moved meanwhile is looked at again.
const ATTEMPTS: usize = 4;

/// The secret is gone in the cloud. Absence never deletes: only this signed tombstone does, only when the settings ask for
/// it, only under the fuse, and only the Secret that this binding wrote. `allowed` is whether the target is ours to write.
pub(super) async fn tombstone(
    binding: &EnnoteSecretBinding,
    request: &Request,
    (observed, allowed): (&Observed, bool),
    (version, problem): (u64, &Problem),
    context: &Context,
) -> Option<Pass> {
    if !request.shape.goes_with_source {
        return None;
    }
    let notice = deletions::notice(&request.source.secret, version);
    let say = |text: String| Some(Pass::say(Problem::new(Reason::SourceDeleted, format!("{notice}{text}"))));
    let target = &request.target;
    let Observed::Present(secret) = observed else { return say(format!(", and Secret {target} with it")) };
    if !allowed || !deletions::may_go(binding, request, secret) {
        return None;
    }
    // The status must say so first: the fuse counts what it says.
    let Some(told) = deletions::told(binding, &notice) else { return Some(Pass::say(problem.clone())) };
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
    match context.secrets.hand_over(&request.namespace, target.as_str(), secret, NOBODY.0).await {
        Ok(leaving) => {
            context.index.seen(&request.namespace, target.as_str(), leaving);
            say(format!("; Secret {target} was handed to the garbage collector"))
        }
        Err(error) => Some(not_patched(&error, request, context)),
    }
}

/// What has moved meanwhile is looked at again, and nobody is told: it is no fault.
pub(super) fn not_patched(error: &ClusterError, request: &Request, context: &Context) -> Pass {
    if error.is_stale()
        && let Some(looks) = &context.looks
    {
        // No event tells what it is now.
        looks.forget(&request.uid);
    }
    told(error, request)
}

fn told(error: &ClusterError, request: &Request) -> Pass {
    if error.is_stale() {
        return Pass::Hold(after(error));
    }
    Pass::say_until(error.problem("patch secrets", &request.namespace), after(error))
}

/// The Secret is made anew because a person allows exactly this one, by its uid, to be deleted: its type or its data cannot
/// change. Nothing is done for a Secret that is not this binding's.
pub(super) async fn make_anew(request: &Request, secret: &Existing, context: &Context) -> Option<Pass> {
    let allowed = request.asks.get(RECREATE).is_some_and(|uid| uid.trim() == secret.uid);
    if !allowed || !is_ours(request, secret) {
        return None;
    }
    let target = &request.target;
    Some(match context.secrets.hand_over(&request.namespace, target.as_str(), secret, "recreated-by-ennote").await {
        Ok(leaving) => {
            context.index.seen(&request.namespace, target.as_str(), leaving);
            Pass::say(Problem::new(
                Reason::AwaitingCollection,
                format!("Secret {target} is being made anew, as {RECREATE} asks; waiting until the old one is gone"),
            ))
        }
        Err(error) => not_patched(&error, request, context),
    })
}

/// The Secret that the binding wrote before its target was renamed goes once the new one is there. Before status forgets its
/// name, so that a crash in between repeats it. One that is to be left behind has no owner and stays.
pub(super) async fn clean_up(
    binding: &EnnoteSecretBinding,
    request: &Request,
    context: &Context,
) -> Result<(), Problem> {
    let earlier = binding.status.as_ref().and_then(|status| status.target.as_ref());
    let Some(earlier) = earlier.filter(|earlier| earlier.name != request.target.as_str()) else { return Ok(()) };
    let (namespace, name) = (&request.namespace, &earlier.name);
    let look = looking::observe_earlier(namespace, name, context).await;
    let mut observed = look.map_err(|error| error.problem("patch secrets", namespace))?;
    for _ in 0..ATTEMPTS {
        let Observed::Present(secret) = observed else { return Ok(()) };
        let owned = secret.owners.iter().any(|owner| owner.uid == request.uid);
        if secret.uid != earlier.uid || !owned || !is_ours(request, &secret) {
            return Ok(());
        }
        match context.secrets.hand_over(namespace, name, &secret, "renamed-by-ennote").await {
            Ok(_) => {
                tracing::info!(namespace, binding = request.binding, from = name, to = %request.target, "renamed");
                return Ok(());
            }
            Err(error) if error.is_stale() => {
                let now = looking::fetch(namespace, name, context).await;
                observed = now.map_err(|error| error.problem("get secrets", namespace))?;
            }
            Err(error) => return Err(error.problem("patch secrets", namespace)),
        }
    }
    Err(Problem::new(
        Reason::ClusterError,
        format!("Secret {name}, which the target was called before, keeps changing under the agent; it tries again"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ownership::tests::request;

    #[test]
    fn a_conflict_is_no_fault_that_is_told() {
        let refused = |code| ClusterError::Refused { code, reason: String::new(), causes: vec![], sentence: None };
        for code in [404, 409] {
            assert!(matches!(told(&refused(code), &request()), Pass::Hold(_)), "{code}");
        }
        let Pass::Done { outcome, again, .. } = told(&refused(403), &request()) else { panic!("not told") };
        assert!(
            matches!(outcome, crate::domain::outcome::Outcome::Problem(problem) if problem.reason == Reason::Forbidden)
        );
        assert!(again.is_some(), "it is tried again");
    }
}
