//! What stands in a secret stands in the Secret: every type, every value as it was written, and nowhere else.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ennote_harness::devcloud;
use ennote_harness::world::{Options, World};
use ennote_scenarios::{
    binding, binding_with, condition, mapped, message, object, raw, secret_path, until_condition, until_message,
    until_version,
};
use std::collections::BTreeMap;
use std::path::Path;

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_arrives_as_it_was_written() -> Result<()> {
    let world = World::start("values", Options::default()).await?;
    let put = async |secret: &str, payload: &str| world.cloud.put_payload(secret, payload).await;
    put(
        "app config",
        r#"{"keysValues": { "no": "no", "NORWAY": "NO", "n": 12345678901234567890123, "e": 1e3, "f": 1.0, "neg": -0,
            "yes": true, "off": false, "nil": null, "empty": "", "list": [1,  "a b", {"k" : 1.50}],
            "dotted.key": "line\nline\ttab \u00e9 \ud83d\ude00 \"quoted\" \\ back", "octal": "0755", "time": "12:30" } }"#,
    )
    .await?;
    put("door", r#"{"login":"me","password":"p w","securityNotes":"the spare key"}"#).await?;
    put("diary", r#"{"securityNotes":"line one\nline two"}"#).await?;
    put("code", r#"{"securityCode":"007"}"#).await?;
    // The whole payload has to stay within 1 MiB in the cloud.
    let large = "x".repeat(1024 * 1024 - 64);
    put("large", &format!(r#"{{"keysValues":{{"large":"{large}"}}}}"#)).await?;
    let pointers = [
        ("whole.json", "/keysValues/list"),
        ("second", "/keysValues/list/1"),
        ("price", "/keysValues/list/2/k"),
        ("number", "/keysValues/n"),
        ("SAME", "/keysValues/no"),
    ];
    let manifests = [
        binding("config", "app config"),
        mapped("picked", "app config", &pointers),
        binding("door", "door"),
        mapped("door-notes", "door", &[("user", "/login"), ("notes", "/securityNotes"), ("all", "")]),
        mapped("diary", "diary", &[("notes.txt", "/securityNotes")]),
        binding("code", "code"),
        binding("large", "large"),
    ];
    world.apply(&manifests.join("---\n")).await?;

    let holds = async |name: &str, pairs: &[(&str, &str)]| -> Result<()> {
        until_version(&world, name, 1).await?;
        let held = world.secret_data(name).await?;
        ensure!(held == data(pairs), "{name} holds {held:#?}");
        Ok(())
    };
    let config = [
        ("no", "no"),
        ("NORWAY", "NO"),
        ("n", "12345678901234567890123"),
        ("e", "1e3"),
        ("f", "1.0"),
        ("neg", "-0"),
        ("yes", "true"),
        ("off", "false"),
        ("nil", "null"),
        ("empty", ""),
        ("list", r#"[1,"a b",{"k":1.50}]"#),
        ("dotted.key", "line\nline\ttab é 😀 \"quoted\" \\ back"),
        ("octal", "0755"),
        ("time", "12:30"),
    ];
    holds("config", &config).await?;
    let picked = [
        ("whole.json", r#"[1,"a b",{"k":1.50}]"#),
        ("second", "a b"),
        ("price", "1.50"),
        ("number", "12345678901234567890123"),
        ("SAME", "no"),
    ];
    holds("picked", &picked).await?;
    holds("door", &[("login", "me"), ("password", "p w")]).await?;
    let all = r#"{"login":"me","password":"p w","securityNotes":"the spare key"}"#;
    holds("door-notes", &[("user", "me"), ("notes", "the spare key"), ("all", all)]).await?;
    holds("diary", &[("notes.txt", "line one\nline two")]).await?;
    holds("code", &[("securityCode", "007")]).await?;
    holds("large", &[("large", &large)]).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_follows_mapping_and_payload_and_keeps_what_others_added() -> Result<()> {
    let world = World::start("follow", Options::default()).await?;
    let path = secret_path(&world.namespace, "db");
    world.cloud.put("payments db", &[("user", "app"), ("password", "one"), ("old", "gone soon")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;

    // Someone else adds a key of their own; the cloud drops one of ours.
    world.kubectl(&["patch", "secret", "db", "--type=merge", "-p", r#"{"stringData":{"theirs":"kept"}}"#]).await?;
    world.cloud.put("payments db", &[("user", "app"), ("password", "two")]).await?;
    until_version(&world, "db", 2).await?;
    let dropped = world.secret_data("db").await?;
    ensure!(dropped == data(&[("user", "app"), ("password", "two"), ("theirs", "kept")]), "it holds {dropped:#?}");

    // Another mapping of the same version.
    world.apply(&mapped("db", "payments db", &[("LOGIN", "/keysValues/user")])).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    let remapped = world.secret_data("db").await?;
    ensure!(remapped == data(&[("LOGIN", "app"), ("theirs", "kept")]), "it holds {remapped:#?}");
    until_version(&world, "db", 2).await?;

    // A mapping that the payload cannot fill: every missing key is named and nothing is written.
    let before = raw(&world, &path).await?;
    let wish = [("LOGIN", "/keysValues/user"), ("HOST", "/keysValues/host"), ("PORT", "/keysValues/port")];
    world.apply(&mapped("db", "payments db", &wish)).await?;
    let bad = until_condition(&world, "db", "Stalled", "True/BadMapping").await?;
    let said = message(&bad, "Ready");
    ensure!(condition(&bad, "Ready").as_deref() == Some("False/BadMapping"), "Ready is {:?}", condition(&bad, "Ready"));
    ensure!(
        said.contains("/keysValues/host (for HOST)") && said.contains("/keysValues/port (for PORT)"),
        "both missing keys are named: {said}"
    );
    ensure!(!said.contains("LOGIN"), "what is there is not called missing: {said}");
    ensure!(raw(&world, &path).await? == before, "the Secret was touched");

    // A later version that has them all heals it by itself.
    world.cloud.put("payments db", &[("user", "app"), ("host", "db.internal"), ("port", "5432")]).await?;
    let healed = until_version(&world, "db", 3).await?;
    ensure!(condition(&healed, "Stalled").is_none(), "no trace of the problem is left");
    let held = world.secret_data("db").await?;
    let want = data(&[("LOGIN", "app"), ("HOST", "db.internal"), ("PORT", "5432"), ("theirs", "kept")]);
    ensure!(held == want, "it holds {held:#?}");

    // Removed in the cloud: kept here, and said. Created again: picked up, and versions go on.
    let before = raw(&world, &path).await?;
    world.cloud.rm("payments db").await?;
    let gone = until_condition(&world, "db", "Ready", "False/SourceDeleted").await?;
    let said = message(&gone, "Ready");
    ensure!(said.contains("Secret db is kept") && said.contains("kubectl delete ennotesecretbinding db"), "{said}");
    ensure!(raw(&world, &path).await? == before, "the Secret was touched");
    world.cloud.put("payments db", &[("user", "new"), ("host", "db.internal"), ("port", "1")]).await?;
    until_version(&world, "db", 5).await?;
    ensure!(world.secret_data("db").await?.get("LOGIN").map(String::as_str) == Some("new"));
    world.stop().await
}

/// Nothing but the Secret itself holds a value: not the log at its loudest, not what kubectl shows of bindings and Events,
/// not a process list, not the cloud's disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_nowhere_but_in_the_secret() -> Result<()> {
    const CANARY: &str = "canary-4f9d1c7e5b2a8036-value";
    let options = Options {
        environment: vec![("ENNOTE_LOG".to_owned(), "trace".to_owned())],
        cloud: devcloud::Options { serve: vec!["--log=trace".to_owned()], ..devcloud::Options::default() },
        ..Options::default()
    };
    let world = World::start("canary", options).await?;
    let numbered = |number: u32| format!("{CANARY}-{number}");
    world.cloud.put("payments db", &[("password", &numbered(1)), ("user", "app")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    // Paths that fail: a key that Kubernetes refuses, a pointer to nothing, a target that is someone else's.
    world.cloud.put("odd", &[("not a key", &numbered(2))]).await?;
    world.kubectl(&["create", "secret", "generic", "foreign"]).await?;
    let foreign = "source: {secret: payments db}\n  target: {name: foreign}";
    let failing = [
        binding("odd", "odd"),
        mapped("missing", "payments db", &[("A", "/keysValues/nothing")]),
        binding_with("foreign-target", foreign),
    ];
    world.apply(&failing.join("---\n")).await?;
    until_message(&world, "odd", "Ready", "a Secret cannot hold these keys").await?;
    until_message(&world, "missing", "Ready", "/keysValues/nothing (for A)").await?;
    until_condition(&world, "foreign-target", "Ready", "False/Collision").await?;
    world.cloud.put("payments db", &[("password", &numbered(3)), ("user", "app")]).await?;
    until_version(&world, "db", 2).await?;

    let needles = [CANARY.to_owned(), STANDARD.encode(CANARY)[..36].to_owned(), hex(CANARY)];
    let found = |place: &str, bytes: &[u8]| -> Result<()> {
        let text = String::from_utf8_lossy(bytes);
        let hit = needles.iter().find(|needle| text.contains(needle.as_str()));
        ensure!(hit.is_none(), "a value stands in {place}");
        ensure!(!bytes.is_empty(), "{place} is empty: nothing was searched");
        Ok(())
    };
    let secret = raw(&world, &secret_path(&world.namespace, "db")).await?;
    ensure!(found("the Secret", secret.as_bytes()).is_err(), "the search finds a value where there is one");

    let log = world.agent.log();
    ensure!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the log is not at its loudest");
    found("the agent's log", log.as_bytes())?;
    found("the cloud's log", world.cloud.log().as_bytes())?;
    for what in ["ennotesecretbindings", "events"] {
        found(what, world.kubectl(&["get", what, "-o", "yaml", "--show-managed-fields"]).await?.as_bytes())?;
    }
    let annotations = object(&world, &secret_path(&world.namespace, "db")).await?["metadata"].to_string();
    found("the Secret's metadata", annotations.as_bytes())?;
    let cloud = world.cloud.pid().context("the cloud runs")?;
    for (process, pid) in [("the agent", world.agent.pid()?), ("the cloud", cloud)] {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}"))?;
            // The cloud is started with an empty environment.
            if file == "cmdline" || !bytes.is_empty() {
                found(&format!("{file} of {process}"), &bytes)?;
            }
        }
    }
    let mut searched = 0;
    for file in files(world.cloud.data())? {
        let bytes = std::fs::read(&file)?;
        if !bytes.is_empty() {
            found(&file.display().to_string(), &bytes)?;
            searched += 1;
        }
    }
    ensure!(searched >= 2, "database and key were searched");
    world.stop().await
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(files(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}
