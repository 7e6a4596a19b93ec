//! What the network does to deliveries: each forgery is refused with its reason, and no Secret ever holds a wrong byte.

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use ennote_devcloud::envelope::sign_sealed;
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use ennote_harness::evil::{Call, EvilProxy, Fate, Frame, Record};
use ennote_harness::world::{Options, World};
use ennote_scenarios::hostile::{behind_proxy, flip, until_heard};
use ennote_scenarios::{LATER, binding, condition, raw, secret_path, until_condition, until_version};
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};

fn header(sealed: &wire::Sealed) -> wire::Header {
    wire::Header::decode(sealed.header.as_slice()).unwrap_or_default()
}

/// Changes a field of the header, as whoever alters it would: well-formed.
fn in_header(sealed: &mut wire::Sealed, edit: impl FnOnce(&mut wire::Header)) {
    let mut header = header(sealed);
    edit(&mut header);
    sealed.header = header.encode_to_vec();
}

/// A sealed delivery, and the binding that it is for.
fn sealed_of(frame: &Frame) -> Option<(u64, &wire::Sealed, String)> {
    match frame {
        Frame::Cloud(cloud_frame::Frame::Have(wire::Have { id, answer: Some(wire::have::Answer::Sealed(sealed)) })) => {
            Some((*id, sealed, header(sealed).binding))
        }
        _ => None,
    }
}

fn have(id: u64, answer: impl Into<Option<wire::have::Answer>>) -> Frame {
    Frame::Cloud(cloud_frame::Frame::Have(wire::Have { id, answer: answer.into() }))
}

/// Binding, what is done to its delivery, and the reason that its status gives.
type Forgery = (&'static str, fn(&mut wire::Sealed), &'static str);

