//! What others did to a Secret of ours: which keys they changed or removed, and which they added, by the API server's record of
//! field managers (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Names, never values.

use crate::domain::content::Fingerprints;
use crate::domain::moment::back_off;
use crate::domain::observed::{Existing, FINGERPRINTS};
use std::time::Duration;

/// So many keys of others are named.
const NAMED: usize = 20;
/// Repairs that follow each other within this time are one fight with somebody.
pub const FIGHT: Duration = Duration::from_secs(600);

/// Whether every key that we wrote, and the record of them, is still ours: another manager that edits or drops one takes it from
/// our managed fields.
pub fn intact(secret: &Existing) -> bool {
    let kept = |prints: &Fingerprints| prints.keys().all(|key| secret.our_keys.contains(key));
    secret.our_annotations.contains(FINGERPRINTS) && secret.fingerprints.as_ref().is_some_and(kept)
}

/// Who changed which of our keys; `None` where all are as we wrote them.
pub fn told(secret: &Existing) -> Option<String> {
    if intact(secret) {
        return None;
    }
    let recorded = secret.fingerprints.as_ref().filter(|_| secret.our_annotations.contains(FINGERPRINTS));
    let Some(prints) = recorded else { return Some(format!("its annotation {FINGERPRINTS} was changed")) };
    let said = prints.keys().filter(|key| !secret.our_keys.contains(*key)).map(|key| match secret.others.get(key) {
        Some(manager) => format!("{key} was changed by {manager}"),
        None => match &secret.last_manager {
            Some(manager) => format!("{key} was removed, last written to by {manager}"),
            None => format!("{key} was removed"),
        },
    });
    Some(said.take(NAMED).collect::<Vec<_>>().join(", "))
}

/// Keys that others added, which are kept.
pub fn other_keys(secret: &Existing) -> Vec<String> {
    let ours = |key: &str| {
        secret.our_keys.contains(key)
            || secret.fingerprints.as_ref().is_some_and(|prints: &Fingerprints| prints.keys().any(|known| known == key))
    };
    secret.others.keys().filter(|key| !ours(key)).take(NAMED).cloned().collect()
}

/// How long after the last of so many repairs in a row the next one may come: the first at once, then 1 s, doubling to 5
/// minutes. Two who write the same key would otherwise do so for ever.
pub fn pause(repairs: u32) -> Duration {
    match repairs {
        0 => Duration::ZERO,
        n => back_off(n - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Existing {
        Existing {
            fingerprints: Fingerprints::from_annotation("A=AAAAAAAAAAAAAAAAAAAAAA,B=AAAAAAAAAAAAAAAAAAAAAA"),
            our_keys: ["A".to_owned(), "B".to_owned()].into(),
            our_annotations: [FINGERPRINTS.to_owned()].into(),
            ..Existing::default()
        }
    }

    #[test]
    fn who_changed_which_key_is_told_and_nothing_where_none_was() {
        assert_eq!(told(&secret()), None);
        let mut edited = secret();
        edited.our_keys.clear();
        edited.others.insert("A".into(), "kubectl-edit".into());
        edited.last_manager = Some("kubectl-patch".into());
        let want = "A was changed by kubectl-edit, B was removed, last written to by kubectl-patch";
        assert_eq!(told(&edited).as_deref(), Some(want));
        assert!(told(&Existing { fingerprints: None, ..secret() }).is_some());
        let rewritten = Existing { our_annotations: Default::default(), ..secret() };
        assert_eq!(told(&rewritten).as_deref(), Some("its annotation ennote.io/fingerprints was changed"));
        assert!(intact(&secret()) && !intact(&rewritten), "whoever writes the record takes it from our fields");
    }

    #[test]
    fn keys_that_others_added_are_named_and_no_others() {
        let mut more = secret();
        for key in ["A", "X"] {
            more.others.insert(key.into(), "kubectl".into());
        }
        assert_eq!(other_keys(&more), ["X"]);
    }

    #[test]
    fn a_fight_slows_down() {
        assert_eq!([0, 1, 2, 3, 9, 10, 90].map(|n| pause(n).as_secs()), [0, 1, 2, 4, 256, 300, 300]);
    }
}
