//! A gRPC channel to a cloud as a client of our own has it: TLS 1.3, ALPN h2, one CA.

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// A channel to `host:port`, which connects when it is first used and again whenever it has to.
///
/// # Errors
/// When the CA is no certificate or the address cannot be dialled.
pub fn dial(address: &str, ca_pem: &str) -> Result<Channel> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let (host, _) = address.rsplit_once(':').context("an address is host:port")?;
    let name = ServerName::try_from(host.to_owned())?;
    let address = address.to_owned();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.origin(format!("https://{address}").parse()?);
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_| {
        let (address, name, connector) = (address.clone(), name.clone(), connector.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    })))
}
