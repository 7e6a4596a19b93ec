//! Restart now, later or never, each with a reason. One decision per workload, over all the bindings it reads.
//!
//! Level-triggered by content: a restart is due when the content that a workload runs (its baseline) differs from what the
//! bindings hold, never by the order of versions. So opt-in, creation, agent start and drift repair restart nothing, and a
//! change that came while the agent was down still does.

use crate::domain::content::{Content, stamp};
use crate::rollout::workload::Workload;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Changes to one workload inside this time cost one restart.
pub const QUIET: SignedDuration = SignedDuration::from_secs(2);
/// Between two restarts of one workload.
pub const MIN_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

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
}

/// What is remembered of the workload besides its baselines.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Memory {
    /// When the agent last stamped it.
    pub last_restart: Option<Timestamp>,
    /// Its template when the difference was first seen.
    pub template_when_due: Option<String>,
    /// Whether a stamp that stood on it in this life of the process is no longer there.
    pub stripped: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It runs what the bindings hold.
    Nothing,
    /// Readings without a baseline get one: what they hold now. No restart.
    Adopt,
    /// It runs the new content already; record it. No restart.
    Record(&'static str),
    /// Due, but not before.
    Wait(Timestamp),
    /// Due, and waiting for someone.
    Pending(String),
    /// Stamp its template with this.
    Stamp(String),
    /// Our stamp was taken away by someone else. Not repeated.
    Reverted,
}

/// The rules, in order.
pub fn decide(workload: &Workload, readings: &[Reading], memory: &Memory, now: Timestamp) -> Decision {
    if readings.is_empty() {
        return Decision::Nothing;
    }
    let value = stamp(readings.iter().map(|r| (r.binding.as_str(), &r.content)));
    let stamped = workload.stamp.as_deref() == Some(value.as_str());
    if readings.iter().any(|r| r.baseline.is_none()) {
        return Decision::Adopt;
    }
    if readings.iter().all(|r| r.baseline.as_ref() == Some(&r.content)) {
        return if memory.stripped && !stamped { Decision::Reverted } else { Decision::Nothing };
    }
    if stamped {
        return Decision::Record("the stamp is there already");
    }
    if workload.numbers.desired == 0 {
        return Decision::Record("nothing runs");
    }
    if memory.template_when_due.as_ref().is_some_and(|t| *t != workload.template) {
        return Decision::Record("someone else restarted it meanwhile");
    }
    if workload.paused {
        return Decision::Pending(format!(
            "paused: kubectl rollout resume deployment/{} -n {}",
            workload.name,
            workload.namespace()
        ));
    }
    let quiet = readings.iter().filter_map(|r| r.changed_at).max().map(|t| t + QUIET);
    let interval = memory.last_restart.map(|t| t + MIN_INTERVAL);
    match quiet.into_iter().chain(interval).max() {
        Some(earliest) if earliest > now => Decision::Wait(earliest),
        _ => Decision::Stamp(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::workload::CONTENT;
    use crate::rollout::workload::tests::deployment;
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
        }
    }

    fn with_stamp(value: &str) -> Workload {
        deployment(|o| o["spec"]["template"]["metadata"] = json!({"annotations": {CONTENT: value}}))
    }

    fn value(of: &[(&str, &str)]) -> String {
        let contents: Vec<(String, Content)> =
            of.iter().map(|(b, c)| ((*b).to_owned(), Content::from_text(c))).collect();
        stamp(contents.iter().map(|(b, c)| (b.as_str(), c)))
    }

    #[test]
    fn only_a_difference_in_content_restarts() {
        let web = deployment(|_| ());
        let none = Memory::default();
        assert_eq!(decide(&web, &[], &none, at(100)), Decision::Nothing);
        assert_eq!(
            decide(&web, &[reading("a", "1", None, 0)], &none, at(100)),
            Decision::Adopt,
            "opt-in restarts nothing"
        );
        assert_eq!(decide(&web, &[reading("a", "1", Some("1"), 0)], &none, at(100)), Decision::Nothing);
        let due = [reading("a", "2", Some("1"), 0)];
        assert_eq!(decide(&web, &due, &none, at(100)), Decision::Stamp(value(&[("a", "2")])));
    }

    #[test]
    fn several_bindings_give_one_stamp_and_a_new_one_gets_its_baseline_first() {
        let web = deployment(|_| ());
        let both = [reading("a", "2", Some("1"), 0), reading("b", "1", Some("1"), 0)];
        assert_eq!(decide(&web, &both, &Memory::default(), at(9)), Decision::Stamp(value(&[("b", "1"), ("a", "2")])));
        let fresh = [reading("a", "2", Some("1"), 0), reading("b", "1", None, 0)];
        assert_eq!(decide(&web, &fresh, &Memory::default(), at(9)), Decision::Adopt);
    }

    #[test]
    fn a_repeated_stamp_is_a_record_and_a_stripped_one_is_not_repeated() {
        let due = [reading("a", "2", Some("1"), 0)];
        let stamped = with_stamp(&value(&[("a", "2")]));
        assert!(
            matches!(decide(&stamped, &due, &Memory::default(), at(9)), Decision::Record(_)),
            "status was lost, not the restart"
        );
        let stripped = Memory { stripped: true, ..Memory::default() };
        let even = [reading("a", "2", Some("2"), 0)];
        assert_eq!(decide(&stamped, &even, &stripped, at(9)), Decision::Nothing, "it is back");
        assert_eq!(decide(&deployment(|_| ()), &even, &stripped, at(9)), Decision::Reverted);
        assert_eq!(decide(&with_stamp("old"), &even, &stripped, at(9)), Decision::Reverted);
        assert_eq!(
            decide(&with_stamp("old"), &even, &Memory::default(), at(9)),
            Decision::Nothing,
            "one binding more changes the stamp, nothing else"
        );
    }

    #[test]
    fn quiet_period_and_interval_are_waited_for() {
        let web = deployment(|_| ());
        let due = [reading("a", "2", Some("1"), 10), reading("b", "2", Some("1"), 11)];
        assert_eq!(decide(&web, &due, &Memory::default(), at(12)), Decision::Wait(at(13)));
        assert!(matches!(decide(&web, &due, &Memory::default(), at(13)), Decision::Stamp(_)));
        let recent = Memory { last_restart: Some(at(0)), ..Memory::default() };
        assert_eq!(decide(&web, &due, &recent, at(20)), Decision::Wait(at(30)));
        assert!(matches!(decide(&web, &due, &recent, at(30)), Decision::Stamp(_)));
    }

    #[test]
    fn what_cannot_or_need_not_restart_says_so() {
        let due = [reading("a", "2", Some("1"), 0)];
        let none = Memory::default();
        let scaled = deployment(|o| o["spec"]["replicas"] = json!(0));
        assert_eq!(decide(&scaled, &due, &none, at(9)), Decision::Record("nothing runs"));
        let paused = deployment(|o| o["spec"]["paused"] = json!(true));
        let Decision::Pending(why) = decide(&paused, &due, &none, at(9)) else { panic!("not pending") };
        assert!(why.contains("kubectl rollout resume deployment/web -n shop"));
        let web = deployment(|_| ());
        let same = Memory { template_when_due: Some(web.template.clone()), ..Memory::default() };
        assert!(matches!(decide(&web, &due, &same, at(9)), Decision::Stamp(_)));
        let other = Memory { template_when_due: Some("other".into()), ..Memory::default() };
        assert!(matches!(decide(&web, &due, &other, at(9)), Decision::Record(_)), "a restart by someone else counts");
    }
}
