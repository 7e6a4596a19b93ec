//! The access token and when it is renewed.

use crate::crypto::suite::Suite;
use crate::domain::moment::Moment;
use crate::identity::trust::Keyset;
use std::fmt;
use std::time::Duration;
use zeroize::Zeroizing;

/// What a join or a renewal gives: the right to open streams, together with the key, for a while.
#[derive(Clone)]
pub struct Identity {
    /// Given by the cloud at the first join.
    pub agent_id: String,
    /// The organization of the agent.
    pub organization: String,
    /// The agent's own workspace.
    pub workspace: String,
    /// Belongs to the key.
    pub epoch: u64,
    /// Of the join: that of the session keys of every stream opened with the token.
    pub suite: Suite,
    /// Opaque.
    pub access_token: Zeroizing<Vec<u8>>,
    /// Life of the token from the moment it was received.
    pub lives: Duration,
    /// Signed by the cloud, Unix milliseconds.
    pub server_time_ms: i64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("agent_id", &self.agent_id)
            .field("organization", &self.organization)
            .field("epoch", &self.epoch)
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// An identity, the keys that count with it, and when it was received.
pub struct Session {
    /// Who we are.
    pub identity: Identity,
    /// The keys that count.
    pub keyset: Keyset,
    /// When the access token came.
    pub received: Moment,
}

impl Session {
    /// Whether the access token opens nothing any more.
    pub fn is_over(&self, now: Moment) -> bool {
        now.since(self.received) >= self.identity.lives
    }

    /// How long from `now` until the token is to be renewed: by the age of the token, not of a stream, so one that is opened
    /// with more than half of the token's life gone renews at once.
    pub fn renews_in(&self, now: Moment, spread: f64) -> Duration {
        renew_after(self.identity.lives, spread).saturating_sub(now.since(self.received))
    }
}

/// How long after receipt a token is renewed: half its life, moved by at most a tenth of that either way, so that agents
/// that started together do not renew together. `spread` is uniform in 0..=1.
fn renew_after(lives: Duration, spread: f64) -> Duration {
    lives.mul_f64(0.45 + 0.1 * spread.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(lives: u64) -> Session {
        let identity = Identity {
            agent_id: "a".into(),
            organization: "o".into(),
            workspace: "w".into(),
            epoch: 1,
            suite: Suite::A,
            access_token: Zeroizing::new(b"canary".to_vec()),
            lives: Duration::from_secs(lives),
            server_time_ms: 0,
        };
        Session { identity, keyset: Keyset::default(), received: at(100) }
    }

    fn at(second: u64) -> Moment {
        Moment::default().after(Duration::from_secs(second))
    }

    #[test]
    fn a_token_is_renewed_at_half_life_give_or_take_45_seconds_of_900() {
        let session = session(900);
        let due = |now, spread| session.renews_in(at(now), spread).as_secs();
        assert_eq!((due(100, 0.0), due(100, 0.5), due(100, 1.0)), (405, 450, 495));
        assert_eq!((due(540, 0.5), due(551, 0.5), due(9000, 0.5)), (10, 0, 0), "by the age of the token");
        assert!(due(0, 7.0) < 900);
    }

    #[test]
    fn a_token_is_over_at_the_end_of_its_life_by_our_own_clock() {
        let session = session(900);
        assert!(!session.is_over(at(999)) && session.is_over(at(1000)));
    }

    #[test]
    fn an_identity_does_not_show_its_token() {
        let shown = format!("{:?}", session(1).identity);
        assert!(shown.contains("agent_id") && !shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
    }
}
