//! The ledgers of all bindings: in memory the truth, in status the memory of it.

use crate::crd::EnnoteSecretBinding;
use crate::rollout::ledger::Ledger;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Entry {
    uid: String,
    ledger: Ledger,
    persisted: Ledger,
}

#[derive(Default)]
struct Books {
    entries: BTreeMap<(String, String), Entry>,
    /// Which bindings remember a workload: (namespace, KIND/NAME) to binding names.
    remembering: HashMap<(String, String), BTreeSet<String>>,
}

/// Who writes a binding's ledger to status, by (namespace, binding).
type Turns = HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>;

/// Ledgers by (namespace, binding).
#[derive(Default)]
pub struct Ledgers {
    books: Mutex<Books>,
    writing: Mutex<Turns>,
}

impl Ledgers {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the ledger of a binding. With many workloads this costs far less than [`Self::with`].
    pub fn read<T>(&self, binding: &EnnoteSecretBinding, look: impl FnOnce(&Ledger) -> T) -> T {
        let (namespace, name, uid) = identity(binding);
        if let Some(entry) = self.books().entries.get(&(namespace, name)).filter(|entry| entry.uid == uid) {
            return look(&entry.ledger);
        }
        self.with(binding, |ledger| look(ledger)).0
    }

    /// Reads or changes the ledger of a binding, which is loaded from its status at first sight. Gives what `act` gives, and
    /// whether there is something to persist.
    pub fn with<T>(&self, binding: &EnnoteSecretBinding, act: impl FnOnce(&mut Ledger) -> T) -> (T, bool) {
        let (namespace, name, uid) = identity(binding);
        let mut books = self.books();
        let books = &mut *books;
        let key = (namespace.clone(), name.clone());
        let known = books.entries.get(&key).is_some_and(|e| e.uid == uid);
        if !known {
            books.entries.remove(&key);
        }
        let entry = books.entries.entry(key).or_insert_with(|| {
            let ledger = binding.status.as_ref().map(Ledger::load).unwrap_or_default();
            Entry { uid, persisted: ledger.clone(), ledger }
        });
        let before: BTreeSet<String> = entry.ledger.workloads().into_iter().collect();
        let result = act(&mut entry.ledger);
        let after: BTreeSet<String> = entry.ledger.workloads().into_iter().collect();
        for workload in after.iter().filter(|w| !known || !before.contains(*w)) {
            books.remembering.entry((namespace.clone(), workload.clone())).or_default().insert(name.clone());
        }
        for workload in before.difference(&after) {
            if let Some(names) = books.remembering.get_mut(&(namespace.clone(), workload.clone())) {
                names.remove(&name);
            }
        }
        (result, entry.ledger != entry.persisted)
    }

    /// One write of a binding's ledger at a time: an older one that lands last would undo the newer.
    pub async fn turn(&self, namespace: &str, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            writing.retain(|_, lock| Arc::strong_count(lock) > 1);
            writing.entry((namespace.to_owned(), name.to_owned())).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// The bindings that remember a workload.
    pub fn remembering(&self, namespace: &str, workload: &str) -> Vec<String> {
        let books = self.books();
        books.remembering.get(&(namespace.to_owned(), workload.to_owned())).into_iter().flatten().cloned().collect()
    }

    /// The ledger now in status.
    pub fn persisted(&self, binding: &EnnoteSecretBinding, ledger: &Ledger) {
        let (namespace, name, uid) = identity(binding);
        if let Some(entry) = self.books().entries.get_mut(&(namespace, name)).filter(|e| e.uid == uid) {
            entry.persisted = ledger.clone();
        }
    }

    /// Forgets a binding that is gone.
    pub fn remove(&self, namespace: &str, name: &str, uid: &str) {
        let mut books = self.books();
        let key = (namespace.to_owned(), name.to_owned());
        if books.entries.get(&key).is_some_and(|e| e.uid == uid) {
            books.entries.remove(&key);
            books.remembering.retain(|(of, _), names| {
                if of == namespace {
                    names.remove(name);
                }
                !names.is_empty()
            });
        }
    }

    /// Bindings with something to persist.
    pub fn dirty(&self) -> Vec<(String, String)> {
        self.books().entries.iter().filter(|(_, e)| e.ledger != e.persisted).map(|(key, _)| key.clone()).collect()
    }
}

fn identity(binding: &EnnoteSecretBinding) -> (String, String, String) {
    let meta = &binding.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
        meta.uid.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Content;
    use serde_json::json;

    fn binding(uid: &str) -> EnnoteSecretBinding {
        serde_json::from_value(json!({
            "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
            "metadata": {"name": "b", "namespace": "n", "uid": uid},
            "spec": {"source": {"secret": "s"}},
            "status": {"baselines": {"Deployment/web": "c1"}},
        }))
        .unwrap()
    }

    #[test]
    fn what_status_holds_is_loaded_once_and_what_changes_is_dirty_until_persisted() {
        let ledgers = Ledgers::default();
        let (baseline, dirty) = ledgers.with(&binding("u"), |l| l.baseline("Deployment/web").cloned());
        assert_eq!((baseline, dirty), (Some(Content::from_text("c1")), false));
        assert_eq!(ledgers.remembering("n", "Deployment/web"), ["b"]);
        let (copy, dirty) = ledgers.with(&binding("u"), |l| {
            l.record("DaemonSet/log", &Content::from_text("c2"));
            l.clone()
        });
        assert!(dirty);
        assert_eq!(ledgers.dirty(), [("n".to_owned(), "b".to_owned())]);
        ledgers.persisted(&binding("u"), &copy);
        assert!(ledgers.dirty().is_empty());
        ledgers.with(&binding("u"), |l| l.forget("Deployment/web"));
        assert!(ledgers.remembering("n", "Deployment/web").is_empty());
        assert_eq!(ledgers.remembering("n", "DaemonSet/log"), ["b"]);
    }

    #[test]
    fn a_binding_made_again_starts_from_its_own_status() {
        let ledgers = Ledgers::default();
        ledgers.with(&binding("u"), |l| l.forget("Deployment/web"));
        let (baseline, _) = ledgers.with(&binding("v"), |l| l.baseline("Deployment/web").is_some());
        assert!(baseline);
        ledgers.remove("n", "b", "u");
        assert_eq!(ledgers.remembering("n", "Deployment/web"), ["b"], "another object");
        ledgers.remove("n", "b", "v");
        assert!(ledgers.remembering("n", "Deployment/web").is_empty());
    }
}
