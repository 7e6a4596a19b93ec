//! What others do to a Secret of ours is undone, and told; what they add is kept.

use anyhow::{Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::{
    LATER, Requests, SOON, binding, mark, message, object, secret_path, until_baseline, until_version, workload,
};
use serde_json::Value;

/// Waits until an Event of the binding has this reason and text.
async fn until_event(world: &World, reason: &str, text: &str) -> Result<()> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", world.namespace);
    world
        .eventually(&format!("an Event {reason} says {text:?}"), LATER, async || {
            let events = object(world, &path).await?;
            let all = events["items"].as_array().cloned().unwrap_or_default();
            let notes: Vec<&Value> = all.iter().filter(|e| e["reason"] == reason).map(|e| &e["note"]).collect();
            ensure!(notes.iter().any(|note| note.as_str().is_some_and(|n| n.contains(text))), "heard {notes:?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_put_back_and_told_and_restarts_nothing() -> Result<()> {
    let world = World::start("drift", Options::default()).await?;
    world.cloud.put("db", &[("A", "1"), ("B", "2")]).await?;
    world.apply(&[binding("db", "db"), workload("Deployment", "web", "db")].join("---\n")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    let uid = object(&world, &secret_path(&world.namespace, "db")).await?["metadata"]["uid"].clone();
    let from = mark(&world).await?;
    let holds = async |a: &str| -> Result<()> {
        world
            .eventually("it is as it was", SOON, async || {
                let data = world.secret_data("db").await?;
                ensure!(
                    data.get("A").map(String::as_str) == Some(a) && data.get("B").map(String::as_str) == Some("2"),
                    "{:?}",
                    data.keys()
                );
                Ok(())
            })
            .await
    };

    // A key changed, by somebody with a name.
    let patch = r#"{"stringData":{"A":"edited"}}"#;
    world.kubectl(&["patch", "secret", "db", "--field-manager=someone", "--type=merge", "-p", patch]).await?;
    until_event(&world, "DriftRepaired", "A was changed by someone").await?;
    holds("1").await?;
    // A key removed, and one added, which is kept and named.
    let patch = r#"{"data":{"B":null},"stringData":{"EXTRA":"theirs"}}"#;
    world.kubectl(&["patch", "secret", "db", "--field-manager=someone", "--type=merge", "-p", patch]).await?;
    until_event(&world, "DriftRepaired", "B was removed, last written to by someone").await?;
    holds("1").await?;
    world
        .eventually("the key of others is named", SOON, async || {
            let bound = world.binding("db").await?;
            ensure!(
                bound["status"]["target"]["otherKeys"] == serde_json::json!(["EXTRA"]),
                "{}",
                bound["status"]["target"]
            );
            let said = message(&bound, "Ready");
            ensure!(said.ends_with("; keys of others are kept: EXTRA"), "it says {said:?}");
            Ok(())
        })
        .await?;
    ensure!(world.secret_data("db").await?["EXTRA"] == "theirs", "it is gone");
    let patch = r#"{"data":{"EXTRA":null}}"#;
    world.kubectl(&["patch", "secret", "db", "--field-manager=someone", "--type=merge", "-p", patch]).await?;
    world
        .eventually("no key of others is named", SOON, async || {
            let bound = world.binding("db").await?;
            ensure!(bound["status"]["target"].get("otherKeys").is_none(), "{}", bound["status"]["target"]);
            Ok(())
        })
        .await?;
    // The whole Secret.
    world.kubectl(&["delete", "secret", "db"]).await?;
    until_event(&world, "SecretRestored", "Secret db was deleted by somebody; it is there again").await?;
    holds("1").await?;
    ensure!(
        object(&world, &secret_path(&world.namespace, "db")).await?["metadata"]["uid"] != uid,
        "it was not deleted"
    );

    // A change in the cloud restarts; nothing of the above did.
    let (requests, _) = Requests::since(&world, from).await?;
    ensure!(requests.restarts() == 0, "{} restarts by drift", requests.restarts());
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", world.namespace);
    ensure!(!object(&world, &path).await?.to_string().contains("edited"), "a value is in an Event");
    world.stop().await
}
