//! Who applies a binding from git can wait for it, and whatever applies it again takes nothing away.

use anyhow::{Context, Result, ensure};
use ennote_harness::process::{self, Output};
use ennote_harness::world::{Options, World, tree};
use ennote_scenarios::{
    LATER, Requests, SOON, binding, mark, message, object, secret_path, until_baseline, until_collected,
    until_condition, until_rollout, until_version, workload,
};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A team's chart: one binding, and the Deployment that reads its Secret.
const BINDING: &str = r#"
apiVersion: ennote.io/v1alpha1
kind: EnnoteSecretBinding
metadata: {name: {{ .Values.name }}}
spec:
  source: {secret: {{ .Values.secret | quote }}}
  {{- with .Values.pointer }}
  data: [{key: PASSWORD, pointer: {{ . | quote }}}]
  {{- end }}
"#;
/// Helm's own patience: longer than any scenario, so that what ends has ended for another reason.
const FOREVER: &str = "30m";

fn team_chart(name: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let templates = folder.path().join("templates");
    std::fs::create_dir_all(&templates)?;
    std::fs::write(folder.path().join("Chart.yaml"), "apiVersion: v2\nname: shop\nversion: 1.0.0\n")?;
    std::fs::write(templates.join("binding.yaml"), BINDING)?;
    std::fs::write(templates.join("web.yaml"), workload("Deployment", &format!("{name}-web"), name))?;
    Ok(folder)
}

/// `helm VERB RELEASE CHART --wait` with these values, begun; its end comes with the JoinHandle.
fn begin(world: &World, verb: &str, chart: &Path, values: Value, timeout: &str) -> JoinHandle<Result<Output>> {
    let plane = Arc::clone(&world.plane);
    let release = values["name"].as_str().unwrap_or_default().to_owned();
    let (verb, chart, timeout) = (verb.to_owned(), chart.display().to_string(), timeout.to_owned());
    let (namespace, values) = (world.namespace.clone(), values.to_string());
    tokio::spawn(async move {
        let args =
            [&verb, &release, &chart, "--namespace", &namespace, "--wait", "--timeout", &timeout, "--values", "-"];
        plane.helm_stdin(&args, &values).await
    })
}

/// The end of a command that must not take its own timeout.
async fn end(running: JoinHandle<Result<Output>>) -> Result<Output> {
    tokio::time::timeout(LATER, running).await.context("helm goes on waiting where no waiting helps")??
}

