//! The agent on the system's allocator, which wipes nothing: what stays in memory then is what its own care leaves there. For
//! scenarios alone.

use clap::Parser;
use ennote_agent::config::{Cli, Command};
use ennote_agent::{agent, health};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(settings) => agent::process(*settings),
        Command::Healthcheck(settings) => match health::check(&settings.heartbeat_file, settings.ready) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}
