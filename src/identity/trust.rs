//! Whom the agent trusts: pinned roots, and the newest keyset that one of them signed.

use crate::crypto::signed::{Label, VerifyingKeys, hash};
use crate::wire;
use prost::Message;

/// A keyset lives at most this long, in milliseconds (PROTOCOL.md, "Trust").
const MAX_KEYSET_LIFE_MS: i64 = 30 * 24 * 3600 * 1000;

/// Why a keyset or root was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Nothing to hold the cloud's root against.
    #[error("no trust root: set trust.roots, or give a bootstrap token, which ends with it")]
    NoRoot,
    /// Settings and token name different roots.
    #[error(
        "RootChanged: trust.roots and the bootstrap token name different roots; nothing is joined until they agree"
    )]
    RootChanged,
    /// The cloud's root is not pinned.
    #[error("the cloud's root key is not the pinned one")]
    WrongRoot,
    /// Not signed by the root, or not a keyset.
    #[error("the keyset is not signed by the pinned root")]
    BadKeyset,
    /// Older than one that this process has seen.
    #[error("the keyset is older than one already seen")]
    OldKeyset,
    /// Not valid at the signed server time.
    #[error("the keyset has expired or lives longer than 30 days")]
    Expired,
}

/// SEAL key: where credentials are sealed to.
#[derive(Clone)]
pub struct SealKey {
    /// SHA-256 of the public key.
    pub id: [u8; 32],
    /// Its suite.
    pub suite: wire::Suite,
    /// Raw.
    pub public_key: Vec<u8>,
}

/// The keys that count now.
#[derive(Clone)]
pub struct Keyset {
    /// Sign challenge, joined and beat.
    pub join: VerifyingKeys,
    /// Sign sealed and gone.
    pub payload: VerifyingKeys,
    /// Receive credentials.
    pub seal: Vec<SealKey>,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
}

/// Pinned roots and the version floor. Fixed roots for the life of the process.
pub struct Trust {
    roots: Vec<[u8; 32]>,
    newest: u64,
}

impl Trust {
    /// Pins: the roots of the settings, else the hash that ends the bootstrap token's text.
    ///
    /// # Errors
    /// `NoRoot` and `RootChanged`.
    pub fn pin(settings: &[[u8; 32]], token: Option<&str>) -> Result<Self, TrustError> {
        let of_token = token.and_then(root_of_token);
        let roots = match (settings, of_token) {
            ([], None) => return Err(TrustError::NoRoot),
            ([], Some(root)) => vec![root],
            (given, Some(root)) if !given.contains(&root) => return Err(TrustError::RootChanged),
            (given, _) => given.to_vec(),
        };
        Ok(Self { roots, newest: 0 })
    }

    /// Whether a root is one of the pins.
    pub fn pins(&self, root: &[u8; 32]) -> bool {
        self.roots.contains(root)
    }

    /// Checks a keyset against the pins. `expires` is judged by [`Keyset::check_time`] once a signed time is known.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn accept(&mut self, root: &[u8], signed: &wire::Signed) -> Result<Keyset, TrustError> {
        if !self.pins(&hash(root)) {
            return Err(TrustError::WrongRoot);
        }
        let mut keys = VerifyingKeys::default();
        keys.add(root);
        let body = keys.body(Label::Keyset, signed).map_err(|_| TrustError::BadKeyset)?;
        let keyset = wire::Keyset::decode(body).map_err(|_| TrustError::BadKeyset)?;
        if keyset.version == 0 || keyset.version < self.newest {
            return Err(TrustError::OldKeyset);
        }
        let life = keyset.expires_at_ms.saturating_sub(keyset.issued_at_ms);
        if !(1..=MAX_KEYSET_LIFE_MS).contains(&life) {
            return Err(TrustError::Expired);
        }
        self.newest = keyset.version;
        let mut out = Keyset {
            join: VerifyingKeys::default(),
            payload: VerifyingKeys::default(),
            seal: Vec::new(),
            expires_at_ms: keyset.expires_at_ms,
        };
        for key in keyset.keys {
            match wire::KeyUse::try_from(key.r#use) {
                Ok(wire::KeyUse::Join) => out.join.add(&key.public_key),
                Ok(wire::KeyUse::Payload) => out.payload.add(&key.public_key),
                Ok(wire::KeyUse::Seal) => {
                    out.seal.push(SealKey { id: hash(&key.public_key), suite: key.suite(), public_key: key.public_key })
                }
                Ok(wire::KeyUse::Unspecified) | Err(_) => return Err(TrustError::BadKeyset),
            }
        }
        Ok(out)
    }
}

