//! Which keys of which Secrets a pod template reads.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The keys of one Secret that a pod template reads.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum KeysRead {
    /// Whatever keys there are: by envFrom, or by a volume without items.
    All,
    /// These, whether the Secret has them or not.
    Some(BTreeSet<String>),
}

impl KeysRead {
    /// Whether any of these keys is read.
    pub fn any_of(&self, keys: &BTreeSet<String>) -> bool {
        match self {
            Self::All => !keys.is_empty(),
            Self::Some(read) => !read.is_disjoint(keys),
        }
    }
}

/// The Secrets that the containers of this pod spec read by env, envFrom, volumes and projected volumes, init containers and
/// sidecars included; a reference that is optional is a reference. Image pull secrets do not count: no container reads them.
/// Nor do ephemeral containers: no template has one.
///
/// Of JSON, because the template in an Argo Rollout is only nearly one of Kubernetes: its API server takes `cpu: 1` there.
pub fn secrets_read(pod: &Value) -> BTreeMap<String, KeysRead> {
    let mut reads = Reads::default();
    for container in list(&pod["containers"]).chain(list(&pod["initContainers"])) {
        for variable in list(&container["env"]) {
            let reference = &variable["valueFrom"]["secretKeyRef"];
            reads.keys(&reference["name"], [&reference["key"]].into_iter());
        }
        for source in list(&container["envFrom"]) {
            reads.all(&source["secretRef"]["name"]);
        }
    }
    for volume in list(&pod["volumes"]) {
        reads.files(&volume["secret"]["secretName"], &volume["secret"]["items"]);
        for source in list(&volume["projected"]["sources"]) {
            reads.files(&source["secret"]["name"], &source["secret"]["items"]);
        }
    }
    reads.0
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[derive(Default)]
struct Reads(BTreeMap<String, KeysRead>);

impl Reads {
    fn all(&mut self, secret: &Value) {
        if let Some(name) = secret.as_str().filter(|name| !name.is_empty()) {
            self.0.insert(name.to_owned(), KeysRead::All);
        }
    }

    fn keys<'a>(&mut self, secret: &Value, keys: impl Iterator<Item = &'a Value>) {
        let Some(name) = secret.as_str().filter(|name| !name.is_empty()) else { return };
        let read = self.0.entry(name.to_owned()).or_insert_with(|| KeysRead::Some(BTreeSet::new()));
        if let KeysRead::Some(known) = read {
            known.extend(keys.filter_map(Value::as_str).map(str::to_owned));
        }
    }

    fn files(&mut self, secret: &Value, items: &Value) {
        match items.as_array() {
            Some(items) if !items.is_empty() => self.keys(secret, items.iter().map(|item| &item["key"])),
            _ => self.all(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;
    use serde_json::json;

    fn some(keys: &[&str]) -> KeysRead {
        KeysRead::Some(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    #[test]
    fn every_way_to_read_a_secret_is_seen_with_its_keys() {
        let pod = json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c",
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k", "optional": true}}},
                    {"name": "B", "value": "x"}, {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "envFrom": [{"secretRef": {"name": "env-from", "optional": true}}, {"configMapRef": {"name": "no"}}]}],
            "initContainers": [
                {"name": "i", "envFrom": [{"secretRef": {"name": "init"}, "prefix": "P_"}]},
                {"name": "s", "restartPolicy": "Always", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sidecar", "key": "k"}}}]}],
            "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "ephemeral"}}]}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "volume"}},
                {"name": "i", "secret": {"secretName": "items", "optional": true, "items": [{"key": "k", "path": "a/b"}, {"key": "l", "path": "l"}]}},
                {"name": "p", "projected": {"sources": [
                    {"secret": {"name": "projected"}}, {"configMap": {"name": "no"}},
                    {"secret": {"name": "projected-items", "items": [{"key": "k", "path": "k"}]}}]}},
                {"name": "e", "emptyDir": {}}]
        });
        let want = BTreeMap::from(
            [
                ("env", some(&["k"])),
                ("env-from", KeysRead::All),
                ("init", KeysRead::All),
                ("sidecar", some(&["k"])),
                ("volume", KeysRead::All),
                ("items", some(&["k", "l"])),
                ("projected", KeysRead::All),
                ("projected-items", some(&["k"])),
            ]
            .map(|(name, keys)| (name.to_owned(), keys)),
        );
        assert_eq!(secrets_read(&pod), want);
        // What the API server gives of it is the same.
        let typed: PodSpec = serde_json::from_value(pod).unwrap();
        assert_eq!(secrets_read(&serde_json::to_value(typed).unwrap()), want);
    }

    #[test]
    fn keys_add_up_over_containers_and_all_wins() {
        let env = |key: &str| json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": key}}}]);
        let mut pod = json!({
            "containers": [{"name": "a", "env": env("k")}, {"name": "b", "env": env("l")}],
            "initContainers": [{"name": "i", "env": env("m")}],
        });
        assert_eq!(secrets_read(&pod)["s"], some(&["k", "l", "m"]));
        pod["volumes"] = json!([{"name": "v", "secret": {"secretName": "s", "items": []}}]);
        assert_eq!(secrets_read(&pod)["s"], KeysRead::All);
        pod["volumes"] = json!([]);
        pod["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "s"}}]);
        assert_eq!(secrets_read(&pod)["s"], KeysRead::All, "also where single keys come after it");
    }

    #[test]
    fn any_of_no_keys_is_none() {
        let keys = |of: &[&str]| of.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        assert!(KeysRead::All.any_of(&keys(&["a"])) && !KeysRead::All.any_of(&keys(&[])));
        assert!(some(&["a", "b"]).any_of(&keys(&["b", "c"])) && !some(&["a"]).any_of(&keys(&["b"])));
    }

    #[test]
    fn what_is_no_pod_reads_nothing() {
        for odd in
            [json!(null), json!({"containers": {"env": 1}}), json!({"volumes": [{"secret": {"secretName": ""}}, 7]})]
        {
            assert!(secrets_read(&odd).is_empty(), "{odd}");
        }
    }
}
