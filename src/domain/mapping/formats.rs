//! One value of the payload, written as text: every format of `spec.data[].format`.
//!
//! Numbers keep every digit: they are copied, never read as numbers.

use crate::crd::Format;
use crate::domain::mapping::payload::{array, compact, object, raw};
use crate::domain::mapping::{MAX_DATA, MappingError};
use crate::domain::secret_value::SecretValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write;
use zeroize::Zeroizing;

/// Writes a value. The inner error says what does not fit, after the name of the place.
pub(super) fn write(value: &RawValue, format: Format) -> Result<Result<SecretValue, String>, MappingError> {
    Ok(match format {
        Format::Raw => Ok(SecretValue::copy_of(raw(value)?.as_bytes())),
        Format::Json => Ok(text(&compact(value.get()))),
        Format::Yaml => {
            let mut out = Zeroizing::new(String::new());
            yaml(value, 0, &mut out)?;
            if !out.ends_with('\n') {
                out.push('\n');
            }
            Ok(text(&out))
        }
        Format::Dotenv => lines(value, "dotenv", dotenv)?,
        Format::Properties => lines(value, "properties", |key, value| Ok(properties(key, value)))?,
        Format::Base64 => base64(&raw(value)?).ok_or_else(|| "is not base64".to_owned()),
    })
}

fn text(text: &str) -> SecretValue {
    SecretValue::copy_of(text.as_bytes())
}

/// Standard or URL-safe alphabet, with or without padding and line breaks.
fn base64(text: &str) -> Option<SecretValue> {
    let plain = |c: char| match c {
        '-' => '+',
        '_' => '/',
        other => other,
    };
    let joined: Zeroizing<String> =
        Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).map(plain).collect());
    let unpadded = joined.trim_end_matches('=');
    let padding = joined.len() - unpadded.len();
    if padding > 2 || (padding > 0 && !joined.len().is_multiple_of(4)) {
        return None;
    }
    STANDARD_NO_PAD.decode(unpadded).ok().map(Zeroizing::new).map(|bytes| SecretValue::copy_of(&bytes))
}

/// One line for each entry of an object.
fn lines(
    value: &RawValue,
    format: &str,
    line: impl Fn(&str, &str) -> Result<String, String>,
) -> Result<Result<SecretValue, String>, MappingError> {
    let Some(entries) = object(value)? else { return Ok(Err(format!("is not an object, which {format} is made of"))) };
    let mut out = Zeroizing::new(String::new());
    for (key, value) in entries {
        match line(&key, &raw(value)?) {
            Ok(line) => {
                out.push_str(&Zeroizing::new(line));
                out.push('\n');
            }
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(text(&out)))
}

/// `KEY=value` as a POSIX shell (`. file`), Docker Compose and godotenv all read it, line breaks too; tried with dash, compose-go
/// 2.16 and godotenv 1.5. Where no quoting is read alike, none is guessed.
fn dotenv(key: &str, value: &str) -> Result<String, String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !key.starts_with(first) || !key.chars().all(|c| first(c) || c.is_ascii_digit()) {
        return Err(format!("holds the key {key:?}, which no environment variable can have"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,-".contains(c);
    // godotenv takes \r\n for \n wherever it stands, a shell ends a text at NUL.
    let lost = value.contains("\r\n") || value.contains('\0');
    if !value.is_empty() && value.chars().all(plain) {
        Ok(format!("{key}={value}"))
    } else if !lost && !value.contains('\'') && !value.ends_with('\\') {
        Ok(format!("{key}='{value}'"))
    } else if !lost && !value.contains('`') && !value.ends_with(['"', '\\']) {
        // A backtick has to be escaped for a shell and must not be for Compose; godotenv mistakes both signs at the end.
        let mut line = String::with_capacity(key.len() + 2 * value.len() + 3);
        line.extend([key, "=\""]);
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '$') {
                line.push('\\');
            }
            line.push(c);
        }
        line.push('"');
        Ok(line)
    } else {
        Err(format!(
            "holds under {key} a value that shells, Docker Compose and godotenv read differently however it is quoted; use format \
             json or yaml"
        ))
    }
}

/// A line as `java.util.Properties.load` reads it, in ASCII.
fn properties(key: &str, value: &str) -> String {
    let mut out = String::with_capacity(key.len() + value.len() + 1);
    let mut put = |text: &str, is_key: bool| {
        for (at, c) in text.chars().enumerate() {
            match c {
                ' ' if is_key || at == 0 => out.push_str("\\ "),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\u{c}' => out.push_str("\\f"),
                '\\' | '=' | ':' | '#' | '!' => out.extend(['\\', c]),
                ' '..='~' => out.push(c),
                other => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        // Writing to a String does not fail.
                        let _ = write!(out, "\\u{unit:04X}");
                    }
                }
            }
        }
        if is_key {
            out.push('=');
        }
    };
    put(key, true);
    put(value, false);
    out
}

