//! What a process holds in memory, looked at from outside: canaries in every dress, the hardening that the kernel knows of.
//!
//! A canary is a function of a seed: this process never holds one whole, in order that a scan of it would find nothing that the
//! scan itself brought. Linux, as root: the agent cannot be dumped, so /proc/PID/mem is root's alone.

use anyhow::{Context, Result, ensure};
use procfs::process::{MMPermissions, MMapPath, Process};
use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Seek, SeekFrom};

/// So many bytes of a dress in a row count as a copy.
const ENOUGH: usize = 16;
/// At most so many places of a canary are looked for, so that a part of it is found too.
const PLACES: usize = 512;
/// Spreads four bytes over the bits of an index.
const HASH: u32 = 0x9e37_79b1;
const CHUNK: usize = 4 * 1024 * 1024;

/// A value that is nowhere whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    seed: u64,
    length: usize,
}

impl Canary {
    /// `length` characters, at least 32, some of which JSON escapes.
    pub fn new(seed: u64, length: usize) -> Self {
        Self { seed, length: length.max(32) }
    }

    /// The value itself, to be put into the cloud. Not for the scan.
    pub fn text(self) -> String {
        (0..self.length).map(|at| char::from(self.byte(at))).collect()
    }

    fn byte(self, at: usize) -> u8 {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        if at % 24 == 11 {
            return b'"';
        }
        // The finaliser of SplitMix64.
        let mut mixed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        LETTERS[(mixed ^ (mixed >> 31)) as usize % LETTERS.len()]
    }

    /// [`ENOUGH`] bytes of a dress from place `at` of the canary on; none where it ends before.
    fn dressed(self, dress: Dress, at: usize) -> Option<[u8; ENOUGH]> {
        let mut out = [0; ENOUGH];
        let byte = |at: usize| (at < self.length).then(|| self.byte(at));
        match dress {
            Dress::Raw => {
                for (index, slot) in out.iter_mut().enumerate() {
                    *slot = byte(at + index)?;
                }
            }
            Dress::Escaped => {
                let (mut from, mut escaped) = (at, false);
                for slot in &mut out {
                    let next = byte(from)?;
                    let escape = next == b'"' && !escaped;
                    *slot = if escape { b'\\' } else { next };
                    escaped = escape;
                    from += usize::from(!escape);
                }
            }
            Dress::Hex { upper } => {
                let digits: &[u8; 16] = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
                for (index, slot) in out.iter_mut().enumerate() {
                    let whole = byte(at + index / 2)?;
                    *slot = digits[usize::from(if index % 2 == 0 { whole >> 4 } else { whole & 15 })];
                }
            }
            Dress::Base64 { before, url } => {
                let letters: &[u8; 64] = if url {
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
                } else {
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                };
                // The first character that takes no bit of what stands before place `at`.
                let first = (8 * (at + before)).div_ceil(6);
                for (index, slot) in out.iter_mut().enumerate() {
                    let mut six = 0;
                    for bit in 6 * (first + index)..6 * (first + index) + 6 {
                        let whole = byte((bit / 8).checked_sub(before)?)?;
                        six = six << 1 | usize::from(whole >> (7 - bit % 8) & 1);
                    }
                    *slot = letters[six];
                }
            }
        }
        Some(out)
    }
}

/// How a value may stand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dress {
    /// As it is.
    Raw,
    /// As in a JSON string.
    Escaped,
    /// Two digits a byte.
    Hex {
        /// In capitals.
        upper: bool,
    },
    /// As base64.
    Base64 {
        /// So many bytes stand before it in its group of three.
        before: usize,
        /// With the alphabet for URLs.
        url: bool,
    },
}

impl Dress {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Raw,
        Self::Escaped,
        Self::Hex { upper: false },
        Self::Hex { upper: true },
        Self::Base64 { before: 0, url: false },
        Self::Base64 { before: 1, url: false },
        Self::Base64 { before: 2, url: false },
        Self::Base64 { before: 0, url: true },
        Self::Base64 { before: 1, url: true },
        Self::Base64 { before: 2, url: true },
    ];
}

/// A part of a canary that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whose.
    pub canary: Canary,
    /// How it is dressed.
    pub dress: Dress,
    /// From which byte of the canary on.
    pub from: usize,
    /// Where in the process.
    pub address: u64,
}

