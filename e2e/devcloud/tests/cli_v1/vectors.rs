//! The frozen known answers of `proto/vectors/v1.json` and `v1-go.json`: the server and the tests' own client each compute
//! them anew. Nothing here writes them.

use super::published::{self, CryptoConfig};
use data_encoding::HEXLOWER;
use ennote_devcloud::v1::blob::{self, BadBlob, KemKey};
use ennote_devcloud::v1::session::{self, SessionKey};
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use std::collections::VecDeque;
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

fn key(file: &Value) -> KemKey {
    KemKey::of(file["kem_key"]["version"].as_str().unwrap(), &array(&file["kem_key"]["seed"]))
}

/// What is drawn, in the order in which it is drawn.
struct Drawn(VecDeque<u8>);

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("v1 draws whole byte strings")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("v1 draws whole byte strings")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.fill_with(|| self.0.pop_front().unwrap());
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[test]
fn an_upload_comes_out_byte_for_byte_and_opens() {
    let file = file("v1.json");
    let (key, upload) = (key(&file), &file["upload"]);
    assert_eq!(key.public(), bytes(&file["kem_key"]["public_key"]));
    let payload = file["payload"].as_str().unwrap();
    let config = CryptoConfig {
        algorithm: "ML-KEM-1024".into(),
        public_key: key.public(),
        key_version: key.version().to_owned(),
    };
    let sealed = published::seal(&config, payload.as_bytes(), &array(&upload["m"]), &array(&upload["iv"]));
    assert_eq!(sealed, bytes(&upload["encrypted_blob"]));
    assert_eq!(blob::open(&key, &sealed).unwrap().as_slice(), payload.as_bytes());
}

#[test]
fn an_answer_comes_out_byte_for_byte_and_opens() {
    let file = file("v1.json");
    let (key, answer, session) = (key(&file), &file["answer"], &file["session_key"]);
    let payload = file["payload"].as_str().unwrap();
    let drawn = |parts: [&Value; 2]| Drawn(parts.map(bytes).concat().into());
    let (sealed, dek) = blob::seal(&key, payload.as_bytes(), &mut drawn([&answer["m"], &answer["iv"]])).unwrap();
    assert_eq!((dek.to_vec(), &sealed), (bytes(&answer["dek"]), &bytes(&answer["encrypted_blob"])));
    let private = array(&session["private_key"]);
    let public = published::session_public_key(&private);
    assert_eq!(public, session["session_public_key"].as_str().unwrap());
    let rng = &mut drawn([&answer["ephemeral_private_key"], &answer["wrap_iv"]]);
    let wrapped = session::wrap(&SessionKey::parse(&public).unwrap(), &dek, rng).unwrap();
    assert_eq!(wrapped, bytes(&answer["session_wrapped_key"]));
    assert_eq!(published::unwrap(&private, &wrapped).unwrap(), bytes(&answer["dek"]));
    assert_eq!(published::open(&private, &wrapped, &sealed).unwrap(), payload.as_bytes());
}

#[test]
fn every_altered_upload_is_refused_for_its_reason() {
    let file = file("v1.json");
    let (key, upload) = (key(&file), bytes(&file["upload"]["encrypted_blob"]));
    let cases = file["refused"].as_array().unwrap();
    assert!(cases.len() >= 18);
    for case in cases {
        let mut altered = upload.clone();
        altered.truncate(usize::try_from(case["keep"].as_u64().unwrap()).unwrap());
        if let Some(flip) = case["flip"].as_object() {
            let mask = u8::try_from(flip["mask"].as_u64().unwrap()).unwrap();
            altered[usize::try_from(flip["at"].as_u64().unwrap()).unwrap()] ^= mask;
        }
        let reason = match blob::open(&key, &altered).unwrap_err() {
            BadBlob::TooLarge(_) => "TooLarge",
            BadBlob::TooShort => "TooShort",
            BadBlob::Rsa => "Rsa",
            BadBlob::Algorithm(_) => "Algorithm",
            BadBlob::KeyVersionLength(_) => "KeyVersionLength",
            BadBlob::OtherKey => "OtherKey",
            BadBlob::Undecryptable => "Undecryptable",
        };
        assert_eq!(reason, case["reason"], "{}", case["name"]);
    }
}

/// Made by an implementation of the page in Go, with nothing but Go's standard library.
#[test]
fn what_another_language_made_opens_on_both_sides() {
    let file = file("v1-go.json");
    let (key, blob, wrapped) = (key(&file), bytes(&file["encrypted_blob"]), bytes(&file["session_wrapped_key"]));
    let payload = file["payload"].as_str().unwrap().as_bytes();
    assert_eq!(blob::open(&key, &blob).unwrap().as_slice(), payload);
    assert_eq!(published::open(&array(&file["session_key"]["private_key"]), &wrapped, &blob).unwrap(), payload);
}
