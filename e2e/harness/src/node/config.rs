//! What containerd and the kubelet are told.

use super::ADDRESS;
use crate::tools::NodeTools;
use crate::world::tree;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:dev";

/// What starts the node.
pub(crate) fn script() -> PathBuf {
    tree().join("e2e/node/start.sh")
}

/// Writes all of it into `dir`, as start.sh wants it.
pub(crate) fn write(dir: &Path, kubeconfig: &Path, tools: &NodeTools) -> Result<()> {
    fs::create_dir_all(dir.join("cni")).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::copy(kubeconfig, dir.join("kubeconfig"))?;
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [{
            // No rule of a packet filter is made: pods reach the node and each other, and nothing else is there.
            "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": dir.join("cni-state"),
                "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    fs::write(dir.join("cni/pods.conflist"), bridge.to_string())?;
    fs::write(dir.join("containerd.toml"), containerd(dir, tools))?;
    fs::write(dir.join("resolv.conf"), "")?;
    fs::write(dir.join("kubelet.yaml"), kubelet(dir))?;
    Ok(())
}

fn containerd(dir: &Path, tools: &NodeTools) -> String {
    let (plug_ins, networks) = (tools.containerd().display(), dir.join("cni"));
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE no process may be made less likely to be killed when memory is short.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plug_ins}"
    conf_dir = "{}"
"#,
        networks.display()
    )
}

/// seccompDefault stays off: what confines a pod is what its manifest asks for.
fn kubelet(dir: &Path) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {ADDRESS}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
# No registry could bring an image back.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}}
# Volumes are looked at again this often; once a minute by default.
syncFrequency: 5s
resolvConf: {}
",
        dir.join("resolv.conf").display()
    )
}
