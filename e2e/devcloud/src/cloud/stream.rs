//! One Sync stream: greet, open, then asks in and answers out until it ends.
//!
//! Runs in a task of its own. Frames go out in the order in which they are decided, so the count of `Have`s in a beat is
//! exactly what went before it.

use super::books::{Books, Word};
use super::lookup::look;
use super::timers::{Event, Timers};
use crate::core::{Begun, Core, News, Refusal, Registration, Role};
use crate::delivery::{Answer, BadAsk, Delivery, Wanted};
use crate::envelope;
use crate::names::quoted;
use crate::signed::{self, Label};
use crate::store::{Agent, Version};
use crate::suite::Suite;
use crate::wire::{self, agent_frame, cloud_frame};
use crate::{clock, entropy};
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

const OPENING: Duration = Duration::from_secs(10);
/// How long a stream is served after this process was asked to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// How long the last word may wait for a peer that does not read.
const FAREWELL: Duration = Duration::from_secs(1);

/// Frames that may wait for a peer that does not read; until it does, it is not heard.
const MAX_OUTBOX: usize = 16;

type Outbound = mpsc::Sender<Result<wire::CloudFrame, Status>>;

/// Why a stream ended.
enum End {
    /// The agent ended it, or the connection broke.
    Closed,
    /// We end it.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves a stream to its end.
pub(super) async fn run(core: Arc<Core>, mut inbound: Streaming<wire::AgentFrame>, outbound: Outbound) {
    let end = match open(&core, &mut inbound, &outbound).await {
        Ok(mut stream) => {
            let end = stream.serve(&mut inbound, &outbound).await;
            if stream.delivers() {
                stream.books.close().await;
            }
            let reason = match &end {
                End::Closed => "CLOSED",
                End::Refused(refusal) => refusal.reason(),
            };
            tracing::info!(
                agent = stream.agent.name,
                epoch = stream.agent.epoch,
                reason,
                haves = stream.haves,
                "stream ended"
            );
            end
        }
        Err(end) => {
            if let End::Refused(refusal) = &end {
                tracing::info!(reason = refusal.reason(), "stream refused");
            }
            end
        }
    };
    if let End::Refused(refusal) = end {
        // A peer that does not read is not waited for.
        let _unheard = timeout(FAREWELL, outbound.send(Err(refusal.into()))).await;
    }
}

/// Greets and waits for the agent's signed open.
async fn open(core: &Arc<Core>, inbound: &mut Streaming<wire::AgentFrame>, outbound: &Outbound) -> Result<Stream, End> {
    let nonce: [u8; 32] = entropy::bytes();
    let greet = cloud_frame::Frame::Greet(wire::Greet { stream_nonce: nonce.to_vec() });
    outbound.send(Ok(frame(greet))).await.map_err(|_| End::Closed)?;
    let first = tokio::select! {
        first = timeout(OPENING, inbound.message()) => first,
        () = core.hub.stopped() => return Err(Refusal::Stopping.into()),
    };
    let first = first.map_err(|_| Refusal::Silent)?.map_err(|_| End::Closed)?.ok_or(End::Closed)?;
    let Some(agent_frame::Frame::Open(opening)) = first.frame else {
        return Err(Refusal::Malformed("the first frame of a stream is open").into());
    };
    // Heard from before the agent is read, so that no change falls between.
    let news = core.hub.listen();
    let now_ms = clock::now_ms();
    let (agent, token) = core.open_stream(&nonce, &opening, now_ms)?;
    let registration = core.hub.register(&agent.id, agent.epoch);
    let (suite, evictions, build) = (token.suite, token.evictions, &agent.build);
    tracing::info!(agent = agent.name, epoch = agent.epoch, ?suite, build, "stream opened");
    let lives = &core.lives;
    let token = Duration::from_millis(token.expires_at_ms.saturating_sub(now_ms).unsigned_abs());
    let now = Instant::now();
    let timers = Timers::start(now, lives.beat_interval, lives.silence, lives.stream_life, entropy::fraction(), token);
    let delivery = Delivery::new(agent.workspace.clone(), suite);
    let books = Books::open(core.clone(), agent.id.clone(), agent.epoch);
    Ok(Stream {
        core: core.clone(),
        nonce,
        suite,
        evictions,
        agent,
        registration,
        news,
        timers,
        delivery,
        books,
        begun: None,
        outbox: VecDeque::new(),
        haves: 0,
        beat_ms: 0,
    })
}

struct Stream {
    core: Arc<Core>,
    nonce: [u8; 32],
    suite: Suite,
    /// Of the access token.
    evictions: u64,
    agent: Agent,
    registration: Registration,
    news: broadcast::Receiver<News>,
    timers: Timers,
    delivery: Delivery,
    /// What `secret status` shows of its bindings.
    books: Books,
    /// The challenge of a renewal, good on this stream only.
    begun: Option<Begun>,
    /// Frames that go before the next `Have`.
    outbox: VecDeque<cloud_frame::Frame>,
    haves: u64,
    /// Of the last beat: an agent refuses one that is not later.
    beat_ms: i64,
}

impl Stream {
    async fn serve(&mut self, inbound: &mut Streaming<wire::AgentFrame>, outbound: &Outbound) -> End {
        let mut stopped = self.core.hub.stopped();
        let mut told_to_stop = false;
        loop {
            let (deadline, event) = self.timers.next();
            let newest = self.delivers();
            let sendable = !self.outbox.is_empty() || (newest && self.delivery.has_work());
            let audible = self.outbox.len() < MAX_OUTBOX && self.books.has_room();
            let step = tokio::select! {
                received = inbound.message(), if audible => match received {
                    Ok(Some(received)) => self.receive(received).await,
                    Ok(None) | Err(_) => Err(End::Closed),
                },
                news = self.news.recv() => self.hear(news),
                changed = self.registration.role.changed() => self.role_changed(changed.is_ok()),
                permit = outbound.reserve(), if sendable => match permit {
                    Err(_) => Err(End::Closed),
                    Ok(permit) => self.next_frame().map(|next| if let Some(next) = next { permit.send(Ok(frame(next))) }),
                },
                written = self.books.written(), if newest => written.map_err(End::from),
                () = sleep_until(deadline) => self.time(event),
                () = &mut stopped, if !told_to_stop => {
                    told_to_stop = true;
                    self.drain(STOP_GRACE);
                    Ok(())
                }
            };
            if let Err(end) = step {
                return match end {
                    End::Refused(Refusal::StreamOver) if told_to_stop => Refusal::Stopping.into(),
                    end => end,
                };
            }
        }
    }

