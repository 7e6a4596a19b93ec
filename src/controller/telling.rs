//! Events on workloads and bindings: a restart, how it ended, what of an annotation is not understood.

use crate::cluster::status::Notice;
use crate::controller::restart::Pass;
use crate::crd::{EnnoteSecretBinding, RolloutPhase};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

impl Pass<'_> {
    pub(super) async fn announce(&self, binding: &EnnoteSecretBinding, phase: RolloutPhase, message: &str) {
        let (namespace, workload) = (self.workload.namespace(), self.workload.key());
        let failed = phase == RolloutPhase::Failed;
        if failed {
            tracing::warn!(namespace, workload, message, "the rollout failed");
        } else {
            tracing::info!(namespace, workload, "the rollout is complete");
        }
        let (reason, note) = if failed {
            ("RolloutFailed", format!("{workload}: {message}"))
        } else {
            ("RolloutComplete", format!("{workload} is up"))
        };
        self.notify(binding.object_ref(&()), Some(self.reference()), failed, reason, &note).await;
        if failed {
            self.notify(self.reference(), Some(binding.object_ref(&())), failed, reason, &note).await;
        }
    }

    /// Says what of a workload's annotations is not understood.
    pub(super) async fn warn(&self, text: &str) {
        tracing::warn!(namespace = self.workload.namespace(), workload = self.workload.key(), text);
        self.notify(self.reference(), None, true, "BadAnnotation", text).await;
    }

    pub(super) async fn notify(
        &self,
        about: ObjectReference,
        related: Option<ObjectReference>,
        warning: bool,
        reason: &str,
        note: &str,
    ) {
        self.context.status.event(Notice { about, related, warning, reason, action: "Restart", note }).await;
    }

    pub(super) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.workload.kind.api_version().to_owned()),
            kind: Some(self.workload.kind.to_string()),
            name: Some(self.workload.name.clone()),
            namespace: self.workload.metadata.namespace.clone(),
            uid: self.workload.metadata.uid.clone(),
            ..ObjectReference::default()
        }
    }
}
