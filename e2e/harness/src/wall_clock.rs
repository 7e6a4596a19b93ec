//! A wall clock that is wrong, and steps, for one process: a library laid over the C library's clock by LD_PRELOAD.

use crate::run_dir::RunDir;
use anyhow::{Context, Result, ensure};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clock/shift.c");

/// A shifted wall clock. The processes that see it outlive it: they keep the last shift.
pub struct WallClock {
    library: PathBuf,
    shift: PathBuf,
    // Last: the files go with it.
    _dir: RunDir,
}

impl WallClock {
    /// Right at first. Needs a C compiler, `cc`.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn new() -> Result<Self> {
        let dir = RunDir::new("clock", false)?;
        let (library, shift) = (dir.join("shift.so"), dir.join("seconds"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(SOURCE);
        let built = compiler.output().context("no C compiler: the wrong clock is a few lines of C")?;
        ensure!(built.status.success(), "{SOURCE} does not compile: {}", String::from_utf8_lossy(&built.stderr));
        std::fs::write(&shift, 0i64.to_ne_bytes())?;
        Ok(Self { library, shift, _dir: dir })
    }

    /// What makes a dynamically linked process see it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let variable = |name: &str, path: &PathBuf| (name.to_owned(), path.display().to_string());
        vec![variable("LD_PRELOAD", &self.library), variable("ENNOTE_CLOCK_SHIFT", &self.shift)]
    }

    /// Steps it to so many seconds after the real time, for all who see it, now.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn shift(&self, seconds: i64) -> Result<()> {
        // In place: the file is mapped.
        OpenOptions::new().write(true).open(&self.shift)?.write_all_at(&seconds.to_ne_bytes(), 0)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_process_sees_the_shifted_clock() {
        let clock = WallClock::new().unwrap();
        let far_off = |shift: i64| {
            clock.shift(shift).unwrap();
            let shown = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap();
            let shown: i64 = String::from_utf8(shown.stdout).unwrap().trim().parse().unwrap();
            let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
            (shown - now - shift).abs()
        };
        assert!(far_off(0) < 60);
        assert!(far_off(-3600) < 60);
        assert!(far_off(3600) < 60);
    }
}
