//! Whether this machine can run the node, and the sentence that says why it cannot.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that the node takes from the machine, each with the package that brings it on Debian.
const PROGRAMS: [(&str, &str); 5] =
    [("runc", "runc"), ("ip", "iproute2"), ("unshare", "util-linux"), ("mount", "mount"), ("bash", "bash")];

/// Why no node can run here, in one sentence; none when it can.
pub fn why_not() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("the real node needs Linux".to_owned());
    }
    if !rustix::process::getuid().is_root() {
        return Some("the real node needs root, for namespaces, mounts and cgroups".to_owned());
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if !trees(&own).any(|(tree, _)| tree == Path::new("/sys/fs/cgroup/memory")) {
        return Some("the real node needs cgroups of version 1, which it was tried on".to_owned());
    }
    // What start.sh asks of the kernel.
    let namespaces = ["--cgroup", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "true"];
    match Command::new("unshare").args(namespaces).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Some(format!("no namespaces here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => return Some(format!("`unshare` cannot be run: {error}")),
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).collect();
    if missing.is_empty() {
        return None;
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    Some(format!("the real node lacks programs of the system: apt-get install {}", packages.join(" ")))
}

/// The trees of cgroups of version 1 that the kernel has here, each with the path of the calling process in it, from the text of
/// /proc/self/cgroup.
pub(crate) fn trees(own: &str) -> impl Iterator<Item = (PathBuf, &str)> {
    own.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let tree = Path::new("/sys/fs/cgroup").join(controllers.strip_prefix("name=").unwrap_or(controllers));
        (!controllers.is_empty()).then(|| (tree, path.trim_matches('/')))
    })
}

fn is_installed(program: &str) -> bool {
    super::SYSTEM.iter().any(|folder| Path::new(folder).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_version_1_are_found_by_their_controllers() {
        let own = "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/user.slice\n";
        let found: Vec<_> = trees(own).map(|(tree, path)| format!("{} {path}", tree.display())).collect();
        assert_eq!(found, ["/sys/fs/cgroup/systemd ", "/sys/fs/cgroup/memory a/b", "/sys/fs/cgroup/cpu,cpuacct "]);
    }
}
