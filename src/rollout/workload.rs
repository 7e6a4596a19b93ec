//! A workload, reduced on arrival to what decisions need. Literal env values are never kept.

use crate::domain::content::short_hash;
use crate::rollout::consumers::{KeysRead, secrets_read};
use crate::rollout::opt_in::{self, OptIn, OptInRules, RESTART, Reload, WAVE};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, DeploymentCondition, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    /// argoproj.io/v1alpha1 Rollout, where the setting says so.
    Rollout,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::Rollout];

    /// Of a KIND/NAME.
    pub fn of_key(key: &str) -> Option<Self> {
        let (kind, _) = key.split_once('/')?;
        Self::ALL.into_iter().find(|k| k.to_string() == kind)
    }

    /// As in `apps/v1`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps/v1",
            Self::Rollout => "argoproj.io/v1alpha1",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What a restart writes. Either form is a pure function of what the bindings hold, so that one that was written before its
/// status was, by this life of the agent or by another agent, is found again and not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    content: String,
    restart_at: Timestamp,
}

impl Stamp {
    /// Of the content of all bindings, and when the newest of those that are due was synced.
    ///
    /// Argo Rollouts restarts the pods that were made before `restartAt`, by whole seconds: a pod of the very second in which
    /// the Secret was written may have read the old one, so the time is the next second's begin.
    pub fn new(content: String, changed_at: Timestamp) -> Self {
        let next = Timestamp::from_second(changed_at.as_second().saturating_add(1));
        Self { content, restart_at: next.unwrap_or(Timestamp::MAX) }
    }

