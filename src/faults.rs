//! What a scenario makes go wrong inside the process: what no network and no API server can bring about from outside.
//!
//! The setting exists in development builds alone (config.rs), so that a released agent has no way to any of it.

use crate::domain::secret_value::SecretData;
use std::str::FromStr;

/// As in `panic:db,linger`. Default: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// The named ones befall a binding, at the moment when its plaintext is about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The pass panics.
    Panic(String),
    /// The pass panics with a message that holds the plaintext.
    Blab(String),
    /// The pass never ends.
    Hang(String),
    /// The process stays when it has stopped, until it is killed.
    Linger,
}

impl FromStr for Faults {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one = |word: &str| match word.split_once(':') {
            Some(("panic", binding)) => Ok(Fault::Panic(binding.to_owned())),
            Some(("blab", binding)) => Ok(Fault::Blab(binding.to_owned())),
            Some(("hang", binding)) => Ok(Fault::Hang(binding.to_owned())),
            None if word == "linger" => Ok(Fault::Linger),
            _ => Err(format!("{word:?} is no fault")),
        };
        text.split(',').filter(|word| !word.is_empty()).map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl Faults {
    /// Lets go wrong what is to go wrong with this binding, with its plaintext in hand.
    #[expect(clippy::panic, reason = "what a scenario asked for, in a development build")]
    pub async fn strike(&self, binding: &str, data: Option<&SecretData>) {
        for fault in &self.0 {
            match fault {
                Fault::Panic(of) if of == binding => panic!("a scenario asked for it"),
                Fault::Blab(of) if of == binding => {
                    let values = data.into_iter().flat_map(|data| data.values());
                    let texts: Vec<String> =
                        values.map(|value| String::from_utf8_lossy(value.expose()).into_owned()).collect();
                    panic!("{texts:?}");
                }
                Fault::Hang(of) if of == binding => std::future::pending().await,
                _ => {}
            }
        }
    }

    /// Stays, if that is asked for: what is left in memory then can be looked at.
    pub fn linger(&self) {
        if self.0.contains(&Fault::Linger) {
            tracing::info!("lingering");
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_one_by_one_and_there_are_none_by_default() {
        let parsed = |text: &str| text.parse::<Faults>();
        assert_eq!(parsed(""), Ok(Faults::default()));
        assert_eq!(parsed("panic:db,linger"), Ok(Faults(vec![Fault::Panic("db".into()), Fault::Linger])));
        assert!(parsed("linger:db").is_err() && parsed("nap").is_err());
    }
}
