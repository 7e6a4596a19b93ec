//! The link: join, keep one stream, hand over to the next, come back after anything. One task for the life of the agent.

use crate::cloud::credentials::CredentialSource;
use crate::cloud::inbox::Inbox;
use crate::cloud::join::{JoinFailure, join};
use crate::cloud::retry::{Recovery, asked_pause, pause, problem, reason, recover};
use crate::cloud::state::LinkState;
use crate::cloud::stream::{self, End, Happened, Session, Shared};
use crate::domain::reason::{Problem, Reason};
use crate::entropy::{rng, spread};
use crate::identity::access_token::Identity;
use crate::identity::join::Credentials;
use crate::identity::signing_key::AgentKey;
use crate::identity::trust::{Trust, TrustError, root_of_token};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

/// How often lost credentials are read again.
const REREAD: Duration = Duration::from_secs(2);
/// Lost credentials are tried again after this long even if they are the same.
const RETRY_LOST: Duration = Duration::from_secs(300);
/// A link that was healthy for this long starts its pauses anew.
const HEALTHY: Duration = Duration::from_secs(60);

/// What the link is made of.
pub struct Link {
    /// To the cloud.
    pub channel: Channel,
    /// For messages.
    pub authority: String,
    /// `trust.roots` of the settings.
    pub roots: Vec<[u8; 32]>,
    /// Bootstrap token.
    pub credentials: CredentialSource,
    /// Wants and arrivals.
    pub inbox: Inbox,
    /// For everyone to read.
    pub state: watch::Sender<LinkState>,
    /// Bindings that something arrived for.
    pub arrivals: mpsc::Sender<(String, String)>,
    /// As in the hello.
    pub build: &'static str,
}

impl Link {
    /// Runs for ever; dropped at shutdown.
    pub async fn run(self) {
        let (happened, mut events) = mpsc::channel(64);
        let mut shared: Option<Shared> = None;
        let mut joined: Option<Session> = None;
        let mut attempt = 0;
        let mut streams = 0;
        self.state.send_modify(|state| state.fresh_at = Some(Instant::now()));
        loop {
            if joined.as_ref().is_none_or(|j| Instant::now() >= j.expires) {
                match self.join(&mut shared, &happened).await {
                    Ok(fresh) => joined = Some(fresh),
                    Err(failure) => {
                        joined = None;
                        self.wait_after(failure, &mut attempt).await;
                        continue;
                    }
                }
            }
            let (Some(shared), Some(session)) = (&shared, &mut joined) else { continue };
            let began = Instant::now();
            let end = self.serve(shared, session, &mut streams, &mut events).await;
            if began.elapsed() >= HEALTHY {
                attempt = 0;
            }
            let failure = Failure::of_stream(&end, &self.authority);
            let had_been_live = self.state.borrow().live;
            tracing::info!(?failure.recovery, why = failure.why, had_been_live, "the stream to the cloud ended");
            if failure.recovery == Recovery::Rejoin {
                joined = None;
            }
            self.wait_after(failure, &mut attempt).await;
        }
    }

    /// Publishes why there is no stream, and waits as long as that asks for.
    async fn wait_after(&self, failure: Failure, attempt: &mut u32) {
        self.state.send_modify(|state| {
            state.live = false;
            state.problem = Some(failure.problem.clone());
        });
        match failure.recovery {
            Recovery::Lost => self.other_credentials().await,
            Recovery::Superseded => sleep(Duration::from_secs(60)).await,
            Recovery::Banned => sleep(Duration::from_secs(300).mul_f64(1.0 + 5.0 * spread())).await,
            Recovery::Rejoin if *attempt == 0 => {}
            Recovery::Rejoin | Recovery::BackOff => {
                sleep(failure.pause.unwrap_or_else(|| pause(*attempt, spread()))).await
            }
        }
        *attempt = attempt.saturating_add(1);
    }

    /// Waits until the files hold something else.
    async fn other_credentials(&self) {
        let used = self.credentials.read().bootstrap_token;
        let changed = async {
            while self.credentials.read().bootstrap_token == used {
                sleep(REREAD).await;
            }
        };
        let _ = timeout(RETRY_LOST, changed).await;
    }

    async fn join(
        &self,
        shared: &mut Option<Shared>,
        happened: &mpsc::Sender<(u64, Happened)>,
    ) -> Result<Session, Failure> {
        let credentials = self.credentials.read();
        let shared = match shared {
            Some(shared) => shared,
            // The roots are pinned once, with the first credentials that name one.
            None => shared.insert(self.pin(&credentials, happened).map_err(Failure::untrusted)?),
        };
        if root_of_token(&credentials.bootstrap_token).is_some_and(|root| !self.pinned(shared, &root)) {
            return Err(Failure::untrusted(TrustError::RootChanged));
        }
        let mut rng = rng();
        let joining = join(self.channel.clone(), &shared.key, &shared.trust, &credentials, self.build, &mut rng);
        let (identity, keyset) = joining.await.map_err(|e| Failure::of_join(&e, &self.authority))?;
        tracing::info!(
            agent = identity.agent_id,
            organization = identity.organization,
            epoch = identity.epoch,
            "joined"
        );
        self.publish(&identity);
        Ok(Session::new(identity, keyset))
    }

