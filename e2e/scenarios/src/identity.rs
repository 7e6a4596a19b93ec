//! What the cloud knows of the world's agent, and what happens to its pod.

use crate::{LATER, binding};
use anyhow::{Context, Result, ensure};
use ennote_harness::devcloud;
use ennote_harness::world::{AGENT, World};
use kube::ResourceExt;
use serde_json::Value;
use std::path::PathBuf;

/// Where the chart mounts the ServiceAccount token that the agent shows to the cloud.
const SA_TOKEN: &str = "/var/run/secrets/ennote/sa-token";

/// Settings of a cloud, as in `--access-token-life=6s`.
pub fn serving(args: &[&str]) -> devcloud::Options {
    devcloud::Options { serve: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Default::default() }
}

/// Puts the secret `name` at `value` and applies a binding of the same name.
///
/// # Errors
/// What cloud or API server said.
pub async fn bind(world: &World, name: &str, value: &str) -> Result<()> {
    world.cloud.put(name, &[("value", value)]).await?;
    world.apply(&binding(name, name)).await
}

/// Waits until the agent has a stream open in this epoch; gives its entry in `agent list`.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_epoch(world: &World, epoch: u64) -> Result<Value> {
    world
        .eventually(&format!("a stream of epoch {epoch}"), LATER, async || {
            let agent = world.cloud.agent(AGENT).await?;
            // A stream that broke meanwhile has brought another one.
            ensure!(agent["epoch"].as_u64() >= Some(epoch), "the cloud has {agent}");
            ensure!(agent["streams"].as_u64() == Some(1), "the cloud has {agent}");
            Ok(agent)
        })
        .await
}

/// Waits until the agent has this many streams.
///
/// # Errors
/// With diagnostics, when it does not come.
pub async fn until_streams(world: &World, streams: u64) -> Result<Value> {
    world
        .eventually(&format!("{streams} streams"), LATER, async || {
            let agent = world.cloud.agent(AGENT).await?;
            ensure!(agent["streams"].as_u64() == Some(streams), "the cloud has {agent}");
            Ok(agent)
        })
        .await
}

/// Kills the agent with its pod, as a node that dies does, and starts it as the pod that takes its place.
///
/// # Errors
/// When there is no such pod.
pub async fn reschedule(world: &mut World) -> Result<()> {
    let (name, uid) = (world.agent.pod()?.name_any(), world.agent.pod()?.uid());
    world.agent.kill9().await?;
    world.kubectl(&["delete", "pod", &name, "--wait=false"]).await?;
    world.agent.start().await?;
    ensure!(world.agent.pod()?.uid() != uid, "it is still the same pod");
    Ok(())
}

/// Kills the agent and starts it in the same pod.
///
/// # Errors
/// When it does not start.
pub async fn restart_container(world: &mut World) -> Result<()> {
    let (uid, token) = (world.agent.pod()?.uid(), sa_token(world)?);
    world.agent.kill9().await?;
    world.agent.start().await?;
    ensure!(world.agent.pod()?.uid() == uid, "it is another pod");
    ensure!(sa_token(world)? == token, "the token file outlives the container");
    Ok(())
}

/// The file with the ServiceAccount token that the agent shows to the cloud.
///
/// # Errors
/// When the agent does not run.
pub fn sa_token_file(world: &World) -> Result<PathBuf> {
    world.agent.local_path(SA_TOKEN)
}

/// The ServiceAccount token that the agent shows to the cloud.
///
/// # Errors
/// When the agent does not run, or has none.
pub fn sa_token(world: &World) -> Result<String> {
    let file = sa_token_file(world)?;
    std::fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))
}

/// The cluster's keys as `kubectl get --raw /openid/v1/jwks` prints them.
///
/// # Errors
/// What kubectl said.
pub async fn jwks(world: &World) -> Result<String> {
    world.plane.kubectl(&["get", "--raw", "/openid/v1/jwks"]).await?.ok()
}
