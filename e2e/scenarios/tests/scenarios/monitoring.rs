//! Alerts in Prometheus' own promtool: over bindings in every state, at last over real ones.

use anyhow::{Context, Result, ensure};
use ennote_harness::process;
use ennote_harness::settings::Settings;
use ennote_harness::tools;
use ennote_harness::world::{Options, World};
use ennote_scenarios::monitoring::{self, Config, Series, alerts};
use ennote_scenarios::{binding, binding_with, object, until_condition, until_version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Labels that say what a condition is, which an alert's own do not repeat.
const OF_A_CONDITION: [&str; 3] = ["type", "status", "reason"];

/// The rules and their tests, laid out as promtool takes them.
struct Promtool {
    program: std::path::PathBuf,
    dir: TempDir,
    tests: Vec<Value>,
}

impl Promtool {
    async fn new() -> Result<Self> {
        let settings = Settings::from_env()?;
        let program = tokio::task::spawn_blocking(move || tools::promtool(&settings)).await??;
        let dir = tempfile::tempdir()?;
        let rules: Value = monitoring::read("alerts.yaml")?;
        std::fs::write(dir.path().join("rules.yaml"), rules["spec"].to_string())?;
        Ok(Self { program, dir, tests: Vec::new() })
    }

    /// `series` hold their values for half an hour. At each minute exactly these alerts fire: (minute, name, its labels, its value).
    fn expect(&mut self, what: &str, series: &[Series], fires: &[(u32, Vec<Firing>)]) -> Result<()> {
        let mut checks = Vec::new();
        for (minute, firing) in fires {
            for alert in alerts()? {
                let of_this = firing.iter().filter(|firing| alert["alert"] == firing.alert);
                let shown: Vec<Value> = of_this.map(|firing| firing.shown(&alert)).collect();
                checks.push(
                    json!({ "eval_time": format!("{minute}m"), "alertname": alert["alert"], "exp_alerts": shown }),
                );
            }
        }
        let inputs: Vec<Value> = series
            .iter()
            .map(|one| json!({ "series": one.to_string(), "values": format!("{}x30", one.value) }))
            .collect();
        self.tests.push(json!({ "name": what, "interval": "1m", "input_series": inputs, "alert_rule_test": checks }));
        Ok(())
    }

    async fn run(self) -> Result<()> {
        let tests = json!({ "rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": self.tests });
        std::fs::write(self.dir.path().join("tests.yaml"), tests.to_string())?;
        for args in
            [&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"][..], &["test", "rules", "tests.yaml"]]
        {
            promtool(&self.program, self.dir.path(), args).await?;
        }
        Ok(())
    }
}

async fn promtool(program: &Path, dir: &Path, args: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).env_clear();
    process::run(command, b"").await?.ok()?;
    Ok(())
}

/// One alert that fires.
struct Firing {
    alert: &'static str,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Firing {
    /// What promtool compares: labels, and annotations with their places filled in.
    fn shown(&self, alert: &Value) -> Value {
        let mut labels = json!(self.labels);
        labels["severity"] = alert["labels"]["severity"].clone();
        let mut annotations = alert["annotations"].clone();
        for text in annotations.as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
            let mut filled = text.as_str().unwrap_or_default().replace("{{ $value }}", &self.value.to_string());
            for (label, value) in &self.labels {
                filled = filled.replace(&format!("{{{{ $labels.{label} }}}}"), value);
            }
            *text = filled.into();
        }
        json!({ "exp_labels": labels, "exp_annotations": annotations })
    }
}

/// An alert on one series of these: the first of that name.
fn on(alert: &'static str, metric: &str, series: &[Series]) -> Result<Firing> {
    let series = series.iter().find(|series| series.name == metric).with_context(|| format!("no {metric}"))?;
    let mut labels = series.labels.clone();
    labels.retain(|label, _| !OF_A_CONDITION.contains(&label.as_str()));
    Ok(Firing { alert, labels, value: series.value })
}

/// A binding with these conditions: (type, status, reason).
fn bound(name: &str, conditions: &[(&str, &str, &str)], edit: impl FnOnce(&mut Value)) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason)| json!({ "type": kind, "status": status, "reason": reason }))
        .collect();
    let mut binding = json!({
        "metadata": { "namespace": "shop", "name": name, "generation": 3 },
        "spec": { "source": { "secret": "payments db" } },
        "status": { "observedGeneration": 3, "conditions": conditions, "target": { "name": name, "version": 7, "keys": 1 } },
    });
    edit(&mut binding);
    binding
}

