//! Scenarios: each promise on a real control plane, under the chart's real rights. One file a subject.
//!
//! All scenarios share one control plane, each in namespaces of its own with its own cloud, release and agent; those that
//! disturb the control plane start one of their own.

mod acts;
mod admission;
mod argo_rollouts;
mod boundaries;
mod chart;
mod contents;
mod demo;
mod doctor;
mod drift;
mod envelope;
mod evil;
mod evil_delivery;
mod evil_path;
mod evil_stream;
mod gitops;
mod heartbeat;
mod identity;
mod identity_bans;
mod identity_clock;
mod identity_keys;
mod identity_standby;
mod identity_theft;
mod interop;
mod isolation;
mod issuer;
mod logs;
mod manifests;
mod mapping;
mod memory;
mod monitoring;
mod observe;
mod ownership;
mod rbac_modes;
mod render;
mod resilience;
mod rollout_failures;
mod rollout_policies;
mod rollouts;
mod self_check;
mod settings;
mod sockets;
mod sync;
mod target;
mod thief;
mod versions;
mod wire;
mod wrong_manifests;
mod wrong_rollouts;
