//! `make demo`: the whole path on this machine, told step by step; stays up until Ctrl-C.

use anyhow::{Context, Result, bail, ensure};
use ennote_harness::node::{Binaries, why_not};
use ennote_harness::settings::Settings;
use ennote_harness::world::{Options, World, tree};
use ennote_scenarios::identity::bind;
use ennote_scenarios::real_node::{Place, pods, workload};
use ennote_scenarios::{LATER, condition, rollout, until_baseline, until_rollout, until_version};
use kube::ResourceExt;
use serde_json::Value;
use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

const BINDING: &str = "payments-db";
const SECRET: &str = "payments db";
const WORKLOADS: [&str; 3] = ["Deployment/web", "StatefulSet/ledger", "DaemonSet/meter"];

const USAGE: &str = "usage: demo [--once] [--real-node]

  --once       end after the tour instead of staying up until Ctrl-C
  --real-node  run the agent and the workloads as pods of a real kubelet (Linux, root)";

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if args.iter().any(|arg| arg != "--once" && arg != "--real-node") {
        say(USAGE);
        return Ok(());
    }
    let once = has("--once");
    // Registered before anything is started, so that an early Ctrl-C ends cleanly too.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let story = Story::begin();
    let tour = async {
        let (world, place) = if has("--real-node") {
            let (world, place) = tour_of_a_node(&story).await?;
            (world, Some(place))
        } else {
            (tour(&story).await?, None)
        };
        let (binding, secret) = if place.is_some() { ("db", "db") } else { (BINDING, SECRET) };
        hints(&world, binding, secret)?;
        Ok::<_, anyhow::Error>((world, place))
    };
    let (world, place) = tokio::select! {
        toured = tour => toured?,
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
    match place {
        None => end(world, &story).await,
        Some(place) => {
            story.step("stopping the cloud, the node and the control plane");
            world.stop().await?;
            place.stop().await
        }
    }
}

/// The same path with real pods, which say themselves what they read.
async fn tour_of_a_node(story: &Story) -> Result<(World, Place)> {
    if let Some(why) = why_not() {
        bail!("no real node here: {why}");
    }
    story.step("building the images, and starting a control plane with a real kubelet, containerd and runc");
    let settings = Settings::from_env()?;
    let binaries = tokio::task::spawn_blocking(move || Binaries::build(&settings)).await??;
    let place = Place::start(&binaries).await?;
    let (world, pod) = place.installed("shop").await?;
    story.step(format!(
        "pod {} is Ready under Pod Security restricted, in namespace {}",
        pod.name_any(),
        world.namespace
    ));
    story.command("ennote-devcloud secret put db --from-env-file -   # value=first");
    bind(&world, "db", "first").await?;
    until_version(&world, "db", 1).await?;
    world.apply(&workload("Deployment", "web")).await?;
    until_baseline(&world, "db", "Deployment/web").await?;
    say_what_pods_read(&place, &world, "first", story).await?;
    story.command("ennote-devcloud secret put db --from-env-file -   # value=second");
    bind(&world, "db", "second").await?;
    until_rollout(&world, "db", "Deployment/web", 2, "Complete").await?;
    say_what_pods_read(&place, &world, "second", story).await?;
    story.command("kubectl get bindings,pods -o wide");
    say(world.kubectl(&["get", "bindings", "-o", "wide"]).await?);
    say(world.kubectl(&["get", "pods", "-o", "wide"]).await?);
    Ok((world, place))
}

async fn say_what_pods_read(place: &Place, world: &World, value: &str, story: &Story) -> Result<()> {
    let said = place
        .eventually(world, "the pods of web to say what they read", LATER, async || {
            let pods = pods(world, "app=web").await?;
            ensure!(pods.len() == 2, "{} pods", pods.len());
            let mut said = Vec::new();
            for pod in &pods {
                let line = place.node.log(pod)?;
                ensure!(line.contains(value), "pod {} says {line:?}", pod.name_any());
                said.push(format!("pod {} says {}", pod.name_any(), line.trim()));
            }
            Ok(said)
        })
        .await?;
    said.iter().for_each(|line| story.step(line));
    Ok(())
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

fn hints(world: &World, binding: &str, secret: &str) -> Result<()> {
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
  ennote-devcloud secret put {secret:?} --from-env-file -     # KEY=VALUE lines, end with Ctrl-D
  kubectl get secret {binding} -o yaml
  kubectl describe ennotesecretbinding {binding}
  ennote-devcloud secret rm {secret:?}                        # the binding says so, the Secret stays
  kubectl delete ennotesecretbinding {binding}                # the Secret goes with it
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
