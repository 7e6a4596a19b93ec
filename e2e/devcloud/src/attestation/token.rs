//! A compact JWS (RFC 7515) of which nothing is believed before a key has verified it.

use super::claims::Claims;
use super::{Attested, Fault, Jwk, Rules};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Kubernetes' tokens have about 1 KiB; external signers' certificates would not fit in a header either.
const MAX_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// RFC 7515 section 4.1.11: extensions that have to be understood, and none is.
    crit: Option<serde_json::Value>,
}

/// A token's parts, unverified.
pub struct Unverified<'a> {
    header: Header,
    claims: Claims,
    message: &'a str,
    signature: Vec<u8>,
    hash: String,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// `NoCredential` where there is none, else `Malformed`.
    pub fn read(text: &'a str) -> Result<Self, Fault> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Fault::NoCredential);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(Fault::Malformed)?;
        if text.len() > MAX_BYTES {
            return Err(Fault::Malformed);
        }
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Fault::Malformed);
        // As text first (RFC 7519 section 7.2): what serde_json passes over, it does not look at.
        let utf8 = |bytes| String::from_utf8(bytes).map_err(|_| Fault::Malformed);
        let header: Header = serde_json::from_str(&utf8(decode(header)?)?).map_err(|_| Fault::Malformed)?;
        if header.crit.is_some() {
            return Err(Fault::Malformed);
        }
        let claims = serde_json::from_str(&utf8(decode(claims)?)?).map_err(|_| Fault::Malformed)?;
        let hash = HEXLOWER.encode(&Sha256::digest(text));
        Ok(Self { header, claims, message, signature: decode(signature)?, hash })
    }

    /// `sub` and ServiceAccount UID as the token claims them: good for finding an enrolment, for nothing else.
    ///
    /// # Errors
    /// `Subject`, `Uid`.
    pub fn owner(&self) -> Result<(&str, &str), Fault> {
        self.claims.owner()
    }

    /// `iss` as the token claims it.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.issuer()
    }

    /// Whether it may be this key's, as far as it says itself.
    pub fn names(&self, key: &Jwk) -> bool {
        self.header.kid.is_none() || key.kid == self.header.kid
    }

    /// The key that signed it.
    ///
    /// # Errors
    /// `KeyUnknown` if none of them is named, `Signature` if none of those named has signed.
    pub fn signed_by<'k>(&self, keys: impl IntoIterator<Item = &'k Jwk>) -> Result<&'k Jwk, Fault> {
        let mut fault = Fault::KeyUnknown;
        for key in keys.into_iter().filter(|key| self.names(key)) {
            if key.verifies(&self.header.alg, self.message.as_bytes(), &self.signature) {
                return Ok(key);
            }
            fault = Fault::Signature;
        }
        Err(fault)
    }

    /// What the token proves under these keys and rules, and by which key.
    ///
    /// # Errors
    /// The first rule that it breaks; the signature's is the first of all.
    pub fn judged<'k>(
        self,
        keys: impl IntoIterator<Item = &'k Jwk>,
        rules: Rules<'_>,
    ) -> Result<(Attested, &'k Jwk), Fault> {
        let key = self.signed_by(keys)?;
        Ok((self.claims.judged(rules, self.hash)?, key))
    }
}
