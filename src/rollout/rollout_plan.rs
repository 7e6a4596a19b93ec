//! Restart now, later or never, each with a reason. One decision per workload, over all the bindings it reads.
//!
//! Level-triggered by content: a restart is due when the content that a workload runs (its baseline) differs from what the
//! bindings hold, never by the order of versions. So opt-in, creation, agent start and drift repair restart nothing, and a
//! change that came while the agent was down still does.
//!
//! Of several bindings whose content moved, all have to agree: the longest times, all windows open, one that is Manual makes
//! the restart manual. One that is Disabled never begins a restart; one that another binding begins carries its content too.

use crate::crd::RolloutPolicy;
use crate::domain::content::{Content, stamp};
use crate::rollout::cause::{Cause, Why};
use crate::rollout::policy::{Policy, QUIET};
use crate::rollout::progress::is_rolling;
use crate::rollout::windows::{Opening, opening};
use crate::rollout::workload::{Kind, Stamp, Workload};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// A restartAt that is ahead by less has been written by this agent under another clock.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(60);
/// A quiet period that new changes prolong ends after so many of it.
const PROLONGED: i32 = 10;

/// One binding that the workload restarts for.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Name of the binding.
    pub binding: String,
    /// What its target holds.
    pub content: Content,
    /// What the workload runs, as far as is recorded.
    pub baseline: Option<Content>,
    /// When the content last changed.
    pub changed_at: Option<Timestamp>,
    /// How it wants workloads to restart.
    pub policy: Arc<Policy>,
    /// Whether the workload reads a key that differs between the two, or may.
    pub touches: bool,
    /// Whether a person has released this content.
    pub released: bool,
    /// Why nothing more restarts with this content.
    pub halted: Option<String>,
    /// A workload of an earlier wave that is not up yet.
    pub awaited: Option<String>,
    /// How many other workloads are restarting for the binding.
    pub running: usize,
    /// The line that a person runs to release what is manual.
    pub release: String,
}

impl Reading {
    fn is_due(&self) -> bool {
        self.baseline.as_ref() != Some(&self.content)
    }

    /// Whether it begins a restart.
    pub fn moves(&self) -> bool {
        self.is_due() && self.touches && self.policy.trigger != RolloutPolicy::Disabled
    }
}

/// What is remembered of the workload besides its baselines.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Memory {
    /// When the agent last stamped it.
    pub last_restart: Option<Timestamp>,
    /// When a difference was first seen.
    pub due_since: Option<Timestamp>,
    /// Its template when the difference was first seen.
    pub template_when_due: Option<String>,
    /// Whether a stamp that stood on it in this life of the process is no longer there.
    pub stripped: bool,
    /// Since when a rollout of someone else has been seen under way.
    pub others_since: Option<Timestamp>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It runs what the bindings hold.
    Nothing,
    /// Readings without a baseline get one: what they hold now. No restart.
    Adopt,
    /// What changed is nothing that it reads: these bindings' new contents are as good as running. No restart.
    Pass(Vec<String>),
    /// It runs the new content already; record it. No restart.
    Record(Why),
    /// Due, but not before. Said only where there is a reason.
    Wait(Timestamp, Option<Why>),
    /// Due, and waiting for something to happen.
    Pending(Why),
    /// Restart it by this.
    Stamp(Stamp),
    /// Our stamp was taken away by someone else. Not repeated.
    Reverted,
}

/// A workload with a restart due, and what bears on it.
struct Due<'a> {
    workload: &'a Workload,
    moved: Vec<&'a Reading>,
    memory: &'a Memory,
    now: Timestamp,
}

