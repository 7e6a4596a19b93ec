//! The messages and stubs of `proto/ennote/agent/v1`, as prost and tonic generate them. No message derives Debug.

#![allow(missing_docs, unreachable_pub, clippy::use_self, reason = "generated; documented in proto/")]

tonic::include_proto!("ennote.agent.v1");
