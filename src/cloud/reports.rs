//! What became of a version in the cluster, for the cloud to show: levels, of which the last one wins.
//!
//! One level a workload of a binding, and one for the binding itself. Nothing waits for an answer: a level that got lost comes
//! with the next stream, which is told all of them anew, so a cloud that restarted, or was restored, knows again. Locks are
//! held for a map access, never across an await.

use crate::wire;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Levels that are kept: a cluster with more shows a part of them.
const MAX_LEVELS: usize = 20_000;
/// Reports in one ask at most.
const REPORTS_PER_ASK: usize = 500;
/// At most this many bytes of them: a frame holds 256 KiB, and the wants, keys and unwants beside them may take 230.
const BYTES_PER_ASK: usize = 16 * 1024;
/// The binding itself, where a workload is named.
const BINDING: &str = "";

/// How far something is with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not begun: it waits, for a wave, a window or a person.
    Pending,
    /// Under way.
    Progressing,
    /// Done: this version runs.
    Complete,
    /// It did not come up in time, or was refused.
    Failed,
}

impl Phase {
    fn on_wire(self) -> wire::report::Phase {
        match self {
            Self::Pending => wire::report::Phase::Pending,
            Self::Progressing => wire::report::Phase::Progressing,
            Self::Complete => wire::report::Phase::Complete,
            Self::Failed => wire::report::Phase::Failed,
        }
    }
}

/// uid of a binding, and KIND/NAME of a workload.
type Key = (String, String);

struct Level {
    /// `None`: there is nothing to show any more, which the cloud has to hear once.
    is: Option<(u64, Phase)>,
    /// Whether this stream carried a report of it.
    told: bool,
}

#[derive(Default)]
struct Board {
    levels: BTreeMap<Key, Level>,
    /// What the stream has not carried as it stands now.
    due: BTreeSet<Key>,
    /// The stream that reports.
    stream: u64,
    /// Whether it was said that there are more than are kept.
    said_full: bool,
}

/// Shared by the controllers and the stream.
#[derive(Clone, Default)]
pub struct Reports {
    board: Arc<Mutex<Board>>,
    changed: Arc<Notify>,
}

impl Reports {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a workload (KIND/NAME) of a binding stands. `Complete`: it runs the content of this version, whether it had to
    /// restart for that or not. Cheap where nothing changed.
    pub fn set(&self, binding_uid: &str, version: u64, workload: &str, phase: Phase) {
        self.put(binding_uid, workload, version, phase);
    }

    /// Where the binding itself stands. A want acknowledges a version that was refused too, so that it is not sent over and
    /// over; only this tells the two apart. `Complete`: the Secret holds it. `Failed`: it was refused, and the Secret holds
    /// what it held. `Pending`: it was only looked at (`mode: Observe`). Said before the want is raised, both travel together.
    pub fn set_binding(&self, binding_uid: &str, version: u64, phase: Phase) {
        self.put(binding_uid, BINDING, version, phase);
    }

    /// A workload is none of the binding's any more.
    pub fn forget_workload(&self, binding_uid: &str, workload: &str) {
        let mut board = self.board();
        if board.forget((binding_uid.to_owned(), workload.to_owned())) {
            drop(board);
            self.changed.notify_one();
        }
    }

    /// A binding is gone, or is not reported on any more.
    pub fn forget(&self, binding_uid: &str) {
        let mut board = self.board();
        let from = (binding_uid.to_owned(), String::new());
        let of_it = board.levels.range(from..).map(|(key, _)| key).take_while(|(uid, _)| uid == binding_uid);
        let keys: Vec<Key> = of_it.cloned().collect();
        let mut due = false;
        for key in keys {
            due |= board.forget(key);
        }
        drop(board);
        if due {
            self.changed.notify_one();
        }
    }

