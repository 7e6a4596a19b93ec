//! The command line of each component. STACK.md section 7 says why each flag is there.

use crate::credentials::{Credentials, SigningKey};
use crate::process::Process;
use crate::tools::Tools;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// The ports of one control plane, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) api_server: u16,
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
}

/// What every component is started from.
#[derive(Debug)]
pub(crate) struct Components<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) dir: &'a Path,
    pub(crate) ports: Ports,
    pub(crate) files: &'a Credentials,
}

impl Components<'_> {
    pub(crate) fn etcd(&self) -> Result<Process> {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let mut command = self.program("etcd")?;
        command.arg(format!("--data-dir={}", self.dir.join("etcd").display()));
        command.args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")]);
        command.args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")]);
        // The data is thrown away after the run.
        command.args([format!("--initial-cluster=default={peer}"), "--unsafe-no-fsync".to_owned()]);
        self.spawn("etcd", command)
    }

    /// It signs by the last of `keys`, and publishes and takes them all.
    pub(crate) fn api_server(&self, keys: &[SigningKey], extra: &[String]) -> Result<Process> {
        let mut command = self.program("kube-apiserver")?;
        command.args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--secure-port={}", self.ports.api_server),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", self.files.certificates.display()),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--token-auth-file={}", self.files.tokens.display()),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--profiling=false".to_owned(),
            format!("--audit-policy-file={}", self.files.audit_policy.display()),
            format!("--audit-log-path={}", self.dir.join("audit.log").display()),
        ]);
        // It signs under the first issuer that it is given.
        if !extra.iter().any(|arg| arg.starts_with("--service-account-issuer=")) {
            command.arg("--service-account-issuer=https://kubernetes.default.svc");
        }
        command.args(keys.iter().map(|key| format!("--service-account-key-file={}", key.public.display())));
        let signing = keys.last().unwrap_or(&self.files.signing_key);
        command.arg(format!("--service-account-signing-key-file={}", signing.private.display()));
        command.args(extra);
        self.spawn("kube-apiserver", command)
    }

    pub(crate) fn controller_manager(&self) -> Result<Process> {
        let mut command = self.program("kube-controller-manager")?;
        command.args([
            format!("--kubeconfig={}", self.files.controller_manager.display()),
            format!("--service-account-private-key-file={}", self.files.signing_key.private.display()),
            format!("--root-ca-file={}", self.files.certificates.join("apiserver.crt").display()),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        self.spawn("kube-controller-manager", command)
    }

    pub(crate) fn scheduler(&self) -> Result<Process> {
        let mut command = self.program("kube-scheduler")?;
        let kubeconfig = format!("--kubeconfig={}", self.files.scheduler.display());
        command.args([kubeconfig, "--leader-elect=false".to_owned(), "--secure-port=0".to_owned()]);
        self.spawn("kube-scheduler", command)
    }

    pub(crate) fn kwok(&self) -> Result<Process> {
        let mut command = self.program("kwok")?;
        command.arg(format!("--kubeconfig={}", self.files.kwok.display()));
        command.args(["--manage-all-nodes=true", "--node-lease-duration-seconds=40"]);
        for stage in self.tools.stages()? {
            command.arg("--config").arg(stage);
        }
        self.spawn("kwok", command)
    }

    fn program(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.tools.path(name)?);
        // Nothing of the caller's environment (proxies, kubeconfigs, home) reaches a component.
        command.env_clear().env("HOME", self.dir).current_dir(self.dir);
        Ok(command)
    }

    fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(name, command, &self.dir.join(format!("{name}.log")))
    }
}
