//! `spec.mode: Observe`: the payload is asked for, opened and mapped as ever, and what would be written is said instead.
//!
//! A binding that observes comes by here alone: nothing on this way writes a Secret, hands one over or records a baseline.

use crate::cloud::inbox::Wanted;
use crate::controller::asking::{ask, link_problem};
use crate::controller::context::{Context, Fact, Memo};
use crate::controller::pass::Pass;
use crate::crd::EnnoteSecretBinding;
use crate::domain::content::Fingerprints;
use crate::domain::forecast::Forecast;
use crate::domain::metadata;
use crate::domain::observed::Observed;
use crate::domain::outcome::Outcome;
use crate::domain::reason::Problem;
use crate::domain::request::Request;

/// What of a delivery is kept: enough to compare with whatever the Secret becomes. No plaintext.
pub(super) type Foreseen = Result<Fingerprints, Problem>;

/// One pass without an arrival. `allowed` is whether the Secret might be written.
pub(super) fn pass(
    binding: &EnnoteSecretBinding,
    request: &Request,
    wanted: &Wanted,
    (observed, allowed): (&Observed, Result<(), Problem>),
    memo: Option<Memo>,
    context: &Context,
) -> Pass {
    if let Err(problem) = allowed {
        context.inbox.unwant(&request.uid);
        context.memos.forget(&request.uid);
        return Pass::say(Outcome::Foreseen(Forecast::of_refusal(request.target.as_str(), &problem)));
    }
    match memo.as_ref().map(|memo| &memo.fact) {
        Some(Fact::Foreseen(version, expected)) => {
            context.want(wanted, *version, true);
            match link_problem(context) {
                Some(problem) => Pass::say(problem),
                None => Pass::say(Outcome::Foreseen(forecast(request, observed, expected))),
            }
        }
        _ => ask(binding, request, wanted, observed, None, memo, context),
    }
}

/// What would come of a delivery.
pub(super) fn forecast(request: &Request, observed: &Observed, expected: &Foreseen) -> Forecast {
    let target = request.target.as_str();
    match expected {
        Ok(prints) => {
            let data = Forecast::of_write(target, observed, prints);
            match observed {
                Observed::Present(secret) => data.and_metadata(target, metadata::difference(request, secret).as_ref()),
                Observed::Absent => data,
            }
        }
        Err(problem) => Forecast::of_refusal(target, problem),
    }
}
