//! How an agent comes back without a bootstrap token, and who does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod client;

use client::cluster::{Cluster, Signer};
use client::pod::{alarms, offline, process, renew, streaming};
use client::{Agent, Cloud, detailed};
use ennote_devcloud::core::TokenRequest;
use ennote_devcloud::settings::Lifetimes;
use std::time::Duration;

#[tokio::test]
async fn an_enrolled_service_account_brings_the_agent_back_in_its_next_epoch() {
    let cloud = Cloud::start(Lifetimes { first_stream: Duration::ZERO, ..Lifetimes::default() }).await;
    let cluster = Cluster::new(Signer::rsa());
    let bootstrap = cloud.token("shop-agent", &["shop"]).await;
    let mut first = process(&cloud, &cluster, &cluster.token("t1")).await;
    first.join(&bootstrap).await.unwrap();
    let mut old = streaming(&first).await;
    let listed = &cloud.core.agents().unwrap()[0];
    let account = listed.account.as_ref().unwrap();
    assert_eq!(listed.renewal, "service-account");
    assert_eq!(account.issuer, "https://kubernetes.default.svc.cluster.local");
    assert_eq!(account.subject, "system:serviceaccount:ennote:ennote-agent");

    let mut second = process(&cloud, &cluster, &cluster.token("t2")).await;
    second.join(&bootstrap).await.unwrap();
    assert_eq!((&second.joined().agent_id, second.joined().epoch), (&first.joined().agent_id, 2));
    assert_eq!(old.end().await, "SUPERSEDED");
    let _open = streaming(&second).await;
    second.join("").await.unwrap();
    assert_eq!(second.joined().epoch, 2, "the same key keeps its epoch");
    assert_eq!(alarms(&cloud), [], "a spent token beside a good one is what every restarted pod has");

    assert_eq!(detailed(&first.join("").await.unwrap_err()), "SUPERSEDED", "a standby, while the newest is at work");
    drop(_open);
    offline(&cloud).await;
    first.join("").await.unwrap();
    assert_eq!(first.joined().epoch, 3, "and takes over when it is not");

    let cloud = cloud.restart(Lifetimes::default()).await;
    let mut after = process(&cloud, &cluster, &cluster.token("t3")).await;
    after.join("").await.unwrap();
    assert_eq!(after.joined().epoch, 4, "enrolments are on disk");
}

