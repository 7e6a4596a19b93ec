//! What is remembered per binding, as in `status`: baselines (the memory), rollouts (the display), and what the decisions of
//! persons and failures leave behind.

use crate::crd::{
    EnnoteSecretBindingStatus, HeldContent, Hold, KeysChanged, LastHandled, RolloutMemory, RolloutPhase, RolloutStatus,
    UnderWay,
};
use crate::domain::content::Content;
use crate::rollout::cause::Cause;
use crate::rollout::verdict;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// `status.rollouts` holds at most this many.
const SHOWN: usize = 20;
/// `status.baselines` holds at most this many.
const REMEMBERED: usize = 2_000;
/// Contents since which changed keys are kept; a workload that runs an older one restarts for any key.
const CHANGES: usize = 16;
/// Keys that are kept per content; more count as all.
const CHANGED_KEYS: usize = 200;

/// Why a failed rollout is not answered by the version before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRevert {
    /// The same restart carried the change of another binding, so either may be to blame.
    Ambiguous,
    /// No version is known with which all was well.
    NothingBefore,
    /// It has been done, and did not help.
    DoneAlready,
    /// The spec names the version itself.
    Pinned,
}

/// The workload controller's part of one binding's status.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Ledger {
    baselines: BTreeMap<String, Content>,
    rollouts: BTreeMap<String, RolloutStatus>,
    memory: RolloutMemory,
    restart_now: Option<String>,
    resume: Option<String>,
    /// What keeps the binding as a whole from restarting anything: reason and message.
    obstacle: Option<(String, String)>,
}

impl Ledger {
    /// What was persisted.
    pub fn load(status: &EnnoteSecretBindingStatus) -> Self {
        let baselines = status.baselines.iter().flatten();
        let mut memory = status.rollout.clone().unwrap_or_default();
        let hidden: Vec<RolloutStatus> = std::mem::take(&mut memory.under_way).iter().filter_map(hidden).collect();
        let rollouts = status.rollouts.iter().flatten().chain(&hidden);
        let handled = status.last_handled.clone().unwrap_or_default();
        Self {
            baselines: baselines.map(|(k, c)| (k.clone(), Content::from_text(c))).collect(),
            rollouts: rollouts.map(|r| (key(r), r.clone())).collect(),
            memory,
            restart_now: handled.restart_now,
            resume: handled.resume,
            obstacle: verdict::obstacle(status),
        }
    }

    /// What a workload runs.
    pub fn baseline(&self, workload: &str) -> Option<&Content> {
        self.baselines.get(workload)
    }

    /// The last restart of a workload.
    pub fn rollout(&self, workload: &str) -> Option<&RolloutStatus> {
        self.rollouts.get(workload)
    }

    /// All of them, by KIND/NAME.
    pub fn rollouts(&self) -> &BTreeMap<String, RolloutStatus> {
        &self.rollouts
    }

    /// Records what a workload runs. Full means not recorded, so not restarted either: said by the caller.
    pub fn record(&mut self, workload: &str, content: &Content) -> bool {
        if self.baselines.len() >= REMEMBERED && !self.baselines.contains_key(workload) {
            return false;
        }
        self.baselines.insert(workload.to_owned(), content.clone());
        if !self.memory.changes.is_empty() {
            let run: BTreeSet<&str> = self.baselines.values().map(Content::as_str).collect();
            self.memory.changes.retain(|change| run.contains(change.from.as_str()));
        }
        true
    }

    /// Records where a restart stands.
    pub fn set_rollout(&mut self, rollout: RolloutStatus) {
        self.rollouts.insert(key(&rollout), rollout);
    }

    /// Says more of a restart than its progress does.
    pub fn explain(&mut self, workload: &str, cause: Cause, message: &str) {
        if let Some(rollout) = self.rollouts.get_mut(workload) {
            rollout.reason = Some(cause.to_string());
            rollout.message = format!("{}; {message}", rollout.message);
        }
    }

    /// There is nothing to say of a workload any more.
    pub fn drop_rollout(&mut self, workload: &str) {
        self.rollouts.remove(workload);
    }

