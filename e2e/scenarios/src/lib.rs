//! What scenarios, demo and bench say again and again: manifests, conditions, rollouts, counts of the audit log.

use anyhow::{Context, Result, ensure};
use ennote_harness::audit::{AuditEvent, AuditMark};
use ennote_harness::world::World;
use serde_json::Value;
use std::time::Duration;

pub mod hostile;
pub mod identity;
pub mod monitoring;
pub mod real_node;
pub mod rights;
pub mod witness;
pub mod workloads;

/// Patience of a scenario for anything that takes the control plane a moment. Never a measurement.
pub const SOON: Duration = Duration::from_secs(30);
/// Patience for what backs off first, or waits for an interval.
pub const LATER: Duration = Duration::from_secs(90);

/// A binding of the smallest form; its Secret has the binding's name.
pub fn binding(name: &str, secret: &str) -> String {
    format!(
        "apiVersion: ennote.io/v1alpha1\nkind: EnnoteSecretBinding\nmetadata: {{name: {name}}}\nspec: {{source: {{secret: {secret:?}}}}}\n"
    )
}

/// A Deployment, StatefulSet or DaemonSet that reads a Secret by envFrom and opts in.
pub fn workload(kind: &str, name: &str, reads: &str) -> String {
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
      containers:
        - {{name: c, image: none, envFrom: [{{secretRef: {{name: {reads}}}}}]}}
"
    )
}

/// [`workload`] with these annotations of its own in place of the opt-in: what Reloader is told, a wave, `never`, or nothing.
pub fn workload_saying(kind: &str, name: &str, reads: &str, annotations: &[(&str, &str)]) -> String {
    let said: Vec<String> = annotations.iter().map(|(name, text)| format!("{name:?}: {text:?}")).collect();
    workload(kind, name, reads).replace("{ennote.io/restart: auto}", &format!("{{{}}}", said.join(", ")))
}

/// A condition as `Status/Reason`.
pub fn condition(binding: &Value, kind: &str) -> Option<String> {
    let conditions = binding["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind)?;
    Some(format!("{}/{}", found["status"].as_str()?, found["reason"].as_str()?))
}

/// A condition's message.
pub fn message(binding: &Value, kind: &str) -> String {
    let conditions = binding["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|c| c["type"] == kind));
    found.and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned()
}

/// Waits until a condition reads `Status/Reason`, and that of the newest generation; gives the binding.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_condition(world: &World, name: &str, kind: &str, want: &str) -> Result<Value> {
    world
        .eventually(&format!("{name}: {kind} {want}"), LATER, async || {
            let binding = world.binding(name).await?;
            let seen = condition(&binding, kind);
            ensure!(seen.as_deref() == Some(want), "{name}: {kind} is {seen:?}: {}", message(&binding, kind));
            ensure!(
                binding["status"]["observedGeneration"] == binding["metadata"]["generation"],
                "not the newest generation"
            );
            Ok(binding)
        })
        .await
}

/// Waits until a binding holds a version; gives the binding.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_version(world: &World, name: &str, version: u64) -> Result<Value> {
    world
        .eventually(&format!("{name} at version {version}"), LATER, async || {
            let binding = world.binding(name).await?;
            ensure!(
                condition(&binding, "Ready").as_deref() == Some("True/Synced"),
                "Ready is {:?}",
                condition(&binding, "Ready")
            );
            let seen = &binding["status"]["source"]["version"];
            ensure!(seen.as_u64() == Some(version), "version is {seen}");
            Ok(binding)
        })
        .await
}

/// Waits until `status.rollouts` shows a workload (KIND/NAME) at a version in a phase; gives the binding.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_rollout(world: &World, name: &str, workload: &str, version: u64, phase: &str) -> Result<Value> {
    world
        .eventually(&format!("{workload} of {name}: version {version} {phase}"), LATER, async || {
            let binding = world.binding(name).await?;
            let shown = rollout(&binding, workload).context("not in status.rollouts")?;
            ensure!(shown["phase"] == phase && shown["version"].as_u64() == Some(version), "it is {shown}");
            Ok(binding)
        })
        .await
}

/// An entry of `status.rollouts`.
pub fn rollout(binding: &Value, workload: &str) -> Option<Value> {
    let (kind, name) = workload.split_once('/')?;
    let all = binding["status"]["rollouts"].as_array()?;
    all.iter().find(|r| r["kind"] == kind && r["name"] == name).cloned()
}

/// Waits until a workload's baseline is recorded: from then on a change restarts it.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_baseline(world: &World, name: &str, workload: &str) -> Result<()> {
    world
        .eventually(&format!("baseline of {workload} in {name}"), SOON, async || {
            let binding = world.binding(name).await?;
            ensure!(binding["status"]["baselines"][workload].is_string(), "none yet");
            Ok(())
        })
        .await
}

/// What the agent asked of the API server.
#[derive(Clone, Debug, Default)]
pub struct Requests(pub Vec<AuditEvent>);

