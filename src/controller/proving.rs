//! Nothing is written that the API server would not have refused to a thief: the admission policies are proved before the first
//! write in a namespace, and again and again while the agent runs.

use crate::cluster::error::ClusterError;
use crate::cluster::policy::{About, PROOF_MANAGER, Policies};
use crate::controller::context::Context;
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;
use crate::rollout::workload::Workload;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A policy that is missing is looked for again after this long.
const MISSING_AGAIN: Duration = Duration::from_secs(2);
/// A binding that nothing is written for is looked at again after a little more.
pub(super) const AGAIN: Duration = Duration::from_millis(2500);
/// Helm installs policies after the Deployment, and the API server takes a moment to apply a new one: nobody is told so soon.
const INSTALLED_WITHIN: Duration = Duration::from_secs(5);
/// Looked at again meanwhile.
const INSTALLED_AGAIN: Duration = Duration::from_millis(250);

type Place = (String, About);
/// One at a time is proved in one place; the others wait for what comes of it.
type Proof = Arc<tokio::sync::Mutex<Option<(Instant, Answer)>>>;
/// Whether it holds. A failure is remembered, too: all who wait for it would else ask again, one after the other.
type Answer = Result<bool, Arc<ClusterError>>;

/// What has been proved, and until when that counts.
pub struct Proofs {
    policies: Policies,
    lasts: Duration,
    begun: Instant,
    proofs: Mutex<HashMap<Place, Proof>>,
}

/// What is so of a policy.
pub(super) enum Standing {
    /// In force.
    Holds,
    /// Not in force; too early to say so.
    NotYet(Duration),
    /// Not in force.
    Missing(Problem),
    /// The question was not answered, or another one refused before the policy was asked.
    Unknown(Arc<ClusterError>),
}

impl Proofs {
    /// A proof counts for so long.
    pub fn new(policies: Policies, lasts: Duration) -> Self {
        Self { policies, lasts, begun: Instant::now(), proofs: Mutex::default() }
    }

    async fn prove(
        &self,
        namespace: &str,
        about: About,
        ask: impl Future<Output = Result<bool, ClusterError>>,
    ) -> Answer {
        let place = (namespace.to_owned(), about);
        let proof = self.proofs.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default().clone();
        let mut proof = proof.lock().await;
        match &*proof {
            Some((until, answer)) if *until > Instant::now() => answer.clone(),
            _ => {
                let answer = ask.await.map_err(Arc::new);
                let lasts = match answer {
                    Ok(true) => self.lasts,
                    Ok(false) if self.is_early() => INSTALLED_AGAIN,
                    Ok(false) | Err(_) => MISSING_AGAIN,
                };
                *proof = Some((Instant::now() + lasts, answer.clone()));
                answer
            }
        }
    }

    fn is_early(&self) -> bool {
        self.begun.elapsed() < INSTALLED_WITHIN
    }

    fn missing(&self, about: About, namespace: &str) -> Problem {
        let name = self.policies.name(about);
        Problem::new(
            Reason::PolicyMissing,
            format!(
                "the admission policy {name} is not in force in {namespace}, so nothing is written there: it is what holds the agent to \
                 its own Secrets and to restarts. helm upgrade with admissionPolicy.create=true, or whoever runs the cluster: kubectl \
                 apply -f examples/platform/admission-policy.yaml (its name must be {name}; kubectl get validatingadmissionpolicybinding \
                 {name})"
            ),
        )
    }
}

/// Whether Secrets may be written in the namespace of this request.
pub(super) async fn secrets(request: &Request, context: &Context) -> Standing {
    let Some(proofs) = &context.proofs else { return Standing::Holds };
    let (namespace, labels) = (&request.namespace, &request.shape.labels);
    let asked = proofs.prove(namespace, About::Secrets, proofs.policies.holds_secrets(namespace, labels)).await;
    standing(asked, About::Secrets, namespace, proofs)
}

/// Whether this workload may be restarted.
pub(super) async fn workload(workload: &Workload, context: &Context) -> Standing {
    let Some(proofs) = &context.proofs else { return Standing::Holds };
    let (namespace, about) = (workload.namespace(), About::of(workload.kind));
    let asked = proofs.prove(namespace, about, proofs.policies.holds_workload(workload)).await;
    standing(asked, about, namespace, proofs)
}

/// What to say of a question that was not answered. The proof holds nothing of anybody's, so that a refusal of it may be quoted.
pub(super) fn unanswered(error: &ClusterError, namespace: &str) -> Problem {
    match error.refusal() {
        Some(said) => Problem::new(
            Reason::Forbidden,
            format!(
                "the admission policy cannot be proved in {namespace}, so nothing is written there: the dry run that it has to refuse was \
                 refused before that: {said}. Grant what the chart's Role does, or let who runs that policy or webhook leave out field \
                 manager {PROOF_MANAGER}"
            ),
        ),
        None => error.problem("prove the admission policy by a dry run", namespace),
    }
}

fn standing(asked: Answer, about: About, namespace: &str, proofs: &Proofs) -> Standing {
    match asked {
        Ok(true) => Standing::Holds,
        Ok(false) if proofs.is_early() => Standing::NotYet(INSTALLED_AGAIN),
        Ok(false) => Standing::Missing(proofs.missing(about, namespace)),
        Err(error) => Standing::Unknown(error),
    }
}
