//! The connection: TLS 1.3 with ALPN h2, or plaintext to a loopback address when asked.
//!
//! tonic's own TLS settings cannot refuse TLS 1.2, so the connector is ours.

use crate::config::Address;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
pub use tonic::transport::Channel;
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;

/// Why there can be no connection at all.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Plaintext was asked for to somewhere else.
    #[error("--allow-plaintext is only for a loopback address, and {0} is none; leave it out to speak TLS 1.3")]
    PlaintextBeyondLoopback(String),
    /// The CA file.
    #[error("the CA file {path} cannot be used: {text}")]
    CaFile {
        /// As given.
        path: String,
        /// Why.
        text: String,
    },
    /// The address.
    #[error("{0} cannot be dialled")]
    Address(String),
    /// TLS.
    #[error("TLS could not be set up")]
    Tls(#[from] rustls::Error),
}

/// Whether a call failed because nobody whom the agent trusts vouches for the certificate it was shown.
pub fn distrusts(failure: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(failure), |&error| error.source()).any(|error| {
        // The source of an io::Error is that of the error inside it, not that error.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).or_else(|| error.downcast_ref());
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    })
}

/// Makes a channel that connects when it is first used.
///
/// # Errors
/// [`ChannelError`]: a setting is wrong.
pub fn connect(address: &Address, ca_file: Option<&Path>, plaintext: bool) -> Result<Channel, ChannelError> {
    let wrong = || ChannelError::Address(address.authority());
    let scheme = if plaintext { "http" } else { "https" };
    let origin: Uri = format!("{scheme}://{}", address.authority()).parse().map_err(|_| wrong())?;
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority()))
        .map_err(|_| wrong())?
        .origin(origin)
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(15))
        .keep_alive_while_idle(true);
    let (host, port) = (address.host.clone(), address.port);
    if plaintext {
        if !address.is_loopback() {
            return Err(ChannelError::PlaintextBeyondLoopback(address.authority()));
        }
        return Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let host = host.clone();
            async move {
                let tcp = dial(&host, port).await?;
                // The name might resolve to anything.
                if !tcp.peer_addr()?.ip().is_loopback() {
                    return Err(io::Error::other("plaintext is only spoken to a loopback address"));
                }
                Ok(TokioIo::new(tcp))
            }
        })));
    }
    let connector = TlsConnector::from(Arc::new(tls(ca_file)?));
    let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (host, name, connector) = (host.clone(), name.clone(), connector.clone());
        async move {
            let tcp = dial(&host, port).await?;
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    })))
}

/// Dials and shakes hands once, and closes again. Nothing is said.
///
/// # Errors
/// What came between.
pub async fn reach(address: &Address, ca_file: Option<&Path>, plaintext: bool) -> io::Result<()> {
    let handshake = async {
        let tcp = dial(&address.host, address.port).await?;
        if plaintext {
            return Ok(());
        }
        let connector = TlsConnector::from(Arc::new(tls(ca_file).map_err(io::Error::other)?));
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        connector.connect(name, tcp).await.map(drop)
    };
    tokio::time::timeout(Duration::from_secs(10), handshake)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, ChannelError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let refused = |text: String| ChannelError::CaFile { path: path.display().to_string(), text };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| refused(e.to_string()))?;
        let before = roots.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|e| refused(e.to_string()))?;
            roots.add(certificate).map_err(|e| refused(e.to_string()))?;
        }
        if roots.len() == before {
            return Err(refused("it holds no certificate in PEM form".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_refused_beyond_loopback() {
        let refused = connect(&"api.ennote.io:443".parse().unwrap(), None, true).err();
        assert!(matches!(refused, Some(ChannelError::PlaintextBeyondLoopback(_))));
    }

    #[test]
    fn a_distrusted_certificate_is_told_from_other_failures() {
        let tls = |error: rustls::Error| tonic::Status::from_error(Box::new(io::Error::other(error)));
        assert!(distrusts(&tls(rustls::CertificateError::UnknownIssuer.into())));
        assert!(!distrusts(&tls(rustls::Error::HandshakeNotComplete)));
        assert!(!distrusts(&tonic::Status::unavailable("")));
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_named() {
        let text = tls(Some(Path::new("/dev/null"))).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("/dev/null") && text.contains("no certificate"), "{text}");
    }
}
