//! The agent under test.

use crate::eyes::Eyes;
use anyhow::{Result, ensure};
use ennote_devcloud::admin::Client;
use ennote_harness::world::World;
use ennote_scenarios::{Requests, binding, mark, until_version};
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Latencies of one change at a time.
pub(crate) struct Latencies {
    /// From the answer of the cloud, which is when its caller knows of the commit, to the watch event.
    pub(crate) acknowledged: Vec<Duration>,
    /// From before the call, the cloud's own durable commit included.
    pub(crate) sent: Vec<Duration>,
}

/// A burst.
pub(crate) struct Burst {
    /// From its begin until the last Secret is visible.
    pub(crate) took: Duration,
    /// Writes to the API server in that time: Secrets and status.
    pub(crate) writes: usize,
}

/// A restart with nothing changed.
pub(crate) struct Restart {
    /// Until the agent says that it is ready.
    pub(crate) ready: Duration,
    /// Writes to Secrets.
    pub(crate) secret_writes: usize,
}

/// The cloud's side of the agent.
pub(crate) struct Subject(Client);

impl Subject {
    /// Connects to the cloud's admin socket: a process per put would measure processes.
    pub(crate) async fn new(world: &World) -> Result<Self> {
        Ok(Self(Client::connect(world.cloud.data()).await?))
    }

    async fn put(&self, secret: &str, value: usize) -> Result<()> {
        let payload = format!(r#"{{"keysValues":{{"value":"{value:032}"}}}}"#);
        self.0.put_secret(None, secret, None, Zeroizing::new(payload)).await?;
        Ok(())
    }

    /// One change at a time.
    pub(crate) async fn one_at_a_time(&self, world: &World, samples: usize) -> Result<Latencies> {
        self.put("one", 0).await?;
        world.apply(&binding("one", "one")).await?;
        until_version(world, "one", 1).await?;
        let mut eyes = Eyes::open(world).await?;
        let mut times = Latencies { acknowledged: vec![], sent: vec![] };
        for sample in 0..samples {
            let before = Instant::now();
            self.put("one", sample + 1).await?;
            let acknowledged = Instant::now();
            let seen = eyes.next("one").await?;
            // Seen before the answer counts as zero: it cannot be less.
            times.acknowledged.push(seen.saturating_duration_since(acknowledged));
            times.sent.push(seen.duration_since(before));
            // One at a time: the bare client's PATCH leaves nothing to be done behind it either.
            until_version(world, "one", sample as u64 + 2).await?;
        }
        Ok(times)
    }

    /// Makes bindings and waits until all are synced.
    pub(crate) async fn make(&self, world: &World, count: usize) -> Result<()> {
        for number in 0..count {
            self.put(&name(number), 0).await?;
        }
        let mut eyes = Eyes::open(world).await?;
        let api = bindings(world).await?;
        let create = |number| {
            let api = &api;
            async move {
                let manifest = serde_json::json!({"apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
                    "metadata": {"name": name(number)}, "spec": {"source": {"secret": name(number)}}});
                let object: DynamicObject = serde_json::from_value(manifest)?;
                api.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            }
        };
        let all = stream::iter(0..count).map(create).buffer_unordered(16).try_collect::<Vec<()>>();
        let (seen, made) = tokio::join!(eyes.all("many-", count), all);
        made?;
        seen?;
        at_rest(world, count).await
    }

    /// All bindings change while the agent is stopped; it is measured from the moment it goes on, so that the cloud's own
    /// commits are not counted.
    pub(crate) async fn burst(&self, world: &World, count: usize) -> Result<Burst> {
        let mut eyes = Eyes::open(world).await?;
        let mark = mark(world).await?;
        world.agent.signal(Signal::STOP)?;
        for number in 0..count {
            self.put(&name(number), 1).await?;
        }
        let begun = Instant::now();
        world.agent.signal(Signal::CONT)?;
        let took = eyes.all("many-", count).await?.duration_since(begun);
        at_rest(world, count).await?;
        let (requests, _) = Requests::since(world, mark).await?;
        let writes = requests.0.iter().filter(|e| e.is_write() && e.code < 300).count();
        ensure!(requests.secret_writes() >= count, "fewer writes than changes");
        Ok(Burst { took, writes })
    }
}

/// Restarts the agent with nothing changed.
pub(crate) async fn restart(world: &mut World) -> Result<Restart> {
    world.agent.stop().await?;
    let mark = mark(world).await?;
    let begun = Instant::now();
    world.agent.start().await?;
    let ready = world.eventually("the agent is ready", ennote_scenarios::LATER, async || {
        ensure!(world.agent.exec(&["healthcheck", "--ready"]).await?.ok().is_ok(), "not ready");
        Ok(begun.elapsed())
    });
    let ready = ready.await?;
    let (requests, _) = Requests::since(world, mark).await?;
    Ok(Restart { ready, secret_writes: requests.secret_writes() })
}

fn name(number: usize) -> String {
    format!("many-{number}")
}

async fn bindings(world: &World) -> Result<Api<DynamicObject>> {
    Ok(Api::namespaced_with(world.plane.client().await?, &world.namespace, &binding_kind()))
}

/// The custom resource, as the API server knows it.
pub(crate) fn binding_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("ennote.io", "v1alpha1", "EnnoteSecretBinding"))
}

/// Waits until every binding's status says what its Secret holds.
async fn at_rest(world: &World, count: usize) -> Result<()> {
    let api = bindings(world).await?;
    world
        .eventually("all bindings synced", ennote_scenarios::LATER, async || {
            let all = api.list(&ListParams::default()).await?;
            let mut versions: Vec<i64> = Vec::new();
            for binding in all.items.iter().filter(|b| b.metadata.name.as_ref().is_some_and(|n| n.starts_with("many-")))
            {
                versions.extend(binding.data["status"]["source"]["version"].as_i64());
            }
            let newest = versions.iter().max().copied();
            let level = versions.iter().filter(|v| Some(**v) == newest).count();
            ensure!(level == count, "{level} of {count}");
            Ok(())
        })
        .await
}
