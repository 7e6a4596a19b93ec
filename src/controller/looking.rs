//! Observing without a watch: a Secret is looked at when its binding is first seen and every few minutes after that, and sooner
//! while something about it is awaited. What the agent writes itself counts as seen.

use crate::cluster::error::ClusterError;
use crate::controller::context::Context;
use crate::controller::pass::Pass;
use crate::domain::deletions::NOBODY;
use crate::domain::observed::Observed;
use crate::domain::outcome::Outcome;
use crate::domain::reason::Reason;
use crate::domain::request::Request;
use crate::entropy::spread;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// While the garbage collector is awaited, which takes a tenth of a second where nothing holds it up.
const SOONEST: Duration = Duration::from_millis(500);

/// When each binding's target is due.
pub struct Looks {
    every: Duration,
    due: Mutex<HashMap<String, Due>>,
}

struct Due {
    target: String,
    at: Instant,
    /// Looks in a row at something that is on its way out.
    awaited: u32,
}

impl Looks {
    /// A look every so often, a fifth more or less.
    pub fn new(every: Duration) -> Self {
        Self { every, due: Mutex::default() }
    }

    fn due(&self) -> MutexGuard<'_, HashMap<String, Due>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long until the next look; none at all where this target was never looked at.
    pub fn left(&self, request: &Request) -> Duration {
        let due = self.due();
        let known = due.get(&request.uid).filter(|due| due.target == request.target.as_str());
        known.map_or(Duration::ZERO, |due| due.at.saturating_duration_since(Instant::now()))
    }

    /// It was looked at.
    pub fn looked(&self, request: &Request, spread: f64) {
        let mut due = self.due();
        let target = request.target.to_string();
        let awaited = due.get(&request.uid).filter(|due| due.target == target).map_or(0, |due| due.awaited);
        let at = Instant::now() + self.every.mul_f64(0.8 + 0.4 * spread);
        due.insert(request.uid.clone(), Due { target, at, awaited });
    }

    /// Whether it is awaited that the Secret goes: the next look comes soon then, and ever later while it does not go.
    pub fn awaits(&self, request: &Request, going: bool) {
        let mut due = self.due();
        let Some(due) = due.get_mut(&request.uid) else { return };
        if !going {
            due.awaited = 0;
            return;
        }
        let now = Instant::now();
        // What wakes a pass before its look makes the next one no later.
        if due.at > now + SOONEST * (1 << due.awaited.min(16)) {
            due.at = now + SOONEST * (1 << due.awaited.min(16));
            due.awaited = due.awaited.saturating_add(1);
        }
    }

    /// The binding is gone.
    pub fn forget(&self, uid: &str) {
        self.due().remove(uid);
    }
}

/// The target, as fresh as it has to be: what the watch shows, or what the last look did.
///
/// # Errors
/// The look failed.
pub(super) async fn observe(request: &Request, context: &Context) -> Result<Observed, ClusterError> {
    let (namespace, target) = (&request.namespace, request.target.as_str());
    if let Some(looks) = &context.looks
        && looks.left(request).is_zero()
    {
        fetch(namespace, target, context).await?;
        looks.looked(request, spread());
    }
    Ok(context.index.observe(namespace, target))
}

/// What is there now, asked of the API server and remembered.
///
/// # Errors
/// Any but 404.
pub(super) async fn fetch(namespace: &str, target: &str, context: &Context) -> Result<Observed, ClusterError> {
    let before = context.index.observe(namespace, target);
    let seen = context.secrets.fetch(namespace, target).await?;
    match (&seen, before) {
        (Observed::Present(secret), _) => context.index.seen(namespace, target, (**secret).clone()),
        // Of what was known when it was asked: another pass may have written one since.
        (Observed::Absent, Observed::Present(secret)) => context.index.gone(namespace, target, Some(&secret.uid)),
        (Observed::Absent, Observed::Absent) => {}
    }
    Ok(seen)
}

/// Of a Secret that the binding aimed at once: what the watch shows, or what is there now.
///
/// # Errors
/// The look failed.
pub(super) async fn observe_earlier(namespace: &str, name: &str, context: &Context) -> Result<Observed, ClusterError> {
    match context.looks {
        Some(_) => fetch(namespace, name, context).await,
        None => Ok(context.index.observe(namespace, name)),
    }
}

/// After a pass: whether it waits for the garbage collector, which no event will tell of.
pub(super) fn awaits(request: &Request, pass: &Pass, context: &Context) {
    let Some(looks) = &context.looks else { return };
    let said = matches!(pass, Pass::Done { outcome: Outcome::Problem(problem), .. } if problem.reason == Reason::AwaitingCollection);
    let seen = context.index.observe(&request.namespace, request.target.as_str());
    looks.awaits(request, said || is_leaving(&seen));
}

fn is_leaving(seen: &Observed) -> bool {
    match seen {
        Observed::Present(secret) => secret.deleting || secret.owners.iter().any(|owner| owner.uid == NOBODY.1),
        Observed::Absent => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ownership::tests::request;

    #[tokio::test(start_paused = true)]
    async fn a_target_is_looked_at_once_every_few_minutes_and_sooner_while_it_goes() {
        let looks = Looks::new(Duration::from_secs(300));
        assert_eq!(looks.left(&request()), Duration::ZERO, "never seen");
        looks.looked(&request(), 0.0);
        assert_eq!(looks.left(&request()), Duration::from_secs(240));
        looks.looked(&request(), 1.0);
        assert_eq!(looks.left(&request()), Duration::from_secs(360));
        let mut renamed = request();
        renamed.target = crate::domain::name::SecretName::parse("other").unwrap();
        assert_eq!(looks.left(&renamed), Duration::ZERO, "another target was not looked at");
        let mut pauses = Vec::new();
        for _ in 0..12 {
            looks.looked(&request(), 0.5);
            looks.awaits(&request(), true);
            looks.awaits(&request(), true);
            pauses.push(looks.left(&request()).as_millis());
        }
        assert_eq!(pauses[..4], [500, 1000, 2000, 4000], "however often somebody asks between two looks");
        assert_eq!(pauses[11], 300_000, "what never goes is looked at as any other");
        looks.awaits(&request(), false);
        looks.looked(&request(), 0.5);
        looks.awaits(&request(), true);
        assert_eq!(looks.left(&request()).as_millis(), 500, "another one that goes");
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(looks.left(&request()), Duration::ZERO);
        looks.looked(&request(), 0.5);
        looks.forget(&request().uid);
        assert_eq!(looks.left(&request()), Duration::ZERO);
    }
}
