//! Plaintext: boxed, wiped on drop, silent.
//!
//! One greppable way out: `expose()`. No Clone, no Serialize, no derived equality. A box of exact size cannot grow, so no
//! old copy is left behind by a reallocation.

use crate::domain::name::DataKey;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroize;

/// Bytes that are wiped when dropped.
pub struct SecretValue(Box<[u8]>);

impl SecretValue {
    /// Takes over a box.
    pub fn new(bytes: Box<[u8]>) -> Self {
        Self(bytes)
    }

    /// Copies `bytes` into a box of exact size. The caller wipes the source.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The plaintext.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// What a Secret shall hold.
pub type SecretData = BTreeMap<DataKey, SecretValue>;
