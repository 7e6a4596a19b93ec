//! The published wire format v1 (PRODUCT.md, section 5), the server's side of it. Pure: no clock, socket or file.
//!
//! Two parts: [`blob`], a payload under a DEK that ML-KEM-1024 gives, and [`session`], that DEK under a key agreed on with one
//! caller for one call. Nothing in either binds a name or a version: the format leaves that to the server, and this project's
//! own envelope (v2) does not. The two formats share no key and no byte that the other would take.

pub mod blob;
pub mod session;
