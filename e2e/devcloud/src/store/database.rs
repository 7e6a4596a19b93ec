//! redb beneath sealed rows: snapshots to read, one writer thread that commits all waiting writes together.

use super::{RowKeys, StoreError, Table};
use crate::clock;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// Writes that share one commit at most.
const BATCH: usize = 256;
const CACHE_BYTES: usize = 64 * 1024 * 1024;

type Bytes = &'static [u8];
type Job<N> = Box<dyn FnOnce(&mut Batch<'_, N>) -> After + Send>;
type After = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The database. `N` is what a write announces once it is durable.
pub struct Store<N: Send + 'static> {
    database: Arc<Database>,
    rows: Arc<RowKeys>,
    jobs: Option<mpsc::UnboundedSender<Job<N>>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl<N: Send + 'static> Drop for Store<N> {
    /// Waits for the writer, so that the file is free when this returns.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the database's writer had panicked");
        }
    }
}

impl<N: Send + 'static> Store<N> {
    /// Creates the file, or opens it, and starts the writer thread. `announce` is called on that thread, after a commit.
    ///
    /// # Errors
    /// [`StoreError::InUse`], `Disk`.
    pub fn open(path: &Path, rows: RowKeys, announce: impl Fn(N) + Send + 'static) -> Result<Self, StoreError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
            other => StoreError::Disk(other.to_string()),
        })?;
        let (database, rows) = (Arc::new(database), Arc::new(rows));
        let (jobs, queue) = mpsc::unbounded_channel();
        let writer = Writer { database: database.clone(), rows: rows.clone(), announce };
        let writer = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| StoreError::Disk(error.to_string()))?;
        Ok(Self { database, rows, jobs: Some(jobs), writer: Some(writer) })
    }

    /// A snapshot of what is durable.
    ///
    /// # Errors
    /// `Disk`.
    pub fn view(&self) -> Result<View<'_>, StoreError> {
        Ok(View { transaction: self.database.begin_read().map_err(disk)?, rows: &self.rows })
    }

    /// Runs `change` in a transaction and answers once it is on disk. What `change` refuses is not written, and neither
    /// fails nor is seen by the writes that share its commit.
    ///
    /// # Errors
    /// Those of `change`, and [`StoreError`]: then nothing was written.
    pub async fn write<T, E>(
        &self,
        change: impl FnOnce(&mut Tx<'_, '_, N>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job<N> = Box::new(move |batch| {
            let mut tx = Tx { batch, rows: BTreeMap::new(), news: Vec::new() };
            let outcome = change(&mut tx).and_then(|value| tx.apply().map(|()| value).map_err(E::from));
            Box::new(move |committed| {
                let _gone = answer.send(outcome.and_then(|value| committed.map(|()| value).map_err(E::from)));
            })
        });
        let stopped = || E::from(StoreError::Disk("its writer has stopped".into()));
        self.jobs.as_ref().ok_or_else(stopped)?.send(job).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

/// A snapshot.
pub struct View<'a> {
    transaction: ReadTransaction,
    rows: &'a RowKeys,
}

impl View<'_> {
    /// One row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get<T: DeserializeOwned>(&self, table: Table, name: &[&str]) -> Result<Option<T>, StoreError> {
        let key = self.rows.row_key(table, name);
        let Some(opened) = self.table(table)? else { return Ok(None) };
        let stored = opened.get(&key[..]).map_err(disk)?;
        stored.map(|stored| decode(self.rows, table, &key, stored.value())).transpose()
    }

    /// All rows of a table, in no particular order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, StoreError> {
        let Some(opened) = self.table(table)? else { return Ok(Vec::new()) };
        let rows = opened.iter().map_err(disk)?;
        rows.map(|row| {
            let (key, stored) = row.map_err(disk)?;
            decode(self.rows, table, key.value(), stored.value())
        })
        .collect()
    }

    fn table(&self, table: Table) -> Result<Option<redb::ReadOnlyTable<Bytes, Bytes>>, StoreError> {
        match self.transaction.open_table(definition(table)) {
            Ok(opened) => Ok(Some(opened)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(disk(error)),
        }
    }
}

/// A row to write, or None: one to remove.
type Change = Option<Zeroizing<Vec<u8>>>;

