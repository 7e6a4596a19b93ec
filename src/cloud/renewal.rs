//! Where a renewal of the access token stands, on the stream that it goes over.

use crate::cloud::identity_service::Begun;
use crate::identity::join::{JoinError, Proved};
use crate::wire;
use futures::future::BoxFuture;

/// One at a time.
pub(super) enum Renewal {
    None,
    /// Files and cluster are asked for what there is to show.
    Gathering(BoxFuture<'static, Result<(Begun, wire::BeginRequest), JoinError>>),
    Begun(Begun),
    Proved(Proved),
}

impl Renewal {
    /// For an answer of the cloud.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Begun(_) | Self::Proved(_))
    }

    /// Ends with what was gathered; never, if nothing is.
    pub(super) async fn gathered(&mut self) -> Result<(Begun, wire::BeginRequest), JoinError> {
        match self {
            Self::Gathering(future) => future.await,
            _ => std::future::pending().await,
        }
    }
}
