//! What should happen to workloads.
//!
//! Pure: no client, clock or spawn. k8s-openapi types are read as plain data. May import: `crd`, `domain`.

pub mod argo;
pub mod cause;
pub mod consumers;
pub mod ledger;
pub mod opt_in;
pub mod policy;
pub mod progress;
pub mod rollout_plan;
mod verdict;
pub mod windows;
pub mod workload;
