//! Keys of the keyset come and go: listed before they are used, and revoked at once by being left out.

use super::keyset::{Keys, slots, usable};
use super::{AdminError, Core, News};
use crate::signed::hash;
use crate::store::{AddedKey, KeyUse, KeysetRow, StoreError, Table, Tx};
use crate::suite::Unsealable;
use crate::{clock, entropy};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, PoisonError};

/// Keys of one use at most.
const PER_USE: usize = 8;
/// Characters of an id that name a key at least.
const SHORTEST: usize = 8;

/// `keyset show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysetEntry {
    /// Its version.
    pub version: u64,
    /// Unix milliseconds.
    pub issued_at_ms: i64,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
    /// Its keys.
    pub keys: Vec<ListedKey>,
}

/// A key of the keyset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedKey {
    /// SHA-256 of the public half, hexadecimal.
    pub id: String,
    /// What for.
    pub r#use: KeyUse,
    /// Whether it is the one that is used now.
    pub used: bool,
    /// When it may be used, if that is yet to come. Unix milliseconds.
    pub from_ms: Option<i64>,
}

/// The next version, with a new key of each of these uses.
pub(super) fn rotated(row: &KeysetRow, uses: &[KeyUse], now_ms: i64, life_ms: i64) -> Result<KeysetRow, AdminError> {
    if uses.iter().any(|r#use| slots(row).iter().filter(|slot| slot.r#use == *r#use).count() >= PER_USE) {
        return Err(AdminError::ManyKeys);
    }
    let mut next = reissued(row, now_ms, life_ms);
    next.added.extend(uses.iter().map(|r#use| AddedKey {
        r#use: *r#use,
        secret: entropy::bytes(),
        listed_at_ms: now_ms,
    }));
    Ok(next)
}

