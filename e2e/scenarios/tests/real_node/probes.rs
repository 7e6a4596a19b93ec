//! The probes of the chart, as a kubelet asks them.

use anyhow::{Context, Result, ensure};
use ennote_harness::world::World;
use ennote_scenarios::identity::bind;
use ennote_scenarios::real_node::{PROBED, Place, status};
use ennote_scenarios::{LATER, until_version};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::Signal;
use serde_json::json;

pub(crate) async fn the_agent_is_ready_only_after_the_first_snapshot(place: &Place) -> Result<()> {
    let mut world = place.world("ready").await?;
    world.cloud.stop().await?;
    place.install(&mut world, json!({})).await?;
    let started = place
        .agent(&world, "the startup probe to pass", LATER, |status| {
            ensure!(status.started == Some(true), "it has not: {:?}", status.state);
            Ok(())
        })
        .await?;
    // Only a probe that was asked, and answered, says anything: before the first one nothing is Ready.
    place
        .eventually(&world, "the readiness probe to fail", LATER, async || {
            let events = world.kubectl(&["get", "events", "-o", "json"]).await?;
            ensure!(events.contains("Readiness probe failed"), "it has not");
            Ok(())
        })
        .await?;
    place
        .agent(&world, "the agent to run on, not Ready", LATER, |status| {
            ensure!(status.started == Some(true) && !status.ready, "{status:?}");
            Ok(())
        })
        .await?;
    world.cloud.up().await?;
    let ready = place.ready(&world).await?;
    ensure!(same_pod(&ready, &started) && status(&ready)?.restart_count == 0, "it was restarted on the way");
    world.stop().await
}

pub(crate) async fn a_killed_agent_comes_back_by_itself(place: &Place) -> Result<()> {
    let (world, pod) = place.installed("killed").await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    place.container(&pod)?.signal(Signal::KILL)?;
    back(place, world, &pod).await
}

pub(crate) async fn an_agent_without_memory_is_killed_and_comes_back_by_itself(place: &Place) -> Result<()> {
    let (world, pod) = place.installed("memory").await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    place.container(&pod)?.squeeze()?;
    // What it has to hold of this is more than it may.
    world.cloud.put("db", &[("value", &"x".repeat(900 << 10))]).await?;
    let after = place
        .agent(&world, "another container after the kernel has killed the first", PROBED, |status| {
            let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            ensure!(last.is_some_and(|end| end.reason.as_deref() == Some("OOMKilled")), "{:?}", status.last_state);
            ensure!(status.ready, "it is not Ready: {:?}", status.state);
            Ok(())
        })
        .await?;
    ensure!(same_pod(&after, &pod), "another pod took its place");
    until_version(&world, "db", 2).await?;
    world.stop().await
}

pub(crate) async fn a_stopped_agent_is_restarted_by_its_liveness_probe(place: &Place) -> Result<()> {
    let (world, pod) = place.installed("stopped").await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    place.container(&pod)?.signal(Signal::STOP)?;
    back(place, world, &pod).await
}

/// Another container in the same pod, Ready, and at work.
async fn back(place: &Place, world: World, before: &Pod) -> Result<()> {
    let old = status(before)?.container_id.clone().context("it had a container")?;
    let after = place
        .agent(&world, "another container", PROBED, |status| {
            ensure!(status.container_id.as_deref().is_some_and(|id| id != old), "it is the same one");
            ensure!(status.ready && status.restart_count == 1, "{} restarts, {:?}", status.restart_count, status.state);
            Ok(())
        })
        .await?;
    ensure!(same_pod(&after, before), "another pod took its place");
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    world.stop().await
}

fn same_pod(one: &Pod, other: &Pod) -> bool {
    one.metadata.uid == other.metadata.uid
}
