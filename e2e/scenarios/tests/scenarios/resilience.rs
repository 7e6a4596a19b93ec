//! Whatever goes away, and at whatever moment: nothing is lost, nothing is done twice, and it comes back by itself.

use anyhow::{Result, ensure};
use ennote_harness::control_plane::{ControlPlane, Options as PlaneOptions};
use ennote_harness::world::{Options, World, tree};
use ennote_scenarios::rights::{Rights, STAMP, STATUS};
use ennote_scenarios::witness::Witness;
use ennote_scenarios::{
    LATER, Requests, SOON, binding, condition, mark, message, object, until_baseline, until_condition, until_rollout,
    until_version, workload,
};
use serde_json::{Value, json};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

const WEB: &str = "Deployment/web";
/// What the agent promises for its end after SIGTERM.
const END: Duration = Duration::from_secs(5);

/// Options with a control plane of its own, for a scenario that disturbs it.
async fn on_own_plane() -> Result<Options> {
    let plane = Arc::new(ControlPlane::start(PlaneOptions::default()).await?);
    Ok(Options { plane: Some(plane), ..Options::default() })
}

/// Puts the secret `name` at `value` and applies a binding of the same name.
async fn bind(world: &World, name: &str, value: &str) -> Result<()> {
    world.cloud.put(name, &[("value", value)]).await?;
    world.apply(&binding(name, name)).await
}

/// A world with binding `db` at version 1 and Deployment `web` that the next version restarts.
async fn with_web(name: &str, options: Options) -> Result<World> {
    let world = World::start(name, options).await?;
    bind(&world, "db", "1").await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", WEB).await?;
    Ok(world)
}

async fn put(world: &World, name: &str, value: &str) -> Result<()> {
    world.cloud.put(name, &[("value", value)]).await.map(drop)
}

async fn until_value(world: &World, name: &str, value: &str) -> Result<()> {
    world
        .eventually(&format!("Secret {name} to hold {value}"), LATER, async || {
            let data = world.secret_data(name).await?;
            ensure!(data.get("value").map(String::as_str) == Some(value), "it holds {data:?}");
            Ok(())
        })
        .await
}

/// Waits until the agent has logged a line that holds `text`, `times` times.
async fn until_logged(world: &World, text: &str, times: usize) -> Result<()> {
    world
        .eventually(&format!("the agent to log {text:?}"), LATER, async || {
            let seen = world.agent.log().matches(text).count();
            ensure!(seen >= times, "{seen} times");
            Ok(())
        })
        .await
}

