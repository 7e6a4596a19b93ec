//! A watcher that notes when each change of a Secret became visible.

use anyhow::{Context, Result, bail};
use ennote_harness::world::World;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(120);

/// Sees every Secret of the world's namespace, as metadata.
pub(crate) struct Eyes(mpsc::UnboundedReceiver<(String, Instant)>);

impl Eyes {
    /// Opens the watch; what happens from now on is seen.
    pub(crate) async fn open(world: &World) -> Result<Self> {
        // A client of its own: the writer's connection must not carry the watch.
        let api: Api<Secret> = Api::namespaced(world.plane.client().await?, &world.namespace);
        let now =
            api.list_metadata(&ListParams::default()).await?.metadata.resource_version.context("no resourceVersion")?;
        let stream = api.watch_metadata(&WatchParams::default(), &now).await?.boxed();
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut stream = stream;
            while let Ok(Some(event)) = stream.try_next().await {
                let at = Instant::now();
                if let WatchEvent::Added(secret) | WatchEvent::Modified(secret) = event {
                    let name = secret.metadata.name.unwrap_or_default();
                    if tell.send((name, at)).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self(seen))
    }

    /// When the next change of `name` became visible.
    pub(crate) async fn next(&mut self, name: &str) -> Result<Instant> {
        loop {
            let seen = tokio::time::timeout(PATIENCE, self.0.recv())
                .await
                .with_context(|| format!("{name} did not change"))?;
            match seen {
                Some((of, at)) if of == name => return Ok(at),
                Some(_) => {}
                None => bail!("the watch ended"),
            }
        }
    }

    /// When the last of `count` Secrets whose name begins so had changed once.
    pub(crate) async fn all(&mut self, begin: &str, count: usize) -> Result<Instant> {
        let mut names = BTreeSet::new();
        loop {
            let waiting = || format!("{} of {count} changed", names.len());
            let seen = tokio::time::timeout(PATIENCE, self.0.recv()).await.with_context(waiting)?;
            let (name, at) = seen.context("the watch ended")?;
            if name.starts_with(begin) {
                names.insert(name);
            }
            if names.len() >= count {
                return Ok(at);
            }
        }
    }
}
