//! What a newcomer runs first.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The whole path, told step by step, up until Ctrl-C; the program itself checks that no process and no port is left.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_the_whole_path_and_leaves_nothing_behind() -> Result<()> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(demo.stdout.take().context("standard output is piped")?).lines();
    let mut told = String::new();
    while let Some(line) = lines.next_line().await? {
        told.push_str(&line);
        told.push('\n');
        if line.starts_with("Everything stays up") {
            let pid = demo.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it runs")?;
            kill_process(pid, Signal::INT)?;
        }
    }
    let status = demo.wait().await?;
    ensure!(status.success(), "{status}:\n{told}");
    for part in [
        "holds the keys: password, url, user",
        "ms after the commit in the cloud",
        "Deployment  web     restarted for version 2: Complete, 2/2 pods up",
        "StatefulSet ledger  restarted for version 2: Complete, 2/2 pods up",
        "DaemonSet   meter   restarted for version 2: Complete, 2/2 pods up",
        "payments-db   payments db   True    2 ",
        "export KUBECONFIG=",
        "processes ended",
    ] {
        ensure!(told.contains(part), "{part:?} is missing:\n{told}");
    }
    Ok(())
}
