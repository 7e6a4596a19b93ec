//! `ennote-agent`: parse settings, start telemetry, run the agent, choose the exit code.

use clap::Parser;
use ennote_agent::cluster::error::Chain;
use ennote_agent::config::{Cli, Command, HealthcheckSettings, RunSettings};
use ennote_agent::{agent, crd, hardening, health, telemetry};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(settings) => run(*settings),
        Command::Crd => print_crd(),
        Command::Healthcheck(settings) => healthcheck(&settings),
    }
}

fn run(settings: RunSettings) -> ExitCode {
    telemetry::start(&settings.log, settings.log_format);
    hardening::harden();
    // Two workers: tokio would take every core that it sees, and each brings a malloc arena.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(agent::run(settings));
            // Whatever still waits for an answer must not hold up the end.
            runtime.shutdown_background();
            result
        }
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot start");
            ExitCode::FAILURE
        }
    }
}

fn print_crd() -> ExitCode {
    let Ok(yaml) = crd::manifest() else { return ExitCode::FAILURE };
    // A closed pipe (`ennote-agent crd | head`) is the reader's choice, not our failure.
    match std::io::stdout().write_all(yaml.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn healthcheck(settings: &HealthcheckSettings) -> ExitCode {
    match health::check(&settings.heartbeat_file, settings.ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}
