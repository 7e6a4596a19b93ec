//! The bare client: PATCH a Secret, see it on a watch. Nothing else.

use crate::eyes::Eyes;
use anyhow::Result;
use ennote_harness::world::World;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

/// From the PATCH to the watch event, one at a time.
pub(crate) async fn one_at_a_time(world: &World, samples: usize) -> Result<Vec<Duration>> {
    let api = secrets(world).await?;
    create(&api, "bare").await?;
    let mut eyes = Eyes::open(world).await?;
    let mut times = Vec::with_capacity(samples);
    for sample in 0..samples {
        let begun = Instant::now();
        patch(&api, "bare", sample).await?;
        times.push(eyes.next("bare").await?.duration_since(begun));
    }
    Ok(times)
}

/// Time for one PATCH of each of `count` Secrets, `concurrency` at a time, until the last is visible.
pub(crate) async fn burst(world: &World, count: usize, concurrency: usize) -> Result<Duration> {
    let api = secrets(world).await?;
    let names: Vec<String> = (0..count).map(|n| format!("bare-{n}")).collect();
    stream::iter(&names).map(|name| create(&api, name)).buffer_unordered(concurrency).try_collect::<Vec<()>>().await?;
    let mut eyes = Eyes::open(world).await?;
    let begun = Instant::now();
    let writes =
        stream::iter(&names).map(|name| patch(&api, name, 1)).buffer_unordered(concurrency).try_collect::<Vec<()>>();
    let (seen, written) = tokio::join!(eyes.all("bare-", count), writes);
    written?;
    Ok(seen?.duration_since(begun))
}

async fn secrets(world: &World) -> Result<Api<Secret>> {
    Ok(Api::namespaced(world.plane.client().await?, &world.namespace))
}

async fn create(api: &Api<Secret>, name: &str) -> Result<()> {
    let secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {"value": "0"}}))?;
    api.create(&PostParams::default(), &secret).await?;
    Ok(())
}

/// The answer as metadata, as the agent asks for it: a fair comparison.
async fn patch(api: &Api<Secret>, name: &str, sample: usize) -> Result<()> {
    let patch = Patch::Merge(json!({"stringData": {"value": format!("{sample:032}")}}));
    api.patch_metadata(name, &PatchParams::default(), &patch).await?;
    Ok(())
}
