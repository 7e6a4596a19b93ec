//! Begin and the cryptographic half of Finish: a challenge is made for one hello and one place, and is used once.

use super::{Core, Refusal};
use crate::envelope;
use crate::signed::{self, Label, hash};
use crate::suite::Suite;
use crate::{clock, entropy, wire};
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Begin costs its caller nothing, so what it leaves here is bounded.
const MAX_PENDING: usize = 10_000;
const MAX_BUILD: usize = 200;

/// A challenge that waits for its Finish.
pub struct Begun {
    challenge_id: [u8; 16],
    agent_key: [u8; 32],
    build: String,
    suite: Suite,
    /// The SEAL key that the challenge names.
    seal_id: [u8; 32],
    /// Of the keyset that the challenge stands under.
    evictions: u64,
    t: [u8; 64],
    expires_at_ms: i64,
}

/// An answered challenge: whoever sent it holds the key, and this is what it has to show.
pub struct Proven {
    /// The agent's public key.
    pub agent_key: [u8; 32],
    /// What it calls itself.
    pub build: String,
    /// What the challenge chose.
    pub suite: Suite,
    /// How many keys had been dropped when it was made.
    pub evictions: u64,
    /// H(hello) || H(challenge body).
    pub t: [u8; 64],
    /// The bootstrap token's text; empty: none.
    pub bootstrap_token: Zeroizing<String>,
    /// The ServiceAccount token; empty: none.
    pub sa_token: Zeroizing<String>,
    /// The cluster's JSON Web Key Set, as the agent reports it; empty: none.
    pub jwks: Vec<u8>,
}

/// Challenges of unary joins. Those of renewals stay with their stream.
#[derive(Default)]
pub(super) struct Challenges(Mutex<Pending>);

/// In the order in which they were made.
#[derive(Default)]
struct Pending {
    made: u64,
    by_age: BTreeMap<u64, Begun>,
    ages: HashMap<[u8; 16], u64>,
}

impl Challenges {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where there is no room the oldest goes: who begins and does not finish keeps nobody out that answers at once.
    pub(super) fn keep(&self, begun: Begun, now_ms: i64) {
        let mut pending = self.lock();
        let Pending { made, by_age, ages } = &mut *pending;
        while let Some(oldest) = by_age.first_entry()
            && (ages.len() >= MAX_PENDING || oldest.get().expires_at_ms <= now_ms)
        {
            ages.remove(&oldest.remove().challenge_id);
        }
        *made += 1;
        ages.insert(begun.challenge_id, *made);
        by_age.insert(*made, begun);
    }

    /// Out, whatever comes of it: a challenge is used once.
    pub(super) fn take(&self, challenge_id: &[u8]) -> Result<Begun, Refusal> {
        let id = <[u8; 16]>::try_from(challenge_id).map_err(|_| Refusal::Challenge)?;
        let mut pending = self.lock();
        let age = pending.ages.remove(&id).ok_or(Refusal::Challenge)?;
        pending.by_age.remove(&age).ok_or(Refusal::Challenge)
    }
}

impl Core {
    /// Answers a hello. The challenge is signed over its hash, so the answer is fresh and the suite final.
    ///
    /// # Errors
    /// `Malformed`, `Suite`.
    pub fn challenge(
        &self,
        request: &wire::BeginRequest,
        now_ms: i64,
    ) -> Result<(Begun, wire::BeginResponse), Refusal> {
        let hello = wire::Hello::decode(request.hello.as_slice())
            .map_err(|_| Refusal::Malformed("the hello does not decode"))?;
        let agent_key = <[u8; 32]>::try_from(hello.agent_public_key.as_slice())
            .map_err(|_| Refusal::Malformed("agent_public_key has to have 32 bytes"))?;
        if hello.client_nonce.len() != 32 {
            return Err(Refusal::Malformed("client_nonce has to have 32 bytes"));
        }
        if hello.build.len() > MAX_BUILD {
            return Err(Refusal::Malformed("build has more than 200 bytes"));
        }
        let keys = self.keys();
        // The first of the agent's that we have too. The challenge is signed over the whole offer, so nobody between lowers it.
        let ours = |number: &i32| self.suites.iter().copied().find(|suite| suite.on_wire() as i32 == *number);
        let chosen = hello.suites.iter().filter_map(ours).find_map(|suite| keys.seal(suite));
        let chosen = chosen.ok_or(Refusal::Suite)?;
        let challenge_id: [u8; 16] = entropy::bytes();
        let hello_hash = hash(&[&request.hello]);
        let challenge = wire::Challenge {
            hello_hash: hello_hash.to_vec(),
            challenge_id: challenge_id.to_vec(),
            server_time_ms: now_ms,
            suite: chosen.suite.on_wire() as i32,
            seal_key_id: chosen.id.to_vec(),
        };
        let challenge = signed::sign(&keys.join, Label::Challenge, challenge.encode_to_vec());
        let begun = Begun {
            challenge_id,
            agent_key,
            build: hello.build,
            suite: chosen.suite,
            seal_id: chosen.id,
            evictions: keys.evictions,
            t: transcript(&hello_hash, &challenge.body),
            expires_at_ms: now_ms.saturating_add(clock::millis(self.lives.challenge_life)),
        };
        let answer = wire::BeginResponse {
            root_public_key: keys.root_public.to_vec(),
            keyset: Some(keys.keyset.clone()),
            challenge: Some(challenge),
        };
        let answer = match self.faults.of_joins() {
            None => answer,
            Some(fault) => fault.answer(answer, &self.root, &keys.join, &keys.payload),
        };
        Ok((begun, answer))
    }

