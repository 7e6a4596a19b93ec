//! The doors on the network: gRPC over TLS 1.3, for agents and for the published command line. The only user of tonic's server.

mod accept;
mod books;
mod choice;
mod cli_v1;
mod identity;
mod lookup;
mod server;
mod stream;
mod sync;
mod timers;

pub use server::{ListenError, Server, Transport};
