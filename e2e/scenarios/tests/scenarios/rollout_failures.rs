//! What follows a restart that failed: Halt, Continue, Revert, and the words of a person.

use anyhow::{Context, Result, ensure};
use ennote_harness::world::World;
use ennote_scenarios::workloads::{edited, end, fragile, get, pods_start, put_db, rolling, rolling_out, stamp};
use ennote_scenarios::{
    LATER, Requests, binding_with, condition, mark, message, rollout, until_baseline, until_condition, until_rollout,
    until_version,
};
use serde_json::{Value, json};

const FIRST: &str = "Deployment/first";
const SECOND: &str = "Deployment/second";

/// One workload that fails while its node takes no pods, and one of a later wave that never does.
fn two_waves(world: &World) -> Vec<(&'static str, String)> {
    let second = edited("Deployment", "second", |o| {
        o["metadata"]["annotations"]["ennote.io/restart-wave"] = json!("1");
        o["spec"]["replicas"] = json!(1);
    });
    vec![(FIRST, fragile(world, "first", |_| ())), (SECOND, second)]
}

fn reason(binding: &Value, workload: &str) -> Option<String> {
    Some(rollout(binding, workload)?["reason"].as_str()?.to_owned())
}

/// Waits until a workload's restart is pending for this reason.
async fn until_pending(world: &World, workload: &str, want: &str) -> Result<Value> {
    world
        .eventually(&format!("{workload} pending for {want}"), LATER, async || {
            let binding = world.binding("db").await?;
            let shown = rollout(&binding, workload).context("not in status.rollouts")?;
            ensure!(shown["phase"] == "Pending" && shown["reason"] == want, "{shown}");
            Ok(binding)
        })
        .await
}

