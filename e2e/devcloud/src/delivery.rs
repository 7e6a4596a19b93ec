//! What one stream wants and what it may get next. Pure: the caller looks secrets up and sends.
//!
//! Guarantees: one answer at a time per want; newest only, so a burst collapses; every payload spends one session key, and
//! without a key, or with 8 MiB unanswered, none goes out; a denied want stays standing and is not told the same twice.

use crate::suite::Suite;
use crate::wire;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// Session keys unspent at most.
pub const MAX_KEYS: usize = 32;
/// Wants in one ask at most.
pub const MAX_WANTS_IN_ASK: usize = 500;
/// Payload bytes that may wait for their want to be sent again. One delivery always passes.
pub const MAX_UNANSWERED: usize = 8 * 1024 * 1024;
/// Bytes of each text of a want: so that a header always fits beside its payload.
const MAX_TEXT: usize = 1024;
/// Wants that one stream may hold.
const MAX_WANTS: usize = 50_000;
/// Ids of wants that were taken back on one stream, and may not come again.
const MAX_RETIRED: usize = 100_000;

/// An ask that breaks the rules; the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAsk {
    /// Not the next number.
    Sequence,
    /// Anything else.
    Malformed(&'static str),
    /// More was taken back on this stream than is remembered. No fault of the agent: it opens another.
    Spent,
}

/// A want, its workspace resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Never used again on this stream.
    pub id: u64,
    /// Of the binding.
    pub namespace: String,
    /// Of the binding.
    pub binding: String,
    /// Of the binding.
    pub binding_uid: String,
    /// Never empty.
    pub workspace: String,
    /// Name.
    pub secret: String,
    /// 0: the newest.
    pub pin: u64,
}

/// What the core has for a want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<P> {
    /// Nothing to say now.
    Nothing,
    /// Why not.
    Denied(wire::denied::Reason),
    /// A tombstone.
    Gone(P),
    /// A payload of this many bytes.
    Payload(P, usize),
}

/// What to send next.
#[derive(Debug)]
pub enum Answer<P> {
    /// Unsigned.
    Denied(Wanted, wire::denied::Reason),
    /// Signed.
    Gone(Wanted, P),
    /// Sealed to this key.
    Sealed(Wanted, P, wire::SessionKey),
}

/// The state of a stream's wants and keys.
pub struct Delivery {
    own_workspace: String,
    suite: Suite,
    seq: u64,
    wants: HashMap<u64, Standing>,
    retired: HashSet<u64>,
    by_source: HashMap<(String, String), BTreeSet<u64>>,
    due: VecDeque<u64>,
    /// Payloads that wait for a key or for room, with the size last seen.
    waiting: VecDeque<(u64, usize)>,
    keys: BTreeMap<u64, Vec<u8>>,
    last_key: u64,
    unanswered: usize,
}

struct Standing {
    wanted: Wanted,
    known_version: u64,
    resting: bool,
    queued: bool,
    denied: Option<wire::denied::Reason>,
    in_flight: usize,
}

impl Delivery {
    /// A stream that has said nothing yet.
    pub fn new(own_workspace: String, suite: Suite) -> Self {
        Self {
            own_workspace,
            suite,
            seq: 0,
            wants: HashMap::new(),
            retired: HashSet::new(),
            by_source: HashMap::new(),
            due: VecDeque::new(),
            waiting: VecDeque::new(),
            keys: BTreeMap::new(),
            last_key: 0,
            unanswered: 0,
        }
    }

    /// The last ask processed.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Wants held.
    pub fn wants(&self) -> usize {
        self.wants.len()
    }

    /// A want that is held, and its known_version.
    pub fn standing(&self, id: u64) -> Option<(&Wanted, u64)> {
        self.wants.get(&id).map(|standing| (&standing.wanted, standing.known_version))
    }

    /// Whether an ask has wants that are not held yet: a declaration, where others acknowledge or offer keys.
    pub fn declares(&self, ask: &wire::Ask) -> bool {
        ask.wants.iter().any(|want| !self.wants.contains_key(&want.id))
    }

