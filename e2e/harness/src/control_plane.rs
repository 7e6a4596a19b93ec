//! A real control plane of its own on free loopback ports: etcd, kube-apiserver with RBAC and audit log,
//! kube-controller-manager, kube-scheduler, and KWOK playing the nodes.

use crate::audit::{self, AuditEvent, AuditMark};
use crate::components::{Components, Ports};
use crate::credentials::{Credentials, SigningKey};
use crate::process::{self, Output, Process};
use crate::run_dir::RunDir;
use crate::settings::Settings;
use crate::tools::{self, Tools};
use crate::{cluster, ports, wait};
use anyhow::{Context, Result, bail};
use kube::Client;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(60);
/// The API server stops listening at once, then waits for open watches for as long as it may; clients that follow it
/// see the end of their connections only when it is gone.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// A cluster to use instead of starting one. Its audit log cannot be read and its API server not restarted.
    pub kubeconfig: Option<PathBuf>,
    /// Fake nodes to create. KWOK plays every node there is, so it does not run with 0 of them: a real one may join.
    pub nodes: usize,
    /// Further arguments of kube-apiserver.
    pub api_server_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { kubeconfig: None, nodes: 2, api_server_args: Vec::new() }
    }
}

/// A running control plane. Dropping it kills every process of it and removes its folder.
#[derive(Debug)]
pub struct ControlPlane {
    // Before `dir`: the processes go first.
    own: Option<Own>,
    kubeconfig: PathBuf,
    tools: Tools,
    settings: Settings,
    dir: RunDir,
}

/// What exists only for a control plane that we started.
#[derive(Debug)]
struct Own {
    ports: Ports,
    files: Credentials,
    api_server_args: Vec<String>,
    /// That sign ServiceAccount tokens: the last one does, the earlier ones still count.
    signing_keys: Mutex<Vec<SigningKey>>,
    processes: Mutex<Vec<Process>>,
    barriers: AtomicU64,
}

