//! The control plane itself: it starts, rolls workloads, keeps an audit log, survives a restart of its API server, and
//! leaves nothing behind.

use anyhow::{Context, Result, ensure};
use ennote_harness::audit;
use ennote_harness::control_plane::{ControlPlane, Options};
use ennote_harness::ports::is_taken;
use ennote_harness::wait::until;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const WORKLOADS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: none}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: main, image: none}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log, namespace: shop}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {containers: [{name: main, image: none}]}
"#;

#[tokio::test]
async fn it_runs_workloads_survives_an_api_server_restart_and_leaves_nothing() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let (pids, ports) = (plane.pids(), plane.ports());
    assert_eq!(pids.len(), 5);

    plane.kubectl_stdin(&["apply", "-f", "-"], WORKLOADS).await?.ok()?;
    for workload in ["deployment/web", "statefulset/db", "daemonset/log"] {
        plane.kubectl(&["rollout", "status", workload, "-n", "shop", "--timeout=60s"]).await?.ok()?;
    }

    let (events, mark) = plane.audit(audit::START).await?;
    let created = |resource: &str| events.iter().any(|e| e.verb == "create" && e.resource == resource && e.code == 201);
    assert!(["deployments", "statefulsets", "daemonsets"].into_iter().all(created), "{events:#?}");
    assert!(events.iter().all(|event| !event.is_denied()), "{events:#?}");

    let token = plane.kubectl(&["create", "token", "default", "-n", "shop"]).await?.ok()?;
    let stranger = plane.client_as(token.trim()).await?;
    let refused = stranger.request_text(http::Request::get("/api/v1/namespaces/shop/secrets").body(Vec::new())?).await;
    assert!(refused.is_err());
    let (events, _) = plane.audit(mark).await?;
    let denied: Vec<_> = events.iter().filter(|event| event.is_denied()).collect();
    assert_eq!(denied.len(), 1, "{events:#?}");
    assert_eq!(denied[0].user, "system:serviceaccount:shop:default");
    assert_eq!((denied[0].verb.as_str(), denied[0].resource.as_str()), ("list", "secrets"));

    // A cluster that is only given: usable, but its log and its processes are not ours.
    let given = Options { kubeconfig: Some(plane.kubeconfig().to_owned()), ..Options::default() };
    let given = ControlPlane::start(given).await?;
    given.kubectl(&["get", "deployment/web", "-n", "shop"]).await?.ok()?;
    let error = given.audit(audit::START).await.err().context("its audit log was read")?;
    assert!(error.to_string().contains("given by its kubeconfig"), "{error}");
    assert!(given.restart_api_server().await.is_err());
    given.stop().await?;

    plane.restart_api_server().await?;
    assert_eq!(plane.ports(), ports);
    plane.kubectl(&["scale", "deployment/web", "-n", "shop", "--replicas=5"]).await?.ok()?;
    until("five pods after the restart", LIMIT, async || {
        let args = ["get", "deployment/web", "-n", "shop", "-o", "jsonpath={.status.readyReplicas}"];
        let ready = plane.kubectl(&args).await?.ok()?;
        ensure!(ready == "5", "{ready} are ready");
        Ok(())
    })
    .await?;

    let pids = [pids, plane.pids()].concat();
    let dir = plane.dir().path().to_owned();
    plane.stop().await?;
    assert_eq!(pids.iter().filter(|pid| is_alive(**pid)).count(), 0);
    assert_eq!(ports.iter().filter(|port| is_taken(**port)).count(), 0);
    drop(plane);
    assert!(!dir.exists());
    Ok(())
}

#[tokio::test]
async fn a_component_that_cannot_start_is_named_with_its_log() -> Result<()> {
    let options = Options { api_server_args: vec!["--no-such-flag".to_owned()], ..Options::default() };
    let error = ControlPlane::start(options).await.err().context("it started")?;
    let text = format!("{error:#}");
    assert!(text.contains("kube-apiserver ended") && text.contains("unknown flag: --no-such-flag"), "{text}");
    Ok(())
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
