//! A cluster as far as its ServiceAccount tokens go: it signs them with real keys, as a kube-apiserver or an external signer.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// PKCS#1. Signs nothing but these tests; ring makes no RSA keys.
const RSA: &str = include_str!("../keys/rsa-for-tests-only.base64");

pub enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub fn rsa() -> Self {
        let text: String = RSA.split_whitespace().collect();
        Self::Rsa(RsaKeyPair::from_der(&BASE64.decode(text.as_bytes()).unwrap()).unwrap())
    }

    pub fn p256() -> Self {
        Self::P256(ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING))
    }

    pub fn p384() -> Self {
        Self::P384(ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING))
    }

    pub fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    pub fn alg(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let by: &'static dyn signature::RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(by, &random, message, &mut out).unwrap();
                out
            }
            Self::P256(key) | Self::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let b64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let point = |key: &EcdsaKeyPair, crv: &str| {
            let (x, y) = key.public_key().as_ref()[1..].split_at((key.public_key().as_ref().len() - 1) / 2);
            json!({"kty": "EC", "use": "sig", "crv": crv, "kid": kid, "x": b64(x), "y": b64(y)})
        };
        match self {
            Self::Rsa(key) => {
                let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "use": "sig", "kid": kid, "n": b64(&public.n), "e": b64(&public.e)})
            }
            Self::P256(key) => point(key, "P-256"),
            Self::P384(key) => point(key, "P-384"),
            Self::Ed(key) => {
                json!({"kty": "OKP", "use": "sig", "crv": "Ed25519", "kid": kid, "x": b64(key.public_key().as_ref())})
            }
        }
    }
}

fn ecdsa(by: &'static signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(by, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(by, pkcs8.as_ref(), &random).unwrap()
}

/// One ServiceAccount and one pod of a cluster.
pub struct Cluster {
    pub signer: Signer,
    pub kid: String,
    pub issuer: String,
    pub uid: String,
    pub pod: String,
}

impl Cluster {
    pub fn new(signer: Signer) -> Self {
        Self {
            signer,
            kid: "key-1".into(),
            issuer: "https://kubernetes.default.svc.cluster.local".into(),
            uid: "uid-1".into(),
            pod: "pod-1".into(),
        }
    }

    pub fn jwks(&self) -> String {
        json!({"keys": [self.signer.jwk(&self.kid)]}).to_string()
    }

    /// As the TokenRequest API makes them, valid for ten minutes.
    pub fn claims(&self, jti: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": self.issuer, "sub": "system:serviceaccount:ennote:ennote-agent", "aud": ["https://127.0.0.1/agent-join"],
            "iat": now, "nbf": now, "exp": now + 600, "jti": jti,
            "kubernetes.io": {
                "namespace": "ennote", "node": {"name": "n", "uid": "node-1"},
                "serviceaccount": {"name": "ennote-agent", "uid": self.uid},
                "pod": {"name": "ennote-agent-0", "uid": self.pod},
            },
        })
    }

    pub fn token(&self, jti: &str) -> String {
        self.token_of(&self.claims(jti))
    }

    pub fn token_of(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": self.signer.alg(), "kid": self.kid, "typ": "JWT"}), claims)
    }

    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.signer.sign(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}
