//! Which Secrets a pod template reads.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use std::collections::BTreeSet;

/// Names of the Secrets that the containers of this pod read by env, envFrom, volumes and projected volumes, init containers
/// and sidecars included. Image pull secrets do not count: no container reads them.
pub fn secrets_read(pod: &PodSpec) -> BTreeSet<String> {
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let mut names: BTreeSet<String> = containers.flat_map(by_environment).collect();
    for volume in pod.volumes.iter().flatten() {
        names.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        names.extend(sources.filter_map(|s| Some(s.secret.as_ref()?.name.clone())));
    }
    names.remove("");
    names
}

fn by_environment(container: &Container) -> impl Iterator<Item = String> {
    let keys = container
        .env
        .iter()
        .flatten()
        .filter_map(|v| Some(v.value_from.as_ref()?.secret_key_ref.as_ref()?.name.clone()));
    let whole = container.env_from.iter().flatten().filter_map(|s| Some(s.secret_ref.as_ref()?.name.clone()));
    keys.chain(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_read_a_secret_is_seen() {
        let pod: PodSpec = serde_json::from_value(json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c",
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}, {"name": "B", "value": "x"}],
                "envFrom": [{"secretRef": {"name": "env-from"}}, {"configMapRef": {"name": "no"}}]}],
            "initContainers": [
                {"name": "i", "envFrom": [{"secretRef": {"name": "init"}}]},
                {"name": "s", "restartPolicy": "Always", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sidecar", "key": "k"}}}]}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "volume"}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "no"}}]}},
                {"name": "e", "emptyDir": {}}]
        }))
        .unwrap();
        let want = ["env", "env-from", "init", "projected", "sidecar", "volume"].map(str::to_owned);
        assert_eq!(secrets_read(&pod), BTreeSet::from(want));
    }
}
