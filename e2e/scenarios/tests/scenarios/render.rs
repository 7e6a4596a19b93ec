//! What `ennote-agent render` prints offline is what the agent writes.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ennote_harness::process::{self, Output};
use ennote_harness::settings::Settings;
use ennote_harness::world::{Options, World, tree};
use ennote_scenarios::{binding, object, secret_path, until_condition};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What the examples are written for.
const PAYLOAD: &str = r#"{"keysValues": {"url": "postgres://db/app", "user": "app", "password": "one"}}"#;

/// Runs the agent's binary on a file of bindings, with the payload on standard input.
async fn render(file: &Path, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(Settings::from_env()?.binary("ennote-agent")?);
    command.args(["render", "--payload", "-", "--file"]).arg(file).args(more).env_clear();
    process::run(command, PAYLOAD.as_bytes()).await
}

/// The bindings of a file of the examples.
fn bindings(file: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file)?;
    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).with_context(|| file.display().to_string()))
        .collect::<Result<_>>()?;
    Ok(documents.into_iter().filter(|document| document["kind"] == "EnnoteSecretBinding").collect())
}

/// A value, but for what of an htpasswd file only Ennote's key gives: of its lines the user and the cost, without salt and hash.
fn without_salt(value: &Value) -> Value {
    let text =
        value.as_str().and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| String::from_utf8(bytes).ok());
    match text.filter(|text| text.contains(":$2")) {
        Some(text) => {
            let line = |line: &str| match line.split_once(":$2") {
                Some((user, rest)) => format!("{user}:$2{}\n", rest.chars().take("y$10$".len()).collect::<String>()),
                None => format!("{line}\n"),
            };
            text.lines().map(line).collect::<String>().into()
        }
        None => value.clone(),
    }
}

/// Data, type, labels and annotations, but for what only Ennote's key gives.
fn comparable(secret: &Value) -> Value {
    let mut annotations = secret["metadata"]["annotations"].clone();
    annotations.as_object_mut().map(|all| all.remove("ennote.io/fingerprints"));
    let data = secret["data"].as_object();
    let data = data.map(|data| data.iter().map(|(key, value)| (key, without_salt(value))).collect::<BTreeMap<_, _>>());
    serde_json::json!({
        "name": secret["metadata"]["name"], "labels": secret["metadata"]["labels"], "annotations": annotations,
        "type": secret["type"], "immutable": secret["immutable"], "data": data,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rendered_offline_is_what_the_agent_writes() -> Result<()> {
    let world = World::start("render", Options::default()).await?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(tree().join("examples"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") && !bindings(&path)?.is_empty() {
            files.push(path);
        }
    }
    ensure!(files.len() >= 3, "the examples were found: {files:?}");
    let mut secrets = BTreeSet::new();
    for file in &files {
        secrets
            .extend(bindings(file)?.iter().filter_map(|b| b["spec"]["source"]["secret"].as_str().map(str::to_owned)));
        world.apply(&std::fs::read_to_string(file)?).await?;
    }
    for secret in &secrets {
        world.cloud.put_payload(secret, PAYLOAD).await?;
    }
    let mut compared = 0;
    for file in &files {
        let shown = render(file, &["--show-values", "--output", "json"]).await?.ok()?;
        let rendered = shown.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<Vec<Value>>>()?;
        for (binding, rendered) in bindings(file)?.iter().zip(rendered) {
            // Nothing is written for these two.
            if binding["spec"]["suspend"] == true || binding["spec"]["mode"] == "Observe" {
                continue;
            }
            let name = binding["metadata"]["name"].as_str().context("a name")?;
            until_condition(&world, name, "Ready", "True/Synced").await?;
            let target = rendered["metadata"]["name"].as_str().context("a name")?;
            let written = object(&world, &secret_path(&world.namespace, target)).await?;
            let (offline, real) = (comparable(&rendered), comparable(&written));
            ensure!(offline == real, "{name}: rendered {offline:#}, but the agent wrote {real:#}");
            compared += 1;
        }
    }
    ensure!(compared >= 3, "the agent wrote {compared} of the examples");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_takes_what_is_rendered_with_values_and_refuses_it_without() -> Result<()> {
    let world = World::start("rendered", Options { agent: false, ..Options::default() }).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("binding.yaml");
    std::fs::write(&file, binding("db", "payments db"))?;
    let shown = render(&file, &["--show-values"]).await?.ok()?;
    let apply = ["apply", "--dry-run=server", "--namespace", &world.namespace, "-f", "-"];
    world.plane.kubectl_stdin(&apply, &shown).await?.ok()?;
    let hidden = render(&file, &[]).await?.ok()?;
    let refusal = world.plane.kubectl_stdin(&apply, &hidden).await?.refused()?;
    ensure!(refusal.contains("illegal base64"), "{refusal}");
    world.stop().await
}
