//! One delivery: open, map, plan, apply. Plaintext begins in `take_in` and ends when the request body has been sent.

use crate::clock;
use crate::cloud::inbox::{Arrival, Denial, Word};
use crate::cluster::error::{Chain, ClusterError};
use crate::cluster::status::Notice;
use crate::controller::context::Context;
use crate::controller::looking;
use crate::controller::observing::Foreseen;
use crate::controller::{report, rivals, workload};
use crate::crd::{EnnoteSecretBinding, EnnoteSecretBindingStatus, Mode, SourceStatus, TargetStatus};
use crate::crypto::envelope::{Expected, Opened};
use crate::domain::conditions::is_synced;
use crate::domain::content::{Content, Fingerprints, StampKey};
use crate::domain::deletions::notice;
use crate::domain::drift;
use crate::domain::high_water::{self, ACCEPT, Asked, Verdict, admit};
use crate::domain::mapping::MappingError;
use crate::domain::observed::Observed;
use crate::domain::outcome::Held;
use crate::domain::ownership;
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;
use crate::domain::secret_value::SecretData;
use crate::domain::sync_plan::{Step, plan};
use crate::domain::target;
use crate::hardening::scrubbed;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

/// How often a write observes again when the cluster has moved.
const ATTEMPTS: usize = 4;

/// What came of a delivery.
pub(super) enum Taken {
    /// The Secret holds it.
    Held(Box<Held>),
    /// This version was seen and gives no Secret, by no fault that time heals.
    Seen(u64, Problem),
    /// The secret was deleted at this version.
    Gone(u64, Problem),
    /// This version was opened and mapped for a binding that only observes.
    Foreseen(u64, Foreseen),
    /// The cloud has nothing to give; the want stands.
    Standing(Problem),
    /// What the target is known to hold was sent again.
    Duplicate(u64),
    /// Not taken: ask again after a pause.
    Again(Problem),
}

struct Payload {
    source: SourceStatus,
    committed_at_ms: i64,
    key: StampKey,
    data: Result<SecretData, MappingError>,
}

impl Payload {
    /// What is kept of it where nothing is written.
    fn expected(self) -> Taken {
        let bad = |error: MappingError| Problem::new(error.reason(), error.to_string());
        let expected = self.data.map(|data| Fingerprints::of(&self.key, &data)).map_err(bad);
        Taken::Foreseen(number(self.source.version), expected)
    }
}

/// Takes a delivery in. One that is refused is logged and counted; its payload is in no log.
pub(super) async fn take_in(
    binding: &EnnoteSecretBinding,
    request: &Request,
    arrival: Arrival,
    context: &Context,
) -> Taken {
    let want = arrival.want_id;
    let taken = judge(binding, request, arrival, context).await;
    if let Taken::Again(problem) | Taken::Seen(_, problem) = &taken
        && problem.reason.refuses_a_delivery()
    {
        let (namespace, binding, refused) = (&request.namespace, &request.binding, context.inbox.refused());
        tracing::warn!(reason = %problem.reason, namespace, binding, want, refused, "a delivery was refused");
    }
    taken
}

