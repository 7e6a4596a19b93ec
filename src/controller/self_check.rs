//! Knows which rights the agent lacks where: asked at the start, after each refusal, and again while something is missing, so
//! that the log and the conditions name the rule, and what waited for it goes on by itself.

use crate::cluster::error::Chain;
use crate::cluster::rights::Reviews;
use crate::config::{RbacMode, RunSettings};
use crate::controller::context::{Context, Fact};
use crate::controller::pass::Pass;
use crate::domain::outcome::Outcome;
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;
use crate::domain::rights::{Lacking, Mode, Needs, Right};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Turn, mpsc};
use tokio::time::{Instant, interval};

/// An answer counts for this long, however many refusals ask for one.
const FRESH: Duration = Duration::from_secs(3);
/// What is missing is asked about again after this long.
const AGAIN: Duration = Duration::from_secs(30);

/// The rights that these settings need.
pub fn needs(settings: &RunSettings) -> Needs {
    let mode = match settings.access.rbac_mode {
        RbacMode::Strict => Mode::Strict,
        RbacMode::Compatible => Mode::Compatible,
    };
    let names = settings.access.secret_names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    Needs { mode, secret_names: names.collect(), argo: settings.rollouts.argo }
}

/// See the module.
pub struct SelfCheck {
    reviews: Reviews,
    rights: Vec<Right>,
    role: String,
    places: Mutex<HashMap<String, Arc<Place>>>,
    suspects: mpsc::UnboundedSender<String>,
}

/// A namespace.
#[derive(Default)]
struct Place {
    asked: Turn<Option<Instant>>,
    lacking: Mutex<Option<Lacking>>,
}

impl SelfCheck {
    /// Compares with what is needed. `role` is what the chart calls the Role; namespaces to look at go to `suspects`.
    pub fn new(reviews: Reviews, needs: &Needs, role: &str, suspects: mpsc::UnboundedSender<String>) -> Self {
        Self { reviews, rights: needs.rights(), role: role.to_owned(), places: Mutex::default(), suspects }
    }

    /// A call was refused there.
    pub fn suspect(&self, namespace: &str) {
        // Nobody listens when the agent ends.
        let _ = self.suspects.send(namespace.to_owned());
    }

    /// What was missing when it was asked last.
    pub fn known(&self, namespace: &str) -> Option<Lacking> {
        lock(&self.place(namespace).lacking).clone()
    }

    /// What is missing. Where that cannot be asked, what is known.
    pub async fn look(&self, namespace: &str) -> Option<Lacking> {
        let place = self.place(namespace);
        let mut asked = place.asked.lock().await;
        if asked.is_none_or(|at| at.elapsed() >= FRESH) {
            match self.reviews.missing(namespace, &self.rights).await {
                Ok(missing) => {
                    let now = Lacking::of(namespace, &self.role, self.rights.len(), missing);
                    let before = std::mem::replace(&mut *lock(&place.lacking), now.clone());
                    log(namespace, before.as_ref(), now.as_ref());
                }
                Err(error) => tracing::debug!(namespace, error = %Chain(&error), "the agent's rights are not known"),
            }
            *asked = Some(Instant::now());
        }
        lock(&place.lacking).clone()
    }

    /// The refusal of a restart, with the rule where it is one that is missing.
    pub async fn why_not_stamped(&self, namespace: &str, kind: &str, said: String) -> String {
        let resource = format!("{}s", kind.to_lowercase());
        self.suspect(namespace);
        self.look(namespace)
            .await
            .and_then(|lacking| lacking.only(&resource))
            .map_or(said, |lacking| lacking.sentence())
    }

    fn place(&self, namespace: &str) -> Arc<Place> {
        lock(&self.places).entry(namespace.to_owned()).or_default().clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log(namespace: &str, before: Option<&Lacking>, now: Option<&Lacking>) {
    match now {
        Some(lacking) if before != now => tracing::warn!(
            namespace,
            missing = lacking.verbs(),
            rule = lacking.rules().join(" "),
            mend = lacking.mend(),
            "the agent lacks rights"
        ),
        None if before.is_some() => tracing::info!(namespace, "the agent has all its rights again"),
        _ => {}
    }
}

/// A refusal with what is missing. One where nothing is missing comes from an admission policy or webhook and stays as it is.
pub(super) async fn explained(outcome: Outcome, namespace: &str, context: &Context) -> Outcome {
    match outcome {
        Outcome::Problem(problem) if problem.reason == Reason::Forbidden => {
            context.self_check.suspect(namespace);
            let lacking = context.self_check.look(namespace).await;
            Outcome::Problem(lacking.map_or(problem, |lacking| Problem::new(Reason::Forbidden, lacking.sentence())))
        }
        other => other,
    }
}

/// What to say of a binding while the Secrets of its namespace cannot be listed because that is not allowed.
pub(super) fn unlisted(request: &Request, context: &Context) -> Option<Pass> {
    let lacking = context.self_check.known(&request.namespace)?;
    let problem = Problem::new(Reason::Forbidden, lacking.sentence());
    lacking.has("secrets", &["list"]).then(|| Pass::say_until(problem, AGAIN))
}

/// Looks at all namespaces once, and from then on at those where something is missing or was refused. One that cannot be asked
/// about delays no other for longer than a call may take.
pub async fn run(context: Arc<Context>, namespaces: Vec<String>, mut suspects: mpsc::UnboundedReceiver<String>) {
    let mut lacking = BTreeSet::new();
    let mut due: BTreeSet<String> = namespaces.into_iter().collect();
    let mut ticks = interval(AGAIN);
    loop {
        for namespace in std::mem::take(&mut due) {
            if context.self_check.look(&namespace).await.is_some() {
                lacking.insert(namespace);
            } else if lacking.remove(&namespace) {
                go_on(&namespace, &context);
            }
        }
        tokio::select! {
            suspect = suspects.recv() => match suspect {
                Some(namespace) => due.extend([namespace]),
                None => return,
            },
            _ = ticks.tick() => due.clone_from(&lacking),
        }
    }
}

/// What was refused there is tried again now, and not at the end of its back-off.
fn go_on(namespace: &str, context: &Context) {
    for binding in context.bindings.state_filter(|b| b.metadata.namespace.as_deref() == Some(namespace)) {
        if let Ok(request) = Request::parse(&binding, &context.defaults) {
            let memo = context.memos.of(&request);
            if memo.is_some_and(|m| matches!(m.fact, Fact::Retry(_, problem) if problem.reason == Reason::Forbidden)) {
                context.memos.forget(&request.uid);
            }
            context.wake_workloads_of(&binding, &request);
        }
        context.wake_binding(namespace, binding.metadata.name.as_deref().unwrap_or_default());
    }
}
