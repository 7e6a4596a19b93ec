//! `Signed`: verify the bytes as received, then decode them. Nothing is re-encoded to be hashed.

use crate::wire;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// What a signature is for: part of the signed bytes, so none serves for another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// By a root: the keyset.
    Keyset,
    /// By a JOIN key.
    Challenge,
    /// By the agent key: the proof of a join.
    Prove,
    /// By a JOIN key.
    Joined,
    /// By the agent key.
    Open,
    /// By the agent key.
    Ask,
    /// By a JOIN key.
    Beat,
    /// By a PAYLOAD key.
    Sealed,
    /// By a PAYLOAD key.
    Gone,
}

impl Label {
    /// `ennote/NAME/v1`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Keyset => "ennote/keyset/v1",
            Self::Challenge => "ennote/challenge/v1",
            Self::Prove => "ennote/prove/v1",
            Self::Joined => "ennote/joined/v1",
            Self::Open => "ennote/open/v1",
            Self::Ask => "ennote/ask/v1",
            Self::Beat => "ennote/beat/v1",
            Self::Sealed => "ennote/sealed/v1",
            Self::Gone => "ennote/gone/v1",
        }
    }
}

/// A signature that does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No key of that id is listed for this use.
    #[error("signed by a key that the keyset does not list")]
    UnknownKey,
    /// A field has the wrong length, or the signature does not verify.
    #[error("the signature does not verify")]
    Bad,
}

/// SHA-256.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of the parts, one after the other.
pub fn hash_parts(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hasher, part| hasher.chain_update(part)).finalize().into()
}

/// `a || b`.
pub fn join_hashes(a: [u8; 32], b: [u8; 32]) -> [u8; 64] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&a);
    both[32..].copy_from_slice(&b);
    both
}

fn labelled(label: Label, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = label.text().as_bytes().to_vec();
    message.push(0);
    for part in parts {
        message.extend_from_slice(part);
    }
    message
}

/// Ed25519 keys that may sign for one use, by their id.
#[derive(Clone, Default)]
pub struct VerifyingKeys(Vec<([u8; 32], VerifyingKey)>);

impl VerifyingKeys {
    /// Adds a raw public key; one that is no curve point is left out, as if it were not listed.
    pub fn add(&mut self, raw: &[u8]) {
        let key = <&[u8; 32]>::try_from(raw).ok().and_then(|raw| VerifyingKey::from_bytes(raw).ok());
        if let Some(key) = key {
            self.0.push((hash(raw), key));
        }
    }

    /// Verifies a detached signature, strictly by RFC 8032.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, label: Label, parts: &[&[u8]], key_id: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let (_, key) = self.0.iter().find(|(id, _)| id.as_slice() == key_id).ok_or(SignatureError::UnknownKey)?;
        let signature = Signature::from_slice(signature).map_err(|_| SignatureError::Bad)?;
        key.verify_strict(&labelled(label, parts), &signature).map_err(|_| SignatureError::Bad)
    }

    /// Verifies an envelope and gives its body out.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn body<'a>(&self, label: Label, signed: &'a wire::Signed) -> Result<&'a [u8], SignatureError> {
        self.verify(label, &[&signed.body], &signed.key_id, &signed.signature)?;
        Ok(&signed.body)
    }
}

/// Signs parts under a label.
pub fn sign_parts(key: &SigningKey, label: Label, parts: &[&[u8]]) -> [u8; 64] {
    key.sign(&labelled(label, parts)).to_bytes()
}

/// Wraps an encoded body in a `Signed`.
pub fn sign(key: &SigningKey, label: Label, body: Vec<u8>) -> wire::Signed {
    let signature = sign_parts(key, label, &[&body]).to_vec();
    wire::Signed { key_id: hash(key.verifying_key().as_bytes()).to_vec(), body, signature }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_only_for_its_label_its_bytes_and_a_listed_key() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let mut listed = VerifyingKeys::default();
        listed.add(key.verifying_key().as_bytes());
        listed.add(b"short");
        let signed = sign(&key, Label::Beat, b"body".to_vec());
        assert_eq!(listed.body(Label::Beat, &signed), Ok(&b"body"[..]));
        assert_eq!(listed.body(Label::Ask, &signed), Err(SignatureError::Bad));
        let altered = |edit: fn(&mut wire::Signed)| {
            let mut copy = signed.clone();
            edit(&mut copy);
            listed.body(Label::Beat, &copy).map(<[u8]>::to_vec)
        };
        assert_eq!(altered(|s| s.body.push(0)), Err(SignatureError::Bad));
        assert_eq!(altered(|s| s.signature[0] ^= 1), Err(SignatureError::Bad));
        assert_eq!(altered(|s| s.signature.truncate(63)), Err(SignatureError::Bad));
        assert_eq!(altered(|s| s.key_id[0] ^= 1), Err(SignatureError::UnknownKey));
        assert_eq!(VerifyingKeys::default().body(Label::Beat, &signed), Err(SignatureError::UnknownKey));
    }
}
