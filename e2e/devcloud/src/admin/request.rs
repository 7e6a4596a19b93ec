//! Requests, and what answers them.

use crate::core::{AdminError, Core, PatRequest, TokenRequest};
use crate::fault::Active;
use crate::payload::Kind;
use crate::store::KeyUse;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What an administrator can ask for. The answer's type stands beside each.
#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "fields are those of the command line")]
pub enum Request {
    /// `NewToken`.
    CreateToken(TokenRequest),
    /// `SecretEntry`.
    PutSecret { workspace: Option<String>, name: String, kind: Option<String>, payload: Zeroizing<String> },
    /// `SecretEntry`.
    RemoveSecret { workspace: Option<String>, name: String },
    /// `Fetched`.
    Secret { workspace: Option<String>, name: String, version: Option<u64> },
    /// List of `SecretEntry`.
    Secrets { workspace: Option<String> },
    /// List of `VersionEntry`.
    Versions { workspace: Option<String>, name: String },
    /// `SecretStatus`.
    SecretStatus { workspace: Option<String>, name: String },
    /// List of `AgentEntry`.
    Agents,
    /// `Revoked`.
    RevokeAgent { name: String },
    /// `Revoked`.
    BanAgent { name: String, banned: bool },
    /// `KeysetEntry`.
    Keyset,
    /// `KeysetEntry`.
    RotateKeys { uses: Vec<KeyUse> },
    /// `KeysetEntry`.
    DropKey { id: String },
    /// List of `Alarm`.
    Alarms,
    /// List of `KeyEntry`.
    AgentKeys { name: String },
    /// List of `KeyEntry`.
    GiveKeys { name: String, jwks: String },
    /// List of `KeyEntry`.
    AcceptKey { name: String, thumbprint: String },
    /// `Grant`.
    Grant { agent: String, namespace: String, workspace: Option<String>, secret: Option<String> },
    /// `NewPat`.
    CreatePat(PatRequest),
    /// List of `PatEntry`.
    Pats,
    /// `PatEntry`.
    RevokePat { name: String },
    /// List of `Active`: what is on from then on.
    SetFaults { faults: Vec<Active> },
    /// `Workspace`.
    CreateWorkspace { name: String },
    /// List of `Workspace`.
    Workspaces,
}

/// Answers a request with JSON, or a sentence for people.
pub(super) async fn answer(core: &Core, request: Request) -> Result<Zeroizing<String>, String> {
    let said = |error: AdminError| error.to_string();
    match request {
        Request::CreateToken(wish) => json(&core.create_token(&wish).await.map_err(said)?),
        Request::PutSecret { workspace, name, kind, payload } => {
            let kind = kind.map(|kind| kind.parse::<Kind>()).transpose()?;
            json(&core.put_secret(workspace.as_deref(), &name, kind, payload).await.map_err(said)?)
        }
        Request::RemoveSecret { workspace, name } => {
            json(&core.remove_secret(workspace.as_deref(), &name).await.map_err(said)?)
        }
        Request::Secret { workspace, name, version } => {
            json(&core.secret(workspace.as_deref(), &name, version).map_err(said)?)
        }
        Request::Secrets { workspace } => json(&core.secrets(workspace.as_deref()).map_err(said)?),
        Request::Versions { workspace, name } => json(&core.versions(workspace.as_deref(), &name).map_err(said)?),
        Request::SecretStatus { workspace, name } => {
            json(&core.secret_status(workspace.as_deref(), &name).map_err(said)?)
        }
        Request::Agents => json(&core.agents().map_err(said)?),
        Request::RevokeAgent { name } => json(&core.revoke_agent(&name).await.map_err(said)?),
        Request::BanAgent { name, banned } => json(&core.ban_agent(&name, banned).await.map_err(said)?),
        Request::AgentKeys { name } => json(&core.agent_keys(&name).map_err(said)?),
        Request::GiveKeys { name, jwks } => json(&core.give_keys(&name, &jwks).await.map_err(said)?),
        Request::AcceptKey { name, thumbprint } => json(&core.accept_key(&name, &thumbprint).await.map_err(said)?),
        Request::Keyset => json(&core.keyset().map_err(said)?),
        Request::RotateKeys { uses } => json(&core.rotate_keys(&uses).await.map_err(said)?),
        Request::DropKey { id } => json(&core.drop_key(&id).await.map_err(said)?),
        Request::Alarms => json(&core.alarms().map_err(said)?),
        Request::Grant { agent, namespace, workspace, secret } => {
            json(&core.grant(&agent, &namespace, workspace.as_deref(), secret.as_deref()).await.map_err(said)?)
        }
        Request::CreatePat(wish) => json(&core.create_pat(&wish).await.map_err(said)?),
        Request::Pats => json(&core.pats().map_err(said)?),
        Request::RevokePat { name } => json(&core.revoke_pat(&name).await.map_err(said)?),
        Request::SetFaults { faults } => json(&core.faults.set(faults).ok_or(AdminError::NoFaults).map_err(said)?),
        Request::CreateWorkspace { name } => json(&core.create_workspace(&name).await.map_err(said)?),
        Request::Workspaces => json(&core.workspaces().map_err(said)?),
    }
}

fn json<T: Serialize>(value: &T) -> Result<Zeroizing<String>, String> {
    serde_json::to_string(value).map(Zeroizing::new).map_err(|error| error.to_string())
}
