//! The command line: parse, ask, print.

mod args;
mod output;
mod pats;
mod run;
mod serve;
mod status;
mod values;

pub use args::Cli;
pub use run::main;
