//! Two agents over one binding: which of them writes it.
//!
//! `status.agent` names the one that does. Another one asks by `status.claim` whether that one lives; the one that does answers
//! by `status.claimAnswered`. No answer within the patience, and the asker writes its own name. Each agent asks one question at
//! a time of each other agent in a namespace, and remembers the verdict.
//!
//! What settles it in every case is that there is one name in `status.agent`, and that nobody writes while it is another's.

use crate::crd::{Claim, EnnoteSecretBindingStatus};
use crate::domain::moment::Moment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A verdict counts for so many times the patience.
const COUNTS: u32 = 20;

/// What is remembered of another agent in one namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Belief {
    /// It was asked then, by the claim of this time on this binding (uid).
    Asked(String, Time, Moment),
    /// It had answered then.
    Lives(Moment),
    /// It had not answered then.
    Dead(Moment),
}

/// What to do with a binding.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// It is ours. The claim of another agent to answer, if there is one.
    Mine(Option<Time>),
    /// Make it ours: the other one is gone.
    TakeOver,
    /// Ask by a claim of this time.
    Challenge(Time),
    /// Leave it alone for now.
    Wait(Duration),
    /// Leave it alone: the other one lives. Look again after this long.
    StandBack(Duration),
}

/// Whether another agent writes this binding.
pub fn is_theirs(status: Option<&EnnoteSecretBindingStatus>, own: &str) -> bool {
    other(status, own).is_some()
}

/// The other agent that writes this binding.
pub fn other<'a>(status: Option<&'a EnnoteSecretBindingStatus>, own: &str) -> Option<&'a str> {
    status?.agent.as_deref().filter(|agent| *agent != own)
}

/// The question of another agent that is not answered yet.
pub fn question<'a>(status: &'a EnnoteSecretBindingStatus, own: &str) -> Option<&'a Time> {
    let claim = status.claim.as_ref().filter(|claim| claim.by != own);
    claim.map(|claim| &claim.at).filter(|at| status.claim_answered.as_ref() != Some(at))
}

/// What of the status of a binding another agent may have written: it wakes the controller.
pub type Foreign = (Option<String>, Option<Claim>, Option<Time>);

/// What another agent wrote into the status.
pub fn foreign(status: Option<&EnnoteSecretBindingStatus>, own: &str) -> Foreign {
    let Some(status) = status else { return Foreign::default() };
    let agent = other(Some(status), own).map(str::to_owned);
    let claim = status.claim.clone().filter(|claim| claim.by != own);
    // Our own answers are no news.
    let answered = status.claim_answered.clone().filter(|_| agent.is_some());
    (agent, claim, answered)
}

/// Decides, for one binding (`uid`), with what is believed of the agent that its status names. `own` is this agent.
pub fn decide(
    status: &EnnoteSecretBindingStatus,
    uid: &str,
    own: &str,
    belief: Option<&Belief>,
    patience: Duration,
    (now, clock): (Moment, Timestamp),
) -> Act {
    if other(Some(status), own).is_none() {
        return Act::Mine(question(status, own).cloned());
    }
    let counts = patience * COUNTS;
    match belief {
        Some(Belief::Dead(at)) if now.since(*at) < counts => Act::TakeOver,
        Some(Belief::Lives(at)) if now.since(*at) < counts => Act::StandBack(counts - now.since(*at)),
        Some(Belief::Asked(of, at, since)) => {
            let age = now.since(*since);
            if of != uid {
                // Asked on another binding: the verdict of that one counts here too, unless that one is gone.
                let grace = patience + patience / 4;
                return if age < grace { Act::Wait(grace - age) } else { challenge(status, clock) };
            }
            if status.claim_answered.as_ref() == Some(at) {
                return Act::StandBack(counts);
            }
            if age < patience {
                return Act::Wait(patience - age);
            }
            let stands = status.claim.as_ref().is_some_and(|claim| claim.by == own && claim.at == *at);
            // A third agent has asked over it: then nobody could answer.
            if stands { Act::TakeOver } else { challenge(status, clock) }
        }
        _ => challenge(status, clock),
    }
}

