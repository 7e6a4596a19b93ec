//! `make node`: what only a real pod can prove, on one real node that all of it shares.
//!
//! Where the machine cannot run a node, every scenario is reported as ignored, with the reason; on CI as root on Linux that is a
//! failure. It has a main of its own for that, and so that the node is ended when the last scenario has ended.

mod confinement;
mod probes;
mod releases;
mod tokens;
mod workloads;

use anyhow::{Result, anyhow};
use ennote_harness::node::{Binaries, why_not};
use ennote_harness::settings::Settings;
use ennote_scenarios::real_node::Place;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};

/// How many run at a time: each is an agent, a cloud and its pods.
const AT_ONCE: usize = 4;

type Scenario = (&'static str, fn(&Place) -> Result<()>);

macro_rules! scenarios {
    ($($file:ident :: $name:ident,)*) => { &[$((stringify!($name), |place| runtime()?.block_on($file::$name(place)))),*] };
}

/// The slowest first.
const SCENARIOS: &[Scenario] = scenarios![
    probes::a_stopped_agent_is_restarted_by_its_liveness_probe,
    tokens::the_kubelet_renews_the_tokens_and_the_agent_goes_on_with_the_new_ones,
    workloads::real_workloads_restart_and_read_the_new_value,
    releases::rollout_restart_and_helm_upgrade_wait_for_the_agent,
    probes::the_agent_is_ready_only_after_the_first_snapshot,
    confinement::hardened_pod_the_chart_runs_under_restricted,
    probes::an_agent_without_memory_is_killed_and_comes_back_by_itself,
    probes::a_killed_agent_comes_back_by_itself,
    releases::a_rescheduled_pod_comes_back_though_its_token_is_spent,
];

fn main() -> ExitCode {
    let begun = Instant::now();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let picked: Vec<Scenario> = SCENARIOS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
        .copied()
        .collect();
    if std::env::args().any(|arg| arg == "--list") {
        for (name, _) in &picked {
            say(&format!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    say(&format!("\nrunning {} tests", picked.len()));
    let (mut passed, mut failed, mut ignored) = (0, Vec::new(), 0);
    match able().map(|()| picked.is_empty()) {
        Err(why) if must() => failed.push(("the real node".to_owned(), anyhow::Error::msg(why))),
        Err(why) => {
            ignored = picked.len();
            for (name, _) in &picked {
                say(&format!("test {name} ... ignored, {why}"));
            }
        }
        Ok(true) => {}
        Ok(false) => match run(&picked) {
            Ok(results) => {
                for (name, result) in results {
                    match result {
                        Ok(()) => passed += 1,
                        Err(error) => failed.push((name.to_owned(), error)),
                    }
                }
            }
            Err(error) => failed.push(("the real node".to_owned(), error)),
        },
    }
    for (name, error) in &failed {
        say(&format!("\n---- {name} ----\n{error:#}"));
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        failed.len(),
        SCENARIOS.len() - picked.len(),
        begun.elapsed().as_secs_f32()
    ));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs them on a node that ends with the last of them.
fn run(picked: &[Scenario]) -> Result<Vec<(&'static str, Result<()>)>> {
    let binaries = Binaries::build(&Settings::from_env()?)?;
    let runtime = runtime()?;
    let begun = Instant::now();
    let place = runtime.block_on(Place::start(&binaries))?;
    say(&format!("the node is Ready after {:.1} s", begun.elapsed().as_secs_f32()));
    let (next, results) = (Mutex::new(picked.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, scenario)) = take(&next) {
                    let begun = Instant::now();
                    // A thread of its own: a panic is a failed scenario, and no more.
                    let result =
                        scope.spawn(|| scenario(&place)).join().unwrap_or_else(|_| Err(anyhow!("it panicked")));
                    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
                    say(&format!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f32()));
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((*name, result));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    if results.iter().any(|(_, result)| result.is_err()) {
        place.plane.dir().keep();
        say(&format!("logs of the node: {}", place.plane.dir().join("node").display()));
    }
    runtime.block_on(place.stop())?;
    Ok(results)
}

fn take<'a>(next: &Mutex<std::slice::Iter<'a, Scenario>>) -> Option<&'a Scenario> {
    next.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn able() -> Result<(), String> {
    let Some(why) = why_not() else { return Ok(()) };
    if let (true, Some((_, packages))) = (must(), why.split_once("apt-get install ")) {
        // A fresh machine of CI: nobody is there to do it.
        let script = format!("apt-get update -q && apt-get install -y -q --no-install-recommends {packages}");
        let installed = Command::new("sh").args(["-c", &script]).status();
        if installed.is_ok_and(|status| status.success()) {
            return why_not().map_or(Ok(()), Err);
        }
    }
    Err(why)
}

/// On CI a node that does not run must not pass for one that does. Without root there is nothing to be had.
fn must() -> bool {
    cfg!(target_os = "linux")
        && rustix::process::getuid().is_root()
        && std::env::var_os("CI").is_some_and(|value| value == "true")
}

fn say(text: &str) {
    // A reader that has gone away has what it wanted.
    let _ = writeln!(std::io::stdout(), "{text}");
}
