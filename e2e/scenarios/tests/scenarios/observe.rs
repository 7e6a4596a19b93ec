//! Bindings that write nothing because they are told to: suspended ones, and ones that only observe. And the opposite, being
//! told to sync once more.

use anyhow::{Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::{
    LATER, Requests, binding, condition, mark, message, object, secret_path, until_baseline, until_condition,
    until_message, until_rollout, until_version, workload,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;

const WEB: &str = "Deployment/web";

fn spec(name: &str, more: &str) -> String {
    format!(
        "apiVersion: ennote.io/v1alpha1\nkind: EnnoteSecretBinding\nmetadata: {{name: {name}}}\nspec: {{source: {{secret: db}}, {more}}}\n"
    )
}

async fn patch(world: &World, name: &str, spec: &str) -> Result<()> {
    let patch = format!("{{\"spec\": {spec}}}");
    world.kubectl(&["patch", "esb", name, "--type=merge", "-p", &patch]).await.map(drop)
}

async fn touched(world: &World, start: ennote_harness::audit::AuditMark) -> Result<(usize, usize)> {
    let (requests, _) = Requests::since(world, start).await?;
    Ok((requests.secret_writes(), requests.restarts()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_binding_is_left_alone_and_takes_up_what_came_meanwhile() -> Result<()> {
    let world = World::start("suspend", Options::default()).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&[binding("db", "db"), workload("Deployment", "web", "db")].join("---\n")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", WEB).await?;

    patch(&world, "db", r#"{"suspend": true}"#).await?;
    // What it was stays: Ready, of the newest generation.
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    let start = mark(&world).await?;
    world.cloud.put("db", &[("value", "2")]).await?;
    world.secrets().delete("db", &DeleteParams::default()).await?;
    // A binding made later is served: what the suspended one was owed would have come by then.
    world.apply(&[spec("asleep", "suspend: true"), binding("awake", "db")].join("---\n")).await?;
    until_version(&world, "awake", 2).await?;
    until_condition(&world, "asleep", "Ready", "True/Suspended").await?;
    ensure!(world.secrets().get_opt("db").await?.is_none() && world.secrets().get_opt("asleep").await?.is_none());
    ensure!(touched(&world, start).await? == (1, 0), "one write, for the one that is awake");

    patch(&world, "db", r#"{"suspend": null}"#).await?;
    patch(&world, "asleep", r#"{"suspend": false}"#).await?;
    until_version(&world, "asleep", 2).await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    ensure!(world.secret_data("db").await?["value"] == "2");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_observes_says_what_it_would_do_and_does_nothing() -> Result<()> {
    let world = World::start("observe", Options::default()).await?;
    world.cloud.put("db", &[("A", "1"), ("B", "2")]).await?;
    world.kubectl(&["create", "secret", "generic", "foreign", "--from-literal=A=1"]).await?;
    world.apply(&[binding("db", "db"), workload("Deployment", "web", "db")].join("---\n")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", WEB).await?;
    let before = world.binding("db").await?;

    let start = mark(&world).await?;
    patch(&world, "db", r#"{"mode": "Observe"}"#).await?;
    let observing = [
        spec("absent", "mode: Observe"),
        spec("foreign", "mode: Observe"),
        spec("unmapped", "mode: Observe, data: [{key: X, pointer: /keysValues/x}]"),
    ];
    world.apply(&observing.join("---\n")).await?;
    until_message(&world, "absent", "Ready", "Secret absent would be created with 2 keys: A, B").await?;
    until_message(&world, "foreign", "Ready", "Secret foreign would not be written: Collision: ").await?;
    until_message(&world, "unmapped", "Ready", "would not be written: BadMapping: ").await?;
    until_message(&world, "db", "Ready", "nothing would change").await?;
    until_condition(&world, "db", "Synced", "True/Observed").await?;
    for name in ["absent", "foreign", "unmapped"] {
        until_condition(&world, name, "Ready", "True/Observed").await?;
        let seen = until_condition(&world, name, "Synced", "False/Observed").await?;
        ensure!(seen["status"]["source"].is_null() && condition(&seen, "Stalled").is_none(), "{seen}");
    }

    // A new version, and drift, are said and not mended.
    world.cloud.put("db", &[("A", "1"), ("B", "3"), ("C", "4")]).await?;
    until_message(&world, "db", "Ready", "Secret db would change: B changed; C added").await?;
    world.kubectl(&["patch", "secret", "db", "--type=merge", "-p", r#"{"stringData": {"A": "edited"}}"#]).await?;
    until_message(&world, "db", "Ready", "Secret db would change: A, B changed; C added").await?;
    world.secrets().delete("foreign", &DeleteParams::default()).await?;
    until_message(&world, "foreign", "Ready", "Secret foreign would be created with 3 keys").await?;
    let db = world.binding("db").await?;
    ensure!(db["status"]["source"] == before["status"]["source"], "the mark moved");
    ensure!(db["status"]["baselines"] == before["status"]["baselines"], "baselines moved");
    let all: String = ["db", "absent", "foreign"].map(|_| message(&db, "Ready")).concat();
    ensure!(!all.contains("edited") && !all.contains('4'), "values: {all}");
    ensure!(touched(&world, start).await? == (0, 0), "it wrote");

    for name in ["db", "absent"] {
        patch(&world, name, r#"{"mode": "Sync"}"#).await?;
        until_version(&world, name, 2).await?;
        ensure!(world.secret_data(name).await?["C"] == "4");
    }
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    ensure!(world.secrets().get_opt("foreign").await?.is_none() && touched(&world, start).await? == (2, 1));
    world.stop().await
}

/// Even where whenSourceDeleted is Delete.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_observes_deletes_nothing_and_survives_a_restart() -> Result<()> {
    let mut world = World::start("observe-gone", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    world.apply(&spec("db", "target: {whenSourceDeleted: Delete}")).await?;
    until_version(&world, "db", 1).await?;
    patch(&world, "db", r#"{"mode": "Observe"}"#).await?;
    until_condition(&world, "db", "Ready", "True/Observed").await?;
    let start = mark(&world).await?;
    world.agent.restart().await?;
    world.cloud.put("db", &[("A", "2")]).await?;
    until_message(&world, "db", "Ready", "A changed").await?;
    world.cloud.rm("db").await?;
    until_condition(&world, "db", "Ready", "False/SourceDeleted").await?;
    world.cloud.put("db", &[("A", "3")]).await?;
    until_message(&world, "db", "Ready", "Secret db would change: A changed").await?;
    ensure!(touched(&world, start).await? == (0, 0), "it wrote");
    world.secrets().get("db").await.map(drop)?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_asks_to_sync_once_more() -> Result<()> {
    let world = World::start("sync-once", Options::default()).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&[binding("db", "db"), workload("Deployment", "web", "db")].join("---\n")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", WEB).await?;
    let uid = object(&world, &secret_path(&world.namespace, "db")).await?["metadata"]["resourceVersion"].clone();

    let start = mark(&world).await?;
    for value in ["one", "two"] {
        world.kubectl(&["annotate", "--overwrite", "esb", "db", &format!("ennote.io/sync={value}")]).await?;
        world
            .eventually(&format!("sync {value} is handled"), LATER, async || {
                let seen = world.binding("db").await?;
                ensure!(condition(&seen, "Ready").as_deref() == Some("True/Synced"), "it turned");
                ensure!(seen["status"]["lastHandled"]["sync"] == value, "not yet");
                Ok(())
            })
            .await?;
    }
    // With equal data nothing is written and nothing restarts.
    ensure!(touched(&world, start).await? == (0, 0), "it wrote");
    let secret: Secret = world.secrets().get("db").await?;
    ensure!(secret.metadata.resource_version.as_deref() == uid.as_str());

    // Of a secret that is not there, the denial is the answer.
    world.apply(&binding("none", "none")).await?;
    until_condition(&world, "none", "Ready", "Unknown/WaitingForSecret").await?;
    world.kubectl(&["annotate", "esb", "none", "ennote.io/sync=now"]).await?;
    world
        .eventually("the denial is told", LATER, async || {
            ensure!(world.binding("none").await?["status"]["lastHandled"]["sync"] == "now", "not yet");
            Ok(())
        })
        .await?;
    until_condition(&world, "none", "Ready", "Unknown/WaitingForSecret").await?;
    world.stop().await
}
