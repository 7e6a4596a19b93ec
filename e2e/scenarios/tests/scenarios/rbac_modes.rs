//! The modes of the chart beside the strict one, which every other scenario runs in.

use anyhow::{Context, Result, ensure};
use ennote_harness::audit::START;
use ennote_harness::world::{Options, World};
use ennote_scenarios::{
    Requests, SOON, binding, binding_with, condition, object, secret_path, until_collected, until_message,
    until_version,
};
use serde_json::json;
use std::collections::BTreeSet;

/// Verbs that the agent used on Secrets; creations by name are `apply`.
async fn verbs_on_secrets(world: &World) -> Result<BTreeSet<String>> {
    let (requests, _) = Requests::since(world, START).await?;
    Ok(requests.0.iter().filter(|e| e.resource == "secrets").map(|e| e.verb.clone()).collect())
}

/// Somebody edits the Secret, then deletes it: both are undone.
async fn is_put_back(world: &World) -> Result<()> {
    let holds = async || {
        world
            .eventually("it is put back", SOON, async || {
                let data = world.secret_data("db").await?;
                ensure!(data["A"] == "2" && data.len() == 1, "it holds {:?}", data.keys());
                Ok(())
            })
            .await
    };
    let edit = r#"{"stringData":{"A":"edited"}}"#;
    world.kubectl(&["patch", "secret", "db", "--field-manager=someone", "--type=merge", "-p", edit]).await?;
    holds().await?;
    world.kubectl(&["delete", "secret", "db"]).await?;
    holds().await
}

#[tokio::test(flavor = "multi_thread")]
async fn compatible_mode_watches_secrets_and_needs_no_policy() -> Result<()> {
    let values = json!({"rbac": {"mode": "compatible"}, "admissionPolicy": {"create": false}});
    let world = World::start("compatible", Options { values, ..Options::default() }).await?;
    world.cloud.put("db", &[("A", "1"), ("B", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    world.cloud.put("db", &[("A", "2")]).await?;
    until_version(&world, "db", 2).await?;
    is_put_back(&world).await?;
    world.kubectl(&["create", "secret", "generic", "theirs", "--from-literal=A=theirs"]).await?;
    world.apply(&binding("theirs", "db")).await?;
    until_message(&world, "theirs", "Ready", "held by field manager kubectl-create").await?;
    ensure!(world.secret_data("theirs").await?["A"] == "theirs");
    let (requests, _) = Requests::since(&world, START).await?;
    ensure!(!requests.0.iter().any(|e| e.is_trial()), "it looks, or asks for a policy");
    ensure!(verbs_on_secrets(&world).await?.contains("watch"), "no watch");
    world.kubectl(&["delete", "esb", "db"]).await?;
    until_collected(&world, "db").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_on_named_secrets_are_enough_in_either_mode() -> Result<()> {
    for (mode, policy) in [("strict", true), ("compatible", false)] {
        let rbac = json!({"mode": mode, "secretNames": ["db"]});
        let values = json!({"rbac": rbac, "admissionPolicy": {"create": policy}});
        let world = World::start("named", Options { values, ..Options::default() }).await?;
        world.cloud.put("db", &[("A", "1"), ("B", "1")]).await?;
        let labelled =
            |label: &str| binding_with("db", &format!("source: {{secret: db}}\n  target: {{labels: {{{label}}}}}"));
        world.apply(&labelled("a: '1', b: '1'")).await?;
        until_version(&world, "db", 1).await?;
        world.cloud.put("db", &[("A", "2")]).await?;
        until_version(&world, "db", 2).await?;
        ensure!(world.secret_data("db").await?.len() == 1, "{mode}: a key that was dropped stays");
        is_put_back(&world).await?;
        world.apply(&labelled("a: '2'")).await?;
        world
            .eventually("the labels follow", SOON, async || {
                let secret = object(&world, &secret_path(&world.namespace, "db")).await?;
                let labels = &secret["metadata"]["labels"];
                ensure!(labels["a"] == "2" && labels.get("b").is_none(), "{mode}: {labels}");
                ensure!(secret["metadata"]["ownerReferences"][0]["kind"] == "EnnoteSecretBinding", "{mode}: no owner");
                Ok(())
            })
            .await?;
        let verbs = verbs_on_secrets(&world).await?;
        ensure!(!verbs.contains("list") && !verbs.contains("watch") && !verbs.contains("create"), "{mode}: {verbs:?}");
        ensure!(verbs.contains("get") == (mode == "compatible"), "{mode}: {verbs:?}");

        world.apply(&binding("other", "db")).await?;
        world
            .eventually("a name that is not granted is said", SOON, async || {
                let bound = world.binding("other").await?;
                ensure!(
                    condition(&bound, "Ready").as_deref() == Some("False/Forbidden"),
                    "not yet: {}",
                    bound["status"]
                );
                Ok(())
            })
            .await
            .context(mode)?;
        world.kubectl(&["delete", "esb", "db"]).await?;
        until_collected(&world, "db").await?;
        world.stop().await?;
    }
    Ok(())
}

/// The other scenarios look every second. As it is shipped, what a write finds moved is looked at then, and not minutes later.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_write_finds_moved_is_looked_at_at_once() -> Result<()> {
    let environment = vec![("ENNOTE_LOOK_EVERY".to_owned(), "300".to_owned())];
    let world = World::start("shipped", Options { environment, ..Options::default() }).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    let labelled = |label: &str| {
        let spec = format!("source: {{secret: db}}\n  target: {{labels: {{{label}}}, whenSourceDeleted: Delete}}");
        binding_with("db", &spec)
    };
    world.apply(&labelled("a: '1'")).await?;
    until_version(&world, "db", 1).await?;
    let touch = async |value: &str| {
        world.kubectl(&["annotate", "--overwrite", "secret", "db", &format!("touched={value}")]).await
    };
    // Metadata, data, and the deletion, each over a revision that the agent has not seen.
    touch("1").await?;
    world.apply(&labelled("a: '2'")).await?;
    world
        .eventually("the label follows", SOON, async || {
            let secret = object(&world, &secret_path(&world.namespace, "db")).await?;
            ensure!(secret["metadata"]["labels"]["a"] == "2", "not yet");
            Ok(())
        })
        .await?;
    touch("2").await?;
    world.cloud.put("db", &[("A", "2")]).await?;
    until_version(&world, "db", 2).await?;
    touch("3").await?;
    world.cloud.rm("db").await?;
    until_collected(&world, "db").await?;
    until_message(&world, "db", "Ready", "and Secret db with it").await?;
    world.stop().await
}
