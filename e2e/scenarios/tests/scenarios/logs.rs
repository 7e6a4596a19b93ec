//! Whatever fails, and however much is logged: no line, no Event and no status holds a value or a credential.

use anyhow::{Context, Result, ensure};
use ennote_devcloud::wire::cloud_frame;
use ennote_harness::cable::Cable;
use ennote_harness::evil::{Fate, Frame};
use ennote_harness::gate::{Gate, Verdict};
use ennote_harness::world::{Options, World};
use ennote_scenarios::hostile::{Needles, behind_proxy};
use ennote_scenarios::identity::{sa_token, serving};
use ennote_scenarios::{LATER, SOON, binding, binding_with, until_condition, until_version};
use rustix::process::Signal;

/// Every value begins with it.
const CANARY: &str = "c4n4ry~Wq8xZ5rT";

/// Faults of a delivery, each of a secret of its own, and the reason that its binding gives.
const FAULTS: [(&str, &str); 10] = [
    ("undecryptable", "Undecryptable"),
    ("truncated", "Undecryptable"),
    ("bit-flipped-after-signing", "BadSignature"),
    ("unsigned", "BadSignature"),
    ("unknown-payload-key", "UnknownKey"),
    ("stub-json", "BadPayload"),
    ("payload-too-large", "BadPayload"),
    ("no-type", "BadPayload"),
    ("wrong-agent", "WrongRecipient"),
    ("wrong-secret", "WrongSource"),
];

/// Specs that the payload does not fit.
const MISFITS: [(&str, &str); 5] = [
    ("no-such-key", "data: [{key: a, pointer: /keysValues/other}]"),
    ("not-base64", "data: [{key: a, pointer: /keysValues/value, format: base64}]"),
    ("no-such-field", "data: [{key: a, template: \"{{ keysValues.other }} {{ keysValues.value }}\"}]"),
    (
        "no-certificate",
        "target: {type: kubernetes.io/tls}\n  data: [{key: tls.crt, pointer: /keysValues/value}, {key: tls.key, pointer: /keysValues/value}]",
    ),
    (
        "no-docker",
        "target: {type: kubernetes.io/dockerconfigjson}\n  data: [{key: .dockerconfigjson, pointer: /keysValues/value}]",
    ),
];

struct Turns<'a> {
    world: &'a World,
    turn: usize,
}

impl Turns<'_> {
    /// A new version of a secret; each value is another.
    async fn put(&mut self, secret: &str) -> Result<u64> {
        self.put_times(secret, 1).await
    }

    /// One that is as long as it takes.
    async fn put_times(&mut self, secret: &str, times: usize) -> Result<u64> {
        self.turn += 1;
        let value = format!("{CANARY}{}", self.turn).repeat(times);
        let put = self.world.cloud.put(secret, &[("value", &value)]).await?;
        put["version"].as_u64().context("a version")
    }

    async fn until_logged(&self, line: &str, before: usize) -> Result<()> {
        self.world
            .eventually(&format!("the agent to log {line:?}"), LATER, async || {
                ensure!(logged(self.world, line) > before, "not again");
                Ok(())
            })
            .await
    }
}

