//! Standing wants, and what has arrived for them, still sealed.
//!
//! One entry a binding. A want is the subscription, the acknowledgement and the resume cursor in one: whatever stream is
//! newest, its asks declare the wants as they stand here. Locks are held for a map access, never across an await.

use crate::crypto::envelope::{self, Expected, Facts, Keyless, Opened, Refusal};
use crate::crypto::session_keys::SessionKey;
use crate::crypto::signed::VerifyingKeys;
use crate::crypto::suite::Suite;
use crate::identity::access_token::Identity;
use crate::wire;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// At most this many wants in one ask (PROTOCOL.md).
const WANTS_PER_ASK: usize = 500;
/// At most this many bytes of them: a frame holds 256 KiB, keys and signature included.
const BYTES_PER_ASK: usize = 160 * 1024;
/// At most this many ids taken back in one ask: at most 10 bytes each.
const UNWANTS_PER_ASK: usize = 3000;
/// Characters of a grant that are kept: it is the cloud's text, unsigned.
const MAX_GRANT: usize = 300;

/// Which binding wants which secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Namespace of the binding.
    pub namespace: String,
    /// Name of the binding.
    pub binding: String,
    /// Its uid.
    pub binding_uid: String,
    /// Empty: the agent's own workspace.
    pub workspace: String,
    /// Name of the secret.
    pub secret: String,
    /// Exactly this version.
    pub pin: Option<u64>,
}

/// What the cloud answered to a want.
pub struct Arrival {
    /// The want that it answers.
    pub want_id: u64,
    /// When the want was declared, in the cloud's time (Unix milliseconds), if that is known.
    pub wanted_at_ms: Option<i64>,
    /// The version that was known when it was asked for; 0: it was asked for in any case.
    pub known: u64,
    /// Exactly this version was asked for.
    pub pin: Option<u64>,
    answer: Answer,
    _room: Room,
}

enum Answer {
    Sealed { sealed: Box<wire::Sealed>, key: SessionKey, expected: Box<Expected>, listed: Arc<VerifyingKeys> },
    Keyless(Box<Keyless>, Box<Expected>, Arc<VerifyingKeys>),
    Gone { signed: wire::Signed, expected: Box<Expected>, listed: Arc<VerifyingKeys> },
    Denied(Denial),
}

/// An arrival, opened.
pub enum Word {
    /// A version of the secret.
    Payload(Opened, Expected),
    /// The secret was deleted at this version.
    Gone(Facts, Expected),
    /// The cloud will not or cannot answer; unsigned.
    Denied(Denial),
}

/// Why there is no payload. Unsigned: sets a condition, never touches a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// What to grant, in the cloud's words.
    NoGrant(String),
    /// There is no secret of that name yet.
    NoSecret,
    /// The pinned version does not exist.
    NoVersion,
}

impl From<wire::Denied> for Denial {
    fn from(denied: wire::Denied) -> Self {
        match denied.reason() {
            wire::denied::Reason::NoSecret => Self::NoSecret,
            wire::denied::Reason::NoVersion => Self::NoVersion,
            wire::denied::Reason::NoGrant | wire::denied::Reason::Unspecified => {
                Self::NoGrant(denied.grant.chars().take(MAX_GRANT).collect())
            }
        }
    }
}

/// The stream that something arrives on, as headers name it.
pub struct Via<'a> {
    /// Ours, for [`Inbox::end`].
    pub stream: u64,
    /// Of its Greet.
    pub nonce: &'a [u8],
    /// Of its open.
    pub suite: Suite,
}

impl Arrival {
    /// Opens what arrived. Plaintext begins here; call it inside `hardening::scrubbed`.
    ///
    /// # Errors
    /// [`Refusal`]; the session key is spent all the same.
    pub fn open(self) -> Result<Word, Refusal> {
        match self.answer {
            Answer::Denied(denial) => Ok(Word::Denied(denial)),
            Answer::Gone { signed, expected, listed } => {
                Ok(Word::Gone(envelope::gone(&signed, &expected, &listed)?, *expected))
            }
            Answer::Keyless(keyless, expected, listed) => Err(keyless.refuse(&expected, &listed)),
            Answer::Sealed { sealed, key, expected, listed } => {
                Ok(Word::Payload(envelope::open(*sealed, key, &expected, &listed)?, *expected))
            }
        }
    }
}

/// Counts deliveries that a binding has not finished with: while it lives, its key's place in the window is taken.
struct Room {
    in_use: Arc<AtomicUsize>,
    freed: Arc<Notify>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        self.freed.notify_one();
    }
}

