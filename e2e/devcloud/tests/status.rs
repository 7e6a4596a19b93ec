//! `secret status`: what agents report, over real TLS to a real server in this process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod client;

use client::{Cloud, PATIENCE, Stream, want};
use ennote_devcloud::core::{BindingStatus, SecretStatus, State};
use ennote_devcloud::settings::Lifetimes;
use ennote_devcloud::store::Phase;
use ennote_devcloud::wire::{self, report::Phase as Says};
use std::time::Duration;
use tokio::time::timeout;

const WEB: &str = "Deployment/web";

fn report(binding: u64, version: u64, workload: &str, phase: Says) -> wire::Report {
    wire::Report { binding_uid: format!("uid-{binding}"), version, workload: workload.into(), phase: phase as i32 }
}

async fn until(cloud: &Cloud, secret: &str, holds: impl Fn(&SecretStatus) -> bool) -> SecretStatus {
    let awaited = async {
        loop {
            let status = cloud.core.secret_status(None, secret).unwrap();
            if holds(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, awaited).await.expect("the status never got there")
}

fn one(status: &SecretStatus) -> &BindingStatus {
    assert_eq!(status.bindings.len(), 1);
    &status.bindings[0]
}

/// Nothing of an earlier ask is on its way any more once a later one shows.
async fn settled(cloud: &Cloud, stream: &mut Stream, id: u64) {
    cloud.put("marker", "here").await;
    stream.ask(0, &[want(id, "marker", 0)], &[]).await;
    until(cloud, "marker", |status| status.bindings.iter().any(|b| b.binding_uid == format!("uid-{id}"))).await;
}

#[tokio::test]
async fn a_version_is_followed_from_the_cloud_to_the_workloads() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("db", "one").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(2, &[want(1, "db", 0)], &[]).await;
    let status = until(&cloud, "db", |status| !status.bindings.is_empty()).await;
    let binding = one(&status);
    assert_eq!((binding.state, binding.version, binding.connected), (State::Behind, 0, true));
    assert_eq!(
        (binding.agent.as_str(), binding.namespace.as_str(), binding.binding.as_str()),
        ("shop-agent", "shop", "binding-1")
    );

    stream.ask(0, &[want(1, "db", 1)], &[]).await;
    let status = until(&cloud, "db", |status| one(status).state == State::InSync).await;
    assert_eq!((status.version, one(&status).version), (1, 1), "a binding without a workload shows as in sync");
    let since = one(&status).since_ms;

    stream.report(&[], &[report(1, 1, WEB, Says::Progressing)]).await;
    until(&cloud, "db", |status| one(status).state == State::RollingOut).await;
    stream.report(&[], &[report(1, 1, WEB, Says::Failed), report(1, 1, "Deployment/api", Says::Complete)]).await;
    let status = until(&cloud, "db", |status| one(status).state == State::Failed).await;
    let workloads: Vec<(&str, Phase)> = one(&status).workloads.iter().map(|w| (w.workload.as_str(), w.phase)).collect();
    assert_eq!(workloads, [(WEB, Phase::Failed), ("Deployment/api", Phase::Complete)], "failed first");
    stream.report(&[], &[report(1, 1, WEB, Says::Complete)]).await;
    let status = until(&cloud, "db", |status| one(status).state == State::RolledOut).await;
    let web = one(&status).workloads.iter().find(|w| w.workload == WEB).unwrap();
    assert!(web.since_ms >= one(&status).since_ms && one(&status).since_ms == since, "each has its own time");

    cloud.put("db", "two").await;
    let status = cloud.core.secret_status(None, "db").unwrap();
    assert_eq!((status.version, one(&status).state, one(&status).version), (2, State::Behind, 1));
    stream.report(&[want(1, "db", 2)], &[report(1, 2, WEB, Says::Pending)]).await;
    until(&cloud, "db", |status| one(status).state == State::RollingOut).await;
    stream.report(&[], &[report(1, 2, WEB, Says::Complete)]).await;
    settled(&cloud, &mut stream, 7).await;
    let status = cloud.core.secret_status(None, "db").unwrap();
    assert_eq!(one(&status).state, State::RollingOut, "the other one has not said that it runs version 2");
    stream.report(&[], &[report(1, 0, "Deployment/api", Says::Complete)]).await;
    until(&cloud, "db", |status| one(status).state == State::RolledOut && one(status).workloads.len() == 1).await;
}

#[tokio::test]
async fn a_version_that_was_refused_is_not_in_sync_though_it_is_acknowledged() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    for value in ["one", "two"] {
        cloud.put("db", value).await;
    }
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(2, &[want(1, "db", 1)], &[]).await;
    until(&cloud, "db", |status| status.bindings.iter().any(|b| b.version == 1)).await;
    stream.report(&[want(1, "db", 2)], &[report(1, 2, "", Says::Failed)]).await;
    let status = until(&cloud, "db", |status| one(status).refused.is_some()).await;
    assert_eq!((one(&status).state, one(&status).version, one(&status).refused), (State::Refused, 1, Some(2)));
    cloud.put("db", "three").await;
    stream.report(&[want(1, "db", 3)], &[report(1, 3, "", Says::Complete)]).await;
    let status = until(&cloud, "db", |status| one(status).state == State::InSync).await;
    assert_eq!((one(&status).version, one(&status).refused), (3, None));
}

