//! `serve`: open, listen, wait for a signal, end in a second or two.

use super::args::{Format, Serve};
use super::run::Ended;
use crate::admin::{SOCKET, Socket};
use crate::cloud::{Server, Transport};
use crate::core::Core;
use data_encoding::BASE64URL_NOPAD;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs until SIGTERM or SIGINT.
pub(super) async fn serve(directory: &Path, args: Serve, format: Format) -> Result<(), Ended> {
    start_logging(&args.log)?;
    let (mut terminate, mut interrupt) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    crate::clock::set_wrong_by(args.clock_offset);
    let lives = args.lives.checked().map_err(Ended::of)?;
    // What an earlier process left there is not where this one listens.
    if let Some(file) = &args.address_file {
        remove(file)?;
    }
    let opened = Core::open_with(directory, lives, args.suites.clone(), &args.attesting).await;
    let core = opened.map_err(Ended::of)?;
    if args.allow_faults {
        if !args.listen.ip().is_loopback() {
            let text = format!("faults are sent on loopback addresses only, and {} is none", args.listen);
            return Err(Ended(format!("{text}; leave --allow-faults out")));
        }
        tracing::warn!("this cloud breaks what it sends when it is told to: for tests of agents");
        core.faults.allow(&args.fault);
    }
    core.refresh_keyset().await.map_err(Ended::of)?;
    let path = directory.join(SOCKET);
    let socket = Socket::listen(core.clone(), directory).map_err(|source| Ended::file(&path, &source))?;
    let transport = if args.plaintext { Transport::Plaintext } else { Transport::Tls };
    let server = Server::start(core.clone(), args.listen, transport).await.map_err(Ended::of)?;
    let address = server.address();
    if let Some(file) = &args.address_file {
        write_address(file, &address.to_string())?;
    }
    let root = BASE64URL_NOPAD.encode(&core.root_hash());
    announce(format, directory, &address.to_string(), &root, transport);
    tracing::info!(%address, ?transport, organization = core.organization(), "serving");
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    tracing::info!("stopping");
    let stopped = async {
        server.stop().await;
        drop(socket);
    };
    tokio::select! {
        () = stopped => (),
        _ = interrupt.recv() => tracing::warn!("stopped at once, on the second Ctrl-C"),
    }
    args.address_file.as_deref().map_or(Ok(()), remove)
}

fn start_logging(filter: &str) -> Result<(), Ended> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| Ended(format!("--log {filter:?} is not a filter: {error}")))?;
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(io::stderr).try_init();
    started.map_err(|error| Ended(format!("cannot log: {error}")))
}

fn caught(kind: SignalKind) -> Result<Signal, Ended> {
    signal(kind).map_err(|error| Ended(format!("cannot catch signals: {error}")))
}

fn announce(format: Format, directory: &Path, address: &str, root: &str, transport: Transport) {
    let (data, ca) = (directory.display(), directory.join("ca.crt"));
    let text = match (format, transport) {
        (Format::Json, _) => serde_json::json!({"address": address, "root": root, "ca": ca}).to_string(),
        (Format::Table, Transport::Tls) => format!(
            "ennote-devcloud serves on {address} (TLS 1.3; CA {})\ntrust root {root}\nnext: ennote-devcloud --data {data} token create --agent NAME --namespace NAMESPACE",
            ca.display()
        ),
        (Format::Table, Transport::Plaintext) => {
            format!("ennote-devcloud serves on {address} in PLAINTEXT\ntrust root {root}")
        }
    };
    // Nobody may be reading.
    let _unread = writeln!(io::stdout(), "{text}");
}

/// The file appears whole or not at all.
fn write_address(file: &Path, address: &str) -> Result<(), Ended> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    fs::write(&unfinished, format!("{address}\n"))
        .and_then(|()| fs::rename(&unfinished, file))
        .map_err(|source| Ended::file(file, &source))
}

fn remove(file: &Path) -> Result<(), Ended> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Ended::file(file, &error)),
        _ => Ok(()),
    }
}
