//! `ennote-agent doctor`: all well, and each thing that can be broken, with what mends it.

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use ennote_harness::control_plane::{ControlPlane, Options as PlaneOptions};
use ennote_harness::process::{self, Output};
use ennote_harness::settings::Settings;
use ennote_harness::world::{AGENT, Options, RELEASE, World};
use ennote_scenarios::identity::{bind, sa_token};
use ennote_scenarios::rights::{Rights, STAMP};
use ennote_scenarios::{LATER, Requests, SOON, mark, until_version};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;

/// What the doctor found in the agent's pod: exit code and findings.
async fn examined(world: &World, args: &[&str]) -> Result<(i32, Vec<Value>)> {
    let args: Vec<&str> = ["doctor", "--output", "json"].iter().chain(args).copied().collect();
    let said = world.agent.exec(&args).await?;
    ensure!(said.stderr.is_empty(), "standard error: {}", said.stderr);
    let findings = said.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok((said.code, findings))
}

fn of<'a>(findings: &'a [Value], check: &str) -> Result<&'a Value> {
    findings.iter().find(|finding| finding["check"] == check).with_context(|| format!("no {check} in {findings:#?}"))
}

/// Exactly these checks fail; the first one says this and has this in its mend.
async fn fails(world: &World, args: &[&str], checks: &[&str], says: &str, mend: &str) -> Result<()> {
    let (code, findings) = examined(world, args).await?;
    let failed: Vec<&str> =
        findings.iter().filter(|f| f["verdict"] == "fail").filter_map(|f| f["check"].as_str()).collect();
    ensure!(code == 1 && failed == checks, "{args:?}: exit code {code}: {findings:#?}");
    let first = of(&findings, checks.first().context("a check")?)?;
    let has = |field: &str, text: &str| first[field].as_str().is_some_and(|said| said.contains(text));
    ensure!(has("says", says) && has("mend", mend) && has("turn", "admin"), "{args:?}: {first}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_nothing_where_all_is_well_and_disturbs_nobody() -> Result<()> {
    let world = World::start("doctor", Options { more_namespaces: 1, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    let before = world.cloud.agent(AGENT).await?;
    let joined = |world: &World| world.agent.log_lines().iter().filter(|line| line["message"] == "joined").count();
    let joins = joined(&world);
    let start = mark(&world).await?;

    let said = world.agent.exec(&["doctor"]).await?;
    ensure!(said.code == 0 && said.stderr.is_empty(), "{}{}", said.stdout, said.stderr);
    let [own, other] = world.watched() else { anyhow::bail!("two namespaces") };
    let checks = [
        "settings",
        "cluster",
        "clock of the cluster",
        &format!("policy in {own}"),
        &format!("policy in {other}"),
        &format!("rights in {own}"),
        &format!("rights in {other}"),
        "schema",
        "identity",
        "cloud",
        "proxy",
        "root",
        "clock of the cloud",
    ];
    let lines: Vec<&str> = said.stdout.lines().collect();
    ensure!(lines.len() == checks.len(), "{}", said.stdout);
    for (line, check) in lines.iter().zip(checks) {
        ensure!(line.starts_with(&format!("ok    {check}: ")), "{check}: {line}");
    }
    let token = sa_token(&world)?;
    let bootstrap = std::fs::read_to_string(world.agent.local_path("/etc/ennote/auth/token")?)?;
    for secret in token.split('.').chain(bootstrap.trim().split('.').skip(1)) {
        ensure!(!said.stdout.contains(secret), "a part of a token is shown: {}", said.stdout);
    }

    // Nothing was written, joined or used up.
    let (requests, _) = Requests::since(&world, start).await?;
    let written: Vec<_> =
        requests.0.iter().filter(|e| e.is_write() && !e.resource.starts_with("selfsubject")).collect();
    ensure!(written.is_empty() && requests.denied().is_empty(), "{written:#?} {:#?}", requests.denied());
    let after = world.cloud.agent(AGENT).await?;
    ensure!(after["epoch"] == before["epoch"] && after["id"] == before["id"], "{before}\n{after}");
    ensure!(world.cloud.alarms().await?.is_empty(), "{:?}", world.cloud.alarms().await?);
    ensure!(joined(&world) == joins, "the agent had to join again");
    world.cloud.put("db", &[("value", "2")]).await?;
    until_version(&world, "db", 2).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_each_broken_thing_with_its_mend() -> Result<()> {
    let proxy = vec![("ALL_PROXY".to_owned(), "http://user:canary@127.0.0.1:9".to_owned())];
    let world = World::start("patient", Options { environment: proxy, ..Options::default() }).await?;
    bind(&world, "db", "1").await?;
    until_version(&world, "db", 1).await?;
    let (code, healthy) = examined(&world, &[]).await?;
    ensure!(code == 0, "{healthy:#?}");
    let of_proxy = of(&healthy, "proxy")?.to_string();
    ensure!(of_proxy.contains("ALL_PROXY is set") && !of_proxy.contains("canary"), "{of_proxy}");

    // A right.
    let check = format!("rights in {}", world.namespace);
    let rights = Rights::of(&world).await?;
    rights.without(&[STAMP]).await?;
    let rule = "Role ennote-agent lacks {apiGroups: [apps], resources: [deployments], verbs: [patch]}";
    let patch = format!("kubectl patch role {RELEASE} -n {} --type json", world.namespace);
    fails(&world, &[], &[&check], rule, &patch).await?;
    rights.restore().await?;

    // The admission policy.
    let other = ["--admission-policy", "not-there"];
    let check = format!("policy in {}", world.namespace);
    let installed = format!("ennote-agent.{}.secrets", world.namespace);
    fails(&world, &other, &[&check], "cannot be proved", "kubectl get").await?;
    let of_binding = ["get", "validatingadmissionpolicybinding", &installed, "-o", "json"];
    let mut lifted: Value = serde_json::from_str(&world.plane.kubectl(&of_binding).await?.ok()?)?;
    world.plane.kubectl(&["delete", "validatingadmissionpolicybinding", &installed]).await?.ok()?;
    world
        .eventually("the policy is missed", SOON, async || {
            let mend = "kubectl apply -f examples/platform/admission-policy.yaml";
            fails(&world, &[], &[&check], &format!("{installed} is not in force"), mend).await
        })
        .await?;
    lifted["metadata"] = json!({"name": installed, "labels": lifted["metadata"]["labels"]});
    world.plane.kubectl_stdin(&["create", "-f", "-"], &lifted.to_string()).await?.ok()?;
    world
        .eventually("the policy is back", SOON, async || {
            let (code, findings) = examined(&world, &[]).await?;
            ensure!(code == 0, "{findings:#?}");
            Ok(())
        })
        .await?;

    // The ServiceAccount token.
    let claims = BASE64URL_NOPAD.encode(br#"{"aud":["https://127.0.0.1/agent-join"],"exp":1700000000}"#);
    let expired = world.plane.dir().path().join(format!("{}-expired", world.namespace));
    std::fs::write(&expired, format!("e30.{claims}.c2ln"))?;
    let expired = expired.display().to_string();
    let restart = format!("kubectl rollout restart deploy/{RELEASE} -n {}", world.namespace);
    fails(&world, &["--sa-token-file", &expired], &["identity"], "expired", &restart).await?;
    fails(&world, &["--sa-token-file", "none"], &["identity"], "no ServiceAccount token at none", &restart).await?;
    let other = ["--audience", "https://elsewhere/agent-join"];
    fails(&world, &other, &["identity"], "https://elsewhere", "--set ennote.auth.audience=https://elsewhere").await?;

    // The root: another than the bootstrap token names, another than the cloud shows, and none.
    let root = BASE64URL_NOPAD.encode(&[7; 32]);
    let roots = ["--trust-roots", root.as_str()];
    fails(&world, &roots, &["root"], "another trust root than the pinned one", "treat it as an attack").await?;
    let shown = ["--trust-roots", root.as_str(), "--auth-token-file", "none"];
    fails(&world, &shown, &["root"], "the cloud's root key is not the pinned one", "--set trust.roots='{ROOT}'")
        .await?;
    fails(&world, &["--auth-token-file", "none"], &["root"], "none is pinned", "--set trust.roots='{ROOT}'").await?;

    // The certificate, the settings, and the cloud itself.
    let ca = world.agent.local_path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")?.display().to_string();
    let vouched = ["--tls-ca-file", ca.as_str()];
    let mends = "--set-file ennote.api.caCert=ca.crt";
    fails(&world, &vouched, &["cloud", "proxy"], "nobody whom the agent trusts vouches", mends).await?;
    fails(&world, &["--tls-ca-file", "/dev/null"], &["settings"], "holds no certificate", "helm upgrade").await?;
    world.cloud.stop().await?;
    let place = world.cloud.address();
    fails(&world, &[], &["cloud", "proxy"], "cannot be reached", &format!("allow the pod to reach {place}")).await?;
    world.cloud.up().await?;
    world
        .eventually("all is well again", LATER, async || {
            let (code, findings) = examined(&world, &[]).await?;
            ensure!(code == 0, "{findings:#?}");
            Ok(())
        })
        .await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_a_missing_and_an_older_schema_and_looks_from_outside() -> Result<()> {
    // Its own: the CRD is everyone's.
    let plane = Arc::new(ControlPlane::start(PlaneOptions::default()).await?);
    let values = serde_json::json!({"crds": {"install": false}});
    let world = World::start("no-crd", Options { plane: Some(plane), values, ..Options::default() }).await?;
    let mend = "ennote-agent crd | kubectl apply --server-side";
    // Its policies have just been installed.
    world
        .eventually("the CRD is missed", SOON, async || {
            fails(&world, &[], &["schema"], "the CRD is missing", mend).await
        })
        .await?;

    let ours = world.agent.exec(&["crd"]).await?.ok()?;
    let mut older: Value = serde_yaml::from_str(&ours)?;
    let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    ensure!(schema.as_object_mut().is_some_and(|spec| spec.remove("suspend").is_some()), "another field is needed");
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    world.plane.kubectl_stdin(&apply, &older.to_string()).await?.ok()?;
    world
        .eventually("the older schema is told", SOON, async || {
            fails(&world, &[], &["schema"], "older than this agent: it lacks spec.suspend", mend).await
        })
        .await?;
    world.plane.kubectl_stdin(&apply, &ours).await?.ok()?;
    let well = async |args: &[&str]| {
        world
            .eventually("all is well", SOON, async || {
                let (code, findings) = examined(&world, args).await?;
                ensure!(code == 0, "{findings:#?}");
                Ok(findings)
            })
            .await
    };
    well(&[]).await?;

    // From outside: an administrator's kubeconfig, and the agent's rights by its name.
    let account = format!("system:serviceaccount:{}:{RELEASE}", world.namespace);
    let said = from_outside(&world, &account).await?;
    ensure!(said.code == 0, "{}{}", said.stdout, said.stderr);
    let held = format!("ok    policy in {}: ", world.namespace);
    for line in
        [held.as_str(), &format!("ok    rights in {}: all ", world.namespace), "--    identity: ", "ok    root: pinned"]
    {
        ensure!(said.stdout.contains(line), "{}", said.stdout);
    }
    let said = from_outside(&world, "nobody").await?;
    let line = format!("FAIL  rights in {}: ", world.namespace);
    ensure!(said.code == 1 && said.stdout.contains(&line), "{}{}", said.stdout, said.stderr);
    world.stop().await
}

/// The doctor on an administrator's machine.
async fn from_outside(world: &World, user: &str) -> Result<Output> {
    let token = std::fs::read_to_string(world.agent.local_path("/etc/ennote/auth/token")?)?;
    let root = token.trim().rsplit('.').next().context("the root's hash")?;
    let ca = world.plane.dir().path().join(format!("{}-ca.crt", world.namespace));
    std::fs::write(&ca, world.cloud.ca_pem()?)?;
    let mut command = Command::new(Settings::from_env()?.binary("ennote-agent")?);
    command.env_clear().env("KUBECONFIG", world.plane.kubeconfig()).args([
        "doctor",
        "--as",
        user,
        "--trust-roots",
        root,
    ]);
    command.args(["--api-url", &world.cloud.address(), "--target-namespace", &world.namespace]);
    let policy = format!("{RELEASE}.{}", world.namespace);
    command.args(["--rbac-mode", "strict", "--admission-policy", &policy]);
    process::run(
        {
            command.arg("--tls-ca-file").arg(ca);
            command
        },
        b"",
    )
    .await
}
