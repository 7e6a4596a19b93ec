//! The settings of the released chart mean here what they say.

use anyhow::{Result, bail, ensure};
use ennote_harness::agent::{self, Agent};
use ennote_harness::world::{AGENT, Options, TOKEN_SECRET, World};
use ennote_scenarios::{LATER, SOON, binding, binding_with, message, until_collected, until_message, until_version};
use serde_json::{Value, json};

/// The variables of the released chart, and what they mean: a prefix for defaulted names, the default of
/// `watchNamespaces`, the name in Events, a token that is no file, and Secrets that go with their source, under the fuse.
#[tokio::test(flavor = "multi_thread")]
async fn the_released_charts_settings_keep_working() -> Result<()> {
    let values = json!({"ennote": {"k8s": {"secretPrefix": "team-", "cleanupOrphans": true}}});
    let mut world =
        World::start("released", Options { values, token: false, agent: false, ..Options::default() }).await?;
    let mut options = agent::Options::new(&world.namespace);
    let token = world.cloud.token_create(AGENT, &[&world.namespace]).await?;
    options.environment = [
        ("ENNOTE_AUTH_TOKEN", token.as_str()),
        ("ENNOTE_K8S_WATCH_NAMESPACES", ""),
        ("ENNOTE_K8S_INSTANCE_NAME", "released-agent"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    world.agent = Agent::new(&world.plane, options).await?;
    world.cloud.put("payments db", &[("user", "app")]).await?;
    world.cloud.put("other", &[("a", "1")]).await?;
    world.apply(&binding("single", "payments db")).await?;
    world.apply(&binding_with("named", "source: {secret: other}\n  target: {name: explicit}")).await?;
    world.agent.start().await?;

    until_version(&world, "single", 1).await?;
    until_version(&world, "named", 1).await?;
    ensure!(world.secret_data("team-single").await?.contains_key("user"));
    ensure!(world.secret_data("explicit").await?.contains_key("a"), "a name that is given takes no prefix");
    for absent in ["single", "team-explicit", "team-named", TOKEN_SECRET] {
        ensure!(world.secrets().get_opt(absent).await?.is_none(), "Secret {absent} exists");
    }
    let log = world.agent.log();
    ensure!(log.contains("prefer a mounted file") && !log.contains(&token), "a warning, without the token");
    world
        .eventually("Events name the installation", SOON, async || {
            let events = world.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).await?;
            let events: Value = serde_json::from_str(&events)?;
            let named = |event: &Value| event["reportingInstance"] == "released-agent";
            ensure!(events["items"].as_array().is_some_and(|all| all.iter().any(named)), "none does");
            Ok(())
        })
        .await?;

    // One secret goes, and its Secret with it.
    world.cloud.rm("payments db").await?;
    until_message(&world, "single", "Ready", "and Secret team-single with it").await?;
    ensure!(world.secrets().get_opt("team-single").await?.is_none(), "it is gone");
    ensure!(world.secret_data("explicit").await?.contains_key("a"), "what was not removed stays");

    // Seven at once: with the one before, at most five within the hour.
    let names: Vec<String> = (1..=7).map(|n| format!("seven-{n}")).collect();
    world.cloud.put("popular", &[("a", "1")]).await?;
    let manifests: Vec<String> = names.iter().map(|name| binding(name, "popular")).collect();
    world.apply(&manifests.join("---\n")).await?;
    for name in &names {
        until_version(&world, name, 1).await?;
    }
    world.cloud.rm("popular").await?;
    let confirm = "ennote.io/confirm-deletions=2";
    let held = world
        .eventually("each goes or is held", LATER, async || {
            let mut held = Vec::new();
            for name in &names {
                let there = world.secrets().get_opt(&format!("team-{name}")).await?.is_some();
                let said = message(&world.binding(name).await?, "Ready");
                let mend =
                    format!("kubectl annotate --overwrite ennotesecretbinding {name} -n {} {confirm}", world.namespace);
                match there {
                    true if said.contains(&mend) => held.push(name.clone()),
                    true => bail!("{name} is neither held nor gone: {said}"),
                    false => ensure!(said.contains("with it"), "{name} is gone and says {said}"),
                }
            }
            Ok(held)
        })
        .await?;
    ensure!(held.len() >= 3, "only {held:?} are held of seven, after one that went before");

    // What is held stays held when those before it are out of the way and when the agent starts anew, until someone says so.
    for name in names.iter().filter(|name| !held.contains(name)) {
        world.kubectl(&["delete", "ennotesecretbinding", name]).await?;
    }
    world.kubectl(&["delete", "ennotesecretbinding", "single"]).await?;
    world.kubectl(&["annotate", "ennotesecretbinding", &held[0], "ennote.io/confirm-deletions=1"]).await?;
    world.agent.stop().await?;
    world.agent.start().await?;
    world.cloud.put("other", &[("a", "2")]).await?;
    until_version(&world, "named", 2).await?;
    for name in &held {
        until_message(&world, name, "Ready", "are deleted only when a person says so").await?;
        ensure!(world.secrets().get_opt(&format!("team-{name}")).await?.is_some(), "{name} was not held");
    }
    world.kubectl(&["annotate", "--overwrite", "ennotesecretbinding", &held[0], confirm]).await?;
    until_message(&world, &held[0], "Ready", "with it").await?;
    until_collected(&world, &format!("team-{}", held[0])).await?;
    ensure!(world.secrets().get_opt(&format!("team-{}", held[1])).await?.is_some(), "only the one that was named");
    world.stop().await
}
