//! Opening what the cloud seals: keys, signatures, envelopes.
//!
//! Pure: randomness and time are arguments. May import: `wire` (messages), `domain`.

pub mod envelope;
pub mod session_keys;
pub mod signed;
pub mod suite;
