//! `encrypted_blob`: what clients upload, and what they get back.
//!
//! ```text
//! 1 algorithm | 4 length V, big-endian | V key version | 12 IV | 1568 ML-KEM-1024 ciphertext | AES-256-GCM(payload), tag
//! ```
//!
//! The KEM's shared secret is the DEK; the AAD is the algorithm and the key version, without its length.

use crate::envelope::MAX_PAYLOAD;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use ml_kem::{Ciphertext, Decapsulate, DecapsulationKey, Encapsulate, KeyExport, MlKem1024, Seed};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

/// Of the longest key version.
pub const MAX_KEY_VERSION: usize = 64;
/// Of the largest blob.
pub const MAX_BLOB: usize = 1 + 4 + MAX_KEY_VERSION + IV + ENCAPSULATED + MAX_PAYLOAD + TAG;

const RSA_OAEP: u8 = 0x01;
const ML_KEM: u8 = 0x02;
const IV: usize = 12;
const TAG: usize = 16;
const ENCAPSULATED: usize = 1568;

/// Why a blob was not taken. Holds nothing of what is sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum BadBlob {
    #[error("the blob has {0} bytes, and at most {MAX_BLOB} are taken: a payload has 1 MiB at most")]
    TooLarge(usize),
    #[error("the blob ends before its payload does")]
    TooShort,
    #[error(
        "the blob is sealed by RSA-OAEP (0x01), the way of organizations that bring their own key; this cloud has none: seal by ML-KEM-1024 (0x02), as GetCryptoConfig says"
    )]
    Rsa,
    #[error("the blob begins with {0:#04x}, which is no algorithm: ML-KEM-1024 is 0x02")]
    Algorithm(u8),
    #[error("the blob claims a key version of {0} bytes; it has {MAX_KEY_VERSION} at most")]
    KeyVersionLength(u32),
    #[error("the blob is sealed to another key than the one that counts now; ask GetCryptoConfig again")]
    OtherKey,
    #[error("the blob does not open: it is sealed to another key, or was altered")]
    Undecryptable,
}

/// The ML-KEM-1024 key that blobs are sealed to. Wiped when dropped.
pub struct KemKey {
    version: String,
    private: DecapsulationKey<MlKem1024>,
}

impl KemKey {
    /// From d || z of FIPS 203. The version has 1 to 64 bytes.
    pub fn of(version: &str, seed: &[u8; 64]) -> Self {
        debug_assert!((1..=MAX_KEY_VERSION).contains(&version.len()));
        let mut seed = Seed::from(*seed);
        let private = DecapsulationKey::from_seed(seed);
        seed.as_mut_slice().zeroize();
        Self { version: version.to_owned(), private }
    }

    /// The encapsulation key, 1568 bytes.
    pub fn public(&self) -> Vec<u8> {
        self.private.encapsulation_key().to_bytes().to_vec()
    }

    /// What a blob names it by.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The parts of a blob; everything but the key version's text has been looked at.
struct Parts<'a> {
    key_version: &'a [u8],
    iv: &'a [u8; IV],
    encapsulated: &'a [u8; ENCAPSULATED],
    sealed: &'a [u8],
}

fn parse(blob: &[u8]) -> Result<Parts<'_>, BadBlob> {
    if blob.len() > MAX_BLOB {
        return Err(BadBlob::TooLarge(blob.len()));
    }
    let (&algorithm, rest) = blob.split_first().ok_or(BadBlob::TooShort)?;
    match algorithm {
        ML_KEM => (),
        RSA_OAEP => return Err(BadBlob::Rsa),
        other => return Err(BadBlob::Algorithm(other)),
    }
    let (length, rest) = rest.split_first_chunk().ok_or(BadBlob::TooShort)?;
    let length = u32::from_be_bytes(*length);
    let fits = usize::try_from(length).ok().filter(|length| *length <= MAX_KEY_VERSION);
    let (key_version, rest) =
        rest.split_at_checked(fits.ok_or(BadBlob::KeyVersionLength(length))?).ok_or(BadBlob::TooShort)?;
    let (iv, rest) = rest.split_first_chunk().ok_or(BadBlob::TooShort)?;
    let (encapsulated, sealed) = rest.split_first_chunk().ok_or(BadBlob::TooShort)?;
    if sealed.len() < TAG {
        return Err(BadBlob::TooShort);
    }
    Ok(Parts { key_version, iv, encapsulated, sealed })
}

/// Opens what a client sealed to this key.
///
/// # Errors
/// [`BadBlob`].
pub fn open(key: &KemKey, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, BadBlob> {
    let parts = parse(blob)?;
    if parts.key_version != key.version.as_bytes() {
        return Err(BadBlob::OtherKey);
    }
    // An altered ciphertext gives another secret (FIPS 203, implicit rejection), and then the tag does not fit.
    let dek = secret(key.private.decapsulate(&Ciphertext::<MlKem1024>::from(*parts.encapsulated)));
    let payload = Payload { msg: parts.sealed, aad: &aad(&key.version) };
    let cipher = cipher(&dek);
    cipher.decrypt(&(*parts.iv).into(), payload).map(Zeroizing::new).map_err(|_| BadBlob::Undecryptable)
}

/// Seals a payload to this key under a fresh DEK, and gives that out too: whoever reads the blob gets it by [`super::session`].
///
/// # Errors
/// `TooLarge`.
pub fn seal(key: &KemKey, payload: &[u8], rng: &mut impl CryptoRng) -> Result<(Vec<u8>, Zeroizing<[u8; 32]>), BadBlob> {
    let (encapsulated, shared) = key.private.encapsulation_key().encapsulate_with_rng(rng);
    let dek = secret(shared);
    let mut iv = [0; IV];
    rng.fill_bytes(&mut iv);
    let too_large = |_| BadBlob::TooLarge(payload.len());
    let message = Payload { msg: payload, aad: &aad(&key.version) };
    let sealed = cipher(&dek).encrypt(&iv.into(), message).map_err(too_large)?;
    let length = u32::try_from(key.version.len()).unwrap_or(u32::MAX).to_be_bytes();
    let blob = [&[ML_KEM][..], &length, key.version.as_bytes(), &iv, &encapsulated, &sealed].concat();
    Ok((blob, dek))
}

fn aad(key_version: &str) -> Vec<u8> {
    [&[ML_KEM], key_version.as_bytes()].concat()
}

fn cipher(dek: &Zeroizing<[u8; 32]>) -> Aes256Gcm {
    Aes256Gcm::new((&**dek).into())
}

/// The shared secret, wiped where it was.
fn secret(mut shared: ml_kem::kem::SharedKey<MlKem1024>) -> Zeroizing<[u8; 32]> {
    let mut dek = Zeroizing::new([0; 32]);
    dek.copy_from_slice(&shared);
    shared.as_mut_slice().zeroize();
    dek
}
