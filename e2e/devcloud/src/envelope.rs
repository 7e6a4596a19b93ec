//! Sealing (envelope v2): one version of one secret for one delivery, tombstones, and opening of credentials. Pure.

use crate::signed::{self, Label, hash};
use crate::suite::{Suite, Unsealable};
use crate::wire;
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use prost::Message;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Largest payload, in bytes.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// `info` of a delivery.
pub const SEALED_INFO: &[u8] = b"ennote/sealed/v1";
const JOIN_INFO: &[u8] = b"ennote/join/v1";
const STAMP_SALT: &[u8] = b"ennote/stamp/v1";

/// Everything of a delivery but its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Recipient.
    pub agent_id: String,
    /// Its epoch.
    pub epoch: u64,
    /// The stream's.
    pub suite: Suite,
    /// The stream that the session key was offered on.
    pub stream_nonce: [u8; 32],
    /// The want that is answered.
    pub want_id: u64,
    /// Of the binding.
    pub namespace: String,
    /// Of the binding.
    pub binding: String,
    /// Of the binding.
    pub binding_uid: String,
    /// Source.
    pub organization: String,
    /// Source, resolved: never empty.
    pub workspace: String,
    /// Source.
    pub secret: String,
    /// Never UNSPECIFIED.
    pub kind_of_secret: wire::SecretType,
    /// What is sent.
    pub version: u64,
    /// When that was made durable. Unix milliseconds.
    pub committed_at_ms: i64,
}

impl Delivery {
    /// The header without the session key that a sealed one names.
    pub fn header(&self, kind: wire::Kind) -> wire::Header {
        wire::Header {
            format: 2,
            suite: self.suite.on_wire() as i32,
            kind: kind as i32,
            agent_id: self.agent_id.clone(),
            epoch: self.epoch,
            stream_nonce: self.stream_nonce.to_vec(),
            want_id: self.want_id,
            namespace: self.namespace.clone(),
            binding: self.binding.clone(),
            binding_uid: self.binding_uid.clone(),
            organization: self.organization.clone(),
            workspace: self.workspace.clone(),
            secret: self.secret.clone(),
            r#type: self.kind_of_secret as i32,
            version: self.version,
            committed_at_ms: self.committed_at_ms,
            key_index: 0,
            session_key_hash: Vec::new(),
        }
    }
}

/// Seals a payload to one session key and signs the result by a PAYLOAD key.
///
/// # Errors
/// [`Unsealable`] when the session key is no public key of the stream's suite.
pub fn seal(
    delivery: &Delivery,
    session: &wire::SessionKey,
    stamp_key: &[u8; 32],
    payload: &[u8],
    signer: &SigningKey,
    rng: &mut impl CryptoRng,
) -> Result<wire::Sealed, Unsealable> {
    let header = wire::Header {
        key_index: session.index,
        session_key_hash: hash(&[&session.public_key]).to_vec(),
        ..delivery.header(wire::Kind::Sealed)
    };
    let header = header.encode_to_vec();
    let mut plain = Zeroizing::new(Vec::with_capacity(32 + payload.len()));
    plain.extend_from_slice(stamp_key);
    plain.extend_from_slice(payload);
    let (enc, ciphertext) = delivery.suite.seal(&session.public_key, SEALED_INFO, &header, &plain, rng)?;
    Ok(sign_sealed(signer, header, enc, ciphertext))
}

/// Signs the parts of a `Sealed`.
pub fn sign_sealed(signer: &SigningKey, header: Vec<u8>, enc: Vec<u8>, ciphertext: Vec<u8>) -> wire::Sealed {
    let (of_header, of_box) = (hash(&[&header]), hash(&[&enc, &ciphertext]));
    let signature = signed::sign_parts(signer, Label::Sealed, &[&of_header, &of_box]);
    wire::Sealed { header, enc, ciphertext, key_id: signed::key_id(signer).to_vec(), signature }
}

/// Signs a tombstone: no session key, no payload.
pub fn gone(delivery: &Delivery, signer: &SigningKey) -> wire::Signed {
    signed::sign(signer, Label::Gone, delivery.header(wire::Kind::Gone).encode_to_vec())
}

/// Keys the per-key fingerprints of one secret: HKDF of the core's master key over the secret's whole name.
pub fn stamp_key(master: &[u8; 32], organization: &str, workspace: &str, secret: &str) -> Zeroizing<[u8; 32]> {
    let mut info = Vec::new();
    for part in [organization, workspace, secret] {
        info.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        info.extend_from_slice(part.as_bytes());
    }
    derive(master, STAMP_SALT, &info)
}

/// HKDF-SHA256 to 32 bytes.
pub fn derive(master: &[u8; 32], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(Some(salt), master).expand(info, out.as_mut_slice());
    debug_assert!(expanded.is_ok(), "32 bytes are always within HKDF's reach");
    out
}

/// Seals an encoded `Credential` to a SEAL key, as an agent does. Here for vectors and tests.
///
/// # Errors
/// [`Unsealable`].
pub fn seal_credential(
    suite: Suite,
    public: &[u8],
    t: &[u8; 64],
    credential: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Vec<u8>), Unsealable> {
    suite.seal(public, JOIN_INFO, t, credential, rng)
}

/// Opens what [`seal_credential`] made.
///
/// # Errors
/// [`Unsealable`].
pub fn open_credential(
    suite: Suite,
    private: &[u8; 32],
    t: &[u8; 64],
    enc: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
    suite.open(private, JOIN_INFO, t, enc, sealed)
}

/// Opens a delivery with the private half of its session key, as an agent does. Here for vectors and tests.
///
/// # Errors
/// [`Unsealable`].
pub fn open_sealed(suite: Suite, private: &[u8; 32], sealed: &wire::Sealed) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
    suite.open(private, SEALED_INFO, &sealed.header, &sealed.enc, &sealed.ciphertext)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_key_belongs_to_one_secret_and_names_cannot_run_into_each_other() {
        let key = |o, w, s| *stamp_key(&[7; 32], o, w, s);
        assert_eq!(key("o", "w", "s"), key("o", "w", "s"));
        assert_ne!(key("o", "w", "s"), key("o", "ws", ""));
        assert_ne!(key("o", "w", "s"), key("ow", "", "s"));
        assert_ne!(key("o", "w", "s"), *stamp_key(&[8; 32], "o", "w", "s"));
    }
}
