//! Handles and memory that both controllers share. Locks are held for a map access, never across an await.

use crate::clock;
use crate::cloud::inbox::{Inbox, Wanted};
use crate::cloud::reports::Reports;
use crate::cloud::state::LinkState;
use crate::cluster::secrets::{SecretIndex, Secrets};
use crate::cluster::status::StatusWriter;
use crate::cluster::workloads::Workloads;
use crate::config::RolloutSettings;
use crate::controller::claiming::Claims;
use crate::controller::ledgers::Ledgers;
use crate::controller::lists::Lists;
use crate::controller::looking::Looks;
use crate::controller::observing::Foreseen;
use crate::controller::proving::Proofs;
use crate::controller::self_check::SelfCheck;
use crate::crd::EnnoteSecretBinding;
use crate::domain::claim;
use crate::domain::drift;
use crate::domain::reason::Problem;
use crate::domain::request::{Asks, Defaults, Request};
use crate::faults::Faults;
use crate::health::Pulse;
use crate::rollout::workload::Workload;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A namespace whose lists are not complete does not hold back its bindings for longer than this after the start: an agent
/// without rights on workloads still writes Secrets.
const LISTS_WITHIN: Duration = Duration::from_secs(10);

/// A beat is no later than this; more is a clock that was set.
const LATE_MS: i64 = 60_000;

/// Everything that a pass needs.
pub struct Context {
    /// Secrets.
    pub secrets: Secrets,
    /// What is known of them.
    pub index: SecretIndex,
    /// When Secrets are looked at that cannot be watched; none where they are watched.
    pub looks: Option<Looks>,
    /// What is proved of the admission policies, where something depends on them.
    pub proofs: Option<Proofs>,
    /// Status and Events.
    pub status: StatusWriter,
    /// Stamps.
    pub workloads: Workloads,
    /// Wants and arrivals.
    pub inbox: Inbox,
    /// What the cloud is told of versions and rollouts.
    pub reports: Reports,
    /// The link to the cloud.
    pub link: watch::Receiver<LinkState>,
    /// Bindings as watched.
    pub bindings: Store<EnnoteSecretBinding>,
    /// Workloads as watched.
    pub seen_workloads: Store<Workload>,
    /// Baselines and rollouts.
    pub ledgers: Ledgers,
    /// Our own answers, as long as the watch lags behind them.
    pub latest: Latest,
    /// What is remembered of a binding between passes.
    pub memos: Memos,
    /// Which bindings write to which Secret.
    pub targets: Targets,
    /// Held while the next restart is decided and reserved. Never across an await.
    pub deciding: Mutex<()>,
    /// Which lists are complete.
    pub lists: Lists,
    /// Wakes the workload controller.
    pub workload_wakes: mpsc::UnboundedSender<ObjectRef<Workload>>,
    /// Wakes the binding controller.
    pub binding_wakes: mpsc::UnboundedSender<ObjectRef<EnnoteSecretBinding>>,
    /// Wakes the reporter of rollouts.
    pub wake_report: mpsc::UnboundedSender<(String, String)>,
    /// What the settings say of bindings that do not say it themselves.
    pub defaults: Defaults,
    /// What the settings allow of restarts.
    pub rollouts: RolloutSettings,
    /// The name of this agent in status, as NAMESPACE/NAME.
    pub agent: String,
    /// What is remembered of other agents.
    pub claims: Claims,
    /// What the agent is not allowed.
    pub self_check: SelfCheck,
    /// How long another agent has to answer.
    pub patience: Duration,
    /// What a scenario makes go wrong.
    pub faults: Faults,
    /// For the heartbeat.
    pub pulse: Pulse,
    /// When the process started.
    pub started: Instant,
    /// The latest time that [`Self::now`] gave by the cloud's word.
    pub latest_ms: AtomicI64,
}

impl Context {
    /// The time for status: the cloud's, by its signed word and our monotonic clock, so that a step of this machine's wall
    /// clock moves nothing. The wall clock is shown only before the cloud has spoken.
    pub fn now(&self) -> Timestamp {
        let signed = self.link.borrow().server_now_ms(clock::now()).map(|ms| {
            // A beat that was long under way makes it earlier than it was: what came after does not begin before.
            let latest = self.latest_ms.fetch_max(ms, Ordering::Relaxed).max(ms);
            if latest - ms < LATE_MS { latest } else { ms }
        });
        signed.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_else(Timestamp::now)
    }

    /// Whether all lists of a namespace are complete, or have had their time.
    pub fn settled(&self, namespace: &str) -> bool {
        self.lists.complete(namespace) || self.started.elapsed() > LISTS_WITHIN
    }

    /// A binding as the newest answer shows it.
    pub fn binding(&self, namespace: &str, name: &str) -> Option<Arc<EnnoteSecretBinding>> {
        self.bindings.get(&ObjectRef::new(name).within(namespace)).map(|seen| self.latest.newest(seen))
    }

    /// Whether this very binding is still there, and not another agent's.
    pub fn lives(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.binding(namespace, name).is_some_and(|b| {
            let there = b.metadata.uid.as_deref() == Some(uid) && b.metadata.deletion_timestamp.is_none();
            there && !self.is_theirs(&b)
        })
    }

