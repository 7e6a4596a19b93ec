//! What a person writes and reads with kubectl: wrong manifests are refused with a sentence, right ones are listed.

use crate::wrong_manifests::wrongs;
use anyhow::{Context, Result, ensure};
use ennote_harness::world::{Options, World, tree};
use ennote_scenarios::{SOON, binding_with, object, until_condition};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ennotesecretbindings.ennote.io";

/// A world without an agent: the API server alone answers.
async fn without_agent(name: &str) -> Result<World> {
    World::start(name, Options { agent: false, ..Options::default() }).await
}

/// All that the schema of `spec` can refuse, as `PATH KEYWORD`.
fn rules(path: &str, schema: &Value, into: &mut BTreeSet<String>) {
    const KEYWORDS: [&str; 11] = [
        "enum",
        "pattern",
        "format",
        "maxLength",
        "minLength",
        "maxItems",
        "minItems",
        "maximum",
        "minimum",
        "maxProperties",
        "x-kubernetes-list-map-keys",
    ];
    into.extend(KEYWORDS.iter().filter(|word| schema.get(**word).is_some()).map(|word| format!("{path} {word}")));
    if schema.get("x-kubernetes-validations").is_some() {
        into.insert(format!("{path} rule"));
    }
    into.insert(format!("{path} type"));
    for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        into.insert(format!("{path} required {field}"));
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        rules(&format!("{path}.{name}"), child, into);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        rules(&format!("{path}{{}}"), values, into);
    }
    if let Some(items) = schema.get("items") {
        rules(&format!("{path}[]"), items, into);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_manifest_is_refused_with_its_sentence() -> Result<()> {
    let world = without_agent("wrong").await?;
    let table = wrongs();

    let mut unheard = Vec::new();
    for wrong in &table {
        let said = world
            .refused(&binding_with("wrong", &wrong.spec))
            .await
            .with_context(|| format!("accepted: {}", wrong.spec))?;
        if !said.contains(&wrong.sentence) {
            unheard.push(format!("{}\n  wanted {:?}\n  heard  {said}", wrong.breaks, wrong.sentence));
        }
        ensure!(!said.contains('^'), "a regular expression is no sentence: {said}");
    }
    ensure!(unheard.is_empty(), "{} of {} are not said as wanted:\n{}", unheard.len(), table.len(), unheard.join("\n"));
    ensure!(world.kubectl(&["get", "esb", "-o", "name"]).await?.is_empty(), "something was created all the same");

    // The table knows every rule that the API server serves.
    let crd = object(&world, CRD).await?;
    let mut served = BTreeSet::new();
    rules("spec", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut served);
    // A spec that is no object at all has no binding to speak of.
    served.remove("spec type");
    let known: BTreeSet<String> =
        table.iter().map(|wrong| wrong.breaks.clone()).filter(|breaks| breaks != "unknown field").collect();
    ensure!(served == known, "rules of the schema and of the table differ: {:?}", &served ^ &known);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_are_applied_explained_and_listed() -> Result<()> {
    let mut world = without_agent("examples").await?;
    world.cloud.put("payments db", &[("url", "postgres://db/app"), ("user", "app"), ("password", "one")]).await?;
    let mut files = yaml_files(&tree().join("examples"))?;
    // Kinds of Argo CD and Flux, which are not served here: tests/gitops.rs reads those.
    files.retain(|file| !file.parent().is_some_and(|folder| folder.ends_with("argocd") || folder.ends_with("flux")));
    ensure!(files.len() >= 4, "the examples were found: {files:?}");
    for file in &files {
        let path = file.display().to_string();
        // What is for a whole cluster is not left in one that others use; who uses it is another scenario.
        let dry = file.parent().is_some_and(|folder| folder.ends_with("platform"));
        let mut args = vec!["apply", "-f", &path];
        args.extend(dry.then_some("--dry-run=server"));
        world.kubectl(&args).await?;
    }

    // kubectl learns of a new kind's documentation a moment after the kind.
    let explained = world
        .eventually("kubectl explain", SOON, async || {
            world.kubectl(&["explain", "ennotesecretbinding.spec.source.secret"]).await
        })
        .await?;
    ensure!(explained.contains("The name of the secret in that workspace, exactly as Ennote shows it"), "{explained}");

    // Nobody has seen it: it says so, and a wait for it does not end.
    let unseen = world.binding("payments-db").await?;
    ensure!(unseen["status"]["observedGeneration"] == -1, "its status is {}", unseen["status"]);
    let wait = ["wait", "--for=condition=Ready", "ennotesecretbinding/payments-db"];
    let premature = world.kubectl(&[&wait[..], &["--timeout=1s"]].concat()).await;
    ensure!(premature.is_err(), "an unseen binding was taken for a ready one");

    world.agent.start().await?;
    world.kubectl(&[&wait[..], &["--timeout=60s"]].concat()).await?;
    until_condition(&world, "payments-db", "Ready", "True/Synced").await?;
    for name in ["payments-db-mapped", "payments-db-files", "payments-db-renamed"] {
        until_condition(&world, name, "Ready", "True/Synced").await?;
    }
    let files = world.secret_data("payments-db-files").await?;
    ensure!(files["DSN"] == "postgres://app:one@db/app" && files["LEVEL"] == "info", "it holds {files:?}");
    ensure!(
        files["config.yaml"].contains("user: app\n") && files["auth"].starts_with("app:$2y$10$"),
        "it holds {files:?}"
    );
    let renamed = world.secret_data("payments-db-renamed").await?;
    ensure!(renamed.keys().eq(["APP_PASSWORD", "APP_URL", "APP_USER"]), "it holds {renamed:?}");

    let columns = ["NAME", "SECRET", "READY", "VERSION", "SYNCED", "ROLLOUT", "AGE"];
    let wide = [&columns[..], &["REASON", "LATENCY"]].concat();
    let everywhere = [&["NAMESPACE"], &columns[..]].concat();
    // kubectl keeps what it knows of a server for hours, but looks again for a name that it does not know: this one first.
    let lists: [(&[&str], &[&str]); 7] = [
        (&["get", "ennotesecretbindings"], &columns),
        (&["get", "bindings"], &columns),
        (&["get", "esb"], &columns),
        (&["get", "ennote"], &columns),
        (&["get", "bindings", "-o", "wide"], &wide),
        (&["get", "bindings", "-A"], &everywhere),
        (&["get", "ennotesecretbinding", "payments-db"], &columns),
    ];
    for (args, want) in lists {
        let listed = world.kubectl(args).await?;
        let mut lines = listed.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        ensure!(head == want, "kubectl {} shows the columns {head:?}", args.join(" "));
        let line = lines.find(|line| line.contains("payments-db ")).with_context(|| format!("not listed: {listed}"))?;
        ensure!(line.contains("payments db") && line.contains("True"), "kubectl {}: {line}", args.join(" "));
    }
    let listed = world.kubectl(&["get", "bindings", "-o", "wide"]).await?;
    ensure!(listed.matches(" Synced").count() == listed.lines().count() - 1, "the reason is shown: {listed}");
    ensure!(listed.lines().count() == 6, "one of them is pinned: {listed}");
    world.stop().await
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(yaml_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    // Bindings before workloads, as a person would.
    found.sort();
    Ok(found)
}
