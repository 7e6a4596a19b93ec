//! `make bench`: the agent against a bare client on the same API server, in the same run.
//!
//! A figure in milliseconds says more about this machine than about the agent; the ratio to a bare client that does nothing
//! but PATCH and watch is what can be compared.

mod bare;
mod eyes;
mod report;
mod subject;

use anyhow::Result;
use clap::Parser;
use ennote_harness::world::{Options, World};
use report::Report;
use std::io::Write;
use std::path::PathBuf;

/// Figures of the agent as ratios to a bare client.
#[derive(Parser)]
struct Settings {
    /// Changes measured one at a time.
    #[arg(long, default_value_t = 300)]
    samples: usize,
    /// Bindings of the burst and of the memory figures.
    #[arg(long, default_value_t = 1000)]
    bindings: usize,
    /// Writes in flight, of the bare client; the agent has a window of as many.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Also write all figures to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let settings = Settings::parse();
    let mut report = Report::default();
    progress("starting control plane, cloud, chart and agent");
    let mut world = World::start("bench", Options::default()).await?;
    report.binary(&ennote_harness::settings::Settings::from_env()?.binary("ennote-agent")?)?;

    progress("one change at a time: bare client");
    let bare = bare::one_at_a_time(&world, settings.samples).await?;
    progress("one change at a time: agent");
    let subject = subject::Subject::new(&world).await?;
    report.memory("resident, no bindings", world.agent.resident_bytes()?);
    let agent = subject.one_at_a_time(&world, settings.samples).await?;
    report.latency(&bare, &agent);

    progress(&format!("burst of {} changes: bare client", settings.bindings));
    let bare = bare::burst(&world, settings.bindings, settings.concurrency).await?;
    let both = bare::burst_of_both(&world, settings.bindings, settings.concurrency).await?;
    progress(&format!("making {} bindings", settings.bindings));
    subject.make(&world, settings.bindings).await?;
    report.memory(&format!("resident, {} bindings", settings.bindings), world.agent.resident_bytes()?);
    progress(&format!("burst of {} changes: agent", settings.bindings));
    let agent = subject.burst(&world, settings.bindings).await?;
    report.burst(&bare, &both, &agent, settings.bindings);
    report.memory("resident, after the burst", world.agent.resident_bytes()?);

    progress("restart with nothing changed");
    let restart = subject::restart(&mut world).await?;
    report.restart(&restart, settings.bindings);
    world.stop().await?;
    if let Some(file) = &settings.json {
        std::fs::write(file, report.json()?)?;
    }
    // A closed pipe is the reader's choice.
    let _ = std::io::stdout().write_all(report.table().as_bytes());
    Ok(())
}

fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}