    /// Forgets a workload that is gone or no longer opted in.
    pub fn forget(&mut self, workload: &str) {
        self.baselines.remove(workload);
        self.rollouts.remove(workload);
    }

    /// Workloads that are remembered.
    pub fn workloads(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.baselines.keys().chain(self.rollouts.keys()).collect();
        names.into_iter().cloned().collect()
    }

    /// The workloads that wait for a restart.
    pub fn pending(&self) -> impl Iterator<Item = &String> {
        self.rollouts.iter().filter(|(_, r)| r.phase == RolloutPhase::Pending).map(|(name, _)| name)
    }

    /// Whether a restart of it has begun and not ended well: also while it waits for the next one, or after it failed.
    pub fn is_under_way(&self, workload: &str) -> bool {
        self.rollout(workload).is_some_and(unfinished)
    }

    /// How many other workloads are restarting. None where this one is, too: to supersede its restart takes nobody's turn.
    pub fn running_besides(&self, workload: &str) -> usize {
        if self.is_under_way(workload) {
            return 0;
        }
        self.rollouts.values().filter(|r| r.phase != RolloutPhase::Failed && unfinished(r)).count()
    }

    /// Whether a workload runs this content and its restart for it is not under way, nor has failed.
    pub fn is_up(&self, workload: &str, content: &Content) -> bool {
        let over = |r: &RolloutStatus| {
            matches!(r.phase, RolloutPhase::Complete | RolloutPhase::Skipped | RolloutPhase::Reverted)
        };
        self.baseline(workload) == Some(content) && self.rollout(workload).is_none_or(over)
    }

    /// The workloads whose restart with this content has failed.
    pub fn failed_now(&self, content: &Content) -> Vec<&str> {
        let failed = self
            .rollouts
            .iter()
            .filter(|(name, r)| r.phase == RolloutPhase::Failed && self.baselines.get(*name) == Some(content));
        failed.map(|(name, _)| name.as_str()).collect()
    }

    /// Those of them that nobody has set aside.
    pub fn failed_with(&self, content: &Content) -> Vec<&str> {
        if self.is_resumed(content) { vec![] } else { self.failed_now(content) }
    }

    /// Those that a person has set aside.
    pub fn set_aside(&self, content: &Content) -> Vec<&str> {
        if self.is_resumed(content) { self.failed_now(content) } else { vec![] }
    }

    fn is_resumed(&self, content: &Content) -> bool {
        self.memory.resumed.as_deref() == Some(content.as_str())
    }

    /// Whether a person has released this content.
    pub fn has_released(&self, content: &Content) -> bool {
        self.memory.released.as_deref() == Some(content.as_str())
    }

    /// A person asks by annotation; each value works once. True if something moved.
    pub fn answer(&mut self, restart_now: Option<&String>, resume: Option<&String>, content: Option<&Content>) -> bool {
        let mut moved = false;
        if let Some(asked) = restart_now.filter(|asked| self.restart_now.as_ref() != Some(asked)) {
            self.restart_now = Some(asked.clone());
            self.memory.released = content.map(ToString::to_string);
            moved = true;
        }
        if let Some(asked) = resume.filter(|asked| self.resume.as_ref() != Some(asked)) {
            self.resume = Some(asked.clone());
            self.memory.resumed = content.map(ToString::to_string);
            self.memory.hold = None;
            moved = true;
        }
        moved
    }

    /// The content is about to be another secret's: versions of the one before mean nothing any more.
    pub fn another_source(&mut self) {
        self.memory.last_good = None;
        self.memory.hold = None;
    }

    /// What keeps the binding as a whole from restarting anything, as reason and message.
    pub fn set_obstacle(&mut self, obstacle: Option<(String, String)>) {
        self.obstacle = obstacle;
    }

    /// The content is about to move from one version's to another's.
    pub fn moving(&mut self, (version, from): (i64, &Content), to: i64) {
        let all_well = self
            .rollouts
            .values()
            .all(|r| matches!(r.phase, RolloutPhase::Complete | RolloutPhase::Skipped | RolloutPhase::Reverted))
            && self.baselines.values().all(|baseline| baseline == from);
        if all_well {
            self.memory.last_good = Some(HeldContent { version, content: from.to_string() });
        }
        if self.memory.hold.as_ref().is_some_and(|hold| to > hold.failed) {
            self.memory.hold = None;
        }
    }

