//! What the right to a Secret depends on, as the watches show it.

use crate::cluster::error::{Chain, ClusterError};
use crate::controller::context::Context;
use crate::crd::{EnnoteSecretBinding, Mode};
use crate::domain::content::binding_id;
use crate::domain::metadata::{self, Metadata};
use crate::domain::observed::{Observed, Owner};
use crate::domain::ownership::{Rights, Rival};
use crate::domain::request::Request;
use crate::domain::sync_plan::Step;
use kube::runtime::reflector::ObjectRef;

impl Context {
    /// The rights of all bindings to the target of one, as of now.
    pub fn rights(&self, binding: &EnnoteSecretBinding, request: &Request, observed: &Observed) -> Rights {
        let namespace = &request.namespace;
        let aiming = self.targets.bindings(namespace, request.target.as_str());
        let rival = |other: &EnnoteSecretBinding| {
            let name = other.metadata.name.clone().unwrap_or_default();
            let lives = other.metadata.deletion_timestamp.is_none() && name != request.binding;
            let observes = other.spec.mode == Some(Mode::Observe);
            lives.then(|| Rival { created: created(other), aims_here: aiming.contains(&name), observes, name })
        };
        let get = |name: &String| self.bindings.get(&ObjectRef::new(name).within(namespace));
        let mut rivals: Vec<Rival> = aiming.iter().filter_map(get).filter_map(|other| rival(&other)).collect();
        if let Observed::Present(secret) = observed
            && let Some(label) = secret.binding_id.as_ref().filter(|label| **label != request.binding_id())
            && !rivals.iter().any(|rival| binding_id(&rival.name) == *label)
        {
            let labelled = self.bindings.state_filter(|other| {
                other.metadata.namespace.as_ref() == Some(namespace)
                    && other.metadata.name.as_deref().is_some_and(|name| binding_id(name) == *label)
            });
            rivals.extend(labelled.iter().filter_map(|other| rival(other)));
        }
        let target = binding.status.as_ref().and_then(|status| status.target.as_ref());
        let held = target.filter(|target| target.name == request.target.as_str()).map(|target| target.uid.clone());
        Rights { created: created(binding), held, rivals }
    }
}

/// What carries another binding's label is owned before it is written: where Secrets cannot be read, the admission policy lets only
/// its owner write that label over. Gives who owned it before, if that was changed.
///
/// # Errors
/// The API server's refusal, but for one that something moved meanwhile.
pub(super) async fn own_first(
    request: &Request,
    observed: &mut Observed,
    step: &mut Step,
    context: &Context,
) -> Result<Option<Vec<Owner>>, ClusterError> {
    let (Observed::Present(secret), Step::Patch { draft, resource_version, .. }) = (&observed, step) else {
        return Ok(None);
    };
    let Some(owned) = metadata::claim(request, secret).filter(|_| context.looks.is_some()) else { return Ok(None) };
    match context.secrets.amend(&request.namespace, request.target.as_str(), secret, &owned).await {
        Ok(now) => {
            let before = secret.owners.clone();
            resource_version.clone_from(&now.resource_version);
            draft.metadata.owners = Some(metadata::owners(request, &now.owners));
            *observed = Observed::Present(Box::new(now));
            Ok(Some(before))
        }
        // The write that follows finds out the same, and everything is looked at again.
        Err(error) if error.is_stale() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The write was refused: what was only owned for it must not go with this binding.
pub(super) async fn give_back(request: &Request, observed: &Observed, before: Option<Vec<Owner>>, context: &Context) {
    let (Observed::Present(secret), Some(before)) = (observed, before) else { return };
    let (namespace, target) = (&request.namespace, request.target.as_str());
    let owners = Metadata { owners: Some(before), ..Metadata::default() };
    match context.secrets.amend(namespace, target, secret, &owners).await {
        Ok(now) => context.index.seen(namespace, target, now),
        Err(error) => tracing::warn!(
            namespace,
            secret = target,
            error = %Chain(&error),
            "the Secret is owned by this binding although it could not be written: it goes when the binding is deleted"
        ),
    }
}

fn created(binding: &EnnoteSecretBinding) -> Option<k8s_openapi::jiff::Timestamp> {
    binding.metadata.creation_timestamp.as_ref().map(|time| time.0)
}
