//! Names as people give them, parsed once. Pure.

/// Why a name was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not a name: {rule}")]
pub struct BadName {
    what: &'static str,
    given: String,
    rule: &'static str,
}

/// An organization, workspace or agent: also its id, so plain characters only.
///
/// # Errors
/// [`BadName`].
pub fn plain(what: &'static str, given: &str) -> Result<String, BadName> {
    let plain = given.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let starts = given.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rule = "1 to 63 letters, digits, dots, dashes and underscores, the first a letter or digit";
    if plain && starts && given.len() <= 63 {
        Ok(given.to_owned())
    } else {
        Err(BadName { what, given: given.to_owned(), rule })
    }
}

/// A Kubernetes namespace.
///
/// # Errors
/// [`BadName`].
pub fn namespace(given: &str) -> Result<String, BadName> {
    let inner = given.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let ends = !given.is_empty() && !given.starts_with('-') && !given.ends_with('-');
    let rule = "a Kubernetes namespace has 1 to 63 lower case letters, digits and dashes";
    if inner && ends && given.len() <= 63 {
        Ok(given.to_owned())
    } else {
        Err(BadName { what: "namespace", given: given.to_owned(), rule })
    }
}

/// A secret: free text, blanks allowed.
///
/// # Errors
/// [`BadName`].
pub fn secret(given: &str) -> Result<String, BadName> {
    let rule = "1 to 253 bytes, no control characters, no blank at either end";
    let good = !given.is_empty() && given.len() <= 253 && given.trim() == given && !given.chars().any(char::is_control);
    if good { Ok(given.to_owned()) } else { Err(BadName { what: "secret", given: given.to_owned(), rule }) }
}

/// A name as a shell takes it.
pub fn quoted(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/@:".contains(c));
    if plain { name.to_owned() } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_by_their_kind() {
        assert!(plain("agent", "shop-1.x_y").is_ok());
        for bad in ["", "-a", "a b", "a/b", "ü", &"a".repeat(64)] {
            assert!(plain("agent", bad).is_err(), "{bad:?}");
        }
        assert!(namespace("shop-1").is_ok());
        for bad in ["", "-a", "a-", "Shop", "a.b"] {
            assert!(namespace(bad).is_err(), "{bad:?}");
        }
        assert!(secret("payments db (ü)").is_ok());
        for bad in ["", " a", "a ", "a\nb", &"a".repeat(254)] {
            assert!(secret(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_quoted_name_is_one_word_to_a_shell() {
        assert_eq!(quoted("plain-1"), "plain-1");
        assert_eq!(quoted("payments db"), "'payments db'");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
    }
}
