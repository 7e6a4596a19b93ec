//! One child process: started in a group of its own, known to the watchdog, never signalled after it was reaped.

use crate::watchdog;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A running child process. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    shared: Arc<Shared>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

#[derive(Debug)]
struct Shared {
    /// Held while signalling and while reaping, so a signal never reaches a number that was given to a stranger.
    status: Mutex<Option<ExitStatus>>,
    gone: Condvar,
}

impl Process {
    /// Starts `command` with both outputs appended to `log` and no standard input.
    ///
    /// # Errors
    /// When the program cannot be started or its log cannot be opened.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = open_log(log)?;
        let err = out.try_clone().with_context(|| format!("cannot open {} twice", log.display()))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        let pid = child.id();
        let shared = Arc::new(Shared { status: Mutex::new(None), gone: Condvar::new() });
        let (told, exit) = watch::channel(None);
        let waiter = Arc::clone(&shared);
        std::thread::spawn(move || reap(child, &waiter, &told));
        let process = Self { name: name.to_owned(), pid, log: log.to_owned(), shared, exit };
        watchdog::started(pid)?;
        Ok(process)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name that error messages use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds both outputs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status, once it has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Sends a signal; does nothing when the process has ended.
    pub fn signal(&self, signal: Signal) {
        let status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_none()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            // The only failure left is "no such process", which is what a signal to it wants.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When its exit status could not be learned.
    pub async fn wait(&self) -> Result<ExitStatus> {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.map(|status| *status);
        status.ok().flatten().with_context(|| format!("lost track of {} (process {})", self.name, self.pid))
    }

    /// SIGTERM, then SIGKILL after `grace`. Returns the exit status and how long it took.
    ///
    /// # Errors
    /// When its exit status could not be learned.
    pub async fn stop(&self, grace: Duration) -> Result<(ExitStatus, Duration)> {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        let status = match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => status?,
            Err(_) => self.kill().await?,
        };
        Ok((status, begun.elapsed()))
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When its exit status could not be learned.
    pub async fn kill(&self) -> Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// An error that says how it ended and shows the end of its log.
    pub fn failure(&self) -> anyhow::Error {
        let how = self.exit_status().map_or_else(|| "is still running".to_owned(), |status| format!("ended: {status}"));
        anyhow::anyhow!("{} {how}. The end of {}:\n{}", self.name, self.log.display(), tail(&self.log, 30))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        // A killed process is gone in milliseconds; the bound keeps a stuck one (uninterruptible I/O) from hanging us.
        let _ = self.shared.gone.wait_timeout_while(status, Duration::from_secs(10), |status| status.is_none());
    }
}

/// The last `lines` lines of a file, or a note that it cannot be read.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    match std::fs::read(file) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(cannot be read: {error})"),
    }
}

/// What a finished command said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    command: String,
}

impl Output {
    /// Standard output of a command that succeeded.
    ///
    /// # Errors
    /// When the exit code is not 0: the command line, the code and standard error.
    pub fn ok(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        bail!("`{}` ended with {}: {}", self.command, self.code, said.trim())
    }

    /// Standard error of a command that had to fail.
    ///
    /// # Errors
    /// When the exit code is 0.
    pub fn refused(self) -> Result<String> {
        if self.code != 0 {
            return Ok(self.stderr);
        }
        bail!("`{}` succeeded, but it had to be refused. It said: {}", self.command, self.stdout.trim())
    }
}

/// Runs `command` to its end with `input` on its standard input, which errors and process lists never show.
///
/// # Errors
/// When it cannot be started; a non-zero exit is not an error here.
pub async fn run(command: Command, input: &[u8]) -> Result<Output> {
    use tokio::io::AsyncWriteExt;
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let line = format!("{program} {}", args.join(" "));
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let _known = child.id().map(Known::new).transpose()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input closes the pipe: its exit code tells whether that matters.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.with_context(|| format!("cannot wait for `{line}`"))?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: line,
    })
}

/// A short command's entry in the watchdog's list.
pub(crate) struct Known(u32);

impl Known {
    pub(crate) fn new(pid: u32) -> Result<Self> {
        watchdog::started(pid)?;
        Ok(Self(pid))
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        watchdog::ended(self.0);
    }
}

fn reap(mut child: Child, shared: &Shared, told: &watch::Sender<Option<ExitStatus>>) {
    let pid = child.id();
    if let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Waits without reaping: until the lock is held the number stays taken.
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
    }
    let mut status = shared.status.lock().unwrap_or_else(PoisonError::into_inner);
    // Waiting for an own child fails only when someone else reaped it; the sender then drops and `wait` says so.
    *status = child.wait().ok();
    watchdog::ended(pid);
    told.send_replace(*status);
    drop(status);
    shared.gone.notify_all();
}

fn open_log(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open the log {}", log.display()))
}
