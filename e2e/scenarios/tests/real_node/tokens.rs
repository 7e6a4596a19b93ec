//! Projected tokens: the kubelet renews the files, and the agent reads them again.

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use ennote_harness::node::Container;
use ennote_scenarios::identity::{bind, until_epoch};
use ennote_scenarios::real_node::Place;
use ennote_scenarios::{LATER, Requests, mark, until_version};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

const API_SERVER: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const CLOUD: &str = "/var/run/secrets/ennote/sa-token";

/// A kubelet renews a token at 80 % of its life, and that of every pod after its own restart: that is the sooner one to see.
pub(crate) async fn the_kubelet_renews_the_tokens_and_the_agent_goes_on_with_the_new_ones(place: &Place) -> Result<()> {
    let (world, pod) = place.installed("tokens").await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    until_epoch(&world, 1).await?;
    let container = place.container(&pod)?;
    let old = [id(&container, API_SERVER)?, id(&container, CLOUD)?];

    place.node.restart_kubelet()?;
    let new = place
        .eventually(&world, "both tokens to be new", LATER, async || {
            let new = [id(&container, API_SERVER)?, id(&container, CLOUD)?];
            ensure!(new[0] != old[0] && new[1] != old[1], "not yet");
            Ok(new)
        })
        .await?;

    let start = mark(&world).await?;
    let mut version = 1;
    place
        .eventually(&world, "the agent to use the new token", LATER, async || {
            version += 1;
            world.cloud.put("db", &[("value", &version.to_string())]).await?;
            until_version(&world, "db", version).await?;
            let (requests, _) = Requests::since(&world, start).await?;
            let used = requests.0.iter().any(|event| event.credential == format!("JTI={}", new[0]));
            ensure!(used, "the last was {:?}", requests.0.last().map(|event| &event.credential));
            ensure!(requests.denied().is_empty(), "{:?}", requests.denied());
            Ok(())
        })
        .await?;

    // Its bootstrap token is spent, and the token that it came with is not in its pod any more.
    container.signal(Signal::KILL)?;
    until_epoch(&world, 2).await?;
    world.cloud.put("db", &[("value", "last")]).await?;
    until_version(&world, "db", version + 1).await?;
    world.stop().await
}

/// `jti` of a token in a file of the container.
fn id(container: &Container, path: &str) -> Result<String> {
    let token = fs::read_to_string(container.file(path)).with_context(|| format!("cannot read {path} of the pod"))?;
    let claims = token.split('.').nth(1).context("it is no token")?;
    let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes())?)?;
    Ok(claims["jti"].as_str().context("the token has no jti")?.to_owned())
}