/// What a scan has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Parts of canaries, at most 64.
    pub copies: Vec<Copy>,
    /// How many bytes were read.
    pub bytes: u64,
    /// In which mappings the copies are.
    places: Vec<String>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} copies in {} bytes", self.copies.len(), self.bytes)?;
        for (copy, place) in self.copies.iter().zip(&self.places).take(16) {
            writeln!(f, "  {copy:?} in {place}")?;
        }
        Ok(())
    }
}

impl Seen {
    /// That no canary is there in any dress.
    ///
    /// # Errors
    /// What is there, when the moment was `when`.
    pub fn nothing(&self, when: &str) -> Result<()> {
        // A process that could not be read would look clean.
        ensure!(self.bytes > 4 << 20, "{when}: only {} bytes could be read", self.bytes);
        ensure!(self.copies.is_empty(), "{when}: {self}");
        Ok(())
    }
}

/// Places of canaries by their first four bytes: as much of them as this process keeps.
struct Index {
    /// One bit for each hash of four bytes.
    bits: Vec<u64>,
    places: HashMap<u32, Vec<(Canary, Dress, usize)>>,
}

impl Index {
    fn of(canaries: &[Canary]) -> Self {
        let mut index = Self { bits: vec![0; 1 << 16], places: HashMap::new() };
        for canary in canaries {
            for dress in Dress::ALL {
                let differs = |at: &usize| {
                    dress != Dress::Escaped || canary.dressed(Dress::Raw, *at) != canary.dressed(dress, *at)
                };
                let last = canary.length - ENOUGH;
                for at in (0..canary.length).step_by((canary.length / PLACES).max(8)).chain([last]).filter(differs) {
                    let Some(bytes) = canary.dressed(dress, at) else { continue };
                    let first = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    let hash = Self::hash(first);
                    index.bits[hash / 64] |= 1 << (hash % 64);
                    index.places.entry(first).or_default().push((*canary, dress, at));
                }
            }
        }
        index
    }

    fn hash(first: u32) -> usize {
        (first.wrapping_mul(HASH) >> 10) as usize
    }

    /// What stands in `bytes`, whose first one has this address.
    fn search(&self, bytes: &[u8], address: u64, seen: &mut Vec<Copy>) {
        const PAGE: usize = 4096;
        let (bits, length) = (self.bits.as_slice(), bytes.len());
        let (mut window, mut end) = (0_u32, 0);
        // A plain loop: this is most of what a scan costs in a build without optimisation.
        while end < length {
            if end % PAGE == 0 && bytes[end..length.min(end + PAGE)] == [0; PAGE] {
                end += PAGE;
                continue;
            }
            window = window >> 8 | u32::from(bytes[end]) << 24;
            let hash = (window.wrapping_mul(HASH) >> 10) as usize;
            if bits[hash >> 6] >> (hash & 63) & 1 == 1 && end >= 3 {
                self.compare(window, &bytes[end - 3..], address + (end - 3) as u64, seen);
            }
            end += 1;
        }
    }

    fn compare(&self, first: u32, bytes: &[u8], address: u64, seen: &mut Vec<Copy>) {
        for (canary, dress, from) in self.places.get(&first).into_iter().flatten() {
            let same = canary.dressed(*dress, *from).is_some_and(|dressed| bytes.starts_with(&dressed));
            if same && seen.len() < 64 {
                seen.push(Copy { canary: *canary, dress: *dress, from: *from, address });
            }
        }
    }
}

