//! The server's side of the admin socket.

use super::request::{Request, answer};
use crate::core::Core;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use zeroize::{Zeroize, Zeroizing};

/// Its name in the data directory.
pub const SOCKET: &str = "admin.sock";
/// A directory that only its owner enters, in which the socket is made. Its path is no longer than the socket's own, which
/// the system limits.
const MAKING: &str = ".sock";
/// A payload of 1 MiB, each byte escaped, and the rest of a request.
const MAX_LINE: u64 = 8 * 1024 * 1024;

/// A listening admin socket. Goes with its value.
pub struct Socket {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl Socket {
    /// Listens in a data directory whose database this process holds: a socket that lies there is a dead one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn listen(core: Arc<Core>, directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        let making = directory.join(MAKING);
        match fs::remove_dir_all(&making) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        // Others may enter the data directory: the socket appears there once nobody else can use it.
        DirBuilder::new().mode(0o700).create(&making)?;
        let made = making.join("s");
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        fs::rename(&made, &path)?;
        fs::remove_dir(&making)?;
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(converse(core.clone(), stream))),
                    Err(error) => {
                        tracing::warn!(%error, "accept on the admin socket failed");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Self { path, accepting })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the admin socket is gone already");
        }
    }
}

async fn converse(core: Arc<Core>, stream: UnixStream) {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Zeroizing::new(Vec::new());
        match (&mut reading).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => (),
        }
        let outcome = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => answer(&core, request).await,
            Err(_) => {
                Err("this server does not know that request: client and server are of different versions".to_owned())
            }
        };
        let mut reply = Zeroizing::new(match outcome {
            Ok(value) => format!("{{\"ok\":{}}}\n", value.as_str()),
            Err(text) => format!("{{\"error\":{}}}\n", serde_json::Value::String(text)),
        });
        let written = writing.write_all(reply.as_bytes()).await;
        reply.zeroize();
        if written.is_err() {
            return;
        }
    }
}
