//! Secrets and their versions. A version number is used once, over deletion and re-creation of the name too.

use super::{AdminError, Core, News, Refusal};
use crate::payload::{self, Kind};
use crate::store::{Secret, StoreError, Table, Tx, Version};
use crate::{envelope, names};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// A row of `secret list`, and the answer to a put or a removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    /// Name.
    pub name: String,
    /// Workspace.
    pub workspace: String,
    /// `KEYS_VALUES` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Newest.
    pub version: u64,
    /// Whether that is a tombstone.
    pub deleted: bool,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// A row of `secret versions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionEntry {
    /// Its number.
    pub version: u64,
    /// `KEYS_VALUES` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// `live`, `deleted` (a tombstone) or `erased` (by a later deletion).
    pub state: String,
    /// Unix milliseconds.
    pub committed_at_ms: i64,
}

/// A version with its payload.
#[derive(Clone, Serialize, Deserialize)]
pub struct Fetched {
    /// Name.
    pub name: String,
    /// Workspace.
    pub workspace: String,
    /// `KEYS_VALUES` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its number.
    pub version: u64,
    /// Unix milliseconds.
    pub committed_at_ms: i64,
    /// The JSON text as it was given.
    pub payload: Zeroizing<String>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetched({} {})", self.name, self.version)
    }
}

/// A version to write, checked.
pub(super) struct Put {
    name: String,
    kind: String,
    payload: Zeroizing<String>,
}

impl Put {
    /// # Errors
    /// `Name`, `Payload`.
    pub(super) fn checked(name: &str, wanted: Option<Kind>, payload: Zeroizing<String>) -> Result<Self, AdminError> {
        let name = names::secret(name)?;
        let kind = payload::check(&payload, wanted)?.name().to_owned();
        Ok(Self { name, kind, payload })
    }

    fn write(&self, tx: &mut Tx<'_, '_, News>, workspace: &str) -> Result<SecretEntry, AdminError> {
        let known: Option<Secret> = tx.get(Table::Secrets, &[workspace, &self.name])?;
        let now = tx.now_ms();
        let version = known.as_ref().map_or(1, |known| known.version + 1);
        let first = known.filter(|known| !known.deleted).map_or(version, |known| known.first);
        let secret = Secret {
            workspace: workspace.to_owned(),
            name: self.name.clone(),
            version,
            first,
            deleted: false,
            kind: self.kind.clone(),
            updated_at_ms: now,
        };
        let row = Version {
            version,
            kind: secret.kind.clone(),
            committed_at_ms: now,
            deleted: false,
            payload: Some(self.payload.as_str().to_owned()),
        };
        tx.put(Table::Versions, &[workspace, &self.name, &version.to_string()], &row)?;
        tx.put(Table::Secrets, &[workspace, &self.name], &secret)?;
        tx.announce(News::Secret { workspace: secret.workspace.clone(), secret: secret.name.clone() });
        Ok(entry(secret))
    }
}

