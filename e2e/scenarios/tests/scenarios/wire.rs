//! The line to the cloud: what is spoken on it, and that it stays open for ever by being renewed and replaced.

use anyhow::{Context, Result, ensure};
use ennote_harness::agent::{self, Agent};
use ennote_harness::devcloud;
use ennote_harness::world::{Options, World};
use ennote_scenarios::{LATER, binding, condition, until_condition, until_message, until_version};
use futures::TryStreamExt;
use kube::api::{Api, ApiResource, DynamicObject, WatchEvent, WatchParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn serving(lives: &[&str]) -> devcloud::Options {
    devcloud::Options { serve: lives.iter().map(|arg| (*arg).to_owned()).collect(), ..Default::default() }
}

/// A handshake by this version only: `Ok` with the version spoken, or how it failed.
async fn handshake(address: &str, ca: &str, version: &'static SupportedProtocolVersion) -> Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1")?, tcp).await?;
    Ok(format!("{:?}", tls.get_ref().1.protocol_version()))
}

/// A server that speaks TLS 1.2 and nothing newer.
struct OldServer {
    address: String,
    ca: String,
    /// How each handshake went.
    seen: Arc<Mutex<Vec<String>>>,
}

impl OldServer {
    async fn start() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS12])?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = seen.clone();
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let how = match acceptor.accept(tcp).await {
                    Ok(_) => "accepted".to_owned(),
                    Err(error) => error.to_string(),
                };
                told.lock().unwrap_or_else(PoisonError::into_inner).push(how);
            }
        });
        Ok(Self { address, ca: made.cert.pem(), seen })
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_refused_on_both_ends() -> Result<()> {
    let old = OldServer::start().await?;
    // It works for who speaks what it speaks.
    ensure!(handshake(&old.address, &old.ca, &TLS12).await? == "Some(TLSv1_2)");

    let values = json!({"ennote": {"api": {"url": old.address, "caCert": old.ca}}});
    let world = World::start("tls", Options { values, ..Options::default() }).await?;
    world.apply(&binding("db", "payments db")).await?;
    // The agent comes, comes again, and never gets as far as to send its hello.
    world
        .eventually("the agent tries twice", LATER, async || {
            ensure!(old.seen().len() >= 3, "handshakes so far: {:?}", old.seen());
            Ok(())
        })
        .await?;
    let seen = old.seen();
    ensure!(seen[0] == "accepted", "that was our own client");
    let refused = |how: &String| how.contains("TLS 1.2 not offered") || how.contains("Tls12NotOffered");
    ensure!(seen[1..].iter().all(refused), "the agent's handshakes: {:?}", &seen[1..]);
    until_condition(&world, "db", "Ready", "Unknown/WaitingForCloud").await?;
    until_message(&world, "db", "Ready", &old.address).await?;

    let (cloud, ca) = (world.cloud.address(), world.cloud.ca_pem()?);
    ensure!(handshake(&cloud, &ca, &TLS13).await? == "Some(TLSv1_3)");
    let error = handshake(&cloud, &ca, &TLS12).await.err().context("the cloud took TLS 1.2")?;
    ensure!(format!("{error:#}").contains("ProtocolVersion"), "refused for another reason: {error:#}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_goes_to_loopback_only_and_only_when_asked() -> Result<()> {
    let options = Options { cloud: serving(&["--plaintext"]), ..Options::default() };
    let mut world = World::start("plaintext", options).await?;
    world.cloud.put("payments db", &[("user", "app")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    // Not asked: it speaks TLS to a cloud that does not, and waits.
    world
        .eventually("the agent cannot join", LATER, async || {
            ensure!(world.agent.log().contains("could not join"), "it has not tried yet");
            Ok(())
        })
        .await?;
    until_condition(&world, "db", "Ready", "Unknown/WaitingForCloud").await?;
    ensure!(!world.cloud.log().contains("joined"), "it joined in plaintext without being asked to");
    world.agent.stop().await?;

    let mut options = agent::Options::new(&world.namespace);
    options.environment = vec![("ENNOTE_ALLOW_PLAINTEXT".to_owned(), "true".to_owned())];
    world.agent = Agent::new(&world.plane, options).await?;
    world.agent.start().await?;
    until_version(&world, "db", 1).await?;

    // Asked, but beyond loopback: by address, by name, and by the cloud's own listener.
    for address in ["192.0.2.1:443", "api.ennote.io:443", "[2001:db8::1]:443"] {
        let said = world.agent.exec(&["run", "--api-url", address]).await?.refused()?;
        let sentence = format!(
            "--allow-plaintext is only for a loopback address, and {address} is none; leave it out to speak TLS 1.3"
        );
        ensure!(said.contains(&sentence), "{address}: {said}");
    }
    let said = world.agent.exec(&["run", "--api-url", "http://127.0.0.1:1"]).await?.refused()?;
    ensure!(said.contains("http:// is not spoken"), "{said}");
    world.cloud.stop().await?;
    let said = world.cloud.run(&["serve", "--plaintext", "--listen", "0.0.0.0:0"]).await?.refused()?;
    ensure!(said.contains("plaintext is spoken on loopback addresses only"), "{said}");
    world.stop().await
}

/// How often the cloud's log has a line.
fn count(world: &World, what: &str) -> usize {
    world.cloud.log().lines().filter(|line| line.contains(what)).count()
}

/// Every value that a field has in the lines of the cloud's log that hold `what`.
fn values(world: &World, what: &str, field: &str) -> BTreeSet<String> {
    let log = world.cloud.log();
    let of = |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix(field).map(str::to_owned));
    log.lines().filter(|line| line.contains(what)).filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_renewed_thrice_on_one_stream() -> Result<()> {
    const RENEWED: &str = "access token renewed on the stream";
    let cloud = serving(&["--access-token-life=4s", "--beat-interval=1s"]);
    let world = World::start("renewal", Options { cloud, ..Options::default() }).await?;
    world.cloud.put("payments db", &[("n", "1")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    for renewals in 1..=3 {
        world
            .eventually(&format!("renewal {renewals}"), LATER, async || {
                ensure!(count(&world, RENEWED) >= renewals, "{} so far", count(&world, RENEWED));
                Ok(())
            })
            .await?;
        // Pushes go on under each new token.
        world.cloud.put("payments db", &[("n", &format!("{renewals} renewals"))]).await?;
        let synced = until_version(&world, "db", renewals as u64 + 1).await?;
        ensure!(synced["status"]["syncLatencyMillis"].is_u64(), "a push, not an answer to a question");
    }
    ensure!(count(&world, "stream opened") == 1, "streams:\n{}", world.cloud.log());
    ensure!(count(&world, "stream ended") == 0, "streams:\n{}", world.cloud.log());
    ensure!(count(&world, " joined") == 1, "joins:\n{}", world.cloud.log());
    ensure!(values(&world, RENEWED, "epoch=") == values(&world, "stream opened", "epoch="), "the epoch moved");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_stream_is_replaced_without_a_gap() -> Result<()> {
    let cloud = serving(&["--stream-life=2s", "--drain-grace=10s", "--beat-interval=500ms"]);
    let world = World::start("drain", Options { cloud, ..Options::default() }).await?;
    world.cloud.put("payments db", &[("n", "0")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    let first = until_condition(&world, "db", "Fresh", "True/BeatsArrive").await?;
    until_version(&world, "db", 1).await?;

    // Every status that there ever is from now on.
    let resource = ApiResource {
        group: "ennote.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "ennote.io/v1alpha1".to_owned(),
        kind: "EnnoteSecretBinding".to_owned(),
        plural: "ennotesecretbindings".to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &resource);
    let since = first["metadata"]["resourceVersion"].as_str().context("a resourceVersion")?.to_owned();
    let shown: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
    let told = shown.clone();
    let watching = tokio::spawn(async move {
        let events = api.watch(&WatchParams::default(), &since).await?;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Modified(binding) | WatchEvent::Added(binding) = event {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(binding.data);
            }
        }
        anyhow::Ok(())
    });

    // Puts go on over three hand-overs; each arrives.
    let mut version = 1;
    while count(&world, "stream opened") < 4 {
        version += 1;
        world.cloud.put("payments db", &[("n", &version.to_string())]).await?;
        until_version(&world, "db", version).await?;
        ensure!(world.secret_data("db").await?.get("n") == Some(&version.to_string()));
        ensure!(version < 500, "the stream was never drained:\n{}", world.cloud.log());
    }
    ensure!(!watching.is_finished(), "the watch ended early: {:?}", watching.await?);
    watching.abort();

    let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ensure!(shown.len() as u64 >= version - 1, "the watch showed {} of {version} versions", shown.len());
    for binding in &shown {
        let of = |kind: &str| condition(binding, kind);
        ensure!(of("Ready").as_deref() == Some("True/Synced"), "Ready was {:?}", of("Ready"));
        ensure!(of("Fresh").as_deref() == Some("True/BeatsArrive"), "Fresh was {:?}", of("Fresh"));
    }
    // Streams end because they were replaced; the link as a whole never did, and nobody joined again.
    ensure!(!world.agent.log().contains("the stream to the cloud ended"), "there was a gap");
    ensure!(count(&world, " joined") == 1, "joins:\n{}", world.cloud.log());
    world.stop().await
}
