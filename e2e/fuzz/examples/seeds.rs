//! Writes the seeds of each decoder into a folder of its name, for a fuzzer to begin with: `cargo run -p ennote-fuzz --example
//! seeds -- DIR`.

use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| io::Error::other("name a folder to write to"))?;
    for target in ennote_fuzz::TARGETS.into_iter().flatten() {
        let folder = directory.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (index, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index}")), seed)?;
        }
    }
    Ok(())
}