async fn judge(binding: &EnnoteSecretBinding, request: &Request, arrival: Arrival, context: &Context) -> Taken {
    let (wanted_at_ms, asked) = (arrival.wanted_at_ms, Asked { pin: arrival.pin, known: arrival.known });
    let (accepted, nonsense) = match high_water::accepted(binding) {
        Ok(accepted) => (accepted, None),
        Err(sentence) => (None, Some(sentence)),
    };
    let status = binding.status.clone().unwrap_or_default();
    // Opening and mapping leave plaintext on the stack whatever the allocator does.
    let word = scrubbed(|| arrival.open().map(|word| word.map(request)));
    match word {
        Err(refusal) => Taken::Again(refused(refusal.0)),
        Ok(Said::Denied(denied)) => Taken::Standing(denial(&denied, request, &status)),
        // A deletion erased what a pin holds, so it speaks to pinned bindings too, and its version is not theirs.
        Ok(Said::Gone(source)) => {
            match admit(&source, Asked { pin: None, ..asked }, request, &status, accepted.as_ref()) {
                Ok(Verdict::Take(_)) => Taken::Gone(number(source.version), deleted(request, &source)),
                Ok(Verdict::Duplicate) => Taken::Duplicate(asked.known),
                Err(problem) => refused_version(problem, &source, nonsense),
            }
        }
        Ok(Said::Payload(payload)) => match admit(&payload.source, asked, request, &status, accepted.as_ref()) {
            // The mark stays as it is: it goes with what was written.
            Ok(Verdict::Take(_)) if request.mode == Mode::Observe => payload.expected(),
            Ok(Verdict::Take(mark)) => {
                let accepted =
                    accepted.filter(|accepted| accepted.frees(&payload.source)).map(|accepted| accepted.text);
                let delivery = Delivery { mark, accepted, wanted_at_ms };
                write(binding, request, *payload, delivery, &status, context).await
            }
            Ok(Verdict::Duplicate) => Taken::Duplicate(asked.known),
            Err(problem) => refused_version(problem, &payload.source, nonsense),
        },
    }
}

/// What a delivery brings besides its payload.
struct Delivery {
    mark: SourceStatus,
    accepted: Option<String>,
    wanted_at_ms: Option<i64>,
}

/// Of another organization nothing more is asked for, until a person says so.
fn refused_version(mut problem: Problem, source: &SourceStatus, nonsense: Option<String>) -> Taken {
    if let Some(sentence) = nonsense {
        problem = Problem::new(problem.reason, format!("{}. {sentence}", problem.message));
    }
    match problem.reason {
        Reason::IdentityChanged => Taken::Seen(number(source.version), problem),
        _ => Taken::Again(problem),
    }
}

enum Said {
    Payload(Box<Payload>),
    Gone(SourceStatus),
    Denied(Denial),
}

impl Word {
    fn map(self, request: &Request) -> Said {
        match self {
            Self::Denied(denial) => Said::Denied(denial),
            Self::Gone(facts, expected) => Said::Gone(source(&expected, facts.version)),
            Self::Payload(opened, expected) => {
                let Opened { facts, stamp_key, payload } = opened;
                Said::Payload(Box::new(Payload {
                    source: source(&expected, facts.version),
                    committed_at_ms: facts.committed_at_ms,
                    data: target::data(payload.expose(), request, &stamp_key),
                    key: stamp_key,
                }))
            }
        }
    }
}

fn source(expected: &Expected, version: u64) -> SourceStatus {
    SourceStatus {
        organization: expected.organization.clone(),
        workspace: expected.workspace.clone(),
        secret: expected.secret.clone(),
        version: i64::try_from(version).unwrap_or(i64::MAX),
    }
}

fn number(version: i64) -> u64 {
    u64::try_from(version).unwrap_or(0)
}

