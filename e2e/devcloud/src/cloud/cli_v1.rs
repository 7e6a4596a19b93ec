//! The published `cli.v1.CliService`, beside the agents' services and apart from them.
//!
//! Nothing reaches a handler without the [`Principal`] that the guard found for the call's personal access token; the guard
//! runs before a message is read.

use crate::core::{AdminError, BadPat, Core, InteropError, Principal, Taken, Upload};
use crate::payload::Kind;
use crate::v1::session::SessionKey;
use crate::wire_cli::cli_service_server::{CliService, CliServiceServer};
use crate::wire_cli::{
    AddCliSecretRequest, AddCliSecretResponse, AddMultiCliSecretRequest, AddMultiCliSecretResponse,
    CheckCliShareDataRequest, CheckCliShareDataResponse, GetCliCryptoConfigRequest, GetCliCryptoConfigResponse,
    GetCliSecretRequest, GetCliSecretResponse, GetCliShareDataRequest, GetCliShareDataResponse, PutCliShareDataRequest,
    PutCliShareDataResponse,
};
use data_encoding::BASE64;
use std::sync::Arc;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

/// gRPC's own default, which the published client keeps to. A payload of 1 MiB has 1.4 MiB as base64.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// What the published client sends at once.
const MAX_BATCH: usize = 50;
/// Of each note, URL and label; and how many labels.
const MAX_NOTE: usize = 16 * 1024;
const MAX_LABELS: usize = 100;
const ALGORITHM: &str = "ML-KEM-1024";
const BEARER: &str = "Bearer ";

/// The service with its guard.
pub(super) fn service(core: Arc<Core>) -> InterceptedService<CliServiceServer<Door>, Guard> {
    let door = CliServiceServer::new(Door(core.clone())).max_decoding_message_size(MAX_MESSAGE);
    InterceptedService::new(door, Guard(core))
}

/// Lets calls with a live personal access token through, and says whose it is.
#[derive(Clone)]
pub(super) struct Guard(Arc<Core>);

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let missing = || {
            Status::unauthenticated(
                "no personal access token came with the call: set ENNOTE_TOKEN to one that `ennote-devcloud pat create` printed (one-time shares, which need none, are not served here)",
            )
        };
        let given = request.metadata().get("authorization").ok_or_else(missing)?;
        let text = given.to_str().ok().and_then(|text| text.strip_prefix(BEARER)).ok_or_else(missing)?;
        let principal = self.0.principal(text).map_err(|error| match error {
            BadPat::Store => Status::internal(error.to_string()),
            BadPat::Unknown | BadPat::Expired | BadPat::Revoked => Status::unauthenticated(error.to_string()),
        })?;
        request.extensions_mut().insert(principal);
        Ok(request)
    }
}

/// Answers calls that the guard let through.
pub(super) struct Door(Arc<Core>);

impl Door {
    /// The workspace of a call: its token's own, named as such by request and metadata.
    fn workspace(&self, call: &Call, organization: &str, workspace: &str) -> Result<String, Status> {
        let own = &call.principal.workspace;
        for (key, named, right) in [
            ("ennote-organization-id", organization, self.0.organization()),
            ("ennote-workspace-id", workspace, own.as_str()),
        ] {
            let told = call.metadata.get(key).map(|told| told.to_str().unwrap_or_default());
            if named != right || told.is_some_and(|told| told != right) {
                return Err(Status::permission_denied(format!(
                    "this personal access token is for organization {:?} and workspace {own:?}: set ENNOTE_ORGANIZATION_ID and ENNOTE_WORKSPACE_ID to these, or use another token",
                    self.0.organization(),
                )));
            }
        }
        Ok(own.clone())
    }

    async fn add(&self, call: &Call, requests: Vec<AddCliSecretRequest>) -> Result<Vec<AddCliSecretResponse>, Status> {
        let Some(first) = requests.first() else { return Ok(Vec::new()) };
        let workspace = self.workspace(call, &first.organization_id, &first.workspace_id)?;
        let mut uploads = Vec::new();
        for request in requests {
            self.workspace(call, &request.organization_id, &request.workspace_id)?;
            uploads.push(upload(request)?);
        }
        let taken = self.0.take_blobs(&workspace, uploads).await.map_err(status)?;
        tracing::info!(token = call.principal.name, workspace, secrets = taken.len(), "taken through cli.v1");
        Ok(taken.into_iter().map(|Taken { id, name, .. }| AddCliSecretResponse { id, name }).collect())
    }
}

/// What came around a message.
struct Call {
    principal: Principal,
    metadata: MetadataMap,
}

fn split<T>(request: Request<T>) -> Result<(Call, T), Status> {
    let (metadata, extensions, message) = request.into_parts();
    let unguarded = || Status::internal("the call was not checked");
    let principal = extensions.get::<Principal>().cloned().ok_or_else(unguarded)?;
    Ok((Call { principal, metadata }, message))
}

