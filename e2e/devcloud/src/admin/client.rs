//! The administrator's side: for the command line, and for programs that put many secrets.

use super::request::{Request, answer};
use super::socket::SOCKET;
use crate::core::{
    AgentEntry, Core, Fetched, KeyEntry, KeysetEntry, NewPat, NewToken, OpenError, PatEntry, PatRequest, Revoked,
    SecretEntry, SecretStatus, TokenRequest, VersionEntry,
};
use crate::fault::Active;
use crate::payload::Kind;
use crate::settings::Lifetimes;
use crate::store::{Alarm, Grant, KeyUse, StoreError, Workspace};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot talk to the running server through {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("no server runs on {}; start one with: ennote-devcloud --data {} serve", .0.display(), .0.display())]
    NotRunning(PathBuf),
    #[error("the server ended before it answered; whether it did as asked, a look shows")]
    Unanswered,
    #[error("the server's answer is not understood: client and server are of different versions")]
    Answer,
    #[error("{0}")]
    Refused(String),
}

/// Asks a running server, or the database itself. Cheap to clone; calls run side by side.
#[derive(Clone)]
pub struct Client(Door);

#[derive(Clone)]
enum Door {
    Socket(PathBuf),
    Core(Arc<Core>),
}

/// One line of the socket.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply<T> {
    Ok(T),
    Error(String),
}

impl Client {
    /// To the server that runs on a data directory.
    ///
    /// # Errors
    /// `NotRunning`.
    pub async fn connect(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(SOCKET);
        match UnixStream::connect(&path).await {
            Ok(_) => Ok(Self(Door::Socket(path))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Err(Failure::NotRunning(directory.to_owned()))
            }
            Err(source) => Err(Failure::Socket { path, source }),
        }
    }

    /// To the server that runs on a data directory, else to the database itself.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn find(directory: &Path, lives: Lifetimes) -> Result<Self, Failure> {
        match Self::connect(directory).await {
            Err(Failure::NotRunning(_)) => (),
            found => return found,
        }
        match Core::open(directory, lives).await {
            Ok(core) => Ok(Self(Door::Core(core))),
            // A server that has just opened the database and not yet its socket.
            Err(OpenError::Store(StoreError::InUse)) => Self::connect(directory).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a bootstrap token.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn create_token(&self, request: TokenRequest) -> Result<NewToken, Failure> {
        self.call(Request::CreateToken(request)).await
    }

    /// Writes a new version; it is durable when this returns.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn put_secret(
        &self,
        workspace: Option<&str>,
        name: &str,
        kind: Option<Kind>,
        payload: Zeroizing<String>,
    ) -> Result<SecretEntry, Failure> {
        let kind = kind.map(|kind| kind.name().to_owned());
        self.call(Request::PutSecret { workspace: owned(workspace), name: name.to_owned(), kind, payload }).await
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn remove_secret(&self, workspace: Option<&str>, name: &str) -> Result<SecretEntry, Failure> {
        self.call(Request::RemoveSecret { workspace: owned(workspace), name: name.to_owned() }).await
    }

    /// A version, or the newest.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn secret(&self, workspace: Option<&str>, name: &str, version: Option<u64>) -> Result<Fetched, Failure> {
        self.call(Request::Secret { workspace: owned(workspace), name: name.to_owned(), version }).await
    }

