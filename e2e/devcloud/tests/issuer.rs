//! R1: a public issuer's keys come from the issuer, and what an agent says about them is not heard.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod client;

use client::cluster::{Cluster, Signer};
use client::pod::{alarms, process, renew, streaming};
use client::{Cloud, PATIENCE, detailed};
use ennote_devcloud::settings::{Attesting, Lifetimes};
use ennote_devcloud::store::Origin;
use ennote_devcloud::tls::CertificateAuthority;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const ISSUER: &str = "https://issuer.example";

/// `https://issuer.example` on loopback: path -> status line and headers, body.
struct Issuer {
    pages: Arc<Mutex<HashMap<String, (String, String)>>>,
    /// The first answer waits for this, and no other does.
    held: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    attesting: Attesting,
    _directory: tempfile::TempDir,
}

impl Issuer {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::generate("issuer", &["issuer.example".into()]).unwrap();
        let ca = directory.path().join("ca.crt");
        std::fs::write(&ca, authority.certificate()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages: Arc<Mutex<HashMap<String, (String, String)>>> = Arc::default();
        let held: Arc<Mutex<Option<oneshot::Receiver<()>>>> = Arc::default();
        let (served, holds) = (pages.clone(), held.clone());
        tokio::spawn(async move {
            loop {
                let tcp = listener.accept().await.unwrap().0;
                let (acceptor, served, until) = (acceptor.clone(), served.clone(), holds.lock().unwrap().take());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(tcp).await.unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.unwrap());
                    }
                    if let Some(until) = until {
                        until.await.unwrap();
                    }
                    let path = String::from_utf8(request).unwrap().split(' ').nth(1).unwrap().to_owned();
                    let page = served.lock().unwrap().get(&path).cloned();
                    let (head, body) = page.unwrap_or(("404 Not Found".into(), String::new()));
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        let attesting = Attesting {
            test_issuer: Some(("issuer.example".into(), address)),
            test_issuer_ca: Some(ca),
            ..Attesting::default()
        };
        Self { pages, held, attesting, _directory: directory }
    }

    fn serve(&self, path: &str, head: &str, body: String) {
        self.pages.lock().unwrap().insert(path.into(), (head.into(), body));
    }

    fn discovery(&self, issuer: &str) {
        let document = serde_json::json!({"issuer": issuer, "jwks_uri": format!("{ISSUER}/keys")});
        self.serve("/.well-known/openid-configuration", "200 OK", document.to_string());
    }
}

fn cluster(kid: &str) -> Cluster {
    Cluster { kid: kid.into(), issuer: ISSUER.into(), ..Cluster::new(Signer::p256()) }
}

async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, holds).await.unwrap();
}

#[tokio::test]
async fn a_public_issuers_keys_are_fetched_and_reports_are_ignored() {
    let issuer = Issuer::start().await;
    let (cluster, new) = (cluster("key-1"), cluster("key-2"));
    issuer.discovery(ISSUER);
    issuer.serve("/keys", "200 OK\r\ncache-control: max-age=0", cluster.jwks());
    let lives = Lifetimes { issuer_pause: Duration::from_millis(20), ..Lifetimes::default() };
    let cloud = Cloud::attesting(lives, &issuer.attesting).await;
    let mut agent = process(&cloud, &cluster, &cluster.token("t1")).await;
    agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
    let kids = || {
        let keys = cloud.core.agent_keys("shop-agent").unwrap();
        keys.into_iter().map(|key| (key.kid.unwrap(), key.origin)).collect::<Vec<_>>()
    };
    until(|| kids() == [("key-1".to_owned(), Origin::Issuer)]).await;

    let mut stream = streaming(&agent).await;
    agent.credential.jwks = new.jwks().into_bytes();
    renew(&mut agent, &mut stream).await.unwrap();
    assert_eq!((kids(), alarms(&cloud)), (vec![("key-1".to_owned(), Origin::Issuer)], vec![]));

    issuer.serve("/keys", "200 OK\r\ncache-control: max-age=0", new.jwks());
    until(|| kids() == [("key-2".to_owned(), Origin::Issuer)]).await;
    let mut old = process(&cloud, &cluster, &cluster.token("t2")).await;
    assert_eq!(detailed(&old.join("").await.unwrap_err()), "IDENTITY_UNKNOWN/KEY_UNKNOWN");
    process(&cloud, &new, &new.token("t3")).await.join("").await.unwrap();

    issuer.serve("/keys", "302 Found\r\nlocation: https://issuer.example/elsewhere", String::new());
    issuer.serve("/elsewhere", "200 OK", cluster.jwks());
    process(&cloud, &new, &new.token("t4")).await.join("").await.unwrap();
    assert_eq!(kids(), [("key-2".to_owned(), Origin::Issuer)], "a redirect is no answer, and the keys stay");
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_yet_holds_no_other_up() {
    let issuer = Issuer::start().await;
    let (slow, quick) = (cluster("key-1"), Cluster { uid: "uid-2".into(), ..cluster("key-2") });
    issuer.discovery(ISSUER);
    let keys = [slow.signer.jwk("key-1"), quick.signer.jwk("key-2")];
    issuer.serve("/keys", "200 OK", serde_json::json!({ "keys": keys }).to_string());
    let (release, held) = oneshot::channel();
    *issuer.held.lock().unwrap() = Some(held);
    let cloud = Cloud::attesting(Lifetimes::default(), &issuer.attesting).await;
    let public = |name: &str| {
        let keys = cloud.core.agent_keys(name).unwrap();
        keys.iter().all(|key| key.origin == Origin::Issuer)
    };
    process(&cloud, &slow, &slow.token("t1")).await.join(&cloud.token("slow", &["shop"]).await).await.unwrap();
    until(|| issuer.held.lock().unwrap().is_none()).await;
    process(&cloud, &quick, &quick.token("t2")).await.join(&cloud.token("quick", &["shop"]).await).await.unwrap();
    until(|| public("quick")).await;
    assert!(!public("slow"));
    // It is still being asked: had the other waited for it, this would be too late.
    release.send(()).unwrap();
    until(|| public("slow")).await;
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_for_the_agents_key_stays_a_private_one() {
    let cluster = cluster("key-1");
    let other = self::cluster("key-1");
    let long = " ".repeat(64 * 1024) + &cluster.jwks();
    type Setting = Box<dyn Fn(&Issuer)>;
    let jwks = cluster.jwks();
    let cases: [Setting; 4] = [
        Box::new(|_| ()),
        Box::new(move |issuer| {
            issuer.discovery("https://other.example");
            issuer.serve("/keys", "200 OK", jwks.clone());
        }),
        Box::new(move |issuer| {
            issuer.discovery(ISSUER);
            issuer.serve("/keys", "200 OK", other.jwks());
        }),
        Box::new(move |issuer| {
            issuer.discovery(ISSUER);
            issuer.serve("/keys", "200 OK", long.clone());
        }),
    ];
    for set in cases {
        let issuer = Issuer::start().await;
        set(&issuer);
        let cloud = Cloud::attesting(Lifetimes::default(), &issuer.attesting).await;
        let mut agent = process(&cloud, &cluster, &cluster.token("t1")).await;
        agent.join(&cloud.token("shop-agent", &["shop"]).await).await.unwrap();
        until(|| cloud.core.due_issuers().unwrap().0.is_empty()).await;
        let keys = cloud.core.agent_keys("shop-agent").unwrap();
        assert_eq!(keys.iter().map(|key| key.origin).collect::<Vec<_>>(), [Origin::Enrolled]);
    }
}
