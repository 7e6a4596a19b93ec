//! A cluster changes its signing keys while its agent is there, and while it is away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod client;

use client::cluster::{Cluster, Signer};
use client::pod::{alarms, process, renew, streaming};
use client::{Cloud, detailed};
use ennote_devcloud::settings::{Attesting, Lifetimes};
use std::time::Duration;

/// The cluster after a roll: it signs with the new key and lists these.
fn rolled(old: Option<&Cluster>, kid: &str) -> (Cluster, String) {
    let new = Cluster { kid: kid.into(), ..Cluster::new(Signer::p256()) };
    let old = old.map(|old| old.signer.jwk(&old.kid));
    let keys: Vec<_> = old.into_iter().chain([new.signer.jwk(kid)]).collect();
    (new, serde_json::json!({ "keys": keys }).to_string())
}

#[tokio::test]
async fn a_reported_key_renews_at_once_joins_later_and_the_old_one_fades() {
    let cloud = Cloud::start(Lifetimes { jwks_linger: Duration::ZERO, ..Lifetimes::default() }).await;
    let cluster = Cluster::new(Signer::rsa());
    let mut agent = process(&cloud, &cluster, &cluster.token("t1")).await;
    agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    let mut stream = streaming(&agent).await;
    let (new, both) = rolled(Some(&cluster), "key-2");
    agent.credential.sa_token = cluster.token("t2");
    agent.credential.jwks = both.into_bytes();
    renew(&mut agent, &mut stream).await.unwrap();
    assert_eq!(alarms(&cloud), [("KEY_REPORTED".to_owned(), 1)]);
    agent.credential.sa_token = new.token("t3");
    renew(&mut agent, &mut stream).await.unwrap();

    let mut restarted = process(&cloud, &new, &new.token("t4")).await;
    assert_eq!(detailed(&restarted.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN", "not before a day");
    let keys = cloud.core.agent_keys("shop-agent").unwrap();
    let learnt = keys.iter().find(|key| key.kid.as_deref() == Some("key-2")).unwrap();
    assert!(learnt.renews && !learnt.joins && learnt.proven);
    cloud.core.accept_key("shop-agent", &learnt.thumbprint).await.unwrap();
    restarted.join("").await.unwrap();
    assert_eq!((&restarted.joined().agent_id, restarted.joined().epoch), (&agent.joined().agent_id, 2));
    assert!(cloud.core.accept_key("shop-agent", "nonsense").await.is_err());

    // Its own report lists the new key only.
    let mut late = process(&cloud, &cluster, &cluster.token("t5")).await;
    assert_eq!(detailed(&late.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN", "the old key is gone");

    let cloud = cloud.restart(Lifetimes { jwks_wait: Duration::ZERO, ..Lifetimes::default() }).await;
    let mut stream = {
        restarted.channel = cloud.channel().await;
        restarted.join("").await.unwrap();
        streaming(&restarted).await
    };
    let (third, both) = rolled(Some(&new), "key-3");
    restarted.credential.jwks = both.into_bytes();
    renew(&mut restarted, &mut stream).await.unwrap();
    process(&cloud, &third, &third.token("t6")).await.join("").await.unwrap();
}

#[tokio::test]
async fn a_strict_cloud_waits_for_a_person_and_a_person_can_give_all_keys() {
    let attesting = Attesting { jwks_strict: true, ..Attesting::default() };
    let cloud = Cloud::attesting(Lifetimes::default(), &attesting).await;
    let cluster = Cluster::new(Signer::p256());
    let mut agent = process(&cloud, &cluster, &cluster.token("t1")).await;
    agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    let mut stream = streaming(&agent).await;
    let (new, both) = rolled(Some(&cluster), "key-2");
    agent.credential.jwks = both.into_bytes();
    renew(&mut agent, &mut stream).await.unwrap();
    agent.credential.sa_token = new.token("t2");
    assert_eq!(renew(&mut agent, &mut stream).await.unwrap_err(), "IDENTITY_UNKNOWN/KEY_UNKNOWN");

    // Down across a whole rotation: nothing that the agent has says who it is.
    let (third, only) = rolled(None, "key-3");
    let mut lost = process(&cloud, &third, &third.token("t3")).await;
    assert_eq!(detailed(&lost.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN");
    let keys = cloud.core.give_keys("shop-agent", &only).await.unwrap();
    assert!(keys.len() == 1 && keys[0].joins);
    lost.join("").await.unwrap();
    assert_eq!((&lost.joined().agent_id, lost.joined().epoch), (&agent.joined().agent_id, 2));
    let mut old = process(&cloud, &cluster, &cluster.token("t4")).await;
    assert_eq!(detailed(&old.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN");
    assert!(cloud.core.give_keys("shop-agent", "{}").await.unwrap_err().to_string().contains("kubectl get --raw"));
    assert!(cloud.core.agent_keys("nobody").is_err());
}