/// Looks for canaries in every readable mapping of process `pid`.
///
/// # Errors
/// When the process is gone, or this is not root.
pub fn scan(pid: u32, canaries: &[Canary]) -> Result<Seen> {
    let index = Index::of(canaries);
    let process = process(pid)?;
    let mut memory = process.mem().context("cannot open its memory: this takes root, or the process is gone")?;
    let mut seen = Seen::default();
    let mut buffer = vec![0; CHUNK + ENOUGH];
    for map in process.maps()? {
        // The kernel's own pages, which have no memory of the process in them.
        let kernels = matches!(map.pathname, MMapPath::Vvar | MMapPath::Vsyscall)
            || format!("{:?}", map.pathname).contains("vvar");
        if !map.perms.contains(MMPermissions::READ) || kernels {
            continue;
        }
        let mut at = map.address.0;
        while at < map.address.1 {
            let here = usize::try_from(map.address.1 - at)?.min(buffer.len());
            memory.seek(SeekFrom::Start(at))?;
            // A mapping that went meanwhile, and pages of files that were never read, hold nothing.
            let read = fill(&mut memory, &mut buffer[..here]);
            index.search(&buffer[..read], at, &mut seen.copies);
            seen.places.resize(seen.copies.len(), format!("{:?} {:?}", map.pathname, map.perms));
            let step = here.min(CHUNK);
            seen.bytes += read.min(step) as u64;
            at += step as u64;
        }
    }
    Ok(seen)
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match from.read(&mut buffer[done..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => done += read,
        }
    }
    done
}

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// Largest core dump, soft and hard, in bytes; none: unlimited.
    pub core: (Option<u64>, Option<u64>),
    /// Bytes that are locked into memory.
    pub locked: u64,
    /// Whether its files under /proc belong to root, as they do when it cannot be dumped.
    pub of_root: bool,
    /// Whether any of its memory is left out of core dumps.
    pub hides: bool,
}

/// Reads it.
///
/// # Errors
/// When the process is gone.
pub fn hardening(pid: u32) -> Result<Hardening> {
    use procfs::process::LimitValue;
    let process = process(pid)?;
    let core = process.limits()?.max_core_file_size;
    let bytes = |limit: LimitValue| match limit {
        LimitValue::Value(bytes) => Some(bytes),
        LimitValue::Unlimited => None,
    };
    let locked = process.status()?.vmlck.context("no VmLck")? * 1024;
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let hides =
        smaps.lines().filter(|line| line.starts_with("VmFlags:")).any(|line| line.split(' ').any(|flag| flag == "dd"));
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}/mem"))?);
    Ok(Hardening { core: (bytes(core.soft_limit), bytes(core.hard_limit)), locked, of_root: owner == 0, hides })
}

fn process(pid: u32) -> Result<Process> {
    Process::new(i32::try_from(pid).context("not a process id")?)
        .with_context(|| format!("cannot look at process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    #[test]
    fn a_canary_is_found_in_every_dress_and_in_part() {
        let canary = Canary::new(7, 900);
        let index = Index::of(&[canary, Canary::new(8, 32)]);
        let dresses = |bytes: &[u8]| -> Vec<Dress> {
            let mut copies = Vec::new();
            index.search(bytes, 0, &mut copies);
            let mut dresses: Vec<Dress> = copies.iter().map(|copy| copy.dress).collect();
            dresses.sort();
            dresses.dedup();
            dresses
        };
        let text = canary.text();
        let escaped = serde_json::to_string(&text).unwrap();
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(dresses(text.as_bytes()), [Dress::Raw]);
        assert!(dresses(escaped.as_bytes()).contains(&Dress::Escaped));
        // Eight bytes whose digits are all below ten are the same in capitals.
        assert!(dresses(hex.as_bytes()).contains(&Dress::Hex { upper: false }));
        assert!(dresses(hex.to_uppercase().as_bytes()).contains(&Dress::Hex { upper: true }));
        for before in 0..3 {
            let within = format!("{}{text} and more", &"xyz"[..before]);
            assert!(dresses(STANDARD.encode(&within).as_bytes()).contains(&Dress::Base64 { before, url: false }));
            assert!(dresses(URL_SAFE.encode(&within).as_bytes()).contains(&Dress::Base64 { before, url: true }));
        }
        assert_eq!(dresses(&text.as_bytes()[200..300]), [Dress::Raw], "a part of it");
        assert!(
            dresses(&text.as_bytes()[1..10]).is_empty() && dresses(Canary::new(9, 900).text().as_bytes()).is_empty()
        );
        assert_eq!(dresses(Canary::new(8, 32).text().as_bytes()), [Dress::Raw], "the other one");
    }

    #[test]
    fn the_kernel_tells_how_a_process_is_hardened() {
        let own = hardening(std::process::id()).unwrap();
        assert!(own.core.0 <= own.core.1 || own.core.1.is_none());
    }
}
