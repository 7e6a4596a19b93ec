//! The process itself: no core dumps, not dumpable, silent panics, the stack scrubbed after plaintext.
//!
//! The allocator of the binary (main.rs) wipes every block on free and on growth, so copies that libraries make and drop do not
//! stay behind. AES-GCM leaves up to a kilobyte of plaintext on the stack whatever the allocator; [`scrubbed`] overwrites it.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::io::Write;
use std::panic::PanicHookInfo;

/// Bytes of stack below the caller that are overwritten. Opening takes under 16 KiB in suite A and 64 to 96 KiB in suite B
/// (measured in a release build), where X-Wing unfolds the session key; several times that without optimisation. A quarter of a
/// worker's stack.
const SCRUBBED: usize = 512 * 1024;

/// Forbids core dumps and reading of this process by others of its user. A kernel that refuses is reported, not fatal.
pub fn harden() {
    std::panic::set_hook(Box::new(|info| tell_place(info)));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process could not be made undumpable");
    }
}

/// Where it panicked. What the panic says may hold a value: `unwrap` and `expect` print what they found.
fn tell_place(info: &PanicHookInfo<'_>) {
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    if tracing::dispatcher::has_been_set() {
        tracing::error!(at, "panicked; what it says is withheld, since it may hold a value");
    } else {
        let _ = writeln!(std::io::stderr(), "panicked at {at}; what it says is withheld, since it may hold a value");
    }
}

/// Runs `f`, then overwrites the stack that it used. `f` returns only what is finished.
#[inline(never)]
pub fn scrubbed<T>(f: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn call<T>(f: impl FnOnce() -> T) -> T {
        f()
    }
    let result = call(f);
    wipe_stack();
    result
}

#[inline(never)]
fn wipe_stack() {
    // What is looked at has to be there: the zeros are written, as fast as memory is.
    std::hint::black_box(&mut [0_u8; SCRUBBED]);
}