/// The annotation that a message asks for, done.
async fn do_as_told(world: &World, message: &str, annotation: &str) -> Result<()> {
    let line =
        format!("kubectl annotate --overwrite ennotesecretbinding db -n {} {annotation}=$(date +%s)", world.namespace);
    ensure!(message.contains(&line), "{message}");
    world.kubectl(&["annotate", "--overwrite", "ennotesecretbinding", "db", &format!("{annotation}=1")]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_rollout_halts_the_rest_until_a_newer_version_cures_it() -> Result<()> {
    let world = rolling_out("halt", "", two_waves).await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    until_pending(&world, SECOND, "AwaitingWave").await?;
    let binding = until_pending(&world, SECOND, "Halted").await?;
    ensure!(rollout(&binding, FIRST).context("shown")?["phase"] == "Failed", "{}", binding["status"]["rollouts"]);
    ensure!(reason(&binding, FIRST).as_deref() == Some("ProgressDeadlineExceeded"));
    ensure!(condition(&binding, "RolledOut").as_deref() == Some("False/Failed"));
    ensure!(message(&binding, "RolledOut").contains("1 more wait"), "{}", message(&binding, "RolledOut"));
    ensure!(condition(&binding, "Ready").as_deref() == Some("True/Synced"), "the Secret is right all the same");
    ensure!(stamp(&get(&world, SECOND).await?).is_none(), "the second was not touched");

    pods_start(&world, true).await?;
    put_db(&world, "3").await?;
    until_rollout(&world, "db", FIRST, 3, "Complete").await?;
    until_rollout(&world, "db", SECOND, 3, "Complete").await?;
    until_condition(&world, "db", "RolledOut", "True/Complete").await?;
    end(world).await
}

/// Waits until the cloud says this of the only binding of `db`.
async fn until_cloud_says(world: &World, version: u64, state: &str) -> Result<Value> {
    world
        .eventually(&format!("the cloud to say {state} of version {version}"), LATER, async || {
            let status = world.cloud.secret_status("db").await?;
            let binding = &status["bindings"][0];
            ensure!(binding["state"] == state && binding["version"] == version, "{status}");
            Ok(binding.clone())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_knows_what_became_of_a_version() -> Result<()> {
    let world = rolling_out("reports", "", two_waves).await?;
    until_cloud_says(&world, 1, "rolled-out").await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    let shown = until_cloud_says(&world, 2, "failed").await?;
    ensure!(shown["workloads"][0]["workload"] == FIRST && shown["workloads"][0]["phase"] == "Failed", "{shown}");
    ensure!(shown["workloads"][1]["workload"] == SECOND && shown["workloads"][1]["phase"] == "Pending", "{shown}");
    pods_start(&world, true).await?;
    put_db(&world, "3").await?;
    let shown = until_cloud_says(&world, 3, "rolled-out").await?;
    ensure!(shown["namespace"] == world.namespace.as_str() && shown["since"].is_string(), "{shown}");
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sets_a_failure_aside_also_after_the_agent_was_killed() -> Result<()> {
    let mut world = rolling_out("resume", "", two_waves).await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    until_pending(&world, SECOND, "Halted").await?;
    world.agent.kill9().await?;
    world.agent.start().await?;
    let binding = until_pending(&world, SECOND, "Halted").await?;
    let shown = rollout(&binding, SECOND).context("just seen")?;
    do_as_told(&world, shown["message"].as_str().unwrap_or_default(), "ennote.io/resume").await?;
    let binding = until_rollout(&world, "db", SECOND, 2, "Complete").await?;
    ensure!(binding["status"]["lastHandled"]["resume"] == "1", "{}", binding["status"]["lastHandled"]);
    ensure!(condition(&binding, "RolledOut").as_deref() == Some("False/Failed"), "the first is as it is");
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_continue_the_others_restart_all_the_same() -> Result<()> {
    let world = rolling_out("continue", "onFailure: Continue", two_waves).await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    let binding = until_rollout(&world, "db", SECOND, 2, "Complete").await?;
    ensure!(rollout(&binding, FIRST).context("shown")?["phase"] == "Failed", "it went first, and failed");
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_for_one_binding_is_followed_to_its_end_while_another_one_waits_for_a_person() -> Result<()> {
    let world = rolling_out("both", "", only_first).await?;
    world.cloud.put("cache", &[("url", "1")]).await?;
    let spec = "source: {secret: cache}\n  rollout: {policy: Manual}";
    world.apply(&binding_with("cache", spec)).await?;
    until_version(&world, "cache", 1).await?;
    world.kubectl(&["annotate", "--overwrite", "deployment/first", "ennote.io/restart=db,cache"]).await?;
    until_baseline(&world, "cache", FIRST).await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    until_rollout(&world, "db", FIRST, 2, "Progressing").await?;
    world.cloud.put("cache", &[("url", "2")]).await?;
    until_rollout(&world, "cache", FIRST, 2, "Pending").await?;
    until_rollout(&world, "db", FIRST, 2, "Failed").await?;
    let waiting = world.binding("cache").await?;
    ensure!(reason(&waiting, FIRST).as_deref() == Some("Manual"), "{}", waiting["status"]["rollouts"]);
    end(world).await
}

fn only_first(world: &World) -> Vec<(&'static str, String)> {
    vec![(FIRST, fragile(world, "first", |_| ()))]
}

/// Waits until a version is held in place of another, and the Secret holds it.
async fn until_held(world: &World, version: i64, failed: i64, password: &str) -> Result<Value> {
    world
        .eventually(&format!("version {version} to be held"), LATER, async || {
            let binding = world.binding("db").await?;
            let status = &binding["status"];
            let hold = &status["rollout"]["hold"];
            ensure!(hold["version"] == version && hold["failed"] == failed, "{status}");
            ensure!(status["target"]["version"] == version, "{status}");
            ensure!(world.secret_data("db").await?["password"] == password, "the Secret holds another one");
            Ok(binding)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn revert_brings_the_version_before_back_and_holds_it_until_a_newer_one() -> Result<()> {
    let mut world = rolling_out("revert", "onFailure: Revert", only_first).await?;
    put_db(&world, "good").await?;
    until_rollout(&world, "db", FIRST, 2, "Complete").await?;
    pods_start(&world, false).await?;
    put_db(&world, "bad").await?;
    until_held(&world, 2, 3, "good").await?;
    pods_start(&world, true).await?;
    let binding = until_rollout(&world, "db", FIRST, 2, "Complete").await?;
    ensure!(
        condition(&binding, "RolledOut").as_deref() == Some("False/RolledBack"),
        "{}",
        binding["status"]["conditions"]
    );
    ensure!(condition(&binding, "Ready").as_deref() == Some("True/Synced"));
    ensure!(binding["status"]["source"]["version"] == 3, "the mark stays");

    // It is held over a restart of the agent, without a payload, and drift is repaired with it.
    let start = mark(&world).await?;
    world.agent.kill9().await?;
    world.agent.start().await?;
    world.kubectl(&["patch", "secret", "db", "-p", r#"{"data":{"password":"eA=="}}"#]).await?;
    until_held(&world, 2, 3, "good").await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts() == 0, "nothing restarted for that");

    put_db(&world, "cure").await?;
    until_rollout(&world, "db", FIRST, 4, "Complete").await?;
    let binding = until_condition(&world, "db", "RolledOut", "True/Complete").await?;
    ensure!(binding["status"]["rollout"]["hold"].is_null() && binding["status"]["target"]["version"] == 4);
    ensure!(world.secret_data("db").await?["password"] == "cure");
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_ends_the_hold_and_the_version_that_failed_is_tried_again() -> Result<()> {
    let world = rolling_out("unhold", "onFailure: Revert", only_first).await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    until_held(&world, 1, 2, "1").await?;
    pods_start(&world, true).await?;
    let binding = until_rollout(&world, "db", FIRST, 1, "Complete").await?;
    let said = message(&binding, "RolledOut");
    ensure!(said.contains("ennote.io/resume") && said.contains("version 2 failed"), "{said}");
    world.kubectl(&["annotate", "ennotesecretbinding", "db", "ennote.io/resume=1"]).await?;
    until_rollout(&world, "db", FIRST, 2, "Complete").await?;
    until_condition(&world, "db", "RolledOut", "True/Complete").await?;
    ensure!(world.secret_data("db").await?["password"] == "2");
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_bindings_moved_nothing_is_reverted_and_a_person_is_asked() -> Result<()> {
    let world = rolling_out("ambiguous", "onFailure: Revert", |_| vec![]).await?;
    world.cloud.put("other", &[("key", "1")]).await?;
    // Long enough that both changes are there before the quiet period of either ends.
    for name in ["db", "other"] {
        world.apply(&rolling(name, "quietPeriod: 5s, minInterval: 0s, onFailure: Revert")).await?;
        until_version(&world, name, 1).await?;
    }
    world
        .apply(&fragile(&world, "first", |o| {
            let reads = json!([{"secretRef": {"name": "db"}}, {"secretRef": {"name": "other"}}]);
            o["spec"]["template"]["spec"]["containers"][0]["envFrom"] = reads;
        }))
        .await?;
    for name in ["db", "other"] {
        until_baseline(&world, name, FIRST).await?;
    }
    ennote_scenarios::workloads::until_up(&world, FIRST).await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    world.cloud.put("other", &[("key", "2")]).await?;
    for (name, with) in [("db", "other"), ("other", "db")] {
        let binding = until_condition(&world, name, "RolledOut", "False/RevertAmbiguous").await?;
        ensure!(
            rollout(&binding, FIRST).context("shown")?["alsoFor"] == json!([with]),
            "{}",
            binding["status"]["rollouts"]
        );
        ensure!(binding["status"]["rollout"]["hold"].is_null(), "nothing is held");
    }
    ensure!(world.secret_data("db").await?["password"] == "2");
    // A newer version of one of them may be the cure.
    pods_start(&world, true).await?;
    put_db(&world, "3").await?;
    until_rollout(&world, "db", FIRST, 3, "Complete").await?;
    end(world).await
}
