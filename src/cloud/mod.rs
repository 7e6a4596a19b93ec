//! Purpose: ask the cloud and hear it; the only user of tonic.
//!
//! Guarantees: TLS 1.3 only; what arrives stays sealed until a binding takes it; one service holds the identity, and everyone
//! reads it from one watch. Runs in one task, `link::run`. May import: `crypto`, `domain`, `identity`, `wire`,
//! `config`, `clock`, `entropy`.
//! Never `cluster`.

pub mod channel;
pub mod credentials;
pub mod identity_service;
pub mod inbox;
pub mod link;
pub mod received;
mod renewal;
pub mod reports;
pub mod retry;
pub mod state;
pub mod stream;
pub mod waiting;
