//! Makes the files of `proto/vectors/` from fixed seeds: `cargo run -p ennote-devcloud --example vectors -- DIR`.
//!
//! The committed files are frozen: a file that exists is never written again. A change of the protocol is a new file, so what
//! is made here for suite A is exactly what was made before there was a suite B.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a tool for developers; what it does is to be seen"
)]

mod refusals;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use ennote_devcloud::envelope::{self, Delivery};
use ennote_devcloud::signed::{self, Label, hash};
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire;
use prost::Message;
use rand_core::{TryCryptoRng, TryRng};
use refusals::{gone_refused, join_refused, more_gone_refused, refused};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

const JANUARY_2026_MS: i64 = 1_767_225_600_000;
const PAYLOAD: &str =
    r#"{"keysValues":{"PORT":5432,"exact":12345678901234567890123,"word":"no","url":"postgres://db"}}"#;

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "proto/vectors".into()));
    let (join_a, sealed_a) = (join(Suite::A), sealed(Suite::A));
    let (join_b, sealed_b) = (join(Suite::B), sealed(Suite::B));
    let files = [
        ("signed.json", every_label(Suite::A, &join_a, &sealed_a)),
        ("join.json", join_a),
        ("sealed.json", sealed_a),
        ("signed-b.json", every_label(Suite::B, &join_b, &sealed_b)),
        ("join-b.json", join_b),
        ("sealed-b.json", sealed_b),
        ("join-refused.json", join_refused()),
        ("gone-refused.json", more_gone_refused()),
    ];
    for (name, value) in files {
        match OpenOptions::new().write(true).create_new(true).open(directory.join(name)) {
            Ok(mut file) => {
                serde_json::to_writer_pretty(&mut file, &value).unwrap();
                file.write_all(b"\n").unwrap();
                eprintln!("made {name}");
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => eprintln!("{name} is there and stays"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// Gives out one byte for ever: whoever draws an ikm of 32 bytes gets a known one.
struct Fixed(u8);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes([self.0; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes([self.0; 8]))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.fill(self.0);
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

fn signer(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn root() -> SigningKey {
    signer(1)
}

fn join_key() -> SigningKey {
    signer(2)
}

fn payload_key() -> SigningKey {
    signer(3)
}

const SEAL_KEY: [u8; 32] = [4; 32];
const SEAL_KEY_B: [u8; 32] = [9; 32];
const CLIENT_NONCE: [u8; 32] = [0x11; 32];
const CHALLENGE_ID: [u8; 16] = [0x12; 16];
const ACCESS_TOKEN: [u8; 32] = [0x14; 32];
const BUILD: &str = "1.2.3 (vectors)";

fn agent_key() -> SigningKey {
    signer(5)
}

fn envelope_json(signed: &wire::Signed) -> Value {
    json!({"body": hex(&signed.body), "key_id": hex(&signed.key_id), "signature": hex(&signed.signature)})
}

fn signing_key_json(key: &SigningKey) -> Value {
    json!({"seed": hex(key.to_bytes()), "public_key": hex(key.verifying_key().as_bytes()), "key_id": hex(signed::key_id(key))})
}

/// The SEAL keys of a keyset: before suite B there was one.
fn seal_keys(suite: Suite) -> &'static [(Suite, [u8; 32])] {
    const KEYS: [(Suite, [u8; 32]); 2] = [(Suite::A, SEAL_KEY), (Suite::B, SEAL_KEY_B)];
    if suite == Suite::A { &KEYS[..1] } else { &KEYS }
}

fn keyset(suite: Suite, edit: impl FnOnce(&mut wire::Keyset)) -> Vec<u8> {
    let key = |r#use: wire::KeyUse, suite: wire::Suite, public_key: &[u8]| wire::Key {
        r#use: r#use as i32,
        suite: suite as i32,
        public_key: public_key.to_vec(),
    };
    let mut body = wire::Keyset {
        version: 7,
        issued_at_ms: JANUARY_2026_MS,
        expires_at_ms: JANUARY_2026_MS + 30 * 24 * 3600 * 1000,
        keys: vec![
            key(wire::KeyUse::Join, wire::Suite::Unspecified, join_key().verifying_key().as_bytes()),
            key(wire::KeyUse::Payload, wire::Suite::Unspecified, payload_key().verifying_key().as_bytes()),
        ],
    };
    for (suite, private) in seal_keys(suite) {
        body.keys.push(key(wire::KeyUse::Seal, suite.on_wire(), &suite.public(private).unwrap()));
    }
    edit(&mut body);
    body.encode_to_vec()
}

fn signed_keyset(suite: Suite) -> wire::Signed {
    signed::sign(&root(), Label::Keyset, keyset(suite, |_| ()))
}

/// The bytes that an encapsulation draws: RFC 9180's ikmE in A, X-Wing's eseed in B.
fn drawn(suite: Suite, byte: u8) -> Vec<u8> {
    vec![byte; if suite == Suite::A { 32 } else { 64 }]
}

fn hello(suite: Suite) -> Vec<u8> {
    let offered: &[Suite] = if suite == Suite::A { &[Suite::A] } else { &Suite::ALL };
    wire::Hello {
        suites: offered.iter().map(|suite| suite.on_wire() as i32).collect(),
        agent_public_key: agent_key().verifying_key().as_bytes().to_vec(),
        client_nonce: CLIENT_NONCE.to_vec(),
        build: BUILD.into(),
    }
    .encode_to_vec()
}

fn seal_public(suite: Suite) -> Vec<u8> {
    suite.public(&seal_keys(suite).last().unwrap().1).unwrap()
}

fn challenge(suite: Suite, edit: impl FnOnce(&mut wire::Challenge)) -> Vec<u8> {
    let mut body = wire::Challenge {
        hello_hash: hash(&[&hello(suite)]).to_vec(),
        challenge_id: CHALLENGE_ID.to_vec(),
        server_time_ms: JANUARY_2026_MS + 1_000,
        suite: suite.on_wire() as i32,
        seal_key_id: hash(&[&seal_public(suite)]).to_vec(),
    };
    edit(&mut body);
    body.encode_to_vec()
}

fn joined(t: &[u8; 64]) -> wire::Joined {
    wire::Joined {
        t: t.to_vec(),
        agent_id: "agt_vectors".into(),
        organization: "org_1".into(),
        workspace: "wrk_prod".into(),
        epoch: 3,
        access_token: ACCESS_TOKEN.to_vec(),
        lives_s: 900,
        server_time_ms: JANUARY_2026_MS + 2_000,
    }
}

/// One whole join, from hello to joined.
fn join(suite: Suite) -> Value {
    let hello = hello(suite);
    let challenge = signed::sign(&join_key(), Label::Challenge, challenge(suite, |_| ()));
    let t: [u8; 64] = [hash(&[&hello]), hash(&[&challenge.body])].concat().try_into().unwrap();
    let token = format!("ennt1.vectors.c2VjcmV0.{}", data_encoding::BASE64URL_NOPAD.encode(&signed::key_id(&root())));
    let credential = wire::Credential { bootstrap_token: token.clone(), ..Default::default() }.encode_to_vec();
    let (seal_private, seal_public) = (seal_keys(suite).last().unwrap().1, seal_public(suite));
    let (enc, sealed) = envelope::seal_credential(suite, &seal_public, &t, &credential, &mut Fixed(0x21)).unwrap();
    let proof = signed::sign_parts(&agent_key(), Label::Prove, &[&t, &hash(&[&enc, &sealed])]);
    let joined = joined(&t);
    let joined_body = joined.encode_to_vec();
    json!({
        "root": signing_key_json(&root()),
        "join_key": signing_key_json(&join_key()),
        "payload_key": signing_key_json(&payload_key()),
        "seal_key": {"private_key": hex(seal_private), "public_key": hex(&seal_public), "key_id": hex(hash(&[&seal_public]))},
        "agent_key": signing_key_json(&agent_key()),
        "client_nonce": hex(CLIENT_NONCE),
        "build": BUILD,
        "bootstrap_token": token,
        "hello": hex(&hello),
        "keyset": envelope_json(&signed_keyset(suite)),
        "challenge": envelope_json(&challenge),
        "t": hex(t),
        "credential": hex(&credential),
        "ephemeral_ikm": hex(drawn(suite, 0x21)),
        "finish": {"challenge_id": hex(CHALLENGE_ID), "enc": hex(&enc), "sealed": hex(&sealed), "signature": hex(&proof)},
        "joined": envelope_json(&signed::sign(&join_key(), Label::Joined, joined_body)),
        "identity": {
            "agent_id": joined.agent_id, "organization": joined.organization, "workspace": joined.workspace,
            "epoch": joined.epoch, "access_token": hex(ACCESS_TOKEN), "lives_s": joined.lives_s,
            "server_time_ms": joined.server_time_ms,
        },
    })
}

fn delivery(suite: Suite) -> Delivery {
    Delivery {
        agent_id: "agt_vectors".into(),
        epoch: 3,
        suite,
        stream_nonce: [0x13; 32],
        want_id: 42,
        namespace: "shop".into(),
        binding: "payments-db".into(),
        binding_uid: "0d3f2f0e-5b8e-4a57-9d0e-2a3c1f6b7a10".into(),
        organization: "org_1".into(),
        workspace: "wrk_prod".into(),
        secret: "payments db".into(),
        kind_of_secret: wire::SecretType::KeysValues,
        version: 9,
        committed_at_ms: JANUARY_2026_MS + 5_000,
    }
}

fn session(suite: Suite, index: u64, seed: u8) -> wire::SessionKey {
    wire::SessionKey { index, public_key: suite.public(&[seed; 32]).unwrap() }
}

fn sealed_json(sealed: &wire::Sealed) -> Value {
    json!({
        "header": hex(&sealed.header), "enc": hex(&sealed.enc), "ciphertext": hex(&sealed.ciphertext),
        "key_id": hex(&sealed.key_id), "signature": hex(&sealed.signature),
    })
}

/// One delivery, one tombstone, and everything that has to be refused.
fn sealed(suite: Suite) -> Value {
    let delivery = delivery(suite);
    let session = session(suite, 17, 6);
    let master = [7; 32];
    let stamp_key = envelope::stamp_key(&master, &delivery.organization, &delivery.workspace, &delivery.secret);
    let seal = |payload: &[u8]| {
        envelope::seal(&delivery, &session, &stamp_key, payload, &payload_key(), &mut Fixed(0x22)).unwrap()
    };
    let good = seal(PAYLOAD.as_bytes());
    let gone = good_gone(suite);
    json!({
        "payload_key": signing_key_json(&payload_key()),
        "join_key": signing_key_json(&join_key()),
        "session_key": {"index": 17, "private_key": hex([6; 32]), "public_key": hex(&session.public_key)},
        "ephemeral_ikm": hex(drawn(suite, 0x22)),
        "master_key": hex(master),
        "stamp_key": hex(stamp_key.as_slice()),
        "payload": PAYLOAD,
        "expected": {
            "agent_id": delivery.agent_id, "epoch": delivery.epoch, "stream_nonce": hex(delivery.stream_nonce),
            "want_id": delivery.want_id, "namespace": delivery.namespace, "binding": delivery.binding,
            "binding_uid": delivery.binding_uid, "organization": delivery.organization,
            "workspace": delivery.workspace, "secret": delivery.secret,
        },
        "type": delivery.kind_of_secret as i32,
        "version": delivery.version,
        "committed_at_ms": delivery.committed_at_ms,
        "sealed": sealed_json(&good),
        "refused": refused(suite, &good),
        "gone": {"signed": envelope_json(&gone), "version": 10, "committed_at_ms": delivery.committed_at_ms},
        "gone_refused": gone_refused(&gone),
    })
}

fn good_gone(suite: Suite) -> wire::Signed {
    envelope::gone(&Delivery { version: 10, ..delivery(suite) }, &payload_key())
}

type Edit = fn(&mut wire::Header);

/// Headers that differ from what the agent predicts, each in one field.
const OTHER_HEADERS: [(&str, &str, Edit); 19] = [
    ("another agent", "WrongRecipient", |h| h.agent_id = "agt_other".into()),
    ("another epoch", "WrongRecipient", |h| h.epoch += 1),
    ("another stream", "WrongRecipient", |h| h.stream_nonce[0] ^= 1),
    ("a stream nonce of a wrong length", "WrongRecipient", |h| h.stream_nonce.truncate(31)),
    ("another want", "WrongBinding", |h| h.want_id += 1),
    ("another namespace", "WrongBinding", |h| h.namespace = "ops".into()),
    ("another binding", "WrongBinding", |h| h.binding = "payments".into()),
    ("a binding created again", "WrongBinding", |h| h.binding_uid.push('1')),
    ("another organization", "WrongSource", |h| h.organization = "org_2".into()),
    ("another workspace", "WrongSource", |h| h.workspace = "wrk_dev".into()),
    ("an unresolved workspace", "WrongSource", |h| h.workspace.clear()),
    ("another secret", "WrongSource", |h| h.secret = "payments".into()),
    ("another format", "BadPayload", |h| h.format = 3),
    ("the other kind", "BadPayload", |h| h.kind = 3 - h.kind),
    ("no kind", "BadPayload", |h| h.kind = 0),
    ("version 0", "BadPayload", |h| h.version = 0),
    ("a version above the signed range", "BadPayload", |h| h.version = 1 << 63),
    // Kind, agent, epoch and stream are compared in this order, so the first difference names the refusal.
    ("another epoch and another binding", "WrongRecipient", |h| (h.epoch, h.binding) = (9, "x".into())),
    ("another binding and another secret", "WrongBinding", |h| (h.binding, h.secret) = ("x".into(), "y".into())),
];

/// As above, for fields that only a sealed delivery has.
const OTHER_SEALED_HEADERS: [(&str, &str, Edit); 5] = [
    ("another session key's index", "WrongRecipient", |h| h.key_index += 1),
    ("another session key's hash", "WrongRecipient", |h| h.session_key_hash[0] ^= 1),
    ("another suite", "WrongRecipient", |h| h.suite = 3 - h.suite),
    ("no type", "BadPayload", |h| h.r#type = 0),
    ("a header that was not the AAD", "Undecryptable", |h| h.committed_at_ms += 1),
];

/// One signature for every label.
fn every_label(suite: Suite, join: &Value, sealed: &Value) -> Value {
    let bytes = |value: &Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let nonce = vec![0x13; 32];
    let access_token = bytes(&join["identity"]["access_token"]);
    let open = wire::Open {
        stream_nonce: nonce.clone(),
        agent_id: "agt_vectors".into(),
        epoch: 3,
        access_token_hash: hash(&[&access_token]).to_vec(),
        suite: suite.on_wire() as i32,
    };
    let ask = wire::Ask {
        stream_nonce: nonce.clone(),
        seq: 1,
        keys: vec![session(suite, 17, 6)],
        wants: vec![wire::Want {
            id: 42,
            namespace: "shop".into(),
            binding: "payments-db".into(),
            binding_uid: delivery(suite).binding_uid,
            workspace: String::new(),
            secret: "payments db".into(),
            pin: 0,
            known_version: 8,
        }],
        unwants: vec![41],
        reports: vec![wire::Report {
            binding_uid: delivery(suite).binding_uid,
            version: 8,
            workload: "Deployment/web".into(),
            phase: wire::report::Phase::Complete as i32,
        }],
    };
    let beat = wire::Beat { stream_nonce: nonce, seq: 1, haves: 1, wants: 1, server_time_ms: JANUARY_2026_MS + 6_000 };
    let finish = &join["finish"];
    let proof = vec![bytes(&join["t"]), hash(&[&bytes(&finish["enc"]), &bytes(&finish["sealed"])]).to_vec()];
    let of = &sealed["sealed"];
    let boxed =
        vec![hash(&[&bytes(&of["header"])]).to_vec(), hash(&[&bytes(&of["enc"]), &bytes(&of["ciphertext"])]).to_vec()];
    let cases = [
        (Label::Keyset, root(), vec![bytes(&join["keyset"]["body"])]),
        (Label::Challenge, join_key(), vec![bytes(&join["challenge"]["body"])]),
        (Label::Prove, agent_key(), proof),
        (Label::Joined, join_key(), vec![bytes(&join["joined"]["body"])]),
        (Label::Open, agent_key(), vec![open.encode_to_vec()]),
        (Label::Ask, agent_key(), vec![ask.encode_to_vec()]),
        (Label::Beat, join_key(), vec![beat.encode_to_vec()]),
        (Label::Sealed, payload_key(), boxed),
        (Label::Gone, payload_key(), vec![bytes(&sealed["gone"]["signed"]["body"])]),
    ];
    let entries = cases.iter().map(|(label, key, parts)| {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        json!({
            "label": label.name(),
            "key": signing_key_json(key),
            "parts": parts.iter().map(hex).collect::<Vec<_>>(),
            "message": hex(label.message(&parts)),
            "signature": hex(signed::sign_parts(key, *label, &parts)),
        })
    });
    Value::Array(entries.collect())
}
