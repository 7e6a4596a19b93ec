//! The frozen known answers of `proto/vectors/`, computed anew by this side. Nothing here writes them.

#![allow(clippy::unwrap_used, reason = "a failing test panics")]

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use ennote_devcloud::envelope::{self, Delivery};
use ennote_devcloud::signed::{self, Label, hash};
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire;
use prost::Message;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use std::convert::Infallible;

fn file(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn key(value: &Value) -> SigningKey {
    let key = SigningKey::from_bytes(&array(&value["seed"]));
    assert_eq!(key.verifying_key().as_bytes().as_slice(), bytes(&value["public_key"]));
    assert_eq!(signed::key_id(&key).as_slice(), bytes(&value["key_id"]));
    key
}

fn envelope_of(value: &Value) -> wire::Signed {
    wire::Signed { body: bytes(&value["body"]), key_id: bytes(&value["key_id"]), signature: bytes(&value["signature"]) }
}

fn sealed_of(value: &Value) -> wire::Sealed {
    wire::Sealed {
        header: bytes(&value["header"]),
        enc: bytes(&value["enc"]),
        ciphertext: bytes(&value["ciphertext"]),
        key_id: bytes(&value["key_id"]),
        signature: bytes(&value["signature"]),
    }
}

/// RFC 9180's ikmE, drawn once.
struct Ikm(Vec<u8>);

impl TryRng for Ikm {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("an ikm is drawn whole")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("an ikm is drawn whole")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&std::mem::take(&mut self.0));
        Ok(())
    }
}

impl TryCryptoRng for Ikm {}

const SUITES: [(Suite, [&str; 3]); 2] = [
    (Suite::A, ["signed.json", "join.json", "sealed.json"]),
    (Suite::B, ["signed-b.json", "join-b.json", "sealed-b.json"]),
];

#[test]
fn every_label_signs_as_it_did() {
    SUITES.iter().for_each(|(_, [signed, ..])| signs_as_it_did(&file(signed)));
}

fn signs_as_it_did(file: &Value) {
    let entries = file.as_array().unwrap();
    assert_eq!(entries.iter().map(|e| text(&e["label"])).collect::<Vec<_>>(), Label::ALL.map(|l| l.name().to_owned()));
    for (entry, label) in entries.iter().zip(Label::ALL) {
        let key = key(&entry["key"]);
        let parts: Vec<Vec<u8>> = entry["parts"].as_array().unwrap().iter().map(bytes).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        assert_eq!(label.message(&parts), bytes(&entry["message"]), "{label:?}");
        assert_eq!(signed::sign_parts(&key, label, &parts), bytes(&entry["signature"]), "{label:?}");
        signed::verify(key.verifying_key().as_bytes(), label, &parts, &bytes(&entry["signature"])).unwrap();
        // The bodies are messages of the protocol, encoded as this side encodes them.
        let encoded = match label {
            Label::Keyset => again::<wire::Keyset>(parts[0]),
            Label::Challenge => again::<wire::Challenge>(parts[0]),
            Label::Joined => again::<wire::Joined>(parts[0]),
            Label::Open => again::<wire::Open>(parts[0]),
            Label::Ask => again::<wire::Ask>(parts[0]),
            Label::Beat => again::<wire::Beat>(parts[0]),
            Label::Gone => again::<wire::Header>(parts[0]),
            Label::Prove | Label::Sealed => continue,
        };
        assert_eq!(encoded, parts[0], "{label:?}");
    }
}

fn again<M: Message + Default>(body: &[u8]) -> Vec<u8> {
    M::decode(body).unwrap().encode_to_vec()
}

#[test]
fn the_join_is_opened_and_answered_as_it_was() {
    SUITES.iter().for_each(|(suite, [_, join, _])| is_opened_and_answered(*suite, &file(join)));
}

fn is_opened_and_answered(suite: Suite, join: &Value) {
    let (root, join_key, agent) = (key(&join["root"]), key(&join["join_key"]), key(&join["agent_key"]));
    let hello = bytes(&join["hello"]);
    let decoded = wire::Hello::decode(hello.as_slice()).unwrap();
    assert_eq!(decoded.agent_public_key, agent.verifying_key().as_bytes());
    assert_eq!((decoded.client_nonce, decoded.build), (bytes(&join["client_nonce"]), text(&join["build"])));
    let keyset = envelope_of(&join["keyset"]);
    signed::body(root.verifying_key().as_bytes(), Label::Keyset, &keyset).unwrap();
    assert_eq!(signed::sign(&root, Label::Keyset, keyset.body.clone()).signature, keyset.signature);
    let challenge = envelope_of(&join["challenge"]);
    let body = signed::body(join_key.verifying_key().as_bytes(), Label::Challenge, &challenge).unwrap();
    let asked = wire::Challenge::decode(body).unwrap();
    let seal_key = &join["seal_key"];
    let seal_public = suite.public(&array(&seal_key["private_key"])).unwrap();
    assert_eq!(seal_public, bytes(&seal_key["public_key"]));
    assert_eq!((asked.hello_hash.as_slice(), asked.suite), (&hash(&[&hello])[..], suite.on_wire() as i32));
    assert_eq!(decoded.suites.first(), Some(&asked.suite), "the first of the agent's");
    assert_eq!(asked.seal_key_id, hash(&[&seal_public]));
    let t: [u8; 64] = array(&join["t"]);
    assert_eq!(t.as_slice(), [hash(&[&hello]), hash(&[body])].concat());
    let finish = &join["finish"];
    let (enc, sealed) = (bytes(&finish["enc"]), bytes(&finish["sealed"]));
    let credential = envelope::open_credential(suite, &array(&seal_key["private_key"]), &t, &enc, &sealed).unwrap();
    assert_eq!(credential.as_slice(), bytes(&join["credential"]));
    let shown = wire::Credential::decode(credential.as_slice()).unwrap();
    assert_eq!(shown.bootstrap_token, text(&join["bootstrap_token"]));
    let again =
        envelope::seal_credential(suite, &seal_public, &t, &credential, &mut Ikm(bytes(&join["ephemeral_ikm"])));
    assert!(again.unwrap() == (enc.clone(), sealed.clone()));
    let parts: [&[u8]; 2] = [&t, &hash(&[&enc, &sealed])];
    signed::verify(agent.verifying_key().as_bytes(), Label::Prove, &parts, &bytes(&finish["signature"])).unwrap();
    assert!(
        envelope::open_credential(suite, &array(&seal_key["private_key"]), &[0; 64], &enc, &sealed).is_err(),
        "bound to t"
    );
    let joined = envelope_of(&join["joined"]);
    let body = signed::body(join_key.verifying_key().as_bytes(), Label::Joined, &joined).unwrap();
    let joined = wire::Joined::decode(body).unwrap();
    let identity = &join["identity"];
    assert_eq!((joined.t.as_slice(), joined.access_token), (&t[..], bytes(&identity["access_token"])));
    assert_eq!((joined.agent_id, joined.epoch), (text(&identity["agent_id"]), identity["epoch"].as_u64().unwrap()));
}

