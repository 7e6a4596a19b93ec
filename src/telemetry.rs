//! Log format and the filter floor.
//!
//! Guarantees: no setting can make a library log what it carries. kube's client logs whole response bodies when one does not
//! parse, and HTTP/2 logs header values at trace: the first is off, all other libraries stop at debug.

use crate::config::LogFormat;
use std::io::IsTerminal;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
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
    // Fails only if a subscriber is installed already, as in tests: then that one stays.
    let _ = subscriber(env_filter, json, std::io::stderr().is_terminal(), std::io::stderr).try_init();
    if broken {
        tracing::warn!(filter, "ENNOTE_LOG is not a log filter; using info. An example: ennote_agent=debug,info");
    }
}

/// Lines for `writer` of what the filter asks for and the floor allows.
fn subscriber<W>(filter: EnvFilter, json: bool, ansi: bool, writer: W) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let floor = filter_fn(|meta| may_log(meta.target(), *meta.level()));
    let lines = if json {
        let lines = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
        lines.with_writer(writer).boxed()
    } else {
        fmt::layer().with_target(false).with_ansi(ansi).with_writer(writer).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(floor)).with(filter)
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
    use std::io;
    use std::sync::{Arc, Mutex};

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

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// As libraries log: kube's client a body that does not parse, HTTP/2 a header, with spans around them.
    fn chatter() {
        let _request = tracing::info_span!(target: "kube_client::client", "HTTP", body = "canary").entered();
        tracing::warn!(target: "kube_client::client", "canary, Error {}", "canary");
        tracing::trace!(target: "h2::hpack", value = "canary");
        tracing::trace!(target: "hyper::proto::h1::io", "canary");
        tracing::trace!(target: "tonic::codec", "canary");
        tracing::debug!(target: "rustls::client", "a handshake");
        tracing::trace!(target: "ennote_agent::cloud::stream", "our own");
    }

    #[test]
    fn the_floor_holds_whatever_a_filter_asks_for() {
        for filter in [
            "trace",
            "kube_client=trace,h2=trace,hyper=trace,tonic=trace,rustls=trace,ennote_agent=trace",
            "kube_client::client=warn,h2::hpack[{value}]=trace,trace",
            "[HTTP]=trace,trace",
        ] {
            for json in [true, false] {
                let lines = Lines::default();
                let writer = lines.clone();
                let subscriber = subscriber(EnvFilter::new(filter), json, false, move || writer.clone());
                tracing::subscriber::with_default(subscriber, chatter);
                let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
                assert!(!text.contains("canary"), "{filter}: {text}");
                assert!(text.contains("a handshake") && text.contains("our own"), "{filter}: {text}");
            }
        }
    }
}
