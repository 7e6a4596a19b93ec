//! How an agent comes to its identity, and back to it, without a long-lived credential and without a human.

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use ennote_harness::agent::{self, Agent};
use ennote_harness::world::{AGENT, Options, World};
use ennote_scenarios::identity::{bind, jwks, reschedule, restart_container, until_epoch};
use ennote_scenarios::witness::Witness;
use ennote_scenarios::{
    LATER, Requests, condition, mark, message, until_baseline, until_condition, until_message, until_version, workload,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// The text of a bootstrap token that is made as these arguments say.
async fn token(world: &World, args: &[&str], input: &str) -> Result<Value> {
    let args: Vec<&str> = ["token", "create", "--agent", AGENT].iter().chain(args).copied().collect();
    world.cloud.cli_stdin(&args, input).await
}

fn text(token: &Value) -> Result<&str> {
    token["token"].as_str().context("a token")
}

/// SECURITY.md 5.3, fault 1, and the restart of fault 3.
#[tokio::test(flavor = "multi_thread")]
async fn secret_zero_a_pod_comes_back_by_its_service_account_without_a_human() -> Result<()> {
    let mut world = World::start("back", Options::default()).await?;
    bind(&world, "db", "1").await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    let first = until_epoch(&world, 1).await?;
    ensure!(first["renewal"] == "service-account", "it was enrolled by its first join: {first}");
    let account = format!("system:serviceaccount:{}:ennote-agent", world.namespace);
    ensure!(first["subject"] == account.as_str(), "{first}");
    let witness = Witness::new(&world).await?;
    let before = world.binding("db").await?;
    let start = mark(&world).await?;

    // Its bootstrap token is spent.
    reschedule(&mut world).await?;
    let second = until_epoch(&world, 2).await?;
    ensure!(second["id"] == first["id"], "another agent: {second}");
    // Only the container: the same pod and ServiceAccount token by another key; and a bootstrap token that came too late.
    let late = token(&world, &["--namespace", &world.namespace, "--life", "1s"], "").await?;
    world.set_token(text(&late)?).await?;
    let ends: Timestamp = late["expires"].as_str().context("an end")?.parse()?;
    world
        .eventually("the end of the token's life", LATER, async || {
            ensure!(Timestamp::now() > ends, "not yet");
            Ok(())
        })
        .await?;
    restart_container(&mut world).await?;
    until_epoch(&world, 3).await?;

    witness.testify(&world).await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.secret_writes() == 1, "{} Secret writes besides the witness's", requests.secret_writes() - 1);
    ensure!(requests.restarts_of("Deployment/witness") == 1);
    ensure!(requests.restarts() == 1, "{} restarts besides the witness's", requests.restarts() - 1);
    let after = world.binding("db").await?;
    ensure!(after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "{before}\n{after}");
    ensure!(world.cloud.alarms().await?.is_empty(), "alarms: {:?}", world.cloud.alarms().await?);
    world.stop().await
}

/// Keys that are somebody else's, in the form of the cluster's own.
fn other_keys(own: &str) -> Result<String> {
    let mut keys: Value = serde_json::from_str(own)?;
    let key = rcgen::KeyPair::generate()?;
    // An uncompressed point: 4, x, y.
    let point = key.public_key_raw();
    let known = keys["keys"].as_array_mut().and_then(|keys| keys.first_mut()).context("a key")?;
    ensure!(known["crv"] == "P-256" && point.len() == 65, "another kind of key: {known}");
    known["x"] = BASE64URL_NOPAD.encode(&point[1..33]).into();
    known["y"] = BASE64URL_NOPAD.encode(&point[33..]).into();
    known["kid"] = "another".into();
    Ok(keys.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_for_a_cluster_takes_nobody_else_and_says_so() -> Result<()> {
    let mut world = World::start("first-use", Options { token: false, agent: false, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    let keys = jwks(&world).await?;
    let namespace = world.namespace.clone();
    let of_namespace = ["--namespace", namespace.as_str()];

    // The keys of another cluster.
    let other = token(&world, &[&of_namespace[..], &["--jwks", "-"]].concat(), &other_keys(&keys)?).await?;
    world.set_token(text(&other)?).await?;
    world.agent.start().await?;
    until_condition(&world, "db", "Ready", "False/IdentityLost").await?;
    until_message(&world, "db", "Ready", "kubectl get --raw /openid/v1/jwks").await?;

    // Another ServiceAccount. The running agent takes each token up by itself.
    let other = token(&world, &[&of_namespace[..], &["--service-account", "somebody"]].concat(), "").await?;
    world.set_token(text(&other)?).await?;
    let lost = until_message(&world, "db", "Ready", "nor the one that the bootstrap token was made for").await?;
    ensure!(message(&lost, "Ready").contains("token create --agent NAME"), "the mend is missing: {lost}");
    ensure!(condition(&lost, "Stalled").as_deref() == Some("True/IdentityLost"), "{lost}");
    ensure!(world.cloud.agent(AGENT).await?.is_null(), "somebody joined");

    // Its own keys and name.
    let account = format!("{namespace}/ennote-agent");
    let right = token(&world, &["--service-account", &account, "--jwks", "-"], &keys).await?;
    world.set_token(text(&right)?).await?;
    until_version(&world, "db", 1).await?;
    let joined = until_epoch(&world, 1).await?;
    ensure!(joined["namespaces"] == json!([namespace]), "the namespace is the ServiceAccount's own: {joined}");
    ensure!(world.agent.log().matches("\"starting\"").count() == 1, "it was restarted");
    world.stop().await
}

/// As the released chart gives it, and as nothing should: in the environment.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_environment_alone_joins_and_comes_back() -> Result<()> {
    let mut world = World::start("env", Options { token: false, agent: false, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    let made = token(&world, &["--namespace", &world.namespace], "").await?;
    let mut options = agent::Options::new(&world.namespace);
    options.environment = vec![("ENNOTE_AUTH_TOKEN".to_owned(), text(&made)?.to_owned())];
    world.agent = Agent::new(&world.plane, options).await?;
    world.agent.start().await?;
    until_version(&world, "db", 1).await?;
    until_epoch(&world, 1).await?;
    let secrets = world.kubectl(&["get", "secrets", "-o", "name"]).await?;
    ensure!(!secrets.contains(ennote_harness::world::TOKEN_SECRET), "there is a token Secret: {secrets}");

    reschedule(&mut world).await?;
    until_epoch(&world, 2).await?;
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.cloud.alarms().await?.is_empty());
    ensure!(!world.agent.log().contains(text(&made)?), "the token is in the log");
    world.stop().await
}
