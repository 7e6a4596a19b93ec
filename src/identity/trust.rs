//! Whom the agent trusts: pinned roots, and the newest keyset that one of them signed.

use crate::crypto::signed::{Label, VerifyingKeys, hash};
use crate::domain::moment::Moment;
use crate::wire;
use prost::Message;

/// A keyset lives at most this long, in milliseconds (PROTOCOL.md, "Trust").
const MAX_KEYSET_LIFE_MS: i64 = 30 * 24 * 3600 * 1000;
/// A signed time may lie this far below the floor, in milliseconds (PROTOCOL.md, "Time").
const MAX_BEHIND_MS: i64 = 5 * 60 * 1000;

/// Why a keyset or root was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Nothing to hold the cloud's root against.
    #[error("no trust root: set trust.roots, or give a bootstrap token, which ends with it")]
    NoRoot,
    /// A bootstrap token names a root that is not pinned.
    #[error(
        "the bootstrap token ends with another trust root than the pinned one; nothing is joined until they agree: if Ennote \
         changed its root on purpose, upgrade the chart with the new trust.roots; if not, tell who made the token"
    )]
    RootChanged,
    /// The cloud's root is not pinned.
    #[error("the cloud's root key is not the pinned one")]
    WrongRoot,
    /// Not signed by the root, or not a keyset.
    #[error("the keyset is not signed by the pinned root")]
    BadKeyset,
    /// Older than one that this process has seen, or than the settings ask for.
    #[error("the keyset is older than one already seen, or than trust.minKeyset of the chart")]
    OldKeyset,
    /// Not valid at the signed server time.
    #[error("the keyset has expired or lives longer than 30 days")]
    Expired,
    /// A signed time lies more than 5 minutes below what is known to have passed.
    #[error("the cloud's signed time is more than 5 minutes behind what is known to have passed")]
    ClockDisagrees {
        /// What the cloud said, Unix milliseconds.
        server_ms: i64,
        /// What has passed for certain, Unix milliseconds.
        floor_ms: i64,
    },
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
#[derive(Clone, Default)]
pub struct Keyset {
    /// Sign challenge, joined and beat.
    pub join: VerifyingKeys,
    /// Sign sealed and gone.
    pub payload: VerifyingKeys,
    /// Receive credentials.
    pub seal: Vec<SealKey>,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
    /// Only grows.
    pub version: u64,
}

/// Pinned roots, and what never goes back: the keyset's version and the time. Roots are fixed for the life of the process.
pub struct Trust {
    roots: Vec<[u8; 32]>,
    newest: u64,
    floor_ms: i64,
    /// The last signed time that was taken, and when.
    heard: Option<(i64, Moment)>,
    now: Moment,
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
        Ok(Self { roots, newest: 0, floor_ms: 0, heard: None, now: Moment::default() })
    }

    /// No keyset below this version is taken (`trust.minKeyset`): after a key was compromised, for one, an agent that has just
    /// started would otherwise take the old keyset until that expires.
    pub fn require_keyset(&mut self, version: u64) {
        self.newest = self.newest.max(version);
    }

    /// This moment has passed for certain, Unix milliseconds: the build, or the issue of a ServiceAccount token held.
    pub fn raise_floor(&mut self, passed_ms: i64) {
        self.floor_ms = self.floor_ms.max(passed_ms);
    }

    /// It is now this moment of the machine's monotonic time: signed time has gone on with it since it was heard last, so that
    /// what was recorded a while ago is late.
    pub fn pass(&mut self, now: Moment) {
        self.now = self.now.max(now);
    }

    /// Takes a time that a key of `keyset` has signed: not far below the floor, and within the keyset's life at the later of
    /// both. Only a time that is taken raises the floor. The wall clock has no say in this.
    ///
    /// # Errors
    /// `ClockDisagrees`, `Expired`.
    pub fn hear(&mut self, keyset: &Keyset, server_ms: i64) -> Result<(), TrustError> {
        let since = |(at, heard): (i64, Moment)| {
            at.saturating_add(i64::try_from(self.now.since(heard).as_millis()).unwrap_or(i64::MAX))
        };
        let floor_ms = self.heard.map(since).unwrap_or(self.floor_ms).max(self.floor_ms);
        if server_ms < floor_ms.saturating_sub(MAX_BEHIND_MS) {
            return Err(TrustError::ClockDisagrees { server_ms, floor_ms });
        }
        let now = floor_ms.max(server_ms);
        if now >= keyset.expires_at_ms {
            return Err(TrustError::Expired);
        }
        self.floor_ms = self.floor_ms.max(server_ms);
        self.heard = Some((server_ms, self.now));
        Ok(())
    }

    /// Whether no newer keyset has been seen: what an older one lists may be revoked.
    ///
    /// # Errors
    /// `OldKeyset`.
    pub fn is_newest(&self, keyset: &Keyset) -> Result<(), TrustError> {
        if keyset.version < self.newest { Err(TrustError::OldKeyset) } else { Ok(()) }
    }

    /// Whether a root is one of the pins.
    pub fn pins(&self, root: &[u8; 32]) -> bool {
        self.roots.contains(root)
    }

    /// Checks a keyset against the pins. Its end is judged by [`Trust::hear`], once a signed time is known.
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
        let mut out = Keyset {
            join: VerifyingKeys::default(),
            payload: VerifyingKeys::default(),
            seal: Vec::new(),
            expires_at_ms: keyset.expires_at_ms,
            version: keyset.version,
        };
        for key in keyset.keys {
            let signs = matches!(key.r#use(), wire::KeyUse::Join | wire::KeyUse::Payload);
            if signs && key.public_key.len() != 32 {
                return Err(TrustError::BadKeyset);
            }
            match wire::KeyUse::try_from(key.r#use) {
                Ok(wire::KeyUse::Join) => out.join.add(&key.public_key),
                Ok(wire::KeyUse::Payload) => out.payload.add(&key.public_key),
                Ok(wire::KeyUse::Seal) if key.suite == wire::Suite::Unspecified as i32 => {
                    return Err(TrustError::BadKeyset);
                }
                Ok(wire::KeyUse::Seal) => {
                    out.seal.push(SealKey { id: hash(&key.public_key), suite: key.suite(), public_key: key.public_key })
                }
                Ok(wire::KeyUse::Unspecified) | Err(_) => return Err(TrustError::BadKeyset),
            }
        }
        // Only a list that is taken as a whole makes older ones old.
        self.newest = keyset.version;
        Ok(out)
    }
}

