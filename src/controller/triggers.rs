//! All sources of work, in one place, each with the verbs it needs. The only file besides `agent` that starts tasks.
//!
//! | source | wakes | verbs |
//! |---|---|---|
//! | binding created, spec or annotations edited, deleted; claim or answer of another agent | the binding, its workloads | ennotesecretbindings: get, list, watch |
//! | Secret created, edited, deleted (metadata), where they can be watched | the bindings that write to it | secrets: get, list, watch |
//! | a look at a Secret is due, where they cannot (`looking`) | the binding | secrets: patch |
//! | Deployment, StatefulSet, DaemonSet changed | the workload | apps: get, list, watch |
//! | Rollout of Argo changed, where the setting says so | the workload | argoproj.io: get, list, watch |
//! | delivery from the cloud | the binding | - |
//! | link up, down, lost | all bindings | - |
//! | content of a binding moved, restart released, resumed or over | the workloads that restart for it | - |
//! | rollout failed with onFailure Revert | the binding | - |
//! | timers (back-off, quiet period, deadline, revisit) | whoever set them | - |

use crate::cloud::state::LinkState;
use crate::cluster::error::ClusterError;
use crate::cluster::watch::{Change, SeenSecret, Watches};
use crate::controller::context::Context;
use crate::controller::lists::List;
use crate::controller::workload::WorkloadContext;
use crate::controller::{binding, restart, workload};
use crate::crd::EnnoteSecretBinding;
use crate::domain::claim;
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;
use crate::health::{Loop, TURN};
use crate::rollout::workload::Workload;
use futures::future::ready;
use futures::stream::{BoxStream, Stream, StreamExt, select_all};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::interval;
use tokio_stream::wrappers::{IntervalStream, ReceiverStream, UnboundedReceiverStream, WatchStream};

/// Passes at the same time; as many as the window of session keys has room for.
const CONCURRENCY: u16 = 32;

/// What wakes the controllers from outside the cluster.
pub struct Wakes {
    /// Namespace and name of a binding that something arrived for.
    pub arrivals: mpsc::Receiver<(String, String)>,
    /// Workloads to decide anew.
    pub workloads: mpsc::UnboundedReceiver<ObjectRef<Workload>>,
    /// Bindings to look at.
    pub bindings: mpsc::UnboundedReceiver<ObjectRef<EnnoteSecretBinding>>,
    /// The link.
    pub link: watch::Receiver<LinkState>,
}

/// Runs both controllers until `stop` is sent to both; running passes are finished.
pub async fn run(
    watches: Watches,
    namespaces: &[String],
    (bindings, workloads): (Writer<EnnoteSecretBinding>, Writer<Workload>),
    context: Arc<WorkloadContext>,
    wakes: Wakes,
    (stop_bindings, stop_workloads): (oneshot::Receiver<()>, oneshot::Receiver<()>),
) {
    let shared = context.shared.clone();
    let pulse = shared.pulse.clone();
    let binding_reader = bindings.as_reader();
    let workload_reader = workloads.as_reader();
    let binding_changes = watch_bindings(&watches, namespaces, bindings, shared.clone());
    let secret_wakes = watch_secrets(&watches, namespaces, shared.clone());
    let workload_changes = watch_workloads(&watches, namespaces, workloads, context.clone());

    let arrivals =
        ReceiverStream::new(wakes.arrivals).map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    let woken = UnboundedReceiverStream::new(wakes.bindings);
    let wake_bindings = futures::stream::select(futures::stream::select(secret_wakes, arrivals), woken);
    let config = || Config::default().concurrency(CONCURRENCY);
    let for_bindings = Controller::for_stream(binding_changes, binding_reader)
        .with_config(config())
        .reconcile_on(wake_bindings)
        .reconcile_all_on(link_turns(wakes.link))
        .graceful_shutdown_on(stopped(stop_bindings))
        .run(binding::reconcile, binding::on_error, shared)
        .for_each(log);
    let for_workloads = Controller::for_stream(workload_changes, workload_reader)
        .with_config(config())
        .reconcile_on(UnboundedReceiverStream::new(wakes.workloads))
        .graceful_shutdown_on(stopped(stop_workloads))
        .run(workload::reconcile, workload::on_error, context)
        .for_each(log);
    let passes = std::pin::pin!(async { futures::join!(for_bindings, for_workloads) });
    let turns = IntervalStream::new(interval(TURN)).for_each(move |_| ready(pulse.stamp(Loop::Timer)));
    futures::future::select(passes, turns).await;
}

async fn stopped(stop: oneshot::Receiver<()>) {
    // A sender that is gone means the same.
    let _ = stop.await;
}

async fn log<T>(result: Result<T, kube::runtime::controller::Error<ClusterError, watcher::Error>>) {
    use kube::runtime::controller::Error;
    match result {
        Ok(_) | Err(Error::ObjectNotFound(_)) => {}
        Err(error) => tracing::debug!(%error, "a pass did not end well; it is repeated"),
    }
}

