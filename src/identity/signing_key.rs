//! The agent's Ed25519 key: made in a locked page, never written, wiped on drop. It is unfolded on the stack for each signature,
//! which is overwritten after it.

use crate::crypto::signed::{self, Label};
use crate::hardening::scrubbed;
use crate::locked::Locked;
use crate::wire;
use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;
use std::fmt;

/// The key of this life of the process.
pub struct AgentKey {
    seed: Locked<32>,
    public: [u8; 32],
}

impl AgentKey {
    /// Makes a key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let seed = Locked::new(|bytes| rng.fill_bytes(bytes));
        let public = scrubbed(|| SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes());
        Self { seed, public }
    }

    /// The 32 raw bytes to register.
    pub fn public(&self) -> Vec<u8> {
        self.public.to_vec()
    }

    /// A detached signature over the parts.
    pub fn sign_parts(&self, label: Label, parts: &[&[u8]]) -> Vec<u8> {
        self.unfolded(|key| signed::sign_parts(key, label, parts).to_vec())
    }

    /// An envelope around an encoded message.
    pub fn sign(&self, label: Label, body: Vec<u8>) -> wire::Signed {
        self.unfolded(|key| signed::sign(key, label, body))
    }

    fn unfolded<T>(&self, sign: impl FnOnce(&SigningKey) -> T) -> T {
        scrubbed(|| sign(&SigningKey::from_bytes(self.seed.expose())))
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentKey(..)")
    }
}
