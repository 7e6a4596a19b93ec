//! What becomes of good bytes on a bad way, the same on every machine.

use crate::noise::Noise;

/// Every truncation, or every `stride`th.
pub fn truncated(good: &[u8], stride: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..good.len()).step_by(stride).map(|length| good[..length].to_vec())
}

/// Every bit flipped in small input, another bit of each byte in larger; or every `stride`th of these.
pub fn flipped(good: &[u8], stride: usize) -> impl Iterator<Item = Vec<u8>> {
    let step = if good.len() <= 256 { 1 } else { 9 };
    (0..good.len() * 8).step_by(step * stride).map(|bit| {
        let mut copy = good.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        copy
    })
}

/// Pieces of two good ones, bytes that were inserted, doubled, zeroed or taken out.
pub fn spliced(one: &[u8], other: &[u8], noise: &mut Noise, times: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..times {
        let (a, b) = (noise.below(one.len() + 1), noise.below(other.len() + 1));
        let (from, to) = (a.min(noise.below(one.len() + 1)), a);
        all.push([&one[..a], &other[b..]].concat());
        all.push([&one[..to], &one[from..]].concat());
        all.push([&one[..from], &one[to..]].concat());
        all.push([&one[..a], &noise.bytes(9), &one[a..]].concat());
        all.push([&one[..from], &vec![0; to - from], &one[to..]].concat());
    }
    all
}
