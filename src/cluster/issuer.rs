//! The cluster as an issuer of ServiceAccount tokens: its discovery document and its public keys, for those who verify tokens
//! without reaching this API server (KEP-1393). Every ServiceAccount may read both, by the default ClusterRole
//! `system:service-account-issuer-discovery`.

use crate::cluster::DEADLINE;
use crate::cluster::error::ClusterError;
use kube::Client;
use serde::Deserialize;
use tokio::time::timeout;

/// A cloud takes no larger key set.
const MAX_JWKS: usize = 64 * 1024;

/// `issuer` of the discovery document, and the JSON Web Key Set as served.
pub struct Published {
    /// The issuer's URL.
    pub issuer: String,
    /// JSON, public.
    pub jwks: Vec<u8>,
}

/// Reads what the API server publishes.
#[derive(Clone)]
pub struct IssuerDiscovery(Client);

impl IssuerDiscovery {
    /// Over this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Both documents, as they are now.
    ///
    /// # Errors
    /// [`ClusterError`], as where an administrator has removed the default binding.
    pub async fn read(&self) -> Result<Published, ClusterError> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
        }
        let document = self.get("/.well-known/openid-configuration").await?;
        let Document { issuer } = serde_json::from_str(&document).map_err(|_| ClusterError::Unreadable)?;
        let jwks = self.get("/openid/v1/jwks").await?.into_bytes();
        if jwks.len() > MAX_JWKS { Err(ClusterError::Unreadable) } else { Ok(Published { issuer, jwks }) }
    }

    async fn get(&self, path: &str) -> Result<String, ClusterError> {
        let request = http::Request::get(path).body(vec![]).map_err(|_| ClusterError::Unreadable)?;
        let answer = timeout(DEADLINE, self.0.request_text(request)).await.map_err(|_| ClusterError::TimedOut)?;
        answer.map_err(ClusterError::from)
    }
}
