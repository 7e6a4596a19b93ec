//! Our own certificate authority, and TLS 1.3 with ALPN `h2` and nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, version};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const SERVER_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
const LOOPBACK: [&str; 3] = ["127.0.0.1", "::1", "localhost"];

/// The authority of an installation. Server certificates are made from it in memory and never written.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    names: Vec<String>,
}

impl CertificateAuthority {
    /// Makes one for these names beside the loopback ones.
    ///
    /// # Errors
    /// A name that a certificate cannot hold.
    pub fn generate(organization: &str, names: &[String]) -> Result<Self, String> {
        let key = KeyPair::generate().map_err(text)?;
        let params = authority(organization)?;
        let certificate = params.self_signed(&key).map_err(text)?.pem();
        let made = Self { issuer: Issuer::new(params, key), certificate, names: names.to_vec() };
        made.server_params().map(|_| made)
    }

    /// The one that [`CertificateAuthority::generate`] made.
    ///
    /// # Errors
    /// A key that is not one.
    pub fn load(organization: &str, names: &[String], key: &str, certificate: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(text)?;
        let issuer = Issuer::new(authority(organization)?, key);
        Ok(Self { issuer, certificate: certificate.to_owned(), names: names.to_vec() })
    }

    /// PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// PKCS#8 PEM. Secret.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What the server accepts connections with: a fresh certificate, TLS 1.3, `h2`.
    ///
    /// # Errors
    /// What rcgen or rustls say.
    pub fn server_config(&self) -> Result<ServerConfig, String> {
        let key = KeyPair::generate().map_err(text)?;
        let certificate = self.server_params()?.signed_by(&key, &self.issuer).map_err(text)?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(text)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(text)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn server_params(&self) -> Result<CertificateParams, String> {
        let names: Vec<String> = LOOPBACK.iter().map(|n| (*n).to_owned()).chain(self.names.iter().cloned()).collect();
        let mut params = CertificateParams::new(names).map_err(text)?;
        params.distinguished_name.push(DnType::CommonName, "ennote-devcloud");
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + SERVER_LIFE).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// The same name and key identifiers each time, so that a loaded authority is the one in `ca.crt`.
fn authority(organization: &str) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(text)?;
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, "ennote-devcloud CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + CA_LIFE).into();
    Ok(params)
}

/// The server's configuration, made anew when half of its certificate's life is over.
pub struct ServerTls {
    authority: CertificateAuthority,
    current: Mutex<(Arc<ServerConfig>, SystemTime)>,
}

impl ServerTls {
    /// With a first certificate.
    ///
    /// # Errors
    /// What rcgen or rustls say.
    pub fn new(authority: CertificateAuthority) -> Result<Self, String> {
        let config = Arc::new(authority.server_config()?);
        Ok(Self { authority, current: Mutex::new((config, SystemTime::now() + SERVER_LIFE / 2)) })
    }

    /// For a connection accepted now.
    pub fn config(&self, now: SystemTime) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.1 {
            match self.authority.server_config() {
                Ok(config) => *current = (Arc::new(config), now + SERVER_LIFE / 2),
                Err(error) => tracing::error!(error, "cannot make a new server certificate"),
            }
        }
        current.0.clone()
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_being_stored_and_a_bad_name_is_refused() {
        let made = CertificateAuthority::generate("org", &["cloud.example".into()]).unwrap();
        let loaded =
            CertificateAuthority::load("org", &["cloud.example".into()], &made.key(), made.certificate()).unwrap();
        assert_eq!(loaded.certificate(), made.certificate());
        assert_eq!(loaded.server_config().unwrap().alpn_protocols, [b"h2".to_vec()]);
        assert!(CertificateAuthority::generate("org", &["not a name\u{fc}".into()]).is_err());
    }

    #[test]
    fn a_certificate_is_made_anew_at_half_its_life() {
        let tls = ServerTls::new(CertificateAuthority::generate("org", &[]).unwrap()).unwrap();
        let now = SystemTime::now();
        let first = tls.config(now);
        assert!(Arc::ptr_eq(&first, &tls.config(now)));
        assert!(!Arc::ptr_eq(&first, &tls.config(now + SERVER_LIFE / 2 + DAY)));
    }
}
