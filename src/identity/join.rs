//! Begin/Finish as a state machine without I/O: [`Join`] -> [`Proved`] -> [`Identity`].
//!
//! The same machine serves the two unary calls of a join and the four frames of a renewal.

use crate::crypto::signed::{Label, SignatureError, hash, hash_parts, join_hashes};
use crate::crypto::suite::Suite;
use crate::identity::access_token::Identity;
use crate::identity::signing_key::AgentKey;
use crate::identity::trust::{Keyset, Trust, TrustError};
use crate::wire;
use prost::Message;
use rand_core::CryptoRng;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

const INFO: &[u8] = b"ennote/join/v1";

/// Why a join did not come about on our side of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Root or keyset.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Challenge or joined message.
    #[error("an answer of the cloud was refused: {0}")]
    Signature(#[from] SignatureError),
    /// A message that does not decode, or belongs to another join.
    #[error("an answer of the cloud does not belong to this join")]
    Mismatch,
    /// A suite that was not offered, or without a key in the keyset.
    #[error("the cloud chose a suite that was not offered")]
    Suite,
}

/// All that the agent has to show. Wiped.
#[derive(Default)]
pub struct Credentials {
    /// The bootstrap token's text. Empty: none.
    pub bootstrap_token: Zeroizing<String>,
    /// The pod's projected ServiceAccount token for the cloud's audience. Empty: none.
    pub sa_token: Zeroizing<String>,
    /// What that token is signed by.
    pub issuer: Issuer,
}

/// The cluster as an issuer of ServiceAccount tokens (OpenID Connect Discovery). Public.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issuer {
    /// `issuer` of the API server's discovery document. Empty: not known.
    pub url: String,
    /// Its JSON Web Key Set (RFC 7517), as served.
    pub jwks: Vec<u8>,
}

impl Credentials {
    /// When the ServiceAccount token was issued (`iat`, RFC 7519), in Unix milliseconds. Not verified: the token is the
    /// kubelet's own word to this pod, and is used only as a time that has passed.
    pub fn issued_at_ms(&self) -> Option<i64> {
        let claims = self.sa_token.split('.').nth(1)?;
        let claims = Zeroizing::new(data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?);
        #[derive(serde::Deserialize)]
        struct Claims {
            iat: i64,
        }
        serde_json::from_slice::<Claims>(&claims).ok()?.iat.checked_mul(1000)
    }
}

/// A join that has been begun.
pub struct Join {
    hello: Vec<u8>,
    offered: Vec<Suite>,
}

impl Join {
    /// Makes a hello with a fresh nonce, which offers all that we have.
    pub fn begin(key: &AgentKey, build: &str, rng: &mut impl CryptoRng) -> Self {
        Self::offering(&Suite::OFFERED, key, build, rng)
    }

    /// Makes a hello that offers these suites, the preferred one first.
    pub fn offering(offered: &[Suite], key: &AgentKey, build: &str, rng: &mut impl CryptoRng) -> Self {
        let mut client_nonce = vec![0; 32];
        rng.fill_bytes(&mut client_nonce);
        let hello = wire::Hello {
            suites: offered.iter().map(|s| s.on_wire() as i32).collect(),
            agent_public_key: key.public(),
            client_nonce,
            build: build.to_owned(),
        };
        Self { hello: hello.encode_to_vec(), offered: offered.to_vec() }
    }

    /// The first message.
    pub fn request(&self) -> wire::BeginRequest {
        wire::BeginRequest { hello: self.hello.clone() }
    }

