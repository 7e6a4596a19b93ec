//! Decrypted JSON to the keys and values of a Secret.
//!
//! Guarantees: numbers and strings as they were written, duplicate keys refused, all or nothing, every missing key named at
//! once. Values are borrowed slices of the decrypted buffer until they are copied into a `SecretValue` of exact size; no
//! `serde_json::Value` is ever made, since it rounds numbers, drops duplicate keys and cannot be wiped.

use crate::domain::name::DataKey;
use crate::domain::secret_value::{SecretData, SecretValue};
use jsonptr::{Pointer, PointerBuf};
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// Deeper nesting is refused: no person writes it, and each level is parsed again.
const MAX_DEPTH: usize = 64;

/// The API server's limit on the values of a Secret, in bytes
/// (<https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>).
const MAX_DATA: usize = 1024 * 1024;

/// How payload becomes data.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapping {
    /// The entries of `keysValues`, else every top-level field but `securityNotes`.
    Everything,
    /// These keys, each from its place.
    Keys(Vec<(DataKey, PointerBuf)>),
}

/// Why a payload gave no data. Texts name keys, never values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not one JSON object in UTF-8, or nested too deep, or a key twice in one object.
    #[error("the payload is not usable: {0}")]
    Unusable(String),
    /// Pointers that resolve to nothing.
    #[error("not in the payload: {}", .0.join(", "))]
    Missing(Vec<String>),
    /// Together more than a Secret holds.
    #[error(
        "the keys hold more than {MAX_DATA} bytes together, which is what a Secret holds; pick fewer with spec.data"
    )]
    TooLarge,
    /// Keys that Kubernetes would refuse.
    #[error("a Secret cannot hold these keys: {}; map them with spec.data", .0.join(", "))]
    IllegalKeys(Vec<String>),
}

/// Maps a payload.
///
/// # Errors
/// [`PayloadError`]; nothing is returned in part.
pub fn map(payload: &[u8], mapping: &Mapping) -> Result<SecretData, PayloadError> {
    let text = std::str::from_utf8(payload).map_err(|_| PayloadError::Unusable("it is not UTF-8".to_owned()))?;
    let root: &RawValue = serde_json::from_str(text)
        .map_err(|e| PayloadError::Unusable(format!("it is not JSON (line {}, column {})", e.line(), e.column())))?;
    check(root, 0)?;
    match mapping {
        Mapping::Everything => everything(root),
        Mapping::Keys(keys) => by_pointer(root, keys),
    }
}

fn everything(root: &RawValue) -> Result<SecretData, PayloadError> {
    let top = object(root)?.ok_or_else(|| PayloadError::Unusable("it is not a JSON object".to_owned()))?;
    let nested = match top.iter().find(|(k, _)| k == "keysValues") {
        Some((_, value)) => object(value)?,
        None => None,
    };
    let entries = match nested {
        Some(entries) => entries,
        None => top.into_iter().filter(|(k, _)| k != "securityNotes").collect(),
    };
    let mut illegal = Vec::new();
    let mut data = Rendered::default();
    for (key, value) in entries {
        match DataKey::parse(&key) {
            Ok(key) => data.add(key, value)?,
            Err(text) => illegal.push(format!("{text:?}")),
        }
    }
    if illegal.is_empty() { Ok(data.data) } else { Err(PayloadError::IllegalKeys(illegal)) }
}

fn by_pointer(root: &RawValue, keys: &[(DataKey, PointerBuf)]) -> Result<SecretData, PayloadError> {
    let mut missing = Vec::new();
    let mut data = Rendered::default();
    let mut parsed = Parsed::default();
    for (key, pointer) in keys {
        match resolve(root, pointer, &mut parsed)? {
            Some(value) => data.add(key.clone(), value)?,
            None => missing.push(format!("{pointer} (for {key})")),
        }
    }
    if missing.is_empty() { Ok(data.data) } else { Err(PayloadError::Missing(missing)) }
}

/// What has been rendered, never more than a Secret holds: many keys may each name the whole payload.
#[derive(Default)]
struct Rendered {
    data: SecretData,
    bytes: usize,
}

impl Rendered {
    fn add(&mut self, key: DataKey, value: &RawValue) -> Result<(), PayloadError> {
        let value = render(value)?;
        self.bytes += value.expose().len();
        if self.bytes > MAX_DATA {
            return Err(PayloadError::TooLarge);
        }
        self.data.insert(key, value);
        Ok(())
    }
}

/// Objects and lists that were parsed already, by where their text begins: each is parsed once, however many pointers lead
/// through it.
#[derive(Default)]
struct Parsed<'a> {
    objects: HashMap<usize, Entries<'a>>,
    lists: HashMap<usize, Vec<&'a RawValue>>,
}

