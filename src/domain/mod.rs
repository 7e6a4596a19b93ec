//! The words of the product, and what should happen to Secrets.
//!
//! Pure: no client, socket, clock, environment or spawn. Takes `now` and keys as arguments. May import: `crd`.

pub mod claim;
pub mod conditions;
pub mod content;
pub mod deletions;
pub mod drift;
pub mod forecast;
pub mod high_water;
pub mod mapping;
pub mod metadata;
pub mod moment;
pub mod name;
pub mod observed;
pub mod outcome;
pub mod ownership;
pub mod reason;
pub mod request;
pub mod rights;
pub mod secret_value;
pub mod sync_plan;
pub mod target;
pub mod template;
