//! What the Secret is, besides its data: type, labels, annotations, name, and what becomes of it.

use anyhow::{Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::{
    Requests, SOON, binding, binding_with, mark, message, object, raw, secret_path, until_collected, until_condition,
    until_message, until_version,
};
use serde_json::Value;

fn with_target(target: &str) -> String {
    binding_with("db", &format!("source: {{secret: db}}\n  target: {{{target}}}"))
}

async fn secret(world: &World, name: &str) -> Result<Value> {
    object(world, &secret_path(&world.namespace, name)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_annotations_and_the_owner_follow_the_spec_without_a_payload() -> Result<()> {
    let world = World::start("labels", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    world.apply(&with_target("labels: {team: shop, old: x}, annotations: {note: 'a \"quoted\" text'}")).await?;
    until_version(&world, "db", 1).await?;
    let first = secret(&world, "db").await?;
    ensure!(
        first["metadata"]["labels"]["team"] == "shop"
            && first["metadata"]["annotations"]["note"] == "a \"quoted\" text"
    );
    ensure!(first["type"] == "Opaque" && first["metadata"]["ownerReferences"][0]["name"] == "db");
    world.kubectl(&["label", "secret", "db", "theirs=kept"]).await?;

    // Only metadata differs: what is there is changed, and the owner goes with the policy.
    world.apply(&with_target("labels: {team: pay}, deletionPolicy: Retain")).await?;
    world
        .eventually("metadata follows", SOON, async || {
            let now = secret(&world, "db").await?;
            let (labels, annotations) = (&now["metadata"]["labels"], &now["metadata"]["annotations"]);
            ensure!(labels["team"] == "pay" && labels["theirs"] == "kept" && labels.get("old").is_none(), "{labels}");
            ensure!(annotations.get("note").is_none(), "{annotations}");
            ensure!(now["metadata"].get("ownerReferences").is_none(), "it is still owned");
            ensure!(now["data"] == first["data"] && now["metadata"]["uid"] == first["metadata"]["uid"]);
            Ok(())
        })
        .await?;
    // Somebody takes a label of the spec away: it is put back.
    world.kubectl(&["label", "secret", "db", "team-"]).await?;
    world
        .eventually("the label is back", SOON, async || {
            ensure!(secret(&world, "db").await?["metadata"]["labels"]["team"] == "pay");
            Ok(())
        })
        .await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    world.kubectl(&["delete", "esb", "db"]).await?;
    let left = secret(&world, "db").await?;
    ensure!(left["metadata"].get("ownerReferences").is_none(), "retained: nobody owns it");

    // Made again, it takes up its own Secret, and with the other policy owns it.
    world.apply(&with_target("deletionPolicy: Delete")).await?;
    until_version(&world, "db", 1).await?;
    ensure!(secret(&world, "db").await?["metadata"]["uid"] == first["metadata"]["uid"], "it was made anew");
    world.kubectl(&["delete", "esb", "db"]).await?;
    until_collected(&world, "db").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_changes_and_an_immutable_secret_wait_for_a_person() -> Result<()> {
    let world = World::start("anew", Options::default()).await?;
    world.cloud.put("db", &[("username", "app"), ("password", "1")]).await?;
    world.apply(&with_target("immutable: true")).await?;
    until_version(&world, "db", 1).await?;
    let path = secret_path(&world.namespace, "db");
    let before = raw(&world, &path).await?;
    ensure!(secret(&world, "db").await?["immutable"] == true);

    world.cloud.put("db", &[("username", "app"), ("password", "2")]).await?;
    let told = until_condition(&world, "db", "Ready", "False/RecreateNeeded").await?;
    ensure!(raw(&world, &path).await? == before, "an immutable Secret was touched");
    let uid = secret(&world, "db").await?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let line =
        format!("kubectl annotate --overwrite ennotesecretbinding db -n {} ennote.io/recreate={uid}", world.namespace);
    ensure!(message(&told, "Stalled").contains(&line), "it says {:?}", message(&told, "Stalled"));
    let allow = |uid: &str| format!("ennote.io/recreate={uid}");
    world.kubectl(&["annotate", "--overwrite", "esb", "db", &allow("of-another-secret")]).await?;
    until_condition(&world, "db", "Ready", "False/RecreateNeeded").await?;
    ensure!(raw(&world, &path).await? == before, "another uid is no permission");
    world.kubectl(&["annotate", "--overwrite", "esb", "db", &allow(&uid)]).await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.secret_data("db").await?["password"] == "2");

    // Another type: the same way. A Secret that a person deletes needs no permission.
    world.apply(&with_target("type: kubernetes.io/basic-auth")).await?;
    until_condition(&world, "db", "Ready", "False/RecreateNeeded").await?;
    ensure!(secret(&world, "db").await?["type"] == "Opaque");
    world.kubectl(&["delete", "secret", "db"]).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    ensure!(secret(&world, "db").await?["type"] == "kubernetes.io/basic-auth");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_does_not_fit_the_type_is_not_written() -> Result<()> {
    let world = World::start("types", Options::default()).await?;
    let issued = |name: &str| -> Result<(String, String)> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])?.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    let ((certificate, key), (_, other)) = (issued("db")?, issued("other")?);
    let tls = with_target("type: kubernetes.io/tls");
    world.cloud.put("db", &[("tls.crt", &certificate), ("tls.key", &other)]).await?;
    world.apply(&tls).await?;
    until_message(&world, "db", "Stalled", "the certificate in tls.crt is not that of the key in tls.key").await?;
    ensure!(world.secrets().get_opt("db").await?.is_none(), "it was written");
    world.cloud.put("db", &[("tls.crt", &certificate)]).await?;
    until_message(&world, "db", "Stalled", "needs the key tls.key").await?;
    world.cloud.put("db", &[("tls.crt", &certificate), ("tls.key", &key)]).await?;
    until_version(&world, "db", 3).await?;
    ensure!(secret(&world, "db").await?["type"] == "kubernetes.io/tls");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_binding_says_what_becomes_of_its_secret_when_the_source_is_deleted() -> Result<()> {
    let world = World::start("source-gone", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    let bound = |name: &str, policy: &str| {
        binding_with(name, &format!("source: {{secret: db}}\n  target: {{whenSourceDeleted: {policy}}}"))
    };
    world
        .apply(&[bound("goes", "Delete"), bound("stays", "Retain"), binding("by-default", "db")].join("---\n"))
        .await?;
    for name in ["goes", "stays", "by-default"] {
        until_version(&world, name, 1).await?;
    }
    world.cloud.rm("db").await?;
    until_collected(&world, "goes").await?;
    until_message(&world, "goes", "Ready", "and Secret goes with it").await?;
    for name in ["stays", "by-default"] {
        until_message(&world, name, "Ready", &format!("Secret {name} is kept")).await?;
        ensure!(world.secret_data(name).await?["A"] == "1");
    }
    world.cloud.put("db", &[("A", "2")]).await?;
    for name in ["goes", "stays", "by-default"] {
        until_condition(&world, name, "Ready", "True/Synced").await?;
        ensure!(world.secret_data(name).await?["A"] == "2");
    }
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_target_takes_its_old_secret_with_it() -> Result<()> {
    let mut world = World::start("rename", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    world.apply(&with_target("name: one")).await?;
    until_version(&world, "db", 1).await?;
    world.apply(&with_target("name: two")).await?;
    until_collected(&world, "one").await?;
    ensure!(world.secret_data("two").await?["A"] == "1");

    // While no agent runs, and one that is to be left behind.
    world.agent.kill9().await?;
    world.apply(&with_target("name: three, deletionPolicy: Retain")).await?;
    world.agent.start().await?;
    until_collected(&world, "two").await?;
    world.apply(&with_target("name: four, deletionPolicy: Retain")).await?;
    until_message(&world, "db", "Ready", "is in Secret four").await?;
    let from = mark(&world).await?;
    ensure!(world.secret_data("three").await?["A"] == "1", "what is to be left behind is gone");
    let (requests, _) = Requests::since(&world, from).await?;
    ensure!(requests.secret_writes() == 0, "idle, it writes");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_already_stands_there_is_not_written_again_and_again() -> Result<()> {
    let world = World::start("label-stands", Options::default()).await?;
    world.cloud.put("db", &[("A", "1")]).await?;
    world.apply(&with_target("name: db")).await?;
    until_version(&world, "db", 1).await?;
    world.kubectl(&["label", "secret", "db", "team=shop"]).await?;
    world.kubectl(&["annotate", "secret", "db", "note=a text"]).await?;

    let from = mark(&world).await?;
    world.apply(&with_target("labels: {team: shop}, annotations: {note: a text}")).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    // Somebody looks at it, and another binding is served meanwhile.
    world.kubectl(&["label", "secret", "db", "theirs=kept"]).await?;
    world.apply(&binding("later", "db")).await?;
    until_version(&world, "later", 1).await?;
    let (requests, _) = Requests::since(&world, from).await?;
    // One for the Secret of the other, at most one for the new spec, which may change what cannot be seen.
    ensure!(requests.secret_writes() <= 2, "{} writes", requests.secret_writes());

    world.kubectl(&["patch", "esb", "db", "--type=merge", "-p", r#"{"spec": {"mode": "Observe"}}"#]).await?;
    until_message(&world, "db", "Ready", "nothing would change in Secret db").await?;
    world.kubectl(&["label", "--overwrite", "secret", "db", "team=other"]).await?;
    until_message(&world, "db", "Ready", "Secret db would change: labels team").await?;
    world.kubectl(&["patch", "esb", "db", "--type=merge", "-p", r#"{"spec": {"mode": "Sync"}}"#]).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    ensure!(secret(&world, "db").await?["metadata"]["labels"]["team"] == "shop");
    world.stop().await
}

/// A person's Secret is not deleted to become what the spec asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_handed_over_with_another_type_is_kept_and_says_what_mends_it() -> Result<()> {
    let world = World::start("adopt-type", Options::default()).await?;
    world.cloud.put("db", &[("username", "app"), ("password", "1")]).await?;
    let create = ["create", "secret", "generic", "db", "--type=kubernetes.io/basic-auth"];
    world.kubectl(&[&create[..], &["--from-literal=username=theirs"]].concat()).await?;
    world.kubectl(&["annotate", "secret", "db", "ennote.io/adopt=db"]).await?;
    let before = secret(&world, "db").await?;
    world.apply(&with_target("name: db")).await?;
    let told = until_condition(&world, "db", "Ready", "False/RecreateNeeded").await?;
    let said = message(&told, "Stalled");
    ensure!(said.contains("Set spec.target.type") && !said.contains("ennote.io/recreate"), "it says {said:?}");
    ensure!(secret(&world, "db").await? == before, "it was touched");
    world.apply(&with_target("type: kubernetes.io/basic-auth")).await?;
    until_version(&world, "db", 1).await?;
    let after = secret(&world, "db").await?;
    ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "it was made anew");
    ensure!(world.secret_data("db").await?["username"] == "app");
    world.stop().await
}
