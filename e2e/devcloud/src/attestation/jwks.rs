//! JSON Web Key Sets (RFC 7517) and thumbprints (RFC 7638).

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A set of more bytes is refused.
const MAX_BYTES: usize = 64 * 1024;
/// A set of more usable keys is refused.
const MAX_KEYS: usize = 16;
/// RFC 7518 section 3.3, and what ring takes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A public key that may sign tokens, in the one form of it: two texts of one key have the same thumbprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// RFC 7638, SHA-256, base64url.
    pub thumbprint: String,
    /// By which tokens name it.
    pub kid: Option<String>,
    /// The one algorithm it is for, if it says so.
    pub alg: Option<String>,
    /// The key.
    pub key: PublicKey,
}

/// Numbers and points as base64url of their bytes, big-endian; RSA's without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
#[expect(missing_docs, reason = "members as in RFC 7518 and RFC 8037")]
pub enum PublicKey {
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
    #[serde(rename = "EC")]
    Ec { crv: Curve, x: String, y: String },
    #[serde(rename = "OKP")]
    Okp { crv: Edwards, x: String },
}

/// Curves of ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Curve {
    /// ES256.
    #[serde(rename = "P-256")]
    P256,
    /// ES384.
    #[serde(rename = "P-384")]
    P384,
}

/// The curve of EdDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edwards {
    /// The one that is known.
    Ed25519,
}

/// A set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum BadJwks {
    #[error("it has more than {MAX_BYTES} bytes")]
    Long,
    #[error("it is not a JSON Web Key Set: an object whose member \"keys\" is a list")]
    Shape,
    #[error("it holds no public key for signatures by RSA (2048 bits or more), P-256, P-384 or Ed25519")]
    Empty,
    #[error("it holds more than {MAX_KEYS} keys")]
    Many,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Member {
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    #[serde(flatten)]
    key: PublicKey,
}

/// The keys of a set that can sign tokens, in its order, each once. Others (of other kinds, for encryption, too short) are
/// passed over, as RFC 7517 section 5 wants it.
///
/// # Errors
/// [`BadJwks`].
pub fn parse(text: &[u8]) -> Result<Vec<Jwk>, BadJwks> {
    if text.len() > MAX_BYTES {
        return Err(BadJwks::Long);
    }
    let set: Set = serde_json::from_slice(text).map_err(|_| BadJwks::Shape)?;
    let mut keys: Vec<Jwk> = Vec::new();
    for member in set.keys {
        let Ok(member) = serde_json::from_value::<Member>(member) else { continue };
        let signs = member.r#use.as_deref().is_none_or(|r#use| r#use == "sig");
        let Some(key) = member.key.canonical().filter(|_| signs) else { continue };
        let jwk = Jwk { thumbprint: key.thumbprint(), kid: member.kid, alg: member.alg, key };
        if keys.iter().all(|other| other.thumbprint != jwk.thumbprint) {
            keys.push(jwk);
        }
    }
    match keys.len() {
        0 => Err(BadJwks::Empty),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(BadJwks::Many),
    }
}

impl PublicKey {
    /// The same key in its one form, or None if it is none that is accepted.
    fn canonical(self) -> Option<Self> {
        let point = |text: &str, size: usize| decode(text).filter(|bytes| bytes.len() == size).map(|b| encode(&b));
        Some(match self {
            Self::Rsa { n, e } => {
                let number = |text: &str| {
                    let bytes = decode(text)?;
                    let first = bytes.iter().position(|byte| *byte != 0)?;
                    Some(bytes[first..].to_vec())
                };
                let (n, e) = (number(&n)?, number(&e)?);
                if !RSA_BYTES.contains(&n.len()) || e.len() > 8 {
                    return None;
                }
                Self::Rsa { n: encode(&n), e: encode(&e) }
            }
            Self::Ec { crv, x, y } => Self::Ec { x: point(&x, crv.size())?, y: point(&y, crv.size())?, crv },
            Self::Okp { crv, x } => Self::Okp { x: point(&x, 32)?, crv },
        })
    }

