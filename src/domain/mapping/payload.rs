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
use std::ops::Deref;
use zeroize::Zeroizing;

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

/// A value as text: a slice of the payload, or a copy that is wiped.
pub(super) enum Plain<'a> {
    Slice(&'a str),
    Copy(Zeroizing<String>),
}

impl Deref for Plain<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Slice(text) => text,
            Self::Copy(text) => text,
        }
    }
}

/// A string without its quotes and escapes, everything else as it was written, without white space between tokens.
pub(super) fn raw(value: &RawValue) -> Result<Plain<'_>, MappingError> {
    let text = value.get();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        None => Ok(Plain::Copy(compact(text))),
        Some(inner) if !inner.contains('\\') => Ok(Plain::Slice(inner)),
        Some(inner) => unescape(inner)
            .map(Plain::Copy)
            .ok_or_else(|| MappingError::Unusable("a string has a broken escape".to_owned())),
    }
}

/// What stands between the quotes of a JSON string, without its escapes (RFC 8259 section 7). By hand, since serde_json leaves
/// what it takes apart in a buffer that grows and is not wiped; no escape is shorter than what it stands for.
fn unescape(inner: &str) -> Option<Zeroizing<String>> {
    let mut out = Zeroizing::new(String::with_capacity(inner.len()));
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut tail = after.chars();
        let kind = tail.next()?;
        rest = tail.as_str();
        out.push(match kind {
            '"' | '\\' | '/' => kind,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut units = [unit(&mut rest)?, 0];
                let pair = (0xd800..0xdc00).contains(&units[0]);
                if pair {
                    rest = rest.strip_prefix("\\u")?;
                    units[1] = unit(&mut rest)?;
                }
                char::decode_utf16(units.into_iter().take(1 + usize::from(pair))).next()?.ok()?
            }
            _ => return None,
        });
    }
    out.push_str(rest);
    Some(out)
}

/// Four hexadecimal digits, taken off `rest`.
fn unit(rest: &mut &str) -> Option<u16> {
    let (digits, tail) = rest.split_at_checked(4)?;
    *rest = tail;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// JSON without white space between tokens.
pub(super) fn compact(raw: &str) -> Zeroizing<String> {
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
    let mut out = Zeroizing::new(String::with_capacity(raw.len()));
    out.extend(raw.chars().filter(keep));
    out
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As serde_json reads it, or refused like there.
    fn same(text: &str) {
        let Ok(value) = serde_json::from_str::<&RawValue>(text) else { return };
        let ours = raw(value).ok().map(|text| text.to_string());
        assert_eq!(ours, serde_json::from_str::<String>(text).ok(), "{text}");
    }

    #[test]
    fn escapes_are_taken_apart_as_serde_json_does() {
        for inner in [
            "",
            "plain",
            r#"a\"b\\c\/d"#,
            r"\b\f\n\r\t",
            r"\u0041\u00fc\u20AC",
            r"\ud83d\ude00!",
            r"\ud83d",
            r"\ude00",
            r"\ud83dx",
            r"\ud83d\n",
            r"\ud83d\u0041",
            r"\u00g0",
            r"\u+123",
            r"\u12",
            r"\x",
            "ü\\tü",
        ] {
            same(&format!("\"{inner}\""));
        }
    }

    proptest! {
        #[test]
        fn any_string_is_taken_apart_as_serde_json_does(text: String) {
            same(&serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn any_escapes_are_taken_apart_or_refused_as_serde_json_does(inner in r#"([a-z]|\\[\\/bfnrtux"]|\\u(d[89cd])?[0-9a-fA-F]{2,4})*"#) {
            same(&format!("\"{inner}\""));
        }
    }
}
