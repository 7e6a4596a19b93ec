//! R1: the signing keys of a public issuer are fetched from it, not believed from an agent (SECURITY.md 1.2).

mod address;
mod fetch;
mod watch;

pub use address::is_public;
pub use fetch::{FetchError, Fetched, Fetcher, Pinned};
pub use watch::watch;
