//! `Sealed` and `Gone`: from bytes of the network to an opened payload, or a refusal with its own reason.
//!
//! The signature is checked before anything is decoded; every field that the agent can predict is compared; opening is in
//! place. Total: no input panics.

use crate::crypto::session_keys::SessionKey;
use crate::crypto::signed::{Label, SignatureError, VerifyingKeys, hash, hash_parts, join_hashes};
use crate::crypto::suite::Suite;
use crate::domain::content::StampKey;
use crate::domain::reason::Reason;
use crate::domain::secret_value::SecretValue;
use crate::wire;
use prost::Message;

const INFO: &[u8] = b"ennote/sealed/v1";
/// PROTOCOL.md, "Bytes".
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// What a `Have` frame holds beside the payload.
const MAX_HEADER: usize = 16 * 1024;

/// What the agent knows of a delivery before it looks inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// This agent.
    pub agent_id: String,
    /// Its epoch.
    pub epoch: u64,
    /// The stream's suite.
    pub suite: Suite,
    /// The stream's nonce.
    pub stream_nonce: Vec<u8>,
    /// The want's id.
    pub want_id: u64,
    /// Namespace of the binding.
    pub namespace: String,
    /// Name of the binding.
    pub binding: String,
    /// Its uid.
    pub binding_uid: String,
    /// The agent's organization.
    pub organization: String,
    /// The wanted workspace, resolved.
    pub workspace: String,
    /// The wanted secret.
    pub secret: String,
}

/// What the header says beyond what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version.
    pub version: u64,
    /// Unix milliseconds.
    pub committed_at_ms: i64,
}

/// An opened delivery. Plaintext lives in boxes of exact size.
#[derive(Debug)]
pub struct Opened {
    /// Version and time.
    pub facts: Facts,
    /// Keys the fingerprints; not kept.
    pub stamp_key: StampKey,
    /// One JSON object.
    pub payload: SecretValue,
}

/// Why an envelope was refused. Each is a `Reason` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub Reason);

impl From<SignatureError> for Refusal {
    fn from(error: SignatureError) -> Self {
        Self(match error {
            SignatureError::UnknownKey => Reason::UnknownKey,
            SignatureError::Bad => Reason::BadSignature,
        })
    }
}

/// Opens a sealed delivery with the session key it names. The key is spent whatever comes of it.
///
/// # Errors
/// [`Refusal`].
pub fn open(
    mut sealed: wire::Sealed,
    key: SessionKey,
    expected: &Expected,
    listed: &VerifyingKeys,
) -> Result<Opened, Refusal> {
    let header = check(&sealed, hash_parts(&[&sealed.enc, &sealed.ciphertext]), expected, listed)?;
    let to_this_key = header.key_index == key.index && header.session_key_hash == key.public_hash;
    if !to_this_key || key.suite != expected.suite {
        return Err(Refusal(Reason::WrongRecipient));
    }
    if wire::SecretType::try_from(header.r#type).unwrap_or_default() == wire::SecretType::Unspecified {
        return Err(Refusal(Reason::BadPayload));
    }
    let plain = key.open(&sealed.enc, INFO, &sealed.header, std::mem::take(&mut sealed.ciphertext));
    let plain = plain.map_err(|_| Refusal(Reason::Undecryptable))?;
    let (stamp, payload) = plain.split_first_chunk::<32>().ok_or(Refusal(Reason::BadPayload))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(Refusal(Reason::BadPayload));
    }
    Ok(Opened { facts: facts(&header), stamp_key: StampKey::new(stamp), payload: SecretValue::copy_of(payload) })
}

/// A delivery that no key of ours can open, as small as a refusal needs it.
pub struct Keyless {
    sealed: wire::Sealed,
    of_box: [u8; 32],
}

impl Keyless {
    /// Keeps what names the refusal. A header that is none, for its size, is left out too.
    pub fn of(sealed: wire::Sealed) -> Self {
        let of_box = hash_parts(&[&sealed.enc, &sealed.ciphertext]);
        let header = if sealed.header.len() <= MAX_HEADER { sealed.header } else { vec![] };
        let (key_id, signature) = (exactly::<32>(sealed.key_id), exactly::<64>(sealed.signature));
        Self { sealed: wire::Sealed { header, enc: vec![], ciphertext: vec![], key_id, signature }, of_box }
    }

    /// Why it is refused: what [`open`] would say before it needs the key, and else that.
    pub fn refuse(&self, expected: &Expected, listed: &VerifyingKeys) -> Refusal {
        let checked = check(&self.sealed, self.of_box, expected, listed);
        checked.err().unwrap_or(Refusal(Reason::WrongRecipient))
    }
}

