//! The door for administrators: one JSON line in, one JSON line out, over `DIR/admin.sock` (0600).
//!
//! While a server runs it holds the database, and requests go through its socket; else they are answered in this process.

mod client;
mod request;
mod socket;

pub use client::{Client, Failure};
pub use request::Request;
pub use socket::{SOCKET, Socket};
