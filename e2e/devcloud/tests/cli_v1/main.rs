//! The published `cli.v1`, spoken over real TLS by a client that knows the page and not this server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

#[path = "../client/mod.rs"]
mod agent;
mod corpus;
mod doors;
mod published;
mod vectors;

use agent::Cloud;
use data_encoding::BASE64;
use ennote_devcloud::core::PatRequest;
use ennote_devcloud::settings::Lifetimes;
use published::{AddCliSecretResponse, Published, random, seal, session_public_key};
use std::time::Duration;
use tonic::{Code, Status};

const NOTE: &str = r#"{"securityNotes":"one"}"#;

async fn pat(cloud: &Cloud, name: &str, workspace: Option<&str>, life: Option<Duration>) -> String {
    let request = PatRequest { name: name.into(), workspace: workspace.map(Into::into), life };
    cloud.core.create_pat(&request).await.unwrap().token.as_str().to_owned()
}

/// A client that is signed in to the default workspace.
async fn client(cloud: &Cloud) -> Published {
    let ca = std::fs::read_to_string(cloud.directory.path().join("ca.crt")).unwrap();
    Published {
        channel: published::connect(&cloud.server.address().to_string(), &ca).await,
        token: pat(cloud, "ci", None, None).await,
        organization: "acme".into(),
        workspace: "prod".into(),
        repeats_ids: true,
    }
}

