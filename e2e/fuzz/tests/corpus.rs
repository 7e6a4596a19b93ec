//! Every decoder of bytes from the network over a corpus: what is good, whole and broken in every way that is the same on each
//! machine; noise; and the inputs that once broke a promise, in `corpus/`.

#![allow(clippy::unwrap_used, reason = "a failing test panics")]

use data_encoding::HEXLOWER;
use ennote_fuzz::mutations::{flipped, spliced, truncated};
use ennote_fuzz::noise::Noise;
use ennote_fuzz::{Outcome, TARGETS, Target};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs one input; a panic names itself, a broken promise its input.
fn keeps(target: &Target, input: &[u8]) -> Outcome {
    let verdict = (target.run)(input);
    let shown = || HEXLOWER.encode(&input[..input.len().min(4096)]);
    verdict.unwrap_or_else(|broken| unreachable!("{}: {broken}: {}", target.name, shown()))
}

fn run(target: &Target) {
    let (seeds, kept) = ((target.seeds)(), corpus(target.name));
    let mut noise = Noise::seeded(0xe440_7e00);
    for (index, good) in kept.iter().chain(&seeds).enumerate() {
        keeps(target, good);
        let other = &seeds[(index + 1) % seeds.len()];
        let broken = truncated(good, target.stride).chain(flipped(good, target.stride));
        let broken = broken.chain(spliced(good, other, &mut noise, 40 / target.stride));
        for input in broken {
            keeps(target, &input);
        }
    }
    for _ in 0..500 {
        keeps(target, &noise.bytes(300));
    }
    // Long runs of one byte: lengths and depths that promise more than comes.
    for byte in [0, b'"', b'[', b'{', 0x0a, 0x7f, 0x80, 0xff] {
        keeps(target, &vec![byte; 70_000]);
    }
}

fn run_all(group: usize) {
    TARGETS[group].iter().for_each(run);
}

#[test]
fn the_agents_decoders_keep_their_promises_whatever_comes() {
    run_all(0);
    run_all(1);
}

#[test]
fn templates_formats_and_rules_for_keys_keep_their_promises_whatever_comes() {
    run_all(4);
}

#[test]
fn the_clouds_decoders_keep_their_promises_whatever_comes() {
    run_all(2);
}

#[test]
fn the_clouds_decoders_of_tokens_blobs_and_payloads_keep_their_promises_whatever_comes() {
    run_all(3);
}

/// Without this, a decoder that refuses everything would keep every promise.
#[test]
fn what_is_good_counts() {
    for target in TARGETS.into_iter().flatten() {
        let first = (target.seeds)().remove(0);
        // Nothing that was recorded ever answers a challenge.
        let wanted = if target.name == "cloud_finish" { Outcome::Refused } else { Outcome::Taken };
        assert_eq!((target.run)(&first), Ok(wanted), "{}", target.name);
    }
}

#[test]
fn every_decoder_has_its_fuzz_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names: BTreeSet<String> = TARGETS.into_iter().flatten().map(|target| target.name.to_owned()).collect();
    let listed = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(listed("fuzz/fuzz_targets"), names);
    let manifest = std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
    for name in &names {
        let target = std::fs::read_to_string(root.join(format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("fuzz({name:?}, bytes)")), "{name}");
        assert!(manifest.contains(&format!("name = {name:?}\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
    assert!(listed("corpus").is_subset(&names), "a corpus of a decoder that is gone");
}