/// One write: reads what is committed, what writes before it in the same commit did, and what it did itself.
pub struct Tx<'b, 'a, N> {
    batch: &'b mut Batch<'a, N>,
    rows: BTreeMap<(Table, [u8; 32]), Change>,
    news: Vec<N>,
}

impl<N> Tx<'_, '_, N> {
    /// One row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get<T: DeserializeOwned>(&self, table: Table, name: &[&str]) -> Result<Option<T>, StoreError> {
        let key = self.batch.rows.row_key(table, name);
        match self.rows.get(&(table, key)) {
            Some(Some(row)) => {
                return serde_json::from_slice(row).map(Some).map_err(|_| StoreError::Shape(table.name()));
            }
            Some(None) => return Ok(None),
            None => (),
        }
        let opened = self.batch.transaction.open_table(definition(table)).map_err(disk)?;
        let stored = opened.get(&key[..]).map_err(disk)?;
        stored.map(|stored| decode(self.batch.rows, table, &key, stored.value())).transpose()
    }

    /// All rows of a table, in no particular order; those that this write has put are among them, those it removed are not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, StoreError> {
        let opened = self.batch.transaction.open_table(definition(table)).map_err(disk)?;
        let mut all = Vec::new();
        for row in opened.iter().map_err(disk)? {
            let (key, stored) = row.map_err(disk)?;
            let changed = key.value().try_into().is_ok_and(|key: [u8; 32]| self.rows.contains_key(&(table, key)));
            if !changed {
                all.push(decode(self.batch.rows, table, key.value(), stored.value())?);
            }
        }
        let own = self.rows.range((table, [0; 32])..=(table, [u8::MAX; 32]));
        for row in own.filter_map(|(_, row)| row.as_ref()) {
            all.push(serde_json::from_slice(row).map_err(|_| StoreError::Shape(table.name()))?);
        }
        Ok(all)
    }

    /// Writes one row.
    ///
    /// # Errors
    /// [`StoreError::Shape`].
    pub fn put<T: Serialize>(&mut self, table: Table, name: &[&str], row: &T) -> Result<(), StoreError> {
        let row = Zeroizing::new(serde_json::to_vec(row).map_err(|_| StoreError::Shape(table.name()))?);
        self.rows.insert((table, self.batch.rows.row_key(table, name)), Some(row));
        Ok(())
    }

    /// Removes one row, if there is one.
    pub fn remove(&mut self, table: Table, name: &[&str]) {
        self.rows.insert((table, self.batch.rows.row_key(table, name)), None);
    }

    /// What to announce once this is durable.
    pub fn announce(&mut self, news: N) {
        self.news.push(news);
    }

    /// The moment at which this commit began: what it writes is durable within the fsync that follows.
    pub fn now_ms(&self) -> i64 {
        self.batch.now_ms
    }

    fn apply(self) -> Result<(), StoreError> {
        for ((table, key), row) in self.rows {
            let sealed = row.map(|row| self.batch.rows.seal(table, &key, &row)).transpose()?;
            let written = self.batch.transaction.open_table(definition(table)).map_err(disk).and_then(|mut opened| {
                match &sealed {
                    Some(sealed) => opened.insert(&key[..], &sealed[..]).map(drop),
                    None => opened.remove(&key[..]).map(drop),
                }
                .map_err(disk)
            });
            if let Err(error) = written {
                self.batch.failed = Some(error.clone());
                return Err(error);
            }
            self.batch.dirty = true;
        }
        self.batch.news.extend(self.news);
        Ok(())
    }
}

/// The writes that share a commit.
struct Batch<'a, N> {
    transaction: &'a WriteTransaction,
    rows: &'a RowKeys,
    now_ms: i64,
    news: Vec<N>,
    dirty: bool,
    failed: Option<StoreError>,
}

struct Writer<A> {
    database: Arc<Database>,
    rows: Arc<RowKeys>,
    announce: A,
}

