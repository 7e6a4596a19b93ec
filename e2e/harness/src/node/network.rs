//! Reaching into the node's namespaces from outside.

use anyhow::{Context, Result, bail};
use procfs::process::{Process, all_processes};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

/// Process 1 of the namespaces that `unshare` (process `pid`) has made.
pub(crate) fn init_of(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child: u32 = children.split_whitespace().next().context("it has no child yet")?.parse()?;
    let pids = fs::read_link(format!("/proc/{child}/ns/pid"))?;
    if pids == fs::read_link("/proc/self/ns/pid")? {
        bail!("it is not in namespaces of its own yet");
    }
    Ok(child)
}

/// A socket that listens in the network of process `pid`; whoever holds it need not be there.
pub(crate) fn listen(pid: u32, address: SocketAddr) -> Result<TcpListener> {
    let network = File::open(format!("/proc/{pid}/ns/net"))?;
    // The thread is in that network for good, so it ends with its one task.
    let listening = std::thread::spawn(move || -> Result<TcpListener> {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address} of the node"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match listening.join() {
        Ok(listener) => listener,
        Err(_) => bail!("the thread that should listen on {address} has ended"),
    }
}

/// Kills the process of this name in the namespaces of process `init`.
pub(crate) fn kill_by_name(init: u32, name: &str) -> Result<()> {
    let pids = fs::read_link(format!("/proc/{init}/ns/pid"))?;
    let inside = |process: &Process| {
        fs::read_link(format!("/proc/{}/ns/pid", process.pid)).is_ok_and(|of| of == pids)
            && process.stat().is_ok_and(|stat| stat.comm == name)
    };
    let found = all_processes()?.filter_map(Result::ok).find(inside);
    let pid = found.and_then(|process| Pid::from_raw(process.pid)).with_context(|| format!("no {name} runs"))?;
    Ok(kill_process(pid, Signal::KILL)?)
}
