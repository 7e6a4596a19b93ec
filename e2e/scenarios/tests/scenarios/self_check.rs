//! What the agent is not allowed, it names: the verb, the rule of the Role, and the command. With the rule back it goes on.

use anyhow::{Context, Result, ensure};
use ennote_harness::world::{Options, RELEASE, World};
use ennote_scenarios::rights::{Rights, STAMP, STATUS};
use ennote_scenarios::{
    LATER, binding, condition, message, rollout, until_baseline, until_condition, until_condition_in, until_message,
    until_rollout, until_version, workload,
};
use serde_json::{Value, json};

const PATCH_SECRETS: (&str, &str) = ("secrets", "patch");

/// A Role of its own with this rule, as it was printed, for the agent.
fn role_with(rule: &str, namespace: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: mend}}\nrules:\n  - {rule}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: mend}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: mend}}\n\
         subjects: [{{kind: ServiceAccount, name: {RELEASE}, namespace: {namespace}}}]\n"
    )
}

/// The rule in a sentence of the agent.
fn rule_in(said: &str) -> Result<&str> {
    let from = said.find('{').context("no rule")?;
    let length = said[from..].find('}').context("no end of the rule")?;
    Ok(&said[from..=from + length])
}

/// The lines of the log that tell of missing rights in a namespace.
fn told(world: &World, namespace: &str) -> Vec<Value> {
    let of = |line: &Value| line["message"] == "the agent lacks rights" && line["namespace"] == namespace;
    world.agent.log_lines().into_iter().filter(of).collect()
}