    /// Checks root, keyset, signature and that the challenge answers this hello; seals the credentials and proves the key.
    ///
    /// # Errors
    /// [`JoinError`]; nothing was revealed then.
    pub fn prove(
        self,
        answer: &wire::BeginResponse,
        trust: &mut Trust,
        key: &AgentKey,
        credentials: &Credentials,
        rng: &mut impl CryptoRng,
    ) -> Result<(Proved, wire::FinishRequest), JoinError> {
        let signed_keyset = answer.keyset.as_ref().ok_or(JoinError::Mismatch)?;
        let keyset = trust.accept(&answer.root_public_key, signed_keyset)?;
        let signed_challenge = answer.challenge.as_ref().ok_or(JoinError::Mismatch)?;
        let body = keyset.join.body(Label::Challenge, signed_challenge)?;
        let challenge = wire::Challenge::decode(body).map_err(|_| JoinError::Mismatch)?;
        if challenge.hello_hash != hash(&self.hello) || challenge.challenge_id.len() != 16 {
            return Err(JoinError::Mismatch);
        }
        trust.hear(&keyset, challenge.server_time_ms)?;
        let suite = Suite::of_wire(challenge.suite).filter(|suite| self.offered.contains(suite));
        let suite = suite.ok_or(JoinError::Suite)?;
        let seal_key =
            keyset.seal.iter().find(|k| k.id.as_slice() == challenge.seal_key_id && k.suite == suite.on_wire());
        let seal_key = seal_key.ok_or(JoinError::Suite)?;
        let t = join_hashes(hash(&self.hello), hash(body));
        let (enc, sealed) = seal(suite, &seal_key.public_key, &t, credentials, rng)?;
        let proof = hash_parts(&[&enc, &sealed]);
        let finish = wire::FinishRequest {
            signature: key.sign_parts(Label::Prove, &[&t, &proof]),
            challenge_id: challenge.challenge_id,
            enc,
            sealed,
        };
        Ok((Proved { t, suite, keyset, server_time_ms: challenge.server_time_ms }, finish))
    }
}

fn seal(
    suite: Suite,
    public_key: &[u8],
    t: &[u8; 64],
    credentials: &Credentials,
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Vec<u8>), JoinError> {
    let mut credential = wire::Credential {
        bootstrap_token: credentials.bootstrap_token.as_str().to_owned(),
        sa_token: credentials.sa_token.as_str().to_owned(),
        issuer: credentials.issuer.url.clone(),
        jwks: credentials.issuer.jwks.clone(),
    };
    let plain = Zeroizing::new(credential.encode_to_vec());
    credential.bootstrap_token.zeroize();
    credential.sa_token.zeroize();
    suite.seal(public_key, INFO, t, &plain, rng).map_err(|_| JoinError::Suite)
}

/// A join that waits for its last message.
pub struct Proved {
    t: [u8; 64],
    suite: Suite,
    keyset: Keyset,
    server_time_ms: i64,
}

impl Proved {
    /// The keys that the challenge stands under.
    pub fn keyset(&self) -> &Keyset {
        &self.keyset
    }

    /// When the cloud signed the challenge, Unix milliseconds.
    pub fn server_time_ms(&self) -> i64 {
        self.server_time_ms
    }

