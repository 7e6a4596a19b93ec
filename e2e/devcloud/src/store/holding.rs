//! Rows about what bindings hold, as their agents said. Fields are only added.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far something is with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not begun.
    Pending,
    /// Under way.
    Progressing,
    /// Done.
    Complete,
    /// It did not come up, or was refused.
    Failed,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// With which version.
    pub version: u64,
    /// How far.
    pub phase: Phase,
    /// Since when version and phase are these. Unix milliseconds, by the cloud's clock.
    pub since_ms: i64,
}

/// A binding and its workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Whose.
    pub agent_id: String,
    /// Of the binding.
    pub namespace: String,
    /// Of the binding.
    pub binding: String,
    /// Of the binding.
    pub binding_uid: String,
    /// Of the secret.
    pub workspace: String,
    /// Name.
    pub secret: String,
    /// The one version that is wanted; 0: the newest.
    pub pin: u64,
    /// The last known_version of its want.
    pub known: u64,
    /// The version that its Secret holds; 0: none, or it is being written anew.
    pub version: u64,
    /// Since when. Unix milliseconds.
    pub since_ms: i64,
    /// What the Secret held before, and since when: where it turns out that a version was acknowledged and not taken.
    pub before: (u64, i64),
    /// What it said of itself.
    pub own: Option<Standing>,
    /// By KIND/NAME.
    pub workloads: BTreeMap<String, Standing>,
}

/// An agent as its bindings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Presence {
    /// When it was last heard, by a minute or so. Unix milliseconds.
    pub seen_at_ms: i64,
    /// How many [`Holding`] rows it has.
    pub holdings: u64,
}

impl Holding {
    /// The want says this known_version.
    pub fn know(&mut self, known: u64, now_ms: i64) {
        if std::mem::replace(&mut self.known, known) != known && !self.not_taken(known) {
            self.hold(known, now_ms);
        }
    }

    /// The agent says where a workload stands, or with an empty name the binding. None: nowhere any more.
    pub fn say(&mut self, workload: &str, said: Option<(u64, Phase)>, now_ms: i64) {
        let stands = |old: Option<Standing>| {
            let (version, phase) = said?;
            let old = old.filter(|old| (old.version, old.phase) == (version, phase));
            Some(old.unwrap_or(Standing { version, phase, since_ms: now_ms }))
        };
        if workload.is_empty() {
            self.own = stands(self.own.take());
            self.own_changed(now_ms);
        } else if let Some(standing) = stands(self.workloads.remove(workload)) {
            self.workloads.insert(workload.to_owned(), standing);
        }
    }

    /// The version that was acknowledged, or is about to be, and that the Secret does not hold.
    pub fn refused(&self) -> Option<u64> {
        let own = self.own.as_ref().filter(|own| own.phase == Phase::Failed && own.version >= self.known);
        own.map(|own| own.version)
    }

    fn own_changed(&mut self, now_ms: i64) {
        if self.not_taken(self.known) {
            if self.version == self.known {
                (self.version, self.since_ms) = self.before;
            }
        } else {
            self.hold(self.known, now_ms);
        }
    }

    /// Whether the binding says that it looked at this version, and did not write it.
    fn not_taken(&self, version: u64) -> bool {
        version > 0 && self.own.as_ref().is_some_and(|own| own.version == version && own.phase != Phase::Complete)
    }

    fn hold(&mut self, version: u64, now_ms: i64) {
        if self.version != version {
            self.before = (self.version, self.since_ms);
            (self.version, self.since_ms) = (version, now_ms);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn holding() -> Holding {
        Holding {
            agent_id: "agt_1".into(),
            namespace: "shop".into(),
            binding: "db".into(),
            binding_uid: "uid".into(),
            workspace: "prod".into(),
            secret: "payments db".into(),
            pin: 0,
            known: 0,
            version: 0,
            since_ms: 1,
            before: (0, 1),
            own: None,
            workloads: BTreeMap::new(),
        }
    }

    #[test]
    fn what_a_want_acknowledges_is_held_since_then() {
        let mut row = holding();
        row.know(3, 10);
        row.know(3, 20);
        assert_eq!((row.version, row.since_ms), (3, 10));
        row.know(0, 30);
        assert_eq!((row.version, row.since_ms), (0, 30), "it is being written anew");
        row.know(3, 40);
        assert_eq!((row.version, row.since_ms), (3, 40));
    }

    #[test]
    fn a_version_that_was_refused_is_not_held_whichever_word_comes_first() {
        for want_first in [true, false] {
            let mut row = holding();
            row.know(3, 10);
            let failed = Some((4, Phase::Failed));
            if want_first {
                row.know(4, 20);
                row.say("", failed, 21);
            } else {
                row.say("", failed, 20);
                assert_eq!(row.refused(), Some(4));
                row.know(4, 21);
            }
            assert_eq!((row.version, row.since_ms, row.refused()), (3, 10, Some(4)), "{want_first}");
            let mut same = row.clone();
            same.say("", Some((4, Phase::Complete)), 30);
            assert_eq!((same.version, same.since_ms, same.refused()), (4, 30, None), "taken after all");
            let mut silent = row.clone();
            silent.say("", None, 30);
            assert_eq!((silent.version, silent.refused()), (4, None), "taken back");
            row.know(5, 30);
            assert_eq!((row.version, row.since_ms, row.refused()), (5, 30, None));
        }
    }

    #[test]
    fn a_version_that_was_only_looked_at_is_not_held() {
        let mut row = holding();
        for version in [4, 5] {
            row.know(version, 10);
            row.say("", Some((version, Phase::Pending)), 10);
            assert_eq!((row.version, row.refused()), (0, None));
        }
    }

    #[test]
    fn a_workloads_time_is_that_of_its_last_change_of_version_or_phase() {
        let mut row = holding();
        let web = "Deployment/web";
        row.say(web, Some((3, Phase::Progressing)), 10);
        row.say(web, Some((3, Phase::Progressing)), 20);
        assert_eq!(row.workloads[web].since_ms, 10);
        row.say(web, Some((3, Phase::Complete)), 30);
        row.say(web, Some((4, Phase::Complete)), 40);
        assert_eq!(row.workloads[web], Standing { version: 4, phase: Phase::Complete, since_ms: 40 });
        assert_eq!((row.own.clone(), row.version), (None, 0));
        row.say(web, None, 50);
        assert!(row.workloads.is_empty());
    }
}
