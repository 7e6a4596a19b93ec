//! The sockets and the memory of a process, read from the kernel's own tables (Linux).

use anyhow::{Context, Result};
use procfs::net::{TcpState, UdpState};
use procfs::process::{FDTarget, Process};
use std::collections::HashSet;
use std::fmt;

/// One socket that a process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// `tcp`, `udp` or `unix`.
    pub kind: &'static str,
    /// Local address, or path of a unix socket.
    pub local: String,
    /// Whether others can reach the process through it: a listening TCP or unix socket, or a UDP socket without a peer.
    pub listening: bool,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.kind, self.local, if self.listening { " listening" } else { "" })
    }
}

/// Every TCP, UDP and unix socket of process `pid`.
///
/// # Errors
/// When the process is gone or not ours.
pub fn sockets(pid: u32) -> Result<Vec<Socket>> {
    let process = process(pid)?;
    let mut held = HashSet::new();
    for fd in process.fd()? {
        if let FDTarget::Socket(inode) = fd?.target {
            held.insert(inode);
        }
    }
    let tcp = process.tcp()?.into_iter().chain(process.tcp6()?).filter(|entry| held.contains(&entry.inode));
    let udp = process.udp()?.into_iter().chain(process.udp6()?).filter(|entry| held.contains(&entry.inode));
    let mut sockets: Vec<Socket> = tcp
        .map(|entry| socket("tcp", entry.local_address.to_string(), entry.state == TcpState::Listen))
        .chain(udp.map(|entry| socket("udp", entry.local_address.to_string(), entry.state != UdpState::Established)))
        .collect();
    let table = format!("/proc/{pid}/net/unix");
    let table = std::fs::read_to_string(&table).with_context(|| format!("cannot read {table}"))?;
    sockets.extend(table.lines().skip(1).filter_map(|line| unix(line, &held)));
    Ok(sockets)
}

/// Resident memory of process `pid`, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = process(pid)?.status().context("cannot read its status")?;
    Ok(status.vmrss.context("the process has ended")? * 1024)
}

/// A line of /proc/PID/net/unix: `Num RefCount Protocol Flags Type St Inode Path`. procfs leaves the flags out.
fn unix(line: &str, held: &HashSet<u64>) -> Option<Socket> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let inode = columns.get(6)?.parse().ok()?;
    let flags = u32::from_str_radix(columns.get(3)?, 16).ok()?;
    let path = columns.get(7);
    // __SO_ACCEPTCON of include/uapi/linux/net.h; a bound datagram socket needs no accept to be reached.
    let listening = flags & (1 << 16) != 0 || (columns.get(4) == Some(&"0002") && path.is_some());
    held.contains(&inode).then(|| socket("unix", path.copied().unwrap_or("(unnamed)").to_owned(), listening))
}

fn process(pid: u32) -> Result<Process> {
    let id = i32::try_from(pid).context("not a process id")?;
    Process::new(id).with_context(|| format!("cannot look at process {pid}"))
}

fn socket(kind: &'static str, local: String, listening: bool) -> Socket {
    Socket { kind, local, listening }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sockets_are_seen_and_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let path = dir.path().join("socket");
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let seen = sockets(std::process::id()).unwrap();
        let of =
            |kind, local: String| seen.iter().find(|one| one.kind == kind && one.local == local).unwrap().listening;
        assert!(of("tcp", address.to_string()));
        assert!(!of("tcp", client.local_addr().unwrap().to_string()));
        assert!(of("udp", udp.local_addr().unwrap().to_string()));
        assert!(of("unix", path.display().to_string()));
    }

    #[test]
    fn resident_memory_of_this_test_is_plausible() {
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
    }
}