    async fn receive(&mut self, received: wire::AgentFrame) -> Result<(), End> {
        self.timers.heard(Instant::now());
        match received.frame {
            Some(agent_frame::Frame::Ask(ask)) => self.ask(&ask),
            Some(agent_frame::Frame::Begin(begin)) => self.begin(&begin).await,
            Some(agent_frame::Frame::Finish(finish)) => self.finish(&finish).await,
            Some(agent_frame::Frame::Open(_)) => Err(Refusal::Malformed("a stream is opened once").into()),
            // A frame of a later version of the protocol.
            None => Ok(()),
        }
    }

    fn ask(&mut self, signed: &wire::Signed) -> Result<(), End> {
        let body = signed::body(&self.agent.agent_key, Label::Ask, signed).map_err(|_| Refusal::Unproven)?;
        let mut ask = wire::Ask::decode(body).map_err(|_| Refusal::Malformed("the ask does not decode"))?;
        if ask.stream_nonce != self.nonce {
            return Err(Refusal::Unproven.into());
        }
        let word = Word::of(&mut ask, &self.delivery);
        let (first, declares) = (ask.seq == 1, self.delivery.declares(&ask));
        self.delivery.ask(ask).map_err(|bad| match bad {
            BadAsk::Sequence => Refusal::Sequence,
            BadAsk::Malformed(what) => Refusal::Malformed(what),
            BadAsk::Spent => Refusal::StreamOver,
        })?;
        self.books.note(word, &self.delivery);
        match () {
            () if first => self.beat(),
            () if declares => self.timers.declared(Instant::now()),
            () => (),
        }
        Ok(())
    }

