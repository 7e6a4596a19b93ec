//! A real node: kubelet, containerd and runc in namespaces and cgroups of their own, which run what only a real pod can prove.
//!
//! Its network is cut off from the machine's. What pods may reach of this machine's loopback is led there, port by port: the
//! sockets are opened inside the node's network, the connections are made outside. So there is no kube-proxy, and nothing of
//! the machine's own network changes.

mod ability;
mod binaries;
mod config;
mod container;
mod image;
mod network;

pub use ability::why_not;
pub use binaries::Binaries;
pub use container::{Confinement, Container};

use crate::cable::Cable;
use crate::control_plane::ControlPlane;
use crate::process::{self, Process};
use crate::tools::{self, NodeTools};
use crate::{cluster, wait, watchdog};
use anyhow::{Context, Result, bail, ensure};
use image::Image;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::Api;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Its name in the cluster.
pub const NAME: &str = "real-node";
/// Where pods find what [`Node::lead`] leads there.
pub const ADDRESS: &str = "10.89.0.1";
/// Address of Service kubernetes, the first of the range that the API server is given.
pub(crate) const API_SERVER: &str = "10.96.0.1";
/// The agent's image.
pub const AGENT_IMAGE: &str = "localhost/ennote-agent:dev";
/// The image of workloads: prints what they read, then waits.
pub const WORKLOAD_IMAGE: &str = "localhost/ennote-pod:dev";

/// Where the programs of the machine are that the node uses.
const SYSTEM: [&str; 6] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running node. Dropping it kills every process of it.
pub struct Node {
    // Before `cgroups`: the processes go first.
    process: Process,
    _cgroups: Cgroups,
    /// Process 1 of its namespaces, as this machine counts.
    init: u32,
    tools: NodeTools,
    dir: PathBuf,
    cables: Mutex<Vec<Cable>>,
    /// Carries the connections for as long as the node lives, whichever test opened them.
    runtime: Option<Runtime>,
}

impl Node {
    /// Starts it as the only node of `plane` and returns when pods can be scheduled, with both images loaded.
    ///
    /// # Errors
    /// What did not start, and the end of its log.
    pub async fn start(plane: &ControlPlane, binaries: &Binaries) -> Result<Self> {
        let settings = plane.settings().clone();
        let tools = tokio::task::spawn_blocking(move || tools::node(&settings)).await??;
        let dir = plane.dir().join("node");
        config::write(&dir, plane.node_kubeconfig()?, &tools)?;
        // The process id keeps apart the nodes of several runs on one machine.
        let name = format!("{NAME}-{}", std::process::id());
        let cgroups = Cgroups::claim(&name)?;
        let mut command = Command::new("bash");
        command.arg(config::script()).args([NAME, &name]).arg(&dir);
        let path =
            std::env::join_paths([tools.kubelet(), tools.containerd()].into_iter().chain(SYSTEM.map(Path::new)))?;
        command.env_clear().env("PATH", path).current_dir(&dir);
        let process = Process::spawn("the real node", command, &dir.join("node.log"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut node =
            Self { process, _cgroups: cgroups, init: 0, tools, dir, cables: Mutex::default(), runtime: Some(runtime) };
        node.init = node.guard("process 1 of the node", async |node| network::init_of(node.process.pid())).await?;
        let api_server = plane.ports().first().copied().context("the API server has no port of ours")?;
        let from = format!("{API_SERVER}:443").parse()?;
        node.guard("the node's network", async |node| node.open(from, &format!("127.0.0.1:{api_server}"))).await?;
        node.guard("containerd to answer", async |node| node.ctr(&["version"]).await).await?;
        node.load(&Image { name: config::PAUSE_IMAGE, user: "65535:65535", program: &binaries.pod }).await?;
        node.load(&Image { name: WORKLOAD_IMAGE, user: "65532:65532", program: &binaries.pod }).await?;
        node.load(&Image { name: AGENT_IMAGE, user: "65532:65532", program: &binaries.agent }).await?;
        let nodes: Api<NodeObject> = Api::all(plane.client().await?);
        node.guard("the node to be Ready", async |_| {
            ensure!(cluster::is_ready(&nodes.get(NAME).await?), "it is not Ready, or tainted");
            Ok(())
        })
        .await?;
        Ok(node)
    }

    /// Leads [`ADDRESS`]:`port` inside the node to 127.0.0.1:`port` of this machine.
    ///
    /// # Errors
    /// When the port is taken there.
    pub fn lead(&self, port: u16) -> Result<()> {
        self.open(format!("{ADDRESS}:{port}").parse()?, &format!("127.0.0.1:{port}"))
    }

    /// The one container of a pod that runs on it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn container(&self, pod: &Pod) -> Result<Container> {
        Container::of(pod)
    }

    /// What the containers of a pod have printed, the earlier ones first.
    ///
    /// # Errors
    /// When the kubelet has no log of it.
    pub fn log(&self, pod: &Pod) -> Result<String> {
        container::log(&self.dir.join("var/log/pods"), pod)
    }

    /// Ends the kubelet; it comes back by itself, as a service manager would have it. Pods run on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn restart_kubelet(&self) -> Result<()> {
        network::kill_by_name(self.init, "kubelet")
    }

