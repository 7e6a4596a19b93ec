//! The cluster's keys for ServiceAccount tokens roll.

use crate::issuer::{self, Issuer};
use anyhow::{Result, ensure};
use ennote_harness::control_plane::{ControlPlane, Options as PlaneOptions};
use ennote_harness::world::{AGENT, Options, World};
use ennote_scenarios::identity::{bind, jwks, restart_container, serving, until_epoch, until_streams};
use ennote_scenarios::{LATER, condition, message, until_condition, until_version};
use std::sync::Arc;

const RENEWED: &str = "access token renewed on the stream";
const R3: &str = "kubectl get --raw /openid/v1/jwks | agent jwks NAME --file -";

async fn until_renewed(world: &World, times: usize) -> Result<()> {
    let before = world.cloud.logged(RENEWED);
    world
        .eventually(&format!("{times} more renewals"), LATER, async || {
            let now = world.cloud.logged(RENEWED);
            ensure!(now >= before + times, "{} so far", now - before);
            Ok(())
        })
        .await
}

/// SECURITY.md 5.3, fault 6. One agent is up while the API server's signing key rolls, two are away from before to after. To
/// the clouds of two of them the issuer is private: nobody but an agent, or a person, can tell them. The third can ask it.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_servers_signing_key_rolls_without_a_gap_and_who_was_away_comes_back_or_is_told_the_mend() -> Result<()>
{
    let api_server_args = issuer::api_server_args();
    let plane = Arc::new(ControlPlane::start(PlaneOptions { api_server_args, ..PlaneOptions::default() }).await?);
    let issuer = Issuer::start(&plane).await?;
    let [address, ca] = issuer.cloud_args();
    let on_plane = |args: &[&str]| Options { cloud: serving(args), plane: Some(plane.clone()), ..Options::default() };
    let up = on_plane(&["--access-token-life=12s", "--beat-interval=1s", "--jwks-wait=1s", "--jwks-linger=1s"]);
    let public = on_plane(&[&address, &ca, "--issuer-pause=200ms"]);
    let (up, away, public) =
        tokio::join!(World::start("up", up), World::start("away", on_plane(&[])), World::start("public", public));
    let (mut up, mut away, mut public) = (up?, away?, public?);
    for world in [&up, &away, &public] {
        bind(world, "db", "1").await?;
        until_version(world, "db", 1).await?;
        until_epoch(world, 1).await?;
    }
    let held = away.secret_data("db").await?;
    for world in [&mut away, &mut public] {
        world.agent.kill9().await?;
        world.agent.forget_tokens().await;
        until_streams(world, 0).await?;
    }

    // The API server publishes a new key, and only an agent whose token is still signed by the old one can vouch for it.
    plane.publish_signing_key().await?;
    up.eventually("the cloud to be told of the new key", LATER, async || {
        let keys = up.cloud.cli(&["agent", "keys", AGENT]).await?;
        ensure!(keys.as_array().is_some_and(|keys| keys.len() == 2), "it knows {keys}");
        Ok(())
    })
    .await?;
    // Then it signs by it.
    plane.roll_signing_key().await?;
    up.agent.renew_tokens().await?;
    until_renewed(&up, 1).await?;
    // At last the old one is gone.
    plane.retire_signing_keys().await?;
    up.agent.renew_tokens().await?;
    until_renewed(&up, 1).await?;
    up.cloud.put("db", &[("value", "2")]).await?;
    until_version(&up, "db", 2).await?;
    ensure!(up.cloud.logged("stream opened") == 1, "streams:\n{}", up.cloud.log());
    ensure!(up.cloud.logged("stream ended") == 0, "streams:\n{}", up.cloud.log());
    ensure!(up.cloud.logged(" joined") == 1, "joins:\n{}", up.cloud.log());
    // By now the new key counts for joins, too.
    restart_container(&mut up).await?;
    until_epoch(&up, 2).await?;
    // A person hears of a key that only an agent has told of, and of nothing else.
    ensure!(up.cloud.alarms().await? == ["KEY_REPORTED"], "{:?}", up.cloud.alarms().await?);

    // The cloud that asks the issuer knows it as well, and nobody had to do anything.
    public.agent.start().await?;
    until_epoch(&public, 2).await?;
    public.cloud.put("db", &[("value", "2")]).await?;
    until_version(&public, "db", 2).await?;
    ensure!(public.cloud.alarms().await?.is_empty(), "{:?}", public.cloud.alarms().await?);

    // The last one's cloud has never heard of it.
    away.agent.start().await?;
    let lost = until_condition(&away, "db", "Ready", "False/IdentityLost").await?;
    ensure!(condition(&lost, "Stalled").as_deref() == Some("True/IdentityLost"), "{lost}");
    ensure!(condition(&lost, "Synced").as_deref() == Some("True/Synced"), "{lost}");
    ensure!(message(&lost, "Ready").contains(R3), "the mend is missing: {lost}");
    ensure!(away.secret_data("db").await? == held, "the Secret was touched");

    // A person runs that line. The kubelet's next token is shown at once.
    let keys = jwks(&away).await?;
    away.cloud.cli_stdin(&["agent", "jwks", AGENT, "--file", "-"], &keys).await?;
    away.agent.renew_tokens().await?;
    until_epoch(&away, 2).await?;
    until_condition(&away, "db", "Ready", "True/Synced").await?;
    away.cloud.put("db", &[("value", "2")]).await?;
    until_version(&away, "db", 2).await?;
    ensure!(away.agent.log().matches("\"starting\"").count() == 2, "it was restarted by the mend");
    up.stop().await?;
    public.stop().await?;
    away.stop().await
}