fn refused<T>(answer: Result<T, Status>, code: Code, text: &str) {
    let Err(status) = answer else { panic!("taken, and {text:?} was expected") };
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[tokio::test]
async fn what_is_created_is_read_again_by_name_and_by_version() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let mut client = client(&cloud).await;
    for (kind, payload) in [
        ("KEYS_VALUES", r#"{"keysValues":{"exact":12345678901234567890123,"K":"v"}}"#),
        ("LOGIN_PASSWORD", r#"{"login":"admin","password":"p"}"#),
        ("SECURITY_NOTES", r#"{"securityNotes":"a\nb"}"#),
        ("TWO_FACTOR", r#"{"securityCode":"JBSWY3DPEHPK3PXP"}"#),
    ] {
        let name = format!("bastion ssh {kind}");
        let made = client.create(&name, kind, payload).await.unwrap();
        assert_eq!(made.name, name);
        assert_eq!(client.get(&name, None).await.unwrap(), payload, "byte for byte");
        let stored = cloud.core.secret(None, &name, None).unwrap();
        assert_eq!((stored.kind.as_str(), stored.version, stored.payload.as_str()), (kind, 1, payload));
    }
    let first = client.create("db", "SECURITY_NOTES", NOTE).await.unwrap();
    let second = client.create("db", "SECURITY_NOTES", r#"{"securityNotes":"two"}"#).await.unwrap();
    assert_eq!(first, second, "the id is the secret's, not the version's");
    assert!(first.id.starts_with("sec_"));
    assert_eq!(client.get("db", None).await.unwrap(), r#"{"securityNotes":"two"}"#);
    assert_eq!(client.get("db", Some(1)).await.unwrap(), NOTE);
    // What an administrator puts is read here too, and a client from before 1.2.0 sends no ids in metadata.
    assert_eq!(cloud.put("db", "three").await, 3);
    client.repeats_ids = false;
    assert_eq!(client.get("db", None).await.unwrap(), r#"{"keysValues":{"V":"three"}}"#);
}

#[tokio::test]
async fn every_read_is_sealed_anew_and_opens_by_its_session_key_alone() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    client.create("db", "SECURITY_NOTES", NOTE).await.unwrap();
    let private = random();
    let one = client.fetch("db", None, &session_public_key(&private)).await.unwrap();
    let two = client.fetch("db", None, &session_public_key(&private)).await.unwrap();
    let open = |key: &[u8; 32], wrapped: &[u8], blob: &[u8]| published::open(key, wrapped, blob);
    assert_eq!(open(&private, &one.session_wrapped_key, &one.encrypted_blob).unwrap(), NOTE.as_bytes());
    assert_eq!(open(&private, &two.session_wrapped_key, &one.encrypted_blob), Err("tag"), "a DEK is used once");
    assert_eq!(open(&random(), &one.session_wrapped_key, &one.encrypted_blob), Err("tag"));
    assert_eq!(one.session_wrapped_key.len(), 4 + 44 + 12 + 32 + 16);
    for at in 0..one.session_wrapped_key.len() {
        let mut altered = one.session_wrapped_key.clone();
        altered[at] ^= 0x40;
        let opened = open(&private, &altered, &one.encrypted_blob);
        // Of the SPKI, only the key is looked at, and of that not the highest bit.
        assert_eq!(opened.is_ok(), (4..16).contains(&at), "byte {at}");
    }
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    let config = client.crypto_config().await.unwrap();
    let request = |name: &str| client.request(&config, name, "SECURITY_NOTES", NOTE);
    let mut batch: Vec<_> = (0..49).map(|n| request(&format!("item {n}"))).collect();
    batch.push(published::AddCliSecretRequest {
        notes: Some("a note".into()),
        url: Some("https://example.com".into()),
        labels: vec!["a".into(), "b".into()],
        ..request("item 0")
    });
    let taken = client.import(batch.clone()).await.unwrap().secrets;
    let names = |taken: &[AddCliSecretResponse]| taken.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&taken), batch.iter().map(|one| one.name.clone()).collect::<Vec<_>>());
    let stored = cloud.core.secrets(None).unwrap();
    assert_eq!((stored.len(), stored[0].version), (49, 2), "a name that stands twice gets two versions");
    for bad in [
        client.request_with("bad", "SECURITY_NOTES", b"\x02"),
        client.request(&config, "bad", "TWO_FACTOR", NOTE),
        client.request(&config, " bad", "SECURITY_NOTES", NOTE),
    ] {
        refused(client.import(vec![request("new"), bad]).await, Code::InvalidArgument, "bad");
    }
    refused(client.get("new", None).await, Code::NotFound, "new");
    assert!(client.import(vec![]).await.unwrap().secrets.is_empty());
    batch.push(request("51st"));
    refused(client.import(batch).await, Code::InvalidArgument, "at most 50");
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    client.create("db", "SECURITY_NOTES", NOTE).await.unwrap();
    refused(client.get("other", None).await, Code::NotFound, "no secret \"other\"");
    refused(client.get("db", Some(2)).await, Code::NotFound, "no version 2");
    for none in [0, -1, i32::MIN] {
        refused(client.get("db", Some(none)).await, Code::InvalidArgument, "versions count from 1");
    }
    cloud.core.remove_secret(None, "db").await.unwrap();
    refused(client.get("db", None).await, Code::NotFound, "was deleted");
    refused(client.get("db", Some(1)).await, Code::NotFound, "was erased");
    client.create("db", "SECURITY_NOTES", NOTE).await.unwrap();
    let low_order = BASE64.encode(&[&published::SPKI_PREFIX[..], &[0; 32]].concat());
    for session in ["", "AAAA", "not base64", &low_order] {
        refused(client.fetch("db", None, session).await, Code::InvalidArgument, "X25519 SubjectPublicKeyInfo");
    }
}

#[tokio::test]
async fn a_token_is_for_its_workspace_and_counts_until_it_ends_or_is_revoked() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    cloud.core.create_workspace("other").await.unwrap();
    let mut client = client(&cloud).await;
    client.create("db", "SECURITY_NOTES", NOTE).await.unwrap();
    let config = client.crypto_config().await.unwrap();
    let foreign = Published { workspace: "other".into(), ..client.clone() };
    let nowhere = Published { workspace: "none".into(), ..client.clone() };
    let elsewhere = Published { organization: "evil".into(), ..client.clone() };
    for wrong in [&foreign, &nowhere, &elsewhere] {
        let wrong_in_metadata = client.request(&config, "db", "SECURITY_NOTES", NOTE);
        refused(wrong.add(wrong_in_metadata).await, Code::PermissionDenied, "workspace \"prod\"");
        let old = Published { repeats_ids: false, ..wrong.clone() };
        for wrong in [wrong, &old] {
            let sealed = wrong.request(&config, "db", "SECURITY_NOTES", NOTE);
            refused(wrong.crypto_config().await, Code::PermissionDenied, "workspace \"prod\"");
            refused(wrong.get("db", None).await, Code::PermissionDenied, "workspace \"prod\"");
            refused(wrong.add(sealed.clone()).await, Code::PermissionDenied, "workspace \"prod\"");
            let right = client.request(&config, "db", "SECURITY_NOTES", NOTE);
            refused(old.import(vec![right, sealed]).await, Code::PermissionDenied, "workspace \"prod\"");
        }
    }
    let other = Published { token: pat(&cloud, "other", Some("other"), None).await, ..foreign };
    refused(other.get("db", None).await, Code::NotFound, "workspace \"other\"");

    let late = pat(&cloud, "late", None, Some(Duration::ZERO)).await;
    refused(Published { token: late, ..client.clone() }.get("db", None).await, Code::Unauthenticated, "has expired");
    cloud.core.revoke_pat("ci").await.unwrap();
    refused(client.get("db", None).await, Code::Unauthenticated, "was revoked");
    client.token = pat(&cloud, "ci", None, None).await;
    assert_eq!(client.get("db", None).await.unwrap(), NOTE, "the name is free again");
    let states: Vec<(String, String)> =
        cloud.core.pats().unwrap().into_iter().map(|pat| (pat.name, pat.state)).collect();
    for (name, state) in [("ci", "live"), ("ci", "revoked"), ("late", "expired"), ("other", "live")] {
        assert!(states.contains(&(name.into(), state.into())), "{name} {state}: {states:?}");
    }
    let again = PatRequest { name: "ci".into(), workspace: None, life: None };
    assert!(cloud.core.create_pat(&again).await.unwrap_err().to_string().contains("pat revoke ci"));
    let long = PatRequest { name: "long".into(), workspace: None, life: Some(Duration::from_secs(30 * 86_400 + 1)) };
    assert!(cloud.core.create_pat(&long).await.unwrap_err().to_string().contains("30d at most"));
}

#[tokio::test]
async fn a_blob_that_is_not_sealed_to_this_door_is_refused_with_a_sentence() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    let config = client.crypto_config().await.unwrap();
    assert_eq!((config.algorithm.as_str(), config.public_key.len()), ("ML-KEM-1024", 1568));
    let blob = seal(&config, NOTE.as_bytes(), &random(), &random());
    let with = |blob: &[u8]| client.add(client.request_with("db", "SECURITY_NOTES", blob));
    let header = 1 + 4 + config.key_version.len();
    let flipped = |at: usize, bit: u8| {
        let mut blob = blob.clone();
        blob[at] ^= bit;
        blob
    };
    let set = |at: usize, byte: u8| {
        let mut blob = blob.clone();
        blob[at] = byte;
        blob
    };
    refused(with(&set(0, 1)).await, Code::InvalidArgument, "RSA-OAEP");
    refused(with(&set(0, 3)).await, Code::InvalidArgument, "0x03");
    refused(with(&set(4, 65)).await, Code::InvalidArgument, "65 bytes");
    refused(with(&set(1, 0xff)).await, Code::InvalidArgument, "64 at most");
    refused(with(&flipped(5, 1)).await, Code::InvalidArgument, "another key");
    for at in [header, header + 11, header + 12, header + 12 + 1567, header + 12 + 1568, blob.len() - 1] {
        for bit in [1, 0x80] {
            refused(with(&flipped(at, bit)).await, Code::InvalidArgument, "does not open");
        }
    }
    for length in [0, 1, 4, 5, header, header + 12, header + 12 + 1568, header + 12 + 1568 + 15] {
        refused(with(&blob[..length]).await, Code::InvalidArgument, "ends before");
    }
    let to_another = published::CryptoConfig { key_version: "latest".into(), ..config.clone() };
    let to_latest = seal(&to_another, NOTE.as_bytes(), &random(), &random());
    refused(with(&to_latest).await, Code::InvalidArgument, "another key");
    let text = client.add(published::AddCliSecretRequest {
        encrypted_blob: "not base64!".into(),
        ..client.request_with("db", "SECURITY_NOTES", &blob)
    });
    refused(text.await, Code::InvalidArgument, "base64");

    let sealed = |payload: &[u8]| seal(&config, payload, &random(), &random());
    refused(with(&sealed(b"\xff\xfe")).await, Code::InvalidArgument, "UTF-8");
    refused(with(&sealed(b"[]")).await, Code::InvalidArgument, "JSON object");
    refused(with(&sealed(br#"{"securityCode":"X"}"#)).await, Code::InvalidArgument, "needs securityNotes");
    let of_size = |size: usize| format!(r#"{{"securityNotes":"{}"}}"#, "x".repeat(size - 20));
    refused(with(&sealed(of_size((1 << 20) + 1).as_bytes())).await, Code::InvalidArgument, "1 MiB");
    refused(with(&sealed(&[b'x'; (1 << 20) + 64])).await, Code::InvalidArgument, "1 MiB");
    for kind in ["", "keys_values", "OTHER"] {
        refused(client.add(client.request_with("db", kind, &blob)).await, Code::InvalidArgument, "the types are");
    }
    let many = vec!["x".repeat(20_000)];
    let labelled =
        published::AddCliSecretRequest { labels: many, ..client.request_with("db", "SECURITY_NOTES", &blob) };
    refused(client.add(labelled).await, Code::InvalidArgument, "label");
    refused(client.get("db", None).await, Code::NotFound, "no secret");

    let largest = of_size(1 << 20);
    client.create("large", "SECURITY_NOTES", &largest).await.unwrap();
    assert_eq!(client.get("large", None).await.unwrap(), largest);
    let bytes = vec![0; 5 << 20];
    assert!(with(&bytes).await.is_err(), "more than a message may have");
}

#[tokio::test]
async fn the_kem_key_stays_over_a_restart() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let mut client = client(&cloud).await;
    let config = client.crypto_config().await.unwrap();
    let token = client.token.clone();
    drop(client);
    let cloud = cloud.restart(Lifetimes::default()).await;
    let ca = std::fs::read_to_string(cloud.directory.path().join("ca.crt")).unwrap();
    client = Published {
        channel: published::connect(&cloud.server.address().to_string(), &ca).await,
        token,
        organization: "acme".into(),
        workspace: "prod".into(),
        repeats_ids: true,
    };
    assert_eq!(client.crypto_config().await.unwrap(), config);
    client.add(client.request(&config, "db", "SECURITY_NOTES", NOTE)).await.unwrap();
    assert_eq!(client.get("db", None).await.unwrap(), NOTE);
}

#[tokio::test]
async fn one_time_shares_are_not_served_and_it_says_so() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    for method in ["PutCliShareData", "GetCliShareData", "CheckCliShareData"] {
        let answer = client.call::<_, published::Empty>(method, published::CheckCliShareDataRequest::default()).await;
        refused(answer, Code::Unimplemented, "one-time shares");
    }
}
