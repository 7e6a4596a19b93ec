//! Listening, and stopping within a second or two.

use super::accept::accept;
use super::cli_v1;
use super::identity::Identity;
use super::sync::Sync;
use crate::core::Core;
use crate::tls::ServerTls;
use crate::wire::identity_service_server::IdentityServiceServer;
use crate::wire::sync_service_server::SyncServiceServer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

/// PROTOCOL.md, "Bytes": frames of agents, and frames with a `Have`.
const MAX_INBOUND: usize = 256 * 1024;
const MAX_OUTBOUND: usize = 1024 * 1024 + 16 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Streams are told to drain first, and end by themselves a second later.
const STOPPING: Duration = Duration::from_millis(1500);

/// What connections speak below HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS 1.3.
    Tls,
    /// Nothing, on a loopback address.
    Plaintext,
}

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum ListenError {
    #[error("plaintext is spoken on loopback addresses only, and {0} is none; leave --plaintext out")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {address}: {source}; choose another --listen")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("cannot make the server's certificate: {0}")]
    Certificate(String),
}

/// A listening server. It ends with [`Server::stop`].
pub struct Server {
    address: SocketAddr,
    core: Arc<Core>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    /// Listens; agents are served when this returns.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn start(core: Arc<Core>, listen: SocketAddr, transport: Transport) -> Result<Self, ListenError> {
        if transport == Transport::Plaintext && !listen.ip().is_loopback() {
            return Err(ListenError::NotLoopback(listen));
        }
        let tls = match transport {
            Transport::Plaintext => None,
            Transport::Tls => {
                let authority = core.authority().map_err(|error| ListenError::Certificate(error.to_string()))?;
                Some(Arc::new(ServerTls::new(authority).map_err(ListenError::Certificate)?))
            }
        };
        let bind = |source| ListenError::Bind { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let identity = IdentityServiceServer::new(Identity(core.clone())).max_decoding_message_size(MAX_INBOUND);
        let sync = SyncServiceServer::new(Sync(core.clone()))
            .max_decoding_message_size(MAX_INBOUND)
            .max_encoding_message_size(MAX_OUTBOUND);
        tokio::spawn(crate::issuer::watch(core.clone()));
        let connections = accept(listener, tls, core.hub.stopped());
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(identity)
            .add_service(sync)
            .add_service(cli_v1::service(core.clone()))
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), core.hub.stopped());
        Ok(Self { address, core, serving: tokio::spawn(serving) })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells streams to drain, waits a second or two for them, then ends what is left.
    pub async fn stop(mut self) {
        self.core.hub.stop();
        match timeout(STOPPING, &mut self.serving).await {
            Ok(Ok(Ok(()))) => (),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the server ended badly"),
            Ok(Err(error)) => tracing::error!(%error, "the server's task failed"),
            Err(_) => self.serving.abort(),
        }
    }
}
