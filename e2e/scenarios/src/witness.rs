//! How a scenario knows that nothing more is coming: a workload of its own whose restart was asked for last.

use crate::{binding, until_baseline, until_rollout, workload};
use anyhow::Result;
use ennote_harness::world::World;

const NAME: &str = "witness";

/// A binding and a Deployment beside those of the scenario. Every restart waits for the same quiet period, so once the
/// witness has been restarted, whatever was due before it has been too.
pub struct Witness(());

impl Witness {
    /// Creates both and waits until the next change would restart the Deployment.
    ///
    /// # Errors
    /// With diagnostics, when that does not come.
    pub async fn new(world: &World) -> Result<Self> {
        world.cloud.put(NAME, &[("turn", "1")]).await?;
        world.apply(&format!("{}---\n{}", binding(NAME, NAME), workload("Deployment", NAME, NAME))).await?;
        until_baseline(world, NAME, &format!("Deployment/{NAME}")).await?;
        Ok(Self(()))
    }

    /// Has the witness restarted and waits until it is up again. It counts as one write to a Secret and one restart.
    ///
    /// # Errors
    /// With diagnostics, when that does not come.
    pub async fn testify(self, world: &World) -> Result<()> {
        world.cloud.put(NAME, &[("turn", "2")]).await?;
        until_rollout(world, NAME, &format!("Deployment/{NAME}"), 2, "Complete").await.map(drop)
    }
}
