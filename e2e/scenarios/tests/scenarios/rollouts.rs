//! Workloads that opted in restart for a change, once, and for nothing else.

use anyhow::{Context, Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::witness::Witness;
use ennote_scenarios::workloads::{CONTENT, edited, get, own_node, stamp, with_db};
use ennote_scenarios::{
    Requests, SOON, binding, condition, mark, object, rollout, until_baseline, until_condition, until_rollout,
    until_version, workload,
};
use serde_json::{Value, json};

/// All of it but our stamp, and what the API server and the workload's controller count and record themselves.
fn rest(object: &Value) -> Value {
    let mut rest = object.clone();
    for counted in ["resourceVersion", "generation", "managedFields"] {
        if let Some(meta) = rest["metadata"].as_object_mut() {
            meta.remove(counted);
        }
    }
    if let Some(annotations) = rest["metadata"]["annotations"].as_object_mut() {
        annotations.remove("deployment.kubernetes.io/revision");
        annotations.remove("deprecated.daemonset.template.generation");
    }
    rest["status"] = Value::Null;
    let template = &mut rest["spec"]["template"]["metadata"];
    if let Some(annotations) = template["annotations"].as_object_mut() {
        annotations.remove(CONTENT);
    }
    if template["annotations"].as_object().is_none_or(serde_json::Map::is_empty)
        && let Some(template) = template.as_object_mut()
    {
        template.remove("annotations");
    }
    rest
}

/// What the agent owns of it, in the API server's own books.
fn owned(object: &Value) -> Vec<&Value> {
    let managers = object["metadata"]["managedFields"].as_array();
    managers.into_iter().flatten().filter(|m| m["manager"] == "ennote-agent").map(|m| &m["fieldsV1"]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn smart_rollouts_restart_what_opted_in_once_and_change_nothing_else() -> Result<()> {
    let world = with_db("restart").await?;
    let restarted = ["Deployment/web", "StatefulSet/queue", "DaemonSet/log", "Deployment/listed"];
    let untouched = ["Deployment/bystander", "Deployment/elsewhere"];
    world
        .apply(&edited("Deployment", "web", |o| {
            o["spec"]["template"]["metadata"]["annotations"] = json!({"checksum/config": "a1"});
            o["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "LITERAL", "value": "no"}]);
        }))
        .await?;
    world.apply(&edited("StatefulSet", "queue", |_| ())).await?;
    world.apply(&edited("DaemonSet", "log", |_| ())).await?;
    world
        .apply(&edited("Deployment", "listed", |o| {
            o["metadata"]["annotations"]["ennote.io/restart"] = json!("other, db");
            o["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([]);
        }))
        .await?;
    world.apply(&edited("Deployment", "bystander", |o| o["metadata"]["annotations"] = json!({}))).await?;
    world
        .apply(&edited("Deployment", "elsewhere", |o| {
            o["metadata"]["annotations"]["ennote.io/restart"] = json!("other");
        }))
        .await?;
    let mut before = Vec::new();
    for workload in restarted {
        until_baseline(&world, "db", workload).await?;
        before.push(get(&world, workload).await?);
    }
    for workload in untouched {
        before.push(get(&world, workload).await?);
    }

    let start = mark(&world).await?;
    world.cloud.put("db", &[("user", "app"), ("password", "2")]).await?;
    for workload in restarted {
        let binding = until_rollout(&world, "db", workload, 2, "Complete").await?;
        let shown = rollout(&binding, workload).context("just seen")?;
        ensure!(shown["ready"] == shown["desired"] && shown["desired"].as_i64() > Some(0), "{shown}");
        let (started, finished) = (shown["startedAt"].as_str(), shown["finishedAt"].as_str());
        ensure!(started.is_some() && started <= finished, "{shown}");
        ensure!(binding["status"]["baselines"][workload] == binding["status"]["content"], "nothing more is due");
    }
    let binding = until_condition(&world, "db", "RolledOut", "True/Complete").await?;
    ensure!(condition(&binding, "Ready").as_deref() == Some("True/Synced"));
    for (workload, before) in restarted.iter().zip(&before) {
        let after = get(&world, workload).await?;
        ensure!(stamp(before).is_none() && stamp(&after).is_some(), "{workload} is stamped");
        ensure!(rest(&after) == rest(before), "{workload} changed besides:\n{}\n{}", rest(before), rest(&after));
        let stamped = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:ennote.io/content": {}}}}}});
        // Who makes the first annotation owns the map that holds it, too.
        let first =
            json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:ennote.io/content": {}}}}}});
        ensure!(owned(&after) == [&stamped] || owned(&after) == [&first], "{workload}: {:?}", owned(&after));
    }
    for (workload, before) in untouched.iter().zip(&before[restarted.len()..]) {
        let after = get(&world, workload).await?;
        ensure!(rest(&after) == rest(before) && owned(&after).is_empty(), "{workload} was touched");
        ensure!(after["metadata"]["generation"] == before["metadata"]["generation"], "{workload} was restarted");
    }
    let (requests, _) = Requests::since(&world, start).await?;
    for workload in restarted {
        ensure!(requests.restarts_of(workload) == 1, "{workload}: {} restarts", requests.restarts_of(workload));
    }
    ensure!(requests.restarts() == restarted.len(), "others were patched: {}", requests.restarts());
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn creation_opt_in_and_equal_data_restart_nothing() -> Result<()> {
    let world = World::start("calm", Options::default()).await?;
    let start = mark(&world).await?;
    let witness = Witness::new(&world).await?;
    // The workload is there before the binding, and the binding before its secret.
    world.apply(&workload("Deployment", "web", "db")).await?;
    world.apply(&edited("Deployment", "late", |o| o["metadata"]["annotations"] = json!({}))).await?;
    world.apply(&binding("db", "db")).await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForSecret").await?;
    world.cloud.put("db", &[("a", "1")]).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", "Deployment/web").await?;

    world.kubectl(&["annotate", "deployment", "late", "ennote.io/restart=auto"]).await?;
    until_baseline(&world, "db", "Deployment/late").await?;
    world.cloud.put("db", &[("a", "1")]).await?;
    let binding = until_version(&world, "db", 2).await?;
    for workload in ["Deployment/web", "Deployment/late"] {
        ensure!(binding["status"]["baselines"][workload] == binding["status"]["content"], "{workload} runs it already");
    }

    witness.testify(&world).await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts() == requests.restarts_of("Deployment/witness"), "{} restarts", requests.restarts());
    ensure!(requests.restarts_of("Deployment/witness") == 1);
    ensure!(condition(&world.binding("db").await?, "RolledOut").is_none(), "nothing was rolled out");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_changed_20_times_in_a_second_ends_at_the_newest_with_at_most_two_restarts() -> Result<()> {
    let world = with_db("burst").await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    let start = mark(&world).await?;
    for turn in 2..=21 {
        world.cloud.put("db", &[("user", "app"), ("password", &turn.to_string())]).await?;
    }
    let binding = until_version(&world, "db", 21).await?;
    ensure!(world.secret_data("db").await?["password"] == "21", "the Secret holds the newest");
    ensure!(binding["status"]["source"]["version"] == 21);
    let binding = until_rollout(&world, "db", "Deployment/web", 21, "Complete").await?;
    ensure!(binding["status"]["baselines"]["Deployment/web"] == binding["status"]["content"], "nothing more is due");
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!((1..=2).contains(&requests.restarts()), "{} restarts", requests.restarts());
    ensure!(requests.secret_writes() <= 20, "{} Secret writes", requests.secret_writes());
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_never_become_ready_fail_the_rollout_and_the_next_version_supersedes_it() -> Result<()> {
    let world = with_db("stuck").await?;
    own_node(&world).await?;
    let node = world.namespace.clone();
    world
        .apply(&edited("Deployment", "web", |o| {
            o["spec"]["progressDeadlineSeconds"] = json!(5);
            let pod = &mut o["spec"]["template"]["spec"];
            pod["nodeSelector"] = json!({"scenario": &node});
            pod["tolerations"] = json!([{"key": "scenario", "operator": "Exists"}]);
        }))
        .await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    world
        .eventually("the pods to be ready", SOON, async || {
            let web = get(&world, "Deployment/web").await?;
            ensure!(web["status"]["availableReplicas"] == 2, "{}", web["status"]);
            Ok(())
        })
        .await?;

    // From now on no new pod finds a node.
    world.plane.kubectl(&["cordon", &node]).await?.ok()?;
    world.cloud.put("db", &[("user", "app"), ("password", "2")]).await?;
    let binding = until_rollout(&world, "db", "Deployment/web", 2, "Progressing").await?;
    let shown = rollout(&binding, "Deployment/web").context("just seen")?;
    ensure!(shown["desired"] == 2 && shown["ready"].as_i64() < Some(2), "{shown}");
    ensure!(condition(&binding, "RolledOut").as_deref() == Some("Unknown/Progressing"));
    let binding = until_rollout(&world, "db", "Deployment/web", 2, "Failed").await?;
    let shown = rollout(&binding, "Deployment/web").context("just seen")?;
    ensure!(shown["ready"].as_i64() < Some(2) && shown["finishedAt"].is_string(), "{shown}");
    let look = format!("kubectl rollout status deployment/web -n {}", world.namespace);
    ensure!(shown["message"].as_str().is_some_and(|text| text.contains(&look)), "{shown}");
    ensure!(condition(&binding, "RolledOut").as_deref() == Some("False/Failed"));
    ensure!(condition(&binding, "Ready").as_deref() == Some("True/Synced"), "the Secret is right all the same");

    // The next version may be the cure: it does not wait for a rollout that is stuck.
    world.cloud.put("db", &[("user", "app"), ("password", "3")]).await?;
    until_rollout(&world, "db", "Deployment/web", 3, "Progressing").await?;
    world.plane.kubectl(&["uncordon", &node]).await?.ok()?;
    let binding = until_rollout(&world, "db", "Deployment/web", 3, "Complete").await?;
    ensure!(condition(&binding, "RolledOut").as_deref() == Some("True/Complete"));
    world.plane.kubectl(&["delete", "node", &node, "--wait=false"]).await?.ok()?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_is_pending_until_it_is_resumed_and_one_without_replicas_is_skipped() -> Result<()> {
    let world = with_db("paused").await?;
    world.apply(&edited("Deployment", "paused", |o| o["spec"]["paused"] = json!(true))).await?;
    world.apply(&edited("Deployment", "none", |o| o["spec"]["replicas"] = json!(0))).await?;
    for workload in ["Deployment/paused", "Deployment/none"] {
        until_baseline(&world, "db", workload).await?;
    }
    let start = mark(&world).await?;
    world.cloud.put("db", &[("user", "app"), ("password", "2")]).await?;
    let binding = until_rollout(&world, "db", "Deployment/paused", 2, "Pending").await?;
    let shown = rollout(&binding, "Deployment/paused").context("just seen")?;
    let resume = format!("kubectl rollout resume deployment/paused -n {}", world.namespace);
    ensure!(shown["message"].as_str().is_some_and(|text| text.contains(&resume)), "{shown}");
    let binding = until_rollout(&world, "db", "Deployment/none", 2, "Skipped").await?;
    ensure!(condition(&binding, "RolledOut").as_deref() == Some("Unknown/Pending"));
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts() == 0, "neither was patched");

    world.kubectl(&["rollout", "resume", "deployment/paused"]).await?;
    until_rollout(&world, "db", "Deployment/paused", 2, "Complete").await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of("Deployment/paused") == 1 && requests.restarts_of("Deployment/none") == 0);
    let binding = until_condition(&world, "db", "RolledOut", "True/Complete").await?;
    ensure!(binding["status"]["baselines"]["Deployment/none"] == binding["status"]["content"], "nothing is due later");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_someone_undoes_is_reverted_and_not_repeated() -> Result<()> {
    let world = with_db("undo").await?;
    let witness = Witness::new(&world).await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    let start = mark(&world).await?;
    world.cloud.put("db", &[("user", "app"), ("password", "2")]).await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Complete").await?;

    world.kubectl(&["rollout", "undo", "deployment/web"]).await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Reverted").await?;
    let binding = until_condition(&world, "db", "RolledOut", "False/Reverted").await?;
    ensure!(condition(&binding, "Ready").as_deref() == Some("True/Synced"));
    witness.testify(&world).await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of("Deployment/web") == 1, "{} restarts", requests.restarts_of("Deployment/web"));
    ensure!(stamp(&get(&world, "Deployment/web").await?).is_none(), "the undo stands");

    // It has opted in still: the next version restarts it, in its time.
    world.cloud.put("db", &[("user", "app"), ("password", "3")]).await?;
    let binding = until_rollout(&world, "db", "Deployment/web", 3, "Pending").await?;
    let shown = rollout(&binding, "Deployment/web").context("just seen")?;
    ensure!(shown["message"].as_str().is_some_and(|text| text.contains("30 s apart")), "{shown}");
    until_rollout(&world, "db", "Deployment/web", 3, "Complete").await?;
    world.stop().await
}

/// Events of this world's namespace about something (KIND/NAME) or related to it, as (reason, how often).
async fn events(world: &World, about: &str) -> Result<Vec<(String, u64)>> {
    let list = object(world, &format!("/apis/events.k8s.io/v1/namespaces/{}/events", world.namespace)).await?;
    let of = |o: &Value| Some(format!("{}/{}", o["kind"].as_str()?, o["name"].as_str()?));
    let ours = list["items"].as_array().into_iter().flatten().filter(|event| {
        event["reportingController"] == "ennote.io/agent"
            && (of(&event["regarding"]).as_deref() == Some(about) || of(&event["related"]).as_deref() == Some(about))
    });
    let row = |event: &Value| {
        (event["reason"].as_str().unwrap_or_default().to_owned(), event["series"]["count"].as_u64().unwrap_or(1))
    };
    Ok(ours.map(row).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_of_transitions_and_idle_passes_add_none() -> Result<()> {
    let world = with_db("events").await?;
    let witness = Witness::new(&world).await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    world.cloud.put("db", &[("user", "app"), ("password", "2")]).await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Complete").await?;
    let all = async || {
        let (of_binding, of_workload) =
            (events(&world, "EnnoteSecretBinding/db").await?, events(&world, "Deployment/web").await?);
        for (reason, events) in [("Synced", &of_binding), ("RolloutComplete", &of_binding), ("Restarted", &of_workload)]
        {
            let count = events.iter().filter(|(of, _)| of == reason).count();
            ensure!(count == 1, "{count} Events {reason} in {of_binding:?} and {of_workload:?}");
        }
        Ok((of_binding, of_workload))
    };
    let before = world.eventually("the Events", SOON, &all).await?;
    // The generation of a Deployment moves with its annotations.
    let state = async || {
        let (binding, web) = (world.binding("db").await?, get(&world, "Deployment/web").await?);
        anyhow::Ok((binding["status"].clone(), web["spec"].clone()))
    };
    let was = state().await?;
    for turn in 0..10 {
        let note = format!("turn={turn}");
        world.kubectl(&["annotate", "--overwrite", "ennotesecretbinding/db", "deployment/web", &note]).await?;
    }
    witness.testify(&world).await?;
    let (after, is) = (all().await?, state().await?);
    ensure!(after == before, "{before:?} became {after:?}");
    ensure!(is == was, "idle passes changed {} {} to {} {}", was.0, was.1, is.0, is.1);
    world.stop().await
}