    /// Wakes the stream's task when there is something to report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// From now on this stream reports, all levels anew. What the cloud is to forget it forgets by not hearing of it.
    pub fn begin(&self, stream: u64) {
        let mut board = self.board();
        board.stream = stream;
        board.levels.retain(|_, level| level.is.is_some());
        board.levels.values_mut().for_each(|level| level.told = false);
        board.due = board.levels.keys().cloned().collect();
        drop(board);
        self.changed.notify_one();
    }

    /// What this stream has not carried yet, at most one frame of it. `declared`: whether the cloud has heard of a binding on
    /// it; before, it would drop the report.
    pub fn next_ask(&self, stream: u64, declared: impl Fn(&str) -> bool) -> Vec<wire::Report> {
        let mut board = self.board();
        if board.stream != stream || board.due.is_empty() {
            return vec![];
        }
        let mut reports = Vec::new();
        let mut carried = Vec::new();
        let mut bytes = 0;
        for key in board.due.iter().filter(|(uid, _)| declared(uid)) {
            let is = board.levels.get(key).and_then(|level| level.is);
            let report = wire::Report {
                binding_uid: key.0.clone(),
                workload: key.1.clone(),
                version: is.map_or(0, |(version, _)| version),
                phase: is.map_or(wire::report::Phase::Complete, |(_, phase)| phase.on_wire()) as i32,
            };
            bytes += report.encoded_len() + 4;
            if reports.len() == REPORTS_PER_ASK || bytes > BYTES_PER_ASK {
                break;
            }
            reports.push(report);
            carried.push(key.clone());
        }
        for key in carried {
            board.due.remove(&key);
            if let Some(level) = board.levels.get_mut(&key) {
                level.told = true;
                if level.is.is_none() {
                    board.levels.remove(&key);
                }
            }
        }
        reports
    }

    fn put(&self, uid: &str, workload: &str, version: u64, phase: Phase) {
        let mut board = self.board();
        let key = (uid.to_owned(), workload.to_owned());
        let is = Some((version, phase));
        let full = board.levels.len() >= MAX_LEVELS;
        match board.levels.get_mut(&key) {
            Some(level) if level.is == is => return,
            Some(level) => level.is = is,
            None if full => {
                if !std::mem::replace(&mut board.said_full, true) {
                    tracing::warn!(
                        most = MAX_LEVELS,
                        "more restarted workloads than are reported to the cloud; its `secret status` shows a part of them"
                    );
                }
                return;
            }
            None => drop(board.levels.insert(key.clone(), Level { is, told: false })),
        }
        board.due.insert(key);
        drop(board);
        self.changed.notify_one();
    }
}

