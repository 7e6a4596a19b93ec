//! (old status, outcome, now) to the binding controller's part of the new status, by the truth table of DESIGN.md section 3.

use crate::crd::{EnnoteSecretBindingStatus, LastHandled, SourceStatus, TargetStatus};
use crate::domain::outcome::{Held, Outcome};
use crate::domain::reason::{Phase, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Condition types of the binding controller; `RolledOut` belongs to the workload controller.
pub const OWN_TYPES: [&str; 5] = ["Ready", "Synced", "Fresh", "Reconciling", "Stalled"];

const SUSPENDED: &str = "Suspended";

/// Whether the cloud's newest word is known to have been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Beats arrive.
    Fresh,
    /// No beat, but not for long enough to say so.
    Silent,
    /// Silent for so long that the condition goes False.
    Stale,
    /// Deliveries are kept back behind live beats.
    Withheld,
}

/// The condition of a type.
pub fn find<'a>(status: &'a EnnoteSecretBindingStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == kind)
}

/// The binding controller's part of a status.
pub fn own(status: &EnnoteSecretBindingStatus) -> EnnoteSecretBindingStatus {
    EnnoteSecretBindingStatus {
        conditions: status.conditions.iter().filter(|c| OWN_TYPES.contains(&c.type_.as_str())).cloned().collect(),
        rollouts: None,
        baselines: None,
        rollout: None,
        claim: None,
        last_handled: status.last_handled.as_ref().and_then(LastHandled::of_the_binding),
        ..status.clone()
    }
}

/// The next status, without what the workload controller owns. Equal to the old one when nothing moved.
pub fn next(
    old: &EnnoteSecretBindingStatus,
    outcome: &Outcome,
    freshness: Freshness,
    generation: i64,
    now: Timestamp,
) -> EnnoteSecretBindingStatus {
    let mut status = EnnoteSecretBindingStatus { observed_generation: Some(generation), ..own(old) };
    let (reason, message) = match outcome {
        Outcome::Unchanged => {
            // Of a newer spec nothing is known yet, and that is what an older number says: else who waits by kstatus would take
            // Ready of the older spec for that of the newer one.
            status.observed_generation = old.observed_generation;
            set_fresh(&mut status, freshness, generation, now);
            return status;
        }
        Outcome::Restored => {
            let held = status.source.as_ref().zip(status.target.as_ref());
            (Reason::Synced, held.map(|(source, target)| synced_message(source, target)).unwrap_or_default())
        }
        Outcome::Suspended => {
            suspend(&mut status, generation, now);
            return status;
        }
        Outcome::Foreseen(forecast) => (Reason::Observed, forecast.sentence.clone()),
        Outcome::Problem(problem) => (problem.reason, problem.message.clone()),
        Outcome::Synced(held) => {
            record(&mut status, held);
            (Reason::Synced, synced_message(&held.source, &held.target))
        }
    };
    let (ready, abnormal) = match reason.phase() {
        Phase::Synced => ("True", None),
        Phase::Waiting => ("Unknown", Some("Reconciling")),
        Phase::Retrying => ("False", Some("Reconciling")),
        Phase::Stalled => ("False", Some("Stalled")),
    };
    let mut set = |kind: &str, value: &str| {
        set(
            &mut status.conditions,
            Condition {
                type_: kind.to_owned(),
                status: value.to_owned(),
                reason: reason.to_string(),
                message: message.clone(),
                observed_generation: Some(generation),
                last_transition_time: Time(now),
            },
        );
    };
    set("Ready", ready);
    // What the Secret holds is one thing, whether the cloud would still give it another.
    if !(reason.leaves_synced() && is_synced(old, generation)) {
        let differs = matches!(outcome, Outcome::Foreseen(forecast) if !forecast.equal);
        set("Synced", if differs { "False" } else { ready });
    }
    if let Some(kind) = abnormal {
        set(kind, "True");
    }
    status
        .conditions
        .retain(|c| !["Reconciling", "Stalled"].contains(&c.type_.as_str()) || Some(c.type_.as_str()) == abnormal);
    set_fresh(&mut status, freshness, generation, now);
    status
}

/// What was known stays as it was. What was awaited or tried again is that no more, so it must not look as if it would come: who
/// waits by kstatus would wait for ever.
fn suspend(status: &mut EnnoteSecretBindingStatus, generation: i64, now: Timestamp) {
    let awaited = find(status, "Reconciling").is_some();
    status.conditions.retain(|c| c.type_ != "Reconciling");
    if find(status, "Ready").is_some_and(|ready| !awaited && ready.status != "Unknown" && ready.reason != SUSPENDED) {
        return;
    }
    set(
        &mut status.conditions,
        Condition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: SUSPENDED.to_owned(),
            message: "spec.suspend is true: the Secret is left alone".to_owned(),
            observed_generation: Some(generation),
            last_transition_time: Time(now),
        },
    );
}