impl<A> Writer<A> {
    fn run<N>(self, mut queue: mpsc::UnboundedReceiver<Job<N>>)
    where
        A: Fn(N),
    {
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < BATCH {
                let Ok(next) = queue.try_recv() else { break };
                jobs.push(next);
            }
            self.commit(jobs);
        }
    }

    fn commit<N>(&self, jobs: Vec<Job<N>>)
    where
        A: Fn(N),
    {
        let transaction = match self.database.begin_write() {
            Ok(transaction) => transaction,
            // Dropping the jobs answers each with "stopped".
            Err(error) => return tracing::error!(%error, "the database takes no writes"),
        };
        let mut batch = Batch {
            transaction: &transaction,
            rows: &self.rows,
            now_ms: clock::now_ms(),
            news: Vec::new(),
            dirty: false,
            failed: None,
        };
        let answers: Vec<After> = jobs.into_iter().map(|job| job(&mut batch)).collect();
        let (news, dirty, failed) = (batch.news, batch.dirty, batch.failed);
        let outcome = match failed {
            Some(error) => transaction.abort().map_err(disk).and(Err(error)),
            None if dirty => transaction.commit().map_err(disk),
            None => transaction.abort().map_err(disk),
        };
        if outcome.is_ok() {
            news.into_iter().for_each(&self.announce);
        }
        answers.into_iter().for_each(|answer| answer(outcome.clone()));
    }
}

fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

fn decode<T: DeserializeOwned>(rows: &RowKeys, table: Table, key: &[u8], stored: &[u8]) -> Result<T, StoreError> {
    let row = rows.open(table, key, stored)?;
    serde_json::from_slice(&row).map_err(|_| StoreError::Shape(table.name()))
}

fn disk(error: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn a_refused_write_leaves_nothing_and_a_committed_one_is_announced_and_read_by_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let store = {
            let heard = heard.clone();
            Store::open(&path, RowKeys::of(&[1; 32]), move |n: u8| heard.lock().unwrap().push(n)).unwrap()
        };
        let refused: Result<(), StoreError> = store
            .write(|tx| {
                tx.put(Table::Secrets, &["a"], &"lost")?;
                tx.announce(1);
                Err(StoreError::InUse)
            })
            .await;
        assert!(refused.is_err());
        let written: Result<Option<String>, StoreError> = store
            .write(|tx| {
                tx.put(Table::Secrets, &["b"], &"kept")?;
                tx.put(Table::Tokens, &["c"], &"removed")?;
                tx.announce(2);
                tx.get(Table::Secrets, &["b"])
            })
            .await;
        assert_eq!(written.unwrap().as_deref(), Some("kept"), "a write sees its own rows");
        assert_eq!(*heard.lock().unwrap(), [2]);
        let all: Result<Vec<String>, StoreError> = store
            .write(|tx| {
                tx.put(Table::Secrets, &["b"], &"changed")?;
                tx.put(Table::Secrets, &["d"], &"new")?;
                tx.put(Table::Agents, &["b"], &"of another table")?;
                tx.put(Table::Secrets, &["e"], &"gone")?;
                tx.remove(Table::Secrets, &["e"]);
                let mut all = tx.all(Table::Secrets)?;
                all.sort_unstable();
                tx.put(Table::Secrets, &["b"], &"kept")?;
                tx.remove(Table::Secrets, &["d"]);
                tx.remove(Table::Agents, &["b"]);
                Ok(all)
            })
            .await;
        assert_eq!(all.unwrap(), ["changed", "new"], "all of a table as the write itself has left it");
        let removed: Result<Option<String>, StoreError> = store
            .write(|tx| {
                tx.remove(Table::Tokens, &["c"]);
                tx.get(Table::Tokens, &["c"])
            })
            .await;
        assert_eq!(removed.unwrap(), None);
        assert_eq!(store.view().unwrap().all::<String>(Table::Tokens).unwrap(), [""; 0]);
        assert!(matches!(Store::open(&path, RowKeys::of(&[1; 32]), |_: u8| ()).err(), Some(StoreError::InUse)));
        let view = store.view().unwrap();
        assert_eq!(view.get::<String>(Table::Secrets, &["a"]).unwrap(), None);
        assert_eq!(view.all::<String>(Table::Secrets).unwrap(), ["kept"]);
        assert_eq!(view.get::<String>(Table::Agents, &["a"]).unwrap(), None, "a table nobody wrote is empty");
    }
}
