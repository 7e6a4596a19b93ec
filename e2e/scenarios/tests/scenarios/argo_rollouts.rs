//! Rollouts of Argo restart by `spec.restartAt`, where the setting says so. Argo's controller is played by the test: it is not
//! what is tested, and its pods are not either.

use crate::acts::{self, Act, Want};
use crate::admission::thief;
use anyhow::{Context, Result, ensure};
use ennote_harness::control_plane::{ControlPlane, Options as PlaneOptions};
use ennote_harness::world::{Options, World};
use ennote_scenarios::witness::Witness;
use ennote_scenarios::{
    Requests, SOON, binding, condition, mark, object, rollout, until_baseline, until_condition, until_rollout,
    until_version,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const CRD: &str = include_str!("../../assets/argo-rollouts-crd.yaml");
/// A kind that was absent is asked for every minute.
const NEXT_LOOK: Duration = Duration::from_secs(180);

async fn install_argo(world: &World) -> Result<()> {
    world.plane.kubectl_stdin(&["apply", "--server-side", "-f", "-"], CRD).await?.ok()?;
    let established = ["wait", "--for=condition=Established", "crd/rollouts.argoproj.io", "--timeout=30s"];
    world.plane.kubectl(&established).await?.ok()?;
    Ok(())
}

/// A Rollout that reads the Secret `db`. The template holds a number where Kubernetes has text: Argo's CRD takes it.
fn manifest(name: &str, annotations: Value, edit: impl FnOnce(&mut Value)) -> String {
    let mut manifest = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"checksum/config": "a1"}},
                "spec": {"containers": [{"name": "c", "image": "none:1", "resources": {"limits": {"cpu": 1}},
                    "env": [{"name": "LITERAL", "value": "no"}], "envFrom": [{"secretRef": {"name": "db"}}]}]},
            },
        },
    });
    edit(&mut manifest);
    manifest.to_string()
}

async fn get(world: &World, name: &str) -> Result<Value> {
    object(world, &format!("/apis/argoproj.io/v1alpha1/namespaces/{}/rollouts/{name}", world.namespace)).await
}

/// What Argo's controller writes once all pods are up, and younger than `restartAt`.
async fn play_argo(world: &World, name: &str) -> Result<()> {
    let seen = get(world, name).await?;
    let generation = seen["metadata"]["generation"].as_i64().context("generation")?.to_string();
    let status = json!({"status": {
        "observedGeneration": generation, "restartedAt": seen["spec"]["restartAt"], "phase": "Healthy",
        "HPAReplicas": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
    }});
    let patch = status.to_string();
    let args = ["patch", "rollouts.argoproj.io", name, "--subresource=status", "--type=merge", "-p", &patch];
    world.kubectl(&args).await?;
    Ok(())
}

/// All of it but when it restarts, and what is counted and recorded of it.
fn rest(object: &Value) -> Value {
    let mut rest = object.clone();
    for counted in ["resourceVersion", "generation", "managedFields"] {
        if let Some(meta) = rest["metadata"].as_object_mut() {
            meta.remove(counted);
        }
    }
    if let Some(spec) = rest["spec"].as_object_mut() {
        spec.remove("restartAt");
    }
    rest["status"] = Value::Null;
    rest
}

/// What the agent owns of it, in the API server's own books.
fn owned(object: &Value) -> Vec<&Value> {
    let managers = object["metadata"]["managedFields"].as_array();
    managers.into_iter().flatten().filter(|m| m["manager"] == "ennote-agent").map(|m| &m["fieldsV1"]).collect()
}

