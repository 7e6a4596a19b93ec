//! Which keys of a secret are taken, and what they are called: `spec.keys`.

use crate::crd::{Keys, Pattern, Rename};
use crate::domain::mapping::MappingError;
use crate::domain::name::DataKey;
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::collections::BTreeMap;

/// Bytes that the expressions of a field may take together when they are compiled. To look for them in a text takes as long as this
/// times its length: with [`MAX_LOOKED_AT`], half a second at most.
const MAX_COMPILED: usize = 32 * 1024;
/// Bytes that the engine may keep of what it has found out of the expressions of a field.
const MAX_KEPT: usize = 256 * 1024;
/// Bytes of names, together, in which expressions are looked for.
const MAX_LOOKED_AT: usize = 32 * 1024;
/// Bytes of a name; a key of a Secret has at most 253, of which none comes about by rewriting more than this.
const MAX_NAME: usize = 1024;

/// Regular expressions, of which any is looked for; equal where their texts are.
#[derive(Clone, Debug, Default)]
struct Expressions(RegexSet);

impl PartialEq for Expressions {
    fn eq(&self, other: &Self) -> bool {
        self.0.patterns() == other.0.patterns()
    }
}

/// `spec.keys`, parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyRules {
    include: Expressions,
    exclude: Expressions,
    rename: Option<Rename>,
    prefix: String,
}

impl KeyRules {
    /// Parses `spec.keys`.
    ///
    /// # Errors
    /// The expression that does not compile.
    pub fn parse(keys: &Keys) -> Result<Self, String> {
        Ok(Self {
            include: compile("include", keys.include.as_deref())?,
            exclude: compile("exclude", keys.exclude.as_deref())?,
            rename: keys.rename,
            prefix: keys.prefix.clone().unwrap_or_default(),
        })
    }

    /// The key in the Secret of each name, in their order; `None` of those that are not taken.
    ///
    /// # Errors
    /// All illegal keys, or all keys that meet, or that none is left.
    pub(super) fn names<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Vec<Option<DataKey>>, MappingError> {
        let long: Vec<String> = names.clone().filter(|name| name.len() > MAX_NAME).map(shortened).collect();
        if !long.is_empty() {
            return Err(MappingError::IllegalKeys(long));
        }
        let looked_at: usize = names.clone().map(str::len).sum();
        if looked_at > MAX_LOOKED_AT && !(self.include.0.is_empty() && self.exclude.0.is_empty()) {
            return Err(MappingError::TooManyNames);
        }
        let (mut illegal, mut met) = (Vec::new(), Vec::new());
        let mut taken: BTreeMap<DataKey, &str> = BTreeMap::new();
        let mut seen = false;
        let keys = names
            .map(|name| {
                seen = true;
                if !self.takes(name) {
                    return None;
                }
                match DataKey::parse(&self.rename(name)) {
                    Ok(key) => {
                        if let Some(other) = taken.insert(key.clone(), name) {
                            met.push(format!("{other:?} and {name:?} are both {key}"));
                        }
                        Some(key)
                    }
                    Err(key) if key == name => {
                        illegal.push(format!("{name:?}"));
                        None
                    }
                    Err(key) => {
                        illegal.push(format!("{key:?} (from {name:?})"));
                        None
                    }
                }
            })
            .collect();
        if !illegal.is_empty() {
            Err(MappingError::IllegalKeys(illegal))
        } else if !met.is_empty() {
            Err(MappingError::Met(met))
        } else if seen && taken.is_empty() {
            Err(MappingError::Nothing)
        } else {
            Ok(keys)
        }
    }

    fn takes(&self, name: &str) -> bool {
        (self.include.0.is_empty() || self.include.0.is_match(name.as_bytes()))
            && !self.exclude.0.is_match(name.as_bytes())
    }

    fn rename(&self, name: &str) -> String {
        let renamed = match self.rename {
            None => name.to_owned(),
            Some(rename) => renamed(name, rename),
        };
        format!("{}{renamed}", self.prefix)
    }
}

