//! What a binding that only observes would do: a sentence that names keys, never values.

use crate::domain::content::Fingerprints;
use crate::domain::metadata::{Marks, Metadata};
use crate::domain::observed::{Existing, Observed};
use crate::domain::reason::Problem;
use std::collections::BTreeSet;

/// So many keys of a kind are named.
const NAMED: usize = 20;

/// What would be, were it written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Whether the Secret holds exactly this already.
    pub equal: bool,
    /// For people.
    pub sentence: String,
}

impl Forecast {
    /// What would come of the write of data with these fingerprints. The caller has checked ownership.
    pub fn of_write(target: &str, observed: &Observed, wanted: &Fingerprints) -> Self {
        match observed {
            Observed::Absent => {
                let keys = counted(wanted.keys().count());
                let colon = if wanted.keys().next().is_some() { ": " } else { "" };
                let names = named(wanted.keys());
                Self { equal: false, sentence: format!("Secret {target} would be created with {keys}{colon}{names}") }
            }
            Observed::Present(secret) => Self::of_patch(target, secret, wanted),
        }
    }

    /// It would not be written, for this reason.
    pub fn of_refusal(target: &str, problem: &Problem) -> Self {
        Self { equal: false, sentence: format!("Secret {target} would not be written: {problem}") }
    }

    /// And this of its metadata.
    pub fn and_metadata(self, target: &str, metadata: Option<&Metadata>) -> Self {
        let Some(metadata) = metadata else { return self };
        let keys = |marks: &Marks| named(marks.iter().map(|(key, _)| key.as_str()));
        let mut said = Vec::new();
        for (what, marks) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            if !marks.is_empty() {
                said.push(format!("{what} {}", keys(marks)));
            }
        }
        if metadata.owners.is_some() {
            said.push("its owner".to_owned());
        }
        let said = said.join("; ");
        let sentence = if self.equal {
            format!("Secret {target} would change: {said}")
        } else {
            format!("{}; and {said}", self.sentence)
        };
        Self { equal: false, sentence }
    }

    fn of_patch(target: &str, secret: &Existing, wanted: &Fingerprints) -> Self {
        let unknown = Fingerprints::default();
        let held = secret.fingerprints.as_ref().unwrap_or(&unknown);
        let ours: BTreeSet<&str> = held.keys().chain(secret.our_keys.iter().map(String::as_str)).collect();
        // Edited or taken away by someone: then our field manager does not own it any more.
        let kept = |key: &str| secret.our_keys.contains(key) && held.agrees(wanted, key);
        let groups = [
            (named(wanted.keys().filter(|key| ours.contains(key) && !kept(key))), "changed"),
            (named(wanted.keys().filter(|key| !ours.contains(key))), "added"),
            (named(ours.iter().copied().filter(|key| !wanted.has(key))), "removed"),
        ];
        let said: Vec<String> = groups
            .iter()
            .filter(|(names, _)| !names.is_empty())
            .map(|(names, what)| format!("{names} {what}"))
            .collect();
        if said.is_empty() && secret.fingerprints.is_some() {
            return Self { equal: true, sentence: format!("nothing would change in Secret {target}") };
        }
        let said = if said.is_empty() { "its annotations are written anew".to_owned() } else { said.join("; ") };
        Self { equal: false, sentence: format!("Secret {target} would change: {said}") }
    }
}

fn counted(keys: usize) -> String {
    if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") }
}

fn named<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let keys: Vec<&str> = keys.collect();
    let more = keys.len().saturating_sub(NAMED);
    let mut text = keys.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_would_change_is_told_too() {
        let equal = || Forecast { equal: true, sentence: "nothing".into() };
        assert_eq!(equal().and_metadata("db", None), equal());
        let labels = vec![("team".to_owned(), Some("x".to_owned()))];
        let metadata = Metadata { labels, owners: Some(vec![]), ..Metadata::default() };
        let told = equal().and_metadata("db", Some(&metadata));
        assert_eq!(told.sentence, "Secret db would change: labels team; its owner");
        let more = Forecast { equal: false, sentence: "Secret db would change: A added".into() };
        let told = more.and_metadata("db", Some(&metadata));
        assert_eq!(told.sentence, "Secret db would change: A added; and labels team; its owner");
        assert!(!told.equal);
    }
    use crate::domain::content::StampKey;
    use crate::domain::name::DataKey;
    use crate::domain::reason::Reason;
    use crate::domain::secret_value::SecretValue;

    fn prints(pairs: &[(&str, &str)]) -> Fingerprints {
        let data =
            pairs.iter().map(|(k, v)| (DataKey::parse(k).unwrap(), SecretValue::copy_of(v.as_bytes()))).collect();
        Fingerprints::of(&StampKey::new(&[7; 32]), &data)
    }

    fn secret(pairs: &[(&str, &str)], ours: &[&str]) -> Observed {
        Observed::Present(Box::new(Existing {
            fingerprints: Some(prints(pairs)),
            our_keys: ours.iter().map(|key| (*key).to_owned()).collect(),
            ..Existing::default()
        }))
    }

    #[test]
    fn the_sentence_names_what_would_change_and_no_value() {
        let wanted = prints(&[("A", "secret-1"), ("B", "secret-2")]);
        let rows = [
            (Observed::Absent, "Secret db would be created with 2 keys: A, B"),
            (secret(&[("A", "secret-1"), ("B", "secret-2")], &["A", "B"]), "nothing would change in Secret db"),
            (secret(&[("A", "old"), ("C", "x")], &["A", "C"]), "Secret db would change: A changed; B added; C removed"),
            // Drift: someone edited B.
            (secret(&[("A", "secret-1"), ("B", "secret-2")], &["A"]), "Secret db would change: B changed"),
            (
                Observed::Present(Box::new(Existing {
                    our_keys: ["A", "B"].map(str::to_owned).into(),
                    ..Existing::default()
                })),
                "Secret db would change: A, B changed",
            ),
        ];
        for (observed, sentence) in rows {
            let forecast = Forecast::of_write("db", &observed, &wanted);
            assert_eq!(forecast.sentence, sentence);
            assert_eq!(forecast.equal, sentence.starts_with("nothing"));
        }
        let none = Forecast::of_write("db", &Observed::Absent, &Fingerprints::default());
        assert_eq!(none.sentence, "Secret db would be created with 0 keys");
    }

    #[test]
    fn a_refusal_is_quoted_and_a_long_list_is_cut() {
        let refused = Forecast::of_refusal("db", &Problem::new(Reason::Collision, "held by helm"));
        assert_eq!(refused.sentence, "Secret db would not be written: Collision: held by helm");
        let keys: Vec<String> = (10..40).map(|n| format!("K{n}")).collect();
        let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
        let sentence = Forecast::of_write("db", &Observed::Absent, &prints(&pairs)).sentence;
        assert!(sentence.ends_with("K28, K29 and 10 more") && sentence.contains("with 30 keys"), "{sentence}");
    }
}
