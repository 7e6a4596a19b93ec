//! What the network does to a stream: it can end it, and nothing else.

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use ennote_devcloud::signed::{self, Label};
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use ennote_harness::devcloud;
use ennote_harness::evil::{Call, EvilProxy, Fate, Frame, Record};
use ennote_harness::world::{Options, World};
use ennote_scenarios::hostile::{Needles, behind_proxy, flip, until_heard};
use ennote_scenarios::{LATER, Requests, binding, condition, mark, raw, secret_path, until_condition, until_version};
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};

/// Beats come often, so that a scenario does not wait for them.
fn beating() -> Options {
    let cloud = devcloud::Options { serve: vec!["--beat-interval=500ms".to_owned()], ..devcloud::Options::default() };
    Options { cloud, ..Options::default() }
}

async fn put(world: &World, name: &str, value: &str) -> Result<()> {
    world.cloud.put(name, &[("value", value)]).await.map(drop)
}

async fn bound(name: &str, options: Options) -> Result<(World, EvilProxy)> {
    let (world, proxy) = behind_proxy(name, options).await?;
    put(&world, "db", "1").await?;
    world.apply(&binding("db", "db")).await?;
    until_version(&world, "db", 1).await?;
    Ok((world, proxy))
}

fn streams_ended(world: &World) -> usize {
    world.agent.log().matches("the stream to the cloud ended").count()
}

async fn until_ended(world: &World, what: &str, times: usize) -> Result<()> {
    world
        .eventually(&format!("the agent ends its stream: {what}"), LATER, async || {
            ensure!(streams_ended(world) >= times, "it ended {} of {times} times", streams_ended(world));
            Ok(())
        })
        .await
}

fn refused(r: &Record) -> Option<String> {
    match r.call {
        Call::Sync(_) => r.refusal().map(str::to_owned),
        _ => None,
    }
}

/// Puts keys of the attacker into an ask: whatever the cloud seals to them, the attacker reads.
fn swap_keys(ask: &mut wire::Signed) {
    let mut asked = wire::Ask::decode(ask.body.as_slice()).unwrap_or_default();
    for key in &mut asked.keys {
        let point = SigningKey::from_bytes(&[6; 32]).verifying_key().to_montgomery().to_bytes();
        let length = key.public_key.len();
        key.public_key.truncate(length - point.len());
        key.public_key.extend(point);
    }
    ask.body = asked.encode_to_vec();
}

