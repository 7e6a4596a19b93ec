//! What a want finds in the core.

use super::choice::{Choice, choose};
use crate::core::{Core, Refusal};
use crate::delivery::{Found, Wanted};
use crate::store::{Agent, Version};
use crate::wire;

/// What the core has for a want above a known version.
pub(super) fn look(core: &Core, agent: &Agent, wanted: &Wanted, known: u64) -> Result<Found<Version>, Refusal> {
    use wire::denied::Reason;
    if !agent.may(&wanted.namespace, &wanted.workspace, &wanted.secret) {
        return Ok(Found::Denied(Reason::NoGrant));
    }
    let newest = core.newest(&wanted.workspace, &wanted.secret)?;
    let version = |number| core.version(&wanted.workspace, &wanted.secret, number);
    Ok(match choose(newest.as_ref(), wanted.pin, known) {
        Choice::NoSecret => Found::Denied(Reason::NoSecret),
        Choice::Nothing => Found::Nothing,
        Choice::Ahead => Found::Denied(Reason::NoVersion),
        Choice::Tombstone(number) => version(number)?.map_or(Found::Nothing, Found::Gone),
        Choice::Version(number) => match version(number)?.map(|row| (row.payload.as_ref().map(String::len), row)) {
            Some((Some(size), row)) => Found::Payload(row, size),
            // A pin that is not there yet, that names a tombstone, or that a deletion erased. Without a pin it cannot
            // happen but between two reads, and then the news of the change is on its way.
            Some((None, _)) | None if wanted.pin != 0 => Found::Denied(Reason::NoVersion),
            Some((None, _)) | None => Found::Nothing,
        },
    })
}
