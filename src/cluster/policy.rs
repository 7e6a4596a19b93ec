//! The admission policies that hold this agent: whether they are in force, and what their refusals tell.
//!
//! A policy is proved by a request that only it refuses, sent as a dry run: nothing is ever stored by it. The names are those of
//! the chart's `admission-policy.yaml`; <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>.

use crate::cluster::error::ClusterError;
use crate::cluster::{DEADLINE, plural};
use crate::domain::observed::{Existing, Owner};
use crate::rollout::workload::{Kind, Workload};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Field manager of the requests that are meant to be refused.
pub const PROOF_MANAGER: &str = "ennote-agent-proof";

/// What a policy is about: the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// Only its own Secrets, only with its labels.
    Secrets,
    /// Only the restart stamp, on Deployments, StatefulSets and DaemonSets.
    Workloads,
    /// Only `restartAt`, on Rollouts of Argo.
    Rollouts,
}

impl About {
    /// The policy that holds restarts of a kind.
    pub fn of(kind: Kind) -> Self {
        if kind == Kind::Rollout { Self::Rollouts } else { Self::Workloads }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Workloads => "workloads",
            Self::Rollouts => "rollouts",
        }
    }
}

/// Asks the API server for what must be refused.
#[derive(Clone)]
pub struct Policies {
    client: Client,
    base: String,
    granted: Option<String>,
}

impl Policies {
    /// Of policies whose names begin with `base`. `granted` is a Secret by whose name the Role grants what it does, where it grants
    /// by name.
    pub fn new(client: Client, base: &str, granted: Option<String>) -> Self {
        Self { client, base: base.to_owned(), granted }
    }

    /// The name of a policy.
    pub fn name(&self, about: About) -> String {
        format!("{}.{}", self.base, about.suffix())
    }

