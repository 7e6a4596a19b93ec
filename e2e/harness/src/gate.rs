//! An admission webhook before one namespace: every write of an agent that moves the data of a Secret passes it, and the
//! scenario says what becomes of it. Looks (empty patches) and proofs (dry runs) pass as if it were not there.

use anyhow::{Context, Result, anyhow, ensure};
use ennote_devcloud::tls::CertificateAuthority;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const SOON: Duration = Duration::from_secs(30);

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The API server goes on with it.
    Pass,
    /// It waits for another verdict.
    Hold,
    /// The API server refuses it with this status.
    Refuse(u16),
    /// As [`Self::Refuse`], in words that quote the data, as a careless webhook does.
    Quote(u16),
    /// The webhook fails, and with it the API server: 500.
    Fail,
}

#[derive(Default)]
struct Counts {
    asked: AtomicUsize,
    holding: AtomicUsize,
    stopped: AtomicUsize,
}

/// The gate of one namespace.
pub struct Gate {
    client: Client,
    name: String,
    verdict: watch::Sender<Verdict>,
    counts: Arc<Counts>,
    /// Dropping it ends the webhook.
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Stands before `namespace`, for what `user` writes, and lets everything pass at first.
    ///
    /// # Errors
    /// When the API server does not come to ask it.
    pub async fn start(client: Client, namespace: &str, user: &str) -> Result<Self> {
        let authority = CertificateAuthority::generate("a gate", &[]).map_err(|error| anyhow!(error))?;
        let mut tls = authority.server_config().map_err(|error| anyhow!(error))?;
        tls.alpn_protocols.push(b"http/1.1".to_vec());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("https://{}/", listener.local_addr()?);
        let (verdict, _) = watch::channel(Verdict::Pass);
        let counts: Arc<Counts> = Arc::default();
        let mut tasks = JoinSet::new();
        let judge = Judge { user: user.to_owned(), verdict: verdict.subscribe(), counts: counts.clone() };
        tasks.spawn(listen(listener, TlsAcceptor::from(Arc::new(tls)), judge));

        let name = format!("gate-{namespace}");
        let config: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": name},
            "webhooks": [{
                "name": "gate.ennote.test",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 30,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]}],
                "clientConfig": {"url": url, "caBundle": data_encoding::BASE64.encode(authority.certificate().as_bytes())},
            }],
        }))?;
        let gates: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        gates.create(&PostParams::default(), &config).await.context("cannot stand a gate")?;
        let gate = Self { client, name, verdict, counts, _tasks: tasks };

        // It takes the API server a moment to know of it.
        let secrets: Api<Secret> = Api::namespaced(gate.client.clone(), namespace);
        let probe: Secret = serde_json::from_value(json!({"metadata": {"name": "gate-probe"}}))?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        crate::wait::until("the API server to ask the gate", SOON, async || {
            secrets.create(&dry, &probe).await?;
            ensure!(gate.counts.asked.load(Ordering::Relaxed) > 0, "not asked yet");
            Ok(())
        })
        .await?;
        Ok(gate)
    }

    /// From now on this becomes of each write, and of those that are held.
    pub fn says(&self, verdict: Verdict) {
        self.verdict.send_replace(verdict);
    }

    /// How many writes are held.
    pub fn holding(&self) -> usize {
        self.counts.holding.load(Ordering::Relaxed)
    }

    /// How many writes were refused or failed.
    pub fn stopped(&self) -> usize {
        self.counts.stopped.load(Ordering::Relaxed)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn end(self) -> Result<()> {
        let gates: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        gates.delete(&self.name, &DeleteParams::default()).await.context("cannot take the gate away")?;
        Ok(())
    }
}

/// The text of a value of a Secret.
fn text(value: &Value) -> String {
    let bytes = data_encoding::BASE64.decode(value.as_str().unwrap_or_default().as_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Clone)]
struct Judge {
    user: String,
    verdict: watch::Receiver<Verdict>,
    counts: Arc<Counts>,
}

async fn listen(listener: TcpListener, acceptor: TlsAcceptor, judge: Judge) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                connections.spawn(serve(acceptor.clone(), tcp, judge.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(acceptor: TlsAcceptor, tcp: TcpStream, judge: Judge) {
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let judge = judge.clone();
        async move { Ok::<_, Infallible>(judge.answer(request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    // Ended by either side: all the same here.
    let _ended = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(service)).await;
}

impl Judge {
    async fn answer(mut self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let review: Value = match request.into_body().collect().await {
            Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let request = &review["request"];
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let (data, old) = (&request["object"]["data"], &request["oldObject"]["data"]);
        let moves = data.as_object().is_some_and(|data| !data.is_empty()) && data != old;
        let counts = request["userInfo"]["username"] == self.user.as_str() && request["dryRun"] != true && moves;
        let verdict = if counts { self.verdict().await } else { Verdict::Pass };
        if !matches!(verdict, Verdict::Pass) {
            self.counts.stopped.fetch_add(1, Ordering::Relaxed);
        }
        let mut answer = json!({"uid": request["uid"], "allowed": verdict == Verdict::Pass});
        if let Verdict::Refuse(code) = verdict {
            answer["status"] = json!({"code": code, "message": "the gate is shut"});
        }
        if let Verdict::Quote(code) = verdict {
            let texts: Vec<String> = data.as_object().into_iter().flat_map(|data| data.values()).map(text).collect();
            let message = format!("the gate is shut for {data}: {}", texts.join(" "));
            answer["status"] = json!({"code": code, "message": message, "reason": texts.concat()});
        }
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer});
        let mut response = Response::new(Full::from(body.to_string()));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        if verdict == Verdict::Fail {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    }

    async fn verdict(&mut self) -> Verdict {
        /// Counts down also when the API server gives up and this future is dropped.
        struct Held<'a>(&'a AtomicUsize);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.counts.holding.fetch_add(1, Ordering::Relaxed);
        let _held = Held(&self.counts.holding);
        let said = self.verdict.wait_for(|verdict| *verdict != Verdict::Hold).await.map(|verdict| *verdict);
        // Without a gate there is nobody to answer.
        said.unwrap_or(Verdict::Fail)
    }
}
