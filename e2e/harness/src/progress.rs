//! Lines on standard error while something long runs: what is being done and for how long.

use crate::process::Known;
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_secs(5);

/// Reports until it is dropped.
pub(crate) struct Progress {
    begun: Instant,
    state: Arc<State>,
    // Dropping it ends the reporting thread.
    _stop: Sender<()>,
}

#[derive(Default)]
struct State {
    doing: Mutex<String>,
    done: AtomicUsize,
    expected: AtomicUsize,
}

impl Progress {
    pub(crate) fn start(what: &'static str) -> Self {
        say(what);
        let (begun, state) = (Instant::now(), Arc::new(State::default()));
        let (stop, stopped) = channel();
        let shown = Arc::clone(&state);
        std::thread::spawn(move || report(what, begun, &shown, &stopped));
        Self { begun, state, _stop: stop }
    }

    /// From now on, every line that a followed command writes is one of about `steps`.
    pub(crate) fn expect(&self, steps: usize) {
        self.state.done.store(0, Ordering::Relaxed);
        self.state.expected.store(steps, Ordering::Relaxed);
    }

    pub(crate) fn done(&self, what: &str) {
        say(&format!("{what} ({})", clock(self.begun)));
    }

    /// Runs `command`, shows the newest line of its standard error, and returns its standard output.
    pub(crate) fn follow(&self, command: &mut Command) -> Result<String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let _known = Known::new(child.id())?;
        let mut stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let mut last = VecDeque::new();
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            self.state.done.fetch_add(1, Ordering::Relaxed);
            self.state.doing.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&line);
            last.push_back(line);
            if last.len() > 20 {
                last.pop_front();
            }
        }
        if !child.wait()?.success() {
            bail!("`{:?}` failed:\n{}", command, Vec::from(last).join("\n"));
        }
        match reader.join() {
            Ok(text) => Ok(text?),
            Err(_) => bail!("the reader of `{command:?}` died"),
        }
    }
}

fn report(what: &str, begun: Instant, state: &State, stopped: &Receiver<()>) {
    while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        let doing = state.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let expected = state.expected.load(Ordering::Relaxed);
        let count = match expected {
            0 => String::new(),
            _ => format!(", {} of at most {expected} packages", state.done.load(Ordering::Relaxed)),
        };
        let short = what.split(" (").next().unwrap_or(what);
        say(&format!("  {short}: {}{count}  {doing}", clock(begun)));
    }
}

fn clock(begun: Instant) -> String {
    let seconds = begun.elapsed().as_secs();
    format!("{} min {:02} s", seconds / 60, seconds % 60)
}

fn say(line: &str) {
    // Nobody has to listen.
    let _ = writeln!(std::io::stderr(), "{line}");
}
