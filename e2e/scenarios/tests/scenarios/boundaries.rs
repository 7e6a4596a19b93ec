//! What the agent may not do and does not do: other namespaces, other people's Secrets, other verbs.

use anyhow::{Context, Result, bail, ensure};
use ennote_harness::audit::{AuditEvent, START};
use ennote_harness::world::{AGENT, Options, World, tree};
use ennote_scenarios::{
    Requests, SOON, apply_in, binding, binding_in, binding_with, condition, mark, message, object, raw, secret_path,
    until_baseline, until_collected, until_condition, until_condition_in, until_rollout, until_version, workload,
};
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The HTTP status that a request gets.
async fn status(client: &Client, method: &str, path: &str, body: Value) -> Result<u16> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(if method == "GET" { Vec::new() } else { body.to_string().into_bytes() })?;
    match client.request_text(request).await {
        Ok(_) => Ok(200),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error).with_context(|| format!("{method} {path}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_sync_and_a_third_is_out_of_reach() -> Result<()> {
    let options = Options { more_namespaces: 2, token: false, agent: false, ..Options::default() };
    let mut world = World::start("bounds", options).await?;
    let [own, second, ungranted] = world.watched() else { bail!("three namespaces are watched") };
    let (own, second, ungranted) = (own.clone(), second.clone(), ungranted.clone());
    let third = format!("{own}-third");
    world.plane.kubectl(&["create", "namespace", &third]).await?.ok()?;
    world.set_token(&world.cloud.token_create(AGENT, &[&own, &second]).await?).await?;
    world.cloud.put("payments db", &[("user", "app")]).await?;
    for namespace in [&own, &second, &ungranted, &third] {
        apply_in(&world, namespace, &binding("db", "payments db")).await?;
    }
    world.agent.start().await?;
    until_condition_in(&world, &own, "db", "Ready", "True/Synced").await?;
    until_condition_in(&world, &second, "db", "Ready", "True/Synced").await?;

    // Watched, but the cloud grants it nothing: it says what to grant, and that is all it takes.
    let denied = until_condition_in(&world, &ungranted, "db", "Ready", "False/Denied").await?;
    let grant = format!("agent grant {AGENT} --namespace {ungranted} --secret 'payments db'");
    ensure!(message(&denied, "Ready").contains(&grant), "it says {:?}", message(&denied, "Ready"));
    ensure!(condition(&denied, "Stalled").as_deref() == Some("True/Denied"), "a person must act");
    let absent = status(&world.client, "GET", &secret_path(&ungranted, "db"), Value::Null).await?;
    ensure!(absent == 404, "no Secret without a grant, but {absent}");
    world.cloud.grant(AGENT, &ungranted, Some("payments db")).await?;
    until_condition_in(&world, &ungranted, "db", "Ready", "True/Synced").await?;

    // The third was never asked for, nor was anything of the whole cluster.
    let (requests, _) = Requests::since(&world, START).await?;
    let watched = [&own, &second, &ungranted];
    // What it may do itself is asked of no namespace in particular.
    let of_others = |event: &&AuditEvent| event.resource != "selfsubjectaccessreviews";
    let strays: Vec<&AuditEvent> = requests
        .0
        .iter()
        .filter(|e| !e.resource.is_empty() && !watched.contains(&&e.namespace))
        .filter(of_others)
        .collect();
    ensure!(strays.is_empty(), "the agent asked beyond its namespaces: {strays:#?}");
    let unseen = binding_in(&world, &third, "db").await?;
    ensure!(unseen["status"] == json!({"observedGeneration": -1}), "its status is {}", unseen["status"]);

    // And it could not: the agent's own token, tried by hand.
    let token = world.agent.local_path("/var/run/secrets/kubernetes.io/serviceaccount/token")?;
    let client = world.plane.client_as(std::fs::read_to_string(token)?.trim()).await?;
    let bindings = format!("/apis/ennote.io/v1alpha1/namespaces/{own}/ennotesecretbindings");
    let listed = status(&client, "GET", &bindings, Value::Null).await?;
    ensure!(listed == 200, "the token is good where it should be, but {listed}");
    let secret = json!({"metadata": {"name": "new"}});
    let stamp = json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}});
    let refused = [
        ("GET", format!("/api/v1/namespaces/{third}/secrets"), Value::Null),
        ("GET", format!("/api/v1/namespaces/{third}/secrets?watch=1&timeoutSeconds=1"), Value::Null),
        ("GET", secret_path(&third, "db"), Value::Null),
        ("POST", format!("/api/v1/namespaces/{third}/secrets"), secret.clone()),
        ("PATCH", secret_path(&third, "db"), json!({"data": {}})),
        ("GET", format!("/apis/ennote.io/v1alpha1/namespaces/{third}/ennotesecretbindings"), Value::Null),
        ("GET", format!("/apis/apps/v1/namespaces/{third}/deployments"), Value::Null),
        ("PATCH", format!("/apis/apps/v1/namespaces/{third}/deployments/web"), stamp.clone()),
        ("GET", "/api/v1/secrets".to_owned(), Value::Null),
        ("GET", "/apis/ennote.io/v1alpha1/ennotesecretbindings".to_owned(), Value::Null),
        ("GET", "/api/v1/namespaces".to_owned(), Value::Null),
        // In its own namespaces: nothing is deleted or replaced, no binding is changed, nothing else is read.
        ("DELETE", secret_path(&own, "db"), json!({})),
        ("PUT", secret_path(&own, "db"), secret),
        ("DELETE", format!("/apis/ennote.io/v1alpha1/namespaces/{own}/ennotesecretbindings/db"), json!({})),
        ("PATCH", format!("/apis/ennote.io/v1alpha1/namespaces/{own}/ennotesecretbindings/db"), json!({"spec": {}})),
        ("POST", format!("/apis/apps/v1/namespaces/{own}/deployments"), json!({"metadata": {"name": "web"}})),
        ("DELETE", format!("/apis/apps/v1/namespaces/{own}/deployments/web"), json!({})),
        ("GET", format!("/api/v1/namespaces/{own}/pods"), Value::Null),
        ("POST", format!("/api/v1/namespaces/{own}/serviceaccounts/default/token"), json!({"spec": {}})),
    ];
    for (method, path, body) in refused {
        let code = status(&client, method, &path, body).await?;
        ensure!(code == 403, "{method} {path} was answered {code}, not refused");
    }
    world.plane.kubectl(&["delete", "namespace", &third, "--wait=false"]).await?.ok()?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn collision_defence_a_foreign_secret_stays_byte_for_byte() -> Result<()> {
    let world = World::start("foreign", Options::default()).await?;
    world.cloud.put("payments db", &[("password", "ours")]).await?;
    world.kubectl(&["create", "secret", "generic", "by-hand", "--from-literal=password=theirs"]).await?;
    world.kubectl(&["create", "configmap", "holder"]).await?;
    let holder = object(&world, &format!("/api/v1/namespaces/{}/configmaps/holder", world.namespace)).await?;
    let secret = |name: &str, metadata: Value| {
        let mut metadata = metadata;
        metadata["name"] = name.into();
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"password": "theirs"}})
    };
    let helm = secret("by-helm", json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}));
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "holder", "uid": holder["metadata"]["uid"]}]);
    world.apply(&helm.to_string()).await?;
    world.apply(&secret("by-owner", json!({"ownerReferences": owner})).to_string()).await?;
    world.apply(&binding("first", "payments db")).await?;
    until_version(&world, "first", 1).await?;

    let cases = [
        ("by-hand", "by-hand", "field manager kubectl-create"),
        ("by-helm", "by-helm", "managed-by=Helm"),
        ("by-owner", "by-owner", "ConfigMap/holder"),
        ("second", "first", "EnnoteSecretBinding/first"),
    ];
    let mut before = Vec::new();
    for (name, target, _) in cases {
        before.push(raw(&world, &secret_path(&world.namespace, target)).await?);
        let spec = format!("source: {{secret: payments db}}\n  target: {{name: {target}}}");
        world.apply(&binding_with(name, &spec)).await?;
    }
    for (name, target, holder) in cases {
        let refused = until_condition(&world, name, "Ready", "False/Collision").await?;
        let said = message(&refused, "Ready");
        ensure!(said.contains(&format!("is held by {holder}")), "{name}: {said}");
        let mend = format!("kubectl delete secret {target} -n {}", world.namespace);
        // What another binding writes is not for anyone to delete or to hand over.
        let adopt = format!("kubectl annotate secret {target} -n {} ennote.io/adopt={name}", world.namespace);
        for step in [mend, adopt] {
            ensure!(said.contains(&step) == (name != "second"), "{name}: {said}");
        }
        ensure!(condition(&refused, "Stalled").as_deref() == Some("True/Collision"), "{name}: a person must act");
    }
    // A change in the cloud passes them by; `first`, which got it, shows that the agent has had its turn.
    let first = raw(&world, &secret_path(&world.namespace, "first")).await?;
    ensure!(first == before[3], "the collision touched the other binding's Secret");
    let start = mark(&world).await?;
    world.cloud.put("payments db", &[("password", "ours, newer")]).await?;
    until_version(&world, "first", 2).await?;
    for ((_, target, _), before) in cases.iter().zip(&before).take(3) {
        let now = raw(&world, &secret_path(&world.namespace, target)).await?;
        ensure!(now == *before, "Secret {target} was touched:\n{before}\n{now}");
    }
    let (requests, _) = Requests::since(&world, start).await?;
    let touched: BTreeSet<&str> =
        requests.0.iter().filter(|e| e.resource == "secrets" && e.is_write()).map(|e| e.name.as_str()).collect();
    ensure!(touched == BTreeSet::from(["first"]), "writes went to {touched:?}");

    // Out of the way, and the binding goes on by itself; also when the holder was another binding.
    for name in ["by-hand", "by-helm", "by-owner"] {
        world.kubectl(&["delete", "secret", name]).await?;
        until_version(&world, name, 2).await?;
        ensure!(world.secret_data(name).await?.get("password").map(String::as_str) == Some("ours, newer"));
    }
    world.kubectl(&["delete", "ennotesecretbinding", "first"]).await?;
    let taken = until_version(&world, "second", 2).await?;
    let secret = object(&world, &secret_path(&world.namespace, "first")).await?;
    ensure!(
        secret["metadata"]["ownerReferences"][0]["uid"] == taken["metadata"]["uid"],
        "the Secret belongs to the binding that took it over"
    );
    world.stop().await
}

