//! The messages of `proto/ennote/agent/v1`, as prost generates them, and nothing else.
//!
//! May be imported by `crypto`, `identity` and `cloud`: plain data to everyone else would tie decisions to the wire. The
//! tonic stubs inside are used by `cloud` alone. No message derives Debug.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in proto/"
)]

tonic::include_proto!("ennote.agent.v1");