    /// Whether another agent writes this binding.
    pub fn is_theirs(&self, binding: &EnnoteSecretBinding) -> bool {
        claim::is_theirs(binding.status.as_ref(), &self.agent)
    }

    /// Declares a want of a binding that is still there: one of a binding that is gone would never be taken back.
    pub fn want(&self, wanted: &Wanted, known: u64, again: bool) {
        let lives = || self.lives(&wanted.namespace, &wanted.binding, &wanted.binding_uid);
        if lives() {
            self.inbox.want(wanted, known, again);
            // It may have gone meanwhile, and been forgotten before it was wanted.
            if !lives() {
                self.inbox.unwant(&wanted.binding_uid);
            }
        }
    }

    /// Remembers something of a binding that is still there.
    pub fn remember(&self, request: &Request, fact: Fact, failures: u32) {
        if self.lives(&request.namespace, &request.binding, &request.uid) {
            let (generation, renewals) = (request.generation, request.renewals());
            self.memos.set(&request.uid, Memo { generation, renewals, fact, failures });
        }
    }

    /// Forgets a binding that is gone.
    pub fn forget(&self, namespace: &str, name: &str, uid: &str) {
        self.inbox.unwant(uid);
        self.reports.forget(uid);
        self.memos.end(uid);
        self.claims.forget(uid);
        if let Some(looks) = &self.looks {
            looks.forget(uid);
            // Where they are watched, a deletion is told.
            if let Some(target) = self.targets.of(namespace, name)
                && self.targets.bindings(namespace, &target).iter().all(|binding| binding == name)
            {
                self.index.unknown(namespace, &target);
            }
        }
        self.latest.forget(uid);
        self.ledgers.remove(namespace, name, uid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers to our own status writes that the watch has not shown yet.
#[derive(Default)]
pub struct Latest(Mutex<HashMap<String, Arc<EnnoteSecretBinding>>>);

impl Latest {
    /// The newer of what the watch shows and what we were answered.
    pub fn newest(&self, seen: Arc<EnnoteSecretBinding>) -> Arc<EnnoteSecretBinding> {
        let uid = seen.metadata.uid.as_deref().unwrap_or_default();
        let mut map = lock(&self.0);
        match map.get(uid) {
            Some(answered) if revision(answered) > revision(&seen) => answered.clone(),
            Some(_) => {
                map.remove(uid);
                seen
            }
            None => seen,
        }
    }

    /// Keeps an answer.
    pub fn answered(&self, binding: EnnoteSecretBinding) {
        let uid = binding.metadata.uid.clone().unwrap_or_default();
        let mut map = lock(&self.0);
        if map.get(&uid).is_none_or(|known| revision(known) < revision(&binding)) {
            map.insert(uid, Arc::new(binding));
        }
    }

    fn forget(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}

fn revision(binding: &EnnoteSecretBinding) -> u64 {
    binding.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// What a pass leaves for the next one.
#[derive(Clone, Debug)]
pub struct Memo {
    /// Of this generation of the spec.
    pub generation: i64,
    /// And of these asks of persons.
    pub renewals: Asks,
    /// What is so.
    pub fact: Fact,
    /// Deliveries in a row that were not taken.
    pub failures: u32,
}

/// What is remembered.
#[derive(Clone, Debug)]
pub enum Fact {
    /// Asked, and nothing said about it yet.
    Asked(Instant),
    /// The cloud answered without a payload; the want stands.
    /// A denial is unsigned, so it is asked again then whether it still holds.
    Standing(Instant, Problem),
    /// A denial came so soon after the last one that it was not believed; it is asked again then.
    Doubted(Instant),
    /// This version was seen and gives no Secret: only another one, or another spec, can change that.
    Seen(u64, Problem),
    /// This version is a tombstone.
    Gone(u64, Problem),
    /// This version was seen and is only compared with what the Secret holds.
    Foreseen(u64, Foreseen),
    /// A delivery was not taken; it is asked for again then.
    Retry(Instant, Problem),
}

impl Fact {
    /// Whether a version was seen and what comes of it is known.
    pub fn is_of_a_version(&self) -> bool {
        matches!(self, Self::Seen(..) | Self::Gone(..) | Self::Foreseen(..))
    }
}

/// Memos by binding uid.
#[derive(Default)]
pub struct Memos {
    memos: Mutex<HashMap<String, Memo>>,
    /// When a denial last turned a binding.
    turned: Mutex<HashMap<String, Instant>>,
    /// How often in a row a Secret was repaired, and when last.
    repaired: Mutex<HashMap<String, (u32, Instant)>>,
}

impl Memos {
    /// The memo, if it is of this spec and these asks.
    pub fn of(&self, request: &Request) -> Option<Memo> {
        let current = |m: &&Memo| m.generation == request.generation && m.renewals == request.renewals();
        lock(&self.memos).get(&request.uid).filter(current).cloned()
    }

    fn set(&self, uid: &str, memo: Memo) {
        lock(&self.memos).insert(uid.to_owned(), memo);
    }

    /// Nothing to remember.
    pub fn forget(&self, uid: &str) {
        lock(&self.memos).remove(uid);
    }

    /// Whether a denial may turn this binding, because none has for this long. If so, it has now.
    pub fn may_turn(&self, uid: &str, apart: Duration) -> bool {
        let (mut turned, now) = (lock(&self.turned), Instant::now());
        let free = turned.get(uid).is_none_or(|at| now.duration_since(*at) >= apart);
        if free {
            turned.insert(uid.to_owned(), now);
        }
        free
    }

    /// A Secret was repaired.
    pub fn repaired(&self, uid: &str) {
        let (mut repaired, now) = (lock(&self.repaired), Instant::now());
        let (count, at) = repaired.entry(uid.to_owned()).or_insert((0, now));
        *count = if now.duration_since(*at) < drift::FIGHT { count.saturating_add(1) } else { 1 };
        *at = now;
    }

    /// How long the next repair has to wait; not at all where the last one is long ago.
    pub fn until_repair(&self, uid: &str) -> Duration {
        let known = lock(&self.repaired).get(uid).copied();
        known.map_or(Duration::ZERO, |(count, at)| {
            let since = at.elapsed();
            if since < drift::FIGHT { drift::pause(count).saturating_sub(since) } else { Duration::ZERO }
        })
    }

    /// The binding is gone.
    pub fn end(&self, uid: &str) {
        self.forget(uid);
        lock(&self.turned).remove(uid);
        lock(&self.repaired).remove(uid);
    }
}

/// Which bindings write to which Secret, by (namespace, name) of either.
#[derive(Default)]
pub struct Targets(Mutex<Aims>);

#[derive(Default)]
struct Aims {
    of_secret: HashMap<(String, String), BTreeSet<String>>,
    of_binding: HashMap<(String, String), String>,
}

impl Targets {
    /// A binding writes to this Secret, and no longer to an earlier one.
    pub fn set(&self, namespace: &str, binding: &str, target: Option<&str>) {
        let mut aims = lock(&self.0);
        let key = (namespace.to_owned(), binding.to_owned());
        if aims.of_binding.get(&key).map(String::as_str) == target {
            return;
        }
        if let Some(earlier) = aims.of_binding.remove(&key) {
            let secret = (namespace.to_owned(), earlier);
            if let Some(bindings) = aims.of_secret.get_mut(&secret) {
                bindings.remove(binding);
                if bindings.is_empty() {
                    aims.of_secret.remove(&secret);
                }
            }
        }
        if let Some(target) = target {
            aims.of_secret.entry((namespace.to_owned(), target.to_owned())).or_default().insert(binding.to_owned());
            aims.of_binding.insert(key, target.to_owned());
        }
    }

    /// The Secret that a binding writes to.
    pub fn of(&self, namespace: &str, binding: &str) -> Option<String> {
        lock(&self.0).of_binding.get(&(namespace.to_owned(), binding.to_owned())).cloned()
    }

    /// The bindings of a Secret.
    pub fn bindings(&self, namespace: &str, secret: &str) -> Vec<String> {
        let aims = lock(&self.0);
        aims.of_secret.get(&(namespace.to_owned(), secret.to_owned())).into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(revision: &str) -> EnnoteSecretBinding {
        serde_json::from_value(json!({
            "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
            "metadata": {"name": "b", "namespace": "n", "uid": "u", "resourceVersion": revision},
            "spec": {"source": {"secret": "s"}},
        }))
        .unwrap()
    }

    #[test]
    fn our_own_answer_counts_until_the_watch_has_caught_up() {
        let latest = Latest::default();
        let newest = |seen: &str| latest.newest(Arc::new(binding(seen))).metadata.resource_version.clone().unwrap();
        assert_eq!(newest("9"), "9");
        latest.answered(binding("10"));
        latest.answered(binding("8"));
        assert_eq!(newest("9"), "10");
        assert_eq!(newest("10"), "10");
        assert_eq!(newest("9"), "9", "dropped once the watch had it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_turns_a_binding_once_in_a_while() {
        let (memos, minute) = (Memos::default(), Duration::from_secs(60));
        assert!(memos.may_turn("u", minute) && !memos.may_turn("u", minute) && memos.may_turn("other", minute));
        tokio::time::advance(minute).await;
        assert!(memos.may_turn("u", minute));
        memos.end("u");
        assert!(memos.may_turn("u", minute));
    }

    #[test]
    fn a_binding_has_one_target_at_a_time() {
        let targets = Targets::default();
        targets.set("n", "a", Some("s"));
        targets.set("n", "b", Some("s"));
        targets.set("m", "a", Some("s"));
        assert_eq!(targets.bindings("n", "s"), ["a", "b"]);
        targets.set("n", "a", Some("t"));
        assert_eq!(
            (targets.bindings("n", "s"), targets.bindings("n", "t")),
            (vec!["b".to_owned()], vec!["a".to_owned()])
        );
        targets.set("n", "b", None);
        assert_eq!(targets.bindings("n", "s"), Vec::<String>::new());
        assert_eq!(targets.bindings("m", "s"), ["a"]);
    }
}
