//! IdentityService: the two unary calls of a join.

use crate::core::Core;
use crate::wire::identity_service_server::IdentityService;
use crate::wire::{BeginRequest, BeginResponse, FinishRequest, FinishResponse};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Answers Begin and Finish.
pub(super) struct Identity(pub(super) Arc<Core>);

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn begin(&self, request: Request<BeginRequest>) -> Result<Response<BeginResponse>, Status> {
        Ok(Response::new(self.0.begin(request.get_ref()).await?))
    }

    async fn finish(&self, request: Request<FinishRequest>) -> Result<Response<FinishResponse>, Status> {
        let answer = self.0.finish(request.get_ref()).await;
        Ok(Response::new(answer.inspect_err(|refusal| tracing::info!(reason = refusal.reason(), "join refused"))?))
    }
}