/// Names the keys that others added to the Secret, where the binding is synced.
pub fn name_others(status: &mut EnnoteSecretBindingStatus, others: Vec<String>) {
    let (Some(source), Some(target)) = (&status.source, &mut status.target) else { return };
    if target.other_keys == others {
        return;
    }
    target.other_keys = others;
    let message = synced_message(source, target);
    for condition in status.conditions.iter_mut().filter(|c| c.reason == Reason::Synced.to_string()) {
        condition.message.clone_from(&message);
    }
}

/// Whether the Secret holds what this generation of the spec asks for.
pub fn is_synced(status: &EnnoteSecretBindingStatus, generation: i64) -> bool {
    find(status, "Synced").is_some_and(|c| c.status == "True" && c.observed_generation == Some(generation))
}

fn record(status: &mut EnnoteSecretBindingStatus, held: &Held) {
    status.source = Some(held.source.clone());
    status.content = Some(held.content.to_string());
    status.target = Some(held.target.clone());
    if let Some(text) = &held.accepted {
        status.last_handled.get_or_insert_default().accept = Some(text.clone());
    }
    if let Some(at) = held.written_at {
        status.last_sync_time = Some(Time(at));
        status.sync_latency_millis = held.latency_millis;
    }
}

/// A pure function of what status holds, so that an idle pass writes nothing.
fn synced_message(source: &SourceStatus, target: &TargetStatus) -> String {
    let keys = if target.keys == 1 { "1 key".to_owned() } else { format!("{} keys", target.keys) };
    let version = target.version.unwrap_or(source.version);
    let pinned = if version == source.version {
        String::new()
    } else {
        format!("; it is pinned there, version {} has been seen", source.version)
    };
    let others = match &target.other_keys[..] {
        [] => String::new(),
        others => format!("; keys of others are kept: {}", others.join(", ")),
    };
    format!("version {version} of {:?} is in Secret {} ({keys}){pinned}{others}", source.secret, target.name)
}

/// Fresh appears with the first sync; later it moves only when beats stay away for long, or come back.
fn set_fresh(status: &mut EnnoteSecretBindingStatus, freshness: Freshness, generation: i64, now: Timestamp) {
    if status.source.is_none() {
        return;
    }
    let (value, reason, message) = match freshness {
        Freshness::Fresh => ("True", "BeatsArrive", "the cloud confirms that nothing newer waits"),
        Freshness::Stale => {
            ("False", "StreamSilent", "no word from the cloud for 10 minutes; the Secret is kept as it is")
        }
        Freshness::Withheld => (
            "False",
            "Withheld",
            "the cloud counts more deliveries than arrive: something between the agent and Ennote keeps them back; \
             the Secret is kept as it is. Tell who runs the network",
        ),
        Freshness::Silent => return,
    };
    set(
        &mut status.conditions,
        Condition {
            type_: "Fresh".to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: Some(generation),
            last_transition_time: Time(now),
        },
    );
}

