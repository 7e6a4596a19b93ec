//! Compiles `/proto` into server stubs; the clients are for this crate's own tests. protox parses the files: no protoc.
//! `proto/` of this crate, the published `cli.v1`, gets a server alone: its tests speak it from hand.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (root, published) = (here.join("../../proto"), here.join("proto"));
    for watched in [&root, &published] {
        println!("cargo:rerun-if-changed={}", watched.display());
    }
    let descriptors = protox::compile(["ennote/agent/v1/identity.proto", "ennote/agent/v1/sync.proto"], [&root])?;
    let mut config = tonic_prost_build::configure().skip_debug(["."]);
    // Debug for those alone that can hold no secret and that tests and types of our own compare.
    for public in ["Denied.Reason", "SecretType", "SessionKey"] {
        config = config.type_attribute(format!(".ennote.agent.v1.{public}"), "#[derive(Debug)]");
    }
    config.compile_fds(descriptors)?;
    let descriptors = protox::compile(["cli/v1/cli.proto"], [&published])?;
    tonic_prost_build::configure().skip_debug(["."]).build_client(false).compile_fds(descriptors)?;
    Ok(())
}
