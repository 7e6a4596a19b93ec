//! Purpose: join the two edges through the pure middle.
//!
//! Two controllers, one per concern: *binding* (Secret and status) and *workload* (restart and progress). All sources of work
//! are listed in `triggers`. May import: everything but `agent`.

mod asking;
pub mod binding;
mod binding_status;
pub mod claiming;
pub mod context;
mod deletion;
pub mod delivery;
pub mod ledgers;
pub mod lists;
pub mod looking;
mod observing;
mod opting_in;
mod pass;
pub mod proving;
pub mod report;
mod reporting;
pub mod restart;
mod reverting;
mod rivals;
mod rollout_asks;
pub mod self_check;
mod telling;
pub mod triggers;
pub mod workload;