    /// As it stands on a workload of this kind: the annotation's value, or `spec.restartAt`.
    pub fn text(&self, kind: Kind) -> String {
        match kind {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => self.content.clone(),
            Kind::Rollout => self.restart_at.to_string(),
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
    /// What it says itself of its restarts.
    pub opt_in: OptIn,
    /// What it says in Reloader's annotations; counts only where a setting says so.
    pub wants_reload: Reload,
    /// The Secrets that its pod template reads, and which keys of them.
    pub reads: BTreeMap<String, KeysRead>,
    /// Lower ones restart first.
    pub wave: i32,
    /// What to say of a wave that cannot be read.
    pub wave_problem: Option<String>,
    /// Our annotation on the template; of a Rollout `spec.restartAt`, whoever wrote it.
    pub stamp: Option<String>,
    /// Hash of the template without our annotation, so that another one is a restart by someone else. Always the same of a
    /// Rollout: its new templates may leave pods of the old one for hours, and what has restarted already `restartAt` spares.
    pub template: String,
    /// Deployment only: spec.paused. (Argo restarts the pods of a paused Rollout, too.)
    pub paused: bool,
    /// updateStrategy OnDelete: pods change only when someone deletes them.
    pub on_delete: bool,
    /// StatefulSet only: pods below this ordinal keep their template.
    pub partition: i32,
    /// StatefulSet only: one pod after the other (podManagementPolicy OrderedReady), so that one that is not ready holds up all.
    pub ordered: bool,
    /// StatefulSet only: the ordinal of its first pod.
    pub first_ordinal: i32,
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

    /// Whether it restarts for a binding with this target. Its own word comes first: the settings fill in where it has none.
    pub fn restarts_for(&self, binding: &str, target: &str, how: &OptInRules) -> bool {
        let reads = self.reads.contains_key(target);
        match &self.opt_in {
            OptIn::Never => false,
            OptIn::Auto => reads,
            OptIn::Bindings(names) => names.contains(binding),
            OptIn::Unsaid => (how.consumers && reads) || (how.reloader && self.wants_reload.wants(target, reads)),
        }
    }

    /// The Secrets whose bindings it may restart for, beside the bindings that it names: what it reads, and what it tells
    /// Reloader. [`Self::restarts_for`] has the last word.
    pub fn secrets(&self) -> BTreeSet<&str> {
        self.reads.keys().chain(&self.wants_reload.secrets).map(String::as_str).collect()
    }

    /// Whether it reads any of these keys of a Secret.
    pub fn reads_any(&self, secret: &str, keys: &BTreeSet<String>) -> bool {
        self.reads.get(secret).is_some_and(|read| read.any_of(keys))
    }

    /// Whether this restart has been begun. A Rollout that someone restarts later than it had to carries it as well.
    pub fn carries(&self, stamp: &Stamp) -> bool {
        let Some(stands) = &self.stamp else { return false };
        match self.kind {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => *stands == stamp.content,
            Kind::Rollout => self.restart_at().is_some_and(|at| at >= stamp.restart_at),
        }
    }

    /// What of its annotations is not understood, if anything.
    pub fn doubts(&self, reloader: bool) -> Option<String> {
        let patterns: Vec<&str> = self.wants_reload.patterns().take(3).collect();
        let patterns = (reloader && !patterns.is_empty()).then(|| {
            let shown: String = patterns.join(", ").chars().take(100).collect();
            format!("Reloader's annotations name {shown:?}, which is no Secret's name: regular expressions match nothing here")
        });
        self.wave_problem.iter().cloned().chain(patterns).reduce(|all, more| format!("{all}; {more}"))
    }

    /// When a Rollout of Argo is to restart, or has.
    pub(super) fn restart_at(&self) -> Option<Timestamp> {
        let stands = self.stamp.as_ref().filter(|_| self.kind == Kind::Rollout)?;
        stands.parse().ok()
    }

    pub(super) fn reduce(kind: Kind, meta: &ObjectMeta, template: &impl Serialize) -> Self {
        let name = meta.name.clone().unwrap_or_default();
        let mut template = serde_json::to_value(template).unwrap_or_default();
        let stamp = take_stamp(&mut template);
        let inner = BTreeMap::<String, String>::deserialize(&template["metadata"]["annotations"]).ok();
        let own = meta.annotations.as_ref();
        let (wave, wave_problem) = opt_in::wave(own.and_then(|a| a.get(WAVE)));
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
            opt_in: OptIn::parse(own.and_then(|a| a.get(RESTART))),
            wants_reload: Reload::of(own, inner.as_ref()),
            reads: secrets_read(&template["spec"]),
            wave,
            wave_problem,
            stamp,
            template: short_hash(&serde_json::to_vec(&template).unwrap_or_default()),
            paused: false,
            on_delete: false,
            partition: 0,
            ordered: false,
            first_ordinal: 0,
            numbers: Numbers::default(),
        }
    }
}

/// Takes our annotation out of a template, and the maps that it leaves empty.
fn take_stamp(template: &mut Value) -> Option<String> {
    let meta = template.get_mut("metadata").and_then(Value::as_object_mut)?;
    let annotations = meta.get_mut("annotations").and_then(Value::as_object_mut)?;
    let stamp = annotations.remove(CONTENT).and_then(|value| value.as_str().map(str::to_owned));
    if annotations.is_empty() {
        meta.remove("annotations");
    }
    if meta.is_empty()
        && let Some(template) = template.as_object_mut()
    {
        template.remove("metadata");
    }
    stamp
}

impl From<Deployment> for Workload {
    fn from(object: Deployment) -> Self {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let exceeded = |c: &DeploymentCondition| {
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
        let strategy = spec.update_strategy.unwrap_or_default();
        // updateRevision equals currentRevision once all pods are of the newest template; then updatedReplicas may read 0.
        let settled = status.update_revision.is_some() && status.update_revision == status.current_revision;
        Self {
            on_delete: strategy.type_.as_deref() == Some("OnDelete"),
            partition: strategy.rolling_update.and_then(|r| r.partition).unwrap_or(0),
            ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            first_ordinal: spec.ordinals.and_then(|o| o.start).unwrap_or(0),
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

    pub(crate) fn stateful_set(edit: impl FnOnce(&mut serde_json::Value)) -> Workload {
        let mut object = json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "u", "resourceVersion": "5", "generation": 2,
                "annotations": {RESTART: "auto"}},
            "spec": {"replicas": 3, "serviceName": "db", "selector": {}, "template": {"spec": {"containers": [
                {"name": "c", "envFrom": [{"secretRef": {"name": "db"}}]}]}}},
            "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}
        });
        edit(&mut object);
        serde_json::from_value::<StatefulSet>(object).unwrap().into()
    }

