//! Compiles `proto/` into client stubs. protox parses the files, so no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-env-changed=ENNOTE_BUILD_COMMIT");
    let commit = std::env::var_os("ENNOTE_BUILD_COMMIT")
        .and_then(|v| v.into_string().ok())
        .filter(|c| !c.is_empty())
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=ENNOTE_BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let built = std::env::var_os("SOURCE_DATE_EPOCH")
        .and_then(|v| v.into_string().ok())
        .or_else(|| git(&["show", "-s", "--format=%ct", "HEAD"]))
        .and_then(|seconds| seconds.parse::<u64>().ok())
        .unwrap_or(0);
    println!("cargo:rustc-env=ENNOTE_BUILT_MS={}", built.saturating_mul(1000));
    let descriptors = protox::compile(["ennote/agent/v1/identity.proto", "ennote/agent/v1/sync.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).skip_debug(["."]).compile_fds(descriptors)?;
    Ok(())
}

fn git(arguments: &[&str]) -> Option<String> {
    let out = std::process::Command::new("git").args(arguments).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
