//! What a payload becomes: templates, formats, rules for keys. The payload is the network's, the rest whoever may write a binding's.

use crate::{Outcome, Target, Verdict, only_if};
use ennote_agent::crd::{Format, Keys, Pattern, Rename};
use ennote_agent::domain::content::StampKey;
use ennote_agent::domain::mapping::{Entry, KeyRules, Mapping, MappingError, Missing, Place, map};
use ennote_agent::domain::name::DataKey;
use ennote_agent::domain::template::{Renderer, Template};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "agent_template", stride: 2, seeds: templates, run: template },
    Target { name: "agent_template_built", stride: 2, seeds: choices, run: built },
    Target { name: "agent_formats", stride: 2, seeds: payloads, run: formats },
    Target { name: "agent_keys", stride: 9, seeds: rules, run: keys },
];

const MOST: usize = 1024 * 1024;

fn stamp() -> StampKey {
    StampKey::new(&[0; 32])
}

fn templates() -> Vec<Vec<u8>> {
    let seeds = [
        "postgres://{{ keysValues.user }}:{{ keysValues.pass | urlencode }}@db",
        "{% for k, v in keysValues | dictsort %}{{ k }}={{ v | squote }}\n{% endfor %}",
        "{% if keysValues.a is defined %}{{ keysValues.a | default('x') | replace('a', 'b') | indent(4) }}{% else %}-{% endif %}",
        "{{ (keysValues.user ~ ':' ~ keysValues['a b'][0]) | b64encode | sha256 }}{{ [1, 'a'] | join(',') }}",
        "{% for x in keysValues['a b'] if x != 'y' %}{{ loop.index }}{{ x | upper | quote }}{% else %}none{% endfor %}{# c #}",
        "{{ 'a' if keysValues.a == 'canary' and not keysValues.x is defined else -1 }}{% raw %}{{ x }}{% endraw %}",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// Whatever the text, it is refused or stays within its bounds; no error holds a value; the same again gives the same.
fn template(given: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(given) else { return Ok(Outcome::Refused) };
    let Ok(template) = Template::parse(text) else { return Ok(Outcome::Refused) };
    let payload = r#"{"keysValues":{"user":"canary","pass":"canary","a":"canary","a b":["canary",1e3]}}"#;
    let stamp = stamp();
    let mut renderer = Renderer::new(payload, &stamp);
    match renderer.render(&template) {
        Ok(value) => {
            let again = renderer.render(&template);
            let same = again.is_ok_and(|again| again.expose() == value.expose());
            only_if(same && value.expose().len() <= MOST, "a template gives more than 1 MiB, or not the same twice")
        }
        Err(error) if text.contains("canary") || !format!("{error:?}").contains("canary") => Ok(Outcome::Refused),
        Err(_) => Err("an error of a template holds a value".to_owned()),
    }
}

fn choices() -> Vec<Vec<u8>> {
    let mut noise = crate::noise::Noise::seeded(5);
    // The first: one text.
    std::iter::once(vec![0, 4]).chain((0..8).map(|_| noise.bytes(120))).collect()
}

/// Most texts are no templates: here each byte chooses what comes next of one that is.
fn built(given: &[u8]) -> Verdict {
    let mut text = String::new();
    let mut bytes = given.iter().copied();
    while bytes.len() > 0 && text.len() < 8000 {
        statement(&mut bytes, &mut text, 0);
    }
    template(text.as_bytes())
}

fn choose<'a>(bytes: &mut impl Iterator<Item = u8>, among: &[&'a str]) -> &'a str {
    among[usize::from(bytes.next().unwrap_or_default()) % among.len()]
}

