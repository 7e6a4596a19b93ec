//! The memory of the real agent, read by another process after everything that can befall a payload: no copy of it stays, with
//! the allocator that wipes and with the system's (SECURITY.md 3).

use anyhow::{Context, Result, ensure};
use ennote_harness::cable::Cable;
use ennote_harness::gate::{Gate, Verdict};
use ennote_harness::memory::{Canary, Dress, hardening, scan};
use ennote_harness::settings::Settings;
use ennote_harness::wait;
use ennote_harness::world::{Options, World};
use ennote_scenarios::identity::{serving, until_streams};
use ennote_scenarios::{LATER, SOON, binding, binding_with, until_condition, until_version};
use rustix::process::{Signal, geteuid};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const SIZES: [(&str, usize); 3] = [("small", 32), ("medium", 8 * 1024), ("large", 900 * 1024)];

/// A world whose agent reaches its API server over a cable and writes through a gate, and the canaries that were in its hands.
struct Scene {
    world: World,
    gate: Gate,
    cable: Cable,
    canaries: Vec<Canary>,
}

impl Scene {
    async fn start(name: &str, binary: &str) -> Result<Self> {
        let environment = vec![("ENNOTE_FAULTS".to_owned(), "panic:boom,linger".to_owned())];
        let options = Options { cloud: serving(&["--allow-faults"]), environment, agent: false, ..Options::default() };
        let mut world = World::start(name, options).await?;
        let user = format!("system:serviceaccount:{}:ennote-agent", world.namespace);
        let gate = Gate::start(world.client.clone(), &world.namespace, &user).await?;
        let cable = Cable::start(world.agent.dialled()?).await?;
        world.agent.runs(binary)?;
        world.agent.dials(&cable.address());
        world.agent.start().await?;
        Ok(Self { world, gate, cable, canaries: Vec::new() })
    }

    /// A new version of a secret, which is a canary of its own.
    async fn put(&mut self, secret: &str, length: usize) -> Result<(Canary, u64)> {
        let canary = Canary::new(self.canaries.len() as u64 + 1, length);
        self.canaries.push(canary);
        let put = self.world.cloud.put(secret, &[("value", &canary.text())]).await?;
        Ok((canary, put["version"].as_u64().context("a version")?))
    }

    /// Idle: the heartbeat turned over once since everything that was waited for before.
    async fn until_idle(&self) -> Result<()> {
        let file = self.world.agent.local_path("/run/ennote/heartbeat")?;
        let before = std::fs::read_to_string(&file)?;
        self.world
            .eventually("the heartbeat to turn over", SOON, async || {
                ensure!(std::fs::read_to_string(&file)? != before, "not yet");
                Ok(())
            })
            .await
    }

    /// That nothing is left of any canary.
    async fn nothing_is_left(&self, when: &str) -> Result<()> {
        self.until_idle().await?;
        self.look()?.nothing(when)
    }

    fn look(&self) -> Result<ennote_harness::memory::Seen> {
        scan(self.world.agent.pid()?, &self.canaries)
    }

    /// Puts a canary and waits until the write of it is held at the gate.
    async fn put_and_hold(&mut self, secret: &str, length: usize) -> Result<(Canary, u64)> {
        self.gate.says(Verdict::Hold);
        let put = self.put(secret, length).await?;
        self.until(&format!("the write of {secret} to be held"), |scene| scene.gate.holding() > 0).await?;
        Ok(put)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        self.world
            .eventually(what, LATER, async || {
                ensure!(holds(self), "not yet");
                Ok(())
            })
            .await
    }

    fn logged(&self, text: &str) -> usize {
        self.world.agent.log().matches(text).count()
    }

    /// The cloud comes back, and brings the version after all.
    async fn heals(&mut self, secret: &str, version: u64, when: &str) -> Result<()> {
        self.gate.says(Verdict::Pass);
        self.cable.reset_bodies_of(0);
        self.world.cloud.up().await?;
        until_streams(&self.world, 1).await?;
        until_version(&self.world, secret, version).await?;
        self.nothing_is_left(&format!("healed after {when}")).await
    }
}

fn skipped(why: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "skipped: {why}")?)
}

