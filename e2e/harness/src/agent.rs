//! The agent as a process that is what the chart's pod would be: its arguments, environment, volumes and ServiceAccount
//! come from the pod on the KWOK node, so its settings and its rights are the chart's.

use crate::control_plane::ControlPlane;
use crate::credentials::{kubeconfig_text, write_private};
use crate::kubelet::{self, Sync};
use crate::pod_env::{self, local};
use crate::process::{self, Output, Process};
use crate::settings::Settings;
use crate::sockets::{self, Socket};
use crate::volumes::{Mount, Volumes, service_account};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::config::Kubeconfig;
use kube::{Client, ResourceExt};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

const STOP_GRACE: Duration = Duration::from_secs(30);
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Which pod to play, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespace of the chart's release.
    pub namespace: String,
    /// Name of the chart's Deployment.
    pub deployment: String,
    /// Binary of the agent. Default: `ennote-agent` of this workspace.
    pub binary: Option<PathBuf>,
    /// Variables laid over the container's.
    pub environment: Vec<(String, String)>,
    /// UID of a pod that another agent plays.
    pub beside: Option<String>,
}

impl Options {
    /// The chart's Deployment under its usual name.
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            deployment: "ennote-agent".to_owned(),
            binary: None,
            environment: Vec::new(),
            beside: None,
        }
    }
}

/// The agent's process. Dropping it kills it.
pub struct Agent {
    running: Option<Running>,
    options: Options,
    binary: PathBuf,
    client: Client,
    server: String,
    dir: PathBuf,
    /// The volumes of the pod last played, by its UID: they outlive a container.
    volumes: Option<(String, Arc<Mutex<Volumes>>)>,
}

struct Running {
    process: Process,
    pod: Pod,
    mounts: Vec<Mount>,
    environment: BTreeMap<String, String>,
    volumes: Sync,
}

