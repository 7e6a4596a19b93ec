//! One stream: open, declare, receive, renew, until it ends.
//!
//! Guarantees: session keys are made for this stream and wiped with it; every beat is verified before it counts; a frame for
//! nobody is dropped and wiped. Runs in the link's task.

use crate::clock;
use crate::cloud::identity_service::{Begun, IdentityService};
use crate::cloud::inbox::{Inbox, Via};
use crate::cloud::received::{Delivered, Received};
use crate::cloud::renewal::Renewal;
use crate::cloud::reports::Reports;
use crate::cloud::state::{FRESH, LinkState};
use crate::crypto::envelope::{authentic, claimed_key};
use crate::crypto::session_keys::SessionKeys;
use crate::crypto::signed::{Label, VerifyingKeys, hash};
use crate::crypto::suite::Suite;
use crate::domain::moment::Moment;
use crate::entropy::{rng, spread};
use crate::health::{Loop, Pulse};
use crate::identity::access_token::Session;
use crate::identity::join::JoinError;
use crate::wire::{self, AgentFrame, CloudFrame, agent_frame, cloud_frame, sync_service_client::SyncServiceClient};
use futures::FutureExt;
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// An ask at least this often: 20 s by PROTOCOL.md, with room for a slow network.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// No frame for this long: the stream is dead.
const DEAD: Duration = Duration::from_secs(45);
/// No beat for this long, though other frames come: they are kept back.
const BEAT_BY: Duration = Duration::from_secs(50);
/// A stream ends by our own clock after this long, whatever the cloud does.
const MAX_AGE: Duration = Duration::from_secs(40 * 60);
/// Beats that come, but acknowledge nothing that was asked this long ago, withhold: two intervals of PROTOCOL.md.
const LAGS: Duration = Duration::from_secs(40);
/// Answers to open and to frames that must be taken.
const PATIENCE: Duration = Duration::from_secs(20);
/// Any other frame.
const MAX_OTHER: usize = 256 * 1024;
/// A Have frame (PROTOCOL.md, "Bytes"), and some room for the frame around it.
const MAX_FRAME: usize = 1024 * 1024 + 16 * 1024 + 1024;