async fn nothing_stays(name: &str, binary: &str, wipes: bool) -> Result<()> {
    if !geteuid().is_root() {
        return skipped("the memory of a process that cannot be dumped is read by root alone");
    }
    let mut scene = Scene::start(name, binary).await?;

    // Created, then patched; and the control: what is just being written is found, or none of this would mean anything.
    for (secret, length) in SIZES {
        let (_, version) = scene.put(secret, length).await?;
        scene.world.apply(&binding(secret, secret)).await?;
        until_version(&scene.world, secret, version).await?;
        let (live, version) = scene.put_and_hold(secret, length).await?;
        let seen = scene.look()?;
        let control = seen.copies.iter().any(|copy| copy.canary == live && copy.dress == Dress::Raw);
        ensure!(control, "the control failed: a live {secret} payload is not found: {seen}");
        scene.gate.says(Verdict::Pass);
        until_version(&scene.world, secret, version).await?;
        scene.nothing_is_left(&format!("idle after {secret}")).await?;
    }

    // Templates and formats go through libraries that know nothing of secrets: what they copy is the allocator's to wipe.
    if wipes {
        let data = "source: {secret: medium}\n  data:\n    - {key: dsn, template: \"pre {{ keysValues.value | urlencode }} {{ keysValues.value }}\"}\n    - {key: doc, pointer: /keysValues, format: yaml}\n    - {key: json, pointer: /keysValues, format: json}";
        scene.world.apply(&binding_with("mapped", data)).await?;
        let (_, version) = scene.put("medium", 8 * 1024).await?;
        until_version(&scene.world, "mapped", version).await?;
        until_version(&scene.world, "medium", version).await?;
        scene.nothing_is_left("idle after templates and formats").await?;
        scene.world.kubectl(&["delete", "ennotesecretbinding", "mapped"]).await?;
    }

    let mut last = 0;
    for _ in 0..20 {
        last = scene.put("small", 32).await?.1;
    }
    until_version(&scene.world, "small", last).await?;
    scene.nothing_is_left("idle after a burst").await?;

    let refused = scene.logged("\"Undecryptable\"");
    scene.world.cloud.cli(&["fault", "set", "undecryptable", "--secret", "small"]).await?;
    let (_, version) = scene.put("small", 32).await?;
    scene.until("a delivery that does not open", |scene| scene.logged("\"Undecryptable\"") > refused).await?;
    scene.nothing_is_left("failed decrypt").await?;
    scene.world.cloud.cli(&["fault", "clear"]).await?;
    until_version(&scene.world, "small", version).await?;

    // From here on the cloud is gone before the write fails: no second delivery hides what the first has left.
    for (secret, length) in SIZES {
        let failed = scene.logged("could not patch secrets");
        let (_, version) = scene.put_and_hold(secret, length).await?;
        scene.world.cloud.kill9().await?;
        scene.gate.says(Verdict::Fail);
        scene.until("the API server's 500", |scene| scene.logged("could not patch secrets") > failed).await?;
        scene.nothing_is_left(&format!("500 for {secret}")).await?;
        scene.heals(secret, version, "500").await?;
    }
    let stopped = scene.gate.stopped();
    let (_, version) = scene.put_and_hold("medium", 8 * 1024).await?;
    scene.world.cloud.kill9().await?;
    scene.gate.says(Verdict::Refuse(409));
    scene.until("four conflicts", |scene| scene.gate.stopped() >= stopped + 4).await?;
    scene.nothing_is_left("409").await?;
    scene.heals("medium", version, "409").await?;

    let failed = scene.logged("could not patch secrets");
    scene.cable.reset_bodies_of(256 * 1024);
    let (_, version) = scene.put("large", 900 * 1024).await?;
    scene.until("a reset in mid-body", |scene| scene.cable.resets() > 0).await?;
    scene.world.cloud.kill9().await?;
    scene.until("the write to fail", |scene| scene.logged("could not patch secrets") > failed).await?;
    scene.nothing_is_left("connection reset in mid-body").await?;
    scene.heals("large", version, "a reset").await?;

    let (_, _) = scene.put("boom", 8 * 1024).await?;
    scene.world.apply(&binding("boom", "boom")).await?;
    scene.until("the panic", |scene| scene.logged("panicked") > 0).await?;
    scene.nothing_is_left("panic with a payload in hand").await?;
    scene.world.kubectl(&["delete", "ennotesecretbinding", "boom"]).await?;
    scene.world.agent.kill9().await?;
    scene.world.agent.start().await?;

    // The process is asked to end while a write is under way, and is held before it is gone.
    let (_, version) = scene.put("small", 32).await?;
    until_version(&scene.world, "small", version).await?;
    scene.put_and_hold("small", 32).await?;
    scene.world.agent.signal(Signal::TERM)?;
    scene.until("the end", |scene| scene.logged("lingering") > 0).await?;
    scene
        .world
        .eventually("the workers to have dropped what they held", SOON, async || scene.look()?.nothing("SIGTERM"))
        .await?;
    scene.world.agent.kill9().await?;
    let Scene { world, gate, .. } = scene;
    gate.end().await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_hygiene_no_copy_of_a_payload_stays() -> Result<()> {
    nothing_stays("memory", "ennote-agent", true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_of_a_payload_stays_on_the_systems_allocator_either() -> Result<()> {
    nothing_stays("memory-system", "agent-on-system-allocator", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_dumps_no_core_cannot_be_read_and_locks_its_key() -> Result<()> {
    let world = World::start("hardened", Options::default()).await?;
    world.apply(&binding("db", "db")).await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForSecret").await?;
    let found = hardening(world.agent.pid()?)?;
    ensure!(found.core == (Some(0), Some(0)), "core dumps: {found:?}");
    ensure!(found.locked > 0 && found.hides, "the agent's key is in no locked page: {found:?}");
    world.stop().await?;

    if !geteuid().is_root() {
        return skipped("to be another user takes root");
    }
    // The kernel gives the files of a process that cannot be dumped to root. That shows on one that is not root's, as in a pod.
    const USER: u32 = 65532;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
    let binary = dir.path().join("ennote-agent");
    std::fs::copy(Settings::from_env()?.binary("ennote-agent")?, &binary)?;
    let log = dir.path().join("log");
    let mut command = Command::new(&binary);
    command.arg("run").env_clear().env("ENNOTE_FAULTS", "linger").uid(USER).gid(USER).current_dir("/");
    command.stdin(Stdio::null()).stderr(std::fs::File::create(&log)?);
    let mut child = command.spawn()?;
    let looked = wait::until("the process to linger", SOON, async || {
        ensure!(std::fs::read_to_string(&log)?.contains("lingering"), "not yet");
        Ok(())
    })
    .await;
    let proc = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    let owner = std::fs::metadata(proc.join("mem")).map(|file| file.uid());
    let status = std::fs::read_to_string(proc.join("status"));
    child.kill()?;
    child.wait()?;
    looked?;
    let status = status?;
    ensure!(status.contains(&format!("Uid:\t{USER}")), "it runs as another user: {status}");
    ensure!(owner? == 0, "its own user may read its memory");
    Ok(())
}