/// An item each time that what bindings may say of the link has changed.
fn link_turns(link: watch::Receiver<LinkState>) -> impl Stream<Item = ()> + Send {
    let mut last: Option<(bool, Option<Problem>, bool)> = None;
    WatchStream::new(link).filter_map(move |state| {
        let mut problem = state.problem.clone();
        // Its sentence holds times, which move with each try. That is nothing new to say.
        if let Some(problem) = problem.as_mut().filter(|problem| problem.reason == Reason::ClockDisagrees) {
            problem.message.clear();
        }
        let now = Some((state.live, problem, state.is_withheld()));
        let turned = last != now;
        last = now;
        ready(turned.then_some(()))
    })
}

fn watch_bindings(
    watches: &Watches,
    namespaces: &[String],
    mut writer: Writer<EnnoteSecretBinding>,
    context: Arc<Context>,
) -> BoxStream<'static, Result<EnnoteSecretBinding, watcher::Error>> {
    let streams = namespaces.iter().map(|namespace| watches.bindings(namespace));
    let mut shapes = HashMap::new();
    open(&mut writer);
    // A turn now and then goes the way of the changes: it comes through as long as they do.
    let turns = IntervalStream::new(interval(TURN)).map(|_| None);
    let changes = futures::stream::select(select_all(streams).map(Some), turns);
    let mut taken_in = move |change| match change {
        Some(change) => binding_changed(change, &mut writer, &mut shapes, &context).map(Ok),
        None => {
            context.pulse.stamp(Loop::Watch);
            None
        }
    };
    changes.filter_map(move |change| ready(taken_in(change))).boxed()
}

/// A store fed by several watches is never "initialised" by one of them: it starts empty and open, and `Lists` tells what is
/// complete.
fn open<K>(writer: &mut Writer<K>)
where
    K: kube::runtime::reflector::Lookup + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
}

/// What of a binding wakes its controller: not its status, which the controller writes itself, but for the words of other agents.
type Shape = (i64, Option<std::collections::BTreeMap<String, String>>, bool, claim::Foreign);

fn binding_changed(
    change: Change<EnnoteSecretBinding>,
    writer: &mut Writer<EnnoteSecretBinding>,
    shapes: &mut HashMap<String, Shape>,
    context: &Context,
) -> Option<EnnoteSecretBinding> {
    match change {
        Change::Applied(binding) => {
            let meta = &binding.metadata;
            let uid = meta.uid.clone().unwrap_or_default();
            let foreign = claim::foreign(binding.status.as_ref(), &context.agent);
            let deleted = meta.deletion_timestamp.is_some();
            let shape = (meta.generation.unwrap_or_default(), meta.annotations.clone(), deleted, foreign);
            let replaced =
                context.bindings.get(&ObjectRef::from_obj(&binding)).filter(|old| old.metadata.uid != meta.uid);
            if let Some(old) = replaced {
                gone(&old, context, shapes);
            }
            let request = Request::parse(&binding, &context.defaults).ok();
            let (namespace, name) = place(&binding);
            let target = request.as_ref().map(|r| r.target.as_str());
            let earlier = context.targets.of(namespace, name);
            context.targets.set(namespace, name, target);
            let known = context.bindings.get(&ObjectRef::from_obj(&binding));
            let bears = known.is_none_or(|known| bears_on_restarts(&known) != bears_on_restarts(&binding));
            writer.apply_watcher_event(&Event::Apply(binding.clone()));
            if let Some(request) = request.as_ref().filter(|_| bears) {
                context.wake_workloads_of(&binding, request);
            }
            let turned = shapes.insert(uid, shape.clone()) != Some(shape);
            if turned {
                wake_rivals(namespace, name, earlier.as_deref(), context);
                wake_rivals(namespace, name, target.filter(|t| earlier.as_deref() != Some(*t)), context);
            }
            turned.then_some(binding)
        }
        Change::Deleted { namespace, name, .. } => {
            if let Some(old) = context.bindings.get(&ObjectRef::new(&name).within(&namespace)) {
                writer.apply_watcher_event(&Event::Delete((*old).clone()));
                let target = context.targets.of(&namespace, &name);
                gone(&old, context, shapes);
                wake_rivals(&namespace, &name, target.as_deref(), context);
            }
            None
        }
        Change::Listed { namespace } => {
            context.lists.told(&namespace, List::Bindings);
            wake_all(&namespace, context);
            None
        }
        Change::Refused { namespace } => {
            context.self_check.suspect(&namespace);
            None
        }
    }
}

/// What of a binding decides about its workloads. The rest of its status is what came of that.
fn bears_on_restarts(binding: &EnnoteSecretBinding) -> impl PartialEq + use<> {
    let meta = &binding.metadata;
    let status = binding.status.as_ref();
    let held = status.map(|status| (status.content.clone(), status.agent.clone(), status.held_version()));
    (meta.uid.clone(), meta.generation, meta.annotations.clone(), meta.deletion_timestamp.is_some(), held)
}

