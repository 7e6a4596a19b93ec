//! Takes single rights from the agent and gives them back: how a scenario stops it between two writes, at exactly one place.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use ennote_harness::wait;
use ennote_harness::world::{RELEASE, World};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

/// The status of bindings, for [`Rights::without`].
pub const STATUS: (&str, &str) = ("ennotesecretbindings/status", "patch");
/// The stamp on Deployments, for [`Rights::without`].
pub const STAMP: (&str, &str) = ("deployments", "patch");

/// The chart's Role in the namespace of the release.
pub struct Rights {
    roles: Api<Role>,
    reviews: Api<SubjectAccessReview>,
    namespace: String,
    granted: Vec<PolicyRule>,
}

impl Rights {
    /// Reads what the chart grants.
    ///
    /// # Errors
    /// When there is no such Role.
    pub async fn of(world: &World) -> Result<Self> {
        let roles: Api<Role> = Api::namespaced(world.client.clone(), &world.namespace);
        let rules = roles.get(RELEASE).await?.rules.unwrap_or_default();
        // One rule a resource, so that a verb is taken from that one only.
        let granted = rules.iter().flat_map(|rule| {
            let resources = rule.resources.iter().flatten();
            resources.map(|resource| PolicyRule { resources: Some(vec![resource.clone()]), ..rule.clone() })
        });
        let (reviews, namespace) = (Api::all(world.client.clone()), world.namespace.clone());
        Ok(Self { granted: granted.collect(), roles, reviews, namespace })
    }

    /// Leaves the agent all that the chart grants but these (resource, verb); returns when the API server acts on it.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn without(&self, taken: &[(&str, &str)]) -> Result<()> {
        let keeps = |rule: &PolicyRule, verb: &str| !taken.contains(&(resource(rule), verb));
        let mut rules = self.granted.clone();
        for rule in &mut rules {
            let kept = rule.verbs.iter().filter(|verb| keeps(rule, verb)).cloned().collect();
            rule.verbs = kept;
        }
        rules.retain(|rule| !rule.verbs.is_empty());
        let patch = Patch::Merge(json!({ "rules": rules }));
        self.roles.patch(RELEASE, &PatchParams::default(), &patch).await.context("the agent's Role")?;
        for rule in &self.granted {
            for verb in &rule.verbs {
                self.until(rule, verb, keeps(rule, verb)).await?;
            }
        }
        Ok(())
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn restore(&self) -> Result<()> {
        self.without(&[]).await
    }

    async fn until(&self, rule: &PolicyRule, verb: &str, wanted: bool) -> Result<()> {
        let (name, sub) = resource(rule).split_once('/').unwrap_or((resource(rule), ""));
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{}:{RELEASE}", self.namespace)),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.namespace.clone()),
                    group: rule.api_groups.iter().flatten().next().cloned(),
                    resource: Some(name.to_owned()),
                    subresource: (!sub.is_empty()).then(|| sub.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        wait::until("RBAC to follow the Role", SOON, async || {
            let allowed = self.reviews.create(&PostParams::default(), &review).await?.status.is_some_and(|s| s.allowed);
            ensure!(allowed == wanted, "may {verb} {}: {allowed}", resource(rule));
            Ok(())
        })
        .await
    }
}

fn resource(rule: &PolicyRule) -> &str {
    rule.resources.iter().flatten().next().map_or("", String::as_str)
}
