//! The messages and stubs of `proto/ennote/agent/v1`, as prost and tonic generate them. Hardly a message derives Debug.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in proto/"
)]

tonic::include_proto!("ennote.agent.v1");