impl Board {
    /// Whether the cloud has to hear of it.
    fn forget(&mut self, key: Key) -> bool {
        let Some(level) = self.levels.get_mut(&key) else { return false };
        if level.told {
            return level.is.take().is_some() && self.due.insert(key);
        }
        self.levels.remove(&key);
        self.due.remove(&key);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use wire::report::Phase as OnWire;

    /// uid, workload, version and phase of a report.
    type Told = (String, String, u64, &'static str);

    fn told(reports: &Reports, stream: u64) -> Vec<Told> {
        let next = reports.next_ask(stream, |_| true);
        next.into_iter()
            .map(|r| (r.binding_uid.clone(), r.workload.clone(), r.version, r.phase().as_str_name()))
            .collect()
    }

    fn level(uid: &str, workload: &str, version: u64, phase: OnWire) -> Told {
        (uid.into(), workload.into(), version, phase.as_str_name())
    }

    const WEB: &str = "Deployment/web";

    #[test]
    fn the_last_level_wins_and_each_is_carried_once_a_stream() {
        let reports = Reports::default();
        reports.set("u", 3, WEB, Phase::Pending);
        reports.set("u", 3, WEB, Phase::Progressing);
        assert_eq!(told(&reports, 1), [], "no stream has begun");
        reports.begin(1);
        assert_eq!(told(&reports, 1), [level("u", WEB, 3, OnWire::Progressing)]);
        reports.set("u", 3, WEB, Phase::Progressing);
        assert_eq!(told(&reports, 1), [], "nothing changed");
        reports.set("u", 3, WEB, Phase::Complete);
        reports.set_binding("u", 4, Phase::Failed);
        assert_eq!(told(&reports, 1), [level("u", "", 4, OnWire::Failed), level("u", WEB, 3, OnWire::Complete)]);
        reports.begin(2);
        reports.set("u", 4, WEB, Phase::Pending);
        assert_eq!(told(&reports, 1), [], "the older stream reports no more");
        assert_eq!(told(&reports, 2), [level("u", "", 4, OnWire::Failed), level("u", WEB, 4, OnWire::Pending)]);
    }

    #[test]
    fn what_is_forgotten_is_told_once_and_only_to_who_heard_of_it() {
        let reports = Reports::default();
        reports.begin(1);
        reports.set("u", 3, WEB, Phase::Failed);
        reports.set("u", 3, "StatefulSet/db", Phase::Complete);
        reports.set("v", 3, WEB, Phase::Complete);
        reports.forget_workload("u", "StatefulSet/db");
        assert_eq!(told(&reports, 1).len(), 2, "one was never told");
        reports.forget("u");
        reports.forget("u");
        assert_eq!(told(&reports, 1), [level("u", WEB, 0, OnWire::Complete)]);
        assert_eq!(told(&reports, 1), []);
        reports.forget("v");
        reports.set("v", 3, WEB, Phase::Complete);
        assert_eq!(told(&reports, 1), [level("v", WEB, 3, OnWire::Complete)], "back again before it was told");
        reports.forget("v");
        reports.begin(2);
        assert_eq!((told(&reports, 2), reports.board().levels.len()), (vec![], 0), "a new stream never heard of it");
    }

    #[test]
    fn a_report_waits_for_the_want_of_its_binding() {
        let reports = Reports::default();
        reports.begin(1);
        reports.set("u", 3, WEB, Phase::Complete);
        reports.set("v", 3, WEB, Phase::Complete);
        let uids = |next: Vec<wire::Report>| next.into_iter().map(|r| r.binding_uid).collect::<Vec<_>>();
        assert_eq!(uids(reports.next_ask(1, |uid| uid == "v")), ["v"]);
        assert_eq!(uids(reports.next_ask(1, |_| true)), ["u"]);
    }

    #[test]
    fn a_frame_holds_a_part_and_memory_is_bounded() {
        let reports = Reports::default();
        reports.begin(1);
        (0..MAX_LEVELS + 10).for_each(|n| reports.set(&format!("u{n}"), 1, WEB, Phase::Complete));
        reports.set("u0", 2, WEB, Phase::Complete);
        let mut all = 0;
        loop {
            let next = reports.next_ask(1, |_| true);
            if next.is_empty() {
                break;
            }
            let ask = wire::Ask { reports: next, ..Default::default() };
            assert!(ask.encoded_len() <= BYTES_PER_ASK && ask.reports.len() <= REPORTS_PER_ASK);
            all += ask.reports.len();
        }
        assert_eq!((all, reports.board().levels.len()), (MAX_LEVELS, MAX_LEVELS));
        reports.forget("u1");
        assert_eq!(told(&reports, 1), [level("u1", WEB, 0, OnWire::Complete)]);
        reports.set("new", 1, WEB, Phase::Failed);
        assert_eq!(told(&reports, 1), [level("new", WEB, 1, OnWire::Failed)], "there is room again");
    }

    #[test]
    fn the_stream_is_woken_by_what_it_has_to_carry() {
        let reports = Reports::default();
        let woken = || reports.changed().now_or_never().is_some();
        reports.set("u", 1, WEB, Phase::Pending);
        assert!(woken());
        reports.set("u", 1, WEB, Phase::Pending);
        assert!(!woken(), "nothing changed");
        reports.forget("u");
        assert!(!woken(), "nobody heard of it");
        reports.begin(1);
        assert!(woken());
    }
}
