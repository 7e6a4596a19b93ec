//! Status of bindings, and Events. Two field managers share one status: each apply sends all of its own fields, since an
//! apply that leaves a field out removes it.

use crate::cluster::DEADLINE;
use crate::cluster::error::{Chain, ClusterError};
use crate::crd::{EnnoteSecretBinding, EnnoteSecretBindingStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use serde_json::json;

/// Owns all of the status but rollouts, baselines and the condition RolledOut.
pub const BINDING_MANAGER: &str = "ennote-agent/binding";
/// Owns rollouts, baselines and the condition RolledOut.
pub const WORKLOAD_MANAGER: &str = "ennote-agent/workload";

/// Writes status and Events.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    recorder: Recorder,
}

impl StatusWriter {
    /// `instance` names this installation in Events.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: "ennote.io/agent".to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    /// Applies one manager's part of a status; gives the binding as it then is.
    ///
    /// # Errors
    /// The API server's refusal; 404 or 409 when the binding is gone or another object.
    pub async fn write(
        &self,
        binding: &EnnoteSecretBinding,
        manager: &str,
        status: &EnnoteSecretBindingStatus,
    ) -> Result<EnnoteSecretBinding, ClusterError> {
        let (name, namespace) = (meta(&binding.metadata.name), meta(&binding.metadata.namespace));
        let api: Api<EnnoteSecretBinding> = Api::namespaced(self.client.clone(), namespace);
        let apply = Patch::Apply(json!({
            "apiVersion": EnnoteSecretBinding::api_version(&()),
            "kind": EnnoteSecretBinding::kind(&()),
            "metadata": {"name": name, "uid": binding.metadata.uid},
            "status": status,
        }));
        let params = PatchParams::apply(manager).force();
        let call = api.patch_status(name, &params, &apply);
        Ok(tokio::time::timeout(DEADLINE, call).await.map_err(|_| ClusterError::TimedOut)??)
    }

    /// Publishes an Event. Failure is logged: an Event is a courtesy.
    pub async fn event(&self, about: &ObjectReference, warning: bool, reason: &str, action: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(DEADLINE, self.recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %Chain(&error), "an Event was not published"),
            Err(_) => tracing::debug!("an Event was not published in time"),
        }
    }
}

fn meta(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}