    /// Takes an ask: keys, then unwants, then wants.
    ///
    /// # Errors
    /// [`BadAsk`].
    pub fn ask(&mut self, ask: wire::Ask) -> Result<(), BadAsk> {
        if ask.seq != self.seq + 1 {
            return Err(BadAsk::Sequence);
        }
        if ask.wants.len() > MAX_WANTS_IN_ASK {
            return Err(BadAsk::Malformed("an ask holds at most 500 wants"));
        }
        if self.keys.len() + ask.keys.len() > MAX_KEYS {
            return Err(BadAsk::Malformed("at most 32 session keys may be unspent"));
        }
        for key in ask.keys {
            if key.index <= self.last_key {
                return Err(BadAsk::Malformed("indices of session keys count up and are never used again"));
            }
            if key.public_key.len() != self.suite.public_key_length() {
                return Err(BadAsk::Malformed("a session key has the length that its stream's suite says"));
            }
            self.last_key = key.index;
            self.keys.insert(key.index, key.public_key);
        }
        for id in ask.unwants {
            self.unwant(id);
        }
        if self.retired.len() > MAX_RETIRED {
            return Err(BadAsk::Spent);
        }
        for want in ask.wants {
            self.want(want)?;
        }
        self.seq = ask.seq;
        Ok(())
    }

    /// A version or tombstone of a secret was committed.
    pub fn secret_changed(&mut self, workspace: &str, secret: &str) {
        let ids = self.by_source.get(&(workspace.to_owned(), secret.to_owned())).cloned().unwrap_or_default();
        ids.into_iter().for_each(|id| self.look_again(id));
    }

    /// Anything may have changed: grants, or more news than could be kept.
    pub fn everything_changed(&mut self) {
        let ids: Vec<u64> = self.wants.keys().copied().collect();
        ids.into_iter().for_each(|id| self.look_again(id));
    }

    /// Whether [`Delivery::next`] has anything to look at.
    pub fn has_work(&self) -> bool {
        !self.due.is_empty() || self.waiting.front().is_some_and(|(_, size)| !self.keys.is_empty() && self.fits(*size))
    }

