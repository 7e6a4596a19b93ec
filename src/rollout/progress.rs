//! Where a restart stands, from the workload's own status and nothing else.

use crate::crd::RolloutPhase;
use crate::rollout::workload::{Kind, Workload};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A rollout that is not complete after this long has failed.
pub const TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// Phase, updated-and-ready pods, and what to say.
pub fn of(workload: &Workload, started_at: Timestamp, now: Timestamp) -> (RolloutPhase, String) {
    let n = &workload.numbers;
    let seen = n.observed_generation >= workload.metadata.generation.unwrap_or(0);
    let up = n.updated.min(n.available);
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

/// Pods that are both of the newest template and ready, as far as the status tells.
pub fn ready(workload: &Workload) -> i32 {
    workload.numbers.updated.min(workload.numbers.ready)
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
