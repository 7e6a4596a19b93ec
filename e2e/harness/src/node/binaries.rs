//! The static programs that the node's images hold.

use crate::settings::Settings;
use crate::world::tree;
use anyhow::{Context, Result, ensure};
use std::fs;
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
    /// Builds them from the dependencies that the workspace was built with, and puts them into `static` beside the others.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build(settings: &Settings) -> Result<Self> {
        // target/debug/ennote-agent
        let built = settings.binary("ennote-agent")?;
        let profile = built.parent().context("a program is in a folder")?;
        let target = profile.parent().context("the agent is not in a target folder")?;
        let mut command = Command::new("cargo");
        command.args(["build", "--workspace", "--locked", "--bin", "ennote-agent", "--bin", "ennote-pod"]);
        command.arg("--target-dir").arg(target).current_dir(tree());
        command.env("RUSTC_WORKSPACE_WRAPPER", tree().join("e2e/node/static.sh"));
        // What cargo tells the tests that it runs: build scripts that look at it (ring's) would run again, now and the next time.
        for (name, _) in std::env::vars_os() {
            let told =
                name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
            if told {
                command.env_remove(name);
            }
        }
        ensure!(command.status().context("cannot run `cargo`")?.success(), "the static build failed");
        let kept = profile.join("static");
        fs::create_dir_all(&kept)?;
        let keep = |name: &str| -> Result<PathBuf> {
            // cargo puts the others back in their place when it builds the next time.
            fs::copy(profile.join(name), kept.join(name)).with_context(|| format!("cannot keep the static {name}"))?;
            Ok(kept.join(name))
        };
        Ok(Self { agent: keep("ennote-agent")?, pod: keep("ennote-pod")? })
    }
}
