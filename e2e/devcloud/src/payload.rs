//! Payloads: one JSON object of one of four types, kept byte for byte as it was given. Pure.

use crate::envelope::MAX_PAYLOAD;
use crate::wire::SecretType;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// The type of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{"keysValues":{...}}`
    KeysValues,
    /// `{"login":"...","password":"..."}`
    LoginPassword,
    /// `{"securityNotes":"..."}`
    SecurityNotes,
    /// `{"securityCode":"..."}`
    TwoFactor,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::KeysValues, Self::LoginPassword, Self::SecurityNotes, Self::TwoFactor];

    /// `KEYS_VALUES` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeysValues => "KEYS_VALUES",
            Self::LoginPassword => "LOGIN_PASSWORD",
            Self::SecurityNotes => "SECURITY_NOTES",
            Self::TwoFactor => "TWO_FACTOR",
        }
    }

    /// The fields that a payload of this type must have.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::KeysValues => &["keysValues"],
            Self::LoginPassword => &["login", "password"],
            Self::SecurityNotes => &["securityNotes"],
            Self::TwoFactor => &["securityCode"],
        }
    }

    /// On the wire.
    pub fn on_wire(self) -> SecretType {
        match self {
            Self::KeysValues => SecretType::KeysValues,
            Self::LoginPassword => SecretType::LoginPassword,
            Self::SecurityNotes => SecretType::SecurityNotes,
            Self::TwoFactor => SecretType::TwoFactor,
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let wanted = given.to_ascii_uppercase().replace('-', "_");
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|kind| kind.name() == wanted).ok_or_else(|| format!("the types are {}", names()))
    }
}

/// Why a payload was not taken. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum BadPayload {
    #[error("the payload is not one JSON object (line {0}, column {1})")]
    NotAnObject(usize, usize),
    #[error("the payload has a key twice, and only one of them could count: {0:?}")]
    Duplicate(String),
    #[error("the payload has {0} bytes; at most {MAX_PAYLOAD} (1 MiB) can be delivered")]
    TooLarge(usize),
    #[error(
        "the payload is none of the known types: it needs keysValues, or login and password, or securityNotes, or securityCode"
    )]
    UnknownType,
    #[error("a payload of type {} needs {}", .0.name(), .0.fields().join(" and "))]
    Fields(Kind),
    #[error("field {0:?} of the payload must be {1}")]
    Field(&'static str, &'static str),
}

/// Checks a payload and says its type. `wanted` is what the caller says it is.
///
/// # Errors
/// [`BadPayload`].
pub fn check(text: &str, wanted: Option<Kind>) -> Result<Kind, BadPayload> {
    if text.len() > MAX_PAYLOAD {
        return Err(BadPayload::TooLarge(text.len()));
    }
    let shape: Shape = serde_json::from_str(text).map_err(|error| {
        let told = error.to_string();
        match told.strip_prefix(TWICE).and_then(|rest| rest.rsplit_once(" at line")) {
            Some((key, _)) => BadPayload::Duplicate(key.to_owned()),
            None => BadPayload::NotAnObject(error.line(), error.column()),
        }
    })?;
    let Shape::Object(fields) = shape else { return Err(BadPayload::NotAnObject(1, 1)) };
    let has = |kind: &Kind| kind.fields().iter().all(|field| fields.contains_key(*field));
    let kind = match wanted {
        Some(kind) if !has(&kind) => return Err(BadPayload::Fields(kind)),
        Some(kind) => kind,
        None => Kind::ALL.into_iter().find(has).ok_or(BadPayload::UnknownType)?,
    };
    for field in kind.fields() {
        match (kind, fields.get(*field)) {
            (Kind::KeysValues, Some(Shape::Object(_))) => (),
            (Kind::KeysValues, _) => return Err(BadPayload::Field(field, "an object")),
            (_, Some(Shape::Text)) => (),
            (_, _) => return Err(BadPayload::Field(field, "a string")),
        }
    }
    Ok(kind)
}

