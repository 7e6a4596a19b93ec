//! Everything one scenario needs, in a namespace of its own: control plane, cloud, chart, agent.

use crate::agent::{self, Agent};
use crate::audit::{AuditEvent, AuditMark};
use crate::control_plane::{ControlPlane, Options as PlaneOptions};
use crate::devcloud::{self, DevCloud};
use crate::settings::Settings;
use crate::wait;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};

/// Release name of the chart.
pub const RELEASE: &str = "ennote-agent";
/// Name of the agent in the cloud.
pub const AGENT: &str = "agent";
/// The Secret with the bootstrap token, and the name the released chart's README gives it.
pub const TOKEN_SECRET: &str = "ennote-auth-secret";

/// What to set up; [`Options::default`] is all of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// A control plane to use. Default: the one that every scenario of this process shares.
    pub plane: Option<Arc<ControlPlane>>,
    /// Settings of the cloud.
    pub cloud: devcloud::Options,
    /// Chart values, laid over those that point the agent to this cloud.
    pub values: Value,
    /// How many further namespaces the agent watches; they are called NAMESPACE-1 and so on.
    pub more_namespaces: usize,
    /// Variables laid over the container's, as in ENNOTE_LOG.
    pub environment: Vec<(String, String)>,
    /// Put a bootstrap token into [`TOKEN_SECRET`].
    pub token: bool,
    /// Install the chart.
    pub chart: bool,
    /// Start the agent (needs the chart).
    pub agent: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plane: None,
            cloud: devcloud::Options::default(),
            values: json!({}),
            more_namespaces: 0,
            environment: Vec::new(),
            token: true,
            chart: true,
            agent: true,
        }
    }
}

/// A scenario's world. Dropping it ends agent and cloud; a shared control plane ends with the process.
pub struct World {
    /// The agent; not running when [`Options::agent`] was false.
    pub agent: Agent,
    /// The cloud.
    pub cloud: DevCloud,
    /// The control plane.
    pub plane: Arc<ControlPlane>,
    /// An administrator's client.
    pub client: Client,
    /// The namespace of the release, made for this world.
    pub namespace: String,
    watched: Vec<String>,
    values: Value,
}

/// The control plane that all scenarios of this process share: started by the first, or the cluster that KUBECONFIG names.
///
/// # Errors
/// When it does not start.
pub async fn shared_plane() -> Result<Arc<ControlPlane>> {
    static SHARED: OnceCell<Arc<ControlPlane>> = OnceCell::const_new();
    // Statics are never dropped: the watchdog ends it with this process.
    let start = async || {
        let kubeconfig = Settings::from_env()?.kubeconfig;
        ControlPlane::start(PlaneOptions { kubeconfig, ..PlaneOptions::default() }).await.map(Arc::new)
    };
    SHARED.get_or_try_init(start).await.cloned()
}

impl World {
    /// Sets everything up. `name` begins the namespace's name.
    ///
    /// # Errors
    /// The first thing that did not work.
    pub async fn start(name: &str, options: Options) -> Result<Self> {
        let plane = match options.plane {
            Some(plane) => plane,
            None => shared_plane().await?,
        };
        let client = plane.client().await?;
        let namespace = new_namespace(&client, name).await?;
        let mut watched = vec![namespace.clone()];
        for number in 1..=options.more_namespaces {
            watched.push(format!("{namespace}-{number}"));
            create_namespace(&client, &format!("{namespace}-{number}")).await?;
        }
        let cloud = DevCloud::start(options.cloud).await?;
        let mut of_agent = agent::Options::new(&namespace);
        // What a look finds is awaited here, and a scenario is to wait for seconds.
        of_agent.environment = vec![("ENNOTE_LOOK_EVERY".to_owned(), "1".to_owned())];
        of_agent.environment.extend(options.environment);
        let agent = Agent::new(&plane, of_agent).await?;
        let mut values = json!({
            "ennote": {
                "api": { "url": cloud.address(), "caCert": cloud.ca_pem()? },
                "auth": { "existingSecretName": TOKEN_SECRET },
            },
            "watchNamespaces": &watched,
        });
        merge(&mut values, options.values);
        let mut world = Self { agent, cloud, plane, client, namespace, watched, values };
        if options.token {
            world.new_token().await?;
        }
        if options.chart {
            world.install(json!({})).await?;
        }
        if options.agent {
            world.agent.start().await?;
        }
        Ok(world)
    }

