//! The part of a kubelet that a pod on a KWOK node lacks: which pod is the Deployment's, and keeping its volumes current.

use crate::volumes::Volumes;
use crate::wait;
use anyhow::{Context, Result, ensure};
use futures::Stream;
use futures::stream::{SelectAll, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

const POD_LIMIT: Duration = Duration::from_secs(60);
const REVISION: &str = "deployment.kubernetes.io/revision";

/// A running pod of a Deployment's newest revision, other than the one with the UID `beside`.
pub(crate) async fn pod_of(client: &Client, namespace: &str, deployment: &str, beside: Option<&str>) -> Result<Pod> {
    let what = format!("a running pod of Deployment {namespace}/{deployment}");
    wait::until(&what, POD_LIMIT, async || current_pod(client, namespace, deployment, beside).await).await
}

async fn current_pod(client: &Client, namespace: &str, name: &str, beside: Option<&str>) -> Result<Pod> {
    let deployment = Api::<Deployment>::namespaced(client.clone(), namespace).get(name).await?;
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    ensure!(seen == deployment.metadata.generation, "its newest template is not rolled out yet");
    let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selected = ListParams::default().labels(&labels.join(","));
    let sets = Api::<ReplicaSet>::namespaced(client.clone(), namespace).list(&selected).await?;
    let revision = deployment.annotations().get(REVISION);
    let newest =
        sets.iter().find(|set| set.annotations().get(REVISION) == revision && owned_by(*set, &deployment.uid()));
    let set = newest.context("it has no ReplicaSet yet")?.uid();
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&selected).await?;
    let mut pods = pods.items.into_iter().filter(|pod| beside.is_none() || pod.metadata.uid.as_deref() != beside);
    let pod = pods.find(|pod| owned_by(pod, &set) && pod.metadata.deletion_timestamp.is_none() && is_running(pod));
    pod.context("no pod of its newest revision runs")
}

fn owned_by(object: &impl ResourceExt, uid: &Option<String>) -> bool {
    object.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref())
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Keeps volumes current until it is dropped: on changes of what they show, and before a token expires.
pub(crate) struct Sync {
    task: JoinHandle<()>,
    wake: watch::Sender<u64>,
    done: watch::Receiver<u64>,
    volumes: Arc<Mutex<Volumes>>,
}

impl Sync {
    /// Must be called inside a runtime.
    pub(crate) async fn start(client: Client, namespace: &str, volumes: Arc<Mutex<Volumes>>) -> Self {
        let changes = changes(&client, namespace, &*volumes.lock().await);
        let (wake, woken) = watch::channel(0);
        let (finished, done) = watch::channel(0);
        let task = tokio::spawn(keep(Arc::clone(&volumes), changes, woken, finished));
        Self { task, wake, done, volumes }
    }

    /// Replaces every token file by a new token, now.
    pub(crate) async fn renew_tokens(&self) -> Result<()> {
        self.volumes.lock().await.forget_tokens();
        self.wake.send_modify(|round| *round += 1);
        let wanted = *self.wake.borrow();
        self.done.clone().wait_for(|round| *round >= wanted).await.context("the volumes are not kept any more")?;
        Ok(())
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Changes = SelectAll<Pin<Box<dyn Stream<Item = ()> + Send>>>;

async fn keep(
    volumes: Arc<Mutex<Volumes>>,
    mut changes: Changes,
    mut woken: watch::Receiver<u64>,
    finished: watch::Sender<u64>,
) {
    loop {
        let renew_at = volumes.lock().await.renew_at();
        let renewal = async {
            match renew_at {
                Some(at) => {
                    let wait = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
                    tokio::time::sleep(wait).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = changes.next() => {}
            () = renewal => {}
            changed = woken.changed() => if changed.is_err() { return },
        }
        let round = *woken.borrow();
        // The API server may be away, as a scenario wants it: the old files stay, as on a node.
        while volumes.lock().await.write().await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        finished.send_replace(round);
    }
}

fn changes(client: &Client, namespace: &str, volumes: &Volumes) -> Changes {
    let (secrets, config_maps) = volumes.shown();
    let mut all = Changes::new();
    for name in secrets {
        all.push(changes_of::<Secret>(client, namespace, &name));
    }
    for name in config_maps {
        all.push(changes_of::<ConfigMap>(client, namespace, &name));
    }
    all
}

fn changes_of<K>(client: &Client, namespace: &str, name: &str) -> Pin<Box<dyn Stream<Item = ()> + Send>>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(Api::<K>::namespaced(client.clone(), namespace), config).default_backoff();
    // What changed is read again; an error is the API server away, and the watch comes back by itself.
    events.filter_map(|event| std::future::ready(event.ok().map(drop))).boxed()
}
