//! Container images from scratch, without a Docker daemon: one layer with one static program, as an OCI archive.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::Path;

/// An image of one program, which is its entrypoint, under the program's own name at the root.
pub(crate) struct Image<'a> {
    pub(crate) name: &'a str,
    /// UID:GID.
    pub(crate) user: &'a str,
    pub(crate) program: &'a Path,
}

impl Image<'_> {
    pub(crate) fn write(&self, archive: &Path) -> Result<()> {
        let program = fs::read(self.program).with_context(|| format!("cannot read {}", self.program.display()))?;
        let name = self.program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
        let mut layer = tar::Builder::new(Vec::new());
        add(&mut layer, name, 0o755, &program)?;
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", layer.into_inner()?);
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = Blob::new_json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": architecture, "os": "linux",
                "config": { "User": self.user, "Entrypoint": [format!("/{name}")], "WorkingDir": "/" },
                "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
            }),
        );
        let manifest = Blob::new_json(
            "application/vnd.oci.image.manifest.v1+json",
            &json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config.descriptor(), "layers": [layer.descriptor()],
            }),
        );
        let mut named = manifest.descriptor();
        named["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named],
        });
        let mut tar = tar::Builder::new(File::create(archive)?);
        add(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add(&mut tar, "index.json", 0o644, index.to_string().as_bytes())?;
        for blob in [layer, config, manifest] {
            add(&mut tar, &format!("blobs/sha256/{}", blob.hash), 0o644, &blob.bytes)?;
        }
        Ok(tar.finish()?)
    }
}

struct Blob {
    kind: &'static str,
    hash: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self { kind, hash: data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes)), bytes }
    }

    fn new_json(kind: &'static str, value: &Value) -> Self {
        Self::new(kind, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.kind, "digest": self.digest(), "size": self.bytes.len() })
    }
}

fn add<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    Ok(tar.append_data(&mut header, path, bytes)?)
}