fn upload(request: AddCliSecretRequest) -> Result<Upload, Status> {
    let name = request.name;
    let said = |what: &str| Status::invalid_argument(format!("secret {name:?}: {what}"));
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == request.r#type);
    let kind = kind.ok_or_else(|| said(&format!("the types are {}", Kind::ALL.map(Kind::name).join(", "))))?;
    let notes = request.notes.iter().chain(&request.url).chain(&request.labels);
    if request.labels.len() > MAX_LABELS || notes.into_iter().any(|note| note.len() > MAX_NOTE) {
        return Err(said("at most 100 labels are taken, and no note, URL or label above 16 KiB"));
    }
    let blob = BASE64.decode(request.encrypted_blob.as_bytes());
    let blob = blob.map_err(|_| said("the blob is not standard base64"))?;
    Ok(Upload { name, kind, blob })
}

fn status(error: InteropError) -> Status {
    let text = error.to_string();
    match error {
        InteropError::Admin(error) | InteropError::Refused { source: error, .. } => match error {
            AdminError::Store(error) => {
                tracing::error!(%error, "the store failed a call of cli.v1");
                Status::internal("the cloud could not read or write its database; its log says why")
            }
            AdminError::NoWorkspace(_)
            | AdminError::NoSecret { .. }
            | AdminError::Deleted { .. }
            | AdminError::NoVersion { .. }
            | AdminError::Erased { .. } => Status::not_found(text),
            _ => Status::invalid_argument(text),
        },
        InteropError::Blob { .. } | InteropError::Text(_) | InteropError::Session(_) => Status::invalid_argument(text),
    }
}

fn no_shares<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this cloud serves no one-time shares: their links lead to app.ennote.io"))
}

#[tonic::async_trait]
impl CliService for Door {
    async fn get_secret_version_data(
        &self,
        request: Request<GetCliSecretRequest>,
    ) -> Result<Response<GetCliSecretResponse>, Status> {
        let (call, asked) = split(request)?;
        let workspace = self.workspace(&call, &asked.organization_id, &asked.workspace_id)?;
        let session = SessionKey::parse(&asked.session_public_key).map_err(|error| status(error.into()))?;
        let version = asked.secret_version_number.map(|number| u64::try_from(number).ok().filter(|n| *n > 0));
        if version == Some(None) {
            return Err(Status::invalid_argument("versions count from 1"));
        }
        let given = self.0.give_blob(&workspace, &asked.secret_name, version.flatten(), &session).await;
        let given = given.map_err(status)?;
        Ok(Response::new(GetCliSecretResponse { encrypted_blob: given.blob, session_wrapped_key: given.wrapped_key }))
    }

    async fn add_cli_secret(
        &self,
        request: Request<AddCliSecretRequest>,
    ) -> Result<Response<AddCliSecretResponse>, Status> {
        let (call, asked) = split(request)?;
        let added = self.add(&call, vec![asked]).await?;
        let one = added.into_iter().next().ok_or_else(|| Status::internal("nothing was added"))?;
        Ok(Response::new(one))
    }

    async fn add_multi_cli_secret(
        &self,
        request: Request<AddMultiCliSecretRequest>,
    ) -> Result<Response<AddMultiCliSecretResponse>, Status> {
        let (call, asked) = split(request)?;
        if asked.secrets.len() > MAX_BATCH {
            return Err(Status::invalid_argument("at most 50 secrets are taken at once"));
        }
        Ok(Response::new(AddMultiCliSecretResponse { secrets: self.add(&call, asked.secrets).await? }))
    }

    async fn get_crypto_config(
        &self,
        request: Request<GetCliCryptoConfigRequest>,
    ) -> Result<Response<GetCliCryptoConfigResponse>, Status> {
        let (call, asked) = split(request)?;
        self.workspace(&call, &asked.organization_id, &asked.workspace_id)?;
        let key = self.0.kem_key().await.map_err(|error| status(error.into()))?;
        Ok(Response::new(GetCliCryptoConfigResponse {
            algorithm: ALGORITHM.to_owned(),
            public_key: key.public(),
            key_version: key.version().to_owned(),
        }))
    }

    async fn put_cli_share_data(
        &self,
        _: Request<PutCliShareDataRequest>,
    ) -> Result<Response<PutCliShareDataResponse>, Status> {
        no_shares()
    }

    async fn get_cli_share_data(
        &self,
        _: Request<GetCliShareDataRequest>,
    ) -> Result<Response<GetCliShareDataResponse>, Status> {
        no_shares()
    }

    async fn check_cli_share_data(
        &self,
        _: Request<CheckCliShareDataRequest>,
    ) -> Result<Response<CheckCliShareDataResponse>, Status> {
        no_shares()
    }
}
