//! The chart over its life: upgraded, uninstalled, installed again; and the probes of its pod.

use anyhow::{Context, Result, ensure};
use ennote_harness::control_plane::{ControlPlane, Options as PlaneOptions};
use ennote_harness::world::{Options, World, chart};
use ennote_scenarios::{
    LATER, Requests, SOON, binding, binding_with, condition, mapped, mark, object, raw, secret_path, until_baseline,
    until_rollout, until_version, workload,
};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ennotesecretbindings.ennote.io";
const NEW: &str = "Keyed fingerprint of what the Secret holds.";
const OLD: &str = "An earlier description.";

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The chart as an earlier release had it: one column less, another description, and one rule less.
fn earlier_chart() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    copy(&chart(), folder.path())?;
    let file = folder.path().join("files/ennotesecretbindings.yaml");
    let mut text = std::fs::read_to_string(&file)?;
    let cut = [
        (NEW, OLD),
        (
            "    - description: Milliseconds from the commit in the cloud to the written Secret\n      jsonPath: .status.syncLatencyMillis\n      name: Latency\n      priority: 1\n      type: integer\n",
            "",
        ),
        ("self.size() > 0", "self.size() > -1"),
    ];
    for (now, then) in cut {
        ensure!(text.contains(now), "the schema no longer has {now:?}: this test needs another difference");
        text = text.replace(now, then);
    }
    std::fs::write(&file, text)?;
    Ok(folder)
}