const FORGERIES: &[Forgery] = &[
    ("version", |sealed| in_header(sealed, |header| header.version += 1), "BadSignature"),
    ("secret", |sealed| in_header(sealed, |header| header.secret.push('x')), "BadSignature"),
    ("enc", |sealed| flip(&mut sealed.enc), "BadSignature"),
    ("ciphertext", |sealed| flip(&mut sealed.ciphertext), "BadSignature"),
    ("shorter", |sealed| sealed.ciphertext.truncate(20), "BadSignature"),
    ("empty", |sealed| sealed.ciphertext.clear(), "BadSignature"),
    ("signature", |sealed| flip(&mut sealed.signature), "BadSignature"),
    ("signer", |sealed| flip(&mut sealed.key_id), "UnknownKey"),
    (
        "resigned",
        |sealed| {
            in_header(sealed, |header| header.version += 1);
            let taken = std::mem::take(sealed);
            *sealed = sign_sealed(&SigningKey::from_bytes(&[5; 32]), taken.header, taken.enc, taken.ciphertext);
        },
        "UnknownKey",
    ),
    ("no-such-key", |sealed| in_header(sealed, |header| header.key_index = 1 << 40), "BadSignature"),
    ("noise", |sealed| sealed.header = vec![0xff; 40], "BadSignature"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_altered_anywhere_is_refused_with_its_reason_and_the_secret_stays() -> Result<()> {
    let (world, proxy) = behind_proxy("evil-have", Options::default()).await?;
    for (name, ..) in FORGERIES {
        world.cloud.put(name, &[("value", "1")]).await?;
        world.apply(&binding(name, name)).await?;
    }
    world.cloud.put("bystander", &[("value", "1")]).await?;
    world.apply(&binding("bystander", "bystander")).await?;
    until_version(&world, "bystander", 1).await?;
    let mut before = Vec::new();
    let mut ids = std::collections::BTreeMap::new();
    for (name, ..) in FORGERIES {
        until_version(&world, name, 1).await?;
        before.push(raw(&world, &secret_path(&world.namespace, name)).await?);
    }
    // Noise names nobody: the id of the want says whose delivery it was.
    for (id, name) in proxy.find(|r| sealed_of(r.frame()?).map(|(id, _, name)| (id, name)))? {
        ids.insert(id, name);
    }

    proxy.attack(move |_, frame| {
        let Some((id, sealed, name)) = sealed_of(frame) else { return Fate::Pass };
        let name = ids.get(&id).cloned().unwrap_or(name);
        let Some((_, forge, _)) = FORGERIES.iter().find(|(of, ..)| *of == name) else { return Fate::Pass };
        let mut sealed = sealed.clone();
        forge(&mut sealed);
        Fate::Instead(vec![have(id, wire::have::Answer::Sealed(sealed))])
    });
    for (name, ..) in FORGERIES {
        world.cloud.put(name, &[("value", "2")]).await?;
    }
    world.cloud.put("bystander", &[("value", "2")]).await?;
    for (name, _, reason) in FORGERIES {
        until_condition(&world, name, "Stalled", &format!("True/{reason}")).await?;
        let told = until_condition(&world, name, "Ready", &format!("False/{reason}")).await?;
        let said = ennote_scenarios::message(&told, "Ready");
        ensure!(
            said.contains("the Secret is kept as it is") && said.contains("who runs the network"),
            "{name}: {said}"
        );
    }
    for ((name, ..), before) in FORGERIES.iter().zip(before) {
        let now = raw(&world, &secret_path(&world.namespace, name)).await?;
        ensure!(now == before, "{name}: the Secret was touched");
    }
    // The beats count what was altered as kept back, so streams end meanwhile; the others are served all the same.
    until_version(&world, "bystander", 2).await?;

    proxy.honest();
    for (name, ..) in FORGERIES {
        let healed = until_version(&world, name, 2).await?;
        ensure!(condition(&healed, "Stalled").is_none(), "{name}: a trace of the problem is left");
        ensure!(world.secret_data(name).await?["value"] == "2");
    }
    world.stop().await
}

/// Two bindings of one agent, `a` and `b`, synced at version 1.
async fn two(name: &str) -> Result<(World, EvilProxy)> {
    let (world, proxy) = behind_proxy(name, Options::default()).await?;
    for name in ["a", "b"] {
        world.cloud.put(name, &[("value", &format!("{name}1"))]).await?;
        world.apply(&binding(name, name)).await?;
        until_version(&world, name, 1).await?;
    }
    Ok((world, proxy))
}

async fn holds(world: &World, name: &str, value: &str) -> Result<()> {
    let data = world.secret_data(name).await?;
    ensure!(data.len() == 1 && data["value"] == value, "{name} holds {data:?}, not {value}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_swapped_between_two_bindings_are_refused_by_both() -> Result<()> {
    let (world, proxy) = two("evil-swap").await?;
    // The first of the two is kept until the second is there; then each goes to the other's want.
    let kept: Arc<Mutex<Option<(u64, wire::Sealed, String)>>> = Arc::default();
    proxy.attack(move |_, frame| {
        let Some((id, sealed, name)) = sealed_of(frame) else { return Fate::Pass };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.take() {
            Some((other, first, of)) if of != name => Fate::Instead(vec![
                have(id, wire::have::Answer::Sealed(first)),
                have(other, wire::have::Answer::Sealed(sealed.clone())),
            ]),
            _ => {
                *kept = Some((id, sealed.clone(), name));
                Fate::dropped()
            }
        }
    });
    world.cloud.put("a", &[("value", "a2")]).await?;
    world.cloud.put("b", &[("value", "b2")]).await?;
    for name in ["a", "b"] {
        until_condition(&world, name, "Ready", "False/WrongBinding").await?;
        holds(&world, name, &format!("{name}1")).await?;
    }
    proxy.honest();
    for name in ["a", "b"] {
        until_version(&world, name, 2).await?;
        holds(&world, name, &format!("{name}2")).await?;
    }
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_of_another_binding_deletes_nothing() -> Result<()> {
    // Deletions are executed here, so a tombstone that counted would be seen.
    let values = serde_json::json!({"ennote": {"k8s": {"cleanupOrphans": true}}});
    let (world, proxy) = behind_proxy("evil-gone", Options { values, ..Options::default() }).await?;
    for name in ["a", "b"] {
        world.cloud.put(name, &[("value", &format!("{name}1"))]).await?;
        world.apply(&binding(name, name)).await?;
        until_version(&world, name, 1).await?;
    }
    let wanted = proxy.find(|r| sealed_of(r.frame()?).map(|(id, _, name)| (name, id)))?;
    let id_of_a = wanted.iter().find(|(name, _)| name == "a").context("the want of a")?.1;
    let before = raw(&world, &secret_path(&world.namespace, "a")).await?;
    proxy.attack(move |_, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Have(wire::Have { answer: Some(wire::have::Answer::Gone(gone)), .. })) => {
            Fate::Instead(vec![have(id_of_a, wire::have::Answer::Gone(gone.clone()))])
        }
        _ => Fate::Pass,
    });
    world.cloud.rm("b").await?;
    until_condition(&world, "a", "Ready", "False/WrongBinding").await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "a")).await? == before, "the Secret of a was touched");
    holds(&world, "b", "b1").await?;

    // Its own tombstone with another version on it is no better.
    proxy.attack(|_, frame| match frame {
        Frame::Cloud(cloud_frame::Frame::Have(wire::Have { id, answer: Some(wire::have::Answer::Gone(gone)) })) => {
            let mut gone = gone.clone();
            let mut header = wire::Header::decode(gone.body.as_slice()).unwrap_or_default();
            header.version += 1;
            gone.body = header.encode_to_vec();
            Fate::Instead(vec![have(*id, wire::have::Answer::Gone(gone))])
        }
        _ => Fate::Pass,
    });
    world.cloud.rm("a").await?;
    until_condition(&world, "a", "Ready", "False/BadSignature").await?;
    ensure!(raw(&world, &secret_path(&world.namespace, "a")).await? == before, "the Secret of a was touched");
    proxy.honest();
    until_condition(&world, "a", "Ready", "False/SourceDeleted").await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_that_the_network_makes_up_touches_no_secret() -> Result<()> {
    let (world, proxy) = two("evil-denied").await?;
    let before = raw(&world, &secret_path(&world.namespace, "a")).await?;
    proxy.attack(|_, frame| match sealed_of(frame) {
        Some((id, _, name)) if name == "a" => {
            let reason = wire::denied::Reason::NoGrant as i32;
            let denied = wire::Denied { reason, grant: "whatever --to anybody\nkubectl delete ns prod".to_owned() };
            Fate::Instead(vec![have(id, wire::have::Answer::Denied(denied))])
        }
        _ => Fate::Pass,
    });
    world.cloud.put("a", &[("value", "a2")]).await?;
    let told = until_condition(&world, "a", "Ready", "False/Denied").await?;
    ensure!(!ennote_scenarios::message(&told, "Ready").contains('\n'), "a line of the network's stands in the status");
    ensure!(raw(&world, &secret_path(&world.namespace, "a")).await? == before, "the Secret was touched");
    proxy.honest();
    // The next stream declares everything afresh.
    proxy.cut();
    until_version(&world, "a", 2).await?;
    holds(&world, "a", "a2").await?;
    world.stop().await
}

