//! Whoever owns the network path, with a certificate that the agent trusts, can only deny.

use anyhow::{Context, Result, ensure};
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use ennote_harness::evil::{Call, Frame};
use ennote_harness::world::{Options, TOKEN_SECRET};
use ennote_scenarios::hostile::{Needles, behind_proxy};
use ennote_scenarios::{binding, until_version};
use prost::Message;

/// Nothing of a join, a delivery and a change can be read, although every message is there to be read.
#[tokio::test(flavor = "multi_thread")]
async fn the_network_reads_no_value_and_no_credential() -> Result<()> {
    const CANARY: &str = "canary-c81f6e2a9d-value";
    let (world, proxy) = behind_proxy("evil-reads", Options::default()).await?;
    let bootstrap = world.secret_data(TOKEN_SECRET).await?.remove("token").context("a bootstrap token")?;
    world.cloud.put("payments db", &[("password", CANARY)]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    world.cloud.put("payments db", &[("password", &format!("{CANARY}-2"))]).await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.secret_data("db").await?["password"] == format!("{CANARY}-2"));

    let records = proxy.records()?;
    let heard = |name: &str| records.iter().filter_map(|r| r.frame()).filter(|f| f.name() == name).count();
    for name in ["hello", "challenge", "proof", "joined", "greet", "open", "ask", "beat"] {
        ensure!(heard(name) > 0, "no {name} was heard");
    }
    ensure!(heard("have") == 2, "{} deliveries passed", heard("have"));
    // What is known to be visible: names. So the search finds what there is.
    ensure!(Needles::of("payments db").seen_in(&records) > 0, "the search finds nothing at all");
    ensure!(Needles::of(CANARY).seen_in(&records) == 0, "a value passed readably");
    ensure!(Needles::of(&bootstrap).seen_in(&records) == 0, "the bootstrap token passed readably");
    let account = world.agent.local_path("/var/run/secrets/kubernetes.io/serviceaccount/token")?;
    let account = std::fs::read_to_string(account)?;
    ensure!(Needles::of(account.trim()).seen_in(&records) == 0, "the API server's token passed readably");

    // The access token is there to be read: it only opens streams, and only with a key that never passes.
    let opened = proxy.find(|r| match (r.call, r.frame()?) {
        (Call::Sync(_), Frame::Agent(agent_frame::Frame::Open(open))) => Some(open.clone()),
        _ => None,
    })?;
    ensure!(opened.iter().all(|open| !open.access_token.is_empty()), "no access token was seen");
    let joined = proxy.find(|r| match r.frame()? {
        Frame::Cloud(cloud_frame::Frame::Finish(joined)) => joined.joined.clone(),
        _ => None,
    })?;
    let joined = wire::Joined::decode(joined.first().context("a join")?.body.as_slice())?;
    ensure!(joined.access_token == opened[0].access_token);
    world.stop().await
}