fn compile(field: &str, patterns: Option<&[Pattern]>) -> Result<Expressions, String> {
    // As in RE2, \w, \d, \s and \b know ASCII only: with the letters of all alphabets, \w alone would be larger than this.
    let build = |texts: &[&str]| {
        RegexSetBuilder::new(texts).unicode(false).size_limit(MAX_COMPILED).dfa_size_limit(MAX_KEPT).build()
    };
    let texts: Vec<&str> = patterns.unwrap_or_default().iter().map(|Pattern(text)| text.as_str()).collect();
    build(&texts).map(Expressions).map_err(|_| match texts.iter().find(|text| build(&[text]).is_err()) {
        Some(text) => format!(
            "spec.keys.{field} holds {text:?}, which is no regular expression that the agent takes (RE2 syntax, classes of ASCII only, \
             at most 32 KiB compiled)"
        ),
        None => format!(
            "the expressions of spec.keys.{field} take more than 32 KiB together when they are compiled; write fewer, or repeat less"
        ),
    })
}

/// A name that is too long to be said whole.
fn shortened(name: &str) -> String {
    let start: String = name.chars().take(40).collect();
    format!("one of {} bytes that begins with {start:?}", name.len())
}

fn renamed(name: &str, rename: Rename) -> String {
    let words = words(name);
    let join = |separator: &str, each: &dyn Fn(&str) -> String| {
        words.iter().map(|word| each(word)).collect::<Vec<_>>().join(separator)
    };
    let lower = |word: &str| word.to_ascii_lowercase();
    let capital = |word: &str| {
        let mut word = word.to_ascii_lowercase();
        if let Some(first) = word.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        word
    };
    match rename {
        Rename::UpperSnake => join("_", &|word| word.to_ascii_uppercase()),
        Rename::LowerSnake => join("_", &lower),
        Rename::LowerKebab => join("-", &lower),
        Rename::UpperCamel => join("", &capital),
        Rename::Camel => {
            let mut all = words.iter();
            let first = all.next().map(|word| lower(word)).unwrap_or_default();
            all.fold(first, |name, word| name + &capital(word))
        }
        Rename::TfVar => format!("TF_VAR_{}", join("_", &lower)),
        Rename::DotnetEnv => {
            let parts = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join("__")
        }
    }
}

