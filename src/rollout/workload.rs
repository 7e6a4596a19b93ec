//! A workload, reduced on arrival to what decisions need. Literal env values are never kept.

use crate::domain::content::short_hash;
use crate::rollout::consumers::secrets_read;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Opt-in annotation on the workload: `auto`, or binding names joined by commas.
pub const RESTART: &str = "ennote.io/restart";
/// The one annotation that the agent writes into a pod template.
pub const CONTENT: &str = "ennote.io/content";

/// The kinds that the agent restarts.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// apps/v1 DaemonSet.
    DaemonSet,
}

impl Kind {
    /// Of a KIND/NAME.
    pub fn of_key(key: &str) -> Option<Self> {
        let (kind, _) = key.split_once('/')?;
        [Self::Deployment, Self::StatefulSet, Self::DaemonSet].into_iter().find(|k| k.to_string() == kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Which bindings a workload restarts for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum OptIn {
    /// Not at all.
    Never,
    /// For the bindings whose target it reads.
    Auto,
    /// For these bindings.
    Bindings(BTreeSet<String>),
}

impl OptIn {
    fn parse(annotation: Option<&String>) -> Self {
        match annotation.map(|text| text.trim()) {
            None | Some("") => Self::Never,
            Some("auto") => Self::Auto,
            Some(list) => {
                Self::Bindings(list.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect())
            }
        }
    }
}

/// The numbers of a workload's own status.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Numbers {
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// Pods that should run.
    pub desired: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods of any template.
    pub total: i32,
    /// Ready pods.
    pub ready: i32,
    /// Available pods.
    pub available: i32,
    /// Deployment only: the condition Progressing says ProgressDeadlineExceeded.
    pub deadline_exceeded: bool,
}

/// A workload as the agent keeps it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Workload {
    /// uid, resourceVersion, generation and namespace as in the cluster; the name is KIND/NAME, which makes one store of all
    /// kinds possible.
    pub metadata: ObjectMeta,
    /// Its kind.
    pub kind: Kind,
    /// Its name in the cluster.
    pub name: String,
    /// For which bindings it restarts.
    pub opt_in: OptIn,
    /// Names of the Secrets that its pod template reads.
    pub reads: BTreeSet<String>,
    /// Our annotation on the template.
    pub stamp: Option<String>,
    /// Hash of the template without our annotation.
    pub template: String,
    /// Deployment only: spec.paused.
    pub paused: bool,
    /// updateStrategy OnDelete: pods change only when someone deletes them.
    pub on_delete: bool,
    /// Progress.
    pub numbers: Numbers,
}

impl Workload {
    /// KIND/NAME, as in `status.baselines`.
    pub fn key(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Whether it restarts for a binding with this target.
    pub fn restarts_for(&self, binding: &str, target: &str) -> bool {
        match &self.opt_in {
            OptIn::Never => false,
            OptIn::Auto => self.reads.contains(target),
            OptIn::Bindings(names) => names.contains(binding),
        }
    }

    fn reduce(kind: Kind, meta: &ObjectMeta, template: &PodTemplateSpec) -> Self {
        let name = meta.name.clone().unwrap_or_default();
        let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
        let mut bare = template.clone();
        if let Some(annotations) = bare.metadata.as_mut().and_then(|m| m.annotations.as_mut()) {
            annotations.remove(CONTENT);
        }
        if bare.metadata.as_ref().is_some_and(|m| m.annotations.as_ref().is_some_and(|a| a.is_empty())) {
            bare.metadata.as_mut().into_iter().for_each(|m| m.annotations = None);
        }
        Self {
            metadata: ObjectMeta {
                name: Some(format!("{kind}/{name}")),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                generation: meta.generation,
                deletion_timestamp: meta.deletion_timestamp.clone(),
                ..ObjectMeta::default()
            },
            kind,
            name,
            opt_in: OptIn::parse(meta.annotations.as_ref().and_then(|a| a.get(RESTART))),
            reads: template.spec.as_ref().map(secrets_read).unwrap_or_default(),
            stamp: annotations.and_then(|a| a.get(CONTENT)).cloned(),
            template: short_hash(&serde_json::to_vec(&bare).unwrap_or_default()),
            paused: false,
            on_delete: false,
            numbers: Numbers::default(),
        }
    }
}

impl From<Deployment> for Workload {
    fn from(object: Deployment) -> Self {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let exceeded = |c: &k8s_openapi::api::apps::v1::DeploymentCondition| {
            c.type_ == "Progressing" && c.status == "False" && c.reason.as_deref() == Some("ProgressDeadlineExceeded")
        };
        Self {
            paused: spec.paused.unwrap_or(false),
            numbers: Numbers {
                observed_generation: status.observed_generation.unwrap_or(0),
                desired: spec.replicas.unwrap_or(1),
                updated: status.updated_replicas.unwrap_or(0),
                total: status.replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                deadline_exceeded: status.conditions.iter().flatten().any(exceeded),
            },
            ..Self::reduce(Kind::Deployment, &object.metadata, &spec.template)
        }
    }
}

impl From<StatefulSet> for Workload {
    fn from(object: StatefulSet) -> Self {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let on_delete = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete");
        // updateRevision equals currentRevision once all pods are of the newest template; then updatedReplicas may read 0.
        let settled = status.update_revision.is_some() && status.update_revision == status.current_revision;
        Self {
            on_delete,
            numbers: Numbers {
                observed_generation: status.observed_generation.unwrap_or(0),
                desired: spec.replicas.unwrap_or(1),
                updated: if settled { status.replicas } else { status.updated_replicas.unwrap_or(0) },
                total: status.replicas,
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(status.ready_replicas.unwrap_or(0)),
                deadline_exceeded: false,
            },
            ..Self::reduce(Kind::StatefulSet, &object.metadata, &spec.template)
        }
    }
}

impl From<DaemonSet> for Workload {
    fn from(object: DaemonSet) -> Self {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let on_delete = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete");
        Self {
            on_delete,
            numbers: Numbers {
                observed_generation: status.observed_generation.unwrap_or(0),
                desired: status.desired_number_scheduled,
                updated: status.updated_number_scheduled.unwrap_or(0),
                total: status.current_number_scheduled,
                ready: status.number_ready,
                available: status.number_available.unwrap_or(0),
                deadline_exceeded: false,
            },
            ..Self::reduce(Kind::DaemonSet, &object.metadata, &spec.template)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn deployment(edit: impl FnOnce(&mut serde_json::Value)) -> Workload {
        let mut object = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "5", "generation": 2,
                "annotations": {RESTART: "auto"}},
            "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [
                {"name": "c", "env": [{"name": "LITERAL", "value": "canary"}], "envFrom": [{"secretRef": {"name": "db"}}]}]}}},
            "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
        });
        edit(&mut object);
        serde_json::from_value::<Deployment>(object).unwrap().into()
    }

    #[test]
    fn what_is_kept_holds_no_literal_value() {
        let kept = deployment(|_| ());
        assert!(!serde_json::to_string(&kept).unwrap().contains("canary"));
        assert_eq!((Kind::of_key(kept.key()), Kind::of_key("Pod/x")), (Some(Kind::Deployment), None));
        assert_eq!((kept.key(), kept.reads.contains("db"), kept.numbers.updated), ("Deployment/web", true, 2));
    }

    #[test]
    fn the_template_hash_ignores_our_stamp_and_nothing_else() {
        let plain = deployment(|_| ());
        let stamped = deployment(|o| o["spec"]["template"]["metadata"] = json!({"annotations": {CONTENT: "x"}}));
        let other = deployment(|o| {
            o["spec"]["template"]["metadata"] = json!({"annotations": {"kubectl.kubernetes.io/restartedAt": "x"}})
        });
        assert_eq!((stamped.stamp.as_deref(), other.stamp.as_deref()), (Some("x"), None));
        assert_eq!(plain.template, deployment(|o| o["spec"]["replicas"] = json!(9)).template);
        assert_ne!(plain.template, other.template);
        assert_ne!(
            plain.template,
            deployment(|o| o["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("2")).template
        );
        let both = deployment(|o| {
            o["spec"]["template"]["metadata"] =
                json!({"annotations": {CONTENT: "x", "kubectl.kubernetes.io/restartedAt": "x"}})
        });
        assert_eq!(both.template, other.template);
    }

    #[test]
    fn opt_in_is_auto_or_a_list() {
        let with = |text: &str| deployment(|o| o["metadata"]["annotations"][RESTART] = json!(text));
        assert!(with("auto").restarts_for("any", "db") && !with("auto").restarts_for("db", "other"));
        assert!(with("a, b").restarts_for("b", "other") && !with("a, b").restarts_for("c", "db"));
        assert!(!with("").restarts_for("", "db"));
        assert!(!deployment(|o| o["metadata"]["annotations"] = json!({})).restarts_for("a", "db"));
    }

    #[test]
    fn a_settled_stateful_set_counts_as_updated() {
        let object = json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "replicas": 3, "selector": {}, "template": {}},
            "status": {"replicas": 3, "readyReplicas": 3, "currentRevision": "r2", "updateRevision": "r2"}});
        let kept: Workload = serde_json::from_value::<StatefulSet>(object).unwrap().into();
        assert_eq!((kept.numbers.updated, kept.numbers.desired), (3, 3));
    }
}
