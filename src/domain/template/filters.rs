//! The filters. Each is ours, so that each is bounded: its result by 1 MiB, and what all of one rendering take and give
//! together by 8 MiB.

use crate::domain::content::StampKey;
use crate::domain::template::value::{json, show};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All filters.
pub(super) const NAMES: &[&str] = &[
    "urlencode",
    "b64encode",
    "b64decode",
    "tojson",
    "quote",
    "squote",
    "indent",
    "nindent",
    "trim",
    "upper",
    "lower",
    "replace",
    "join",
    "split",
    "lines",
    "default",
    "d",
    "length",
    "first",
    "last",
    "keys",
    "items",
    "dictsort",
    "sha256",
    "htpasswd",
];

const MAX_RESULT: usize = super::MAX_OUTPUT;
const MAX_TOGETHER: usize = 8 * 1024 * 1024;
const MAX_ITEMS: usize = 10_000;
const MAX_INDENT: usize = 256;
/// Log2 of bcrypt's rounds.
const COST: u32 = 10;

/// What the filters of one rendering have spent, and what the last failure was.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    spent: AtomicUsize,
    said: Mutex<Option<String>>,
}

impl Budget {
    /// What one rendering may take, where no less is `left` for all.
    pub(super) fn new(left: usize) -> Self {
        Self { most: MAX_TOGETHER.min(left), spent: AtomicUsize::new(0), said: Mutex::new(None) }
    }

    pub(super) fn spent(&self) -> usize {
        self.spent.load(Ordering::Relaxed)
    }

    /// Our own words for the failure, if it was a filter's.
    pub(super) fn said(&self) -> Option<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail<T>(&self, why: &str) -> Result<T, Error> {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        Err(ErrorKind::InvalidOperation.into())
    }

    fn spend(&self, bytes: usize) -> Result<(), Error> {
        if self.spent.fetch_add(bytes, Ordering::Relaxed) + bytes > self.most {
            return self.fail(if self.most < MAX_TOGETHER {
                "the filters of this binding's templates take more than 64 MiB together"
            } else {
                "its filters take more than 8 MiB together"
            });
        }
        Ok(())
    }

    /// The text of a value.
    fn text(&self, value: &Value) -> Result<String, Error> {
        if value.is_undefined() {
            return Err(ErrorKind::UndefinedError.into());
        }
        let text = self.written(|out| show(value, out))?;
        Ok(text)
    }

    fn written(&self, write: impl FnOnce(&mut Bounded) -> fmt::Result) -> Result<String, Error> {
        let mut out = Bounded(String::new());
        if write(&mut out).is_err() {
            // Also what is thrown away was written.
            self.spent.fetch_add(out.0.len(), Ordering::Relaxed);
            return self.fail("a filter gives more than 1 MiB, or is given what it cannot write");
        }
        self.spend(out.0.len())?;
        Ok(out.0)
    }

    fn items(&self, value: &Value) -> Result<Vec<Value>, Error> {
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
                let items: Vec<Value> = value.try_iter()?.take(MAX_ITEMS + 1).collect();
                self.counted(items)
            }
            _ => self.fail("a filter is given what is no list and no object"),
        }
    }

    fn counted(&self, items: Vec<Value>) -> Result<Vec<Value>, Error> {
        if items.len() > MAX_ITEMS {
            return self.fail("a filter is given, or gives, more than 10,000 items");
        }
        self.spend(items.len() * size_of::<Value>())?;
        Ok(items)
    }
}

/// Takes no more than a result may have.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_RESULT {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

type Outcome = Result<Value, Error>;

