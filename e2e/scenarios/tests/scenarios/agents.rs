//! Two installations over one namespace: one writes, the other stands back until the first is gone.

use anyhow::{Result, ensure};
use ennote_harness::agent::{self, Agent};
use ennote_harness::audit::AuditMark;
use ennote_harness::world::{Options, World};
use ennote_scenarios::{
    LATER, Requests, binding, mark, until_baseline, until_condition, until_rollout, until_version, workload,
};
use serde_json::json;
use std::time::Duration;

const WEB: &str = "Deployment/web";
/// Twenty times this long an agent is taken to live once it has answered, and then the patience itself passes.
const PATIENCE: (&str, &str) = ("ENNOTE_CLAIM_PATIENCE", "3");

async fn by(world: &World, user: &str, start: AuditMark) -> Result<Requests> {
    let (mut events, _) = world.plane.audit(start).await?;
    events.retain(|event| event.user == user);
    Ok(Requests(events))
}

fn stands_back_from(agent: &Agent, binding: &str) -> bool {
    let told = |line: &serde_json::Value| {
        let text = line.to_string();
        text.contains("ManagedByAnotherAgent") && text.contains(&format!("\"{binding}\""))
    };
    agent.log_lines().iter().any(told)
}

async fn until_stands_back(world: &World, agent: &Agent, name: &str) -> Result<()> {
    world
        .eventually(&format!("an agent stands back from {name}"), LATER, async || {
            ensure!(stands_back_from(agent, name), "not said:\n{}", agent.log_tail(10));
            Ok(())
        })
        .await
}

async fn until_agent(world: &World, name: &str, agent: &str, patience: Duration) -> Result<()> {
    world
        .eventually(&format!("{name} is written by {agent}"), patience, async || {
            let seen = world.binding(name).await?["status"]["agent"].clone();
            ensure!(seen == agent, "by {seen}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_over_one_namespace_do_not_fight() -> Result<()> {
    let environment = vec![(PATIENCE.0.to_owned(), PATIENCE.1.to_owned())];
    let options = Options { environment: environment.clone(), ..Options::default() };
    let mut first = World::start("agents", options).await?;
    first.cloud.put("db", &[("value", "1")]).await?;
    first.apply(&[binding("db", "db"), workload("Deployment", "web", "db")].join("---\n")).await?;
    until_version(&first, "db", 1).await?;
    until_baseline(&first, "db", WEB).await?;
    let (one, two) = (format!("{}/ennote-agent", first.namespace), "second");
    until_agent(&first, "db", &one, LATER).await?;

    // Another release, in a namespace of its own, of the same organization.
    let values = json!({
        "fullnameOverride": two,
        "watchNamespaces": [&first.namespace],
        "ennote": {"api": {"url": first.cloud.address(), "caCert": first.cloud.ca_pem()?}},
    });
    let options = Options { values, token: false, agent: false, ..Options::default() };
    let second = World::start("agents-too", options).await?;
    second.set_token(&first.cloud.token_create(two, &[&first.namespace]).await?).await?;
    let mut options = agent::Options::new(&second.namespace);
    (options.deployment, options.environment) = (two.to_owned(), environment);
    let mut other = Agent::new(&second.plane, options).await?;
    let two = format!("{}/{two}", second.namespace);

    let start = mark(&first).await?;
    other.start().await?;
    let (user, other_user) = (first.agent.user()?, other.user()?);
    until_stands_back(&first, &other, "db").await?;
    first
        .eventually("the Event", LATER, async || {
            ensure!(first.kubectl(&["get", "events"]).await?.contains("ManagedByAnotherAgent"), "none");
            Ok(())
        })
        .await?;
    first.cloud.put("db", &[("value", "2")]).await?;
    until_rollout(&first, "db", WEB, 2, "Complete").await?;
    until_agent(&first, "db", &one, LATER).await?;
    let theirs = by(&first, &other_user, start).await?;
    ensure!(theirs.secret_writes() == 0 && theirs.restarts() == 0, "it wrote");
    let patches: Vec<_> = theirs.0.iter().filter(|e| e.is_write() && e.resource == "ennotesecretbindings").collect();
    ensure!(!patches.is_empty() && patches.iter().all(|e| e.uri.contains("claim")), "more than its claim: {patches:?}");
    let ours = by(&first, &user, start).await?;
    ensure!(ours.secret_writes() == 1 && ours.restarts() == 1, "{} writes", ours.secret_writes());

    // One that is new to both: whoever is first has it, and the other stands back.
    first.apply(&binding("late", "db")).await?;
    until_version(&first, "late", 2).await?;
    first
        .eventually("one of the two stands back", LATER, async || {
            let owner = first.binding("late").await?["status"]["agent"].clone();
            let stands_back = if owner == one { &other } else { &first.agent };
            ensure!(stands_back_from(stands_back, "late"), "not yet:\n{}", stands_back.log_tail(10));
            Ok(())
        })
        .await?;
    let middle = mark(&first).await?;
    first.cloud.put("db", &[("value", "3")]).await?;
    for name in ["db", "late"] {
        until_version(&first, name, 3).await?;
    }
    let (all, _) = first.plane.audit(middle).await?;
    for name in ["db", "late"] {
        let writes = all.iter().filter(|e| {
            e.resource == "secrets" && e.is_write() && e.code < 300 && e.namespace == first.namespace && e.name == name
        });
        ensure!(writes.count() == 1, "{name} was not written exactly once");
    }
    until_rollout(&first, "db", WEB, 3, "Complete").await?;

    // The first goes for good: the second asks again, is not answered, and takes over where the first stopped.
    first.agent.kill9().await?;
    until_agent(&first, "db", &two, LATER).await?;
    until_agent(&first, "late", &two, LATER).await?;
    let last = mark(&first).await?;
    first.cloud.put("db", &[("value", "4")]).await?;
    for name in ["db", "late"] {
        until_version(&first, name, 4).await?;
    }
    until_rollout(&first, "db", WEB, 4, "Complete").await?;
    let theirs = by(&first, &other_user, last).await?;
    ensure!(theirs.secret_writes() == 2 && theirs.restarts() == 1, "{} restarts", theirs.restarts());

    // Back again, it finds the second at work.
    first.agent.start().await?;
    until_stands_back(&first, &first.agent, "db").await?;
    until_agent(&first, "db", &two, LATER).await?;
    until_condition(&first, "db", "Ready", "True/Synced").await?;
    other.stop().await?;
    second.stop().await?;
    first.stop().await
}
