//! What should happen to workloads.
//!
//! Pure: no client, clock or spawn. k8s-openapi types are read as plain data. May import: `crd`, `domain`.

pub mod consumers;
pub mod ledger;
pub mod progress;
pub mod rollout_plan;
pub mod workload;
