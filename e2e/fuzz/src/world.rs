//! A devcloud with one joined agent, and a cluster that signs ServiceAccount tokens; made once a process.

use crate::noise::Noise;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ed25519_dalek::{Signer, SigningKey};
use ennote_devcloud::attestation::{Jwk, parse_jwks};
use ennote_devcloud::core::{Core, InitOptions, PatRequest, TokenRequest};
use ennote_devcloud::envelope::seal_credential;
use ennote_devcloud::settings::Lifetimes;
use ennote_devcloud::signed::{Label, hash, sign_parts};
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire;
use prost::Message;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Of the cloud's decisions, Unix milliseconds.
pub(crate) const NOW: i64 = 1_767_225_600_000;
/// Of the one stream.
pub(crate) const NONCE: [u8; 32] = [0x17; 32];

/// See the module.
pub(crate) struct World {
    pub(crate) core: Arc<Core>,
    pub(crate) agent_key: SigningKey,
    /// What opened its stream.
    pub(crate) open: wire::OpenFrame,
    pub(crate) pat: String,
    _runtime: Runtime,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(World::made);

impl World {
    fn made() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions { organization: "acme".into(), workspace: "prod".into(), tls_names: vec![] };
        let agent_key = SigningKey::from_bytes(&[9; 32]);
        let lives = Lifetimes { access_token_life: Duration::from_secs(u32::MAX.into()), ..Lifetimes::default() };
        let (core, open, pat) = runtime.block_on(async {
            Core::init(directory.path(), &options).await.unwrap();
            let core = Core::open(directory.path(), lives).await.unwrap();
            let wanted = TokenRequest { agent: "fuzz".into(), namespaces: vec!["shop".into()], ..Default::default() };
            let token = core.create_token(&wanted).await.unwrap().token;
            let begin = core.begin(&hello(&agent_key)).await.unwrap();
            let credential = wire::Credential { bootstrap_token: token.as_str().to_owned(), ..Default::default() };
            let finish = answer(&core, &agent_key, &begin, &credential.encode_to_vec());
            let joined = core.finish(&finish).await.unwrap().joined.unwrap();
            let joined = wire::Joined::decode(joined.body.as_slice()).unwrap();
            let open = wire::Open {
                stream_nonce: NONCE.to_vec(),
                agent_id: joined.agent_id,
                epoch: joined.epoch,
                access_token_hash: hash(&[&joined.access_token]).to_vec(),
                suite: Suite::A.on_wire() as i32,
            };
            let open = ennote_devcloud::signed::sign(&agent_key, Label::Open, open.encode_to_vec());
            let pat = PatRequest { name: "ci".into(), workspace: None, life: None };
            let pat = core.create_pat(&pat).await.unwrap();
            let open = wire::OpenFrame { open: Some(open), access_token: joined.access_token };
            (core, open, pat.token.as_str().to_owned())
        });
        Self { core, agent_key, open, pat, _runtime: runtime }
    }
}

/// A hello of this agent key, always the same.
pub(crate) fn hello(key: &SigningKey) -> wire::BeginRequest {
    let hello = wire::Hello {
        suites: vec![Suite::A.on_wire() as i32],
        agent_public_key: key.verifying_key().as_bytes().to_vec(),
        client_nonce: vec![0x31; 32],
        build: "fuzz".into(),
    };
    wire::BeginRequest { hello: hello.encode_to_vec() }
}

/// Whatever bytes as the credential, sealed and proved as an agent does.
pub(crate) fn answer(
    core: &Core,
    key: &SigningKey,
    begin: &wire::BeginResponse,
    credential: &[u8],
) -> wire::FinishRequest {
    let signed = begin.challenge.as_ref().unwrap();
    let challenge = wire::Challenge::decode(signed.body.as_slice()).unwrap();
    let mut t = [0; 64];
    t[..32].copy_from_slice(&challenge.hello_hash);
    t[32..].copy_from_slice(&hash(&[&signed.body]));
    let keys = core.keys();
    let seal = keys.seal(Suite::A).unwrap();
    let (enc, sealed) =
        seal_credential(Suite::A, &seal.public, &t, credential, &mut Noise::seeded(1)).map_err(|_| ()).unwrap();
    let signature = sign_parts(key, Label::Prove, &[&t, &hash(&[&enc, &sealed])]);
    wire::FinishRequest { challenge_id: challenge.challenge_id, enc, sealed, signature }
}

/// PKCS#1. Signs nothing but tests.
const RSA: &str = include_str!("../../devcloud/tests/keys/rsa-for-tests-only.base64");

/// A cluster with a key of an API server, and one of another kind.
pub(crate) struct Cluster {
    rsa: RsaKeyPair,
    edwards: SigningKey,
    pub(crate) jwks: String,
    pub(crate) keys: Vec<Jwk>,
}

pub(crate) static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let text: String = RSA.split_whitespace().collect();
    let rsa = RsaKeyPair::from_der(&BASE64.decode(text.as_bytes()).unwrap()).unwrap();
    let edwards = SigningKey::from_bytes(&[5; 32]);
    let b64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public());
    let jwks = json!({"keys": [
        {"kty": "RSA", "use": "sig", "kid": "rsa", "alg": "RS256", "n": b64(&public.n), "e": b64(&public.e)},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(edwards.verifying_key().as_bytes())},
    ]});
    let jwks = jwks.to_string();
    let keys = parse_jwks(jwks.as_bytes()).unwrap();
    Cluster { rsa, edwards, jwks, keys }
});

/// What a token of the cluster says, ten seconds after it was issued.
pub(crate) fn claims() -> Value {
    let now = NOW / 1000 - 10;
    json!({
        "iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:ennote:ennote-agent",
        "aud": ["https://127.0.0.1/agent-join"], "iat": now, "nbf": now, "exp": now + 600, "jti": "jti-1",
        "kubernetes.io": {
            "namespace": "ennote", "node": {"name": "n", "uid": "node-1"},
            "serviceaccount": {"name": "ennote-agent", "uid": "uid-1"}, "pod": {"name": "ennote-agent-0", "uid": "pod-1"},
        },
    })
}

impl Cluster {
    /// Header and claims, whatever they are, signed by RS256 or EdDSA.
    pub(crate) fn signed(&self, rsa: bool, header: &[u8], claims: &[u8]) -> String {
        let message = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
        let signature = if rsa {
            let mut out = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut out).unwrap();
            out
        } else {
            self.edwards.sign(message.as_bytes()).to_bytes().to_vec()
        };
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}
