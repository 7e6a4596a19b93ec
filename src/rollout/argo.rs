//! Argo's Rollout, reduced on arrival.

use crate::rollout::workload::{Kind, Numbers, Workload};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// argoproj.io/v1alpha1 Rollout, as far as it is read. Its template is JSON: Argo's CRD takes what is no Kubernetes type, as
/// in `cpu: 1`, and one such object must not fail the list of all.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct ArgoRollout {
    /// As of any object.
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// A Rollout whose template lives in a Deployment (`spec.workloadRef`) reads nothing: only binding names in
/// `ennote.io/restart` opt it in, `auto` does not.
///
/// A restart is not an update: Argo replaces the pods of all templates that an update has left standing, and
/// `status.restartedAt` follows `spec.restartAt` when none is older. So the pods of a canary or a preview count like the
/// others, and the numbers say nothing of updates. What is up is not counted while the restart is under way: Argo does not
/// tell which pods are the new ones.
impl From<ArgoRollout> for Workload {
    fn from(object: ArgoRollout) -> Self {
        let ArgoRollout { metadata, spec, status } = object;
        let reduced = Self::reduce(Kind::Rollout, &metadata, &spec["template"]);
        let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok());
        let desired = number(&spec["replicas"]).unwrap_or(1);
        // More of them stand during a canary or behind a preview; none of them is waited for.
        let up_to_desired = |value: &Value| number(value).unwrap_or(0).min(desired);
        let total = up_to_desired(&status["replicas"]);
        Self {
            stamp: spec["restartAt"].as_str().map(str::to_owned),
            template: String::new(),
            numbers: Numbers {
                observed_generation: observed(&status["observedGeneration"], metadata.generation),
                desired,
                updated: if restarted(&spec["restartAt"], &status["restartedAt"]) { total } else { 0 },
                total,
                ready: up_to_desired(&status["readyReplicas"]),
                available: up_to_desired(&status["availableReplicas"]),
                deadline_exceeded: false,
            },
            ..reduced
        }
    }
}

/// Text with a number. Releases before 0.10 wrote a hash instead, which Argo's own tools take for the newest.
fn observed(value: &Value, generation: Option<i64>) -> i64 {
    match value.as_str() {
        None | Some("") => 0,
        Some(text) => text.parse().unwrap_or(generation.unwrap_or(0)),
    }
}

