//! Holds a process and a folder until it is ended: what the watchdog's tests kill.

use anyhow::Result;
use ennote_harness::process::Process;
use ennote_harness::run_dir::RunDir;
use std::io::Write;
use std::process::Command;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = RunDir::new("watchdog", false)?;
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let process = Process::spawn("sleep", sleep, &dir.join("sleep.log"))?;
    writeln!(std::io::stdout(), "holds {} {}", process.pid(), dir.path().display())?;
    process.wait().await?;
    Ok(())
}
