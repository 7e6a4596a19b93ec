//! The volumes of a pod as files on this machine: what a kubelet mounts, kept up to date as a kubelet does.

use crate::credentials::write_private;
use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, KeyToPath, Pod, Secret, SecretProjection, ServiceAccount,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A mounted volume: where the container sees it and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) in_pod: String,
    pub(crate) here: PathBuf,
}

/// Writes the volumes of one pod.
pub(crate) struct Volumes {
    client: Client,
    pod: Pod,
    volumes: Vec<(Volume, PathBuf)>,
    tokens: HashMap<PathBuf, Token>,
}

struct Token {
    text: String,
    renew_at: Timestamp,
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Volumes {
    /// The volumes of `pod`, each with a folder under `dir`.
    pub(crate) fn of(client: Client, pod: Pod, dir: &Path) -> Self {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let volumes = volumes.map(|volume| (volume.clone(), dir.join(&volume.name))).collect();
        Self { client, pod, volumes, tokens: HashMap::new() }
    }

    /// The mounts of the first container, longest path first.
    pub(crate) fn mounts(&self) -> Result<Vec<Mount>> {
        let containers = self.pod.spec.as_ref().map(|spec| &spec.containers);
        let container = containers.and_then(|all| all.first()).context("the pod has no container")?;
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = self.volumes.iter().find(|(volume, _)| volume.name == mount.name);
            let (_, here) = volume.with_context(|| format!("the pod mounts {} but has no such volume", mount.name))?;
            let here = mount.sub_path.as_ref().map_or_else(|| here.clone(), |path| here.join(path));
            mounts.push(Mount { in_pod: mount.mount_path.trim_end_matches('/').to_owned(), here });
        }
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.in_pod.len()));
        Ok(mounts)
    }

    /// Names of the Secrets and ConfigMaps that these volumes show.
    pub(crate) fn shown(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut secrets, mut config_maps) = (BTreeSet::new(), BTreeSet::new());
        for (volume, _) in &self.volumes {
            secrets.extend(volume.secret.iter().filter_map(|secret| secret.secret_name.clone()));
            config_maps.extend(volume.config_map.iter().map(|map| map.name.clone()));
            for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
                secrets.extend(source.secret.iter().map(|secret| secret.name.clone()));
                config_maps.extend(source.config_map.iter().map(|map| map.name.clone()));
            }
        }
        (secrets, config_maps)
    }

    /// When the next token must be renewed.
    pub(crate) fn renew_at(&self) -> Option<Timestamp> {
        self.tokens.values().map(|token| token.renew_at).min()
    }

    /// Forgets every token, so that the next [`Self::write`] asks for new ones.
    pub(crate) fn forget_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Writes what each volume holds now: changed files anew, vanished ones away.
    pub(crate) async fn write(&mut self) -> Result<()> {
        for (volume, dir) in self.volumes.clone() {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            if volume.empty_dir.is_some() {
                continue;
            }
            let files = self.files(&volume, &dir).await.with_context(|| format!("volume {}", volume.name))?;
            show(&dir, &files)?;
        }
        Ok(())
    }

    async fn files(&mut self, volume: &Volume, dir: &Path) -> Result<Files> {
        let mut files = Files::new();
        for source in sources(volume)? {
            if let Some(secret) = &source.secret {
                files.extend(self.secret(secret).await?);
            } else if let Some(map) = &source.config_map {
                files.extend(self.config_map(map).await?);
            } else if let Some(token) = &source.service_account_token {
                files.insert(PathBuf::from(&token.path), self.token(token, dir).await?.into_bytes());
            } else if let Some(downward) = &source.downward_api {
                for item in downward.items.iter().flatten() {
                    let field = item.field_ref.as_ref().context("only fieldRef is known here")?;
                    files.insert(PathBuf::from(&item.path), field_of(&self.pod, &field.field_path)?.into_bytes());
                }
            } else {
                bail!("it has a source that the harness cannot play");
            }
        }
        Ok(files)
    }

    async fn secret(&self, source: &SecretProjection) -> Result<Files> {
        let secret = Api::<Secret>::namespaced(self.client.clone(), &self.namespace()).get_opt(&source.name).await?;
        let optional = source.optional.unwrap_or(false);
        let data = secret.map(|secret| secret.data.unwrap_or_default());
        let data = data.map(|data| data.into_iter().map(|(key, ByteString(value))| (key, value)).collect());
        chosen(data, source.items.as_deref(), optional).with_context(|| format!("Secret {}", source.name))
    }

    async fn config_map(&self, source: &ConfigMapProjection) -> Result<Files> {
        let map = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace()).get_opt(&source.name).await?;
        let optional = source.optional.unwrap_or(false);
        let data = map.map(|map| map.data.unwrap_or_default());
        let data = data.map(|data| data.into_iter().map(|(key, value)| (key, value.into_bytes())).collect());
        chosen(data, source.items.as_deref(), optional).with_context(|| format!("ConfigMap {}", source.name))
    }

    /// A token as the kubelet asks for it: of the pod's ServiceAccount, bound to this pod, renewed at 80 % of its life.
    async fn token(&mut self, source: &ServiceAccountTokenProjection, dir: &Path) -> Result<String> {
        let place = dir.join(&source.path);
        if let Some(token) = self.tokens.get(&place).filter(|token| token.renew_at > Timestamp::now()) {
            return Ok(token.text.clone());
        }
        let account = service_account(&self.pod);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: source.audience.iter().cloned().collect(),
                expiration_seconds: source.expiration_seconds,
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                }),
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace());
        let begun = Timestamp::now();
        let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("no token for ServiceAccount {account}"))?;
        let status = answer.status.context("the API server answered without a token")?;
        let life = Duration::try_from(status.expiration_timestamp.0.duration_since(begun)).unwrap_or_default();
        let renew_at = begun.checked_add(life.mul_f32(0.8))?;
        self.tokens.insert(place, Token { text: status.token.clone(), renew_at });
        Ok(status.token)
    }

    fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_default()
    }
}