    /// Which keys change with it. `None`: unknown, so all.
    pub fn keys_change(&mut self, from: &Content, to: &Content, keys: Option<&BTreeSet<String>>) {
        let changes = &mut self.memory.changes;
        changes.retain(|change| change.from != to.as_str());
        let Some(keys) = keys else {
            changes.clear();
            return;
        };
        if !changes.iter().any(|change| change.from == from.as_str()) {
            changes.push(KeysChanged { from: from.to_string(), keys: BTreeSet::new() });
        }
        for change in changes.iter_mut() {
            change.keys.extend(keys.iter().cloned());
        }
        changes.retain(|change| change.keys.len() <= CHANGED_KEYS);
        let surplus = changes.len().saturating_sub(CHANGES);
        changes.drain(..surplus);
    }

    /// The keys that differ, or have, since a workload that runs this content was started. `None`: unknown, so any may.
    pub fn changed_since(&self, baseline: &Content) -> Option<&BTreeSet<String>> {
        self.memory.changes.iter().find(|change| change.from == baseline.as_str()).map(|change| &change.keys)
    }

    /// The version that is held in place of a newer one.
    pub fn hold(&self) -> Option<&Hold> {
        self.memory.hold.as_ref().filter(|hold| !hold.unavailable)
    }

    /// Every hold, also one that cannot be had.
    pub fn any_hold(&self) -> Option<&Hold> {
        self.memory.hold.as_ref()
    }

    /// Ends the hold: a person has pinned a version, for one.
    pub fn end_hold(&mut self) {
        self.memory.hold = None;
    }

    /// The cloud no longer has the version that was to be held.
    pub fn hold_is_unavailable(&mut self) {
        self.memory.hold.iter_mut().for_each(|hold| hold.unavailable = true);
    }

    /// A rollout of `failed` has failed: from now on the version before is held. Gives that version.
    ///
    /// # Errors
    /// Why not.
    pub fn begin_hold(&mut self, workload: &str, failed: i64, now: Timestamp) -> Result<i64, NoRevert> {
        if self.memory.hold.is_some() {
            return Err(NoRevert::DoneAlready);
        }
        let by_others = Cause::RestartedByOthers.to_string();
        let ambiguous = |r: &RolloutStatus| !r.also_for.is_empty() || r.reason.as_ref() == Some(&by_others);
        if self.rollout(workload).is_some_and(ambiguous) {
            return Err(NoRevert::Ambiguous);
        }
        let runs = self.baseline(workload).map(Content::as_str);
        let good = self.memory.last_good.as_ref();
        let good = good.filter(|good| Some(good.content.as_str()) != runs && good.version != failed);
        let version = good.map(|good| good.version).ok_or(NoRevert::NothingBefore)?;
        self.memory.hold = Some(Hold { version, failed, since: Time(now), unavailable: false });
        Ok(version)
    }

    /// The workload controller's part of the status: rollouts failed first, then under way, then newest; the condition RolledOut.
    pub fn to_status(
        &self,
        old: &EnnoteSecretBindingStatus,
        generation: i64,
        now: Timestamp,
    ) -> EnnoteSecretBindingStatus {
        let mut rollouts: Vec<RolloutStatus> = self.rollouts.values().cloned().collect();
        let rank = |r: &RolloutStatus| match r.phase {
            RolloutPhase::Failed => 0,
            RolloutPhase::Progressing | RolloutPhase::Pending => 1,
            _ => 2,
        };
        rollouts.sort_by(|a, b| {
            rank(a)
                .cmp(&rank(b))
                .then(b.started_at.cmp(&a.started_at))
                .then(a.name.cmp(&b.name))
                .then(a.kind.cmp(&b.kind))
        });
        let hidden = rollouts.split_off(rollouts.len().min(SHOWN));
        let mut memory = self.memory.clone();
        memory.under_way = hidden
            .into_iter()
            .filter(unfinished)
            .filter_map(|r| Some(UnderWay { workload: key(&r), started_at: r.started_at?, version: r.version }))
            .collect();
        let handled = (self.restart_now.is_some() || self.resume.is_some()).then(|| LastHandled {
            restart_now: self.restart_now.clone(),
            resume: self.resume.clone(),
            ..LastHandled::default()
        });
        EnnoteSecretBindingStatus {
            conditions: verdict::condition(&self.facts(), old, generation, now),
            rollouts: (!rollouts.is_empty()).then_some(rollouts),
            baselines: (!self.baselines.is_empty())
                .then(|| self.baselines.iter().map(|(k, c)| (k.clone(), c.to_string())).collect()),
            rollout: (memory != RolloutMemory::default()).then_some(memory),
            last_handled: handled,
            ..EnnoteSecretBindingStatus::default()
        }
    }

