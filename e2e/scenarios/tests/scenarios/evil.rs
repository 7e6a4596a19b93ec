//! Whoever owns the network path, with a certificate that the agent trusts, can only deny. Here: reading, and joins.

use crate::thief::{Thief, refusal};
use anyhow::{Context, Result, bail, ensure};
use ed25519_dalek::SigningKey;
use ennote_devcloud::signed::{self, Label, hash};
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use ennote_harness::evil::{Call, EvilProxy, Fate, Frame};
use ennote_harness::world::{AGENT, Options, TOKEN_SECRET, World};
use ennote_scenarios::hostile::{Needles, behind_proxy, flip, until_heard};
use ennote_scenarios::{LATER, binding, until_condition, until_message, until_version};
use prost::Message;
use serde_json::Value;

/// Nothing of a join, a delivery and a change can be read, although every message is there to be read.
#[tokio::test(flavor = "multi_thread")]
async fn the_network_reads_no_value_and_no_credential() -> Result<()> {
    const CANARY: &str = "canary-c81f6e2a9d-value";
    let (world, proxy) = behind_proxy("evil-reads", Options::default()).await?;
    let bootstrap = world.secret_data(TOKEN_SECRET).await?.remove("token").context("a bootstrap token")?;
    world.cloud.put("payments db", &[("password", CANARY)]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    world.cloud.put("payments db", &[("password", &format!("{CANARY}-2"))]).await?;
    until_version(&world, "db", 2).await?;
    ensure!(world.secret_data("db").await?["password"] == format!("{CANARY}-2"));

    let records = proxy.records()?;
    let heard = |name: &str| records.iter().filter_map(|r| r.frame()).filter(|f| f.name() == name).count();
    for name in ["hello", "challenge", "proof", "joined", "greet", "open", "ask", "beat"] {
        ensure!(heard(name) > 0, "no {name} was heard");
    }
    ensure!(heard("have") == 2, "{} deliveries passed", heard("have"));
    // What is known to be visible: names. So the search finds what there is.
    ensure!(Needles::of("payments db").seen_in(&records) > 0, "the search finds nothing at all");
    ensure!(Needles::of(CANARY).seen_in(&records) == 0, "a value passed readably");
    ensure!(Needles::of(&bootstrap).seen_in(&records) == 0, "the bootstrap token passed readably");
    for (token, file) in [("API server's", "kubernetes.io/serviceaccount/token"), ("cloud's", "ennote/sa-token")] {
        let file = world.agent.local_path(&format!("/var/run/secrets/{file}"))?;
        let text = std::fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
        ensure!(text.matches('.').count() == 2, "no token in {}", file.display());
        ensure!(Needles::of(text.trim()).seen_in(&records) == 0, "the {token} ServiceAccount token passed readably");
    }
    // The access token is there to be read. It opens streams only with a key that never passes: see the stolen token.
    ensure!(!seen(&proxy)?.open.access_token.is_empty(), "no access token was seen");
    world.stop().await
}

/// What a listener has of one join and the stream it opened.
struct Seen {
    hello: wire::BeginRequest,
    proof: wire::FinishRequest,
    open: wire::OpenFrame,
}

fn seen(proxy: &EvilProxy) -> Result<Seen> {
    let hello = proxy.find(|r| match r.frame()? {
        Frame::Agent(agent_frame::Frame::Begin(hello)) => Some(hello.clone()),
        _ => None,
    })?;
    let proof = proxy.find(|r| match r.frame()? {
        Frame::Agent(agent_frame::Frame::Finish(proof)) => Some(proof.clone()),
        _ => None,
    })?;
    let open = proxy.find(|r| match r.frame()? {
        Frame::Agent(agent_frame::Frame::Open(open)) => Some(open.clone()),
        _ => None,
    })?;
    let (Some(hello), Some(proof), Some(open)) = (hello.first(), proof.first(), open.first()) else {
        bail!("no join was heard")
    };
    Ok(Seen { hello: hello.clone(), proof: proof.clone(), open: open.clone() })
}

/// What the cloud's administrator sees of this world's agent; null before its first join.
async fn in_cloud(world: &World) -> Result<Value> {
    let list = world.cloud.cli(&["agent", "list"]).await?;
    let agents = list.as_array().or_else(|| list["agents"].as_array()).context("a list of agents")?;
    Ok(agents.iter().find(|agent| agent["name"] == AGENT).cloned().unwrap_or(Value::Null))
}

/// Edits of a message of the wire, each with its name.
type Edits<T> = [(&'static str, fn(&mut T))];

fn challenge_of(answer: &mut wire::BeginResponse) -> &mut wire::Signed {
    answer.challenge.get_or_insert_default()
}

fn keyset_of(answer: &mut wire::BeginResponse) -> &mut wire::Signed {
    answer.keyset.get_or_insert_default()
}

/// Makes the cloud's answer what a cloud of the attacker would say: keys of its own, with which it could read credentials.
fn impersonate(answer: &mut wire::BeginResponse) {
    let (root, join) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let seal = SigningKey::from_bytes(&[3; 32]).verifying_key().to_montgomery().to_bytes();
    let mut keyset = wire::Keyset::decode(keyset_of(answer).body.as_slice()).unwrap_or_default();
    for key in &mut keyset.keys {
        match key.r#use() {
            wire::KeyUse::Seal => key.public_key = seal.to_vec(),
            _ => key.public_key = join.verifying_key().to_bytes().to_vec(),
        }
    }
    let mut challenge = wire::Challenge::decode(challenge_of(answer).body.as_slice()).unwrap_or_default();
    challenge.suite = wire::Suite::A as i32;
    challenge.seal_key_id = hash(&[&seal]).to_vec();
    answer.root_public_key = root.verifying_key().to_bytes().to_vec();
    answer.keyset = Some(signed::sign(&root, Label::Keyset, keyset.encode_to_vec()));
    answer.challenge = Some(signed::sign(&join, Label::Challenge, challenge.encode_to_vec()));
}

const CHALLENGES: &Edits<wire::BeginResponse> = &[
    ("the root key", |answer| flip(&mut answer.root_public_key)),
    ("the keyset", |answer| flip(&mut keyset_of(answer).body)),
    ("the keyset's signature", |answer| flip(&mut keyset_of(answer).signature)),
    ("the keyset's absence", |answer| answer.keyset = None),
    ("the challenge", |answer| flip(&mut challenge_of(answer).body)),
    ("the challenge's signature", |answer| flip(&mut challenge_of(answer).signature)),
    ("the challenge's key", |answer| flip(&mut challenge_of(answer).key_id)),
    ("keys of its own under a root of its own", impersonate),
    ("keys of its own under the name of the root", |answer| {
        let root = answer.root_public_key.clone();
        impersonate(answer);
        answer.root_public_key = root;
    }),
];

const HELLOS: &Edits<wire::BeginRequest> = &[
    ("its own key in the hello", |request| {
        let mut hello = wire::Hello::decode(request.hello.as_slice()).unwrap_or_default();
        hello.agent_public_key = SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes().to_vec();
        request.hello = hello.encode_to_vec();
    }),
    ("the better suite in the hello", |request| {
        let mut hello = wire::Hello::decode(request.hello.as_slice()).unwrap_or_default();
        hello.suites = vec![wire::Suite::A as i32];
        request.hello = hello.encode_to_vec();
    }),
    ("the nonce of the hello", |request| {
        let mut hello = wire::Hello::decode(request.hello.as_slice()).unwrap_or_default();
        flip(&mut hello.client_nonce);
        request.hello = hello.encode_to_vec();
    }),
];

const PROOFS: &Edits<wire::FinishRequest> = &[
    ("the challenge's id", |proof| flip(&mut proof.challenge_id)),
    ("the encapsulated key", |proof| flip(&mut proof.enc)),
    ("the credential", |proof| flip(&mut proof.sealed)),
    ("the proof's signature", |proof| flip(&mut proof.signature)),
];

const JOINED: &Edits<wire::FinishResponse> = &[
    ("joined", |answer| flip(&mut answer.joined.get_or_insert_default().body)),
    ("joined's signature", |answer| flip(&mut answer.joined.get_or_insert_default().signature)),
    ("joined's key", |answer| flip(&mut answer.joined.get_or_insert_default().key_id)),
];

fn instead<T: Clone>(message: &T, edit: impl FnOnce(&mut T), frame: impl FnOnce(T) -> Frame) -> Fate {
    let mut message = message.clone();
    edit(&mut message);
    Fate::Instead(vec![frame(message)])
}

/// Starts the agent anew under the proxy's attack, and waits until it could not join.
async fn cannot_join(world: &mut World, what: &str) -> Result<()> {
    let failures = |world: &World| world.agent.log().matches("could not join").count();
    if world.agent.pid().is_ok() {
        world.agent.kill9().await?;
    }
    let before = failures(world);
    world.agent.start().await?;
    world
        .eventually(&format!("a join refused for {what}"), LATER, async || {
            ensure!(failures(world) > before, "it has not failed yet");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_altered_anywhere_reveals_nothing_and_spends_nothing() -> Result<()> {
    let (mut world, proxy) = behind_proxy("evil-join", Options { agent: false, ..Options::default() }).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    let proofs = |proxy: &EvilProxy| {
        proxy.find(|r| r.frame().filter(|frame| frame.name() == "proof").map(drop)).map(|all| all.len())
    };

    // What the cloud says: the agent does not answer, so nothing of its credential leaves it.
    for &(what, edit) in CHALLENGES {
        proxy.attack(move |_, frame| match frame {
            Frame::Cloud(cloud_frame::Frame::Begin(answer)) => {
                instead(answer, edit, |answer| Frame::Cloud(cloud_frame::Frame::Begin(answer)))
            }
            _ => Fate::Pass,
        });
        cannot_join(&mut world, what).await?;
        ensure!(proofs(&proxy)? == 0, "the agent answered although {what} was altered");
    }
    until_message(&world, "db", "Ready", "does not prove to be the trusted cloud").await?;

    // An answer to an earlier hello is none to this one.
    let recorded = proxy.find(|r| match r.frame()? {
        Frame::Cloud(cloud_frame::Frame::Begin(answer)) => Some(answer.clone()),
        _ => None,
    })?;
    let earlier = recorded.first().context("a challenge")?.clone();
    proxy.attack(move |_, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Begin(_)) => {
            Fate::Instead(vec![Frame::Cloud(cloud_frame::Frame::Begin(earlier.clone()))])
        }
        _ => Fate::Pass,
    });
    cannot_join(&mut world, "an earlier challenge").await?;
    ensure!(proofs(&proxy)? == 0, "the agent answered an earlier challenge");

    // What the agent says first: the challenge then answers somebody else's hello.
    for &(what, edit) in HELLOS {
        proxy.attack(move |_, frame| match frame {
            Frame::Agent(agent_frame::Frame::Begin(hello)) => {
                instead(hello, edit, |hello| Frame::Agent(agent_frame::Frame::Begin(hello)))
            }
            _ => Fate::Pass,
        });
        cannot_join(&mut world, what).await?;
        ensure!(proofs(&proxy)? == 0, "the agent answered although {what} was altered");
    }

    // What it says then: the cloud refuses, and redeems nothing.
    for (number, &(what, edit)) in PROOFS.iter().enumerate() {
        proxy.attack(move |_, frame| match frame {
            Frame::Agent(agent_frame::Frame::Finish(proof)) => {
                instead(proof, edit, |proof| Frame::Agent(agent_frame::Frame::Finish(proof)))
            }
            _ => Fate::Pass,
        });
        cannot_join(&mut world, what).await?;
        let refused = |r: &ennote_harness::evil::Record| match r.call {
            Call::Finish(_) => r.refusal().map(str::to_owned),
            _ => None,
        };
        let refusals = until_heard(&world, &proxy, what, number + 1, refused).await?;
        ensure!(refusals.iter().all(|reason| reason == "CHALLENGE"), "{what}: {refusals:?}");
    }
    ensure!(in_cloud(&world).await?.is_null(), "somebody joined");

    // The last word: the token is redeemed by then, and the same key is given the same answer.
    let mut left = JOINED.iter();
    proxy.attack(move |_, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Finish(answer)) => match left.next() {
            Some((_, edit)) => instead(answer, edit, |answer| Frame::Cloud(cloud_frame::Frame::Finish(answer))),
            None => Fate::Pass,
        },
        _ => Fate::Pass,
    });
    cannot_join(&mut world, "joined").await?;
    until_version(&world, "db", 1).await?;
    let joined = in_cloud(&world).await?;
    ensure!(joined["epoch"] == 1, "one key, one epoch: {joined}");
    let log = world.agent.log();
    ensure!(log.matches("\"joined\"").count() == 1, "it took an altered answer:\n{log}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_join_and_a_recorded_opening_are_worth_nothing() -> Result<()> {
    let (world, proxy) = behind_proxy("evil-replay", Options::default()).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    let (seen, before) = (seen(&proxy)?, in_cloud(&world).await?);

    let thief = Thief::new(&world)?;
    // Byte for byte, from another connection: the challenge is used.
    ensure!(refusal(thief.finish(seen.proof.clone()).await)? == "CHALLENGE");
    let answer = thief.begin(seen.hello.clone()).await?;
    ensure!(refusal(thief.finish(seen.proof.clone()).await)? == "CHALLENGE");
    // The old proof for the new challenge.
    let challenge = wire::Challenge::decode(answer.challenge.context("a challenge")?.body.as_slice())?;
    let moved = wire::FinishRequest { challenge_id: challenge.challenge_id, ..seen.proof };
    ensure!(refusal(thief.finish(moved).await)? == "CHALLENGE");
    ensure!(refusal(thief.open(|_| seen.open.clone()).await?)? == "UNPROVEN");

    ensure!(in_cloud(&world).await? == before, "the cloud's state moved: {before}");
    undisturbed(&world, &proxy, 2).await?;
    world.stop().await
}

/// The one stream there ever was goes on: a push arrives on it.
async fn undisturbed(world: &World, proxy: &EvilProxy, version: u64) -> Result<()> {
    world.cloud.put("db", &[("value", &version.to_string())]).await?;
    until_version(world, "db", version).await?;
    ensure!(proxy.newest_stream() == 1, "the victim's stream was disturbed: {} of them", proxy.newest_stream());
    ensure!(proxy.joins() == 1, "the victim joined {} times", proxy.joins());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_access_token_is_worth_nothing_without_the_key() -> Result<()> {
    let (world, proxy) = behind_proxy("evil-token", Options::default()).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    let stolen = seen(&proxy)?.open;
    let opened = wire::Open::decode(stolen.open.context("an open")?.body.as_slice())?;
    let before = in_cloud(&world).await?;

    let thief = Thief::new(&world)?;
    let (victim, epoch, token) = (opened.agent_id.as_str(), opened.epoch, stolen.access_token.as_slice());
    let as_victim = thief.open(|nonce| thief.opening(nonce, victim, epoch, token)).await?;
    ensure!(refusal(as_victim)? == "UNPROVEN");
    let next_epoch = thief.open(|nonce| thief.opening(nonce, victim, epoch + 1, token)).await?;
    ensure!(refusal(next_epoch)? == "EPOCH_UNKNOWN");
    // Not even for an agent of the same organization that has a key and an identity of its own.
    let invitation = world.cloud.token_create("thief", &[&world.namespace]).await?;
    let own = thief.join(&invitation).await??;
    let as_itself = thief.open(|nonce| thief.opening(nonce, &own.agent_id, own.epoch, token)).await?;
    ensure!(refusal(as_itself)? == "TOKEN_EXPIRED");
    // What it lacks is the right token, and nothing else.
    let honest = thief.open(|nonce| thief.opening(nonce, &own.agent_id, own.epoch, &own.access_token)).await?;
    ensure!(matches!(honest, Ok(cloud_frame::Frame::Beat(_))), "the thief's own stream does not open");

    ensure!(in_cloud(&world).await? == before, "the victim's state moved: {before}");
    undisturbed(&world, &proxy, 2).await?;
    world.stop().await
}

/// The cloud has redeemed the token, and the agent never hears so.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_the_token_was_spent_costs_nothing_but_a_retry() -> Result<()> {
    let (mut world, proxy) = behind_proxy("evil-lost", Options { agent: false, ..Options::default() }).await?;
    let bootstrap = world.secret_data(TOKEN_SECRET).await?.remove("token").context("a bootstrap token")?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    proxy.attack(|_, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Finish(_)) => Fate::broken(),
        _ => Fate::Pass,
    });
    world.agent.start().await?;
    let lost = |r: &ennote_harness::evil::Record| r.frame().filter(|frame| frame.name() == "joined").map(drop);
    until_heard(&world, &proxy, "two answers, both lost", 2, lost).await?;
    ensure!(in_cloud(&world).await?["epoch"] == 1, "the token was redeemed, once");

    // Another key finds it spent, before and after.
    let thief = Thief::new(&world)?;
    ensure!(refusal(thief.join(&bootstrap).await?)? == "TOKEN_SPENT");
    proxy.honest();
    until_version(&world, "db", 1).await?;
    ensure!(refusal(thief.join(&bootstrap).await?)? == "TOKEN_SPENT");
    ensure!(in_cloud(&world).await?["epoch"] == 1, "the same key, the same epoch");
    world.stop().await
}

