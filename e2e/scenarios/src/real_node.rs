//! A real node and worlds on it whose agent is a pod: for its scenarios, and for the demo.

use crate::LATER;
use anyhow::{Context, Result, ensure};
use ennote_harness::control_plane::{self, ControlPlane};
use ennote_harness::devcloud;
use ennote_harness::node::{ADDRESS, AGENT_IMAGE, Binaries, Container, Node, WORKLOAD_IMAGE};
use ennote_harness::wait;
use ennote_harness::world::{Options, RELEASE, World};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Labels of the agent's pods.
const AGENT: &str = "app.kubernetes.io/name=ennote-agent";
/// Patience for what probes take their time for, three times over.
pub const PROBED: Duration = Duration::from_secs(400);

/// The node and its control plane.
pub struct Place {
    /// The node, which runs containers of its own.
    pub node: Node,
    /// The control plane that it is the only node of.
    pub plane: Arc<ControlPlane>,
}

impl Place {
    /// Starts both, with images around these binaries.
    ///
    /// # Errors
    /// What did not start; its logs stay.
    pub async fn start(binaries: &Binaries) -> Result<Self> {
        // No fake node: what runs here, runs for real.
        let options = control_plane::Options { nodes: 0, ..control_plane::Options::default() };
        let plane = Arc::new(ControlPlane::start(options).await?);
        let node = Node::start(&plane, binaries).await.inspect_err(|_| plane.dir().keep())?;
        Ok(Self { node, plane })
    }

    /// Ends both.
    ///
    /// # Errors
    /// What did not end.
    pub async fn stop(self) -> Result<()> {
        self.node.stop().await?;
        self.plane.stop().await
    }

    /// A namespace that enforces Pod Security `restricted`, with a cloud that its pods reach, and no chart yet.
    ///
    /// # Errors
    /// What did not work, with what the cluster says of it.
    pub async fn world(&self, name: &str) -> Result<World> {
        let options = Options {
            plane: Some(self.plane.clone()),
            cloud: devcloud::Options { init: vec!["--tls-name".to_owned(), ADDRESS.to_owned()], ..Default::default() },
            chart: false,
            agent: false,
            ..Options::default()
        };
        let world = World::start(name, options).await?;
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        let newest = "pod-security.kubernetes.io/enforce-version=latest";
        world.kubectl(&["label", "namespace", &world.namespace, enforce, newest]).await?;
        self.node.lead(port(&world)?)?;
        Ok(world)
    }

    /// Installs the chart as it is, but for the image and the address of the cloud.
    ///
    /// # Errors
    /// What did not work, with what the cluster says of it.
    pub async fn install(&self, world: &mut World, more: Value) -> Result<()> {
        let (repository, tag) = AGENT_IMAGE.rsplit_once(':').context("an image has a tag")?;
        let url = format!("{ADDRESS}:{}", port(world)?);
        let image = json!({ "repository": repository, "tag": tag, "pullPolicy": "Never" });
        world.install(json!({ "image": image, "ennote": { "api": { "url": url } } })).await?;
        if more.as_object().is_some_and(|more| !more.is_empty()) {
            world.install(more).await?;
        }
        Ok(())
    }

    /// [`Self::world`] with the chart, and its agent Ready.
    ///
    /// # Errors
    /// What did not work, with what the cluster says of it.
    pub async fn installed(&self, name: &str) -> Result<(World, Pod)> {
        let mut world = self.world(name).await?;
        self.install(&mut world, json!({})).await?;
        let pod = self.ready(&world).await?;
        Ok((world, pod))
    }

    /// The one pod of the agent, as soon as it is Ready.
    ///
    /// # Errors
    /// What did not work, with what the cluster says of it.
    pub async fn ready(&self, world: &World) -> Result<Pod> {
        self.agent(world, "the agent's pod to be Ready", LATER, |status| {
            ensure!(status.ready, "it is not Ready: {:?}", status.state);
            Ok(())
        })
        .await
    }

    /// The one pod of the agent, as soon as its container is as `wanted` says.
    ///
    /// # Errors
    /// What did not work, with what the cluster says of it.
    pub async fn agent(
        &self,
        world: &World,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&ContainerStatus) -> Result<()>,
    ) -> Result<Pod> {
        self.eventually(world, what, limit, async || {
            let pods = pods(world, AGENT).await?;
            ensure!(pods.len() == 1, "{} pods of the agent", pods.len());
            let pod = pods.into_iter().next().context("just counted")?;
            wanted(status(&pod)?)?;
            Ok(pod)
        })
        .await
    }

    /// The container of a pod.
    ///
    /// # Errors
    /// What did not work, with what the cluster says of it.
    pub fn container(&self, pod: &Pod) -> Result<Container> {
        self.node.container(pod)
    }

    /// Tries until it succeeds. On failure the error holds what the cluster, the kubelet and the agent say.
    ///
    /// # Errors
    /// What did not work, with what the cluster says of it.
    pub async fn eventually<T>(
        &self,
        world: &World,
        what: &str,
        limit: Duration,
        attempt: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        match wait::until(what, limit, attempt).await {
            Ok(value) => Ok(value),
            Err(error) => Err(anyhow::Error::msg(format!("{error:#}\n{}", self.diagnostics(world).await))),
        }
    }

    async fn diagnostics(&self, world: &World) -> String {
        let mut text = world.kubectl(&["describe", "pods"]).await.unwrap_or_else(|error| format!("{error:#}"));
        for pod in pods(world, AGENT).await.unwrap_or_default() {
            let log = self.node.log(&pod).unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(25)..].join("\n");
            text.push_str(&format!("--- {}\n{last}\n", pod.name_any()));
        }
        text.push_str(&world.diagnostics().await);
        text
    }
}

/// Pods with these labels that nobody has asked to go.
///
/// # Errors
/// What the API server said.
pub async fn pods(world: &World, labels: &str) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(world.client.clone(), &world.namespace);
    let mut pods = pods.list(&ListParams::default().labels(labels)).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// What the kubelet says of a pod's one container.
///
/// # Errors
/// When there is none yet.
pub fn status(pod: &Pod) -> Result<&ContainerStatus> {
    let all = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    all.and_then(|all| all.first()).with_context(|| format!("pod {} has no container yet", pod.name_any()))
}

/// The Deployment of the agent, as kubectl names it.
pub fn deployment() -> String {
    format!("deployment/{RELEASE}")
}

fn port(world: &World) -> Result<u16> {
    let address = world.cloud.address();
    let (_, port) = address.rsplit_once(':').context("an address has a port")?;
    Ok(port.parse()?)
}

/// A workload whose pods say once what they read of the key `value` of Secret `db`: `env=VALUE file=VALUE`.
pub fn workload(kind: &str, name: &str) -> String {
    let replicas = if kind == "DaemonSet" { "" } else { "\n  replicas: 2" };
    let service = if kind == "StatefulSet" { "\n  serviceName: none" } else { "" };
    format!(
        "apiVersion: apps/v1
kind: {kind}
metadata:
  name: {name}
  annotations: {{ennote.io/restart: auto}}
spec:{replicas}{service}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: c
          image: {WORKLOAD_IMAGE}
          imagePullPolicy: Never
          args: [VALUE, /etc/db/value]
          env: [{{name: VALUE, valueFrom: {{secretKeyRef: {{name: db, key: value}}}}}}]
          securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
          volumeMounts: [{{name: db, mountPath: /etc/db, readOnly: true}}]
      volumes: [{{name: db, secret: {{secretName: db}}}}]
"
    )
}