fn statement(bytes: &mut impl Iterator<Item = u8>, out: &mut String, depth: usize) {
    let open = match if depth > 4 { 0 } else { bytes.next().unwrap_or_default() % 6 } {
        0 | 1 => return out.push_str(choose(bytes, &["text", "{{", "\n", "{# c #}", " -", "é"])),
        2 | 3 => {
            out.push_str(choose(bytes, &["{{ ", "{{- "]));
            expression(bytes, out, 0);
            return out.push_str(choose(bytes, &[" }}", " -}}"]));
        }
        4 => "if",
        _ => choose(bytes, &["for x in", "for k, v in", "for x in keysValues | items", "for x in y if"]),
    };
    out.extend(["{% ", open, " "]);
    if !open.ends_with("items") {
        expression(bytes, out, 0);
    }
    out.push_str(" %}");
    statement(bytes, out, depth + 1);
    out.push_str(choose(bytes, &["", "", "{% else %}x", "{% elif keysValues %}"]));
    out.extend(["{% end", &open[..open.find(' ').unwrap_or(open.len())], " %}"]);
}

fn expression(bytes: &mut impl Iterator<Item = u8>, out: &mut String, depth: usize) {
    const PLACES: [&str; 12] = [
        "keysValues",
        "keysValues.user",
        "keysValues['a b']",
        "keysValues['a b'][1]",
        "loop.index",
        "x",
        "k",
        "v",
        "'a,b'",
        "7",
        "[1, 'a']",
        "keysValues.none",
    ];
    const FILTERS: [&str; 24] = [
        "urlencode",
        "b64encode",
        "b64decode",
        "tojson",
        "quote",
        "squote",
        "indent(3)",
        "nindent(300)",
        "trim",
        "upper",
        "lower",
        "replace('a', 'aa')",
        "join('-')",
        "split(',')",
        "lines",
        "default('d')",
        "length",
        "first",
        "last",
        "keys",
        "items",
        "dictsort",
        "sha256",
        "htpasswd",
    ];
    match if depth > 4 { 0 } else { bytes.next().unwrap_or_default() % 8 } {
        0..=2 => out.push_str(choose(bytes, &PLACES)),
        3 | 4 => {
            expression(bytes, out, depth + 1);
            out.extend([" | ", choose(bytes, &FILTERS)]);
        }
        5 => {
            out.push('(');
            expression(bytes, out, depth + 1);
            out.push_str(choose(bytes, &[" ~ ", " == ", " < ", " in ", " and ", " or ", " - ", " / ", " if x else "]));
            expression(bytes, out, depth + 1);
            out.push(')');
        }
        6 => {
            out.push_str(choose(bytes, &["not ", "-"]));
            expression(bytes, out, depth + 1);
        }
        _ => {
            expression(bytes, out, depth + 1);
            out.push_str(choose(
                bytes,
                &[" is defined", " is not none", "[0]", "[-1]", "[x]", "[::-1]", ".k", " is string"],
            ));
        }
    }
}

