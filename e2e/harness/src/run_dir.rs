//! The folder of one run: certificates, data and logs, removed at its end unless something failed.

use crate::watchdog;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A private temporary folder (mode 0700).
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    keep: AtomicBool,
}

impl RunDir {
    /// Makes a new one; the watchdog removes it when this process dies before it does.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(name: &str, keep: bool) -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(&format!("ennote-{name}-"))
            .tempdir()
            .context("cannot make a folder for this run")?
            .keep();
        if !keep {
            watchdog::remove_at_end(&path)?;
        }
        Ok(Self { path, keep: AtomicBool::new(keep) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Leaves the folder behind, so that someone can look at its logs.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
        watchdog::keep(&self.path);
    }

    /// Whether it will be left behind.
    pub fn is_kept(&self) -> bool {
        self.keep.load(Ordering::Relaxed)
    }

    /// Takes [`Self::keep`] back: a failure that was expected needs no look.
    ///
    /// # Errors
    /// When the watchdog has ended.
    pub fn discard(&self) -> Result<()> {
        self.keep.store(false, Ordering::Relaxed);
        watchdog::remove_at_end(&self.path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
        if !self.is_kept() && std::fs::remove_dir_all(&self.path).is_ok() {
            // The watchdog has nothing left to remove; a failed removal stays its task.
            watchdog::keep(&self.path);
        }
    }
}
