//! Secrets: observed as metadata, created by POST, changed by merge patch, made ours by apply. The only writer of Secrets.
//!
//! Guarantees: the first write cannot overwrite; later ones carry uid and resourceVersion; no answer echoes a value.

use crate::cluster::error::ClusterError;
use crate::cluster::{AS_METADATA, DEADLINE, body, policy};
use crate::domain::content::Fingerprints;
use crate::domain::deletions::NOBODY;
use crate::domain::drift;
use crate::domain::metadata::Metadata;
use crate::domain::observed::{
    ADOPT, BINDING, BINDING_ID, Existing, FIELD_MANAGER, FINGERPRINTS, Hashed, MANAGED_BY, Observed, Owner,
};
use crate::domain::sync_plan::{Draft, Step};
use bytes::Bytes;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use kube::client::Body;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Field manager of the patches that change nothing.
pub const LOOK_MANAGER: &str = "ennote-agent-look";

/// So many deleted Secrets are remembered, so that a late answer to our own write does not bring one back.
const REMEMBERED: usize = 1024;

/// What the watches and our own writes have told of the Secrets in the watched namespaces.
#[derive(Default)]
pub struct SecretIndex(Mutex<Known>);

#[derive(Default)]
struct Known {
    secrets: HashMap<(String, String), Existing>,
    deleted: VecDeque<String>,
}

impl SecretIndex {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known. Only as good as the namespace's list is complete.
    pub fn observe(&self, namespace: &str, name: &str) -> Observed {
        let secret = self.known().secrets.get(&(namespace.to_owned(), name.to_owned())).cloned();
        secret.map_or(Observed::Absent, |secret| Observed::Present(Box::new(secret)))
    }

    /// Takes over what was seen, unless something newer is known of the same object. What a refusal told has no revision, and is
    /// as new as that.
    pub fn seen(&self, namespace: &str, name: &str, secret: Existing) {
        let mut known = self.known();
        let key = (namespace.to_owned(), name.to_owned());
        let newer = |old: &Existing| {
            let told = !secret.resource_version.is_empty();
            told && old.uid == secret.uid && revision(&old.resource_version) > revision(&secret.resource_version)
        };
        if !known.deleted.contains(&secret.uid) && !known.secrets.get(&key).is_some_and(newer) {
            known.secrets.insert(key, secret);
        }
    }

    /// Nobody asks for it any more, and nobody would tell of it.
    pub fn unknown(&self, namespace: &str, name: &str) {
        self.known().secrets.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// It is gone: the object of this uid, or whatever has that name if the uid is not known.
    pub fn gone(&self, namespace: &str, name: &str, uid: Option<&str>) {
        let mut known = self.known();
        let key = (namespace.to_owned(), name.to_owned());
        let there = known.secrets.get(&key).map(|secret| secret.uid.clone());
        if uid.is_none() || there.as_deref() == uid {
            known.secrets.remove(&key);
        }
        if let Some(uid) = uid.map(str::to_owned).or(there) {
            known.deleted.push_back(uid);
            let surplus = known.deleted.len().saturating_sub(REMEMBERED);
            known.deleted.drain(..surplus);
        }
    }
}

/// Resource versions of one resource can be compared as numbers (KEP-5504).
fn revision(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// What the Role grants on Secrets, besides `create` and `patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// `get`.
    pub read: bool,
    /// Only on named Secrets: a POST names none, so they are created by apply.
    pub by_name: bool,
}

/// Reads and writes Secrets.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    grants: Grants,
}

impl Secrets {
    /// Over this client.
    pub fn new(client: Client, grants: Grants) -> Self {
        Self { client, grants }
    }

