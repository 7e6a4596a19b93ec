//! Random numbers that are the same on every machine.

use rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;

/// SplitMix64, after draws that are given out first, each whole: seeds, nonces, RFC 9180's ikmE.
pub struct Noise {
    draws: Vec<Vec<u8>>,
    state: u64,
}

impl Noise {
    /// From a seed.
    pub fn seeded(seed: u64) -> Self {
        Self { draws: Vec::new(), state: seed }
    }

    /// These draws, then noise.
    pub fn after(draws: Vec<Vec<u8>>) -> Self {
        Self { draws, state: 0x5eed }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap_or(0)
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.number().to_le_bytes()[0]).collect()
    }
}

impl TryRng for Noise {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.number().to_le_bytes()[..4].try_into().map_or(0, u32::from_le_bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.number())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        match self.draws.first().is_some_and(|draw| draw.len() == out.len()) {
            true => out.copy_from_slice(&self.draws.remove(0)),
            false => out.iter_mut().for_each(|byte| *byte = self.number().to_le_bytes()[0]),
        }
        Ok(())
    }
}

impl TryCryptoRng for Noise {}
