//! Published known answers: what others computed, with our code. They fail if the crates, or our use of them (KEM, KDF, AEAD,
//! mode, info, aad), drift. Where they are from stands in `proto/vectors/hpke.json`.
//!
//! Nobody publishes an answer for suite B whole: X-Wing with AES-256-GCM. So the key schedule of RFC 9180 stands here once
//! more, by hand; it is held to what is published for both KEMs, and then opens what the agent and the cloud seal.

#![allow(clippy::unwrap_used, reason = "a failing test panics")]

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use data_encoding::HEXLOWER;
use ennote_agent::crypto::suite::Suite;
use hkdf::Hkdf;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use sha2::Sha256;
use std::convert::Infallible;
use x_wing::{Decapsulate, DecapsulationKey, Decapsulator, KeyExport};

fn file(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn seed(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

/// One draw, whole.
struct Draw(Vec<u8>);

impl TryRng for Draw {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("a draw is taken whole")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("a draw is taken whole")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&std::mem::take(&mut self.0));
        Ok(())
    }
}

impl TryCryptoRng for Draw {}

/// RFC 9180, 5.1: key and nonce of the first message in base mode, KDF HKDF-SHA256.
fn key_schedule(kem: u16, aead: u16, shared_secret: &[u8], info: &[u8]) -> ([u8; 32], [u8; 12]) {
    let suite = [b"HPKE".as_slice(), &kem.to_be_bytes(), &1_u16.to_be_bytes(), &aead.to_be_bytes()].concat();
    let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| {
        Hkdf::<Sha256>::extract(Some(salt), &[b"HPKE-v1".as_slice(), &suite, label, ikm].concat())
    };
    let (psk_id, _) = extract(b"", b"psk_id_hash", b"");
    let (info, _) = extract(b"", b"info_hash", info);
    let context = [&[0_u8][..], &psk_id, &info].concat();
    let (_, secret) = extract(shared_secret, b"secret", b"");
    let expand = |label: &[u8], out: &mut [u8]| {
        let length = u16::try_from(out.len()).unwrap().to_be_bytes();
        secret.expand(&[&length, b"HPKE-v1".as_slice(), &suite, label, &context].concat(), out).unwrap();
    };
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    expand(b"key", &mut key);
    expand(b"base_nonce", &mut nonce);
    (key, nonce)
}

/// Opens a message of suite B with nothing of the crate that sealed it but the KEM.
fn open_by_hand(private: [u8; 32], enc: &[u8], info: &[u8], aad: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let shared = DecapsulationKey::from(private).decapsulate(&enc.try_into().unwrap());
    let (key, nonce) = key_schedule(0x647a, 2, &shared, info);
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
    cipher.decrypt(&Nonce::from(nonce), Payload { msg: ciphertext, aad }).unwrap()
}

#[test]
fn suite_a_seals_and_opens_what_rfc_9180_published() {
    let of = &file("hpke.json")["rfc9180"];
    let [info, enc, aad, pt, ct] = ["info", "enc", "aad", "pt", "ct"].map(|name| bytes(&of[name]));
    let private = seed(&of["skRm"]);
    let public = Suite::A.public_of_seed(&private).unwrap();
    assert_eq!(public, bytes(&of["pkRm"]));
    assert_eq!(Suite::A.open(&private, &enc, &info, &aad, ct.clone()).unwrap().as_slice(), pt);
    assert_eq!(Suite::A.seal(&public, &info, &aad, &pt, &mut Draw(bytes(&of["ikmE"]))).unwrap(), (enc, ct));
    let (key, nonce) = key_schedule(0x0020, 2, &bytes(&of["shared_secret"]), &info);
    assert_eq!((key.to_vec(), nonce.to_vec()), (bytes(&of["key"]), bytes(&of["base_nonce"])));
}

#[test]
fn the_kem_of_suite_b_is_the_published_x_wing_under_the_key_schedule_of_rfc_9180() {
    let file = file("hpke.json");
    let of = &file["xwing"];
    let private = seed(&of["sk"]);
    let key = DecapsulationKey::from(private);
    assert_eq!(key.encapsulation_key().to_bytes().as_slice(), bytes(&of["pk"]));
    let shared = key.decapsulate(&bytes(&of["ct"]).as_slice().try_into().unwrap());
    assert_eq!(shared.as_slice(), bytes(&of["ss"]));
    // The same, through ours: the public key of that seed, and the published ciphertext as `enc`.
    let public = Suite::B.public_of_seed(&private).unwrap();
    assert_eq!(public, bytes(&of["pk"]));
    let (enc, sealed) = Suite::B.seal(&public, b"info", b"aad", b"plain", &mut Draw(bytes(&of["eseed"]))).unwrap();
    assert_eq!(enc, bytes(&of["ct"]));
    assert_eq!(open_by_hand(private, &enc, b"info", b"aad", &sealed), b"plain");

    let of = &file["hpke_pq"];
    let shared =
        DecapsulationKey::from(seed(&of["skRm"])).decapsulate(&bytes(&of["enc"]).as_slice().try_into().unwrap());
    assert_eq!(shared.as_slice(), bytes(&of["shared_secret"]));
    let (key, nonce) = key_schedule(0x647a, 3, &shared, &bytes(&of["info"]));
    assert_eq!((key.to_vec(), nonce.to_vec()), (bytes(&of["key"]), bytes(&of["base_nonce"])));
    let public = Suite::B.public_of_seed(&seed(&of["skRm"])).unwrap();
    assert_eq!(public, bytes(&of["pkRm"]));
    let (enc, _) = Suite::B.seal(&public, b"", b"", b"", &mut Draw(bytes(&of["ikmE"]))).unwrap();
    assert_eq!(enc, bytes(&of["enc"]));
}

#[test]
fn the_frozen_vectors_of_suite_b_open_by_hand() {
    let file = file("sealed-b.json");
    let [header, enc, ciphertext] = ["header", "enc", "ciphertext"].map(|name| bytes(&file["sealed"][name]));
    let private = seed(&file["session_key"]["private_key"]);
    let plain = open_by_hand(private, &enc, b"ennote/sealed/v1", &header, &ciphertext);
    assert_eq!(plain, [bytes(&file["stamp_key"]), file["payload"].as_str().unwrap().into()].concat());
}
