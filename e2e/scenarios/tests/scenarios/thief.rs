//! Somebody else's process with a key of its own, which speaks the protocol to the real cloud as well as any agent.

use anyhow::{Context, Result, bail};
use ed25519_dalek::SigningKey;
use ennote_devcloud::envelope::seal_credential;
use ennote_devcloud::signed::{self, Label, hash};
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire::identity_service_client::IdentityServiceClient;
use ennote_devcloud::wire::sync_service_client::SyncServiceClient;
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use ennote_harness::dial::dial;
use ennote_harness::world::World;
use prost::Message;
use rand_core::{Rng, UnwrapErr};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

/// A client of the world's cloud, past every proxy.
pub(crate) struct Thief {
    channel: Channel,
    pub(crate) key: SigningKey,
}

/// [`refusal`], with the detail that the cloud gives of a ServiceAccount token: `IDENTITY_UNKNOWN/REPLAYED`.
pub(crate) fn detailed<T>(answer: Result<T, Status>) -> Result<String> {
    let status = answer.err().context("the cloud agreed")?;
    let info = status.get_details_error_info().with_context(|| format!("no reason: {:?}", status.code()))?;
    Ok(format!("{}/{}", info.reason, info.metadata.get("detail").map_or("", String::as_str)))
}

/// `ErrorInfo.reason` of a refusal; an error when there was none.
pub(crate) fn refusal<T>(answer: Result<T, Status>) -> Result<String> {
    let status = answer.err().context("the cloud agreed")?;
    let info = status.get_details_error_info().with_context(|| format!("no reason: {:?}", status.code()))?;
    Ok(info.reason)
}

impl Thief {
    pub(crate) fn new(world: &World) -> Result<Self> {
        let mut seed = [0; 32];
        UnwrapErr(getrandom::SysRng).fill_bytes(&mut seed);
        Ok(Self { channel: dial(&world.cloud.address(), &world.cloud.ca_pem()?)?, key: SigningKey::from_bytes(&seed) })
    }

    pub(crate) async fn begin(&self, request: wire::BeginRequest) -> Result<wire::BeginResponse, Status> {
        IdentityServiceClient::new(self.channel.clone()).begin(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn finish(&self, request: wire::FinishRequest) -> Result<wire::FinishResponse, Status> {
        IdentityServiceClient::new(self.channel.clone()).finish(request).await.map(tonic::Response::into_inner)
    }

    /// A join with a bootstrap token and nothing else.
    pub(crate) async fn join(&self, token: &str) -> Result<Result<wire::Joined, Status>> {
        self.join_with(wire::Credential { bootstrap_token: token.to_owned(), ..wire::Credential::default() }).await
    }

    /// A join with this credential.
    pub(crate) async fn join_with(&self, credential: wire::Credential) -> Result<Result<wire::Joined, Status>> {
        let rng = &mut UnwrapErr(getrandom::SysRng);
        let mut client_nonce = vec![0; 32];
        rng.fill_bytes(&mut client_nonce);
        let hello = wire::Hello {
            suites: vec![wire::Suite::A as i32],
            agent_public_key: self.key.verifying_key().as_bytes().to_vec(),
            client_nonce,
            build: "thief".to_owned(),
        };
        let request = wire::BeginRequest { hello: hello.encode_to_vec() };
        let answer = self.begin(request.clone()).await?;
        let body = answer.challenge.context("a challenge")?.body;
        let challenge = wire::Challenge::decode(body.as_slice())?;
        let keyset = wire::Keyset::decode(answer.keyset.context("a keyset")?.body.as_slice())?;
        let seal = keyset.keys.iter().find(|key| challenge.seal_key_id == hash(&[&key.public_key]));
        let seal = seal.context("the SEAL key")?;
        let mut t = [0; 64];
        t[..32].copy_from_slice(&hash(&[&request.hello]));
        t[32..].copy_from_slice(&hash(&[&body]));
        let (enc, sealed) = seal_credential(Suite::A, &seal.public_key, &t, &credential.encode_to_vec(), rng)?;
        let signature = signed::sign_parts(&self.key, Label::Prove, &[&t, &hash(&[&enc, &sealed])]);
        let finish = wire::FinishRequest { challenge_id: challenge.challenge_id, enc, sealed, signature };
        match self.finish(finish).await {
            Err(status) => Ok(Err(status)),
            Ok(answer) => Ok(Ok(wire::Joined::decode(answer.joined.context("joined")?.body.as_slice())?)),
        }
    }

    /// Opens a stream by what `open` makes of its nonce; the cloud's next word after the greeting.
    pub(crate) async fn open(
        &self,
        open: impl FnOnce(&[u8]) -> wire::OpenFrame,
    ) -> Result<Result<cloud_frame::Frame, Status>> {
        let (frames, outgoing) = mpsc::channel(4);
        let mut client = SyncServiceClient::new(self.channel.clone());
        let mut incoming: Streaming<wire::CloudFrame> = client.sync(ReceiverStream::new(outgoing)).await?.into_inner();
        let greeting = incoming.message().await?.and_then(|frame| frame.frame);
        let Some(cloud_frame::Frame::Greet(greet)) = greeting else { bail!("the cloud greets first") };
        let open = agent_frame::Frame::Open(open(&greet.stream_nonce));
        frames.send(wire::AgentFrame { frame: Some(open) }).await?;
        // An empty ask is what an agent sends at once: the beat that answers it would be the proof of success.
        let ask = wire::Ask { stream_nonce: greet.stream_nonce, seq: 1, ..wire::Ask::default() };
        let ask = agent_frame::Frame::Ask(signed::sign(&self.key, Label::Ask, ask.encode_to_vec()));
        // A call that was refused meanwhile takes nothing more; its status comes next.
        let _refused_already = frames.send(wire::AgentFrame { frame: Some(ask) }).await;
        Ok(match incoming.message().await {
            Err(status) => Err(status),
            Ok(frame) => Ok(frame.and_then(|frame| frame.frame).context("the stream ended without a word")?),
        })
    }

    /// An open by the thief's key.
    pub(crate) fn opening(&self, nonce: &[u8], agent_id: &str, epoch: u64, access_token: &[u8]) -> wire::OpenFrame {
        let open = wire::Open {
            stream_nonce: nonce.to_vec(),
            agent_id: agent_id.to_owned(),
            epoch,
            access_token_hash: hash(&[access_token]).to_vec(),
            suite: wire::Suite::A as i32,
        };
        let open = Some(signed::sign(&self.key, Label::Open, open.encode_to_vec()));
        wire::OpenFrame { open, access_token: access_token.to_vec() }
    }
}
