//! From files, stdin and arguments to one payload.

use super::args::SecretPut;
use crate::payload::{self, BadPayload, Kind};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

type Text = Zeroizing<String>;

/// What cannot be read as a payload. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadInput {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is not UTF-8 text; a payload is JSON, so encode it first, for instance with base64")]
    Binary(String),
    #[error("stdin can be read once, but two options name it")]
    StdinTwice,
    #[error("argument {0} is not KEY=VALUE")]
    NotAPair(usize),
    #[error("{0}, line {1}: not KEY=VALUE")]
    NotALine(String, usize),
    #[error("{0}, line {1}: the quote is not closed")]
    OpenQuote(String, usize),
    #[error("key {0:?} is given twice")]
    Twice(String),
    #[error("--payload is a whole payload, so nothing else can be given beside it")]
    TwoPayloads,
    #[error("{file} is not a whole JSON payload ({source}); for one value from a file write: --from-file KEY={file}")]
    NotAPayload { file: String, source: BadPayload },
    #[error("nothing to put: give --from-env-file FILE, --from-file KEY=FILE, --payload FILE, or KEY=VALUE")]
    Nothing,
    #[error(transparent)]
    Payload(#[from] BadPayload),
}

/// Reads what `secret put` names, stdin at most once.
///
/// # Errors
/// [`BadInput`].
pub(super) fn gather(args: &SecretPut, stdin: &mut impl Read) -> Result<(Option<Kind>, Text), BadInput> {
    let mut source = Source { stdin: Some(stdin) };
    let whole: Vec<&String> = args.from_file.iter().filter(|given| !given.contains('=')).collect();
    let alone = args.values.is_empty() && args.from_env_file.is_empty();
    match (&args.payload, whole.as_slice()) {
        (Some(path), []) if args.from_file.is_empty() => return Ok((args.kind, source.read(path)?)),
        (None, [file]) if alone && args.from_file.len() == 1 => {
            let text = source.read(Path::new(file))?;
            let named = |source| BadInput::NotAPayload { file: (*file).clone(), source };
            payload::check(&text, args.kind).map_err(named)?;
            return Ok((args.kind, text));
        }
        (None, []) => (),
        _ => return Err(BadInput::TwoPayloads),
    }
    let mut values = BTreeMap::new();
    for path in &args.from_env_file {
        lines(&shown(path), &source.read(path)?, &mut values)?;
    }
    for given in &args.from_file {
        let (key, path) = given.split_once('=').unwrap_or_default();
        put(&mut values, key, source.read(Path::new(path))?)?;
    }
    if let [only] = args.values.as_slice()
        && only == "-"
    {
        let text = source.read(Path::new("-"))?;
        if text.trim_start().starts_with('{') && values.is_empty() {
            return Ok((args.kind, text));
        }
        lines("stdin", &text, &mut values)?;
    } else {
        for (index, given) in args.values.iter().enumerate() {
            let (key, value) = given.split_once('=').ok_or(BadInput::NotAPair(index + 1))?;
            put(&mut values, key, Zeroizing::new(value.to_owned())).map_err(|error| match error {
                BadInput::NotAPair(_) => BadInput::NotAPair(index + 1),
                other => other,
            })?;
        }
    }
    if values.is_empty() {
        return Err(BadInput::Nothing);
    }
    let kind = args.kind.unwrap_or(Kind::KeysValues);
    Ok((Some(kind), payload::compose(kind, &values)?))
}

/// The text of a file, or of stdin.
///
/// # Errors
/// `Read`, `Binary`.
pub(super) fn text(path: &Path, stdin: &mut impl Read) -> Result<String, BadInput> {
    Ok(Source { stdin: Some(stdin) }.read(path)?.to_string())
}

struct Source<'a, R> {
    stdin: Option<&'a mut R>,
}

impl<R: Read> Source<'_, R> {
    fn read(&mut self, path: &Path) -> Result<Text, BadInput> {
        let failed = |source| BadInput::Read { path: PathBuf::from(shown(path)), source };
        let bytes = if path == Path::new("-") {
            let mut bytes = Zeroizing::new(Vec::new());
            self.stdin.take().ok_or(BadInput::StdinTwice)?.read_to_end(&mut bytes).map_err(failed)?;
            bytes
        } else {
            Zeroizing::new(fs::read(path).map_err(failed)?)
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| BadInput::Binary(shown(path)))?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

fn shown(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}

fn put(values: &mut BTreeMap<String, Text>, key: &str, value: Text) -> Result<(), BadInput> {
    if key.is_empty() {
        return Err(BadInput::NotAPair(0));
    }
    if values.insert(key.to_owned(), value).is_some() {
        return Err(BadInput::Twice(key.to_owned()));
    }
    Ok(())
}

/// `KEY=VALUE` lines as in `.env` files: `export` allowed, quotes around a value removed, no `#` inside a line means comment.
fn lines(file: &str, text: &str, values: &mut BTreeMap<String, Text>) -> Result<(), BadInput> {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (key, value) = line.split_once('=').ok_or_else(|| BadInput::NotALine(file.to_owned(), number))?;
        let value = unquoted(value.trim()).ok_or_else(|| BadInput::OpenQuote(file.to_owned(), number))?;
        put(values, key.trim(), value).map_err(|error| match error {
            BadInput::NotAPair(_) => BadInput::NotALine(file.to_owned(), number),
            other => other,
        })?;
    }
    Ok(())
}

