//! Every decoder of bytes from the network, of agent and devcloud, as one function each with a promise that it must keep
//! whatever the bytes are.
//!
//! `tests/corpus.rs` runs them over a corpus in every `cargo test`; `fuzz/` runs the same functions under libFuzzer. What the
//! API server sends is not here: it is the cluster's own word.

#![allow(clippy::unwrap_used, reason = "a harness for tests: a fixture that is broken panics")]

pub mod agent;
pub mod cloud;
pub mod mutations;
pub mod noise;
pub mod vectors;

mod agent_mapping;
mod agent_texts;
mod cloud_texts;
mod world;

/// What a decoder made of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They count.
    Taken,
    /// They are nothing.
    Refused,
}

/// What came of a run; the error says which promise was broken.
pub type Verdict = Result<Outcome, String>;

/// One decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Of the fuzz target and of its folder in `corpus/`.
    pub name: &'static str,
    /// Bytes to begin with; the first of them counts, so that what lies behind the first check is reached.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Of the corpus' alterations, each so many-th is tried: 1 = all. More where one run costs milliseconds; a fuzzer tries
    /// the rest.
    pub stride: usize,
    /// Decodes as the program does, and compares what it took with what it may take.
    pub run: fn(&[u8]) -> Verdict,
}

/// All of them.
pub const TARGETS: [&[Target]; 5] =
    [agent::TARGETS, agent_texts::TARGETS, cloud::TARGETS, cloud_texts::TARGETS, agent_mapping::TARGETS];

/// A decoder by its name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().flatten().find(|target| target.name == name).copied()
}

/// Runs a fuzz target; a broken promise is a crash.
pub fn fuzz(name: &str, bytes: &[u8]) {
    let verdict = target(name).map(|target| (target.run)(bytes));
    assert!(matches!(verdict, Some(Ok(_))), "{name}: {verdict:?}");
}

/// Nothing but an authentic message counts.
fn only_if(authentic: bool, promise: &str) -> Verdict {
    if authentic { Ok(Outcome::Taken) } else { Err(promise.to_owned()) }
}
