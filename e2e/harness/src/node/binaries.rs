//! The static programs that the node's images hold.

use crate::settings::Settings;
use crate::world::tree;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// Static builds of this workspace.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The agent.
    pub agent: PathBuf,
    /// What other pods run.
    pub pod: PathBuf,
}

impl Binaries {
    /// Builds them, in a target folder of their own beside the running program's.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build(settings: &Settings) -> Result<Self> {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        // target/debug/deps/PROGRAM
        let target = settings.binary("ennote-agent")?;
        let target = target.ancestors().nth(2).context("the agent is not in a target folder")?.to_owned();
        let mut command = Command::new("cargo");
        command.args(["build", "--locked", "--package", "ennote-agent", "--package", "ennote-pod", "--bins"]);
        command.args(["--target", &triple]).arg("--target-dir").arg(&target).current_dir(tree());
        // The C library too: the image holds nothing else.
        command.env("RUSTFLAGS", "-C target-feature=+crt-static");
        ensure!(command.status().context("cannot run `cargo`")?.success(), "the static build failed");
        let folder = target.join(triple).join("debug");
        Ok(Self { agent: folder.join("ennote-agent"), pod: folder.join("ennote-pod") })
    }
}
