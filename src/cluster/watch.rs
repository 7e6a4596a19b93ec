//! One watch of one kind in one namespace, as a stream of changes that never ends and never fails.
//!
//! Each watch has a back-off of its own, so that a namespace without a Role delays no other, and errors stay out of the
//! controllers: one failing stream inside a kube `Controller` slows all its triggers. A relist is told apart into what is
//! there and what went, so that the watches of many namespaces can feed one store.

use crate::cluster::secrets::reduce;
use crate::cluster::workloads;
use crate::crd::EnnoteSecretBinding;
use crate::domain::observed::Existing;
use crate::rollout::workload::{Kind, Workload};
use futures::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::Lookup};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// There is one, new or changed.
    Applied(T),
    /// It is gone.
    Deleted {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid; unknown when it went while nobody watched.
        uid: Option<String>,
    },
    /// All that was there has been told.
    Listed {
        /// Of this namespace.
        namespace: String,
    },
    /// It may not be watched.
    Refused {
        /// In this namespace.
        namespace: String,
    },
}

/// A Secret, reduced on arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenSecret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The rest.
    pub secret: Existing,
}

/// Opens the watches.
#[derive(Clone)]
pub struct Watches {
    client: Client,
    workloads: Vec<Kind>,
}

impl Watches {
    /// Over this client, of workloads of these kinds.
    pub fn new(client: Client, workloads: Vec<Kind>) -> Self {
        Self { client, workloads }
    }

    /// The bindings of a namespace.
    pub fn bindings(&self, namespace: &str) -> BoxStream<'static, Change<EnnoteSecretBinding>> {
        changes(&self.client, namespace, Kinds::always("ennotesecretbindings"), |mut binding: EnnoteSecretBinding| {
            binding.metadata.managed_fields = None;
            binding
        })
    }

    /// The Secrets of a namespace, as metadata: no value reaches this process.
    pub fn secrets(&self, namespace: &str) -> BoxStream<'static, Change<SeenSecret>> {
        changes(&self.client, namespace, Kinds::always("secrets"), |found: PartialObjectMeta<Secret>| SeenSecret {
            secret: reduce(&found.metadata),
            namespace: found.metadata.namespace.unwrap_or_default(),
            name: found.metadata.name.unwrap_or_default(),
        })
    }

    /// The workloads of a namespace, kind by kind.
    pub fn workloads(&self, namespace: &str) -> Vec<(Kind, BoxStream<'static, Change<Workload>>)> {
        workloads::watch(&self.client, namespace, &self.workloads)
    }
}

/// What a watch says of the kind that it watches.
#[derive(Clone, Copy)]
pub(super) struct Kinds {
    /// Its plural.
    pub(super) plural: &'static str,
    /// The values that grant it.
    pub(super) granted: &'static str,
    /// The cluster may do without it, and none of it is there then: how to have it, or not to be told.
    pub(super) absent: Option<&'static str>,
}

impl Kinds {
    /// One that every cluster with the chart has.
    pub(super) const fn always(plural: &'static str) -> Self {
        Self { plural, granted: "watchNamespaces including it", absent: None }
    }
}

/// Watches one kind in one namespace. A kind that is absent is a list that is complete and empty; it is asked for again every
/// minute, so that it counts once it is there.
pub(super) fn changes<K, T>(
    client: &Client,
    namespace: &str,
    what: Kinds,
    reduce: impl Fn(K) -> T + Send + 'static,
) -> BoxStream<'static, Change<T>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
    T: Send + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut relist = Relist { namespace: namespace.to_owned(), known: BTreeSet::new(), listing: BTreeSet::new() };
    let mut report = Report { what, namespace: namespace.to_owned(), failing: None };
    let patient = Patient::default();
    let (listed, absent) = (patient.listed.clone(), patient.absent.clone());
    watcher(api, watcher::Config::default())
        .backoff(patient)
        .map(move |event| match event {
            Ok(event) => {
                match event {
                    Event::Init => listed.store(false, Ordering::Relaxed),
                    Event::InitDone => {
                        listed.store(true, Ordering::Relaxed);
                        // It is there: what fails from now on is tried again as soon as any other.
                        absent.store(false, Ordering::Relaxed);
                    }
                    Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
                }
                report.works(&event);
                relist.translate(event, &reduce)
            }
            Err(error) => {
                let code = code(&error);
                report.fails(code);
                absent.store(what.absent.is_some() && code == 404, Ordering::Relaxed);
                if absent.load(Ordering::Relaxed) {
                    relist.nothing(&reduce)
                } else if code == 403 {
                    vec![Change::Refused { namespace: relist.namespace.clone() }]
                } else {
                    vec![]
                }
            }
        })
        .flat_map(stream::iter)
        .boxed()
}

/// A kind that the cluster may do without is asked for again after this long.
const ABSENT_AGAIN: Duration = Duration::from_secs(60);

/// The default back-off, but reset only by what comes after a complete list: one that is refused right after its `Init` would
/// otherwise be tried every second for ever.
#[derive(Default)]
struct Patient {
    pauses: watcher::DefaultBackoff,
    listed: Arc<AtomicBool>,
    absent: Arc<AtomicBool>,
}

impl Iterator for Patient {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        if self.absent.load(Ordering::Relaxed) { Some(ABSENT_AGAIN) } else { self.pauses.next() }
    }
}

impl Backoff for Patient {
    fn reset(&mut self) {
        if self.listed.load(Ordering::Relaxed) {
            self.pauses.reset();
        }
    }
}

