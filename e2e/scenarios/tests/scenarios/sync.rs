//! A secret of the cloud reaches a native Secret, and stays right.

use anyhow::{Result, ensure};
use ennote_harness::world::{AGENT, Options, World};
use ennote_scenarios::{LATER, binding, until_condition, until_version};
use std::collections::BTreeMap;

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn push_a_binding_is_created_updated_and_deleted_over_one_stream() -> Result<()> {
    let world = World::start("sync", Options::default()).await?;
    world.cloud.put("payments db", &[("user", "app"), ("password", "one")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    ensure!(world.secret_data("db").await? == data(&[("user", "app"), ("password", "one")]));

    world.cloud.put("payments db", &[("user", "app"), ("password", "two")]).await?;
    let synced = until_version(&world, "db", 2).await?;
    ensure!(world.secret_data("db").await? == data(&[("user", "app"), ("password", "two")]));
    ensure!(synced["status"]["syncLatencyMillis"].is_u64(), "the latency of a push is reported");

    world.kubectl(&["delete", "ennotesecretbinding", "db"]).await?;
    // The garbage collector learns of a new kind within 30 s of its CRD.
    world
        .eventually("the Secret is collected", LATER, async || {
            ensure!(world.secrets().get_opt("db").await?.is_none(), "still there");
            Ok(())
        })
        .await?;
    // Another binding's sync shows that the agent has had its turn since, with this secret's next version.
    world.cloud.put("payments db", &[("user", "app"), ("password", "three")]).await?;
    world.apply(&binding("other", "payments db")).await?;
    until_version(&world, "other", 3).await?;
    ensure!(world.secrets().get_opt("db").await?.is_none(), "a deleted binding's Secret is never made again");
    // All of it came by the one stream that was opened at the start, and nothing was asked for twice.
    let agent = world.cloud.agent(AGENT).await?;
    ensure!(agent["streams"] == 1, "the cloud has {agent}");
    let opened = world.cloud.log().lines().filter(|line| line.contains("stream opened")).count();
    ensure!(opened == 1, "{opened} streams were opened");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_does_not_exist_yet_is_waited_for() -> Result<()> {
    let world = World::start("later", Options::default()).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForSecret").await?;
    world.cloud.put("payments db", &[("a", "1")]).await?;
    until_version(&world, "db", 1).await?;
    world.stop().await
}
