//! Where a restart stands, from the workload's own status and nothing else.

use crate::crd::RolloutPhase;
use crate::rollout::workload::{Kind, Workload};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A rollout that is not complete after this long has failed.
pub const TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// Phase, updated-and-ready pods, and what to say.
pub fn of(workload: &Workload, started_at: Timestamp, now: Timestamp) -> (RolloutPhase, String) {
    let n = &workload.numbers;
    let seen = is_seen(workload);
    let up = ready(workload);
    if seen && n.desired == 0 && n.total == 0 {
        return (RolloutPhase::Complete, String::new());
    }
    if seen && n.updated >= n.desired && n.total <= n.desired && n.available >= n.desired {
        return (RolloutPhase::Complete, String::new());
    }
    if seen && n.deadline_exceeded {
        return (
            RolloutPhase::Failed,
            format!("progress deadline exceeded with {up} of {} pods up; see: {}", n.desired, look(workload)),
        );
    }
    if now.duration_since(started_at) > TIMEOUT {
        return (
            RolloutPhase::Failed,
            format!("not complete after 10 minutes, {up} of {} pods up; see: {}", n.desired, look(workload)),
        );
    }
    if workload.on_delete {
        return (
            RolloutPhase::Pending,
            "AwaitingPodDeletion: updateStrategy is OnDelete, pods change when they are deleted".to_owned(),
        );
    }
    (RolloutPhase::Progressing, String::new())
}

/// Pods that are certainly both of the newest template and ready. The status counts the two apart, so pods of older templates
/// are taken to be among the ready ones.
pub fn ready(workload: &Workload) -> i32 {
    let n = &workload.numbers;
    if is_seen(workload) { (n.ready - (n.total - n.updated).max(0)).clamp(0, n.updated.max(0)) } else { 0 }
}

/// Whether the numbers speak of the newest template.
fn is_seen(workload: &Workload) -> bool {
    workload.numbers.observed_generation >= workload.metadata.generation.unwrap_or(0)
}

fn look(workload: &Workload) -> String {
    let kind = match workload.kind {
        Kind::Deployment => "deployment",
        Kind::StatefulSet => "statefulset",
        Kind::DaemonSet => "daemonset",
    };
    format!("kubectl rollout status {kind}/{} -n {}", workload.name, workload.namespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::workload::tests::deployment;
    use serde_json::json;

    fn phase(edit: impl FnOnce(&mut serde_json::Value), seconds: i64) -> RolloutPhase {
        let start = Timestamp::UNIX_EPOCH;
        of(&deployment(edit), start, start + SignedDuration::from_secs(seconds)).0
    }

    #[test]
    fn only_pods_of_the_newest_template_count_as_up() {
        let up = |total: i32, updated: i32, ready_pods: i32, generation: i32| {
            ready(&deployment(|o| {
                o["metadata"]["generation"] = json!(generation);
                o["status"]["replicas"] = json!(total);
                o["status"]["updatedReplicas"] = json!(updated);
                o["status"]["readyReplicas"] = json!(ready_pods);
            }))
        };
        assert_eq!(up(2, 2, 2, 2), 2);
        assert_eq!(up(2, 2, 2, 3), 0, "numbers of the old template");
        assert_eq!(up(3, 1, 2, 2), 0, "two old ones are up, the new one is not");
        assert_eq!(up(3, 1, 3, 2), 1);
        assert_eq!(up(2, 2, 1, 2), 1);
    }

    #[test]
    fn a_rollout_is_what_the_workloads_status_says() {
        assert_eq!(phase(|_| (), 1), RolloutPhase::Complete);
        assert_eq!(phase(|o| o["metadata"]["generation"] = json!(3), 1), RolloutPhase::Progressing, "not seen yet");
        assert_eq!(phase(|o| o["status"]["updatedReplicas"] = json!(1), 1), RolloutPhase::Progressing);
        assert_eq!(phase(|o| o["status"]["replicas"] = json!(3), 1), RolloutPhase::Progressing, "old pods still there");
        assert_eq!(phase(|o| o["status"]["availableReplicas"] = json!(1), 600), RolloutPhase::Progressing);
        assert_eq!(phase(|o| o["status"]["availableReplicas"] = json!(1), 601), RolloutPhase::Failed);
        let exceeded = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        let stuck = |o: &mut serde_json::Value| {
            o["status"]["availableReplicas"] = json!(1);
            o["status"]["conditions"] = exceeded.clone();
        };
        assert_eq!(phase(stuck, 1), RolloutPhase::Failed);
        let none = |o: &mut serde_json::Value| {
            o["spec"]["replicas"] = json!(0);
            o["status"] = json!({"observedGeneration": 2});
        };
        assert_eq!(phase(none, 1), RolloutPhase::Complete);
    }
}
