//! Talking to a control plane as its administrator while it starts.

use crate::control_plane::ControlPlane;
use crate::wait;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Node, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A client from a kubeconfig, with another token when given. It retries nothing by itself and uses no proxy.
pub(crate) async fn client(kubeconfig: &Path, token: Option<&str>) -> Result<Client> {
    // Both rustls providers may be compiled in; the first choice of a process stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut file = Kubeconfig::read_from(kubeconfig)?;
    if let Some(token) = token {
        for user in &mut file.auth_infos {
            user.auth_info = Some(serde_json::from_value(json!({ "token": token }))?);
        }
    }
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Waits until the API server says that it is ready.
pub(crate) async fn ready(plane: &ControlPlane) -> Result<()> {
    // The client wants the CA, which the server makes at its first start.
    let client = wait::until("the API server's certificate", LIMIT, async || plane.client().await).await?;
    wait::until("the API server to be ready", LIMIT, async || {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        client.request_text(request).await.context("/readyz")
    })
    .await
    .map(drop)
}

/// Creates nodes that KWOK plays, and waits until they are Ready.
pub(crate) async fn add_nodes(client: &Client, count: usize) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for name in (0..count).map(|number| format!("node-{number}")) {
        let node = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": { "kwok.x-k8s.io/node": "fake" },
                "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64" },
            },
            "status": { "allocatable": { "cpu": "64", "memory": "256Gi", "pods": "10000" },
                        "capacity": { "cpu": "64", "memory": "256Gi", "pods": "10000" } },
        }))?;
        nodes.create(&PostParams::default(), &node).await?;
    }
    wait::until("the fake nodes to be Ready", LIMIT, async || {
        let list = nodes.list(&ListParams::default()).await?;
        match list.iter().find(|node| !is_ready(node)) {
            Some(node) => bail!("node {:?} is not Ready", node.metadata.name),
            None => Ok(()),
        }
    })
    .await
}

/// Waits until a namespace has what pods need: its ServiceAccount and the API server's CA.
pub(crate) async fn serves_namespaces(client: &Client) -> Result<()> {
    wait::until("the controllers to serve namespace default", LIMIT, async || {
        Api::<ServiceAccount>::namespaced(client.clone(), "default").get("default").await?;
        Api::<ConfigMap>::namespaced(client.clone(), "default").get("kube-root-ca.crt").await?;
        Ok(())
    })
    .await
}

/// Ready and open for pods.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        && node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_none_or(Vec::is_empty)
}
