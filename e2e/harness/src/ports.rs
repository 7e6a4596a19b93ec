//! Free loopback ports for servers that must be told theirs.

use anyhow::{Result, bail};
use std::net::{Ipv4Addr, TcpListener};

/// Below the ephemeral ports of Linux (32768..) and macOS (49152..): a client that keeps dialling a stopped server's
/// port would otherwise be given that very port as its source now and then, connect to itself and keep it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// `N` different ports of 127.0.0.1 on which nobody listens now. Someone may still be faster: callers try again.
///
/// # Errors
/// When 1,000 random ports yield too few free ones.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..1000 {
        if held.len() == N {
            break;
        }
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes)?;
        let port = FIRST + u16::from_le_bytes(bytes) % COUNT;
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|listener| (port, listener)));
    }
    let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
    match ports.try_into() {
        Ok(ports) => Ok(ports),
        Err(_) => bail!("no {N} free ports on 127.0.0.1 between {FIRST} and {}", FIRST + COUNT),
    }
}

/// Whether somebody accepts connections on 127.0.0.1:`port`.
pub fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}
