//! What is remembered per binding: baselines (the memory) and rollouts (the display), as in `status`.

use crate::crd::{EnnoteSecretBindingStatus, RolloutPhase, RolloutStatus};
use crate::domain::conditions::{find, set};
use crate::domain::content::Content;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// `status.rollouts` holds at most this many.
const SHOWN: usize = 20;
/// The condition's message names at most this many.
const NAMED: usize = 10;
/// `status.baselines` holds at most this many.
const REMEMBERED: usize = 2_000;

/// The workload controller's part of one binding's status.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Ledger {
    baselines: BTreeMap<String, Content>,
    rollouts: BTreeMap<String, RolloutStatus>,
}

impl Ledger {
    /// What was persisted.
    pub fn load(status: &EnnoteSecretBindingStatus) -> Self {
        let baselines = status.baselines.iter().flatten();
        let rollouts = status.rollouts.iter().flatten();
        Self {
            baselines: baselines.map(|(k, c)| (k.clone(), Content::from_text(c))).collect(),
            rollouts: rollouts.map(|r| (format!("{}/{}", r.kind, r.name), r.clone())).collect(),
        }
    }

    /// What a workload runs.
    pub fn baseline(&self, workload: &str) -> Option<&Content> {
        self.baselines.get(workload)
    }

    /// The last restart of a workload.
    pub fn rollout(&self, workload: &str) -> Option<&RolloutStatus> {
        self.rollouts.get(workload)
    }

    /// Records what a workload runs. Full means not recorded, so not restarted either: said by the caller.
    pub fn record(&mut self, workload: &str, content: &Content) -> bool {
        if self.baselines.len() >= REMEMBERED && !self.baselines.contains_key(workload) {
            return false;
        }
        self.baselines.insert(workload.to_owned(), content.clone());
        true
    }

    /// Records where a restart stands.
    pub fn set_rollout(&mut self, rollout: RolloutStatus) {
        self.rollouts.insert(format!("{}/{}", rollout.kind, rollout.name), rollout);
    }

    /// Forgets a workload that is gone or no longer opted in.
    pub fn forget(&mut self, workload: &str) {
        self.baselines.remove(workload);
        self.rollouts.remove(workload);
    }