/// Gives the engine its filters and tests.
pub(super) fn install(engine: &mut Environment<'_>, budget: &Arc<Budget>, key: &StampKey) {
    let mut add = |name: &'static str, act: fn(&Budget, &Value, &[Value]) -> Outcome| {
        let budget = budget.clone();
        engine.add_filter(name, move |value: Value, rest: Rest<Value>| act(&budget, &value, &rest));
    };
    add("urlencode", |b, v, a| {
        each_byte(b, v, a, |byte, out| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.write_char(char::from(byte))
            } else {
                write!(out, "%{byte:02X}")
            }
        })
    });
    add("b64encode", |b, v, a| {
        none(b, a)?;
        let text = STANDARD.encode(b.text(v)?);
        b.written(|out| out.write_str(&text)).map(Value::from)
    });
    add("b64decode", |b, v, a| {
        none(b, a)?;
        let text = b.text(v)?;
        let decoded = STANDARD_NO_PAD.decode(text.trim().trim_end_matches('=')).ok();
        match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => b.written(|out| out.write_str(&text)).map(Value::from),
            None => b.fail("b64decode is given what is not base64 of a text; format: base64 of a pointer gives bytes"),
        }
    });
    for name in ["tojson", "quote"] {
        add(name, if name == "quote" { quote } else { tojson });
    }
    add("squote", |b, v, a| {
        none(b, a)?;
        let text = b.text(v)?;
        b.written(|out| write!(out, "'{}'", text.replace('\'', r"'\''"))).map(Value::from)
    });
    add("indent", |b, v, a| indented(b, v, a, ""));
    add("nindent", |b, v, a| indented(b, v, a, "\n"));
    add("trim", |b, v, a| changed(b, v, a, |text| text.trim().to_owned()));
    add("upper", |b, v, a| changed(b, v, a, |text| text.to_uppercase()));
    add("lower", |b, v, a| changed(b, v, a, |text| text.to_lowercase()));
    add("sha256", |b, v, a| changed(b, v, a, |text| data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))));
    add("replace", |b, v, a| {
        let [from, to] = a else { return b.fail("replace takes two texts: what, and by what") };
        let (text, from, to) = (b.text(v)?, b.text(from)?, b.text(to)?);
        if from.is_empty() {
            return b.fail("replace cannot replace nothing");
        }
        b.written(|out| {
            let mut parts = text.split(from.as_str());
            out.write_str(parts.next().unwrap_or_default())?;
            parts.try_for_each(|part| out.write_str(&to).and_then(|()| out.write_str(part)))
        })
        .map(Value::from)
    });
    add("join", |b, v, a| {
        let separator = match a {
            [] => String::new(),
            [separator] => b.text(separator)?,
            _ => return b.fail("join takes one text: what stands between"),
        };
        let items = b.items(v)?;
        b.written(|out| {
            items.iter().enumerate().try_for_each(|(at, item)| {
                if at > 0 {
                    out.write_str(&separator)?;
                }
                show(item, out)
            })
        })
        .map(Value::from)
    });
    add("split", |b, v, a| {
        let [separator] = a else { return b.fail("split takes one text: the separator") };
        let (text, separator) = (b.text(v)?, b.text(separator)?);
        if separator.is_empty() {
            return b.fail("split needs a separator");
        }
        b.counted(text.split(separator.as_str()).take(MAX_ITEMS + 1).map(Value::from).collect()).map(Value::from)
    });
    add("lines", |b, v, a| {
        none(b, a)?;
        b.counted(b.text(v)?.lines().take(MAX_ITEMS + 1).map(Value::from).collect()).map(Value::from)
    });
    for name in ["default", "d"] {
        add(name, |b, v, a| match a {
            [other] => Ok(if v.is_undefined() { other.clone() } else { v.clone() }),
            _ => b.fail("default takes one value: what stands in"),
        });
    }
    add("length", |b, v, a| {
        none(b, a)?;
        match v.as_str() {
            Some(text) => Ok(Value::from(text.chars().count())),
            None => v.len().map_or_else(|| b.fail("length is given what has none"), |n| Ok(Value::from(n))),
        }
    });
    add("first", |b, v, a| {
        none(b, a)?;
        b.items(v)?.into_iter().next().map_or_else(|| b.fail("first of nothing"), Ok)
    });
    add("last", |b, v, a| {
        none(b, a)?;
        b.items(v)?.into_iter().next_back().map_or_else(|| b.fail("last of nothing"), Ok)
    });
    add("keys", |b, v, a| {
        none(b, a)?;
        names(b, v).map(Value::from)
    });
    add("items", |b, v, a| {
        none(b, a)?;
        pairs(v, names(b, v)?)
    });
    add("dictsort", |b, v, a| {
        none(b, a)?;
        let mut names = names(b, v)?;
        names.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        pairs(v, names)
    });
    let (budget, salt) = (budget.clone(), key.salt());
    engine.add_filter("htpasswd", move |value: Value, rest: Rest<Value>| -> Outcome {
        let [password] = &rest[..] else {
            return budget.fail("htpasswd takes the password: login | htpasswd(password)");
        };
        let (login, password) = (budget.text(&value)?, budget.text(password)?);
        if login.is_empty() || login.contains([':', '\n', '\r']) {
            return budget.fail("htpasswd is given a login that is empty or holds a colon or a line break");
        }
        if password.len() > 72 {
            return budget
                .fail("htpasswd is given a password of more than 72 bytes, of which bcrypt would not see the rest");
        }
        match bcrypt::hash_with_salt(&password, COST, salt.of(&[login.as_bytes(), password.as_bytes()])) {
            Ok(parts) => Ok(Value::from(format!("{login}:{}", parts.format_for_version(bcrypt::Version::TwoY)))),
            Err(_) => budget.fail("htpasswd is given a password that bcrypt does not take"),
        }
    });
    engine.add_test("defined", |value: Value| !value.is_undefined());
    engine.add_test("undefined", |value: Value| value.is_undefined());
    engine.add_test("none", |value: Value| value.is_none());
    engine.add_test("string", |value: Value| value.as_str().is_some());
    engine.add_test("number", |value: Value| value.is_number() || value.kind() == ValueKind::Plain);
}