/// What is done to a frame, and whether the cloud is the one who refuses it (the agent, if not).
type Edit = (&'static str, bool, fn(&mut Frame));

const EDITS: &[Edit] = &[
    ("the nonce of the greeting", true, |frame| {
        if let Frame::Cloud(cloud_frame::Frame::Greet(greet)) = frame {
            flip(&mut greet.stream_nonce);
        }
    }),
    ("the opening", true, |frame| {
        if let Frame::Agent(agent_frame::Frame::Open(open)) = frame {
            let open = open.open.get_or_insert_default();
            let mut opened = wire::Open::decode(open.body.as_slice()).unwrap_or_default();
            flip(&mut opened.stream_nonce);
            open.body = opened.encode_to_vec();
        }
    }),
    ("the opening's signature", true, |frame| {
        if let Frame::Agent(agent_frame::Frame::Open(open)) = frame {
            flip(&mut open.open.get_or_insert_default().signature);
        }
    }),
    ("the access token", true, |frame| {
        if let Frame::Agent(agent_frame::Frame::Open(open)) = frame {
            flip(&mut open.access_token);
        }
    }),
    ("an ask's signature", true, |frame| {
        if let Frame::Agent(agent_frame::Frame::Ask(ask)) = frame {
            flip(&mut ask.signature);
        }
    }),
    ("an ask's wants", true, |frame| {
        if let Frame::Agent(agent_frame::Frame::Ask(ask)) = frame {
            let mut asked = wire::Ask::decode(ask.body.as_slice()).unwrap_or_default();
            asked.wants.clear();
            ask.body = asked.encode_to_vec();
        }
    }),
    ("a beat", false, |frame| {
        if let Frame::Cloud(cloud_frame::Frame::Beat(beat)) = frame {
            let mut said = wire::Beat::decode(beat.body.as_slice()).unwrap_or_default();
            said.haves += 1;
            beat.body = said.encode_to_vec();
        }
    }),
    ("a beat's signature", false, |frame| {
        if let Frame::Cloud(cloud_frame::Frame::Beat(beat)) = frame {
            flip(&mut beat.signature);
        }
    }),
    ("a beat's key", false, |frame| {
        if let Frame::Cloud(cloud_frame::Frame::Beat(beat)) = frame {
            flip(&mut beat.key_id);
        }
    }),
    ("whom a delivery is for", false, |frame| {
        if let Frame::Cloud(cloud_frame::Frame::Have(have)) = frame {
            have.id += 1 << 40;
        }
    }),
    ("what a delivery says", false, |frame| {
        if let Frame::Cloud(cloud_frame::Frame::Have(have)) = frame {
            have.answer = None;
        }
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_altered_anywhere_ends_and_the_next_one_is_whole() -> Result<()> {
    let (mut world, proxy) = bound("evil-frames", beating()).await?;
    for (version, &(what, by_cloud, edit)) in (2..).zip(EDITS) {
        // A fresh process each time: its pauses are short. With a fresh token, as a container does not restart so often on one.
        world.agent.kill9().await?;
        world.agent.forget_tokens().await;
        let before = raw(&world, &secret_path(&world.namespace, "db")).await?;
        put(&world, "db", &version.to_string()).await?;
        let (refusals, ended) = (proxy.find(refused)?.len(), streams_ended(&world));
        proxy.attack(move |_, frame| {
            let mut altered = frame.clone();
            edit(&mut altered);
            Fate::Instead(vec![altered])
        });
        world.agent.start().await?;
        if by_cloud {
            let reasons = until_heard(&world, &proxy, what, refusals + 1, refused).await?;
            ensure!(reasons[refusals..].iter().all(|reason| reason == "UNPROVEN"), "{what}: {reasons:?}");
            let now = raw(&world, &secret_path(&world.namespace, "db")).await?;
            ensure!(now == before, "{what}: the Secret was touched");
        }
        until_ended(&world, what, ended + 1).await?;
        proxy.honest();
        until_version(&world, "db", version).await?;
        ensure!(world.secret_data("db").await?["value"] == version.to_string());
    }
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn session_keys_of_somebody_else_are_given_nothing() -> Result<()> {
    const CANARY: &str = "canary-5e1b7d90f3-value";
    let (mut world, proxy) = behind_proxy("evil-keys", Options { agent: false, ..beating() }).await?;
    put(&world, "db", CANARY).await?;
    world.apply(&binding("db", "db")).await?;
    let signers: [fn(&mut wire::Signed); 2] = [
        |_| (),
        |ask| *ask = signed::sign(&SigningKey::from_bytes(&[6; 32]), Label::Ask, std::mem::take(&mut ask.body)),
    ];
    for sign in signers {
        let before = proxy.find(refused)?.len();
        proxy.attack(move |_, frame| match frame {
            Frame::Agent(agent_frame::Frame::Ask(ask)) => {
                let mut ask = ask.clone();
                swap_keys(&mut ask);
                sign(&mut ask);
                Fate::Instead(vec![Frame::Agent(agent_frame::Frame::Ask(ask))])
            }
            _ => Fate::Pass,
        });
        match world.agent.pid() {
            Ok(_) => proxy.cut(),
            Err(_) => world.agent.start().await?,
        }
        let reasons = until_heard(&world, &proxy, "a refused ask", before + 1, refused).await?;
        ensure!(reasons.iter().all(|reason| reason == "UNPROVEN"), "{reasons:?}");
    }
    let deliveries = proxy.find(|r| r.frame().filter(|frame| frame.name() == "have").map(drop))?;
    ensure!(deliveries.is_empty(), "{} deliveries to keys that the agent does not have", deliveries.len());
    ensure!(world.secrets().get_opt("db").await?.is_none());
    proxy.honest();
    until_version(&world, "db", 1).await?;
    ensure!(Needles::of(CANARY).seen_in(&proxy.records()?) == 0, "a value passed readably");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_withheld_behind_live_beats_is_seen_and_said() -> Result<()> {
    let (world, proxy) = bound("evil-withheld", beating()).await?;
    until_condition(&world, "db", "Fresh", "True/BeatsArrive").await?;
    proxy.attack(|_, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Have(_)) => Fate::dropped(),
        _ => Fate::Pass,
    });
    put(&world, "db", "2").await?;
    let told = until_condition(&world, "db", "Fresh", "False/Withheld").await?;
    ensure!(condition(&told, "Ready").as_deref() == Some("True/Synced"), "what is held is held well");
    ensure!(world.secret_data("db").await?["value"] == "1");
    ensure!(world.agent.log().contains("Withheld"), "the log says why the stream ended");
    ensure!(proxy.newest_stream() >= 2, "it has not opened another stream each time");
    ensure!(proxy.joins() == 1, "another stream is no reason to join again");
    proxy.honest();
    until_version(&world, "db", 2).await?;
    until_condition(&world, "db", "Fresh", "True/BeatsArrive").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_that_was_heard_before_ends_the_stream() -> Result<()> {
    let (world, proxy) = bound("evil-beats", beating()).await?;
    let beats = |r: &Record| match (r.call, r.frame()?) {
        (Call::Sync(stream), Frame::Cloud(cloud_frame::Frame::Beat(beat))) => Some((stream, beat.clone())),
        _ => None,
    };
    // On its own stream.
    let (stream, old) = until_heard(&world, &proxy, "beats", 3, beats).await?.swap_remove(0);
    ensure!(proxy.inject(stream, Frame::Cloud(cloud_frame::Frame::Beat(old.clone()))), "the stream has ended");
    until_ended(&world, "a beat repeated", 1).await?;
    // Of another stream, in place of each that comes.
    let (replayed, next) = (old, proxy.newest_stream());
    proxy.attack(move |call, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Beat(_)) if call != Call::Sync(next) => {
            Fate::Instead(vec![Frame::Cloud(cloud_frame::Frame::Beat(replayed.clone()))])
        }
        _ => Fate::Pass,
    });
    until_ended(&world, "a beat of another stream", 2).await?;
    proxy.honest();
    put(&world, "db", "2").await?;
    until_version(&world, "db", 2).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_that_is_lost_ends_the_stream_and_nothing_is_missed() -> Result<()> {
    let (world, proxy) = bound("evil-gap", beating()).await?;
    let mut left = 1;
    proxy.attack(move |_, frame| match frame {
        Frame::Agent(agent_frame::Frame::Ask(_)) if left > 0 => {
            left -= 1;
            Fate::dropped()
        }
        _ => Fate::Pass,
    });
    // The first is lost, the second shows the gap.
    for name in ["one", "two"] {
        put(&world, name, "1").await?;
        world.apply(&binding(name, name)).await?;
    }
    let reasons = until_heard(&world, &proxy, "a gap", 1, refused).await?;
    ensure!(reasons == ["SEQUENCE"], "{reasons:?}");
    for name in ["one", "two"] {
        until_version(&world, name, 1).await?;
    }
    put(&world, "db", "2").await?;
    until_version(&world, "db", 2).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_twice_or_in_another_order_take_effect_once() -> Result<()> {
    let (world, proxy) = bound("evil-twice", beating()).await?;
    put(&world, "cache", "1").await?;
    world.apply(&binding("cache", "cache")).await?;
    until_version(&world, "cache", 1).await?;
    let start = mark(&world).await?;

    // The first of two waits for the second, and then both come twice, the second first.
    let kept: Arc<Mutex<Vec<Frame>>> = Arc::default();
    proxy.attack(move |_, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Have(_)) => {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(0, frame.clone());
            match kept.len() {
                1 => Fate::dropped(),
                _ => {
                    let both = std::mem::take(&mut *kept);
                    Fate::Instead(both.iter().chain(&both).cloned().collect())
                }
            }
        }
        _ => Fate::Pass,
    });
    put(&world, "db", "2").await?;
    put(&world, "cache", "2").await?;
    for name in ["db", "cache"] {
        until_version(&world, name, 2).await?;
        ensure!(world.secret_data(name).await?["value"] == "2");
    }
    proxy.honest();
    // What came twice counts once: its session key was spent.
    for name in ["db", "cache"] {
        put(&world, name, "3").await?;
        let synced = until_version(&world, name, 3).await?;
        ensure!(synced["status"]["source"]["version"] == 3);
    }
    let (requests, _) = Requests::since(&world, start).await?;
    ensure!(requests.secret_writes() == 4, "{} Secret writes for 2 versions of 2", requests.secret_writes());
    until_condition(&world, "db", "Fresh", "True/BeatsArrive")
        .await
        .context("the count of deliveries is whole again")?;
    world.stop().await
}