    /// Checks the last message.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn finish(self, answer: &wire::FinishResponse, trust: &mut Trust) -> Result<(Identity, Keyset), JoinError> {
        let signed = answer.joined.as_ref().ok_or(JoinError::Mismatch)?;
        let body = self.keyset.join.body(Label::Joined, signed)?;
        let joined = wire::Joined::decode(body).map_err(|_| JoinError::Mismatch)?;
        if joined.t != self.t || joined.agent_id.is_empty() || joined.lives_s == 0 {
            return Err(JoinError::Mismatch);
        }
        trust.is_newest(&self.keyset)?;
        trust.hear(&self.keyset, joined.server_time_ms)?;
        let identity = Identity {
            agent_id: joined.agent_id,
            organization: joined.organization,
            workspace: joined.workspace,
            epoch: joined.epoch,
            suite: self.suite,
            access_token: Zeroizing::new(joined.access_token),
            lives: Duration::from_secs(joined.lives_s.into()),
            server_time_ms: joined.server_time_ms,
        };
        Ok((identity, self.keyset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::signed::sign;
    use crate::identity::trust::tests::keyset;
    use ed25519_dalek::SigningKey;
    use rand_core::UnwrapErr;

    struct Core {
        root: SigningKey,
        join: SigningKey,
        seal: [u8; 32],
    }

    fn core() -> Core {
        Core { root: SigningKey::from_bytes(&[1; 32]), join: SigningKey::from_bytes(&[2; 32]), seal: [5; 32] }
    }

    impl Core {
        fn seal_public(&self, suite: Suite) -> Vec<u8> {
            suite.public_of_seed(&self.seal).unwrap()
        }

        fn answer(&self, hello: &[u8], edit: impl FnOnce(&mut wire::Challenge)) -> wire::BeginResponse {
            let mut challenge = wire::Challenge {
                hello_hash: hash(hello).to_vec(),
                challenge_id: vec![7; 16],
                server_time_ms: 10_000,
                suite: wire::Suite::A as i32,
                seal_key_id: hash(&self.seal_public(Suite::A)).to_vec(),
            };
            edit(&mut challenge);
            let key = |r#use, suite: wire::Suite, public_key| wire::Key {
                r#use: r#use as i32,
                suite: suite as i32,
                public_key,
            };
            wire::BeginResponse {
                root_public_key: self.root.verifying_key().as_bytes().to_vec(),
                keyset: Some(keyset(&self.root, |k| {
                    k.keys = vec![
                        key(
                            wire::KeyUse::Join,
                            wire::Suite::Unspecified,
                            self.join.verifying_key().as_bytes().to_vec(),
                        ),
                        key(wire::KeyUse::Seal, wire::Suite::A, self.seal_public(Suite::A)),
                        key(wire::KeyUse::Seal, wire::Suite::B, self.seal_public(Suite::B)),
                    ];
                })),
                challenge: Some(sign(&self.join, Label::Challenge, challenge.encode_to_vec())),
            }
        }

        fn trust(&self) -> Trust {
            Trust::pin(&[hash(self.root.verifying_key().as_bytes())], None).unwrap()
        }
    }

    fn credentials() -> Credentials {
        Credentials { bootstrap_token: Zeroizing::new("token".to_owned()), ..Credentials::default() }
    }

    #[test]
    fn a_join_ends_with_an_identity_for_exactly_its_own_transcript() {
        let (core, mut rng) = (core(), UnwrapErr(getrandom::SysRng));
        let key = AgentKey::generate(&mut rng);
        let join = Join::begin(&key, "test", &mut rng);
        let hello = join.request().hello;
        let answer = core.answer(&hello, |_| ());
        let mut trust = core.trust();
        let (proved, finish) = join.prove(&answer, &mut trust, &key, &credentials(), &mut rng).unwrap();
        assert!(!finish.sealed.windows(5).any(|w| w == b"token"));
        let t = proved.t.to_vec();
        let joined = |t: Vec<u8>, signer: &SigningKey| {
            let body = wire::Joined {
                t,
                agent_id: "agt_1".into(),
                lives_s: 900,
                server_time_ms: 11_000,
                epoch: 4,
                ..Default::default()
            };
            wire::FinishResponse { joined: Some(sign(signer, Label::Joined, body.encode_to_vec())) }
        };
        let mut again = |answer: &wire::FinishResponse| {
            Proved { t: proved.t, suite: proved.suite, keyset: proved.keyset.clone(), server_time_ms: 0 }
                .finish(answer, &mut trust)
        };
        assert_eq!(again(&joined(vec![0; 64], &core.join)).err(), Some(JoinError::Mismatch));
        assert_eq!(again(&joined(t.clone(), &core.root)).err(), Some(JoinError::Signature(SignatureError::UnknownKey)));
        let (identity, _) = again(&joined(t, &core.join)).unwrap();
        assert_eq!((identity.agent_id.as_str(), identity.epoch, identity.lives.as_secs()), ("agt_1", 4, 900));
    }

    #[test]
    fn a_challenge_that_does_not_answer_this_hello_reveals_nothing() {
        let (core, mut rng) = (core(), UnwrapErr(getrandom::SysRng));
        let key = AgentKey::generate(&mut rng);
        let mut refused = |edit: fn(&mut wire::Challenge)| {
            let join = Join::begin(&key, "test", &mut rng);
            let answer = core.answer(&join.request().hello, edit);
            join.prove(&answer, &mut core.trust(), &key, &credentials(), &mut rng).err()
        };
        assert_eq!(refused(|c| c.hello_hash = vec![0; 32]), Some(JoinError::Mismatch));
        assert_eq!(refused(|c| c.challenge_id = vec![]), Some(JoinError::Mismatch));
        assert_eq!(refused(|c| c.suite = wire::Suite::B as i32), Some(JoinError::Suite));
        assert_eq!(refused(|c| c.suite = 0), Some(JoinError::Suite));
        assert_eq!(refused(|c| c.seal_key_id = vec![0; 32]), Some(JoinError::Suite));
        assert_eq!(refused(|c| c.server_time_ms = i64::MAX), Some(JoinError::Trust(TrustError::Expired)));
    }

    #[test]
    fn a_service_account_token_says_when_it_was_issued() {
        let token = |claims: &str| {
            let claims = data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes());
            let sa_token = Zeroizing::new(format!("e30.{claims}.c2ln"));
            Credentials { sa_token, ..Credentials::default() }.issued_at_ms()
        };
        assert_eq!(token(r#"{"iat": 1800000000, "exp": 1800000600}"#), Some(1_800_000_000_000));
        assert_eq!((token("{}"), token("[]"), token(r#"{"iat": 9223372036854775807}"#)), (None, None, None));
        assert_eq!(Credentials::default().issued_at_ms(), None);
    }
}
