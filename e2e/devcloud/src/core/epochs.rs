//! An epoch belongs to an agent key. Pure: what a ServiceAccount token that was shown before means, and what a new key does.

use super::alarms::Kind;
use crate::attestation::Attested;
use crate::store::{Agent, Founded, Shown};

/// Epochs that are remembered of an agent.
const REMEMBERED: usize = 16;
/// Agent keys that may show one token: the first, and five restarts of the container within the token's life.
const KEYS_PER_TOKEN: u32 = 6;
/// Epochs from two pods within the window that are no alarm yet.
const EPOCHS: usize = 3;

/// Tokens of one agent that are remembered at once. A pod shows four within a token's longest life.
const TOKENS: usize = 64;

/// Whether one more token can be remembered: else it could be shown again by another key, and nobody would notice.
pub(super) fn has_room(agent: &Agent, attested: &Attested, now_ms: i64) -> bool {
    let mut kept = agent.shown.iter().filter(|shown| remembered(shown, now_ms));
    agent.shown.iter().any(|shown| shown.id == attested.id) || kept.nth(TOKENS - 1).is_none()
}

fn remembered(shown: &Shown, now_ms: i64) -> bool {
    shown.expires_at_ms.saturating_add(LATE_MS) > now_ms
}

/// A token that another agent key has shown before. `live`: whether an epoch has an open stream.
///
/// # Errors
/// The alarm: it is refused.
pub(super) fn shown_by(
    agent: &Agent,
    attested: &Attested,
    key: &[u8; 32],
    live: impl Fn(u64) -> bool,
) -> Result<(), Kind> {
    match agent.shown.iter().find(|shown| shown.id == attested.id) {
        None => Ok(()),
        Some(shown) if shown.agent_key == *key => Ok(()),
        Some(shown) if live(shown.epoch) => Err(Kind::TokenReplayed),
        // Its container was restarted: the key was in memory, the token is in a file that outlives it.
        Some(shown) if shown.keys < KEYS_PER_TOKEN => Ok(()),
        Some(_) => Err(Kind::TokenShared),
    }
}

/// Remembers that this key of the agent's newest epoch has shown a token.
pub(super) fn remember(agent: &mut Agent, attested: &Attested, now_ms: i64) {
    agent.shown.retain(|shown| remembered(shown, now_ms));
    let (key, epoch) = (agent.agent_key, agent.epoch);
    match agent.shown.iter_mut().find(|shown| shown.id == attested.id) {
        Some(shown) if shown.agent_key == key => (),
        Some(shown) => {
            (shown.agent_key, shown.epoch, shown.keys) = (key, epoch, shown.keys.saturating_add(1));
        }
        None => agent.shown.push(Shown {
            id: attested.id.clone(),
            agent_key: key,
            epoch,
            keys: 1,
            expires_at_ms: attested.expires_at_ms,
        }),
    }
}

/// Tokens are taken a little after their end; they are remembered for longer than that. In milliseconds.
const LATE_MS: i64 = 60_000;

/// Whether the key belongs to an epoch before the newest.
pub(super) fn superseded(agent: &Agent, key: &[u8; 32]) -> bool {
    agent.agent_key != *key && agent.founded.iter().any(|founded| founded.agent_key == *key)
}

/// Whether a key that comes back was founded in the pod of the newest epoch. A container that restarts has lost its key, so
/// one pod never has two: one of them is another process with a copy of the pod's token.
pub(super) fn of_one_pod(agent: &Agent, key: &[u8; 32]) -> bool {
    let pod = |key: &[u8; 32]| {
        let founded = agent.founded.iter().rev().find(|founded| founded.agent_key == *key);
        founded.and_then(|founded| founded.pod_uid.as_deref())
    };
    superseded(agent, key) && pod(key).is_some_and(|of| pod(&agent.agent_key) == Some(of))
}