fn payloads() -> Vec<Vec<u8>> {
    let seeds = [
        r#"{"A":"no","B_2":"it's $5 `x`","c":1e400,"D":{"k":[1.0,"on",null,{}]},"E":"two\nlines","F":"aGk="}"#,
        r#"{"=":"<<","y":"012","x-y z":"\u0000\ud83d\ude00\u2028","":[],"d":"2026-01-01","n":12345678901234567890123,"t":"a: b #c"}"#,
        r#"{"PEM":"-----BEGIN\n\"q\"\\\n","EMPTY":"","S":" lead\ttrail ","H":"12:30","L":[["a"],[]]}"#,
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

fn written(payload: &[u8], format: Format) -> Result<String, MappingError> {
    let entry = Entry {
        key: DataKey::parse("k").unwrap(),
        place: Place::Pointer("".parse().unwrap(), format),
        missing: Missing::Refuse,
    };
    let data = map(payload, &Mapping::Keys(vec![entry]), &stamp())?;
    let bytes = data.values().next().map(|value| value.expose().to_vec()).unwrap_or_default();
    Ok(String::from_utf8(bytes).unwrap())
}

/// What each format writes, its own reader reads back as what the payload holds.
fn formats(given: &[u8]) -> Verdict {
    let Ok(raw) = written(given, Format::Raw) else { return Ok(Outcome::Refused) };
    let value: Value = match serde_json::from_slice(given) {
        Ok(value) => value,
        // It knows no number that a double does not hold.
        Err(error) if error.to_string().starts_with("number out of range") => return Ok(Outcome::Taken),
        // An escape that stands in no key is read by none but who asks for it.
        Err(_) => return Ok(Outcome::Refused),
    };
    if raw.len() > MOST || serde_json::from_str::<Value>(&raw).ok() != Some(value.clone()) {
        return Err("raw is another value".to_owned());
    }
    if !value.is_string() && written(given, Format::Json).ok().as_deref() != Some(&raw) {
        return Err("json of what is no string is not what raw gives".to_owned());
    }
    if let Ok(yaml) = written(given, Format::Yaml)
        && !serde_yaml::from_str::<Yaml>(&yaml).is_ok_and(|back| alike(&value, &back))
    {
        return Err("YAML reads something else".to_owned());
    }
    let Value::Object(fields) = &value else { return Ok(Outcome::Refused) };
    let texts: BTreeMap<&str, &str> = fields.iter().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect();
    for (format, reader) in [(Format::Dotenv, shell as fn(&str) -> Pairs), (Format::Properties, java)] {
        if let Ok(text) = written(given, format) {
            let Some(back) = reader(&text) else { return Err(format!("{format:?} cannot be read")) };
            let keys: BTreeSet<&str> = back.keys().map(String::as_str).collect();
            let all = keys == fields.keys().map(String::as_str).collect();
            if !all || texts.iter().any(|(key, text)| back.get(*key).map(String::as_str) != Some(*text)) {
                return Err(format!("{format:?} is read as something else"));
            }
        }
    }
    Ok(Outcome::Taken)
}

/// What YAML reads, with numbers of any size: they were copied, and each reader rounds in its own way.
#[derive(Debug)]
enum Yaml {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadYaml)
    }
}

struct ReadYaml;

impl<'de> Visitor<'de> for ReadYaml {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, of: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(of))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Yaml, E> {
        Ok(Yaml::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some((Yaml::Text(key), value)) = map.next_entry::<Yaml, Yaml>()? {
            entries.push((key, value));
        }
        Ok(Yaml::Map(entries))
    }
}

fn alike(json: &Value, yaml: &Yaml) -> bool {
    match (json, yaml) {
        (Value::Null, Yaml::Null) | (Value::Number(_), Yaml::Number) => true,
        (Value::Bool(one), Yaml::Bool(other)) => one == other,
        (Value::String(one), Yaml::Text(other)) => one == other,
        (Value::Array(one), Yaml::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Yaml::Map(other)) => {
            one.len() == other.len()
                && other.iter().all(|(key, other)| one.get(key).is_some_and(|one| alike(one, other)))
        }
        _ => false,
    }
}

type Pairs = Option<BTreeMap<String, String>>;

/// The assignments of a POSIX shell, as far as they are written: one word each, quoted in one way.
fn shell(text: &str) -> Pairs {
    let (mut back, mut rest) = (BTreeMap::new(), text);
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.as_bytes().first()? {
            b'\'' => after[1..].split_once('\'').map(|(value, after)| (value.to_owned(), after))?,
            b'"' => {
                let (mut value, mut chars) = (String::new(), after[1..].chars());
                loop {
                    match chars.next()? {
                        '"' => break (value, chars.as_str()),
                        '\\' => value.push(chars.next().filter(|c| matches!(c, '"' | '\\' | '$'))?),
                        '$' | '`' => return None,
                        other => value.push(other),
                    }
                }
            }
            _ => after.split_once('\n').map(|(value, _)| (value.to_owned(), &after[value.len()..]))?,
        };
        back.insert(key.to_owned(), value);
        rest = after.strip_prefix('\n')?;
    }
    Some(back)
}