    /// The namespaces that the agent watches, its own first.
    pub fn watched(&self) -> &[String] {
        &self.watched
    }

    /// Makes a bootstrap token for all watched namespaces and puts it into [`TOKEN_SECRET`].
    ///
    /// # Errors
    /// What the cloud or the API server said.
    pub async fn new_token(&self) -> Result<()> {
        let namespaces: Vec<&str> = self.watched.iter().map(String::as_str).collect();
        let token = self.cloud.token_create(AGENT, &namespaces).await?;
        self.set_token(&token).await
    }

    /// Puts a text into [`TOKEN_SECRET`].
    ///
    /// # Errors
    /// What the API server said.
    pub async fn set_token(&self, token: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": TOKEN_SECRET }, "stringData": { "token": token },
        });
        let force = PatchParams::apply("ennote-harness").force();
        self.secrets().patch(TOKEN_SECRET, &force, &Patch::Apply(secret)).await.context("the token's Secret")?;
        Ok(())
    }

    /// Installs or upgrades the chart by helm, with `more` laid over all values given so far. An agent that runs goes on
    /// as the pod it was started as: [`Agent::restart`] makes it the new one.
    ///
    /// # Errors
    /// What helm said.
    pub async fn install(&mut self, more: Value) -> Result<()> {
        let chart = chart();
        self.install_from(&chart, more).await
    }

    /// [`Self::install`] from another folder: an earlier chart, or one with another CRD.
    ///
    /// # Errors
    /// What helm said.
    pub async fn install_from(&mut self, chart: &Path, more: Value) -> Result<()> {
        merge(&mut self.values, more);
        // Two releases that install at once would both bring the CRD, and the slower one would fail.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        let _turn = ONE_AT_A_TIME.lock().await;
        let chart = chart.display().to_string();
        let args = ["upgrade", "--install", RELEASE, &chart, "--namespace", &self.namespace, "--values", "-"];
        self.plane.helm_stdin(&args, &self.values.to_string()).await?.ok()?;
        Ok(())
    }

    /// Uninstalls the chart.
    ///
    /// # Errors
    /// What helm said.
    pub async fn uninstall(&self) -> Result<()> {
        let args = ["uninstall", RELEASE, "--namespace", &self.namespace, "--wait"];
        self.plane.helm(&args).await?.ok()?;
        Ok(())
    }

    /// `kubectl apply` of `yaml` in this world's namespace.
    ///
    /// # Errors
    /// What kubectl said.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        self.plane.kubectl_stdin(&["apply", "--namespace", &self.namespace, "-f", "-"], yaml).await?.ok()?;
        Ok(())
    }

    /// `kubectl apply` of `yaml` that must be refused: what kubectl said.
    ///
    /// # Errors
    /// When it was accepted.
    pub async fn refused(&self, yaml: &str) -> Result<String> {
        self.plane.kubectl_stdin(&["apply", "--namespace", &self.namespace, "-f", "-"], yaml).await?.refused()
    }

    /// `kubectl ARGS --namespace NAMESPACE`: its standard output.
    ///
    /// # Errors
    /// What kubectl said.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let args: Vec<&str> = args.iter().copied().chain(["--namespace", &self.namespace]).collect();
        self.plane.kubectl(&args).await?.ok()
    }

    /// A binding of this world's namespace as JSON.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn binding(&self, name: &str) -> Result<Value> {
        let path = format!("/apis/ennote.io/v1alpha1/namespaces/{}/ennotesecretbindings/{name}", self.namespace);
        let request = http::Request::get(path).body(Vec::new())?;
        self.client.request(request).await.with_context(|| format!("binding {name}"))
    }

    /// The Secrets of this world's namespace.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The data of a Secret as text.
    ///
    /// # Errors
    /// When it does not exist or holds other than UTF-8.
    pub async fn secret_data(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let data = self.secrets().get(name).await?.data.unwrap_or_default();
        data.into_iter().map(|(key, value)| Ok((key, String::from_utf8(value.0)?))).collect()
    }

    /// Answered requests of the agent since `mark`, and the mark to go on from.
    ///
    /// # Errors
    /// When the cluster is not ours.
    pub async fn agent_requests(&self, mark: AuditMark) -> Result<(Vec<AuditEvent>, AuditMark)> {
        let (mut events, end) = self.plane.audit(mark).await?;
        let user = format!("system:serviceaccount:{}:{RELEASE}", self.namespace);
        events.retain(|event| event.user == user);
        Ok((events, end))
    }

    /// Tries `attempt` until it succeeds. On failure the error holds [`Self::diagnostics`], and logs and data stay.
    ///
    /// # Errors
    /// When `limit` has passed.
    pub async fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        attempt: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        match wait::until(what, limit, attempt).await {
            Ok(value) => Ok(value),
            Err(error) => {
                self.plane.dir().keep();
                self.cloud.dir().keep();
                let told = format!("{error:#}\n{}", self.diagnostics().await);
                Err(anyhow::Error::msg(told))
            }
        }
    }

    /// What one wants to see when a scenario fails: bindings, events, and the ends of both logs. No values of Secrets.
    pub async fn diagnostics(&self) -> String {
        let mut text = String::new();
        for args in [&["get", "ennotesecretbindings", "-o", "yaml"][..], &["get", "deploy,sts,ds,events"]] {
            let output = self.kubectl(args).await.unwrap_or_else(|error| format!("{error:#}\n"));
            text.push_str(&format!("--- kubectl {}\n{output}", args.join(" ")));
        }
        let state = self.agent.check().err().map(|error| format!(" ({error})")).unwrap_or_default();
        text.push_str(&format!("--- agent{state}\n{}\n", self.agent.log_tail(40)));
        text.push_str(&format!("--- devcloud\n{}\n", self.cloud.log_tail(20)));
        text.push_str(&format!("--- everything: {}\n", self.plane.dir().path().display()));
        text
    }

    /// Ends agent and cloud, and lets the namespaces be deleted.
    ///
    /// # Errors
    /// When one of them does not end.
    pub async fn stop(mut self) -> Result<()> {
        if self.agent.pid().is_ok() {
            self.agent.stop().await?;
        }
        if self.cloud.pid().is_some() {
            self.cloud.stop().await?;
        }
        // Of the whole cluster, so they outlive the namespace; and each one costs every request of the others a look.
        let release = format!("app.kubernetes.io/instance={RELEASE}");
        let policies = ["validatingadmissionpolicies", "validatingadmissionpolicybindings"];
        for kind in policies {
            let names = self.plane.kubectl(&["get", kind, "-o", "name", "-l", &release]).await?.ok()?;
            let ours = format!(".{}.", self.namespace);
            let ours: Vec<&str> = names.lines().filter(|name| name.contains(&ours)).collect();
            if !ours.is_empty() {
                self.plane.kubectl(&[&["delete", "--wait=false"], &ours[..]].concat()).await?.ok()?;
            }
        }
        for namespace in &self.watched {
            Api::<Namespace>::all(self.client.clone()).delete(namespace, &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

/// `charts/ennote-agent` of the tree this library was built from.
pub fn chart() -> PathBuf {
    tree().join("charts").join(RELEASE)
}

/// The tree this library was built from.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

async fn new_namespace(client: &Client, name: &str) -> Result<String> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    // The process id keeps apart what several runs make in one cluster that was given by its kubeconfig.
    let namespace = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    create_namespace(client, &namespace).await?;
    Ok(namespace)
}

async fn create_namespace(client: &Client, name: &str) -> Result<()> {
    let namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    let created = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await;
    created.with_context(|| format!("cannot create namespace {name}"))?;
    Ok(())
}

/// Objects are merged key by key; anything else replaces what was there.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_laid_over_each_other() {
        let mut values = json!({ "a": { "b": 1, "c": [1] }, "d": 1 });
        merge(&mut values, json!({ "a": { "c": [2], "e": 2 }, "d": null }));
        assert_eq!(values, json!({ "a": { "b": 1, "c": [2], "e": 2 }, "d": null }));
    }

    #[test]
    fn the_tree_is_the_one_with_the_chart() {
        assert!(chart().join("Chart.yaml").is_file());
    }
}
