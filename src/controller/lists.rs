//! Which lists of what is watched are complete: what is not there is told from what was not listed yet.

use crate::rollout::workload::Kind;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One list that a watch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Bindings.
    Bindings,
    /// Secrets.
    Secrets,
    /// Workloads of one kind.
    Workloads(Kind),
}

impl List {
    const ALL: [Self; 6] = [
        Self::Bindings,
        Self::Secrets,
        Self::Workloads(Kind::Deployment),
        Self::Workloads(Kind::StatefulSet),
        Self::Workloads(Kind::DaemonSet),
        Self::Workloads(Kind::Rollout),
    ];

    fn place(self) -> usize {
        Self::ALL.iter().position(|list| *list == self).unwrap_or_default()
    }
}

/// Which lists are complete, per watched namespace.
pub struct Lists {
    told: Mutex<HashMap<String, [bool; List::ALL.len()]>>,
    /// What is told before anything is: the kinds that nobody watches.
    first: [bool; List::ALL.len()],
    watched: usize,
    all: AtomicBool,
}

impl Lists {
    /// For so many watched namespaces, and workloads of these kinds; `secrets` is whether those are watched.
    pub fn new(watched: usize, secrets: bool, kinds: &[Kind]) -> Self {
        let first = List::ALL.map(|list| match list {
            List::Workloads(kind) => !kinds.contains(&kind),
            List::Secrets => !secrets,
            List::Bindings => false,
        });
        Self { told: Mutex::default(), first, watched, all: AtomicBool::new(false) }
    }

    fn lists(&self) -> MutexGuard<'_, HashMap<String, [bool; List::ALL.len()]>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list is complete.
    pub fn told(&self, namespace: &str, list: List) {
        let mut told = self.lists();
        told.entry(namespace.to_owned()).or_insert(self.first)[list.place()] = true;
        let complete = told.values().filter(|lists| lists.iter().all(|told| *told)).count();
        self.all.store(complete >= self.watched, Ordering::Relaxed);
    }

    /// Whether a list of a namespace is complete.
    pub fn has(&self, namespace: &str, list: List) -> bool {
        self.lists().get(namespace).unwrap_or(&self.first)[list.place()]
    }

    /// Whether all lists of a namespace are complete.
    pub fn complete(&self, namespace: &str) -> bool {
        self.lists().get(namespace).is_some_and(|lists| lists.iter().all(|told| *told))
    }

    /// Whether all lists of all watched namespaces are complete.
    pub fn all(&self) -> bool {
        self.all.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_complete_when_all_lists_are_that_somebody_watches() {
        let apps = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
        let lists = Lists::new(1, true, &apps);
        lists.told("n", List::Bindings);
        lists.told("n", List::Secrets);
        for _ in 0..3 {
            lists.told("n", List::Workloads(Kind::Deployment));
        }
        lists.told("n", List::Workloads(Kind::DaemonSet));
        assert!(
            lists.has("n", List::Secrets) && !lists.complete("n") && !lists.all(),
            "a relist is no other kind's list"
        );
        lists.told("n", List::Workloads(Kind::StatefulSet));
        assert!(lists.complete("n") && lists.all() && !lists.complete("m"));
        let with_argo = Lists::new(1, true, &Kind::ALL);
        for list in [List::Bindings, List::Secrets].into_iter().chain(apps.map(List::Workloads)) {
            with_argo.told("n", list);
        }
        assert!(!with_argo.complete("n") && !with_argo.all());
        with_argo.told("n", List::Workloads(Kind::Rollout));
        assert!(with_argo.complete("n") && with_argo.all());
    }
}
