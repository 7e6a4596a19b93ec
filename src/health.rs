//! Heartbeat file: how an exec probe sees progress without a port.
//!
//! One line, `BOOTTIME_MILLIS STATE`, replaced atomically; the probe's process reads the same clock.

use crate::clock;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often the agent writes.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// A heartbeat older than this is a stall.
const STALLED: Duration = Duration::from_secs(60);

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Running, but not yet caught up once.
    Starting,
    /// All watches listed and the stream open, at least once.
    Ready,
}

/// Writes a heartbeat.
///
/// # Errors
/// If the file cannot be replaced.
pub fn beat(file: &Path, state: State) -> io::Result<()> {
    let word = match state {
        State::Starting => "starting",
        State::Ready => "ready",
    };
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, format!("{} {word}\n", clock::now().millis()))?;
    std::fs::rename(&fresh, file)
}

/// What a probe answers.
///
/// # Errors
/// Why the agent is not healthy, as a sentence.
pub fn check(file: &Path, need_ready: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        format!("no heartbeat at {}: {e}; is `ennote-agent run` running with that --heartbeat-file?", file.display())
    })?;
    judge(&text, clock::now().millis(), need_ready)
}

fn judge(text: &str, now: u64, need_ready: bool) -> Result<(), String> {
    let parsed = text.trim().split_once(' ').and_then(|(at, word)| Some((at.parse::<u64>().ok()?, word)));
    let (at, word) = parsed.ok_or("the heartbeat file holds something else")?;
    let age = Duration::from_millis(now.saturating_sub(at));
    if at > now || age > STALLED {
        return Err(format!("the last heartbeat is {} s old", age.as_secs()));
    }
    if need_ready && word != "ready" {
        return Err(
            "still starting: not all watches are listed, or the stream to Ennote was never open; see the agent's log"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_judges_age_and_state() {
        let verdict = |text: &str, ready| judge(text, 100_000, ready).is_ok();
        assert!(verdict("99000 ready\n", true));
        assert!(verdict("99000 starting\n", false) && !verdict("99000 starting\n", true));
        assert!(!verdict("39000 ready\n", false), "61 s old");
        assert!(!verdict("200000 ready\n", false), "of another boot");
        assert!(!verdict("", false) && !verdict("x ready", false));
    }

    #[test]
    fn a_written_heartbeat_is_healthy_and_none_is_not() {
        let dir = std::env::temp_dir().join(format!("ennote-health-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("heartbeat");
        assert!(check(&file, false).is_err());
        beat(&file, State::Starting).unwrap();
        assert!(check(&file, false).is_ok() && check(&file, true).is_err());
        beat(&file, State::Ready).unwrap();
        assert!(check(&file, true).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
