//! Who administers the cloud shuts an agent out at once, and no Secret is lost by it.

use anyhow::{Result, ensure};
use ennote_harness::world::{AGENT, Options, World};
use ennote_scenarios::identity::{bind, reschedule, until_epoch, until_streams};
use ennote_scenarios::{Requests, condition, mark, message, raw, secret_path, until_condition, until_version};

const NAMES: [&str; 2] = ["cache", "db"];

/// Both Secrets, byte for byte.
async fn secrets(world: &World) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in NAMES {
        all.push(raw(world, &secret_path(&world.namespace, name)).await?);
    }
    Ok(all)
}

/// SECURITY.md 5.3, fault 8: every binding says so, and that it holds what it held.
async fn until_banned(world: &World) -> Result<()> {
    for name in NAMES {
        let banned = until_condition(world, name, "Ready", "False/Banned").await?;
        ensure!(condition(&banned, "Stalled").as_deref() == Some("True/Banned"), "{banned}");
        ensure!(condition(&banned, "Synced").as_deref() == Some("True/Synced"), "{banned}");
        ensure!(message(&banned, "Ready").contains("agent unban NAME, or a new bootstrap token"), "{banned}");
    }
    Ok(())
}

async fn until_ready(world: &World) -> Result<()> {
    for name in NAMES {
        until_condition(world, name, "Ready", "True/Synced").await?;
        until_condition(world, name, "Fresh", "True/BeatsArrive").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_and_a_banned_one_stop_at_once_and_keep_every_secret() -> Result<()> {
    let mut world = World::start("ban", Options::default()).await?;
    for name in NAMES {
        bind(&world, name, "1").await?;
        until_version(&world, name, 1).await?;
    }
    until_ready(&world).await?;
    let (held, start) = (secrets(&world).await?, mark(&world).await?);

    world.cloud.revoke(AGENT).await?;
    until_streams(&world, 0).await?;
    until_banned(&world).await?;
    ensure!(secrets(&world).await? == held, "a Secret was touched");
    // Neither the key nor the ServiceAccount brings it back, in whichever pod.
    reschedule(&mut world).await?;
    until_banned(&world).await?;
    until_streams(&world, 0).await?;
    // A new token does, without a restart.
    world.new_token().await?;
    until_epoch(&world, 2).await?;
    until_ready(&world).await?;
    ensure!(secrets(&world).await? == held, "a Secret was touched");

    world.cloud.cli(&["agent", "ban", AGENT]).await?;
    until_streams(&world, 0).await?;
    until_banned(&world).await?;
    // A ban is above new tokens.
    world.new_token().await?;
    reschedule(&mut world).await?;
    until_banned(&world).await?;
    ensure!(secrets(&world).await? == held, "a Secret was touched");
    world.cloud.cli(&["agent", "unban", AGENT]).await?;
    reschedule(&mut world).await?;
    until_epoch(&world, 3).await?;
    until_ready(&world).await?;

    ensure!(secrets(&world).await? == held, "a Secret was touched");
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.secret_writes() == 0, "{} Secret writes", requests.secret_writes());
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    world.stop().await
}
