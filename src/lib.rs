//! stub
pub mod config;
pub mod crd;
pub mod crypto;
pub mod domain;
pub mod identity;
pub mod rollout;
pub mod wire;
