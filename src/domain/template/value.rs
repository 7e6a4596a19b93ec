//! A payload as the engine sees it, and a value of the engine as text.

use minijinja::value::{DynObject, Enumerator, Object, ObjectExt, ObjectRepr, Value, ValueKind};
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Values of a payload that templates are given: each takes up to 200 bytes, however short it is written.
const MAX_VALUES: usize = 50_000;

/// The fields of an object, in their order, and where each name stands in the order of names.
#[derive(Debug)]
struct Fields {
    members: Box<[(Value, Value)]>,
    by_name: Box<[u32]>,
}

impl Fields {
    fn new(members: Vec<(Value, Value)>) -> Self {
        let mut by_name: Box<[u32]> = (0..).take(members.len()).collect();
        by_name.sort_unstable_by_key(|at| name(&members, *at));
        Self { members: members.into_boxed_slice(), by_name }
    }
}

fn name(members: &[(Value, Value)], at: u32) -> Option<&str> {
    members.get(at as usize).and_then(|(name, _)| name.as_str())
}

impl Object for Fields {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        let found = self.by_name.binary_search_by_key(&Some(key), |at| name(&self.members, *at)).ok()?;
        self.members.get(*self.by_name.get(found)? as usize).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        // Not a list: loops within loops would each hold one.
        self.mapped_enumerator(|fields| Box::new(fields.members.iter().map(|(name, _)| name.clone())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.members.len())
    }
}

/// A number that the engine would print otherwise than it was written.
#[derive(Debug)]
struct Exact(Box<str>);

impl Object for Exact {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        if self.0 == other.0 {
            return Some(Ordering::Equal);
        }
        self.0.parse::<f64>().ok()?.partial_cmp(&other.0.parse().ok()?)
    }
}

/// A JSON text. Of one that holds very many values nothing is built.
pub(super) fn read(json: &str) -> Result<Value, &'static str> {
    if values(json) > MAX_VALUES {
        return Err("the payload holds more than 50,000 values, which are not given to templates; use a pointer");
    }
    serde_json::from_str::<Read>(json).map(|read| read.0).map_err(|_| "the payload cannot be read")
}

/// How many values a JSON text holds, or a few more: each begins the text, or follows a bracket or a comma.
fn values(json: &str) -> usize {
    let (mut values, mut quoted, mut escaped) = (1, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'[' | b'{' | b',' if !quoted => values += 1,
            _ => {}
        }
    }
    values
}

struct Read(Value);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let error = |_| serde::de::Error::custom("not readable");
        Ok(Self(match raw.as_bytes().first() {
            Some(b'{') => Value::from_object(Fields::new(serde_json::from_str::<Members>(raw).map_err(error)?.0)),
            Some(b'[') => {
                let mut items = serde_json::from_str::<Items>(raw).map_err(error)?.0;
                items.shrink_to_fit();
                Value::from(items)
            }
            Some(b'"') => Value::from(serde_json::from_str::<String>(raw).map_err(error)?),
            Some(b't') => Value::from(true),
            Some(b'f') => Value::from(false),
            Some(b'n') => Value::from(()),
            _ => number(raw),
        }))
    }
}

/// A number of the engine where it prints that one as it was written; it can compare those.
fn number(text: &str) -> Value {
    let whole = text.parse::<i64>().map(Value::from).ok();
    let number = whole.or_else(|| text.parse::<f64>().map(Value::from).ok());
    number.filter(|number| number.to_string() == text).unwrap_or_else(|| Value::from_object(Exact(text.into())))
}

struct Members(Vec<(Value, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Read>()? {
                    members.push((Value::from(key), value.0));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

struct Items(Vec<Value>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Items;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element::<Read>()? {
                    items.push(item.0);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Visit)
    }
}

/// A value as text: strings as they are, all else as compact JSON.
pub(super) fn show(value: &Value, out: &mut impl Write) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None => json(value, out),
    }
}

/// A value as compact JSON.
pub(super) fn json(value: &Value, out: &mut impl Write) -> fmt::Result {
    if let Some(text) = value.as_str() {
        return string(text, out);
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.write_str("null"),
        ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write!(out, "{value}"),
        ValueKind::Map if let Some(fields) = value.downcast_object_ref::<Fields>() => {
            out.write_char('{')?;
            for (at, (name, of)) in fields.members.iter().enumerate() {
                if at > 0 {
                    out.write_char(',')?;
                }
                json(name, out)?;
                out.write_char(':')?;
                json(of, out)?;
            }
            out.write_char('}')
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.write_char('[')?;
            for (at, item) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                if at > 0 {
                    out.write_char(',')?;
                }
                json(&item, out)?;
            }
            out.write_char(']')
        }
        _ => match value.downcast_object_ref::<Exact>() {
            Some(number) => out.write_str(&number.0),
            None => Err(fmt::Error),
        },
    }
}

fn string(text: &str, out: &mut impl Write) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_before_any_is_built() {
        for (json, most) in [("{}", 2), (r#"{"a":1,"b":[2,3],"c":"[,{\\","d":4}"#, 7), (r#"["\"[,",{"":{"":{}}}]"#, 6)]
        {
            assert_eq!(values(json), most, "{json}");
        }
        let all = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
        assert!(read(&all(MAX_VALUES)).is_ok());
        assert!(read(&all(MAX_VALUES + 1)).unwrap_err().contains("50,000"));
    }
}
