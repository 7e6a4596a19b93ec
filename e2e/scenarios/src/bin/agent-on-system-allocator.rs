//! The agent on the system's allocator, which wipes nothing: what stays in memory then is what its own care leaves there. For
//! scenarios alone.

use clap::Parser;
use ennote_agent::agent;
use ennote_agent::config::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(settings) => agent::process(*settings),
        _ => ExitCode::FAILURE,
    }
}