    /// RFC 7638: the required members in lexical order, without blanks. All are plain ASCII, so nothing is escaped.
    fn thumbprint(&self) -> String {
        let text = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Ec { crv, x, y } => format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, crv.name()),
            Self::Okp { crv: Edwards::Ed25519, x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
        };
        encode(&Sha256::digest(text))
    }
}

impl Jwk {
    /// Whether a signature of this key, made by this algorithm, covers the message. An algorithm that is not one of this
    /// kind of key never does: the token does not choose how it is verified.
    pub(super) fn verifies(&self, alg: &str, message: &[u8], signed: &[u8]) -> bool {
        if self.alg.as_deref().is_some_and(|own| own != alg) {
            return false;
        }
        match (&self.key, alg) {
            (PublicKey::Rsa { n, e }, _) => {
                let by: &signature::RsaParameters = match alg {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                let (Some(n), Some(e)) = (decode(n), decode(e)) else { return false };
                RsaPublicKeyComponents { n, e }.verify(by, message, signed).is_ok()
            }
            (PublicKey::Ec { crv: Curve::P256, x, y }, "ES256") => {
                ecdsa(&signature::ECDSA_P256_SHA256_FIXED, x, y, message, signed)
            }
            (PublicKey::Ec { crv: Curve::P384, x, y }, "ES384") => {
                ecdsa(&signature::ECDSA_P384_SHA384_FIXED, x, y, message, signed)
            }
            (PublicKey::Okp { crv: Edwards::Ed25519, x }, "EdDSA" | "Ed25519") => decode(x)
                .is_some_and(|x| UnparsedPublicKey::new(&signature::ED25519, x).verify(message, signed).is_ok()),
            _ => false,
        }
    }
}

impl Curve {
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }
}

fn ecdsa(by: &'static signature::EcdsaVerificationAlgorithm, x: &str, y: &str, message: &[u8], signed: &[u8]) -> bool {
    let (Some(x), Some(y)) = (decode(x), decode(y)) else { return false };
    // SEC 1: an uncompressed point.
    let point = [&[4][..], &x, &y].concat();
    UnparsedPublicKey::new(by, point).verify(message, signed).is_ok()
}

fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7638 section 3.1.
    const RFC_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638_however_the_key_is_written() {
        let thumbprint = |n: &str| {
            let set = format!(r#"{{"keys":[{{"kty":"RSA","kid":"a","alg":"RS256","n":"{n}","e":"AQAB"}}]}}"#);
            parse(set.as_bytes()).map(|keys| keys[0].thumbprint.clone())
        };
        let expected = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(thumbprint(RFC_N).as_deref(), Ok(expected));
        let padded = encode(&[&[0][..], &decode(RFC_N).unwrap()].concat());
        assert_eq!(thumbprint(&padded).as_deref(), Ok(expected), "a leading zero is no other key");
        assert_eq!(thumbprint("AQAB"), Err(BadJwks::Empty), "too short to trust");
    }

    #[test]
    fn a_set_is_its_usable_signing_keys_and_no_more() {
        let (x, y) = (encode(&[7; 32]), encode(&[8; 32]));
        let good = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","kid":"k"}}"#);
        let set = |members: &str| parse(format!(r#"{{"keys":[{members}],"other":1}}"#).as_bytes());
        assert_eq!(set(&format!("{good},{good}")).map(|keys| keys.len()), Ok(1), "the same key twice");
        for passed_over in [
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(),
            format!(r#"{{"kty":"EC","crv":"P-521","x":"{x}","y":"{y}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-384","x":"{x}","y":"{y}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}","use":"enc"}}"#),
            r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.to_owned(),
            "7".to_owned(),
        ] {
            assert_eq!(set(&passed_over), Err(BadJwks::Empty), "{passed_over}");
            assert_eq!(set(&format!("{passed_over},{good}")).map(|keys| keys.len()), Ok(1), "{passed_over}");
        }
        let many: Vec<String> = (0..=MAX_KEYS as u8)
            .map(|n| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, encode(&[n; 32])))
            .collect();
        assert_eq!(set(&many.join(",")), Err(BadJwks::Many));
        assert_eq!(parse(b"[]"), Err(BadJwks::Shape));
        assert_eq!(parse(&vec![b' '; MAX_BYTES + 1]), Err(BadJwks::Long));
    }
}
