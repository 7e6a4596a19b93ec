//! No port of any kind, from the first moment of the agent's life to its last, read from the kernel's own tables.

use anyhow::{Context, Result, ensure};
use ennote_harness::agent::{self, Agent};
use ennote_harness::cable::Cable;
use ennote_harness::gate::{Gate, Verdict};
use ennote_harness::sockets::{Socket, sockets};
use ennote_harness::world::{AGENT, Options, World};
use ennote_scenarios::hostile::dials;
use ennote_scenarios::identity::until_epoch;
use ennote_scenarios::{LATER, SOON, binding, condition, until_condition, until_version};
use kube::ResourceExt;
use rustix::process::Signal;

/// Phase by phase, every table that was read of an agent.
#[derive(Default)]
struct Looks(Vec<(&'static str, Vec<Socket>)>);

impl Looks {
    fn at(&mut self, phase: &'static str, agent: &Agent) -> bool {
        // A table read while a connection comes or goes is read again.
        let read = agent.sockets();
        read.is_ok_and(|sockets| {
            self.0.push((phase, sockets));
            true
        })
    }

    /// Looks while `reached` is waited for, and once after.
    async fn until(
        &mut self,
        phase: &'static str,
        world: &World,
        mut reached: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
        world
            .eventually(phase, LATER, async || {
                self.at(phase, &world.agent);
                reached().await?;
                ensure!(self.at(phase, &world.agent), "the table could not be read");
                Ok(())
            })
            .await
    }
}

fn said(world: &World, line: &str, before: usize) -> Result<()> {
    ensure!(world.agent.log().matches(line).count() > before, "the log does not say {line:?} again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_ingress_no_socket_listens_in_any_phase() -> Result<()> {
    const JOINED: &str = "all wants are declared";
    const ENDED: &str = "the stream to the cloud ended";
    let soon = ("ENNOTE_STAND_BY".to_owned(), "1".to_owned());
    let options =
        Options { token: false, chart: false, agent: false, environment: vec![soon.clone()], ..Options::default() };
    let mut world = World::start("sockets", options).await?;
    // What the check finds where there is something to be found.
    let cloud = sockets(world.cloud.pid().context("the cloud runs")?)?;
    let open = |kind: &str, part: &str| cloud.iter().any(|s| s.listening && s.kind == kind && s.local.contains(part));
    ensure!(open("tcp", &world.cloud.address()), "the cloud's port is not seen: {cloud:?}");
    ensure!(open("unix", "/data/"), "the cloud's admin socket is not seen: {cloud:?}");

    let to_cloud = Cable::start(&world.cloud.address()).await?;
    let ca = world.cloud.ca_pem()?;
    dials(&mut world, &to_cloud.address(), &ca).await?;
    let to_cluster = Cable::start(world.agent.dialled()?).await?;
    world.agent.dials(&to_cluster.address());
    let user = format!("system:serviceaccount:{}:ennote-agent", world.namespace);
    let gate = Gate::start(world.client.clone(), &world.namespace, &user).await?;
    let mut looks = Looks::default();

    world.agent.start().await?;
    looks.until("before the join", &world, async || said(&world, "could not join", 0)).await?;
    // The cloud's address takes connections, and says nothing.
    to_cloud.black_hole();
    to_cloud.cut();
    let before = to_cloud.connections();
    world.new_token().await?;
    looks
        .until("joining", &world, async || {
            ensure!(to_cloud.connections() > before, "it has not dialled");
            Ok(())
        })
        .await?;
    to_cloud.heal();
    to_cloud.cut();
    looks.until("streaming", &world, async || said(&world, JOINED, 0)).await?;
    world.cloud.put("payments db", &[("password", "1")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    world.cloud.put("payments db", &[("password", "2")]).await?;
    until_version(&world, "db", 2).await?;
    looks.until("synced", &world, async || Ok(())).await?;
    let synced = looks.0.last().map(|(_, sockets)| sockets.clone()).unwrap_or_default();
    ensure!(synced.iter().any(|s| s.kind == "tcp"), "not even its own connections are seen: {synced:?}");

    let (ended, joined) = (world.agent.log().matches(ENDED).count(), world.agent.log().matches(JOINED).count());
    world.cloud.stop().await?;
    looks.until("the cloud is gone", &world, async || said(&world, ENDED, ended)).await?;
    world.cloud.up().await?;
    looks.until("and back", &world, async || said(&world, JOINED, joined)).await?;

    to_cluster.black_hole();
    to_cluster.cut();
    let before = to_cluster.connections();
    looks
        .until("the API server is gone", &world, async || {
            ensure!(to_cluster.connections() > before, "it has not dialled again");
            Ok(())
        })
        .await?;
    to_cluster.heal();
    to_cluster.cut();
    world.cloud.put("payments db", &[("password", "3")]).await?;
    until_version(&world, "db", 3).await?;

    world.cloud.revoke(AGENT).await?;
    looks
        .until("banned", &world, async || {
            let seen = condition(&world.binding("db").await?, "Ready");
            ensure!(seen.as_deref() == Some("False/Banned"), "Ready is {seen:?}");
            Ok(())
        })
        .await?;
    world.new_token().await?;
    until_condition(&world, "db", "Ready", "True/Synced").await?;
    let epoch = world.cloud.agent(AGENT).await?["epoch"].as_u64().context("an epoch")?;

    world.kubectl(&["scale", "deployment", "ennote-agent", "--replicas=2"]).await?;
    let mut options = agent::Options::new(&world.namespace);
    options.environment = vec![soon];
    options.beside = Some(world.agent.pod()?.uid().context("a UID")?);
    let mut newer = Agent::new(&world.plane, options).await?;
    newer.start().await?;
    looks.until("standing by", &world, async || said(&world, "\"SUPERSEDED\"", 1)).await?;
    ensure!(looks.at("the newer of two", &newer), "the table could not be read");
    newer.kill9().await?;
    until_epoch(&world, epoch + 2).await?;

    // With a write under way it does not end at once.
    gate.says(Verdict::Hold);
    world.cloud.put("payments db", &[("password", "4")]).await?;
    world
        .eventually("a write to be held", SOON, async || {
            ensure!(gate.holding() > 0, "none is");
            Ok(())
        })
        .await?;
    world.agent.signal(Signal::TERM)?;
    looks.until("terminating", &world, async || said(&world, "stopping: running passes", 0)).await?;
    let status = world.agent.exited(SOON).await?;
    ensure!(status.success(), "it ended with {status}");

    let listening: Vec<_> = looks.0.iter().filter(|(_, all)| all.iter().any(|s| s.listening)).collect();
    ensure!(listening.is_empty(), "it listens: {listening:?}");
    gate.end().await?;
    world.stop().await
}
