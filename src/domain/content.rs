//! Fingerprints: what a Secret holds, said without saying it.
//!
//! Keyed per secret by the core's stamp key, so a reader of the annotation can neither guess a weak value offline nor
//! compare two secrets. Equal data gives equal content across versions, mappings and agent restarts.

use crate::domain::name::DataKey;
use crate::domain::secret_value::SecretData;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// HKDF of the core's master key and the source (PROTOCOL.md, "Sealed"). Arrives inside the seal; never kept.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct StampKey(Box<[u8; 32]>);

impl StampKey {
    /// Copies the key into a wiped box.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Box::new(*bytes))
    }
}

impl StampKey {
    /// What salts are made with.
    pub fn salt(&self) -> Salt {
        Salt(Self::new(&self.0))
    }
}

/// Salts that equal data gets again: without them what is salted would be another content each time.
#[derive(Debug)]
pub struct Salt(StampKey);

impl Salt {
    /// The first 16 bytes of the HMAC-SHA256 of these parts under the stamp key.
    pub fn of(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut salt = [0; 16];
        // HMAC takes keys of any length, so this cannot fail.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.0.as_slice()) {
            mac.update(b"ennote/salt");
            for part in parts {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part);
            }
            salt.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        salt
    }
}

impl fmt::Debug for StampKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StampKey(..)")
    }
}

/// What a Secret holds, as 26 characters of lower-case base32 (130 bits).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content(String);

impl Content {
    /// Takes over what status or an annotation holds.
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `base32(SHA-256(bytes))[:26]`, lower case: fits a label value.
pub fn short_hash(bytes: &[u8]) -> String {
    let mut text = BASE32_NOPAD.encode(&Sha256::digest(bytes)).to_ascii_lowercase();
    text.truncate(26);
    text
}

/// Label value that ties a Secret to its binding whatever the length of the binding's name.
pub fn binding_id(binding: &str) -> String {
    short_hash(binding.as_bytes())
}

/// Per key, HMAC-SHA256 under the stamp key, first 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Fingerprints(BTreeMap<String, [u8; 16]>);

impl Fingerprints {
    /// Fingerprints of `data`. The key is part of what is hashed: equal values under two keys differ.
    pub fn of(key: &StampKey, data: &SecretData) -> Self {
        let mut keyed = BTreeMap::new();
        for (name, value) in data {
            // HMAC takes keys of any length, so this cannot fail.
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.0.as_slice()) else { continue };
            mac.update(&(name.as_str().len() as u32).to_be_bytes());
            mac.update(name.as_str().as_bytes());
            mac.update(value.expose());
            let mut short = [0; 16];
            short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
            keyed.insert(name.as_str().to_owned(), short);
        }
        Self(keyed)
    }

    /// From the text of the target's annotation: `key=fingerprint` pairs joined by commas. `None` if it was tampered with.
    pub fn from_annotation(text: &str) -> Option<Self> {
        let mut keyed = BTreeMap::new();
        for pair in text.split(',').filter(|p| !p.is_empty()) {
            let (key, encoded) = pair.split_once('=')?;
            let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).ok()?;
            // The annotation is anyone's to edit, and its keys go into a request body.
            keyed.insert(DataKey::parse(key).ok()?.as_str().to_owned(), bytes.try_into().ok()?);
        }
        Some(Self(keyed))
    }

    /// For the target's annotation. Keys hold neither commas nor equals signs.
    pub fn to_annotation(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(k, f)| format!("{k}={}", BASE64URL_NOPAD.encode(f))).collect();
        pairs.join(",")
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The keys whose values differ, and those that only one of the two has.
    pub fn differing(&self, other: &Self) -> BTreeSet<String> {
        let keys = self.0.keys().chain(other.0.keys());
        keys.filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether both hold the same under this key.
    pub fn agrees(&self, other: &Self, key: &str) -> bool {
        self.0.get(key).is_some_and(|print| other.0.get(key) == Some(print))
    }

    /// The whole, as one content.
    pub fn content(&self) -> Content {
        Content(short_hash(self.to_annotation().as_bytes()))
    }
}

/// The stamp of a pod template that reads these bindings: a pure function of what they hold, so that a repeated stamp is a
/// no-op, also from two agents or after a kill.
pub fn stamp<'a>(reads: impl IntoIterator<Item = (&'a str, &'a Content)>) -> String {
    let mut lines: Vec<String> = reads.into_iter().map(|(binding, content)| format!("{binding}={content}")).collect();
    lines.sort();
    short_hash(lines.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret_value::SecretValue;

    fn data(pairs: &[(&str, &str)]) -> SecretData {
        pairs.iter().map(|(k, v)| (DataKey::parse(k).unwrap(), SecretValue::copy_of(v.as_bytes()))).collect()
    }

    fn content(key: u8, pairs: &[(&str, &str)]) -> Content {
        Fingerprints::of(&StampKey::new(&[key; 32]), &data(pairs)).content()
    }

    #[test]
    fn content_follows_data_and_key_only() {
        let base = content(1, &[("a", "1"), ("b", "2")]);
        assert_eq!(base, content(1, &[("b", "2"), ("a", "1")]));
        for other in [
            content(2, &[("a", "1"), ("b", "2")]),
            content(1, &[("a", "2"), ("b", "1")]),
            content(1, &[("a", "1")]),
            content(1, &[("a", "1"), ("b", "2"), ("c", "")]),
            content(1, &[("ab", ""), ("b", "2")]),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base.as_str().len(), 26);
    }

    #[test]
    fn the_annotation_brings_the_same_content_back() {
        let prints = Fingerprints::of(&StampKey::new(&[7; 32]), &data(&[("a.b", "x"), ("c-d_E", "y")]));
        let back = Fingerprints::from_annotation(&prints.to_annotation()).unwrap();
        assert_eq!(back, prints);
        assert_eq!(back.content(), prints.content());
        assert_eq!(Fingerprints::from_annotation(""), Some(Fingerprints::default()));
        assert_eq!(Fingerprints::from_annotation("a=!!"), None);
        assert_eq!(Fingerprints::from_annotation("a"), None);
    }

    #[test]
    fn stamps_do_not_depend_on_order() {
        let (one, two) = (Content::from_text("one"), Content::from_text("two"));
        assert_eq!(stamp([("a", &one), ("b", &two)]), stamp([("b", &two), ("a", &one)]));
        assert_ne!(stamp([("a", &one), ("b", &two)]), stamp([("a", &two), ("b", &one)]));
        assert_ne!(stamp([("a", &one)]), stamp([("a", &one), ("b", &two)]));
    }
}
