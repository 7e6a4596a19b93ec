//! Purpose: observe and change the cluster; the only user of `kube::Client`.
//!
//! Guarantees: every call has a deadline and is tried once (retries belong to the controllers, where they can be seen);
//! Secrets are read as metadata only. May import: `crd`, `domain`, `rollout`. Never `cloud`.

mod body;
pub mod error;
pub mod secrets;
pub mod status;
pub mod watch;
pub mod workloads;

use crate::cluster::error::ClusterError;
use kube::{Client, Config};
use std::time::Duration;

/// Deadline of one call, in all its parts.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// Connects: the kubeconfig when KUBECONFIG names one, else the pod's ServiceAccount.
///
/// # Errors
/// `ClusterError::Configure` when neither is there.
pub async fn connect() -> Result<Client, ClusterError> {
    let mut config = Config::infer().await.map_err(|e| ClusterError::Configure(Box::new(e)))?;
    // kube retries 429, 503 and 504 up to 15 times without a word: an outage would look like a hang.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|e| ClusterError::Connect(Box::new(e)))
}
