//! Asks the API server what this client may do: one SelfSubjectAccessReview a right. Everybody may ask about themselves, by the
//! default ClusterRole `system:basic-user`.

use crate::cluster::DEADLINE;
use crate::cluster::error::ClusterError;
use crate::domain::rights::Right;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::timeout;

/// Questions at the same time; more would open a connection each.
const CONCURRENCY: usize = 4;

/// Asks on behalf of whoever the client is.
#[derive(Clone)]
pub struct Reviews(Client);

impl Reviews {
    /// Over this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Those of the rights that are not granted in a namespace.
    ///
    /// # Errors
    /// A question that was not answered: nothing is known then.
    pub async fn missing(&self, namespace: &str, rights: &[Right]) -> Result<Vec<Right>, ClusterError> {
        let asked: Vec<BoxFuture<'_, Result<(Right, bool), ClusterError>>> =
            rights.iter().map(|right| self.ask(namespace, right.clone()).boxed()).collect();
        let answers: Vec<(Right, bool)> = stream::iter(asked).buffered(CONCURRENCY).try_collect().await?;
        Ok(answers.into_iter().filter(|(_, granted)| !granted).map(|(right, _)| right).collect())
    }

    /// The name by which the API server knows this client; `None` where it does not tell (Kubernetes before 1.28).
    pub async fn user(&self) -> Option<String> {
        let api: Api<SelfSubjectReview> = Api::all(self.0.clone());
        let params = PostParams::default();
        let answer = timeout(DEADLINE, api.create(&params, &SelfSubjectReview::default())).await.ok()?.ok()?;
        answer.status?.user_info?.username
    }

    async fn ask(&self, namespace: &str, right: Right) -> Result<(Right, bool), ClusterError> {
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (right.resource, None),
        };
        let attributes = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            name: right.name.clone(),
            verb: Some(right.verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.0.clone());
        let params = PostParams::default();
        let answer = timeout(DEADLINE, api.create(&params, &review)).await.map_err(|_| ClusterError::TimedOut)??;
        Ok((right, answer.status.is_some_and(|status| status.allowed)))
    }
}
