//! Workloads that run for real: what their processes read before a restart and after it.

use anyhow::{Context, Result, ensure};
use ennote_harness::world::World;
use ennote_scenarios::identity::bind;
use ennote_scenarios::real_node::{Place, pods, workload};
use ennote_scenarios::{LATER, until_baseline, until_rollout, until_version};

const WORKLOADS: [(&str, &str); 3] = [("Deployment", "web"), ("StatefulSet", "queue"), ("DaemonSet", "log")];

pub(crate) async fn real_workloads_restart_and_read_the_new_value(place: &Place) -> Result<()> {
    let (world, _) = place.installed("workloads").await?;
    bind(&world, "db", "first").await?;
    until_version(&world, "db", 1).await?;
    for (kind, name) in WORKLOADS {
        world.apply(&workload(kind, name)).await?;
        until_baseline(&world, "db", &format!("{kind}/{name}")).await?;
    }
    for (kind, name) in WORKLOADS {
        world.kubectl(&["rollout", "status", &format!("{kind}/{name}"), "--timeout=90s"]).await?;
        told(place, &world, name, "first").await?;
    }

    bind(&world, "db", "second").await?;
    for (kind, name) in WORKLOADS {
        until_rollout(&world, "db", &format!("{kind}/{name}"), 2, "Complete").await?;
        told(place, &world, name, "second").await?;
    }
    world.stop().await
}

/// Waits until every pod of a workload, and there is one, has said that it reads `value` both ways; none says more than once.
async fn told(place: &Place, world: &World, name: &str, value: &str) -> Result<()> {
    let want = format!("env={value} file={value}\n");
    place
        .eventually(world, &format!("{name} to say {want:?}"), LATER, async || {
            let pods = pods(world, &format!("app={name}")).await?;
            pods.first().context("no pod")?;
            for pod in &pods {
                let said = place.node.log(pod)?;
                ensure!(said == want, "it says {said:?}");
            }
            Ok(())
        })
        .await
}