/// Signature first, then what the header says.
fn check(
    sealed: &wire::Sealed,
    of_box: [u8; 32],
    expected: &Expected,
    listed: &VerifyingKeys,
) -> Result<wire::Header, Refusal> {
    verify(sealed, of_box, listed)?;
    let header = decode(&sealed.header)?;
    compare(&header, expected, wire::Kind::Sealed)?;
    Ok(header)
}

/// `of_box` is SHA-256(enc || ciphertext).
fn verify(sealed: &wire::Sealed, of_box: [u8; 32], listed: &VerifyingKeys) -> Result<(), SignatureError> {
    let signed = join_hashes(hash(&sealed.header), of_box);
    listed.verify(Label::Sealed, &[&signed], &sealed.key_id, &sealed.signature)
}

/// Checks a tombstone.
///
/// # Errors
/// [`Refusal`].
pub fn gone(signed: &wire::Signed, expected: &Expected, listed: &VerifyingKeys) -> Result<Facts, Refusal> {
    let header = decode(listed.body(Label::Gone, signed)?)?;
    compare(&header, expected, wire::Kind::Gone)?;
    if header.key_index != 0 || !header.session_key_hash.is_empty() {
        return Err(Refusal(Reason::WrongRecipient));
    }
    Ok(facts(&header))
}

/// The version of an answer that is the core's own to this want of this stream, as far as its signature goes. A denial has
/// none.
pub fn authentic(
    answer: &wire::have::Answer,
    want_id: u64,
    stream_nonce: &[u8],
    listed: &VerifyingKeys,
) -> Option<u64> {
    let header = match answer {
        wire::have::Answer::Denied(_) => return None,
        wire::have::Answer::Gone(signed) => listed.body(Label::Gone, signed).ok()?,
        wire::have::Answer::Sealed(sealed) => {
            verify(sealed, hash_parts(&[&sealed.enc, &sealed.ciphertext]), listed).ok()?;
            &sealed.header
        }
    };
    let header = wire::Header::decode(header).ok()?;
    (header.want_id == want_id && header.stream_nonce == stream_nonce).then_some(header.version)
}

/// A tombstone as small as its refusal needs it, when it is larger than any can be.
pub fn bounded(signed: wire::Signed) -> wire::Signed {
    let body = if signed.body.len() <= MAX_HEADER { signed.body } else { vec![] };
    wire::Signed { body, key_id: exactly::<32>(signed.key_id), signature: exactly::<64>(signed.signature) }
}

/// Bytes of a length that they must have, else none: what is kept of a stranger's message is bounded.
fn exactly<const N: usize>(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() == N { bytes } else { vec![] }
}

/// The index of the session key that a delivery says it spends. Unverified: used only to find and burn the key.
pub fn claimed_key(sealed: &wire::Sealed) -> Option<u64> {
    wire::Header::decode(sealed.header.as_slice()).ok().map(|h| h.key_index)
}

fn decode(bytes: &[u8]) -> Result<wire::Header, Refusal> {
    wire::Header::decode(bytes).map_err(|_| Refusal(Reason::BadPayload))
}

fn facts(header: &wire::Header) -> Facts {
    Facts { version: header.version, committed_at_ms: header.committed_at_ms }
}

/// The order is the specification: the first difference names the refusal.
fn compare(header: &wire::Header, expected: &Expected, kind: wire::Kind) -> Result<(), Refusal> {
    let rules = [
        (header.format == 2 && header.kind == kind as i32, Reason::BadPayload),
        (header.agent_id == expected.agent_id, Reason::WrongRecipient),
        (header.epoch == expected.epoch, Reason::WrongRecipient),
        (header.stream_nonce == expected.stream_nonce, Reason::WrongRecipient),
        (header.want_id == expected.want_id, Reason::WrongBinding),
        (header.namespace == expected.namespace, Reason::WrongBinding),
        (header.binding == expected.binding, Reason::WrongBinding),
        (header.binding_uid == expected.binding_uid, Reason::WrongBinding),
        (header.organization == expected.organization, Reason::WrongSource),
        (header.workspace == expected.workspace, Reason::WrongSource),
        (header.secret == expected.secret, Reason::WrongSource),
        (header.version > 0 && i64::try_from(header.version).is_ok(), Reason::BadPayload),
        (header.suite == expected.suite.on_wire() as i32, Reason::WrongRecipient),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, reason)| Err(Refusal(reason)))
}