struct Relist {
    namespace: String,
    known: BTreeSet<String>,
    listing: BTreeSet<String>,
}

impl Relist {
    /// None of the kind is there.
    fn nothing<K: Resource<DynamicType = ()>, T>(&mut self, reduce: &impl Fn(K) -> T) -> Vec<Change<T>> {
        self.translate(Event::Init, reduce);
        self.translate(Event::InitDone, reduce)
    }

    fn translate<K: Resource<DynamicType = ()>, T>(
        &mut self,
        event: Event<K>,
        reduce: &impl Fn(K) -> T,
    ) -> Vec<Change<T>> {
        let name = |object: &K| Lookup::name(object).unwrap_or_default().into_owned();
        match event {
            Event::Init => {
                self.listing.clear();
                vec![]
            }
            Event::InitApply(object) => {
                // Known from here on: the rest of the list may never come.
                self.known.insert(name(&object));
                self.listing.insert(name(&object));
                vec![Change::Applied(reduce(object))]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let gone = self.known.difference(&listed).cloned();
                let mut out: Vec<Change<T>> =
                    gone.map(|name| Change::Deleted { namespace: self.namespace.clone(), name, uid: None }).collect();
                self.known = listed;
                out.push(Change::Listed { namespace: self.namespace.clone() });
                out
            }
            Event::Apply(object) => {
                self.known.insert(name(&object));
                vec![Change::Applied(reduce(object))]
            }
            Event::Delete(object) => {
                let name = name(&object);
                self.known.remove(&name);
                vec![Change::Deleted { namespace: self.namespace.clone(), name, uid: object.meta().uid.clone() }]
            }
        }
    }
}

/// Says once that a watch fails, with what mends it, and once that it works again.
struct Report {
    what: Kinds,
    namespace: String,
    failing: Option<u16>,
}

impl Report {
    fn works<K>(&mut self, event: &Event<K>) {
        if !matches!(event, Event::Init) && self.failing.take().is_some() {
            tracing::info!(resource = self.what.plural, namespace = self.namespace, "the watch works again");
        }
    }

    fn fails(&mut self, code: u16) {
        if self.failing.replace(code) == Some(code) {
            return;
        }
        let (Kinds { plural: what, granted, absent }, namespace) = (self.what, &self.namespace);
        if let Some(mend) = absent.filter(|_| code == 404) {
            tracing::info!(resource = what, namespace, mend, "not served by this cluster; none is there");
            return;
        }
        let mend = match code {
            403 => format!(
                "grant get, list and watch on {what} in {namespace}: helm upgrade with {granted}; \
                 or create that namespace"
            ),
            404 => "install the CRD: ennote-agent crd | kubectl apply --server-side -f -".to_owned(),
            410 => return,
            _ => "waiting for the API server".to_owned(),
        };
        tracing::warn!(resource = what, namespace, code, mend, "cannot watch; trying again with growing pauses");
    }
}

fn code(error: &watcher::Error) -> u16 {
    let client = match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
            e
        }
        watcher::Error::WatchError(status) => return status.code,
        _ => return 0,
    };
    match client {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(name: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap()
    }

    #[test]
    fn a_relist_tells_what_went_while_nobody_watched() {
        let mut relist = Relist { namespace: "n".into(), known: BTreeSet::new(), listing: BTreeSet::new() };
        let name = |m: ConfigMap| m.metadata.name.unwrap();
        let mut told = |event| relist.translate(event, &name);
        let gone = |name: &str| Change::Deleted { namespace: "n".into(), name: name.into(), uid: None };
        let listed = || Change::Listed { namespace: "n".into() };
        assert_eq!(told(Event::Init), []);
        assert_eq!(told(Event::InitApply(map("a"))), [Change::Applied("a".into())]);
        assert_eq!(told(Event::InitDone), [listed()]);
        assert_eq!(told(Event::Apply(map("b"))), [Change::Applied("b".into())]);
        assert_eq!(told(Event::Init), []);
        assert_eq!(told(Event::InitApply(map("c"))), [Change::Applied("c".into())]);
        assert_eq!(told(Event::InitDone), [gone("a"), gone("b"), listed()]);
        assert_eq!(told(Event::Delete(map("c"))), [gone("c")]);
        told(Event::Init);
        told(Event::InitApply(map("d")));
        told(Event::Init);
        assert_eq!(told(Event::InitDone), [gone("d"), listed()], "of a list that broke off");
        told(Event::Apply(map("e")));
        assert_eq!(relist.nothing(&name), [gone("e"), listed()], "its kind went");
        assert_eq!(relist.nothing(&name), [listed()]);
    }

    #[test]
    fn the_back_off_of_a_refused_list_grows_although_each_try_begins_well() {
        let mut backoff = Patient::default();
        let first = backoff.next().unwrap();
        let later = (0..6)
            .map(|_| {
                backoff.reset();
                backoff.next().unwrap()
            })
            .max();
        assert!(later.unwrap() > first * 4);
        backoff.listed.store(true, Ordering::Relaxed);
        backoff.reset();
        assert!(backoff.next().unwrap() < Duration::from_secs(2), "once it was complete, a new trouble begins small");
        backoff.absent.store(true, Ordering::Relaxed);
        assert_eq!(
            [backoff.next(), backoff.next()],
            [Some(ABSENT_AGAIN); 2],
            "what is absent is asked for now and then"
        );
    }
}
