//! `ennote-agent`: parse settings, start telemetry, run the agent, choose the exit code.

use clap::Parser;
use ennote_agent::config::{Cli, Command, DoctorSettings, HealthcheckSettings, RenderSettings};
use ennote_agent::{agent, crd, doctor, hardening, health, render};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Wipes every block that is freed. The binary chooses it, so that the scenarios can run the same agent without.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(settings) => agent::process(*settings),
        Command::Crd => print_crd(),
        Command::Render(settings) => print_rendered(&settings),
        Command::Healthcheck(settings) => healthcheck(&settings),
        Command::Doctor(settings) => examine(&settings),
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
    match health::check(&settings.heartbeat_file, settings.ready, Duration::from_secs(settings.stalled)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}