/// The next version, without the key. Where it was the only one of its use, a new one takes its place.
pub(super) fn without(row: &KeysetRow, id: &str, now_ms: i64, life_ms: i64) -> Result<KeysetRow, AdminError> {
    let broken = |_: Unsealable| AdminError::Store(StoreError::Shape(Table::Installation.name()));
    let mut named = Vec::new();
    for slot in slots(row) {
        let own = HEXLOWER.encode(&hash(&[&slot.public().map_err(broken)?]));
        if id.len() >= SHORTEST && own.starts_with(&id.to_lowercase()) {
            named.push((slot.r#use, *slot.secret, slot.listed_at_ms.is_none()));
        }
    }
    let [(r#use, secret, is_first)] = named[..] else { return Err(AdminError::NoSuchKey(id.to_owned())) };
    let mut next = reissued(row, now_ms, life_ms);
    next.evictions += 1;
    if !is_first {
        next.added.retain(|key| key.secret != secret);
        return Ok(next);
    }
    let heir = next.added.iter().position(|key| key.r#use == r#use).map(|at| next.added.remove(at).secret);
    let heir = heir.unwrap_or_else(entropy::bytes);
    match r#use {
        KeyUse::Join => next.join_seed = heir,
        KeyUse::Payload => next.payload_seed = heir,
        KeyUse::SealA => next.seal_key = heir,
        KeyUse::SealB => next.seal_key_b = Some(heir),
    }
    Ok(next)
}

fn reissued(row: &KeysetRow, now_ms: i64, life_ms: i64) -> KeysetRow {
    let mut next = row.clone();
    next.version += 1;
    next.issued_at_ms = now_ms;
    next.expires_at_ms = now_ms.saturating_add(life_ms);
    next
}

/// A row as people see it.
fn shown(row: &KeysetRow, now_ms: i64, lead_ms: i64) -> Result<KeysetEntry, Unsealable> {
    let all = slots(row);
    let listed = |(at, slot): (usize, &super::keyset::Slot<'_>)| {
        let usable = usable(slot, now_ms, lead_ms);
        let newer = all[at + 1..].iter().any(|other| other.r#use == slot.r#use && self::usable(other, now_ms, lead_ms));
        Ok::<_, Unsealable>(ListedKey {
            id: HEXLOWER.encode(&hash(&[&slot.public()?])),
            r#use: slot.r#use,
            used: usable && !newer,
            from_ms: slot.listed_at_ms.filter(|_| !usable).map(|listed| listed.saturating_add(lead_ms)),
        })
    };
    Ok(KeysetEntry {
        version: row.version,
        issued_at_ms: row.issued_at_ms,
        expires_at_ms: row.expires_at_ms,
        keys: all.iter().enumerate().map(listed).collect::<Result<_, _>>()?,
    })
}

impl Core {
    /// The keyset as it is.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn keyset(&self) -> Result<KeysetEntry, AdminError> {
        let row: Option<KeysetRow> = self.store.view()?.get(Table::Installation, &["keyset"])?;
        self.keyset_entry(&row.ok_or_else(shape)?)
    }

    /// Adds a key of a use, which is listed at once and used once every agent has had time to hear of it.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn rotate_keys(&self, uses: &[KeyUse]) -> Result<KeysetEntry, AdminError> {
        let (uses, life) = (uses.to_vec(), clock::millis(self.lives.keyset_life));
        let row = self.change_keyset(move |row, now_ms| rotated(row, &uses, now_ms, life)).await?;
        self.keyset_entry(&row)
    }

    /// Leaves a key out from now on: what it signs or receives counts for nobody, all streams end, and agents join again
    /// under the next keyset.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn drop_key(&self, id: &str) -> Result<KeysetEntry, AdminError> {
        let (id, life) = (id.to_owned(), clock::millis(self.lives.keyset_life));
        let row = self.change_keyset(move |row, now_ms| without(row, &id, now_ms, life)).await?;
        // Told only now, so that no stream reads the keys of before.
        self.hub.tell(News::Keyset);
        self.keyset_entry(&row)
    }

    async fn change_keyset(
        &self,
        change: impl FnOnce(&KeysetRow, i64) -> Result<KeysetRow, AdminError> + Send + 'static,
    ) -> Result<KeysetRow, AdminError> {
        let next = self
            .store
            .write(move |tx: &mut Tx<'_, '_, News>| {
                let row: KeysetRow = tx.get(Table::Installation, &["keyset"])?.ok_or_else(shape)?;
                let next = change(&row, tx.now_ms())?;
                tx.put(Table::Installation, &["keyset"], &next)?;
                Ok::<_, AdminError>(next)
            })
            .await?;
        self.use_keyset(&next)?;
        Ok(next)
    }

    /// Takes a row that is on disk into use, unless a later one is.
    pub(super) fn use_keyset(&self, row: &KeysetRow) -> Result<(), StoreError> {
        let lead = clock::millis(self.lives.publish_lead);
        let keys = Keys::sign(&self.root, row, Self::now_ms(), lead).map_err(|_| shape())?;
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if current.version <= keys.version {
            tracing::info!(version = keys.version, "keyset in use");
            *current = Arc::new(keys);
        }
        Ok(())
    }

    fn keyset_entry(&self, row: &KeysetRow) -> Result<KeysetEntry, AdminError> {
        let lead = clock::millis(self.lives.publish_lead);
        Ok(shown(row, Self::now_ms(), lead).map_err(|_| shape())?)
    }
}

fn shape() -> StoreError {
    StoreError::Shape(Table::Installation.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::keyset::first;
    use ed25519_dalek::SigningKey;
    use std::time::Duration;

    fn ids(row: &KeysetRow, r#use: KeyUse) -> Vec<(String, bool)> {
        let keys = shown(row, 1_000, 100).unwrap().keys;
        keys.into_iter().filter(|key| key.r#use == r#use).map(|key| (key.id, key.used)).collect()
    }

    #[test]
    fn an_added_key_is_listed_first_and_used_later() {
        let root = SigningKey::from_bytes(&[1; 32]);
        let row = first(0, Duration::from_secs(1));
        let next = rotated(&row, &[KeyUse::Join, KeyUse::SealA], 1_000, 5_000).unwrap();
        assert_eq!((next.version, next.issued_at_ms, next.expires_at_ms, next.evictions), (2, 1_000, 6_000, 0));
        let early = Keys::sign(&root, &next, 1_099, 100).unwrap();
        let late = Keys::sign(&root, &next, 1_100, 100).unwrap();
        let seal = |keys: &Keys| keys.seal(crate::suite::Suite::A).unwrap().id;
        assert_eq!(early.join.to_bytes(), row.join_seed);
        assert_eq!(late.join.to_bytes(), next.added[0].secret);
        assert_ne!(seal(&early), seal(&late));
        assert!(late.seal_of(&seal(&early)).is_some(), "what was sealed to the old one still opens");
        assert_eq!((early.switch_at_ms, late.switch_at_ms), (Some(1_100), None));
        assert_eq!(late.payload.to_bytes(), row.payload_seed);
        let mut full = row;
        for _ in 1..PER_USE {
            full = rotated(&full, &[KeyUse::Join], 0, 1).unwrap();
        }
        assert!(rotated(&full, &[KeyUse::Join], 0, 1).is_err());
    }

    #[test]
    fn a_dropped_key_is_listed_no_more_and_its_use_is_never_without_one() {
        let row = first(0, Duration::from_secs(1));
        let [(only, _)] = &ids(&row, KeyUse::Join)[..] else { panic!("one key") };
        let next = without(&row, only, 1_000, 5_000).unwrap();
        let fresh = ids(&next, KeyUse::Join);
        assert!(fresh.len() == 1 && fresh[0].1 && fresh[0].0 != *only, "the only one was replaced");
        assert_eq!((next.version, next.evictions), (2, 1));
        let two = rotated(&row, &[KeyUse::Join], 950, 5_000).unwrap();
        let listed = ids(&two, KeyUse::Join);
        assert_eq!(listed.iter().map(|key| key.1).collect::<Vec<_>>(), [true, false]);
        let heir = without(&two, &listed[0].0[..12].to_uppercase(), 1_000, 5_000).unwrap();
        assert_eq!(ids(&heir, KeyUse::Join), [(listed[1].0.clone(), true)], "the other one is used at once");
        let taken_back = without(&two, &listed[1].0, 1_000, 5_000).unwrap();
        assert_eq!(ids(&taken_back, KeyUse::Join), [(listed[0].0.clone(), true)]);
        for id in ["", "0", "nonsense", &only[..7]] {
            assert!(without(&row, id, 0, 1).is_err(), "{id:?}");
        }
    }
}
