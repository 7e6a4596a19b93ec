//! Workloads of scenarios: their manifests, what the API server holds of them, and a node of their own to make them fail.

use crate::{binding, until_version};
use anyhow::{Context, Result};
use ennote_harness::world::{Options, World};
use serde_json::{Value, json};

/// The one annotation that the agent writes into a pod template.
pub const CONTENT: &str = "ennote.io/content";

/// A manifest of [`crate::workload`]'s form, edited.
pub fn edited(kind: &str, name: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut manifest = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {"ennote.io/restart": "auto", "team": "shop"}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "none:1", "envFrom": [{"secretRef": {"name": "db"}}]}],
                },
            },
        },
    });
    if kind != "DaemonSet" {
        manifest["spec"]["replicas"] = json!(2);
    }
    if kind == "StatefulSet" {
        manifest["spec"]["serviceName"] = json!("none");
    }
    edit(&mut manifest);
    manifest.to_string()
}

/// A workload (KIND/NAME) as the API server holds it.
///
/// # Errors
/// What the API server said.
pub async fn get(world: &World, workload: &str) -> Result<Value> {
    let (kind, name) = workload.split_once('/').context("KIND/NAME")?;
    crate::object(world, &format!("/apis/apps/v1/namespaces/{}/{}s/{name}", world.namespace, kind.to_lowercase())).await
}

/// Our stamp on it.
pub fn stamp(object: &Value) -> Option<&str> {
    object["spec"]["template"]["metadata"]["annotations"][CONTENT].as_str()
}

/// A manifest of a Deployment with one pod that reads the Secret `db` and runs on a node of the scenario's own, edited.
pub fn fragile(world: &World, name: &str, edit: impl FnOnce(&mut Value)) -> String {
    edited("Deployment", name, |o| {
        o["spec"]["replicas"] = json!(1);
        o["spec"]["progressDeadlineSeconds"] = json!(5);
        place(world, o);
        edit(o);
    })
}

/// Has the pods of a workload run on the scenario's own node and nowhere else.
pub fn place(world: &World, manifest: &mut Value) {
    let pod = &mut manifest["spec"]["template"]["spec"];
    pod["nodeSelector"] = json!({"scenario": world.namespace});
    pod["tolerations"] = json!([{"key": "scenario", "operator": "Exists"}]);
}

/// Starts a world with the secret `db` at version 1 and its binding.
///
/// # Errors
/// The first thing that did not work.
pub async fn with_db(name: &str) -> Result<World> {
    let world = World::start(name, Options::default()).await?;
    world.cloud.put("db", &[("user", "app"), ("password", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    Ok(world)
}

/// A node for one scenario: no pod runs there that does not ask for it.
///
/// # Errors
/// What the API server said.
pub async fn own_node(world: &World) -> Result<()> {
    let name = &world.namespace;
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"scenario": name}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "spec": {"taints": [{"key": "scenario", "value": name, "effect": "NoSchedule"}]},
        "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "100"},
                   "capacity": {"cpu": "64", "memory": "256Gi", "pods": "100"}},
    });
    world.plane.kubectl_stdin(&["create", "-f", "-"], &node.to_string()).await?.ok()?;
    Ok(())
}

/// From now on no new pod starts on the scenario's node, or they do again.
///
/// # Errors
/// What kubectl said.
pub async fn pods_start(world: &World, start: bool) -> Result<()> {
    let verb = if start { "uncordon" } else { "cordon" };
    world.plane.kubectl(&[verb, &world.namespace]).await?.ok().map(drop)
}

/// Commits the next version of the secret `db`.
///
/// # Errors
/// What the cloud said.
pub async fn put_db(world: &World, password: &str) -> Result<()> {
    world.cloud.put("db", &[("user", "app"), ("password", password)]).await.map(drop)
}

/// A binding of the secret of its name that says this of rollouts, in YAML's flow style.
pub fn rolling(name: &str, rollout: &str) -> String {
    crate::binding_with(name, &format!("source: {{secret: {name}}}\n  rollout: {{{rollout}}}"))
}

/// A binding of the secret `db`. Quiet period and interval are off, so that scenarios wait for what they are about.
pub fn rolling_db(rollout: &str) -> String {
    let more = if rollout.is_empty() { String::new() } else { format!(", {rollout}") };
    rolling("db", &format!("quietPeriod: 0s, minInterval: 0s{more}"))
}

/// Starts a world with the secret `db`, such a binding, and these workloads, which run its first version.
///
/// # Errors
/// The first thing that did not work.
pub async fn rolling_out(
    name: &str,
    rollout: &str,
    workloads: impl FnOnce(&World) -> Vec<(&'static str, String)>,
) -> Result<World> {
    let world = World::start(name, Options::default()).await?;
    own_node(&world).await?;
    put_db(&world, "1").await?;
    world.apply(&rolling_db(rollout)).await?;
    until_version(&world, "db", 1).await?;
    for (workload, manifest) in workloads(&world) {
        world.apply(&manifest).await?;
        crate::until_baseline(&world, "db", workload).await?;
        until_up(&world, workload).await?;
    }
    Ok(world)
}

/// Waits until all pods of a workload (KIND/NAME) are up.
///
/// # Errors
/// With diagnostics, when they do not come.
pub async fn until_up(world: &World, workload: &str) -> Result<()> {
    world
        .eventually(&format!("the pods of {workload}"), crate::SOON, async || {
            let object = get(world, workload).await?;
            let status = &object["status"];
            let desired = object["spec"]["replicas"].as_i64().or(status["desiredNumberScheduled"].as_i64());
            let up = status["availableReplicas"].as_i64().or(status["numberAvailable"].as_i64()).unwrap_or(0);
            anyhow::ensure!(
                desired == Some(up) && status["observedGeneration"] == object["metadata"]["generation"],
                "{status}"
            );
            Ok(())
        })
        .await
}

/// Ends a world and its node.
///
/// # Errors
/// What did not end well.
pub async fn end(world: World) -> Result<()> {
    world.plane.kubectl(&["delete", "node", &world.namespace, "--wait=false"]).await?.ok()?;
    world.stop().await
}
