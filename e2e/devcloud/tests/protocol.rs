//! The protocol, spoken over real TLS to a real server in this process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod client;

use client::{Agent, Cloud, PATIENCE, Said, payload, reason, want};
use ennote_devcloud::settings::Lifetimes;
use ennote_devcloud::signed::{self, Label};
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire::{self, agent_frame, cloud_frame};
use prost::Message;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

fn lives(edit: impl FnOnce(&mut Lifetimes)) -> Lifetimes {
    let mut lives = Lifetimes::default();
    edit(&mut lives);
    lives
}

fn denied(id: u64, reason: &'static str) -> Said {
    Said::Denied { id, reason, grant: String::new() }
}

#[tokio::test]
async fn a_bootstrap_token_is_spent_by_one_key_which_may_repeat_its_join() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let token = cloud.token("shop-agent", &["shop"]).await;
    let mut agent = Agent::new(cloud.channel().await);
    agent.join(&token).await.unwrap();
    let first = agent.joined().clone();
    assert_eq!(
        (first.organization.as_str(), first.workspace.as_str(), first.epoch, first.lives_s),
        ("acme", "prod", 1, 900)
    );
    agent.join(&token).await.unwrap();
    assert_eq!((&agent.joined().agent_id, agent.joined().epoch), (&first.agent_id, 1));
    let mut thief = Agent::new(cloud.channel().await);
    assert_eq!(reason(&thief.join(&token).await.unwrap_err()), "TOKEN_SPENT");
    for text in ["", "nonsense", &format!("{}x", cloud.token("b", &["b"]).await)] {
        assert_eq!(reason(&thief.join(text).await.unwrap_err()), "IDENTITY_UNKNOWN", "{text:?}");
    }
    let cloud = cloud.restart(lives(|l| l.join_retry = Duration::ZERO)).await;
    agent.channel = cloud.channel().await;
    assert_eq!(reason(&agent.join(&token).await.unwrap_err()), "TOKEN_SPENT", "after the time for repeats");
}

#[tokio::test]
async fn a_late_bootstrap_token_is_refused() {
    let cloud = Cloud::start(lives(|l| l.bootstrap_token_life = Duration::ZERO)).await;
    let token = cloud.token("shop-agent", &["shop"]).await;
    assert_eq!(reason(&Agent::new(cloud.channel().await).join(&token).await.unwrap_err()), "TOKEN_LATE");
}

#[tokio::test]
async fn a_challenge_is_used_once_in_time_and_by_the_key_it_was_made_for() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let token = cloud.token("shop-agent", &["shop"]).await;
    let mut agent = Agent::new(cloud.channel().await);
    let hello = agent.hello(&[wire::Suite::A]);
    let answer = agent.begin(&hello).await.unwrap();
    let finish = agent.answer(&hello, &answer, &token);
    let mut forged = finish.clone();
    forged.signature[0] ^= 1;
    assert_eq!(reason(&agent.finish(forged).await.unwrap_err()), "CHALLENGE");
    assert_eq!(reason(&agent.finish(finish).await.unwrap_err()), "CHALLENGE", "used up by the forged answer");
    let answer = agent.begin(&hello).await.unwrap();
    let finish = agent.answer(&hello, &answer, &token);
    agent.finish(finish.clone()).await.unwrap();
    assert_eq!(reason(&agent.finish(finish).await.unwrap_err()), "CHALLENGE", "replayed");
    assert_eq!(reason(&agent.begin(&agent.hello(&[])).await.err().unwrap()), "SUITE");
    let short = wire::BeginRequest { hello: wire::Hello { suites: vec![1], ..Default::default() }.encode_to_vec() };
    assert_eq!(reason(&agent.begin(&short).await.err().unwrap()), "MALFORMED");

    let cloud = cloud.restart(lives(|l| l.challenge_life = Duration::ZERO)).await;
    agent.channel = cloud.channel().await;
    assert_eq!(reason(&agent.join(&token).await.unwrap_err()), "CHALLENGE", "late");
}