/// How a stream ended.
#[derive(Debug)]
pub enum End {
    /// By the cloud.
    Status(Box<Status>),
    /// No frame in time, or a frame that could not be sent.
    Dead,
    /// The cloud's signed count says that a delivery was kept from us, or its beats lag behind.
    Withheld,
    /// A frame that does not belong here.
    Protocol(&'static str),
    /// By a Drain before it was ready.
    Drained,
    /// A renewal, or the time of a beat, was refused on our side.
    Refused(JoinError),
    /// A newer stream took over, or it was old enough.
    Done,
}

/// What the link needs to know while a stream lives.
pub enum Happened {
    /// The first full beat has come: everything is declared and heard.
    Ready,
    /// The cloud wants the stream to end.
    Draining,
}

/// What all streams of a link share.
#[derive(Clone)]
pub struct Shared {
    /// Key, trust and session.
    pub identity: Arc<IdentityService>,
    /// Wants and arrivals.
    pub inbox: Inbox,
    /// Where rollouts stand.
    pub reports: Reports,
    /// For everyone to read.
    pub state: watch::Sender<LinkState>,
    /// Namespace and name of a binding that something arrived for.
    pub arrivals: mpsc::Sender<(String, String)>,
    /// From streams to the link.
    pub happened: mpsc::Sender<(u64, Happened)>,
    /// For the heartbeat.
    pub pulse: Pulse,
}

/// Runs a stream to its end.
pub async fn run(
    number: u64,
    channel: Channel,
    shared: Shared,
    session: Arc<Session>,
    replaced: oneshot::Receiver<()>,
) -> End {
    let (frames, outgoing) = mpsc::channel(64);
    let mut client = SyncServiceClient::new(channel).max_decoding_message_size(MAX_FRAME);
    let call = client.sync(ReceiverStream::new(outgoing));
    let incoming = match timeout(PATIENCE, call).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return End::Status(Box::new(status)),
        Err(_) => return End::Dead,
    };
    let now = Instant::now();
    let stream = Stream {
        number,
        opened: clock::now(),
        listed: Arc::new(session.keyset.payload.clone()),
        renew_at: now + session.renews_in(clock::now(), spread()),
        shared,
        suite: session.identity.suite,
        keys: SessionKeys::new(session.identity.suite),
        session,
        frames,
        nonce: vec![],
        seq: 0,
        asks: VecDeque::new(),
        ask_at: now,
        received: Received::default(),
        beat_by: now + BEAT_BY,
        last_beat: (0, 0, 0),
        declared_by: None,
        draining: false,
        renewal_by: now,
        renewal: Renewal::None,
    };
    match stream.serve(incoming, replaced).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Stream {
    number: u64,
    opened: Moment,
    shared: Shared,
    /// The newest one of this agent and epoch: a key that it does not list is revoked at once.
    session: Arc<Session>,
    listed: Arc<VerifyingKeys>,
    frames: mpsc::Sender<AgentFrame>,
    nonce: Vec<u8>,
    /// Of the session that opened it. A renewal may agree on another, which is the next stream's.
    suite: Suite,
    keys: SessionKeys,
    seq: u64,
    /// Asks that no beat has acknowledged, with the time they were sent.
    asks: VecDeque<(u64, Moment)>,
    ask_at: Instant,
    received: Received,
    /// A beat has to come by then: frames that nobody signed keep no stream alive.
    beat_by: Instant,
    /// seq, haves and server time of the last beat: none of them goes back.
    last_beat: (u64, u64, i64),
    /// The ask that completed the first declaration, until a beat has acknowledged it.
    declared_by: Option<u64>,
    draining: bool,
    renew_at: Instant,
    /// The cloud's next answer in a renewal.
    renewal_by: Instant,
    renewal: Renewal,
}

impl Stream {
    async fn serve(
        mut self,
        mut incoming: Streaming<CloudFrame>,
        mut replaced: oneshot::Receiver<()>,
    ) -> Result<std::convert::Infallible, End> {
        self.open(&mut incoming).await?;
        let mut dead = Instant::now() + DEAD;
        loop {
            // Looked at with every frame and every ask, since a timer would stop while the machine sleeps.
            if clock::now().since(self.opened) >= MAX_AGE {
                return Err(End::Done);
            }
            self.take_up_session();
            self.shared.pulse.stamp(Loop::Stream);
            // A renewal gets on unless it waits for files of our own.
            if !matches!(self.renewal, Renewal::Gathering(_)) {
                self.shared.pulse.stamp(Loop::Renew);
            }
            tokio::select! {
                frame = incoming.message() => {
                    let frame = frame.map_err(|s| End::Status(Box::new(s)))?;
                    let frame = frame.and_then(|f| f.frame).ok_or(End::Protocol("the cloud closed the stream without a status"))?;
                    dead = Instant::now() + DEAD;
                    self.frame(frame).await?;
                }
                () = self.shared.inbox.changed(), if !self.draining => self.ask(false).await?,
                () = self.shared.reports.changed(), if !self.draining => self.ask(false).await?,
                () = sleep_until(self.ask_at) => self.ask(true).await?,
                () = sleep_until(self.renew_at), if matches!(self.renewal, Renewal::None) && !self.draining => self.renew(),
                begun = self.renewal.gathered() => self.begin(begun.map_err(End::Refused)?).await?,
                () = sleep_until(self.renewal_by), if self.renewal.waits() => self.give_up_renewal(),
                () = sleep_until(dead) => return Err(End::Dead),
                () = sleep_until(self.beat_by) => return Err(End::Withheld),
                _ = &mut replaced => return Err(End::Done),
            }
        }
    }

    async fn open(&mut self, incoming: &mut Streaming<CloudFrame>) -> Result<(), End> {
        let first = timeout(PATIENCE, incoming.message()).await.map_err(|_| End::Dead)?;
        let first = first.map_err(|s| End::Status(Box::new(s)))?.and_then(|f| f.frame);
        let Some(cloud_frame::Frame::Greet(greet)) = first else {
            return Err(End::Protocol("the first frame was no Greet"));
        };
        if greet.stream_nonce.len() != 32 || !self.shared.identity.is_fresh_greet(&greet.stream_nonce) {
            return Err(End::Protocol("a stream nonce is 32 bytes, and never used before"));
        }
        self.nonce = greet.stream_nonce;
        let identity = &self.session.identity;
        let open = wire::Open {
            stream_nonce: self.nonce.clone(),
            agent_id: identity.agent_id.clone(),
            epoch: identity.epoch,
            access_token_hash: hash(&identity.access_token).to_vec(),
            suite: self.suite.on_wire() as i32,
        };
        let open = self.shared.identity.sign(Label::Open, open.encode_to_vec());
        let access_token = identity.access_token.to_vec();
        self.send(agent_frame::Frame::Open(wire::OpenFrame { open: Some(open), access_token })).await?;
        self.shared.inbox.begin(self.number);
        self.ask(true).await?;
        self.declared_by = Some(self.seq);
        // After the declaration, which is what the stream's first full beat is about.
        self.shared.reports.begin(self.number);
        Ok(())
    }

