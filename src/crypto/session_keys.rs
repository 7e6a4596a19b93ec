//! The window of one-use session keys of a stream.
//!
//! A key is handed out once, by value, and wiped when it is dropped; unspent keys are wiped with their stream. Unspent keys
//! plus those being used never exceed [`WINDOW`]: that is the room the agent offers.

use crate::crypto::signed::hash;
use crate::crypto::suite::{Suite, Unusable};
use crate::wire;
use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// At most this many keys are unspent (PROTOCOL.md, "SyncService.Sync").
pub const WINDOW: usize = 32;

/// The private half of one session key. Used once by type: it cannot be copied, and opening takes it by value.
pub struct SessionKey {
    /// Its number on the stream.
    pub index: u64,
    /// SHA-256 of the public half.
    pub public_hash: [u8; 32],
    /// The suite of its stream.
    pub suite: Suite,
    seed: Box<Zeroizing<[u8; 32]>>,
}

impl SessionKey {
    /// Opens one ciphertext, in its own memory. The key is wiped whatever comes of it.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(crate) fn open(
        self,
        enc: &[u8],
        info: &[u8],
        aad: &[u8],
        ciphertext: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Unusable> {
        self.suite.open(&self.seed, enc, info, aad, ciphertext)
    }

    /// A key from its seed, with the public half.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn from_seed(suite: Suite, index: u64, seed: &[u8; 32]) -> Result<(Self, Vec<u8>), Unusable> {
        let public = suite.public_of_seed(seed)?;
        let key = Self { index, public_hash: hash(&public), suite, seed: Box::new(Zeroizing::new(*seed)) };
        Ok((key, public))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({})", self.index)
    }
}

/// The keys offered on one stream and not yet spent.
#[derive(Debug)]
pub struct SessionKeys {
    suite: Suite,
    next: u64,
    unspent: BTreeMap<u64, SessionKey>,
}

impl SessionKeys {
    /// Of a new stream: none yet.
    pub fn new(suite: Suite) -> Self {
        Self { suite, next: 0, unspent: BTreeMap::new() }
    }

    /// Makes new keys until unspent and `in_use` fill the window; gives the public halves to send.
    pub fn refill(&mut self, in_use: usize, rng: &mut impl CryptoRng) -> Vec<wire::SessionKey> {
        let mut fresh = Vec::new();
        while self.unspent.len() + in_use < WINDOW {
            let mut seed = Zeroizing::new([0; 32]);
            rng.fill_bytes(seed.as_mut_slice());
            self.next += 1;
            let Ok((key, public_key)) = SessionKey::from_seed(self.suite, self.next, &seed) else { break };
            self.unspent.insert(self.next, key);
            fresh.push(wire::SessionKey { index: self.next, public_key });
        }
        fresh
    }

    /// Spends a key.
    pub fn take(&mut self, index: u64) -> Option<SessionKey> {
        self.unspent.remove(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::UnwrapErr;

    #[test]
    fn a_key_is_spent_once_and_the_window_never_overflows() {
        let mut rng = UnwrapErr(getrandom::SysRng);
        let mut keys = SessionKeys::new(Suite::B);
        assert_eq!(keys.refill(0, &mut rng).len(), WINDOW);
        assert_eq!(keys.refill(0, &mut rng).len(), 0);
        assert!(keys.take(5).is_some());
        assert!(keys.take(5).is_none());
        assert_eq!(keys.refill(1, &mut rng).len(), 0, "the spent one is still in use");
        let fresh = keys.refill(0, &mut rng);
        assert_eq!(fresh.len(), 1);
        assert_eq!(fresh[0].index, WINDOW as u64 + 1, "numbers are never used again");
        assert_eq!(fresh[0].public_key.len(), 1216);
        assert_eq!(SessionKeys::new(Suite::A).refill(31, &mut rng)[0].public_key.len(), 32);
    }
}