    fn facts(&self) -> verdict::Facts<'_> {
        verdict::Facts { rollouts: &self.rollouts, hold: self.memory.hold.as_ref(), obstacle: self.obstacle.as_ref() }
    }
}

fn unfinished(rollout: &RolloutStatus) -> bool {
    match rollout.phase {
        RolloutPhase::Progressing | RolloutPhase::Failed => true,
        RolloutPhase::Pending => rollout.started_at.is_some() && rollout.finished_at.is_none(),
        RolloutPhase::Complete | RolloutPhase::Skipped | RolloutPhase::Reverted => false,
    }
}

/// One that the display has no room for, as it is read back: where it stands is seen on the workload.
fn hidden(of: &UnderWay) -> Option<RolloutStatus> {
    let (kind, name) = of.workload.split_once('/')?;
    Some(RolloutStatus {
        kind: kind.to_owned(),
        name: name.to_owned(),
        version: of.version,
        phase: RolloutPhase::Progressing,
        ready: 0,
        desired: 0,
        started_at: Some(of.started_at.clone()),
        finished_at: None,
        reason: None,
        message: String::new(),
        also_for: vec![],
    })
}

fn key(rollout: &RolloutStatus) -> String {
    format!("{}/{}", rollout.kind, rollout.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(name: &str, phase: RolloutPhase, second: i64) -> RolloutStatus {
        RolloutStatus {
            kind: "Deployment".into(),
            name: name.into(),
            version: 1,
            phase,
            ready: 0,
            desired: 1,
            started_at: Some(Time(Timestamp::from_second(second).unwrap())),
            finished_at: None,
            reason: None,
            message: String::new(),
            also_for: vec![],
        }
    }

    fn status(of: &[(&str, RolloutPhase, i64)]) -> EnnoteSecretBindingStatus {
        let mut ledger = Ledger::default();
        of.iter().for_each(|(n, p, s)| ledger.set_rollout(rollout(n, *p, *s)));
        ledger.to_status(&Default::default(), 1, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn failed_first_then_newest_and_never_more_than_twenty() {
        let many: Vec<(String, RolloutPhase, i64)> = (0..30)
            .map(|i| (format!("w{i:02}"), if i == 3 { RolloutPhase::Failed } else { RolloutPhase::Complete }, i))
            .collect();
        let many: Vec<(&str, RolloutPhase, i64)> = many.iter().map(|(n, p, s)| (n.as_str(), *p, *s)).collect();
        let shown = status(&many).rollouts.unwrap();
        assert_eq!(shown.len(), 20);
        assert_eq!((shown[0].name.as_str(), shown[1].name.as_str(), shown[2].name.as_str()), ("w03", "w29", "w28"));
    }

    #[test]
    fn restarts_that_are_not_over_come_back_also_where_the_display_has_no_room_for_them() {
        let mut ledger = Ledger::default();
        for i in 0..30 {
            ledger.record(&format!("Deployment/w{i:02}"), &content("c1"));
            ledger.set_rollout(rollout(&format!("w{i:02}"), RolloutPhase::Progressing, i));
        }
        ledger.set_rollout(rollout("done", RolloutPhase::Complete, 99));
        let status = ledger.to_status(&Default::default(), 1, Timestamp::UNIX_EPOCH);
        assert_eq!(status.rollouts.as_ref().unwrap().len(), 20);
        assert_eq!(status.rollout.as_ref().unwrap().under_way.len(), 10);
        let back = Ledger::load(&status);
        assert_eq!(back.running_besides("Deployment/other"), 30);
        let hidden = |ledger: &Ledger| ledger.rollout("Deployment/w00").cloned().unwrap().started_at;
        assert_eq!(hidden(&back), hidden(&ledger));
        let again = back.to_status(&status, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(again.rollout, status.rollout, "and nothing is written anew for it");
    }

    #[test]
    fn a_restart_that_waits_for_the_next_one_keeps_its_turn_and_nobody_waits_for_two_such() {
        let mut ledger = Ledger::default();
        ledger.set_rollout(rollout("a", RolloutPhase::Pending, 1));
        ledger.set_rollout(rollout("b", RolloutPhase::Progressing, 1));
        let over =
            RolloutStatus { finished_at: Some(Time(Timestamp::UNIX_EPOCH)), ..rollout("c", RolloutPhase::Pending, 1) };
        ledger.set_rollout(over);
        ledger.set_rollout(rollout("d", RolloutPhase::Complete, 1));
        assert_eq!(ledger.running_besides("Deployment/d"), 2);
        assert_eq!((ledger.running_besides("Deployment/a"), ledger.running_besides("Deployment/c")), (0, 2));
    }

    #[test]
    fn what_another_secret_was_or_somebody_else_did_is_not_taken_back() {
        let mut ledger = Ledger::default();
        ledger.record("Deployment/web", &content("c1"));
        ledger.moving((3, &content("c1")), 4);
        ledger.another_source();
        ledger.record("Deployment/web", &content("c2"));
        ledger.set_rollout(rollout("web", RolloutPhase::Failed, 5));
        assert_eq!(ledger.begin_hold("Deployment/web", 5, Timestamp::UNIX_EPOCH), Err(NoRevert::NothingBefore));
        let mut ledger = Ledger::default();
        ledger.record("Deployment/web", &content("c1"));
        ledger.moving((2, &content("c1")), 2);
        ledger.record("Deployment/web", &content("c2"));
        ledger.set_rollout(rollout("web", RolloutPhase::Failed, 5));
        let held = ledger.begin_hold("Deployment/web", 2, Timestamp::UNIX_EPOCH);
        assert_eq!(held, Err(NoRevert::NothingBefore), "an edit of the spec moved the content of the same version");
        ledger.explain("Deployment/web", Cause::RestartedByOthers, "a new template");
        let held = ledger.begin_hold("Deployment/web", 3, Timestamp::UNIX_EPOCH);
        assert_eq!(held, Err(NoRevert::Ambiguous), "it may be the template");
    }

    #[test]
    fn what_is_persisted_comes_back() {
        let mut ledger = Ledger::default();
        assert!(ledger.record("Deployment/web", &Content::from_text("c1")));
        ledger.set_rollout(rollout("web", RolloutPhase::Complete, 5));
        ledger.answer(Some(&"1".into()), Some(&"2".into()), Some(&Content::from_text("c1")));
        ledger.moving((1, &Content::from_text("c1")), 2);
        ledger.keys_change(
            &Content::from_text("c1"),
            &Content::from_text("c2"),
            Some(&BTreeSet::from(["k".to_owned()])),
        );
        let back = Ledger::load(&ledger.to_status(&Default::default(), 1, Timestamp::UNIX_EPOCH));
        assert_eq!(back, ledger);
        assert_eq!(back.workloads(), ["Deployment/web"]);
        ledger.forget("Deployment/web");
        assert!(ledger.workloads().is_empty());
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut ledger = Ledger::default();
        for i in 0..REMEMBERED {
            assert!(ledger.record(&format!("Deployment/{i}"), &Content::from_text("c")));
        }
        assert!(!ledger.record("Deployment/more", &Content::from_text("c")));
        assert!(ledger.record("Deployment/1", &Content::from_text("d")), "the known ones still move");
    }

    fn content(text: &str) -> Content {
        Content::from_text(text)
    }

    #[test]
    fn what_persons_ask_for_works_once() {
        let mut ledger = Ledger::default();
        let (one, two, c) = ("1".to_owned(), "2".to_owned(), content("c1"));
        assert!(!ledger.answer(None, None, Some(&c)) && !ledger.has_released(&c));
        assert!(ledger.answer(Some(&one), None, Some(&c)) && ledger.has_released(&c));
        assert!(!ledger.answer(Some(&one), None, Some(&content("c2"))), "the same value again");
        assert!(!ledger.has_released(&content("c2")));
        assert!(ledger.answer(Some(&two), None, Some(&content("c2"))) && ledger.has_released(&content("c2")));
    }

    #[test]
    fn a_failure_counts_for_its_content_until_a_person_resumes() {
        let mut ledger = Ledger::default();
        ledger.record("Deployment/web", &content("bad"));
        ledger.set_rollout(rollout("web", RolloutPhase::Failed, 5));
        assert_eq!(ledger.failed_with(&content("bad")), ["Deployment/web"]);
        assert!(ledger.failed_with(&content("new")).is_empty(), "new content clears it");
        ledger.answer(None, Some(&"1".to_owned()), Some(&content("bad")));
        assert!(ledger.failed_with(&content("bad")).is_empty());
        assert!(!ledger.is_up("Deployment/web", &content("bad")), "resumed is not mended");
    }

    #[test]
    fn the_version_before_is_the_last_with_which_all_was_well() {
        let mut ledger = Ledger::default();
        ledger.record("Deployment/web", &content("c1"));
        ledger.moving((1, &content("c1")), 2);
        // Version 2 came and nothing ran it before 3 was there: it has proved nothing.
        ledger.moving((2, &content("c2")), 3);
        ledger.record("Deployment/web", &content("c3"));
        ledger.set_rollout(rollout("web", RolloutPhase::Failed, 5));
        assert_eq!(ledger.begin_hold("Deployment/web", 3, Timestamp::UNIX_EPOCH), Ok(1));
        assert_eq!(ledger.begin_hold("Deployment/web", 3, Timestamp::UNIX_EPOCH), Err(NoRevert::DoneAlready));
        ledger.moving((3, &content("c3")), 1);
        assert!(ledger.hold().is_some(), "the version that is held does not end it");
        ledger.moving((1, &content("c1")), 4);
        assert!(ledger.hold().is_none(), "a newer one does");
    }

    #[test]
    fn where_two_moved_or_nothing_was_before_nothing_is_reverted() {
        let mut ledger = Ledger::default();
        ledger.record("Deployment/web", &content("c1"));
        ledger.set_rollout(rollout("web", RolloutPhase::Failed, 5));
        assert_eq!(ledger.begin_hold("Deployment/web", 1, Timestamp::UNIX_EPOCH), Err(NoRevert::NothingBefore));
        ledger.set_rollout(RolloutStatus { also_for: vec!["other".into()], ..rollout("web", RolloutPhase::Failed, 5) });
        assert_eq!(ledger.begin_hold("Deployment/web", 1, Timestamp::UNIX_EPOCH), Err(NoRevert::Ambiguous));
    }

    #[test]
    fn changed_keys_add_up_until_nothing_runs_the_old_content() {
        let keys = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let mut ledger = Ledger::default();
        ledger.record("Deployment/a", &content("c1"));
        ledger.record("Deployment/b", &content("c1"));
        ledger.keys_change(&content("c1"), &content("c2"), Some(&keys(&["x"])));
        ledger.record("Deployment/b", &content("c2"));
        ledger.keys_change(&content("c2"), &content("c3"), Some(&keys(&["y"])));
        assert_eq!(ledger.changed_since(&content("c1")), Some(&keys(&["x", "y"])));
        assert_eq!(ledger.changed_since(&content("c2")), Some(&keys(&["y"])));
        assert_eq!(ledger.changed_since(&content("c0")), None, "unknown is any");
        ledger.record("Deployment/a", &content("c3"));
        ledger.record("Deployment/b", &content("c3"));
        assert_eq!(ledger.changed_since(&content("c1")), None, "nothing runs it");
        ledger.record("Deployment/a", &content("c4"));
        ledger.keys_change(&content("c3"), &content("c4"), Some(&keys(&["z"])));
        ledger.keys_change(&content("c4"), &content("c5"), None);
        assert_eq!(ledger.changed_since(&content("c3")), None, "what is not known is not guessed");
    }
}