impl<'a> Parsed<'a> {
    fn member(&mut self, of: &'a RawValue, name: &str) -> Result<Option<&'a RawValue>, PayloadError> {
        let entries = match self.objects.entry(of.get().as_ptr() as usize) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(object(of)?.unwrap_or_default()),
        };
        Ok(entries.iter().find(|(key, _)| key == name).map(|(_, value)| *value))
    }

    fn item(&mut self, of: &'a RawValue, index: usize) -> Result<Option<&'a RawValue>, PayloadError> {
        let items = match self.lists.entry(of.get().as_ptr() as usize) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(array(of)?),
        };
        Ok(items.get(index).copied())
    }
}

/// RFC 6901 section 4. `-` names the element after the last: nothing to read.
fn resolve<'a>(
    root: &'a RawValue,
    pointer: &Pointer,
    parsed: &mut Parsed<'a>,
) -> Result<Option<&'a RawValue>, PayloadError> {
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

/// Strings unescaped, everything else as it was written, without white space between tokens.
fn render(value: &RawValue) -> Result<SecretValue, PayloadError> {
    let raw = value.get();
    if !raw.starts_with('"') {
        return Ok(SecretValue::new(compact(raw.as_bytes())));
    }
    let text: Text<'_> =
        serde_json::from_str(raw).map_err(|_| PayloadError::Unusable("a string has a broken escape".to_owned()))?;
    // An unescaped string borrows; one with escapes was built in a buffer of its own, which must be wiped too.
    Ok(match text.0 {
        Cow::Borrowed(text) => SecretValue::copy_of(text.as_bytes()),
        Cow::Owned(text) => {
            let owned = zeroize::Zeroizing::new(text);
            SecretValue::copy_of(owned.as_bytes())
        }
    })
}

fn compact(raw: &[u8]) -> Box<[u8]> {
    let keep = |sink: &mut dyn FnMut(u8)| {
        let (mut quoted, mut escaped) = (false, false);
        for &byte in raw {
            if quoted {
                quoted = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                sink(byte);
            } else if !byte.is_ascii_whitespace() {
                quoted = byte == b'"';
                sink(byte);
            }
        }
    };
    let mut length = 0;
    keep(&mut |_| length += 1);
    let mut out = Vec::with_capacity(length);
    keep(&mut |byte| out.push(byte));
    out.into_boxed_slice()
}

fn check(value: &RawValue, depth: usize) -> Result<(), PayloadError> {
    if depth > MAX_DEPTH {
        return Err(PayloadError::Unusable(format!("it is nested deeper than {MAX_DEPTH} levels")));
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

type Entries<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The entries of an object in their order, or `None` of anything else.
fn object(value: &RawValue) -> Result<Option<Entries<'_>>, PayloadError> {
    if !value.get().starts_with('{') {
        return Ok(None);
    }
    let entries: Object<'_> = serde_json::from_str(value.get()).map_err(|_| {
        PayloadError::Unusable(
            "an object in it cannot be read: a broken escape in a key, or a lone surrogate".to_owned(),
        )
    })?;
    let mut seen = BTreeSet::new();
    for (key, _) in &entries.0 {
        if !seen.insert(key.as_ref()) {
            return Err(PayloadError::Unusable(format!("the key {key:?} stands twice in one object")));
        }
    }
    Ok(Some(entries.0))
}

