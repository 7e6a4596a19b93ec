//! A join by the two unary calls; a renewal sends the same messages over the stream.

use crate::cloud::stream::PATIENCE;
use crate::identity::access_token::Identity;
use crate::identity::join::{Credentials, Join, JoinError};
use crate::identity::signing_key::AgentKey;
use crate::identity::trust::{Keyset, Trust};
use crate::wire;
use rand_core::CryptoRng;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

/// Joins by the two unary calls.
///
/// # Errors
/// A status of the cloud, or a refusal on our side.
pub async fn join(
    channel: Channel,
    key: &AgentKey,
    trust: &Mutex<Trust>,
    credentials: &Credentials,
    build: &str,
    rng: &mut impl CryptoRng,
) -> Result<(Identity, Keyset), JoinFailure> {
    let mut client = wire::identity_service_client::IdentityServiceClient::new(channel);
    let join = Join::begin(key, build, rng);
    let answer = within(client.begin(join.request())).await?;
    let (proved, finish) = {
        let mut trust = trust.lock().unwrap_or_else(PoisonError::into_inner);
        join.prove(&answer, &mut trust, key, credentials, rng)?
    };
    let answer = within(client.finish(finish)).await?;
    Ok(proved.finish(&answer)?)
}

async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, JoinFailure> {
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
