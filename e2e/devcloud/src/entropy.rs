//! The operating system's randomness.

use rand_core::{CryptoRng, Rng, UnwrapErr};

/// The generator for keys, nonces and tokens. An operating system without randomness ends the process.
pub(crate) fn system() -> impl CryptoRng {
    UnwrapErr(getrandom::SysRng)
}

/// Fresh random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    system().fill_bytes(&mut out);
    out
}

/// Uniform in 0..1.
pub(crate) fn fraction() -> f64 {
    f64::from(u32::from_le_bytes(bytes())) / (f64::from(u32::MAX) + 1.0)
}