    #[test]
    fn what_is_kept_holds_no_literal_value() {
        let kept = deployment(|_| ());
        assert!(!serde_json::to_string(&kept).unwrap().contains("canary"));
        assert_eq!((Kind::of_key(kept.key()), Kind::of_key("Pod/x")), (Some(Kind::Deployment), None));
        assert_eq!((kept.key(), kept.reads.contains_key("db"), kept.numbers.updated), ("Deployment/web", true, 2));
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
    fn a_stamp_alone_leaves_no_trace_in_the_hash() {
        let bare = deployment(|_| ());
        let stamped = deployment(|o| o["spec"]["template"]["metadata"] = json!({"annotations": {CONTENT: "x"}}));
        assert_eq!(bare.template, stamped.template);
    }

    const NONE: OptInRules = OptInRules { consumers: false, reloader: false };
    const CONSUMERS: OptInRules = OptInRules { consumers: true, reloader: false };
    const RELOADER: OptInRules = OptInRules { consumers: false, reloader: true };
    const BOTH: OptInRules = OptInRules { consumers: true, reloader: true };

    fn annotated(annotations: serde_json::Value) -> Workload {
        deployment(|o| o["metadata"]["annotations"] = annotations)
    }

    #[test]
    fn the_own_word_of_a_workload_counts_whatever_the_settings_are() {
        for how in [NONE, CONSUMERS, RELOADER, BOTH] {
            let says = |text: &str, binding: &str, target: &str| {
                let reload = json!({RESTART: text, "reloader.stakater.com/auto": "true"});
                annotated(reload).restarts_for(binding, target, &how)
            };
            assert!(says("auto", "any", "db") && !says("auto", "db", "other"), "{how:?}");
            assert!(says("a, b", "b", "other") && !says("a, b", "c", "db"), "{how:?}");
            assert!(!says("never", "never", "db") && !says("false", "any", "db"), "{how:?}");
        }
    }

    #[test]
    fn where_a_workload_says_nothing_the_settings_do() {
        for says in [json!({}), json!({RESTART: ""})] {
            let web = annotated(says);
            assert!(!web.restarts_for("a", "db", &NONE) && !web.restarts_for("a", "db", &RELOADER));
            assert!(web.restarts_for("a", "db", &CONSUMERS) && !web.restarts_for("a", "other", &CONSUMERS));
        }
        let auto = annotated(json!({"reloader.stakater.com/auto": "true"}));
        assert!(auto.restarts_for("a", "db", &RELOADER) && !auto.restarts_for("a", "other", &RELOADER));
        assert!(!auto.restarts_for("a", "db", &NONE));
        let listed = annotated(json!({"secret.reloader.stakater.com/reload": "other"}));
        assert!(listed.restarts_for("a", "other", &RELOADER) && !listed.restarts_for("a", "db", &RELOADER));
        assert!(!listed.restarts_for("a", "other", &CONSUMERS), "it does not read it");
        assert_eq!(listed.secrets(), BTreeSet::from(["db", "other"]));
        let inner = deployment(|o| {
            o["metadata"]["annotations"] = json!({});
            o["spec"]["template"]["metadata"] = json!({"annotations": {"reloader.stakater.com/auto": "true"}});
        });
        assert!(inner.restarts_for("a", "db", &RELOADER));
    }

    #[test]
    fn keys_that_are_read_and_waves_are_kept() {
        let web = deployment(|o| {
            o["metadata"]["annotations"][WAVE] = json!("3");
            o["spec"]["template"]["spec"]["volumes"] =
                json!([{"name": "v", "secret": {"secretName": "tls", "items": [{"key": "ca", "path": "ca"}]}}]);
        });
        let keys = |of: &[&str]| of.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        assert!(web.reads_any("tls", &keys(&["ca", "x"])) && !web.reads_any("tls", &keys(&["x"])));
        assert!(web.reads_any("db", &keys(&["x"])) && !web.reads_any("other", &keys(&["x"])));
        assert_eq!((web.wave, web.wave_problem), (3, None));
        let odd = annotated(json!({WAVE: "last"}));
        assert!(odd.wave == 0 && odd.wave_problem.is_some_and(|said| said.contains("last")));
    }

    #[test]
    fn a_stateful_set_tells_its_order_and_its_partition() {
        let set = |spec: serde_json::Value| {
            let mut object =
                json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "selector": {}, "template": {}}});
            object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let kept: Workload = serde_json::from_value::<StatefulSet>(object).unwrap().into();
            (kept.partition, kept.ordered, kept.first_ordinal, kept.on_delete)
        };
        assert_eq!(set(json!({})), (0, true, 0, false));
        assert_eq!(set(json!({"podManagementPolicy": "OrderedReady"})), (0, true, 0, false));
        assert_eq!(set(json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}})), (0, false, 5, false));
        assert_eq!(set(json!({"updateStrategy": {"type": "OnDelete"}})), (0, true, 0, true));
        let rolling = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        assert_eq!(set(rolling), (2, true, 0, false));
    }

    #[test]
    fn a_stamp_is_found_again() {
        let stamp = Stamp::new("c".into(), "2026-01-01T00:00:05.8Z".parse().unwrap());
        assert_eq!(
            (stamp.text(Kind::Deployment), stamp.text(Kind::Rollout)),
            ("c".into(), "2026-01-01T00:00:06Z".into())
        );
        let on_second = Stamp::new("c".into(), "2026-01-01T00:00:05Z".parse().unwrap());
        assert_eq!(on_second.text(Kind::Rollout), "2026-01-01T00:00:06Z", "status keeps whole seconds, rounded down");
        let web =
            |value: &str| deployment(|o| o["spec"]["template"]["metadata"] = json!({"annotations": {CONTENT: value}}));
        assert!(web("c").carries(&stamp) && !web("d").carries(&stamp) && !deployment(|_| ()).carries(&stamp));
    }

    #[test]
    fn a_settled_stateful_set_counts_as_updated() {
        let object = json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "replicas": 3, "selector": {}, "template": {}},
            "status": {"replicas": 3, "readyReplicas": 3, "currentRevision": "r2", "updateRevision": "r2"}});
        let kept: Workload = serde_json::from_value::<StatefulSet>(object).unwrap().into();
        assert_eq!((kept.numbers.updated, kept.numbers.desired), (3, 3));
    }
}
