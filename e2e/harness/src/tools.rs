//! The programs of the control plane: built once by `go install tool` from `e2e/control-plane`, kept outside the tree
//! under the hash of their inputs.

use crate::progress::Progress;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const KUBERNETES: &str = "v1.36.3";

/// The built programs and the stages that KWOK plays.
#[derive(Debug, Clone)]
pub struct Tools {
    bin: PathBuf,
    stages: PathBuf,
    assets: Option<PathBuf>,
}

impl Tools {
    /// Path of a program: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kubectl`, `kwok` or
    /// `helm`. The first two and kubectl come from KUBEBUILDER_ASSETS when that is set.
    ///
    /// # Errors
    /// When KUBEBUILDER_ASSETS is set and lacks it.
    pub fn path(&self, program: &str) -> Result<PathBuf> {
        let path = match &self.assets {
            Some(assets) if ["etcd", "kube-apiserver", "kubectl"].contains(&program) => assets.join(program),
            // The package of etcd is called `server`, and Go names programs after packages.
            _ => self.bin.join(if program == "etcd" { "server" } else { program }),
        };
        if !path.is_file() {
            bail!("{} does not exist; unset KUBEBUILDER_ASSETS to use the programs built here", path.display());
        }
        Ok(path)
    }

    /// The folder of the programs that were built here.
    pub fn folder(&self) -> &Path {
        &self.bin
    }

    /// KWOK's stage files: how nodes become ready and pods run, complete and go.
    ///
    /// # Errors
    /// When the cache was damaged.
    pub(crate) fn stages(&self) -> Result<Vec<PathBuf>> {
        yaml_files(&self.stages)
    }
}

/// Builds what is missing and returns where it is. Progress goes to standard error; a second process waits for the
/// first. Blocks for minutes on a cold cache.
///
/// # Errors
/// When Go is missing or too old, or the build fails.
pub fn build(settings: &Settings) -> Result<Tools> {
    let module = module();
    let go = go_version(&module)?;
    let dir = settings.cache_dir()?.join("control-plane").join(fingerprint(&module, &go)?);
    let tools = Tools { bin: dir.join("bin"), stages: dir.join("stages"), assets: settings.assets.clone() };
    if !dir.is_dir() {
        build_into(&module, &dir)?;
    }
    Ok(tools)
}

fn build_into(module: &Path, dir: &Path) -> Result<()> {
    let parent = dir.parent().context("the cache has no parent folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let lock = File::create(dir.with_extension("lock"))?;
    if lock.try_lock().is_err() {
        let progress = Progress::start("waiting for another process that builds the control plane");
        lock.lock().context("cannot lock the cache of the control plane")?;
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
    let progress = Progress::start("building the control plane (once; about 6 min on two cores)");
    // Listing downloads every module first, so that the build's progress is only about compiling.
    let packages = progress.follow(go(module).args(["list", "-deps", "tool"]))?.lines().count();
    progress.expect(packages);
    progress.follow(
        go(module).env("GOBIN", &bin).env("CGO_ENABLED", "0").args(["install", "-v"]).args(flags()).arg("tool"),
    )?;
    copy_stages(module, &draft.join("stages"))?;
    fs::rename(&draft, dir).with_context(|| format!("cannot move the build to {}", dir.display()))?;
    progress.done("the control plane is built");
    Ok(())
}

/// Without the version the API server calls itself v0.0.0-master, and charts refuse it.
fn flags() -> Vec<String> {
    let version = "k8s.io/component-base/version";
    let link = format!("-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor=36");
    vec!["-trimpath".to_owned(), "-ldflags".to_owned(), link]
}

fn copy_stages(module: &Path, to: &Path) -> Result<()> {
    let kwok = output(go(module).args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]))?;
    fs::create_dir_all(to)?;
    for kind in ["node", "pod"] {
        let from = Path::new(kwok.trim()).join("kustomize/stage").join(kind).join("fast");
        for file in yaml_files(&from)? {
            if let Some(name) = file.file_name().filter(|name| *name != "kustomization.yaml") {
                // Not fs::copy: it would keep the read-only mode of the module cache.
                fs::write(to.join(name), fs::read(&file)?)?;
            }
        }
    }
    Ok(())
}

fn yaml_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read KWOK's stages in {}", dir.display()))?;
    let mut files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// `e2e/control-plane` of the tree this library was built from.
fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("control-plane")
}

fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    // A go.work above the tree would change what is built.
    command.current_dir(module).env("GOWORK", "off").env("GOFLAGS", "-mod=readonly");
    command
}

fn go_version(module: &Path) -> Result<String> {
    let wanted = "e2e/control-plane needs Go 1.26 or newer (an older one from 1.21 on fetches it by itself): \
                  https://go.dev/doc/install";
    output(go(module).arg("version")).context(wanted)
}

fn fingerprint(module: &Path, go: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        let path = module.join(file);
        hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        hash.update([0]);
    }
    hash.update(flags().join(" "));
    hash.update([0]);
    hash.update(go.trim());
    Ok(data_encoding::HEXLOWER.encode(&hash.finalize()[..12]))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run `go`; is it installed and on the PATH?")?;
    if !output.status.success() {
        bail!("`go` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