    /// The next answer, if there is one. `look` says what the core has for a want above a known version.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn next<P, E>(
        &mut self,
        mut look: impl FnMut(&Wanted, u64) -> Result<Found<P>, E>,
    ) -> Result<Option<Answer<P>>, E> {
        while self.has_work() {
            let waiting = self.due.is_empty().then(|| self.waiting.pop_front().map(|(id, _)| id)).flatten();
            let Some(id) = waiting.or_else(|| self.due.pop_front()) else { break };
            let Some(standing) = self.wants.get_mut(&id) else { continue };
            standing.queued = false;
            if standing.resting {
                continue;
            }
            match look(&standing.wanted, standing.known_version)? {
                Found::Nothing => (),
                Found::Denied(reason) if standing.denied == Some(reason) => (),
                Found::Denied(reason) => {
                    standing.denied = Some(reason);
                    return Ok(Some(Answer::Denied(standing.wanted.clone(), reason)));
                }
                Found::Gone(tombstone) => {
                    (standing.resting, standing.denied) = (true, None);
                    return Ok(Some(Answer::Gone(standing.wanted.clone(), tombstone)));
                }
                Found::Payload(payload, size) => {
                    if let Some(answer) = self.spend(id, payload, size) {
                        return Ok(Some(answer));
                    }
                }
            }
        }
        Ok(None)
    }

    fn spend<P>(&mut self, id: u64, payload: P, size: usize) -> Option<Answer<P>> {
        let fits = self.fits(size);
        let standing = self.wants.get_mut(&id)?;
        let Some((index, public_key)) = fits.then(|| self.keys.pop_first()).flatten() else {
            standing.queued = true;
            self.waiting.push_back((id, size));
            return None;
        };
        (standing.resting, standing.denied, standing.in_flight) = (true, None, size);
        self.unanswered += size;
        Some(Answer::Sealed(standing.wanted.clone(), payload, wire::SessionKey { index, public_key }))
    }

    fn fits(&self, size: usize) -> bool {
        self.unanswered == 0 || self.unanswered + size <= MAX_UNANSWERED
    }

    fn look_again(&mut self, id: u64) {
        let Some(standing) = self.wants.get_mut(&id) else { return };
        if !standing.resting && !standing.queued {
            standing.queued = true;
            self.due.push_back(id);
        }
    }

    fn want(&mut self, want: wire::Want) -> Result<(), BadAsk> {
        let texts = [&want.namespace, &want.binding, &want.binding_uid, &want.workspace, &want.secret];
        if texts.into_iter().any(|text| text.len() > MAX_TEXT) {
            return Err(BadAsk::Malformed("a text of a want has at most 1024 bytes"));
        }
        let known_version = want.known_version;
        let workspace = if want.workspace.is_empty() { self.own_workspace.clone() } else { want.workspace };
        let wanted = Wanted {
            id: want.id,
            namespace: want.namespace,
            binding: want.binding,
            binding_uid: want.binding_uid,
            workspace,
            secret: want.secret,
            pin: want.pin,
        };
        let id = wanted.id;
        let full = self.wants.len() >= MAX_WANTS;
        match self.wants.get_mut(&id) {
            Some(standing) if standing.wanted == wanted => {
                self.unanswered -= std::mem::take(&mut standing.in_flight);
                (standing.known_version, standing.resting, standing.denied) = (known_version, false, None);
            }
            Some(_) => return Err(BadAsk::Malformed("only known_version may change under the id of a want")),
            None if self.retired.contains(&id) => return Err(BadAsk::Malformed("ids of wants are never used again")),
            None if full => return Err(BadAsk::Malformed("too many wants on one stream")),
            None => {
                self.by_source.entry((wanted.workspace.clone(), wanted.secret.clone())).or_default().insert(id);
                let standing =
                    Standing { wanted, known_version, resting: false, queued: false, denied: None, in_flight: 0 };
                self.wants.insert(id, standing);
            }
        }
        self.look_again(id);
        Ok(())
    }

    fn unwant(&mut self, id: u64) {
        let Some(standing) = self.wants.remove(&id) else { return };
        self.unanswered -= standing.in_flight;
        self.retired.insert(id);
        let source = (standing.wanted.workspace, standing.wanted.secret);
        if let Some(ids) = self.by_source.get_mut(&source) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use wire::denied::Reason;

    const MIB: usize = 1024 * 1024;

    struct Bench {
        delivery: Delivery,
        /// Newest version and size by secret name; absent: NO_SECRET.
        secrets: HashMap<&'static str, (u64, usize)>,
        seq: u64,
        next_key: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { delivery: Delivery::new("own".into(), Suite::A), secrets: HashMap::new(), seq: 0, next_key: 0 }
        }

        fn put(&mut self, secret: &'static str, version: u64, size: usize) {
            self.secrets.insert(secret, (version, size));
            self.delivery.secret_changed("own", secret);
        }

        fn ask(&mut self, keys: usize, wants: &[(u64, &str, u64)]) -> Result<(), BadAsk> {
            self.seq += 1;
            let keys = (0..keys).map(|_| {
                self.next_key += 1;
                wire::SessionKey { index: self.next_key, public_key: vec![0; 32] }
            });
            let keys = keys.collect();
            let wants = wants.iter().map(|(id, secret, known_version)| wire::Want {
                id: *id,
                secret: (*secret).into(),
                known_version: *known_version,
                ..Default::default()
            });
            self.delivery.ask(wire::Ask { seq: self.seq, keys, wants: wants.collect(), ..Default::default() })
        }

        /// Everything that goes out now, as text.
        fn out(&mut self) -> Vec<String> {
            let mut out = Vec::new();
            while let Some(answer) = {
                let secrets = &self.secrets;
                let look = |wanted: &Wanted, known: u64| {
                    Ok::<_, Infallible>(match secrets.get(wanted.secret.as_str()) {
                        None => Found::Denied(Reason::NoSecret),
                        Some((version, _)) if known >= *version => Found::Nothing,
                        Some((version, 0)) => Found::Gone(*version),
                        Some((version, size)) => Found::Payload(*version, *size),
                    })
                };
                self.delivery.next(look).unwrap()
            } {
                out.push(match answer {
                    Answer::Denied(wanted, _) => format!("{} denied", wanted.id),
                    Answer::Gone(wanted, version) => format!("{} gone@{version}", wanted.id),
                    Answer::Sealed(wanted, version, key) => format!("{} v{version} k{}", wanted.id, key.index),
                });
            }
            assert!(!self.delivery.has_work());
            out
        }
    }

    #[test]
    fn a_burst_collapses_to_the_newest_and_an_answered_want_rests_until_it_is_sent_again() {
        let mut bench = Bench::new();
        bench.ask(3, &[(1, "a", 0)]).unwrap();
        assert_eq!(bench.out(), ["1 denied"]);
        bench.put("a", 1, 10);
        bench.put("a", 2, 10);
        assert_eq!(bench.out(), ["1 v2 k1"]);
        (3..20).for_each(|version| bench.put("a", version, 10));
        assert!(bench.out().is_empty(), "it rests");
        bench.ask(0, &[(1, "a", 2)]).unwrap();
        assert_eq!(bench.out(), ["1 v19 k2"]);
        bench.ask(0, &[(1, "a", 2)]).unwrap();
        assert_eq!(bench.out(), ["1 v19 k3"], "unchanged known_version: not taken, so it is sent again");
    }

    #[test]
    fn what_a_stream_has_taken_back_is_remembered_up_to_a_bound() {
        let mut bench = Bench::new();
        let mut ends = None;
        for round in 0..=MAX_RETIRED as u64 / 500 {
            let ids: Vec<u64> = (round * 500..(round + 1) * 500).collect();
            bench.ask(0, &ids.iter().map(|id| (*id, "a", 0)).collect::<Vec<_>>()).unwrap();
            bench.seq += 1;
            let unwant = wire::Ask { seq: bench.seq, unwants: ids, ..Default::default() };
            ends = bench.delivery.ask(unwant).err();
        }
        assert_eq!(ends, Some(BadAsk::Spent));
        assert!(bench.delivery.due.len() <= MAX_RETIRED + MAX_WANTS_IN_ASK, "nor does a queue grow beside it");
    }

    #[test]
    fn without_a_key_no_payload_goes_out_but_denials_and_tombstones_do() {
        let mut bench = Bench::new();
        bench.secrets = HashMap::from([("a", (1, 10)), ("b", (1, 10)), ("dead", (4, 0))]);
        bench.ask(1, &[(1, "a", 0), (2, "b", 0), (3, "none", 0), (4, "dead", 3)]).unwrap();
        assert_eq!(bench.out(), ["1 v1 k1", "3 denied", "4 gone@4"]);
        bench.put("b", 2, 10);
        assert!(bench.out().is_empty());
        bench.ask(1, &[]).unwrap();
        assert_eq!(bench.out(), ["2 v2 k2"]);
    }

    #[test]
    fn eight_mebibytes_may_be_unanswered_and_one_delivery_always_passes() {
        let mut bench = Bench::new();
        bench.secrets = HashMap::from([("huge", (1, 9 * MIB)), ("a", (1, MIB)), ("b", (1, 8 * MIB))]);
        bench.ask(10, &[(1, "huge", 0), (2, "a", 0), (3, "b", 0)]).unwrap();
        assert_eq!(bench.out(), ["1 v1 k1"], "alone it passes, and then nothing else");
        bench.ask(0, &[(1, "huge", 1)]).unwrap();
        assert_eq!(bench.out(), ["2 v1 k2"]);
        let ask = wire::Ask { seq: 3, unwants: vec![2], ..Default::default() };
        bench.delivery.ask(ask).unwrap();
        assert_eq!(bench.out(), ["3 v1 k3"], "an unwant answers as well");
    }

    #[test]
    fn a_denial_is_told_once_and_again_when_asked_again() {
        let mut bench = Bench::new();
        bench.ask(1, &[(1, "a", 0)]).unwrap();
        assert_eq!(bench.out(), ["1 denied"]);
        bench.delivery.everything_changed();
        assert!(bench.out().is_empty());
        bench.ask(0, &[(1, "a", 0)]).unwrap();
        assert_eq!(bench.out(), ["1 denied"]);
    }

    #[test]
    fn an_ask_against_the_rules_is_refused() {
        let malformed = |result: Result<(), BadAsk>| matches!(result, Err(BadAsk::Malformed(_)));
        let mut bench = Bench::new();
        bench.ask(32, &[(1, "a", 0)]).unwrap();
        assert!(malformed(bench.ask(1, &[])), "a 33rd key");
        let mut bench = Bench::new();
        bench.ask(0, &[(1, "a", 0)]).unwrap();
        assert!(malformed(bench.ask(0, &[(1, "b", 0)])), "another source under an id");
        let mut bench = Bench::new();
        bench.ask(0, &[(1, "a", 0)]).unwrap();
        bench.delivery.ask(wire::Ask { seq: 2, unwants: vec![1, 7], ..Default::default() }).unwrap();
        bench.seq = 2;
        assert!(malformed(bench.ask(0, &[(1, "a", 0)])), "an id used again");
        let mut bench = Bench::new();
        bench.seq = 1;
        assert_eq!(bench.ask(0, &[]), Err(BadAsk::Sequence));
        let mut bench = Bench::new();
        bench.ask(2, &[]).unwrap();
        bench.next_key = 1;
        assert!(malformed(bench.ask(1, &[])), "a key index used again");
        let key = wire::SessionKey { index: 1, public_key: vec![0; 1216] };
        let of_b = wire::Ask { seq: 1, keys: vec![key], ..Default::default() };
        assert!(malformed(Bench::new().delivery.ask(of_b.clone())), "a key of another suite");
        assert_eq!(Delivery::new("own".into(), Suite::B).ask(of_b), Ok(()));
        assert!(malformed(Bench::new().ask(0, &[(1, &"x".repeat(1025), 0)])));
        let many: Vec<(u64, &str, u64)> = (1..=501).map(|id| (id, "a", 0)).collect();
        assert!(malformed(Bench::new().ask(0, &many)));
    }
}
