//! The one identity service of the agent: key, trust and credentials live here and nowhere else.
//!
//! A join by two unary calls and a renewal over the frames of a stream go through the same three steps, `begin`, `prove` and
//! `finish`; the last one publishes the session into the one watch that every caller takes it from ([`LinkState`]).

use crate::clock;
use crate::cloud::credentials::CredentialSource;
use crate::cloud::state::LinkState;
use crate::config::{BUILT_MS, RunSettings};
use crate::crypto::signed::{Label, hash};
use crate::entropy::rng;
use crate::identity::access_token::Session;
use crate::identity::join::{Credentials, Join, JoinError, Proved};
use crate::identity::signing_key::AgentKey;
use crate::identity::trust::{Trust, TrustError, root_of_token};
use crate::wire::{self, identity_service_client::IdentityServiceClient};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// The cloud's answer to one call.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nonces that are remembered: with the pauses between streams, far more than fit into the 5 minutes that a signed time may be
/// late.
const GREETED: usize = 4096;

/// What the agent holds the cloud against.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    /// `trust.roots` of the settings: SHA-256 of root keys.
    pub roots: Vec<[u8; 32]>,
    /// `trust.minKeyset`.
    pub min_keyset: u64,
    /// When this program was built, Unix milliseconds: that moment has passed.
    pub built_ms: i64,
}

impl Anchors {
    /// Those of the settings.
    pub fn of(settings: &RunSettings) -> Self {
        Self {
            roots: settings.trust_roots.iter().map(|root| root.0).collect(),
            min_keyset: settings.trust_min_keyset,
            built_ms: BUILT_MS.parse().unwrap_or(0),
        }
    }
}

/// What the first answer of a join tells once it is verified.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// Signed, Unix milliseconds.
    pub server_time_ms: i64,
    /// Of the keyset.
    pub keyset_version: u64,
    /// Its end, Unix milliseconds.
    pub keyset_expires_at_ms: i64,
}

/// See the module.
pub struct IdentityService {
    channel: Channel,
    anchors: Anchors,
    source: CredentialSource,
    build: &'static str,
    key: AgentKey,
    /// Pinned by the credentials that the first join succeeds with.
    trust: Mutex<Option<Trust>>,
    /// Of the credential files, as they were when they were shown last.
    shown: Mutex<[u8; 32]>,
    /// Hashes of the nonces that streams were greeted with, the last ones.
    greeted: Mutex<VecDeque<[u8; 32]>>,
    state: watch::Sender<LinkState>,
}

/// A join that has been begun, with what it will show.
pub struct Begun {
    join: Join,
    credentials: Credentials,
}

impl IdentityService {
    /// With a key of its own, made now.
    pub fn new(
        channel: Channel,
        anchors: Anchors,
        source: CredentialSource,
        build: &'static str,
        state: watch::Sender<LinkState>,
    ) -> Self {
        Self {
            channel,
            anchors,
            source,
            build,
            key: AgentKey::generate(&mut rng()),
            trust: Mutex::new(None),
            shown: Mutex::default(),
            greeted: Mutex::default(),
            state,
        }
    }

