//! A small agent of the tests' own: it joins, opens streams and speaks frames, over real TLS on loopback.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod cluster;
pub mod pod;

use ed25519_dalek::SigningKey;
use ennote_devcloud::cloud::{Server, Transport};
use ennote_devcloud::core::{Core, InitOptions, TokenRequest};
use ennote_devcloud::envelope;
use ennote_devcloud::settings::{Attesting, Lifetimes};
use ennote_devcloud::signed::{self, Label, hash};
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use hyper_util::rt::TokioIo;
use prost::Message;
use rand_core::{Rng, UnwrapErr};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_types::StatusExt;
use wire::identity_service_client::IdentityServiceClient;
use wire::sync_service_client::SyncServiceClient;

/// Long enough for a loaded machine; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    UnwrapErr(getrandom::SysRng).fill_bytes(&mut out);
    out
}

/// A cloud in this process, in a directory of its own.
pub struct Cloud {
    pub directory: tempfile::TempDir,
    pub core: Arc<Core>,
    pub server: Server,
}

impl Cloud {
    pub async fn start(lives: Lifetimes) -> Self {
        Self::attesting(lives, &Attesting::default()).await
    }

    /// A cloud that judges ServiceAccount tokens so.
    pub async fn attesting(lives: Lifetimes, attesting: &Attesting) -> Self {
        Self::made(lives, &Suite::ALL, attesting).await
    }

    /// A cloud that has these suites only.
    pub async fn start_with(lives: Lifetimes, suites: &[Suite]) -> Self {
        Self::made(lives, suites, &Attesting::default()).await
    }

    async fn made(lives: Lifetimes, suites: &[Suite], attesting: &Attesting) -> Self {
        // Closed to others under any umask.
        let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
        let options = InitOptions { organization: "acme".into(), workspace: "prod".into(), tls_names: vec![] };
        Core::init(directory.path(), &options).await.unwrap();
        Self::serve(directory, lives, suites, attesting).await
    }

    async fn serve(directory: tempfile::TempDir, lives: Lifetimes, suites: &[Suite], attesting: &Attesting) -> Self {
        let core = Core::open_with(directory.path(), lives, suites.to_vec(), attesting).await.unwrap();
        let server = Server::start(core.clone(), ([127, 0, 0, 1], 0).into(), Transport::Tls).await.unwrap();
        Self { directory, core, server }
    }

    /// Stops and starts on the same data.
    pub async fn restart(self, lives: Lifetimes) -> Self {
        let Self { directory, core, server } = self;
        server.stop().await;
        // The streams' tasks let go of the database when they have ended.
        let freed = async {
            while Arc::strong_count(&core) > 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, freed).await.unwrap();
        drop(core);
        Self::serve(directory, lives, &Suite::ALL, &Attesting::default()).await
    }

    pub async fn token(&self, agent: &str, namespaces: &[&str]) -> String {
        let namespaces = namespaces.iter().map(|n| (*n).to_owned()).collect();
        self.token_for(TokenRequest { agent: agent.to_owned(), namespaces, ..TokenRequest::default() }).await
    }

    pub async fn token_for(&self, request: TokenRequest) -> String {
        self.core.create_token(&request).await.unwrap().token.as_str().to_owned()
    }

    pub async fn put(&self, secret: &str, value: &str) -> u64 {
        let payload = format!(r#"{{"keysValues":{{"V":"{value}"}}}}"#);
        self.core.put_secret(None, secret, None, payload.into()).await.unwrap().version
    }

    pub async fn channel(&self) -> Channel {
        channel(self.server.address(), self.directory.path()).await
    }

    /// An agent of namespace `shop` that has joined.
    pub async fn agent(&self) -> Agent {
        let mut agent = Agent::new(self.channel().await);
        let token = self.token("shop-agent", &["shop"]).await;
        agent.join(&token).await.unwrap();
        agent
    }
}

/// A connection that verifies the server against `DIR/ca.crt`.
pub async fn channel(address: SocketAddr, directory: &Path) -> Channel {
    let connector = tls(directory, &[&rustls::version::TLS13]);
    let connect = move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::IpAddress(address.ip().into());
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    };
    let endpoint = Endpoint::from_static("http://devcloud");
    timeout(PATIENCE, endpoint.connect_with_connector(tower::service_fn(connect))).await.unwrap().unwrap()
}

