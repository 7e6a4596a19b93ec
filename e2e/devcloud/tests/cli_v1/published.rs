//! The published command line client, written anew from PRODUCT.md (sections 4 to 6) and the published `.proto`: messages by
//! their field numbers, calls by their paths, the wire format by its tables. It shares no code with the server, generated code
//! included, so that both have to agree with the page and not with each other.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses its part")]

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use data_encoding::BASE64;
use hkdf::Hkdf;
use hyper_util::rt::TokioIo;
use ml_kem::{EncapsulationKey, MlKem1024};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use sha2::Sha256;
use std::sync::Arc;
use tokio::net::TcpStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetCliSecretRequest {
    #[prost(string, tag = "1")]
    pub session_public_key: String,
    #[prost(string, tag = "2")]
    pub secret_name: String,
    #[prost(int32, optional, tag = "3")]
    pub secret_version_number: Option<i32>,
    #[prost(string, tag = "4")]
    pub workspace_id: String,
    #[prost(string, tag = "5")]
    pub organization_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetCliSecretResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub encrypted_blob: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub session_wrapped_key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AddCliSecretRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub workspace_id: String,
    #[prost(string, tag = "3")]
    pub organization_id: String,
    #[prost(string, tag = "4")]
    pub kind: String,
    #[prost(string, tag = "5")]
    pub encrypted_blob: String,
    #[prost(string, optional, tag = "6")]
    pub notes: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub url: Option<String>,
    #[prost(string, repeated, tag = "8")]
    pub labels: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AddCliSecretResponse {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AddMultiCliSecretRequest {
    #[prost(message, repeated, tag = "1")]
    pub secrets: Vec<AddCliSecretRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AddMultiCliSecretResponse {
    #[prost(message, repeated, tag = "1")]
    pub secrets: Vec<AddCliSecretResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetCliCryptoConfigRequest {
    #[prost(string, tag = "1")]
    pub organization_id: String,
    #[prost(string, tag = "2")]
    pub workspace_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CryptoConfig {
    #[prost(string, tag = "1")]
    pub algorithm: String,
    #[prost(bytes = "vec", tag = "2")]
    pub public_key: Vec<u8>,
    #[prost(string, tag = "3")]
    pub key_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckCliShareDataRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// Connects as the client does: TLS 1.3, nothing older.
pub async fn connect(address: &str, ca_pem: &str) -> Channel {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let address = address.to_owned();
    let connect = move |_| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            let name = ServerName::try_from("127.0.0.1").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    };
    Endpoint::from_static("http://devcloud").connect_with_connector(tower::service_fn(connect)).await.unwrap()
}

/// A signed-in client.
#[derive(Clone)]
pub struct Published {
    pub channel: Channel,
    pub token: String,
    pub organization: String,
    pub workspace: String,
    /// Whether it sends the ids as metadata too, as it does since 1.2.0.
    pub repeats_ids: bool,
}

impl Published {
    pub async fn call<Q, A>(&self, method: &str, message: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(message);
        let mut set = |key: &'static str, value: &str| {
            request.metadata_mut().insert(key, MetadataValue::try_from(value).unwrap());
        };
        if !self.token.is_empty() {
            set("authorization", &format!("Bearer {}", self.token));
        }
        set("ennote-client-type", "cli");
        if self.repeats_ids {
            set("ennote-organization-id", &self.organization);
            set("ennote-workspace-id", &self.workspace);
        }
        let path = PathAndQuery::try_from(format!("/cli.v1.CliService/{method}")).unwrap();
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(4 << 20);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }

    pub async fn crypto_config(&self) -> Result<CryptoConfig, Status> {
        let ids = (self.organization.clone(), self.workspace.clone());
        self.call("GetCryptoConfig", GetCliCryptoConfigRequest { organization_id: ids.0, workspace_id: ids.1 }).await
    }

    /// The request that `secret create` sends.
    pub fn request(&self, config: &CryptoConfig, name: &str, kind: &str, payload: &str) -> AddCliSecretRequest {
        self.request_with(name, kind, &seal(config, payload.as_bytes(), &random(), &random()))
    }

    pub fn request_with(&self, name: &str, kind: &str, blob: &[u8]) -> AddCliSecretRequest {
        AddCliSecretRequest {
            name: name.to_owned(),
            workspace_id: self.workspace.clone(),
            organization_id: self.organization.clone(),
            kind: kind.to_owned(),
            encrypted_blob: BASE64.encode(blob),
            notes: None,
            url: None,
            labels: vec![],
        }
    }

    /// `secret create`.
    pub async fn create(&self, name: &str, kind: &str, payload: &str) -> Result<AddCliSecretResponse, Status> {
        let config = self.crypto_config().await?;
        self.add(self.request(&config, name, kind, payload)).await
    }

    pub async fn add(&self, request: AddCliSecretRequest) -> Result<AddCliSecretResponse, Status> {
        self.call("AddCliSecret", request).await
    }

    pub async fn import(&self, secrets: Vec<AddCliSecretRequest>) -> Result<AddMultiCliSecretResponse, Status> {
        self.call("AddMultiCliSecret", AddMultiCliSecretRequest { secrets }).await
    }

    pub async fn fetch(
        &self,
        name: &str,
        version: Option<i32>,
        session_public_key: &str,
    ) -> Result<GetCliSecretResponse, Status> {
        let request = GetCliSecretRequest {
            session_public_key: session_public_key.to_owned(),
            secret_name: name.to_owned(),
            secret_version_number: version,
            workspace_id: self.workspace.clone(),
            organization_id: self.organization.clone(),
        };
        self.call("GetSecretVersionData", request).await
    }

    /// `secret get NAME` and `secret get NAME@VERSION`.
    pub async fn get(&self, name: &str, version: Option<i32>) -> Result<String, Status> {
        let private = random();
        let answer = self.fetch(name, version, &session_public_key(&private)).await?;
        let opened = open(&private, &answer.session_wrapped_key, &answer.encrypted_blob).expect("it opens");
        Ok(String::from_utf8(opened).unwrap())
    }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).unwrap();
    out
}

/// `302a300506032b656e032100` and 32 bytes.
pub const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];

/// Standard base64 of the SubjectPublicKeyInfo of a session key.
pub fn session_public_key(private: &[u8; 32]) -> String {
    BASE64.encode(&[&SPKI_PREFIX[..], &x25519(*private, X25519_BASEPOINT_BYTES)].concat())
}

/// `encrypted_blob`, to the key of a crypto config, from the KEM's and the IV's randomness.
pub fn seal(config: &CryptoConfig, payload: &[u8], m: &[u8; 32], iv: &[u8; 12]) -> Vec<u8> {
    assert!(config.algorithm.to_uppercase().contains("ML-KEM"));
    let public = &config.public_key[config.public_key.len() - 1568..];
    let public = EncapsulationKey::<MlKem1024>::new(public.try_into().unwrap()).unwrap();
    let (encapsulated, dek) = public.encapsulate_deterministic(&(*m).into());
    let version = match config.key_version.as_str() {
        "" => "latest",
        given => given,
    };
    let mut aad = vec![2];
    aad.extend_from_slice(version.as_bytes());
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::try_from(dek.as_slice()).unwrap());
    let sealed = cipher.encrypt(&Nonce::from(*iv), Payload { msg: payload, aad: &aad }).unwrap();
    let mut blob = vec![2];
    blob.extend_from_slice(&(version.len() as u32).to_be_bytes());
    blob.extend_from_slice(version.as_bytes());
    blob.extend_from_slice(iv);
    blob.extend_from_slice(&encapsulated);
    blob.extend_from_slice(&sealed);
    blob
}

/// `session_wrapped_key` by the session key, then `encrypted_blob` by what that gives.
pub fn open(private: &[u8; 32], wrapped: &[u8], blob: &[u8]) -> Result<Vec<u8>, &'static str> {
    let dek = unwrap(private, wrapped)?;
    let (head, rest) = blob.split_at_checked(5).ok_or("short")?;
    let encapsulated = match head[0] {
        1 => 512,
        2 => 1568,
        _ => return Err("algorithm"),
    };
    let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
    if length > 64 {
        return Err("version length");
    }
    let (version, rest) = rest.split_at_checked(length).ok_or("short")?;
    let (iv, rest) = rest.split_at_checked(12).ok_or("short")?;
    let (_, sealed) = rest.split_at_checked(encapsulated).ok_or("short")?;
    gcm_open(&dek, iv, sealed, &[&head[..1], version].concat())
}

/// The DEK in a `session_wrapped_key`.
pub fn unwrap(private: &[u8; 32], wrapped: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (length, rest) = wrapped.split_at_checked(4).ok_or("short")?;
    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
    if !(1..=128).contains(&length) {
        return Err("SPKI length");
    }
    let (spki, rest) = rest.split_at_checked(length).ok_or("short")?;
    let (iv, sealed) = rest.split_at_checked(12).ok_or("short")?;
    let raw: [u8; 32] = spki.last_chunk().copied().ok_or("short")?;
    let shared = x25519(*private, raw);
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(&[0; 32]), &shared).expand(b"valid-session-key", &mut key).unwrap();
    gcm_open(&key, iv, sealed, b"")
}

fn gcm_open(key: &[u8], iv: &[u8], sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, &'static str> {
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::try_from(key).map_err(|_| "key length")?);
    let iv = Nonce::from(<[u8; 12]>::try_from(iv).unwrap());
    cipher.decrypt(&iv, Payload { msg: sealed, aad }).map_err(|_| "tag")
}
