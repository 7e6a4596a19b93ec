//! Heartbeat: how an exec probe sees progress without a port.
//!
//! Each loop stamps its own progress; one writer puts the stamps into a file, and a probe's process judges them by the same clock
//! (boottime, which no step of the wall clock moves). A loop that stands still cannot hide behind the writer. What the agent
//! waits for is never a stall: a cloud or an API server that is away makes every loop turn, fail and turn again.
//!
//! ```text
//! BOOTTIME_MILLIS STATE      by the writer
//! stream BOOTTIME_MILLIS     one line a loop
//! ```

use crate::clock;
use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the agent writes.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How often a loop that waits shows that it can still be woken.
pub const TURN: Duration = Duration::from_secs(10);
/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Running, but not yet caught up once, or without a session for too long.
    Starting,
    /// All watches listed, all that the cloud had taken in, and the session alive.
    Ready,
}

/// What must keep moving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// Link and stream: frames, asks, attempts, pauses.
    Stream,
    /// Renewal of the token: nothing due, or an exchange that went on.
    Renew,
    /// Passes over bindings and workloads: the oldest step of those that run.
    Apply,
    /// Changes of the cluster on their way to the controllers.
    Watch,
    /// The timers of the controllers.
    Timer,
}

impl Loop {
    const ALL: [Self; 5] = [Self::Stream, Self::Renew, Self::Apply, Self::Watch, Self::Timer];

    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Renew => "renew",
            Self::Apply => "apply",
            Self::Watch => "watch",
            Self::Timer => "timer",
        }
    }
}

/// The stamps of this process. Clones are one.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Stamps>);

#[derive(Default)]
struct Stamps {
    /// Boottime of the last progress, by [`Loop::ALL`]; 0: not begun.
    last: [AtomicU64; 5],
    /// Passes that run, by what they are of, with their last step.
    passes: Mutex<HashMap<String, u64>>,
}

impl Pulse {
    /// A loop has got on.
    pub fn stamp(&self, of: Loop) {
        self.0.last[of as usize].store(now(), Ordering::Relaxed);
    }

    /// Waits, and shows meanwhile that the loop can be woken. For waits that have an end of their own.
    pub async fn through<T>(&self, of: &[Loop], wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        loop {
            of.iter().for_each(|of| self.stamp(*of));
            if let Ok(done) = tokio::time::timeout(TURN, wait.as_mut()).await {
                return done;
            }
        }
    }

    /// A pass begins; it ends with what is returned, also when it panics.
    pub fn pass(&self, of: &str) -> Pass {
        self.stamp(Loop::Apply);
        self.passes().insert(of.to_owned(), now());
        Pass { pulse: self.clone(), of: of.to_owned() }
    }

    /// A pass that runs has got on: a call was answered, or given up.
    pub fn step(&self, of: &str) {
        if let Some(last) = self.passes().get_mut(of) {
            *last = now();
        }
    }

    fn passes(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last progress of each loop that has begun. Without a pass that runs, applying cannot be late.
    fn last(&self, now: u64) -> Vec<(Loop, u64)> {
        let oldest = self.passes().values().min().copied().unwrap_or(now);
        let of = |one: Loop| match one {
            Loop::Apply => oldest,
            other => self.0.last[other as usize].load(Ordering::Relaxed),
        };
        Loop::ALL.into_iter().map(|one| (one, of(one))).filter(|(_, last)| *last > 0).collect()
    }
}

/// A pass that runs.
pub struct Pass {
    pulse: Pulse,
    of: String,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.pulse.passes().remove(&self.of);
    }
}

fn now() -> u64 {
    clock::now().millis()
}

/// Writes a heartbeat.
///
/// # Errors
/// If the file cannot be replaced.
pub fn beat(file: &Path, state: State, pulse: &Pulse) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let now = now();
    std::fs::write(&fresh, text(now, state, &pulse.last(now)))?;
    std::fs::rename(&fresh, file)
}

fn text(now: u64, state: State, stamps: &[(Loop, u64)]) -> String {
    let word = match state {
        State::Starting => "starting",
        State::Ready => "ready",
    };
    let mut text = format!("{now} {word}\n");
    for (of, last) in stamps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {last}", of.name());
    }
    text
}

/// What a probe answers. `stalled` is the time without progress that is too long.
///
/// # Errors
/// Why the agent is not healthy, as a sentence.
pub fn check(file: &Path, need_ready: bool, stalled: Duration) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        format!("no heartbeat at {}: {e}; is `ennote-agent run` running with that --heartbeat-file?", file.display())
    })?;
    judge(&text, now(), need_ready, stalled)
}

