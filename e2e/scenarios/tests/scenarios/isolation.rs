//! One namespace's trouble is its own.

use anyhow::{Result, ensure};
use ennote_harness::world::{Options, World};
use ennote_scenarios::{LATER, Requests, binding, mark, until_version};

/// A refused watch backs off alone. Were it one stream with the others, each push would wait for its next try, so there would be
/// at least as many tries as pushes.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_a_role_delays_no_other() -> Result<()> {
    let mut world = World::start("alone", Options { more_namespaces: 1, agent: false, ..Options::default() }).await?;
    let refused = world.watched()[1].clone();
    world.plane.kubectl(&["delete", "rolebinding", "ennote-agent-binding", "-n", &refused]).await?.ok()?;
    world.cloud.put("payments db", &[("a", "0")]).await?;
    world.apply(&binding("db", "payments db")).await?;
    world.agent.start().await?;
    until_version(&world, "db", 1).await?;
    let start = mark(&world).await?;
    let pushes = 12;
    for version in 2..pushes + 2 {
        world.cloud.put("payments db", &[("a", &version.to_string())]).await?;
        until_version(&world, "db", version).await?;
    }
    let (requests, _) = Requests::since(&world, start).await?;
    let tries = |resource: &str| {
        requests.0.iter().filter(|e| e.namespace == refused && e.resource == resource && e.is_denied()).count() as u64
    };
    for resource in ["ennotesecretbindings", "secrets", "deployments", "statefulsets", "daemonsets"] {
        ensure!(tries(resource) < pushes, "{} tries to watch {resource} during {pushes} pushes", tries(resource));
    }
    ensure!(world.agent.log().contains("watchNamespaces"), "the log says which setting grants it");

    // And it is taken up by itself once it may be watched.
    let again = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: again, namespace: {refused}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: ennote-agent}}\n\
         subjects: [{{kind: ServiceAccount, name: ennote-agent, namespace: {}}}]\n",
        world.namespace
    );
    world.plane.kubectl_stdin(&["apply", "-f", "-"], &again).await?.ok()?;
    world.plane.kubectl_stdin(&["apply", "-n", &refused, "-f", "-"], &binding("db", "payments db")).await?.ok()?;
    world
        .eventually("the namespace is taken up", LATER, async || {
            let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            let shown =
                world.plane.kubectl(&["get", "ennotesecretbinding", "db", "-n", &refused, "-o", ready]).await?.ok()?;
            ensure!(shown == "True", "Ready is {shown:?}");
            Ok(())
        })
        .await?;
    world.stop().await
}
