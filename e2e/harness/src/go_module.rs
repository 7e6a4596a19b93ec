//! Programs of pinned Go modules: each folder with a go.mod and `tool` lines, and a main.go if the program is ours, is built once by
//! `go install tool` and kept outside the tree under the hash of its inputs.

use crate::progress::Progress;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A go.mod of ours.
#[derive(Debug)]
pub(crate) struct GoModule {
    /// Its folder under e2e/, and its name in the cache.
    pub(crate) name: &'static str,
    /// What a person reads while it is built: what and for how long.
    pub(crate) building: &'static str,
    /// Further arguments of `go install`; part of the hash.
    pub(crate) flags: Vec<String>,
}

impl GoModule {
    /// Builds what is missing and gives the folder that holds `bin`, and beside it what `also` puts there. Progress goes to
    /// standard error; a second process waits for the first.
    ///
    /// # Errors
    /// When Go is missing or too old, or the build fails.
    pub(crate) fn build(&self, settings: &Settings, also: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let wanted = format!(
            "e2e/{} needs Go 1.26 or newer (an older one from 1.21 on fetches it by itself): https://go.dev/doc/install",
            self.name
        );
        let go = output(self.go().arg("version")).context(wanted)?;
        let dir = settings.cache_dir()?.join(self.name).join(self.fingerprint(&go)?);
        if !dir.is_dir() {
            self.build_into(&dir, also)?;
        }
        Ok(dir)
    }

    /// Where the module cache has another module that this one requires.
    pub(crate) fn source_of(&self, module: &str) -> Result<PathBuf> {
        let dir = output(self.go().args(["list", "-m", "-f", "{{.Dir}}", module]))?;
        Ok(PathBuf::from(dir.trim()))
    }

    fn build_into(&self, dir: &Path, also: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let parent = dir.parent().context("the cache has no parent folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let lock = File::create(dir.with_extension("lock"))?;
        if lock.try_lock().is_err() {
            let progress = Progress::start("waiting for another process that builds the same");
            lock.lock().with_context(|| format!("cannot lock the cache of e2e/{}", self.name))?;
            progress.done("the other build has ended");
        }
        if dir.is_dir() {
            return Ok(());
        }
        let draft = dir.with_extension("draft");
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        let bin = draft.join("bin");
        fs::create_dir_all(&bin)?;
        let progress = Progress::start(self.building);
        // Listing downloads every module first, so that the build's progress is only about compiling.
        let listed = progress.follow(self.go().args(["list", "-deps"]).args(&self.flags).arg("tool"))?;
        progress.expect(listed.lines().count());
        let mut install = self.go();
        install.env("GOBIN", &bin).env("CGO_ENABLED", "0").args(["install", "-v"]).args(&self.flags).arg("tool");
        progress.follow(&mut install)?;
        also(&draft)?;
        fs::rename(&draft, dir).with_context(|| format!("cannot move the build to {}", dir.display()))?;
        progress.done("built");
        Ok(())
    }

    fn fingerprint(&self, go: &str) -> Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            let path = self.folder().join(file);
            hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            hash.update([0]);
        }
        if let Ok(program) = fs::read(self.folder().join("main.go")) {
            hash.update(program);
            hash.update([0]);
        }
        hash.update(self.flags.join(" "));
        hash.update([0]);
        hash.update(go.trim());
        Ok(data_encoding::HEXLOWER.encode(&hash.finalize()[..12]))
    }

    /// In the tree that this library was built from.
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(self.name)
    }

    fn go(&self) -> Command {
        let mut command = Command::new("go");
        // A go.work above the tree would change what is built.
        command.current_dir(self.folder()).env("GOWORK", "off").env("GOFLAGS", "-mod=readonly");
        command
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run `go`; is it installed and on the PATH?")?;
    if !output.status.success() {
        bail!("`go` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
