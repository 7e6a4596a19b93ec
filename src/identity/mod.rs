//! Who the agent is: its key, whom it trusts, how it joins, when it renews.
//!
//! Pure: no socket, clock or file; randomness and time are arguments. May import: `crypto`, `domain`, `wire`.

pub mod access_token;
pub mod join;
pub mod signing_key;
pub mod trust;
