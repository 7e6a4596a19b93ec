//! The published command line client beside the agent: what it creates reaches the cluster, and neither's token is the other's.

#[path = "../../../devcloud/tests/cli_v1/published.rs"]
#[expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing scenario may panic")]
mod published;

use anyhow::{Context, Result, ensure};
use ennote_harness::world::{AGENT, Options, World};
use ennote_scenarios::{LATER, SOON, binding, until_version};
use published::Published;
use serde_json::json;
use std::collections::BTreeMap;
use tonic::Code;

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A client that is signed in by `pat create`.
async fn sign_in(world: &World) -> Result<Published> {
    let made = world.cloud.cli(&["pat", "create", "--name", "ci", "--life", "1h"]).await?;
    let text = |field: &str| made[field].as_str().map(ToOwned::to_owned).context("pat create prints it");
    Ok(Published {
        channel: published::connect(&world.cloud.address(), &world.cloud.ca_pem()?).await,
        token: text("token")?,
        organization: text("organization")?,
        workspace: text("workspace")?,
        repeats_ids: true,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_created_by_the_published_client_reaches_the_cluster() -> Result<()> {
    let world = World::start("interop", Options::default()).await?;
    let client = sign_in(&world).await?;
    world.apply(&binding("db", "payments db")).await?;
    client.create("payments db", "KEYS_VALUES", r#"{"keysValues":{"user":"app","password":"one"}}"#).await?;
    until_version(&world, "db", 1).await?;
    ensure!(world.secret_data("db").await? == data(&[("user", "app"), ("password", "one")]));

    client.create("payments db", "KEYS_VALUES", r#"{"keysValues":{"user":"app","password":"two"}}"#).await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.secret_data("db").await? == data(&[("user", "app"), ("password", "two")]));

    // An import, and a version that an administrator puts: one secret, whoever writes it.
    let config = client.crypto_config().await?;
    let login = r#"{"login":"admin","password":"p"}"#;
    client.import(vec![client.request(&config, "bastion ssh", "LOGIN_PASSWORD", login)]).await?;
    world.apply(&binding("bastion", "bastion ssh")).await?;
    until_version(&world, "bastion", 1).await?;
    ensure!(world.secret_data("bastion").await? == data(&[("login", "admin"), ("password", "p")]));
    world.cloud.put("payments db", &[("user", "app"), ("password", "three")]).await?;
    until_version(&world, "db", 3).await?;
    let read = client.get("payments db", Some(2)).await?;
    ensure!(read == r#"{"keysValues":{"user":"app","password":"two"}}"#);
    let read: serde_json::Value = serde_json::from_str(&client.get("payments db", None).await?)?;
    ensure!(read["keysValues"]["password"] == "three");

    world.cloud.cli(&["pat", "revoke", "ci"]).await?;
    let refused = client.get("payments db", None).await.err().context("the token was revoked")?;
    ensure!(refused.code() == Code::Unauthenticated, "{refused}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_door_takes_the_others_token() -> Result<()> {
    let mut world = World::start("doors", Options { token: false, agent: false, ..Options::default() }).await?;
    let client = sign_in(&world).await?;
    // Pinned by settings, since a personal access token ends with no root.
    let bootstrap = world.cloud.token_create(AGENT, &[&world.namespace]).await?;
    let root = bootstrap.rsplit('.').next().context("it ends with the root")?;
    world.install(json!({"trust": {"roots": [root]}})).await?;
    world.set_token(&client.token).await?;
    world.agent.start().await?;
    world
        .eventually("the agent's join is refused", SOON, async || {
            ensure!(world.cloud.log().contains("IDENTITY_UNKNOWN"), "no refusal in the cloud's log");
            Ok(())
        })
        .await?;
    let agents = world.cloud.cli(&["agent", "list"]).await?;
    ensure!(agents.as_array().is_some_and(Vec::is_empty), "an agent came in: {agents}");
    world.agent.stop().await?;

    let intruder = Published { token: bootstrap.clone(), ..client.clone() };
    for refused in [
        intruder.create("payments db", "KEYS_VALUES", r#"{"keysValues":{"a":"1"}}"#).await.err(),
        intruder.get("payments db", None).await.err(),
    ] {
        let refused = refused.context("a bootstrap token was taken")?;
        ensure!(refused.code() == Code::Unauthenticated, "{refused}");
    }
    // Shown at the wrong door, the bootstrap token is as good as before at its own.
    client.create("payments db", "KEYS_VALUES", r#"{"keysValues":{"a":"1"}}"#).await?;
    world.set_token(&bootstrap).await?;
    world.agent.start().await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    world
        .eventually("the agent is listed", LATER, async || {
            let agents = world.cloud.cli(&["agent", "list"]).await?;
            ensure!(agents[0]["connected"] == true, "{agents}");
            Ok(())
        })
        .await?;
    world.stop().await
}
