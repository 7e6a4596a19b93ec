//! Agents in pods, and what a test looks at around them.

use super::cluster::Cluster;
use super::{Agent, Cloud, PATIENCE, Stream, detailed};
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};

/// An agent process in a pod of the cluster: a fresh key, and the files of the pod.
pub async fn process(cloud: &Cloud, cluster: &Cluster, sa_token: &str) -> Agent {
    let mut agent = Agent::new(cloud.channel().await);
    agent.credential = wire::Credential {
        sa_token: sa_token.to_owned(),
        issuer: cluster.issuer.clone(),
        jwks: cluster.jwks().into_bytes(),
        ..wire::Credential::default()
    };
    agent
}

/// A stream that is certainly open.
pub async fn streaming(agent: &Agent) -> Stream {
    let mut stream = agent.stream().await;
    stream.ask(0, &[], &[]).await;
    stream.beat().await;
    stream
}

/// Until the cloud has seen that an agent's streams are gone.
pub async fn offline(cloud: &Cloud) {
    let gone = async {
        while cloud.core.hub.streams() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

pub async fn renew(agent: &mut Agent, stream: &mut Stream) -> Result<(), String> {
    let hello = agent.hello(&[wire::Suite::A]);
    stream.send(agent_frame::Frame::Begin(hello.clone())).await;
    loop {
        match stream.next().await.map_err(|status| detailed(&status))? {
            cloud_frame::Frame::Begin(answer) => {
                let finish = agent.answer(&hello, &answer, "");
                stream.send(agent_frame::Frame::Finish(finish)).await;
            }
            cloud_frame::Frame::Finish(answer) => {
                agent.accept(&answer);
                return Ok(());
            }
            _ => (),
        }
    }
}

pub fn alarms(cloud: &Cloud) -> Vec<(String, u64)> {
    cloud.core.alarms().unwrap().into_iter().map(|alarm| (alarm.kind, alarm.count)).collect()
}
