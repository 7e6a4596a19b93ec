//! Keys of the keyset come and go under agents that are connected.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod client;

use client::pod::{renew, streaming};
use client::{Agent, Cloud, payload, want};
use ennote_devcloud::settings::Lifetimes;
use ennote_devcloud::signed::{self, Label};
use ennote_devcloud::store::KeyUse;
use ennote_devcloud::wire;
use std::time::Duration;

const EACH: [KeyUse; 4] = [KeyUse::Join, KeyUse::Payload, KeyUse::SealA, KeyUse::SealB];

fn used(cloud: &Cloud, r#use: KeyUse) -> String {
    let keys = cloud.core.keyset().unwrap().keys;
    keys.into_iter().find(|key| key.r#use == r#use && key.used).unwrap().id
}

#[tokio::test]
async fn a_dropped_key_ends_every_stream_and_agents_join_again_without_it() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("db", "one").await;
    let mut agent = cloud.agent().await;
    for (version, r#use) in (2..).zip(EACH) {
        let mut stream = streaming(&agent).await;
        let dropped = used(&cloud, r#use);
        let left = cloud.core.drop_key(&dropped).await.unwrap();
        assert_eq!(stream.end().await, "EVICTED");
        assert!(left.version == version && left.keys.iter().all(|key| key.id != dropped), "{use:?}");
        assert_eq!(left.keys.iter().filter(|key| key.used).count(), 4, "each use has a key");
        assert_eq!(agent.stream().await.end().await, "EVICTED", "its access token is of before");
        agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
        let mut stream = agent.stream().await;
        stream.ask(1, &[want(1, "db", 0)], &[]).await;
        assert_eq!(stream.have().await, payload(1, 1, "one"), "signed by what the new keyset lists");
    }
    assert!(cloud.core.drop_key("0123456789").await.is_err());
}

#[tokio::test]
async fn a_new_key_is_listed_before_it_is_used_and_nobody_is_disturbed() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("db", "one").await;
    let mut agent = cloud.agent().await;
    let mut stream = streaming(&agent).await;
    let before = EACH.map(|r#use| used(&cloud, r#use));
    let rotated = cloud.core.rotate_keys(&EACH).await.unwrap();
    assert_eq!((rotated.version, rotated.keys.len()), (2, 8));
    assert_eq!(EACH.map(|r#use| used(&cloud, r#use)), before, "listed only");
    assert_eq!(rotated.keys.iter().filter(|key| key.from_ms.is_some()).count(), 4);
    renew(&mut agent, &mut stream).await.unwrap();
    let versions = agent.keyset.as_ref().unwrap();
    assert_eq!((versions.version, versions.keys.len()), (2, 8), "a renewal brings the next keyset");

    // The lead is over.
    let cloud = cloud.restart(Lifetimes { publish_lead: Duration::ZERO, ..Lifetimes::default() }).await;
    let after = EACH.map(|r#use| used(&cloud, r#use));
    assert!(before.iter().zip(&after).all(|(old, new)| old != new));
    agent.channel = cloud.channel().await;
    let hello = agent.hello(&[wire::Suite::A]);
    let answer = agent.begin(&hello).await.unwrap();
    let challenge = answer.challenge.unwrap();
    let known =
        |r#use: wire::KeyUse| agent.keyset.as_ref().unwrap().keys.iter().filter(move |k| k.r#use == r#use as i32);
    let signer = known(wire::KeyUse::Join).next_back().unwrap();
    assert!(
        signed::body(&signer.public_key, Label::Challenge, &challenge).is_ok(),
        "signed by the key it had heard of"
    );
    let fresh = Agent::new(cloud.channel().await);
    assert_eq!(fresh.begin(&hello).await.unwrap().keyset.unwrap().body, answer.keyset.unwrap().body);
}
