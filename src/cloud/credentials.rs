//! What the agent has to show in a join, read again before each attempt: a mounted file changes in a living pod.

use crate::config::TokenText;
use crate::identity::join::Credentials;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Where credentials come from.
#[derive(Clone, Debug, Default)]
pub struct CredentialSource {
    /// From the environment: fixed for the life of the process.
    pub token: Option<TokenText>,
    /// A mounted file; wins over the environment when it holds something.
    pub token_file: Option<PathBuf>,
}

impl CredentialSource {
    /// Reads what is there now. A file that is not there yet is no credential, not an error.
    pub fn read(&self) -> Credentials {
        let of_file = self.token_file.as_ref().and_then(|path| {
            let text = Zeroizing::new(std::fs::read_to_string(path).ok()?);
            let text = text.trim();
            (!text.is_empty()).then(|| Zeroizing::new(text.to_owned()))
        });
        let of_env = || self.token.as_ref().map(|t| Zeroizing::new(t.expose().to_owned()));
        Credentials { bootstrap_token: of_file.or_else(of_env).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_and_is_read_anew_each_time() {
        let file = std::env::temp_dir().join(format!("ennote-token-{}", std::process::id()));
        let source = CredentialSource { token: Some("env".parse().unwrap()), token_file: Some(file.clone()) };
        let token = || source.read().bootstrap_token.to_string();
        assert_eq!(token(), "env");
        std::fs::write(&file, " one\n").unwrap();
        assert_eq!(token(), "one");
        std::fs::write(&file, "two").unwrap();
        assert_eq!(token(), "two");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(token(), "env");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(CredentialSource::default().read().bootstrap_token.as_str(), "");
    }
}
