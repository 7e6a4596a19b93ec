//! Who restarts, when and in what order: policies, waves, windows, and what is told of the rest.

use anyhow::{Context, Result, ensure};
use ennote_harness::control_plane::{ControlPlane, Options as PlaneOptions};
use ennote_harness::world::{Options, World};
use ennote_scenarios::witness::Witness;
use ennote_scenarios::workloads::{
    edited, end, get, place, pods_start, put_db, rolling, rolling_db, rolling_out, stamp, until_up,
};
use ennote_scenarios::{
    LATER, Requests, condition, mark, rollout, until_baseline, until_condition, until_rollout, until_version,
};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

const WEB: &str = "Deployment/web";

fn web(_: &World) -> Vec<(&'static str, String)> {
    vec![(WEB, edited("Deployment", "web", |_| ()))]
}

/// Waits until a workload's restart is shown for this reason; gives the entry.
async fn until_reason(world: &World, workload: &str, phase: &str, reason: &str) -> Result<Value> {
    world
        .eventually(&format!("{workload}: {phase} for {reason}"), LATER, async || {
            let binding = world.binding("db").await?;
            let shown = rollout(&binding, workload).context("not in status.rollouts")?;
            ensure!(shown["phase"] == phase && shown["reason"] == reason, "{shown}");
            Ok(shown)
        })
        .await
}

