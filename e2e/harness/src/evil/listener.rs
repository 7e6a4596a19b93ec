//! Connections of agents: accepted, ended in TLS, served, and cut on command.

use super::relay::{Relay, Shared};
use ennote_devcloud::wire::identity_service_server::IdentityServiceServer;
use ennote_devcloud::wire::sync_service_server::SyncServiceServer;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

const MAX_FRAME: usize = 16 * 1024 * 1024;

/// What the connections are told: how often each was ordered so far.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Orders {
    cuts: u64,
    go_aways: u64,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    failed: Vec<String>,
}

pub(super) struct Listener {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    seen: Arc<Mutex<Seen>>,
    /// Dropping it ends everything.
    _tasks: JoinSet<()>,
}

impl Listener {
    pub(super) async fn start(tls: Arc<ServerConfig>, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (orders, _) = watch::channel(Orders::default());
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let mut tasks = JoinSet::new();
        let (told, heard, acceptor) = (orders.clone(), seen.clone(), TlsAcceptor::from(tls));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                        let (relay, seen) = (Relay(shared.clone()), heard.clone());
                        connections.spawn(serve(acceptor.clone(), tcp, relay, told.subscribe(), seen));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, orders, seen, _tasks: tasks })
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn connections(&self) -> usize {
        held(&self.seen).connections
    }

    pub(super) fn failed_handshakes(&self) -> Vec<String> {
        held(&self.seen).failed.clone()
    }

    pub(super) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    pub(super) fn go_away(&self) {
        self.orders.send_modify(|orders| orders.go_aways += 1);
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    relay: Relay,
    mut orders: watch::Receiver<Orders>,
    seen: Arc<Mutex<Seen>>,
) {
    let mut done = *orders.borrow_and_update();
    let tls = match acceptor.accept(tcp).await {
        Ok(tls) => tls,
        Err(error) => return held(&seen).failed.push(error.to_string()),
    };
    held(&seen).connections += 1;
    let identity = IdentityServiceServer::new(relay.clone()).max_decoding_message_size(MAX_FRAME);
    let sync = SyncServiceServer::new(relay).max_decoding_message_size(MAX_FRAME).max_encoding_message_size(MAX_FRAME);
    let service = TowerToHyperService::new(Routes::new(identity).add_service(sync).prepare());
    let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(tls), service));
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            changed = orders.changed() => {
                let now = *orders.borrow_and_update();
                // Dropping the connection closes its socket, whatever is in the middle of it.
                if changed.is_err() || now.cuts != done.cuts {
                    return;
                }
                if now.go_aways != done.go_aways {
                    connection.as_mut().graceful_shutdown();
                }
                done = now;
            }
        }
    }
}

fn held(mutex: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
