//! stub
pub mod config;
pub mod crd;