    async fn send(&mut self, frame: agent_frame::Frame) -> Result<(), End> {
        let sent = timeout(PATIENCE, self.frames.send(AgentFrame { frame: Some(frame) })).await;
        // A closed channel means that the call has ended; its status comes with the next message.
        sent.map_err(|_| End::Dead).map(drop)
    }

    /// Sends what there is to ask, in as many frames as it takes; `even_if_empty` shows that we live.
    async fn ask(&mut self, even_if_empty: bool) -> Result<(), End> {
        let mut must = even_if_empty;
        loop {
            let server_now = self.shared.state.borrow().server_now_ms(clock::now());
            let (wants, unwants) = self.shared.inbox.next_ask(self.number, server_now);
            let keys = if self.draining { vec![] } else { self.keys.refill(self.shared.inbox.in_use(), &mut rng()) };
            // After the wants: the cloud drops a report on a binding of which it has not heard.
            let declared = |uid: &str| self.shared.inbox.declares(self.number, uid);
            let reports = self.shared.reports.next_ask(self.number, declared);
            if !must && wants.is_empty() && unwants.is_empty() && keys.is_empty() && reports.is_empty() {
                return Ok(());
            }
            must = false;
            self.seq += 1;
            let ask = wire::Ask { stream_nonce: self.nonce.clone(), seq: self.seq, keys, wants, unwants, reports };
            let signed = self.shared.identity.sign(Label::Ask, ask.encode_to_vec());
            self.send(agent_frame::Frame::Ask(signed)).await?;
            self.asks.push_back((self.seq, clock::now()));
            self.ask_at = Instant::now() + ASK_EVERY;
        }
    }

    async fn frame(&mut self, frame: cloud_frame::Frame) -> Result<(), End> {
        match frame {
            cloud_frame::Frame::Have(have) => self.have(have).await,
            cloud_frame::Frame::Beat(signed) => self.beat(&signed).await,
            // Paced by the back-off of the link: a peer that drains every new stream is no reason for a loop.
            cloud_frame::Frame::Drain(_) if self.declared_by.is_some() => Err(End::Drained),
            cloud_frame::Frame::Drain(_) => {
                self.draining = true;
                self.tell(Happened::Draining).await
            }
            cloud_frame::Frame::Begin(answer) => self.prove(&answer).await,
            cloud_frame::Frame::Finish(answer) => self.renewed(&answer),
            cloud_frame::Frame::Greet(_) => Err(End::Protocol("a second Greet")),
        }
    }

    async fn have(&mut self, have: wire::Have) -> Result<(), End> {
        let id = have.id;
        let Some(answer) = have.answer.as_ref().filter(|_| self.shared.inbox.was_ever_wanted(id)) else {
            return Err(End::Protocol("a delivery that was never asked for"));
        };
        let version = authentic(answer, id, &self.nonce, &self.listed);
        let key = match answer {
            // The key that it names is burnt, whatever comes of it.
            wire::have::Answer::Sealed(sealed) => claimed_key(sealed).and_then(|index| self.keys.take(index)),
            _ if have.encoded_len() > MAX_OTHER => return Err(End::Protocol("a frame larger than its kind may be")),
            _ => None,
        };
        let delivered = match answer {
            wire::have::Answer::Sealed(_) => Delivered::Sealed { authentic: version.is_some(), key: key.is_some() },
            wire::have::Answer::Gone(_) => Delivered::Gone(version),
            wire::have::Answer::Denied(_) => Delivered::Denied { asked: self.shared.inbox.awaits(id) },
        };
        let counts = self.received.take(id, delivered);
        let (nonce, identity, listed) = (&self.nonce, &self.session.identity, &self.listed);
        let via = Via { stream: self.number, nonce, suite: self.suite };
        match self.shared.inbox.arrived(&via, have, counts, key, identity, listed) {
            Some(place) => drop(self.shared.arrivals.send(place).await),
            None => {
                let dropped = self.shared.inbox.dropped();
                tracing::debug!(want = id, dropped, "a delivery for a want that is no more was dropped");
            }
        }
        Ok(())
    }

