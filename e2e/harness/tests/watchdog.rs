//! Nothing outlives the process that started it, however that process ends.

use anyhow::{Context, Result, ensure};
use ennote_harness::process::Process;
use ennote_harness::run_dir::RunDir;
use ennote_harness::wait::until;
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

async fn nothing_is_left_after(signal: Signal) -> Result<()> {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_hold")).stdout(Stdio::piped()).process_group(0).spawn()?;
    let lines = BufReader::new(holder.stdout.take().context("no output")?).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("holds ")).context("it holds nothing")?;
    let mut words = line.split(' ').skip(1);
    let pid: u32 = words.next().context("no pid")?.parse()?;
    let dir = PathBuf::from(words.next().context("no folder")?);
    assert!(is_alive(pid) && dir.is_dir());
    let id = rustix::process::Pid::from_child(&holder);
    rustix::process::kill_process(id, signal)?;
    holder.wait()?;
    until("the sleeping process and the folder to go", LIMIT, async || {
        ensure!(!is_alive(pid), "process {pid} is left");
        ensure!(!dir.exists(), "{} is left", dir.display());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_is_left_after_sigkill() -> Result<()> {
    nothing_is_left_after(Signal::KILL).await
}

#[tokio::test]
async fn nothing_is_left_after_ctrl_c() -> Result<()> {
    nothing_is_left_after(Signal::INT).await
}

#[tokio::test]
async fn a_panic_ends_the_process_and_keeps_its_folder() -> Result<()> {
    let (told, heard) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let dir = RunDir::new("watchdog", false).unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        let process = Process::spawn("sleep", sleep, &dir.join("sleep.log")).unwrap();
        told.send((process.pid(), dir.path().to_owned())).unwrap();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    let (pid, dir) = heard.recv()?;
    assert!(!is_alive(pid));
    assert!(dir.join("sleep.log").exists());
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[tokio::test]
async fn stopping_tells_how_it_ended() -> Result<()> {
    let dir = RunDir::new("watchdog", false)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"]);
    let process = Process::spawn("sh", shell, &dir.join("log"))?;
    until("the shell to be ready", LIMIT, async || {
        ensure!(std::fs::read_to_string(process.log())? == "ready\n");
        Ok(())
    })
    .await?;
    let (status, _) = process.stop(LIMIT).await?;
    assert_eq!(status.code(), Some(3));
    process.signal(Signal::KILL);
    assert!(format!("{:#}", process.failure()).contains("exit status: 3"));
    Ok(())
}

/// A zombie whose new parent has not reaped it yet does nothing any more.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