async fn until_restarted(world: &World, name: &str) -> Result<Value> {
    world
        .eventually(&format!("Rollout/{name} is restarted"), SOON, async || {
            let seen = get(world, name).await?;
            ensure!(seen["spec"]["restartAt"].is_string(), "not yet");
            Ok(seen)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_of_argo_restart_once_where_the_setting_says_so_and_are_not_asked_for_elsewhere() -> Result<()> {
    // Its own: the others have no Argo, and this one begins without it.
    let plane = Arc::new(ControlPlane::start(PlaneOptions::default()).await?);
    let values = json!({"rollouts": {"argo": true}});
    let world = World::start("argo", Options { plane: Some(plane.clone()), values, ..Options::default() }).await?;
    world.cloud.put("db", &[("password", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    world
        .eventually("ready without Argo", SOON, async || {
            world.agent.exec(&["healthcheck", "--ready"]).await?.ok().map(drop)
        })
        .await?;

    install_argo(&world).await?;
    world.apply(&manifest("web", json!({"ennote.io/restart": "auto", "team": "shop"}), |_| ())).await?;
    let by_reference = |o: &mut Value| {
        o["spec"]["workloadRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"});
        if let Some(spec) = o["spec"].as_object_mut() {
            spec.remove("template");
        }
    };
    world.apply(&manifest("listed", json!({"ennote.io/restart": "other, db"}), by_reference)).await?;
    world.apply(&manifest("bystander", json!({}), |_| ())).await?;
    for name in ["web", "listed", "bystander"] {
        play_argo(&world, name).await?;
    }
    let looked = async || {
        let binding = world.binding("db").await?;
        ensure!(binding["status"]["baselines"]["Rollout/web"].is_string(), "not seen yet");
        Ok(())
    };
    world.eventually("Argo is seen once it is there", NEXT_LOOK, looked).await?;
    until_baseline(&world, "db", "Rollout/listed").await?;
    let (before, bystander) = (get(&world, "web").await?, get(&world, "bystander").await?);

    let start = mark(&world).await?;
    world.cloud.put("db", &[("password", "2")]).await?;
    let restarted = until_restarted(&world, "web").await?;
    let shown = until_rollout(&world, "db", "Rollout/web", 2, "Progressing").await?;
    ensure!(rollout(&shown, "Rollout/web").context("just seen")?["ready"] == 0, "Argo has not said that a pod is new");
    let synced = shown["status"]["lastSyncTime"].as_str().context("lastSyncTime")?;
    ensure!(restarted["spec"]["restartAt"].as_str() > Some(synced), "pods of before the write are older: {synced}");
    until_restarted(&world, "listed").await?;
    for name in ["web", "listed"] {
        play_argo(&world, name).await?;
        let shown = until_rollout(&world, "db", &format!("Rollout/{name}"), 2, "Complete").await?;
        let shown = rollout(&shown, &format!("Rollout/{name}")).context("just seen")?;
        ensure!(shown["ready"] == 2 && shown["desired"] == 2, "{shown}");
    }
    let shown = until_condition(&world, "db", "RolledOut", "True/Complete").await?;
    ensure!(condition(&shown, "Ready").as_deref() == Some("True/Synced"));

    // Found again by the next life of the agent, not repeated.
    let mut world = world;
    world.agent.restart().await?;
    Witness::new(&world).await?.testify(&world).await?;
    let after = get(&world, "web").await?;
    ensure!(rest(&after) == rest(&before), "it changed besides:\n{}\n{}", rest(&before), rest(&after));
    ensure!(owned(&after) == [&json!({"f:spec": {"f:restartAt": {}}})], "{:?}", owned(&after));
    ensure!(after["spec"]["restartAt"] == restarted["spec"]["restartAt"], "once");
    let now = get(&world, "bystander").await?;
    ensure!(now["metadata"]["generation"] == bystander["metadata"]["generation"] && owned(&now).is_empty(), "touched");
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of("Rollout/web") == 1 && requests.restarts_of("Rollout/listed") == 1);
    ensure!(requests.restarts() == 3, "two and the witness, but {}", requests.restarts());
    ensure!(requests.denied().is_empty(), "{:?}", requests.denied());
    world.stop().await?;

    let off = World::start("argo-off", Options { plane: Some(plane), ..Options::default() }).await?;
    off.cloud.put("db", &[("password", "1")]).await?;
    off.apply(&binding("db", "db")).await?;
    until_version(&off, "db", 1).await?;
    off.apply(&manifest("web", json!({"ennote.io/restart": "auto"}), |_| ())).await?;
    let witness = Witness::new(&off).await?;
    off.cloud.put("db", &[("password", "2")]).await?;
    until_version(&off, "db", 2).await?;
    witness.testify(&off).await?;
    let (requests, _) = Requests::since(&off, ennote_harness::audit::START).await?;
    ensure!(requests.restarts_of("Deployment/witness") == 1, "the audit log is this agent's");
    let asked: Vec<_> = requests.0.iter().filter(|e| e.resource == "rollouts" || e.uri.contains("argoproj")).collect();
    ensure!(asked.is_empty(), "{asked:?}");
    ensure!(get(&off, "web").await?["spec"]["restartAt"].is_null());
    off.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_rollout_only_its_restart_may_change_and_only_where_it_opted_in() -> Result<()> {
    let plane = Arc::new(ControlPlane::start(PlaneOptions::default()).await?);
    let values = json!({"rollouts": {"argo": true}});
    let options = Options { plane: Some(plane), values, agent: false, token: false, ..Options::default() };
    let world = World::start("argo-acts", options).await?;
    install_argo(&world).await?;
    world.apply(&manifest("opted", json!({"ennote.io/restart": "auto"}), |_| ())).await?;
    world.apply(&manifest("other", json!({}), |_| ())).await?;
    let (client, policy) = (thief(&world).await?, format!("ennote-agent.{}", world.namespace));
    let all = format!("/apis/argoproj.io/v1alpha1/namespaces/{}/rollouts", world.namespace);
    let (opted, other) = (format!("{all}/opted"), format!("{all}/other"));
    let restart = json!({"spec": {"restartAt": "2026-01-01T00:00:00Z"}});
    let mut with_replicas = restart.clone();
    with_replicas["spec"]["replicas"] = 0.into();
    let mut forbidden: Vec<Act> = [
        ("replicas", json!({"spec": {"replicas": 0}})),
        ("replicas with a restart", with_replicas),
        ("pause", json!({"spec": {"paused": true}})),
        ("image", json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "evil"}]}}}})),
        ("template annotation", json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})),
        ("strategy", json!({"spec": {"strategy": {"canary": {"steps": []}}}})),
        ("label", json!({"metadata": {"labels": {"a": "b"}}})),
        ("annotation", json!({"metadata": {"annotations": {"a": "b"}}})),
        ("the opt-in", json!({"metadata": {"annotations": {"ennote.io/restart": "never"}}})),
        ("finalizer", json!({"metadata": {"finalizers": ["example.com/a"]}})),
        ("nothing", json!({})),
    ]
    .into_iter()
    .map(|(what, body)| Act::patch(Want::ByPolicy, what, &opted, acts::MERGE, body))
    .collect();
    forbidden.push(Act::patch(Want::ByPolicy, "without an opt-in", &other, acts::MERGE, restart.clone()));
    forbidden.push(Act::new(Want::ByRole, "delete", "DELETE", &opted, Value::Null));
    forbidden.push(Act::new(Want::ByRole, "create", "POST", &all, json!({"metadata": {"name": "new"}})));
    world
        .eventually("the policies are in force", SOON, async || {
            let wrong = forbidden[0].judge(&client, &policy).await?;
            ensure!(wrong.is_none(), "{wrong:?}");
            Ok(())
        })
        .await?;
    let allowed = Act::patch(Want::Allowed, "a restart", &opted, acts::MERGE, restart);
    let mut wrong = Vec::new();
    for act in forbidden.iter().chain([&allowed]) {
        wrong.extend(act.judge(&client, &policy).await?);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.stop().await
}
