//! Makes `proto/vectors/v1.json` from fixed seeds: `cargo run -p ennote-devcloud --example vectors_v1 -- DIR`.
//!
//! The upload comes from the client that the tests wrote from the page, the answer from this server. The committed file is
//! frozen: a file that exists is never written again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers; a failure is to be seen")]

#[path = "../tests/cli_v1/published.rs"]
mod published;

use data_encoding::HEXLOWER;
use ennote_devcloud::v1::blob::{self, KemKey};
use ennote_devcloud::v1::session::{self, SessionKey};
use published::CryptoConfig;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

const SEED: [u8; 64] = [0x31; 64];
const KEY_VERSION: &str = "vectors-1";
const SESSION: [u8; 32] = [0x32; 32];
const EPHEMERAL: [u8; 32] = [0x33; 32];
const PAYLOAD: &str =
    r#"{"keysValues":{"PORT":5432,"exact":12345678901234567890123,"word":"no","url":"postgres://db"}}"#;

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

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "proto/vectors".into()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(directory.join("v1.json")).unwrap();
    serde_json::to_writer_pretty(&mut file, &vectors()).unwrap();
    file.write_all(b"\n").unwrap();
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

fn vectors() -> Value {
    let key = KemKey::of(KEY_VERSION, &SEED);
    let config =
        CryptoConfig { algorithm: "ML-KEM-1024".into(), public_key: key.public(), key_version: KEY_VERSION.into() };
    let (m, iv) = ([0x34; 32], [0x35; 12]);
    let upload = published::seal(&config, PAYLOAD.as_bytes(), &m, &iv);

    let (answer_m, answer_iv, wrap_iv) = ([0x36; 32], [0x37; 12], [0x38; 12]);
    let drawn = |parts: &[&[u8]]| Drawn(parts.concat().into());
    let (answer, dek) = blob::seal(&key, PAYLOAD.as_bytes(), &mut drawn(&[&answer_m, &answer_iv])).unwrap();
    let public = published::session_public_key(&SESSION);
    let session = SessionKey::parse(&public).unwrap();
    let wrapped = session::wrap(&session, &dek, &mut drawn(&[&EPHEMERAL, &wrap_iv])).unwrap();
    json!({
        "kem_key": {"seed": hex(SEED), "version": KEY_VERSION, "public_key": hex(key.public())},
        "payload": PAYLOAD,
        "upload": {"m": hex(m), "iv": hex(iv), "encrypted_blob": hex(&upload)},
        "session_key": {"private_key": hex(SESSION), "session_public_key": public},
        "answer": {
            "m": hex(answer_m), "iv": hex(answer_iv), "dek": hex(&dek[..]), "encrypted_blob": hex(&answer),
            "ephemeral_private_key": hex(EPHEMERAL), "wrap_iv": hex(wrap_iv), "session_wrapped_key": hex(&wrapped),
        },
        "refused": refused(upload.len()),
    })
}

/// Alterations of the upload: bytes are cut off, appended, or have a mask laid over them.
fn refused(length: usize) -> Vec<Value> {
    let header = 1 + 4 + KEY_VERSION.len();
    let (iv, kem) = (header, header + 12);
    let payload = kem + 1568;
    let flip = |name: &str, reason: &str, at: usize, mask: u8| json!({"name": name, "reason": reason, "keep": length, "flip": {"at": at, "mask": mask}});
    let cut = |name: &str, reason: &str, keep: usize| json!({"name": name, "reason": reason, "keep": keep});
    vec![
        flip("algorithm 0x01", "Rsa", 0, 0x03),
        flip("algorithm 0x03", "Algorithm", 0, 0x01),
        flip("a key version of 73 bytes", "KeyVersionLength", 4, 0x40),
        flip("a key version of 2^31 bytes and more", "KeyVersionLength", 1, 0x80),
        flip("another key version", "OtherKey", 5, 0x01),
        flip("a shorter key version", "OtherKey", 4, 0x01),
        flip("the IV", "Undecryptable", iv, 0x01),
        flip("the first byte of the KEM's ciphertext", "Undecryptable", kem, 0x01),
        flip("the last byte of the KEM's ciphertext", "Undecryptable", payload - 1, 0x80),
        flip("the payload", "Undecryptable", payload, 0x01),
        flip("the tag", "Undecryptable", length - 1, 0x01),
        cut("nothing", "TooShort", 0),
        cut("an algorithm alone", "TooShort", 1),
        cut("no key version", "TooShort", 5),
        cut("no IV", "TooShort", header),
        cut("no KEM ciphertext", "TooShort", kem),
        cut("half of a tag", "TooShort", payload + 8),
        cut("a payload cut short", "Undecryptable", length - 1),
    ]
}
