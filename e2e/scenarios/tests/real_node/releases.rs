//! What people and the cluster do to the agent's pod.

use anyhow::{Result, ensure};
use ennote_harness::world::{RELEASE, World, chart};
use ennote_scenarios::identity::{bind, until_epoch};
use ennote_scenarios::real_node::{Place, deployment};
use ennote_scenarios::until_version;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

pub(crate) async fn rollout_restart_and_helm_upgrade_wait_for_the_agent(place: &Place) -> Result<()> {
    let (world, first) = place.installed("release").await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;

    world.kubectl(&["rollout", "restart", &deployment()]).await?;
    world.kubectl(&["rollout", "status", &deployment(), "--timeout=2m"]).await?;
    let second = works(place, &world, &first, 2).await?;

    let chart = chart().display().to_string();
    let upgrade = ["upgrade", RELEASE, &chart, "--namespace", &world.namespace, "--reuse-values"];
    let waiting = ["--set", "log.level=debug", "--wait", "--timeout", "2m"];
    world.plane.helm(&[&upgrade[..], &waiting[..]].concat()).await?.ok()?;
    works(place, &world, &second, 3).await?;
    world.stop().await
}

pub(crate) async fn a_rescheduled_pod_comes_back_though_its_token_is_spent(place: &Place) -> Result<()> {
    let (world, first) = place.installed("again").await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    let joined = until_epoch(&world, 1).await?;

    world.kubectl(&["delete", "pod", &first.name_any()]).await?;
    works(place, &world, &first, 2).await?;
    let back = until_epoch(&world, 2).await?;
    ensure!(back["id"] == joined["id"], "another agent: {back}");
    ensure!(world.cloud.alarms().await?.is_empty(), "{:?}", world.cloud.alarms().await?);
    world.stop().await
}

/// Another pod is Ready by now or soon, and brings this version.
async fn works(place: &Place, world: &World, before: &Pod, version: u64) -> Result<Pod> {
    let pod = place.ready(world).await?;
    ensure!(pod.uid() != before.uid(), "it is still the same pod");
    world.cloud.put("db", &[("value", &version.to_string())]).await?;
    until_version(world, "db", version).await?;
    Ok(pod)
}