/// A payload from named values, as the command line gives them: the keys of `keysValues`, or the fields of the other types.
///
/// # Errors
/// [`BadPayload`].
pub fn compose(kind: Kind, values: &BTreeMap<String, Zeroizing<String>>) -> Result<Zeroizing<String>, BadPayload> {
    let fields: BTreeMap<&str, &str> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let text = match kind {
        Kind::KeysValues => serde_json::to_string(&BTreeMap::from([("keysValues", fields)])),
        _ => serde_json::to_string(&fields),
    };
    let text = Zeroizing::new(text.map_err(|_| BadPayload::NotAnObject(1, 1))?);
    check(&text, Some(kind)).map(|_| text)
}

const TWICE: &str = "a key stands twice: ";

/// A JSON text reduced to what [`check`] asks about; no value is kept.
enum Shape {
    Object(BTreeMap<String, Self>),
    Text,
    Other,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Shape>()? {
            if fields.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!("{TWICE}{key}")));
            }
            fields.insert(key, value);
        }
        Ok(Shape::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        while items.next_element::<Shape>()?.is_some() {}
        Ok(Shape::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Text)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_object_of_a_known_type_without_repeated_keys() {
        let cases: [(&str, Result<Kind, BadPayload>); 14] = [
            (r#"{"keysValues":{"n":12345678901234567890123}}"#, Ok(Kind::KeysValues)),
            (r#" {"keysValues":{}} "#, Ok(Kind::KeysValues)),
            (r#"{"login":"a","password":"b"}"#, Ok(Kind::LoginPassword)),
            (r#"{"login":"a","password":"b","securityNotes":"c"}"#, Ok(Kind::LoginPassword)),
            (r#"{"securityNotes":"c"}"#, Ok(Kind::SecurityNotes)),
            (r#"{"securityCode":"c"}"#, Ok(Kind::TwoFactor)),
            (r#"{"login":"a"}"#, Err(BadPayload::UnknownType)),
            (r#"{"securityCode":7}"#, Err(BadPayload::Field("securityCode", "a string"))),
            (r#"{"keysValues":[]}"#, Err(BadPayload::Field("keysValues", "an object"))),
            (r#"{"keysValues":{"a":1,"a":2}}"#, Err(BadPayload::Duplicate("a".into()))),
            (r#"{"keysValues":{"l":[{"x":1,"x":2}]}}"#, Err(BadPayload::Duplicate("x".into()))),
            ("[]", Err(BadPayload::NotAnObject(1, 1))),
            (r#"{"securityCode":"c"} {}"#, Err(BadPayload::NotAnObject(1, 22))),
            ("", Err(BadPayload::NotAnObject(1, 0))),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text, None), expected, "{text}");
        }
        let large = format!(r#"{{"securityNotes":"{}"}}"#, "x".repeat(MAX_PAYLOAD));
        assert_eq!(check(&large, None), Err(BadPayload::TooLarge(large.len())));
        assert_eq!(check(r#"{"securityCode":"c"}"#, Some(Kind::KeysValues)), Err(BadPayload::Fields(Kind::KeysValues)));
    }

    #[test]
    fn values_become_strings_under_their_keys() {
        let values = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), Zeroizing::new((*v).to_owned()))).collect::<BTreeMap<_, _>>()
        };
        let text = compose(Kind::KeysValues, &values(&[("my key", "no"), ("PORT", "5432")])).unwrap();
        assert_eq!(text.as_str(), r#"{"keysValues":{"PORT":"5432","my key":"no"}}"#);
        let text = compose(Kind::LoginPassword, &values(&[("login", "a"), ("password", "b")])).unwrap();
        assert_eq!(text.as_str(), r#"{"login":"a","password":"b"}"#);
        assert_eq!(
            compose(Kind::LoginPassword, &values(&[("login", "a")])).unwrap_err().to_string(),
            "a payload of type LOGIN_PASSWORD needs login and password"
        );
    }
}