    /// Checks that the challenge was answered in time by the key it was made for, and opens the credential.
    ///
    /// # Errors
    /// `Challenge`, `Malformed`.
    pub fn prove(&self, begun: Begun, finish: &wire::FinishRequest, now_ms: i64) -> Result<Proven, Refusal> {
        if finish.challenge_id != begun.challenge_id || now_ms >= begun.expires_at_ms {
            return Err(Refusal::Challenge);
        }
        let sealed = hash(&[&finish.enc, &finish.sealed]);
        signed::verify(&begun.agent_key, Label::Prove, &[&begun.t, &sealed], &finish.signature)
            .map_err(|_| Refusal::Challenge)?;
        let keys = self.keys();
        let private = &keys.seal_of(&begun.seal_id).ok_or(Refusal::Challenge)?.private;
        let plain = envelope::open_credential(begun.suite, private, &begun.t, &finish.enc, &finish.sealed);
        let plain = plain.map_err(|_| Refusal::Malformed("the credential does not open"))?;
        let mut credential = wire::Credential::decode(plain.as_slice())
            .map_err(|_| Refusal::Malformed("the credential does not decode"))?;
        Ok(Proven {
            agent_key: begun.agent_key,
            build: begun.build,
            suite: begun.suite,
            evictions: begun.evictions,
            t: begun.t,
            bootstrap_token: Zeroizing::new(std::mem::take(&mut credential.bootstrap_token)),
            sa_token: Zeroizing::new(std::mem::take(&mut credential.sa_token)),
            jwks: std::mem::take(&mut credential.jwks),
        })
    }
}

impl Begun {
    /// The agent key that has to answer.
    pub fn agent_key(&self) -> &[u8; 32] {
        &self.agent_key
    }
}

/// t = H(hello) || H(challenge body).
fn transcript(hello_hash: &[u8; 32], challenge_body: &[u8]) -> [u8; 64] {
    let mut t = [0; 64];
    t[..32].copy_from_slice(hello_hash);
    t[32..].copy_from_slice(&hash(&[challenge_body]));
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(n: u64, expires_at_ms: i64) -> Begun {
        let mut challenge_id = [0; 16];
        challenge_id[..8].copy_from_slice(&n.to_be_bytes());
        Begun {
            challenge_id,
            agent_key: [0; 32],
            build: String::new(),
            suite: Suite::A,
            seal_id: [0; 32],
            evictions: 0,
            t: [0; 64],
            expires_at_ms,
        }
    }

    #[test]
    fn a_crowd_that_only_begins_keeps_nobody_out_and_fills_no_memory() {
        let challenges = Challenges::default();
        let known = |n: u64| challenges.take(&begun(n, 0).challenge_id).is_ok();
        let crowd = MAX_PENDING as u64;
        (0..=crowd).for_each(|n| challenges.keep(begun(n, 100), 0));
        assert!(!known(0), "the oldest");
        assert!(known(crowd) && !known(crowd), "the newest, once");
        assert!(known(1));
        challenges.keep(begun(0, 300), 100);
        let pending = challenges.lock();
        assert_eq!((pending.ages.len(), pending.by_age.len()), (1, 1), "what has run out");
    }
}
