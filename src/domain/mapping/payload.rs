//! Decrypted JSON, read in place: objects in their order, numbers as they were written, pointers resolved.
//!
//! Values are borrowed slices of the decrypted buffer; no `serde_json::Value` is ever made, since it rounds numbers, drops
//! duplicate keys and cannot be wiped.

use crate::domain::mapping::MappingError;
use jsonptr::Pointer;
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// Deeper nesting is refused: no person writes it, and each level is parsed again.
const MAX_DEPTH: usize = 64;

/// Objects and lists that were parsed already, by where their text begins: each is parsed once, however many pointers lead
/// through it.
#[derive(Default)]
pub(super) struct Parsed<'a> {
    objects: HashMap<usize, Entries<'a>>,
    lists: HashMap<usize, Vec<&'a RawValue>>,
}

impl<'a> Parsed<'a> {
    fn member(&mut self, of: &'a RawValue, name: &str) -> Result<Option<&'a RawValue>, MappingError> {
        let entries = match self.objects.entry(of.get().as_ptr() as usize) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(object(of)?.unwrap_or_default()),
        };
        Ok(entries.iter().find(|(key, _)| key == name).map(|(_, value)| *value))
    }

    fn item(&mut self, of: &'a RawValue, index: usize) -> Result<Option<&'a RawValue>, MappingError> {
        let items = match self.lists.entry(of.get().as_ptr() as usize) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(array(of)?),
        };
        Ok(items.get(index).copied())
    }
}

/// RFC 6901 section 4. `-` names the element after the last: nothing to read.
pub(super) fn resolve<'a>(
    root: &'a RawValue,
    pointer: &Pointer,
    parsed: &mut Parsed<'a>,
) -> Result<Option<&'a RawValue>, MappingError> {
    let mut here = root;
    for token in pointer.tokens() {
        let next = match here.get().as_bytes().first() {
            Some(b'{') => parsed.member(here, &token.decoded())?,
            Some(b'[') => match token.to_index() {
                Ok(jsonptr::index::Index::Num(n)) => parsed.item(here, n)?,
                _ => None,
            },
            _ => None,
        };
        match next {
            Some(value) => here = value,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// A string without its quotes and escapes, everything else as it was written, without white space between tokens.
pub(super) fn raw(value: &RawValue) -> Result<Cow<'_, str>, MappingError> {
    let text = value.get();
    if !text.starts_with('"') {
        return Ok(Cow::Owned(compact(text)));
    }
    let text: Text<'_> =
        serde_json::from_str(text).map_err(|_| MappingError::Unusable("a string has a broken escape".to_owned()))?;
    Ok(text.0)
}

/// JSON without white space between tokens.
pub(super) fn compact(raw: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |c: &char| {
        if quoted {
            quoted = escaped || *c != '"';
            escaped = !escaped && *c == '\\';
            true
        } else if c.is_ascii_whitespace() {
            false
        } else {
            quoted = *c == '"';
            true
        }
    };
    raw.chars().filter(keep).collect()
}

pub(super) fn check(value: &RawValue, depth: usize) -> Result<(), MappingError> {
    if depth > MAX_DEPTH {
        return Err(MappingError::Unusable(format!("it is nested deeper than {MAX_DEPTH} levels")));
    }
    if let Some(entries) = object(value)? {
        for (_, child) in entries {
            check(child, depth + 1)?;
        }
    } else if value.get().starts_with('[') {
        for child in array(value)? {
            check(child, depth + 1)?;
        }
    }
    Ok(())
}

pub(super) type Entries<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The entries of an object in their order, or `None` of anything else.
pub(super) fn object(value: &RawValue) -> Result<Option<Entries<'_>>, MappingError> {
    if !value.get().starts_with('{') {
        return Ok(None);
    }
    let entries: Object<'_> = serde_json::from_str(value.get()).map_err(|_| {
        MappingError::Unusable(
            "an object in it cannot be read: a broken escape in a key, or a lone surrogate".to_owned(),
        )
    })?;
    let mut seen = BTreeSet::new();
    for (key, _) in &entries.0 {
        if !seen.insert(key.as_ref()) {
            return Err(MappingError::Unusable(format!("the key {key:?} stands twice in one object")));
        }
    }
    Ok(Some(entries.0))
}

pub(super) fn array(value: &RawValue) -> Result<Vec<&RawValue>, MappingError> {
    let items: Array<'_> = serde_json::from_str(value.get())
        .map_err(|_| MappingError::Unusable("a list in it cannot be read".to_owned()))?;
    Ok(items.0)
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Object<'a>(Entries<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    entries.push((key.0, value));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

struct Array<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Array<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Array<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Array(items))
            }
        }
        deserializer.deserialize_seq(Visit)
    }
}
