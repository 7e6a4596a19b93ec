//! `ennote-agent`: keeps Kubernetes Secrets in step with Ennote.
//!
//! Gather, decide, act, report; deciding is pure. Dependencies point one way, and `tests/layers.rs` holds that:
//!
//! ```text
//! main -> agent -> controller -> cluster --+
//!           |            `-----> cloud  ---+--> rollout, crypto, identity -> domain -> crd
//!           |-> render -> domain
//!           |-> doctor -> cluster, cloud
//!           `-> config, telemetry, health, hardening, locked, clock, entropy
//! ```
//!
//! `cluster` is the only user of `kube::Client`, `cloud` the only user of tonic; they never import each other.

pub mod agent;
pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod crd;
pub mod crypto;
pub mod doctor;
pub mod domain;
pub mod entropy;
pub mod faults;
pub mod hardening;
pub mod health;
pub mod identity;
pub mod locked;
pub mod render;
pub mod rollout;
pub mod telemetry;
pub mod wire;