    /// Whether a Secret without the agent's labels, and a finalizer on one that has them, is refused by the policy. `labels` are those
    /// that others may ask for: of several policies that refuse, the API server names one.
    ///
    /// # Errors
    /// Any other refusal, which proves nothing.
    pub async fn holds_secrets(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<bool, ClusterError> {
        let name = self.granted.as_deref().unwrap_or(PROOF_MANAGER);
        let metadata = serde_json::json!({"name": name, "labels": labels, "finalizers": ["ennote.io/proof"]});
        let secret = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
        let all = format!("/api/v1/namespaces/{namespace}/secrets");
        match &self.granted {
            None => self.refused(About::Secrets, "POST", "application/json", &all, &secret).await,
            // A POST is not authorised by name, an apply is, whether it creates or changes.
            Some(name) => {
                let path = format!("{all}/{name}");
                self.refused(About::Secrets, "PATCH", "application/apply-patch+yaml", &path, &secret).await
            }
        }
    }

    /// Whether a label on this workload is refused by the policy.
    ///
    /// # Errors
    /// Any other refusal, which proves nothing.
    pub async fn holds_workload(&self, workload: &Workload) -> Result<bool, ClusterError> {
        let patch = serde_json::json!({"metadata": {"labels": {"ennote.io/proof": "refuse-me"}}});
        let (group, plural) = plural(workload.kind);
        let path = format!("/apis/{group}/namespaces/{}/{plural}/{}", workload.namespace(), workload.name);
        let about = About::of(workload.kind);
        self.refused(about, "PATCH", "application/merge-patch+json", &path, &patch).await
    }

    async fn refused(
        &self,
        about: About,
        method: &str,
        content_type: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<bool, ClusterError> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?dryRun=All&fieldManager={PROOF_MANAGER}"))
            .header(http::header::CONTENT_TYPE, content_type)
            .header(http::header::ACCEPT, super::AS_METADATA)
            .body(Body::from(body.to_string().into_bytes()))
            .map_err(|_| ClusterError::Unreadable)?;
        let exchange = async {
            let response = self.client.send(request).await?;
            let status = response.status();
            Ok::<_, kube::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        let (status, answer) = tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| ClusterError::TimedOut)??;
        if status.is_success() {
            return Ok(false);
        }
        let told = serde_json::from_slice::<Status>(&answer).unwrap_or_default();
        if is_by(&told.message, &self.name(about)) {
            return Ok(true);
        }
        Err(ClusterError::refused_proof(status.as_u16(), told))
    }
}

/// How the API server begins a refusal by a policy.
const REFUSED_BY: &str = "ValidatingAdmissionPolicy '";

fn is_by(message: &str, policy: &str) -> bool {
    message.contains(&format!("{REFUSED_BY}{policy}' "))
}

/// What stands behind this in the message of the policy about Secrets.
const FACTS: &str = "not handed over; facts: ";

/// What the policy says of a Secret that is somebody else's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Facts {
    uid: String,
    managed_by: String,
    binding_id: String,
    binding: String,
    adopt: String,
    manager: String,
    owners: Vec<OwnerFacts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerFacts {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: bool,
}

/// What a refusal tells of a Secret that is not ours to touch; `None` if it is no such refusal. Its labels and annotations, and the
/// resourceVersion, stay unknown.
pub(super) fn foreign(body: &[u8]) -> Option<Existing> {
    let message = serde_json::from_slice::<Status>(body).ok()?.message;
    if !message.contains(REFUSED_BY) {
        return None;
    }
    let (_, facts) = message.split_once(FACTS)?;
    let facts: Facts = serde_json::from_str(facts).ok()?;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let owner = |o: OwnerFacts| Owner {
        api_version: o.api_version,
        kind: o.kind,
        name: o.name,
        uid: o.uid,
        controller: o.controller,
        blocks: false,
    };
    Some(Existing {
        uid: facts.uid,
        managed_by: some(facts.managed_by),
        binding_id: some(facts.binding_id),
        binding: some(facts.binding),
        adopt: some(facts.adopt),
        managers: some(facts.manager).into_iter().collect(),
        owners: facts.owners.into_iter().map(owner).collect(),
        ..Existing::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(message: &str) -> Vec<u8> {
        serde_json::json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": message}).to_string().into()
    }

    #[test]
    fn a_refusal_tells_whose_a_secret_is() {
        let told = r#"secrets "db" is forbidden: ValidatingAdmissionPolicy 'a.b.secrets' with binding 'a.b.secrets' denied request: this Secret is held by managed-by=Helm and not handed over; facts: {"uid":"u","managedBy":"Helm","bindingId":"","binding":"","adopt":"","manager":"helm","owners":[{"apiVersion":"apps/v1","kind":"Deployment","name":"web","uid":"o","controller":true}]}"#;
        let secret = foreign(&answer(told)).unwrap();
        assert_eq!((secret.uid.as_str(), secret.managed_by.as_deref(), secret.adopt), ("u", Some("Helm"), None));
        assert_eq!((secret.owners[0].name.as_str(), secret.owners[0].controller), ("web", true));
        assert_eq!(secret.managers, ["helm"]);
        for other in [
            "secrets \"db\" is forbidden: User \"x\" cannot patch resource",
            "admission webhook \"w\" denied the request: not handed over; facts: {}",
            "ValidatingAdmissionPolicy 'p' denied request: something else",
        ] {
            assert_eq!(foreign(&answer(other)), None, "{other}");
        }
        assert_eq!(foreign(b"no status"), None);
    }

    #[test]
    fn only_the_refusal_of_this_very_policy_proves_it() {
        let by = |policy: &str| {
            format!("x is forbidden: ValidatingAdmissionPolicy '{policy}' with binding 'b' denied request: no")
        };
        assert!(is_by(&by("a.shop.secrets"), "a.shop.secrets"));
        assert!(!is_by(&by("b.shop.secrets"), "a.shop.secrets"));
        assert!(!is_by(&by("a.shop.secrets2"), "a.shop.secrets"));
        assert!(!is_by("x is forbidden: exceeded quota: a.shop.secrets", "a.shop.secrets"));
    }
}