async fn until_told(world: &World, namespace: &str, missing: &str) -> Result<Value> {
    world
        .eventually(&format!("the log tells of {missing} in {namespace}"), LATER, async || {
            let lines = told(world, namespace);
            let line = lines.last().context("nothing is told")?;
            ensure!(line["missing"] == missing, "{lines:?}");
            Ok(line.clone())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_named_with_the_rule_that_gives_it_back() -> Result<()> {
    let world = World::start("lacking", Options { more_namespaces: 1, ..Options::default() }).await?;
    let other = world.watched()[1].clone();
    world.cloud.put("payments db", &[("a", "1")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    let rights = Rights::of(&world).await?;
    rights.without(&[PATCH_SECRETS]).await?;
    world.cloud.put("payments db", &[("a", "2")]).await?;
    let rule = "{apiGroups: [\"\"], resources: [secrets], verbs: [patch]}";
    let lacks = format!("Role {RELEASE} lacks the rule {rule}");
    let refused = until_message(&world, "db", "Ready", &lacks).await?;
    ensure!(condition(&refused, "Ready").as_deref() == Some("False/Forbidden"), "{refused}");
    ensure!(condition(&refused, "Stalled").as_deref() == Some("True/Forbidden"), "{refused}");
    let said = message(&refused, "Ready");
    ensure!(said.starts_with(&format!("the agent may not patch secrets in {}: ", world.namespace)), "{said}");
    let line = until_told(&world, &world.namespace, "patch secrets").await?;
    ensure!(line["rule"] == rule, "{line}");

    // Nobody else waits for it.
    world.plane.kubectl_stdin(&["apply", "-n", &other, "-f", "-"], &binding("db", "payments db")).await?.ok()?;
    until_condition_in(&world, &other, "db", "Ready", "True/Synced").await?;
    ensure!(told(&world, &other).is_empty(), "{:?}", told(&world, &other));

    // The command, as it was said.
    let mend = said.split("helm upgrade, or kubectl ").nth(1).context("no command")?;
    ensure!(line["mend"] == format!("kubectl {mend}"), "{line}");
    let (words, patch) = mend.split_once('\'').context("no patch")?;
    let patch = patch.trim_end_matches('\'');
    let arguments: Vec<&str> = words.split_whitespace().chain([patch]).collect();
    world.plane.kubectl(&arguments).await?.ok()?;
    until_version(&world, "db", 2).await?;
    world
        .eventually("the log tells that it is mended", LATER, async || {
            ensure!(world.agent.log().contains("the agent has all its rights again"), "not yet");
            Ok(())
        })
        .await?;

    // The rule alone, in a Role of somebody else.
    rights.without(&[PATCH_SECRETS]).await?;
    world.cloud.put("payments db", &[("a", "3")]).await?;
    let refused = until_message(&world, "db", "Ready", &lacks).await?;
    world.apply(&role_with(rule_in(&message(&refused, "Ready"))?, &world.namespace)).await?;
    until_version(&world, "db", 3).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_watched_stamped_or_told_in_a_condition_is_named_too() -> Result<()> {
    // In strict mode there is no list of Secrets that could be missing.
    let values = json!({"rbac": {"mode": "compatible"}});
    let options = Options { more_namespaces: 1, values, ..Options::default() };
    let mut world = World::start("lacking-more", options).await?;
    let (own, other) = (world.namespace.clone(), world.watched()[1].clone());
    let rights = Rights::of(&world).await?;
    world.cloud.put("payments db", &[("a", "1")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_version(&world, "db", 1).await?;
    until_baseline(&world, "db", "Deployment/web").await?;

    // The stamp: the Secret is written, and the rollout says what it waits for.
    rights.without(&[STAMP]).await?;
    world.cloud.put("payments db", &[("a", "2")]).await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Pending").await?;
    let rule = "{apiGroups: [apps], resources: [deployments], verbs: [patch]}";
    let line = until_told(&world, &own, "patch deployments").await?;
    ensure!(line["rule"] == rule, "{line}");
    world
        .eventually("the rollout says so, too", LATER, async || {
            let pending = rollout(&world.binding("db").await?, "Deployment/web").context("a rollout")?;
            let said = pending["message"].as_str().unwrap_or_default();
            ensure!(said.contains(&format!("lacks the rule {rule}")), "{pending}");
            Ok(())
        })
        .await?;
    rights.restore().await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Complete").await?;

    // The status: no condition can say it.
    rights.without(&[STATUS]).await?;
    world.cloud.put("payments db", &[("a", "3")]).await?;
    let line = until_told(&world, &own, "patch ennotesecretbindings/status").await?;
    ensure!(
        line["rule"] == "{apiGroups: [ennote.io], resources: [ennotesecretbindings/status], verbs: [patch]}",
        "{line}"
    );
    rights.restore().await?;
    until_version(&world, "db", 3).await?;

    // From the start: Secrets may not be listed, and in another namespace nothing at all.
    world.agent.stop().await?;
    rights.without(&[("secrets", "list")]).await?;
    world.plane.kubectl(&["delete", "rolebinding", "ennote-agent-binding", "-n", &other]).await?.ok()?;
    world.agent.start().await?;
    let line = until_told(&world, &other, &everything(&told_of_role(&world).await?)).await?;
    ensure!(line["mend"].as_str().is_some_and(|mend| mend.starts_with("helm upgrade ennote-agent CHART")), "{line}");
    let refused = until_condition(&world, "db", "Ready", "False/Forbidden").await?;
    let said = message(&refused, "Ready");
    ensure!(said.contains("lacks the rule {apiGroups: [\"\"], resources: [secrets], verbs: [list]}"), "{said}");
    rights.restore().await?;
    world.cloud.put("payments db", &[("a", "4")]).await?;
    until_version(&world, "db", 4).await?;
    world.stop().await
}

/// The rules of the chart's Role.
async fn told_of_role(world: &World) -> Result<Vec<Value>> {
    let role = ["get", "role", RELEASE, "-n", &world.watched()[1], "-o", "json"];
    let role: Value = serde_json::from_str(&world.plane.kubectl(&role).await?.ok()?)?;
    Ok(role["rules"].as_array().context("rules")?.clone())
}

/// All verbs of these rules, as the log puts them.
fn everything(rules: &[Value]) -> String {
    let words =
        |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let of = |rule: &Value| format!("{} {}", words(&rule["verbs"]), words(&rule["resources"]));
    rules.iter().map(of).collect::<Vec<_>>().join("; ")
}
