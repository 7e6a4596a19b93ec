//! The link: join, keep one stream, hand over to the next, come back after anything. One task for the life of the agent.

use crate::clock;
use crate::cloud::identity_service::{IdentityService, JoinFailure};
use crate::cloud::inbox::Inbox;
use crate::cloud::reports::Reports;
use crate::cloud::retry::{Recovery, asked_pause, problem, reason, recover, refused};
use crate::cloud::state::LinkState;
use crate::cloud::stream::{self, End, Happened, Shared};
use crate::cloud::waiting::{Attempts, Handovers};
use crate::domain::reason::Problem;
use crate::entropy::spread;
use crate::health::{Loop, Pulse};
use crate::identity::access_token::Session;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::transport::Channel;

/// What the link is made of.
pub struct Link {
    /// To the cloud.
    pub channel: Channel,
    /// For messages.
    pub authority: String,
    /// What a newer agent of this identity gets before the cloud is asked whether it still lives.
    pub stand_by: Duration,
    /// Joins and renews.
    pub identity: Arc<IdentityService>,
    /// Wants and arrivals.
    pub inbox: Inbox,
    /// Where rollouts stand.
    pub reports: Reports,
    /// For everyone to read.
    pub state: watch::Sender<LinkState>,
    /// Bindings that something arrived for.
    pub arrivals: mpsc::Sender<(String, String)>,
    /// For the heartbeat.
    pub pulse: Pulse,
}

impl Link {
    /// Runs for ever; dropped at shutdown.
    pub async fn run(self) {
        let (happened, mut events) = mpsc::channel(64);
        let shared = Shared {
            identity: self.identity.clone(),
            inbox: self.inbox.clone(),
            reports: self.reports.clone(),
            state: self.state.clone(),
            arrivals: self.arrivals.clone(),
            happened,
            pulse: self.pulse.clone(),
        };
        let mut session: Option<Arc<Session>> = None;
        let mut attempts = Attempts::new(self.stand_by);
        let mut streams = 0;
        self.state.send_modify(|state| state.fresh_at = Some(clock::now()));
        loop {
            self.pulse.stamp(Loop::Stream);
            self.pulse.stamp(Loop::Renew);
            let usable = session.take().filter(|session| !session.is_over(clock::now()));
            let current = match usable {
                Some(usable) => usable,
                None => match self.identity.join().await {
                    Ok(fresh) => fresh,
                    Err(failure) => {
                        self.wait_after(Failure::of_join(&failure, &self.authority), &mut attempts).await;
                        continue;
                    }
                },
            };
            let began = Instant::now();
            let end = self.serve(&shared, current, &mut streams, &mut events).await;
            attempts.lived(began.elapsed());
            let failure = Failure::of_stream(&end, &self.authority);
            let had_been_live = self.state.borrow().live;
            tracing::info!(?failure.recovery, why = failure.why, had_been_live, "the stream to the cloud ended");
            // Only a stream that gets what it is sent ends the suspicion: a cut in between does not.
            if matches!(end, End::Withheld) {
                self.state.send_modify(|state| state.withheld = state.withheld.saturating_add(1));
            }
            if matches!(failure.recovery, Recovery::BackOff) {
                session = self.identity.session();
            }
            self.wait_after(failure, &mut attempts).await;
        }
    }

    /// Publishes why there is no stream, and waits as long as that asks for.
    async fn wait_after(&self, failure: Failure, attempts: &mut Attempts) {
        self.state.send_modify(|state| {
            state.live = false;
            state.problem = Some(failure.problem.clone());
        });
        let wait = attempts.failed(failure.recovery, failure.pause, spread());
        let over = wait.over(|| self.identity.has_others_to_show());
        self.pulse.through(&[Loop::Stream, Loop::Renew], over).await;
    }

    /// Keeps a stream, and a second one while the first drains, until the last of them ends.
    async fn serve(
        &self,
        shared: &Shared,
        session: Arc<Session>,
        streams: &mut u64,
        events: &mut mpsc::Receiver<(u64, Happened)>,
    ) -> End {
        let mut running: FuturesUnordered<BoxFuture<'_, (u64, End)>> = FuturesUnordered::new();
        let mut older: Option<oneshot::Sender<()>> = None;
        let mut handovers = Handovers::default();
        *streams += 1;
        let (future, mut newest) = self.open(*streams, shared, session.clone());
        running.push(future);
        loop {
            tokio::select! {
                Some((number, end)) = running.next() => {
                    shared.inbox.end(number);
                    if number == *streams || running.is_empty() {
                        // An older one that still runs ends with it.
                        shared.inbox.end(number.saturating_sub(1));
                        return end;
                    }
                }
                Some((number, what)) = events.recv() => match what {
                    // Unsigned: whoever owns the path must not make us declare everything over and over.
                    Happened::Draining if number == *streams && !handovers.allow(Instant::now()) => {
                        shared.inbox.end(number);
                        return End::Drained;
                    }
                    Happened::Draining if number == *streams => {
                        tracing::debug!("the cloud drains the stream; opening the next");
                        *streams += 1;
                        let newest_session = self.identity.session().unwrap_or_else(|| session.clone());
                        let (future, cancel) = self.open(*streams, shared, newest_session);
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
        session: Arc<Session>,
    ) -> (BoxFuture<'_, (u64, End)>, oneshot::Sender<()>) {
        let (cancel, replaced) = oneshot::channel();
        let run = stream::run(number, self.channel.clone(), shared.clone(), session, replaced);
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
        if let End::Refused(error) = end {
            let (recovery, problem) = refused(error, authority);
            return Self { recovery, pause: None, problem, why };
        }
        Self { recovery, pause: status.and_then(asked_pause), problem: problem(recovery, status, authority), why }
    }

    fn of_join(failure: &JoinFailure, authority: &str) -> Self {
        let (failed, pause, why) = match failure {
            JoinFailure::Refused(error) => (refused(error, authority), None, String::new()),
            JoinFailure::Status(status) => {
                let recovery = recover(status);
                let why = reason(status).unwrap_or_default();
                ((recovery, problem(recovery, Some(status), authority)), asked_pause(status), why)
            }
        };
        let (recovery, problem) = failed;
        tracing::warn!(error = %failure, cloud = authority, why, mend = problem.message, "could not join");
        Self { recovery, pause, problem, why }
    }
}
