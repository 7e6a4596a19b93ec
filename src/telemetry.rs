//! Log format and the filter floor.
//!
//! Guarantees: no setting can make a library log what it carries. kube's client logs whole response bodies when one does not
//! parse, and HTTP/2 logs header values at trace: the first is off, all other libraries stop at debug.

use crate::config::LogFormat;
use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Starts logging to standard error. A filter that cannot be read falls back to `info` and says so.
pub fn start(filter: &str, format: LogFormat) {
    let (env_filter, broken) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, false),
        Err(_) => (EnvFilter::new("info"), true),
    };
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let floor = filter_fn(|meta| may_log(meta.target(), *meta.level()));
    let ansi = std::io::stderr().is_terminal();
    let lines = if json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed()
    } else {
        fmt::layer().with_target(false).with_ansi(ansi).with_writer(std::io::stderr).boxed()
    };
    // Fails only if a subscriber is installed already, as in tests: then that one stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(floor)).with(env_filter).try_init();
    if broken {
        tracing::warn!(filter, "ENNOTE_LOG is not a log filter; using info. An example: ennote_agent=debug,info");
    }
}

/// The floor: what may be logged at all, whatever the filter says.
fn may_log(target: &str, level: Level) -> bool {
    let own = target == "ennote_agent" || target.starts_with("ennote_agent::");
    let carries_bodies = target.starts_with("kube_client::client");
    own || (!carries_bodies && level <= Level::DEBUG) || (carries_bodies && level == Level::ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_lets_a_library_log_what_it_carries() {
        for (target, level, ok) in [
            ("ennote_agent::cloud::stream", Level::TRACE, true),
            ("kube_client::client", Level::WARN, false),
            ("kube_client::client::builder", Level::DEBUG, false),
            ("kube_client::client", Level::ERROR, true),
            ("h2::codec", Level::TRACE, false),
            ("h2::codec", Level::DEBUG, true),
            ("rustls", Level::TRACE, false),
            ("ennote_agentx", Level::TRACE, false),
        ] {
            assert_eq!(may_log(target, level), ok, "{target} {level}");
        }
    }
}
