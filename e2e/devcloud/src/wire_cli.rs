//! The messages and the server of the published `cli.v1`, as prost and tonic generate them. No message derives Debug.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in proto/"
)]

tonic::include_proto!("cli.v1");