#[tokio::test]
async fn a_new_key_has_its_time_to_open_a_stream_before_a_standby_takes_over() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    let bootstrap = cloud.token("shop-agent", &["shop"]).await;
    let mut first = process(&cloud, &cluster, &cluster.token("t1")).await;
    first.join(&bootstrap).await.unwrap();
    let mut second = process(&cloud, &cluster, &cluster.token("t2")).await;
    second.join("").await.unwrap();
    assert_eq!(detailed(&first.join("").await.unwrap_err()), "SUPERSEDED", "two would take the epoch from each other");
    let _open = streaming(&second).await;
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_says_which() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    let mut agent = process(&cloud, &cluster, &cluster.token("t1")).await;
    assert_eq!(detailed(&agent.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/ISSUER_UNKNOWN");
    agent.credential.sa_token.clear();
    assert_eq!(detailed(&agent.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/NO_CREDENTIAL");

    let bootstrap = cloud.token("shop-agent", &["shop"]).await;
    let refused = process(&cloud, &cluster, "nonsense").await.join(&bootstrap).await.unwrap_err();
    assert_eq!(detailed(&refused), "IDENTITY_UNKNOWN/MALFORMED", "what stands beside a bootstrap token has to hold");
    let mut without = process(&cloud, &cluster, &cluster.token("t1")).await;
    without.credential.jwks.clear();
    assert_eq!(detailed(&without.join(&bootstrap).await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN");
    process(&cloud, &cluster, &cluster.token("t1")).await.join(&bootstrap).await.unwrap();

    let other = Cluster::new(Signer::p256());
    let mut claims = cluster.claims("t2");
    claims["aud"] = "https://other.example/agent-join".into();
    let mut late = cluster.claims("t3");
    late["exp"] = (late["iat"].as_i64().unwrap() - 100).into();
    late["iat"] = (late["iat"].as_i64().unwrap() - 300).into();
    let mut foreign = cluster.claims("t4");
    foreign["sub"] = "system:serviceaccount:ennote:default".into();
    let mut anew = cluster.claims("t5");
    anew["kubernetes.io"]["serviceaccount"]["uid"] = "uid-2".into();
    for (token, detail) in [
        (cluster.token_of(&claims), "AUDIENCE"),
        (cluster.token_of(&late), "EXPIRED"),
        (cluster.token_of(&foreign), "SUBJECT"),
        (cluster.token_of(&anew), "UID"),
        (other.token("t6"), "SIGNATURE"),
        (Cluster { kid: "key-2".into(), ..other }.token("t7"), "KEY_UNKNOWN"),
    ] {
        let refused = process(&cloud, &cluster, &token).await.join("").await.unwrap_err();
        assert_eq!(detailed(&refused), format!("IDENTITY_UNKNOWN/{detail}"));
    }
    assert_eq!(alarms(&cloud), []);
}

#[tokio::test]
async fn with_the_clusters_keys_in_the_bootstrap_token_a_copy_of_it_is_worth_nothing() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let (cluster, thief) = (Cluster::new(Signer::rsa()), Cluster::new(Signer::p256()));
    let request = TokenRequest {
        agent: "shop-agent".into(),
        jwks: Some(cluster.jwks()),
        issuer: Some(cluster.issuer.clone()),
        service_account: Some("ennote/ennote-agent".into()),
        ..TokenRequest::default()
    };
    let bootstrap = cloud.token_for(request.clone()).await;
    let alone = Agent::new(cloud.channel().await).join(&bootstrap).await.unwrap_err();
    assert_eq!(detailed(&alone), "IDENTITY_UNKNOWN/NO_CREDENTIAL");
    let stolen = process(&cloud, &thief, &thief.token("t1")).await.join(&bootstrap).await.unwrap_err();
    assert_eq!(detailed(&stolen), "IDENTITY_UNKNOWN/SIGNATURE");
    for (wish, detail) in [
        (TokenRequest { issuer: Some("https://other".into()), ..request.clone() }, "ISSUER_UNKNOWN"),
        (TokenRequest { service_account: Some("default".into()), ..request.clone() }, "SUBJECT"),
        (TokenRequest { service_account: Some("shop/ennote-agent".into()), ..request.clone() }, "SUBJECT"),
    ] {
        let token = cloud.token_for(wish).await;
        let refused = process(&cloud, &cluster, &cluster.token("t2")).await.join(&token).await.unwrap_err();
        assert_eq!(detailed(&refused), format!("IDENTITY_UNKNOWN/{detail}"));
    }
    process(&cloud, &cluster, &cluster.token("t2")).await.join(&bootstrap).await.unwrap();
    let listed = &cloud.core.agents().unwrap()[0];
    assert_eq!(listed.namespaces, ["ennote"], "none was named: the ServiceAccount's own");
    let bad = TokenRequest { jwks: Some("{}".into()), ..request };
    assert!(cloud.core.create_token(&bad).await.unwrap_err().to_string().contains("kubectl get --raw"));
}

#[tokio::test]
async fn a_victims_keys_listed_by_another_agent_get_it_nothing() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let (victim, attacker) = (Cluster::new(Signer::rsa()), Cluster::new(Signer::p256()));
    // The attacker's cluster says of itself what it likes: the victim's ServiceAccount, UID and keys beside its own.
    let both = serde_json::json!({"keys": [attacker.signer.jwk("key-a"), victim.signer.jwk("key-1")]}).to_string();
    let attacker = Cluster { kid: "key-a".into(), ..attacker };
    let hostile = async |name: &str, jti: &str| {
        let mut process = process(&cloud, &attacker, &attacker.token(jti)).await;
        process.credential.jwks = both.clone().into_bytes();
        process.join(&cloud.token(name, &["evil"]).await).await.map(|()| process)
    };
    let early = hostile("early", "a1").await.unwrap();
    let mut agent = process(&cloud, &victim, &victim.token("v1")).await;
    agent.join(&cloud.token("victim", &["shop"]).await).await.unwrap();
    assert_ne!(agent.joined().agent_id, early.joined().agent_id);
    let mut kinds = alarms(&cloud);
    kinds.sort_unstable();
    assert_eq!(kinds, [("ACCOUNT_SHARED".to_owned(), 1), ("KEY_CLAIMED".to_owned(), 1)], "both of one transaction");
    let late = hostile("late", "a2").await.err().unwrap();
    assert_eq!(detailed(&late), "IDENTITY_UNKNOWN/ALREADY_ENROLLED");
    let mut again = process(&cloud, &victim, &victim.token("v2")).await;
    again.join("").await.unwrap();
    assert_eq!(again.joined().agent_id, agent.joined().agent_id);
    let kinds: Vec<String> = alarms(&cloud).into_iter().map(|(kind, _)| kind).collect();
    assert!(kinds.contains(&"ALREADY_ENROLLED".to_owned()), "{kinds:?}");
}

/// The cluster signs with its first key and publishes a second, by which nobody has shown a token yet.
fn two_keys() -> (Cluster, Cluster, String) {
    let victim = Cluster::new(Signer::p256());
    let next = Cluster { kid: "key-2".into(), ..Cluster::new(Signer::p256()) };
    let both = serde_json::json!({"keys": [victim.signer.jwk("key-1"), next.signer.jwk("key-2")]}).to_string();
    (victim, next, both)
}

/// An agent of a cluster that says of itself what it likes: the victim's ServiceAccount, UID and next key beside its own.
async fn lister(cloud: &Cloud, attacker: &Cluster, next: &Cluster) -> Agent {
    let keys = [attacker.signer.jwk("key-a"), next.signer.jwk("key-2")];
    let mut agent = process(cloud, attacker, &attacker.token("a1")).await;
    agent.credential.jwks = serde_json::json!({ "keys": keys }).to_string().into_bytes();
    agent.join(&cloud.token("mallory", &["evil"]).await).await.unwrap();
    agent
}

fn key_a() -> Cluster {
    Cluster { kid: "key-a".into(), ..Cluster::new(Signer::p256()) }
}

#[tokio::test]
async fn a_victims_next_key_listed_by_another_agent_stays_the_victims() {
    for early in [false, true] {
        let cloud = Cloud::start(Lifetimes::default()).await;
        let ((victim, next, both), attacker) = (two_keys(), key_a());
        let thief = if early { Some(lister(&cloud, &attacker, &next).await) } else { None };
        let mut agent = process(&cloud, &victim, &victim.token("v1")).await;
        agent.credential.jwks = both.clone().into_bytes();
        agent.join(&cloud.token("victim", &["shop"]).await).await.unwrap();
        let mut stream = streaming(&agent).await;
        let thief = match thief {
            Some(thief) => thief,
            None => lister(&cloud, &attacker, &next).await,
        };
        assert_eq!(alarms(&cloud), [("ACCOUNT_SHARED".to_owned(), 1)], "early: {early}");

        // Rolled while nobody had shown the new key: it is nobody's rather than the thief's.
        let mut lost = process(&cloud, &next, &next.token("v2")).await;
        assert_eq!(detailed(&lost.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN", "early: {early}");
        assert_eq!(alarms(&cloud).iter().map(|(_, count)| count).sum::<u64>(), 2, "early: {early}");

        // Its living agent shows a token of the new key, and from then on the key is the victim's alone.
        agent.credential.sa_token = next.token("v3");
        renew(&mut agent, &mut stream).await.unwrap();
        assert!(alarms(&cloud).contains(&("KEY_CLAIMED".to_owned(), 1)), "early: {early}");
        lost.join("").await.unwrap();
        assert_eq!(lost.joined().agent_id, agent.joined().agent_id);
        assert_ne!(lost.joined().agent_id, thief.joined().agent_id);
        let listed = cloud.core.agent_keys("mallory").unwrap();
        assert_eq!(listed.iter().map(|key| key.kid.as_deref()).collect::<Vec<_>>(), [Some("key-a")]);
    }
}

#[tokio::test]
async fn a_key_that_a_person_gave_to_one_agent_counts_although_another_lists_it() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let ((victim, next, both), attacker) = (two_keys(), key_a());
    let request = TokenRequest { agent: "victim".into(), namespaces: vec!["shop".into()], ..TokenRequest::default() };
    let given = cloud.token_for(TokenRequest { jwks: Some(both), ..request }).await;
    let mut agent = process(&cloud, &victim, &victim.token("v1")).await;
    agent.join(&given).await.unwrap();
    lister(&cloud, &attacker, &next).await;
    let mut rolled = process(&cloud, &next, &next.token("v2")).await;
    rolled.join("").await.unwrap();
    assert_eq!(rolled.joined().agent_id, agent.joined().agent_id);
}

#[tokio::test]
async fn a_stranger_is_told_what_is_wrong_by_trying_few_keys() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    // Eight keys are tried, and this is the ninth.
    let last = Cluster::new(Signer::p256());
    let others = (0..7).map(|_| Signer::p256().jwk("key-1"));
    let keys: Vec<_> =
        [cluster.signer.jwk("key-1")].into_iter().chain(others).chain([last.signer.jwk("key-1")]).collect();
    let jwks = Some(serde_json::json!({ "keys": keys }).to_string());
    let request = TokenRequest { agent: "a".into(), namespaces: vec!["shop".into()], jwks, ..TokenRequest::default() };
    let token = cloud.token_for(request).await;
    process(&cloud, &cluster, &cluster.token("t1")).await.join(&token).await.unwrap();
    let mut anew = cluster.claims("t2");
    anew["kubernetes.io"]["serviceaccount"]["uid"] = "uid-2".into();
    let mut stranger = process(&cloud, &cluster, &cluster.token_of(&anew)).await;
    assert_eq!(detailed(&stranger.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/UID", "its signer is the first");
    let mut stranger = process(&cloud, &last, &last.token_of(&anew)).await;
    assert_eq!(detailed(&stranger.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN");

    let other = Cluster { issuer: "https://elsewhere.example".into(), ..Cluster::new(Signer::p256()) };
    let mut claims = other.claims("t3");
    claims["sub"] = "system:serviceaccount:ennote:other".into();
    let unrelated = process(&cloud, &other, &other.token_of(&claims)).await.join("").await.unwrap_err();
    assert_eq!(detailed(&unrelated), "IDENTITY_UNKNOWN/ISSUER_UNKNOWN");
}

#[tokio::test]
async fn an_owner_whose_copied_token_took_its_place_in_a_gap_is_an_alarm_when_it_comes_back() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    let mut owner = process(&cloud, &cluster, &cluster.token("t1")).await;
    owner.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    drop(streaming(&owner).await);
    offline(&cloud).await;
    // As a restarted container does it: nothing tells them apart yet.
    let mut thief = process(&cloud, &cluster, &cluster.token("t1")).await;
    thief.join("").await.unwrap();
    let stolen = streaming(&thief).await;
    assert_eq!(alarms(&cloud), []);
    owner.credential.sa_token = cluster.token("t2");
    assert_eq!(detailed(&owner.join("").await.unwrap_err()), "SUPERSEDED");
    assert_eq!(alarms(&cloud), [("POD_TWICE".to_owned(), 1)]);
    drop(stolen);
}

#[tokio::test]
async fn a_copied_token_is_refused_while_its_owner_lives_and_a_restarted_container_is_not() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    let token = cluster.token("t1");
    let mut owner = process(&cloud, &cluster, &token).await;
    owner.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    let stream = streaming(&owner).await;
    let mut thief = process(&cloud, &cluster, &token).await;
    assert_eq!(detailed(&thief.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/REPLAYED");
    assert_eq!(detailed(&thief.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/REPLAYED");
    assert_eq!(alarms(&cloud), [("TOKEN_REPLAYED".to_owned(), 2)]);
    owner.join("").await.unwrap();
    assert_eq!(owner.joined().epoch, 1, "its own key is no other");
    drop(stream);
    offline(&cloud).await;
    for restart in 2..=6 {
        let mut restarted = process(&cloud, &cluster, &token).await;
        restarted.join("").await.unwrap();
        assert_eq!(restarted.joined().epoch, restart);
    }
    assert_eq!(alarms(&cloud).len(), 1, "restarts are no alarm");
    let mut often = process(&cloud, &cluster, &token).await;
    assert_eq!(detailed(&often.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/REPLAYED");
    assert!(alarms(&cloud).contains(&("TOKEN_SHARED".to_owned(), 1)));
}

#[tokio::test]
async fn a_spent_bootstrap_token_is_an_alarm_only_alone_and_from_another_key() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    let bootstrap = cloud.token("shop-agent", &["shop"]).await;
    process(&cloud, &cluster, &cluster.token("t1")).await.join(&bootstrap).await.unwrap();
    assert_eq!(alarms(&cloud), []);
    let mut thief = Agent::new(cloud.channel().await);
    assert_eq!(detailed(&thief.join(&bootstrap).await.unwrap_err()), "TOKEN_SPENT");
    thief.credential.sa_token = "garbage".into();
    assert_eq!(detailed(&thief.join(&bootstrap).await.unwrap_err()), "IDENTITY_UNKNOWN/MALFORMED");
    assert_eq!(alarms(&cloud), [("TOKEN_REUSED".to_owned(), 2)]);
    let cloud = cloud.restart(Lifetimes::default()).await;
    assert_eq!(alarms(&cloud), [("TOKEN_REUSED".to_owned(), 2)], "alarms are on disk");
}

#[tokio::test]
async fn an_attested_epoch_renews_with_a_good_service_account_token_only() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    let mut agent = process(&cloud, &cluster, &cluster.token("t1")).await;
    agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    let mut stream = streaming(&agent).await;
    renew(&mut agent, &mut stream).await.unwrap();
    agent.credential.sa_token = cluster.token("t2");
    renew(&mut agent, &mut stream).await.unwrap();
    assert_eq!(agent.joined().epoch, 1);
    agent.credential.sa_token.clear();
    assert_eq!(renew(&mut agent, &mut stream).await.unwrap_err(), "IDENTITY_UNKNOWN/NO_CREDENTIAL");
    let mut other = cluster.claims("t3");
    other["kubernetes.io"]["serviceaccount"]["uid"] = "uid-2".into();
    agent.credential.sa_token = cluster.token_of(&other);
    let mut stream = streaming(&agent).await;
    assert_eq!(renew(&mut agent, &mut stream).await.unwrap_err(), "IDENTITY_UNKNOWN/UID");

    let mut outside = Agent::new(cloud.channel().await);
    outside.join(&cloud.token("vm-agent", &["shop"]).await).await.unwrap();
    let mut stream = streaming(&outside).await;
    renew(&mut outside, &mut stream).await.unwrap();
    let listed = cloud.core.agents().unwrap();
    let renewals: Vec<_> = listed.iter().map(|agent| (agent.name.as_str(), agent.renewal.as_str())).collect();
    assert_eq!(renewals, [("shop-agent", "service-account"), ("vm-agent", "key")]);
}

#[tokio::test]
async fn a_ban_beats_every_credential_and_a_revocation_ends_with_a_new_token() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let cluster = Cluster::new(Signer::p256());
    let mut agent = process(&cloud, &cluster, &cluster.token("t1")).await;
    agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    let mut stream = streaming(&agent).await;
    cloud.core.ban_agent("shop-agent", true).await.unwrap();
    assert_eq!(stream.end().await, "BANNED");
    let fresh = cloud.token("shop-agent", &["shop"]).await;
    for token in ["", &fresh] {
        let mut back = process(&cloud, &cluster, &cluster.token("t2")).await;
        assert_eq!(detailed(&back.join(token).await.unwrap_err()), "BANNED");
    }
    assert_eq!(agent.stream().await.end().await, "BANNED");
    cloud.core.ban_agent("shop-agent", false).await.unwrap();
    let mut stream = streaming(&agent).await;

    cloud.core.revoke_agent("shop-agent").await.unwrap();
    assert_eq!(stream.end().await, "BANNED");
    let mut back = process(&cloud, &cluster, &cluster.token("t3")).await;
    assert_eq!(detailed(&back.join("").await.unwrap_err()), "BANNED");
    assert!(cloud.core.agents().unwrap()[0].account.is_none(), "its enrolment is dropped");
    let mut other = process(&cloud, &cluster, &cluster.token("t4")).await;
    other.join(&cloud.token("successor", &["shop"]).await).await.unwrap();
    assert_ne!(other.joined().agent_id, agent.joined().agent_id, "so another agent may have the ServiceAccount");
    let mut outside = Agent::new(cloud.channel().await);
    outside.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    assert_eq!((&outside.joined().agent_id, outside.joined().epoch), (&agent.joined().agent_id, 2));
}

#[tokio::test]
async fn two_pods_that_take_turns_are_an_alarm_and_no_lock() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let mut cluster = Cluster::new(Signer::p256());
    let bootstrap = cloud.token("shop-agent", &["shop"]).await;
    for turn in 1..=5 {
        cluster.pod = format!("pod-{}", turn % 2);
        let mut agent = process(&cloud, &cluster, &cluster.token(&format!("t{turn}"))).await;
        agent.join(&bootstrap).await.unwrap();
        assert_eq!(agent.joined().epoch, turn);
        assert_eq!(alarms(&cloud).is_empty(), turn < 4, "{turn}");
    }
    assert_eq!(alarms(&cloud), [("EPOCHS".to_owned(), 2)]);
}
