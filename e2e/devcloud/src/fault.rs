//! Faults: what is sent, broken in a named way. **For tests of agents.** A cloud sends them only when it was started to
//! (`serve --allow-faults`), and then on loopback addresses alone.
//!
//! Everything here is as a thief of one key, a broken core or a hostile edge could send it. A fault of a delivery breaks every
//! delivery of one secret, or of all; a fault of a join breaks every answer to a hello. The rest of the cloud stays right.

use crate::envelope::{self, Delivery, MAX_PAYLOAD, SEALED_INFO};
use crate::signed::{self, Label, hash};
use crate::suite::Unsealable;
use crate::{entropy, wire};
use clap::ValueEnum;
use ed25519_dalek::SigningKey;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// What is broken. Signed well and sealed well, but for what the name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A delivery is sealed to another key than the one it names
    Undecryptable,
    /// Its payload has no bytes
    EmptyPayload,
    /// Its plaintext has none at all, not even a stamp key
    EmptyPlaintext,
    /// Its payload has 1 MiB and one byte
    PayloadTooLarge,
    /// Its payload is the beginning of a JSON object
    StubJson,
    /// Its ciphertext lost its last byte, and was signed like that
    Truncated,
    /// Its ciphertext lost its last byte after it was signed
    TruncatedAfterSigning,
    /// A bit of its ciphertext is flipped, and was signed like that
    BitFlipped,
    /// A bit of its ciphertext is flipped after it was signed
    BitFlippedAfterSigning,
    /// It has no signature
    Unsigned,
    /// It is signed by a key that no keyset lists
    UnknownPayloadKey,
    /// Its header names another agent
    WrongAgent,
    /// Another epoch
    WrongEpoch,
    /// Another stream
    WrongStream,
    /// Another suite
    WrongSuite,
    /// Another session key
    WrongKey,
    /// A session key that was never offered
    NoSuchKey,
    /// Another want
    WrongWant,
    /// Another namespace
    WrongNamespace,
    /// Another binding
    WrongBinding,
    /// Another uid
    WrongUid,
    /// Another organization
    WrongOrganization,
    /// Another workspace
    WrongWorkspace,
    /// Another secret
    WrongSecret,
    /// A format that is not 2
    WrongFormat,
    /// The kind of a tombstone
    WrongKind,
    /// No type
    NoType,
    /// It says, well signed, that it is the version before the last
    OlderVersion,
    /// In its place goes a tombstone of the version before the last
    OldTombstone,
    /// The keyset is two versions lower than the last
    KeysetLower,
    /// The keyset has expired
    KeysetExpired,
    /// The keyset is signed by another root, which it brings along
    KeysetOtherRoot,
    /// The keyset does not list the PAYLOAD key that goes on signing
    KeysetWithoutPayloadKey,
    /// The challenge answers another hello
    ChallengeOtherHello,
    /// The challenge chooses a suite that nobody offered
    ChallengeOtherSuite,
    /// The challenge is signed by a PAYLOAD key
    ChallengeUnknownKey,
}

impl Fault {
    /// Whether it breaks answers to hellos; the others break deliveries.
    pub fn of_joins(self) -> bool {
        matches!(
            self,
            Self::KeysetLower
                | Self::KeysetExpired
                | Self::KeysetOtherRoot
                | Self::KeysetWithoutPayloadKey
                | Self::ChallengeOtherHello
                | Self::ChallengeOtherSuite
                | Self::ChallengeUnknownKey
        )
    }