#[tokio::test]
async fn what_nobody_wants_is_not_shown_and_goes_with_the_want_or_the_agent() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("db", "one").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    let foreign = wire::Want { namespace: "ops".into(), ..want(3, "db", 1) };
    stream.ask(2, &[want(1, "db", 1), want(2, "db", 1), foreign], &[]).await;
    stream.report(&[], &[report(1, 1, WEB, Says::Complete), report(9, 1, WEB, Says::Failed)]).await;
    let status = until(&cloud, "db", |status| status.bindings.iter().any(|b| !b.workloads.is_empty())).await;
    let states: Vec<State> = status.bindings.iter().map(|binding| binding.state).collect();
    assert_eq!(states, [State::Denied, State::InSync, State::RolledOut], "nothing of uid-9; no grant proves nothing");
    stream.ask(0, &[], &[1, 3]).await;
    let status = until(&cloud, "db", |status| status.bindings.len() == 1).await;
    assert_eq!(one(&status).binding, "binding-2");
    stream.report(&[], &[report(1, 1, WEB, Says::Failed)]).await;
    settled(&cloud, &mut stream, 7).await;
    assert_eq!(cloud.core.secret_status(None, "db").unwrap().bindings.len(), 1, "it was taken back");
    cloud.core.revoke_agent("shop-agent").await.unwrap();
    assert_eq!(stream.end().await, "BANNED");
    assert!(cloud.core.secret_status(None, "db").unwrap().bindings.is_empty());
}

#[tokio::test]
async fn a_cloud_that_restarts_remembers_and_says_that_the_agent_is_away() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.put("db", "one").await;
    let mut agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(2, &[want(1, "db", 1)], &[]).await;
    stream.report(&[], &[report(1, 1, WEB, Says::Complete)]).await;
    let before = until(&cloud, "db", |s| s.bindings.iter().any(|b| b.state == State::RolledOut)).await;
    let cloud = cloud.restart(Lifetimes::default()).await;
    let after = cloud.core.secret_status(None, "db").unwrap();
    let binding = one(&after);
    assert!(!binding.connected && binding.seen_at_ms >= binding.since_ms);
    assert_eq!((binding.state, binding.since_ms), (State::RolledOut, one(&before).since_ms));
    agent.channel = cloud.channel().await;
    let mut stream = agent.stream().await;
    stream.report(&[want(1, "db", 1)], &[report(1, 1, WEB, Says::Complete)]).await;
    let status = until(&cloud, "db", |status| one(status).connected).await;
    settled_since(&cloud, &mut stream, &status).await;
}

/// Said again on another stream, nothing is newer than it was.
async fn settled_since(cloud: &Cloud, stream: &mut Stream, before: &SecretStatus) {
    settled(cloud, stream, 7).await;
    let now = cloud.core.secret_status(None, "db").unwrap();
    assert_eq!((one(&now).since_ms, &one(&now).workloads), (one(before).since_ms, &one(before).workloads));
}

#[tokio::test]
async fn what_a_new_stream_does_not_name_is_forgotten_once_it_is_quiet() {
    let short = Lifetimes { beat_interval: Duration::from_millis(50), ..Lifetimes::default() };
    let cloud = Cloud::start(short).await;
    cloud.put("db", "one").await;
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(2, &[want(1, "db", 1), want(2, "db", 1)], &[]).await;
    stream.report(&[], &[report(1, 1, WEB, Says::Complete), report(1, 1, "Deployment/old", Says::Failed)]).await;
    until(&cloud, "db", |s| s.bindings.len() == 2 && s.bindings[0].workloads.len() == 2).await;
    drop(stream);
    let mut stream = agent.stream().await;
    stream.report(&[want(1, "db", 1)], &[report(1, 1, WEB, Says::Complete)]).await;
    let status = until(&cloud, "db", |s| s.bindings.len() == 1 && s.bindings[0].workloads.len() == 1).await;
    assert_eq!((one(&status).state, one(&status).binding.as_str()), (State::RolledOut, "binding-1"));
}
