//! No token, key or blob of one door is accepted by the other.

use super::agent::cluster::{Cluster, Signer};
use super::agent::{Agent, Cloud, detailed, random, want};
use super::published::{self, Published};
use super::{NOTE, client, refused};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use ennote_devcloud::envelope;
use ennote_devcloud::settings::Lifetimes;
use ennote_devcloud::suite::Suite;
use ennote_devcloud::wire::{self, cloud_frame, have};
use prost::Message;
use tonic::Code;

/// An agent whose cluster is enrolled, with the ServiceAccount token that it joined with.
async fn enrolled(cloud: &Cloud) -> (Cluster, Agent) {
    let cluster = Cluster::new(Signer::p256());
    let mut agent = Agent::new(cloud.channel().await);
    agent.credential = wire::Credential {
        sa_token: cluster.token("t1"),
        issuer: cluster.issuer.clone(),
        jwks: cluster.jwks().into_bytes(),
        ..wire::Credential::default()
    };
    agent.join(&cloud.token("enrolled", &["shop"]).await).await.unwrap();
    (cluster, agent)
}

#[tokio::test]
async fn no_token_of_an_agent_opens_the_published_door() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    let unspent = cloud.token("one", &["one"]).await;
    let spent = cloud.token("two", &["two"]).await;
    let mut agent = Agent::new(cloud.channel().await);
    agent.join(&spent).await.unwrap();
    let access = agent.joined().access_token.clone();
    let [header, claims, _] = client.token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let (cluster, enrolled) = enrolled(&cloud).await;
    for token in [
        unspent.clone(),
        spent,
        HEXLOWER.encode(&access),
        BASE64.encode(&access),
        BASE64URL_NOPAD.encode(&access),
        enrolled.credential.sa_token.clone(),
        cluster.token("t2"),
        format!("{header}.{claims}."),
        format!("{header}.{claims}.{}", BASE64URL_NOPAD.encode(&random::<32>())),
        format!("{} ", client.token),
        client.token.to_uppercase(),
        "x".repeat(4000),
    ] {
        let other = Published { token, ..client.clone() };
        refused(other.crypto_config().await, Code::Unauthenticated, "no personal access token of this cloud");
        refused(other.get("db", None).await, Code::Unauthenticated, "no personal access token of this cloud");
        refused(other.create("db", "SECURITY_NOTES", NOTE).await, Code::Unauthenticated, "no personal access token");
    }
    let none = Published { token: String::new(), ..client.clone() };
    for method in ["GetCryptoConfig", "PutCliShareData", "GetSecretVersionData", "AddCliSecret", "AddMultiCliSecret"] {
        let answer = none.call::<_, published::Empty>(method, published::Empty {}).await;
        refused(answer, Code::Unauthenticated, "ENNOTE_TOKEN");
    }
    assert!(cloud.core.secrets(None).unwrap().is_empty());
    // What was shown at the wrong door is not used up by it.
    agent.join(&unspent).await.unwrap();
}

#[tokio::test]
async fn no_personal_access_token_opens_the_agents_doors() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    let mut agent = Agent::new(cloud.channel().await);
    let refused = detailed(&agent.join(&client.token).await.unwrap_err());
    assert!(refused.starts_with("IDENTITY_UNKNOWN"), "{refused}");
    // As the ServiceAccount token of a cluster that the cloud knows, alone and beside the other one.
    let (cluster, _) = enrolled(&cloud).await;
    agent.credential.sa_token = client.token.clone();
    agent.credential.issuer = cluster.issuer.clone();
    agent.credential.jwks = cluster.jwks().into_bytes();
    for bootstrap in ["", &client.token] {
        let refused = detailed(&agent.join(bootstrap).await.unwrap_err());
        assert_eq!(refused, "IDENTITY_UNKNOWN/MALFORMED");
    }
    let mut joined = cloud.agent().await;
    joined.joined.as_mut().unwrap().access_token = client.token.clone().into_bytes();
    assert_eq!(joined.stream().await.end().await, "TOKEN_EXPIRED");
    assert_eq!(cloud.core.agents().unwrap().len(), 2);
}

#[tokio::test]
async fn no_blob_or_session_key_of_one_format_is_taken_as_the_others() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let client = client(&cloud).await;
    client.create("db", "SECURITY_NOTES", NOTE).await.unwrap();

    // A delivery of v2 as an upload, whole and in parts.
    let agent = cloud.agent().await;
    let mut stream = agent.stream().await;
    stream.ask(1, &[want(1, "db", 0)], &[]).await;
    let sealed = loop {
        if let cloud_frame::Frame::Have(wire::Have { answer: Some(have::Answer::Sealed(sealed)), .. }) =
            stream.next().await.unwrap()
        {
            break sealed;
        }
    };
    for bytes in [sealed.encode_to_vec(), sealed.ciphertext.clone(), [&sealed.enc[..], &sealed.ciphertext].concat()] {
        let upload = client.request_with("db", "SECURITY_NOTES", &bytes);
        let status = client.add(upload).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    // A blob of v1 inside a delivery: opens by neither key, signed or not.
    let private = random();
    let answer = client.fetch("db", None, &published::session_public_key(&private)).await.unwrap();
    for (enc, ciphertext) in [
        (sealed.enc.clone(), answer.encrypted_blob.clone()),
        (answer.session_wrapped_key[16..48].to_vec(), answer.encrypted_blob.clone()),
        (answer.session_wrapped_key[16..48].to_vec(), answer.session_wrapped_key[48..].to_vec()),
    ] {
        let forged = wire::Sealed { enc, ciphertext, ..sealed.clone() };
        assert!(Suite::ALL.into_iter().all(|suite| envelope::open_sealed(suite, &private, &forged).is_err()));
    }
    // And the delivery's parts do not pass for a wrapped key.
    assert!(published::open(&private, &sealed.ciphertext, &answer.encrypted_blob).is_err());
    assert!(published::open(&private, &answer.session_wrapped_key, &sealed.encode_to_vec()).is_err());

    // A session key of v2 is raw bytes, one of v1 a SubjectPublicKeyInfo.
    for suite in Suite::ALL {
        let raw = suite.public(&random()).unwrap();
        refused(client.fetch("db", None, &BASE64.encode(&raw)).await, Code::InvalidArgument, "SubjectPublicKeyInfo");
    }
    let spki = BASE64.decode(published::session_public_key(&random()).as_bytes()).unwrap();
    stream.seq += 1;
    let keys = vec![wire::SessionKey { index: 99, public_key: spki }];
    let ask = wire::Ask { stream_nonce: stream.nonce.clone(), seq: stream.seq, keys, ..Default::default() };
    stream.ask_with(&ask).await;
    assert_eq!(stream.end().await, "MALFORMED");
}

#[tokio::test]
async fn the_kem_key_is_no_key_of_the_agents_keyset() {
    let cloud = Cloud::start(Lifetimes::default()).await;
    let config = client(&cloud).await.crypto_config().await.unwrap();
    let agent = cloud.agent().await;
    for key in &agent.keyset.as_ref().unwrap().keys {
        assert!(!config.public_key.windows(key.public_key.len()).any(|part| part == key.public_key));
    }
}