#[tokio::test]
async fn the_first_suite_that_both_have_is_taken_and_everything_is_sealed_by_it() {
    use wire::Suite::{A, B};
    for (has, offered, chosen) in [
        (&[Suite::B, Suite::A][..], &[B, A][..], Some(Suite::B)),
        (&[Suite::B, Suite::A], &[A, B], Some(Suite::A)),
        (&[Suite::B, Suite::A], &[wire::Suite::Unspecified, A], Some(Suite::A)),
        (&[Suite::A], &[B, A], Some(Suite::A)),
        (&[Suite::A], &[B], None),
    ] {
        let cloud = Cloud::start_with(Lifetimes::default(), has).await;
        let token = cloud.token("shop-agent", &["shop"]).await;
        let mut agent = Agent::new(cloud.channel().await);
        let hello = agent.hello(offered);
        let answer = match (agent.begin(&hello).await, chosen) {
            (Ok(answer), Some(_)) => answer,
            (Err(status), None) if reason(&status) == "SUITE" => continue,
            (answer, _) => panic!("of what was offered: {:?}", answer.err()),
        };
        let finish = agent.answer(&hello, &answer, &token);
        agent.finish(finish).await.unwrap();
        assert_eq!(Some(agent.suite), chosen);
        let mut stream = agent.stream().await;
        stream.ask(1, &[want(1, "db", 0)], &[]).await;
        cloud.put("db", "1").await;
        stream.beat().await;
        while stream.have().await != payload(1, 1, "1") {}
        // A key of the other suite is none.
        stream.suite = if stream.suite == Suite::A { Suite::B } else { Suite::A };
        stream.ask(1, &[], &[]).await;
        assert_eq!(stream.end().await, "MALFORMED");
    }
}

#[tokio::test]
async fn a_new_key_gets_the_next_epoch_and_older_ones_are_superseded() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let old = cloud.agent().await;
    let mut stream = old.stream().await;
    stream.ask(0, &[], &[]).await;
    stream.beat().await;
    let mut new = Agent::new(cloud.channel().await);
    new.join(&cloud.token("shop-agent", &["shop", "ops"]).await).await.unwrap();
    assert_eq!((&new.joined().agent_id, new.joined().epoch), (&old.joined().agent_id, 2));
    assert_eq!(stream.end().await, "SUPERSEDED");
    assert_eq!(old.stream().await.end().await, "SUPERSEDED");
    let listed = cloud.core.agents().unwrap();
    assert_eq!((listed.len(), listed[0].epoch, listed[0].namespaces.join(",")), (1, 2, "ops,shop".to_owned()));
    let mut stream = new.stream().await;
    stream.ask(0, &[], &[]).await;
    stream.beat().await;
}

#[tokio::test]
async fn a_stream_is_opened_only_by_the_key_for_its_own_nonce_with_a_live_token() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let agent = cloud.agent().await;
    type Edit = fn(&mut wire::Open);
    let edits: [(Edit, &str); 6] = [
        (|o| o.stream_nonce = vec![7; 32], "UNPROVEN"),
        (|o| o.access_token_hash = vec![7; 32], "UNPROVEN"),
        (|o| o.agent_id = "agt_other".into(), "EPOCH_UNKNOWN"),
        (|o| o.epoch = 2, "EPOCH_UNKNOWN"),
        (|o| o.epoch = 0, "SUPERSEDED"),
        (|o| o.suite = wire::Suite::A as i32, "SUITE"),
    ];
    for (edit, expected) in edits {
        let mut stream = agent.greeted().await;
        stream.send(agent_frame::Frame::Open(agent.opening(&stream.nonce, edit))).await;
        assert_eq!(stream.end().await, expected);
    }
    let other =
        Agent { joined: agent.joined.clone(), keyset: agent.keyset.clone(), ..Agent::new(agent.channel.clone()) };
    assert_eq!(other.stream().await.end().await, "UNPROVEN", "another key");
    let mut forger = Agent {
        key: agent.key.clone(),
        joined: agent.joined.clone(),
        keyset: agent.keyset.clone(),
        ..Agent::new(agent.channel.clone())
    };
    forger.joined.as_mut().unwrap().access_token = vec![7; 32];
    assert_eq!(forger.stream().await.end().await, "TOKEN_EXPIRED", "another token");
    let mut stream = agent.greeted().await;
    stream.ask(0, &[], &[]).await;
    assert_eq!(stream.end().await, "MALFORMED", "an ask before open");
}

