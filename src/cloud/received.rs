//! Which deliveries count against the signed count of the beats. Pure.
//!
//! The core counts what it sent. Whoever owns the path could keep one back and put something else in its place; so nothing
//! counts here that the core can not have sent, and nothing twice.

use std::collections::HashMap;

/// One delivery, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Sealed; `authentic`: signed by the core for this want of this stream; `key`: it took an unspent key of this stream.
    Sealed {
        /// Signed.
        authentic: bool,
        /// Spends a key, which only one delivery can.
        key: bool,
    },
    /// A tombstone of this version; `None`: not signed by the core for this want of this stream.
    Gone(Option<u64>),
    /// Unsigned. `asked`: for a want that stands and has no other answer.
    Denied {
        /// Asked for.
        asked: bool,
    },
}

/// The count of one stream.
#[derive(Debug, Default)]
pub struct Received {
    count: u64,
    /// The newest tombstone of each want: the core sends none twice.
    gone: HashMap<u64, u64>,
}

impl Received {
    /// Takes a delivery for a want; says whether it counts.
    pub fn take(&mut self, want_id: u64, delivered: Delivered) -> bool {
        let counts = match delivered {
            Delivered::Sealed { authentic, key } => authentic && key,
            Delivered::Gone(None) => false,
            Delivered::Gone(Some(version)) => {
                let newest = self.gone.entry(want_id).or_default();
                let newer = version > *newest;
                *newest = version.max(*newest);
                newer
            }
            Delivered::Denied { asked } => asked,
        };
        self.count += u64::from(counts);
        counts
    }

    /// How many count.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_core_cannot_have_sent_counts_for_nothing_and_nothing_counts_twice() {
        let mut received = Received::default();
        let mut take = |delivered| received.take(1, delivered);
        assert!(take(Delivered::Sealed { authentic: true, key: true }));
        assert!(!take(Delivered::Sealed { authentic: true, key: false }), "sent twice: its key is spent");
        assert!(!take(Delivered::Sealed { authentic: false, key: true }));
        assert!(take(Delivered::Gone(Some(4))) && !take(Delivered::Gone(Some(4))) && !take(Delivered::Gone(Some(3))));
        assert!(take(Delivered::Gone(Some(6))) && !take(Delivered::Gone(None)));
        assert!(take(Delivered::Denied { asked: true }) && !take(Delivered::Denied { asked: false }));
        assert!(received.take(2, Delivered::Gone(Some(4))), "of another want");
        assert_eq!(received.count(), 5);
    }
}
