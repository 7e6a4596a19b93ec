//! Purpose: observe and change the cluster; the only user of `kube::Client`.
//!
//! Guarantees: every call has a deadline and is tried once (retries belong to the controllers, where they can be seen);
//! Secrets are read as metadata only. May import: `crd`, `domain`, `rollout`. Never `cloud`.

mod body;
pub mod error;
pub mod issuer;
pub mod policy;
pub mod rights;
pub mod secrets;
pub mod served;
pub mod status;
pub mod watch;
pub mod workloads;

use crate::cluster::error::ClusterError;
use crate::rollout::workload::Kind;
use kube::{Client, Config};
use std::time::Duration;

/// Deadline of one call, in all its parts.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// Answers as metadata: no value comes back.
const AS_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Group with version, and plural, of a kind of workload.
fn plural(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Deployment => ("apps/v1", "deployments"),
        Kind::StatefulSet => ("apps/v1", "statefulsets"),
        Kind::DaemonSet => ("apps/v1", "daemonsets"),
        Kind::Rollout => ("argoproj.io/v1alpha1", "rollouts"),
    }
}

/// Connects: the kubeconfig when KUBECONFIG names one, else the pod's ServiceAccount.
///
/// # Errors
/// `ClusterError::Configure` when neither is there.
pub async fn connect() -> Result<Client, ClusterError> {
    connect_as(None).await
}

/// The same, as somebody else where the own user may act for that one.
///
/// # Errors
/// As [`connect`].
pub async fn connect_as(user: Option<&str>) -> Result<Client, ClusterError> {
    let mut config = Config::infer().await.map_err(|e| ClusterError::Configure(Box::new(e)))?;
    if let Some(user) = user {
        config.auth_info.impersonate = Some(user.to_owned());
    }
    client(config)
}

fn client(mut config: Config) -> Result<Client, ClusterError> {
    // kube retries 429, 503 and 504 up to 15 times without a word: an outage would look like a hang.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|e| ClusterError::Connect(Box::new(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::secrets::{Grants, Secrets};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_call_is_tried_once_and_its_failure_is_seen() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = socket
                    .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
            }
        });
        let secrets = Secrets::new(client(Config::new(url)).unwrap(), Grants { read: true, by_name: false });
        let error = secrets.fetch("shop", "db").await.unwrap_err();
        assert_eq!((error.code(), asked.load(Ordering::SeqCst)), (Some(503), 1));
    }
}
