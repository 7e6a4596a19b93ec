//! The random numbers of the operating system, for the edges; pure modules take theirs as arguments.

use rand_core::{Rng, UnwrapErr};

/// A source that never runs dry.
pub fn rng() -> UnwrapErr<getrandom::SysRng> {
    UnwrapErr(getrandom::SysRng)
}

/// Uniform in 0..=1, for jitter.
pub fn spread() -> f64 {
    let mut bytes = [0; 4];
    rng().fill_bytes(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