    /// Asks the API server itself, when the watch may lag or there is none.
    ///
    /// Without the right to read it is an empty merge patch, answered as metadata: it changes nothing, and the policy in the API
    /// server refuses it for a Secret of somebody else's, with all that there is to know of that one.
    ///
    /// # Errors
    /// Any but 404.
    pub async fn fetch(&self, namespace: &str, name: &str) -> Result<Observed, ClusterError> {
        if !self.grants.read {
            let path = format!("{}/{name}", collection(namespace));
            return match self.send(Act::Look, path, Bytes::from_static(b"{}")).await {
                Ok(secret) => Ok(Observed::Present(Box::new(secret))),
                Err(ClusterError::Foreign(secret)) => Ok(Observed::Present(secret)),
                Err(error) if error.code() == Some(404) => Ok(Observed::Absent),
                Err(error) => Err(error),
            };
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found =
            tokio::time::timeout(DEADLINE, api.get_metadata_opt(name)).await.map_err(|_| ClusterError::TimedOut)??;
        Ok(found.map_or(Observed::Absent, |meta| Observed::Present(Box::new(reduce(&meta.metadata)))))
    }

    /// Carries out a step; gives what then exists.
    ///
    /// The API server gives a field to whom changes it, so what already stood there with the same value stays somebody else's
    /// after a patch, as if that one had changed it since. An apply that is forced takes it. Only data and the record of it are
    /// in it, and always all of them: what an apply leaves out is removed where only an earlier apply owned it.
    ///
    /// # Errors
    /// The API server's refusal; the same step is then to be planned again.
    pub async fn apply(&self, step: &Step) -> Result<Existing, ClusterError> {
        match step {
            Step::Nothing(secret) => Ok((**secret).clone()),
            // An apply that creates is authorised with the name, which a POST is not. It would add to what somebody made meanwhile:
            // the policy refuses that, and where there is none, what is there is asked for right before.
            Step::Create(draft) if self.grants.by_name => {
                if self.grants.read && self.fetch(&draft.namespace, draft.name.as_str()).await? != Observed::Absent {
                    return Err(ClusterError::Appeared);
                }
                self.send(Act::Apply, item(draft), body::apply(draft, None)).await
            }
            Step::Create(draft) => self.send(Act::Create, collection(&draft.namespace), body::create(draft)).await,
            Step::Patch { draft, uid, resource_version, drop } => {
                let body = body::patch(draft, uid, resource_version, drop);
                let now = self.send(Act::Merge, item(draft), body).await?;
                if drift::intact(&now) {
                    return Ok(now);
                }
                // What was created by an apply belongs to it as a whole, and what a later one leaves out goes.
                let body = if self.grants.by_name { body::apply } else { body::take };
                self.send(Act::Take, item(draft), body(draft, Some((&now.uid, &now.resource_version)))).await
            }
        }
    }

    /// Writes metadata alone, under the usual preconditions; gives what then exists.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn amend(
        &self,
        namespace: &str,
        name: &str,
        secret: &Existing,
        metadata: &Metadata,
    ) -> Result<Existing, ClusterError> {
        let path = format!("{}/{name}", collection(namespace));
        self.send(Act::Merge, path, body::amend(metadata, &secret.uid, &secret.resource_version)).await
    }

    /// Hands a Secret to the garbage collector: it deletes what is owned by a uid that does not exist, which is named for the
    /// reason. No delete verb needed. Gives what exists until then.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn hand_over(
        &self,
        namespace: &str,
        name: &str,
        secret: &Existing,
        why: &str,
    ) -> Result<Existing, ClusterError> {
        let body = serde_json::json!({"metadata": {
            "uid": secret.uid,
            "resourceVersion": secret.resource_version,
            "ownerReferences": [{
                "apiVersion": "ennote.io/v1alpha1",
                "kind": "EnnoteSecretBinding",
                "name": why,
                "uid": NOBODY.1,
            }],
        }});
        let path = format!("{}/{name}", collection(namespace));
        self.send(Act::Merge, path, Bytes::from(body.to_string())).await
    }

    async fn send(&self, act: Act, path: String, body: Bytes) -> Result<Existing, ClusterError> {
        let (method, content_type, manager) = match act {
            Act::Create => ("POST", "application/json", FIELD_MANAGER.to_owned()),
            Act::Merge => ("PATCH", "application/merge-patch+json", FIELD_MANAGER.to_owned()),
            Act::Apply => ("PATCH", "application/apply-patch+yaml", FIELD_MANAGER.to_owned()),
            Act::Take => ("PATCH", "application/apply-patch+yaml", format!("{FIELD_MANAGER}&force=true")),
            Act::Look => ("PATCH", "application/merge-patch+json", LOOK_MANAGER.to_owned()),
        };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?fieldManager={manager}"))
            .header(http::header::CONTENT_TYPE, content_type)
            .header(http::header::ACCEPT, AS_METADATA)
            .body(Body::from(body))
            .map_err(|_| ClusterError::Unreadable)?;
        let exchange = async {
            let response = self.client.send(request).await?;
            let status = response.status();
            let answer = response.into_body().collect().await?.to_bytes();
            Ok::<_, kube::Error>((status, answer))
        };
        let (status, answer) = tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| ClusterError::TimedOut)??;
        if !status.is_success() {
            if let Some(secret) = policy::foreign(&answer) {
                return Err(ClusterError::Foreign(Box::new(secret)));
            }
            return Err(ClusterError::refused(status.as_u16(), &answer));
        }
        let meta: PartialObjectMeta<Secret> = serde_json::from_slice(&answer).map_err(|_| ClusterError::Unreadable)?;
        Ok(reduce(&meta.metadata))
    }
}

/// The ways to write.
#[derive(Clone, Copy)]
enum Act {
    Create,
    Merge,
    Apply,
    Take,
    Look,
}

fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

fn item(draft: &Draft) -> String {
    format!("{}/{}", collection(&draft.namespace), draft.name)
}

/// The keys of a map of the object that a field manager owns.
fn owned<'a>(entry: &'a ManagedFieldsEntry, path: &[&str]) -> impl Iterator<Item = &'a str> {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
    let map = path.iter().fold(fields, |at, name| at?.get(name)).and_then(|map| map.as_object());
    map.into_iter().flat_map(|map| map.keys()).filter_map(|key| key.strip_prefix("f:"))
}