fn said(rollout: &Value) -> &str {
    rollout["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_policy_manual_a_restart_waits_for_a_person_also_over_a_kill() -> Result<()> {
    let mut world = rolling_out("manual", "policy: Manual", web).await?;
    let start = mark(&world).await?;
    put_db(&world, "2").await?;
    let shown = until_reason(&world, WEB, "Pending", "Manual").await?;
    let line =
        format!("kubectl annotate --overwrite ennotesecretbinding db -n {} ennote.io/restart-now=", world.namespace);
    ensure!(said(&shown).contains(&line), "{shown}");
    until_condition(&world, "db", "RolledOut", "Unknown/Pending").await?;
    world.agent.kill9().await?;
    world.agent.start().await?;
    // Replicas that someone changes meanwhile stay as they are.
    world.kubectl(&["scale", "deployment/web", "--replicas=3"]).await?;
    until_up(&world, WEB).await?;
    until_reason(&world, WEB, "Pending", "Manual").await?;
    world.kubectl(&["annotate", "ennotesecretbinding", "db", "ennote.io/restart-now=1"]).await?;
    let binding = until_rollout(&world, "db", WEB, 2, "Complete").await?;
    ensure!(rollout(&binding, WEB).context("shown")?["desired"] == 3);
    ensure!(get(&world, WEB).await?["spec"]["replicas"] == 3);
    // It worked once: the next version waits again.
    put_db(&world, "3").await?;
    until_reason(&world, WEB, "Pending", "Manual").await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of(WEB) == 1, "{} restarts", requests.restarts_of(WEB));
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_policy_disabled_nothing_restarts_and_what_was_missed_does_once_it_is_on() -> Result<()> {
    let world = rolling_out("disabled", "policy: Disabled", web).await?;
    let witness = Witness::new(&world).await?;
    put_db(&world, "2").await?;
    until_version(&world, "db", 2).await?;
    witness.testify(&world).await?;
    ensure!(stamp(&get(&world, WEB).await?).is_none(), "it was not restarted");
    ensure!(condition(&world.binding("db").await?, "RolledOut").is_none(), "and nothing is claimed");
    world.apply(&rolling_db("")).await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    end(world).await
}

/// When a restart began and ended.
fn times(binding: &Value, workload: &str) -> Result<(String, String)> {
    let shown = rollout(binding, workload).context("not in status.rollouts")?;
    let at = |field: &str| shown[field].as_str().map(str::to_owned).with_context(|| format!("{field} of {shown}"));
    Ok((at("startedAt")?, at("finishedAt")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn waves_go_one_after_the_other() -> Result<()> {
    let workloads = [("Deployment/cache", "0"), ("StatefulSet/store", "1"), ("DaemonSet/edge", "2")];
    let world = rolling_out("waves", "", |_| {
        let manifest = |workload: &str, wave: &str| {
            let (kind, name) = workload.split_once('/').unwrap_or_default();
            edited(kind, name, |o| o["metadata"]["annotations"]["ennote.io/restart-wave"] = json!(wave))
        };
        workloads.iter().map(|(workload, wave)| (*workload, manifest(workload, wave))).collect()
    })
    .await?;
    put_db(&world, "2").await?;
    let mut before = String::new();
    for (workload, _) in workloads {
        let binding = until_rollout(&world, "db", workload, 2, "Complete").await?;
        let (began, ended) = times(&binding, workload)?;
        ensure!(began >= before, "{workload} began at {began}, the wave before it ended at {before}");
        before = ended;
    }
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_restart_at_once_than_may() -> Result<()> {
    let workloads = ["Deployment/a", "Deployment/b", "Deployment/c"];
    let world = rolling_out("one-by-one", "maxConcurrent: 1", |_| {
        let manifest = |workload: &str| edited("Deployment", workload.rsplit('/').next().unwrap_or_default(), |_| ());
        workloads.iter().map(|workload| (*workload, manifest(workload))).collect()
    })
    .await?;
    put_db(&world, "2").await?;
    let mut spans = Vec::new();
    for workload in workloads {
        spans.push(times(&until_rollout(&world, "db", workload, 2, "Complete").await?, workload)?);
    }
    spans.sort();
    for pair in spans.windows(2) {
        ensure!(pair[1].0 >= pair[0].1, "two restarted at once: {spans:?}");
    }
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_waits_for_its_window_and_goes_when_it_opens() -> Result<()> {
    // Opens six minutes from now by the wall clock, which is set on by seven.
    let world = World::start("window", Options::default()).await?;
    ennote_scenarios::workloads::own_node(&world).await?;
    let hand = async |minutes: u32, format: &str| {
        let at = format!("+{minutes} minutes");
        let output = std::process::Command::new("date").args(["-u", "-d", &at, format]).output()?;
        anyhow::Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let cron = hand(6, "+%-M %-H * * *").await?;
    put_db(&world, "1").await?;
    world.apply(&rolling_db(&format!("windows: [{{cron: '{cron}', duration: 30m, timeZone: Etc/UTC}}]"))).await?;
    until_version(&world, "db", 1).await?;
    world.apply(&web(&world)[0].1).await?;
    until_baseline(&world, "db", WEB).await?;
    put_db(&world, "2").await?;
    let shown = until_reason(&world, WEB, "Pending", "AwaitingWindow").await?;
    ensure!(said(&shown).contains("the next window opens at"), "{shown}");

    world.cloud.stop().await?;
    world.cloud.set_serve_args(&["--clock-offset=420"]);
    world.cloud.up().await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_workloads_only_the_three_that_read_the_changed_key_restart() -> Result<()> {
    // So many would keep the control plane of the other scenarios busy.
    let plane = Arc::new(ControlPlane::start(PlaneOptions::default()).await?);
    let world = World::start("thousand", Options { plane: Some(plane), ..Options::default() }).await?;
    put_db(&world, "1").await?;
    world.apply(&rolling_db("match: ChangedKeys")).await?;
    until_version(&world, "db", 1).await?;
    let reads = |name: &str, key: &str, paused: bool| {
        edited("Deployment", name, |o| {
            // A paused Deployment makes no ReplicaSet and no pod.
            o["spec"]["paused"] = json!(paused);
            o["spec"]["replicas"] = json!(1);
            let container = &mut o["spec"]["template"]["spec"]["containers"][0];
            container["envFrom"] = json!([]);
            container["env"] = json!([{"name": "V", "valueFrom": {"secretKeyRef": {"name": "db", "key": key}}}]);
        })
    };
    let mut manifests = String::new();
    for number in 0..997 {
        writeln!(manifests, "---\n{}", reads(&format!("other-{number}"), "user", true))?;
    }
    for name in ["a", "b", "c"] {
        writeln!(manifests, "---\n{}", reads(name, "password", false))?;
    }
    world.apply(&manifests).await?;
    world
        .eventually("a thousand baselines", LATER, async || {
            let binding = world.binding("db").await?;
            let count = binding["status"]["baselines"].as_object().map_or(0, serde_json::Map::len);
            ensure!(count == 1_000, "{count}");
            Ok(())
        })
        .await?;
    let start = mark(&world).await?;
    put_db(&world, "2").await?;
    until_version(&world, "db", 2).await?;
    world
        .eventually("all to be at the new content", LATER, async || {
            let binding = world.binding("db").await?;
            let baselines = binding["status"]["baselines"].as_object().context("baselines")?;
            let behind = baselines.values().filter(|content| **content != binding["status"]["content"]).count();
            ensure!(behind == 0, "{behind} are not");
            Ok(())
        })
        .await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts() == 3, "{} patches", requests.restarts());
    for name in ["a", "b", "c"] {
        ensure!(stamp(&get(&world, &format!("Deployment/{name}")).await?).is_some(), "{name} was not restarted");
    }

    // What the others read is due for them as soon as it changes: they are paused, which is said of them.
    world.cloud.put("db", &[("user", "new"), ("password", "2")]).await?;
    world
        .eventually("one of the others to be due", LATER, async || {
            let binding = world.binding("db").await?;
            let shown = binding["status"]["rollouts"].as_array().cloned().unwrap_or_default();
            ensure!(shown.iter().any(|r| r["reason"] == "Paused" && r["version"] == 3), "{shown:?}");
            Ok(())
        })
        .await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_secrets_of_one_workload_changed_at_once_cost_one_restart() -> Result<()> {
    let world = World::start("fifty", Options::default()).await?;
    let names: Vec<String> = (0..50).map(|number| format!("s{number}")).collect();
    let mut manifests = String::new();
    for name in &names {
        world.cloud.put(name, &[(name, "1")]).await?;
        // Putting fifty takes the command line a while: none may come late.
        writeln!(manifests, "---\n{}", rolling(name, "quietPeriod: 15s"))?;
    }
    world.apply(&manifests).await?;
    let reads: Vec<Value> = names.iter().map(|name| json!({"secretRef": {"name": name}})).collect();
    world
        .apply(&edited("Deployment", "web", |o| {
            o["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!(reads);
        }))
        .await?;
    for name in &names {
        until_version(&world, name, 1).await?;
        until_baseline(&world, name, WEB).await?;
    }
    let start = mark(&world).await?;
    for name in &names {
        world.cloud.put(name, &[(name, "2")]).await?;
    }
    for name in &names {
        until_rollout(&world, name, WEB, 2, "Complete").await?;
    }
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts() == 1, "{} restarts", requests.restarts());
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_while_the_agent_was_down_restarts_once_and_a_workload_made_later_runs_it_already() -> Result<()> {
    let mut world = rolling_out("down", "", web).await?;
    world.agent.stop().await?;
    let start = mark(&world).await?;
    put_db(&world, "2").await?;
    world.agent.start().await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    world.apply(&edited("Deployment", "late", |_| ())).await?;
    until_baseline(&world, "db", "Deployment/late").await?;
    let witness = Witness::new(&world).await?;
    witness.testify(&world).await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of(WEB) == 1 && requests.restarts_of("Deployment/late") == 0);
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_that_another_controller_strips_is_told_and_not_fought_over() -> Result<()> {
    let world = rolling_out("strip", "", web).await?;
    put_db(&world, "2").await?;
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    let start = mark(&world).await?;
    let strip = json!({"spec": {"template": {"metadata": {"annotations": {"ennote.io/content": null}}}}}).to_string();
    world.kubectl(&["patch", "deployment", "web", "--type=merge", "-p", &strip]).await?;
    let shown = until_reason(&world, WEB, "Reverted", "StampRemoved").await?;
    ensure!(said(&shown).contains("not repeated"), "{shown}");
    let witness = Witness::new(&world).await?;
    witness.testify(&world).await?;
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.restarts_of(WEB) == 0, "it was not put back");
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_change_only_when_deleted_are_waited_for() -> Result<()> {
    let world = rolling_out("on-delete", "", |world| {
        let manifest = edited("DaemonSet", "edge", |o| {
            o["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
            place(world, o);
        });
        vec![("DaemonSet/edge", manifest)]
    })
    .await?;
    put_db(&world, "2").await?;
    until_reason(&world, "DaemonSet/edge", "Pending", "AwaitingPodDeletion").await?;
    world.kubectl(&["delete", "pods", "-l", "app=edge", "--wait=false"]).await?;
    until_rollout(&world, "db", "DaemonSet/edge", 2, "Complete").await?;
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_a_broken_pod_holds_up_names_the_pod() -> Result<()> {
    let world = rolling_out("held-up", "", |world| {
        let manifest = edited("StatefulSet", "store", |o| place(world, o));
        vec![("StatefulSet/store", manifest)]
    })
    .await?;
    pods_start(&world, false).await?;
    put_db(&world, "2").await?;
    until_rollout(&world, "db", "StatefulSet/store", 2, "Progressing").await?;
    world
        .eventually("the first pod to be replaced by one that does not start", LATER, async || {
            let status = get(&world, "StatefulSet/store").await?["status"].clone();
            ensure!(status["updatedReplicas"] == 1 && status["readyReplicas"] == 1, "{status}");
            Ok(())
        })
        .await?;
    put_db(&world, "3").await?;
    let shown = until_reason(&world, "StatefulSet/store", "Progressing", "AwaitingPodDeletion").await?;
    let line = format!("kubectl delete pod store-1 -n {}", world.namespace);
    ensure!(shown["version"] == 3 && said(&shown).contains(&line), "{shown}");
    // The step that it names is the one that mends.
    world.kubectl(&["delete", "pod", "store-1", "--wait=false"]).await?;
    pods_start(&world, true).await?;
    until_rollout(&world, "db", "StatefulSet/store", 3, "Complete").await?;
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_of_someone_else_is_waited_for() -> Result<()> {
    let world = rolling_out("theirs", "", |world| {
        let manifest = edited("StatefulSet", "store", |o| place(world, o));
        vec![("StatefulSet/store", manifest)]
    })
    .await?;
    pods_start(&world, false).await?;
    world.kubectl(&["rollout", "restart", "statefulset/store"]).await?;
    world
        .eventually("their rollout to be under way", LATER, async || {
            let status = get(&world, "StatefulSet/store").await?["status"].clone();
            ensure!(status["currentRevision"] != status["updateRevision"], "{status}");
            Ok(())
        })
        .await?;
    put_db(&world, "2").await?;
    until_reason(&world, "StatefulSet/store", "Pending", "AwaitingRollout").await?;
    ensure!(stamp(&get(&world, "StatefulSet/store").await?).is_none());
    pods_start(&world, true).await?;
    until_rollout(&world, "db", "StatefulSet/store", 2, "Complete").await?;
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_admission_refuses_shows_its_sentence_and_goes_on_when_it_may() -> Result<()> {
    let world = rolling_out("frozen", "", web).await?;
    let name = format!("freeze-{}", world.namespace);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                "resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}],
            },
            "matchConditions": [{"name": "agent", "expression": "request.userInfo.username.contains('ennote')"}],
            "validations": [{"expression": "false", "message": "no deploys on Fridays"}],
        },
    });
    let bound = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    for object in [&policy, &bound] {
        world.plane.kubectl_stdin(&["create", "-f", "-"], &object.to_string()).await?.ok()?;
    }
    // A policy takes a moment to bite: asked as the agent would be.
    let user = world.agent.user()?;
    world
        .eventually("the policy to bite", LATER, async || {
            let patch = r#"{"spec":{"template":{"metadata":{"annotations":{"ennote.io/content":"x"}}}}}"#;
            let namespace = world.namespace.as_str();
            let args = ["patch", "deployment", "web", "-n", namespace, "-p", patch, "--dry-run=server", "--as", &user];
            let refusal = world.plane.kubectl(&args).await?.refused()?;
            ensure!(refusal.contains("Fridays"), "{refusal}");
            Ok(())
        })
        .await?;
    put_db(&world, "2").await?;
    let shown = until_reason(&world, WEB, "Pending", "Refused").await?;
    ensure!(said(&shown).contains("no deploys on Fridays"), "{shown}");
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        world.plane.kubectl(&["delete", kind, &name]).await?.ok()?;
    }
    until_rollout(&world, "db", WEB, 2, "Complete").await?;
    end(world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_and_reloaders_annotations_count_only_where_the_settings_say_so() -> Result<()> {
    let mut world = World::start("consumers", Options::default()).await?;
    put_db(&world, "1").await?;
    world.apply(&rolling_db("workloads: Consumers")).await?;
    until_version(&world, "db", 1).await?;
    let says =
        |name: &str, annotations: Value| edited("Deployment", name, |o| o["metadata"]["annotations"] = annotations);
    world.apply(&says("consumer", json!({}))).await?;
    world.apply(&says("never", json!({"ennote.io/restart": "never"}))).await?;
    let reload = says("reload", json!({"secret.reloader.stakater.com/reload": "db"}));
    let mut reload: Value = serde_json::from_str(&reload)?;
    reload["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([]);
    world.apply(&reload.to_string()).await?;
    let binding = until_condition(&world, "db", "RolledOut", "False/ConsumersOff").await?;
    ensure!(ennote_scenarios::message(&binding, "RolledOut").contains("rollouts.consumers"), "the value is named");
    put_db(&world, "2").await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.binding("db").await?["status"]["baselines"].is_null(), "nobody has opted in");

    world.agent.stop().await?;
    world.install(json!({"rollouts": {"consumers": true, "reloader": true}})).await?;
    world.agent.start().await?;
    for workload in ["Deployment/consumer", "Deployment/reload"] {
        until_baseline(&world, "db", workload).await?;
    }
    put_db(&world, "3").await?;
    for workload in ["Deployment/consumer", "Deployment/reload"] {
        until_rollout(&world, "db", workload, 3, "Complete").await?;
    }
    ensure!(stamp(&get(&world, "Deployment/never").await?).is_none(), "its own word comes first");
    world.stop().await
}
