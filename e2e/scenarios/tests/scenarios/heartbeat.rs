//! What the probes see: red when a loop of our own stands still, and never because somebody else is away.

use anyhow::{Context, Result, ensure};
use ennote_harness::cable::Cable;
use ennote_harness::world::{Options, World};
use ennote_scenarios::identity::serving;
use ennote_scenarios::{LATER, binding, until_version};

/// Seconds without progress that are a stall here: above what one call may take, and a turn of a loop, and the writer's pause.
const STALLED: u64 = 40;

async fn until_red(world: &World, loops: &[&str]) -> Result<()> {
    world
        .eventually(&format!("the probe to name one of {loops:?}"), LATER * 2, async || {
            let said = world.agent.exec(&["healthcheck"]).await?.refused()?;
            let named = loops.iter().any(|of| said.contains(&format!("{of} has not moved for")));
            ensure!(named && said.contains("not waiting for anybody"), "it says {said:?}");
            Ok(())
        })
        .await
}

/// When the heartbeat was written, in seconds of the machine's boottime.
fn beaten(world: &World) -> Result<u64> {
    let text = std::fs::read_to_string(world.agent.local_path("/run/ennote/heartbeat")?)?;
    let at: u64 = text.split_once(' ').context("a time and a word")?.0.parse()?;
    Ok(at / 1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_loop_turns_the_probe_red_and_an_absent_cloud_or_cluster_does_not() -> Result<()> {
    let faults = ("ENNOTE_FAULTS".to_owned(), "hang:stuck,panic:boom".to_owned());
    let environment = vec![faults, ("ENNOTE_STALLED".to_owned(), STALLED.to_string())];
    let cloud = serving(&["--access-token-life=30s"]);
    let mut world = World::start("heart", Options { cloud, environment, agent: false, ..Options::default() }).await?;
    let cable = Cable::start(world.agent.dialled()?).await?;
    world.agent.dials(&cable.address());
    world.agent.start().await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    let ready = async || world.agent.exec(&["healthcheck", "--ready"]).await?.ok();
    world.eventually("the pod to be ready", LATER, ready).await?;

    // Both are gone for far longer than a stall: every probe passes until then, and only readiness goes, with the token.
    world.cloud.stop().await?;
    cable.black_hole();
    cable.cut();
    let until = beaten(&world)? + 2 * STALLED;
    let mut probes = 0;
    while beaten(&world)? < until {
        world.agent.exec(&["healthcheck"]).await?.ok().context("red because somebody else is away")?;
        probes += 1;
        let before = beaten(&world)?;
        world
            .eventually("the next heartbeat", LATER, async || {
                ensure!(beaten(&world)? > before, "not yet");
                Ok(())
            })
            .await?;
    }
    ensure!(probes >= 10, "{probes} probes in {} s", 2 * STALLED);
    let said = world.agent.exec(&["healthcheck", "--ready"]).await?.refused()?;
    ensure!(said.contains("longer than a token lives"), "{said}");
    world.cloud.up().await?;
    cable.heal();
    cable.cut();
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    world.eventually("the pod to be ready again", LATER, ready).await?;

    // A pass that never ends, while others go on; then one that takes the controllers with it.
    world.cloud.put("stuck", &[("value", "1")]).await?;
    world.apply(&binding("stuck", "stuck")).await?;
    until_red(&world, &["apply"]).await?;
    world.cloud.put("db", &[("value", "3")]).await?;
    until_version(&world, "db", 3).await?;
    world.kubectl(&["delete", "ennotesecretbinding", "stuck"]).await?;
    world.agent.kill9().await?;
    world.agent.start().await?;
    world
        .eventually("the pod to be ready in a new container", LATER, async || {
            world.agent.exec(&["healthcheck", "--ready"]).await?.ok()
        })
        .await?;
    world.cloud.put("boom", &[("value", "1")]).await?;
    world.apply(&binding("boom", "boom")).await?;
    until_red(&world, &["watch", "timer"]).await?;
    world.agent.kill9().await?;
    world.stop().await
}
