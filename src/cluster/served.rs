//! What the API server says of itself: its version and time, and the schema that it serves. Every ServiceAccount may read both.

use crate::cluster::DEADLINE;
use crate::cluster::error::ClusterError;
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::version::Info;
use k8s_openapi::jiff::fmt::rfc2822;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::time::timeout;

/// Asks the API server about itself.
#[derive(Clone)]
pub struct Server(Client);

impl Server {
    /// Over this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Its version, and its `Date` header in Unix milliseconds.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn version(&self) -> Result<(String, Option<i64>), ClusterError> {
        let (body, date) = self.get("/version").await?;
        let info: Info = serde_json::from_slice(&body).map_err(|_| ClusterError::Unreadable)?;
        let at = date.and_then(|text| rfc2822::parse(&text).ok()).map(|at| at.timestamp().as_millisecond());
        Ok((info.git_version, at))
    }

    /// The published schema of bindings; `None` where none are served.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn schema(&self) -> Result<Option<Value>, ClusterError> {
        let document = match self.get("/openapi/v3/apis/ennote.io/v1alpha1").await {
            Ok((body, _)) => serde_json::from_slice::<Value>(&body).map_err(|_| ClusterError::Unreadable)?,
            Err(error) if error.code() == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let schemas = document["components"]["schemas"].as_object();
        let found = schemas.and_then(|all| all.iter().find(|(name, _)| name.ends_with(".EnnoteSecretBinding")));
        Ok(found.map(|(_, schema)| schema.clone()))
    }

    async fn get(&self, path: &str) -> Result<(Vec<u8>, Option<String>), ClusterError> {
        let request = http::Request::get(path).body(Body::empty()).map_err(|_| ClusterError::Unreadable)?;
        let answer = async {
            let response = self.0.send(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|_| ClusterError::Unreadable)?.to_bytes();
            if !head.status.is_success() {
                return Err(ClusterError::refused(head.status.as_u16(), &body));
            }
            let date = head.headers.get(http::header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
            Ok((body.to_vec(), date))
        };
        timeout(DEADLINE, answer).await.map_err(|_| ClusterError::TimedOut)?
    }
}
