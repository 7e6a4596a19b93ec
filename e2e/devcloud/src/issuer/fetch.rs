//! One GET: https, from a public address, without redirects, of at most 64 KiB, within five seconds.

use super::is_public;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const MAX_BYTES: usize = 64 * 1024;
const LIMIT: Duration = Duration::from_secs(5);

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum FetchError {
    #[error("it is not an https URL with a host")]
    Url,
    #[error("its name does not resolve")]
    Name,
    #[error("{0} is not a public address")]
    NotPublic(std::net::IpAddr),
    #[error("it took longer than five seconds")]
    Slow,
    #[error("the connection failed")]
    Connection,
    #[error("it answered {0}; redirects are not followed")]
    Status(u16),
    #[error("the answer has more than 64 KiB, or broke off")]
    Body,
    #[error("the CA file cannot be used")]
    Ca,
}

/// An answer.
pub struct Fetched {
    /// Its bytes.
    pub body: Vec<u8>,
    /// `max-age` of `Cache-Control`, if it says so; `no-store` and `no-cache` are zero.
    pub max_age: Option<Duration>,
}

/// One host that is dialled at an address of its own and verified by a CA of its own: for tests.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// `HOST` or `HOST:PORT`.
    pub authority: String,
    /// Where it is.
    pub address: SocketAddr,
    /// PEM.
    pub ca: PathBuf,
}

/// Fetches.
#[derive(Clone, Debug, Default)]
pub struct Fetcher {
    /// The one exception.
    pub pinned: Option<Pinned>,
}

impl Fetcher {
    /// Gets a URL.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        timeout(LIMIT, self.get_now(url)).await.map_err(|_| FetchError::Slow)?
    }

    async fn get_now(&self, url: &str) -> Result<Fetched, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or(FetchError::Url)?;
        if authority.as_str().contains('@') {
            return Err(FetchError::Url);
        }
        let host = authority.host().trim_matches(['[', ']']);
        let pinned = self.pinned.as_ref().filter(|pinned| pinned.authority == authority.as_str());
        let (address, roots) = match pinned {
            Some(pinned) => {
                let mut roots = RootCertStore::empty();
                let ca = CertificateDer::from_pem_file(&pinned.ca).map_err(|_| FetchError::Ca)?;
                roots.add(ca).map_err(|_| FetchError::Ca)?;
                (pinned.address, roots)
            }
            None => {
                let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                (public_address(host, authority.port_u16().unwrap_or(443)).await?, roots)
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|_| FetchError::Connection)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
        let tcp = TcpStream::connect(address).await.map_err(|_| FetchError::Connection)?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|_| FetchError::Connection)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|_| FetchError::Connection)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path).header(HOST, authority.as_str()).body(Empty::<Bytes>::new());
        let request = request.map_err(|_| FetchError::Url)?;
        // The connection is driven here and goes with this call.
        let exchange = async move {
            let answer = sender.send_request(request).await.map_err(|_| FetchError::Connection)?;
            if answer.status() != hyper::StatusCode::OK {
                return Err(FetchError::Status(answer.status().as_u16()));
            }
            let max_age = answer.headers().get(CACHE_CONTROL).and_then(|value| value.to_str().ok()).and_then(max_age);
            let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|_| FetchError::Body)?;
            Ok(Fetched { body: body.to_bytes().to_vec(), max_age })
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            done = &mut exchange => done,
            // Closed by the peer: what has come is in the exchange's hands already.
            _ = &mut connection => exchange.await,
        }
    }
}

/// Resolves once and dials what was judged: a name that changes its mind in between gains nothing.
async fn public_address(host: &str, port: u16) -> Result<SocketAddr, FetchError> {
    if is_inner(host) {
        return Err(FetchError::Name);
    }
    let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(|_| FetchError::Name)?.collect();
    if let Some(private) = found.iter().find(|address| !is_public(address.ip())) {
        return Err(FetchError::NotPublic(private.ip()));
    }
    found.first().copied().ok_or(FetchError::Name)
}

/// Names that no public server has, as most clusters' issuers: nobody is asked for them.
fn is_inner(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let inner = ["local", "localhost", "svc", "internal", "test", "invalid", "lan", "home", "corp", "arpa"];
    let address = host.parse::<std::net::IpAddr>().is_ok();
    !address && host.rsplit_once('.').is_none_or(|(_, last)| inner.contains(&last))
}

/// RFC 9111 section 5.2.2.
fn max_age(value: &str) -> Option<Duration> {
    let mut directives = value.split(',').map(str::trim);
    directives.find_map(|directive| match directive.split_once('=') {
        None if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") => {
            Some(Duration::ZERO)
        }
        Some((name, seconds)) if name.eq_ignore_ascii_case("max-age") => {
            seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_is_read() {
        for (value, seconds) in [
            ("max-age=300", Some(300)),
            ("public, Max-Age=\"60\", immutable", Some(60)),
            ("no-store, max-age=300", Some(0)),
            ("private", None),
            ("max-age=x", None),
        ] {
            assert_eq!(max_age(value), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn names_of_inside_are_not_resolved() {
        for inner in
            ["kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "localhost", "x.internal.", "db"]
        {
            assert!(is_inner(inner), "{inner}");
        }
        for outer in ["oidc.eks.eu-west-1.amazonaws.com", "issuer.example", "1.1.1.1", "2606:4700::1111"] {
            assert!(!is_inner(outer), "{outer}");
        }
    }

    #[tokio::test]
    async fn nothing_but_https_to_public_addresses_is_fetched() {
        let refused = async |url: &str| Fetcher::default().get(url).await.err().unwrap();
        for url in ["http://1.1.1.1/", "https://", "ftp://x/", "https://user@1.1.1.1/", "/x", ""] {
            assert!(matches!(refused(url).await, FetchError::Url), "{url}");
        }
        for url in ["https://127.0.0.1/", "https://[::1]:6443/", "https://169.254.169.254/", "https://10.0.0.1/"] {
            assert!(matches!(refused(url).await, FetchError::NotPublic(_)), "{url}");
        }
    }
}