/// `java.util.Properties.load`, as far as it is written: one line each.
fn java(text: &str) -> Pairs {
    let mut back = BTreeMap::new();
    for line in text.split_terminator('\n') {
        let (mut units, mut key, mut chars) = (Vec::new(), None, line.chars());
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next()? {
                    'u' => units.push(u16::from_str_radix(&chars.by_ref().take(4).collect::<String>(), 16).ok()?),
                    't' => units.push(9),
                    'n' => units.push(10),
                    'r' => units.push(13),
                    'f' => units.push(12),
                    other => units.extend(other.encode_utf16(&mut [0; 2]).iter()),
                },
                '=' | ':' | ' ' if key.is_none() => key = Some(String::from_utf16(&std::mem::take(&mut units)).ok()?),
                other if other.is_ascii() => units.push(u16::try_from(u32::from(other)).ok()?),
                // Read as ISO-8859-1, which UTF-8 is not.
                _ => return None,
            }
        }
        back.insert(key?, String::from_utf16(&units).ok()?);
    }
    Some(back)
}

fn rules() -> Vec<Vec<u8>> {
    let seeds = [
        r#"^DB_|url
{"keysValues":{"DB_URL":"1","db url":"2","api.Key":"3","other":"4"}}"#,
        r#"[^a-z]$
{"login":"l","password":"p","securityNotes":"n","dbURL2x":"1","..":"2"}"#,
        r#"(?i)b{1,3}(x|y)*\d?
{"keysValues":{"bXy1":"1","Ключ":"2","__":"3"}}"#,
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// No key vanishes: each is taken under a name of its own, or left out by a rule, or nothing is given at all.
fn keys(given: &[u8]) -> Verdict {
    let split = given.iter().position(|byte| *byte == b'\n').unwrap_or(given.len());
    let (pattern, payload) = (String::from_utf8_lossy(&given[..split]), given.get(split + 1..).unwrap_or_default());
    let all = {
        let Ok(value) = serde_json::from_slice::<Value>(payload) else { return Ok(Outcome::Refused) };
        let nested = value.get("keysValues").filter(|nested| nested.is_object());
        let Some(fields) = nested.or(Some(&value)).and_then(Value::as_object) else { return Ok(Outcome::Refused) };
        let fields = fields.keys().filter(|name| nested.is_some() || *name != "securityNotes");
        fields.cloned().collect::<Vec<_>>()
    };
    let mut outcome = Outcome::Refused;
    let forms = [Rename::UpperSnake, Rename::LowerSnake, Rename::LowerKebab, Rename::Camel, Rename::UpperCamel];
    let forms = forms.into_iter().chain([Rename::DotnetEnv, Rename::TfVar]).map(Some).chain([None]);
    for (rename, takes) in forms.flat_map(|form| [(form, true), (form, false)]) {
        let patterns = Some(vec![Pattern(pattern.clone().into_owned())]);
        let (include, exclude) = if takes { (patterns, None) } else { (None, patterns) };
        let Ok(rules) = KeyRules::parse(&Keys { include, exclude, rename, prefix: Some("p-".into()) }) else {
            return Ok(Outcome::Refused);
        };
        let Ok(data) = map(payload, &Mapping::Everything(rules), &stamp()) else { continue };
        let none =
            KeyRules::parse(&Keys { include: Some(vec![Pattern(pattern.clone().into_owned())]), ..Keys::default() });
        let Ok(none) = none else { return Err("a pattern is taken once and not again".to_owned()) };
        let matched = all.iter().filter(|name| matches(&none, name)).count();
        let wanted = if takes { matched } else { all.len() - matched };
        if data.len() != wanted || data.keys().any(|key| !key.as_str().starts_with("p-")) {
            return Err(format!("{rename:?}: {} keys of {wanted}", data.len()));
        }
        outcome = Outcome::Taken;
    }
    Ok(outcome)
}

/// Whether a rule takes a name, asked with a payload of that name alone.
fn matches(rules: &KeyRules, name: &str) -> bool {
    let payload = serde_json::json!({"keysValues": {name: "v"}}).to_string();
    !matches!(map(payload.as_bytes(), &Mapping::Everything(rules.clone()), &stamp()), Err(MappingError::Nothing))
}
