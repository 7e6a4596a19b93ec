//! `Signed`: Ed25519 over `label || 0x00 || body` (PROTOCOL.md, "Bytes"). Pure.

use crate::wire;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// What a signature is for. Part of the signed bytes, so none serves for another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each names the message it signs, as in PROTOCOL.md")]
pub enum Label {
    Keyset,
    Challenge,
    Prove,
    Joined,
    Open,
    Ask,
    Beat,
    Sealed,
    Gone,
}

impl Label {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Keyset,
        Self::Challenge,
        Self::Prove,
        Self::Joined,
        Self::Open,
        Self::Ask,
        Self::Beat,
        Self::Sealed,
        Self::Gone,
    ];

    /// `keyset`, `challenge` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyset => "keyset",
            Self::Challenge => "challenge",
            Self::Prove => "prove",
            Self::Joined => "joined",
            Self::Open => "open",
            Self::Ask => "ask",
            Self::Beat => "beat",
            Self::Sealed => "sealed",
            Self::Gone => "gone",
        }
    }

    /// The bytes that are signed: `ennote/NAME/v1 || 0x00 || parts`.
    pub fn message(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut message = format!("ennote/{}/v1\0", self.name()).into_bytes();
        parts.iter().for_each(|part| message.extend_from_slice(part));
        message
    }
}

/// A signature that does not verify, or a field of a wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct Forged;

/// SHA-256 of the parts, one after the other.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hasher, part| hasher.chain_update(part)).finalize().into()
}

/// The id of a key: SHA-256 of its raw public half.
pub fn key_id(key: &SigningKey) -> [u8; 32] {
    hash(&[key.verifying_key().as_bytes()])
}

/// A detached signature over parts.
pub fn sign_parts(key: &SigningKey, label: Label, parts: &[&[u8]]) -> Vec<u8> {
    key.sign(&label.message(parts)).to_bytes().to_vec()
}

/// Wraps an encoded body in a `Signed`.
pub fn sign(key: &SigningKey, label: Label, body: Vec<u8>) -> wire::Signed {
    wire::Signed { signature: sign_parts(key, label, &[&body]), key_id: key_id(key).to_vec(), body }
}

/// Verifies a detached signature by a raw public key, strictly by RFC 8032.
///
/// # Errors
/// [`Forged`].
pub fn verify(public_key: &[u8], label: Label, parts: &[&[u8]], signature: &[u8]) -> Result<(), Forged> {
    let raw = <&[u8; 32]>::try_from(public_key).map_err(|_| Forged)?;
    let key = VerifyingKey::from_bytes(raw).map_err(|_| Forged)?;
    let signature = Signature::from_slice(signature).map_err(|_| Forged)?;
    key.verify_strict(&label.message(parts), &signature).map_err(|_| Forged)
}

/// Verifies an envelope by the one key that may have signed it, and gives its body out.
///
/// # Errors
/// [`Forged`], also when `key_id` names another key.
pub fn body<'a>(public_key: &[u8], label: Label, signed: &'a wire::Signed) -> Result<&'a [u8], Forged> {
    if signed.key_id != hash(&[public_key]) {
        return Err(Forged);
    }
    verify(public_key, label, &[&signed.body], &signed.signature).map(|()| signed.body.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_only_for_its_label_its_bytes_and_its_key() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = key.verifying_key().to_bytes();
        let signed = sign(&key, Label::Ask, b"body".to_vec());
        assert_eq!(body(&public, Label::Ask, &signed), Ok(&b"body"[..]));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key().to_bytes();
        assert_eq!(body(&other, Label::Ask, &signed), Err(Forged));
        for label in Label::ALL.into_iter().filter(|l| *l != Label::Ask) {
            assert_eq!(body(&public, label, &signed), Err(Forged), "{label:?}");
        }
        let altered = |edit: fn(&mut wire::Signed)| {
            let mut copy = signed.clone();
            edit(&mut copy);
            body(&public, Label::Ask, &copy).map(<[u8]>::to_vec)
        };
        assert_eq!(altered(|s| s.body.push(0)), Err(Forged));
        assert_eq!(altered(|s| s.key_id[0] ^= 1), Err(Forged));
        assert_eq!(altered(|s| s.signature[0] ^= 1), Err(Forged));
        assert_eq!(altered(|s| s.signature.truncate(63)), Err(Forged));
    }
}