    fn edit(self, header: &mut wire::Header) {
        match self {
            Self::WrongAgent => header.agent_id.push('x'),
            Self::WrongEpoch => header.epoch += 1,
            Self::WrongStream => header.stream_nonce = vec![0; 32],
            Self::WrongSuite => header.suite = if header.suite == 1 { 2 } else { 1 },
            Self::WrongKey => header.session_key_hash = vec![0; 32],
            Self::NoSuchKey => header.key_index = u64::MAX,
            Self::WrongWant => header.want_id += 1_000_000,
            Self::WrongNamespace => header.namespace.push('x'),
            Self::WrongBinding => header.binding.push('x'),
            Self::WrongUid => header.binding_uid.push('x'),
            Self::WrongOrganization => header.organization.push('x'),
            Self::WrongWorkspace => header.workspace.push('x'),
            Self::WrongSecret => header.secret.push('x'),
            Self::WrongFormat => header.format = 3,
            Self::WrongKind => header.kind = if header.kind == 1 { 2 } else { 1 },
            Self::NoType => header.r#type = 0,
            Self::OlderVersion => header.version = header.version.saturating_sub(2).max(1),
            _ => (),
        }
    }

    /// A delivery, broken.
    ///
    /// # Errors
    /// As [`envelope::seal`].
    pub fn deliver(
        self,
        delivery: &Delivery,
        session: &wire::SessionKey,
        stamp_key: &[u8; 32],
        payload: &[u8],
        signer: &SigningKey,
    ) -> Result<wire::have::Answer, Unsealable> {
        if self == Self::OldTombstone {
            let version = delivery.version.saturating_sub(2).max(1);
            let gone = envelope::gone(&Delivery { version, ..delivery.clone() }, signer);
            return Ok(wire::have::Answer::Gone(gone));
        }
        let mut header = wire::Header {
            key_index: session.index,
            session_key_hash: hash(&[&session.public_key]).to_vec(),
            ..delivery.header(wire::Kind::Sealed)
        };
        self.edit(&mut header);
        let header = header.encode_to_vec();
        let mut plain = Zeroizing::new([&stamp_key[..], payload].concat());
        match self {
            Self::EmptyPayload => plain.truncate(32),
            Self::EmptyPlaintext => plain.clear(),
            // Blanks after a JSON object change nothing of it but its size.
            Self::PayloadTooLarge => plain.resize(32 + MAX_PAYLOAD + 1, b' '),
            Self::StubJson => plain.truncate(32 + payload.len() / 2),
            _ => (),
        }
        let other = match self {
            Self::Undecryptable => Some(delivery.suite.public(&entropy::bytes())?),
            _ => None,
        };
        let public = other.as_ref().unwrap_or(&session.public_key);
        let rng = &mut entropy::system();
        let (enc, mut ciphertext) = delivery.suite.seal(public, SEALED_INFO, &header, &plain, rng)?;
        let flip = |ciphertext: &mut Vec<u8>| ciphertext.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        match self {
            Self::Truncated => drop_last(&mut ciphertext),
            Self::BitFlipped => flip(&mut ciphertext),
            _ => (),
        }
        let stranger = SigningKey::from_bytes(&entropy::bytes());
        let signer = if self == Self::UnknownPayloadKey { &stranger } else { signer };
        let mut sealed = envelope::sign_sealed(signer, header, enc, ciphertext);
        match self {
            Self::TruncatedAfterSigning => drop_last(&mut sealed.ciphertext),
            Self::BitFlippedAfterSigning => flip(&mut sealed.ciphertext),
            Self::Unsigned => sealed.signature.clear(),
            _ => (),
        }
        Ok(wire::have::Answer::Sealed(sealed))
    }

