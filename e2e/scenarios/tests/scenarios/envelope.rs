//! Envelopes: which suite two ends choose, and that whatever is broken about a delivery is refused by its own reason while the
//! Secret stays as it is (SECURITY.md 5.3, faults 10 and 11).

use anyhow::{Result, ensure};
use ennote_harness::devcloud;
use ennote_harness::world::{Options, World};
use ennote_scenarios::hostile::{behind_proxy, header};
use ennote_scenarios::{LATER, SOON, binding, until_condition, until_version};
use serde_json::Value;
use std::collections::BTreeSet;

const SECRET: &str = "payments db";

fn serving(args: &[&str]) -> Options {
    let serve = args.iter().map(|arg| (*arg).to_owned()).collect();
    Options { cloud: devcloud::Options { serve, ..Default::default() }, ..Options::default() }
}

/// The suites of all streams that were opened so far.
fn suites(world: &World) -> Vec<String> {
    let log = world.cloud.log();
    let of = |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("suite=").map(str::to_owned));
    log.lines().filter(|line| line.contains("stream opened")).filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_keys_each_delivery_of_each_secret_is_sealed_to_a_key_of_its_own() -> Result<()> {
    let (mut world, proxy) = behind_proxy("ephemeral", Options::default()).await?;
    let names = ["a", "b"];
    for name in names {
        world.apply(&binding(name, name)).await?;
    }
    for version in 1..=4 {
        if version == 3 {
            // Another stream, which has to have keys of its own, too.
            world.agent.restart().await?;
        }
        for name in names {
            world.cloud.put(name, &[("n", &version.to_string())]).await?;
        }
        for name in names {
            until_version(&world, name, version).await?;
        }
    }
    let keys = proxy.find(|record| Some(header(record.frame()?)?.session_key_hash))?;
    ensure!(keys.len() >= 8, "only {} deliveries passed", keys.len());
    ensure!(keys.iter().all(|key| key.len() == 32), "a delivery names no key");
    let different: BTreeSet<&Vec<u8>> = keys.iter().collect();
    ensure!(
        different.len() == keys.len(),
        "of {} deliveries only {} had a key of their own",
        keys.len(),
        different.len()
    );
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fresh_ends_choose_suite_b_and_a_where_the_cloud_has_only_a() -> Result<()> {
    let world = World::start("suite-b", Options::default()).await?;
    world.cloud.put(SECRET, &[("n", "1")]).await?;
    world.apply(&binding("db", SECRET)).await?;
    until_version(&world, "db", 1).await?;
    ensure!(suites(&world) == ["B"], "streams: {:?}", suites(&world));
    world.stop().await?;

    let world = World::start("suite-a", serving(&["--suites=a", "--access-token-life=4s"])).await?;
    world.cloud.put(SECRET, &[("n", "1")]).await?;
    world.apply(&binding("db", SECRET)).await?;
    until_version(&world, "db", 1).await?;
    ensure!(suites(&world) == ["A"], "streams: {:?}", suites(&world));

    // The cloud learns suite B: a renewal agrees on it, and the next stream speaks it.
    world.cloud.set_serve_args(&["--access-token-life=4s", "--stream-life=3s", "--beat-interval=500ms"]);
    world.cloud.restart().await?;
    let mut version = 1;
    while suites(&world).last().is_none_or(|suite| suite != "B") {
        version += 1;
        world.cloud.put(SECRET, &[("n", &version.to_string())]).await?;
        until_version(&world, "db", version).await?;
        ensure!(version < 500, "streams: {:?}", suites(&world));
    }
    version += 1;
    world.cloud.put(SECRET, &[("n", "by suite B")]).await?;
    until_version(&world, "db", version).await?;
    ensure!(world.secret_data("db").await?["n"] == "by suite B");
    ensure!(!world.cloud.log().contains("SUITE"), "a suite was refused:\n{}", world.cloud.log_tail(40));
    world.stop().await
}

/// A fault by its name, the reason that it is refused for, and whether it heals by itself: what the core signed well as the
/// content of a version is that version's content, so a new version mends it.
const FAULTS: [(&str, &str, bool); 30] = [
    ("undecryptable", "Undecryptable", true),
    ("empty-payload", "BadPayload", false),
    ("empty-plaintext", "BadPayload", true),
    ("payload-too-large", "BadPayload", true),
    ("stub-json", "BadPayload", false),
    ("truncated", "Undecryptable", true),
    ("truncated-after-signing", "BadSignature", true),
    ("bit-flipped", "Undecryptable", true),
    ("bit-flipped-after-signing", "BadSignature", true),
    ("unsigned", "BadSignature", true),
    ("unknown-payload-key", "UnknownKey", true),
    ("wrong-agent", "WrongRecipient", true),
    ("wrong-epoch", "WrongRecipient", true),
    ("wrong-stream", "WrongRecipient", true),
    ("wrong-suite", "WrongRecipient", true),
    ("wrong-key", "WrongRecipient", true),
    ("no-such-key", "WrongRecipient", true),
    ("wrong-want", "WrongBinding", true),
    ("wrong-namespace", "WrongBinding", true),
    ("wrong-binding", "WrongBinding", true),
    ("wrong-uid", "WrongBinding", true),
    ("wrong-organization", "WrongSource", true),
    ("wrong-workspace", "WrongSource", true),
    ("wrong-secret", "WrongSource", true),
    ("wrong-format", "BadPayload", true),
    ("wrong-kind", "BadPayload", true),
    ("no-type", "BadPayload", true),
    ("older-version", "Rollback", true),
    ("old-tombstone", "Rollback", true),
    // Once more what came first: nothing that was broken in between has worn anything out.
    ("undecryptable", "Undecryptable", true),
];

/// How often the agent refused a delivery to `db` for a reason, by its log.
fn refusals(world: &World, reason: &str) -> usize {
    let of = |line: &Value| {
        let fields = &line["fields"];
        let about = |name: &str, text: &str| fields[name] == text || line[name] == text;
        about("message", "a delivery was refused")
            && about("reason", reason)
            && about("binding", "db")
            && about("namespace", &world.namespace)
    };
    world.agent.log_lines().iter().filter(|line| of(line)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_broken_about_a_delivery_is_refused_by_its_reason_and_the_secret_stays() -> Result<()> {
    let world = World::start("faults", serving(&["--allow-faults"])).await?;
    world.cloud.put(SECRET, &[("n", "1")]).await?;
    world.apply(&binding("db", SECRET)).await?;
    // What is broken for one binding is not for another.
    world.cloud.put("mail", &[("n", "1")]).await?;
    world.apply(&binding("mail", "mail")).await?;
    until_version(&world, "mail", 1).await?;
    until_version(&world, "db", 1).await?;
    let pid = world.agent.pid()?;
    let mut version = 1;
    for (fault, reason, heals) in FAULTS {
        let before = world.secrets().get("db").await?;
        let known = refusals(&world, reason);
        world.cloud.cli(&["fault", "set", fault, "--secret", SECRET]).await?;
        version += 1;
        let value = format!("canary-{version}");
        world.cloud.put(SECRET, &[("n", &value)]).await?;
        until_condition(&world, "db", "Ready", &format!("False/{reason}")).await?;
        let after = world.secrets().get("db").await?;
        ensure!(after == before, "{fault}: the Secret moved");
        world
            .eventually(&format!("{fault} is logged"), SOON, async || {
                ensure!(refusals(&world, reason) > known, "{} of {reason} so far", refusals(&world, reason));
                Ok(())
            })
            .await?;
        world.cloud.cli(&["fault", "clear"]).await?;
        if !heals {
            version += 1;
            world.cloud.put(SECRET, &[("n", &format!("canary-{version}"))]).await?;
        }
        until_version(&world, "db", version).await?;
        ensure!(world.secret_data("db").await?["n"] == format!("canary-{version}"), "{fault}: another value");
    }
    world.cloud.put("mail", &[("n", "2")]).await?;
    until_version(&world, "mail", 2).await?;
    ensure!(world.agent.pid()? == pid, "the agent started anew");
    let log = world.agent.log();
    ensure!(!log.contains("canary-"), "a payload is in the log");
    ensure!(!log.contains("panicked"), "the agent panicked");
    // One Event a transition: of each reason as often as the table has it.
    let events: Value = serde_json::from_str(&world.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).await?)?;
    for reason in
        ["Undecryptable", "BadSignature", "UnknownKey", "WrongRecipient", "WrongBinding", "WrongSource", "Rollback"]
    {
        let of = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == "db";
        let times = |event: &Value| event["series"]["count"].as_u64().unwrap_or(1);
        let told: u64 = events["items"].as_array().into_iter().flatten().filter(of).map(times).sum();
        let faults = FAULTS.iter().filter(|(_, why, _)| *why == reason).count();
        ensure!(told >= 1 && told <= faults as u64, "{told} Events {reason} for {faults} faults");
    }
    // And a cloud that was not started for it breaks nothing.
    world.cloud.stop().await?;
    let said = world.cloud.run(&["serve", "--allow-faults", "--listen", "0.0.0.0:0"]).await?.refused()?;
    ensure!(said.contains("faults are sent on loopback addresses only"), "{said}");
    world.cloud.set_serve_args(&[]);
    world.cloud.up().await?;
    let said = world.cloud.run(&["fault", "set", "truncated"]).await?.refused()?;
    ensure!(said.contains("serve --allow-faults"), "{said}");
    world.stop().await
}

/// A fault of a join by its name, and how the agent's log calls it: for a renewal on the stream, and for a join.
const JOINS: [(&str, [&str; 2]); 6] = [
    ("keyset-lower", ["Refused(Trust(OldKeyset))", "the keyset is older than one already seen"]),
    ("keyset-expired", ["Refused(Trust(Expired))", "the keyset has expired"]),
    ("keyset-other-root", ["Refused(Trust(WrongRoot))", "the cloud's root key is not the pinned one"]),
    ("challenge-other-hello", ["Refused(Mismatch)", "does not belong to this join"]),
    ("challenge-other-suite", ["Refused(Suite)", "chose a suite that was not offered"]),
    ("challenge-unknown-key", ["Refused(Signature(UnknownKey))", "signed by a key that the keyset does not list"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_keyset_or_challenge_that_is_wrong_is_refused_and_what_was_known_stays() -> Result<()> {
    let args = ["--allow-faults", "--access-token-life=4s", "--keyset-life=12s", "--beat-interval=1s"];
    let world = World::start("keysets", serving(&args)).await?;
    world.cloud.put(SECRET, &[("n", "1")]).await?;
    world.apply(&binding("db", SECRET)).await?;
    until_version(&world, "db", 1).await?;
    // A version that was lower than none would be refused for that alone.
    world
        .eventually("a second keyset", LATER, async || {
            ensure!(world.cloud.log().matches("keyset in use").count() >= 1, "not yet");
            Ok(())
        })
        .await?;
    let mut version = 1;
    for (fault, words) in JOINS {
        let count = || words.iter().map(|word| world.agent.log().matches(word).count()).sum::<usize>();
        let before = world.secrets().get("db").await?;
        let told = count();
        world.cloud.cli(&["fault", "set", fault]).await?;
        world
            .eventually(&format!("{fault} is refused"), LATER, async || {
                ensure!(count() > told, "{}", world.agent.log_tail(5));
                Ok(())
            })
            .await?;
        ensure!(world.secrets().get("db").await? == before, "{fault}: the Secret moved");
        world.cloud.cli(&["fault", "clear"]).await?;
        version += 1;
        world.cloud.put(SECRET, &[("n", &version.to_string())]).await?;
        until_version(&world, "db", version).await?;
    }

    // A renewal that lists another PAYLOAD key revokes the one that goes on signing, at once.
    world.cloud.cli(&["fault", "set", "keyset-without-payload-key"]).await?;
    let renewed = world.cloud.log().matches("access token renewed").count();
    world
        .eventually("a renewal under that fault", LATER, async || {
            ensure!(world.cloud.log().matches("access token renewed").count() > renewed + 1, "not yet");
            Ok(())
        })
        .await?;
    let before = world.secrets().get("db").await?;
    version += 1;
    world.cloud.put(SECRET, &[("n", &version.to_string())]).await?;
    until_condition(&world, "db", "Ready", "False/UnknownKey").await?;
    ensure!(world.secrets().get("db").await? == before, "the Secret moved");
    world.cloud.cli(&["fault", "clear"]).await?;
    until_version(&world, "db", version).await?;
    world.stop().await
}