#[tokio::test]
async fn a_change_reaches_the_stream_and_the_want_rests_until_it_is_sent_again() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("db", "one").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(8, &[want(1, "db", 0), want(2, "other", 0)], &[]).await;
    let beat = stream.beat().await;
    assert_eq!((beat.seq, beat.wants, beat.haves), (1, 2, 0), "one beat at once, counting what went before it");
    assert_eq!(stream.haves(2).await, [payload(1, 1, "one"), denied(2, "REASON_NO_SECRET")]);
    for n in 2..=20 {
        cloud.put("db", &n.to_string()).await;
    }
    cloud.put("other", "x").await;
    assert_eq!(stream.have().await, payload(2, 1, "x"), "want 1 rests; want 2 stood");
    stream.ask(0, &[want(1, "db", 1)], &[]).await;
    assert_eq!(stream.have().await, payload(1, 20, "20"), "a burst collapses to the newest");
    stream.ask(0, &[want(1, "db", 1)], &[]).await;
    assert_eq!(stream.have().await, payload(1, 20, "20"), "not taken");
    stream.ask(0, &[want(1, "db", 20)], &[]).await;
    cloud.put("db", "21").await;
    assert_eq!(stream.have().await, payload(1, 21, "21"));
    stream.ask(0, &[], &[1]).await;
    stream.ask(1, &[want(3, "db", 0)], &[]).await;
    assert_eq!(stream.have().await, payload(3, 21, "21"));
    let entry = &cloud.core.agents().unwrap()[0];
    assert_eq!((entry.streams, entry.build.as_str(), entry.renewal.as_str()), (1, "test 1", "key"));
}

#[tokio::test]
async fn without_a_session_key_nothing_is_delivered() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    for secret in ["a", "b", "c"] {
        cloud.put(secret, "1").await;
    }
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(1, &[want(1, "a", 0), want(2, "b", 0), want(3, "c", 0), want(4, "none", 0)], &[]).await;
    stream.beat().await;
    assert_eq!(stream.haves(2).await, [payload(1, 1, "1"), denied(4, "REASON_NO_SECRET")]);
    cloud.put("b", "2").await;
    stream.ask(2, &[], &[]).await;
    assert_eq!(stream.haves(2).await, [payload(2, 2, "2"), payload(3, 1, "1")]);
}

#[tokio::test]
async fn a_want_without_a_grant_is_denied_and_served_once_it_is_granted() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.core.create_workspace("staging").await.unwrap();
    cloud.put("payments db", "1").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    let foreign = wire::Want { namespace: "ops".into(), ..want(1, "payments db", 0) };
    let elsewhere = wire::Want { workspace: "staging".into(), ..want(2, "x", 0) };
    stream.ask(4, &[foreign, elsewhere], &[]).await;
    stream.beat().await;
    let grants = [
        "shop-agent --namespace ops --secret 'payments db'",
        "shop-agent --namespace shop --workspace staging --secret x",
    ];
    let said = |id, grant: &str| Said::Denied { id, reason: "REASON_NO_GRANT", grant: grant.into() };
    assert_eq!(stream.haves(2).await, [said(1, grants[0]), said(2, grants[1])]);
    cloud.core.grant("shop-agent", "shop", Some("staging"), Some("x")).await.unwrap();
    assert_eq!(stream.have().await, denied(2, "REASON_NO_SECRET"));
    cloud.core.grant("shop-agent", "ops", None, Some("payments db")).await.unwrap();
    // The client checks headers for namespace shop, so this one is read by hand.
    let cloud_frame::Frame::Have(have) = stream.next().await.unwrap() else { panic!("not a Have") };
    let Some(wire::have::Answer::Sealed(sealed)) = have.answer else { panic!("not sealed") };
    let header = wire::Header::decode(sealed.header.as_slice()).unwrap();
    assert_eq!((have.id, header.namespace.as_str(), header.version), (1, "ops", 1));
}

