//! `make demo`: the whole path on this machine, told step by step; stays up until Ctrl-C.

use anyhow::{Context, Result, ensure};
use ennote_harness::world::{Options, World, tree};
use ennote_scenarios::{condition, rollout, until_baseline, until_rollout, until_version};
use serde_json::Value;
use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

const BINDING: &str = "payments-db";
const SECRET: &str = "payments db";
const WORKLOADS: [&str; 3] = ["Deployment/web", "StatefulSet/ledger", "DaemonSet/meter"];

#[tokio::main]
async fn main() -> Result<()> {
    let once = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--once") => true,
        Some(_) => {
            say("usage: demo [--once]\n\n  --once  end after the tour instead of staying up until Ctrl-C");
            return Ok(());
        }
    };
    // Registered before anything is started, so that an early Ctrl-C ends cleanly too.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let story = Story::begin();
    let tour = async {
        let world = tour(&story).await?;
        hints(&world)?;
        Ok::<_, anyhow::Error>(world)
    };
    let world = tokio::select! {
        world = tour => world?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    if !once {
        say("Everything stays up until Ctrl-C.");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    end(world, &story).await
}

async fn tour(story: &Story) -> Result<World> {
    story.step("starting a control plane (etcd, kube-apiserver, controller manager, scheduler, KWOK nodes), Ennote's devcloud,");
    story.more("the chart by helm, and the agent under the chart's own ServiceAccount and Role");
    let world = World::start("shop", Options::default()).await?;
    story.step(format!(
        "up: namespace {}, cloud {} (TLS 1.3), agent process {}",
        world.namespace,
        world.cloud.address(),
        world.agent.pid()?
    ));

    story.command(format!("ennote-devcloud secret put {SECRET:?} --from-env-file -   # user, password, url"));
    put(&world, "first").await?;

    let examples = tree().join("examples");
    for file in ["binding.yaml", "workloads.yaml"] {
        story.command(format!("kubectl apply -f examples/{file}"));
        apply(&world, &examples.join(file)).await?;
    }
    until_version(&world, BINDING, 1).await?;
    let keys: Vec<String> = world.secret_data(BINDING).await?.into_keys().collect();
    story.step(format!("binding {BINDING} is Ready; Secret {BINDING} holds the keys: {}", keys.join(", ")));
    for workload in WORKLOADS {
        until_baseline(&world, BINDING, workload).await?;
    }
    up(&world).await?;

    story.command(format!("ennote-devcloud secret put {SECRET:?} --from-env-file -   # a new password"));
    put(&world, "second").await?;
    let synced = until_version(&world, BINDING, 2).await?;
    ensure!(
        world.secret_data(BINDING).await?.get("password").map(String::as_str) == Some("second"),
        "the Secret is not the new one"
    );
    let latency = synced["status"]["syncLatencyMillis"].as_i64().context("no latency in status")?;
    story.step(format!("the new password is in the Secret, {latency} ms after the commit in the cloud"));

    for workload in WORKLOADS {
        until_rollout(&world, BINDING, workload, 2, "Complete").await?;
    }
    let binding = world.binding(BINDING).await?;
    for workload in WORKLOADS {
        story.step(told(&rollout(&binding, workload).context("no rollout in status")?));
    }
    ensure!(condition(&binding, "Ready").as_deref() == Some("True/Synced"), "the binding is not Ready");
    story.command("kubectl get bindings -o wide");
    say(world.kubectl(&["get", "bindings", "-o", "wide"]).await?);
    Ok(world)
}

/// Values go through standard input: a process list shows arguments.
async fn put(world: &World, password: &str) -> Result<()> {
    world
        .cloud
        .put(SECRET, &[("user", "app"), ("password", password), ("url", "postgres://db.shop.svc/payments")])
        .await?;
    Ok(())
}

async fn apply(world: &World, file: &Path) -> Result<()> {
    world.apply(&std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?).await
}

/// The first rollout of the workloads themselves is not ours to count.
async fn up(world: &World) -> Result<()> {
    for workload in ["deployment/web", "statefulset/ledger", "daemonset/meter"] {
        world.kubectl(&["rollout", "status", workload, "--timeout=60s"]).await?;
    }
    Ok(())
}

fn told(rollout: &Value) -> String {
    let text = |field: &str| rollout[field].as_str().unwrap_or_default().to_owned();
    let (ready, desired) = (&rollout["ready"], &rollout["desired"]);
    format!(
        "{:<11} {:<7} restarted for version {}: {}, {ready}/{desired} pods up",
        text("kind"),
        text("name"),
        rollout["version"],
        text("phase")
    )
}

fn hints(world: &World) -> Result<()> {
    let kubectl = world.plane.tool("kubectl")?;
    let here = std::env::current_exe()?;
    let mut path = kubectl.parent().map(|p| p.display().to_string()).unwrap_or_default();
    if let Some(bin) = here.parent() {
        path = format!("{}:{path}", bin.display());
    }
    say(format!(
        "To try it, in another terminal:

  export KUBECONFIG={}
  export ENNOTE_DEVCLOUD_DATA={}
  export PATH={path}:$PATH
  kubectl config set-context --current --namespace={}

  kubectl get bindings -w                                     # watch, then change the secret:
  ennote-devcloud secret put {SECRET:?} --from-env-file -     # KEY=VALUE lines, end with Ctrl-D
  kubectl get secret {BINDING} -o yaml
  kubectl describe ennotesecretbinding {BINDING}
  ennote-devcloud secret rm {SECRET:?}                        # the binding says so, the Secret stays
  kubectl delete ennotesecretbinding {BINDING}                # the Secret goes with it
",
        world.plane.kubeconfig().display(),
        world.cloud.data().display(),
        world.namespace,
    ));
    Ok(())
}

async fn end(world: World, story: &Story) -> Result<()> {
    story.step("stopping the agent, the cloud and the control plane");
    let plane = world.plane.clone();
    let (pids, ports) = (plane.pids(), plane.ports());
    world.stop().await?;
    plane.stop().await?;
    let left = pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).count();
    let open = ports.iter().filter(|port| std::net::TcpStream::connect(("127.0.0.1", **port)).is_ok()).count();
    ensure!(left == 0 && open == 0, "{left} processes and {open} ports are left");
    story.step(format!("stopped: {} processes ended, {} ports closed", pids.len() + 2, ports.len() + 1));
    Ok(())
}

/// Lines with the time since the start.
struct Story(Instant);

impl Story {
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn step(&self, text: impl Display) {
        say(format!("[{:>6.1} s] {text}", self.0.elapsed().as_secs_f32()));
    }

    fn more(&self, text: impl Display) {
        say(format!("{:>11}{text}", ""));
    }

    fn command(&self, text: impl Display) {
        say(format!("[{:>6.1} s] $ {text}", self.0.elapsed().as_secs_f32()));
    }
}

fn say(text: impl Display) {
    // A closed pipe is the reader's choice; the tour goes on.
    let _ = writeln!(std::io::stdout(), "{text}");
}
