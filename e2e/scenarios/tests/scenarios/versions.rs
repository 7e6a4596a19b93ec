//! Versions never go back and organizations never change by themselves; a person's yes works once. Pins hold.

use anyhow::{Context, Result, ensure};
use ennote_harness::devcloud::{self, DevCloud};
use ennote_harness::world::{Options, World};
use ennote_scenarios::hostile::{behind_proxy, delivered_to};
use ennote_scenarios::identity::{bind, until_epoch};
use ennote_scenarios::{binding_with, message, raw, secret_path, until_condition, until_message, until_version};
use serde_json::{Value, json};
use std::path::Path;

async fn put(world: &World, value: &str) -> Result<()> {
    world.cloud.put("db", &[("value", value)]).await.map(drop)
}

async fn holds(world: &World, value: &str) -> Result<()> {
    let data = world.secret_data("db").await?;
    ensure!(data.get("value").map(String::as_str) == Some(value), "it holds {data:?}");
    Ok(())
}

/// Runs the command that a message ends with.
async fn obey(world: &World, binding: &Value) -> Result<String> {
    let said = message(binding, "Ready");
    let (_, line) = said.split_once("kubectl annotate ").with_context(|| format!("no command in {said:?}"))?;
    let args: Vec<&str> = std::iter::once("annotate").chain(line.split_whitespace()).collect();
    world.plane.kubectl(&args).await?.ok()?;
    Ok(line.to_owned())
}

/// A data folder, file by file.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy(&entry.path(), &to)?,
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), &to)?),
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_restored_from_a_backup_is_followed_after_a_persons_yes_which_works_once() -> Result<()> {
    let world = World::start("backup", Options::default()).await?;
    bind(&world, "db", "one").await?;
    until_version(&world, "db", 1).await?;
    world.cloud.stop().await?;
    let backup = world.cloud.dir().join("backup");
    copy(world.cloud.data(), &backup)?;
    world.cloud.up().await?;
    put(&world, "two").await?;
    put(&world, "three").await?;
    until_version(&world, "db", 3).await?;
    let restore = async || {
        world.cloud.stop().await?;
        std::fs::remove_dir_all(world.cloud.data())?;
        copy(&backup, world.cloud.data())?;
        world.cloud.up().await
    };

    let held = raw(&world, &secret_path(&world.namespace, "db")).await?;
    restore().await?;
    let refused = until_condition(&world, "db", "Ready", "False/Rollback").await?;
    // What it makes now is refused until it has passed what was seen.
    put(&world, "another two").await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "db")).await? == held, "the Secret was touched");
    let line = obey(&world, &refused).await?;
    until_version(&world, "db", 2).await?;
    holds(&world, "another two").await?;
    put(&world, "another three").await?;
    until_version(&world, "db", 3).await?;

    // The annotation is still there, and good for nothing more.
    let held = raw(&world, &secret_path(&world.namespace, "db")).await?;
    restore().await?;
    until_condition(&world, "db", "Ready", "False/Rollback").await?;
    let annotated = world.binding("db").await?["metadata"]["annotations"]["ennote.io/accept"].clone();
    ensure!(annotated.as_str().is_some_and(|text| line.ends_with(text)), "{annotated}");
    ensure!(raw(&world, &secret_path(&world.namespace, "db")).await? == held, "the Secret was touched");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organization_is_followed_after_a_persons_yes() -> Result<()> {
    let mut world = World::start("move", Options::default()).await?;
    bind(&world, "db", "theirs").await?;
    until_version(&world, "db", 1).await?;
    put(&world, "theirs too").await?;
    until_version(&world, "db", 2).await?;
    let held = raw(&world, &secret_path(&world.namespace, "db")).await?;

    let init = vec!["--organization".to_owned(), "acme".to_owned()];
    world.cloud = DevCloud::start(devcloud::Options { init, ..Default::default() }).await?;
    put(&world, "ours").await?;
    let api = json!({"url": world.cloud.address(), "caCert": world.cloud.ca_pem()?});
    world.install(json!({"ennote": {"api": api}})).await?;
    world.new_token().await?;
    world.agent.restart().await?;
    let changed = until_condition(&world, "db", "Ready", "False/IdentityChanged").await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "db")).await? == held, "the Secret was touched");
    // Nothing new makes it follow by itself.
    put(&world, "ours too").await?;
    until_message(&world, "db", "Ready", "accept=acme/").await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "db")).await? == held, "the Secret was touched");

    obey(&world, &changed).await?;
    let followed = until_version(&world, "db", 2).await?;
    ensure!(followed["status"]["source"]["organization"] == "acme", "{followed}");
    holds(&world, "ours too").await?;
    until_epoch(&world, 1).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_holds_exactly_its_version_until_it_is_taken_away() -> Result<()> {
    let (world, proxy) = behind_proxy("pin", Options::default()).await?;
    for value in ["one", "two", "three"] {
        put(&world, value).await?;
    }
    world.apply(&binding_with("db", "source: {secret: db}")).await?;
    until_version(&world, "db", 3).await?;
    // Back to one that is known, and kept there.
    world.apply(&binding_with("db", "source: {secret: db, version: 2}")).await?;
    let shows = async |version: u64, value: &str| {
        world
            .eventually(&format!("version {version}"), ennote_scenarios::LATER, async || {
                let binding = world.binding("db").await?;
                let shown = &binding["status"]["target"]["version"];
                ensure!(shown.as_u64() == Some(version), "it shows {shown}");
                ensure!(binding["status"]["observedGeneration"] == binding["metadata"]["generation"]);
                holds(&world, value).await
            })
            .await
    };
    shows(2, "two").await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    put(&world, "four").await?;
    // Another binding of the same secret has followed it by now.
    world.apply(&binding_with("newest", "source: {secret: db}")).await?;
    until_version(&world, "newest", 4).await?;
    shows(2, "two").await?;
    // A version below the mark is acknowledged as what it is, so it comes once.
    let delivered = proxy.find(|record| delivered_to(record.frame()?, "db"))?;
    ensure!(delivered == [3, 2], "delivered were {delivered:?}");
    let table = world.kubectl(&["get", "ennotesecretbindings", "db"]).await?;
    let column = |row: &str| row.split_whitespace().nth(3).map(str::to_owned);
    let rows: Vec<Option<String>> = table.lines().map(column).collect();
    ensure!(rows == [Some("VERSION".to_owned()), Some("2".to_owned())], "{table}");
    // One that is not there yet is waited for.
    world.apply(&binding_with("db", "source: {secret: db, version: 5}")).await?;
    until_message(&world, "db", "Ready", "has no version 5").await?;
    holds(&world, "two").await?;
    put(&world, "five").await?;
    shows(5, "five").await?;
    world.apply(&binding_with("db", "source: {secret: db}")).await?;
    put(&world, "six").await?;
    shows(6, "six").await?;
    world.stop().await
}
