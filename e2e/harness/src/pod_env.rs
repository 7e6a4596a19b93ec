//! The environment and arguments of a pod's container, with the paths of its mounts turned into local ones.

use crate::volumes::{Mount, field_of};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;

/// The variables of `container`, as a kubelet resolves them: envFrom first, env over it.
pub(crate) async fn environment(client: &Client, pod: &Pod, container: &Container) -> Result<BTreeMap<String, String>> {
    let namespace = pod.namespace().unwrap_or_default();
    let sources = Sources { client, namespace: &namespace, pod };
    let mut environment = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut found = BTreeMap::new();
        if let Some(map) = &from.config_map_ref {
            found.extend(sources.config_map(&map.name, map.optional).await?);
        }
        if let Some(secret) = &from.secret_ref {
            found.extend(sources.secret(&secret.name, secret.optional).await?);
        }
        environment.extend(found.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(from) => sources.value(from).await.with_context(|| format!("variable {}", variable.name))?,
            None => Some(variable.value.clone().unwrap_or_default()),
        };
        if let Some(value) = value {
            environment.insert(variable.name.clone(), value);
        }
    }
    if let Some((name, _)) = environment.iter().find(|(_, value)| value.contains("$(")) {
        bail!("variable {name} refers to another one, which the harness cannot play");
    }
    Ok(environment)
}

/// A value or argument with the mount path that it starts with made local.
pub(crate) fn local(text: &str, mounts: &[Mount]) -> String {
    let found = mounts.iter().find_map(|mount| {
        let rest = text.strip_prefix(&mount.in_pod)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", mount.here.display()))
    });
    found.unwrap_or_else(|| text.to_owned())
}

struct Sources<'a> {
    client: &'a Client,
    namespace: &'a str,
    pod: &'a Pod,
}

impl Sources<'_> {
    async fn value(&self, from: &EnvVarSource) -> Result<Option<String>> {
        if let Some(field) = &from.field_ref {
            return field_of(self.pod, &field.field_path).map(Some);
        }
        let (mut all, key, optional) = if let Some(map) = &from.config_map_key_ref {
            (self.config_map(&map.name, map.optional).await?, &map.key, map.optional)
        } else if let Some(secret) = &from.secret_key_ref {
            (self.secret(&secret.name, secret.optional).await?, &secret.key, secret.optional)
        } else {
            bail!("the harness cannot play this source")
        };
        match all.remove(key) {
            None if optional != Some(true) => {
                bail!("there is no key {key}, so a kubelet would not start the container")
            }
            value => Ok(value),
        }
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>> {
        let map = Api::<ConfigMap>::namespaced(self.client.clone(), self.namespace).get_opt(name).await?;
        exists(map, optional, "ConfigMap", name).map(|map| map.data.unwrap_or_default())
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>> {
        let secret = Api::<Secret>::namespaced(self.client.clone(), self.namespace).get_opt(name).await?;
        let data = exists(secret, optional, "Secret", name)?.data.unwrap_or_default();
        Ok(data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
    }
}

fn exists<K: Default>(object: Option<K>, optional: Option<bool>, kind: &str, name: &str) -> Result<K> {
    match object {
        None if optional != Some(true) => {
            bail!("{kind} {name} does not exist, so a kubelet would not start the container")
        }
        object => Ok(object.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_path_segments_are_made_local() {
        let mounts =
            ["/run/ennote", "/run"].map(|path| Mount { in_pod: path.to_owned(), here: format!("/x{path}").into() });
        for (text, expected) in [
            ("/run/ennote/heartbeat", "/x/run/ennote/heartbeat"),
            ("/run/ennote", "/x/run/ennote"),
            ("/run/ennotes", "/x/run/ennotes"),
            ("/running", "/running"),
            ("host:443", "host:443"),
        ] {
            assert_eq!(local(text, &mounts), expected);
        }
    }
}
