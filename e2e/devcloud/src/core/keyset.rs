//! Root and keyset: made once, signed by the root, issued anew at half of their life; which of its keys are used.

use crate::signed::{self, Label, hash};
use crate::store::{KeyUse, KeysetRow};
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
    /// How many keys were dropped before it.
    pub evictions: u64,
    /// Signs challenge, joined and beat.
    pub join: SigningKey,
    /// Signs sealed and gone.
    pub payload: SigningKey,
    /// When a key that is listed already comes into use. Unix milliseconds.
    pub(super) switch_at_ms: Option<i64>,
    /// What says whether the next keyset is due.
    stands: Stands,
    /// Receive credentials, the newest in use of each suite first.
    seal: Vec<SealKey>,
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

/// A key of a keyset row.
pub(super) struct Slot<'a> {
    pub(super) r#use: KeyUse,
    pub(super) secret: &'a [u8; 32],
    /// None: a first key of its use.
    pub(super) listed_at_ms: Option<i64>,
}

impl Slot<'_> {
    /// The raw public half.
    pub(super) fn public(&self) -> Result<Vec<u8>, Unsealable> {
        match self.r#use {
            KeyUse::Join | KeyUse::Payload => {
                Ok(SigningKey::from_bytes(self.secret).verifying_key().as_bytes().to_vec())
            }
            KeyUse::SealA => Suite::A.public(self.secret),
            KeyUse::SealB => Suite::B.public(self.secret),
        }
    }
}

/// The keys of a row: the first of each use, then those that were added.
pub(super) fn slots(row: &KeysetRow) -> Vec<Slot<'_>> {
    let first = |r#use, secret| Slot { r#use, secret, listed_at_ms: None };
    let mut all = vec![
        first(KeyUse::Join, &row.join_seed),
        first(KeyUse::Payload, &row.payload_seed),
        first(KeyUse::SealA, &row.seal_key),
    ];
    all.extend(row.seal_key_b.as_ref().map(|secret| first(KeyUse::SealB, secret)));
    let added = row.added.iter();
    all.extend(added.map(|key| Slot { r#use: key.r#use, secret: &key.secret, listed_at_ms: Some(key.listed_at_ms) }));
    all
}

/// Whether a key may be used: every agent has had time to hear of it.
pub(super) fn usable(slot: &Slot<'_>, now_ms: i64, lead_ms: i64) -> bool {
    slot.listed_at_ms.is_none_or(|listed| now_ms >= listed.saturating_add(lead_ms))
}

impl Keys {
    /// Signs a keyset row. A key that was added is used once it was listed for `lead_ms`.
    ///
    /// # Errors
    /// [`Unsealable`] when the row's SEAL key is not one.
    pub fn sign(root: &SigningKey, row: &KeysetRow, now_ms: i64, lead_ms: i64) -> Result<Self, Unsealable> {
        let all = slots(row);
        let newest = |r#use: KeyUse, first: &[u8; 32]| {
            let found = all.iter().rev().find(|slot| slot.r#use == r#use && usable(slot, now_ms, lead_ms));
            SigningKey::from_bytes(found.map_or(first, |slot| slot.secret))
        };
        let seal = |slots: &mut dyn Iterator<Item = &Slot<'_>>| {
            let keys = slots.filter_map(|slot| match slot.r#use {
                KeyUse::SealA => Some(SealKey::of(Suite::A, slot.secret)),
                KeyUse::SealB => Some(SealKey::of(Suite::B, slot.secret)),
                KeyUse::Join | KeyUse::Payload => None,
            });
            keys.collect::<Result<Vec<_>, _>>()
        };
        let mut seals = seal(&mut all.iter().rev().filter(|slot| usable(slot, now_ms, lead_ms)))?;
        seals.extend(seal(&mut all.iter().filter(|slot| !usable(slot, now_ms, lead_ms)))?);
        let starts = all.iter().filter(|slot| !usable(slot, now_ms, lead_ms)).filter_map(|slot| slot.listed_at_ms);
        let body = keyset(row, &all)?;
        Ok(Self {
            root_public: root.verifying_key().to_bytes(),
            keyset: signed::sign(root, Label::Keyset, body.encode_to_vec()),
            version: row.version,
            evictions: row.evictions,
            join: newest(KeyUse::Join, &row.join_seed),
            payload: newest(KeyUse::Payload, &row.payload_seed),
            switch_at_ms: starts.min().map(|listed| listed.saturating_add(lead_ms)),
            stands: Stands::of(row),
            seal: seals,
        })
    }

    /// Whether the next keyset is due, or a key that is listed comes into use: then these are not the keys that count.
    pub(super) fn stale(&self, now_ms: i64, life: Duration) -> bool {
        self.stands.due(now_ms, life) || self.switch_at_ms.is_some_and(|at| now_ms >= at)
    }

    /// The SEAL key of a suite for new challenges.
    pub fn seal(&self, suite: Suite) -> Option<&SealKey> {
        self.seal.iter().find(|key| key.suite == suite)
    }

    /// The SEAL key that a challenge named, while it is listed.
    pub fn seal_of(&self, id: &[u8; 32]) -> Option<&SealKey> {
        self.seal.iter().find(|key| key.id == *id)
    }
}