#[tokio::test]
async fn a_deletion_is_told_once_and_versions_go_on_after_it() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("db", "one").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    let pinned = wire::Want { pin: 1, ..want(2, "db", 1) };
    stream.ask(8, &[want(1, "db", 1), pinned.clone()], &[]).await;
    stream.beat().await;
    assert_eq!(cloud.core.remove_secret(None, "db").await.unwrap().version, 2);
    let mut told = stream.haves(2).await;
    told.sort_by_key(|said| if let Said::Gone { id, .. } = said { *id } else { 0 });
    assert_eq!(told, [Said::Gone { id: 1, version: 2 }, Said::Gone { id: 2, version: 2 }]);
    stream.ask(0, &[want(1, "db", 2), wire::Want { known_version: 2, ..pinned }], &[]).await;
    assert_eq!(cloud.put("db", "again").await, 3);
    let mut told = stream.haves(2).await;
    told.sort_by_key(|said| u64::from(matches!(said, Said::Denied { .. })));
    assert_eq!(told, [payload(1, 3, "again"), denied(2, "REASON_NO_VERSION")], "what the pin names was erased");
    assert!(cloud.core.remove_secret(None, "none").await.is_err());
}

#[tokio::test]
async fn a_pin_gets_exactly_its_version_when_it_is_there() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    for value in ["one", "two", "three"] {
        cloud.put("db", value).await;
    }
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    let pin = |id, pin, known| wire::Want { pin, ..want(id, "db", known) };
    stream.ask(8, &[pin(1, 2, 3), pin(2, 4, 0), pin(3, 3, 3)], &[]).await;
    stream.beat().await;
    assert_eq!(stream.haves(2).await, [payload(1, 2, "two"), denied(2, "REASON_NO_VERSION")]);
    cloud.put("db", "four").await;
    assert_eq!(stream.have().await, payload(2, 4, "four"));
}

#[tokio::test]
async fn asks_against_the_rules_end_the_stream() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let agent = cloud.agent().await;
    let mut gap = agent.stream().await;
    gap.seq = 1;
    gap.ask(0, &[], &[]).await;
    assert_eq!(gap.end().await, "SEQUENCE");
    let mut many = agent.stream().await;
    many.ask(33, &[], &[]).await;
    assert_eq!(many.end().await, "MALFORMED");
    let mut forged = agent.stream().await;
    let ask = wire::Ask { stream_nonce: forged.nonce.clone(), seq: 1, ..Default::default() };
    let other = ed25519_dalek::SigningKey::from_bytes(&client::random());
    forged.send(agent_frame::Frame::Ask(signed::sign(&other, Label::Ask, ask.encode_to_vec()))).await;
    assert_eq!(forged.end().await, "UNPROVEN");
    let mut foreign = agent.stream().await;
    foreign.ask_with(&wire::Ask { stream_nonce: vec![0; 32], ..ask }).await;
    assert_eq!(foreign.end().await, "UNPROVEN", "an ask of another stream");
}

async fn renew(agent: &mut Agent, stream: &mut client::Stream) {
    let hello = agent.hello(&[wire::Suite::A]);
    stream.send(agent_frame::Frame::Begin(hello.clone())).await;
    let answer = loop {
        match stream.next().await.unwrap() {
            cloud_frame::Frame::Begin(answer) => break answer,
            cloud_frame::Frame::Beat(_) => (),
            _ => panic!("not a begin"),
        }
    };
    let finish = agent.answer(&hello, &answer, "");
    stream.send(agent_frame::Frame::Finish(finish)).await;
    let answer = loop {
        match stream.next().await.unwrap() {
            cloud_frame::Frame::Finish(answer) => break answer,
            cloud_frame::Frame::Beat(_) => (),
            _ => panic!("not a finish"),
        }
    };
    agent.accept(&answer);
}

