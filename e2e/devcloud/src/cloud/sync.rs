//! SyncService: starts one task for each stream.

use super::stream;
use crate::core::Core;
use crate::wire::sync_service_server::SyncService;
use crate::wire::{AgentFrame, CloudFrame};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Frames that wait for HTTP/2 to take them. Few: what is not in here yet can still collapse.
const OUTBOUND: usize = 8;

/// Answers Sync.
pub(super) struct Sync(pub(super) Arc<Core>);

#[tonic::async_trait]
impl SyncService for Sync {
    type SyncStream = ReceiverStream<Result<CloudFrame, Status>>;

    async fn sync(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Self::SyncStream>, Status> {
        let (outbound, frames) = mpsc::channel(OUTBOUND);
        tokio::spawn(stream::run(self.0.clone(), request.into_inner(), outbound));
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}