/// The rules that hold a restart back, the first that applies is told.
const HOLDING: [fn(&Due<'_>) -> Option<Decision>; 9] =
    [paused, halted, manual, bad_window, earlier_wave, planned, rollout_of_others, windows, max_concurrent];

/// The rules, in order.
pub fn decide(workload: &Workload, readings: &[Reading], memory: &Memory, now: Timestamp) -> Decision {
    if readings.is_empty() {
        return Decision::Nothing;
    }
    if readings.iter().any(|r| r.baseline.is_none()) {
        return Decision::Adopt;
    }
    let restart = restart(readings, now);
    let stamped = workload.carries(&restart);
    if !readings.iter().any(Reading::is_due) {
        return if memory.stripped && !stamped { Decision::Reverted } else { Decision::Nothing };
    }
    if stamped && restarts_later(workload, now).is_none() {
        return Decision::Record(Why::new(Cause::RestartedAlready, "the stamp is there already"));
    }
    let passed: Vec<String> = readings.iter().filter(|r| r.is_due() && !r.touches).map(|r| r.binding.clone()).collect();
    if !passed.is_empty() {
        return Decision::Pass(passed);
    }
    let due = Due { workload, moved: readings.iter().filter(|r| r.moves()).collect(), memory, now };
    if due.moved.is_empty() {
        return Decision::Nothing;
    }
    if workload.numbers.desired == 0 {
        return Decision::Record(Why::new(Cause::NoReplicas, "nothing runs"));
    }
    if memory.template_when_due.as_ref().is_some_and(|t| *t != workload.template) {
        return Decision::Record(Why::new(Cause::RestartedByOthers, "someone else restarted it meanwhile"));
    }
    HOLDING.iter().find_map(|rule| rule(&due)).or_else(|| times(&due)).unwrap_or(Decision::Stamp(restart))
}

/// What a restart writes: of the content of all, and the time of the newest that is due, or of the newest where none is.
fn restart(readings: &[Reading], now: Timestamp) -> Stamp {
    let due = readings.iter().filter(|r| r.is_due()).filter_map(|r| r.changed_at).max();
    let any = readings.iter().filter_map(|r| r.changed_at).max();
    let content = stamp(readings.iter().map(|r| (r.binding.as_str(), &r.content)));
    Stamp::new(content, due.or(any).unwrap_or(now))
}

fn pending(cause: Cause, message: impl Into<String>) -> Option<Decision> {
    Some(Decision::Pending(Why::new(cause, message)))
}

fn paused(due: &Due<'_>) -> Option<Decision> {
    let (name, namespace) = (&due.workload.name, due.workload.namespace());
    due.workload
        .paused
        .then(|| pending(Cause::Paused, format!("paused: kubectl rollout resume deployment/{name} -n {namespace}")))?
}

fn halted(due: &Due<'_>) -> Option<Decision> {
    due.moved.iter().find_map(|r| pending(Cause::Halted, r.halted.clone()?))
}

fn manual(due: &Due<'_>) -> Option<Decision> {
    let waiting = due.moved.iter().find(|r| r.policy.trigger == RolloutPolicy::Manual && !r.released)?;
    pending(Cause::Manual, format!("waits for a person: {}", waiting.release))
}

fn bad_window(due: &Due<'_>) -> Option<Decision> {
    due.moved.iter().find_map(|r| pending(Cause::BadWindow, r.policy.bad_window.clone()?))
}

fn earlier_wave(due: &Due<'_>) -> Option<Decision> {
    let awaited = due.moved.iter().find_map(|r| r.awaited.clone())?;
    pending(Cause::AwaitingWave, format!("its wave is {}: waits until {awaited} is complete", due.workload.wave))
}

/// A Rollout that a person has planned to restart later (spec.restartAt): not before, and not a second time then.
fn planned(due: &Due<'_>) -> Option<Decision> {
    let at = restarts_later(due.workload, due.now)?;
    let message = format!("spec.restartAt is {at}: it restarts then, or as soon as somebody takes that away");
    Some(Decision::Wait(at, Some(Why::new(Cause::AwaitingRollout, message))))
}

/// When a Rollout restarts, if that is still to come. The clocks of two machines may be a few seconds apart.
fn restarts_later(workload: &Workload, now: Timestamp) -> Option<Timestamp> {
    let at = workload.restart_at()?;
    (at > now + CLOCKS_APART).then_some(at)
}

/// A new template over a rollout of someone else: a Deployment takes that at any time, and only its distance is kept; the
/// other kinds go pod by pod, so theirs is waited for.
fn rollout_of_others(due: &Due<'_>) -> Option<Decision> {
    let since = due.memory.others_since.filter(|_| is_rolling(due.workload))?;
    let longest = |of: fn(&Policy) -> SignedDuration| due.moved.iter().map(|r| of(&r.policy)).max();
    let patience = match due.workload.kind {
        Kind::Deployment => longest(|p| p.min_interval),
        _ => longest(|p| p.timeout),
    };
    let until = since.checked_add(patience.unwrap_or_default()).unwrap_or(due.now);
    let why = Why::new(Cause::AwaitingRollout, "a rollout that the agent did not begin is under way");
    (until > due.now).then_some(Decision::Wait(until, Some(why)))
}

fn windows(due: &Due<'_>) -> Option<Decision> {
    // What a person releases, a window does not hold.
    let openings = due.moved.iter().filter(|r| !r.released).map(|r| opening(&r.policy.windows, due.now));
    openings.fold(None, |held: Option<Decision>, opening| match (opening, &held) {
        (Opening::Open, _) => held,
        (Opening::Never, _) => pending(Cause::AwaitingWindow, "its windows never open"),
        (Opening::At(later), Some(Decision::Wait(until, _))) if *until >= later => held,
        (Opening::At(_), Some(Decision::Pending(_))) => held,
        (Opening::At(at), _) => {
            Some(Decision::Wait(at, Some(Why::new(Cause::AwaitingWindow, format!("the next window opens at {at}")))))
        }
    })
}

fn max_concurrent(due: &Due<'_>) -> Option<Decision> {
    let full = due.moved.iter().find(|r| r.running >= r.policy.max_concurrent)?;
    pending(Cause::MaxConcurrent, format!("{} others are restarting, which is as many as may at once", full.running))
}

/// The quiet period and the distance to the last restart.
fn times(due: &Due<'_>) -> Option<Decision> {
    let longest = |of: fn(&Policy) -> SignedDuration| due.moved.iter().map(|r| of(&r.policy)).max().unwrap_or_default();
    let (quiet, apart) = (longest(|p| p.quiet), longest(|p| p.min_interval));
    let changed = due.moved.iter().filter_map(|r| r.changed_at).max().map(|at| at + quiet);
    let prolonged = due.memory.due_since.map(|since| since + quiet * PROLONGED);
    let calm = changed.map(|at| prolonged.map_or(at, |latest| at.min(latest)));
    let spaced = due.memory.last_restart.map(|at| at + apart);
    let until = calm.into_iter().chain(spaced).max().filter(|until| *until > due.now)?;
    let why = Why::new(Cause::MinInterval, format!("restarts are at least {} s apart", apart.as_secs()));
    let told = spaced == Some(until) && until.duration_since(due.now) > QUIET;
    Some(Decision::Wait(until, told.then_some(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::Rollout;
    use crate::rollout::workload::CONTENT;
    use crate::rollout::workload::tests::{deployment, stateful_set};
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn reading(binding: &str, content: &str, baseline: Option<&str>, changed: i64) -> Reading {
        Reading {
            binding: binding.into(),
            content: Content::from_text(content),
            baseline: baseline.map(Content::from_text),
            changed_at: Some(at(changed)),
            policy: Arc::default(),
            touches: true,
            released: false,
            halted: None,
            awaited: None,
            running: 0,
            release: "kubectl annotate".into(),
        }
    }

    fn due(edit: impl FnOnce(&mut Reading)) -> Reading {
        let mut reading = reading("a", "2", Some("1"), 0);
        edit(&mut reading);
        reading
    }

    fn with(spec: &str) -> Reading {
        due(|r| r.policy = Arc::new(Policy::parse(Some(&serde_yaml::from_str::<Rollout>(spec).unwrap()))))
    }

    fn with_stamp(value: &str) -> Workload {
        deployment(|o| o["spec"]["template"]["metadata"] = json!({"annotations": {CONTENT: value}}))
    }

    fn value(of: &[(&str, &str)]) -> String {
        let contents: Vec<(String, Content)> =
            of.iter().map(|(b, c)| ((*b).to_owned(), Content::from_text(c))).collect();
        stamp(contents.iter().map(|(b, c)| (b.as_str(), c)))
    }

    fn written(of: &[(&str, &str)], changed: i64) -> Decision {
        Decision::Stamp(Stamp::new(value(of), at(changed)))
    }

    fn web() -> Workload {
        deployment(|_| ())
    }

    /// What holds a restart back, if anything.
    fn held(readings: &[Reading]) -> Option<Cause> {
        match decide(&web(), readings, &Memory::default(), at(1_000)) {
            Decision::Stamp(_) => None,
            Decision::Pending(why) | Decision::Wait(_, Some(why)) => Some(why.cause),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_difference_in_content_restarts() {
        let none = Memory::default();
        assert_eq!(decide(&web(), &[], &none, at(100)), Decision::Nothing);
        assert_eq!(
            decide(&web(), &[reading("a", "1", None, 0)], &none, at(100)),
            Decision::Adopt,
            "opt-in restarts nothing"
        );
        assert_eq!(decide(&web(), &[reading("a", "1", Some("1"), 0)], &none, at(100)), Decision::Nothing);
        assert_eq!(decide(&web(), &[due(|_| ())], &none, at(100)), written(&[("a", "2")], 0));
    }

    #[test]
    fn several_bindings_give_one_stamp_and_a_new_one_gets_its_baseline_first() {
        let both = [due(|_| ()), reading("b", "1", Some("1"), 5)];
        let stamp = written(&[("b", "1"), ("a", "2")], 0);
        assert_eq!(decide(&web(), &both, &Memory::default(), at(9)), stamp, "of the time of what is due");
        let fresh = [due(|_| ()), reading("b", "1", None, 0)];
        assert_eq!(decide(&web(), &fresh, &Memory::default(), at(9)), Decision::Adopt);
    }

    #[test]
    fn a_rollout_that_a_person_has_planned_for_later_is_waited_for() {
        let planned = |at: &str| Workload { kind: Kind::Rollout, stamp: Some(at.to_owned()), ..web() };
        let decided = |at_: &str| decide(&planned(at_), &[due(|_| ())], &Memory::default(), at(100));
        let Decision::Wait(until, Some(why)) = decided("1970-01-01T00:10:00Z") else { panic!("not waiting") };
        assert!(until == at(600) && why.message.contains("1970-01-01T00:10:00Z"), "{}", why.message);
        assert!(matches!(decided("1970-01-01T00:01:40Z"), Decision::Record(_)), "it has");
        assert!(matches!(decided("1969-01-01T00:00:00Z"), Decision::Stamp(_)), "long ago");
        let even = [reading("a", "2", Some("2"), 0)];
        let moved = Memory { stripped: true, ..Memory::default() };
        assert_eq!(
            decide(&planned("2099-01-01T00:00:00Z"), &even, &moved, at(100)),
            Decision::Nothing,
            "not taken away"
        );
    }

    #[test]
    fn a_repeated_stamp_is_a_record_and_a_stripped_one_is_not_repeated() {
        let stamped = with_stamp(&value(&[("a", "2")]));
        assert!(
            matches!(decide(&stamped, &[due(|_| ())], &Memory::default(), at(9)), Decision::Record(_)),
            "status was lost, not the restart"
        );
        let stripped = Memory { stripped: true, ..Memory::default() };
        let even = [reading("a", "2", Some("2"), 0)];
        assert_eq!(decide(&stamped, &even, &stripped, at(9)), Decision::Nothing, "it is back");
        assert_eq!(decide(&web(), &even, &stripped, at(9)), Decision::Reverted);
        assert_eq!(decide(&with_stamp("old"), &even, &stripped, at(9)), Decision::Reverted);
        assert_eq!(
            decide(&with_stamp("old"), &even, &Memory::default(), at(9)),
            Decision::Nothing,
            "one binding more changes the stamp, nothing else"
        );
    }

    #[test]
    fn quiet_period_and_interval_are_waited_for() {
        let both = [reading("a", "2", Some("1"), 10), reading("b", "2", Some("1"), 11)];
        let none = Memory::default();
        assert_eq!(decide(&web(), &both, &none, at(12)), Decision::Wait(at(13), None));
        assert!(matches!(decide(&web(), &both, &none, at(13)), Decision::Stamp(_)));
        let recent = Memory { last_restart: Some(at(0)), ..Memory::default() };
        let Decision::Wait(until, Some(why)) = decide(&web(), &both, &recent, at(20)) else { panic!("not waiting") };
        assert_eq!((until, why.cause), (at(30), Cause::MinInterval));
        assert!(matches!(decide(&web(), &both, &recent, at(30)), Decision::Stamp(_)));
        let longer = with("{quietPeriod: 20s, minInterval: 60s}");
        let both = [reading("b", "2", Some("1"), 0), longer];
        assert!(
            matches!(decide(&web(), &both, &recent, at(59)), Decision::Wait(until, _) if until == at(60)),
            "the longest counts"
        );
    }

    #[test]
    fn changes_without_end_do_not_put_a_restart_off_for_ever() {
        let memory = Memory { due_since: Some(at(0)), ..Memory::default() };
        let changing = |second| [reading("a", "9", Some("1"), second)];
        assert!(
            matches!(decide(&web(), &changing(19), &memory, at(19)), Decision::Wait(until, None) if until == at(20))
        );
        assert!(matches!(decide(&web(), &changing(20), &memory, at(20)), Decision::Stamp(_)));
    }

    #[test]
    fn what_cannot_or_need_not_restart_says_so() {
        let none = Memory::default();
        let moved = [due(|_| ())];
        let scaled = deployment(|o| o["spec"]["replicas"] = json!(0));
        assert!(
            matches!(decide(&scaled, &moved, &none, at(9)), Decision::Record(why) if why.cause == Cause::NoReplicas)
        );
        let paused = deployment(|o| o["spec"]["paused"] = json!(true));
        let Decision::Pending(why) = decide(&paused, &moved, &none, at(9)) else { panic!("not pending") };
        assert!(why.message.contains("kubectl rollout resume deployment/web -n shop"));
        let same = Memory { template_when_due: Some(web().template), ..Memory::default() };
        assert!(matches!(decide(&web(), &moved, &same, at(9)), Decision::Stamp(_)));
        let other = Memory { template_when_due: Some("other".into()), ..Memory::default() };
        assert!(
            matches!(decide(&web(), &moved, &other, at(9)), Decision::Record(_)),
            "a restart by someone else counts"
        );
    }

    #[test]
    fn each_rule_holds_back_and_the_first_is_told() {
        assert_eq!(held(&[due(|_| ())]), None);
        assert_eq!(held(&[due(|r| r.halted = Some("Deployment/x failed".into()))]), Some(Cause::Halted));
        assert_eq!(held(&[due(|r| r.awaited = Some("Deployment/db".into()))]), Some(Cause::AwaitingWave));
        assert_eq!(held(&[with("policy: Manual")]), Some(Cause::Manual));
        assert_eq!(held(&[with("windows: [{cron: 0 2 * * *, duration: 1h}]")]), Some(Cause::AwaitingWindow));
        assert_eq!(held(&[with("windows: [{cron: 99 2 * * *, duration: 1h}]")]), Some(Cause::BadWindow));
        let mut full = with("maxConcurrent: 2");
        full.running = 1;
        assert_eq!(held(&[full.clone()]), None);
        full.running = 2;
        assert_eq!(held(&[full.clone()]), Some(Cause::MaxConcurrent));
        full.halted = Some("Deployment/x failed".into());
        assert_eq!(held(&[full]), Some(Cause::Halted), "a person has to act: that comes first");
    }

    #[test]
    fn a_person_releases_what_is_manual_and_what_waits_for_a_window() {
        for spec in ["policy: Manual", "windows: [{cron: 0 2 * * *, duration: 1h}]"] {
            let mut released = with(spec);
            released.released = true;
            assert_eq!(held(&[released]), None, "{spec}");
        }
        let mut halted = with("policy: Manual");
        (halted.released, halted.halted) = (true, Some("Deployment/x failed".into()));
        assert_eq!(held(&[halted]), Some(Cause::Halted), "a failure is set aside by resume");
    }

    #[test]
    fn of_several_bindings_all_have_to_agree() {
        let other = |spec: &str| Reading { binding: "b".into(), ..with(spec) };
        assert_eq!(held(&[due(|_| ()), other("policy: Manual")]), Some(Cause::Manual));
        assert_eq!(
            held(&[due(|_| ()), other("windows: [{cron: 0 2 * * *, duration: 1h}]")]),
            Some(Cause::AwaitingWindow)
        );
        let open = other("windows: [{cron: '* * * * *', duration: 1h}]");
        assert_eq!(held(&[with("windows: [{cron: '* * * * *', duration: 2h}]"), open]), None, "all are open");
        let unmoved = Reading { baseline: Some(Content::from_text("2")), ..other("policy: Manual") };
        assert_eq!(held(&[due(|_| ()), unmoved]), None, "only what moved has a say");
    }

    #[test]
    fn a_disabled_binding_begins_no_restart_and_is_carried_by_another() {
        let off = with("policy: Disabled");
        assert_eq!(decide(&web(), std::slice::from_ref(&off), &Memory::default(), at(9)), Decision::Nothing);
        let both = [off, Reading { binding: "b".into(), ..due(|_| ()) }];
        assert_eq!(decide(&web(), &both, &Memory::default(), at(9)), written(&[("a", "2"), ("b", "2")], 0));
    }

    #[test]
    fn keys_that_it_does_not_read_restart_nothing() {
        let untouched = due(|r| r.touches = false);
        let other = Reading { binding: "b".into(), ..due(|_| ()) };
        assert_eq!(decide(&web(), &[untouched, other], &Memory::default(), at(9)), Decision::Pass(vec!["a".into()]));
    }

    #[test]
    fn a_rollout_of_someone_else_is_waited_for_by_its_kind() {
        let since = Memory { others_since: Some(at(100)), ..Memory::default() };
        let under_way = |o: &mut serde_json::Value| o["status"]["updatedReplicas"] = json!(1);
        let until = |workload: &Workload, now: i64| match decide(workload, &[due(|_| ())], &since, at(now)) {
            Decision::Wait(until, Some(why)) if why.cause == Cause::AwaitingRollout => Some(until),
            Decision::Stamp(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(until(&deployment(under_way), 101), Some(at(130)), "a Deployment after minInterval");
        assert_eq!(until(&deployment(under_way), 130), None);
        assert_eq!(until(&stateful_set(under_way), 131), Some(at(700)), "a set when it ends or times out");
        assert_eq!(until(&stateful_set(under_way), 700), None);
        assert_eq!(until(&web(), 101), None, "it has ended");
    }
}
