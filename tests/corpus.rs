//! Every decoder of bytes from the network in `crypto` and `identity`, over a corpus: the frozen vectors truncated at each byte
//! and flipped in each, what the cloud's own keys sign of that, and noise from a fixed seed. Nothing panics, nothing counts.

#![allow(clippy::unwrap_used, reason = "a failing test panics")]

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use ennote_agent::crypto::envelope::{self, Expected};
use ennote_agent::crypto::session_keys::SessionKey;
use ennote_agent::crypto::signed::{self, Label, VerifyingKeys, hash, hash_parts, join_hashes};
use ennote_agent::crypto::suite::Suite;
use ennote_agent::identity::join::{Credentials, Join};
use ennote_agent::identity::signing_key::AgentKey;
use ennote_agent::identity::trust::{Trust, root_of_token};
use ennote_agent::wire;
use prost::Message;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use std::convert::Infallible;

fn file(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn signed_of(value: &Value) -> wire::Signed {
    wire::Signed { body: bytes(&value["body"]), key_id: bytes(&value["key_id"]), signature: bytes(&value["signature"]) }
}

/// SplitMix64: the same noise on every machine, and the given draws before it.
struct Noise {
    draws: Vec<Vec<u8>>,
    state: u64,
}

impl Noise {
    fn new(draws: Vec<Vec<u8>>) -> Self {
        Self { draws, state: 0x5eed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.next() % (most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }
}

impl TryRng for Noise {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        match self.draws.is_empty() {
            true => out.iter_mut().for_each(|byte| *byte = self.next() as u8),
            false => out.copy_from_slice(&self.draws.remove(0)),
        }
        Ok(())
    }
}

impl TryCryptoRng for Noise {}

/// Every truncation, and every byte with one bit flipped: another bit in each.
fn altered(good: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let truncated = (0..good.len()).map(|length| good[..length].to_vec());
    let flipped = (0..good.len()).map(|at| {
        let mut copy = good.to_vec();
        copy[at] ^= 1 << (at % 8);
        copy
    });
    truncated.chain(flipped)
}

/// What opens and counts in one of the files of deliveries.
struct Deliveries {
    suite: Suite,
    file: Value,
    expected: Expected,
    listed: VerifyingKeys,
    payload_key: SigningKey,
}

fn deliveries() -> [Deliveries; 2] {
    [(Suite::A, "sealed.json"), (Suite::B, "sealed-b.json")].map(|(suite, name)| {
        let file = file(name);
        let of = &file["expected"];
        let text = |name: &str| of[name].as_str().unwrap().to_owned();
        let expected = Expected {
            agent_id: text("agent_id"),
            epoch: of["epoch"].as_u64().unwrap(),
            suite,
            stream_nonce: bytes(&of["stream_nonce"]),
            want_id: of["want_id"].as_u64().unwrap(),
            namespace: text("namespace"),
            binding: text("binding"),
            binding_uid: text("binding_uid"),
            organization: text("organization"),
            workspace: text("workspace"),
            secret: text("secret"),
        };
        let payload_key = SigningKey::from_bytes(&array(&file["payload_key"]["seed"]));
        let mut listed = VerifyingKeys::default();
        listed.add(payload_key.verifying_key().as_bytes());
        Deliveries { suite, expected, listed, payload_key, file }
    })
}

impl Deliveries {
    fn sealed(&self) -> wire::Sealed {
        let of = &self.file["sealed"];
        wire::Sealed {
            header: bytes(&of["header"]),
            enc: bytes(&of["enc"]),
            ciphertext: bytes(&of["ciphertext"]),
            key_id: bytes(&of["key_id"]),
            signature: bytes(&of["signature"]),
        }
    }

    fn opens(&self, sealed: wire::Sealed) -> bool {
        let key = &self.file["session_key"];
        let (key, _) =
            SessionKey::from_seed(self.suite, key["index"].as_u64().unwrap(), &array(&key["private_key"])).unwrap();
        let _claimed: Option<u64> = envelope::claimed_key(&sealed);
        envelope::open(sealed, key, &self.expected, &self.listed).is_ok()
    }

    /// As the cloud's own key would sign it: what a broken core could send.
    fn signs(&self, header: Vec<u8>, enc: Vec<u8>, ciphertext: Vec<u8>) -> wire::Sealed {
        let parts = join_hashes(hash(&header), hash_parts(&[&enc, &ciphertext]));
        let signature = signed::sign_parts(&self.payload_key, Label::Sealed, &[&parts]).to_vec();
        let key_id = hash(self.payload_key.verifying_key().as_bytes()).to_vec();
        wire::Sealed { header, enc, ciphertext, key_id, signature }
    }
}

#[test]
fn no_altered_delivery_opens() {
    for of in deliveries() {
        let good = of.sealed();
        assert!(of.opens(good.clone()));
        for (index, bytes) in altered(&good.encode_to_vec()).enumerate() {
            let Ok(sealed) = wire::Sealed::decode(bytes.as_slice()) else { continue };
            assert!(!of.opens(sealed), "{:?} {index}", of.suite);
        }
    }
}

#[test]
fn no_altered_delivery_opens_even_if_it_is_signed_well() {
    for of in deliveries() {
        let wire::Sealed { header, enc, ciphertext, .. } = of.sealed();
        for (index, header) in altered(&header).enumerate() {
            assert!(!of.opens(of.signs(header, enc.clone(), ciphertext.clone())), "{:?}, header {index}", of.suite);
        }
        for (index, ciphertext) in altered(&ciphertext).enumerate() {
            assert!(!of.opens(of.signs(header.clone(), enc.clone(), ciphertext)), "{:?}, ciphertext {index}", of.suite);
        }
        for (index, enc) in altered(&enc).enumerate() {
            assert!(!of.opens(of.signs(header.clone(), enc, ciphertext.clone())), "{:?}, enc {index}", of.suite);
        }
    }
}

#[test]
fn no_altered_tombstone_counts() {
    for of in deliveries() {
        let good = signed_of(&of.file["gone"]["signed"]);
        let counts = |signed: &wire::Signed| envelope::gone(signed, &of.expected, &of.listed).is_ok();
        assert!(counts(&good));
        for (index, bytes) in altered(&good.encode_to_vec()).enumerate() {
            let Ok(signed) = wire::Signed::decode(bytes.as_slice()) else { continue };
            assert!(!counts(&signed), "{:?} {index}", of.suite);
        }
        // Signed well: what is left to differ is what the agent does not predict.
        for body in altered(&good.body) {
            let header = wire::Header::decode(body.as_slice()).unwrap_or_default();
            let signed = signed::sign(&of.payload_key, Label::Gone, body);
            if counts(&signed) {
                let same = wire::Header { version: 10, ..header.clone() };
                assert!(header.version > 0 && predicted(&same) == predicted(&decoded(&good.body)), "{:?}", of.suite);
            }
        }
    }
}

fn decoded(body: &[u8]) -> wire::Header {
    wire::Header::decode(body).unwrap()
}

/// A header without type, version and committed_at, which the agent does not predict.
fn predicted(header: &wire::Header) -> Vec<u8> {
    wire::Header { r#type: 0, version: 0, committed_at_ms: 0, ..header.clone() }.encode_to_vec()
}

/// The join of a file, up to what the cloud answers.
struct Joining {
    file: Value,
    offered: &'static [Suite],
}

impl Joining {
    fn all() -> [Self; 2] {
        [("join.json", &[Suite::A][..]), ("join-b.json", &Suite::OFFERED[..])]
            .map(|(name, offered)| Self { file: file(name), offered })
    }

    fn begun(&self) -> (Join, AgentKey, Trust, Noise) {
        let of = &self.file;
        let draws = ["client_nonce", "ephemeral_ikm"].map(|name| bytes(&of[name]));
        let mut rng = Noise::new([vec![bytes(&of["agent_key"]["seed"])], draws.to_vec()].concat());
        let key = AgentKey::generate(&mut rng);
        let join = Join::offering(self.offered, &key, of["build"].as_str().unwrap(), &mut rng);
        (join, key, Trust::pin(&[array(&of["root"]["key_id"])], None).unwrap(), rng)
    }

    fn begin(&self) -> wire::BeginResponse {
        wire::BeginResponse {
            root_public_key: bytes(&self.file["root"]["public_key"]),
            keyset: Some(signed_of(&self.file["keyset"])),
            challenge: Some(signed_of(&self.file["challenge"])),
        }
    }

    /// Whether a join goes through on these two answers.
    fn goes(&self, begin: &wire::BeginResponse, finish: &wire::FinishResponse) -> bool {
        let (join, key, mut trust, mut rng) = self.begun();
        let proved = join.prove(begin, &mut trust, &key, &Credentials::default(), &mut rng);
        proved.is_ok_and(|(proved, _)| proved.finish(finish, &mut trust).is_ok())
    }
}

#[test]
fn no_join_goes_through_on_an_altered_answer() {
    for of in Joining::all() {
        let (begin, finish) = (of.begin(), wire::FinishResponse { joined: Some(signed_of(&of.file["joined"])) });
        assert!(of.goes(&begin, &finish));
        for (index, bytes) in altered(&begin.encode_to_vec()).enumerate() {
            let Ok(begin) = wire::BeginResponse::decode(bytes.as_slice()) else { continue };
            assert!(!of.goes(&begin, &finish), "begin {index}");
        }
        for (index, bytes) in altered(&finish.encode_to_vec()).enumerate() {
            let Ok(finish) = wire::FinishResponse::decode(bytes.as_slice()) else { continue };
            assert!(!of.goes(&begin, &finish), "finish {index}");
        }
        // By the cloud's own keys: whatever else a keyset or challenge says, the answer to the first does not fit it.
        let (root, join_key) = (key(&of.file["root"]), key(&of.file["join_key"]));
        let keyset = begin.keyset.clone().unwrap().body;
        for body in altered(&keyset) {
            let begin = wire::BeginResponse { keyset: Some(signed::sign(&root, Label::Keyset, body)), ..begin.clone() };
            let _either = of.goes(&begin, &finish);
        }
        for (index, body) in altered(&begin.challenge.clone().unwrap().body).enumerate() {
            let challenge = Some(signed::sign(&join_key, Label::Challenge, body));
            let begin = wire::BeginResponse { challenge, ..begin.clone() };
            assert!(!of.goes(&begin, &finish), "challenge {index}");
        }
        for body in altered(&finish.joined.clone().unwrap().body) {
            let finish = wire::FinishResponse { joined: Some(signed::sign(&join_key, Label::Joined, body)) };
            let _either = of.goes(&begin, &finish);
        }
    }
}

fn key(value: &Value) -> SigningKey {
    SigningKey::from_bytes(&array(&value["seed"]))
}

#[test]
fn noise_is_nothing_to_any_decoder() {
    let mut noise = Noise::new(vec![]);
    let (deliveries, joins) = (deliveries(), Joining::all());
    for _ in 0..1_000 {
        let bytes = noise.bytes(400);
        let signed = wire::Signed { body: bytes.clone(), key_id: noise.bytes(33), signature: noise.bytes(65) };
        for of in &deliveries {
            if let Ok(sealed) = wire::Sealed::decode(bytes.as_slice()) {
                assert!(!of.opens(sealed));
            }
            assert!(envelope::gone(&signed, &of.expected, &of.listed).is_err());
            // Signed by the right key, so that the decoder of headers is reached.
            let body = signed::sign(&of.payload_key, Label::Gone, bytes.clone());
            assert!(envelope::gone(&body, &of.expected, &of.listed).is_err());
            assert!(!of.opens(of.signs(bytes.clone(), noise.bytes(64), noise.bytes(64))));
        }
        for of in &joins {
            let begin = wire::BeginResponse {
                root_public_key: noise.bytes(33),
                keyset: Some(signed.clone()),
                challenge: Some(signed.clone()),
            };
            let finish = wire::FinishResponse { joined: Some(signed.clone()) };
            assert!(!of.goes(&begin, &finish) && !of.goes(&of.begin(), &finish));
            let begin = wire::BeginResponse {
                keyset: Some(signed::sign(&key(&of.file["root"]), Label::Keyset, bytes.clone())),
                ..of.begin()
            };
            assert!(!of.goes(&begin, &finish));
            let _frame = wire::CloudFrame::decode(bytes.as_slice()).is_ok();
        }
        for suite in Suite::OFFERED {
            assert!(suite.open(&[7; 32], &bytes, b"", b"", noise.bytes(64)).is_err());
            assert!(suite.seal(&bytes, b"", b"", b"", &mut noise).is_err() || bytes.len() == 32);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _root = root_of_token(&text);
        let shown = Credentials { sa_token: text.into(), ..Credentials::default() };
        assert_eq!(shown.issued_at_ms(), None);
    }
}