/// All bindings and Secrets of the world, byte for byte.
async fn everything(world: &World) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in ["db", "mapped"] {
        let path = format!("/apis/ennote.io/v1alpha1/namespaces/{}/ennotesecretbindings/{name}", world.namespace);
        all.push(raw(world, &path).await?);
        all.push(raw(world, &secret_path(&world.namespace, name)).await?);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_over_the_crd_and_an_uninstall_leave_everything_in_place() -> Result<()> {
    // Its own: the CRD is everyone's.
    let plane = Arc::new(ControlPlane::start(PlaneOptions::default()).await?);
    let options = Options { plane: Some(plane), chart: false, agent: false, ..Options::default() };
    let mut world = World::start("upgrade", options).await?;
    let earlier = earlier_chart()?;
    world.install_from(earlier.path(), serde_json::json!({})).await?;
    world.agent.start().await?;
    world.cloud.put("payments db", &[("user", "app"), ("password", "one")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    world.apply(&mapped("mapped", "payments db", &[("LOGIN", "/keysValues/user")])).await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_version(&world, "db", 1).await?;
    until_version(&world, "mapped", 1).await?;
    let described = async |world: &World| -> Result<String> {
        let crd = object(world, CRD).await?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let content = &schema["status"]["properties"]["content"]["description"];
        Ok(content.as_str().unwrap_or_default().to_owned())
    };
    ensure!(described(&world).await?.contains(OLD), "the earlier schema is served");
    let uid = object(&world, CRD).await?["metadata"]["uid"].clone();
    until_baseline(&world, "db", "Deployment/web").await?;
    let before = everything(&world).await?;

    // Upgraded under a running agent.
    let start = mark(&world).await?;
    world.install(serde_json::json!({})).await?;
    ensure!(described(&world).await?.contains(NEW), "helm upgrade brought the new schema");
    ensure!(object(&world, CRD).await?["metadata"]["uid"] == uid, "it is another object");
    ensure!(everything(&world).await? == before, "the upgrade changed a binding or a Secret");
    world
        .eventually("the new column and the new rule are served", SOON, async || {
            let wide = world.kubectl(&["get", "ennotesecretbindings", "-o", "wide"]).await?;
            ensure!(wide.contains("LATENCY"), "{wide}");
            let said = world.refused(&binding_with("none", "source: {secret: s}\n  data: []")).await?;
            ensure!(said.contains("data must list at least one key"), "{said}");
            Ok(())
        })
        .await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.secret_writes() == 0 && requests.restarts() == 0, "the upgrade moved something");
    world.cloud.put("payments db", &[("user", "app"), ("password", "two")]).await?;
    until_version(&world, "db", 2).await?;
    until_version(&world, "mapped", 2).await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Complete").await?;
    world.agent.stop().await?;

    // Uninstalled: what bindings made stays, and so do they and their kind.
    let before = everything(&world).await?;
    world.uninstall().await?;
    ensure!(world.kubectl(&["get", "role,deployment", "-o", "name"]).await?.trim() == "deployment.apps/web");
    ensure!(object(&world, CRD).await?["metadata"]["uid"] == uid, "the CRD is another one or gone");
    ensure!(everything(&world).await? == before, "the uninstall changed a binding or a Secret");

    // Installed again: picked up where it was left.
    world.install(serde_json::json!({})).await?;
    let start = mark(&world).await?;
    // The ServiceAccount is another one than the enrolled.
    world.new_token().await?;
    world.agent.start().await?;
    // Another secret's first sync shows that the agent has had its turn.
    world.cloud.put("other", &[("a", "1")]).await?;
    world.apply(&binding("other", "other")).await?;
    until_version(&world, "other", 1).await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.secret_writes() == 1, "{} writes, for one new binding", requests.secret_writes());
    ensure!(requests.restarts() == 0, "{} restarts", requests.restarts());
    let after = everything(&world).await?;
    for (before, after) in before.iter().zip(&after).filter(|(before, _)| before.contains("\"kind\":\"Secret\"")) {
        ensure!(before == after, "a Secret changed:\n{before}\n{after}");
    }
    world.cloud.put("payments db", &[("user", "app"), ("password", "three")]).await?;
    until_version(&world, "db", 3).await?;
    world.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_starting_ready_and_stalled_apart() -> Result<()> {
    let mut world = World::start("probes", Options { token: false, ..Options::default() }).await?;
    let alive = async |world: &World| world.agent.exec(&["healthcheck"]).await;
    let ready = async |world: &World| world.agent.exec(&["healthcheck", "--ready"]).await;

    // Before there is a heartbeat.
    let said = world.agent.exec(&["healthcheck", "--heartbeat-file", "none"]).await?.refused()?;
    ensure!(said.contains("no heartbeat at none") && said.contains("ennote-agent run"), "{said}");

    // It runs, but has nothing to join with: alive, not ready, for as long as that lasts.
    world.eventually("alive", SOON, async || alive(&world).await?.ok()).await?;
    let said = ready(&world).await?.refused()?;
    ensure!(said.contains("still starting") && said.contains("the stream to Ennote was never open"), "{said}");
    world.new_token().await?;
    world.eventually("ready", LATER, async || ready(&world).await?.ok()).await?;
    alive(&world).await?.ok()?;

    // A cloud that is away is no reason to restart the pod.
    world.cloud.stop().await?;
    world
        .eventually("the agent has noticed", LATER, async || {
            ensure!(world.agent.log().contains("the stream to the cloud ended"), "not yet");
            Ok(())
        })
        .await?;
    ready(&world).await?.ok()?;

    // A process that stands still: its last heartbeat grows old.
    world.agent.signal(rustix::process::Signal::STOP)?;
    let file = world.agent.local_path("/run/ennote/heartbeat")?;
    let text = std::fs::read_to_string(&file)?;
    let (first, loops) = text.split_once('\n').context("lines")?;
    let (at, word) = first.split_once(' ').context("a time and a word")?;
    ensure!(word == "ready", "the heartbeat says {word}");
    for of in ["stream", "renew", "apply", "watch", "timer"] {
        ensure!(loops.contains(&format!("{of} ")), "no stamp of {of}: {loops}");
    }
    let old = at.parse::<u64>()?.checked_sub(120_000).context("this machine has just started")?;
    std::fs::write(&file, format!("{old} {word}\n{loops}"))?;
    for said in [alive(&world).await?.refused()?, ready(&world).await?.refused()?] {
        ensure!(said.contains("the last heartbeat is 12"), "{said}");
    }
    std::fs::write(&file, "")?;
    let said = alive(&world).await?.refused()?;
    ensure!(said.contains("holds something else"), "{said}");
    world.agent.signal(rustix::process::Signal::CONT)?;
    world.eventually("alive again", SOON, async || alive(&world).await?.ok()).await?;

    // And the whole of it with a binding, so that readiness was not a word only.
    world.cloud.up().await?;
    world.cloud.put("payments db", &[("a", "1")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    let synced = until_version(&world, "db", 1).await?;
    ensure!(condition(&synced, "Fresh").is_some(), "{}", synced["status"]);
    world.agent.stop().await?;
    world.stop().await
}

/// Whether the network enforces it is the cluster's matter. That it is taken, and whom it is about, is the chart's.
#[tokio::test(flavor = "multi_thread")]
async fn the_network_policy_is_taken_and_is_about_the_agents_pod_alone() -> Result<()> {
    let world = World::start("network", Options::default()).await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    world.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).await?;
    let policy = ["get", "networkpolicy", "ennote-agent", "-o", "json"];
    let policy: serde_json::Value = serde_json::from_str(&world.kubectl(&policy).await?)?;
    ensure!(policy["spec"]["policyTypes"] == serde_json::json!(["Ingress", "Egress"]), "{policy}");
    ensure!(policy["spec"]["ingress"].is_null(), "something may come in: {policy}");
    let ports: Vec<u64> = policy["spec"]["egress"][1]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| port["port"].as_u64())
        .collect();
    let cloud: u64 = world.cloud.address().rsplit(':').next().context("a port")?.parse()?;
    ensure!(ports == [443, 6443, cloud], "{ports:?}");
    let labels = policy["spec"]["podSelector"]["matchLabels"].as_object().context("a selector")?;
    let selector: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let selected = world.kubectl(&["get", "pods", "-l", &selector.join(","), "-o", "name"]).await?;
    let own = world.agent.pod()?.metadata.name.clone().context("a name")?;
    ensure!(selected.trim() == format!("pod/{own}"), "it is about {selected}");
    world.stop().await
}
