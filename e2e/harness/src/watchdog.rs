//! Nothing outlives the harness: a small shell process holds the list of what was started, and ends it when we are gone.
//!
//! Destructors do not run for statics, after SIGKILL or after an unhandled Ctrl-C. The end of a pipe does.

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Tells the watchdog that `pid` was started and is not reaped yet.
///
/// # Errors
/// When the watchdog could not be started.
pub(crate) fn started(pid: u32) -> Result<()> {
    say(&format!("started {pid}"))
}

/// Tells the watchdog that `pid` was reaped: its number may be someone else's from now on.
pub(crate) fn ended(pid: u32) {
    // A watchdog that is gone has nothing to forget.
    let _ = say(&format!("ended {pid}"));
}

/// Has `dir` removed when the harness is gone.
///
/// # Errors
/// When the watchdog could not be started.
pub(crate) fn remove_at_end(dir: &Path) -> Result<()> {
    say(&format!("remove {}", dir.display()))
}

/// Leaves `dir` behind after all.
pub(crate) fn keep(dir: &Path) {
    let _ = say(&format!("keep {}", dir.display()));
}

struct Watchdog {
    // Never waited for: it ends after us.
    _child: Child,
    orders: ChildStdin,
}

fn say(order: &str) -> Result<()> {
    static WATCHDOG: OnceLock<Mutex<Option<Watchdog>>> = OnceLock::new();
    let mut watchdog = WATCHDOG.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let running = match watchdog.as_mut() {
        Some(running) => running,
        None => watchdog.insert(start()?),
    };
    running.orders.write_all(format!("{order}\n").as_bytes()).context("the watchdog of the test harness has ended")
}

fn start() -> Result<Watchdog> {
    let mut child = Command::new("sh")
        .args(["-c", include_str!("watchdog.sh"), "ennote-watchdog"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Out of the terminal's foreground group: Ctrl-C must end the harness, not its watchdog.
        .process_group(0)
        .spawn()
        .context("cannot start `sh`, which ends leftover processes of the test harness")?;
    let orders = child.stdin.take().context("the watchdog has no standard input")?;
    Ok(Watchdog { _child: child, orders })
}
