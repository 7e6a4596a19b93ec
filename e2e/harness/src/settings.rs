//! What the environment may say to the harness. The only reader of it.

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;

/// Settings of the harness, each an environment variable.
#[derive(Parser, Debug, Clone)]
#[command(name = "ennote-harness")]
pub struct Settings {
    /// Folder with etcd, kube-apiserver and kubectl to use instead of our own (the variable of envtest).
    #[arg(long, env = "KUBEBUILDER_ASSETS")]
    pub assets: Option<PathBuf>,
    /// A cluster to use instead of a fresh control plane, with cluster-admin rights. Its audit log cannot be read, so what is
    /// counted there fails; the demo and everything else works.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Where built tools are kept. Default: $XDG_CACHE_HOME, else ~/.cache.
    #[arg(long, env = "XDG_CACHE_HOME")]
    pub cache: Option<PathBuf>,
    /// Home directory, for the default of the cache.
    #[arg(long, env = "HOME")]
    pub home: Option<PathBuf>,
    /// Keep the logs and data of every run.
    #[arg(long, env = "ENNOTE_E2E_KEEP", default_value_t = false, action = clap::ArgAction::Set)]
    pub keep: bool,
    /// Folder with the binaries ennote-agent and ennote-devcloud. Default: beside the running program.
    #[arg(long, env = "ENNOTE_E2E_BIN")]
    pub binaries: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// When a variable holds what it cannot mean.
    pub fn from_env() -> Result<Self> {
        let mut settings = Self::try_parse_from(["ennote-harness"])?;
        // An empty variable means an absent one, as it does for the tools that share these names.
        for path in [&mut settings.assets, &mut settings.cache, &mut settings.binaries, &mut settings.kubeconfig] {
            *path = path.take().filter(|path| !path.as_os_str().is_empty());
        }
        Ok(settings)
    }

    /// The folder for what is built once and used by every run.
    ///
    /// # Errors
    /// When neither XDG_CACHE_HOME nor HOME is set.
    pub fn cache_dir(&self) -> Result<PathBuf> {
        let cache = self.cache.clone().or_else(|| self.home.as_ref().map(|home| home.join(".cache")));
        Ok(cache.context("set XDG_CACHE_HOME or HOME: the built control plane is kept there")?.join("ennote-agent"))
    }

    /// A binary of this workspace: from ENNOTE_E2E_BIN, else beside the running program or one folder up (tests run
    /// from `target/debug/deps`).
    ///
    /// # Errors
    /// When it was not built yet: the command that builds it.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let here = std::env::current_exe().context("cannot find the running program")?;
        let places: Vec<PathBuf> = match &self.binaries {
            Some(dir) => vec![dir.clone()],
            None => here.ancestors().skip(1).take(2).map(PathBuf::from).collect(),
        };
        places
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .with_context(|| format!("{name} is not built; run: cargo build -p {name}"))
    }
}
