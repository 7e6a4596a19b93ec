//! What one stream says of its bindings: their wants as they stand, and the reports beside them. Pure: the caller writes it
//! down.
//!
//! Guarantees: of a binding that no want of this stream names, nothing is kept; of several words on the same thing the last one
//! is; what waits to be written is bounded.

use crate::delivery::Wanted;
use crate::store::Phase;
use crate::wire;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Workloads of one binding that are shown.
pub const MAX_WORKLOADS: usize = 500;
/// Workloads of all bindings of a stream that are shown.
const MAX_WORKLOADS_OF_ALL: usize = 50_000;
/// Bytes of a workload's name: a kind, and a name of Kubernetes.
const MAX_NAME: usize = 512;
/// Bindings written at once.
const BATCH: usize = 500;
/// Words that may wait: beyond, the stream is not read.
const MAX_WAITING: usize = 20_000;

/// What is to be written of one binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What is there is of an older want, and goes first.
    pub anew: bool,
    /// The want, with its known_version.
    pub want: Option<(Wanted, u64)>,
    /// By KIND/NAME, empty for the binding itself. None: nothing any more.
    pub reports: BTreeMap<String, Option<(u64, Phase)>>,
}

struct Bound {
    id: u64,
    workloads: BTreeSet<String>,
}

/// The bindings of a stream, and what of them is not written yet.
#[derive(Default)]
pub struct Said {
    bindings: HashMap<String, Bound>,
    workloads: usize,
    waiting: BTreeMap<String, Change>,
    words: usize,
    dropped: u64,
}

impl Said {
    /// A want was declared, or sent again.
    pub fn want(&mut self, wanted: &Wanted, known: u64) {
        let bound = self.bindings.entry(wanted.binding_uid.clone());
        let bound = bound.or_insert_with(|| Bound { id: wanted.id, workloads: BTreeSet::new() });
        let other = std::mem::replace(&mut bound.id, wanted.id) != wanted.id;
        self.change(wanted.binding_uid.clone(), |change| {
            change.anew |= other;
            change.want = Some((wanted.clone(), known));
        });
    }

    /// A want was taken back.
    pub fn unwant(&mut self, wanted: &Wanted) {
        if self.bindings.get(&wanted.binding_uid).is_none_or(|bound| bound.id != wanted.id) {
            return;
        }
        let bound = self.bindings.remove(&wanted.binding_uid);
        self.workloads -= bound.map_or(0, |bound| bound.workloads.len());
        self.change(wanted.binding_uid.clone(), |change| *change = Change { anew: true, ..Change::default() });
    }

    /// A report. One that cannot be placed is dropped, not refused: a newer agent may say more than this cloud shows.
    pub fn report(&mut self, report: wire::Report) {
        let phase = match report.phase() {
            wire::report::Phase::Pending => Phase::Pending,
            wire::report::Phase::Progressing => Phase::Progressing,
            wire::report::Phase::Complete => Phase::Complete,
            wire::report::Phase::Failed => Phase::Failed,
            wire::report::Phase::Unspecified => return self.dropped += 1,
        };
        let fits = report.workload.len() <= MAX_NAME && !report.workload.chars().any(char::is_control);
        let Some(bound) = self.bindings.get_mut(&report.binding_uid).filter(|_| fits) else {
            return self.dropped += 1;
        };
        let said = (report.version > 0).then_some((report.version, phase));
        match said {
            None => self.workloads -= usize::from(bound.workloads.remove(&report.workload)),
            Some(_) if bound.workloads.contains(&report.workload) => (),
            Some(_) if bound.workloads.len() >= MAX_WORKLOADS || self.workloads >= MAX_WORKLOADS_OF_ALL => {
                return self.dropped += 1;
            }
            Some(_) => self.workloads += usize::from(bound.workloads.insert(report.workload.clone())),
        }
        self.change(report.binding_uid, |change| {
            change.reports.insert(report.workload, said);
        });
    }

    fn change(&mut self, binding_uid: String, edit: impl FnOnce(&mut Change)) {
        let change = self.waiting.entry(binding_uid).or_default();
        let before = change.words();
        edit(change);
        self.words = self.words + change.words() - before;
    }

    /// Whether nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more may be heard before what waits is written.
    pub fn has_room(&self) -> bool {
        self.words < MAX_WAITING
    }

