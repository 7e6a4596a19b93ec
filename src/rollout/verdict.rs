//! The condition RolledOut: all restarts of a binding in one word and one sentence.

use crate::crd::{EnnoteSecretBindingStatus, Hold, RolloutPhase, RolloutStatus};
use crate::domain::conditions::{find, set};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// The condition's message names at most this many.
const NAMED: usize = 10;

/// Reasons that say what keeps a binding as a whole from restarting anything.
const OBSTACLES: [&str; 2] = ["BadWindow", "ConsumersOff"];

const HALTED: &str = "Halted";
const AMBIGUOUS: &str = "RevertAmbiguous";

/// What the condition is made of.
pub(super) struct Facts<'a> {
    /// By KIND/NAME.
    pub(super) rollouts: &'a BTreeMap<String, RolloutStatus>,
    /// A version that is held in place of a newer one.
    pub(super) hold: Option<&'a Hold>,
    /// What keeps the binding as a whole from restarting anything: reason and message.
    pub(super) obstacle: Option<&'a (String, String)>,
}

/// The condition in the list that status has it in; empty while there is nothing to say.
pub(super) fn condition(
    facts: &Facts<'_>,
    old: &EnnoteSecretBindingStatus,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = find(old, "RolledOut").cloned().into_iter().collect();
    match verdict(facts) {
        Some((status, reason, message)) => set(
            &mut conditions,
            Condition {
                type_: "RolledOut".to_owned(),
                status: status.to_owned(),
                reason,
                message,
                observed_generation: Some(generation),
                last_transition_time: Time(now),
            },
        ),
        None => conditions.clear(),
    }
    conditions
}

/// What a persisted condition said of the binding as a whole.
pub(super) fn obstacle(status: &EnnoteSecretBindingStatus) -> Option<(String, String)> {
    let told = find(status, "RolledOut").filter(|c| OBSTACLES.contains(&c.reason.as_str()))?;
    Some((told.reason.clone(), told.message.clone()))
}

/// The worst is told. Nothing to say while no workload ever restarted for this binding.
fn verdict(facts: &Facts<'_>) -> Option<(&'static str, String, String)> {
    let of = |phase: RolloutPhase| -> Vec<&str> {
        facts.rollouts.iter().filter(|(_, r)| r.phase == phase).map(|(name, _)| name.as_str()).collect()
    };
    if let Some((reason, message)) = facts.obstacle {
        return Some(("False", reason.clone(), message.clone()));
    }
    if let Some(hold) = facts.hold {
        let (failed, version) = (hold.failed, hold.version);
        if hold.unavailable {
            let message =
                format!("version {failed} failed, and Ennote no longer has version {version}, with which all was well");
            return Some(("False", "RevertFailed".to_owned(), message));
        }
        let standing = count(facts.rollouts, &[RolloutPhase::Progressing, RolloutPhase::Pending, RolloutPhase::Failed]);
        let message = format!(
            "version {failed} failed, version {version} is held in its place{}; a newer version ends that, or the annotation \
             ennote.io/resume, which tries version {failed} again",
            if standing.is_empty() { String::new() } else { format!(" ({standing})") }
        );
        return Some(("False", "RolledBack".to_owned(), message));
    }
    let order = [
        (RolloutPhase::Failed, "False", "Failed", "failed"),
        (RolloutPhase::Progressing, "Unknown", "Progressing", "in progress"),
        (RolloutPhase::Pending, "Unknown", "Pending", "pending"),
        (RolloutPhase::Reverted, "False", "Reverted", "reverted by someone else"),
    ];
    for (phase, status, reason, verb) in order {
        let names = of(phase);
        if !names.is_empty() {
            let mut message = said(verb, &names);
            if let Some(why) = why(facts.rollouts, phase) {
                message = format!("{message}: {why}");
            }
            let halted = facts.rollouts.values().filter(|r| r.reason.as_deref() == Some(HALTED)).count();
            if phase == RolloutPhase::Failed && halted > 0 {
                message = format!("{message}; {halted} more wait for that: see status.rollouts");
            }
            let ambiguous = facts.rollouts.values().any(|r| r.phase == phase && r.reason.as_deref() == Some(AMBIGUOUS));
            let reason = if ambiguous { AMBIGUOUS } else { reason };
            return Some((status, reason.to_owned(), message));
        }
    }
    let done = count(facts.rollouts, &[RolloutPhase::Complete, RolloutPhase::Skipped]);
    (!done.is_empty()).then(|| ("True", "Complete".to_owned(), done))
}