#[tokio::test]
async fn the_access_token_is_renewed_by_key_on_the_stream_which_ends_without() {
    let short = lives(|l| {
        l.access_token_life = Duration::from_secs(2);
        l.beat_interval = Duration::from_millis(250);
    });
    let cloud = Cloud::start(short).await;
    let mut agent = cloud.agent().await;
    let first = agent.joined().access_token.clone();
    let mut stream = agent.stream().await;
    stream.ask(0, &[], &[]).await;
    for _ in 0..3 {
        renew(&mut agent, &mut stream).await;
        // Four beats are a second, half of the token's life: three renewals outlive the first token.
        for _ in 0..4 {
            stream.beat().await;
        }
    }
    assert_eq!(agent.joined().epoch, 1, "renewals keep the epoch");
    assert_ne!(agent.joined().access_token, first);
    let mut second = agent.stream().await;
    second.ask(0, &[], &[]).await;
    second.beat().await;
    assert_eq!(stream.end().await, "TOKEN_EXPIRED", "unrenewed");
    agent.joined.as_mut().unwrap().access_token = first;
    assert_eq!(agent.stream().await.end().await, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_renewal_is_answered_by_the_streams_own_key_only() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    let other = Agent::new(agent.channel.clone());
    stream.send(agent_frame::Frame::Begin(other.hello(&[wire::Suite::A]))).await;
    assert_eq!(stream.end().await, "CHALLENGE");
    let mut stream = agent.stream().await;
    stream.send(agent_frame::Frame::Finish(wire::FinishRequest::default())).await;
    assert_eq!(stream.end().await, "CHALLENGE", "finish without begin");
}

#[tokio::test]
async fn of_two_streams_the_newer_gets_the_deliveries_and_a_third_replaces_the_oldest() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let agent = cloud.agent().await;
    let mut first = agent.stream().await;
    first.ask(4, &[want(1, "db", 0)], &[]).await;
    first.beat().await;
    assert_eq!(first.have().await, denied(1, "REASON_NO_SECRET"));
    let mut second = agent.stream().await;
    second.ask(4, &[want(1, "db", 0)], &[]).await;
    second.beat().await;
    assert_eq!(second.have().await, denied(1, "REASON_NO_SECRET"));
    cloud.put("db", "1").await;
    assert_eq!(second.have().await, payload(1, 1, "1"));
    let mut third = agent.stream().await;
    third.ask(4, &[], &[]).await;
    third.beat().await;
    assert_eq!(first.end().await, "REPLACED", "and no Have came on it");
    drop(third);
    // The drained stream's successor went away: the one before it is the newest again.
    second.ask(0, &[want(1, "db", 1)], &[]).await;
    cloud.put("db", "2").await;
    assert_eq!(second.have().await, payload(1, 2, "2"));
}

#[tokio::test]
async fn a_stream_is_drained_at_the_end_of_its_life_and_ends_after_the_grace() {
    let short = lives(|l| {
        l.stream_life = Duration::from_secs(1);
        l.drain_grace = Duration::from_secs(1);
    });
    let cloud = Cloud::start(short).await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(1, &[want(1, "db", 0)], &[]).await;
    stream.beat().await;
    stream.have().await;
    let cloud_frame::Frame::Drain(drain) = stream.next().await.unwrap() else { panic!("not a drain") };
    assert_eq!(drain.grace_s, 1);
    cloud.put("db", "1").await;
    assert_eq!(stream.have().await, payload(1, 1, "1"), "served through the grace");
    assert_eq!(stream.end().await, "DRAINED");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_noticed() {
    let cloud = Cloud::start(lives(|l| l.silence = Duration::from_secs(1))).await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    assert_eq!(stream.end().await, "SILENT");
    assert_eq!(cloud.core.agents().unwrap()[0].streams, 0);
}

#[tokio::test]
async fn a_revoked_agent_is_out_until_a_new_token_lets_it_in() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let mut agent = cloud.agent().await;
    let unspent = cloud.token("shop-agent", &["shop"]).await;
    let mut stream = agent.stream().await;
    stream.ask(0, &[], &[]).await;
    stream.beat().await;
    cloud.core.revoke_agent("shop-agent").await.unwrap();
    assert_eq!(stream.end().await, "BANNED");
    assert_eq!(agent.stream().await.end().await, "BANNED");
    let mut other = Agent::new(agent.channel.clone());
    assert_eq!(reason(&other.join(&unspent).await.unwrap_err()), "TOKEN_LATE", "tokens made before are void");
    agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    let mut stream = agent.stream().await;
    stream.ask(0, &[], &[]).await;
    stream.beat().await;
}

