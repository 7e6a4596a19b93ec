//! HPKE (RFC 9180), base mode, single shot: the one place where suites differ.
//!
//! A = KEM 0x0020 DHKEM(X25519, HKDF-SHA256); B = KEM 0x647a X-Wing (ML-KEM-768 and X25519, draft-connolly-cfrg-xwing-kem-06).
//! Both: KDF 0x0001 HKDF-SHA256, AEAD 0x0002 AES-256-GCM. Private keys are kept as seeds of 32 bytes in either suite, and are
//! parsed only where they open something: a parsed X-Wing key is fifty times as large.

use crate::hardening::scrubbed;
use crate::wire;
use hpke::aead::{AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable};
use hpke::{single_shot_open_inout_detached, single_shot_seal_with_rng};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Bytes of AES-GCM's tag, which ends a ciphertext.
const TAG: usize = 16;

/// What both ends speak: chosen in the join, fixed for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Mandatory.
    A,
    /// Preferred: whoever records it today and has a quantum computer one day still reads nothing.
    B,
}

/// A key, encapsulated key or ciphertext that the suite does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key or ciphertext of the suite")]
pub struct Unusable;

impl From<HpkeError> for Unusable {
    fn from(_: HpkeError) -> Self {
        Self
    }
}

impl Suite {
    /// All that the agent has, in the order in which it offers them.
    pub const OFFERED: [Self; 2] = [Self::B, Self::A];

    /// As it stands in messages.
    pub fn on_wire(self) -> wire::Suite {
        match self {
            Self::A => wire::Suite::A,
            Self::B => wire::Suite::B,
        }
    }

    /// The suite of a number in a message; UNSPECIFIED and unknown ones are none.
    pub fn of_wire(number: i32) -> Option<Self> {
        Self::OFFERED.into_iter().find(|suite| suite.on_wire() as i32 == number)
    }

    /// The raw public half of a private key: 32 bytes in A, 1,216 in B.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn public_of_seed(self, seed: &[u8; 32]) -> Result<Vec<u8>, Unusable> {
        match self {
            Self::A => public::<X25519HkdfSha256>(seed),
            Self::B => public::<XWing>(seed),
        }
    }

    /// Seals to a raw public key; gives `enc` and the ciphertext, which ends with the tag.
    ///
    /// # Errors
    /// [`Unusable`] when it is no public key of this suite.
    pub fn seal(
        self,
        public_key: &[u8],
        info: &[u8],
        aad: &[u8],
        plain: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Vec<u8>), Unusable> {
        match self {
            Self::A => seal::<X25519HkdfSha256>(public_key, info, aad, plain, rng),
            Self::B => seal::<XWing>(public_key, info, aad, plain, rng),
        }
    }

    /// Opens in the ciphertext's own memory.
    ///
    /// # Errors
    /// [`Unusable`], whatever it is that does not fit.
    pub fn open(
        self,
        seed: &[u8; 32],
        enc: &[u8],
        info: &[u8],
        aad: &[u8],
        ciphertext: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Unusable> {
        match self {
            Self::A => open::<X25519HkdfSha256>(seed, enc, info, aad, ciphertext),
            Self::B => open::<XWing>(seed, enc, info, aad, ciphertext),
        }
    }
}

fn public<K: Kem>(seed: &[u8; 32]) -> Result<Vec<u8>, Unusable> {
    Ok(K::sk_to_pk(&K::PrivateKey::from_bytes(seed)?).to_bytes().to_vec())
}

fn seal<K: Kem>(
    public_key: &[u8],
    info: &[u8],
    aad: &[u8],
    plain: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Vec<u8>), Unusable> {
    let recipient = K::PublicKey::from_bytes(public_key)?;
    let (enc, sealed) =
        single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(&OpModeS::Base, &recipient, info, plain, aad, rng)?;
    Ok((enc.to_bytes().to_vec(), sealed))
}

/// Kept out of line so that its frame, which held plaintext blocks and a parsed key, is one that the caller can scrub.
#[inline(never)]
fn open<K: Kem>(
    seed: &[u8; 32],
    enc: &[u8],
    info: &[u8],
    aad: &[u8],
    ciphertext: Vec<u8>,
) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let mut buffer = Zeroizing::new(ciphertext);
    let length = buffer.len().checked_sub(TAG).ok_or(Unusable)?;
    let tag = AeadTag::<AesGcm256>::from_bytes(&buffer[length..])?;
    buffer.truncate(length);
    let enc = K::EncappedKey::from_bytes(enc)?;
    let private = K::PrivateKey::from_bytes(seed)?;
    // At once: whatever is built on the heap from here on would take along what is left on the stack.
    scrubbed(|| {
        let plain = InOutBuf::from(buffer.as_mut_slice());
        single_shot_open_inout_detached::<AesGcm256, HkdfSha256, K>(
            &OpModeR::Base,
            &private,
            &enc,
            info,
            plain,
            aad,
            &tag,
        )
    })?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::UnwrapErr;

    #[test]
    fn what_one_suite_seals_it_opens_and_no_other_does() {
        let mut rng = UnwrapErr(getrandom::SysRng);
        let seed = [7; 32];
        for (suite, other, length) in [(Suite::A, Suite::B, 32), (Suite::B, Suite::A, 1216)] {
            let public = suite.public_of_seed(&seed).unwrap();
            assert_eq!((public.len(), Suite::of_wire(suite.on_wire() as i32)), (length, Some(suite)));
            let (enc, sealed) = suite.seal(&public, b"info", b"aad", b"plain", &mut rng).unwrap();
            let open = |suite: Suite, info: &[u8], aad: &[u8]| suite.open(&seed, &enc, info, aad, sealed.clone());
            assert_eq!(open(suite, b"info", b"aad").unwrap().as_slice(), b"plain");
            assert_eq!(open(suite, b"other", b"aad"), Err(Unusable));
            assert_eq!(open(suite, b"info", b"other"), Err(Unusable));
            assert_eq!(open(other, b"info", b"aad"), Err(Unusable));
            assert_eq!(other.seal(&public, b"", b"", b"", &mut rng), Err(Unusable));
        }
        assert_eq!((Suite::of_wire(0), Suite::of_wire(3)), (None, None));
    }
}