/// The Deployment of the agent, as kube-state-metrics shows it by itself.
fn agent(available: f64) -> Series {
    let labels = [("namespace", "ennote"), ("deployment", "ennote-agent")];
    Series {
        name: "kube_deployment_status_replicas_available".to_owned(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        value: available,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_fires_after_its_time_and_for_nothing_healthy() -> Result<()> {
    const READY: (&str, &str, &str) = ("Ready", "True", "Synced");
    const FRESH: (&str, &str, &str) = ("Fresh", "True", "BeatsArrive");
    const BINDING: &str = "ennote_binding_suspended";
    let config: Config = monitoring::read("kube-state-metrics.yaml")?;
    let mut promtool = Promtool::new().await?;

    let healthy = [
        bound("healthy", &[READY, FRESH], |_| ()),
        bound("up", &[READY, FRESH], |b| b["status"]["rollouts"] = rollouts("Complete")),
        bound("coming", &[READY, FRESH], |b| b["status"]["rollouts"] = rollouts("Progressing")),
        bound("observed", &[("Ready", "True", "Observed"), FRESH], |_| ()),
    ];
    let healthy = all(&config, &healthy)?;
    promtool.expect("healthy", &healthy, &[(0, vec![]), (30, vec![])])?;

    for (status, reason) in [("False", "Collision"), ("Unknown", "WaitingForSecret")] {
        let denied = config.series(&bound("db", &[("Ready", status, reason), FRESH], |_| ()))?;
        let fires = on("EnnoteBindingNotReady", "ennote_binding_condition", &denied)?;
        let fires = Firing { value: 0.0, ..fires };
        let everything = [healthy.clone(), denied].concat();
        promtool.expect(reason, &everything, &[(9, vec![]), (10, vec![fires])])?;
    }
    let suspended = bound("db", &[("Ready", "False", "Denied"), ("Fresh", "False", "StreamSilent")], |b| {
        b["spec"]["suspend"] = true.into();
    });
    promtool.expect("suspended", &config.series(&suspended)?, &[(30, vec![])])?;

    let failed = config.series(&bound("db", &[READY, FRESH], |b| b["status"]["rollouts"] = rollouts("Failed")))?;
    let fires = on("EnnoteRolloutFailed", "ennote_binding_rollout_version", &failed)?;
    promtool.expect("failed rollout", &failed, &[(0, vec![fires])])?;

    let silent = config.series(&bound("db", &[READY, ("Fresh", "False", "StreamSilent")], |_| ()))?;
    let fires = on("EnnoteBindingNotFresh", "ennote_binding_condition", &silent)?;
    promtool.expect("silent", &silent, &[(0, vec![Firing { value: 1.0, ..fires }])])?;

    // Made and never looked at; and edited while suspended, which the agent looks at all the same.
    let unseen = [
        bound("made", &[], |b| b["status"] = json!({ "observedGeneration": -1 })),
        bound("edited", &[READY, FRESH], |b| {
            b["metadata"]["generation"] = 4.into();
            b["spec"]["suspend"] = true.into();
        }),
    ];
    for binding in &unseen {
        let series = config.series(binding)?;
        let fires = on("EnnoteBindingUnseen", "ennote_binding_generation", &series)?;
        promtool.expect("unseen", &series, &[(9, vec![]), (10, vec![fires])])?;
    }

    let bindings = healthy.iter().filter(|series| series.name == BINDING).count();
    let absent = || Firing { alert: "EnnoteAgentAbsent", labels: BTreeMap::new(), value: bindings as f64 };
    let with = |available| [healthy.clone(), vec![agent(available)]].concat();
    promtool.expect("agent there", &with(1.0), &[(30, vec![])])?;
    promtool.expect("agent not ready", &with(0.0), &[(9, vec![]), (10, vec![absent()])])?;
    let mut another = with(1.0);
    another.iter_mut().for_each(|series| {
        series.labels.entry("deployment".to_owned()).and_modify(|name| *name = "web".to_owned());
    });
    promtool.expect("no agent", &another, &[(9, vec![]), (10, vec![absent()])])?;
    promtool.expect("no binding, no agent", &[agent(0.0)], &[(30, vec![])])?;
    promtool.run().await
}

fn rollouts(phase: &str) -> Value {
    json!([{ "kind": "Deployment", "name": "web", "version": 7, "phase": phase }])
}

fn all(config: &Config, bindings: &[Value]) -> Result<Vec<Series>> {
    Ok(bindings.iter().map(|binding| config.series(binding)).collect::<Result<Vec<_>>>()?.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_in_trouble_raise_their_alerts_and_synced_ones_none() -> Result<()> {
    let world = World::start("monitoring", Options::default()).await?;
    world.cloud.put("payments db", &[("user", "app"), ("password", "canary-value")]).await?;
    world.kubectl(&["create", "secret", "generic", "foreign"]).await?;
    world.apply(&binding("synced", "payments db")).await?;
    world.apply(&binding("waiting", "nowhere")).await?;
    world.apply(&binding_with("failing", "{source: {secret: payments db}, target: {name: foreign}}")).await?;
    until_version(&world, "synced", 1).await?;
    until_condition(&world, "waiting", "Ready", "Unknown/WaitingForSecret").await?;
    until_condition(&world, "failing", "Ready", "False/Collision").await?;

    // As kube-state-metrics asks: with the rights of rbac.yaml and no others.
    let rbac = std::fs::read_to_string(monitoring::folder().join("rbac.yaml"))?;
    let rbac = rbac.replace("namespace: kube-system", &format!("namespace: {}", world.namespace));
    world.kubectl(&["create", "serviceaccount", "kube-state-metrics"]).await?;
    world.plane.kubectl_stdin(&["apply", "-f", "-"], &rbac).await?.ok()?;
    let token = world.kubectl(&["create", "token", "kube-state-metrics"]).await?;
    let client = world.plane.client_as(token.trim()).await?;
    let ask = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok::<Value, anyhow::Error>(client.request(request).await?)
    };
    let bindings = "/apis/ennote.io/v1alpha1/ennotesecretbindings";
    let listed =
        world.eventually("the rights to be there", ennote_scenarios::SOON, async || ask(bindings).await).await?;
    ask("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await?;
    let secrets = format!("/api/v1/namespaces/{}/secrets", world.namespace);
    ensure!(ask(&secrets).await.is_err(), "who watches bindings needs no right to Secrets");
    let synced = format!("/apis/ennote.io/v1alpha1/namespaces/{}/ennotesecretbindings/synced", world.namespace);
    ensure!(ask(&synced).await.is_err(), "more rights than the page names");

    let config: Config = monitoring::read("kube-state-metrics.yaml")?;
    let items = listed["items"].as_array().context("a list")?;
    let ours = |item: &&Value| item["metadata"]["namespace"] == world.namespace.as_str();
    let mut of = BTreeMap::new();
    for item in items.iter().filter(ours) {
        let name = item["metadata"]["name"].as_str().context("a name")?;
        of.insert(name.to_owned(), config.series(item)?);
    }
    let everything = of.values().cloned().collect::<Vec<_>>().concat();
    let shown: Vec<String> = everything.iter().map(|series| format!("{series} {}", series.value)).collect();
    let own = object(&world, &synced).await?;
    let want = |name: &str, metric: &str, labels: &[(&str, &str)], value: f64| -> Result<()> {
        let found = of[name].iter().filter(|series| series.name == format!("ennote_binding_{metric}"));
        let same =
            |series: &&Series| labels.iter().all(|(key, value)| series.labels.get(*key).is_some_and(|v| v == value));
        let values: Vec<f64> = found.filter(same).map(|series| series.value).collect();
        ensure!(values == [value], "{metric} {labels:?} of {name} is {values:?} among\n{}", shown.join("\n"));
        Ok(())
    };
    for (name, status, reason) in
        [("synced", "True", "Synced"), ("waiting", "Unknown", "WaitingForSecret"), ("failing", "False", "Collision")]
    {
        for possible in ["True", "False", "Unknown"] {
            let labels = [("type", "Ready"), ("reason", reason), ("status", possible)];
            want(name, "condition", &labels, f64::from(u8::from(possible == status)))?;
        }
        want(name, "suspended", &[], 0.0)?;
        want(name, "generation", &[("namespace", &world.namespace)], 1.0)?;
        want(name, "observed_generation", &[("customresource_kind", "EnnoteSecretBinding")], 1.0)?;
    }
    want("synced", "info", &[("secret", "payments db"), ("target", "synced")], 1.0)?;
    want("waiting", "info", &[("secret", "nowhere")], 1.0)?;
    want("synced", "version", &[], 1.0)?;
    want("synced", "keys", &[], 2.0)?;
    let time: k8s_openapi::jiff::Timestamp = own["status"]["lastSyncTime"].as_str().context("lastSyncTime")?.parse()?;
    want("synced", "last_sync_time_seconds", &[], time.as_second() as f64)?;
    ensure!(!shown.join("\n").contains("canary-value"), "a value of a secret");

    let mut promtool = Promtool::new().await?;
    let not_ready = |name: &str| {
        let fires = on("EnnoteBindingNotReady", "ennote_binding_condition", &of[name])?;
        Ok::<_, anyhow::Error>(Firing { value: 0.0, ..fires })
    };
    let fires = vec![not_ready("failing")?, not_ready("waiting")?];
    promtool.expect("real bindings", &everything, &[(9, vec![]), (10, fires)])?;
    promtool.run().await?;
    world.stop().await
}