    /// What is to be written next, by the uids of the bindings. Empty: nothing.
    pub fn take(&mut self) -> Vec<(String, Change)> {
        let mut next = Vec::new();
        while next.len() < BATCH
            && let Some((uid, change)) = self.waiting.pop_first()
        {
            self.words -= change.words();
            next.push((uid, change));
        }
        next
    }

    /// The workloads that this stream named of a binding; None: it wants nothing for it.
    pub fn workloads_of(&self, binding_uid: &str) -> Option<&BTreeSet<String>> {
        self.bindings.get(binding_uid).map(|bound| &bound.workloads)
    }

    /// Reports that could not be placed, since it was last asked.
    pub fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

impl Change {
    fn words(&self) -> usize {
        usize::from(self.want.is_some() || (self.anew && self.reports.is_empty())) + self.reports.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "Deployment/web";

    fn wanted(id: u64, uid: &str) -> Wanted {
        Wanted {
            id,
            namespace: "shop".into(),
            binding: "db".into(),
            binding_uid: uid.into(),
            workspace: "prod".into(),
            secret: "db".into(),
            pin: 0,
        }
    }

    fn report(uid: &str, version: u64, workload: &str, phase: wire::report::Phase) -> wire::Report {
        wire::Report { binding_uid: uid.into(), version, workload: workload.into(), phase: phase as i32 }
    }

    #[test]
    fn the_last_word_counts_and_is_written_once() {
        use wire::report::Phase::{Complete, Failed, Progressing};
        let mut said = Said::default();
        said.want(&wanted(1, "u"), 0);
        said.want(&wanted(1, "u"), 3);
        said.report(report("u", 3, WEB, Progressing));
        said.report(report("u", 3, WEB, Complete));
        said.report(report("u", 3, "", Failed));
        let next = said.take();
        let reports = [("".into(), Some((3, Phase::Failed))), (WEB.into(), Some((3, Phase::Complete)))].into();
        assert_eq!(next, [("u".to_owned(), Change { anew: false, want: Some((wanted(1, "u"), 3)), reports })]);
        assert_eq!((said.take(), said.words), (vec![], 0));
        said.report(report("u", 0, WEB, Complete));
        assert_eq!(said.take()[0].1.reports, [(WEB.into(), None)].into());
        assert_eq!(said.workloads_of("u").unwrap().len(), 1, "the binding itself");
    }

    #[test]
    fn what_no_want_names_or_nobody_understands_is_dropped() {
        use wire::report::Phase::{Complete, Unspecified};
        let mut said = Said::default();
        said.want(&wanted(1, "u"), 0);
        said.take();
        said.report(report("other", 3, WEB, Complete));
        said.report(report("u", 3, WEB, Unspecified));
        said.report(report("u", 3, "Deployment/\u{1b}[2J", Complete));
        said.report(report("u", 3, &"x".repeat(513), Complete));
        assert_eq!((said.take(), said.dropped(), said.dropped()), (vec![], 4, 0));
        (0..=MAX_WORKLOADS).for_each(|n| said.report(report("u", 3, &format!("Deployment/{n}"), Complete)));
        assert_eq!((said.take()[0].1.reports.len(), said.dropped()), (MAX_WORKLOADS, 1));
    }

    #[test]
    fn a_want_that_was_taken_back_takes_its_workloads_with_it() {
        let mut said = Said::default();
        said.want(&wanted(1, "u"), 3);
        said.report(report("u", 3, WEB, wire::report::Phase::Complete));
        said.unwant(&wanted(1, "u"));
        let gone = Change { anew: true, ..Change::default() };
        assert_eq!((said.words, said.workloads, said.take()), (1, 0, vec![("u".to_owned(), gone)]));
        assert!(said.workloads_of("u").is_none() && said.words == 0);
        said.want(&wanted(2, "u"), 0);
        said.unwant(&wanted(1, "u"));
        let next = said.take();
        assert_eq!((next.len(), next[0].1.want.is_some()), (1, true), "another want stands for it");
        said.unwant(&wanted(2, "u"));
        said.want(&wanted(3, "u"), 0);
        let next = said.take();
        assert!(next[0].1.anew && next[0].1.want.is_some() && said.words == 0, "another secret under the same binding");
    }

    #[test]
    fn what_waits_is_bounded_and_written_in_parts() {
        let mut said = Said::default();
        let mut id = 0;
        while said.has_room() {
            id += 1;
            said.want(&wanted(id, &format!("u{id}")), 0);
        }
        assert_eq!((id as usize, said.take().len()), (MAX_WAITING, BATCH));
        assert!(said.has_room());
    }
}
