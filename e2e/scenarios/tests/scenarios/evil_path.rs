//! Paths that break: silence, cuts at any byte, impatient middle boxes. Nothing is missed, and coming back is bounded.

use anyhow::{Context, Result, ensure};
use ennote_harness::cable::Cable;
use ennote_harness::evil::{Call, Frame, Record};
use ennote_harness::world::{Options, World};
use ennote_scenarios::hostile::{behind_proxy, dials, until_heard};
use ennote_scenarios::{LATER, binding, until_version};
use std::time::Duration;

/// A world whose agent reaches the cloud over a cable, synced at version 1.
async fn over_cable(name: &str) -> Result<(World, Cable)> {
    let mut world = World::start(name, Options { chart: false, agent: false, ..Options::default() }).await?;
    let cable = Cable::start(&world.cloud.address()).await?;
    let ca = world.cloud.ca_pem()?;
    dials(&mut world, &cable.address(), &ca).await?;
    world.agent.start().await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    Ok((world, cable))
}

async fn arrives(world: &World, version: u64) -> Result<()> {
    world.cloud.put("db", &[("value", &version.to_string())]).await?;
    until_version(world, "db", version).await?;
    ensure!(world.secret_data("db").await?["value"] == version.to_string());
    Ok(())
}

fn joins(world: &World) -> usize {
    world.cloud.log().lines().filter(|line| line.contains(" joined")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_falls_silent_is_noticed_and_left() -> Result<()> {
    let (world, cable) = over_cable("path-silent").await?;
    cable.black_hole();
    world.cloud.put("db", &[("value", "2")]).await?;
    // Nothing ends the connection but the agent's own patience.
    world
        .eventually("the agent gives the stream up", LATER, async || {
            ensure!(world.agent.log().contains("the stream to the cloud ended"), "it still waits");
            Ok(())
        })
        .await?;
    cable.heal();
    until_version(&world, "db", 2).await?;
    arrives(&world, 3).await?;
    ensure!(joins(&world) == 1, "the token still counts; it joined {} times", joins(&world));
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_the_middle_of_a_frame_loses_nothing() -> Result<()> {
    let (world, cable) = over_cable("path-cut").await?;
    let large = "x".repeat(700 * 1024);
    for (version, bytes) in (2..).zip([400 * 1024, 16 * 1024, 200]) {
        cable.cut_after(bytes);
        world.cloud.put("db", &[("value", &format!("{version}{large}"))]).await?;
        until_version(&world, "db", version).await?;
        ensure!(cable.is_cut(), "version {version} came over a connection that was not cut");
        let held = world.secret_data("db").await?.remove("value").context("a value")?;
        ensure!(held == format!("{version}{large}"), "another value than was put");
    }
    ensure!(joins(&world) == 1, "it joined {} times", joins(&world));
    ensure!(cable.connections() <= 8, "{} connections for three cuts", cable.connections());
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_idle_streams_never_finds_one() -> Result<()> {
    let (mut world, proxy) = behind_proxy("path-idle", Options { agent: false, ..Options::default() }).await?;
    let cable = Cable::start(&proxy.address()).await?;
    // Half of what load balancers allow.
    cable.cut_idle(Duration::from_secs(30));
    dials(&mut world, &cable.address(), proxy.ca_pem()).await?;
    world.agent.start().await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    // Nothing happens: what is heard is that the agent lives, every quarter of a minute.
    let ask = |r: &Record| r.frame().filter(|frame| frame.name() == "ask").map(drop);
    let begun = proxy.find(ask)?.len();
    until_heard(&world, &proxy, "asks that ask for nothing", begun + 4, ask).await?;
    ensure!(cable.ended() == 0, "the connection was found idle");
    arrives(&world, 2).await?;
    ensure!(cable.connections() == 1, "{} connections", cable.connections());
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_and_goaways_cost_one_stream_each_and_no_join() -> Result<()> {
    let (world, proxy) = behind_proxy("path-goaway", Options::default()).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    for version in 2..=4 {
        proxy.go_away();
        arrives(&world, version).await?;
    }
    let streams = proxy.newest_stream();
    ensure!(streams <= 4, "{streams} streams after 3 GOAWAYs");
    for version in 5..=7 {
        let before = proxy.newest_stream();
        proxy.cut();
        arrives(&world, version).await?;
        let after = proxy.newest_stream();
        ensure!((before + 1..=before + 2).contains(&after), "{} streams for one cut", after - before);
    }
    ensure!(proxy.joins() == 1, "it joined {} times", proxy.joins());
    // Each stream declared what it wants and was answered by a beat.
    let newest = proxy.newest_stream();
    let beats = move |r: &Record| match (r.call, r.frame()?) {
        (Call::Sync(stream), Frame::Cloud(_)) if stream == newest => Some(()),
        _ => None,
    };
    until_heard(&world, &proxy, "the newest stream", 2, beats).await?;
    world.stop().await
}