impl Keyset {
    /// Whether the keyset is valid at a signed server time.
    ///
    /// # Errors
    /// `Expired`.
    pub fn check_time(&self, server_time_ms: i64) -> Result<(), TrustError> {
        if server_time_ms < self.expires_at_ms { Ok(()) } else { Err(TrustError::Expired) }
    }
}

/// The hash that ends a bootstrap token, also of a spent or expired one.
pub fn root_of_token(token: &str) -> Option<[u8; 32]> {
    let (_, last) = token.trim().rsplit_once('.')?;
    data_encoding::BASE64URL_NOPAD.decode(last.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::crypto::signed::sign;
    use ed25519_dalek::SigningKey;

    pub(crate) fn keyset(root: &SigningKey, edit: impl FnOnce(&mut wire::Keyset)) -> wire::Signed {
        let mut body = wire::Keyset { version: 3, issued_at_ms: 1_000, expires_at_ms: 2_000_000, keys: vec![] };
        edit(&mut body);
        sign(root, Label::Keyset, body.encode_to_vec())
    }

    fn root() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn public() -> [u8; 32] {
        root().verifying_key().to_bytes()
    }

    fn token() -> String {
        format!("ennt1.a.b.{}", data_encoding::BASE64URL_NOPAD.encode(&hash(&public())))
    }

    #[test]
    fn the_root_is_pinned_by_settings_or_by_the_token_and_both_must_agree() {
        assert_eq!(Trust::pin(&[], None).err(), Some(TrustError::NoRoot));
        assert_eq!(Trust::pin(&[], Some("nonsense")).err(), Some(TrustError::NoRoot));
        assert!(Trust::pin(&[], Some(&token())).is_ok());
        assert!(Trust::pin(&[hash(&public())], Some(&token())).is_ok());
        assert_eq!(Trust::pin(&[[0; 32]], Some(&token())).err(), Some(TrustError::RootChanged));
    }

    #[test]
    fn only_the_pinned_root_signs_a_keyset_and_versions_never_go_back() {
        let mut trust = Trust::pin(&[], Some(&token())).unwrap();
        let evil = SigningKey::from_bytes(&[2; 32]);
        let mut refused = |root: &[u8], signed: &wire::Signed| trust.accept(root, signed).err();
        assert_eq!(refused(evil.verifying_key().as_bytes(), &keyset(&evil, |_| ())), Some(TrustError::WrongRoot));
        assert_eq!(refused(&public(), &keyset(&evil, |_| ())), Some(TrustError::BadKeyset));
        assert_eq!(refused(&public(), &keyset(&root(), |k| k.version = 0)), Some(TrustError::OldKeyset));
        assert_eq!(refused(&public(), &keyset(&root(), |k| k.expires_at_ms = i64::MAX)), Some(TrustError::Expired));
        assert_eq!(
            refused(&public(), &keyset(&root(), |k| k.keys.push(wire::Key::default()))),
            Some(TrustError::BadKeyset)
        );
        assert_eq!(refused(&public(), &keyset(&root(), |_| ())), None);
        assert_eq!(refused(&public(), &keyset(&root(), |k| k.version = 2)), Some(TrustError::OldKeyset));
        let good = trust.accept(&public(), &keyset(&root(), |_| ())).unwrap();
        assert_eq!(good.check_time(1_999_999), Ok(()));
        assert_eq!(good.check_time(2_000_000), Err(TrustError::Expired));
    }
}