pub fn tls(directory: &Path, versions: &[&'static rustls::SupportedProtocolVersion]) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

/// An agent's key and what it has been told.
pub struct Agent {
    pub channel: Channel,
    pub key: SigningKey,
    /// Of the last challenge.
    pub suite: Suite,
    pub keyset: Option<wire::Keyset>,
    pub joined: Option<wire::Joined>,
    /// What it sends beside the bootstrap token.
    pub credential: wire::Credential,
}

impl Agent {
    pub fn new(channel: Channel) -> Self {
        let key = SigningKey::from_bytes(&random());
        let credential = wire::Credential::default();
        Self { channel, key, suite: Suite::A, keyset: None, joined: None, credential }
    }

    pub fn hello(&self, suites: &[wire::Suite]) -> wire::BeginRequest {
        let hello = wire::Hello {
            suites: suites.iter().map(|s| *s as i32).collect(),
            agent_public_key: self.key.verifying_key().as_bytes().to_vec(),
            client_nonce: random::<32>().to_vec(),
            build: "test 1".into(),
        };
        wire::BeginRequest { hello: hello.encode_to_vec() }
    }

    pub async fn begin(&self, request: &wire::BeginRequest) -> Result<wire::BeginResponse, Status> {
        let call = IdentityServiceClient::new(self.channel.clone()).begin(request.clone()).await;
        call.map(tonic::Response::into_inner)
    }

    /// Checks root, keyset and challenge as an agent does, and answers.
    pub fn answer(
        &mut self,
        request: &wire::BeginRequest,
        answer: &wire::BeginResponse,
        token: &str,
    ) -> wire::FinishRequest {
        let keyset = answer.keyset.as_ref().unwrap();
        let listed =
            wire::Keyset::decode(signed::body(&answer.root_public_key, Label::Keyset, keyset).unwrap()).unwrap();
        self.keyset = Some(listed);
        let challenge = answer.challenge.as_ref().unwrap();
        let body = signed::body(&self.listed(wire::KeyUse::Join), Label::Challenge, challenge).unwrap();
        let asked = wire::Challenge::decode(body).unwrap();
        assert_eq!(asked.hello_hash, hash(&[&request.hello]));
        self.suite = Suite::ALL.into_iter().find(|suite| suite.on_wire() == asked.suite()).unwrap();
        let hello = wire::Hello::decode(request.hello.as_slice()).unwrap();
        assert!(hello.suites.contains(&asked.suite));
        let keys = &self.keyset.as_ref().unwrap().keys;
        let seal = keys.iter().find(|k| k.r#use() == wire::KeyUse::Seal && k.suite == asked.suite).unwrap();
        let seal = seal.public_key.clone();
        assert_eq!(asked.seal_key_id, hash(&[&seal]));
        let mut t = [0; 64];
        t[..32].copy_from_slice(&hash(&[&request.hello]));
        t[32..].copy_from_slice(&hash(&[body]));
        let credential = wire::Credential { bootstrap_token: token.to_owned(), ..self.credential.clone() };
        let rng = &mut UnwrapErr(getrandom::SysRng);
        let (enc, sealed) = envelope::seal_credential(self.suite, &seal, &t, &credential.encode_to_vec(), rng).unwrap();
        let signature = signed::sign_parts(&self.key, Label::Prove, &[&t, &hash(&[&enc, &sealed])]);
        wire::FinishRequest { challenge_id: asked.challenge_id, enc, sealed, signature }
    }

    pub async fn finish(&mut self, request: wire::FinishRequest) -> Result<(), Status> {
        let call = IdentityServiceClient::new(self.channel.clone()).finish(request).await;
        self.accept(&call?.into_inner());
        Ok(())
    }

    pub fn accept(&mut self, answer: &wire::FinishResponse) {
        let body =
            signed::body(&self.listed(wire::KeyUse::Join), Label::Joined, answer.joined.as_ref().unwrap()).unwrap();
        self.joined = Some(wire::Joined::decode(body).unwrap());
    }

    pub async fn join(&mut self, token: &str) -> Result<(), Status> {
        let hello = self.hello(&[wire::Suite::B, wire::Suite::A]);
        let answer = self.begin(&hello).await?;
        let finish = self.answer(&hello, &answer, token);
        self.finish(finish).await
    }

    pub fn listed(&self, r#use: wire::KeyUse) -> Vec<u8> {
        let keys = &self.keyset.as_ref().unwrap().keys;
        keys.iter().find(|k| k.r#use == r#use as i32).unwrap().public_key.clone()
    }

    pub fn joined(&self) -> &wire::Joined {
        self.joined.as_ref().unwrap()
    }

    /// What opens a stream of this nonce.
    pub fn opening(&self, nonce: &[u8], edit: impl FnOnce(&mut wire::Open)) -> wire::OpenFrame {
        let joined = self.joined();
        let mut open = wire::Open {
            stream_nonce: nonce.to_vec(),
            agent_id: joined.agent_id.clone(),
            epoch: joined.epoch,
            access_token_hash: hash(&[&joined.access_token]).to_vec(),
            suite: self.suite.on_wire() as i32,
        };
        edit(&mut open);
        let open = Some(signed::sign(&self.key, Label::Open, open.encode_to_vec()));
        wire::OpenFrame { open, access_token: joined.access_token.clone() }
    }

    /// Connects and is greeted.
    pub async fn greeted(&self) -> Stream {
        let (frames, outbound) = mpsc::channel(16);
        let call = SyncServiceClient::new(self.channel.clone())
            .max_decoding_message_size(2 << 20)
            .sync(ReceiverStream::new(outbound))
            .await;
        let mut stream = Stream {
            frames,
            inbound: call.unwrap().into_inner(),
            nonce: vec![],
            key: self.key.clone(),
            suite: self.suite,
            join_key: self.listed(wire::KeyUse::Join),
            payload_key: self.listed(wire::KeyUse::Payload),
            seq: 0,
            key_index: 0,
            seeds: vec![],
        };
        let cloud_frame::Frame::Greet(greet) = stream.next().await.unwrap() else { panic!("the cloud greets first") };
        stream.nonce = greet.stream_nonce;
        assert_eq!(stream.nonce.len(), 32);
        stream
    }

    pub async fn stream(&self) -> Stream {
        let stream = self.greeted().await;
        stream.send(agent_frame::Frame::Open(self.opening(&stream.nonce, |_| ()))).await;
        stream
    }
}

/// One stream.
pub struct Stream {
    pub frames: mpsc::Sender<wire::AgentFrame>,
    inbound: Streaming<wire::CloudFrame>,
    pub nonce: Vec<u8>,
    key: SigningKey,
    pub suite: Suite,
    join_key: Vec<u8>,
    payload_key: Vec<u8>,
    pub seq: u64,
    pub key_index: u64,
    seeds: Vec<(u64, [u8; 32])>,
}

/// What a `Have` said, as a test compares it.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Payload { id: u64, version: u64, value: String },
    Gone { id: u64, version: u64 },
    Denied { id: u64, reason: &'static str, grant: String },
}

pub fn payload(id: u64, version: u64, value: &str) -> Said {
    Said::Payload { id, version, value: value.to_owned() }
}

pub fn want(id: u64, secret: &str, known_version: u64) -> wire::Want {
    wire::Want {
        id,
        namespace: "shop".into(),
        binding: format!("binding-{id}"),
        binding_uid: format!("uid-{id}"),
        workspace: String::new(),
        secret: secret.into(),
        pin: 0,
        known_version,
    }
}

impl Stream {
    pub async fn send(&self, frame: agent_frame::Frame) {
        self.frames.send(wire::AgentFrame { frame: Some(frame) }).await.unwrap();
    }

    /// Offers new session keys and sends wants.
    pub async fn ask(&mut self, keys: usize, wants: &[wire::Want], unwants: &[u64]) {
        self.seq += 1;
        let keys = (0..keys).map(|_| self.fresh_key()).collect();
        let (wants, unwants) = (wants.to_vec(), unwants.to_vec());
        let ask = wire::Ask { stream_nonce: self.nonce.clone(), seq: self.seq, keys, wants, unwants, reports: vec![] };
        self.ask_with(&ask).await;
    }

    /// Sends reports, and wants beside them.
    pub async fn report(&mut self, wants: &[wire::Want], reports: &[wire::Report]) {
        self.seq += 1;
        let (stream_nonce, seq, reports) = (self.nonce.clone(), self.seq, reports.to_vec());
        self.ask_with(&wire::Ask { stream_nonce, seq, wants: wants.to_vec(), reports, ..Default::default() }).await;
    }

    pub async fn ask_with(&self, ask: &wire::Ask) {
        self.send(agent_frame::Frame::Ask(signed::sign(&self.key, Label::Ask, ask.encode_to_vec()))).await;
    }

    fn fresh_key(&mut self) -> wire::SessionKey {
        let seed = random::<32>();
        self.key_index += 1;
        self.seeds.push((self.key_index, seed));
        wire::SessionKey { index: self.key_index, public_key: self.suite.public(&seed).unwrap() }
    }

    pub async fn next(&mut self) -> Result<cloud_frame::Frame, Status> {
        let next = timeout(PATIENCE, self.inbound.message()).await.expect("no frame came")?;
        next.and_then(|frame| frame.frame).ok_or_else(|| Status::ok("ended"))
    }

    /// The next beat; a `Have` before it fails the test.
    pub async fn beat(&mut self) -> wire::Beat {
        let cloud_frame::Frame::Beat(beat) = self.next().await.unwrap() else { panic!("not a beat") };
        self.read_beat(&beat)
    }

    fn read_beat(&self, beat: &wire::Signed) -> wire::Beat {
        let beat = wire::Beat::decode(signed::body(&self.join_key, Label::Beat, beat).unwrap()).unwrap();
        assert_eq!(beat.stream_nonce, self.nonce);
        beat
    }

    /// The next `Have`, opened; beats before it are passed over.
    pub async fn have(&mut self) -> Said {
        loop {
            match self.next().await.unwrap() {
                cloud_frame::Frame::Have(have) => return self.read(have),
                cloud_frame::Frame::Beat(beat) => drop(self.read_beat(&beat)),
                _ => panic!("not a Have"),
            }
        }
    }

    pub async fn haves(&mut self, count: usize) -> Vec<Said> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.have().await);
        }
        all
    }

    pub fn read(&mut self, have: wire::Have) -> Said {
        let id = have.id;
        match have.answer.unwrap() {
            wire::have::Answer::Denied(denied) => {
                Said::Denied { id, reason: denied.reason().as_str_name(), grant: denied.grant }
            }
            wire::have::Answer::Gone(gone) => {
                let header =
                    wire::Header::decode(signed::body(&self.payload_key, Label::Gone, &gone).unwrap()).unwrap();
                self.check(&header, id, wire::Kind::Gone);
                assert!(header.key_index == 0 && header.session_key_hash.is_empty());
                Said::Gone { id, version: header.version }
            }
            wire::have::Answer::Sealed(sealed) => {
                assert_eq!(sealed.key_id, hash(&[&self.payload_key]));
                let parts = [hash(&[&sealed.header]), hash(&[&sealed.enc, &sealed.ciphertext])].concat();
                signed::verify(&self.payload_key, Label::Sealed, &[&parts], &sealed.signature).unwrap();
                let header = wire::Header::decode(sealed.header.as_slice()).unwrap();
                self.check(&header, id, wire::Kind::Sealed);
                let at =
                    self.seeds.iter().position(|(index, _)| *index == header.key_index).expect("a key is spent once");
                let (_, seed) = self.seeds.remove(at);
                assert_eq!(header.session_key_hash, hash(&[&self.suite.public(&seed).unwrap()]));
                let plain = envelope::open_sealed(self.suite, &seed, &sealed).unwrap();
                let json: serde_json::Value = serde_json::from_slice(&plain[32..]).unwrap();
                payload(id, header.version, json["keysValues"]["V"].as_str().unwrap())
            }
        }
    }

    fn check(&self, header: &wire::Header, id: u64, kind: wire::Kind) {
        assert!(header.format == 2 && header.suite() == self.suite.on_wire() && header.kind() == kind);
        assert_eq!((header.want_id, header.namespace.as_str()), (id, "shop"));
        assert_eq!(
            (header.binding.clone(), header.binding_uid.clone()),
            (format!("binding-{id}"), format!("uid-{id}"))
        );
        assert_eq!((header.organization.as_str(), header.workspace.as_str()), ("acme", "prod"));
        assert_eq!(header.stream_nonce, self.nonce);
        assert!(header.committed_at_ms > 0 && !header.secret.is_empty());
    }

    /// Reads to the end, and says with which reason the cloud ended the stream.
    pub async fn end(&mut self) -> String {
        loop {
            if let Err(status) = self.next().await {
                return reason(&status);
            }
        }
    }
}

/// ErrorInfo.reason, or the status itself where there is none.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("{status:?}"), |info| info.reason)
}

/// The reason, and the detail where there is one: `IDENTITY_UNKNOWN/AUDIENCE`.
pub fn detailed(status: &Status) -> String {
    let info = status.get_details_error_info();
    let detail = info.and_then(|info| info.metadata.get("detail").cloned());
    detail.map_or_else(|| reason(status), |detail| format!("{}/{detail}", reason(status)))
}