/// Waits until helm watches the bindings of the namespace, and until much else has happened after that: who would not wait has ended.
async fn until_helm_waits(world: &World, since: ennote_harness::audit::AuditMark, witness: &str) -> Result<()> {
    world
        .eventually("helm watches the binding", SOON, async || {
            let (events, _) = world.plane.audit(since).await?;
            let watches = events.iter().any(|e| {
                e.user_agent.starts_with("Helm")
                    && e.resource == "ennotesecretbindings"
                    && e.verb == "watch"
                    && e.namespace == world.namespace
            });
            ensure!(watches, "not yet");
            Ok(())
        })
        .await?;
    world.cloud.put(witness, &[("a", "1")]).await?;
    world.apply(&binding(witness, witness)).await?;
    until_version(world, witness, 1).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_install_waits_for_the_secret_and_fails_at_once_where_no_waiting_helps() -> Result<()> {
    let world = World::start("helm-install", Options::default()).await?;
    let chart = team_chart("db")?;

    let since = mark(&world).await?;
    let running = begin(&world, "install", chart.path(), json!({"name": "db", "secret": "db"}), FOREVER);
    until_condition(&world, "db", "Ready", "Unknown/WaitingForSecret").await?;
    until_helm_waits(&world, since, "witness").await?;
    ensure!(!running.is_finished(), "helm took a binding for ready whose secret does not exist: {:?}", running.await);
    world.cloud.put("db", &[("password", "one")]).await?;
    end(running).await?.ok()?;
    ensure!(world.secret_data("db").await?["password"] == "one", "helm was done before the Secret was");

    // A Secret of that name is somebody's.
    world.kubectl(&["create", "secret", "generic", "taken", "--from-literal=a=1"]).await?;
    let chart = team_chart("taken")?;
    let running = begin(&world, "install", chart.path(), json!({"name": "taken", "secret": "db"}), FOREVER);
    let said = end(running).await?.refused()?;
    ensure!(said.contains(&format!("EnnoteSecretBinding/{}/taken", world.namespace)), "{said}");
    ensure!(said.contains("Failed") && !said.contains("deadline"), "{said}");
    let stalled = until_condition(&world, "taken", "Stalled", "True/Collision").await?;
    ensure!(said.contains(&message(&stalled, "Stalled")), "helm hands on what mends it: {said}");

    // And so with what the payload cannot give.
    let chart = team_chart("wrong")?;
    let values = json!({"name": "wrong", "secret": "db", "pointer": "/keysValues/pass"});
    let said = end(begin(&world, "install", chart.path(), values, FOREVER)).await?.refused()?;
    ensure!(said.contains("/wrong not ready. status: Failed") && said.contains("/keysValues/pass"), "{said}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_upgrade_waits_for_the_new_generation_and_heals() -> Result<()> {
    let world = World::start("helm-upgrade", Options::default()).await?;
    let chart = team_chart("db")?;
    world.cloud.put("db", &[("password", "one")]).await?;
    end(begin(&world, "install", chart.path(), json!({"name": "db", "secret": "db"}), FOREVER)).await?.ok()?;

    // To a secret that does not exist yet: what is ready is the generation before.
    let since = mark(&world).await?;
    let running = begin(&world, "upgrade", chart.path(), json!({"name": "db", "secret": "next"}), FOREVER);
    until_condition(&world, "db", "Ready", "Unknown/WaitingForSecret").await?;
    until_helm_waits(&world, since, "witness").await?;
    ensure!(!running.is_finished(), "helm took the binding of before for the new one: {:?}", running.await);
    world.cloud.put("next", &[("password", "two")]).await?;
    end(running).await?.ok()?;
    ensure!(world.secret_data("db").await?["password"] == "two", "helm was done before the Secret was");

    // To a pointer that finds nothing, and back to one that does.
    let at = |pointer: &str| json!({"name": "db", "secret": "next", "pointer": pointer});
    let running = begin(&world, "upgrade", chart.path(), at("/keysValues/pass"), FOREVER);
    let said = end(running).await?.refused()?;
    ensure!(said.contains("/db not ready. status: Failed") && said.contains("/keysValues/pass"), "{said}");
    ensure!(world.secret_data("db").await?["password"] == "two", "what does not fit changed the Secret");
    end(begin(&world, "upgrade", chart.path(), at("/keysValues/password"), FOREVER)).await?.ok()?;
    ensure!(world.secret_data("db").await?["PASSWORD"] == "two");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_nothing_is_ready() -> Result<()> {
    let world = World::start("helm-alone", Options { agent: false, ..Options::default() }).await?;
    let chart = team_chart("db")?;
    // Nobody will ever write a status, so this one has to take helm's own timeout.
    let said =
        end(begin(&world, "install", chart.path(), json!({"name": "db", "secret": "db"}), "5s")).await?.refused()?;
    ensure!(said.contains("/db not ready. status: InProgress"), "{said}");
    ensure!(!said.contains("Deployment/"), "only the binding is to blame: {said}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_for_a_binding() -> Result<()> {
    let world = World::start("kubectl-wait", Options::default()).await?;
    world.apply(&binding("db", "db")).await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForSecret").await?;
    let ready = ["wait", "--for=condition=Ready", "esb/db"];
    ensure!(world.kubectl(&[&ready[..], &["--timeout=1s"]].concat()).await.is_err(), "there is no secret yet");
    world.kubectl(&["wait", "--for=condition=Reconciling", "esb/db", "--timeout=5s"]).await?;

    let waits = async |args: &[&str]| world.kubectl(&[args, &["--timeout=90s"]].concat()).await;
    let (waited, put) = tokio::join!(waits(&ready), world.cloud.put("db", &[("password", "one")]));
    put?;
    waited?;
    waits(&["wait", "--for=jsonpath={.status.observedGeneration}=1", "esb/db"]).await?;
    waits(&["wait", "--for=jsonpath={.status.source.version}=1", "esb/db"]).await?;
    ensure!(world.kubectl(&["get", "bindings"]).await?.contains("True"));

    // After an edit the generation comes first: Ready alone may be that of the spec before.
    world
        .kubectl(&["patch", "esb", "db", "--type=merge", "-p", r#"{"spec":{"data":[{"key":"A","pointer":"/none"}]}}"#])
        .await?;
    waits(&["wait", "--for=jsonpath={.status.observedGeneration}=2", "esb/db"]).await?;
    waits(&["wait", "--for=condition=Stalled", "esb/db"]).await?;
    world.stop().await
}

/// Pod template, ReplicaSets, binding and Secret: all that a second apply must leave alone.
async fn picture(world: &World) -> Result<Value> {
    let namespace = &world.namespace;
    let web = object(world, &format!("/apis/apps/v1/namespaces/{namespace}/deployments/db-web")).await?;
    let sets = object(world, &format!("/apis/apps/v1/namespaces/{namespace}/replicasets")).await?;
    let sets: Vec<&Value> =
        sets["items"].as_array().into_iter().flatten().map(|set| &set["metadata"]["name"]).collect();
    let db = world.binding("db").await?;
    let secret = object(world, &secret_path(namespace, "db")).await?;
    Ok(json!({
        "template": web["spec"]["template"],
        "sets": sets,
        "spec": db["spec"],
        "status": db["status"],
        "binding": db["metadata"]["generation"],
        "secret": secret["metadata"]["resourceVersion"],
    }))
}

async fn generation(world: &World) -> Result<Value> {
    let path = format!("/apis/apps/v1/namespaces/{}/deployments/db-web", world.namespace);
    Ok(object(world, &path).await?["metadata"]["generation"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_by_anyone_keeps_the_stamp_and_fights_over_nothing() -> Result<()> {
    let world = World::start("reapply", Options::default()).await?;
    let manifests = format!("{}---\n{}", binding("db", "db"), workload("Deployment", "db-web", "db"));
    world.cloud.put("db", &[("password", "one")]).await?;
    let chart = team_chart("db")?;
    end(begin(&world, "install", chart.path(), json!({"name": "db", "secret": "db"}), FOREVER)).await?.ok()?;
    until_baseline(&world, "db", "Deployment/db-web").await?;
    world.cloud.put("db", &[("password", "two")]).await?;
    until_rollout(&world, "db", "Deployment/db-web", 2, "Complete").await?;
    let before = picture(&world).await?;
    ensure!(before["template"]["metadata"]["annotations"]["ennote.io/content"].is_string(), "{before}");

    let since = mark(&world).await?;
    let namespace = world.namespace.clone();
    let kubectl = async |flags: &[&str]| {
        let args = [&["apply", "--namespace", &namespace, "-f", "-"], flags].concat();
        world.plane.kubectl_stdin(&args, &manifests).await?.ok()
    };
    let argo = ["--server-side", "--field-manager=argocd-controller", "--force-conflicts"];
    for (who, flags) in [
        ("kubectl", &[][..]),
        ("Argo CD", &argo),
        ("Flux", &["--server-side", "--field-manager=kustomize-controller", "--force-conflicts"]),
    ] {
        // The first time each of them notes on the Deployment what it applied, which the API server counts as a generation.
        kubectl(flags).await.with_context(|| who.to_owned())?;
        let first = generation(&world).await?;
        kubectl(flags).await.with_context(|| who.to_owned())?;
        ensure!(generation(&world).await? == first, "{who} changed the Deployment again");
        let after = picture(&world).await?;
        ensure!(after == before, "{who} changed something\nbefore {before}\nafter {after}");
    }
    end(begin(&world, "upgrade", chart.path(), json!({"name": "db", "secret": "db"}), FOREVER)).await?.ok()?;
    let after = picture(&world).await?;
    ensure!(after == before, "helm upgrade changed something\nbefore {before}\nafter {after}");

    // Another binding's sync shows that the agent has had its turn since.
    world.cloud.put("witness", &[("a", "1")]).await?;
    world.apply(&binding("witness", "witness")).await?;
    until_version(&world, "witness", 1).await?;
    let (requests, _) = Requests::since(&world, since).await?;
    ensure!(requests.restarts() == 0, "{} restarts", requests.restarts());
    ensure!(requests.secret_writes() == 1, "{} writes to Secrets, one of them the witness's", requests.secret_writes());
    let statuses = requests.0.iter().filter(|e| e.subresource == "status" && e.name == "db").count();
    ensure!(statuses == 0, "{statuses} writes to the status");
    ensure!(picture(&world).await? == before, "the agent answered an apply");

    // The next version restarts as ever: the one who applied owns the fields of git, the agent its stamp.
    world.cloud.put("db", &[("password", "three")]).await?;
    until_rollout(&world, "db", "Deployment/db-web", 3, "Complete").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_diff_of_an_applied_binding_is_empty() -> Result<()> {
    let world = World::start("diff", Options::default()).await?;
    let payload = [("url", "postgres://db/app"), ("user", "app"), ("password", "one")];
    world.cloud.put("payments db", &payload).await?;
    let mut manifests = vec![binding("minimal", "payments db")];
    for entry in std::fs::read_dir(tree().join("examples"))? {
        let path = entry?.path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path)?;
            manifests.extend(text.contains("kind: EnnoteSecretBinding").then_some(text));
        }
    }
    ensure!(manifests.len() >= 4, "the examples were found");
    // Git is on every machine that builds this; `diff` is not.
    let folder = tempfile::tempdir()?;
    let compare = folder.path().join("compare");
    std::fs::write(&compare, "#!/bin/sh\nexec git diff --no-index \"$@\"\n")?;
    std::fs::set_permissions(&compare, std::fs::Permissions::from_mode(0o700))?;
    let kubectl = async |verb: &str, flags: &[&str], yaml: &str| {
        let mut command = Command::new(world.plane.tool("kubectl")?);
        command.args([verb, "--namespace", &world.namespace, "-f", "-"]).args(flags);
        // Not the harness' kubectl: that has no PATH to find a program in.
        command.env("KUBECONFIG", world.plane.kubeconfig()).env("HOME", world.plane.dir().path());
        command.env("KUBECTL_EXTERNAL_DIFF", &compare);
        process::run(command, yaml.as_bytes()).await
    };
    let empty = async |way: &[&str], when: &str| {
        for yaml in &manifests {
            let shown = kubectl("diff", way, yaml).await?;
            let nothing = shown.code == 0 && shown.stdout.is_empty();
            ensure!(nothing, "{when}, {way:?}: {yaml}\n{}{}", shown.stdout, shown.stderr);
        }
        Ok(())
    };
    // One after the other: between the two, kubectl itself writes down what it applied in another way.
    let ways = [&[][..], &["--server-side", "--force-conflicts"]];
    for (way, version) in ways.into_iter().zip([2, 3]) {
        for yaml in &manifests {
            kubectl("apply", way, yaml).await?.ok()?;
        }
        empty(way, "just applied").await?;
        until_version(&world, "minimal", version - 1).await?;
        until_version(&world, "payments-db", version - 1).await?;
        empty(way, "synced").await?;
        let password = version.to_string();
        world.cloud.put("payments db", &[("url", "db"), ("user", "app"), ("password", &password)]).await?;
        until_version(&world, "minimal", version).await?;
        empty(way, "after a rotation").await?;
    }
    // And it can tell: this is a difference.
    let edited = binding("minimal", "another");
    let shown = kubectl("diff", &[], &edited).await?;
    ensure!(shown.code == 1 && shown.stdout.contains("secret: another"), "{}{}", shown.stdout, shown.stderr);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_ends_with_and_without_an_agent() -> Result<()> {
    let mut world = World::start("foreground", Options::default()).await?;
    world.cloud.put("db", &[("password", "one")]).await?;
    for name in ["with", "without"] {
        world.apply(&binding(name, "db")).await?;
        until_version(&world, name, 1).await?;
    }
    let delete = async |world: &World, name: &str| {
        let binding = format!("esb/{name}");
        world.kubectl(&["delete", &binding, "--cascade=foreground", "--timeout=90s"]).await?;
        // In the foreground: the Secret has gone before its binding.
        until_collected(world, name).await
    };
    delete(&world, "with").await?;
    world.agent.stop().await?;
    delete(&world, "without").await?;
    world.agent.start().await?;
    world.apply(&binding("witness", "db")).await?;
    until_version(&world, "witness", 1).await?;
    for name in ["with", "without"] {
        ensure!(world.secrets().get_opt(name).await?.is_none(), "{name} was made again");
    }
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tracking_by_argo_cd_stays_on_the_binding() -> Result<()> {
    let world = World::start("tracking", Options::default()).await?;
    world.cloud.put("db", &[("password", "one")]).await?;
    world.apply(&binding("db", "db")).await?;
    let labels = [("label", "app.kubernetes.io/instance=shop"), ("label", "argocd.argoproj.io/instance=shop")];
    let tracking = format!("argocd.argoproj.io/tracking-id=shop:ennote.io/EnnoteSecretBinding:{}/db", world.namespace);
    for (verb, mark) in
        labels.into_iter().chain([("annotate", tracking.as_str()), ("annotate", "argocd.argoproj.io/sync-wave=-1")])
    {
        world.kubectl(&[verb, "esb", "db", mark]).await?;
    }
    until_version(&world, "db", 1).await?;
    world.cloud.put("db", &[("password", "two")]).await?;
    until_version(&world, "db", 2).await?;
    let secret = object(&world, &secret_path(&world.namespace, "db")).await?;
    let meta = &secret["metadata"];
    ensure!(meta["labels"]["app.kubernetes.io/managed-by"] == "ennote-agent", "{meta}");
    let text = json!([meta["labels"], meta["annotations"]]).to_string();
    ensure!(
        !text.contains("argocd") && !text.contains("/instance"),
        "Argo CD would take the Secret for its own: {text}"
    );
    // It finds the Secret below its binding, by this.
    ensure!(meta["ownerReferences"][0]["kind"] == "EnnoteSecretBinding", "{meta}");

    // The ConfigMap of the examples goes over the one that is there.
    world.kubectl(&["create", "configmap", "argocd-cm", "--from-literal=url=https://argocd.example.com"]).await?;
    let patch = std::fs::read_to_string(tree().join("examples/argocd/argocd-cm.yaml"))?
        .replace("namespace: argocd", &format!("namespace: {}", world.namespace));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("argocd-cm.yaml");
    std::fs::write(&file, patch)?;
    world.kubectl(&["patch", "configmap", "argocd-cm", "--patch-file", &file.display().to_string()]).await?;
    let config = object(&world, &format!("/api/v1/namespaces/{}/configmaps/argocd-cm", world.namespace)).await?;
    let keys: Vec<&String> = config["data"].as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    ensure!(keys.len() == 3, "{keys:?}");
    world.stop().await
}
