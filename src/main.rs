//! `ennote-agent`: parse settings, start telemetry, run the agent, choose the exit code.

use clap::Parser;
use ennote_agent::config::{Cli, Command};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crd => print_crd(),
        _ => ExitCode::FAILURE,
    }
}

fn print_crd() -> ExitCode {
    let Ok(yaml) = ennote_agent::crd::manifest() else { return ExitCode::FAILURE };
    // A closed pipe (`ennote-agent crd | head`) is the reader's choice, not our failure.
    match std::io::stdout().write_all(yaml.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