/// `'...'` as it stands, `"..."` with \n, \r, \t, \" and \\; anything else as it stands. None: a quote is not closed.
fn unquoted(value: &str) -> Option<Text> {
    let inner = |quote: char| value.strip_prefix(quote).map(|rest| rest.strip_suffix(quote));
    if let Some(inner) = inner('\'') {
        return inner.map(|inner| Zeroizing::new(inner.to_owned()));
    }
    let Some(inner) = inner('"') else { return Some(Zeroizing::new(value.to_owned())) };
    let mut out = Zeroizing::new(String::with_capacity(value.len()));
    let mut chars = inner?.chars();
    while let Some(next) = chars.next() {
        match next {
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                other @ ('"' | '\\' | '$') => out.push(other),
                other => out.extend(['\\', other]),
            },
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Put {
        #[command(flatten)]
        args: SecretPut,
    }

    fn gathered(args: &[&str], stdin: &str) -> Result<(Option<Kind>, String), String> {
        let put = Put::try_parse_from([&["put", "NAME"], args].concat()).map_err(|e| e.to_string())?;
        let found = gather(&put.args, &mut stdin.as_bytes());
        found.map(|(kind, text)| (kind, text.as_str().to_owned())).map_err(|e| e.to_string())
    }

    #[test]
    fn values_come_from_arguments_lines_and_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &[u8]| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let pem = path("pem", b"-----BEGIN\nx\n");
        let json = path("json", br#"{"keysValues":{"n":1.0}}"#);
        let binary = path("binary", &[0xff, 0xfe]);
        let ok = |args: &[&str], stdin: &str| gathered(args, stdin).unwrap().1;
        assert_eq!(ok(&["A=1", "my key=a=b"], ""), r#"{"keysValues":{"A":"1","my key":"a=b"}}"#);
        let env = "# c\n\nexport A=1\nB = 'x # y'\nC=\"l1\\nl2\"\nD=a # b\nE=\n";
        let expected = r#"{"keysValues":{"A":"1","B":"x # y","C":"l1\nl2","D":"a # b","E":""}}"#;
        assert_eq!(ok(&["--from-env-file", "-"], env), expected);
        assert_eq!(ok(&["-"], env), expected);
        assert_eq!(ok(&["-"], r#" {"securityCode":"1"}"#), r#" {"securityCode":"1"}"#);
        assert_eq!(
            ok(&["--from-file", &format!("crt={pem}"), "A=1"], ""),
            r#"{"keysValues":{"A":"1","crt":"-----BEGIN\nx\n"}}"#
        );
        assert_eq!(ok(&["--from-file", "p=-"], "pw\n"), r#"{"keysValues":{"p":"pw\n"}}"#);
        assert_eq!(ok(&["--payload", &json], ""), r#"{"keysValues":{"n":1.0}}"#);
        assert_eq!(ok(&["--from-file", &json], ""), r#"{"keysValues":{"n":1.0}}"#);
        assert_eq!(
            gathered(&["--type", "LOGIN_PASSWORD", "login=a", "password=b"], "").unwrap(),
            (Some(Kind::LoginPassword), r#"{"login":"a","password":"b"}"#.to_owned())
        );
        let refused = |args: &[&str], stdin: &str| gathered(args, stdin).unwrap_err();
        assert!(refused(&["--from-file", &pem], "").contains(&format!("--from-file KEY={pem}")));
        assert!(refused(&["--from-file", &format!("k={binary}")], "").contains("not UTF-8"));
        assert!(refused(&["A"], "").contains("argument 1 is not KEY=VALUE"));
        assert!(refused(&["=canary"], "").contains("argument 1"));
        assert!(refused(&["A=1", "A=2"], "").contains("\"A\" is given twice"));
        assert!(refused(&["-"], "A=1\ncanary\n").contains("stdin, line 2"));
        assert!(refused(&["-"], "A='canary\n").contains("quote is not closed"));
        assert!(refused(&["--from-env-file", "-", "--from-file", "k=-"], "").contains("stdin can be read once"));
        assert!(refused(&["--from-file", &json, "A=1"], "").contains("whole payload"));
        assert!(refused(&[], "").contains("nothing to put"));
        for (args, stdin) in [(&["canary"][..], ""), (&["-"], "canary"), (&["-"], "A='canary")] {
            assert!(!refused(args, stdin).contains("canary"), "an error shows a value");
        }
    }
}
