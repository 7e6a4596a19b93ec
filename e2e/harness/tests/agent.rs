//! The agent's runner: what the chart's pod says reaches the process, with the chart's rights.

use anyhow::{Context, Result, ensure};
use ennote_harness::agent::{Agent, Options};
use ennote_harness::control_plane::{self, ControlPlane};
use ennote_harness::wait::until;
use ennote_harness::world::chart;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "agents";

/// Stands in for the agent: prints what it was given and waits for its end.
const STAND_IN: &str = r#"#!/bin/sh
trap 'echo "ended by SIGTERM"; exit 7' TERM
echo "args: $*"
/usr/bin/env | /usr/bin/sort
while :; do /bin/sleep 0.05; done
"#;

#[tokio::test]
async fn it_is_what_the_charts_pod_would_be() -> Result<()> {
    let plane = ControlPlane::start(control_plane::Options::default()).await?;
    plane.kubectl(&["create", "namespace", NAMESPACE]).await?.ok()?;
    install(&plane, "cloud-a:443").await?;

    let binary = plane.dir().join("stand-in");
    std::fs::write(&binary, STAND_IN)?;
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755))?;
    let mut agent = Agent::new(&plane, Options { binary: Some(binary), ..Options::new(NAMESPACE) }).await?;
    agent.start().await?;
    says(&agent, "args: run").await?;
    says(&agent, "ENNOTE_API_URL=cloud-a:443").await?;

    // Paths are local ones, and hold what a kubelet would mount.
    let heartbeat = agent.local_path("/run/ennote/heartbeat")?;
    says(&agent, &format!("ENNOTE_HEARTBEAT_FILE={}", heartbeat.display())).await?;
    assert!(heartbeat.parent().context("no folder")?.is_dir());
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(std::fs::read_to_string(agent.local_path(&format!("{account}/namespace"))?)?, NAMESPACE);
    let token_file = agent.local_path(&format!("{account}/token"))?;
    let token = std::fs::read_to_string(&token_file)?;
    let cloud_token = std::fs::read_to_string(agent.local_path("/var/run/secrets/ennote/sa-token")?)?;

    // The token is the chart's ServiceAccount's: it may what the Role grants, and no more.
    let as_agent = plane.client_as(&token).await?;
    let get = |path: &str| http::Request::get(path.to_owned()).body(Vec::new());
    let workloads = |namespace: &str| format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    as_agent.request_text(get(&workloads(NAMESPACE))?).await?;
    assert!(as_agent.request_text(get(&workloads("default"))?).await.is_err());
    // The cloud's token is for another audience.
    assert!(plane.client_as(&cloud_token).await?.request_text(get("/api")?).await.is_err());

    // A new token replaces the old one in the file.
    agent.renew_tokens().await?;
    assert_ne!(std::fs::read_to_string(&token_file)?, token);

    // An optional Secret that appears, changes and vanishes.
    let bootstrap = agent.local_path("/etc/ennote/auth/token")?;
    assert!(!bootstrap.exists());
    for text in ["one", "two"] {
        let secret = format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: ennote-agent-auth}}, stringData: {{token: {text}}}}}"
        );
        plane.kubectl_stdin(&["apply", "-n", NAMESPACE, "-f", "-"], &secret).await?.ok()?;
        until("the token to be mounted", LIMIT, async || {
            ensure!(std::fs::read_to_string(&bootstrap)? == text);
            Ok(())
        })
        .await?;
    }
    plane.kubectl(&["delete", "secret", "ennote-agent-auth", "-n", NAMESPACE]).await?.ok()?;
    until("the token to vanish", LIMIT, async || {
        ensure!(!bootstrap.exists());
        Ok(())
    })
    .await?;

    // An upgrade replaces the pod, and the next start is the new one.
    let old_pod = agent.pod()?.metadata.uid.clone();
    install(&plane, "cloud-b:443").await?;
    agent.restart().await?;
    assert_ne!(agent.pod()?.metadata.uid, old_pod);
    says(&agent, "ended by SIGTERM").await?;
    says(&agent, "ENNOTE_API_URL=cloud-b:443").await?;
    // Tokens die with the pod they are bound to.
    until("the old pod's token to be refused", LIMIT, async || {
        ensure!(plane.client_as(&token).await?.request_text(get("/api")?).await.is_err());
        Ok(())
    })
    .await?;

    assert!(agent.sockets()?.iter().all(|socket| !socket.listening));
    let (status, _) = agent.stop().await?;
    assert_eq!(status.code(), Some(7));
    plane.stop().await
}

async fn install(plane: &ControlPlane, url: &str) -> Result<()> {
    let values = format!("{{ennote: {{api: {{url: \"{url}\"}}}}}}");
    let chart = chart().display().to_string();
    let args = ["upgrade", "--install", "ennote-agent", &chart, "-n", NAMESPACE, "-f", "-"];
    plane.helm_stdin(&args, &values).await?.ok()?;
    Ok(())
}

async fn says(agent: &Agent, line: &str) -> Result<()> {
    until(&format!("the line {line:?}"), LIMIT, async || {
        ensure!(agent.log().lines().any(|said| said == line), "it said: {}", agent.log());
        Ok(())
    })
    .await
}
