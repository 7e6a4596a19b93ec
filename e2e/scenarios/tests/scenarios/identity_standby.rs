//! Two pods of one identity: one works, the other stands by.

use anyhow::{Context, Result, ensure};
use ennote_harness::agent::{self, Agent};
use ennote_harness::world::{Options, World};
use ennote_scenarios::identity::{bind, serving, until_epoch};
use ennote_scenarios::witness::Witness;
use ennote_scenarios::{
    LATER, Requests, mark, until_baseline, until_condition, until_rollout, until_version, workload,
};
use kube::ResourceExt;

const WEB: &str = "Deployment/web";

/// SECURITY.md 5.3, fault 5: a node was cut off, its pod was replaced, and the node is back.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_pods_the_newer_works_and_the_older_takes_over_when_it_dies() -> Result<()> {
    let soon = ("ENNOTE_STAND_BY".to_owned(), "1".to_owned());
    let options =
        Options { cloud: serving(&["--first-stream=5s"]), environment: vec![soon.clone()], ..Options::default() };
    let world = World::start("standby", options).await?;
    bind(&world, "db", "1").await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", WEB).await?;
    let witness = Witness::new(&world).await?;
    until_epoch(&world, 1).await?;
    let start = mark(&world).await?;

    world.kubectl(&["scale", "deployment", "ennote-agent", "--replicas=2"]).await?;
    let mut options = agent::Options::new(&world.namespace);
    options.environment = vec![soon];
    options.beside = Some(world.agent.pod()?.uid().context("a UID")?);
    let mut newer = Agent::new(&world.plane, options).await?;
    newer.start().await?;
    until_epoch(&world, 2).await?;
    // The older asks again and again whether it is needed, and is told each time that it is not.
    let refused = |world: &World| world.agent.log().matches("\"SUPERSEDED\"").count();
    world
        .eventually("the older one to have asked three times", LATER, async || {
            ensure!(refused(&world) >= 4, "{} times:\n{}", refused(&world), world.agent.log_tail(20));
            Ok(())
        })
        .await?;
    let two = until_epoch(&world, 2).await?;
    world.cloud.put("db", &[("value", "2")]).await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    ensure!(until_epoch(&world, 2).await? == two, "they take turns");

    newer.kill9().await?;
    let third = until_epoch(&world, 3).await?;
    ensure!(third["id"] == two["id"], "another agent: {third}");
    world.cloud.put("db", &[("value", "3")]).await?;
    until_rollout(&world, "db", WEB, 3, "Complete").await?;
    until_condition(&world, "db", "Fresh", "True/BeatsArrive").await?;
    witness.testify(&world).await?;

    // Both write under one name. For each version the Secret was written once and the workload restarted once.
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of(WEB) == 2, "{} restarts of web", requests.restarts_of(WEB));
    ensure!(requests.restarts() == 3, "{} restarts", requests.restarts());
    ensure!(requests.secret_writes() == 3, "{} Secret writes", requests.secret_writes());
    ensure!(world.cloud.alarms().await?.is_empty(), "{:?}", world.cloud.alarms().await?);
    world.stop().await
}
