//! Names, parsed once at the border and never checked again.

use std::fmt;

/// A key of a Secret's `data`: `[-._a-zA-Z0-9]+`, at most 253 characters, not `.` or `..`
/// (<https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data>).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKey(String);

impl DataKey {
    /// Parses a key.
    ///
    /// # Errors
    /// The text again, if Kubernetes would refuse it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 253 || text == "." || text.starts_with("..") || !text.chars().all(legal) {
            return Err(text.to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The text; safe inside a JSON string without escaping.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a Secret: a DNS subdomain (RFC 1123), at most 253 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// Parses a name.
    ///
    /// # Errors
    /// The text again, if Kubernetes would refuse it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let label = |l: &str| {
            !l.is_empty()
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if text.len() > 253 || !text.split('.').all(label) { Err(text.to_owned()) } else { Ok(Self(text.to_owned())) }
    }

    /// The text; safe inside a URL path and a JSON string without escaping.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_keys_are_those_that_kubernetes_takes() {
        for (text, ok) in [
            ("DATABASE_URL", true),
            ("config.yaml", true),
            ("-", true),
            ("a..b", true),
            ("", false),
            (".", false),
            ("..", false),
            ("..data", false),
            ("export FOO", false),
            ("ключ", false),
            (&"k".repeat(253), true),
            (&"k".repeat(254), false),
        ] {
            assert_eq!(DataKey::parse(text).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn secret_names_are_dns_subdomains() {
        for (text, ok) in [
            ("payments-db", true),
            ("a.b-c.d", true),
            ("0", true),
            ("", false),
            ("Payments", false),
            ("-a", false),
            ("a-", false),
            ("a..b", false),
            ("a/b", false),
            (&"a".repeat(254), false),
        ] {
            assert_eq!(SecretName::parse(text).is_ok(), ok, "{text:?}");
        }
    }
}