fn delivery(suite: Suite, file: &Value) -> Delivery {
    let expected = &file["expected"];
    Delivery {
        agent_id: text(&expected["agent_id"]),
        epoch: expected["epoch"].as_u64().unwrap(),
        suite,
        stream_nonce: array(&expected["stream_nonce"]),
        want_id: expected["want_id"].as_u64().unwrap(),
        namespace: text(&expected["namespace"]),
        binding: text(&expected["binding"]),
        binding_uid: text(&expected["binding_uid"]),
        organization: text(&expected["organization"]),
        workspace: text(&expected["workspace"]),
        secret: text(&expected["secret"]),
        kind_of_secret: wire::SecretType::try_from(i32::try_from(file["type"].as_i64().unwrap()).unwrap()).unwrap(),
        version: file["version"].as_u64().unwrap(),
        committed_at_ms: file["committed_at_ms"].as_i64().unwrap(),
    }
}

#[test]
fn a_delivery_and_a_tombstone_come_out_byte_for_byte() {
    SUITES.iter().for_each(|(suite, [.., sealed])| come_out(*suite, &file(sealed)));
}

fn come_out(suite: Suite, file: &Value) {
    let delivery = delivery(suite, file);
    let master = array(&file["master_key"]);
    let stamp_key = envelope::stamp_key(&master, &delivery.organization, &delivery.workspace, &delivery.secret);
    assert_eq!(stamp_key.as_slice(), bytes(&file["stamp_key"]));
    let private = array(&file["session_key"]["private_key"]);
    let public_key = suite.public(&private).unwrap();
    assert_eq!(public_key, bytes(&file["session_key"]["public_key"]));
    let session = wire::SessionKey { index: file["session_key"]["index"].as_u64().unwrap(), public_key };
    let signer = key(&file["payload_key"]);
    let payload = text(&file["payload"]);
    let ikm = &mut Ikm(bytes(&file["ephemeral_ikm"]));
    let sealed = envelope::seal(&delivery, &session, &stamp_key, payload.as_bytes(), &signer, ikm).unwrap();
    assert!(sealed == sealed_of(&file["sealed"]));
    let plain = envelope::open_sealed(suite, &private, &sealed).unwrap();
    assert_eq!(plain.as_slice(), [stamp_key.as_slice(), payload.as_bytes()].concat());
    let version = file["gone"]["version"].as_u64().unwrap();
    let gone = envelope::gone(&Delivery { version, ..delivery }, &signer);
    assert!(gone == envelope_of(&file["gone"]["signed"]));
}

#[test]
fn what_is_refused_later_than_by_its_signature_is_signed() {
    SUITES.iter().for_each(|(_, [.., sealed])| is_signed(&file(sealed)));
}

fn is_signed(file: &Value) {
    let payload_key = key(&file["payload_key"]).verifying_key().to_bytes();
    for case in file["refused"].as_array().unwrap() {
        let sealed = sealed_of(&case["sealed"]);
        let parts: [&[u8]; 2] = [&hash(&[&sealed.header]), &hash(&[&sealed.enc, &sealed.ciphertext])];
        let verified = signed::verify(&payload_key, Label::Sealed, &parts, &sealed.signature).is_ok();
        let counts = verified && sealed.key_id == hash(&[&payload_key]);
        let by_signature = ["BadSignature", "UnknownKey"].contains(&case["reason"].as_str().unwrap());
        assert_ne!(counts, by_signature, "{}", case["name"]);
    }
    for case in file["gone_refused"].as_array().unwrap() {
        let counts = signed::body(&payload_key, Label::Gone, &envelope_of(&case["signed"])).is_ok();
        let by_signature = ["BadSignature", "UnknownKey"].contains(&case["reason"].as_str().unwrap());
        assert_ne!(counts, by_signature, "{}", case["name"]);
    }
}
