//! What pods of the real node run beside the agent: the process that holds a sandbox, and a workload that says once what it reads.
//!
//! `ennote-pod` alone waits to be killed. `ennote-pod VARIABLE FILE` first prints one line: `env=VALUE file=VALUE`.

use std::io::Write;

#[expect(clippy::disallowed_methods, reason = "what the environment holds is what this program is asked for")]
fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    if let (Some(variable), Some(file)) = (args.next(), args.next()) {
        let from_environment = std::env::var(variable).unwrap_or_else(|_| "unset".to_owned());
        let from_file = std::fs::read_to_string(file).unwrap_or_else(|error| format!("unreadable: {error}"));
        writeln!(std::io::stdout(), "env={from_environment} file={from_file}")?;
    }
    loop {
        std::thread::park();
    }
}