    async fn begin(&mut self, request: &wire::BeginRequest) -> Result<(), End> {
        self.core.refresh_keyset().await.map_err(Refusal::from)?;
        let (begun, answer) = self.core.challenge(request, clock::now_ms())?;
        if *begun.agent_key() != self.agent.agent_key {
            return Err(Refusal::Challenge.into());
        }
        self.begun = Some(begun);
        self.outbox.push_back(cloud_frame::Frame::Begin(answer));
        Ok(())
    }

    async fn finish(&mut self, request: &wire::FinishRequest) -> Result<(), End> {
        let begun = self.begun.take().ok_or(Refusal::Challenge)?;
        let proven = self.core.prove(begun, request, clock::now_ms())?;
        let answer = self.core.renew(&self.agent.id, self.agent.epoch, proven).await?;
        self.timers.renewed(Instant::now(), self.core.lives.access_token_life);
        self.outbox.push_back(cloud_frame::Frame::Finish(answer));
        Ok(())
    }

    fn hear(&mut self, news: Result<News, broadcast::error::RecvError>) -> Result<(), End> {
        match news {
            Ok(News::Secret { workspace, secret }) => self.delivery.secret_changed(&workspace, &secret),
            Ok(News::Agent { agent_id }) if agent_id == self.agent.id => self.agent_changed()?,
            Ok(News::Agent { .. }) => (),
            Ok(News::Keyset) => self.keyset_changed()?,
            // More than could be kept: anything may have changed.
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.keyset_changed()?;
                self.agent_changed()?;
            }
            Err(broadcast::error::RecvError::Closed) => return Err(Refusal::Stopping.into()),
        }
        Ok(())
    }

    /// Grants, epoch or revocation may have changed: ends the stream, or looks at every want again.
    fn agent_changed(&mut self) -> Result<(), End> {
        let epoch = self.agent.epoch;
        self.agent = self.core.agent(&self.agent.id)?.ok_or(Refusal::EpochUnknown)?;
        let now = self.agent.epoch;
        // What is said in the log at the end is about this stream, not about its successor.
        self.agent.epoch = epoch;
        match () {
            () if self.agent.revoked || self.agent.banned => Err(Refusal::Banned.into()),
            () if now != epoch => Err(Refusal::Superseded.into()),
            () => {
                self.delivery.everything_changed();
                Ok(())
            }
        }
    }

    fn keyset_changed(&self) -> Result<(), End> {
        if self.core.keys().evictions == self.evictions { Ok(()) } else { Err(Refusal::Evicted.into()) }
    }

    fn role_changed(&mut self, alive: bool) -> Result<(), End> {
        let role = self.registration.role.borrow_and_update().clone();
        match role {
            Role::Over(refusal) => Err(refusal.into()),
            Role::Newest | Role::Older if alive => Ok(()),
            Role::Newest | Role::Older => Err(Refusal::Internal.into()),
        }
    }

    fn delivers(&self) -> bool {
        *self.registration.role.borrow() == Role::Newest
    }

