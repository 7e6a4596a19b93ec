//! A page for a key that lives as long as the process: locked into memory, so that it never reaches a swap device, left out of
//! core dumps, and wiped when it goes. Where the kernel refuses one of these, the key is held all the same.
//!
//! memfd_secret(2) would hide it from the kernel as well; no crate that is kept offers that without unsafe code, so it is not
//! used. A container of a pod whose memory request is its limit is not swapped in any case (docs/security.md).

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

/// `N` bytes in a page of their own.
pub struct Locked<const N: usize>(Place<N>);

enum Place<const N: usize> {
    Page(MmapMut),
    /// Where not even a page can be had.
    Heap(Box<[u8; N]>),
}

impl<const N: usize> Locked<N> {
    /// Written where they stay: there is no other copy to wipe.
    pub fn new(fill: impl FnOnce(&mut [u8])) -> Self {
        let mut place = match MmapMut::map_anon(N) {
            Ok(page) => Place::Page(page),
            Err(_) => Place::Heap(Box::new([0; N])),
        };
        if let Place::Page(page) = &place {
            // RLIMIT_MEMLOCK may be too small, and older kernels know no such advice: hardening, not a condition.
            let (locked, hidden) = (page.lock(), page.advise(Advice::DontDump));
            tracing::debug!(locked = locked.is_ok(), hidden = hidden.is_ok(), "a key has a page of its own");
        }
        match &mut place {
            Place::Page(page) => fill(page),
            Place::Heap(bytes) => fill(bytes.as_mut_slice()),
        }
        Self(place)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; N] {
        const { assert!(N > 0, "an empty page cannot be mapped") };
        match &self.0 {
            // The page was mapped with this length.
            Place::Page(page) => page.first_chunk().unwrap_or(&[0; N]),
            Place::Heap(bytes) => bytes,
        }
    }
}

impl<const N: usize> Drop for Locked<N> {
    fn drop(&mut self) {
        match &mut self.0 {
            Place::Page(page) => page.zeroize(),
            Place::Heap(bytes) => bytes.zeroize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_held_as_it_was_written() {
        let locked = Locked::<32>::new(|bytes| {
            assert_eq!(bytes.len(), 32);
            bytes.fill(7);
        });
        assert_eq!(locked.expose(), &[7; 32]);
    }
}