impl ControlPlane {
    /// Builds the tools when needed, starts everything on fresh data, and returns when the API server is ready, the
    /// nodes are Ready and namespaces get their ServiceAccount.
    ///
    /// # Errors
    /// When a component does not start: its name and the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let settings = Settings::from_env()?;
        let building = settings.clone();
        let tools = tokio::task::spawn_blocking(move || tools::build(&building)).await??;
        if let Some(kubeconfig) = options.kubeconfig {
            let dir = RunDir::new("external", settings.keep)?;
            return Ok(Self { own: None, kubeconfig, tools, settings, dir });
        }
        let mut attempts = 0;
        loop {
            let dir = RunDir::new("control-plane", settings.keep)?;
            match Self::try_start(&options, &settings, &tools, dir).await {
                // A port that was free a moment ago may be taken now; other ports will do.
                Err(error) if attempts < 3 && format!("{error:#}").contains("address already in use") => attempts += 1,
                result => return result,
            }
        }
    }

    async fn try_start(options: &Options, settings: &Settings, tools: &Tools, dir: RunDir) -> Result<Self> {
        let [api_server, etcd, etcd_peer] = ports::free()?;
        let ports = Ports { api_server, etcd, etcd_peer };
        let files = Credentials::write(dir.path(), &format!("https://127.0.0.1:{api_server}"))?;
        let own = Own {
            ports,
            api_server_args: options.api_server_args.clone(),
            signing_keys: Mutex::new(vec![files.signing_key.clone()]),
            processes: Mutex::default(),
            barriers: AtomicU64::new(0),
            files,
        };
        let kubeconfig = own.files.admin.clone();
        let plane = Self { own: Some(own), kubeconfig, tools: tools.clone(), settings: settings.clone(), dir };
        let own = plane.own()?;
        let components = plane.components(own);
        own.add(components.etcd()?);
        own.add(components.api_server(&own.signing_keys(), &own.api_server_args)?);
        own.guard(cluster::ready(&plane)).await?;
        own.add(components.controller_manager()?);
        own.add(components.scheduler()?);
        if options.nodes > 0 {
            own.add(components.kwok()?);
        }
        let nodes = async {
            let client = plane.client().await?;
            cluster::add_nodes(&client, options.nodes).await?;
            cluster::serves_namespaces(&client).await
        };
        own.guard(nodes).await?;
        Ok(plane)
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Folder of this run: kubeconfig, data, one log per component.
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// The environment's settings this was started under.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether this control plane is ours: audit log, restarts.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// An administrator's client, bound to the runtime it is made in: every test makes its own.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<Client> {
        cluster::client(&self.kubeconfig, None).await
    }

    /// A client that authenticates with `token`.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client_as(&self, token: &str) -> Result<Client> {
        cluster::client(&self.kubeconfig, Some(token)).await
    }

    /// Every request that was answered so far and since `mark` ([`audit::START`] for all), oldest first, but for those
    /// of the control plane itself; and the mark to go on from.
    ///
    /// # Errors
    /// When the cluster is not ours: its log cannot be read.
    pub async fn audit(&self, mark: AuditMark) -> Result<(Vec<AuditEvent>, AuditMark)> {
        let own = self.own()?;
        let log = self.dir.join("audit.log");
        // An event is written just after its answer. This request of ours comes behind all that were answered before.
        let barrier = format!("audit-barrier-{}", own.barriers.fetch_add(1, Ordering::Relaxed));
        let request = http::Request::get(format!("/api/v1/namespaces/{barrier}")).body(Vec::new())?;
        // It is answered by 404, and the audit log says so.
        let _ = self.client().await?.request_text(request).await;
        wait::until("the audit log to be written", Duration::from_secs(10), async || {
            let (mut events, end) = audit::read(&log, mark)?;
            if !events.iter().any(|event| event.name == barrier) {
                bail!("{barrier} is not in {}", log.display());
            }
            events.retain(|event| !event.name.starts_with("audit-barrier-"));
            Ok((events, end))
        })
        .await
    }

    /// Restarts the API server on the same port and data. Returns when it is ready again.
    ///
    /// # Errors
    /// When the cluster is not ours or the server does not come back.
    pub async fn restart_api_server(&self) -> Result<()> {
        self.stop_api_server().await?;
        self.start_api_server().await
    }

    /// Ends the API server as a rolling upgrade does (SIGTERM); [`Self::start_api_server`] brings it back.
    ///
    /// # Errors
    /// When the cluster is not ours.
    pub async fn stop_api_server(&self) -> Result<()> {
        let api_server = self.own()?.take("kube-apiserver").context("the API server is already stopped")?;
        api_server.stop(STOP_GRACE).await?;
        Ok(())
    }

    /// Starts the API server again after [`Self::stop_api_server`] and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_api_server(&self) -> Result<()> {
        let own = self.own()?;
        own.add(self.components(own).api_server(&own.signing_keys(), &own.api_server_args)?);
        own.guard(cluster::ready(self)).await
    }

    /// Restarts the API server with a second key for ServiceAccount tokens, which it publishes and takes, but does not
    /// sign with yet.
    ///
    /// # Errors
    /// When the cluster is not ours or the server does not come back.
    pub async fn publish_signing_key(&self) -> Result<()> {
        let own = self.own()?;
        let number = own.signing_keys().len();
        let key = SigningKey::write(self.dir.path(), &format!("service-account-{number}"))?;
        // The last one signs.
        own.signing_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(0, key);
        self.restart_api_server().await
    }

    /// Restarts the API server so that it signs with the key that was published last. What others have signed counts.
    ///
    /// # Errors
    /// When the cluster is not ours or the server does not come back.
    pub async fn roll_signing_key(&self) -> Result<()> {
        self.own()?.signing_keys.lock().unwrap_or_else(PoisonError::into_inner).rotate_left(1);
        self.restart_api_server().await
    }

    /// Restarts the API server with the key alone that it signs with. What the others have signed is refused, so the controllers
    /// of this control plane are of no use any more.
    ///
    /// # Errors
    /// When the cluster is not ours or the server does not come back.
    pub async fn retire_signing_keys(&self) -> Result<()> {
        self.own()?.retire_signing_keys();
        self.restart_api_server().await
    }

    /// Runs the real kubectl as administrator.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_stdin(args, "").await
    }

    /// Runs the real kubectl as administrator, with `input` on its standard input (`apply -f -`).
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn kubectl_stdin(&self, args: &[&str], input: &str) -> Result<Output> {
        process::run(self.command("kubectl", args)?, input.as_bytes()).await
    }

    /// Runs the real helm as administrator.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn helm(&self, args: &[&str]) -> Result<Output> {
        self.helm_stdin(args, "").await
    }

    /// Runs the real helm as administrator, with `input` on its standard input (`-f -`).
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn helm_stdin(&self, args: &[&str], input: &str) -> Result<Output> {
        process::run(self.command("helm", args)?, input.as_bytes()).await
    }

    /// Path of a program of the control plane, as in `kubectl`.
    ///
    /// # Errors
    /// When KUBEBUILDER_ASSETS is set and lacks it.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        self.tools.path(name)
    }

    /// Process ids of the components.
    pub fn pids(&self) -> Vec<u32> {
        let Some(own) = &self.own else { return Vec::new() };
        own.processes.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Process::pid).collect()
    }

    /// Ports that the components listen on, all on 127.0.0.1.
    pub fn ports(&self) -> Vec<u16> {
        self.own.iter().flat_map(|own| [own.ports.api_server, own.ports.etcd, own.ports.etcd_peer]).collect()
    }

    /// Kills every component (the data is thrown away) and returns when all are gone and no port is left.
    ///
    /// # Errors
    /// When a port is still taken.
    pub async fn stop(&self) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let processes = std::mem::take(&mut *own.processes.lock().unwrap_or_else(PoisonError::into_inner));
        kill_at_once(&processes);
        for process in processes {
            process.wait().await?;
        }
        match self.ports().into_iter().find(|port| ports::is_taken(*port)) {
            Some(port) => bail!("127.0.0.1:{port} is still taken after every component has ended"),
            None => Ok(()),
        }
    }

    /// What the real node's kubelet logs in with.
    pub(crate) fn node_kubeconfig(&self) -> Result<&Path> {
        Ok(&self.own()?.files.node)
    }

    fn command(&self, program: &str, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.tools.path(program)?);
        command.env_clear().env("HOME", self.dir.path()).env("KUBECONFIG", &self.kubeconfig).args(args);
        Ok(command)
    }

    fn own(&self) -> Result<&Own> {
        self.own
            .as_ref()
            .context("this cluster was given by its kubeconfig: only one that the harness starts can do this")
    }

    fn components<'a>(&'a self, own: &'a Own) -> Components<'a> {
        Components { tools: &self.tools, dir: self.dir.path(), ports: own.ports, files: &own.files }
    }
}

impl Own {
    fn retire_signing_keys(&self) {
        let mut keys = self.signing_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let retired = keys.len().saturating_sub(1);
        keys.drain(..retired);
    }

    fn signing_keys(&self) -> Vec<SigningKey> {
        self.signing_keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, process: Process) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push(process);
    }

    fn take(&self, name: &str) -> Option<Process> {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let place = processes.iter().position(|process| process.name() == name)?;
        Some(processes.remove(place))
    }

    /// Runs `work`, but gives up with a component's log as soon as one has ended.
    async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let dead = wait::until("a component to end", START_LIMIT, async || self.dead().context("none has"));
        tokio::select! {
            result = work => result.map_err(|error| self.dead().unwrap_or(error)),
            dead = dead => Err(dead.unwrap_or_else(|error| error)),
        }
    }

    fn dead(&self) -> Option<anyhow::Error> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.iter().find(|process| process.exit_status().is_some()).map(Process::failure)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        kill_at_once(self.processes.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// All first, then wait for each: one after the other, every component would log the loss of the one before.
fn kill_at_once(processes: &[Process]) {
    for process in processes {
        process.signal(rustix::process::Signal::KILL);
    }
}
