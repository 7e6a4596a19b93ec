//! What a binding says of restarts, parsed, with what stands in for what it does not say.

use crate::crd::{OnFailure, Rollout, RolloutMatch, RolloutPolicy, RolloutWorkloads, Span};
use crate::rollout::windows::Window;
use k8s_openapi::jiff::SignedDuration;

/// Changes to one workload inside this time cost one restart.
pub const QUIET: SignedDuration = SignedDuration::from_secs(2);
/// Between two restarts of one workload.
pub const MIN_INTERVAL: SignedDuration = SignedDuration::from_secs(30);
/// A rollout that is not complete after this long has failed.
pub const TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// How workloads restart for one binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Who decides that a restart begins.
    pub trigger: RolloutPolicy,
    /// Whether all consumers of the target have opted in.
    pub consumers: bool,
    /// Whether only keys that a workload reads count.
    pub changed_keys: bool,
    /// Changes inside this time cost one restart.
    pub quiet: SignedDuration,
    /// Between two restarts of one workload.
    pub min_interval: SignedDuration,
    /// How many may be under way at once.
    pub max_concurrent: usize,
    /// When a restart has failed.
    pub timeout: SignedDuration,
    /// What then.
    pub on_failure: OnFailure,
    /// When restarts may begin.
    pub windows: Vec<Window>,
    /// A window that cannot be read: nothing restarts.
    pub bad_window: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self::parse(None)
    }
}

impl Policy {
    /// Parses what a binding says. A window that cannot be read keeps everything waiting.
    pub fn parse(spec: Option<&Rollout>) -> Self {
        let spec = spec.cloned().unwrap_or_default();
        let span = |given: Option<Span>, else_: SignedDuration| given.and_then(|span| span.length()).unwrap_or(else_);
        let windows: Result<Vec<Window>, String> = spec.windows.iter().flatten().map(Window::parse).collect();
        let (windows, bad_window) = match windows {
            Ok(windows) => (windows, None),
            Err(why) => (vec![], Some(why)),
        };
        Self {
            trigger: spec.policy.unwrap_or_default(),
            consumers: spec.workloads == Some(RolloutWorkloads::Consumers),
            changed_keys: spec.on == Some(RolloutMatch::ChangedKeys),
            quiet: span(spec.quiet_period, QUIET),
            min_interval: span(spec.min_interval, MIN_INTERVAL),
            max_concurrent: match spec.max_concurrent.and_then(|most| usize::try_from(most).ok()) {
                None | Some(0) => usize::MAX,
                Some(most) => most,
            },
            timeout: span(spec.timeout, TIMEOUT),
            on_failure: spec.on_failure.unwrap_or_default(),
            windows,
            bad_window,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Policy {
        Policy::parse(Some(&serde_yaml::from_str(spec).unwrap()))
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(parse("{}"), Policy::default());
        let default = Policy::default();
        assert_eq!((default.trigger, default.on_failure), (RolloutPolicy::Automatic, OnFailure::Halt));
        assert_eq!((default.quiet, default.min_interval, default.timeout), (QUIET, MIN_INTERVAL, TIMEOUT));
        assert_eq!((default.max_concurrent, default.changed_keys, default.consumers), (usize::MAX, false, false));
        assert_eq!(parse("maxConcurrent: 0").max_concurrent, usize::MAX);
    }

    #[test]
    fn all_of_it_is_read() {
        let policy = parse(
            "{policy: Manual, workloads: Consumers, match: ChangedKeys, quietPeriod: 5s, minInterval: 1m, maxConcurrent: 2, \
             timeout: 3m, onFailure: Revert, windows: [{cron: 0 2 * * *, duration: 1h}]}",
        );
        assert_eq!((policy.trigger, policy.consumers, policy.changed_keys), (RolloutPolicy::Manual, true, true));
        assert_eq!((policy.quiet.as_secs(), policy.min_interval.as_secs(), policy.timeout.as_secs()), (5, 60, 180));
        assert_eq!((policy.max_concurrent, policy.on_failure, policy.windows.len()), (2, OnFailure::Revert, 1));
        let bad = parse("windows: [{cron: 0 2 * * *, duration: 1h}, {cron: 99 2 * * *, duration: 1h}]");
        assert!(bad.windows.is_empty() && bad.bad_window.is_some_and(|why| why.contains("99 2")));
    }
}