/// YAML finds a key that is longer only behind a question mark
/// (<https://yaml.org/spec/1.2.2/#example-single-pair-explicit-entry>, and 7.4.2 on the 1,024 characters).
const LONGEST_PLAIN_KEY: usize = 1000;

/// Block style: one line for each scalar. What follows `key:` or `-` begins on the next line where it has lines of its own.
fn yaml(value: &RawValue, indent: usize, out: &mut String) -> Result<(), MappingError> {
    if let Some(entries) = object(value)? {
        if entries.is_empty() {
            out.push_str("{}");
        }
        for (key, child) in entries {
            let name = scalar(&key);
            if name.len() > LONGEST_PLAIN_KEY {
                line(indent, &format!("? {name}\n{:indent$}:", ""), child, out)?;
            } else {
                line(indent, &format!("{name}:"), child, out)?;
            }
        }
    } else if value.get().starts_with('[') {
        let items = array(value)?;
        if items.is_empty() {
            out.push_str("[]");
        }
        for child in items {
            line(indent, "-", child, out)?;
        }
    } else if value.get().starts_with('"') {
        out.push_str(&scalar(&raw(value)?));
    } else {
        out.push_str(value.get());
    }
    Ok(())
}

fn line(indent: usize, lead: &str, child: &RawValue, out: &mut String) -> Result<(), MappingError> {
    out.extend(std::iter::repeat_n(' ', indent));
    out.push_str(lead);
    // Indents multiply what nests deep: no more is built than a Secret holds.
    if out.len() > MAX_DATA {
        return Err(MappingError::TooLarge);
    }
    let inner = compact(child.get());
    let nested = inner.starts_with(['{', '[']) && inner.len() > 2;
    out.push(if nested { '\n' } else { ' ' });
    yaml(child, indent + 2, out)?;
    if !nested {
        out.push('\n');
    }
    Ok(())
}