/// Makes the key the agent's: a new one founds the next epoch, and the tokens of the one before are void. Says whether two
/// pods take turns: more than three epochs within `window_ms`.
pub(super) fn found(agent: &mut Agent, key: [u8; 32], pod_uid: Option<String>, now_ms: i64, window_ms: i64) -> bool {
    if agent.epoch > 0 && agent.agent_key == key {
        return false;
    }
    agent.epoch += 1;
    agent.agent_key = key;
    agent.tokens.clear();
    let surplus = (agent.founded.len() + 1).saturating_sub(REMEMBERED);
    agent.founded.drain(..surplus);
    agent.founded.push(Founded { epoch: agent.epoch, agent_key: key, pod_uid, at_ms: now_ms });
    let recent = agent.founded.iter().filter(|founded| founded.at_ms > now_ms.saturating_sub(window_ms));
    let mut pods: Vec<&str> = recent.filter_map(|founded| founded.pod_uid.as_deref()).collect();
    let epochs = pods.len();
    pods.sort_unstable();
    pods.dedup();
    epochs > EPOCHS && pods.len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Agent {
        serde_json::from_value(serde_json::json!({
            "id": "agt_1", "name": "a", "workspace": "w", "namespaces": [], "grants": [], "epoch": 0,
            "agent_key": vec![0; 32], "tokens": [], "build": "", "created_at_ms": 0, "joined_at_ms": 0, "revoked": false,
        }))
        .unwrap()
    }

    fn token(id: &str) -> Attested {
        Attested {
            issuer: "i".into(),
            subject: "s".into(),
            namespace: "n".into(),
            service_account: "a".into(),
            uid: "u".into(),
            pod_uid: "p".into(),
            id: id.into(),
            expires_at_ms: 600_000,
        }
    }

    #[test]
    fn a_token_shown_by_another_key_is_a_theft_while_the_first_lives_and_a_restart_else() {
        let mut agent = agent();
        let (owner, thief) = ([1; 32], [9; 32]);
        assert_eq!(shown_by(&agent, &token("t"), &owner, |_| true), Ok(()));
        found(&mut agent, owner, None, 0, 1);
        remember(&mut agent, &token("t"), 0);
        remember(&mut agent, &token("t"), 0);
        assert_eq!(shown_by(&agent, &token("t"), &owner, |_| true), Ok(()), "its own key may repeat it");
        assert_eq!(shown_by(&agent, &token("t"), &thief, |epoch| epoch == 1), Err(Kind::TokenReplayed));
        assert_eq!(shown_by(&agent, &token("other"), &thief, |_| true), Ok(()));
        for restart in 2..=6 {
            let key = [restart; 32];
            assert_eq!(shown_by(&agent, &token("t"), &key, |epoch| epoch != agent.epoch), Ok(()), "{restart}");
            found(&mut agent, key, None, 0, 1);
            remember(&mut agent, &token("t"), 0);
        }
        assert_eq!(shown_by(&agent, &token("t"), &[7; 32], |_| false), Err(Kind::TokenShared));
        remember(&mut agent, &token("next"), 600_000 + LATE_MS);
        assert_eq!(agent.shown.iter().map(|shown| shown.id.as_str()).collect::<Vec<_>>(), ["next"]);
    }

    #[test]
    fn at_most_64_tokens_are_remembered_and_one_more_is_not_taken_until_one_has_run_out() {
        let mut agent = agent();
        found(&mut agent, [1; 32], None, 0, 1);
        for n in 0..TOKENS {
            assert!(has_room(&agent, &token(&n.to_string()), 0), "{n}");
            remember(&mut agent, &token(&n.to_string()), 0);
        }
        assert!(!has_room(&agent, &token("more"), 0));
        assert!(has_room(&agent, &token("0"), 0), "one that is remembered");
        assert!(has_room(&agent, &token("more"), 600_000 + LATE_MS));
    }

    #[test]
    fn a_key_that_comes_back_beside_another_of_its_pod_is_a_second_process_of_it() {
        let mut agent = agent();
        let pod = |name: &str| Some(name.to_owned());
        found(&mut agent, [1; 32], pod("a"), 0, 1);
        found(&mut agent, [2; 32], None, 0, 1);
        assert!(!of_one_pod(&agent, &[1; 32]), "founded without a pod");
        found(&mut agent, [3; 32], pod("b"), 0, 1);
        assert!(!of_one_pod(&agent, &[1; 32]), "a standby in another pod");
        found(&mut agent, [4; 32], pod("a"), 0, 1);
        assert!(of_one_pod(&agent, &[1; 32]));
        assert!(!of_one_pod(&agent, &[4; 32]) && !of_one_pod(&agent, &[5; 32]), "the newest, and a new one");
    }

    #[test]
    fn a_new_key_founds_the_next_epoch_and_pods_that_take_turns_are_noticed() {
        let mut agent = agent();
        let pod = |name: &str| Some(name.to_owned());
        assert!(!found(&mut agent, [1; 32], pod("a"), 0, 100));
        assert!(!found(&mut agent, [1; 32], pod("a"), 1, 100));
        assert_eq!((agent.epoch, superseded(&agent, &[1; 32])), (1, false), "the same key keeps its epoch");
        assert!(!found(&mut agent, [2; 32], pod("b"), 2, 100));
        assert!(superseded(&agent, &[1; 32]) && !superseded(&agent, &[2; 32]) && !superseded(&agent, &[3; 32]));
        assert!(!found(&mut agent, [3; 32], pod("a"), 3, 100));
        assert!(found(&mut agent, [4; 32], pod("b"), 4, 100), "the fourth within the window");
        assert!(!found(&mut agent, [5; 32], pod("a"), 102, 100), "the first ones are long ago");
        let mut restarting = self::agent();
        assert!((1..20).all(|n| !found(&mut restarting, [n; 32], pod("a"), 0, 100)), "one pod that restarts");
        assert_eq!((restarting.epoch, restarting.founded.len()), (19, REMEMBERED));
    }
}
