//! The mass-delete fuse: how many Secrets may go because their secrets were deleted in the cloud.

use crate::crd::EnnoteSecretBinding;
use crate::domain::conditions::find;
use crate::domain::reason::Reason;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Annotation on a binding: the version of the tombstone that may be executed although the fuse has blown.
pub const CONFIRM: &str = "ennote.io/confirm-deletions";
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// Whether one more deletion is within the fuse: of the bindings whose status turned SourceDeleted in the last hour, at most
/// max(5, 20 %) are executed. Judged by the API server's record, so an agent restart forgets nothing.
pub fn within_fuse<'a>(bindings: impl IntoIterator<Item = &'a EnnoteSecretBinding>, now: Timestamp) -> bool {
    let (mut all, mut recent) = (0_usize, 0_usize);
    for binding in bindings {
        all += 1;
        let ready = binding.status.as_ref().and_then(|s| find(s, "Ready"));
        let turned = ready.filter(|c| c.reason == Reason::SourceDeleted.to_string());
        if turned.is_some_and(|c| now.duration_since(c.last_transition_time.0) < WINDOW) {
            recent += 1;
        }
    }
    recent <= (all / 5).max(5)
}

/// Whether a person has confirmed the deletion at this version.
pub fn confirmed(binding: &EnnoteSecretBinding, version: u64) -> bool {
    let annotations = binding.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(CONFIRM)).is_some_and(|v| v.trim().parse() == Ok(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(reason: &str, age: i64) -> EnnoteSecretBinding {
        let at = Timestamp::from_second(100_000 - age).unwrap().to_string();
        serde_json::from_value(json!({
            "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
            "metadata": {"name": "b", "annotations": {CONFIRM: "7"}},
            "spec": {"source": {"secret": "s"}},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason, "message": "m", "lastTransitionTime": at}]},
        }))
        .unwrap()
    }

    fn verdict(deleted: usize, all: usize, age: i64) -> bool {
        let mut bindings: Vec<_> = (0..deleted).map(|_| binding("SourceDeleted", age)).collect();
        bindings.extend((deleted..all).map(|_| binding("Synced", age)));
        within_fuse(&bindings, Timestamp::from_second(100_000).unwrap())
    }

    #[test]
    fn five_or_a_fifth_go_in_an_hour_and_no_more() {
        assert!(verdict(5, 5, 10) && !verdict(6, 6, 10));
        assert!(verdict(20, 100, 10) && !verdict(21, 100, 10));
        assert!(verdict(100, 100, 3700), "an hour later");
    }

    #[test]
    fn a_person_confirms_one_version() {
        assert!(confirmed(&binding("SourceDeleted", 1), 7) && !confirmed(&binding("SourceDeleted", 1), 8));
    }
}
