//! Decrypted JSON to the keys and values of a Secret.
//!
//! Guarantees: numbers and strings as they were written, duplicate keys refused, all or nothing, every missing key named at
//! once, no value in an error. Values are copied into `SecretValue`s of exact size.

mod formats;
mod keys;
mod parse;
mod payload;

pub use keys::KeyRules;
pub use parse::mapping;

use crate::crd::Format;
use crate::domain::content::StampKey;
use crate::domain::name::DataKey;
use crate::domain::reason::Reason;
use crate::domain::secret_value::{SecretData, SecretValue};
use crate::domain::template::{Renderer, Template, TemplateError};
use formats::write;
use jsonptr::PointerBuf;
use payload::{Parsed, check, object, resolve};
use serde_json::value::RawValue;

/// The API server's limit on the values of a Secret, in bytes
/// (<https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>).
const MAX_DATA: usize = 1024 * 1024;

/// Bytes of payload that all pointers together may read: several times what a Secret holds, since white space is left out. What
/// fits nowhere was read all the same, and by each of 512 entries again.
const MAX_READ: usize = 4 * MAX_DATA;

/// How payload becomes data.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapping {
    /// The entries of `keysValues`, else every top-level field but `securityNotes`, by these rules.
    Everything(KeyRules),
    /// These keys, each from its place.
    Keys(Vec<Entry>),
}

/// One key of the Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: DataKey,
    /// Where its value comes from.
    pub place: Place,
    /// What becomes of it where there is none.
    pub missing: Missing,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A place in the payload, and how it is written.
    Pointer(PointerBuf, Format),
    /// A template over the payload.
    Template(Template),
}

/// What becomes of a key whose value is not in the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing is written at all.
    Refuse,
    /// It is left out.
    LeaveOut,
    /// It holds this.
    Default(String),
}

/// Why a payload gave no data. Texts name keys, never values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Not one JSON object in UTF-8, or nested too deep, or a key twice in one object.
    #[error("the payload is not usable: {0}")]
    Unusable(String),
    /// Places that hold nothing.
    #[error("not in the payload: {}", .0.join(", "))]
    Missing(Vec<String>),
    /// Together more than a Secret holds.
    #[error(
        "the keys hold more than {MAX_DATA} bytes together, which is what a Secret holds; pick fewer with spec.data"
    )]
    TooLarge,
    /// Pointers to large parts of the payload, again and again.
    #[error(
        "the pointers of spec.data read more than {MAX_READ} bytes together; take fewer of the large objects and lists"
    )]
    ReadsTooMuch,
    /// Names that are more than expressions are looked for in.
    #[error(
        "spec.keys.include and exclude are looked for in names of at most 32768 bytes together, and this secret's are more; list the keys \
         with spec.data"
    )]
    TooManyNames,
    /// More keys than can be recorded.
    #[error(
        "a Secret cannot be written with {0} keys: the annotation that records what they hold would make all annotations larger than \
         Kubernetes takes; pick fewer with spec.data or spec.keys"
    )]
    TooManyKeys(usize),
    /// Keys that Kubernetes would refuse.
    #[error("a Secret cannot hold these keys: {}; map them with spec.data, or spec.keys.rename", .0.join(", "))]
    IllegalKeys(Vec<String>),
    /// Two keys of the payload that would be one key of the Secret.
    #[error("after renaming, {}; exclude one, or map them with spec.data", .0.join(", and "))]
    Met(Vec<String>),
    /// The rules take no key.
    #[error("spec.keys takes none of the keys of the secret; an empty Secret is not written")]
    Nothing,
    /// Values that cannot be written as asked.
    #[error("{}", .0.join("; "))]
    Unfit(Vec<String>),
}

impl MappingError {
    /// Whose fault it is: the payload's, or that of the spec which does not fit it.
    pub fn reason(&self) -> Reason {
        if matches!(self, Self::Unusable(_)) { Reason::BadPayload } else { Reason::BadMapping }
    }
}

/// Maps a payload. `key` salts what has to be salted, so that equal data gives equal content.
///
/// # Errors
/// [`MappingError`]; nothing is returned in part.
pub fn map(payload: &[u8], mapping: &Mapping, key: &StampKey) -> Result<SecretData, MappingError> {
    let text = std::str::from_utf8(payload).map_err(|_| MappingError::Unusable("it is not UTF-8".to_owned()))?;
    let root: &RawValue = serde_json::from_str(text)
        .map_err(|e| MappingError::Unusable(format!("it is not JSON (line {}, column {})", e.line(), e.column())))?;
    check(root, 0)?;
    match mapping {
        Mapping::Everything(rules) => everything(root, rules),
        Mapping::Keys(entries) => picked(root, entries, key),
    }
}

