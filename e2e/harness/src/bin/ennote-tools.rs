//! `ennote-tools [PROGRAM]`: builds the programs of the control plane where they are missing, and prints where they are.

use anyhow::Result;
use ennote_harness::settings::Settings;
use ennote_harness::tools;
use std::io::Write;

fn main() -> Result<()> {
    let tools = tools::build(&Settings::from_env()?)?;
    let path = match std::env::args().nth(1) {
        Some(program) => tools.path(&program)?,
        None => tools.folder().to_owned(),
    };
    // A reader that has gone away has what it wanted.
    let _ = writeln!(std::io::stdout(), "{}", path.display());
    Ok(())
}
