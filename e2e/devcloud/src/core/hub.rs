//! Who must hear of what: news after every commit, and the open streams with their roles.

use super::Refusal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// A stream that falls behind by more than this re-reads everything it wants instead.
const NEWS_KEPT: usize = 4096;
/// PROTOCOL.md: two streams per epoch at most.
const STREAMS_PER_EPOCH: usize = 2;

/// What a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A new version or tombstone.
    Secret {
        /// Workspace.
        workspace: String,
        /// Name.
        secret: String,
    },
    /// A key was dropped from the keyset.
    Keyset,
    /// An agent's epoch, grants or revocation.
    Agent {
        /// Its id.
        agent_id: String,
    },
}

/// What a stream may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the newest of its epoch: it gets the deliveries.
    Newest,
    /// A newer one of the same epoch is open.
    Older,
    /// It has to end.
    Over(Refusal),
}

/// Fan-out and the register of streams.
pub struct Hub {
    news: broadcast::Sender<News>,
    streams: Mutex<HashMap<String, Vec<Entry>>>,
    stopping: watch::Sender<bool>,
}

struct Entry {
    id: u64,
    epoch: u64,
    role: watch::Sender<Role>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { news: broadcast::channel(NEWS_KEPT).0, streams: Mutex::default(), stopping: watch::Sender::new(false) }
    }
}

impl Hub {
    /// Tells every stream.
    pub fn tell(&self, news: News) {
        // No receiver means no stream: nobody has to hear it.
        let _listeners = self.news.send(news);
    }

    /// Everything told from now on.
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Registers an opened stream. Older streams of the epoch lose the deliveries, those of older epochs end, and so does a
    /// third one of this epoch.
    pub fn register(self: &Arc<Self>, agent_id: &str, epoch: u64) -> Registration {
        let (role, changes) = watch::channel(Role::Newest);
        let mut streams = self.lock();
        let entries = streams.entry(agent_id.to_owned()).or_default();
        let id = entries.iter().map(|entry| entry.id + 1).max().unwrap_or(1);
        let same = entries.iter().filter(|entry| entry.epoch == epoch).count();
        let mut surplus = (same + 1).saturating_sub(STREAMS_PER_EPOCH);
        for entry in entries.iter() {
            let next = match entry.epoch.cmp(&epoch) {
                std::cmp::Ordering::Less => Role::Over(Refusal::Superseded),
                std::cmp::Ordering::Equal if surplus > 0 => {
                    surplus -= 1;
                    Role::Over(Refusal::Replaced)
                }
                std::cmp::Ordering::Equal => Role::Older,
                std::cmp::Ordering::Greater => continue,
            };
            entry.role.send_replace(next);
        }
        entries.push(Entry { id, epoch, role });
        Registration { hub: self.clone(), agent_id: agent_id.to_owned(), id, role: changes }
    }

    /// How many streams an agent has open.
    pub fn streams_of(&self, agent_id: &str) -> usize {
        self.lock().get(agent_id).map_or(0, Vec::len)
    }

    /// Whether an epoch of an agent has a stream open.
    pub fn live(&self, agent_id: &str, epoch: u64) -> bool {
        self.lock().get(agent_id).is_some_and(|entries| entries.iter().any(|entry| entry.epoch == epoch))
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Asks every stream, open or to come, to drain and end.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends with [`Hub::stop`].
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + Unpin + 'static {
        let mut stopping = self.stopping.subscribe();
        // An error means that the hub is gone, and then everything is to stop as well.
        Box::pin(async move { drop(stopping.wait_for(|stop| *stop).await) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Entry>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open stream; ends with its value. When the newest of an epoch ends, the one before it is newest again.
pub struct Registration {
    hub: Arc<Hub>,
    agent_id: String,
    id: u64,
    /// What the stream may do now.
    pub role: watch::Receiver<Role>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut streams = self.hub.lock();
        let Some(entries) = streams.get_mut(&self.agent_id) else { return };
        entries.retain(|entry| entry.id != self.id);
        match entries.last() {
            None => drop(streams.remove(&self.agent_id)),
            Some(last) => {
                last.role.send_if_modified(|role| {
                    let older = *role == Role::Older;
                    if older {
                        *role = Role::Newest;
                    }
                    older
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stream_of_the_newest_epoch_gets_the_deliveries() {
        let hub = Arc::new(Hub::default());
        let role = |r: &Registration| r.role.borrow().clone();
        let first = hub.register("a", 1);
        let second = hub.register("a", 1);
        assert_eq!((role(&first), role(&second)), (Role::Older, Role::Newest));
        assert!(hub.live("a", 1) && !hub.live("a", 2) && !hub.live("b", 1));
        let other = hub.register("b", 1);
        let third = hub.register("a", 1);
        assert_eq!(role(&first), Role::Over(Refusal::Replaced));
        assert_eq!((role(&second), role(&third)), (Role::Older, Role::Newest));
        drop(first);
        drop(third);
        assert_eq!(role(&second), Role::Newest, "the drained stream's successor went away");
        let newer = hub.register("a", 2);
        assert_eq!((role(&second), role(&newer)), (Role::Over(Refusal::Superseded), Role::Newest));
        assert_eq!((role(&other), hub.streams_of("a"), hub.streams()), (Role::Newest, 2, 3));
        drop((second, newer, other));
        assert_eq!((hub.streams_of("a"), hub.streams()), (0, 0));
    }
}
