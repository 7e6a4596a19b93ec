//! What a want gets, given the newest state of its secret. Pure.

use crate::store::Secret;

/// The decision about one want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The name was never used.
    NoSecret,
    /// The target holds it already.
    Nothing,
    /// What the target holds was never made here: this cloud was restored from a backup.
    Ahead,
    /// This tombstone.
    Tombstone(u64),
    /// This version, if its payload is still there.
    Version(u64),
}

/// Without `pin` the newest above `known`, with it exactly that one. A deletion reaches pinned bindings too, since it erased
/// what they hold; a pin on a version above the tombstone waits for that version.
pub(super) fn choose(newest: Option<&Secret>, pin: u64, known: u64) -> Choice {
    let Some(newest) = newest else { return Choice::NoSecret };
    let follows = pin == 0 || (newest.deleted && pin <= newest.version);
    match (follows, newest.deleted) {
        (true, _) if pin == 0 && known > newest.version => Choice::Ahead,
        (true, _) if known >= newest.version => Choice::Nothing,
        (true, true) => Choice::Tombstone(newest.version),
        (true, false) => Choice::Version(newest.version),
        (false, _) if known == pin => Choice::Nothing,
        (false, _) => Choice::Version(pin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_gets_the_newest_above_what_it_knows_or_exactly_its_pin() {
        let secret = |version, deleted| Secret {
            workspace: String::new(),
            name: String::new(),
            version,
            first: 1,
            deleted,
            kind: String::new(),
            updated_at_ms: 0,
        };
        let (live, dead) = (secret(5, false), secret(5, true));
        for (newest, pin, known, expected) in [
            (None, 0, 0, Choice::NoSecret),
            (None, 3, 0, Choice::NoSecret),
            (Some(&live), 0, 0, Choice::Version(5)),
            (Some(&live), 0, 4, Choice::Version(5)),
            (Some(&live), 0, 5, Choice::Nothing),
            (Some(&live), 0, 9, Choice::Ahead),
            (Some(&dead), 0, 9, Choice::Ahead),
            (Some(&live), 3, 0, Choice::Version(3)),
            (Some(&live), 3, 5, Choice::Version(3)),
            (Some(&live), 3, 3, Choice::Nothing),
            (Some(&live), 7, 5, Choice::Version(7)),
            (Some(&dead), 0, 0, Choice::Tombstone(5)),
            (Some(&dead), 0, 4, Choice::Tombstone(5)),
            (Some(&dead), 0, 5, Choice::Nothing),
            (Some(&dead), 3, 3, Choice::Tombstone(5)),
            (Some(&dead), 3, 5, Choice::Nothing),
            (Some(&dead), 7, 5, Choice::Version(7)),
        ] {
            assert_eq!(choose(newest, pin, known), expected, "{newest:?} pin {pin} known {known}");
        }
    }
}