fn judge(text: &str, now: u64, need_ready: bool, stalled: Duration) -> Result<(), String> {
    let mut lines = text.lines().map(|line| line.split_once(' '));
    let parsed = lines.next().flatten().and_then(|(at, word)| Some((at.parse::<u64>().ok()?, word)));
    let nonsense = || "the heartbeat file holds something else".to_owned();
    let (at, word) = parsed.ok_or_else(nonsense)?;
    let age = |at: u64| Duration::from_millis(now.saturating_sub(at));
    if at > now || age(at) > stalled {
        return Err(format!("the last heartbeat is {} s old", age(at).as_secs()));
    }
    for line in lines {
        let (of, last) = line.and_then(|(of, last)| Some((of, last.parse::<u64>().ok()?))).ok_or_else(nonsense)?;
        if last > now || age(last) > stalled {
            return Err(format!(
                "{of} has not moved for {} s, and the agent is not waiting for anybody",
                age(last).as_secs()
            ));
        }
    }
    if need_ready && word != "ready" {
        return Err(
            "still starting: not all watches are listed, what the cloud holds is not taken in yet, or the stream to Ennote was \
             never open or is gone for longer than a token lives; see the agent's log"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    #[test]
    fn a_probe_judges_age_and_state() {
        let verdict = |text: &str, ready| judge(text, 200_000, ready, LIMIT).is_ok();
        assert!(verdict("199000 ready\n", true));
        assert!(verdict("199000 starting\n", false) && !verdict("199000 starting\n", true));
        assert!(!verdict("79000 ready\n", false), "121 s old");
        assert!(!verdict("300000 ready\n", false), "of another boot");
        assert!(!verdict("", false) && !verdict("x ready", false) && !verdict("199000 ready\nstream x", false));
    }

    #[test]
    fn a_loop_that_stands_still_is_named_whatever_the_writer_does() {
        let all = |stream: u64| text(200_000, State::Ready, &[(Loop::Stream, stream), (Loop::Timer, 199_000)]);
        assert_eq!(judge(&all(80_000), 200_000, true, LIMIT), Ok(()), "120 s is not too long");
        let said = judge(&all(79_999), 200_000, false, LIMIT).unwrap_err();
        assert!(said.starts_with("stream has not moved for 120 s"), "{said}");
        assert!(judge(&all(200_001), 200_000, false, LIMIT).is_err(), "a stamp of another boot");
    }

    #[test]
    fn applying_is_as_late_as_the_oldest_pass_that_runs() {
        let pulse = Pulse::default();
        let apply = |now: u64| pulse.last(now).into_iter().find(|(of, _)| *of == Loop::Apply).unwrap().1;
        assert_eq!(apply(7_000), 7_000, "nothing runs, nothing is late");
        let (first, second) = (pulse.pass("a"), pulse.pass("b"));
        pulse.passes().insert("a".to_owned(), 1_000);
        pulse.passes().insert("b".to_owned(), 2_000);
        assert_eq!(apply(7_000), 1_000);
        pulse.step("a");
        assert_eq!(apply(7_000), 2_000, "it got on, the other did not");
        drop(second);
        pulse.step("b");
        assert!(apply(7_000) > 2_000, "a pass that is over takes no steps");
        drop(first);
        assert_eq!(apply(9_000), 9_000);
        assert!(pulse.last(9_000).iter().all(|(of, _)| *of == Loop::Apply), "loops that have not begun are not late");
        pulse.stamp(Loop::Watch);
        assert_eq!(pulse.last(9_000).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_shows_that_it_can_be_woken_and_ends_when_it_should() {
        let pulse = Pulse::default();
        let began = tokio::time::Instant::now();
        pulse.through(&[Loop::Stream, Loop::Renew], tokio::time::sleep(Duration::from_secs(1800))).await;
        assert_eq!(began.elapsed().as_secs(), 1800);
        let moved: Vec<Loop> = pulse.last(now()).into_iter().map(|(of, _)| of).collect();
        assert_eq!(moved, [Loop::Stream, Loop::Renew, Loop::Apply]);
    }

    #[test]
    fn a_written_heartbeat_is_healthy_and_none_is_not() {
        let dir = std::env::temp_dir().join(format!("ennote-health-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, pulse) = (dir.join("heartbeat"), Pulse::default());
        assert!(check(&file, false, LIMIT).is_err());
        beat(&file, State::Starting, &pulse).unwrap();
        assert!(check(&file, false, LIMIT).is_ok() && check(&file, true, LIMIT).is_err());
        for of in Loop::ALL {
            pulse.stamp(of);
        }
        beat(&file, State::Ready, &pulse).unwrap();
        assert!(check(&file, true, LIMIT).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