fn keyset(row: &KeysetRow, slots: &[Slot<'_>]) -> Result<wire::Keyset, Unsealable> {
    let key = |slot: &Slot<'_>| {
        let (r#use, suite) = match slot.r#use {
            KeyUse::Join => (wire::KeyUse::Join, wire::Suite::Unspecified),
            KeyUse::Payload => (wire::KeyUse::Payload, wire::Suite::Unspecified),
            KeyUse::SealA => (wire::KeyUse::Seal, Suite::A.on_wire()),
            KeyUse::SealB => (wire::KeyUse::Seal, Suite::B.on_wire()),
        };
        Ok(wire::Key { r#use: r#use as i32, suite: suite as i32, public_key: slot.public()? })
    };
    let keys = slots.iter().map(key).collect::<Result<_, Unsealable>>()?;
    Ok(wire::Keyset { version: row.version, issued_at_ms: row.issued_at_ms, expires_at_ms: row.expires_at_ms, keys })
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
        added: Vec::new(),
        evictions: 0,
    }
}

/// A keyset's life, and whether it has a key of each suite.
#[derive(Clone, Copy)]
struct Stands {
    issued_at_ms: i64,
    expires_at_ms: i64,
    whole: bool,
}

impl Stands {
    fn of(row: &KeysetRow) -> Self {
        Self { issued_at_ms: row.issued_at_ms, expires_at_ms: row.expires_at_ms, whole: row.seal_key_b.is_some() }
    }

    fn due(self, now_ms: i64, life: Duration) -> bool {
        let half = self.issued_at_ms.saturating_add(self.expires_at_ms.saturating_sub(self.issued_at_ms) / 2);
        let too_long = self.expires_at_ms > now_ms.saturating_add(clock::millis(life));
        // A clock that was set back: the keyset would be issued in the future.
        let ahead = self.issued_at_ms > now_ms;
        now_ms >= half || too_long || ahead || !self.whole
    }
}

/// The same keys under the next version, once half of the life is over, when the setting has become shorter, or when there is
/// no key of suite B yet. So a new keyset reaches every agent, which renews far more often, long before the old one ends.
pub(super) fn due(row: &KeysetRow, now_ms: i64, life: Duration) -> Option<KeysetRow> {
    Stands::of(row).due(now_ms, life).then(|| {
        let mut next = row.clone();
        next.version += 1;
        next.issued_at_ms = now_ms;
        next.expires_at_ms = now_ms.saturating_add(clock::millis(life));
        next.seal_key_b.get_or_insert_with(entropy::bytes);
        next
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
        let mut of_old = row.clone();
        of_old.seal_key_b = None;
        let next = due(&of_old, 2_000, life).unwrap();
        assert!(next.seal_key_b.is_some() && next.seal_key == row.seal_key && next.version == 2, "suite B is new");
        assert_eq!(due(&next, 2_000, life).map(|row| row.version), None);
    }

    #[test]
    fn keys_in_use_know_by_themselves_when_the_store_has_to_be_asked() {
        let (root, life) = (SigningKey::from_bytes(&[1; 32]), Duration::from_secs(100));
        let row = first(1_000, life);
        let keys = Keys::sign(&root, &row, 1_000, 10).unwrap();
        for now in [0, 1_000, 50_999, 51_000] {
            assert_eq!(keys.stale(now, life), due(&row, now, life).is_some(), "{now}");
        }
        assert!(!keys.stale(50_999, life) && keys.stale(51_000, life) && keys.stale(2_000, life / 2));
        let mut switching = keys;
        switching.switch_at_ms = Some(3_000);
        assert!(!switching.stale(2_999, life) && switching.stale(3_000, life));
    }

    #[test]
    fn the_keyset_lists_the_keys_by_their_use_under_the_roots_signature() {
        let root = SigningKey::from_bytes(&[1; 32]);
        let keys = Keys::sign(&root, &first(5, Duration::from_secs(1)), 5, 0).unwrap();
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
