//! What comes of a pass, and how soon the next one follows.

use crate::cloud::inbox::Wanted;
use crate::crd::EnnoteSecretBinding;
use crate::domain::conditions::find;
use crate::domain::outcome::Outcome;
use crate::domain::reason::{Phase, Problem};
use std::time::Duration;

/// What comes of a pass.
pub(super) enum Pass {
    /// Say this, and look again then.
    Done { outcome: Outcome, again: Option<Duration>, acknowledge: Option<(Wanted, u64)> },
    /// Too early to say anything.
    Hold(Duration),
}

impl Pass {
    pub(super) fn say(outcome: impl Into<Outcome>) -> Self {
        Self::Done { outcome: outcome.into(), again: None, acknowledge: None }
    }

    pub(super) fn say_until(outcome: impl Into<Outcome>, again: Duration) -> Self {
        Self::Done { outcome: outcome.into(), again: Some(again), acknowledge: None }
    }

    /// The next one follows within this time, if one is given.
    pub(super) fn within(self, longest: Option<Duration>) -> Self {
        match (self, longest) {
            (Self::Done { outcome, again, acknowledge }, Some(longest)) => {
                let again = Some(again.map_or(longest, |again| again.min(longest)));
                Self::Done { outcome, again, acknowledge }
            }
            (pass, _) => pass,
        }
    }
}

/// A delivery that has to wait does not make what is synced less so; anything else does.
pub(super) fn trouble(binding: &EnnoteSecretBinding, problem: Problem) -> Outcome {
    if is_ready(binding) && problem.reason.phase() == Phase::Waiting { Outcome::Unchanged } else { problem.into() }
}

/// Whether this very spec is said to be ready: what was so for an earlier one says nothing of it.
pub(super) fn is_ready(binding: &EnnoteSecretBinding) -> bool {
    let ready = binding.status.as_ref().and_then(|status| find(status, "Ready"));
    ready.is_some_and(|ready| ready.status == "True" && ready.observed_generation == binding.metadata.generation)
}

/// 1 to 5 minutes, by denials in a row, and up to a fifth less.
pub(super) fn deny_pause(failures: u32, spread: f64) -> Duration {
    let longest = Duration::from_secs(60 << failures.min(3)).min(Duration::from_secs(300));
    longest.mul_f64(1.0 - 0.2 * spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;

    #[test]
    fn a_denial_is_asked_about_again_after_1_to_5_minutes() {
        let pauses: Vec<u64> = [0, 1, 2, 3, 40].map(|n| deny_pause(n, 0.0).as_secs()).into();
        assert_eq!(pauses, [60, 120, 240, 300, 300]);
        assert_eq!(deny_pause(0, 1.0).as_secs(), 48);
    }

    #[test]
    fn what_has_to_be_looked_at_sooner_is() {
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(9));
        let again = |pass: Pass, longest| match pass.within(longest) {
            Pass::Done { again, .. } => again,
            Pass::Hold(pause) => Some(pause),
        };
        assert_eq!(again(Pass::say(Outcome::Unchanged), Some(soon)), Some(soon));
        assert_eq!(again(Pass::say_until(Outcome::Unchanged, late), Some(soon)), Some(soon));
        assert_eq!(again(Pass::say_until(Outcome::Unchanged, soon), Some(late)), Some(soon));
        assert_eq!(again(Pass::say(Outcome::Unchanged), None), None);
        assert_eq!(again(Pass::Hold(late), Some(soon)), Some(late), "it holds for what is not known yet");
    }

    #[test]
    fn a_delivery_that_waits_does_not_turn_a_synced_binding() {
        let binding = |status: &str| -> EnnoteSecretBinding {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
                "metadata": {"name": "db", "generation": 2}, "spec": {"source": {"secret": "s"}},
                "status": {"conditions": [{"type": "Ready", "status": status, "reason": "r", "message": "m",
                    "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap()
        };
        let said = |status: &str, reason| trouble(&binding(status), Problem::new(reason, "m"));
        assert_eq!(said("True", Reason::WaitingForCloud), Outcome::Unchanged);
        assert_eq!(said("Unknown", Reason::WaitingForCloud), Problem::new(Reason::WaitingForCloud, "m").into());
        assert_eq!(said("True", Reason::ClusterError), Problem::new(Reason::ClusterError, "m").into());
        let mut edited = binding("True");
        edited.metadata.generation = Some(3);
        let waits = Problem::new(Reason::WaitingForCloud, "m");
        assert_eq!(trouble(&edited, waits.clone()), waits.into(), "what was ready is an earlier spec");
    }
}