fn array(value: &RawValue) -> Result<Vec<&RawValue>, PayloadError> {
    let items: Array<'_> = serde_json::from_str(value.get())
        .map_err(|_| PayloadError::Unusable("a list in it cannot be read".to_owned()))?;
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

    fn shown(result: Result<SecretData, PayloadError>) -> Result<Vec<(String, String)>, PayloadError> {
        Ok(result?.iter().map(|(k, v)| (k.to_string(), String::from_utf8(v.expose().to_vec()).unwrap())).collect())
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn pick(payload: &str, key: &str, pointer: &str) -> Result<Vec<(String, String)>, PayloadError> {
        let keys = vec![(DataKey::parse(key).unwrap(), PointerBuf::parse(pointer).unwrap())];
        shown(map(payload.as_bytes(), &Mapping::Keys(keys)))
    }

    #[test]
    fn by_default_the_entries_of_keys_values_exactly_as_written() {
        let payload = r#"{ "keysValues": {"A": "x", "n": 12345678901234567890123, "e": 1e3, "f": 1.0, "no": "no",
            "t": true, "z": null, "o": {"k" : [1, "a b"]}, "s": "line\n\u00e9"} }"#;
        let want = [
            ("A", "x"),
            ("e", "1e3"),
            ("f", "1.0"),
            ("n", "12345678901234567890123"),
            ("no", "no"),
            ("o", r#"{"k":[1,"a b"]}"#),
            ("s", "line\né"),
            ("t", "true"),
            ("z", "null"),
        ];
        assert_eq!(shown(map(payload.as_bytes(), &Mapping::Everything)), Ok(pairs(&want)));
    }

    #[test]
    fn other_types_give_their_fields_but_not_the_notes() {
        let login = br#"{"login":"me","password":"p","securityNotes":"n"}"#;
        assert_eq!(shown(map(login, &Mapping::Everything)), Ok(pairs(&[("login", "me"), ("password", "p")])));
        assert_eq!(shown(map(br#"{"keysValues":"text"}"#, &Mapping::Everything)), Ok(pairs(&[("keysValues", "text")])));
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let payload = r#"{"a/b": {"m~n": [10, {"": "empty"}]}, "keysValues": {"url": "u"}}"#;
        assert_eq!(pick(payload, "k", "/keysValues/url"), Ok(pairs(&[("k", "u")])));
        assert_eq!(pick(payload, "k", "/a~1b/m~0n/0"), Ok(pairs(&[("k", "10")])));
        assert_eq!(pick(payload, "k", "/a~1b/m~0n/1/"), Ok(pairs(&[("k", "empty")])));
        assert_eq!(pick(r#"{"a":1}"#, "k", ""), Ok(pairs(&[("k", r#"{"a":1}"#)])));
        for nothing in ["/x", "/a~1b/m~0n/2", "/a~1b/m~0n/-", "/a~1b/m~0n/00", "/keysValues/url/deeper"] {
            assert_eq!(
                pick(payload, "k", nothing),
                Err(PayloadError::Missing(vec![format!("{nothing} (for k)")])),
                "{nothing}"
            );
        }
    }

    #[test]
    fn all_missing_and_all_illegal_keys_are_named_at_once() {
        let keys = ["/x", "/y"].map(|p| (DataKey::parse("k").unwrap(), PointerBuf::parse(p).unwrap())).to_vec();
        let error = map(b"{}", &Mapping::Keys(keys)).unwrap_err();
        assert_eq!(error.to_string(), "not in the payload: /x (for k), /y (for k)");
        let error = map(br#"{"keysValues":{"export A":"1","B":"2","":"3"}}"#, &Mapping::Everything).unwrap_err();
        assert_eq!(error, PayloadError::IllegalKeys(vec!["\"export A\"".into(), "\"\"".into()]));
    }

    #[test]
    fn more_than_a_secret_holds_is_refused_before_it_is_all_in_memory() {
        let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(600_000));
        assert_eq!(pick(&payload, "k", "/a").map(|d| d[0].1.len()), Ok(600_000));
        let keys: Vec<_> =
            (0..512).map(|n| (DataKey::parse(&format!("k{n}")).unwrap(), PointerBuf::parse("/a").unwrap())).collect();
        assert_eq!(map(payload.as_bytes(), &Mapping::Keys(keys)).err(), Some(PayloadError::TooLarge));
    }

    #[test]
    fn what_is_not_one_clean_object_is_refused_without_quoting_it() {
        for bad in [
            &b"\xff{}"[..],
            b"",
            b"[1]",
            b"\"canary\"",
            b"{\"a\":1",
            b"{\"a\":1}{",
            b"{\"keysValues\":{\"a\":\"canary\",\"a\":\"2\"}}",
            b"{\"x\":[{\"d\":1,\"\\u0064\":2}]}",
            b"{\"a\":\"\\ud800\"}",
        ] {
            let error = map(bad, &Mapping::Everything).unwrap_err();
            assert!(matches!(error, PayloadError::Unusable(_)), "{error}");
            assert!(!error.to_string().contains("canary"));
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        assert!(matches!(map(deep.as_bytes(), &Mapping::Everything), Err(PayloadError::Unusable(_))));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = map(&bytes, &Mapping::Everything);
        }

        #[test]
        fn every_string_comes_back_as_it_was(values in proptest::collection::btree_map("[-._a-zA-Z0-9]{1,20}", ".*", 0..8)) {
            prop_assume!(values.keys().all(|k| DataKey::parse(k).is_ok()));
            let payload = serde_json::to_vec(&serde_json::json!({"keysValues": values})).unwrap();
            let got = shown(map(&payload, &Mapping::Everything)).unwrap();
            prop_assert_eq!(got, values.into_iter().collect::<Vec<_>>());
        }
    }
}
