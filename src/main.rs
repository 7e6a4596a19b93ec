//! `ennote-agent`: parse settings, start telemetry, run the agent, choose the exit code.

use clap::Parser;
use ennote_agent::cluster::error::Chain;
use ennote_agent::config::{Cli, Command, DoctorSettings, HealthcheckSettings, RenderSettings, RunSettings};
use ennote_agent::{agent, crd, doctor, hardening, health, render, telemetry};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(settings) => run(*settings),
        Command::Crd => print_crd(),
        Command::Render(settings) => print_rendered(&settings),
        Command::Healthcheck(settings) => healthcheck(&settings),
        Command::Doctor(settings) => examine(&settings),
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
    print(&yaml)
}

fn print(text: &str) -> ExitCode {
    // A closed pipe (`ennote-agent crd | head`) is the reader's choice, not our failure.
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Wrong usage, as clap says it.
const USAGE: u8 = 2;

fn print_rendered(settings: &RenderSettings) -> ExitCode {
    let complain = |text: &str, code: u8| {
        let _ = writeln!(std::io::stderr(), "{text}");
        ExitCode::from(code)
    };
    let stdin = Path::new("-");
    if settings.file == stdin && settings.payload == stdin {
        return complain("standard input can be the bindings or the payload, not both", USAGE);
    }
    let (bindings, payload) = match (read(&settings.file), read(&settings.payload)) {
        (Ok(bindings), Ok(payload)) => (bindings, payload),
        (Err(text), _) | (_, Err(text)) => return complain(&text, USAGE),
    };
    // Not before the files are read: /dev/fd, which a shell's <(...) is, belongs to root in a process that cannot be dumped.
    hardening::harden();
    match render::render(&bindings, &payload, settings) {
        Ok(text) => print(&text),
        Err(refused) => complain(&refused.to_string(), 1),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map(|_| bytes).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn examine(settings: &DoctorSettings) -> ExitCode {
    hardening::harden();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let findings = runtime.block_on(doctor::run(settings));
    let printed = print(&doctor::text(&findings, settings.output));
    if findings.iter().any(|finding| finding.verdict == doctor::Verdict::Fail) { ExitCode::FAILURE } else { printed }
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