    /// All secrets, of one workspace or of all.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn secrets(&self, workspace: Option<&str>) -> Result<Vec<SecretEntry>, Failure> {
        self.call(Request::Secrets { workspace: owned(workspace) }).await
    }

    /// All versions of a secret, newest first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn versions(&self, workspace: Option<&str>, name: &str) -> Result<Vec<VersionEntry>, Failure> {
        self.call(Request::Versions { workspace: owned(workspace), name: name.to_owned() }).await
    }

    /// Who holds which version of a secret, and how its workloads came along.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn secret_status(&self, workspace: Option<&str>, name: &str) -> Result<SecretStatus, Failure> {
        self.call(Request::SecretStatus { workspace: owned(workspace), name: name.to_owned() }).await
    }

    /// All agents.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn agents(&self) -> Result<Vec<AgentEntry>, Failure> {
        self.call(Request::Agents).await
    }

    /// Revokes an agent.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn revoke_agent(&self, name: &str) -> Result<Revoked, Failure> {
        self.call(Request::RevokeAgent { name: name.to_owned() }).await
    }

    /// Bans an agent, or takes that back.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn ban_agent(&self, name: &str, banned: bool) -> Result<Revoked, Failure> {
        self.call(Request::BanAgent { name: name.to_owned(), banned }).await
    }

    /// The signing keys enrolled for an agent.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn agent_keys(&self, name: &str) -> Result<Vec<KeyEntry>, Failure> {
        self.call(Request::AgentKeys { name: name.to_owned() }).await
    }

    /// Replaces the signing keys of an agent's cluster.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn give_keys(&self, name: &str, jwks: String) -> Result<Vec<KeyEntry>, Failure> {
        self.call(Request::GiveKeys { name: name.to_owned(), jwks }).await
    }

    /// Accepts a key that an agent reported.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn accept_key(&self, name: &str, thumbprint: String) -> Result<Vec<KeyEntry>, Failure> {
        self.call(Request::AcceptKey { name: name.to_owned(), thumbprint }).await
    }

    /// The keyset.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn keyset(&self) -> Result<KeysetEntry, Failure> {
        self.call(Request::Keyset).await
    }

    /// Adds a key of each of these uses to the keyset.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn rotate_keys(&self, uses: Vec<KeyUse>) -> Result<KeysetEntry, Failure> {
        self.call(Request::RotateKeys { uses }).await
    }

    /// Drops a key from the keyset.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn drop_key(&self, id: String) -> Result<KeysetEntry, Failure> {
        self.call(Request::DropKey { id }).await
    }

    /// All alarms, newest first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn alarms(&self) -> Result<Vec<Alarm>, Failure> {
        self.call(Request::Alarms).await
    }

    /// Grants a namespace of an agent a secret, or a whole workspace.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn grant(
        &self,
        agent: &str,
        namespace: &str,
        workspace: Option<&str>,
        secret: Option<&str>,
    ) -> Result<Grant, Failure> {
        let (agent, namespace) = (agent.to_owned(), namespace.to_owned());
        self.call(Request::Grant { agent, namespace, workspace: owned(workspace), secret: owned(secret) }).await
    }

    /// Makes a personal access token.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn create_pat(&self, request: PatRequest) -> Result<NewPat, Failure> {
        self.call(Request::CreatePat(request)).await
    }

    /// All personal access tokens.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn pats(&self) -> Result<Vec<PatEntry>, Failure> {
        self.call(Request::Pats).await
    }

    /// Revokes a personal access token.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn revoke_pat(&self, name: &str) -> Result<PatEntry, Failure> {
        self.call(Request::RevokePat { name: name.to_owned() }).await
    }

    /// Replaces the faults that are on.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn set_faults(&self, faults: Vec<Active>) -> Result<Vec<Active>, Failure> {
        self.call(Request::SetFaults { faults }).await
    }

    /// Makes a workspace.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn create_workspace(&self, name: &str) -> Result<Workspace, Failure> {
        self.call(Request::CreateWorkspace { name: name.to_owned() }).await
    }

    /// All workspaces.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn workspaces(&self) -> Result<Vec<Workspace>, Failure> {
        self.call(Request::Workspaces).await
    }

    async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        match &self.0 {
            Door::Core(core) => {
                let value = answer(core, request).await.map_err(Failure::Refused)?;
                serde_json::from_str(&value).map_err(|_| Failure::Answer)
            }
            Door::Socket(path) => {
                let line = exchange(path, &request).await?;
                match serde_json::from_slice(&line).map_err(|_| Failure::Answer)? {
                    Reply::Ok(value) => Ok(value),
                    Reply::Error(text) => Err(Failure::Refused(text)),
                }
            }
        }
    }
}

async fn exchange(path: &Path, request: &Request) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |source| Failure::Socket { path: path.to_owned(), source };
    let mut line = Zeroizing::new(serde_json::to_vec(request).map_err(|_| Failure::Answer)?);
    line.push(b'\n');
    let mut stream = UnixStream::connect(path).await.map_err(failed)?;
    stream.write_all(&line).await.map_err(failed)?;
    let mut reply = Zeroizing::new(Vec::new());
    match BufReader::new(stream).read_until(b'\n', &mut reply).await.map_err(failed)? {
        0 => Err(Failure::Unanswered),
        _ => Ok(reply),
    }
}

fn owned(given: Option<&str>) -> Option<String> {
    given.map(ToOwned::to_owned)
}
