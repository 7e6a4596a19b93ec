//! `ennote-agent doctor`: looks at everything that the agent needs, in the pod or outside, and says what mends it.
//!
//! It disturbs nobody: it writes nothing, and of the cloud it asks the first answer of a join alone, which proves the root and
//! tells the time. No token leaves the process, none is used up, and the running agent keeps its stream.

mod finding;
mod identity;
mod judgement;
mod schema;

pub use finding::{Finding, Verdict, text};

use crate::cloud::channel::{self, distrusts};
use crate::cloud::credentials::CredentialSource;
use crate::cloud::identity_service::{Anchors, IdentityService};
use crate::cloud::state::LinkState;
use crate::cluster;
use crate::cluster::error::Chain;
use crate::cluster::policy::{About, Policies};
use crate::cluster::rights::Reviews;
use crate::cluster::served::Server;
use crate::config::{self, BUILD, DoctorSettings, RunSettings};
use crate::controller::self_check::needs;
use crate::domain::rights::Lacking;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Examines everything, both sides at the same time.
pub async fn run(settings: &DoctorSettings) -> Vec<Finding> {
    let run = &settings.run;
    let channel = channel::connect(&run.api_url, run.tls_ca_file.as_deref(), run.allow_plaintext);
    let mut findings = vec![judgement::settings(run, channel.as_ref().err().map(|error| Chain(error).to_string()))];
    let source = CredentialSource::of(run);
    let (of_cluster, of_cloud) = futures::join!(cluster(settings), async {
        match channel {
            Ok(channel) => cloud(run, channel, source.clone()).await,
            Err(_) => vec![Finding::skipped("cloud", "not dialled: see the settings")],
        }
    });
    findings.extend(of_cluster);
    findings.push(identity::judge(&source.facts(), &run.expected_audience(), now_ms(), run));
    findings.extend(of_cloud);
    findings
}

/// Whether the admission policies about Secrets hold this very user, by a dry run that only they refuse.
async fn of_policies(policies: Option<Policies>, reviews: &Reviews, run: &RunSettings) -> Vec<Finding> {
    let Some(policies) = policies else {
        return vec![Finding::skipped("policy", "compatible mode depends on none")];
    };
    let user = reviews.user().await;
    let mut findings = Vec::new();
    for namespace in run.namespaces() {
        let held = policies
            .holds_secrets(&namespace, &Default::default())
            .await
            .map_err(|error| error.refusal().unwrap_or_else(|| Chain(&error).to_string()));
        findings.push(judgement::policy(&policies.name(About::Secrets), &namespace, held, user.as_deref()));
    }
    findings
}

async fn cluster(settings: &DoctorSettings) -> Vec<Finding> {
    let run = &settings.run;
    let client = match cluster::connect_as(settings.impersonate.as_deref()).await {
        Ok(client) => client,
        Err(error) => return vec![judgement::no_cluster(&Chain(&error).to_string())],
    };
    let server = Server::new(client.clone());
    let (version, date) = match server.version().await {
        Ok(told) => told,
        Err(error) => return vec![judgement::no_cluster(&Chain(&error).to_string())],
    };
    let mut findings = vec![Finding::ok("cluster", format!("the API server answers as {version}"))];
    findings.push(judgement::clock("clock of the cluster", date, now_ms(), "the API server's Date header"));
    let granted = run.access.secret_names.first().cloned();
    let policies = run.access.policies().map(|base| Policies::new(client.clone(), base, granted));
    let (reviews, rights) = (Reviews::new(client), needs(run).rights());
    findings.extend(of_policies(policies, &reviews, run).await);
    for namespace in run.namespaces() {
        let missing = reviews.missing(&namespace, &rights).await.map_err(|error| Chain(&error).to_string());
        let lacking = missing.map(|missing| Lacking::of(&namespace, &run.instance_name, rights.len(), missing));
        findings.push(judgement::rights(&namespace, rights.len(), lacking));
    }
    let served = server.schema().await.map_err(|error| Chain(&error).to_string());
    findings.push(schema::judge(served));
    findings
}

async fn cloud(run: &RunSettings, channel: channel::Channel, source: CredentialSource) -> Vec<Finding> {
    let place = run.api_url.authority();
    let reached = channel::reach(&run.api_url, run.tls_ca_file.as_deref(), run.allow_plaintext).await;
    let trouble = reached.err().map(|error| (distrusts(&error), Chain(&error).to_string()));
    let mut findings = vec![
        judgement::reach(&place, trouble.as_ref(), run),
        judgement::proxy(&config::proxies(), trouble.is_some(), &place),
    ];
    if trouble.is_some() {
        return findings;
    }
    let (state, _) = watch::channel(LinkState::default());
    let service = IdentityService::new(channel, Anchors::of(run), source, BUILD, state);
    let greeted = service.greet().await;
    findings.push(judgement::root(&greeted, run));
    findings.extend(judgement::clock_of_cloud(&greeted, now_ms()));
    findings
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