fn none(budget: &Budget, arguments: &[Value]) -> Result<(), Error> {
    if arguments.is_empty() { Ok(()) } else { budget.fail("a filter is given an argument that it does not take") }
}

fn changed(budget: &Budget, value: &Value, arguments: &[Value], change: fn(&str) -> String) -> Outcome {
    none(budget, arguments)?;
    let text = change(&budget.text(value)?);
    budget.written(|out| out.write_str(&text)).map(Value::from)
}

fn each_byte(budget: &Budget, value: &Value, arguments: &[Value], put: fn(u8, &mut Bounded) -> fmt::Result) -> Outcome {
    none(budget, arguments)?;
    let text = budget.text(value)?;
    budget.written(|out| text.bytes().try_for_each(|byte| put(byte, out))).map(Value::from)
}

fn tojson(budget: &Budget, value: &Value, arguments: &[Value]) -> Outcome {
    none(budget, arguments)?;
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    budget.written(|out| json(value, out)).map(Value::from)
}

fn quote(budget: &Budget, value: &Value, arguments: &[Value]) -> Outcome {
    none(budget, arguments)?;
    let text = Value::from(budget.text(value)?);
    budget.written(|out| json(&text, out)).map(Value::from)
}

/// Each line but the first begins after so many blanks; after a line break before it, the first too.
fn indented(budget: &Budget, value: &Value, arguments: &[Value], before: &str) -> Outcome {
    let width = match arguments {
        [width] => width.as_usize().filter(|width| *width <= MAX_INDENT),
        _ => None,
    };
    let Some(width) = width else { return budget.fail("indent takes a number of columns, at most 256") };
    let text = budget.text(value)?;
    budget
        .written(|out| {
            out.write_str(before)?;
            text.split('\n').enumerate().try_for_each(|(at, line)| {
                if at > 0 {
                    out.write_char('\n')?;
                }
                // Blanks alone are no line.
                let blanks = if (at > 0 || !before.is_empty()) && !line.is_empty() { width } else { 0 };
                write!(out, "{:blanks$}{line}", "")
            })
        })
        .map(Value::from)
}

fn names(budget: &Budget, value: &Value) -> Result<Vec<Value>, Error> {
    if value.kind() != ValueKind::Map {
        return budget.fail("a filter is given what is no object");
    }
    let names = budget.items(value)?;
    // They are compared to be sorted, and to find what stands under them.
    budget.spend(names.iter().filter_map(Value::as_str).map(str::len).sum())?;
    Ok(names)
}

fn pairs(value: &Value, names: Vec<Value>) -> Outcome {
    let pair = |name: Value| value.get_item(&name).map(|of| Value::from(vec![name, of]));
    names.into_iter().map(pair).collect::<Result<Vec<_>, _>>().map(Value::from)
}
