//! From payload to Secret: formats, templates, rules for keys, and how much a Secret holds.

use anyhow::{Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::{binding_with, until_condition, until_message, until_version};
use std::collections::BTreeMap;

const PAYLOAD: &str = r#"{"keysValues":{"user":"app","pass":"p@ss w","n":12345678901234567890123,"no":"no","old":"012","time":"12:30",
    "e":"1e3","f":1.0,"b64":"aGk=","a b":{"x":["y",true]}}}"#;

fn data(entries: &[&str]) -> String {
    format!("source: {{secret: db}}\n  data:\n{}", entries.iter().map(|e| format!("    - {e}\n")).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_a_template_become_what_they_say() -> Result<()> {
    let world = World::start("formats", Options::default()).await?;
    world.cloud.put_payload("db", PAYLOAD).await?;
    let spec = data(&[
        "{key: raw, pointer: /keysValues/n}",
        "{key: json, pointer: /keysValues/a b, format: json}",
        "{key: yaml, pointer: /keysValues, format: yaml}",
        "{key: bytes, pointer: /keysValues/b64, format: base64}",
        "{key: env, pointer: /keysValues/a b, format: dotenv}",
        "{key: props, pointer: /keysValues/a b, format: properties}",
        "{key: dsn, template: 'postgres://{{ keysValues.user }}:{{ keysValues.pass | urlencode }}@db'}",
        "{key: absent, pointer: /keysValues/absent, optional: true}",
        "{key: given, pointer: /keysValues/absent, optional: true, default: info}",
    ]);
    world.apply(&binding_with("db", &spec)).await?;
    until_version(&world, "db", 1).await?;
    let yaml = "user: app\npass: \"p@ss w\"\n\"n\": 12345678901234567890123\n\"no\": \"no\"\nold: \"012\"\ntime: \"12:30\"\n\
                e: \"1e3\"\nf: 1.0\nb64: \"aGk=\"\n\"a b\":\n  x:\n    - \"y\"\n    - true\n";
    let want = [
        ("bytes", "hi"),
        ("dsn", "postgres://app:p%40ss%20w@db"),
        ("env", "x='[\"y\",true]'\n"),
        ("given", "info"),
        ("json", r#"{"x":["y",true]}"#),
        ("props", "x=[\"y\",true]\n"),
        ("raw", "12345678901234567890123"),
        ("yaml", yaml),
    ];
    let want: BTreeMap<String, String> = want.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let held = world.secret_data("db").await?;
    ensure!(held == want, "it holds {held:#?}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_until_all_fits_and_all_that_is_missing_is_named() -> Result<()> {
    let world = World::start("missing", Options::default()).await?;
    world.cloud.put_payload("db", PAYLOAD).await?;
    let spec = data(&[
        "{key: here, pointer: /keysValues/user}",
        "{key: one, pointer: /keysValues/one}",
        "{key: two, template: '{{ keysValues.two }}'}",
    ]);
    world.apply(&binding_with("db", &spec)).await?;
    let said = "not in the payload: /keysValues/one (for one), keysValues.two (in the template of two)";
    until_message(&world, "db", "Ready", said).await?;
    ensure!(world.secrets().get_opt("db").await?.is_none(), "a part was written");
    world.apply(&binding_with("db", &data(&["{key: two, template: '{% set x = 1 %}'}"]))).await?;
    until_message(&world, "db", "Stalled", "set is not allowed in a template").await?;
    world
        .apply(&binding_with("db", "source: {secret: db}\n  keys: {exclude: [' '], rename: UpperSnake, prefix: APP_}"))
        .await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    let held = world.secret_data("db").await?;
    ensure!(held["APP_USER"] == "app" && held.keys().all(|key| key.starts_with("APP_")), "it holds {:?}", held.keys());
    ensure!(held.len() == 9, "it holds {:?}", held.keys());

    world.cloud.put_payload("db", r#"{"keysValues":{"db url":"1","DB_URL":"2"}}"#).await?;
    until_version(&world, "db", 2).await?;
    world.apply(&binding_with("db", "source: {secret: db}\n  keys: {rename: UpperSnake}")).await?;
    until_message(&world, "db", "Ready", "\"db url\" and \"DB_URL\" are both DB_URL").await?;
    world.apply(&binding_with("db", "source: {secret: db}\n  keys: {include: ['^X']}")).await?;
    until_message(&world, "db", "Ready", "takes none of the keys").await?;
    ensure!(world.secret_data("db").await?.contains_key("APP_DB_URL"), "what was synced is gone");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_at_the_limit_of_a_secret_works_and_one_byte_more_is_refused() -> Result<()> {
    let world = World::start("limit", Options::default()).await?;
    let frame = r#"{"keysValues":{"a":""}}"#.len();
    let payload = format!(r#"{{"keysValues":{{"a":"{}"}}}}"#, "x".repeat(1024 * 1024 - frame));
    world.cloud.put_payload("db", &payload).await?;
    world.apply(&binding_with("db", &data(&["{key: whole, pointer: ''}"]))).await?;
    until_version(&world, "db", 1).await?;
    ensure!(world.secret_data("db").await?["whole"] == payload, "it holds something else");
    world.apply(&binding_with("db", &data(&["{key: whole, pointer: ''}", "{key: more, template: x}"]))).await?;
    until_message(&world, "db", "Ready", "the keys hold more than 1048576 bytes together").await?;
    ensure!(world.secret_data("db").await?.len() == 1, "it was written");
    world.stop().await
}