    /// The session as last published.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.state.borrow().session.clone()
    }

    /// Whether the credential files hold anything else than what was shown last.
    pub fn has_others_to_show(&self) -> bool {
        self.source.files().mark() != *self.shown()
    }

    /// Signs a message of a stream.
    pub fn sign(&self, label: Label, body: Vec<u8>) -> wire::Signed {
        self.key.sign(label, body)
    }

    /// Joins by the two unary calls.
    ///
    /// # Errors
    /// A status of the cloud, or a refusal on our side.
    pub async fn join(&self) -> Result<Arc<Session>, JoinFailure> {
        let mut client = IdentityServiceClient::new(self.channel.clone());
        let (begun, request) = self.begin().await?;
        let (proved, finish) = self.prove(begun, &within(client.begin(request)).await?)?;
        let session = self.finish(proved, &within(client.finish(finish)).await?, None)?;
        let identity = &session.identity;
        tracing::info!(
            agent = identity.agent_id,
            organization = identity.organization,
            epoch = identity.epoch,
            "joined"
        );
        Ok(session)
    }

    /// Begins a join and verifies the answer, and leaves it at that: nothing of a credential is sent.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn greet(&self) -> Result<Greeting, JoinFailure> {
        let mut client = IdentityServiceClient::new(self.channel.clone());
        let (begun, request) = self.begin().await?;
        let (proved, _unsent) = self.prove(begun, &within(client.begin(request)).await?)?;
        Ok(Greeting {
            server_time_ms: proved.server_time_ms(),
            keyset_version: proved.keyset().version,
            keyset_expires_at_ms: proved.keyset().expires_at_ms,
        })
    }

    /// Gathers what there is to show and makes a hello.
    ///
    /// # Errors
    /// `NoRoot` and `RootChanged`; nothing is sent then.
    pub async fn begin(&self) -> Result<(Begun, wire::BeginRequest), JoinError> {
        let files = self.source.files();
        *self.shown() = files.mark();
        let credentials = self.source.complete(files).await;
        let mut trust = self.trust();
        // Fixed from the first join on. Before it nothing was trusted, and a token put there by mistake binds nobody.
        let joined = self.session().is_some();
        let pinned = match trust.take().filter(|_| joined) {
            Some(pinned) => trust.insert(pinned),
            None => trust.insert(self.pin(&credentials)?),
        };
        pinned.pass(clock::now());
        if root_of_token(&credentials.bootstrap_token).is_some_and(|root| !pinned.pins(&root)) {
            return Err(TrustError::RootChanged.into());
        }
        if let Some(issued) = credentials.issued_at_ms() {
            pinned.raise_floor(issued);
        }
        let join = Join::begin(&self.key, self.build, &mut rng());
        let request = join.request();
        Ok((Begun { join, credentials }, request))
    }

    /// Checks the cloud's first answer, seals the credentials and proves the key.
    ///
    /// # Errors
    /// [`JoinError`]; nothing was revealed then.
    pub fn prove(
        &self,
        begun: Begun,
        answer: &wire::BeginResponse,
    ) -> Result<(Proved, wire::FinishRequest), JoinError> {
        self.trusting(|trust| begun.join.prove(answer, trust, &self.key, &begun.credentials, &mut rng()))
    }

    /// Checks the cloud's last answer and publishes the session. A renewal keeps agent and epoch of the session it `renews`.
    ///
    /// # Errors
    /// [`JoinError`]; what was published before stays.
    pub fn finish(
        &self,
        proved: Proved,
        answer: &wire::FinishResponse,
        renews: Option<&Session>,
    ) -> Result<Arc<Session>, JoinError> {
        let (identity, keyset) = self.trusting(|trust| proved.finish(answer, trust))?;
        let another =
            |old: &Session| identity.agent_id != old.identity.agent_id || identity.epoch != old.identity.epoch;
        if renews.is_some_and(another) {
            return Err(JoinError::Mismatch);
        }
        let received = clock::now();
        let session = Arc::new(Session { identity, keyset, received });
        self.state.send_modify(|state| {
            state.server_time = Some((session.identity.server_time_ms, received));
            state.session = Some(session.clone());
        });
        Ok(session)
    }

    /// Takes a time that the cloud signed in a beat, under the keys of that session.
    ///
    /// # Errors
    /// `ClockDisagrees`, `Expired`.
    pub fn hear(&self, session: &Session, server_time_ms: i64) -> Result<(), TrustError> {
        self.trusting(|trust| trust.hear(&session.keyset, server_time_ms))
    }

    /// Whether no stream of this process was greeted with this nonce before. A Greet is unsigned: with a nonce from a recording,
    /// the beats of that recording would count for this stream.
    pub fn is_fresh_greet(&self, nonce: &[u8]) -> bool {
        let mut greeted = self.greeted.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = hash(nonce);
        if greeted.contains(&mark) {
            return false;
        }
        // Older recordings fail by their time.
        if greeted.len() == GREETED {
            greeted.pop_front();
        }
        greeted.push_back(mark);
        true
    }

    fn shown(&self) -> MutexGuard<'_, [u8; 32]> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges something by what is pinned, as of now.
    fn trusting<T, E: From<TrustError>>(&self, judge: impl FnOnce(&mut Trust) -> Result<T, E>) -> Result<T, E> {
        let mut trust = self.trust();
        let trust = trust.as_mut().ok_or(TrustError::NoRoot)?;
        trust.pass(clock::now());
        judge(trust)
    }

    fn trust(&self) -> MutexGuard<'_, Option<Trust>> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(&self, credentials: &Credentials) -> Result<Trust, TrustError> {
        let token = credentials.bootstrap_token.as_str();
        let mut trust = Trust::pin(&self.anchors.roots, (!token.is_empty()).then_some(token))?;
        trust.require_keyset(self.anchors.min_keyset);
        trust.raise_floor(self.anchors.built_ms);
        Ok(trust)
    }
}

async fn within<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, JoinFailure> {
    match timeout(PATIENCE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(JoinFailure::Status(Box::new(status))),
        Err(_) => Err(JoinFailure::Status(Box::new(Status::deadline_exceeded("no answer in time")))),
    }
}

/// Why a join did not come about.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailure {
    /// The cloud said no, or nothing.
    #[error("the cloud answered {}", .0.code())]
    Status(Box<Status>),
    /// We did.
    #[error(transparent)]
    Refused(#[from] JoinError),
}
