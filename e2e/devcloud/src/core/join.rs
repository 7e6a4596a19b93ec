//! Joins, renewals, and the opening of streams.

use super::admission::{self, Denied, current};
use super::{Core, News, Proven, Refusal, alarms, enrolments};
use crate::attestation::Unverified;
use crate::signed::{self, Label, hash};
use crate::store::{AccessToken, Agent, Enrolment, StoreError, Table, Tx};
use crate::suite::Suite;
use crate::{entropy, wire};
use prost::Message;
use zeroize::Zeroizing;

impl Core {
    /// Begin of a join.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn begin(&self, request: &wire::BeginRequest) -> Result<wire::BeginResponse, Refusal> {
        self.refresh_keyset().await?;
        let now = Self::now_ms();
        let (begun, answer) = self.challenge(request, now)?;
        self.challenges.keep(begun, now);
        Ok(answer)
    }

    /// Finish of a join.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn finish(&self, request: &wire::FinishRequest) -> Result<wire::FinishResponse, Refusal> {
        let begun = self.challenges.take(&request.challenge_id)?;
        let proven = self.prove(begun, request, Self::now_ms())?;
        let (terms, t, made) = (self.terms.clone(), proven.t, (proven.suite, proven.evictions));
        let sa_token = proven.sa_token.clone();
        let admitted = self.admitted(made, move |tx| admission::admit(tx, &proven, &terms)).await;
        let (agent, access) = match admitted {
            Ok(admitted) => admitted,
            Err(Denied { stranger: true, .. }) => return Err(self.stranger(&sa_token)?),
            Err(denied) => return Err(denied.refusal),
        };
        tracing::info!(agent = agent.name, id = agent.id, epoch = agent.epoch, build = agent.build, "joined");
        Ok(self.joined(&agent, t, &access))
    }

    /// Finish of a renewal on an open stream.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn renew(&self, agent_id: &str, epoch: u64, proven: Proven) -> Result<wire::FinishResponse, Refusal> {
        let (terms, t, agent_id) = (self.terms.clone(), proven.t, agent_id.to_owned());
        let made = (proven.suite, proven.evictions);
        let renewed = move |tx: &mut Tx<'_, '_, News>| admission::renew(tx, &agent_id, epoch, &proven, &terms);
        let (agent, access) = self.admitted(made, renewed).await.map_err(|denied| denied.refusal)?;
        tracing::info!(agent = agent.name, epoch = agent.epoch, "access token renewed on the stream");
        Ok(self.joined(&agent, t, &access))
    }

    /// Why a token is refused whose ServiceAccount nobody has enrolled.
    fn stranger(&self, sa_token: &str) -> Result<Refusal, Refusal> {
        let token = Unverified::read(sa_token).map_err(Refusal::Identity)?;
        let all: Vec<Enrolment> = self.store.view()?.all(Table::Enrolments)?;
        Ok(Refusal::Identity(enrolments::stranger(&all, &token)))
    }

    /// Gives the agent that `judge` finds an access token, in its transaction. The alarm of a refusal is kept before the
    /// refusal is answered.
    async fn admitted(
        &self,
        made: (Suite, u64),
        judge: impl FnOnce(&mut Tx<'_, '_, News>) -> Result<Agent, Denied> + Send + 'static,
    ) -> Result<(Agent, Zeroizing<[u8; 32]>), Denied> {
        let access = Zeroizing::new(entropy::bytes::<32>());
        let access_hash = hash(&[access.as_slice()]);
        let terms = self.terms.clone();
        let judged = self
            .store
            .write(move |tx| {
                let before = tx.now_ms();
                let mut agent = judge(tx)?;
                admission::grant_access(&mut agent, access_hash, made, before, &terms);
                let old: Option<Agent> = tx.get(Table::Agents, &[&agent.id])?;
                tx.put(Table::Agents, &[&agent.id], &agent)?;
                let same = |old: Agent| {
                    (old.epoch, old.namespaces, old.workspace)
                        == (agent.epoch, agent.namespaces.clone(), agent.workspace.clone())
                };
                if !old.is_some_and(same) {
                    tx.announce(News::Agent { agent_id: agent.id.clone() });
                }
                Ok::<_, Denied>(agent)
            })
            .await;
        match judged {
            Ok(agent) => Ok((agent, access)),
            Err(mut denied) => {
                if let Some(alarm) = denied.alarm.take() {
                    self.store.write(move |tx| alarms::raise(tx, &alarm)).await.map_err(|error: StoreError| error)?;
                }
                Err(denied)
            }
        }
    }

    /// Checks an open frame against its stream's nonce. Gives the agent, and its token.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open_stream(
        &self,
        nonce: &[u8; 32],
        frame: &wire::OpenFrame,
        now_ms: i64,
    ) -> Result<(Agent, AccessToken), Refusal> {
        let signed = frame.open.as_ref().ok_or(Refusal::Malformed("the open frame holds no open"))?;
        // Read before it is verified only to learn whose key has to verify it.
        let open =
            wire::Open::decode(signed.body.as_slice()).map_err(|_| Refusal::Malformed("the open does not decode"))?;
        let agent = self.agent(&open.agent_id)?.ok_or(Refusal::EpochUnknown)?;
        current(&agent, open.epoch)?;
        signed::body(&agent.agent_key, Label::Open, signed).map_err(|_| Refusal::Unproven)?;
        let token_hash = hash(&[&frame.access_token]);
        if open.stream_nonce != nonce || open.access_token_hash != token_hash {
            return Err(Refusal::Unproven);
        }
        let token = agent.tokens.iter().find(|token| token.hash == token_hash && token.expires_at_ms > now_ms);
        let token = token.cloned().ok_or(Refusal::TokenExpired)?;
        if token.evictions != self.keys().evictions {
            return Err(Refusal::Evicted);
        }
        // The suite of the join, which its challenge made final.
        if open.suite != token.suite.on_wire() as i32 {
            return Err(Refusal::Suite);
        }
        Ok((agent, token))
    }

    /// An agent as it is now.
    ///
    /// # Errors
    /// `Internal`.
    pub fn agent(&self, agent_id: &str) -> Result<Option<Agent>, Refusal> {
        Ok(self.store.view()?.get(Table::Agents, &[agent_id])?)
    }

    fn joined(&self, agent: &Agent, t: [u8; 64], access: &[u8; 32]) -> wire::FinishResponse {
        let joined = wire::Joined {
            t: t.to_vec(),
            agent_id: agent.id.clone(),
            organization: self.organization().to_owned(),
            workspace: agent.workspace.clone(),
            epoch: agent.epoch,
            access_token: access.to_vec(),
            lives_s: u32::try_from(self.lives.access_token_life.as_secs()).unwrap_or(u32::MAX),
            server_time_ms: Self::now_ms(),
        };
        wire::FinishResponse { joined: Some(signed::sign(&self.keys().join, Label::Joined, joined.encode_to_vec())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::InitOptions;
    use crate::settings::Lifetimes;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_only_begins_does_not_wait_for_the_store_nor_make_it_work() {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions { organization: "o".into(), workspace: "w".into(), tls_names: vec![] };
        Core::init(directory.path(), &options).await.unwrap();
        let core = Core::open(directory.path(), Lifetimes::default()).await.unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (busy, is_busy) = tokio::sync::oneshot::channel();
        let writing = {
            let core = core.clone();
            tokio::spawn(async move {
                let write = core.store.write(move |_: &mut Tx<'_, '_, News>| {
                    busy.send(()).unwrap();
                    held.recv().map_err(|_| StoreError::InUse)
                });
                write.await
            })
        };
        is_busy.await.unwrap();
        let hello = wire::Hello {
            agent_public_key: vec![1; 32],
            client_nonce: vec![2; 32],
            suites: vec![wire::Suite::A as i32],
            build: String::new(),
        };
        core.begin(&wire::BeginRequest { hello: hello.encode_to_vec() }).await.unwrap();
        release.send(()).unwrap();
        writing.await.unwrap().unwrap();
    }
}