impl Agent {
    /// Prepares an agent of `plane`; [`Self::start`] starts it.
    ///
    /// # Errors
    /// When its binary is not built or the kubeconfig cannot be used.
    pub async fn new(plane: &ControlPlane, options: Options) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = plane.dir().join(format!("agent-{}-{number}", options.namespace));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => Settings::from_env()?.binary("ennote-agent")?,
        };
        let file = Kubeconfig::read_from(plane.kubeconfig())?;
        let server = file.clusters.into_iter().find_map(|cluster| cluster.cluster?.server);
        let server = server.context("the kubeconfig names no server")?;
        Ok(Self { running: None, options, binary, client: plane.client().await?, server, dir, volumes: None })
    }

    /// From the next start on it is this binary of the workspace: another build of the same agent.
    ///
    /// # Errors
    /// When it is not built.
    pub fn runs(&mut self, binary: &str) -> Result<()> {
        self.binary = Settings::from_env()?.binary(binary)?;
        Ok(())
    }

    /// From the next start on it reaches the API server at `host:port`, as through a [`crate::cable::Cable`].
    pub fn dials(&mut self, address: &str) {
        self.server = format!("https://{address}");
    }

    /// `host:port` of its API server.
    ///
    /// # Errors
    /// When it has no such form.
    pub fn dialled(&self) -> Result<&str> {
        self.server.strip_prefix("https://").with_context(|| format!("{} is not https", self.server))
    }

    /// Waits for the chart's pod, brings its volumes here, and starts the agent. In the same pod as before it is what a
    /// restarted container is: it finds the token files as they were left.
    ///
    /// # Errors
    /// When it runs already, or what a kubelet would complain about.
    pub async fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the agent runs already");
        let Options { namespace, deployment, beside, .. } = &self.options;
        let pod = kubelet::pod_of(&self.client, namespace, deployment, beside.as_deref()).await?;
        let uid = pod.uid().context("the pod has no UID")?;
        let volumes = match self.volumes.take() {
            Some((same, volumes)) if same == uid => volumes,
            _ => {
                let files = self.dir.join(pod.name_any());
                Arc::new(Mutex::new(Volumes::of(self.client.clone(), pod.clone(), &files)))
            }
        };
        self.volumes = Some((uid, volumes.clone()));
        let mounts = {
            let mut volumes = volumes.lock().await;
            volumes.write().await?;
            volumes.mounts()?
        };
        let environment = self.environment(&pod, &mounts).await?;
        let spec = pod.spec.as_ref().context("the pod has no spec")?;
        let container = spec.containers.first().context("the pod has no container")?;
        ensure!(container.command.is_none(), "the harness plays the image's entrypoint, but the pod sets a command");
        let args = container.args.iter().flatten().map(|arg| local(arg, &mounts));
        let mut command = Command::new(&self.binary);
        command.args(args).env_clear().envs(&environment).current_dir(&self.dir);
        let process = Process::spawn("ennote-agent", command, &self.log_file())?;
        let volumes = Sync::start(self.client.clone(), namespace, volumes).await;
        self.running = Some(Running { process, pod, mounts, environment, volumes });
        Ok(())
    }

    /// Ends the agent by SIGTERM, as a kubelet does: exit status and how long it took. SIGKILL after 30 s.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&mut self) -> Result<(ExitStatus, Duration)> {
        self.take()?.process.stop(STOP_GRACE).await
    }

    /// Ends the agent by SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill9(&mut self) -> Result<()> {
        self.take()?.process.kill().await.map(drop)
    }

    /// Stops it when it runs, and starts it as the chart's current pod: also after `helm upgrade` replaced the pod.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            self.stop().await?;
        }
        self.start().await
    }

    /// Sends a signal to the agent, as SIGSTOP to freeze it and SIGCONT to let it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running()?.process.signal(signal);
        Ok(())
    }

    /// Waits until the agent ends by itself.
    ///
    /// # Errors
    /// When it does not run, or still does after `limit`.
    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = tokio::time::timeout(limit, self.running()?.process.wait()).await;
        let status = status.with_context(|| format!("the agent still runs after {limit:?}"))??;
        self.running = None;
        Ok(status)
    }

    /// Fails with the end of the log when the agent has ended by itself.
    ///
    /// # Errors
    /// When it does not run.
    pub fn check(&self) -> Result<()> {
        let process = &self.running()?.process;
        if process.exit_status().is_some() { Err(process.failure()) } else { Ok(()) }
    }

    /// Runs the agent's binary inside its container, so to speak, as an exec probe does: `exec(&["healthcheck"])`.
    ///
    /// # Errors
    /// When the agent does not run.
    pub async fn exec(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(args).env_clear().envs(&self.running()?.environment).current_dir(&self.dir);
        process::run(command, b"").await
    }

    /// Replaces its token files by fresh ones, as happens anyway at 80 % of their life.
    ///
    /// # Errors
    /// When the agent does not run.
    pub async fn renew_tokens(&self) -> Result<()> {
        self.running()?.volumes.renew_tokens().await
    }

    /// Lets the tokens of its pod age, so that the next start finds new ones.
    pub async fn forget_tokens(&self) {
        if let Some((_, volumes)) = &self.volumes {
            volumes.lock().await.forget_tokens();
        }
    }

    /// Process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.process.pid())
    }

    /// The pod it plays.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pod(&self) -> Result<&Pod> {
        Ok(&self.running()?.pod)
    }

    /// Its user name at the API server, as in the audit log.
    ///
    /// # Errors
    /// When it does not run.
    pub fn user(&self) -> Result<String> {
        let account = service_account(&self.running()?.pod);
        Ok(format!("system:serviceaccount:{}:{account}", self.options.namespace))
    }

    /// Where a path inside the pod is on this machine.
    ///
    /// # Errors
    /// When it does not run.
    pub fn local_path(&self, in_pod: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(local(in_pod, &self.running()?.mounts)))
    }

    /// All that it and its predecessors have logged.
    pub fn log(&self) -> String {
        std::fs::read(self.log_file()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of [`Self::log`].
    pub fn log_tail(&self, lines: usize) -> String {
        process::tail(&self.log_file(), lines)
    }

    /// The log lines that are JSON.
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Every socket it holds.
    ///
    /// # Errors
    /// When it does not run.
    pub fn sockets(&self) -> Result<Vec<Socket>> {
        sockets::sockets(self.pid()?)
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_bytes(&self) -> Result<u64> {
        sockets::resident_bytes(self.pid()?)
    }

    async fn environment(&self, pod: &Pod, mounts: &[Mount]) -> Result<BTreeMap<String, String>> {
        let containers = pod.spec.as_ref().map(|spec| &spec.containers);
        let container = containers.and_then(|all| all.first()).context("the pod has no container")?;
        let mut environment = pod_env::environment(&self.client, pod, container).await?;
        environment.extend(self.options.environment.iter().cloned());
        for value in environment.values_mut() {
            *value = local(value, mounts);
        }
        environment.insert("KUBECONFIG".to_owned(), self.kubeconfig(mounts)?.display().to_string());
        Ok(environment)
    }

    /// What in-cluster configuration would give: the mounted token and CA, read again when they change.
    fn kubeconfig(&self, mounts: &[Mount]) -> Result<PathBuf> {
        let place = |file: &str| PathBuf::from(local(&format!("{SERVICE_ACCOUNT}/{file}"), mounts));
        let (token, ca) = (place("token"), place("ca.crt"));
        for file in [&token, &ca] {
            if !file.is_file() {
                bail!(
                    "the pod mounts no {SERVICE_ACCOUNT}/{{token,ca.crt}}: its agent could not speak to the API server"
                );
            }
        }
        let login = format!("tokenFile: \"{}\"", token.display());
        let path = self.dir.join("kubeconfig");
        write_private(&path, kubeconfig_text(&self.server, &ca, &login, &self.options.namespace))?;
        Ok(path)
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("the agent does not run")
    }

    fn take(&mut self) -> Result<Running> {
        self.running.take().context("the agent does not run")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("ennote-agent.log")
    }
}
