//! Which keys of a secret are taken, and what they are called: `spec.keys`.

use crate::crd::{Keys, Pattern, Rename};
use crate::domain::mapping::MappingError;
use crate::domain::name::DataKey;
use regex::{Regex, RegexBuilder};
use std::collections::BTreeMap;

/// Bytes that one compiled expression may take: the schema bounds their number and length.
const MAX_COMPILED: usize = 64 * 1024;

/// A regular expression; equal where its text is.
#[derive(Clone, Debug)]
struct Expression(Regex);

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// `spec.keys`, parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyRules {
    include: Vec<Expression>,
    exclude: Vec<Expression>,
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
    pub(super) fn names<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<Option<DataKey>>, MappingError> {
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
        let found = |of: &[Expression]| of.iter().any(|expression| expression.0.is_match(name));
        (self.include.is_empty() || found(&self.include)) && !found(&self.exclude)
    }

    fn rename(&self, name: &str) -> String {
        let renamed = match self.rename {
            None => name.to_owned(),
            Some(rename) => renamed(name, rename),
        };
        format!("{}{renamed}", self.prefix)
    }
}

fn compile(field: &str, patterns: Option<&[Pattern]>) -> Result<Vec<Expression>, String> {
    let each = |Pattern(text): &Pattern| {
        let built = RegexBuilder::new(text).size_limit(MAX_COMPILED).build();
        built.map(Expression).map_err(|_| {
            format!("spec.keys.{field} holds {text:?}, which is no regular expression that the agent takes (RE2 syntax, at most 64 KiB compiled)")
        })
    };
    patterns.unwrap_or_default().iter().map(each).collect()
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
