//! What the kernel says of the agent's process.

use anyhow::{Result, ensure};
use ennote_scenarios::identity::bind;
use ennote_scenarios::real_node::Place;
use ennote_scenarios::until_version;

/// A pod that Pod Security `restricted` refuses: the namespace does enforce it.
const LOOSE: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: loose}\nspec: {containers: [{name: c, image: none}]}\n";

pub(crate) async fn hardened_pod_the_chart_runs_under_restricted(place: &Place) -> Result<()> {
    let (world, pod) = place.installed("restricted").await?;
    let refused = world.refused(LOOSE).await?;
    ensure!(refused.contains("violates PodSecurity \"restricted:latest\""), "{refused}");
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;

    let container = place.container(&pod)?;
    let seen = container.confinement()?;
    ensure!(seen.uids == [65532; 4] && seen.gids == [65532; 4], "{seen:?}");
    ensure!(seen.capabilities == [0; 5], "inheritable, permitted, effective, bounding, ambient: {seen:?}");
    ensure!(seen.no_new_privs == 1 && seen.seccomp == 2, "{seen:?}");
    ensure!(seen.root.iter().any(|option| option == "ro"), "{seen:?}");
    // In Mi, as the chart asks for it.
    ensure!(container.memory_limit()? == 64 << 20, "the limit is {}", container.memory_limit()?);
    world.stop().await
}
