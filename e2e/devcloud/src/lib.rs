//! An Ennote-compatible cloud in one process: the whole protocol, TLS, an embedded database of sealed rows, tokens, push.
//!
//! What a newcomer runs, what e2e runs against, and what an air-gapped team could keep. It shares no code with the agent:
//! stubs, sealing and transcripts are its own, and both are held by `proto/vectors/`.
//!
//! ```text
//! cli ──> admin ──┐
//!                 ├─> core ──> store
//! agents ─> cloud ┘     └────> attestation, signed, envelope, reports, v1, payload, names   (pure)
//! ```
//!
//! `core` alone holds keys and uses the store; `cloud` alone uses tonic; `attestation`, `delivery`, `envelope`, `reports`,
//! `suite`, `signed`, `v1`, `payload`, `names` have no clock, socket or file.
//!
//! `cloud` serves two protocols beside each other: ours for agents, and the published `cli.v1` with its wire format `v1`. No
//! token, key or blob of one is accepted by the other.

pub mod admin;
pub mod attestation;
pub mod cli;
pub mod cloud;
pub mod core;
pub mod delivery;
pub mod envelope;
pub mod fault;
pub mod issuer;
pub mod names;
pub mod payload;
pub mod reports;
pub mod settings;
pub mod signed;
pub mod store;
pub mod suite;
pub mod tls;
pub mod v1;
pub mod wire;
pub mod wire_cli;

mod clock;
mod entropy;