/// Words end at anything but letters and digits, and where a capital follows a small letter.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut last = ' ';
    for c in name.chars() {
        let boundary = !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && last.is_ascii_lowercase());
        if boundary {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c);
        }
        last = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(include: &[&str], exclude: &[&str], rename: Option<Rename>, prefix: &str) -> KeyRules {
        let list = |of: &[&str]| Some(of.iter().map(|p| Pattern((*p).to_owned())).collect());
        let keys = Keys { include: list(include), exclude: list(exclude), rename, prefix: Some(prefix.to_owned()) };
        KeyRules::parse(&keys).unwrap()
    }

    fn named(rules: &KeyRules, names: &[&str]) -> Result<Vec<String>, String> {
        let keys = rules.names(names.iter().copied()).map_err(|e| e.to_string())?;
        Ok(keys.iter().flatten().map(ToString::to_string).collect())
    }

    #[test]
    fn every_form_of_a_name() {
        for (rename, name, want) in [
            (Rename::UpperSnake, "db url", "DB_URL"),
            (Rename::UpperSnake, "dbUrl-x.y", "DB_URL_X_Y"),
            (Rename::LowerSnake, "DB url", "db_url"),
            (Rename::LowerKebab, "DB url", "db-url"),
            (Rename::Camel, "DB url", "dbUrl"),
            (Rename::UpperCamel, "DB url", "DbUrl"),
            (Rename::DotnetEnv, "Db:Url", "Db__Url"),
            (Rename::TfVar, "DB url", "TF_VAR_db_url"),
            (Rename::LowerSnake, "  a  b  ", "a_b"),
        ] {
            assert_eq!(renamed(name, rename), want, "{rename:?} of {name}");
        }
    }

    #[test]
    fn include_exclude_and_prefix() {
        let names = ["DB_URL", "DB_PASS", "OTHER"];
        assert_eq!(named(&rules(&["^DB_"], &["PASS$"], None, "app-"), &names), Ok(vec!["app-DB_URL".into()]));
        assert_eq!(named(&rules(&[], &["^DB_"], None, ""), &names), Ok(vec!["OTHER".into()]));
        assert_eq!(named(&KeyRules::default(), &[]), Ok(vec![]), "an empty secret is an empty Secret");
        assert!(named(&rules(&["^X"], &[], None, ""), &names).unwrap_err().contains("takes none"));
    }

    #[test]
    fn keys_that_meet_are_an_error_that_names_both() {
        let error = named(&rules(&[], &[], Some(Rename::UpperSnake), ""), &["db url", "DB_URL", "a"]).unwrap_err();
        assert_eq!(
            error,
            "after renaming, \"db url\" and \"DB_URL\" are both DB_URL; exclude one, or map them with spec.data"
        );
        let error = named(&rules(&[], &[], Some(Rename::UpperSnake), ""), &["--", "a"]).unwrap_err();
        assert!(error.contains("\"\" (from \"--\")"), "{error}");
    }

    #[test]
    fn an_expression_that_explodes_is_refused() {
        let keys = |text: &str| Keys { include: Some(vec![Pattern(text.to_owned())]), ..Keys::default() };
        for bad in ["(", "a{1000}{1000}", "(?P<x>\\p{L}{500}){500}"] {
            assert!(KeyRules::parse(&keys(bad)).unwrap_err().contains("spec.keys.include"), "{bad}");
        }
    }

    #[test]
    fn expressions_of_a_field_are_bounded_together_and_so_is_what_they_are_looked_for_in() {
        let keys =
            |texts: Vec<String>| Keys { exclude: Some(texts.into_iter().map(Pattern).collect()), ..Keys::default() };
        let nasty = |count: usize| keys((0..count).map(|n| format!("(?:a?b?){{70}}{n}")).collect());
        let told = KeyRules::parse(&nasty(32)).unwrap_err();
        assert!(told.contains("the expressions of spec.keys.exclude take more than 32 KiB together"), "{told}");
        assert!(KeyRules::parse(&nasty(2)).is_ok());
        assert!(KeyRules::parse(&keys((0..32).map(|n| format!("^[A-Z0-9_]+_{n}$")).collect())).is_ok());
        assert!(KeyRules::parse(&keys((0..32).map(|n| format!(r"(?i)^\w+_\d{{3}}{n}$")).collect())).is_ok());
        // Classes are of ASCII, all else is found as it is written.
        let told = named(&rules(&[r"^\w+ url$", "ü$"], &["й"], None, ""), &["üb url", "a-й"]).unwrap_err();
        assert_eq!(told, MappingError::Nothing.to_string());

        let long = "n".repeat(1025);
        let told = named(&KeyRules::default(), &[&long]).unwrap_err();
        assert!(told.contains("one of 1025 bytes that begins with") && told.len() < 300, "{told}");
        assert_eq!(
            named(&rules(&[], &[], Some(Rename::Camel), ""), &[&format!("a{}", "-".repeat(1023))]),
            Ok(vec!["a".into()])
        );
        let names: Vec<String> = (0..330).map(|n| format!("{n:0>100}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(named(&KeyRules::default(), &names).map(|keys| keys.len()), Ok(330));
        for rules in [rules(&["1"], &[], None, ""), rules(&[], &["1"], None, "")] {
            assert!(named(&rules, &names).unwrap_err().contains("32768 bytes together"));
            assert!(named(&rules, &names[..327]).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_key_is_dropped_silently(names in proptest::collection::btree_set(".{0,10}", 0..8), exclude in "[a-z]") {
            let rules = rules(&[], &[&exclude], Some(Rename::LowerSnake), "p.");
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let Ok(keys) = rules.names(names.iter().copied()) {
                prop_assert_eq!(keys.len(), names.len());
                for (name, key) in names.iter().zip(&keys) {
                    prop_assert_eq!(key.is_none(), name.contains(&exclude));
                }
                let taken: std::collections::BTreeSet<_> = keys.iter().flatten().collect();
                prop_assert_eq!(taken.len(), keys.iter().flatten().count());
            }
        }
    }
}