fn restarted(wanted: &Value, done: &Value) -> bool {
    let at = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    // Nobody ever asked for a restart, or not in words that Argo reads.
    at(wanted).is_none_or(|wanted| at(done).is_some_and(|done| done >= wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::RolloutPhase;
    use crate::rollout::opt_in::OptInRules;
    use crate::rollout::progress;
    use crate::rollout::workload::Stamp;
    use k8s_openapi::jiff::SignedDuration;
    use serde_json::json;

    fn rollout(edit: impl FnOnce(&mut Value)) -> Workload {
        let mut object = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "5", "generation": 3,
                "annotations": {"ennote.io/restart": "auto"}},
            "spec": {"replicas": 3, "restartAt": "2026-01-01T00:00:06Z", "strategy": {"canary": {}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c",
                    "resources": {"limits": {"cpu": 1}}, "env": [{"name": "L", "value": "canary"}],
                    "envFrom": [{"secretRef": {"name": "db"}}]}]}}},
            "status": {"observedGeneration": "3", "restartedAt": "2026-01-01T00:00:06Z", "HPAReplicas": 3, "replicas": 3,
                "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3, "phase": "Healthy"},
        });
        edit(&mut object);
        serde_json::from_value::<ArgoRollout>(object).unwrap().into()
    }

    fn phase(edit: impl FnOnce(&mut Value)) -> RolloutPhase {
        let start = Timestamp::UNIX_EPOCH;
        progress::of(&rollout(edit), start, SignedDuration::from_mins(10), start + SignedDuration::from_secs(1)).0
    }

    #[test]
    fn a_rollout_is_reduced_like_the_others() {
        let web = rollout(|_| ());
        assert_eq!((web.key(), web.kind, Kind::of_key(web.key())), ("Rollout/web", Kind::Rollout, Some(Kind::Rollout)));
        assert!(
            web.restarts_for("any", "db", &OptInRules::default())
                && !web.restarts_for("any", "x", &OptInRules::default())
        );
        assert_eq!(web.stamp.as_deref(), Some("2026-01-01T00:00:06Z"));
        assert!(!serde_json::to_string(&web).unwrap().contains("canary"), "no literal value is kept");
        assert_eq!(web.template, rollout(|o| o["spec"]["template"]["metadata"] = json!({})).template);
    }

    #[test]
    fn of_a_template_that_lives_elsewhere_only_a_named_list_opts_in() {
        let by_reference = |says: &str| {
            rollout(|o| {
                o["metadata"]["annotations"]["ennote.io/restart"] = json!(says);
                o["spec"]["workloadRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
                o["spec"].as_object_mut().unwrap().remove("template");
            })
        };
        let consumers = OptInRules { consumers: true, reloader: false };
        assert!(!by_reference("auto").restarts_for("a", "db", &consumers));
        assert!(!by_reference("").restarts_for("a", "db", &consumers));
        assert!(by_reference("a").restarts_for("a", "db", &OptInRules::default()));
    }

    #[test]
    fn a_restart_that_was_asked_for_late_enough_is_carried() {
        let carries = |restart_at: Value, changed_at: &str| {
            let stamp = Stamp::new("c".into(), changed_at.parse().unwrap());
            rollout(|o| o["spec"]["restartAt"] = restart_at).carries(&stamp)
        };
        assert!(carries(json!("2026-01-01T00:00:06Z"), "2026-01-01T00:00:05Z"), "our own");
        assert!(carries(json!("2026-01-01T01:00:07+01:00"), "2026-01-01T00:00:05.9Z"), "someone else's, later");
        assert!(!carries(json!("2026-01-01T00:00:05Z"), "2026-01-01T00:00:05Z"), "may have read the old Secret");
        assert!(!carries(json!(null), "2026-01-01T00:00:05Z") && !carries(json!("soon"), "2026-01-01T00:00:05Z"));
    }

    #[test]
    fn a_restart_is_complete_when_argo_says_so_and_the_pods_are_up() {
        assert_eq!(phase(|_| ()), RolloutPhase::Complete);
        assert_eq!(phase(|o| o["status"]["restartedAt"] = json!("2026-01-01T00:00:07Z")), RolloutPhase::Complete);
        for (what, edit) in [
            ("restarting", json!({"restartedAt": "2026-01-01T00:00:05Z"})),
            ("never restarted", json!({"restartedAt": null})),
            ("not seen", json!({"observedGeneration": "2"})),
            ("never seen", json!({"observedGeneration": null})),
            ("not up", json!({"availableReplicas": 2})),
            ("not there", json!({"replicas": 2})),
        ] {
            let edited = |o: &mut Value| o["status"].as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
            assert_eq!(phase(edited), RolloutPhase::Progressing, "{what}");
        }
        let old = |o: &mut Value| o["status"]["observedGeneration"] = json!("58c975674b");
        assert_eq!(phase(old), RolloutPhase::Complete, "a hash, as before 0.10");
        assert_eq!(progress::ready(&rollout(|o| o["status"]["restartedAt"] = json!(null))), 0);
        assert_eq!(progress::ready(&rollout(|o| o["status"]["readyReplicas"] = json!(2))), 2);
    }

    #[test]
    fn an_update_that_waits_between_its_steps_holds_up_no_restart() {
        let canary = |o: &mut Value| {
            o["spec"]["paused"] = json!(true);
            o["status"]["updatedReplicas"] = json!(1);
            o["status"]["replicas"] = json!(4);
            o["status"]["readyReplicas"] = json!(4);
            o["status"]["availableReplicas"] = json!(4);
            o["status"]["phase"] = json!("Paused");
        };
        assert_eq!(phase(canary), RolloutPhase::Complete);
        assert!(!rollout(canary).paused);
        assert_eq!(progress::ready(&rollout(canary)), 3);
        let none = |o: &mut Value| {
            o["spec"]["replicas"] = json!(0);
            o["status"] = json!({"observedGeneration": "3"});
        };
        assert_eq!(phase(none), RolloutPhase::Complete);
    }
}