/// Ready's status and since when it has it: moves if it was ever anything else.
fn ready(binding: &Value) -> Option<(String, String)> {
    let conditions = binding["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
    Some((ready["status"].as_str()?.to_owned(), ready["lastTransitionTime"].as_str()?.to_owned()))
}

/// Our stamp on `web`.
async fn stamp(world: &World) -> Result<Option<String>> {
    let path = format!("/apis/apps/v1/namespaces/{}/deployments/web", world.namespace);
    let web = object(world, &path).await?;
    Ok(web["spec"]["template"]["metadata"]["annotations"]["ennote.io/content"].as_str().map(str::to_owned))
}

/// `web` runs what `db` holds at `version`, by exactly one restart and one write of the Secret since `start`.
async fn ended_at_one_restart(world: &World, version: u64, start: ennote_harness::audit::AuditMark) -> Result<()> {
    let binding = until_rollout(world, "db", WEB, version, "Complete").await?;
    ensure!(binding["status"]["baselines"][WEB] == binding["status"]["content"], "nothing more is due");
    ensure!(condition(&binding, "Ready").as_deref() == Some("True/Synced"));
    ensure!(binding["status"]["source"]["version"].as_u64() == Some(version));
    let (requests, _) = Requests::since(world, start).await?;
    ensure!(requests.restarts() == 1, "{} restarts", requests.restarts());
    ensure!(requests.secret_writes() == 1, "{} Secret writes", requests.secret_writes());
    Ok(())
}

fn ended_well((status, took): (ExitStatus, Duration), moment: &str) -> Result<()> {
    ensure!(status.success(), "SIGTERM {moment}: {status}");
    ensure!(took < END, "SIGTERM {moment}: it took {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_restarted_with_nothing_changed_writes_no_secret_and_restarts_nothing() -> Result<()> {
    let mut world = with_web("again", Options::default()).await?;
    for name in ["cache", "mail"] {
        bind(&world, name, "1").await?;
    }
    world.apply(&workload("StatefulSet", "queue", "cache")).await?;
    world.apply(&workload("DaemonSet", "log", "mail")).await?;
    until_baseline(&world, "cache", "StatefulSet/queue").await?;
    until_baseline(&world, "mail", "DaemonSet/log").await?;
    put(&world, "db", "2").await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    let witness = Witness::new(&world).await?;
    ended_well(world.agent.stop().await?, "idle")?;
    let names = ["db", "cache", "mail"];
    let mut before = Vec::new();
    for name in names {
        before.push(world.binding(name).await?);
    }

    let start = mark(&world).await?;
    world.agent.start().await?;
    witness.testify(&world).await?;
    for (name, before) in names.iter().zip(before) {
        let after = world.binding(name).await?;
        ensure!(after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "{before}\n{after}");
    }
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.secret_writes() == 1, "{} Secret writes besides the witness's", requests.secret_writes() - 1);
    ensure!(requests.restarts_of("Deployment/witness") == 1);
    ensure!(requests.restarts() == 1, "{} restarts besides the witness's", requests.restarts() - 1);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_at_any_moment_ends_the_agent_in_time_with_nothing_half_done() -> Result<()> {
    let mut world = World::start("term", Options { agent: false, ..Options::default() }).await?;
    world.cloud.stop().await?;
    world.apply(&binding("db", "db")).await?;

    world.agent.start().await?;
    until_logged(&world, "\"starting\"", 1).await?;
    ended_well(world.agent.stop().await?, "while it starts")?;
    world.agent.start().await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForCloud").await?;
    ended_well(world.agent.stop().await?, "while it waits for the cloud")?;

    world.cloud.up().await?;
    put(&world, "db", "1").await?;
    world.agent.start().await?;
    until_version(&world, "db", 1).await?;
    ended_well(world.agent.stop().await?, "idle")?;

    world.agent.start().await?;
    for turn in 2..=6 {
        put(&world, "db", &turn.to_string()).await?;
    }
    let rest = async {
        for turn in 7..=11 {
            world.cloud.put("db", &[("value", &turn.to_string())]).await?;
        }
        anyhow::Ok(())
    };
    let (ended, rest) = tokio::join!(world.agent.stop(), rest);
    rest?;
    ended_well(ended?, "in the middle of a burst")?;
    world.agent.start().await?;
    until_version(&world, "db", 11).await?;
    ensure!(world.secret_data("db").await?["value"] == "11");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_secret_and_status_it_ends_at_one_restart() -> Result<()> {
    let mut world = with_web("kill-a", Options::default()).await?;
    let start = mark(&world).await?;
    let rights = Rights::of(&world).await?;
    rights.without(&[STATUS]).await?;
    put(&world, "db", "2").await?;
    until_value(&world, "db", "2").await?;
    world.agent.kill9().await?;
    let binding = world.binding("db").await?;
    ensure!(binding["status"]["source"]["version"] == 1, "the status was not written: {}", binding["status"]);
    ensure!(stamp(&world).await?.is_none(), "nor was the workload stamped");

    rights.restore().await?;
    world.agent.start().await?;
    ended_at_one_restart(&world, 2, start).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_status_and_stamp_it_ends_at_one_restart() -> Result<()> {
    let mut world = with_web("kill-b", Options::default()).await?;
    let start = mark(&world).await?;
    let rights = Rights::of(&world).await?;
    rights.without(&[STAMP]).await?;
    put(&world, "db", "2").await?;
    until_version(&world, "db", 2).await?;
    let binding = until_rollout(&world, "db", WEB, 2, "Pending").await?;
    ensure!(message(&binding, "RolledOut").contains(WEB), "{}", binding["status"]);
    world.agent.kill9().await?;
    ensure!(stamp(&world).await?.is_none(), "the workload was not stamped");

    rights.restore().await?;
    world.agent.start().await?;
    ended_at_one_restart(&world, 2, start).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_stamp_and_baseline_it_ends_at_one_restart() -> Result<()> {
    let mut world = with_web("kill-c", Options::default()).await?;
    let start = mark(&world).await?;
    let rights = Rights::of(&world).await?;
    rights.without(&[STAMP]).await?;
    put(&world, "db", "2").await?;
    until_rollout(&world, "db", WEB, 2, "Pending").await?;
    // The restart is due and will be made, but its baseline cannot be recorded.
    rights.without(&[STATUS]).await?;
    let refused_from = mark(&world).await?;
    world.kubectl(&["annotate", "deployment/web", "note=decide-anew"]).await?;
    world
        .eventually("the stamp, and its baseline refused", LATER, async || {
            ensure!(stamp(&world).await?.is_some(), "no stamp");
            let (requests, _) = Requests::since(&world, refused_from).await?;
            ensure!(requests.denied().iter().any(|e| e.subresource == "status"), "no status refused");
            Ok(())
        })
        .await?;
    world.agent.kill9().await?;
    let binding = world.binding("db").await?;
    ensure!(binding["status"]["baselines"][WEB] != binding["status"]["content"], "the baseline was not recorded");

    rights.restore().await?;
    world.agent.start().await?;
    ended_at_one_restart(&world, 2, start).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_was_refused_for_a_while_is_written_when_the_right_is_back() -> Result<()> {
    let world = with_web("rights", Options::default()).await?;
    let start = mark(&world).await?;
    let rights = Rights::of(&world).await?;
    rights.without(&[STATUS]).await?;
    put(&world, "db", "2").await?;
    until_value(&world, "db", "2").await?;
    rights.restore().await?;
    ended_at_one_restart(&world, 2, start).await?;
    // The want stands as before: what comes later arrives too.
    put(&world, "db", "3").await?;
    until_version(&world, "db", 3).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn devcloud_killed_and_restarted_loses_nothing_and_no_binding_turns_red() -> Result<()> {
    let world = World::start("cloud", Options::default()).await?;
    let names = ["a", "b", "c", "d"];
    for name in names {
        bind(&world, name, "1").await?;
    }
    let mut since = Vec::new();
    for name in names {
        since.push(ready(&until_version(&world, name, 1).await?));
    }
    let pid = world.agent.pid()?;

    for name in names {
        put(&world, name, "2").await?;
    }
    // What was acknowledged is kept, whether the agent has it already or not.
    world.cloud.kill9().await?;
    until_logged(&world, "the stream to the cloud ended", 1).await?;
    world.cloud.up().await?;
    put(&world, "a", "3").await?;
    put(&world, "b", "3").await?;
    for (name, version) in [("a", 3), ("b", 3), ("c", 2), ("d", 2)] {
        until_version(&world, name, version).await?;
        until_value(&world, name, &version.to_string()).await?;
    }
    // The stream is a live one: a push reaches it.
    put(&world, "d", "3").await?;
    until_version(&world, "d", 3).await?;
    for (name, since) in names.iter().zip(since) {
        let now = ready(&world.binding(name).await?);
        ensure!(now == since && now.is_some_and(|(status, _)| status == "True"), "{name} was not Ready all the time");
    }
    ensure!(world.agent.pid()? == pid, "the agent is the same process");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_goes_and_comes_back_is_waited_for() -> Result<()> {
    let mut world = with_web("api", on_own_plane().await?).await?;
    let pid = world.agent.pid()?;
    world.plane.stop_api_server().await?;
    put(&world, "db", "2").await?;
    world.plane.start_api_server().await?;
    until_version(&world, "db", 2).await?;
    until_value(&world, "db", "2").await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    put(&world, "db", "3").await?;
    until_version(&world, "db", 3).await?;
    ensure!(world.agent.pid()? == pid, "the agent is the same process");

    // Stopping does not wait for an API server that does not answer.
    world.plane.stop_api_server().await?;
    put(&world, "db", "4").await?;
    ended_well(world.agent.stop().await?, "while the API server is stopped")?;
    world.plane.start_api_server().await?;
    world.agent.start().await?;
    until_version(&world, "db", 4).await?;
    until_value(&world, "db", "4").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_there_before_the_crd_waits_for_it() -> Result<()> {
    let options = Options { values: json!({"crds": {"install": false}}), ..on_own_plane().await? };
    let world = World::start("early", options).await?;
    let pid = world.agent.pid()?;
    until_logged(&world, "install the CRD: ennote-agent crd | kubectl apply --server-side -f -", 1).await?;
    world.cloud.put("db", &[("value", "1")]).await?;

    let crd = tree().join("crds/ennotesecretbindings.yaml").display().to_string();
    world.plane.kubectl(&["apply", "--server-side", "-f", &crd]).await?.ok()?;
    let established = "--for=condition=Established";
    world.plane.kubectl(&["wait", established, "crd/ennotesecretbindings.ennote.io", "--timeout=30s"]).await?.ok()?;
    world.eventually("the new kind to be served", SOON, async || world.apply(&binding("db", "db")).await).await?;
    until_version(&world, "db", 1).await?;
    until_value(&world, "db", "1").await?;
    ensure!(world.agent.pid()? == pid, "the agent is the same process");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_there_before_the_cloud_waits_for_it() -> Result<()> {
    let mut world = World::start("dark", Options { agent: false, ..Options::default() }).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.cloud.stop().await?;
    world.apply(&binding("db", "db")).await?;
    world.agent.start().await?;
    let pid = world.agent.pid()?;
    let waiting = until_condition(&world, "db", "Ready", "Unknown/WaitingForCloud").await?;
    ensure!(condition(&waiting, "Reconciling").as_deref() == Some("True/WaitingForCloud"));
    ensure!(message(&waiting, "Ready").contains(&world.cloud.address()), "{}", message(&waiting, "Ready"));
    world.cloud.up().await?;
    until_version(&world, "db", 1).await?;
    ensure!(world.agent.pid()? == pid, "the agent is the same process");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_nothing_left_to_show_says_so_and_takes_up_a_new_token_by_itself() -> Result<()> {
    let mut world = World::start("spent", Options::default()).await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    // Its key dies with the process, the token has been used, and a ServiceAccount of the same name is not the enrolled one.
    world.agent.stop().await?;
    world.kubectl(&["delete", "serviceaccount", "ennote-agent"]).await?;
    world.install(serde_json::json!({})).await?;
    world.agent.forget_tokens().await;
    world.agent.start().await?;
    let pid = world.agent.pid()?;
    bind(&world, "fresh", "1").await?;
    let lost = until_condition(&world, "fresh", "Ready", "False/IdentityLost").await?;
    ensure!(condition(&lost, "Stalled").as_deref() == Some("True/IdentityLost"), "a person must act");
    let mend = message(&lost, "Ready");
    ensure!(mend.contains("not the enrolled one") && mend.contains("token create --agent"), "{mend}");
    until_logged(&world, "not the enrolled one", 1).await?;
    let kept = until_condition(&world, "db", "Ready", "False/IdentityLost").await?;
    ensure!(condition(&kept, "Synced").as_deref() == Some("True/Synced"), "its Secret is right");

    world.new_token().await?;
    until_version(&world, "fresh", 1).await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    put(&world, "db", "2").await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.agent.pid()? == pid, "the agent is the same process");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_token_says_so_and_takes_one_up_by_itself() -> Result<()> {
    let world = World::start("none", Options { token: false, ..Options::default() }).await?;
    let pid = world.agent.pid()?;
    bind(&world, "db", "1").await?;
    let lost = until_condition(&world, "db", "Ready", "False/IdentityLost").await?;
    let mend = message(&lost, "Ready");
    ensure!(
        mend.contains("there is no bootstrap token yet") && mend.contains("ennote.auth.existingSecretName"),
        "{mend}"
    );
    until_logged(&world, "there is no bootstrap token yet", 1).await?;
    world.new_token().await?;
    until_version(&world, "db", 1).await?;
    ensure!(world.agent.pid()? == pid, "the agent is the same process");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_someone_edits_or_deletes_is_repaired_and_restarts_nothing() -> Result<()> {
    let world = with_web("drift", Options::default()).await?;
    let witness = Witness::new(&world).await?;
    let start = mark(&world).await?;
    world.kubectl(&["patch", "secret", "db", "--type=merge", "-p", r#"{"stringData":{"value":"by hand"}}"#]).await?;
    until_value(&world, "db", "1").await?;
    world.kubectl(&["delete", "secret", "db"]).await?;
    world
        .eventually("the Secret to be there again", LATER, async || {
            ensure!(world.secret_data("db").await?["value"] == "1");
            Ok(())
        })
        .await?;
    witness.testify(&world).await?;
    until_version(&world, "db", 1).await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of(WEB) == 0 && requests.restarts() == 1, "{} restarts", requests.restarts());
    ensure!(requests.secret_writes() == 3, "{} Secret writes for two repairs and one put", requests.secret_writes());
    // The memory is in step: the next change restarts, as ever.
    put(&world, "db", "2").await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    world.stop().await
}