/// The id of the newest want of a binding.
fn id_of(proxy: &EvilProxy, name: &str) -> Result<u64> {
    let wants = proxy.find(|r| match r.frame()? {
        Frame::Agent(agent_frame::Frame::Ask(ask)) => wire::Ask::decode(ask.body.as_slice()).ok().map(|ask| ask.wants),
        _ => None,
    })?;
    wants.concat().iter().rev().find(|want| want.binding == name).map(|want| want.id).context("no want")
}

/// Waits until the agent has told so often that a delivery was not for its keys: what it says in status, it soon mends.
async fn until_refused(world: &World, times: usize) -> Result<()> {
    world
        .eventually("a delivery refused", LATER, async || {
            let told = |line: &&serde_json::Value| line.to_string().contains("\"WrongRecipient\"");
            let seen = world.agent.log_lines().iter().filter(told).count();
            ensure!(seen >= times, "{seen} of {times}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_delivery_replayed_moves_nothing_back() -> Result<()> {
    let (world, proxy) = two("evil-old").await?;
    let recorded = proxy.find(|r| sealed_of(r.frame()?).map(|(_, sealed, name)| (name, sealed.clone())))?;
    let first = recorded.into_iter().find(|(name, _)| name == "a").context("the first delivery of a")?.1;
    let old = |id| have(id, wire::have::Answer::Sealed(first.clone()));
    world.cloud.put("a", &[("value", "a2")]).await?;
    until_version(&world, "a", 2).await?;

    // On its own stream its key is spent. It is refused, what is held is asked for again, and others are not disturbed.
    ensure!(proxy.inject(1, old(id_of(&proxy, "a")?)), "the stream has ended");
    until_refused(&world, 1).await?;
    world.cloud.put("b", &[("value", "b2")]).await?;
    until_version(&world, "b", 2).await?;
    until_version(&world, "a", 2).await?;
    holds(&world, "a", "a2").await?;

    // On a later stream, which has keys of the same numbers, under the name of the want that stands there.
    let before = proxy.newest_stream();
    proxy.cut();
    let later = |r: &Record| {
        let beats = r.frame().is_some_and(|frame| frame.name() == "beat");
        (beats && matches!(r.call, Call::Sync(number) if number > before)).then_some(())
    };
    until_heard(&world, &proxy, "a beat of a later stream", 1, later).await?;
    ensure!(proxy.inject(proxy.newest_stream(), old(id_of(&proxy, "a")?)), "the stream has ended");
    until_refused(&world, 2).await?;
    until_version(&world, "a", 2).await?;
    holds(&world, "a", "a2").await?;
    world.cloud.put("a", &[("value", "a3")]).await?;
    world.eventually("a at version 3", LATER, async || holds(&world, "a", "a3").await).await?;
    world.stop().await
}