/// A proxy whose certificate nobody vouched for.
#[tokio::test(flavor = "multi_thread")]
async fn to_an_untrusted_certificate_nothing_is_said() -> Result<()> {
    let options = Options { agent: false, ..Options::default() };
    let (mut world, proxy) = behind_proxy("evil-cert", options).await?;
    let (cloud, ca) = (world.cloud.address(), world.cloud.ca_pem()?);
    ennote_scenarios::hostile::dials(&mut world, &proxy.address(), &ca).await?;
    world.cloud.put("db", &[("value", "1")]).await?;
    world.apply(&binding("db", "db")).await?;
    world.agent.start().await?;
    world
        .eventually("two handshakes that the agent breaks off", LATER, async || {
            ensure!(proxy.failed_handshakes().len() >= 2, "so far: {:?}", proxy.failed_handshakes());
            Ok(())
        })
        .await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForCloud").await?;
    until_message(&world, "db", "Ready", "the certificate of").await?;
    until_message(&world, "db", "Ready", "ennote.api.caCert").await?;
    ensure!(proxy.connections() == 0 && proxy.records()?.is_empty(), "something was said");
    let unknown = |how: &String| how.contains("UnknownCA") || how.contains("UnknownCa");
    ensure!(proxy.failed_handshakes().iter().all(unknown), "{:?}", proxy.failed_handshakes());

    // The right certificate mends it.
    ennote_scenarios::hostile::dials(&mut world, &cloud, &ca).await?;
    world.agent.restart().await?;
    until_version(&world, "db", 1).await?;
    world.stop().await
}
