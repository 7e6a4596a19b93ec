//! The bare client: PATCH a Secret, see it on a watch. Nothing else.

use crate::eyes::Eyes;
use crate::subject::binding_kind;
use anyhow::Result;
use ennote_harness::world::World;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

/// Between two changes that are measured one at a time.
const PACE: Duration = Duration::from_millis(55);

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
        // The agent's changes come at this pace, since its status is waited for: both find the API server equally cold.
        tokio::time::sleep(PACE).await;
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

/// Time for both writes that a change costs, a Secret and the status of a binding, for each of `count`, `concurrency` at a
/// time. In a namespace that no agent watches.
pub(crate) async fn burst_of_both(world: &World, count: usize, concurrency: usize) -> Result<Duration> {
    let client = world.plane.client().await?;
    let namespace = format!("{}-bare", world.namespace);
    let new = serde_json::from_value(json!({"metadata": {"name": &namespace}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &new).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let bindings: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &binding_kind());
    let both = |number: usize| {
        let (secrets, bindings, name) = (&secrets, &bindings, format!("bare-{number}"));
        async move {
            patch(secrets, &name, 1).await?;
            let status =
                json!({"apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding", "status": status(1)});
            bindings.patch_status(&name, &PatchParams::apply("bare").force(), &Patch::Apply(status)).await?;
            anyhow::Ok(())
        }
    };
    let make = |number: usize| {
        let (secrets, bindings, name) = (&secrets, &bindings, format!("bare-{number}"));
        async move {
            create(secrets, &name).await?;
            let binding = json!({"apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
                "metadata": {"name": &name}, "spec": {"source": {"secret": "none"}}});
            bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..count).map(make).buffer_unordered(concurrency).try_collect::<Vec<()>>().await?;
    let begun = Instant::now();
    stream::iter(0..count).map(both).buffer_unordered(concurrency).try_collect::<Vec<()>>().await?;
    Ok(begun.elapsed())
}

/// As large as the one that the agent writes.
fn status(version: i64) -> serde_json::Value {
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "Synced", "message": "version 1 of \"many-1\" is in Secret many-1 (1 key)",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    };
    json!({"observedGeneration": 1, "content": "abcdefghijklmnopqrstuvwxyz", "lastSyncTime": "2026-01-01T00:00:00Z",
        "conditions": [condition("Ready"), condition("Synced"), condition("Fresh")],
        "source": {"organization": "dev", "workspace": "default", "secret": "many-1", "version": version},
        "target": {"name": "many-1", "uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": "1", "keys": 1}})
}

/// The answer as metadata, as the agent asks for it: a fair comparison.
async fn patch(api: &Api<Secret>, name: &str, sample: usize) -> Result<()> {
    let patch = Patch::Merge(json!({"stringData": {"value": format!("{sample:032}")}}));
    api.patch_metadata(name, &PatchParams::default(), &patch).await?;
    Ok(())
}