/// Whether a Role's rules allow a request.
fn granted(rules: &[Value], event: &AuditEvent) -> bool {
    let lists = |rule: &Value, field: &str, word: &str| {
        rule[field].as_array().is_some_and(|list| list.iter().any(|entry| entry == word))
    };
    let resource = match event.subresource.as_str() {
        "" => event.resource.clone(),
        subresource => format!("{}/{subresource}", event.resource),
    };
    rules.iter().any(|rule| {
        lists(rule, "apiGroups", &event.group)
            && lists(rule, "resources", &resource)
            && lists(rule, "verbs", &event.verb)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_normal_run_stays_within_the_role() -> Result<()> {
    let mut world = World::start("verbs", Options::default()).await?;
    world.cloud.put("payments db", &[("password", "one")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    until_version(&world, "db", 1).await?;
    world.apply(&workload("Deployment", "web", "db")).await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    world.cloud.put("payments db", &[("password", "two")]).await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Complete").await?;
    world.kubectl(&["delete", "ennotesecretbinding", "db"]).await?;
    until_collected(&world, "db").await?;
    world.agent.stop().await?;

    let (requests, _) = Requests::since(&world, START).await?;
    let role = world.kubectl(&["get", "role", "ennote-agent", "-o", "json"]).await?;
    let role: Value = serde_json::from_str(&role)?;
    let rules = role["rules"].as_array().context("the Role has rules")?;
    let (about, other): (Vec<_>, Vec<_>) = requests.0.iter().partition(|event| !event.resource.is_empty());
    // Everybody may ask about themselves.
    let asks = |event: &&&AuditEvent| event.resource == "selfsubjectaccessreviews" && event.verb == "create";
    let beyond: Vec<_> = about.iter().filter(|event| !granted(rules, event) && !asks(event)).collect();
    ensure!(beyond.is_empty(), "the Role grants none of {beyond:#?}");
    ensure!(other.iter().all(|event| event.verb == "get"), "more than a look at the server: {other:#?}");
    ensure!(requests.denied().is_empty(), "denied: {:#?}", requests.denied());
    let failed: Vec<_> = requests.0.iter().filter(|event| event.code >= 400 && !event.is_trial()).collect();
    ensure!(failed.is_empty(), "refused otherwise: {failed:#?}");

    // The log is that of a run: every kind of write was there, and no more of them than it took.
    ensure!(requests.secret_writes() == 2, "{} writes of a Secret", requests.secret_writes());
    ensure!(requests.restarts() == 1, "{} restarts", requests.restarts());
    for (resource, verb) in [("ennotesecretbindings", "patch"), ("events", "create"), ("secrets", "patch")] {
        ensure!(about.iter().any(|event| event.resource == resource && event.verb == verb), "no {verb} of {resource}");
    }
    // Strict mode, which the chart has chosen: no Secret was read.
    let read: Vec<_> =
        about.iter().filter(|e| e.resource == "secrets" && !["create", "patch"].contains(&e.verb.as_str())).collect();
    ensure!(read.is_empty(), "Secrets were read: {read:#?}");
    // And the judgement can say no.
    let stray = AuditEvent { verb: "delete".to_owned(), ..about[0].clone() };
    ensure!(!granted(rules, &stray), "a delete passes for granted");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_users_view_and_edit_bindings_but_never_their_status() -> Result<()> {
    let world = World::start("users", Options { token: false, agent: false, ..Options::default() }).await?;
    world.apply(&binding("db", "payments db")).await?;
    for (user, role) in [("editor", "edit"), ("viewer", "view")] {
        let user = format!("--user={user}");
        world.kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &user]).await?;
    }
    let namespace = world.namespace.as_str();
    let run = async |user: &str, args: &[&str], input: &str| {
        let user = format!("--as={user}");
        let args: Vec<&str> = args.iter().copied().chain([user.as_str(), "--namespace", namespace]).collect();
        world.plane.kubectl_stdin(&args, input).await
    };
    let refused = async |user: &str, args: &[&str], input: &str| -> Result<()> {
        let said = run(user, args, input).await?.refused()?;
        ensure!(said.contains("(Forbidden)"), "{user}: {args:?}: {said}");
        Ok(())
    };
    const LIST: [&str; 2] = ["get", "ennotesecretbindings"];
    const CREATE: [&str; 3] = ["create", "-f", "-"];
    const DELETE: [&str; 3] = ["delete", "ennotesecretbinding", "db"];
    const STATUS: [&str; 7] = [
        "patch",
        "ennotesecretbinding",
        "db",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"observedGeneration":99}}"#,
    ];
    // The built-in roles know nothing of bindings.
    for user in ["editor", "viewer"] {
        refused(user, &LIST, "").await?;
        refused(user, &CREATE, &binding("mine", "payments db")).await?;
    }

    let roles = tree().join("examples/platform/roles.yaml").display().to_string();
    world.plane.kubectl(&["apply", "-f", &roles]).await?.ok()?;
    for user in ["editor", "viewer"] {
        // The controller that aggregates roles takes a moment.
        let listed =
            world.eventually("the roles are aggregated", SOON, async || run(user, &LIST, "").await?.ok()).await?;
        ensure!(listed.contains("payments db"), "{listed}");
        let listed = run(user, &["get", "bindings"], "").await?.ok()?;
        ensure!(listed.contains("payments db"), "{listed}");
        refused(user, &STATUS, "").await?;
    }
    refused("viewer", &CREATE, &binding("mine", "payments db")).await?;
    refused("viewer", &DELETE, "").await?;
    refused("viewer", &["annotate", "ennotesecretbinding", "db", "ennote.io/sync=now"], "").await?;
    // The right to create is in another aggregated role than the right to list.
    world
        .eventually("an editor may create", SOON, async || {
            run("editor", &CREATE, &binding("mine", "payments db")).await?.ok()
        })
        .await?;
    run("editor", &["annotate", "ennotesecretbinding", "mine", "ennote.io/sync=now"], "").await?.ok()?;
    run("editor", &DELETE, "").await?.ok()?;
    world.plane.kubectl(&["delete", "-f", &roles]).await?.ok()?;
    world.stop().await
}
