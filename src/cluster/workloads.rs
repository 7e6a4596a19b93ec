//! Workloads: watched in full, reduced on arrival, restarted by a patch of exactly one field: our annotation on the pod
//! template, or the time `restartAt` of Argo's Rollout.

use crate::cluster::DEADLINE;
use crate::cluster::error::ClusterError;
use crate::cluster::watch::{Change, Kinds, changes};
use crate::domain::observed::FIELD_MANAGER;
use crate::rollout::argo::ArgoRollout;
use crate::rollout::workload::{CONTENT, Kind, Stamp, Workload};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt::Debug;

/// Lets one kube `Controller` hold all kinds: the name is KIND/NAME.
impl Resource for Workload {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Workload".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "apps".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "workloads".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for ArgoRollout {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Rollout".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "argoproj.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "rollouts".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The watches of a namespace, one of each of these kinds.
pub(super) fn watch(
    client: &Client,
    namespace: &str,
    kinds: &[Kind],
) -> Vec<(Kind, BoxStream<'static, Change<Workload>>)> {
    let open = |kind: &Kind| match *kind {
        kind @ Kind::Deployment => (kind, of_kind::<Deployment>(client, namespace, kind, Kinds::always("deployments"))),
        kind @ Kind::StatefulSet => {
            (kind, of_kind::<StatefulSet>(client, namespace, kind, Kinds::always("statefulsets")))
        }
        kind @ Kind::DaemonSet => (kind, of_kind::<DaemonSet>(client, namespace, kind, Kinds::always("daemonsets"))),
        kind @ Kind::Rollout => (kind, of_kind::<ArgoRollout>(client, namespace, kind, ARGO)),
    };
    kinds.iter().map(open).collect()
}

const ARGO: Kinds = Kinds {
    plural: "rollouts.argoproj.io",
    granted: "rollouts.argo=true",
    absent: Some("install Argo Rollouts, or set rollouts.argo to false; asked again every minute"),
};

fn of_kind<K>(client: &Client, namespace: &str, kind: Kind, what: Kinds) -> BoxStream<'static, Change<Workload>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Into<Workload>
        + 'static,
{
    let stream = changes::<K, Workload>(client, namespace, what, K::into);
    stream
        .map(move |change| match change {
            Change::Deleted { namespace, name, uid } => {
                Change::Deleted { namespace, name: format!("{kind}/{name}"), uid }
            }
            other => other,
        })
        .boxed()
}

/// Restarts workloads.
#[derive(Clone)]
pub struct Workloads {
    client: Client,
}

impl Workloads {
    /// Over this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sets the one field under uid and resourceVersion; replicas, images and everything else stay as they are.
    ///
    /// # Errors
    /// The API server's refusal; 409 when the workload has moved since it was seen.
    pub async fn stamp(&self, workload: &Workload, stamp: &Stamp) -> Result<(), ClusterError> {
        let value = stamp.text(workload.kind);
        let meta = json!({"uid": workload.metadata.uid, "resourceVersion": workload.metadata.resource_version});
        let annotation = json!({"template": {"metadata": {"annotations": {CONTENT: value}}}});
        let of_template = Patch::Strategic(json!({"metadata": &meta, "spec": annotation}));
        // A custom resource takes no strategic merge patch.
        let of_time = Patch::Merge(json!({"metadata": &meta, "spec": {"restartAt": value}}));
        match workload.kind {
            Kind::Deployment => self.patch::<Deployment>(workload, of_template).await,
            Kind::StatefulSet => self.patch::<StatefulSet>(workload, of_template).await,
            Kind::DaemonSet => self.patch::<DaemonSet>(workload, of_template).await,
            Kind::Rollout => self.patch::<ArgoRollout>(workload, of_time).await,
        }
    }

    async fn patch<K>(&self, workload: &Workload, patch: Patch<Value>) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), workload.namespace());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let call = api.patch_metadata(&workload.name, &params, &patch);
        tokio::time::timeout(DEADLINE, call).await.map_err(|_| ClusterError::TimedOut)??;
        Ok(())
    }
}