fn everything(root: &RawValue, rules: &KeyRules) -> Result<SecretData, MappingError> {
    let top = object(root)?.ok_or_else(|| MappingError::Unusable("it is not a JSON object".to_owned()))?;
    let nested = match top.iter().find(|(k, _)| k == "keysValues") {
        Some((_, value)) => object(value)?,
        None => None,
    };
    let entries = match nested {
        Some(entries) => entries,
        None => top.into_iter().filter(|(k, _)| k != "securityNotes").collect(),
    };
    let names = rules.names(entries.iter().map(|(name, _)| name.as_ref()))?;
    let mut data = Rendered::default();
    for ((_, value), name) in entries.iter().zip(names) {
        if let Some(key) = name {
            data.add(key, SecretValue::copy_of(payload::raw(value)?.as_bytes()))?;
        }
    }
    Ok(data.data)
}

fn picked(root: &RawValue, entries: &[Entry], stamp: &StampKey) -> Result<SecretData, MappingError> {
    let (mut missing, mut unfit) = (Vec::new(), Vec::new());
    let mut data = Rendered::default();
    let mut parsed = Parsed::default();
    let mut renderer = Renderer::new(root.get(), stamp);
    let mut read = 0;
    for Entry { key, place, missing: absent } in entries {
        let value = match place {
            Place::Pointer(pointer, format) => match resolve(root, pointer, &mut parsed)? {
                Some(value) => {
                    read += value.get().len();
                    if read > MAX_READ {
                        return Err(MappingError::ReadsTooMuch);
                    }
                    write(value, *format)?.map(Ok).map_err(|why| format!("{key}: {pointer} {why}"))
                }
                None => Ok(Err(vec![format!("{pointer} (for {key})")])),
            },
            Place::Template(template) => match renderer.render(template) {
                Ok(value) => Ok(Ok(value)),
                Err(TemplateError::Missing(names)) => {
                    Ok(Err(names.into_iter().map(|name| format!("{name} (in the template of {key})")).collect()))
                }
                Err(TemplateError::Failed(why)) => Err(format!("the template of {key}: {why}")),
            },
        };
        match (value, absent) {
            (Ok(Ok(value)), _) => data.add(key.clone(), value)?,
            (Ok(Err(names)), Missing::Refuse) => missing.extend(names),
            (Ok(Err(_)), Missing::LeaveOut) => {}
            (Ok(Err(_)), Missing::Default(text)) => data.add(key.clone(), SecretValue::copy_of(text.as_bytes()))?,
            (Err(why), _) => unfit.push(why),
        }
    }
    match (missing.is_empty(), unfit.is_empty()) {
        (true, true) => Ok(data.data),
        (false, _) => Err(MappingError::Missing(missing)),
        (true, false) => Err(MappingError::Unfit(unfit)),
    }
}

/// What has been rendered, never more than a Secret holds: many keys may each name the whole payload.
#[derive(Default)]
struct Rendered {
    data: SecretData,
    bytes: usize,
}

