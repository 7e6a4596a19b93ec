//! The programs that scenarios run against: the control plane from `e2e/control-plane`, promtool from `e2e/monitoring`,
//! and `gitops` from `e2e/gitops`, which judges bindings as Helm, Flux and Argo CD do.

use crate::go_module::GoModule;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

const KUBERNETES: &str = "v1.36.3";
const CONTAINERD: &str = "v2.2.9";

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

/// Builds what is missing of the control plane and returns where it is. Blocks for minutes on a cold cache.
///
/// # Errors
/// When Go is missing or too old, or the build fails.
pub fn build(settings: &Settings) -> Result<Tools> {
    let module = GoModule {
        name: "control-plane",
        building: "building the control plane (once; about 6 min on two cores)",
        flags: control_plane_flags(),
    };
    let dir = module.build(settings, |draft| copy_stages(&module, &draft.join("stages")))?;
    Ok(Tools { bin: dir.join("bin"), stages: dir.join("stages"), assets: settings.assets.clone() })
}

/// The programs of the real node.
#[derive(Debug, Clone)]
pub struct NodeTools {
    kubelet: PathBuf,
    containerd: PathBuf,
}

impl NodeTools {
    /// The folder with the kubelet.
    pub fn kubelet(&self) -> &Path {
        &self.kubelet
    }

    /// The folder with containerd, its shim, `ctr` and the network's plug-ins.
    pub fn containerd(&self) -> &Path {
        &self.containerd
    }
}

/// Builds what is missing of the real node (all but runc, which wants a C library) and returns where it is. Blocks for minutes on
/// a cold cache.
///
/// # Errors
/// When Go is missing or too old, or the build fails.
pub fn node(settings: &Settings) -> Result<NodeTools> {
    let kubelet = GoModule {
        name: "node/kubelet",
        building: "building the kubelet (once; about 1 min on two cores when the control plane was just built, else 5)",
        flags: control_plane_flags(),
    };
    let kubelet = kubelet.build(settings, |_| Ok(()))?.join("bin");
    let link = format!("-s -w -X github.com/containerd/containerd/v2/version.Version={CONTAINERD}");
    let flags = ["-trimpath", "-tags", "no_btrfs no_devmapper no_zfs", "-ldflags", &link];
    let containerd = GoModule {
        name: "node/containerd",
        building: "building containerd and the network's plug-ins (once; about 2 min on two cores)",
        flags: flags.map(str::to_owned).into(),
    };
    let containerd = containerd.build(settings, |_| Ok(()))?.join("bin");
    Ok(NodeTools { kubelet, containerd })
}

/// Builds promtool where it is missing and returns its path. Blocks for minutes on a cold cache.
///
/// # Errors
/// When Go is missing or too old, or the build fails.
pub fn promtool(settings: &Settings) -> Result<PathBuf> {
    let flags = ["-trimpath", "-ldflags", "-s -w", "-tags", "remove_all_sd"];
    let module = GoModule {
        name: "monitoring",
        building: "building promtool (once; about 2 min on two cores)",
        // Rules are checked without the clients of the clouds that Prometheus finds its targets in.
        flags: flags.map(str::to_owned).into(),
    };
    let dir = module.build(settings, |_| Ok(()))?;
    Ok(dir.join("bin").join("promtool"))
}

/// Builds the judge of bindings, with kstatus and Argo CD in it, where it is missing and returns its path. Blocks for minutes on a
/// cold cache.
///
/// # Errors
/// When Go is missing or too old, or the build fails.
pub fn gitops(settings: &Settings) -> Result<PathBuf> {
    let module = GoModule {
        name: "gitops",
        building: "building Argo CD's health evaluator and kstatus (once; about 4 min on two cores)",
        flags: ["-trimpath", "-ldflags", "-s -w"].map(str::to_owned).into(),
    };
    let dir = module.build(settings, |_| Ok(()))?;
    Ok(dir.join("bin").join("gitops"))
}

/// Without the version the API server calls itself v0.0.0-master, and charts refuse it.
fn control_plane_flags() -> Vec<String> {
    let version = "k8s.io/component-base/version";
    let link = format!("-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor=36");
    vec!["-trimpath".to_owned(), "-ldflags".to_owned(), link]
}

fn copy_stages(module: &GoModule, to: &Path) -> Result<()> {
    let kwok = module.source_of("sigs.k8s.io/kwok")?;
    fs::create_dir_all(to)?;
    for kind in ["node", "pod"] {
        let from = kwok.join("kustomize/stage").join(kind).join("fast");
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
