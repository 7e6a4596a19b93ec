//! What passes by, in one shape for the unary calls and the stream.

use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use prost::Message;
use tonic::Status;

/// Which call a message belongs to; calls of a kind count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// IdentityService.Begin.
    Begin(u64),
    /// IdentityService.Finish.
    Finish(u64),
    /// SyncService.Sync.
    Sync(u64),
}

/// A decoded message. Those of the unary calls are the frames that carry the same on a stream.
#[derive(Clone)]
pub enum Frame {
    /// From the agent.
    Agent(agent_frame::Frame),
    /// From the cloud.
    Cloud(cloud_frame::Frame),
}

impl Frame {
    /// As bytes of the wire.
    pub fn bytes(&self) -> Vec<u8> {
        match self.clone() {
            Self::Agent(frame) => wire::AgentFrame { frame: Some(frame) }.encode_to_vec(),
            Self::Cloud(frame) => wire::CloudFrame { frame: Some(frame) }.encode_to_vec(),
        }
    }

    /// What it is called in `sync.proto`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Agent(agent_frame::Frame::Open(_)) => "open",
            Self::Agent(agent_frame::Frame::Ask(_)) => "ask",
            Self::Agent(agent_frame::Frame::Begin(_)) => "hello",
            Self::Agent(agent_frame::Frame::Finish(_)) => "proof",
            Self::Cloud(cloud_frame::Frame::Greet(_)) => "greet",
            Self::Cloud(cloud_frame::Frame::Have(_)) => "have",
            Self::Cloud(cloud_frame::Frame::Beat(_)) => "beat",
            Self::Cloud(cloud_frame::Frame::Drain(_)) => "drain",
            Self::Cloud(cloud_frame::Frame::Begin(_)) => "challenge",
            Self::Cloud(cloud_frame::Frame::Finish(_)) => "joined",
        }
    }
}

/// What becomes of a message.
pub enum Fate {
    /// It goes on as it is.
    Pass,
    /// These go on in its place, each to the side that hears such frames. None: it is dropped.
    Instead(Vec<Frame>),
    /// The call ends with this status for the agent, and breaks for the cloud.
    End(Status),
}

impl Fate {
    /// It never arrives. An answer to a unary call that never arrives ends that call.
    pub fn dropped() -> Self {
        Self::Instead(Vec::new())
    }

    /// The call breaks as if a connection did.
    pub fn broken() -> Self {
        Self::End(broken())
    }
}

pub(super) fn broken() -> Status {
    Status::unavailable("the network")
}