struct Want {
    id: u64,
    wanted: Wanted,
    known: u64,
    /// Stream and known_version of the last declaration that stands; `None` when it must be declared (again).
    declared: Option<(u64, u64)>,
    resting: bool,
    wanted_at_ms: Option<i64>,
}

impl Want {
    fn message(&self) -> wire::Want {
        wire::Want {
            id: self.id,
            namespace: self.wanted.namespace.clone(),
            binding: self.wanted.binding.clone(),
            binding_uid: self.wanted.binding_uid.clone(),
            workspace: self.wanted.workspace.clone(),
            secret: self.wanted.secret.clone(),
            pin: self.wanted.pin.unwrap_or(0),
            known_version: self.known,
        }
    }
}

#[derive(Default)]
struct Table {
    next_id: u64,
    wants: HashMap<String, Want>,
    by_id: HashMap<u64, String>,
    unwants: Vec<u64>,
    arrivals: BTreeMap<String, (u64, Arrival)>,
    /// The stream that asks; deliveries of an older one are still taken.
    stream: u64,
}

/// Shared by the controllers and the stream.
#[derive(Clone, Default)]
pub struct Inbox {
    table: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
    in_use: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Inbox {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares a want, or raises what is known. `again` asks anew after a delivery that was not taken; one that waits to be
    /// taken is none.
    pub fn want(&self, wanted: &Wanted, known: u64, again: bool) {
        let mut table = self.table();
        let uid = wanted.binding_uid.clone();
        let again = again && !table.arrivals.contains_key(&uid);
        let same = table.wants.get_mut(&uid).filter(|w| w.wanted == *wanted);
        if let Some(want) = same {
            if want.known == known && !(want.resting && again) {
                return;
            }
            want.known = known;
            want.declared = None;
        } else {
            drop_want(&mut table, &uid);
            table.next_id += 1;
            let id = table.next_id;
            table.by_id.insert(id, uid.clone());
            table.wants.insert(
                uid,
                Want { id, wanted: wanted.clone(), known, declared: None, resting: false, wanted_at_ms: None },
            );
        }
        drop(table);
        self.changed.notify_one();
    }

    /// Asks again for what stands: whether a denial still holds, for one.
    pub fn declare_again(&self, binding_uid: &str) {
        if let Some(want) = self.table().wants.get_mut(binding_uid) {
            want.declared = None;
            self.changed.notify_one();
        }
    }

    /// Wants no more.
    pub fn unwant(&self, binding_uid: &str) {
        if drop_want(&mut self.table(), binding_uid) {
            self.changed.notify_one();
        }
    }

    /// Whether a want stands that the cloud has not answered.
    pub fn waits(&self, binding_uid: &str) -> bool {
        self.table().wants.get(binding_uid).is_some_and(|w| !w.resting)
    }

    /// Whether something has arrived that nobody has taken.
    pub fn arrived_for(&self, binding_uid: &str) -> bool {
        self.table().arrivals.contains_key(binding_uid)
    }

    /// Takes what has arrived for a binding.
    pub fn take(&self, binding_uid: &str) -> Option<Arrival> {
        self.table().arrivals.remove(binding_uid).map(|(_, arrival)| arrival)
    }

    /// Wakes the stream's task when there is something to ask.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Counts a delivery that was refused; gives how many were, in this life of the process.
    pub fn refused(&self) -> usize {
        self.refused.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a delivery for an id that is not wanted (any more), likewise.
    pub fn dropped(&self) -> usize {
        self.dropped.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keys that are out with bindings.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// From now on this stream declares the wants, all of them anew.
    pub fn begin(&self, stream: u64) {
        let mut table = self.table();
        table.stream = stream;
        table.unwants.clear();
        drop(table);
        self.changed.notify_one();
    }

    /// A stream ended: what it delivered and nobody took is dropped and wiped with it.
    pub fn end(&self, stream: u64) {
        let dropped: Vec<(u64, Arrival)> = {
            let mut table = self.table();
            let keys: Vec<String> =
                table.arrivals.iter().filter(|(_, (of, _))| *of == stream).map(|(k, _)| k.clone()).collect();
            keys.iter().filter_map(|k| table.arrivals.remove(k)).collect()
        };
        drop(dropped);
    }

    /// The wants that this stream has not declared yet, at most one frame of them, and what to take back.
    pub fn next_ask(&self, stream: u64, server_now_ms: Option<i64>) -> (Vec<wire::Want>, Vec<u64>) {
        let mut table = self.table();
        if table.stream != stream {
            return (vec![], vec![]);
        }
        let kept = table.unwants.len().saturating_sub(UNWANTS_PER_ASK);
        let unwants = table.unwants.split_off(kept);
        let mut asked = Vec::new();
        let mut bytes = 0;
        for want in table.wants.values_mut().filter(|w| w.declared != Some((stream, w.known))) {
            let message = want.message();
            bytes += message.encoded_len();
            if asked.len() == WANTS_PER_ASK || bytes > BYTES_PER_ASK {
                break;
            }
            if want.resting || want.wanted_at_ms.is_none() {
                want.wanted_at_ms = server_now_ms;
            }
            want.declared = Some((stream, want.known));
            want.resting = false;
            asked.push(message);
        }
        (asked, unwants)
    }

    /// Whether this stream has declared the want of a binding as it stands.
    pub fn declares(&self, stream: u64, binding_uid: &str) -> bool {
        let declared = self.table().wants.get(binding_uid).and_then(|want| want.declared);
        declared.is_some_and(|(by, _)| by == stream)
    }

    /// Whether a want of this id stands without an answer: only such a one is denied.
    pub fn awaits(&self, id: u64) -> bool {
        let table = self.table();
        table.by_id.get(&id).and_then(|uid| table.wants.get(uid)).is_some_and(|want| !want.resting)
    }

    /// Whether a want of this id stands, or stood: it may be answered after it was taken back.
    pub fn was_ever_wanted(&self, id: u64) -> bool {
        (1..=self.table().next_id).contains(&id)
    }

    /// Files an answer; gives namespace and name of its binding. `None` for an id that is not wanted (any more), and for what
    /// cannot take the place of the answer that is there. `counts`: as the core's own.
    pub fn arrived(
        &self,
        via: &Via<'_>,
        have: wire::Have,
        counts: bool,
        key: Option<SessionKey>,
        identity: &Identity,
        listed: &Arc<VerifyingKeys>,
    ) -> Option<(String, String)> {
        let mut table = self.table();
        let uid = table.by_id.get(&have.id)?.clone();
        // The answer of an older stream is not worth the newer one's that waits.
        if table.arrivals.get(&uid).is_some_and(|(stream, _)| *stream > via.stream) {
            return None;
        }
        let want = table.wants.get_mut(&uid)?;
        // What is refused, or unsigned, is not worth what waits or was taken already: that was the answer.
        if want.resting && !counts {
            return None;
        }
        let workspace = &want.wanted.workspace;
        let expected = || {
            Box::new(Expected {
                agent_id: identity.agent_id.clone(),
                epoch: identity.epoch,
                suite: via.suite,
                stream_nonce: via.nonce.to_vec(),
                want_id: have.id,
                namespace: want.wanted.namespace.clone(),
                binding: want.wanted.binding.clone(),
                binding_uid: want.wanted.binding_uid.clone(),
                organization: identity.organization.clone(),
                workspace: if workspace.is_empty() { identity.workspace.clone() } else { workspace.clone() },
                secret: want.wanted.secret.clone(),
            })
        };
        let answer = match have.answer? {
            wire::have::Answer::Sealed(sealed) => match key.filter(|_| counts) {
                Some(key) => {
                    Answer::Sealed { sealed: Box::new(sealed), key, expected: expected(), listed: listed.clone() }
                }
                // Only a key of ours opens a delivery, and each opens one: without, its payload is dropped here, and so is a
                // forged one.
                None => Answer::Keyless(Box::new(Keyless::of(sealed)), expected(), listed.clone()),
            },
            wire::have::Answer::Gone(signed) => {
                Answer::Gone { signed: envelope::bounded(signed), expected: expected(), listed: listed.clone() }
            }
            wire::have::Answer::Denied(denied) => Answer::Denied(denied.into()),
        };
        // A denied want stays standing.
        want.resting = !matches!(answer, Answer::Denied(_));
        let place = (want.wanted.namespace.clone(), want.wanted.binding.clone());
        self.in_use.fetch_add(1, Ordering::Relaxed);
        let room = Room { in_use: self.in_use.clone(), freed: self.changed.clone() };
        let known = want.declared.map_or(0, |(_, known)| known);
        let (wanted_at_ms, pin) = (want.wanted_at_ms, want.wanted.pin);
        let arrival = Arrival { want_id: have.id, wanted_at_ms, known, pin, answer, _room: room };
        let replaced = table.arrivals.insert(uid, (via.stream, arrival));
        drop(table);
        drop(replaced);
        Some(place)
    }
}

fn drop_want(table: &mut Table, uid: &str) -> bool {
    let Some(old) = table.wants.remove(uid) else { return false };
    table.by_id.remove(&old.id);
    table.arrivals.remove(uid);
    if old.declared.is_some_and(|(stream, _)| stream == table.stream) {
        table.unwants.push(old.id);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;

    fn wanted(uid: &str, secret: &str) -> Wanted {
        Wanted {
            namespace: "n".into(),
            binding: format!("b-{uid}"),
            binding_uid: uid.into(),
            workspace: String::new(),
            secret: secret.into(),
            pin: None,
        }
    }

    fn identity() -> Identity {
        Identity {
            agent_id: "a".into(),
            organization: "o".into(),
            workspace: "w".into(),
            epoch: 1,
            suite: Suite::B,
            access_token: zeroize::Zeroizing::new(vec![]),
            lives: std::time::Duration::from_secs(900),
            server_time_ms: 0,
        }
    }

    fn denied(id: u64) -> wire::Have {
        let denied = wire::Denied { reason: wire::denied::Reason::NoSecret as i32, grant: String::new() };
        wire::Have { id, answer: Some(wire::have::Answer::Denied(denied)) }
    }

    fn sealed(id: u64) -> wire::Have {
        wire::Have { id, answer: Some(wire::have::Answer::Sealed(wire::Sealed::default())) }
    }

    fn deliver(inbox: &Inbox, stream: u64, have: wire::Have) -> Option<(String, String)> {
        arrive(inbox, stream, have, true)
    }

    /// Nothing is signed in these tests; what counts is settled before.
    fn arrive(inbox: &Inbox, stream: u64, have: wire::Have, counts: bool) -> Option<(String, String)> {
        let via = Via { stream, nonce: &[], suite: Suite::B };
        inbox.arrived(&via, have, counts, None, &identity(), &Arc::default())
    }

    fn asked(inbox: &Inbox, stream: u64) -> (Vec<(u64, u64)>, Vec<u64>) {
        let (wants, unwants) = inbox.next_ask(stream, Some(5));
        (wants.iter().map(|w| (w.id, w.known_version)).collect(), unwants)
    }

    #[test]
    fn a_want_is_declared_once_a_stream_and_again_when_it_is_raised() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 0, false);
        assert_eq!(asked(&inbox, 1), (vec![(1, 0)], vec![]));
        inbox.want(&wanted("u", "s"), 0, false);
        assert_eq!(asked(&inbox, 1), (vec![], vec![]), "it stands");
        inbox.want(&wanted("u", "s"), 3, false);
        assert_eq!(asked(&inbox, 1), (vec![(1, 3)], vec![]));
        inbox.begin(2);
        assert_eq!(asked(&inbox, 1), (vec![], vec![]), "the older stream asks no more");
        assert_eq!(asked(&inbox, 2), (vec![(1, 3)], vec![]), "declared afresh");
    }

    #[test]
    fn an_older_streams_answer_does_not_replace_a_newer_ones() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 0, false);
        asked(&inbox, 1);
        inbox.begin(2);
        asked(&inbox, 2);
        assert!(deliver(&inbox, 2, sealed(1)).is_some());
        assert_eq!(deliver(&inbox, 1, sealed(1)), None);
        inbox.end(1);
        assert!(inbox.arrived_for("u"), "it ends with its own stream");
    }

