//! What others do to a Secret of ours is undone, and told; what they add is kept.

use anyhow::{Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::hostile::{behind_proxy, delivered_to};
use ennote_scenarios::{
    LATER, Requests, SOON, binding, mark, message, object, secret_path, until_baseline, until_condition, until_version,
    workload,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_held_the_same_values_is_taken_once_and_nothing_is_called_drift() -> Result<()> {
    let (mut world, proxy) = behind_proxy("equal", Options::default()).await?;
    world.cloud.put("db", &[("A", "1"), ("B", "2")]).await?;
    let literals = ["--from-literal=A=1", "--from-literal=B=2", "--from-literal=THEIRS=kept"];
    world.kubectl(&[&["create", "secret", "generic", "db"][..], &literals].concat()).await?;
    world.kubectl(&["annotate", "secret", "db", "ennote.io/adopt=db"]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;

    let from = mark(&world).await?;
    world.agent.restart().await?;
    // It is looked at, and a binding made later is served: what is missing here would have come by then.
    world.kubectl(&["label", "secret", "db", "looked=at"]).await?;
    world.apply(&binding("later", "db")).await?;
    until_version(&world, "later", 1).await?;
    until_version(&world, "db", 1).await?;
    let (requests, _) = Requests::since(&world, from).await?;
    ensure!(requests.secret_writes() == 1, "{} writes, one is for the other", requests.secret_writes());
    let delivered = proxy.find(|record| delivered_to(record.frame()?, "db"))?;
    ensure!(delivered == [1], "delivered were {delivered:?}");

    // The same by hand, before Ennote says it.
    world.kubectl(&["patch", "esb", "db", "--type=merge", "-p", r#"{"spec": {"suspend": true}}"#]).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    let patch = r#"{"stringData":{"A":"mended"}}"#;
    world.kubectl(&["patch", "secret", "db", "--field-manager=someone", "--type=merge", "-p", patch]).await?;
    world.cloud.put("db", &[("A", "mended"), ("B", "2")]).await?;
    world.kubectl(&["patch", "esb", "db", "--type=merge", "-p", r#"{"spec": {"suspend": false}}"#]).await?;
    until_version(&world, "db", 2).await?;
    let from = mark(&world).await?;
    world.kubectl(&["label", "secret", "db", "looked=again", "--overwrite"]).await?;
    world.cloud.put("other", &[("A", "1")]).await?;
    world.apply(&binding("last", "other")).await?;
    until_version(&world, "last", 1).await?;
    let (requests, _) = Requests::since(&world, from).await?;
    ensure!(requests.secret_writes() == 1, "{} writes, one is for the other", requests.secret_writes());
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", world.namespace);
    ensure!(!object(&world, &path).await?.to_string().contains("DriftRepaired"), "it is called drift");

    // What was taken is ours to change and to drop, and seen when others change it.
    world.cloud.put("db", &[("A", "3")]).await?;
    until_version(&world, "db", 3).await?;
    let data = world.secret_data("db").await?;
    ensure!(data["A"] == "3" && !data.contains_key("B") && data["THEIRS"] == "kept", "it holds {:?}", data.keys());
    let patch = r#"{"stringData":{"A":"edited"}}"#;
    world.kubectl(&["patch", "secret", "db", "--field-manager=someone", "--type=merge", "-p", patch]).await?;
    until_event(&world, "DriftRepaired", "A was changed by someone").await?;
    world
        .eventually("it is as it was", SOON, async || {
            ensure!(world.secret_data("db").await?["A"] == "3", "not yet");
            Ok(())
        })
        .await?;
    world.stop().await
}