async fn write(
    binding: &EnnoteSecretBinding,
    request: &Request,
    payload: Payload,
    delivery: Delivery,
    status: &EnnoteSecretBindingStatus,
    context: &Context,
) -> Taken {
    let version = number(payload.source.version);
    let mut data = match payload.data {
        Ok(data) => data,
        Err(error) => return Taken::Seen(version, Problem::new(error.reason(), error.to_string())),
    };
    if !context.link.borrow().heard_lately(clock::now()) {
        return Taken::Again(Problem::new(
            Reason::WaitingForCloud,
            "the cloud has been silent for a minute; nothing is written until it speaks",
        ));
    }
    let namespace = &request.namespace;
    let edited = status.target.is_some() && !is_synced(status, request.generation);
    let mut observed = context.index.observe(namespace, request.target.as_str());
    let mut owned_before = None;
    for _ in 0..ATTEMPTS {
        context.pulse.step(&request.uid);
        if let Err(problem) = ownership::check(request, &observed, &context.rights(binding, request, &observed)) {
            return Taken::Again(problem);
        }
        let keys = data.len();
        let mut planned = plan(request, &observed, data, &payload.key, edited);
        let moves = status.content.as_deref() != Some(planned.prints.content().as_str());
        let next = (&payload.source, &planned.prints, &observed);
        if moves && let Err(error) = settle(binding, request, status, next, context).await {
            return Taken::Again(error.problem("patch ennotesecretbindings/status", namespace));
        }
        let created = matches!(planned.step, Step::Create(_));
        if !context.lives(namespace, &request.binding, &request.uid) {
            return Taken::Again(Problem::new(
                Reason::AwaitingCollection,
                "the binding is gone; nothing is written for it",
            ));
        }
        context.faults.strike(&request.binding, planned.step.data()).await;
        let repair = (!edited && !moves).then(|| drifted(request, &observed, &planned.step)).flatten();
        match rivals::own_first(request, &mut observed, &mut planned.step, context).await {
            Ok(before) => owned_before = owned_before.or(before),
            Err(error) => return refused_call(&error, "patch secrets", request),
        }
        match context.secrets.apply(&planned.step).await {
            Ok(existing) => {
                if let Some((reason, note)) = repair {
                    context.memos.repaired(&request.uid);
                    tell(binding, request, &observed, (reason, &note), context).await;
                }
                context.index.seen(namespace, request.target.as_str(), existing.clone());
                let latency = latency(payload.committed_at_ms, delivery.wanted_at_ms, context);
                return Taken::Held(Box::new(Held {
                    content: planned.prints.content(),
                    target: TargetStatus {
                        name: request.target.to_string(),
                        uid: existing.uid,
                        resource_version: existing.resource_version,
                        keys: i32::try_from(keys).unwrap_or(i32::MAX),
                        version: Some(payload.source.version),
                        other_keys: vec![],
                    },
                    source: delivery.mark,
                    accepted: delivery.accepted,
                    written_at: moves.then(|| context.now()),
                    latency_millis: latency.filter(|_| moves),
                }));
            }
            Err(error) if error.is_stale() => {
                match (looking::fetch(namespace, request.target.as_str(), context).await, planned.step) {
                    (Ok(now), Step::Create(draft) | Step::Patch { draft, .. }) => {
                        (observed, data) = (now, draft.data);
                    }
                    (Err(error), _) => return refused_call(&error, "get secrets", request),
                    (Ok(_), Step::Nothing(_)) => break,
                }
            }
            Err(error) => {
                rivals::give_back(request, &observed, owned_before, context).await;
                if let Observed::Present(secret) = &observed
                    && error.is_of_what_cannot_change()
                {
                    return Taken::Seen(version, ownership::cannot_become(request, secret));
                }
                return refused_call(&error, if created { "create secrets" } else { "patch secrets" }, request);
            }
        }
    }
    Taken::Again(Problem::new(
        Reason::ClusterError,
        format!("Secret {} keeps changing under the agent; it tries again", request.target),
    ))
}

/// What somebody else did, where the write only undoes that: reason and note of an Event.
fn drifted(request: &Request, observed: &Observed, step: &Step) -> Option<(&'static str, String)> {
    let target = &request.target;
    match (observed, step) {
        (Observed::Absent, Step::Create(_)) => {
            Some(("SecretRestored", format!("Secret {target} was deleted by somebody; it is there again")))
        }
        (Observed::Present(secret), Step::Patch { .. }) => {
            drift::told(secret).map(|told| ("DriftRepaired", format!("Secret {target}: {told}; it is put back")))
        }
        _ => None,
    }
}

async fn tell(
    binding: &EnnoteSecretBinding,
    request: &Request,
    found: &Observed,
    (reason, note): (&str, &str),
    context: &Context,
) {
    let (namespace, name) = (&request.namespace, &request.binding);
    tracing::info!(namespace, binding = name, reason, note, "somebody else changed the Secret");
    // The Secret as it was found: each repair is an Event of its own, with its own note.
    let found = match found {
        Observed::Present(secret) => Some((secret.uid.clone(), secret.resource_version.clone())),
        Observed::Absent => None,
    };
    let (uid, resource_version) = found.unzip();
    let related = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        namespace: Some(namespace.clone()),
        name: Some(request.target.to_string()),
        uid,
        resource_version,
        ..ObjectReference::default()
    };
    let about = binding.object_ref(&());
    let notice = Notice { about, related: Some(related), warning: false, reason, action: "Repair", note };
    context.status.event(notice).await;
}

