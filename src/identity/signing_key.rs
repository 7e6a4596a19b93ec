//! The agent's Ed25519 key: made in memory, never written, wiped on drop.

use crate::crypto::signed::{self, Label};
use crate::wire;
use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;
use std::fmt;
use zeroize::Zeroizing;

/// The key of this life of the process.
pub struct AgentKey(Box<SigningKey>);

impl AgentKey {
    /// Makes a key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        Self(Box::new(SigningKey::from_bytes(&seed)))
    }

    /// The 32 raw bytes to register.
    pub fn public(&self) -> Vec<u8> {
        self.0.verifying_key().as_bytes().to_vec()
    }

    /// A detached signature over the parts.
    pub fn sign_parts(&self, label: Label, parts: &[&[u8]]) -> Vec<u8> {
        signed::sign_parts(&self.0, label, parts).to_vec()
    }

    /// An envelope around an encoded message.
    pub fn sign(&self, label: Label, body: Vec<u8>) -> wire::Signed {
        signed::sign(&self.0, label, body)
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentKey(..)")
    }
}