    fn pin(&self, credentials: &Credentials, happened: &mpsc::Sender<(u64, Happened)>) -> Result<Shared, TrustError> {
        let token = credentials.bootstrap_token.as_str();
        let trust = Trust::pin(&self.roots, (!token.is_empty()).then_some(token))?;
        Ok(Shared {
            key: Arc::new(AgentKey::generate(&mut rng())),
            trust: Arc::new(Mutex::new(trust)),
            inbox: self.inbox.clone(),
            state: self.state.clone(),
            arrivals: self.arrivals.clone(),
            happened: happened.clone(),
            build: self.build,
        })
    }

    fn pinned(&self, shared: &Shared, root: &[u8; 32]) -> bool {
        shared.trust.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pins(root)
    }

    fn publish(&self, identity: &Identity) {
        self.state.send_modify(|state| {
            state.server_time = Some((identity.server_time_ms, Instant::now()));
            state.identity = Some(Arc::new(identity.clone()));
        });
    }

    /// Keeps a stream, and a second one while the first drains, until the last of them ends.
    async fn serve(
        &self,
        shared: &Shared,
        session: &mut Session,
        streams: &mut u64,
        events: &mut mpsc::Receiver<(u64, Happened)>,
    ) -> End {
        let mut running: FuturesUnordered<BoxFuture<'_, (u64, End)>> = FuturesUnordered::new();
        let mut older: Option<oneshot::Sender<()>> = None;
        *streams += 1;
        let (future, mut newest) = self.open(*streams, shared, session);
        running.push(future);
        loop {
            tokio::select! {
                Some((number, end)) = running.next() => {
                    shared.inbox.end(number);
                    if number == *streams || running.is_empty() {
                        return end;
                    }
                }
                Some((number, what)) = events.recv() => match what {
                    Happened::Renewed(renewed) => {
                        self.publish(&renewed.identity);
                        *session = *renewed;
                    }
                    Happened::Draining if number == *streams => {
                        tracing::debug!("the cloud drains the stream; opening the next");
                        *streams += 1;
                        let (future, cancel) = self.open(*streams, shared, session);
                        running.push(future);
                        older = Some(std::mem::replace(&mut newest, cancel));
                    }
                    Happened::Ready if number == *streams => {
                        let _ = older.take().map(|cancel| cancel.send(()));
                        tracing::info!(stream = number, "the stream to the cloud is open and all wants are declared");
                        self.state.send_modify(|state| {
                            state.live = true;
                            state.problem = None;
                        });
                    }
                    Happened::Draining | Happened::Ready => {}
                },
            }
        }
    }

    fn open(
        &self,
        number: u64,
        shared: &Shared,
        session: &Session,
    ) -> (BoxFuture<'_, (u64, End)>, oneshot::Sender<()>) {
        let (cancel, replaced) = oneshot::channel();
        let credentials = || self.credentials.read();
        let run = stream::run(number, self.channel.clone(), shared.clone(), session.clone(), credentials, replaced);
        (run.map(move |end| (number, end)).boxed(), cancel)
    }
}

/// What went wrong, what follows, and what bindings say meanwhile.
struct Failure {
    recovery: Recovery,
    pause: Option<Duration>,
    problem: Problem,
    why: String,
}

impl Failure {
    fn of_stream(end: &End, authority: &str) -> Self {
        let status = if let End::Status(status) = end { Some(status.as_ref()) } else { None };
        let recovery = status.map_or(Recovery::BackOff, recover);
        let why = match end {
            End::Status(status) => reason(status).unwrap_or_else(|| format!("{:?}", status.code())),
            other => format!("{other:?}"),
        };
        Self { recovery, pause: status.and_then(asked_pause), problem: problem(recovery, status, authority), why }
    }

    fn of_join(failure: &JoinFailure, authority: &str) -> Self {
        let status = if let JoinFailure::Status(status) = failure { Some(status.as_ref()) } else { None };
        let recovery = status.map_or(Recovery::BackOff, recover);
        let why = status.and_then(reason).unwrap_or_default();
        let problem = match failure {
            JoinFailure::Refused(error) => Problem::new(
                Reason::WaitingForCloud,
                format!("{authority} does not prove to be the trusted cloud: {error}"),
            ),
            JoinFailure::Status(_) => problem(recovery, status, authority),
        };
        tracing::warn!(error = %failure, cloud = authority, why, mend = problem.message, "could not join");
        Self { recovery, pause: status.and_then(asked_pause), problem, why }
    }

    fn untrusted(error: TrustError) -> Self {
        let message = match error {
            TrustError::NoRoot => {
                "there is no bootstrap token yet: make one in Ennote for this agent and put it into the token Secret \
                                   (ennote.auth.existingSecretName); the agent takes it up by itself"
                    .to_owned()
            }
            other => other.to_string(),
        };
        tracing::warn!(mend = message, "cannot join");
        Self {
            recovery: Recovery::Lost,
            pause: None,
            problem: Problem::new(Reason::IdentityLost, message),
            why: String::new(),
        }
    }
}
