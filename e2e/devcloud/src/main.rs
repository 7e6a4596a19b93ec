//! `ennote-devcloud`.

use clap::Parser;
use ennote_devcloud::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(Cli::parse())
}