/// The right to a Secret may have changed hands: the other bindings that aim at it are looked at.
fn wake_rivals(namespace: &str, name: &str, target: Option<&str>, context: &Context) {
    let aiming = target.map(|target| context.targets.bindings(namespace, target)).unwrap_or_default();
    for rival in aiming.iter().filter(|rival| *rival != name) {
        context.wake_binding(namespace, rival);
    }
}

fn gone(old: &EnnoteSecretBinding, context: &Context, shapes: &mut HashMap<String, Shape>) {
    let (namespace, name) = place(old);
    let uid = old.metadata.uid.as_deref().unwrap_or_default();
    context.targets.set(namespace, name, None);
    context.forget(namespace, name, uid);
    shapes.remove(uid);
}

fn place(binding: &EnnoteSecretBinding) -> (&str, &str) {
    let meta = &binding.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Passes that held for the lists of a namespace need not wait for their timer.
fn wake_all(namespace: &str, context: &Context) {
    if !context.lists.complete(namespace) {
        return;
    }
    for binding in context.bindings.state_filter(|b| b.metadata.namespace.as_deref() == Some(namespace)) {
        context.wake_binding(namespace, place(&binding).1);
    }
}

fn watch_secrets(
    watches: &Watches,
    namespaces: &[String],
    context: Arc<Context>,
) -> BoxStream<'static, ObjectRef<EnnoteSecretBinding>> {
    if context.looks.is_some() {
        // They cannot be watched: passes look at them.
        return futures::stream::pending().boxed();
    }
    let streams = namespaces.iter().map(|namespace| watches.secrets(namespace));
    select_all(streams)
        .flat_map(move |change| {
            let (namespace, name) = match change {
                Change::Applied(SeenSecret { namespace, name, secret }) => {
                    context.index.seen(&namespace, &name, secret);
                    (namespace, name)
                }
                Change::Deleted { namespace, name, uid } => {
                    context.index.gone(&namespace, &name, uid.as_deref());
                    (namespace, name)
                }
                Change::Listed { namespace } => {
                    context.lists.told(&namespace, List::Secrets);
                    wake_all(&namespace, &context);
                    return futures::stream::iter(vec![]);
                }
                Change::Refused { namespace } => {
                    context.self_check.suspect(&namespace);
                    return futures::stream::iter(vec![]);
                }
            };
            let bindings = context.targets.bindings(&namespace, &name);
            futures::stream::iter(bindings.iter().map(|b| ObjectRef::new(b).within(&namespace)).collect::<Vec<_>>())
        })
        .boxed()
}

fn watch_workloads(
    watches: &Watches,
    namespaces: &[String],
    mut writer: Writer<Workload>,
    context: Arc<WorkloadContext>,
) -> BoxStream<'static, Result<Workload, watcher::Error>> {
    let streams = namespaces.iter().flat_map(|namespace| watches.workloads(namespace));
    let streams = streams.map(|(kind, stream)| stream.map(move |change| (kind, change)).boxed());
    open(&mut writer);
    select_all(streams)
        .filter_map(move |(kind, change)| {
            let shared = &context.shared;
            ready(match change {
                Change::Applied(workload) => {
                    writer.apply_watcher_event(&Event::Apply(workload.clone()));
                    Some(Ok(workload))
                }
                Change::Deleted { namespace, name, .. } => {
                    if let Some(old) = shared.seen_workloads.get(&ObjectRef::new(&name).within(&namespace)) {
                        writer.apply_watcher_event(&Event::Delete((*old).clone()));
                        context.memos.forget(old.metadata.uid.as_deref().unwrap_or_default());
                    }
                    // One of the same name may be made before anybody looks, and has run none of this.
                    for binding in shared.ledgers.remembering(&namespace, &name) {
                        if let Some(binding) = shared.binding(&namespace, &binding) {
                            restart::change(&binding, shared, |ledger| ledger.forget(&name));
                            let uid = binding.metadata.uid.as_deref().unwrap_or_default();
                            shared.reports.forget_workload(uid, &name);
                        }
                    }
                    None
                }
                Change::Listed { namespace } => {
                    shared.lists.told(&namespace, List::Workloads(kind));
                    None
                }
                Change::Refused { namespace } => {
                    shared.self_check.suspect(&namespace);
                    None
                }
            })
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn bindings_are_woken_when_what_they_may_say_of_the_link_has_changed() {
        let (tell, link) = watch::channel(LinkState::default());
        let mut turns = Box::pin(link_turns(link));
        let mut turns_on = |reason, message: &str| {
            tell.send_modify(|state| state.problem = Some(Problem::new(reason, message)));
            turns.next().now_or_never().flatten().is_some()
        };
        assert!(turns_on(Reason::IdentityLost, "the token is spent"));
        assert!(!turns_on(Reason::IdentityLost, "the token is spent"));
        assert!(turns_on(Reason::IdentityLost, "the token is too late"), "another mend");
        assert!(turns_on(Reason::ClockDisagrees, "it is one"));
        assert!(!turns_on(Reason::ClockDisagrees, "it is two"), "the same, a moment later");
    }
}