    /// An answer to a hello, broken.
    pub fn answer(
        self,
        mut answer: wire::BeginResponse,
        root: &SigningKey,
        join: &SigningKey,
        payload: &SigningKey,
    ) -> wire::BeginResponse {
        let keyset = answer.keyset.take().unwrap_or_default().body;
        let mut listed = wire::Keyset::decode(keyset.as_slice()).unwrap_or_default();
        let challenge = answer.challenge.take().unwrap_or_default().body;
        let mut asked = wire::Challenge::decode(challenge.as_slice()).unwrap_or_default();
        let stranger = SigningKey::from_bytes(&entropy::bytes());
        let (mut root, mut join) = (root, join);
        match self {
            // Two lower: an agent may not have heard of the newest yet.
            Self::KeysetLower => listed.version = listed.version.saturating_sub(2),
            Self::KeysetExpired => {
                listed.expires_at_ms = asked.server_time_ms - 1;
                listed.issued_at_ms = listed.expires_at_ms - 1_000;
            }
            Self::KeysetOtherRoot => {
                answer.root_public_key = stranger.verifying_key().to_bytes().to_vec();
                root = &stranger;
            }
            Self::KeysetWithoutPayloadKey => {
                let of_payload = listed.keys.iter_mut().filter(|key| key.r#use() == wire::KeyUse::Payload);
                of_payload.for_each(|key| key.public_key = stranger.verifying_key().to_bytes().to_vec());
            }
            Self::ChallengeOtherHello => asked.hello_hash = vec![0; 32],
            Self::ChallengeOtherSuite => asked.suite = 3,
            Self::ChallengeUnknownKey => join = payload,
            _ => (),
        }
        answer.keyset = Some(signed::sign(root, Label::Keyset, listed.encode_to_vec()));
        answer.challenge = Some(signed::sign(join, Label::Challenge, asked.encode_to_vec()));
        answer
    }
}

fn drop_last(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len().saturating_sub(1));
}

/// A fault that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// Which.
    pub fault: Fault,
    /// The secret whose deliveries are broken; none: all of them.
    pub secret: Option<String>,
}

/// The faults that are on, if this cloud may send any.
#[derive(Default)]
pub struct Faults(Mutex<Option<Vec<Active>>>);

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Active>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this cloud may send faults, and sends these.
    pub fn allow(&self, faults: &[Fault]) {
        *self.lock() = Some(faults.iter().map(|fault| Active { fault: *fault, secret: None }).collect());
    }

    /// Replaces the faults that are on. `None`: this cloud was not started to send any.
    pub fn set(&self, faults: Vec<Active>) -> Option<Vec<Active>> {
        let mut all = self.lock();
        all.is_some().then(|| all.insert(faults).clone())
    }

    /// Of the deliveries of a secret.
    pub fn of_secret(&self, secret: &str) -> Option<Fault> {
        let meant = |on: &&Active| !on.fault.of_joins() && on.secret.as_deref().is_none_or(|only| only == secret);
        self.lock().iter().flatten().find(meant).map(|on| on.fault)
    }

    /// Of the answers to hellos.
    pub fn of_joins(&self) -> Option<Fault> {
        self.lock().iter().flatten().find(|on| on.fault.of_joins()).map(|on| on.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cloud_that_was_started_to_sends_faults_and_only_those_that_are_on() {
        let faults = Faults::default();
        let on = |fault, secret: Option<&str>| Active { fault, secret: secret.map(str::to_owned) };
        assert_eq!(faults.set(vec![on(Fault::Truncated, None)]), None);
        assert_eq!(faults.of_secret("db"), None);
        faults.allow(&[Fault::KeysetLower]);
        assert_eq!((faults.of_joins(), faults.of_secret("db")), (Some(Fault::KeysetLower), None));
        assert!(faults.set(vec![on(Fault::WrongUid, Some("db")), on(Fault::Truncated, Some("other"))]).is_some());
        assert_eq!((faults.of_joins(), faults.of_secret("db")), (None, Some(Fault::WrongUid)));
        assert_eq!((faults.of_secret("other"), faults.of_secret("third")), (Some(Fault::Truncated), None));
    }

    #[test]
    fn a_fault_has_the_same_name_everywhere() {
        for fault in Fault::value_variants() {
            let on_the_command_line = fault.to_possible_value().map(|value| value.get_name().to_owned());
            let in_a_request = serde_json::to_value(fault).unwrap();
            assert_eq!(in_a_request.as_str(), on_the_command_line.as_deref());
        }
    }
}
