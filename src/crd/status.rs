//! The status of a binding: what the agent says of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What happened, and when. Written by the agent only.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct EnnoteSecretBindingStatus {
    /// The generation of the spec that this status speaks of; -1 until the agent has seen the binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Synced, Fresh, Reconciling and Stalled by the binding controller, RolledOut by the workload controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The highest version seen of exactly this source. An older one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,

    /// Keyed fingerprint of what the Secret holds. Equal data has equal content; it tells a reader nothing about the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,

    /// When the content of the Secret last changed by this binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,

    /// Milliseconds from the commit in the cloud to the answer of the API server to the write. Only of a version that was
    /// committed while the agent was already waiting for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_latency_millis: Option<i64>,

    /// The Secret as the agent last wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,

    /// The annotations that asked for something once, as they were when that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled: Option<LastHandled>,

    /// The agent that writes this binding, as NAMESPACE/NAME. Another one leaves it alone as long as this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,

    /// Another agent that would write this binding. Written by that agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,

    /// The time of the claim that the agent has answered last: it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_answered: Option<Time>,

    /// The workloads that restarted for this binding, failed first, then newest. At most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollouts: Option<Vec<RolloutStatus>>,

    /// The content that each workload runs, by KIND/NAME: what decides whether a restart is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baselines: Option<BTreeMap<String, String>>,

    /// What else the restarts of this binding depend on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutMemory>,
}

impl EnnoteSecretBindingStatus {
    /// The version that the Secret holds: the newest seen, or the pinned one. An agent that knew no pins wrote it into the
    /// source alone.
    pub fn held_version(&self) -> Option<i64> {
        self.target.as_ref().and_then(|target| target.version).or(self.source.as_ref().map(|source| source.version))
    }
}

/// The high-water mark of the source.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The organization that the agent belongs to.
    pub organization: String,
    /// The workspace, resolved.
    pub workspace: String,
    /// The name of the secret.
    pub secret: String,
    /// The version.
    pub version: i64,
}

/// What a person asked for by annotation and has got. Each value works once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LastHandled {
    /// `ennote.io/accept`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// `ennote.io/sync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<String>,
    /// `ennote.io/restart-now`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_now: Option<String>,
    /// `ennote.io/resume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

impl LastHandled {
    /// What the binding controller handles; the rest is the workload controller's.
    pub fn of_the_binding(&self) -> Option<Self> {
        let own = Self { restart_now: None, resume: None, ..self.clone() };
        (own != Self::default()).then_some(own)
    }
}

/// The Secret as last written.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Name of the Secret.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion after our write.
    pub resource_version: String,
    /// How many keys the agent wrote.
    pub keys: i32,
    /// The version that it holds: the newest seen, or the pinned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Keys in the Secret that others added, which are kept. At most 20 are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_keys: Vec<String>,
}

/// Another agent asks whether the one that writes this binding still lives.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Who asks, as NAMESPACE/NAME.
    pub by: String,
    /// When.
    pub at: Time,
}

/// One workload and its restart.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Deployment, StatefulSet or DaemonSet.
    pub kind: String,
    /// Name of the workload.
    pub name: String,
    /// The version of the secret that the restart carries.
    pub version: i64,
    /// Where the restart stands.
    pub phase: RolloutPhase,
    /// Pods that are updated and ready.
    pub ready: i32,
    /// Pods that should be.
    pub desired: i32,
    /// When the agent stamped the pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was complete or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Why it waits or was skipped, in a word for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it waits, failed or was skipped; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Other bindings whose change the same restart carries. At most 20 are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_for: Vec<String>,
}

/// What the restarts of a binding depend on, besides what each workload runs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RolloutMemory {
    /// The version that is held in place of a newer one whose rollout failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// What was held when nothing was due and nothing had failed: what onFailure Revert goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<HeldContent>,
    /// The content that ennote.io/restart-now released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<String>,
    /// The content whose failures ennote.io/resume has set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<String>,
    /// Which keys have changed since each content that a workload still runs. With match ChangedKeys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<KeysChanged>,
    /// Restarts that are not over, beyond those that rollouts has room for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<UnderWay>,
}

/// A restart that is not over.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UnderWay {
    /// KIND/NAME.
    pub workload: String,
    /// When it began.
    pub started_at: Time,
    /// For which version.
    pub version: i64,
}

/// A version that is held in place of a newer one.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The version that is held.
    pub version: i64,
    /// The version whose rollout failed. A newer one ends the hold.
    pub failed: i64,
    /// Since when.
    pub since: Time,
    /// Set when the cloud no longer has the version that was to be held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unavailable: bool,
}

/// A version and its content.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeldContent {
    /// The version.
    pub version: i64,
    /// Its content.
    pub content: String,
}

/// Keys that have changed since a content.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeysChanged {
    /// The content that a workload runs.
    pub from: String,
    /// The keys that differ since then, or have.
    pub keys: BTreeSet<String>,
}

/// Phases of a restart.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutPhase {
    /// Did not come up: deadline exceeded, or the timeout passed.
    Failed,
    /// Due, and waiting for what the message says.
    Pending,
    /// Stamped; new pods are coming up.
    Progressing,
    /// The stamp was taken away by someone else. Not repeated.
    Reverted,
    /// Nothing to restart (no replicas).
    Skipped,
    /// All pods are updated and available.
    Complete,
}