/// What is believed after `act`.
pub fn learn(act: &Act, uid: &str, belief: Option<Belief>, now: Moment) -> Option<Belief> {
    match act {
        Act::Challenge(at) => Some(Belief::Asked(uid.to_owned(), at.clone(), now)),
        Act::TakeOver if !matches!(belief, Some(Belief::Dead(_))) => Some(Belief::Dead(now)),
        Act::StandBack(_) if !matches!(belief, Some(Belief::Lives(_))) => Some(Belief::Lives(now)),
        _ => belief,
    }
}

/// Another time than any question before, in whole seconds: the API server keeps no others.
fn challenge(status: &EnnoteSecretBindingStatus, clock: Timestamp) -> Act {
    let earlier = [status.claim.as_ref().map(|claim| &claim.at), status.claim_answered.as_ref()];
    let after =
        earlier.into_iter().flatten().filter_map(|at| at.0.checked_add(SignedDuration::from_secs(1)).ok()).max();
    let at = after.map_or(clock, |after| after.max(clock));
    Act::Challenge(Time(Timestamp::from_second(at.as_second()).unwrap_or(at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn moment(seconds: u64) -> (Moment, Timestamp) {
        let clock = Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap();
        (Moment::new(Duration::from_secs(seconds)), clock)
    }

    /// One agent of the simulation: it sees status late, may be frozen, and writes only what `decide` allows.
    struct Agent {
        name: &'static str,
        uid: &'static str,
        belief: Option<Belief>,
        seen: EnnoteSecretBindingStatus,
        was_mine: bool,
        wrote: Vec<u64>,
    }

    impl Agent {
        fn new(name: &'static str) -> Self {
            Self { name, uid: "u", belief: None, seen: Default::default(), was_mine: false, wrote: vec![] }
        }

        fn step(&mut self, status: &mut EnnoteSecretBindingStatus, second: u64, lag: bool) {
            if !lag {
                self.seen = status.clone();
            }
            if is_theirs(Some(&self.seen), self.name) && std::mem::take(&mut self.was_mine) {
                self.belief = None;
            }
            let now = moment(second);
            let act = decide(&self.seen, self.uid, self.name, self.belief.as_ref(), PATIENCE, now);
            self.belief = learn(&act, self.uid, self.belief.take(), now.0);
            match act {
                Act::Mine(answer) => {
                    status.agent = Some(self.name.to_owned());
                    if answer.is_some() {
                        status.claim_answered = answer;
                    }
                    (self.seen, self.was_mine) = (status.clone(), true);
                    self.wrote.push(second);
                }
                Act::TakeOver => {
                    status.agent = Some(self.name.to_owned());
                    (self.seen, self.was_mine) = (status.clone(), true);
                }
                Act::Challenge(at) => {
                    status.claim = Some(Claim { by: self.name.to_owned(), at });
                    self.seen = status.clone();
                }
                Act::Wait(_) | Act::StandBack(_) => {}
            }
        }
    }

    fn run(frozen: impl Fn(usize, u64) -> bool, lag: impl Fn(usize, u64) -> bool, seconds: u64) -> [Vec<u64>; 2] {
        let mut status = EnnoteSecretBindingStatus::default();
        let mut agents = [Agent::new("n/a"), Agent::new("n/b")];
        for second in 0..seconds {
            for (number, agent) in agents.iter_mut().enumerate() {
                if !frozen(number, second) {
                    agent.step(&mut status, second, lag(number, second));
                }
            }
        }
        agents.map(|agent| agent.wrote)
    }

    fn writers(wrote: &[Vec<u64>; 2], from: u64) -> usize {
        wrote.iter().filter(|times| times.iter().any(|at| *at >= from)).count()
    }

    #[test]
    fn of_two_that_start_at_once_one_goes_on() {
        let wrote = run(|_, _| false, |_, second| second == 0, 2000);
        assert_eq!(writers(&wrote, 0), 2, "both take what is nobody's");
        assert_eq!(writers(&wrote, 2), 1, "{wrote:?}");
    }

    #[test]
    fn the_second_takes_over_when_the_first_is_gone_and_not_before() {
        let gone = |number: usize, second: u64| number == 0 && second >= 100;
        let wrote = run(gone, |_, _| false, 2000);
        let first = wrote[1].first().copied().unwrap();
        // It had been told at second 1 that the first lives; it asks again after ten minutes.
        assert!((600..650).contains(&first), "{first}");
        let at_start = run(|number, _| number == 0, |_, _| false, 100);
        assert_eq!(at_start[1].first(), Some(&0), "nobody's binding is taken at once");
    }

    #[test]
    fn one_verdict_counts_for_all_bindings_of_that_agent() {
        let status = EnnoteSecretBindingStatus { agent: Some("n/a".into()), ..Default::default() };
        let act = |belief: &Belief, uid, second| decide(&status, uid, "n/b", Some(belief), PATIENCE, moment(second));
        assert_eq!(act(&Belief::Dead(moment(5).0), "other", 6), Act::TakeOver);
        assert_eq!(act(&Belief::Lives(moment(5).0), "other", 6), Act::StandBack(Duration::from_secs(599)));
        let asked = Belief::Asked("u".into(), Time(moment(5).1), moment(5).0);
        assert_eq!(act(&asked, "other", 6), Act::Wait(Duration::from_millis(36_500)));
        assert!(matches!(act(&asked, "other", 60), Act::Challenge(_)), "the one that was asked on is gone");
        assert!(matches!(act(&asked, "u", 60), Act::Challenge(_)), "its claim does not stand there any more");
        assert!(matches!(act(&Belief::Dead(moment(5).0), "other", 700), Act::Challenge(_)), "it may be back");
    }

    #[test]
    fn a_question_is_never_answered_before_it_is_asked() {
        let late = Time(moment(500).1);
        let status = EnnoteSecretBindingStatus {
            agent: Some("n/a".into()),
            claim: Some(Claim { by: "n/b".into(), at: late.clone() }),
            claim_answered: Some(late.clone()),
            ..Default::default()
        };
        let Act::Challenge(at) = decide(&status, "u", "n/b", None, PATIENCE, moment(7)) else { panic!("no challenge") };
        assert_eq!(at, Time(moment(501).1), "also by a clock that is behind");
    }

    #[test]
    fn what_we_wrote_ourselves_wakes_nobody() {
        let claim = |by: &str| Some(Claim { by: by.into(), at: Time(moment(1).1) });
        let status = |agent: &str, by: &str| EnnoteSecretBindingStatus {
            agent: Some(agent.into()),
            claim: claim(by),
            claim_answered: Some(Time(moment(1).1)),
            ..Default::default()
        };
        assert_eq!(foreign(Some(&status("n/a", "n/a")), "n/a"), Foreign::default());
        assert_eq!(foreign(Some(&status("n/a", "n/b")), "n/a"), (None, claim("n/b"), None));
        let answered = foreign(Some(&status("n/b", "n/a")), "n/a");
        assert_eq!(answered, (Some("n/b".into()), None, Some(Time(moment(1).1))));
    }

    proptest! {
        /// Whatever freezes and lags there are for ten minutes: once both live, one alone writes; and one does.
        #[test]
        fn in_the_end_exactly_one_writes(
            freezes in prop::collection::vec((0..2usize, 0..600u64, 1..90u64), 0..8),
            lags in prop::collection::vec((0..2usize, 0..600u64), 0..40),
        ) {
            let frozen = |number: usize, second: u64| {
                freezes.iter().any(|(of, from, long)| *of == number && (*from..from + long).contains(&second))
            };
            let wrote = run(frozen, |number, second| lags.contains(&(number, second)), 3000);
            prop_assert_eq!(writers(&wrote, 1400), 1, "{:?}", wrote);
            prop_assert!(wrote.iter().any(|times| times.last() == Some(&2999)), "nobody writes");
        }
    }
}