impl Core {
    /// Writes a new version. The answer says that it is durable, and it is on its way to every stream that wants it.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn put_secret(
        &self,
        workspace: Option<&str>,
        name: &str,
        wanted: Option<Kind>,
        payload: Zeroizing<String>,
    ) -> Result<SecretEntry, AdminError> {
        let entries = self.put_all(workspace, vec![Put::checked(name, wanted, payload)?]).await?;
        entries.into_iter().next().ok_or(AdminError::Store(StoreError::Shape(Table::Secrets.name())))
    }

    /// Writes several new versions in one transaction, in their order: all are taken, or none is.
    ///
    /// # Errors
    /// [`AdminError`].
    pub(super) async fn put_all(
        &self,
        workspace: Option<&str>,
        puts: Vec<Put>,
    ) -> Result<Vec<SecretEntry>, AdminError> {
        let workspace = self.workspace_or_default(workspace)?;
        self.store
            .write(move |tx| puts.iter().map(|put| put.write(tx, &workspace)).collect::<Result<Vec<_>, AdminError>>())
            .await
    }

    /// Deletes a secret: a tombstone takes the next number, and the payloads of all versions are erased.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn remove_secret(&self, workspace: Option<&str>, name: &str) -> Result<SecretEntry, AdminError> {
        let workspace = self.workspace_or_default(workspace)?;
        let name = names::secret(name)?;
        self.store
            .write(move |tx| {
                let known: Option<Secret> = tx.get(Table::Secrets, &[&workspace, &name])?;
                let mut secret = live(known, &workspace, &name)?;
                for version in secret.first..=secret.version {
                    let key = [workspace.as_str(), &name, &version.to_string()];
                    if let Some(mut row) = tx.get::<Version>(Table::Versions, &key)? {
                        row.payload = None;
                        tx.put(Table::Versions, &key, &row)?;
                    }
                }
                let now = tx.now_ms();
                (secret.version, secret.deleted, secret.updated_at_ms) = (secret.version + 1, true, now);
                let tombstone = Version {
                    version: secret.version,
                    kind: secret.kind.clone(),
                    committed_at_ms: now,
                    deleted: true,
                    payload: None,
                };
                tx.put(Table::Versions, &[&workspace, &name, &secret.version.to_string()], &tombstone)?;
                tx.put(Table::Secrets, &[&workspace, &name], &secret)?;
                tx.announce(News::Secret { workspace, secret: name });
                Ok::<_, AdminError>(entry(secret))
            })
            .await
    }

    /// A version, or the newest.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn secret(&self, workspace: Option<&str>, name: &str, version: Option<u64>) -> Result<Fetched, AdminError> {
        let workspace = self.workspace_or_default(workspace)?;
        let name = names::secret(name)?;
        let view = self.store.view()?;
        let known: Option<Secret> = view.get(Table::Secrets, &[&workspace, &name])?;
        let wanted = match version {
            Some(version) => version,
            None => live(known, &workspace, &name)?.version,
        };
        let row: Option<Version> = view.get(Table::Versions, &[&workspace, &name, &wanted.to_string()])?;
        let mut row = row.ok_or_else(|| AdminError::NoVersion { name: name.clone(), version: wanted })?;
        let payload = Zeroizing::new(row.payload.take().ok_or_else(|| match row.deleted {
            true => AdminError::Deleted { name: name.clone(), version: wanted },
            false => AdminError::Erased { name: name.clone(), version: wanted },
        })?);
        let (kind, committed_at_ms) = (row.kind.clone(), row.committed_at_ms);
        Ok(Fetched { name, workspace, kind, version: wanted, committed_at_ms, payload })
    }

    /// All secrets that are not deleted, by workspace and name.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn secrets(&self, workspace: Option<&str>) -> Result<Vec<SecretEntry>, AdminError> {
        let workspace = workspace.map(|given| self.workspace_or_default(Some(given))).transpose()?;
        let all: Vec<Secret> = self.store.view()?.all(Table::Secrets)?;
        let shown =
            |secret: &Secret| !secret.deleted && workspace.as_ref().is_none_or(|only| *only == secret.workspace);
        let mut entries: Vec<SecretEntry> = all.into_iter().filter(shown).map(entry).collect();
        entries.sort_by(|a, b| (&a.workspace, &a.name).cmp(&(&b.workspace, &b.name)));
        Ok(entries)
    }

    /// All versions of a secret, newest first; also of a deleted one.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn versions(&self, workspace: Option<&str>, name: &str) -> Result<Vec<VersionEntry>, AdminError> {
        let workspace = self.workspace_or_default(workspace)?;
        let name = names::secret(name)?;
        let view = self.store.view()?;
        let known: Option<Secret> = view.get(Table::Secrets, &[&workspace, &name])?;
        let newest =
            known.ok_or_else(|| AdminError::NoSecret { workspace: workspace.clone(), name: name.clone() })?.version;
        let mut entries = Vec::new();
        for number in (1..=newest).rev() {
            let row: Option<Version> = view.get(Table::Versions, &[&workspace, &name, &number.to_string()])?;
            let Some(row) = row else { continue };
            let state = match (row.deleted, &row.payload) {
                (true, _) => "deleted",
                (false, None) => "erased",
                (false, Some(_)) => "live",
            };
            entries.push(VersionEntry {
                version: row.version,
                kind: row.kind.clone(),
                state: state.to_owned(),
                committed_at_ms: row.committed_at_ms,
            });
        }
        Ok(entries)
    }

    /// The newest state of a name.
    ///
    /// # Errors
    /// `Internal`.
    pub fn newest(&self, workspace: &str, name: &str) -> Result<Option<Secret>, Refusal> {
        Ok(self.store.view()?.get(Table::Secrets, &[workspace, name])?)
    }

    /// One version with its payload.
    ///
    /// # Errors
    /// `Internal`.
    pub fn version(&self, workspace: &str, name: &str, version: u64) -> Result<Option<Version>, Refusal> {
        Ok(self.store.view()?.get(Table::Versions, &[workspace, name, &version.to_string()])?)
    }

    /// What keys the fingerprints of one secret.
    pub fn stamp_key(&self, workspace: &str, secret: &str) -> Zeroizing<[u8; 32]> {
        envelope::stamp_key(&self.master, self.organization(), workspace, secret)
    }
}

fn live(known: Option<Secret>, workspace: &str, name: &str) -> Result<Secret, AdminError> {
    match known {
        None => Err(AdminError::NoSecret { workspace: workspace.to_owned(), name: name.to_owned() }),
        Some(known) if known.deleted => Err(AdminError::Deleted { name: name.to_owned(), version: known.version }),
        Some(known) => Ok(known),
    }
}

fn entry(secret: Secret) -> SecretEntry {
    let Secret { workspace, name, version, deleted, kind, updated_at_ms, .. } = secret;
    SecretEntry { name, workspace, kind, version, deleted, updated_at_ms }
}
