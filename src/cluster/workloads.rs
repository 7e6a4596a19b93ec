//! Workloads: watched in full, reduced on arrival, stamped by a strategic merge patch of exactly one annotation.

use crate::cluster::DEADLINE;
use crate::cluster::error::ClusterError;
use crate::cluster::watch::{Change, changes};
use crate::domain::observed::FIELD_MANAGER;
use crate::rollout::workload::{CONTENT, Kind, Workload};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Debug;

/// Lets one kube `Controller` hold all three kinds: the name is KIND/NAME.
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

/// The three watches of a namespace.
pub(super) fn watch(client: &Client, namespace: &str) -> [(Kind, BoxStream<'static, Change<Workload>>); 3] {
    [
        (Kind::Deployment, of_kind::<Deployment>(client, namespace, Kind::Deployment, "deployments")),
        (Kind::StatefulSet, of_kind::<StatefulSet>(client, namespace, Kind::StatefulSet, "statefulsets")),
        (Kind::DaemonSet, of_kind::<DaemonSet>(client, namespace, Kind::DaemonSet, "daemonsets")),
    ]
}

fn of_kind<K>(client: &Client, namespace: &str, kind: Kind, what: &'static str) -> BoxStream<'static, Change<Workload>>
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

/// Stamps pod templates.
#[derive(Clone)]
pub struct Workloads {
    client: Client,
}

impl Workloads {
    /// Over this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sets the one annotation under uid and resourceVersion; replicas, images and everything else stay as they are.
    ///
    /// # Errors
    /// The API server's refusal; 409 when the workload has moved since it was seen.
    pub async fn stamp(&self, workload: &Workload, value: &str) -> Result<(), ClusterError> {
        match workload.kind {
            Kind::Deployment => self.patch::<Deployment>(workload, value).await,
            Kind::StatefulSet => self.patch::<StatefulSet>(workload, value).await,
            Kind::DaemonSet => self.patch::<DaemonSet>(workload, value).await,
        }
    }

    async fn patch<K>(&self, workload: &Workload, value: &str) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), workload.namespace());
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": workload.metadata.uid, "resourceVersion": workload.metadata.resource_version},
            "spec": {"template": {"metadata": {"annotations": {CONTENT: value}}}},
        }));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let call = api.patch_metadata(&workload.name, &params, &patch);
        tokio::time::timeout(DEADLINE, call).await.map_err(|_| ClusterError::TimedOut)??;
        Ok(())
    }
}
