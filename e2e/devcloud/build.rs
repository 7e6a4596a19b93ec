//! Compiles `/proto` into server stubs; the clients are for this crate's own tests. protox parses the files: no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(["ennote/agent/v1/identity.proto", "ennote/agent/v1/sync.proto"], [&root])?;
    let mut config = tonic_prost_build::configure().skip_debug(["."]);
    // Debug for those alone that can hold no secret and that tests and types of our own compare.
    for public in ["Denied.Reason", "SecretType", "SessionKey"] {
        config = config.type_attribute(format!(".ennote.agent.v1.{public}"), "#[derive(Debug)]");
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