#[tokio::test]
async fn stopping_drains_streams_and_an_access_token_outlives_a_restart() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let mut agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(0, &[], &[]).await;
    stream.beat().await;
    let reading = tokio::spawn(async move {
        let cloud_frame::Frame::Drain(drain) = stream.next().await.unwrap() else { panic!("not a drain") };
        (drain.grace_s, stream.end().await)
    });
    let cloud = cloud.restart(Lifetimes::default()).await;
    assert_eq!(timeout(PATIENCE, reading).await.unwrap().unwrap(), (1, "STOPPING".to_owned()));
    agent.channel = cloud.channel().await;
    let mut stream = agent.stream().await;
    stream.ask(0, &[], &[]).await;
    stream.beat().await;
}

#[tokio::test]
async fn ten_thousand_wants_are_declared_and_one_change_finds_its_own() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("idle", "1").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    for chunk in 0..20u64 {
        let wants: Vec<_> = (1..=500).map(|n| want(chunk * 500 + n, "idle", 1)).collect();
        stream.ask(0, &wants, &[]).await;
        if chunk == 0 {
            stream.beat().await;
        }
    }
    stream.ask(1, &[want(20_001, "db", 0)], &[]).await;
    assert_eq!(stream.have().await, denied(20_001, "REASON_NO_SECRET"));
    cloud.put("db", "1").await;
    assert_eq!(stream.have().await, payload(20_001, 1, "1"));
}

#[tokio::test]
async fn a_declaration_of_several_asks_is_acknowledged_without_waiting_for_the_interval() {
    // Without the early beat the stream ends, silent, before any other comes.
    let cloud = Cloud::start(lives(|l| l.beat_interval = Duration::from_secs(3600))).await;
    cloud.put("idle", "1").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    for chunk in 0..3u64 {
        let wants: Vec<_> = (1..=500).map(|n| want(chunk * 500 + n, "idle", 1)).collect();
        stream.ask(0, &wants, &[]).await;
    }
    let first = stream.beat().await;
    let mut last = first.clone();
    while last.seq < 3 {
        let beat = stream.beat().await;
        assert!(beat.server_time_ms > last.server_time_ms, "each beat is later than the one before");
        last = beat;
    }
    assert_eq!((first.seq, last.wants), (1, 1500));
}

#[tokio::test]
async fn tls_1_2_is_refused_and_1_3_is_spoken_with_h2() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let address = cloud.server.address();
    let dial = |version: &'static rustls::SupportedProtocolVersion| {
        let connector = client::tls(cloud.directory.path(), &[version]);
        async move {
            let tcp = TcpStream::connect(address).await.unwrap();
            connector.connect(ServerName::IpAddress(address.ip().into()), tcp).await
        }
    };
    let refused = dial(&rustls::version::TLS12).await.unwrap_err().to_string();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    let spoken = dial(&rustls::version::TLS13).await.unwrap();
    assert_eq!(spoken.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn plaintext_is_refused_off_loopback() {
    use ennote_devcloud::cloud::{ListenError, Server, Transport};
    let cloud = Cloud::start(Lifetimes::default()).await;
    let anywhere = ([0, 0, 0, 0], 0).into();
    let refused = Server::start(cloud.core.clone(), anywhere, Transport::Plaintext).await.err();
    assert!(matches!(refused, Some(ListenError::NotLoopback(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_and_never_reads_is_not_heard_and_so_its_stream_ends() {
    let cloud = Cloud::start(lives(|l| l.silence = Duration::from_secs(1))).await;
    let agent = cloud.agent().await;
    let stream = agent.stream().await;
    let hello = agent.hello(&[wire::Suite::A]);
    let frames = stream.frames.clone();
    // Each is answered by a frame of more than 1 KiB, until there is no room for it.
    let sends = tokio::spawn(async move {
        let begin = || wire::AgentFrame { frame: Some(agent_frame::Frame::Begin(hello.clone())) };
        while frames.send(begin()).await.is_ok() {}
    });
    let over = async {
        while cloud.core.hub.streams() == 0 {
            tokio::task::yield_now().await;
        }
        while cloud.core.hub.streams() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, over).await.expect("it is served for as long as it sends");
    drop(stream);
    sends.abort();
}
