//! What the `cli.v1` door asks of the core: the KEM key, taking of uploaded blobs, giving of freshly sealed ones.
//!
//! A blob is never kept and a DEK never used twice: what comes in is opened and becomes a version like any other, what goes
//! out is sealed anew. So agents get it by their own envelope, and nothing of this format reaches them.

use super::secrets::Put;
use super::{AdminError, Core, News};
use crate::entropy;
use crate::payload::Kind;
use crate::signed::hash;
use crate::store::{KemRow, StoreError, Table, Tx};
use crate::v1::blob::{self, BadBlob, KemKey};
use crate::v1::session::{self, BadSessionKey, SessionKey};
use data_encoding::BASE32_NOPAD;
use zeroize::{Zeroize, Zeroizing};

/// The row of the KEM key.
const ROW: &str = "cli-v1-kem";
const KEY_VERSION: &str = "devcloud-1";

/// Why a call was not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum InteropError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("secret {name:?}: {source}")]
    Blob { name: String, source: BadBlob },
    #[error("secret {0:?}: the payload is not UTF-8")]
    Text(String),
    #[error("secret {name:?}: {source}")]
    Refused { name: String, source: AdminError },
    #[error(transparent)]
    Session(#[from] BadSessionKey),
}

/// A secret as a client sends it.
pub struct Upload {
    /// Its name.
    pub name: String,
    /// What the client says it is.
    pub kind: Kind,
    /// An `encrypted_blob`.
    pub blob: Vec<u8>,
}

/// A secret that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The same for every version of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version that it became.
    pub version: u64,
}

/// What reads: a blob, and its DEK wrapped to the session key.
pub struct Given {
    /// `encrypted_blob`.
    pub blob: Vec<u8>,
    /// `session_wrapped_key`.
    pub wrapped_key: Vec<u8>,
}

impl Core {
    /// The key that clients seal to: this door's own, made when it is first asked for.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn kem_key(&self) -> Result<KemKey, AdminError> {
        let stored: Option<KemRow> = self.store.view()?.get(Table::Installation, &[ROW])?;
        let row = match stored {
            Some(row) => row,
            None => self.store.write(first_kem_row).await?,
        };
        let shape = || StoreError::Shape(Table::Installation.name());
        let mut seed = Zeroizing::new([0; 64]);
        seed.copy_from_slice(row.seed.get(..64).ok_or_else(shape)?);
        Ok(KemKey::of(&row.version, &seed))
    }

    /// Opens uploads and writes each as a new version, all in one transaction: every one is taken, or none is.
    ///
    /// # Errors
    /// [`InteropError`].
    pub async fn take_blobs(&self, workspace: &str, uploads: Vec<Upload>) -> Result<Vec<Taken>, InteropError> {
        let key = self.kem_key().await?;
        let mut puts = Vec::new();
        for Upload { name, kind, blob } in uploads {
            let opened = blob::open(&key, &blob).map_err(|source| InteropError::Blob { name: name.clone(), source })?;
            let payload = text(opened).ok_or_else(|| InteropError::Text(name.clone()))?;
            let put = Put::checked(&name, Some(kind), payload);
            puts.push(put.map_err(|source| InteropError::Refused { name, source })?);
        }
        let entries = self.put_all(Some(workspace), puts).await?;
        let taken = |entry: super::SecretEntry| Taken {
            id: self.secret_id(&entry.workspace, &entry.name),
            name: entry.name,
            version: entry.version,
        };
        Ok(entries.into_iter().map(taken).collect())
    }

    /// Seals a version, or the newest, under a fresh DEK, and wraps that to a session key.
    ///
    /// # Errors
    /// [`InteropError`].
    pub async fn give_blob(
        &self,
        workspace: &str,
        name: &str,
        version: Option<u64>,
        session: &SessionKey,
    ) -> Result<Given, InteropError> {
        let found = self.secret(Some(workspace), name, version)?;
        let key = self.kem_key().await?;
        let sealed = blob::seal(&key, found.payload.as_bytes(), &mut entropy::system());
        let (blob, dek) = sealed.map_err(|source| InteropError::Blob { name: name.to_owned(), source })?;
        let wrapped_key = session::wrap(session, &dek, &mut entropy::system())?;
        Ok(Given { blob, wrapped_key })
    }

    fn secret_id(&self, workspace: &str, name: &str) -> String {
        let parts = [self.organization(), workspace, name].map(|part| hash(&[part.as_bytes()]));
        let whole = hash(&[&parts[0], &parts[1], &parts[2]]);
        format!("sec_{}", BASE32_NOPAD.encode(&whole[..10]).to_lowercase())
    }
}

/// Makes the KEM key, unless another call was faster.
fn first_kem_row(tx: &mut Tx<'_, '_, News>) -> Result<KemRow, AdminError> {
    if let Some(row) = tx.get(Table::Installation, &[ROW])? {
        return Ok(row);
    }
    let seed = Zeroizing::new(entropy::bytes::<64>()).to_vec();
    let row = KemRow { version: KEY_VERSION.to_owned(), seed };
    tx.put(Table::Installation, &[ROW], &row)?;
    Ok(row)
}

/// The bytes as text, in place; wiped where they are none.
fn text(mut bytes: Zeroizing<Vec<u8>>) -> Option<Zeroizing<String>> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}
