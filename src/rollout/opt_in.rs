//! Which workloads restart for which bindings: by our own word on the workload first, then by what the settings allow.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Opt-in annotation on the workload: `auto`, binding names joined by commas, or `never`.
pub const RESTART: &str = "ennote.io/restart";
/// Annotation on the workload: a whole number; lower ones restart first.
pub const WAVE: &str = "ennote.io/restart-wave";

type Annotations = BTreeMap<String, String>;

/// What a workload says itself of its restarts.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum OptIn {
    /// Nothing: the settings decide.
    Unsaid,
    /// `never` (or `false`): for no binding, whatever the settings are.
    Never,
    /// For the bindings whose target it reads.
    Auto,
    /// For these bindings and no other, whatever it reads.
    Bindings(BTreeSet<String>),
}

impl OptIn {
    pub(super) fn parse(annotation: Option<&String>) -> Self {
        match annotation.map(|text| text.trim()) {
            None | Some("") => Self::Unsaid,
            Some("auto") => Self::Auto,
            Some("never" | "false") => Self::Never,
            Some(list) => Self::Bindings(names(list)),
        }
    }
}

/// What counts for one binding beside the workload's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OptInRules {
    /// The binding restarts all that reads its target, and the setting allows it.
    pub consumers: bool,
    /// The setting has Reloader's annotations count as ours.
    pub reloader: bool,
}

/// What a workload says in Reloader's annotations (<https://docs.stakater.com/reloader>), as far as it is about Secrets.
///
/// Names only: Reloader reads its lists as regular expressions, and what is one matches nothing here ([`Reload::patterns`]).
/// `search` is not read: it asks for an annotation on the Secret.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Reload {
    /// For every Secret that it reads.
    pub auto: bool,
    /// For these, whether it reads them or not.
    pub secrets: BTreeSet<String>,
    /// For none of these.
    pub except: BTreeSet<String>,
}

impl Reload {
    const AUTO: [&str; 2] = ["reloader.stakater.com/auto", "secret.reloader.stakater.com/auto"];
    const SECRETS: &str = "secret.reloader.stakater.com/reload";
    const EXCEPT: &str = "secrets.exclude.reloader.stakater.com/reload";
    const SEARCH: &str = "reloader.stakater.com/search";

    /// Of the workload's annotations; of its pod template's where the workload has none of Reloader's, as Reloader does it.
    pub(super) fn of(workload: Option<&Annotations>, template: Option<&Annotations>) -> Self {
        let says = |annotations: &&Annotations| {
            let asks = [Self::SECRETS, Self::SEARCH].into_iter().chain(Self::AUTO);
            asks.into_iter().any(|name| annotations.contains_key(name))
        };
        let Some(annotations) = workload.filter(says).or(template) else { return Self::default() };
        let list = |name: &str| annotations.get(name).map(|text| names(text)).unwrap_or_default();
        Self {
            auto: Self::AUTO.iter().any(|name| annotations.get(*name).is_some_and(|text| truth(text))),
            secrets: list(Self::SECRETS),
            except: list(Self::EXCEPT),
        }
    }

    /// Whether a change of this Secret is one that it restarts for.
    pub fn wants(&self, secret: &str, reads: bool) -> bool {
        !self.except.contains(secret) && ((self.auto && reads) || self.secrets.contains(secret))
    }

    /// What of the lists can be no Secret's name, so that the user meant a regular expression.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        self.secrets.union(&self.except).map(String::as_str).filter(move |name| !name.chars().all(in_name))
    }
}

/// What Go takes for true.
fn truth(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn names(list: &str) -> BTreeSet<String> {
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// The wave, and what to say where the annotation is no whole number: then it is wave 0, as without one.
pub(super) fn wave(annotation: Option<&String>) -> (i32, Option<String>) {
    let Some(text) = annotation.map(|text| text.trim()).filter(|text| !text.is_empty()) else { return (0, None) };
    match text.parse() {
        Ok(wave) => (wave, None),
        Err(_) => {
            let shown: String = text.chars().take(20).collect();
            (0, Some(format!("{WAVE} is {shown:?}, which is no whole number; taken as 0")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(of: &[(&str, &str)]) -> Annotations {
        of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_wave_that_is_no_number_is_wave_0_and_said() {
        let of = |text: &str| wave(Some(&text.to_owned()));
        assert_eq!((wave(None), of(""), of(" 2 "), of("-1")), ((0, None), (0, None), (2, None), (-1, None)));
        for odd in ["first", "1.5", "99999999999"] {
            let (wave, said) = of(odd);
            assert!(wave == 0 && said.unwrap().contains(odd), "{odd}");
        }
        assert!(of(&"x".repeat(500)).1.unwrap().len() < 120);
    }

    #[test]
    fn what_reloader_is_told_is_understood() {
        let of = |own: &[(&str, &str)], template: &[(&str, &str)]| {
            Reload::of(Some(&annotations(own)), Some(&annotations(template)))
        };
        let auto = of(&[("reloader.stakater.com/auto", "true")], &[]);
        assert!(auto.wants("db", true) && !auto.wants("db", false));
        assert!(of(&[("secret.reloader.stakater.com/auto", "true")], &[]).auto);
        let listed = of(&[("secret.reloader.stakater.com/reload", "db, tls")], &[]);
        assert!(listed.wants("tls", false) && !listed.wants("other", true));
        for off in [
            ("reloader.stakater.com/auto", "false"),
            ("configmap.reloader.stakater.com/auto", "true"),
            ("configmap.reloader.stakater.com/reload", "db"),
            ("reloader.stakater.com/search", "true"),
        ] {
            assert!(!of(&[off], &[]).wants("db", true), "{off:?}");
        }
        let but =
            of(&[("reloader.stakater.com/auto", "true"), ("secrets.exclude.reloader.stakater.com/reload", "db")], &[]);
        assert!(!but.wants("db", true) && but.wants("tls", true));
        assert_eq!(Reload::of(None, None), Reload::default());
    }

    #[test]
    fn the_pod_template_counts_where_the_workload_says_nothing() {
        let auto = [("reloader.stakater.com/auto", "true")];
        let of = |own: &[(&str, &str)], template: &[(&str, &str)]| {
            Reload::of(Some(&annotations(own)), Some(&annotations(template)))
        };
        assert!(of(&[("team", "shop")], &auto).auto);
        assert!(Reload::of(None, Some(&annotations(&auto))).auto);
        assert!(!of(&[("reloader.stakater.com/auto", "false")], &auto).auto, "the workload's own word wins");
        assert!(!of(&[("secret.reloader.stakater.com/reload", "db")], &auto).auto);
    }

    #[test]
    fn a_regular_expression_matches_nothing_and_is_known_as_one() {
        let text = "db-.*,tls, cache.v2".to_owned();
        let reload = Reload::of(Some(&BTreeMap::from([(Reload::SECRETS.to_owned(), text)])), None);
        assert!(!reload.wants("db-1", true));
        assert_eq!(reload.patterns().collect::<Vec<_>>(), ["db-.*"]);
    }
}
