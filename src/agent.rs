//! Builds the clients, starts the tasks, owns shutdown. The only file that sees all.
//!
//! Tasks: *link* (join, streams), *controllers* (both, with all watches), *report* (rollouts into status), *self-check* (rights),
//! *heartbeat*.

use crate::cloud::channel::{self, ChannelError};
use crate::cloud::credentials::{CredentialSource, Discover};
use crate::cloud::identity_service::{Anchors, IdentityService};
use crate::cloud::inbox::Inbox;
use crate::cloud::link::Link;
use crate::cloud::reports::Reports;
use crate::cloud::state::LinkState;
use crate::cluster::error::{Chain, ClusterError};
use crate::cluster::issuer::IssuerDiscovery;
use crate::cluster::policy::Policies;
use crate::cluster::rights::Reviews;
use crate::cluster::secrets::{Grants, SecretIndex, Secrets};
use crate::cluster::status::StatusWriter;
use crate::cluster::watch::Watches;
use crate::cluster::workloads::Workloads;
use crate::config::{BUILD, RbacMode, RunSettings};
use crate::controller::claiming::Claims;
use crate::controller::context::{Context, Latest, Memos, Targets};
use crate::controller::ledgers::Ledgers;
use crate::controller::lists::Lists;
use crate::controller::looking::Looks;
use crate::controller::proving::Proofs;
use crate::controller::report;
use crate::controller::self_check::{self, SelfCheck};
use crate::controller::triggers::{self, Wakes};
use crate::controller::workload::{WorkloadContext, WorkloadMemos};
use crate::crd::EnnoteSecretBinding;
use crate::domain::request::Defaults;
use crate::health::{self, Pulse};
use crate::identity::join::Issuer;
use crate::rollout::workload::{Kind, Workload};
use crate::{clock, hardening, telemetry};
use futures::FutureExt;
use kube::runtime::reflector::store::Writer;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval, timeout};

/// What running passes get after SIGTERM; then the process ends whatever they do.
const GRACE: Duration = Duration::from_millis(3500);
/// What is left for the status of rollouts.
const FLUSH: Duration = Duration::from_secs(1);
/// What the cluster gets to name its keys, before a join goes on with those it named last.
const DISCOVERY: Duration = Duration::from_secs(5);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Kubernetes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The cloud.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Signals.
    #[error("signals cannot be received")]
    Signal(#[source] std::io::Error),
}

