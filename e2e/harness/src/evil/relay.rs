//! Both services, each call passed on to the real cloud message by message.

use super::frame::broken;
use super::record::Log;
use super::{Call, Fate, Frame, Record, Said};
use anyhow::Result;
use ennote_devcloud::wire::identity_service_client::IdentityServiceClient;
use ennote_devcloud::wire::identity_service_server::IdentityService;
use ennote_devcloud::wire::sync_service_client::SyncServiceClient;
use ennote_devcloud::wire::sync_service_server::SyncService;
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::StatusExt;

/// Larger than either end allows: refusing is not this proxy's part.
const MAX_FRAME: usize = 16 * 1024 * 1024;
/// Frames under way.
const ROOM: usize = 64;

type Attack = Box<dyn FnMut(Call, &Frame) -> Fate + Send>;

/// What all connections share.
pub(super) struct Shared {
    upstream: Channel,
    attack: Mutex<Attack>,
    log: Mutex<Log>,
    /// Begin, Finish, Sync.
    begun: Mutex<(u64, u64, u64)>,
    /// Ways into living streams.
    streams: Mutex<HashMap<u64, mpsc::WeakUnboundedSender<Frame>>>,
}

impl Shared {
    pub(super) fn new(upstream: Channel) -> Self {
        Self {
            upstream,
            attack: Mutex::new(Box::new(|_, _| Fate::Pass)),
            log: Mutex::default(),
            begun: Mutex::default(),
            streams: Mutex::default(),
        }
    }

    pub(super) fn attack(&self, attack: Attack) {
        *held(&self.attack) = attack;
    }

    pub(super) fn begun(&self) -> (u64, u64, u64) {
        *held(&self.begun)
    }

    pub(super) fn records(&self) -> Result<Vec<Record>> {
        held(&self.log).all()
    }

    pub(super) fn inject(&self, stream: u64, frame: Frame) -> bool {
        let way = held(&self.streams).get(&stream).and_then(mpsc::WeakUnboundedSender::upgrade);
        way.is_some_and(|way| way.send(frame).is_ok())
    }

    fn begin(&self, count: impl FnOnce(&mut (u64, u64, u64)) -> Call, metadata: &MetadataMap) -> Call {
        let call = count(&mut held(&self.begun));
        self.heard(call, Said::Metadata(format!("{:?}", metadata.clone().into_headers())));
        call
    }

    fn heard(&self, call: Call, said: Said) {
        held(&self.log).add(call, said);
    }

    fn ended(&self, call: Call, status: Status) -> Status {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        self.heard(call, Said::Ended(status.code(), reason, status.message().to_owned()));
        status
    }

    /// What goes on in place of what was heard.
    fn judge(&self, call: Call, frame: Frame) -> Result<Vec<Frame>, Status> {
        self.heard(call, Said::Frame(frame.clone()));
        match (held(&self.attack))(call, &frame) {
            Fate::Pass => Ok(vec![frame]),
            Fate::Instead(frames) => Ok(frames),
            Fate::End(status) => Err(status),
        }
    }

    /// [`Self::judge`] for a unary call, which has room for one message.
    fn judge_one<T>(&self, call: Call, frame: Frame, pick: impl FnMut(Frame) -> Option<T>) -> Result<T, Status> {
        self.judge(call, frame)?.into_iter().find_map(pick).ok_or_else(broken)
    }
}