/// Keeps of a Secret's metadata what decisions need.
pub(super) fn reduce(meta: &ObjectMeta) -> Existing {
    let label = |name: &str| meta.labels.as_ref().and_then(|l| l.get(name)).cloned();
    let annotation = |name: &str| meta.annotations.as_ref().and_then(|a| a.get(name));
    let fields = meta.managed_fields.iter().flatten();
    let mut managers: Vec<String> = Vec::new();
    let mut our_keys = BTreeSet::new();
    let ours = label(MANAGED_BY.0).as_deref() == Some(MANAGED_BY.1);
    let (mut others, mut last) = (BTreeMap::new(), None);
    let (mut our_labels, mut our_annotations) = (BTreeSet::new(), BTreeSet::new());
    for entry in fields {
        let manager = entry.manager.clone().unwrap_or_default();
        if manager == FIELD_MANAGER {
            our_labels.extend(owned(entry, &["f:metadata", "f:labels"]).map(str::to_owned));
            our_annotations.extend(owned(entry, &["f:metadata", "f:annotations"]).map(str::to_owned));
            our_keys.extend(owned(entry, &["f:data"]).map(str::to_owned));
        }
        if manager != FIELD_MANAGER && ours {
            others.extend(owned(entry, &["f:data"]).map(|key| (key.to_owned(), manager.clone())));
            if last.as_ref().is_none_or(|(time, _)| *time <= entry.time) {
                last = Some((entry.time.clone(), manager.clone()));
            }
        }
        if !managers.contains(&manager) {
            managers.push(manager);
        }
    }
    let owners = meta.owner_references.iter().flatten();
    Existing {
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        managed_by: label(MANAGED_BY.0),
        binding_id: label(BINDING_ID),
        binding: annotation(BINDING).cloned(),
        adopt: annotation(ADOPT).cloned(),
        fingerprints: annotation(FINGERPRINTS).and_then(|text| Fingerprints::from_annotation(text)),
        owners: owners
            .map(|o| Owner {
                api_version: o.api_version.clone(),
                kind: o.kind.clone(),
                name: o.name.clone(),
                uid: o.uid.clone(),
                controller: o.controller == Some(true),
                blocks: o.block_owner_deletion == Some(true),
            })
            .collect(),
        managers,
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: Hashed::of(meta.annotations.iter().flatten()),
        our_labels,
        our_annotations,
        others,
        last_manager: last.map(|(_, manager)| manager),
        our_keys,
        deleting: meta.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_tells_whose_a_secret_is_and_which_keys_are_still_ours() {
        let meta: ObjectMeta = serde_json::from_value(json!({
            "uid": "u", "resourceVersion": "7",
            "labels": {MANAGED_BY.0: MANAGED_BY.1, BINDING_ID: "id"},
            "annotations": {BINDING: "db", FINGERPRINTS: "a=AAAAAAAAAAAAAAAAAAAAAA"},
            "ownerReferences": [{"apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding", "name": "db", "uid": "b"}],
            "managedFields": [
                {"manager": "ennote-agent", "operation": "Update", "fieldsV1": {"f:data": {".": {}, "f:c.d": {}}, "f:type": {}}},
                {"manager": "ennote-agent", "operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}}, "f:metadata": {"f:annotations": {"f:ennote.io/fingerprints": {}}}}},
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {"f:b": {}}}}]
        }))
        .unwrap();
        let secret = reduce(&meta);
        assert_eq!(secret.our_keys, BTreeSet::from(["a".to_owned(), "c.d".to_owned()]));
        assert_eq!(secret.our_annotations, BTreeSet::from([FINGERPRINTS.to_owned()]), "whether updated or applied");
        assert_eq!(secret.labels.len(), 2);
        assert!(secret.annotations.holds(BINDING, "db"));
        assert_eq!(secret.managers, ["ennote-agent", "kubectl-edit"]);
        assert_eq!((secret.binding.as_deref(), secret.fingerprints.is_some()), (Some("db"), true));
        assert_eq!(secret.owners[0].uid, "b");
        assert_eq!(reduce(&ObjectMeta::default()), Existing::default());
    }

    #[test]
    fn a_late_event_never_hides_our_own_newer_write() {
        let index = SecretIndex::default();
        let secret = |uid: &str, revision: &str| Existing {
            uid: uid.into(),
            resource_version: revision.into(),
            ..Existing::default()
        };
        let known = || match index.observe("n", "s") {
            Observed::Present(s) => s.resource_version,
            Observed::Absent => String::new(),
        };
        index.seen("n", "s", secret("u", "9"));
        index.seen("n", "s", secret("u", "10"));
        index.seen("n", "s", secret("u", "9"));
        assert_eq!(known(), "10");
        index.seen("n", "s", secret("v", "3"));
        assert_eq!(known(), "3", "another object");
        index.gone("n", "s", Some("u"));
        assert_eq!(known(), "3", "the deletion of an earlier object");
        index.gone("n", "s", None);
        assert_eq!(known(), "");
        index.seen("n", "s", secret("v", "4"));
        assert_eq!(known(), "", "the answer to a write that the deletion overtook");
        index.seen("n", "s", secret("w", "5"));
        assert_eq!(known(), "5");
    }
}
