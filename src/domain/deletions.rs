//! The mass-delete fuse: how many Secrets may go because their secrets were deleted in the cloud.

use crate::crd::EnnoteSecretBinding;
use crate::domain::conditions::find;
use crate::domain::metadata::is_ours;
use crate::domain::observed::Existing;
use crate::domain::reason::Reason;
use crate::domain::request::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Annotation on a binding: the version of the tombstone that may be executed although the fuse has blown.
pub const CONFIRM: &str = "ennote.io/confirm-deletions";
/// Name and uid of the owner that a Secret is given so that the garbage collector deletes it: there is no such object.
pub const NOBODY: (&str, &str) = ("deleted-in-ennote", "00000000-0000-0000-0000-000000000000");
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// How every message about a deletion begins; the status is recognised by it.
pub fn notice(secret: &str, version: impl std::fmt::Display) -> String {
    format!("{secret:?} was deleted in Ennote at version {version}")
}

/// The condition that tells of exactly this deletion, if status does.
pub fn told<'a>(binding: &'a EnnoteSecretBinding, notice: &str) -> Option<&'a Condition> {
    let rest =
        |c: &&Condition| c.message.strip_prefix(notice).is_some_and(|r| !r.starts_with(|d: char| d.is_ascii_digit()));
    turned(binding).filter(rest)
}

/// Whether the deletion of this binding's Secret is within the fuse: of the bindings whose status turned SourceDeleted in the
/// last hour, at most max(5, 20 %) are executed. One that turned earlier and still has its Secret was held back, or the
/// setting came later: that is for a person. Judged by the API server's record, so an agent restart forgets nothing.
pub fn within_fuse<'a>(
    own: &EnnoteSecretBinding,
    bindings: impl IntoIterator<Item = &'a EnnoteSecretBinding>,
    now: Timestamp,
) -> bool {
    let recent = |binding: &EnnoteSecretBinding| {
        turned(binding).is_some_and(|c| now.duration_since(c.last_transition_time.0) < WINDOW)
    };
    let (mut all, mut count) = (0_usize, 0_usize);
    for binding in bindings {
        all += 1;
        count += usize::from(recent(binding));
    }
    recent(own) && count <= (all / 5).max(5)
}

fn turned(binding: &EnnoteSecretBinding) -> Option<&Condition> {
    let ready = binding.status.as_ref().and_then(|s| find(s, "Ready"));
    ready.filter(|c| c.reason == Reason::SourceDeleted.to_string())
}

/// Whether a Secret is this binding's to delete: the one that it wrote last, by the API server's record, and still marked as its
/// own. One that it may only take over, or that an earlier binding of its name left behind, is somebody's data.
pub fn may_go(binding: &EnnoteSecretBinding, request: &Request, secret: &Existing) -> bool {
    let target = binding.status.as_ref().and_then(|status| status.target.as_ref());
    target.is_some_and(|target| target.uid == secret.uid) && is_ours(request, secret)
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
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason, "message": "\"s\" was deleted in Ennote at version 7; more", "lastTransitionTime": at}]},
        }))
        .unwrap()
    }

    fn verdict(deleted: usize, all: usize, age: i64) -> bool {
        let mut bindings: Vec<_> = (0..deleted).map(|_| binding("SourceDeleted", age)).collect();
        bindings.extend((deleted..all).map(|_| binding("Synced", age)));
        within_fuse(&binding("SourceDeleted", age), &bindings, Timestamp::from_second(100_000).unwrap())
    }

    #[test]
    fn five_or_a_fifth_go_in_an_hour_and_no_more() {
        assert!(verdict(5, 5, 10) && !verdict(6, 6, 10));
        assert!(verdict(20, 100, 10) && !verdict(21, 100, 10));
        assert!(
            !verdict(100, 100, 3700) && !verdict(1, 100, 3700),
            "what was held for an hour is not released by time"
        );
    }

    #[test]
    fn status_tells_of_one_deletion_and_not_of_another() {
        let told_of =
            |secret: &str, version: u64, reason: &str| told(&binding(reason, 1), &notice(secret, version)).is_some();
        assert!(told_of("s", 7, "SourceDeleted"));
        assert!(!told_of("s", 8, "SourceDeleted") && !told_of("t", 7, "SourceDeleted"));
        assert!(!told_of("s", 7, "Synced"));
        let mut seventy = binding("SourceDeleted", 1);
        seventy.status.as_mut().unwrap().conditions[0].message = format!("{}; more", notice("s", 70));
        assert!(told(&seventy, &notice("s", 7)).is_none());
    }

    #[test]
    fn only_the_secret_that_the_binding_wrote_may_go() {
        use crate::domain::ownership::tests::{ours, request};
        let wrote = |uid: &str| {
            let mut binding = binding("SourceDeleted", 1);
            let target = json!({"name": "payments-db", "uid": uid, "resourceVersion": "1", "keys": 1});
            binding.status.as_mut().unwrap().target = Some(serde_json::from_value(target).unwrap());
            binding
        };
        let may = |secret: &Existing| may_go(&wrote("secret-1"), &request(), secret);
        assert!(may(&ours()));
        let foreign = Existing { managed_by: None, binding_id: None, adopt: Some("payments-db".into()), ..ours() };
        assert!(!may(&foreign), "handed over by a person, and not taken yet");
        assert!(!may(&Existing { binding_id: Some("of a younger one".into()), ..ours() }));
        assert!(!may_go(&wrote("another"), &request(), &ours()), "left behind by a binding of this name");
        assert!(!may_go(&binding("SourceDeleted", 1), &request(), &ours()), "nothing was ever written");
    }

    #[test]
    fn a_person_confirms_one_version() {
        assert!(confirmed(&binding("SourceDeleted", 1), 7) && !confirmed(&binding("SourceDeleted", 1), 8));
    }
}
