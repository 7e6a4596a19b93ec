//! When and how the workloads that read the Secret are restarted.

use k8s_openapi::jiff::SignedDuration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When and how the workloads that read the Secret restart for a change of its content.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Automatic (the default): workloads that opted in restart by themselves. Manual: what waits is shown, and the annotation
    /// ennote.io/restart-now on the binding releases it. Disabled: nothing restarts for this binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RolloutPolicy>,

    /// Which workloads have opted in. Annotated (the default): those with the annotation ennote.io/restart. Consumers: all that
    /// read the Secret, for which the agent needs its setting rollouts.consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<RolloutWorkloads>,

    /// Which change restarts a workload. Any (the default): of any key. ChangedKeys: only of a key that it reads.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub on: Option<RolloutMatch>,

    /// Changes to one workload within this time cost one restart, for example 2s, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(span("0s", "1h")).message("quietPeriod must be a time of at most 1h, for example 2s"))]
    pub quiet_period: Option<Span>,

    /// The least time between two restarts of one workload. Defaults to 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(span("0s", "168h")).message("minInterval must be a time of at most 168h, for example 30s"))]
    pub min_interval: Option<Span>,

    /// How many workloads restart at the same time for this binding. 0 (the default): all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0").message("maxConcurrent must be a number of workloads, or 0 for all at once"))]
    pub max_concurrent: Option<i32>,

    /// A restart that is not complete after this time has failed. Defaults to 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(span("1s", "24h")).message("timeout must be a time from 1s to 24h, for example 10m"))]
    pub timeout: Option<Span>,

    /// What follows when a restart has failed. Halt (the default): nothing more restarts with this content, until a newer version
    /// comes or the annotation ennote.io/resume. Continue: the others restart all the same. Revert: the version before comes
    /// back, is rolled out, and is held until a newer one comes or the annotation ennote.io/resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,

    /// When restarts may begin. Absent or empty: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub windows: Option<Vec<Window>>,
}

/// A rule for a time as Go writes it.
fn span(least: &str, most: &str) -> String {
    format!(
        "self.matches('^([0-9]+(ms|s|m|h))+$') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    )
}

/// A length of time as Go writes it: 2s, 10m, 1h30m.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Span(#[schemars(length(max = 32))] pub String);

impl Span {
    /// Its length; `None` for a text that is none, which the schema refuses.
    pub fn length(&self) -> Option<SignedDuration> {
        let parsed: kube::core::Duration = Some(&self.0).filter(|text| !text.is_empty())?.parse().ok()?;
        SignedDuration::try_from(std::time::Duration::from(parsed)).ok().filter(|_| !parsed.is_negative())
    }
}

/// Who decides that a restart begins.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RolloutPolicy {
    /// The agent.
    #[default]
    Automatic,
    /// A person, by annotation.
    Manual,
    /// Nobody.
    Disabled,
}

/// Which workloads have opted in.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RolloutWorkloads {
    /// Those that say so.
    #[default]
    Annotated,
    /// All that read the Secret.
    Consumers,
}

/// Which change restarts a workload.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RolloutMatch {
    /// Of any key.
    #[default]
    Any,
    /// Of a key that it reads.
    ChangedKeys,
}

/// What follows a restart that failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Nothing more restarts with this content.
    #[default]
    Halt,
    /// The others restart all the same.
    Continue,
    /// The version before comes back.
    Revert,
}

/// A time in which restarts may begin.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When it opens: minute, hour, day of month, month, day of week, as a CronJob has them. For example 0 2 * * SAT
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[^ ]+( +[^ ]+){4}$')")
        .message("cron must have five fields: minute, hour, day of month, month, day of week; for example 0 2 * * SAT"))]
    pub cron: String,

    /// How long it stays open, for example 2h.
    #[x_kube(validation = Rule::new(span("1m", "168h")).message("duration must be a time from 1m to 168h, for example 2h"))]
    pub duration: Span,

    /// The time zone of cron, by its IANA name, for example Europe/Berlin. Defaults to UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][-+_/A-Za-z0-9]*$')")
        .message("timeZone must be the name of a time zone, for example Europe/Berlin"))]
    pub time_zone: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_what_go_means_by_it() {
        let length = |text: &str| Span(text.to_owned()).length();
        assert_eq!(length("1h30m"), Some(SignedDuration::from_mins(90)));
        assert_eq!(length("250ms"), Some(SignedDuration::from_millis(250)));
        assert_eq!((length("-2s"), length("2"), length("")), (None, None, None));
    }
}