/// The server that agents speak to.
#[derive(Clone)]
pub(super) struct Relay(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl IdentityService for Relay {
    async fn begin(&self, request: Request<wire::BeginRequest>) -> Result<Response<wire::BeginResponse>, Status> {
        let Self(shared) = self;
        let count = |begun: &mut (u64, u64, u64)| {
            begun.0 += 1;
            Call::Begin(begun.0)
        };
        let call = shared.begin(count, request.metadata());
        let frame = Frame::Agent(agent_frame::Frame::Begin(request.into_inner()));
        let request = shared.judge_one(call, frame, |frame| match frame {
            Frame::Agent(agent_frame::Frame::Begin(request)) => Some(request),
            _ => None,
        })?;
        let mut cloud = IdentityServiceClient::new(shared.upstream.clone());
        let answer = cloud.begin(request).await.map_err(|status| shared.ended(call, status))?.into_inner();
        shared
            .judge_one(call, Frame::Cloud(cloud_frame::Frame::Begin(answer)), |frame| match frame {
                Frame::Cloud(cloud_frame::Frame::Begin(answer)) => Some(answer),
                _ => None,
            })
            .map(Response::new)
    }

    async fn finish(&self, request: Request<wire::FinishRequest>) -> Result<Response<wire::FinishResponse>, Status> {
        let Self(shared) = self;
        let count = |begun: &mut (u64, u64, u64)| {
            begun.1 += 1;
            Call::Finish(begun.1)
        };
        let call = shared.begin(count, request.metadata());
        let frame = Frame::Agent(agent_frame::Frame::Finish(request.into_inner()));
        let request = shared.judge_one(call, frame, |frame| match frame {
            Frame::Agent(agent_frame::Frame::Finish(request)) => Some(request),
            _ => None,
        })?;
        let mut cloud = IdentityServiceClient::new(shared.upstream.clone());
        let answer = cloud.finish(request).await.map_err(|status| shared.ended(call, status))?.into_inner();
        shared
            .judge_one(call, Frame::Cloud(cloud_frame::Frame::Finish(answer)), |frame| match frame {
                Frame::Cloud(cloud_frame::Frame::Finish(answer)) => Some(answer),
                _ => None,
            })
            .map(Response::new)
    }
}

#[tonic::async_trait]
impl SyncService for Relay {
    type SyncStream = ReceiverStream<Result<wire::CloudFrame, Status>>;

    async fn sync(&self, request: Request<Streaming<wire::AgentFrame>>) -> Result<Response<Self::SyncStream>, Status> {
        let Self(shared) = self;
        let mut number = 0;
        let count = |begun: &mut (u64, u64, u64)| {
            begun.2 += 1;
            number = begun.2;
            Call::Sync(begun.2)
        };
        let call = shared.begin(count, request.metadata());
        let (to_cloud, outgoing) = mpsc::channel(ROOM);
        let mut cloud = SyncServiceClient::new(shared.upstream.clone()).max_decoding_message_size(MAX_FRAME);
        let answers = cloud.sync(ReceiverStream::new(outgoing)).await.map_err(|status| shared.ended(call, status))?;
        let (to_agent, answered) = mpsc::channel(ROOM);
        let (way, injected) = mpsc::unbounded_channel();
        held(&shared.streams).insert(number, way.downgrade());
        let stream = Stream { shared: shared.clone(), call, to_cloud, to_agent, _way: way };
        tokio::spawn(stream.relay(request.into_inner(), answers.into_inner(), injected));
        Ok(Response::new(ReceiverStream::new(answered)))
    }
}

struct Stream {
    shared: Arc<Shared>,
    call: Call,
    to_cloud: mpsc::Sender<wire::AgentFrame>,
    to_agent: mpsc::Sender<Result<wire::CloudFrame, Status>>,
    /// As long as this lives, frames can be injected.
    _way: mpsc::UnboundedSender<Frame>,
}

impl Stream {
    async fn relay(
        self,
        mut agent: Streaming<wire::AgentFrame>,
        mut cloud: Streaming<wire::CloudFrame>,
        mut injected: mpsc::UnboundedReceiver<Frame>,
    ) {
        loop {
            let frames = tokio::select! {
                heard = agent.message() => match heard {
                    Ok(Some(wire::AgentFrame { frame: Some(frame) })) => self.shared.judge(self.call, Frame::Agent(frame)),
                    // A frame of another version of the protocol.
                    Ok(Some(wire::AgentFrame { frame: None })) => continue,
                    Ok(None) | Err(_) => return,
                },
                heard = cloud.message() => match heard {
                    Ok(Some(wire::CloudFrame { frame: Some(frame) })) => self.shared.judge(self.call, Frame::Cloud(frame)),
                    Ok(Some(wire::CloudFrame { frame: None })) => continue,
                    Ok(None) => return,
                    Err(status) => Err(self.shared.ended(self.call, status)),
                },
                Some(frame) = injected.recv() => Ok(vec![frame]),
                () = self.to_agent.closed() => return,
            };
            let sent = match frames {
                Ok(frames) => self.send(frames).await,
                Err(status) => {
                    // An agent that is gone hears no status.
                    let _gone = self.to_agent.send(Err(status)).await;
                    None
                }
            };
            if sent.is_none() {
                return;
            }
        }
    }

    /// `None` when one of the ends is gone.
    async fn send(&self, frames: Vec<Frame>) -> Option<()> {
        for frame in frames {
            match frame {
                Frame::Agent(frame) => self.to_cloud.send(wire::AgentFrame { frame: Some(frame) }).await.ok()?,
                Frame::Cloud(frame) => self.to_agent.send(Ok(wire::CloudFrame { frame: Some(frame) })).await.ok()?,
            }
        }
        Some(())
    }
}

/// No holder of these locks can fail half-way.
fn held<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
