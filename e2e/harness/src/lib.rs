//! Starts and stops what the scenarios and the demo run against: a real control plane, devcloud, and the agent as the
//! chart's pod would run it.
//!
//! Nothing started here outlives its process: dropping ends it, and the watchdog ends what dropping could not.

pub mod agent;
pub mod audit;
pub mod cable;
pub mod control_plane;
pub mod devcloud;
pub mod dial;
pub mod evil;
pub mod gate;
pub mod memory;
pub mod node;
pub mod ports;
pub mod process;
pub mod run_dir;
pub mod settings;
pub mod sockets;
pub mod tools;
pub mod wait;
pub mod wall_clock;
pub mod world;

mod cluster;
mod components;
mod credentials;
mod go_module;
mod kubelet;
mod pod_env;
mod progress;
mod volumes;
mod watchdog;