    async fn beat(&mut self, signed: &wire::Signed) -> Result<(), End> {
        let body = self
            .session
            .keyset
            .join
            .body(Label::Beat, signed)
            .map_err(|_| End::Protocol("a beat that the cloud did not sign"))?;
        let beat = wire::Beat::decode(body).map_err(|_| End::Protocol("a beat that does not decode"))?;
        if beat.stream_nonce != self.nonce || beat.seq > self.seq {
            return Err(End::Protocol("a beat of another stream"));
        }
        let (seq, haves, server_time_ms) = self.last_beat;
        if beat.seq < seq || beat.haves < haves || beat.server_time_ms <= server_time_ms {
            return Err(End::Protocol("a beat that was heard before"));
        }
        self.last_beat = (beat.seq, beat.haves, beat.server_time_ms);
        self.beat_by = Instant::now() + BEAT_BY;
        let received = self.received.count();
        if beat.haves > received {
            return Err(End::Withheld);
        }
        if beat.haves < received {
            return Err(End::Protocol("more deliveries than the cloud sent"));
        }
        self.shared.identity.hear(&self.session, beat.server_time_ms).map_err(|e| End::Refused(e.into()))?;
        let now = clock::now();
        let acknowledged = self.asks.iter().rev().find(|(seq, _)| *seq <= beat.seq).map(|(_, sent)| *sent);
        if self.asks.iter().any(|(seq, sent)| *seq > beat.seq && now.since(*sent) >= LAGS) {
            return Err(End::Withheld);
        }
        self.asks.retain(|(seq, _)| *seq >= beat.seq);
        let fresh = acknowledged.filter(|sent| now.since(*sent) < FRESH);
        // One delivery that came through, or a minute without any, ends the suspicion.
        let whole = fresh.is_some() && (received > 0 || now.since(self.opened) >= FRESH);
        let full = self.declared_by.is_some_and(|seq| beat.seq >= seq);
        self.shared.state.send_modify(|state| {
            state.server_time = Some((beat.server_time_ms, now));
            // As old as what it acknowledges.
            state.fresh_at = state.fresh_at.max(fresh);
            if whole {
                state.withheld = 0;
            }
        });
        if full {
            self.declared_by = None;
            self.tell(Happened::Ready).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, what: Happened) -> Result<(), End> {
        self.shared.happened.send((self.number, what)).await.map_err(|_| End::Done)
    }

    /// Renewal is a join over the frames of the stream, with the same key: it keeps the epoch.
    fn renew(&mut self) {
        let identity = self.shared.identity.clone();
        self.renewal = Renewal::Gathering(async move { identity.begin().await }.boxed());
    }

    /// An answer that does not come is asked for again; one that comes after all belongs to nothing.
    fn give_up_renewal(&mut self) {
        self.renewal = Renewal::None;
        self.renew_at = Instant::now() + PATIENCE;
    }

    async fn begin(&mut self, (begun, request): (Begun, wire::BeginRequest)) -> Result<(), End> {
        self.renewal = Renewal::Begun(begun);
        self.renewal_by = Instant::now() + PATIENCE;
        self.send(agent_frame::Frame::Begin(request)).await
    }

    async fn prove(&mut self, answer: &wire::BeginResponse) -> Result<(), End> {
        let Renewal::Begun(begun) = std::mem::replace(&mut self.renewal, Renewal::None) else {
            return Err(End::Protocol("an answer to a renewal that was not begun"));
        };
        let (proved, finish) = self.shared.identity.prove(begun, answer).map_err(End::Refused)?;
        self.renewal = Renewal::Proved(proved);
        self.renewal_by = Instant::now() + PATIENCE;
        self.send(agent_frame::Frame::Finish(finish)).await
    }

    fn renewed(&mut self, answer: &wire::FinishResponse) -> Result<(), End> {
        let Renewal::Proved(proved) = std::mem::replace(&mut self.renewal, Renewal::None) else {
            return Err(End::Protocol("the end of a renewal that was not begun"));
        };
        let session = self.shared.identity.finish(proved, answer, Some(&self.session)).map_err(End::Refused)?;
        tracing::debug!(lives_s = session.identity.lives.as_secs(), "the access token was renewed");
        Ok(())
    }

    /// Whoever renewed it, the newest session counts for every stream of its epoch.
    fn take_up_session(&mut self) {
        let newest = self.shared.identity.session();
        let Some(newest) = newest.filter(|newest| !Arc::ptr_eq(newest, &self.session)) else { return };
        let (old, new) = (&self.session.identity, &newest.identity);
        if old.agent_id == new.agent_id && old.epoch == new.epoch {
            self.listed = Arc::new(newest.keyset.payload.clone());
            self.renew_at = Instant::now() + newest.renews_in(clock::now(), spread());
            self.session = newest;
        }
    }
}
