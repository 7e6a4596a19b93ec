//! `session_wrapped_key`: a DEK for the one caller that holds the session key, which was made for this call.
//!
//! ```text
//! 4 length of the next, big-endian | 44 our ephemeral key as SubjectPublicKeyInfo | 12 IV | AES-256-GCM(DEK), tag
//! ```
//!
//! The wrapping key is HKDF-SHA256 of the X25519 secret, salt 32 zero bytes, info `valid-session-key`; there is no AAD.

use crate::envelope;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit};
use data_encoding::BASE64;
use rand_core::CryptoRng;
use x25519_dalek::{EphemeralSecret, PublicKey};

/// DER of an X25519 key (RFC 8410), up to the key.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];
const SPKI_LENGTH: u32 = 44;
const SALT: [u8; 32] = [0; 32];
const INFO: &[u8] = b"valid-session-key";

/// A session key that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session key is not standard base64 of an X25519 SubjectPublicKeyInfo (44 bytes)")]
pub struct BadSessionKey;

/// The public half of a caller's session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// From the request's text.
    ///
    /// # Errors
    /// [`BadSessionKey`].
    pub fn parse(text: &str) -> Result<Self, BadSessionKey> {
        let der = BASE64.decode(text.as_bytes()).map_err(|_| BadSessionKey)?;
        let raw = der.strip_prefix(&SPKI).ok_or(BadSessionKey)?;
        raw.try_into().map(Self).map_err(|_| BadSessionKey)
    }
}

/// Wraps a DEK to a session key, under an ephemeral key of ours that is made here and gone at the end.
///
/// # Errors
/// [`BadSessionKey`] for a point of low order, with which no secret can be shared.
pub fn wrap(session: &SessionKey, dek: &[u8; 32], rng: &mut impl CryptoRng) -> Result<Vec<u8>, BadSessionKey> {
    let ephemeral = EphemeralSecret::random_from_rng(rng);
    let public = PublicKey::from(&ephemeral);
    let shared = ephemeral.diffie_hellman(&PublicKey::from(session.0));
    if !shared.was_contributory() {
        return Err(BadSessionKey);
    }
    let key = envelope::derive(shared.as_bytes(), &SALT, INFO);
    let mut iv = [0; 12];
    rng.fill_bytes(&mut iv);
    let sealed = Aes256Gcm::new((&*key).into()).encrypt(&iv.into(), dek.as_slice()).map_err(|_| BadSessionKey)?;
    Ok([&SPKI_LENGTH.to_be_bytes()[..], &SPKI, public.as_bytes(), &iv, &sealed].concat())
}