    /// Workloads that are remembered.
    pub fn workloads(&self) -> Vec<String> {
        self.baselines
            .keys()
            .chain(self.rollouts.keys())
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The workload controller's part of the status: rollouts failed first, then newest; the condition RolledOut.
    pub fn to_status(
        &self,
        old: &EnnoteSecretBindingStatus,
        generation: i64,
        now: Timestamp,
    ) -> EnnoteSecretBindingStatus {
        let mut rollouts: Vec<RolloutStatus> = self.rollouts.values().cloned().collect();
        rollouts.sort_by(|a, b| {
            let failed = |r: &RolloutStatus| r.phase != RolloutPhase::Failed;
            failed(a)
                .cmp(&failed(b))
                .then(b.started_at.cmp(&a.started_at))
                .then(a.name.cmp(&b.name))
                .then(a.kind.cmp(&b.kind))
        });
        let mut conditions: Vec<Condition> = find(old, "RolledOut").cloned().into_iter().collect();
        match self.verdict() {
            Some((status, reason, message)) => set(
                &mut conditions,
                Condition {
                    type_: "RolledOut".to_owned(),
                    status: status.to_owned(),
                    reason: reason.to_owned(),
                    message,
                    observed_generation: Some(generation),
                    last_transition_time: Time(now),
                },
            ),
            None => conditions.clear(),
        }
        rollouts.truncate(SHOWN);
        EnnoteSecretBindingStatus {
            conditions,
            rollouts: (!rollouts.is_empty()).then_some(rollouts),
            baselines: (!self.baselines.is_empty())
                .then(|| self.baselines.iter().map(|(k, c)| (k.clone(), c.to_string())).collect()),
            ..EnnoteSecretBindingStatus::default()
        }
    }

    /// Nothing to say while no workload ever restarted for this binding.
    fn verdict(&self) -> Option<(&'static str, &'static str, String)> {
        let of = |phase: RolloutPhase| -> Vec<&str> {
            self.rollouts.iter().filter(|(_, r)| r.phase == phase).map(|(k, _)| k.as_str()).collect()
        };
        let said = |verb: &str, names: Vec<&str>| {
            let more = names.len().saturating_sub(NAMED);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{} {verb}: {}{rest}", names.len(), names[..names.len() - more].join(", "))
        };
        let order = [
            (RolloutPhase::Failed, "False", "Failed", "failed"),
            (RolloutPhase::Progressing, "Unknown", "Progressing", "in progress"),
            (RolloutPhase::Pending, "Unknown", "Pending", "pending"),
            (RolloutPhase::Reverted, "False", "Reverted", "reverted by someone else"),
        ];
        for (phase, status, reason, verb) in order {
            let names = of(phase);
            if !names.is_empty() {
                return Some((status, reason, said(verb, names)));
            }
        }
        let (complete, skipped) = (of(RolloutPhase::Complete), of(RolloutPhase::Skipped));
        if complete.is_empty() && skipped.is_empty() {
            return None;
        }
        let message = match (complete.is_empty(), skipped.is_empty()) {
            (false, true) => said("complete", complete),
            (true, _) => said("skipped", skipped),
            (false, false) => format!("{}; {}", said("complete", complete), said("skipped", skipped)),
        };
        Some(("True", "Complete", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(name: &str, phase: RolloutPhase, second: i64) -> RolloutStatus {
        RolloutStatus {
            kind: "Deployment".into(),
            name: name.into(),
            version: 1,
            phase,
            ready: 0,
            desired: 1,
            started_at: Some(Time(Timestamp::from_second(second).unwrap())),
            finished_at: None,
            message: String::new(),
        }
    }

    fn status(of: &[(&str, RolloutPhase, i64)]) -> EnnoteSecretBindingStatus {
        let mut ledger = Ledger::default();
        of.iter().for_each(|(n, p, s)| ledger.set_rollout(rollout(n, *p, *s)));
        ledger.to_status(&Default::default(), 1, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn failed_first_then_newest_and_never_more_than_twenty() {
        let many: Vec<(String, RolloutPhase, i64)> = (0..30)
            .map(|i| (format!("w{i:02}"), if i == 3 { RolloutPhase::Failed } else { RolloutPhase::Complete }, i))
            .collect();
        let many: Vec<(&str, RolloutPhase, i64)> = many.iter().map(|(n, p, s)| (n.as_str(), *p, *s)).collect();
        let shown = status(&many).rollouts.unwrap();
        assert_eq!(shown.len(), 20);
        assert_eq!((shown[0].name.as_str(), shown[1].name.as_str(), shown[2].name.as_str()), ("w03", "w29", "w28"));
    }

    #[test]
    fn the_worst_phase_names_the_condition() {
        let reason = |of: &[(&str, RolloutPhase, i64)]| {
            status(of).conditions.first().map(|c| format!("{}/{}", c.status, c.reason))
        };
        use RolloutPhase::{Complete, Failed, Pending, Progressing, Reverted};
        assert_eq!(reason(&[]), None);
        assert_eq!(reason(&[("a", Complete, 1), ("b", Complete, 2)]).as_deref(), Some("True/Complete"));
        assert_eq!(reason(&[("a", Complete, 1), ("b", Progressing, 2)]).as_deref(), Some("Unknown/Progressing"));
        assert_eq!(reason(&[("a", Failed, 1), ("b", Progressing, 2)]).as_deref(), Some("False/Failed"));
        assert_eq!(reason(&[("a", Pending, 1), ("b", Reverted, 2)]).as_deref(), Some("Unknown/Pending"));
        let message = |of: &[(&str, RolloutPhase, i64)]| status(of).conditions[0].message.clone();
        assert_eq!(
            message(&[("a", Complete, 1), ("b", RolloutPhase::Skipped, 2)]),
            "1 complete: Deployment/a; 1 skipped: Deployment/b"
        );
        let many: Vec<String> = (0..13).map(|n| format!("w{n:02}")).collect();
        let many: Vec<(&str, RolloutPhase, i64)> = many.iter().map(|name| (name.as_str(), Complete, 1)).collect();
        assert!(message(&many).ends_with("Deployment/w09 and 3 more"), "{}", message(&many));
    }

    #[test]
    fn what_is_persisted_comes_back() {
        let mut ledger = Ledger::default();
        assert!(ledger.record("Deployment/web", &Content::from_text("c1")));
        ledger.set_rollout(rollout("web", RolloutPhase::Complete, 5));
        let back = Ledger::load(&ledger.to_status(&Default::default(), 1, Timestamp::UNIX_EPOCH));
        assert_eq!(back, ledger);
        assert_eq!(back.workloads(), ["Deployment/web"]);
        ledger.forget("Deployment/web");
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut ledger = Ledger::default();
        for i in 0..REMEMBERED {
            assert!(ledger.record(&format!("Deployment/{i}"), &Content::from_text("c")));
        }
        assert!(!ledger.record("Deployment/more", &Content::from_text("c")));
        assert!(ledger.record("Deployment/1", &Content::from_text("d")), "the known ones still move");
    }
}
