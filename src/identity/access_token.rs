//! The access token and when it is renewed.

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
            .finish_non_exhaustive()
    }
}

/// How long after receipt a token is renewed: half its life, moved by at most a tenth of that either way, so that agents
/// that started together do not renew together. `spread` is uniform in 0..=1.
pub fn renew_after(lives: Duration, spread: f64) -> Duration {
    lives.mul_f64(0.45 + 0.1 * spread.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_half_life_give_or_take_45_seconds_of_900() {
        let life = Duration::from_secs(900);
        assert_eq!(renew_after(life, 0.5), Duration::from_secs(450));
        assert_eq!(renew_after(life, 0.0), Duration::from_secs(405));
        assert_eq!(renew_after(life, 1.0), Duration::from_secs(495));
        assert!(renew_after(Duration::from_secs(2), 7.0) < Duration::from_secs(2));
    }
}