impl Requests {
    /// Of the agent of this world, since `mark`.
    ///
    /// # Errors
    /// When there is no audit log.
    pub async fn since(world: &World, mark: AuditMark) -> Result<(Self, AuditMark)> {
        let (events, mark) = world.agent_requests(mark).await?;
        Ok((Self(events), mark))
    }

    /// Writes to Secrets that the API server took.
    pub fn secret_writes(&self) -> usize {
        self.0.iter().filter(|e| e.resource == "secrets" && e.is_write() && e.code < 300).count()
    }

    /// Stamps that the API server took: patches of workloads.
    pub fn restarts(&self) -> usize {
        let workload =
            |e: &&AuditEvent| ["deployments", "statefulsets", "daemonsets", "rollouts"].contains(&e.resource.as_str());
        self.0.iter().filter(workload).filter(|e| e.is_write() && e.code < 300).count()
    }

    /// Stamps of one workload (KIND/NAME) that the API server took.
    pub fn restarts_of(&self, workload: &str) -> usize {
        let of =
            |e: &&AuditEvent| workload.to_lowercase() == format!("{}/{}", e.resource.trim_end_matches('s'), e.name);
        self.0.iter().filter(of).filter(|e| e.is_write() && e.code < 300).count()
    }

    /// Requests that RBAC or admission refused, but for those that ask to be refused.
    pub fn denied(&self) -> Vec<&AuditEvent> {
        self.0.iter().filter(|e| e.is_denied() && !e.is_trial()).collect()
    }
}

/// The mark at the end of the audit log.
///
/// # Errors
/// When there is no audit log.
pub async fn mark(world: &World) -> Result<AuditMark> {
    Ok(world.plane.audit(ennote_harness::audit::START).await?.1)
}

/// A binding whose keys are chosen one by one: (key, pointer).
pub fn mapped(name: &str, secret: &str, keys: &[(&str, &str)]) -> String {
    let entries: String =
        keys.iter().map(|(key, pointer)| format!("    - {{key: {key:?}, pointer: {pointer:?}}}\n")).collect();
    format!("{}  data:\n{entries}", binding_with(name, &format!("source: {{secret: {secret:?}}}")))
}

/// A binding with this spec, one field of it.
pub fn binding_with(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ennote.io/v1alpha1\nkind: EnnoteSecretBinding\nmetadata: {{name: {name:?}}}\nspec:\n  {spec}\n"
    )
}

/// Path of a Secret at the API server.
pub fn secret_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

/// An object exactly as the API server gives it to an administrator, byte for byte.
///
/// # Errors
/// What the API server said.
pub async fn raw(world: &World, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(Vec::new())?;
    world.client.request_text(request).await.with_context(|| format!("GET {path}"))
}

/// An object as JSON.
///
/// # Errors
/// What the API server said.
pub async fn object(world: &World, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&raw(world, path).await?)?)
}

/// Waits until a condition's message holds a text; gives the binding.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_message(world: &World, name: &str, kind: &str, text: &str) -> Result<Value> {
    world
        .eventually(&format!("{name}: {kind} says {text:?}"), LATER, async || {
            let binding = world.binding(name).await?;
            let said = message(&binding, kind);
            ensure!(said.contains(text), "{name}: {kind} {:?} says {said:?}", condition(&binding, kind));
            Ok(binding)
        })
        .await
}

/// `kubectl apply` of `yaml` in any namespace.
///
/// # Errors
/// What kubectl said.
pub async fn apply_in(world: &World, namespace: &str, yaml: &str) -> Result<()> {
    world.plane.kubectl_stdin(&["apply", "--namespace", namespace, "-f", "-"], yaml).await?.ok()?;
    Ok(())
}

/// A binding of any namespace.
///
/// # Errors
/// What the API server said.
pub async fn binding_in(world: &World, namespace: &str, name: &str) -> Result<Value> {
    object(world, &format!("/apis/ennote.io/v1alpha1/namespaces/{namespace}/ennotesecretbindings/{name}")).await
}

/// [`until_condition`] in any namespace.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_condition_in(world: &World, namespace: &str, name: &str, kind: &str, want: &str) -> Result<Value> {
    world
        .eventually(&format!("{namespace}/{name}: {kind} {want}"), LATER, async || {
            let binding = binding_in(world, namespace, name).await?;
            let seen = condition(&binding, kind);
            ensure!(seen.as_deref() == Some(want), "{kind} is {seen:?}: {}", message(&binding, kind));
            Ok(binding)
        })
        .await
}

/// Waits until a Secret of the world's namespace is gone.
///
/// # Errors
/// With diagnostics, when it stays.
pub async fn until_collected(world: &World, name: &str) -> Result<()> {
    world
        .eventually(&format!("Secret {name} is collected"), LATER, async || {
            ensure!(world.secrets().get_opt(name).await?.is_none(), "still there");
            Ok(())
        })
        .await
}
