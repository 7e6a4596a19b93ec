//! Whose a Secret is: handed over by a person, taken back by one, and wanted by two bindings.

use anyhow::{Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::{
    binding, binding_with, object, raw, secret_path, until_collected, until_condition, until_message, until_version,
};

fn aiming(name: &str, target: &str, policy: &str) -> String {
    binding_with(name, &format!("source: {{secret: db}}\n  target: {{name: {target}, deletionPolicy: {policy}}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_adopted_when_its_mark_names_the_binding_and_keeps_its_other_keys() -> Result<()> {
    let world = World::start("adopt", Options::default()).await?;
    world.kubectl(&["create", "secret", "generic", "db", "--from-literal=A=theirs", "--from-literal=B=kept"]).await?;
    world.apply(&binding("db", "db")).await?;
    until_condition(&world, "db", "Ready", "False/Collision").await?;
    // Handed over, and taken back before there is anything to write.
    world.kubectl(&["annotate", "secret", "db", "ennote.io/adopt=db"]).await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForSecret").await?;
    world.kubectl(&["annotate", "secret", "db", "ennote.io/adopt-"]).await?;
    until_condition(&world, "db", "Ready", "False/Collision").await?;
    let before = raw(&world, &secret_path(&world.namespace, "db")).await?;
    world.cloud.put("db", &[("A", "ours")]).await?;
    world.apply(&binding("other", "db")).await?;
    until_version(&world, "other", 1).await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "db")).await? == before, "the Secret was touched");

    world.kubectl(&["annotate", "secret", "db", "ennote.io/adopt=db"]).await?;
    let bound = until_version(&world, "db", 1).await?;
    let data = world.secret_data("db").await?;
    ensure!(data["A"] == "ours" && data["B"] == "kept", "it holds {:?}", data.keys());
    let secret = object(&world, &secret_path(&world.namespace, "db")).await?;
    ensure!(secret["metadata"]["annotations"].get("ennote.io/adopt").is_none(), "the mark stays");
    ensure!(secret["metadata"]["ownerReferences"][0]["uid"] == bound["metadata"]["uid"], "it has no owner");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_whose_label_was_taken_away_is_released_and_can_be_given_back() -> Result<()> {
    let world = World::start("release", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    world.apply(&[binding("db", "db"), binding("witness", "db")].join("---\n")).await?;
    until_version(&world, "db", 1).await?;
    world.kubectl(&["label", "secret", "db", "app.kubernetes.io/managed-by-"]).await?;
    until_condition(&world, "db", "Ready", "False/Released").await?;
    let before = raw(&world, &secret_path(&world.namespace, "db")).await?;
    world.cloud.put("db", &[("A", "2")]).await?;
    until_version(&world, "witness", 2).await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "db")).await? == before, "the Secret was touched");
    world.kubectl(&["annotate", "secret", "db", "ennote.io/adopt=db"]).await?;
    until_version(&world, "db", 2).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bindings_the_older_writes_and_the_younger_follows_it() -> Result<()> {
    let world = World::start("rivals", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    // The names decide where both were made in the same second.
    world.apply(&aiming("a", "shared", "Delete")).await?;
    until_version(&world, "a", 1).await?;
    world.apply(&aiming("b", "shared", "Delete")).await?;
    until_condition(&world, "b", "Ready", "False/Collision").await?;
    until_message(&world, "b", "Ready", "EnnoteSecretBinding/a, which is older").await?;
    world.kubectl(&["delete", "ennotesecretbinding", "a"]).await?;
    let bound = until_version(&world, "b", 1).await?;
    let secret = object(&world, &secret_path(&world.namespace, "shared")).await?;
    ensure!(secret["metadata"]["ownerReferences"][0]["uid"] == bound["metadata"]["uid"], "b owns what it took over");
    world.stop().await
}

/// What a person handed over is theirs until the first payload was written to it, also where the source goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_only_handed_over_stays_when_the_source_is_deleted() -> Result<()> {
    let world = World::start("handed-over", Options::default()).await?;
    let going = |name: &str| binding_with(name, "source: {secret: db}\n  target: {whenSourceDeleted: Delete}");
    world.cloud.put("db", &[("A", "1")]).await?;
    world.cloud.put("other", &[("A", "1")]).await?;
    world.kubectl(&["create", "secret", "generic", "db", "--from-literal=A=theirs"]).await?;
    // Left behind by an earlier binding of the same name.
    world.apply(&aiming("left", "left", "Retain")).await?;
    until_version(&world, "left", 1).await?;
    world.kubectl(&["delete", "esb", "left"]).await?;
    world.apply(&[going("db"), going("witness")].join("---\n")).await?;
    until_condition(&world, "db", "Ready", "False/Collision").await?;
    until_version(&world, "witness", 1).await?;

    world.cloud.rm("db").await?;
    until_collected(&world, "witness").await?;
    world.kubectl(&["annotate", "secret", "db", "ennote.io/adopt=db"]).await?;
    let before = object(&world, &secret_path(&world.namespace, "left")).await?;
    let left = "source: {secret: db}\n  target: {deletionPolicy: Retain, whenSourceDeleted: Delete}";
    world.apply(&binding_with("left", left)).await?;
    let handed = raw(&world, &secret_path(&world.namespace, "db")).await?;
    for name in ["db", "left"] {
        until_message(&world, name, "Ready", &format!("Secret {name} is kept")).await?;
    }
    // What is made later is served: a deletion would have come by then.
    world.apply(&binding("later", "other")).await?;
    until_version(&world, "later", 1).await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "db")).await? == handed, "the Secret was touched");
    ensure!(
        object(&world, &secret_path(&world.namespace, "left")).await? == before,
        "what was left behind was touched"
    );

    // The first payload takes it, and from then on it goes with the source.
    world.cloud.put("db", &[("A", "2")]).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    ensure!(world.secret_data("db").await?["A"] == "2");
    world.cloud.rm("db").await?;
    until_collected(&world, "db").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_was_written_over_is_put_back() -> Result<()> {
    let world = World::start("written-over", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    let path = secret_path(&world.namespace, "db");
    let label = async || -> Result<String> {
        let secret = object(&world, &path).await?;
        Ok(secret["metadata"]["labels"]["ennote.io/binding-id"].to_string())
    };
    let ours = label().await?;
    world.kubectl(&["label", "--overwrite", "secret", "db", "ennote.io/binding-id=x"]).await?;
    world
        .eventually("the label is back", ennote_scenarios::SOON, async || {
            ensure!(label().await? == ours, "not yet");
            Ok(())
        })
        .await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_binding_that_observes_does_not_hold_back_the_younger_one() -> Result<()> {
    let world = World::start("preview", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    // The names decide where both were made in the same second.
    world.apply(&binding_with("a", "source: {secret: db}\n  mode: Observe\n  target: {name: shared}")).await?;
    until_message(&world, "a", "Ready", "Secret shared would be created").await?;
    world.apply(&aiming("b", "shared", "Delete")).await?;
    until_version(&world, "b", 1).await?;
    world.kubectl(&["patch", "esb", "a", "--type=merge", "-p", r#"{"spec": {"mode": "Sync"}}"#]).await?;
    until_version(&world, "a", 1).await?;
    until_message(&world, "b", "Ready", "EnnoteSecretBinding/a, which is older").await?;
    // A look ahead gives nothing away either.
    world.kubectl(&["patch", "esb", "a", "--type=merge", "-p", r#"{"spec": {"mode": "Observe"}}"#]).await?;
    until_message(&world, "b", "Ready", "held by EnnoteSecretBinding/a; it was not touched").await?;
    until_message(&world, "a", "Ready", "nothing would change in Secret shared").await?;
    world.stop().await
}

/// What an earlier binding left behind is taken over by one write; where that is refused, it goes with nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_whose_take_over_is_refused_stays_when_the_binding_goes() -> Result<()> {
    let world = World::start("take-over", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    world.apply(&aiming("old", "left", "Retain")).await?;
    until_version(&world, "old", 1).await?;
    world.kubectl(&["delete", "esb", "old"]).await?;
    // Of another type, which cannot change.
    let other = "source: {secret: db}\n  target: {name: left, type: example.com/other}";
    world.apply(&binding_with("new", other)).await?;
    until_condition(&world, "new", "Ready", "False/RecreateNeeded").await?;
    let secret = object(&world, &secret_path(&world.namespace, "left")).await?;
    ensure!(secret["metadata"].get("ownerReferences").is_none(), "it is owned: {}", secret["metadata"]);
    world.kubectl(&["delete", "esb", "new"]).await?;
    // Of its own type it is taken, by a third.
    world.apply(&aiming("third", "left", "Delete")).await?;
    until_version(&world, "third", 1).await?;
    let now = object(&world, &secret_path(&world.namespace, "left")).await?;
    ensure!(now["metadata"]["uid"] == secret["metadata"]["uid"], "it was made anew");
    world.stop().await
}
