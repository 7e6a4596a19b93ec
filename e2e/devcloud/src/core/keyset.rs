//! Root and keyset: made once, signed by the root, issued anew at half of their life.

use crate::signed::{self, Label, hash};
use crate::store::KeysetRow;
use crate::suite::{Suite, Unsealable};
use crate::{clock, entropy, wire};
use ed25519_dalek::SigningKey;
use prost::Message;
use std::time::Duration;
use zeroize::Zeroizing;

/// The keys that count now, ready to use.
pub struct Keys {
    /// Raw public root key.
    pub root_public: [u8; 32],
    /// As agents get it.
    pub keyset: wire::Signed,
    /// Its version.
    pub version: u64,
    /// Signs challenge, joined and beat.
    pub join: SigningKey,
    /// Signs sealed and gone.
    pub payload: SigningKey,
    /// Receive credentials: one for each suite that there is a key of.
    pub seal: Vec<SealKey>,
}

/// A SEAL key.
pub struct SealKey {
    /// What it is a key of.
    pub suite: Suite,
    /// The private half.
    pub private: Zeroizing<[u8; 32]>,
    /// The raw public half.
    pub public: Vec<u8>,
    /// SHA-256 of the public half.
    pub id: [u8; 32],
}

impl SealKey {
    fn of(suite: Suite, private: &[u8; 32]) -> Result<Self, Unsealable> {
        let public = suite.public(private)?;
        Ok(Self { suite, private: Zeroizing::new(*private), id: hash(&[&public]), public })
    }
}

impl Keys {
    /// Signs a keyset row.
    ///
    /// # Errors
    /// [`Unsealable`] when the row's SEAL key is not one.
    pub fn sign(root: &SigningKey, row: &KeysetRow) -> Result<Self, Unsealable> {
        let (join, payload) = (SigningKey::from_bytes(&row.join_seed), SigningKey::from_bytes(&row.payload_seed));
        let mut seal = vec![SealKey::of(Suite::A, &row.seal_key)?];
        if let Some(private) = &row.seal_key_b {
            seal.push(SealKey::of(Suite::B, private)?);
        }
        let body = keyset(row, &join, &payload, &seal);
        Ok(Self {
            root_public: root.verifying_key().to_bytes(),
            keyset: signed::sign(root, Label::Keyset, body.encode_to_vec()),
            version: row.version,
            join,
            payload,
            seal,
        })
    }

    /// The SEAL key of a suite.
    pub fn seal(&self, suite: Suite) -> Option<&SealKey> {
        self.seal.iter().find(|key| key.suite == suite)
    }
}

fn keyset(row: &KeysetRow, join: &SigningKey, payload: &SigningKey, seal: &[SealKey]) -> wire::Keyset {
    let key = |r#use: wire::KeyUse, suite: wire::Suite, public_key: Vec<u8>| wire::Key {
        r#use: r#use as i32,
        suite: suite as i32,
        public_key,
    };
    let mut keys = vec![
        key(wire::KeyUse::Join, wire::Suite::Unspecified, join.verifying_key().as_bytes().to_vec()),
        key(wire::KeyUse::Payload, wire::Suite::Unspecified, payload.verifying_key().as_bytes().to_vec()),
    ];
    keys.extend(seal.iter().map(|seal| key(wire::KeyUse::Seal, seal.suite.on_wire(), seal.public.clone())));
    wire::Keyset { version: row.version, issued_at_ms: row.issued_at_ms, expires_at_ms: row.expires_at_ms, keys }
}

/// The first keyset of an installation.
pub(super) fn first(now_ms: i64, life: Duration) -> KeysetRow {
    KeysetRow {
        version: 1,
        issued_at_ms: now_ms,
        expires_at_ms: now_ms.saturating_add(clock::millis(life)),
        join_seed: entropy::bytes(),
        payload_seed: entropy::bytes(),
        seal_key: entropy::bytes(),
        seal_key_b: Some(entropy::bytes()),
    }
}

/// The same keys under the next version, once half of the life is over, when the setting has become shorter, or when there is
/// no key of suite B yet. So a new
/// keyset reaches every agent, which renews far more often, long before the old one ends.
pub(super) fn due(row: &KeysetRow, now_ms: i64, life: Duration) -> Option<KeysetRow> {
    let life = clock::millis(life);
    let half = row.issued_at_ms.saturating_add(row.expires_at_ms.saturating_sub(row.issued_at_ms) / 2);
    let too_long = row.expires_at_ms > now_ms.saturating_add(life);
    // A clock that was set back: the keyset would be issued in the future.
    let ahead = row.issued_at_ms > now_ms;
    (now_ms >= half || too_long || ahead || row.seal_key_b.is_none()).then(|| KeysetRow {
        version: row.version + 1,
        issued_at_ms: now_ms,
        expires_at_ms: now_ms.saturating_add(life),
        seal_key_b: Some(row.seal_key_b.unwrap_or_else(entropy::bytes)),
        ..row.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyset_is_issued_anew_at_half_its_life_with_the_same_keys() {
        let life = Duration::from_secs(100);
        let row = first(1_000, life);
        assert!(due(&row, 50_999, life).is_none());
        let next = due(&row, 51_000, life).unwrap();
        assert_eq!((next.version, next.issued_at_ms, next.expires_at_ms), (2, 51_000, 151_000));
        assert_eq!(next.join_seed, row.join_seed);
        assert!(due(&row, 2_000, Duration::from_secs(50)).is_some(), "a shorter setting counts at once");
        assert!(due(&row, 0, life).is_some(), "the clock was set back");
        let of_old = KeysetRow { seal_key_b: None, ..row.clone() };
        let next = due(&of_old, 2_000, life).unwrap();
        assert!(next.seal_key_b.is_some() && next.seal_key == row.seal_key && next.version == 2, "suite B is new");
        assert_eq!(due(&next, 2_000, life).map(|row| row.version), None);
    }

    #[test]
    fn the_keyset_lists_the_keys_by_their_use_under_the_roots_signature() {
        let root = SigningKey::from_bytes(&[1; 32]);
        let keys = Keys::sign(&root, &first(5, Duration::from_secs(1))).unwrap();
        let body = signed::body(&keys.root_public, Label::Keyset, &keys.keyset).unwrap();
        let listed = wire::Keyset::decode(body).unwrap();
        let of = |r#use: wire::KeyUse| {
            listed.keys.iter().filter(move |k| k.r#use == r#use as i32).map(|k| hash(&[&k.public_key]))
        };
        assert_eq!(of(wire::KeyUse::Join).collect::<Vec<_>>(), [signed::key_id(&keys.join)]);
        assert_eq!(of(wire::KeyUse::Payload).collect::<Vec<_>>(), [signed::key_id(&keys.payload)]);
        let seal: Vec<[u8; 32]> = [Suite::A, Suite::B].map(|suite| keys.seal(suite).unwrap().id).to_vec();
        assert_eq!(of(wire::KeyUse::Seal).collect::<Vec<_>>(), seal);
    }
}
