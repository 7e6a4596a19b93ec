//! A container as the kernel sees it.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use procfs::process::{Process, all_processes};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A running container: its first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Process id on this machine.
    pub pid: i32,
    /// Its id at containerd.
    pub id: String,
    /// Its folder in the tree of the memory cgroup.
    memory: PathBuf,
}

/// What the kernel lets a process do.
#[derive(Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Real, effective, saved and file system UID.
    pub uids: [u32; 4],
    /// The same of the GID.
    pub gids: [u32; 4],
    /// Inheritable, permitted, effective, bounding and ambient capabilities.
    pub capabilities: [u64; 5],
    /// 1: no program that it starts gains rights.
    pub no_new_privs: u32,
    /// 2: a filter judges its system calls.
    pub seccomp: u32,
    /// How its root file system is mounted: `ro` is among these.
    pub root: Vec<String>,
}

impl Container {
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        let name = pod.name_any();
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let status = statuses.and_then(|all| all.first()).with_context(|| format!("pod {name} has no container"))?;
        let id = status.container_id.as_deref().and_then(|id| id.strip_prefix("containerd://"));
        let id = id.with_context(|| format!("the container of pod {name} was never started"))?;
        for process in all_processes()? {
            // One that has ended meanwhile is none of ours.
            let Ok(process) = process else { continue };
            let Ok(cgroups) = process.cgroups() else { continue };
            let Some(memory) = cgroups.0.iter().find(|group| group.controllers.iter().any(|c| c == "memory")) else {
                continue;
            };
            if memory.pathname.ends_with(id) {
                let memory = Path::new("/sys/fs/cgroup/memory").join(memory.pathname.trim_start_matches('/'));
                return Ok(Self { pid: process.pid, id: id.to_owned(), memory });
            }
        }
        bail!("no process of container {id} of pod {name} runs")
    }

    /// What its process is held to.
    ///
    /// # Errors
    /// When it has ended.
    pub fn confinement(&self) -> Result<Confinement> {
        let process = Process::new(self.pid)?;
        let status = process.status()?;
        let root = process.mountinfo()?.into_iter().find(|mount| mount.mount_point == Path::new("/"));
        Ok(Confinement {
            uids: [status.ruid, status.euid, status.suid, status.fuid],
            gids: [status.rgid, status.egid, status.sgid, status.fgid],
            capabilities: [
                status.capinh,
                status.capprm,
                status.capeff,
                status.capbnd.context("no CapBnd")?,
                status.capamb.context("no CapAmb")?,
            ],
            no_new_privs: status.nonewprivs.context("no NoNewPrivs")?.try_into()?,
            seccomp: status.seccomp.context("no Seccomp")?,
            root: root.context("it has no root")?.mount_options.into_keys().collect(),
        })
    }

    /// The limit of its memory, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory_limit(&self) -> Result<u64> {
        Ok(fs::read_to_string(self.memory.join("memory.limit_in_bytes"))?.trim().parse()?)
    }

    /// Lowers the limit of its memory step by step as far as the kernel lets it, so that what it asks for next is too much.
    ///
    /// # Errors
    /// When it has ended.
    pub fn squeeze(&self) -> Result<()> {
        let used = fs::read_to_string(self.memory.join("memory.usage_in_bytes"))?;
        let mut limit: u64 = used.trim().parse()?;
        loop {
            match fs::write(self.memory.join("memory.limit_in_bytes"), limit.to_string()) {
                Ok(()) => limit = limit.saturating_sub(256 << 10),
                Err(error) if error.kind() == ErrorKind::ResourceBusy => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A file of it, as its process sees the path.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_raw(self.pid).context("a process has an id")?, signal)?)
    }
}

/// What the kubelet has kept of a pod's output, without the time and the stream before each line.
pub(crate) fn log(folder: &Path, pod: &Pod) -> Result<String> {
    let uid = pod.uid().context("the pod has no UID")?;
    let pods = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let of_pod = pods.iter().find(|entry| entry.file_name().to_string_lossy().ends_with(&uid));
    let of_pod = of_pod.with_context(|| format!("there is no log of pod {} yet", pod.name_any()))?;
    let mut files = Vec::new();
    for container in fs::read_dir(of_pod.path())? {
        for file in fs::read_dir(container?.path())? {
            files.push(file?.path());
        }
    }
    // 0.log, 1.log and so on: one a start.
    files.sort_by_key(|file| (file.as_os_str().len(), file.clone()));
    let mut text = String::new();
    for file in files {
        for line in fs::read_to_string(file)?.lines() {
            text.push_str(line.splitn(4, ' ').last().unwrap_or_default());
            text.push('\n');
        }
    }
    Ok(text)
}
