//! HPKE suites (RFC 9180): base mode, single shot, KDF HKDF-SHA256, AEAD AES-256-GCM. Pure.

use crate::wire;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{
    Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use zeroize::Zeroizing;

/// How things are sealed between the two ends of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Suite {
    /// KEM 0x0020, DHKEM(X25519, HKDF-SHA256). Mandatory; what rows from before suite B meant.
    #[default]
    A,
    /// KEM 0x647a, X-Wing. Preferred.
    B,
}

/// A public key, encapsulated key or ciphertext that the suite does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key or ciphertext of that suite")]
pub struct Unsealable;

impl From<HpkeError> for Unsealable {
    fn from(_: HpkeError) -> Self {
        Self
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "a" | "A" => Ok(Self::A),
            "b" | "B" => Ok(Self::B),
            _ => Err(format!("{text:?} is no suite; there are a and b")),
        }
    }
}

impl Suite {
    /// Both, the preferred one first.
    pub const ALL: [Self; 2] = [Self::B, Self::A];

    /// As it stands in messages.
    pub fn on_wire(self) -> wire::Suite {
        match self {
            Self::A => wire::Suite::A,
            Self::B => wire::Suite::B,
        }
    }

    /// Bytes of a raw public key.
    pub fn public_key_length(self) -> usize {
        match self {
            Self::A => 32,
            Self::B => 1216,
        }
    }

    /// The raw public half of a private key, which is a seed of 32 bytes in both suites.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn public(self, private: &[u8; 32]) -> Result<Vec<u8>, Unsealable> {
        match self {
            Self::A => public::<X25519HkdfSha256>(private),
            Self::B => public::<XWing>(private),
        }
    }

    /// Seals to a raw public key; gives `enc` and the ciphertext.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn seal(
        self,
        public_key: &[u8],
        info: &[u8],
        aad: &[u8],
        plain: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Vec<u8>), Unsealable> {
        match self {
            Self::A => seal::<X25519HkdfSha256>(public_key, info, aad, plain, rng),
            Self::B => seal::<XWing>(public_key, info, aad, plain, rng),
        }
    }

    /// Opens what [`Suite::seal`] made.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn open(
        self,
        private: &[u8; 32],
        info: &[u8],
        aad: &[u8],
        enc: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        match self {
            Self::A => open::<X25519HkdfSha256>(private, info, aad, enc, sealed),
            Self::B => open::<XWing>(private, info, aad, enc, sealed),
        }
    }
}

fn public<K: Kem>(private: &[u8; 32]) -> Result<Vec<u8>, Unsealable> {
    Ok(K::sk_to_pk(&K::PrivateKey::from_bytes(private)?).to_bytes().to_vec())
}

fn seal<K: Kem>(
    public_key: &[u8],
    info: &[u8],
    aad: &[u8],
    plain: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Vec<u8>), Unsealable> {
    let public = K::PublicKey::from_bytes(public_key)?;
    let (enc, sealed) =
        single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(&OpModeS::Base, &public, info, plain, aad, rng)?;
    Ok((enc.to_bytes().to_vec(), sealed))
}

fn open<K: Kem>(
    private: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    enc: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
    let (private, enc) = (K::PrivateKey::from_bytes(private)?, K::EncappedKey::from_bytes(enc)?);
    let plain = single_shot_open::<AesGcm256, HkdfSha256, K>(&OpModeR::Base, &private, &enc, info, sealed, aad)?;
    Ok(Zeroizing::new(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;

    #[test]
    fn a_suite_opens_what_it_sealed_under_the_same_info_and_aad_alone() {
        for suite in Suite::ALL {
            let private: [u8; 32] = entropy::bytes();
            let public = suite.public(&private).unwrap();
            assert_eq!(public.len(), suite.public_key_length());
            let (enc, sealed) = suite.seal(&public, b"i", b"a", b"plain", &mut entropy::system()).unwrap();
            let open = |info: &[u8], aad: &[u8]| suite.open(&private, info, aad, &enc, &sealed);
            assert_eq!(open(b"i", b"a").unwrap().as_slice(), b"plain");
            assert_eq!((open(b"j", b"a"), open(b"i", b"b")), (Err(Unsealable), Err(Unsealable)));
        }
        assert_eq!((Suite::from_str("b"), Suite::from_str("A")), (Ok(Suite::B), Ok(Suite::A)));
        assert!(Suite::from_str("c").is_err());
    }
}