impl Rendered {
    fn add(&mut self, key: DataKey, value: SecretValue) -> Result<(), MappingError> {
        self.bytes += value.expose().len();
        if self.bytes > MAX_DATA {
            return Err(MappingError::TooLarge);
        }
        self.data.insert(key, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn shown(result: Result<SecretData, MappingError>) -> Result<Vec<(String, String)>, MappingError> {
        Ok(result?.iter().map(|(k, v)| (k.to_string(), String::from_utf8(v.expose().to_vec()).unwrap())).collect())
    }

    fn made(payload: &[u8], mapping: &Mapping) -> Result<SecretData, MappingError> {
        map(payload, mapping, &StampKey::new(&[0; 32]))
    }

    fn everything() -> Mapping {
        Mapping::Everything(KeyRules::default())
    }

    fn entry(key: &str, pointer: &str) -> Entry {
        let place = Place::Pointer(PointerBuf::parse(pointer).unwrap(), Format::Raw);
        Entry { key: DataKey::parse(key).unwrap(), place, missing: Missing::Refuse }
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn pick(payload: &str, key: &str, pointer: &str) -> Result<Vec<(String, String)>, MappingError> {
        shown(made(payload.as_bytes(), &Mapping::Keys(vec![entry(key, pointer)])))
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
        assert_eq!(shown(made(payload.as_bytes(), &everything())), Ok(pairs(&want)));
    }

    #[test]
    fn other_types_give_their_fields_but_not_the_notes() {
        let login = br#"{"login":"me","password":"p","securityNotes":"n"}"#;
        assert_eq!(shown(made(login, &everything())), Ok(pairs(&[("login", "me"), ("password", "p")])));
        assert_eq!(shown(made(br#"{"keysValues":"text"}"#, &everything())), Ok(pairs(&[("keysValues", "text")])));
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
                Err(MappingError::Missing(vec![format!("{nothing} (for k)")])),
                "{nothing}"
            );
        }
    }

    #[test]
    fn all_missing_and_all_illegal_keys_are_named_at_once() {
        let keys = ["/x", "/y"].map(|p| entry("k", p)).to_vec();
        let error = made(b"{}", &Mapping::Keys(keys)).unwrap_err();
        assert_eq!(error.to_string(), "not in the payload: /x (for k), /y (for k)");
        let error = made(br#"{"keysValues":{"export A":"1","B":"2","":"3"}}"#, &everything()).unwrap_err();
        assert_eq!(error, MappingError::IllegalKeys(vec!["\"export A\"".into(), "\"\"".into()]));
    }

    #[test]
    fn more_than_a_secret_holds_is_refused_before_it_is_all_in_memory() {
        let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(600_000));
        assert_eq!(pick(&payload, "k", "/a").map(|d| d[0].1.len()), Ok(600_000));
        let keys: Vec<_> = (0..512).map(|n| entry(&format!("k{n}"), "/a")).collect();
        assert_eq!(made(payload.as_bytes(), &Mapping::Keys(keys)).err(), Some(MappingError::TooLarge));
    }

    #[test]
    fn exactly_what_a_secret_holds_is_taken_and_one_byte_more_is_not() {
        let payload = format!(r#"{{"x":"1","a":"{}"}}"#, "x".repeat(MAX_DATA - 16));
        assert_eq!(payload.len(), MAX_DATA);
        assert_eq!(pick(&payload, "k", "").map(|d| d[0].1.len()), Ok(MAX_DATA));
        let more = Mapping::Keys(vec![entry("k", ""), entry("one", "/x")]);
        assert_eq!(made(payload.as_bytes(), &more).err(), Some(MappingError::TooLarge));
    }

    #[test]
    fn what_fits_nowhere_is_not_read_again_and_again() {
        let keys: Vec<String> = (0..30_000).map(|n| format!(r#""K{n}":"{n}""#)).collect();
        let payload =
            format!(r#"{{"keysValues":{{{},"a-b":"x"}},"blank":{{{}}}}}"#, keys.join(","), " ".repeat(400_000));
        let many = |count: usize, pointer: &str, format| {
            let entries = (0..count).map(|n| {
                let place = Place::Pointer(PointerBuf::parse(pointer).unwrap(), format);
                Entry { place, ..entry(&format!("k{n}"), pointer) }
            });
            made(payload.as_bytes(), &Mapping::Keys(entries.collect())).err()
        };
        assert_eq!(many(512, "/keysValues", Format::Dotenv), Some(MappingError::ReadsTooMuch));
        assert_eq!(many(512, "/blank", Format::Json), Some(MappingError::ReadsTooMuch));
        assert!(matches!(many(3, "/keysValues", Format::Dotenv), Some(MappingError::Unfit(all)) if all.len() == 3));
        assert_eq!(many(10, "/blank", Format::Json), None);
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
            let error = made(bad, &everything()).unwrap_err();
            assert!(matches!(error, MappingError::Unusable(_)), "{error}");
            assert!(!error.to_string().contains("canary"));
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        assert!(matches!(made(deep.as_bytes(), &everything()), Err(MappingError::Unusable(_))));
    }

    #[test]
    fn the_reference_page_tells_the_truth() {
        use crate::crd::{Keys, Rename};
        fn named<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
            serde_json::from_value(serde_json::Value::from(name)).ok()
        }
        let (mut formats, mut renames) = (BTreeSet::new(), BTreeSet::new());
        for line in include_str!("../../../docs/mapping.md").lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> =
                line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
            let [name, given, want] = cells[..] else { continue };
            if let Some(format) = named::<Format>(name) {
                let place = Place::Pointer(PointerBuf::parse("/x").unwrap(), format);
                let entry = Entry { key: DataKey::parse("k").unwrap(), place, missing: Missing::Refuse };
                let made = shown(made(format!(r#"{{"x":{given}}}"#).as_bytes(), &Mapping::Keys(vec![entry])));
                // On the page a line break looks as most formats escape it.
                let made = made.map(|data| data[0].1.replace('\n', "\\n")).map_err(|e| e.to_string());
                match want.strip_prefix("refused: ") {
                    Some(why) => assert_eq!(made, Err(format!("k: /x {why}")), "{line}"),
                    None => assert_eq!(made.as_deref(), Ok(want), "{line}"),
                }
                formats.insert(name);
            } else if let Some(rename) = named::<Rename>(name) {
                let rules = KeyRules::parse(&Keys { rename: Some(rename), ..Keys::default() }).unwrap();
                let keys = rules.names([given].into_iter()).unwrap();
                assert_eq!(keys[0].as_ref().map(DataKey::as_str), Some(want), "{line}");
                renames.insert(name);
            }
        }
        assert_eq!((formats.len(), renames.len()), (6, 7), "every format and every form has a row");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = made(&bytes, &everything());
        }

        #[test]
        fn any_mapping_of_any_payload_gives_each_key_or_nothing(
            payload in json_object(),
            entries in proptest::collection::btree_map("[a-c]", (0..4_usize, 0..12_usize, 0..3_usize), 0..4),
            rename in proptest::sample::select(vec![None, Some("UpperSnake"), Some("Camel"), Some("DotnetEnv"), Some("TfVar")]),
        ) {
            let pointers = ["", "/keysValues", "/keysValues/a", "/b/0"];
            let formats = [Format::Raw, Format::Json, Format::Yaml, Format::Dotenv, Format::Properties, Format::Base64];
            let templates = ["{{ keysValues.a }}", "{{ b }}", "{{ keysValues | tojson | sha256 }}", "{% for k in keysValues %}{{ k }}{% endfor %}"];
            let parsed: Vec<Entry> = entries.iter().map(|(key, (at, how, missing))| Entry {
                key: DataKey::parse(key).unwrap(),
                place: match formats.get(*how) {
                    Some(format) => Place::Pointer(PointerBuf::parse(pointers[*at]).unwrap(), *format),
                    None => Place::Template(Template::parse(templates[*at]).unwrap()),
                },
                missing: [Missing::Refuse, Missing::LeaveOut, Missing::Default("d".to_owned())][*missing].clone(),
            }).collect();
            let payload = payload.to_string();
            if let Ok(data) = made(payload.as_bytes(), &Mapping::Keys(parsed.clone())) {
                for entry in parsed {
                    prop_assert!(data.contains_key(&entry.key) || entry.missing == Missing::LeaveOut);
                }
            }
            let rename = rename.map(|name| serde_json::from_value(serde_json::Value::from(name)).unwrap());
            let rules = KeyRules::parse(&crate::crd::Keys { rename, ..Default::default() }).unwrap();
            if let Ok(data) = made(payload.as_bytes(), &Mapping::Everything(rules)) {
                let value: serde_json::Value = serde_json::from_str(&payload).unwrap();
                let nested = value["keysValues"].as_object();
                let count = nested.map_or_else(|| value.as_object().unwrap().len(), serde_json::Map::len);
                prop_assert_eq!(data.len(), count);
            }
        }

        #[test]
        fn every_string_comes_back_as_it_was(values in proptest::collection::btree_map("[-._a-zA-Z0-9]{1,20}", ".*", 0..8)) {
            prop_assume!(values.keys().all(|k| DataKey::parse(k).is_ok()));
            let payload = serde_json::to_vec(&serde_json::json!({"keysValues": values})).unwrap();
            let got = shown(made(&payload, &everything())).unwrap();
            prop_assert_eq!(got, values.into_iter().collect::<Vec<_>>());
        }
    }
    fn json_object() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let tree = leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]|.{0,3}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        });
        proptest::collection::btree_map("keysValues|b|[ -~]{1,4}", tree, 0..4).prop_map(|map| map.into_iter().collect())
    }
}
