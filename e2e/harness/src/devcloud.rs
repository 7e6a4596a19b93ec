//! `ennote-devcloud` as a process of its own, on a data folder and a port that outlive its restarts.

use crate::process::{self, Output, Process};
use crate::run_dir::RunDir;
use crate::settings::Settings;
use crate::{ports, wait};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_GRACE: Duration = Duration::from_secs(15);

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further arguments of `init`, as in `--tls-name cloud.test`.
    pub init: Vec<String>,
    /// Further arguments of `serve`, as in `--access-token-life=6s`.
    pub serve: Vec<String>,
    /// Data folder that is kept. Default: one that goes with the run. It is initialised when it does not exist.
    pub data: Option<PathBuf>,
    /// Loopback port. Default: a free one.
    pub port: Option<u16>,
}

/// A cloud of its own. Dropping it kills the process.
#[derive(Debug)]
pub struct DevCloud {
    process: Mutex<Option<Process>>,
    binary: PathBuf,
    data: PathBuf,
    port: u16,
    serve: Mutex<Vec<String>>,
    dir: RunDir,
}

impl DevCloud {
    /// `init`, `serve`, and returns once it accepts connections.
    ///
    /// # Errors
    /// When the binary is not built or does not start: the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let settings = Settings::from_env()?;
        let dir = RunDir::new("devcloud", settings.keep)?;
        let binary = settings.binary("ennote-devcloud")?;
        let data = options.data.unwrap_or_else(|| dir.join("data"));
        let fresh = !data.exists();
        let serve = Mutex::new(options.serve);
        let mut cloud = Self { process: Mutex::default(), binary, data, port: 0, serve, dir };
        if fresh {
            let init: Vec<&str> = std::iter::once("init").chain(options.init.iter().map(String::as_str)).collect();
            cloud.run(&init).await?.ok()?;
        }
        for attempt in 1.. {
            cloud.port = match options.port {
                Some(port) => port,
                None => ports::free::<1>()?[0],
            };
            match cloud.up().await {
                // Taken by someone faster: another port will do, if it is ours to choose.
                Err(_) if options.port.is_none() && attempt < 4 && ports::is_taken(cloud.port) => {}
                result => {
                    result?;
                    break;
                }
            }
        }
        Ok(cloud)
    }

    /// `host:port` that agents dial.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The CA of its certificate, as PEM.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn ca_pem(&self) -> Result<String> {
        let file = self.data.join("ca.crt");
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Process::pid)
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The last lines of [`Self::log`].
    pub fn log_tail(&self, lines: usize) -> String {
        process::tail(&self.log_file(), lines)
    }

    /// A new bootstrap token for agent `name`; an agent of that name enrols again, with these namespaces.
    ///
    /// # Errors
    /// What the command said.
    pub async fn token_create(&self, name: &str, namespaces: &[&str]) -> Result<String> {
        let mut args = vec!["token", "create", "--agent", name];
        args.extend(namespaces.iter().flat_map(|namespace| ["--namespace", namespace]));
        let created = self.cli(&args).await?;
        Ok(created["token"].as_str().context("the answer holds no token")?.to_owned())
    }

    /// A new version of a KEYS_VALUES secret. The values go over standard input.
    ///
    /// # Errors
    /// What the command said.
    pub async fn put(&self, secret: &str, pairs: &[(&str, &str)]) -> Result<Value> {
        let pairs: Map<String, Value> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        self.put_payload(secret, &serde_json::json!({ "keysValues": pairs }).to_string()).await
    }

    /// A new version with this very payload (a JSON object of one of the four types), byte for byte.
    ///
    /// # Errors
    /// What the command said.
    pub async fn put_payload(&self, secret: &str, payload: &str) -> Result<Value> {
        self.cli_stdin(&["secret", "put", secret, "--payload", "-"], payload).await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// What the command said.
    pub async fn rm(&self, secret: &str) -> Result<Value> {
        self.cli(&["secret", "rm", secret]).await
    }

    /// What `secret status` prints: `version`, `in_sync`, `rolled_out`, and `bindings[]` with `agent`, `connected`, `namespace`,
    /// `binding`, `version`, `since`, `state`, `in_sync`, `rolled_out` and `workloads[]` (`workload`, `version`, `phase`, `since`).
    ///
    /// # Errors
    /// What the command said.
    pub async fn secret_status(&self, secret: &str) -> Result<Value> {
        self.cli(&["secret", "status", secret]).await
    }

    /// Lets `agent` sync every secret of its workspace into `namespace`, or one secret only.
    ///
    /// # Errors
    /// What the command said.
    pub async fn grant(&self, agent: &str, namespace: &str, secret: Option<&str>) -> Result<Value> {
        let mut args = vec!["agent", "grant", agent, "--namespace", namespace];
        args.extend(secret.iter().flat_map(|secret| ["--secret", secret]));
        self.cli(&args).await
    }

    /// Bans an agent.
    ///
    /// # Errors
    /// What the command said.
    pub async fn revoke(&self, agent: &str) -> Result<Value> {
        self.cli(&["agent", "revoke", agent]).await
    }

    /// What the administrator sees of an agent; null before its first join.
    ///
    /// # Errors
    /// What the command said.
    pub async fn agent(&self, name: &str) -> Result<Value> {
        let list = self.cli(&["agent", "list"]).await?;
        let agents = list.as_array().context("a list of agents")?;
        Ok(agents.iter().find(|agent| agent["name"] == name).cloned().unwrap_or(Value::Null))
    }

    /// Kinds of the alarms that were raised, sorted.
    ///
    /// # Errors
    /// What the command said.
    pub async fn alarms(&self) -> Result<Vec<String>> {
        let list = self.cli(&["alarms"]).await?;
        let alarms = list.as_array().context("a list of alarms")?;
        let mut kinds: Vec<String> = alarms.iter().map(|a| a["kind"].as_str().unwrap_or_default().to_owned()).collect();
        kinds.sort();
        Ok(kinds)
    }

    /// How many lines of the log hold this text.
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Runs a command with `--output json` and returns what it printed.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub async fn cli(&self, args: &[&str]) -> Result<Value> {
        self.cli_stdin(args, "").await
    }

    /// [`Self::cli`] with `input` on standard input.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub async fn cli_stdin(&self, args: &[&str], input: &str) -> Result<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let text = process::run(self.command(&args), input.as_bytes()).await?.ok()?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        // The text may hold a token: only the place of the error is told.
        serde_json::from_str(&text).with_context(|| format!("`ennote-devcloud {}` printed no JSON", args.join(" ")))
    }

    /// Runs a command as a person would, with `--data` added.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        process::run(self.command(args), b"").await
    }

    /// Starts the server (again), on the same data and port.
    ///
    /// # Errors
    /// When it runs already or does not come up: the end of its log.
    pub async fn up(&self) -> Result<()> {
        ensure!(self.pid().is_none(), "devcloud runs already");
        let address = self.dir.join("address");
        if address.exists() {
            std::fs::remove_file(&address)?;
        }
        let serve = self.serve.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut command = self.command(&["serve", "--listen", &self.address(), "--address-file"]);
        command.arg(&address).args(serve);
        let process = Process::spawn("ennote-devcloud", command, &self.log_file())?;
        let accepting = wait::until("devcloud to accept connections", START_LIMIT, async || {
            std::fs::read_to_string(&address).context("no address file yet")
        });
        tokio::select! {
            accepting = accepting => drop(accepting.map_err(|_| process.failure())?),
            _ = process.wait() => return Err(process.failure()),
        }
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    /// Ends the server by SIGTERM: exit status and how long it took.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&self) -> Result<(ExitStatus, Duration)> {
        self.take()?.stop(STOP_GRACE).await
    }

    /// Ends the server by SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill9(&self) -> Result<()> {
        self.take()?.kill().await.map(drop)
    }

    /// [`Self::stop`], then [`Self::up`].
    ///
    /// # Errors
    /// When either fails.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.up().await
    }

    /// Other arguments of `serve` from the next [`Self::up`] on, as in shorter lifetimes.
    pub fn set_serve_args(&self, args: &[&str]) {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        *self.serve.lock().unwrap_or_else(PoisonError::into_inner) = args;
    }

    /// Folder of this run: data (unless given) and log.
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    fn take(&self) -> Result<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take().context("devcloud does not run")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_clear().arg("--data").arg(&self.data).args(args);
        command
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("ennote-devcloud.log")
    }
}