    fn time(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Beat => self.beat(),
            Event::Drain => self.drain(self.core.lives.drain_grace),
            Event::TokenExpired => return Err(Refusal::TokenExpired.into()),
            Event::Silent => return Err(Refusal::Silent.into()),
            Event::Over => return Err(Refusal::StreamOver.into()),
        }
        Ok(())
    }

    fn beat(&mut self) {
        self.beat_ms = clock::now_ms().max(self.beat_ms + 1);
        let beat = wire::Beat {
            stream_nonce: self.nonce.to_vec(),
            seq: self.delivery.seq(),
            haves: self.haves,
            wants: self.delivery.wants() as u64,
            server_time_ms: self.beat_ms,
        };
        let beat = signed::sign(&self.core.keys().join, Label::Beat, beat.encode_to_vec());
        self.outbox.push_back(cloud_frame::Frame::Beat(beat));
        self.timers.beaten(Instant::now());
        self.books.beaten();
    }

    fn drain(&mut self, grace: Duration) {
        self.timers.draining(Instant::now(), grace);
        let grace_s = u32::try_from(grace.as_secs()).unwrap_or(u32::MAX);
        self.outbox.push_back(cloud_frame::Frame::Drain(wire::Drain { grace_s }));
    }

    /// Called with room for one frame.
    fn next_frame(&mut self) -> Result<Option<cloud_frame::Frame>, End> {
        if let Some(next) = self.outbox.pop_front() {
            return Ok(Some(next));
        }
        let (core, agent) = (&self.core, &self.agent);
        let Some(answer) = self.delivery.next(|wanted, known| look(core, agent, wanted, known))? else {
            return Ok(None);
        };
        let have = self.have(answer)?;
        self.haves += 1;
        Ok(Some(cloud_frame::Frame::Have(have)))
    }

    fn have(&self, answer: Answer<Version>) -> Result<wire::Have, End> {
        let (id, answer) = match answer {
            Answer::Denied(wanted, reason) => {
                let no_grant = reason == wire::denied::Reason::NoGrant;
                let grant = if no_grant { self.grant_text(&wanted) } else { String::new() };
                (wanted.id, wire::have::Answer::Denied(wire::Denied { reason: reason as i32, grant }))
            }
            Answer::Gone(wanted, tombstone) => {
                let signer = &self.core.keys().payload;
                (wanted.id, wire::have::Answer::Gone(envelope::gone(&self.describe(&wanted, &tombstone)?, signer)))
            }
            Answer::Sealed(wanted, version, key) => {
                let stamp_key = self.core.stamp_key(&wanted.workspace, &wanted.secret);
                let payload = version.payload.as_deref().unwrap_or_default();
                let (delivery, signer) = (self.describe(&wanted, &version)?, &self.core.keys().payload);
                let answer = match self.core.faults.of_secret(&wanted.secret) {
                    None => {
                        let rng = &mut entropy::system();
                        envelope::seal(&delivery, &key, &stamp_key, payload.as_bytes(), signer, rng)
                            .map(wire::have::Answer::Sealed)
                    }
                    Some(fault) => fault.deliver(&delivery, &key, &stamp_key, payload.as_bytes(), signer),
                };
                let unfit = |_| Refusal::Malformed("a session key is no public key of the stream's suite");
                (wanted.id, answer.map_err(unfit)?)
            }
        };
        Ok(wire::Have { id, answer: Some(answer) })
    }

    fn describe(&self, wanted: &Wanted, version: &Version) -> Result<envelope::Delivery, Refusal> {
        let kind: crate::payload::Kind = version.kind.parse().map_err(|_| {
            tracing::error!(kind = version.kind, "a version of an unknown type");
            Refusal::Internal
        })?;
        Ok(envelope::Delivery {
            agent_id: self.agent.id.clone(),
            epoch: self.agent.epoch,
            suite: self.suite,
            stream_nonce: self.nonce,
            want_id: wanted.id,
            namespace: wanted.namespace.clone(),
            binding: wanted.binding.clone(),
            binding_uid: wanted.binding_uid.clone(),
            organization: self.core.organization().to_owned(),
            workspace: wanted.workspace.clone(),
            secret: wanted.secret.clone(),
            kind_of_secret: kind.on_wire(),
            version: version.version,
            committed_at_ms: version.committed_at_ms,
        })
    }

    /// The least that would help, as `agent grant` takes it.
    fn grant_text(&self, wanted: &Wanted) -> String {
        let mut text = format!("{} --namespace {}", quoted(&self.agent.name), quoted(&wanted.namespace));
        if wanted.workspace != self.agent.workspace {
            text.push_str(&format!(" --workspace {}", quoted(&wanted.workspace)));
        }
        text.push_str(&format!(" --secret {}", quoted(&wanted.secret)));
        text
    }
}

fn frame(frame: cloud_frame::Frame) -> wire::CloudFrame {
    wire::CloudFrame { frame: Some(frame) }
}
