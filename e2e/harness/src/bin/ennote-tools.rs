//! `ennote-tools [PROGRAM]`: builds the programs of the control plane where they are missing, and prints where they are;
//! `ennote-tools promtool` does so with what only the scenarios of the alerts need.

use anyhow::Result;
use ennote_harness::settings::Settings;
use ennote_harness::tools;
use std::io::Write;

fn main() -> Result<()> {
    let settings = Settings::from_env()?;
    let path = match std::env::args().nth(1).as_deref() {
        Some("promtool") => tools::promtool(&settings)?,
        // Not among those that are built without being named: `make verify` needs it, and no test.
        Some("gitops") => tools::gitops(&settings)?,
        // Nor this: only `make node` needs it.
        Some("node") => tools::node(&settings)?.containerd().to_owned(),
        Some(program) => tools::build(&settings)?.path(program)?,
        None => tools::build(&settings)?.folder().to_owned(),
    };
    // A reader that has gone away has what it wanted.
    let _ = writeln!(std::io::stdout(), "{}", path.display());
    Ok(())
}
