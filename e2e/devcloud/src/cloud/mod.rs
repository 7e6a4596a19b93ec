//! The door for agents: gRPC over TLS 1.3. The only user of tonic's server.

mod accept;
mod choice;
mod identity;
mod server;
mod stream;
mod sync;
mod timers;

pub use server::{ListenError, Server, Transport};
