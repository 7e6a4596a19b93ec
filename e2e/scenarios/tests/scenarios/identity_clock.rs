//! Whose clock says what, and whom the agent trusts: neither the machine's clock nor the cloud's can mislead it.

use anyhow::{Context, Result, ensure};
use ennote_harness::devcloud::{self, DevCloud};
use ennote_harness::wall_clock::WallClock;
use ennote_harness::world::{AGENT, Options, TOKEN_SECRET, World};
use ennote_scenarios::identity::{bind, restart_container, serving, until_epoch};
use ennote_scenarios::{LATER, condition, message, until_condition, until_message, until_version};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

const HOUR: i64 = 3600;
const RENEWED: &str = "access token renewed on the stream";

/// Whether a moment is less than half an hour away from the real time moved by so many seconds.
fn is_about(moment: &Value, shift: i64) -> Result<bool> {
    let moment: Timestamp = moment.as_str().context("a time")?.parse()?;
    Ok((moment.as_second() - Timestamp::now().as_second() - shift).abs() < HOUR / 2)
}

/// Waits until the agent logs by a clock that is this far off.
async fn until_sees(world: &World, shift: i64) -> Result<()> {
    world
        .eventually(&format!("a log line {shift} s off"), LATER, async || {
            let lines = world.agent.log_lines();
            let last = lines.last().context("no line yet")?;
            ensure!(is_about(&last["timestamp"], shift)?, "the last one: {}", last["timestamp"]);
            Ok(())
        })
        .await
}

/// Waits until two more renewals were made.
async fn until_renewed(world: &World) -> Result<()> {
    let before = world.cloud.logged(RENEWED);
    world
        .eventually("two more renewals", LATER, async || {
            let now = world.cloud.logged(RENEWED);
            ensure!(now >= before + 2, "{} so far", now - before);
            Ok(())
        })
        .await
}

/// Every time in the status is near the real one.
fn tells_the_time(binding: &Value) -> Result<()> {
    let conditions = binding["status"]["conditions"].as_array().context("conditions")?;
    let times = conditions.iter().map(|condition| &condition["lastTransitionTime"]);
    for time in times.chain([&binding["status"]["lastSyncTime"]]) {
        ensure!(is_about(time, 0)?, "{time}: {binding}");
    }
    Ok(())
}

/// SECURITY.md 5.3, fault 7.
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_an_hour_off_and_steps_changes_nothing() -> Result<()> {
    let clock = WallClock::new()?;
    clock.shift(-HOUR)?;
    let mut environment = clock.environment();
    environment.push(("ENNOTE_LOG".to_owned(), "info,ennote_agent=debug".to_owned()));
    let cloud = serving(&["--access-token-life=4s", "--beat-interval=1s"]);
    let mut world = World::start("clock", Options { cloud, environment, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    tells_the_time(&until_version(&world, "db", 1).await?)?;
    let fresh = until_condition(&world, "db", "Fresh", "True/BeatsArrive").await?;
    until_sees(&world, -HOUR).await?;

    for (version, shift) in [(2, HOUR), (3, -HOUR)] {
        clock.shift(shift)?;
        until_renewed(&world).await?;
        until_sees(&world, shift).await?;
        world.cloud.put("db", &[("value", &version.to_string())]).await?;
        let synced = until_version(&world, "db", version).await?;
        tells_the_time(&synced)?;
        let since = |binding: &Value| {
            let all = binding["status"]["conditions"].as_array()?;
            all.iter().find(|c| c["type"] == "Fresh").map(|c| c["lastTransitionTime"].clone())
        };
        ensure!(condition(&synced, "Fresh").as_deref() == Some("True/BeatsArrive"), "{synced}");
        ensure!(since(&synced) == since(&fresh), "it was not fresh for a while: {synced}");
    }
    // No storm: one join, and one stream that never ended.
    ensure!(world.cloud.logged(" joined") == 1, "joins:\n{}", world.cloud.log());
    ensure!(world.cloud.logged("stream opened") == 1, "streams:\n{}", world.cloud.log());
    ensure!(!world.agent.log().contains("could not join"));

    // It also starts so.
    clock.shift(HOUR)?;
    restart_container(&mut world).await?;
    until_epoch(&world, 2).await?;
    world.cloud.put("db", &[("value", "4")]).await?;
    tells_the_time(&until_version(&world, "db", 4).await?)?;
    until_sees(&world, HOUR).await?;
    ensure!(world.cloud.logged(" joined") == 2, "joins:\n{}", world.cloud.log());
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_whose_clock_runs_behind_is_not_joined_until_it_is_right() -> Result<()> {
    let cloud = serving(&["--clock-offset=-3600"]);
    let world = World::start("behind", Options { cloud, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    let disagrees = until_condition(&world, "db", "Ready", "False/ClockDisagrees").await?;
    ensure!(condition(&disagrees, "Stalled").as_deref() == Some("True/ClockDisagrees"), "{disagrees}");
    ensure!(message(&disagrees, "Ready").contains("correct the clock of the cloud"), "{disagrees}");
    ensure!(world.cloud.agent(AGENT).await?.is_null(), "it joined");
    ensure!(world.secrets().get_opt("db").await?.is_none(), "a Secret by a cloud that was not joined");

    world.cloud.set_serve_args(&[]);
    world.cloud.restart().await?;
    until_version(&world, "db", 1).await?;
    until_epoch(&world, 1).await?;
    ensure!(world.agent.log().matches("\"starting\"").count() == 1, "it was restarted");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cloud_is_never_shown_to_anyone_and_said() -> Result<()> {
    let cloud = serving(&["--access-token-life=4s", "--beat-interval=1s"]);
    let world = World::start("root", Options { cloud, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    let own = world.secret_data(TOKEN_SECRET).await?.remove("token").context("a bootstrap token")?;
    let other = DevCloud::start(devcloud::Options::default()).await?;
    let foreign = other.token_create(AGENT, &[&world.namespace]).await?;

    // Seen at the next renewal.
    world.set_token(&foreign).await?;
    let changed = until_condition(&world, "db", "Ready", "False/RootChanged").await?;
    ensure!(condition(&changed, "Stalled").as_deref() == Some("True/RootChanged"), "{changed}");
    ensure!(condition(&changed, "Synced").as_deref() == Some("True/Synced"), "{changed}");
    ensure!(message(&changed, "Ready").contains("trust.roots"), "the mend is missing: {changed}");
    let refused = world.cloud.logged("join refused");
    ensure!(world.secret_data("db").await?["value"] == "1", "the Secret was touched");

    // The right one back: it goes on, without a restart.
    world.set_token(&own).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    ensure!(world.cloud.logged("join refused") == refused, "the foreign token was shown:\n{}", world.cloud.log());
    ensure!(world.cloud.alarms().await?.is_empty());
    ensure!(other.agent(AGENT).await?.is_null() && other.logged("join") == 0, "{}", other.log());
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.agent.log().matches("\"starting\"").count() == 1, "it was restarted");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_keys_below_the_chosen_version_is_refused_until_the_cloud_has_a_newer_one() -> Result<()> {
    let values = json!({"trust": {"minKeyset": 2}});
    let world = World::start("keyset", Options { values, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    until_message(&world, "db", "Ready", "trust.minKeyset").await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForCloud").await?;
    ensure!(world.cloud.agent(AGENT).await?.is_null(), "it joined");

    world.cloud.cli(&["keyset", "rotate", "--use", "payload"]).await?;
    until_version(&world, "db", 1).await?;
    until_epoch(&world, 1).await?;
    world.stop().await
}
