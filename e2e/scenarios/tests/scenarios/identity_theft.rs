//! Who holds a copy of a credential gains nothing for long, and is noticed.

use crate::thief::{Thief, detailed, refusal};
use anyhow::{Context, Result, ensure};
use ennote_devcloud::wire;
use ennote_harness::world::{AGENT, Options, TOKEN_SECRET, World};
use ennote_scenarios::identity::{bind, jwks, reschedule, restart_container, sa_token, until_epoch};
use ennote_scenarios::{condition, until_condition, until_message, until_version};

const ISSUER: &str = "https://kubernetes.default.svc";

/// SECURITY.md 5.3, fault 3: the thief was faster.
#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_token_used_first_by_a_thief_is_told_and_a_new_one_heals() -> Result<()> {
    let mut world = World::start("faster", Options { agent: false, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    let bootstrap = world.secret_data(TOKEN_SECRET).await?.remove("token").context("a bootstrap token")?;
    let thief = Thief::new(&world)?;
    let stolen = thief.join(&bootstrap).await??;
    ensure!(world.cloud.alarms().await?.is_empty(), "the cloud cannot know yet");

    world.agent.start().await?;
    let lost = until_condition(&world, "db", "Ready", "False/IdentityLost").await?;
    ensure!(condition(&lost, "Stalled").as_deref() == Some("True/IdentityLost"), "{lost}");
    until_message(&world, "db", "Ready", "token create --agent NAME --namespace NAMESPACE").await?;
    until_message(&world, "db", "Ready", "someone has a copy of it").await?;
    ensure!(world.cloud.alarms().await? == ["TOKEN_REUSED"], "{:?}", world.cloud.alarms().await?);
    ensure!(world.secrets().get_opt("db").await?.is_none(), "a Secret without an identity");

    // A new token, taken up without a restart, and the thief is out.
    world.new_token().await?;
    until_version(&world, "db", 1).await?;
    let healed = until_epoch(&world, 2).await?;
    ensure!(healed["id"] == stolen.agent_id.as_str(), "the same agent: {healed}");
    let opened = thief.open(|nonce| thief.opening(nonce, &stolen.agent_id, stolen.epoch, &stolen.access_token)).await?;
    ensure!(refusal(opened)? == "SUPERSEDED");
    ensure!(refusal(thief.join(&bootstrap).await?)? == "TOKEN_SPENT");
    ensure!(world.agent.log().matches("\"starting\"").count() == 1, "it was restarted");
    until_epoch(&world, 2).await?;
    world.stop().await
}

/// SECURITY.md 5.3, fault 3: copied from the pod's disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_service_account_token_is_refused_with_an_alarm_while_its_pod_lives() -> Result<()> {
    let mut world = World::start("copied", Options::default()).await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    // A restart of the container shows the same token by another key, and is no theft.
    restart_container(&mut world).await?;
    let before = until_epoch(&world, 2).await?;
    ensure!(world.cloud.alarms().await?.is_empty(), "{:?}", world.cloud.alarms().await?);
    let streams = world.cloud.logged("stream opened");

    let thief = Thief::new(&world)?;
    let copied = wire::Credential {
        sa_token: sa_token(&world)?,
        issuer: ISSUER.to_owned(),
        jwks: jwks(&world).await?.into_bytes(),
        ..wire::Credential::default()
    };
    for _ in 0..3 {
        let answer = thief.join_with(copied.clone()).await?;
        ensure!(detailed(answer)? == "IDENTITY_UNKNOWN/REPLAYED");
    }
    ensure!(world.cloud.alarms().await? == ["TOKEN_REPLAYED"], "{:?}", world.cloud.alarms().await?);

    // Nor does it make another agent, whose own bootstrap token is good.
    let other = world.cloud.token_create("mallory", &[&world.namespace]).await?;
    let answer = thief.join_with(wire::Credential { bootstrap_token: other.clone(), ..copied }).await?;
    ensure!(detailed(answer)? == "IDENTITY_UNKNOWN/ALREADY_ENROLLED");
    ensure!(world.cloud.alarms().await? == ["ALREADY_ENROLLED", "TOKEN_REPLAYED"]);
    ensure!(world.cloud.agent("mallory").await?.is_null(), "a refused join makes no agent");

    // The victim has noticed nothing.
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.cloud.agent(AGENT).await? == before, "the victim was disturbed: {before}");
    ensure!(world.cloud.logged("stream opened") == streams, "the victim's stream was replaced");
    world.stop().await
}

/// Anybody can read a cluster's public keys. To enrol them says nothing of who is in that cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_victims_public_keys_enrolled_by_somebody_else_get_them_nothing_and_lock_nobody_out() -> Result<()> {
    let mut world = World::start("listed", Options { agent: false, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    let keys = jwks(&world).await?;
    let create = ["token", "create", "--agent", "mallory", "--namespace", &world.namespace, "--jwks", "-"];
    let made = world.cloud.cli_stdin(&create, &keys).await?;
    let invitation = made["token"].as_str().context("a token")?.to_owned();
    let thief = Thief::new(&world)?;
    // First of all, before the victim: it has the keys, and nothing that is signed by them.
    ensure!(detailed(thief.join(&invitation).await?)? == "IDENTITY_UNKNOWN/NO_CREDENTIAL");

    world.agent.start().await?;
    until_version(&world, "db", 1).await?;
    // Even the victim's own token is not enough: its ServiceAccount is the victim's in the whole cloud.
    let copied = wire::Credential {
        bootstrap_token: invitation,
        sa_token: sa_token(&world)?,
        issuer: ISSUER.to_owned(),
        jwks: keys.into_bytes(),
    };
    ensure!(detailed(thief.join_with(copied).await?)? == "IDENTITY_UNKNOWN/ALREADY_ENROLLED");
    ensure!(world.cloud.agent("mallory").await?.is_null(), "a refused join makes no agent");

    reschedule(&mut world).await?;
    until_epoch(&world, 2).await?;
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    world.stop().await
}