/// The hash that ends a bootstrap token, `ennt1.ID.SECRET.HASH`, also of a spent or expired one. A token of another kind, put
/// there by mistake, pins nothing.
pub fn root_of_token(token: &str) -> Option<[u8; 32]> {
    let mut parts = token.trim().split('.');
    let (kind, _id, _secret, root) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if kind != "ennt1" || parts.next().is_some() {
        return None;
    }
    data_encoding::BASE64URL_NOPAD.decode(root.as_bytes()).ok()?.try_into().ok()
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
        for other in [token().replace("ennt1", "eyJ"), token().replace("a.b.", "a."), format!("{}.b", token())] {
            assert_eq!(Trust::pin(&[], Some(&other)).err(), Some(TrustError::NoRoot), "{other}");
        }
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
        for (r#use, public_key) in
            [(wire::KeyUse::Join, vec![1; 31]), (wire::KeyUse::Payload, vec![1; 33]), (wire::KeyUse::Seal, vec![1; 32])]
        {
            let key = wire::Key { r#use: r#use as i32, suite: 0, public_key };
            let list = keyset(&root(), |k| {
                k.version = 9;
                k.keys.push(key);
            });
            assert_eq!(refused(&public(), &list), Some(TrustError::BadKeyset), "use {}", r#use as i32);
        }
        assert_eq!(refused(&public(), &keyset(&root(), |_| ())), None, "a list that was refused makes none old");
        assert_eq!(refused(&public(), &keyset(&root(), |k| k.version = 2)), Some(TrustError::OldKeyset));
        let taken = trust.accept(&public(), &keyset(&root(), |_| ())).unwrap();
        assert_eq!(trust.is_newest(&taken), Ok(()));
        trust.require_keyset(4);
        assert_eq!(trust.is_newest(&taken), Err(TrustError::OldKeyset), "its join came back late");
        let below = trust.accept(&public(), &keyset(&root(), |_| ())).err();
        assert_eq!(below, Some(TrustError::OldKeyset), "trust.minKeyset");
    }

    #[test]
    fn time_is_what_the_cloud_signs_and_never_far_below_what_has_passed() {
        let heard = |floor: i64, server: i64| {
            let mut trust = Trust::pin(&[], Some(&token())).unwrap();
            let keyset = trust.accept(&public(), &keyset(&root(), |_| ())).unwrap();
            trust.raise_floor(floor);
            let verdict = trust.hear(&keyset, server);
            (verdict, trust.floor_ms)
        };
        assert_eq!(heard(0, 1_999_999), (Ok(()), 1_999_999));
        assert_eq!(heard(0, 2_000_000), (Err(TrustError::Expired), 0), "what is refused raises no floor");
        assert_eq!(heard(2_000_000, 1_999_999), (Err(TrustError::Expired), 2_000_000), "judged at the later of both");
        assert_eq!(heard(1_000_000, 700_000), (Ok(()), 1_000_000), "5 minutes of disagreement are human");
        let disagrees = TrustError::ClockDisagrees { server_ms: 699_999, floor_ms: 1_000_000 };
        assert_eq!(heard(1_000_000, 699_999), (Err(disagrees), 1_000_000));
        assert!(heard(1_000_000, i64::MIN).0.is_err());
        let mut trust = Trust::pin(&[], Some(&token())).unwrap();
        let keyset = trust.accept(&public(), &keyset(&root(), |_| ())).unwrap();
        let mut at = |second, server| {
            trust.pass(Moment::new(std::time::Duration::from_secs(second)));
            trust.hear(&keyset, server).is_ok()
        };
        assert!(at(10, 100_000) && at(310, 100_000), "signed 5 minutes ago");
        assert!(at(310, 400_000) && !at(611, 400_000), "a recording grows late as time goes on");
        assert!(at(611, 1_500_000), "what the cloud says now counts from then on");
    }
}