/// The sentence that all workloads of a phase share, if they do.
fn why(rollouts: &BTreeMap<String, RolloutStatus>, phase: RolloutPhase) -> Option<&str> {
    let mut sentences = rollouts.values().filter(|r| r.phase == phase).map(|r| r.message.as_str());
    let first = sentences.next().filter(|sentence| !sentence.is_empty())?;
    sentences.all(|other| other == first).then_some(first)
}

fn said(verb: &str, names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {verb}: {}{rest}", names.len(), names[..names.len() - more].join(", "))
}

fn count(rollouts: &BTreeMap<String, RolloutStatus>, phases: &[RolloutPhase]) -> String {
    let parts = phases.iter().filter_map(|phase| {
        let names: Vec<&str> = rollouts.iter().filter(|(_, r)| r.phase == *phase).map(|(n, _)| n.as_str()).collect();
        let verb = format!("{phase:?}").to_lowercase();
        (!names.is_empty()).then(|| said(&verb, &names))
    });
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use RolloutPhase::{Complete, Failed, Pending, Progressing, Reverted, Skipped};

    fn told(of: &[(&str, RolloutPhase)], hold: Option<&Hold>) -> Option<(String, String)> {
        let rollout = |name: &str, phase| RolloutStatus {
            kind: "Deployment".into(),
            name: name.into(),
            version: 1,
            phase,
            ready: 0,
            desired: 1,
            started_at: None,
            finished_at: None,
            reason: None,
            message: String::new(),
            also_for: vec![],
        };
        let rollouts = of.iter().map(|(name, phase)| (format!("Deployment/{name}"), rollout(name, *phase))).collect();
        let facts = Facts { rollouts: &rollouts, hold, obstacle: None };
        let condition = condition(&facts, &Default::default(), 1, Timestamp::UNIX_EPOCH).pop()?;
        Some((format!("{}/{}", condition.status, condition.reason), condition.message))
    }

    fn reason(of: &[(&str, RolloutPhase)]) -> Option<String> {
        told(of, None).map(|(reason, _)| reason)
    }

    #[test]
    fn the_worst_phase_names_the_condition() {
        assert_eq!(reason(&[]), None);
        assert_eq!(reason(&[("a", Complete), ("b", Complete)]).as_deref(), Some("True/Complete"));
        assert_eq!(reason(&[("a", Complete), ("b", Progressing)]).as_deref(), Some("Unknown/Progressing"));
        assert_eq!(reason(&[("a", Failed), ("b", Progressing)]).as_deref(), Some("False/Failed"));
        assert_eq!(reason(&[("a", Pending), ("b", Reverted)]).as_deref(), Some("Unknown/Pending"));
    }

    #[test]
    fn the_message_counts_and_names() {
        let message = |of: &[(&str, RolloutPhase)]| told(of, None).unwrap().1;
        assert_eq!(message(&[("a", Complete), ("b", Skipped)]), "1 complete: Deployment/a; 1 skipped: Deployment/b");
        let many: Vec<String> = (0..13).map(|n| format!("w{n:02}")).collect();
        let many: Vec<(&str, RolloutPhase)> = many.iter().map(|name| (name.as_str(), Complete)).collect();
        assert!(message(&many).ends_with("Deployment/w09 and 3 more"), "{}", message(&many));
    }

    #[test]
    fn a_version_that_is_held_is_never_told_as_success() {
        let mut hold = Hold { version: 6, failed: 7, since: Time(Timestamp::UNIX_EPOCH), unavailable: false };
        let (reason, message) = told(&[("a", Complete)], Some(&hold)).unwrap();
        assert_eq!(reason, "False/RolledBack");
        assert!(message.starts_with("version 7 failed, version 6 is held in its place;"), "{message}");
        hold.unavailable = true;
        assert_eq!(told(&[("a", Failed)], Some(&hold)).unwrap().0, "False/RevertFailed");
    }
}
