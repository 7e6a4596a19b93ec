//! Status of bindings, and Events. Two field managers share one status: each apply sends all of its own fields, since an
//! apply that leaves a field out removes it.

use crate::cluster::DEADLINE;
use crate::cluster::error::{Chain, ClusterError};
use crate::crd::{Claim, EnnoteSecretBinding, EnnoteSecretBindingStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use serde_json::json;

/// Owns all of the status but rollouts, baselines and the condition RolledOut.
pub const BINDING_MANAGER: &str = "ennote-agent/binding";
/// Owns rollouts, baselines and the condition RolledOut.
pub const WORKLOAD_MANAGER: &str = "ennote-agent/workload";

/// Owns the claim that this agent makes to a binding of another one.
const CLAIM_MANAGER: &str = "ennote-agent/claim";

/// An Event to publish. Notices that are equal but for their note are counted as one series, so what tells two apart goes
/// into `related`.
pub struct Notice<'a> {
    /// The object that it is shown with.
    pub about: ObjectReference,
    /// Another object that it speaks of.
    pub related: Option<ObjectReference>,
    /// Warning instead of Normal.
    pub warning: bool,
    /// CamelCase, for machines.
    pub reason: &'a str,
    /// What the agent did or tried.
    pub action: &'a str,
    /// For people; cut after 1,000 characters.
    pub note: &'a str,
}

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

    /// Asks, in the status of a binding that another agent writes, whether that one lives. Touches nothing else of it.
    ///
    /// # Errors
    /// The API server's refusal; 404 or 409 when the binding is gone or another object.
    pub async fn claim(
        &self,
        binding: &EnnoteSecretBinding,
        claim: &Claim,
    ) -> Result<EnnoteSecretBinding, ClusterError> {
        let status = EnnoteSecretBindingStatus { claim: Some(claim.clone()), ..EnnoteSecretBindingStatus::default() };
        self.write(binding, CLAIM_MANAGER, &status).await
    }

    /// Publishes an Event. Failure is logged: an Event is a courtesy.
    pub async fn event(&self, notice: Notice<'_>) {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.to_owned(),
            note: Some(notice.note.chars().take(1000).collect()),
            action: notice.action.to_owned(),
            secondary: notice.related,
        };
        match tokio::time::timeout(DEADLINE, self.recorder.publish(&event, &notice.about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %Chain(&error), "an Event was not published"),
            Err(_) => tracing::debug!("an Event was not published in time"),
        }
    }
}

fn meta(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}
