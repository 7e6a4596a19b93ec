//! Which workloads restart for which bindings, both ways, and what wakes either.

use crate::controller::context::Context;
use crate::crd::{EnnoteSecretBinding, RolloutWorkloads};
use crate::domain::request::Request;
use crate::rollout::opt_in::{OptIn, OptInRules};
use crate::rollout::workload::Workload;
use kube::runtime::reflector::ObjectRef;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Context {
    /// Wakes the workloads that restart for a binding.
    pub fn wake_workloads_of(&self, binding: &EnnoteSecretBinding, request: &Request) {
        for workload in self.workloads_of(binding, request) {
            // The receiver lives as long as the controller; at shutdown nobody has to be woken.
            let _ = self.workload_wakes.send(ObjectRef::from_obj(workload.as_ref()));
        }
    }

    /// Wakes one workload, by KIND/NAME.
    pub fn wake_workload(&self, namespace: &str, workload: &str) {
        let _ = self.workload_wakes.send(ObjectRef::new(workload).within(namespace));
    }

    /// Wakes one binding.
    pub fn wake_binding(&self, namespace: &str, binding: &str) {
        let _ = self.binding_wakes.send(ObjectRef::new(binding).within(namespace));
    }

    /// The workloads that restart for a binding.
    pub fn workloads_of(&self, binding: &EnnoteSecretBinding, request: &Request) -> Vec<Arc<Workload>> {
        let (namespace, rules) = (request.namespace.as_str(), self.opt_in_rules(binding));
        let (name, target) = (request.binding.as_str(), request.target.as_str());
        self.seen_workloads.state_filter(|w| w.namespace() == namespace && w.restarts_for(name, target, &rules))
    }

    /// The bindings that a workload restarts for.
    pub fn bindings_of(&self, workload: &Workload) -> Vec<Arc<EnnoteSecretBinding>> {
        let namespace = workload.namespace();
        let names: BTreeSet<String> = match &workload.opt_in {
            OptIn::Never => return vec![],
            OptIn::Bindings(names) => names.clone(),
            OptIn::Auto | OptIn::Unsaid => {
                workload.secrets().iter().flat_map(|secret| self.targets.bindings(namespace, secret)).collect()
            }
        };
        let bindings = names.iter().filter_map(|name| self.binding(namespace, name));
        bindings
            .filter(|binding| {
                let name = binding.metadata.name.as_deref().unwrap_or_default();
                let target = self.targets.of(namespace, name);
                target.is_some_and(|target| workload.restarts_for(name, &target, &self.opt_in_rules(binding)))
            })
            .collect()
    }

    fn opt_in_rules(&self, binding: &EnnoteSecretBinding) -> OptInRules {
        let consumers = binding.spec.rollout.as_ref().and_then(|r| r.workloads) == Some(RolloutWorkloads::Consumers);
        OptInRules { consumers: consumers && self.rollouts.consumers, reloader: self.rollouts.reloader }
    }
}