/// Name of the pod's ServiceAccount.
pub(crate) fn service_account(pod: &Pod) -> String {
    let name = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    name.unwrap_or_else(|| "default".to_owned())
}

/// What `fieldRef` may name.
pub(crate) fn field_of(pod: &Pod, path: &str) -> Result<String> {
    let spec = pod.spec.as_ref();
    let value = match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => Some(service_account(pod)),
        "status.podIP" => pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
        other => bail!("the harness cannot play fieldPath {other}"),
    };
    value.with_context(|| format!("the pod has no {path}"))
}

/// A volume's sources, all in the form of a projected volume.
fn sources(volume: &Volume) -> Result<Vec<VolumeProjection>> {
    if let Some(projected) = &volume.projected {
        return Ok(projected.sources.clone().unwrap_or_default());
    }
    if let Some(secret) = &volume.secret {
        let (items, optional) = (secret.items.clone(), secret.optional);
        let projection = SecretProjection { name: secret.secret_name.clone().unwrap_or_default(), items, optional };
        return Ok(vec![VolumeProjection { secret: Some(projection), ..VolumeProjection::default() }]);
    }
    if let Some(map) = &volume.config_map {
        let projection =
            ConfigMapProjection { name: map.name.clone(), items: map.items.clone(), optional: map.optional };
        return Ok(vec![VolumeProjection { config_map: Some(projection), ..VolumeProjection::default() }]);
    }
    bail!("the harness cannot play this kind of volume")
}

/// All keys, or the chosen ones under their paths. `None`: the object does not exist.
fn chosen(data: Option<BTreeMap<String, Vec<u8>>>, items: Option<&[KeyToPath]>, optional: bool) -> Result<Files> {
    let Some(mut data) = data else {
        return if optional {
            Ok(Files::new())
        } else {
            bail!("it does not exist, so a kubelet would not start the pod")
        };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (PathBuf::from(key), value)).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(value) => drop(files.insert(PathBuf::from(&item.path), value)),
            None if optional => {}
            None => bail!("it has no key {}, so a kubelet would not start the pod", item.key),
        }
    }
    Ok(files)
}

fn show(dir: &Path, files: &Files) -> Result<()> {
    for (path, content) in files {
        let file = dir.join(path);
        if std::fs::read(&file).ok().as_ref() != Some(content) {
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            write_private(&file, content)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let shown = files.keys().any(|path| path.starts_with(entry.file_name()));
        if !shown && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Option<BTreeMap<String, Vec<u8>>> {
        Some(BTreeMap::from([("token".to_owned(), b"t".to_vec()), ("other".to_owned(), b"o".to_vec())]))
    }

    fn item(key: &str) -> Vec<KeyToPath> {
        vec![KeyToPath { key: key.to_owned(), path: format!("{key}.txt"), mode: None }]
    }

    #[test]
    fn keys_are_chosen_as_a_kubelet_does() {
        assert_eq!(chosen(data(), None, false).unwrap().len(), 2);
        assert_eq!(
            chosen(data(), Some(&item("token")), false).unwrap(),
            Files::from([("token.txt".into(), b"t".to_vec())])
        );
        assert!(chosen(data(), Some(&item("none")), false).is_err());
        assert!(chosen(data(), Some(&item("none")), true).unwrap().is_empty());
        assert!(chosen(None, None, false).is_err());
        assert!(chosen(None, None, true).unwrap().is_empty());
    }

    #[test]
    fn files_appear_change_and_vanish() {
        let dir = tempfile::tempdir().unwrap();
        show(dir.path(), &Files::from([("a".into(), b"1".to_vec()), ("b".into(), b"1".to_vec())])).unwrap();
        show(dir.path(), &Files::from([("b".into(), b"2".to_vec())])).unwrap();
        assert!(!dir.path().join("a").exists());
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