    /// The last lines of its logs.
    pub fn log_tail(&self, lines: usize) -> String {
        let files = ["node.log", "containerd.log", "kubelet.log"];
        files.map(|file| format!("--- {file}\n{}\n", process::tail(&self.dir.join(file), lines))).concat()
    }

    /// Kills it and returns when all of it is gone.
    ///
    /// # Errors
    /// When its end could not be learned.
    pub async fn stop(&self) -> Result<()> {
        self.process.kill().await.map(drop)
    }

    async fn load(&self, image: &Image<'_>) -> Result<()> {
        let archive = self.dir.join("image.tar");
        image.write(&archive)?;
        let path = archive.display().to_string();
        self.ctr(&["--namespace", "k8s.io", "images", "import", &path]).await?;
        Ok(fs::remove_file(&archive)?)
    }

    async fn ctr(&self, args: &[&str]) -> Result<()> {
        // A socket in the file system is reached from any network.
        let socket = format!("/proc/{}/root/run/containerd/containerd.sock", self.init);
        let mut command = Command::new(self.tools.containerd().join("ctr"));
        command.env_clear().args(["--address", &socket]).args(args);
        process::run(command, b"").await?.ok().map(drop)
    }

    fn open(&self, from: SocketAddr, to: &str) -> Result<()> {
        let listener = network::listen(self.init, from)?;
        let runtime = self.runtime.as_ref().context("the node has ended")?;
        let _inside = runtime.enter();
        let cable = Cable::of(listener, to)?;
        self.cables.lock().unwrap_or_else(PoisonError::into_inner).push(cable);
        Ok(())
    }

    /// Tries `attempt` until it succeeds, but gives up as soon as the node has ended.
    async fn guard<T>(&self, what: &str, mut attempt: impl AsyncFnMut(&Self) -> Result<T>) -> Result<T> {
        tokio::select! {
            result = wait::until(what, START_LIMIT, async || attempt(self).await) => {
                result.map_err(|error| anyhow::Error::msg(format!("{error:#}\n{}", self.log_tail(15))))
            }
            _ = self.process.wait() => bail!("{:#}\n{}", self.process.failure(), self.log_tail(15)),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A runtime may not end by itself inside another one.
        if let Some(runtime) = self.runtime.take() {
            self.cables.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
            runtime.shutdown_background();
        }
        self.process.signal(rustix::process::Signal::KILL);
    }
}

/// The cgroups that the node makes: one folder in each tree. They outlive its processes, and `rm -r` cannot remove them.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn claim(name: &str) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
        let folders: Vec<PathBuf> = ability::trees(&own).map(|(tree, path)| tree.join(path).join(name)).collect();
        for folder in &folders {
            watchdog::remove_at_end(folder)?;
        }
        Ok(Self(folders))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.0 {
            if remove_tree(folder).is_ok() {
                watchdog::keep(folder);
            }
        }
    }
}

/// Removes folders alone, the inner ones first: that is how cgroups go. The kernel needs a moment after their last process.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    for _ in 0..50 {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(20))
            }
            result => return result,
        }
    }
    fs::remove_dir(folder)
}
