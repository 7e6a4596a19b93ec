//! A secret that was deleted in the cloud: whether its Secret goes too.

use crate::controller::context::Context;
use crate::crd::EnnoteSecretBinding;
use crate::domain::observed::Observed;
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;
use crate::domain::{deletions, ownership};

/// The secret is gone in the cloud. Absence never deletes: only this signed tombstone does, only when the settings ask for
/// it, and only under the fuse.
pub(super) async fn tombstone(
    binding: &EnnoteSecretBinding,
    request: &Request,
    observed: &Observed,
    version: u64,
    problem: &Problem,
    context: &Context,
) -> Option<Problem> {
    if !request.shape.goes_with_source {
        return None;
    }
    let notice = deletions::notice(&request.source.secret, version);
    let say = |text: String| Some(Problem::new(Reason::SourceDeleted, format!("{notice}{text}")));
    let target = &request.target;
    let Observed::Present(secret) = observed else { return say(format!(", and Secret {target} with it")) };
    if ownership::check(request, observed, &context.claims(binding, request, observed)).is_err() {
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