/// Plain only where YAML 1.1 and 1.2 both read a string; else in double quotes.
fn scalar(text: &str) -> Cow<'_, str> {
    const TRAPS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c))
        && !TRAPS.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn written(json: &str, format: Format) -> Result<String, String> {
        let value: &RawValue = serde_json::from_str(json).unwrap();
        write(value, format).unwrap().map(|v| String::from_utf8(v.expose().to_vec()).unwrap())
    }

    #[test]
    fn yaml_keeps_trap_words_strings_and_digits_whole() {
        let json = r#"{"a":"no","b":"012","c":"1e3","d":"12:30","e":1234567890123456789,"f":1.0,"g":"~","h":"plain-text/x",
            "i":"two\nlines","j":" blank ","k":{"on":[true,null,{"x":"y"},[]],"empty":{}},"l":"0x1F","m":"2026-01-01","n":"a: b #c","=":"<<"}"#;
        let yaml = written(json, Format::Yaml).unwrap();
        assert!(yaml.contains("e: 1234567890123456789\n") && yaml.contains("f: 1.0\n"), "{yaml}");
        assert_eq!(written("[12345678901234567890123]", Format::Yaml).as_deref(), Ok("- 12345678901234567890123\n"));
        let back: serde_yaml::Value = serde_yaml::from_str(&yaml).unwrap();
        for (key, text) in [
            ("a", "no"),
            ("b", "012"),
            ("c", "1e3"),
            ("d", "12:30"),
            ("g", "~"),
            ("h", "plain-text/x"),
            ("i", "two\nlines"),
            ("j", " blank "),
            ("l", "0x1F"),
            ("m", "2026-01-01"),
            ("=", "<<"),
        ] {
            assert_eq!(back[key].as_str(), Some(text), "{yaml}");
        }
        assert_eq!(back["k"]["on"][2]["x"].as_str(), Some("y"));
        // What YAML 1.1 would read as something else stands in quotes, also where this reader would not mind.
        for trap in ["\"no\"", "\"012\"", "\"1e3\"", "\"12:30\"", "\"~\"", "\"on\":", "\"y\"", "\"2026-01-01\""] {
            assert!(yaml.contains(trap), "{trap} in {yaml}");
        }
        assert_eq!(written("\"text\"", Format::Yaml).as_deref(), Ok("text\n"));
        assert_eq!(written("[]", Format::Yaml).as_deref(), Ok("[]\n"));
    }

    #[test]
    fn yaml_keys_of_any_length_are_found() {
        for length in [990, 1000, 1023, 1024, 1025, 5000] {
            let json = serde_json::json!({"a": {"b ".repeat(length / 2): {"c": ["d"]}, "e": 1}}).to_string();
            let yaml = written(&json, Format::Yaml).unwrap();
            let back: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
            assert_eq!(back.to_string(), json, "{length}");
        }
    }

    #[test]
    fn yaml_that_its_indents_make_too_large_is_refused_while_it_is_written() {
        let json = format!("{}{}1{}", "[".repeat(60), "1,".repeat(400_000), "]".repeat(60));
        let value: &RawValue = serde_json::from_str(&json).unwrap();
        assert_eq!(write(value, Format::Yaml).err(), Some(MappingError::TooLarge));
    }

    #[test]
    fn json_keeps_quotes_and_digits() {
        assert_eq!(written(r#"{ "a" : [1.0, "b c" ] }"#, Format::Json).as_deref(), Ok(r#"{"a":[1.0,"b c"]}"#));
        assert_eq!(written(r#" "x""#.trim(), Format::Json).as_deref(), Ok("\"x\""));
    }

    #[test]
    fn dotenv_is_quoted_so_that_all_read_it_alike_or_refused() {
        let json = r#"{"A":"plain","B":"two words","C":"it's","D":"","E":12,"F":"a$b\"c`","G":{"x": 1},"H":"two\nlines",
            "J":"it's $5, \"so\" \\n"}"#;
        let want = "A=plain\nB='two words'\nC=\"it's\"\nD=''\nE=12\nF='a$b\"c`'\nG='{\"x\":1}'\nH='two\nlines'\n\
            J=\"it's \\$5, \\\"so\\\" \\\\n\"\n";
        assert_eq!(written(json, Format::Dotenv).as_deref(), Ok(want));
        for bad in [
            r#"{"a-b":"x"}"#,
            r#"{"1A":"x"}"#,
            r#"{"":"x"}"#,
            r#"{"A":"it's `date`"}"#,
            r#"{"A":"it's \"so\""}"#,
            r#"{"A":"two\r\nlines"}"#,
            r#"{"A":"nul\u0000"}"#,
            r#"{"A":"end\\"}"#,
            "[1]",
            "\"x\"",
        ] {
            let why = written(bad, Format::Dotenv).unwrap_err();
            assert!(!why.contains("it's") && !why.contains("lines"), "{why}");
        }
    }

    #[test]
    fn properties_are_what_java_loads() {
        let json = r#"{"a b":" lead","c:d":"é😀","e":"x=y#z!\\","f":"1\n2\t"}"#;
        let want = "a\\ b=\\ lead\nc\\:d=\\u00E9\\uD83D\\uDE00\ne=x\\=y\\#z\\!\\\\\nf=1\\n2\\t\n";
        assert_eq!(written(json, Format::Properties).as_deref(), Ok(want));
    }

    #[test]
    fn base64_of_every_kind_is_decoded() {
        for (text, want) in
            [("aGk=", "hi"), ("aGk", "hi"), ("", ""), ("Pz8_", "???"), ("Pz8/", "???"), ("aG\\nk=", "hi")]
        {
            assert_eq!(written(&format!("\"{text}\""), Format::Base64).as_deref(), Ok(want), "{text}");
        }
        for text in ["a", "aGk==", "a=Gk", "äö", "aGl"] {
            let refused = written(&format!("\"{text}\""), Format::Base64);
            assert!(refused.is_err() || text == "aGl", "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_strings_come_back_from_yaml_as_they_were(values in proptest::collection::btree_map(".{0,12}", ".{0,30}", 0..6)) {
            let json = serde_json::to_string(&values).unwrap();
            let yaml = written(&json, Format::Yaml).unwrap();
            let back: BTreeMap<String, String> = serde_yaml::from_str(&yaml).unwrap();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn any_json_comes_back_from_yaml(tree in json_tree()) {
            let yaml = written(&tree.to_string(), Format::Yaml).unwrap();
            let back: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
            prop_assert_eq!(back, tree);
        }

        #[test]
        fn properties_come_back_as_they_were(values in proptest::collection::btree_map(".{1,12}", ".{0,30}", 0..6)) {
            let written = written(&serde_json::to_string(&values).unwrap(), Format::Properties).unwrap();
            let back: BTreeMap<String, String> = written.lines().map(load).collect();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn dotenv_comes_back_or_is_refused(value in "([a ]|[\"'`$\\\\\n#]){0,12}|.{0,20}") {
            let line = written(&serde_json::json!({"A": value}).to_string(), Format::Dotenv);
            if let Ok(line) = line {
                let text = line.strip_prefix("A=").unwrap().strip_suffix('\n').unwrap();
                let back = match text.as_bytes() {
                    [b'\'', .., b'\''] => text[1..text.len() - 1].to_owned(),
                    [b'"', .., b'"'] => {
                        let (mut back, mut rest) = (String::new(), text[1..text.len() - 1].chars());
                        while let Some(c) = rest.next() {
                            back.push(if c == '\\' { rest.next().unwrap() } else { c });
                        }
                        back
                    }
                    _ => text.to_owned(),
                };
                prop_assert_eq!(back, value);
            } else {
                prop_assert!(value.contains('\'') || value.ends_with('\\') || value.contains("\r\n") || value.contains('\0'));
            }
        }
    }

    fn json_tree() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map("[a-zA-Z0-9 :]{0,8}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// One line as `java.util.Properties.load` reads it.
    fn load(line: &str) -> (String, String) {
        let (mut units, mut key) = (Vec::new(), None);
        let mut rest = line.chars();
        while let Some(c) = rest.next() {
            match (c, key.is_none()) {
                ('\\', _) => match rest.next().unwrap() {
                    'u' => units.push(u16::from_str_radix(&rest.by_ref().take(4).collect::<String>(), 16).unwrap()),
                    't' => units.push(9),
                    'n' => units.push(10),
                    'r' => units.push(13),
                    'f' => units.push(12),
                    other => units.extend(other.encode_utf16(&mut [0; 2]).iter()),
                },
                ('=', true) => key = Some(String::from_utf16(&std::mem::take(&mut units)).unwrap()),
                (other, _) => units.extend(other.encode_utf16(&mut [0; 2]).iter()),
            }
        }
        (key.unwrap(), String::from_utf16(&units).unwrap())
    }
}