    #[test]
    fn only_a_want_without_an_answer_awaits_one_and_unwants_fit_into_frames() {
        let inbox = Inbox::default();
        inbox.begin(1);
        for n in 0..7000 {
            inbox.want(&wanted(&format!("u{n}"), "s"), 0, false);
        }
        while !asked(&inbox, 1).0.is_empty() {}
        assert!(inbox.awaits(1) && !inbox.awaits(9999));
        deliver(&inbox, 1, sealed(1));
        assert!(!inbox.awaits(1), "it has its answer");
        (0..7000).for_each(|n| inbox.unwant(&format!("u{n}")));
        let frames: Vec<usize> = (0..4).map(|_| asked(&inbox, 1).1.len()).collect();
        assert_eq!(frames, [3000, 3000, 1000, 0]);
    }

    #[test]
    fn a_want_that_was_denied_can_be_asked_for_again_as_it_stands() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 3, false);
        asked(&inbox, 1);
        inbox.declare_again("nobody");
        assert_eq!(asked(&inbox, 1), (vec![], vec![]));
        inbox.declare_again("u");
        assert_eq!(asked(&inbox, 1), (vec![(1, 3)], vec![]));
    }

    #[test]
    fn another_source_is_another_id_and_ids_are_never_reused() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 0, false);
        asked(&inbox, 1);
        inbox.want(&wanted("u", "t"), 0, false);
        assert_eq!(asked(&inbox, 1), (vec![(2, 0)], vec![1]));
        inbox.unwant("u");
        inbox.want(&wanted("u", "s"), 0, false);
        assert_eq!(asked(&inbox, 1), (vec![(3, 0)], vec![2]));
        assert_eq!(deliver(&inbox, 1, sealed(2)), None, "nobody waits for that any more");
    }

    #[test]
    fn after_a_delivery_the_want_rests_until_it_is_sent_again() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 4, false);
        asked(&inbox, 1);
        assert_eq!(deliver(&inbox, 1, sealed(1)), Some(("n".into(), "b-u".into())));
        assert!(!inbox.waits("u"));
        let arrival = inbox.take("u").unwrap();
        assert_eq!((inbox.in_use(), arrival.wanted_at_ms), (1, Some(5)));
        assert!(inbox.take("u").is_none());
        assert_eq!(arrival.open().err(), Some(Refusal(Reason::UnknownKey)), "no key, no payload");
        assert_eq!(inbox.in_use(), 0);
        inbox.want(&wanted("u", "s"), 4, false);
        assert_eq!(asked(&inbox, 1).0, vec![], "unchanged and not asked again");
        inbox.want(&wanted("u", "s"), 4, true);
        assert_eq!(asked(&inbox, 1).0, vec![(1, 4)]);
        deliver(&inbox, 1, sealed(1));
        inbox.want(&wanted("u", "s"), 4, true);
        assert_eq!(asked(&inbox, 1).0, vec![], "what came has not been looked at yet");
    }

    #[test]
    fn a_delivery_without_a_key_is_a_refusal_unless_the_answer_has_come() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 0, false);
        asked(&inbox, 1);
        assert!(inbox.was_ever_wanted(1) && !inbox.was_ever_wanted(0) && !inbox.was_ever_wanted(2));
        let forged = |have| arrive(&inbox, 1, have, false);
        assert!(forged(sealed(1)).is_some(), "something came in place of the answer");
        assert_eq!(forged(sealed(1)), None, "what waits is not replaced");
        assert_eq!(forged(denied(1)), None, "nor by a denial");
        assert_eq!(inbox.take("u").unwrap().open().err(), Some(Refusal(Reason::UnknownKey)));
        assert!(deliver(&inbox, 1, sealed(1)).is_some(), "the core's own answer is taken all the same");
        inbox.unwant("u");
        assert!(inbox.was_ever_wanted(1), "its answer may be on its way");
    }

    #[test]
    fn a_denied_want_stays_standing() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 0, false);
        asked(&inbox, 1);
        deliver(&inbox, 1, denied(1));
        assert!(inbox.waits("u"));
        assert!(matches!(inbox.take("u").unwrap().open(), Ok(Word::Denied(Denial::NoSecret))));
        assert!(deliver(&inbox, 1, sealed(1)).is_some());
    }

    #[test]
    fn what_a_stream_delivered_is_wiped_with_it() {
        let inbox = Inbox::default();
        inbox.begin(1);
        inbox.want(&wanted("u", "s"), 0, false);
        inbox.want(&wanted("v", "s"), 0, false);
        asked(&inbox, 1);
        deliver(&inbox, 1, sealed(1));
        inbox.end(1);
        assert!(inbox.take("u").is_none() && inbox.in_use() == 0);
        inbox.begin(2);
        assert_eq!(asked(&inbox, 2).0.len(), 2, "and asked for again");
    }

    #[test]
    fn a_frame_holds_at_most_500_wants_and_fits_its_limit() {
        let inbox = Inbox::default();
        inbox.begin(1);
        (0..1201).for_each(|i| inbox.want(&wanted(&format!("u{i}"), "s"), 0, false));
        let frames: Vec<usize> = (0..4).map(|_| asked(&inbox, 1).0.len()).collect();
        assert_eq!(frames, [500, 500, 201, 0]);
        let long = "s".repeat(1024);
        (0..400).for_each(|i| inbox.want(&wanted(&format!("v{i}"), &long), 0, false));
        let mut told = 0;
        while told < 400 {
            let (wants, _) = inbox.next_ask(1, None);
            let bytes: usize = wants.iter().map(Message::encoded_len).sum();
            assert!(!wants.is_empty() && bytes <= BYTES_PER_ASK, "{} wants of {bytes} bytes", wants.len());
            told += wants.len();
        }
    }
}
