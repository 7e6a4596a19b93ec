//! Where a restart stands, from the workload's own status and nothing else.

use crate::crd::RolloutPhase;
use crate::rollout::cause::{Cause, Why};
use crate::rollout::workload::{Kind, Workload};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A set that goes pod by pod and has not replaced one after this long is held up by a pod.
pub const HELD_UP: SignedDuration = SignedDuration::from_secs(30);

/// Phase and what to say of it.
pub fn of(
    workload: &Workload,
    started_at: Timestamp,
    timeout: SignedDuration,
    now: Timestamp,
) -> (RolloutPhase, Option<Why>) {
    if is_settled(workload) {
        return (RolloutPhase::Complete, None);
    }
    let (up, desired) = (ready(workload), workload.numbers.desired);
    let since = now.duration_since(started_at);
    let failed = |cause, what: &str| {
        let message = format!("{what}, {up} of {desired} pods up; see: {}", look(workload));
        (RolloutPhase::Failed, Some(Why::new(cause, message)))
    };
    if is_seen(workload) && workload.numbers.deadline_exceeded {
        return failed(Cause::ProgressDeadlineExceeded, "progress deadline exceeded");
    }
    // However long nobody does that, it is no failure of what is to be rolled out.
    if workload.on_delete {
        let message = "updateStrategy is OnDelete: pods change when someone deletes them";
        return (RolloutPhase::Pending, Some(Why::new(Cause::AwaitingPodDeletion, message)));
    }
    if since > timeout {
        return failed(Cause::TimedOut, &format!("not complete after {timeout:#}"));
    }
    if since > HELD_UP
        && let Some(pod) = pod_in_the_way(workload)
    {
        let message = format!(
            "the set waits for {pod} to become ready, which is of an older template: kubectl delete pod {pod} -n {}",
            workload.namespace()
        );
        return (RolloutPhase::Progressing, Some(Why::new(Cause::AwaitingPodDeletion, message)));
    }
    (RolloutPhase::Progressing, None)
}

/// Whether all pods are of the newest template, ready and available.
pub fn is_settled(workload: &Workload) -> bool {
    let n = &workload.numbers;
    if !is_seen(workload) {
        return false;
    }
    if n.desired == 0 {
        return n.total == 0;
    }
    // Pods below the partition keep the old template until someone lowers it.
    let to_update = (n.desired - workload.partition).max(0);
    n.updated >= to_update && n.total <= n.desired && n.available >= n.desired
}

/// Whether pods are being replaced. Pods that are not ready are no rollout.
pub fn is_rolling(workload: &Workload) -> bool {
    let n = &workload.numbers;
    !is_seen(workload) || n.updated < (n.desired - workload.partition).max(0) || n.total > n.desired
}

/// Pods that are certainly both of the newest template and ready. The status counts the two apart, so pods of older templates
/// are taken to be among the ready ones.
pub fn ready(workload: &Workload) -> i32 {
    let n = &workload.numbers;
    if is_seen(workload) { (n.ready - (n.total - n.updated).max(0)).clamp(0, n.updated.max(0)) } else { 0 }
}

/// The pod of an older template that an OrderedReady set waits for before it replaces any: such a set never gets past a pod
/// that does not become ready, not even by a template that would mend it.
/// <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback>
fn pod_in_the_way(workload: &Workload) -> Option<String> {
    let n = &workload.numbers;
    let held = workload.kind == Kind::StatefulSet && workload.ordered && is_seen(workload);
    // Sets are updated from the highest ordinal down, so that is where a template that failed has begun.
    (held && n.updated == 0 && n.ready < n.desired)
        .then(|| format!("{}-{}", workload.name, workload.first_ordinal + n.desired - 1))
}

/// Whether the numbers speak of the newest template.
fn is_seen(workload: &Workload) -> bool {
    workload.numbers.observed_generation >= workload.metadata.generation.unwrap_or(0)
}

fn look(workload: &Workload) -> String {
    let command = match workload.kind {
        Kind::Deployment => "kubectl rollout status deployment/",
        Kind::StatefulSet => "kubectl rollout status statefulset/",
        Kind::DaemonSet => "kubectl rollout status daemonset/",
        Kind::Rollout => "kubectl argo rollouts status ",
    };
    format!("{command}{} -n {}", workload.name, workload.namespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::workload::tests::{deployment, stateful_set};
    use serde_json::json;

    const TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

    fn phase(edit: impl FnOnce(&mut serde_json::Value), seconds: i64) -> RolloutPhase {
        let start = Timestamp::UNIX_EPOCH;
        of(&deployment(edit), start, TIMEOUT, start + SignedDuration::from_secs(seconds)).0
    }

    #[test]
    fn pods_that_nobody_deletes_are_no_failure_and_pods_that_are_not_ready_no_rollout() {
        let on_delete = |o: &mut serde_json::Value| {
            o["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
            o["status"]["updatedReplicas"] = json!(0);
        };
        let set = stateful_set(on_delete);
        let late = Timestamp::UNIX_EPOCH + TIMEOUT * 2;
        assert_eq!(of(&set, Timestamp::UNIX_EPOCH, TIMEOUT, late).0, RolloutPhase::Pending);
        let rolling = |edit: fn(&mut serde_json::Value)| is_rolling(&deployment(edit));
        assert!(!rolling(|o| o["status"]["availableReplicas"] = json!(0)));
        assert!(rolling(|o| o["status"]["updatedReplicas"] = json!(1)));
        assert!(rolling(|o| o["status"]["replicas"] = json!(3)));
        assert!(rolling(|o| o["metadata"]["generation"] = json!(9)));
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

    #[test]
    fn a_set_that_is_held_up_names_the_pod() {
        let start = Timestamp::UNIX_EPOCH;
        let told = |edit: fn(&mut serde_json::Value), seconds: i64| {
            let set = stateful_set(|o| {
                o["status"] = json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 2, "availableReplicas": 2,
                    "updatedReplicas": 0, "currentRevision": "r1", "updateRevision": "r3"});
                edit(o);
            });
            of(&set, start, TIMEOUT, start + SignedDuration::from_secs(seconds)).1.map(|why| why.message)
        };
        assert_eq!(told(|_| (), 5), None, "pods take a moment");
        let message = told(|_| (), 31).unwrap();
        assert!(message.contains("kubectl delete pod db-2 -n shop"), "{message}");
        assert!(told(|o| o["spec"]["ordinals"] = json!({"start": 5}), 31).unwrap().contains("db-7"));
        assert_eq!(told(|o| o["spec"]["podManagementPolicy"] = json!("Parallel"), 31), None);
        assert_eq!(told(|o| o["status"]["updatedReplicas"] = json!(1), 31), None, "it goes on");
    }

    #[test]
    fn pods_below_the_partition_are_not_waited_for() {
        let set = stateful_set(|o| {
            o["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
            o["status"] = json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3,
                "updatedReplicas": 1, "currentRevision": "r1", "updateRevision": "r2"});
        });
        assert!(is_settled(&set));
    }
}