/// Replaces the condition of that type; the transition time moves only when its status flips.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Content;
    use crate::domain::reason::Problem;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn held(version: i64, written: Option<i64>) -> Outcome {
        Outcome::Synced(Box::new(Held {
            source: SourceStatus {
                organization: "o".into(),
                workspace: "w".into(),
                secret: "payments db".into(),
                version,
            },
            content: Content::from_text("c"),
            target: TargetStatus {
                name: "db".into(),
                uid: "u".into(),
                resource_version: "1".into(),
                keys: 2,
                version: Some(version),
                other_keys: vec![],
            },
            accepted: None,
            written_at: written.map(at),
            latency_millis: Some(5),
        }))
    }

    fn shown(status: &EnnoteSecretBindingStatus) -> Vec<String> {
        let mut rows: Vec<String> =
            status.conditions.iter().map(|c| format!("{}={}/{}", c.type_, c.status, c.reason)).collect();
        rows.sort();
        rows
    }

    #[test]
    fn every_reason_has_its_row_of_the_truth_table() {
        for reason in Reason::ALL {
            let outcome = if reason == Reason::Synced { held(1, Some(0)) } else { Problem::new(reason, "m").into() };
            let status = next(&EnnoteSecretBindingStatus::default(), &outcome, Freshness::Fresh, 4, at(0));
            let want: Vec<String> = match reason.phase() {
                Phase::Synced => {
                    let rows = vec![format!("Ready=True/{reason}"), format!("Synced=True/{reason}")];
                    // Fresh comes with the first Secret that is written.
                    let fresh = (reason == Reason::Synced).then(|| "Fresh=True/BeatsArrive".to_owned());
                    fresh.into_iter().chain(rows).collect()
                }
                Phase::Waiting => vec![
                    format!("Ready=Unknown/{reason}"),
                    format!("Reconciling=True/{reason}"),
                    format!("Synced=Unknown/{reason}"),
                ],
                Phase::Retrying => vec![
                    format!("Ready=False/{reason}"),
                    format!("Reconciling=True/{reason}"),
                    format!("Synced=False/{reason}"),
                ],
                Phase::Stalled => vec![
                    format!("Ready=False/{reason}"),
                    format!("Stalled=True/{reason}"),
                    format!("Synced=False/{reason}"),
                ],
            };
            assert_eq!(shown(&status), want);
            assert_eq!(status.observed_generation, Some(4));
            assert!(status.conditions.iter().all(|c| c.observed_generation == Some(4) && !c.message.is_empty()));
        }
    }

    #[test]
    fn an_idle_pass_changes_nothing() {
        let first = next(&EnnoteSecretBindingStatus::default(), &held(3, Some(0)), Freshness::Fresh, 1, at(0));
        assert_eq!(next(&first, &held(3, None), Freshness::Fresh, 1, at(60)), first);
        assert_eq!(next(&first, &Outcome::Unchanged, Freshness::Silent, 1, at(60)), first);
        let ready = find(&first, "Ready").unwrap();
        assert_eq!(ready.message, "version 3 of \"payments db\" is in Secret db (2 keys)");
    }

    #[test]
    fn a_spec_of_which_nothing_is_known_is_not_observed() {
        let first = next(&EnnoteSecretBindingStatus::default(), &held(3, Some(0)), Freshness::Fresh, 1, at(0));
        let second = next(&first, &Outcome::Unchanged, Freshness::Fresh, 2, at(1));
        assert_eq!((second.observed_generation, find(&second, "Ready").unwrap().status.as_str()), (Some(1), "True"));
        let third = next(&second, &held(3, None), Freshness::Fresh, 2, at(2));
        assert_eq!(third.observed_generation, Some(2));
    }

    #[test]
    fn a_silent_cloud_never_turns_a_binding_red() {
        let first = next(&EnnoteSecretBindingStatus::default(), &held(3, Some(0)), Freshness::Fresh, 1, at(0));
        let stale = next(&first, &Outcome::Unchanged, Freshness::Stale, 1, at(900));
        assert_eq!(shown(&stale), ["Fresh=False/StreamSilent", "Ready=True/Synced", "Synced=True/Synced"]);
        assert_eq!(next(&stale, &Outcome::Unchanged, Freshness::Stale, 1, at(1000)), stale, "written once");
    }

    #[test]
    fn a_suspended_binding_stays_as_it_was_and_awaits_nothing() {
        let none = EnnoteSecretBindingStatus::default();
        let suspend = |status: &_, t| next(status, &Outcome::Suspended, Freshness::Stale, 2, at(t));
        let fresh = suspend(&none, 0);
        assert_eq!((shown(&fresh), fresh.observed_generation), (vec!["Ready=True/Suspended".to_owned()], Some(2)));
        assert_eq!(suspend(&fresh, 9), fresh, "written once");
        let synced = next(&none, &held(3, Some(0)), Freshness::Fresh, 1, at(0));
        assert_eq!(suspend(&synced, 1), EnnoteSecretBindingStatus { observed_generation: Some(2), ..synced });
        for reason in Reason::ALL.into_iter().filter(|reason| reason.phase() != Phase::Synced) {
            let before = next(&none, &Problem::new(reason, "m").into(), Freshness::Fresh, 1, at(0));
            let after = shown(&suspend(&before, 1));
            let ready = match reason.phase() {
                Phase::Waiting | Phase::Retrying => "Ready=True/Suspended".to_owned(),
                _ => format!("Ready=False/{reason}"),
            };
            assert!(after.contains(&ready) && !after.iter().any(|row| row.starts_with("Reconciling")), "{after:?}");
            assert_eq!(after.contains(&format!("Stalled=True/{reason}")), reason.phase() == Phase::Stalled);
        }
    }

    #[test]
    fn a_forecast_is_ready_and_synced_only_if_nothing_would_change() {
        let foresee = |status: &_, equal| {
            let forecast = crate::domain::forecast::Forecast { equal, sentence: "s".into() };
            next(status, &Outcome::Foreseen(forecast), Freshness::Stale, 1, at(5))
        };
        let none = EnnoteSecretBindingStatus::default();
        assert_eq!(shown(&foresee(&none, false)), ["Ready=True/Observed", "Synced=False/Observed"]);
        let synced = next(&none, &held(3, Some(0)), Freshness::Fresh, 1, at(0));
        let equal = foresee(&synced, true);
        let rows = ["Fresh=False/StreamSilent", "Ready=True/Observed", "Synced=True/Observed"];
        assert_eq!(shown(&equal), rows, "a silent cloud turns nothing red here either");
        assert_eq!((&equal.source, &equal.content, &equal.target), (&synced.source, &synced.content, &synced.target));
    }

    #[test]
    fn a_pinned_version_and_an_acceptance_are_shown() {
        let Outcome::Synced(mut pinned) = held(7, Some(0)) else { unreachable!() };
        pinned.target.version = Some(3);
        pinned.accepted = Some("o/3".into());
        let status = next(&EnnoteSecretBindingStatus::default(), &Outcome::Synced(pinned), Freshness::Fresh, 1, at(0));
        let message = &find(&status, "Ready").unwrap().message;
        assert!(message.starts_with("version 3 of") && message.ends_with("version 7 has been seen"), "{message}");
        let kept = next(&status, &held(7, None), Freshness::Fresh, 1, at(1));
        assert_eq!(kept.last_handled.unwrap().accept.as_deref(), Some("o/3"));
    }

    #[test]
    fn a_banned_agent_stalls_its_bindings_and_says_that_the_secrets_are_still_synced() {
        let first = next(&EnnoteSecretBindingStatus::default(), &held(3, Some(0)), Freshness::Fresh, 1, at(0));
        let banned = next(&first, &Problem::new(Reason::Banned, "m").into(), Freshness::Silent, 1, at(9));
        let rows = ["Fresh=True/BeatsArrive", "Ready=False/Banned", "Stalled=True/Banned", "Synced=True/Synced"];
        assert_eq!(shown(&banned), rows);
        assert!(is_synced(&banned, 1) && !is_synced(&banned, 2));
        let restored = next(&banned, &Outcome::Restored, Freshness::Fresh, 1, at(20));
        assert_eq!(shown(&restored), shown(&first));
        assert_eq!(find(&restored, "Ready").unwrap().message, find(&first, "Ready").unwrap().message);
        let edited = next(&first, &Problem::new(Reason::Banned, "m").into(), Freshness::Silent, 2, at(9));
        assert!(shown(&edited).contains(&"Synced=False/Banned".to_owned()), "of another spec nothing is synced");
    }

    #[test]
    fn a_delivery_that_is_withheld_is_seen_in_fresh_alone() {
        let first = next(&EnnoteSecretBindingStatus::default(), &held(3, Some(0)), Freshness::Fresh, 1, at(0));
        let withheld = next(&first, &Outcome::Unchanged, Freshness::Withheld, 1, at(9));
        assert_eq!(shown(&withheld), ["Fresh=False/Withheld", "Ready=True/Synced", "Synced=True/Synced"]);
    }

    #[test]
    fn transition_time_moves_only_when_the_status_flips() {
        let waiting = |s: &EnnoteSecretBindingStatus, t| {
            next(s, &Problem::new(Reason::WaitingForCloud, "m").into(), Freshness::Fresh, 1, at(t))
        };
        let one = waiting(&EnnoteSecretBindingStatus::default(), 1);
        let two = next(&one, &Problem::new(Reason::WaitingForSecret, "n").into(), Freshness::Fresh, 1, at(2));
        assert_eq!(find(&two, "Ready").unwrap().last_transition_time, Time(at(1)));
        let three = next(&two, &held(1, Some(3)), Freshness::Fresh, 1, at(3));
        assert_eq!(find(&three, "Ready").unwrap().last_transition_time, Time(at(3)));
        let failed = next(&three, &Problem::new(Reason::Collision, "x").into(), Freshness::Fresh, 1, at(4));
        assert_eq!(failed.source, three.source, "a failure forgets nothing that was synced");
        assert_eq!(failed.last_sync_time, three.last_sync_time);
    }

    #[test]
    fn what_the_workload_controller_owns_is_left_out() {
        let old = EnnoteSecretBindingStatus {
            conditions: vec![Condition {
                type_: "RolledOut".into(),
                status: "True".into(),
                reason: "x".into(),
                message: String::new(),
                observed_generation: None,
                last_transition_time: Time(at(0)),
            }],
            rollouts: Some(vec![]),
            baselines: Some(Default::default()),
            ..Default::default()
        };
        let new = next(&old, &held(1, None), Freshness::Fresh, 1, at(1));
        assert!(find(&new, "RolledOut").is_none() && new.rollouts.is_none() && new.baselines.is_none());
    }
}
