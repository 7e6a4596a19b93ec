//! A whole world: the real chart, the real cloud and the real agent come together, and a failure shows all of them.

use anyhow::{Context, Result, bail, ensure};
use ennote_harness::audit;
use ennote_harness::world::{Options, World};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const BINDING: &str = "
apiVersion: ennote.io/v1alpha1
kind: EnnoteSecretBinding
metadata: {name: db}
spec: {source: {secret: payments db}}
";

#[tokio::test]
async fn a_secret_of_the_cloud_reaches_the_namespace() -> Result<()> {
    let mut world = World::start("world", Options { more_namespaces: 1, ..Options::default() }).await?;
    assert_eq!(world.watched().len(), 2);
    world.cloud.put("payments db", &[("url", "first")]).await?;
    world.apply(BINDING).await?;
    holds(&world, "first").await?;

    world.agent.stop().await?;
    world.cloud.put("payments db", &[("url", "second")]).await?;
    world.agent.start().await?;
    holds(&world, "second").await?;

    let (requests, _) = world.agent_requests(audit::START).await?;
    assert!(requests.iter().any(|request| request.verb == "create" && request.resource == "secrets"), "{requests:#?}");
    let refused =
        world.refused("{apiVersion: ennote.io/v1alpha1, kind: EnnoteSecretBinding, metadata: {name: x}}").await?;
    assert!(refused.contains("spec"), "{refused}");

    // A condition that never holds shows where to look, and no value.
    let error =
        world.eventually("pigs to fly", Duration::from_millis(200), async || -> Result<()> { bail!("not yet") });
    let text = format!("{:#}", error.await.err().context("they flew")?);
    for part in ["pigs to fly", "not yet", "kind: EnnoteSecretBinding", "--- agent", "--- devcloud"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("second"), "a value was shown");
    assert!(world.plane.dir().is_kept() && world.cloud.dir().is_kept());
    world.plane.dir().discard()?;
    world.cloud.dir().discard()?;
    world.stop().await
}

async fn holds(world: &World, url: &str) -> Result<()> {
    let what = format!("the Secret to hold the {url} value");
    world
        .eventually(&what, LIMIT, async || {
            world.agent.check()?;
            ensure!(world.secret_data("db").await?.get("url").is_some_and(|held| held == url), "it does not");
            Ok(())
        })
        .await
}
