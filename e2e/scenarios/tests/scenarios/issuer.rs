//! A public issuer of ServiceAccount tokens: what it says of itself is the API server's own word, served to anyone.

use anyhow::{Context, Result};
use ennote_devcloud::tls::CertificateAuthority;
use ennote_harness::control_plane::ControlPlane;
use kube::Client;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Its name. Nobody resolves it: the cloud is told the address.
pub(crate) const HOST: &str = "issuer.test";

/// Arguments of an API server whose tokens it issues.
pub(crate) fn api_server_args() -> Vec<String> {
    let argument = |name: &str, path: &str| format!("--service-account-{name}=https://{HOST}{path}");
    vec![argument("issuer", ""), argument("jwks-uri", "/openid/v1/jwks")]
}

/// Serves until the test's runtime ends.
pub(crate) struct Issuer {
    address: SocketAddr,
    ca: PathBuf,
}

impl Issuer {
    /// Speaks for the API server of this control plane; keeps its CA's certificate in that one's folder.
    pub(crate) async fn start(plane: &ControlPlane) -> Result<Self> {
        let authority = CertificateAuthority::generate(HOST, &[HOST.to_owned()]).map_err(anyhow::Error::msg)?;
        let ca = plane.dir().join("issuer.crt");
        std::fs::write(&ca, authority.certificate())?;
        let config = authority.server_config().map_err(anyhow::Error::msg)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let client = plane.client().await?;
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                // Whoever breaks off has to ask again.
                let _answered = answer(&acceptor, tcp, &client).await;
            }
        });
        Ok(Self { address, ca })
    }

    /// Arguments of a cloud that finds it.
    pub(crate) fn cloud_args(&self) -> [String; 2] {
        let shown = |ca: &Path| ca.display().to_string();
        [format!("--test-issuer={HOST}={}", self.address), format!("--test-issuer-ca={}", shown(&self.ca))]
    }
}

async fn answer(acceptor: &TlsAcceptor, tcp: TcpStream, client: &Client) -> Result<()> {
    let mut stream = BufReader::new(acceptor.accept(tcp).await?);
    let (mut head, mut line) = (String::new(), String::new());
    while stream.read_line(&mut line).await? > 2 {
        head.push_str(&line);
        line.clear();
    }
    let path = head.split(' ').nth(1).context("no path")?;
    let request = http::Request::get(path).body(Vec::new())?;
    let body = client.request_text(request).await?;
    let length = body.len();
    let said = format!(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=0\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(said.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
