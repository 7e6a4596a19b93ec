//! The frozen vectors of `proto/vectors/` as fixtures: their keys are public, so what they sign can be signed anew.

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use serde_json::Value;
use std::path::Path;

/// A file of vectors.
pub fn file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A byte string.
pub fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// A byte string of a fixed length.
pub fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// A text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A number.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// An Ed25519 key.
pub fn key(value: &Value) -> SigningKey {
    SigningKey::from_bytes(&array(&value["seed"]))
}