fn refused_call(error: &ClusterError, what: &str, request: &Request) -> Taken {
    tracing::warn!(namespace = request.namespace, secret = %request.target, error = %Chain(error), "could not {what}");
    Taken::Again(error.problem(what, &request.namespace))
}

/// Baselines come before the Secret: a workload without one would otherwise not be known to run the old content.
async fn settle(
    binding: &EnnoteSecretBinding,
    request: &Request,
    status: &EnnoteSecretBindingStatus,
    (source, prints, observed): (&SourceStatus, &Fingerprints, &Observed),
    context: &Context,
) -> Result<(), ClusterError> {
    let Some(content) = status.content.as_deref().map(Content::from_text) else { return Ok(()) };
    let there = match observed {
        Observed::Present(secret) => secret.fingerprints.as_ref(),
        Observed::Absent => None,
    };
    let changed = there.filter(|held| held.content() == content).map(|held| held.differing(prints));
    let of = |source: &SourceStatus| (source.organization.clone(), source.workspace.clone(), source.secret.clone());
    let next = workload::Next {
        version: source.version,
        content: prints.content(),
        changed: changed.as_ref(),
        repeated: there.is_some_and(|held| held == prints),
        of_another: status.source.as_ref().is_some_and(|held| of(held) != of(source)),
    };
    let held = (status.held_version().unwrap_or(0), &content);
    if workload::before_a_move(binding, request, held, &next, context) {
        report::write(context, &request.namespace, &request.binding).await?;
    }
    Ok(())
}

/// From commit to now, in the cloud's time; only of a version that was committed while its want stood.
fn latency(committed_at_ms: i64, wanted_at_ms: Option<i64>, context: &Context) -> Option<i64> {
    let now = context.link.borrow().server_now_ms(clock::now())?;
    (wanted_at_ms? <= committed_at_ms).then(|| (now - committed_at_ms).max(0))
}

fn refused(reason: Reason) -> Problem {
    Problem::new(
        reason,
        "a delivery was refused: it is not what the cloud's core signs for this binding; the Secret is kept as it is. \
         If it stays so, something between the agent and Ennote alters deliveries: tell who runs the network",
    )
}

fn deleted(request: &Request, source: &SourceStatus) -> Problem {
    Problem::new(
        Reason::SourceDeleted,
        format!(
            "{}; Secret {} is kept. Create the secret again, or: kubectl delete ennotesecretbinding {} -n {}",
            notice(&source.secret, source.version),
            request.target,
            request.binding,
            request.namespace
        ),
    )
}

fn denial(denial: &Denial, request: &Request, status: &EnnoteSecretBindingStatus) -> Problem {
    let secret = &request.source.secret;
    match denial {
        Denial::NoSecret => Problem::new(
            Reason::WaitingForSecret,
            format!("there is no secret {secret:?} in that workspace yet; it is written as soon as there is"),
        ),
        Denial::NoVersion => match request.source.pin {
            Some(pin) => Problem::new(
                Reason::Denied,
                format!(
                    "{secret:?} has no version {pin}: it was never made, or erased by a deletion; pin another one, or none"
                ),
            ),
            None => Problem::new(
                Reason::Rollback,
                format!(
                    "Ennote has no version of {secret:?} as new as the one that was seen; the Secret is kept as it is. If Ennote was restored \
                     from a backup, take its versions from here on: kubectl annotate --overwrite ennotesecretbinding {} -n {} {ACCEPT}={}/1",
                    request.binding,
                    request.namespace,
                    status.source.as_ref().map_or("ORGANIZATION", |mark| &mark.organization)
                ),
            ),
        },
        // The grant's text is the cloud's, unsigned: shown as a quotation, with nothing that ends a line.
        Denial::NoGrant(grant) => Problem::new(
            Reason::Denied,
            format!(
                "namespace {} has no grant for {secret:?}; who administers Ennote grants it: agent grant {}",
                request.namespace,
                grant.chars().filter(|c| !c.is_control()).collect::<String>()
            ),
        ),
    }
}