fn logged(world: &World, line: &str) -> usize {
    world.agent.log().matches(line).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_at_any_level_holds_a_value_or_a_credential() -> Result<()> {
    const FAILED: &str = "could not patch secrets";
    // RUST_LOG is no setting of the agent: it must not become one.
    let environment = [("ENNOTE_LOG", "trace"), ("RUST_LOG", "trace"), ("ENNOTE_FAULTS", "blab:boom")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = Options {
        cloud: serving(&["--allow-faults"]),
        environment: environment.into(),
        agent: false,
        token: false,
        ..Options::default()
    };
    let (mut world, proxy) = behind_proxy("logs", options).await?;
    let token = world.cloud.token_create(ennote_harness::world::AGENT, &[&world.namespace]).await?;
    world.set_token(&token).await?;
    let user = format!("system:serviceaccount:{}:ennote-agent", world.namespace);
    let gate = Gate::start(world.client.clone(), &world.namespace, &user).await?;
    let cable = Cable::start(world.agent.dialled()?).await?;
    world.agent.dials(&cable.address());
    world.agent.start().await?;
    let credentials = [
        token,
        sa_token(&world)?,
        std::fs::read_to_string(world.agent.local_path("/var/run/secrets/kubernetes.io/serviceaccount/token")?)?,
    ];

    let mut turns = Turns { world: &world, turn: 0 };
    turns.put("db").await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    turns.put("db").await?;
    until_version(&world, "db", 2).await?;

    // What does not fit, and what is broken by the cloud, each said by its condition.
    for (name, spec) in MISFITS {
        world.apply(&binding_with(name, &format!("source: {{secret: db}}\n  {spec}"))).await?;
    }
    for (name, _) in MISFITS {
        until_condition(&world, name, "Ready", "False/BadMapping").await?;
    }
    // The cloud sends one fault at a time.
    for (fault, reason) in FAULTS {
        turns.put(fault).await?;
        world.cloud.cli(&["fault", "set", fault, "--secret", fault]).await?;
        world.apply(&binding(fault, fault)).await?;
        until_condition(&world, fault, "Ready", &format!("False/{reason}")).await?;
    }
    world.cloud.cli(&["fault", "clear"]).await?;

    // The API server refuses, in words that quote the value; fails; is cut off in the middle; and is silent.
    for verdict in [Verdict::Quote(403), Verdict::Quote(422), Verdict::Quote(500), Verdict::Quote(429), Verdict::Fail] {
        let before = logged(&world, FAILED);
        gate.says(verdict);
        let version = turns.put("db").await?;
        turns.until_logged(FAILED, before).await.with_context(|| format!("{verdict:?}"))?;
        gate.says(Verdict::Pass);
        until_version(&world, "db", version).await?;
    }
    let stopped = gate.stopped();
    gate.says(Verdict::Quote(409));
    let version = turns.put("db").await?;
    world
        .eventually("four conflicts", LATER, async || {
            ensure!(gate.stopped() >= stopped + 4, "not yet");
            Ok(())
        })
        .await?;
    gate.says(Verdict::Hold);
    let before = logged(&world, FAILED);
    turns.until_logged(FAILED, before).await.context("no answer in time")?;
    let before = logged(&world, FAILED);
    cable.reset_bodies_of(64 * 1024);
    gate.says(Verdict::Pass);
    turns.put_times("db", 16 * 1024).await?;
    world
        .eventually("a reset in mid-body", LATER, async || {
            ensure!(cable.resets() > 0 && logged(&world, FAILED) > before, "not yet");
            Ok(())
        })
        .await?;
    cable.reset_bodies_of(0);
    until_version(&world, "db", version + 1).await?;

    // The stream ends with remote words, and in the middle of a delivery.
    for (code, words) in [(tonic::Code::Internal, CANARY), (tonic::Code::Unavailable, CANARY)] {
        let ended = logged(&world, "the stream to the cloud ended");
        proxy.attack(move |_, frame| match frame {
            Frame::Cloud(cloud_frame::Frame::Have(_)) => Fate::End(tonic::Status::new(code, words)),
            _ => Fate::Pass,
        });
        turns.put("db").await?;
        turns.until_logged("the stream to the cloud ended", ended).await?;
        proxy.honest();
    }
    until_version(&world, "db", version + 3).await?;

    turns.put("boom").await?;
    world.apply(&binding("boom", "boom")).await?;
    turns.until_logged("panicked", 0).await?;
    world.agent.signal(Signal::TERM)?;
    world.agent.exited(SOON).await?;

    let log = world.agent.log();
    for line in ["\"level\":\"DEBUG\"", "\"target\":\"h2", "\"target\":\"kube", "panicked"] {
        ensure!(log.contains(line), "the log is none of everything: no {line}");
    }
    ensure!(!log.contains("\"level\":\"TRACE\",\"target\":\"h2"), "the floor gave way");
    let yaml = world.kubectl(&["get", "events.events.k8s.io,ennotesecretbindings", "-o", "yaml"]).await?;
    let values = Needles::of(CANARY);
    for (line, place) in log.lines().map(|line| (line, "log")).chain(yaml.lines().map(|line| (line, "status"))) {
        ensure!(!values.are_in(line.as_bytes()), "a value is in the {place}: {line}");
        for credential in &credentials {
            ensure!(!line.contains(credential.trim()), "a credential is in the {place}");
            // A token's signature is what makes it one.
            let end = credential.trim().rsplit('.').next().unwrap_or_default();
            ensure!(end.len() < 16 || !line.contains(end), "half a credential is in the {place}");
        }
    }
    gate.end().await?;
    world.stop().await
}
