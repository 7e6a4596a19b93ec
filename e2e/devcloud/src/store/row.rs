//! How one row is sealed and named. Pure but for nonces.

use super::{StoreError, Table};
use crate::{entropy, envelope};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

const NONCE: usize = 12;

/// The keys of the rows, derived from the master key.
pub struct RowKeys {
    cipher: Aes256Gcm,
    index: Zeroizing<[u8; 32]>,
}

impl RowKeys {
    /// Derives them.
    pub fn of(master: &[u8; 32]) -> Self {
        let key = envelope::derive(master, b"ennote/rows/v1", b"seal");
        Self {
            cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key)),
            index: envelope::derive(master, b"ennote/rows/v1", b"index"),
        }
    }

    /// The key under which a row lies: a keyed hash, so that names cannot be read or guessed from it.
    pub(super) fn row_key(&self, table: Table, name: &[&str]) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(self.index.as_slice()).unwrap_or_else(|_| unreachable!());
        for part in [table.name()].iter().chain(name) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// nonce || AES-256-GCM(row), aad = table || row key.
    pub(super) fn seal(&self, table: Table, row_key: &[u8; 32], row: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce: [u8; NONCE] = entropy::bytes();
        let payload = Payload { msg: row, aad: &aad(table, row_key) };
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| StoreError::Sealed(table.name()))?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub(super) fn open(&self, table: Table, row_key: &[u8], stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let broken = StoreError::Sealed(table.name());
        let (nonce, sealed) = stored.split_first_chunk::<NONCE>().ok_or_else(|| broken.clone())?;
        let payload = Payload { msg: sealed, aad: &aad(table, row_key) };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| broken)
    }
}

fn aad(table: Table, row_key: &[u8]) -> Vec<u8> {
    [table.name().as_bytes(), row_key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_opens_only_in_its_table_under_its_key_and_the_master_key() {
        let keys = RowKeys::of(&[1; 32]);
        let at = keys.row_key(Table::Secrets, &["w", "payments db"]);
        let stored = keys.seal(Table::Secrets, &at, b"canary").unwrap();
        assert!(!stored.windows(6).any(|w| w == b"canary"));
        assert_eq!(keys.open(Table::Secrets, &at, &stored).unwrap().as_slice(), b"canary");
        assert!(keys.open(Table::Versions, &at, &stored).is_err());
        assert!(keys.open(Table::Secrets, &keys.row_key(Table::Secrets, &["w", "other"]), &stored).is_err());
        assert!(RowKeys::of(&[2; 32]).open(Table::Secrets, &at, &stored).is_err());
        assert!(keys.open(Table::Secrets, &at, b"short").is_err());
        assert_ne!(at, keys.row_key(Table::Secrets, &["wp", "ayments db"]), "parts do not run into each other");
    }
}