/// The whole process of `ennote-agent run`, whatever allocator its binary chose.
pub fn process(settings: RunSettings) -> ExitCode {
    telemetry::start(&settings.log, settings.log_format);
    hardening::harden();
    let faults = settings.faults();
    // Two workers: tokio would take every core that it sees, and each brings a malloc arena.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(settings));
            // Whatever still waits for an answer must not hold up the end.
            runtime.shutdown_background();
            result
        }
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return ExitCode::FAILURE;
        }
    };
    faults.linger();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot start");
            ExitCode::FAILURE
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// A setting that can never work; everything else is waited for.
pub async fn run(settings: RunSettings) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signal)?;
    let namespaces = settings.namespaces();
    tracing::info!(build = BUILD, cloud = settings.api_url.authority(), namespaces = namespaces.join(","), "starting");
    if settings.auth_token.is_some() {
        tracing::warn!(
            "ENNOTE_AUTH_TOKEN works, but cannot change in a living pod: prefer a mounted file, ENNOTE_AUTH_TOKEN_FILE"
        );
    }
    let channel = channel::connect(&settings.api_url, settings.tls_ca_file.as_deref(), settings.allow_plaintext)?;
    let client = crate::cluster::connect().await?;

    let (inbox, reports, pulse) = (Inbox::default(), Reports::default(), Pulse::default());
    let (state, link_state) = watch::channel(LinkState::default());
    let (arrivals, arrived) = mpsc::channel(1024);
    let anchors = Anchors::of(&settings);
    let discover = Some(discover(IssuerDiscovery::new(client.clone())));
    let source = CredentialSource { discover, ..CredentialSource::of(&settings) };
    let link = Link {
        identity: Arc::new(IdentityService::new(channel.clone(), anchors, source, BUILD, state.clone())),
        channel,
        authority: settings.api_url.authority(),
        stand_by: Duration::from_secs(settings.stand_by),
        inbox: inbox.clone(),
        reports: reports.clone(),
        state,
        arrivals,
        pulse: pulse.clone(),
    };

    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| *kind != Kind::Rollout || settings.rollouts.argo).collect();
    let stores = (Writer::<EnnoteSecretBinding>::default(), Writer::<Workload>::default());
    let (workload_wakes, woken_workloads) = mpsc::unbounded_channel();
    let (binding_wakes, woken_bindings) = mpsc::unbounded_channel();
    let (wake_report, report_wakes) = mpsc::unbounded_channel();
    let (suspects, suspected) = mpsc::unbounded_channel();
    let shared = Arc::new(Context {
        secrets: Secrets::new(
            client.clone(),
            Grants {
                read: settings.access.rbac_mode == RbacMode::Compatible,
                by_name: !settings.access.secret_names.is_empty(),
            },
        ),
        looks: (!settings.access.watches()).then(|| Looks::new(Duration::from_secs(settings.access.look_every.max(1)))),
        proofs: settings.access.policies().map(|base| {
            let granted = settings.access.secret_names.first().cloned();
            Proofs::new(Policies::new(client.clone(), base, granted), Duration::from_secs(settings.access.proof_lasts))
        }),
        index: SecretIndex::default(),
        status: StatusWriter::new(client.clone(), &settings.instance_name),
        workloads: Workloads::new(client.clone()),
        inbox,
        reports,
        link: link_state.clone(),
        bindings: stores.0.as_reader(),
        seen_workloads: stores.1.as_reader(),
        ledgers: Ledgers::default(),
        latest: Latest::default(),
        memos: Memos::default(),
        targets: Targets::default(),
        deciding: Mutex::default(),
        lists: Lists::new(namespaces.len(), settings.access.watches(), &kinds),
        workload_wakes,
        binding_wakes,
        wake_report,
        defaults: Defaults { secret_prefix: settings.secret_prefix.clone(), cleanup_orphans: settings.cleanup_orphans },
        rollouts: settings.rollouts,
        agent: format!("{}/{}", settings.target_namespace, settings.instance_name),
        claims: Claims::default(),
        self_check: SelfCheck::new(
            Reviews::new(client.clone()),
            &self_check::needs(&settings),
            &settings.instance_name,
            suspects,
        ),
        patience: Duration::from_secs(settings.claim_patience.max(1)),
        faults: settings.faults(),
        pulse,
        started: Instant::now(),
        latest_ms: AtomicI64::default(),
    });
    let context = Arc::new(WorkloadContext { shared: shared.clone(), memos: WorkloadMemos::default() });
    let wakes =
        Wakes { arrivals: arrived, workloads: woken_workloads, bindings: woken_bindings, link: link_state.clone() };
    let (stop_bindings, bindings_stopped) = oneshot::channel();
    let (stop_workloads, workloads_stopped) = oneshot::channel();

    let link = tokio::spawn(link.run());
    let reporter = tokio::spawn(report::run(shared.clone(), report_wakes));
    let checker = tokio::spawn(self_check::run(shared.clone(), namespaces.clone(), suspected));
    let heart = tokio::spawn(heartbeat(settings.heartbeat_file.clone(), shared.clone(), link_state));
    let watches = Watches::new(client, kinds.clone());
    let controllers = tokio::spawn(async move {
        triggers::run(watches, &namespaces, stores, context, wakes, (bindings_stopped, workloads_stopped)).await;
    });

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: running passes are finished, nothing new is begun");
    link.abort();
    heart.abort();
    checker.abort();
    let _ = (stop_bindings.send(()), stop_workloads.send(()));
    if timeout(GRACE, controllers).await.is_err() {
        tracing::warn!("a pass did not end in time; what it had not written is done at the next start");
    }
    reporter.abort();
    let _ = timeout(FLUSH, report::flush(&shared)).await;
    tracing::info!("stopped");
    Ok(())
}

/// Asks the cluster for the keys that its ServiceAccount tokens are signed by. A cloud that has enrolled them already can do
/// without, so a failure is no reason not to join.
fn discover(issuer: IssuerDiscovery) -> Discover {
    Arc::new(move || {
        let issuer = issuer.clone();
        async move {
            match timeout(DISCOVERY, issuer.read()).await.unwrap_or(Err(ClusterError::TimedOut)) {
                Ok(published) => Some(Issuer { url: published.issuer, jwks: published.jwks }),
                Err(error) => {
                    tracing::warn!(
                        error = %Chain(&error),
                        "the cluster's token keys cannot be read; without the ClusterRole system:service-account-issuer-discovery \
                         Ennote has to be told of new ones by hand: kubectl get --raw /openid/v1/jwks"
                    );
                    None
                }
            }
        }
        .boxed()
    })
}

/// Writes the heartbeat file. Ready once everything was listed, the stream was open and what came on it was taken in; then as
/// long as the session lives, so that a stream that breaks makes nobody look for another pod.
async fn heartbeat(file: Option<PathBuf>, context: Arc<Context>, link: watch::Receiver<LinkState>) {
    let Some(file) = file else { return };
    let mut caught_up = false;
    let mut failing = false;
    let mut ticks = interval(Duration::from_millis(500));
    let mut last: Option<(Instant, bool)> = None;
    loop {
        ticks.tick().await;
        let (live, session) = {
            let link = link.borrow();
            (link.live, link.session.as_ref().is_some_and(|session| !session.is_over(clock::now())))
        };
        caught_up |= live && context.lists.all() && context.inbox.in_use() == 0;
        let ready = caught_up && (live || session);
        let due = last.is_none_or(|(at, said)| at.elapsed() >= health::INTERVAL || said != ready);
        if !due {
            continue;
        }
        let state = if ready { health::State::Ready } else { health::State::Starting };
        match health::beat(&file, state, &context.pulse) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(file = %file.display(), %error, "the heartbeat cannot be written; probes will fail");
            }
            Err(_) => {}
        }
        last = Some((Instant::now(), ready));
    }
}
