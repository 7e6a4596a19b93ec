//! Keeps the database's picture of a stream's bindings, beside the deliveries: nothing waits for it.

use crate::core::{Core, Refusal};
use crate::delivery::{Delivery, Wanted};
use crate::reports::Said;
use crate::store::StoreError;
use crate::wire;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An agent that says nothing new is noted as heard this often.
const SEEN_EVERY: Duration = Duration::from_secs(60);
/// Beats without a new word after which what the stream has not named counts as gone.
const QUIET_BEATS: u32 = 3;

type Writing = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// What an ask says of bindings, for when the delivery has accepted it.
pub(super) struct Word {
    wants: Vec<u64>,
    unwanted: Vec<Wanted>,
    reports: Vec<wire::Report>,
}

impl Word {
    /// Takes the reports out of an ask, which nothing else reads.
    pub(super) fn of(ask: &mut wire::Ask, delivery: &Delivery) -> Self {
        let wanted = |id: &u64| delivery.standing(*id).map(|(wanted, _)| wanted.clone());
        Self {
            wants: ask.wants.iter().map(|want| want.id).collect(),
            unwanted: ask.unwants.iter().filter_map(wanted).collect(),
            reports: std::mem::take(&mut ask.reports),
        }
    }
}

/// The books of one stream.
pub(super) struct Books {
    core: Arc<Core>,
    agent_id: String,
    epoch: u64,
    said: Said,
    writing: Option<Writing>,
    /// When the agent was last noted as heard.
    seen: Option<Instant>,
    /// When it last said something new.
    spoke: Instant,
    /// What the stream has not named was looked for.
    swept: bool,
    sweep_due: bool,
    seen_due: bool,
}

impl Books {
    pub(super) fn open(core: Arc<Core>, agent_id: String, epoch: u64) -> Self {
        Self {
            core,
            agent_id,
            epoch,
            said: Said::default(),
            writing: None,
            seen: None,
            spoke: Instant::now(),
            swept: false,
            sweep_due: false,
            seen_due: true,
        }
    }

    /// Whether more may be heard before what is waiting is written.
    pub(super) fn has_room(&self) -> bool {
        self.said.has_room()
    }

    /// Takes what an accepted ask said.
    pub(super) fn note(&mut self, word: Word, delivery: &Delivery) {
        if !word.wants.is_empty() || !word.reports.is_empty() {
            self.spoke = Instant::now();
        }
        word.unwanted.iter().for_each(|wanted| self.said.unwant(wanted));
        for (wanted, known) in word.wants.into_iter().filter_map(|id| delivery.standing(id)) {
            self.said.want(wanted, known);
        }
        word.reports.into_iter().for_each(|report| self.said.report(report));
        let dropped = self.said.dropped();
        if dropped > 0 {
            tracing::debug!(agent = self.agent_id, dropped, "reports that say nothing of a binding that is wanted");
        }
    }

    /// A beat was sent: time has passed.
    pub(super) fn beaten(&mut self) {
        self.seen_due |= self.seen.is_none_or(|seen| seen.elapsed() >= SEEN_EVERY);
        let quiet = self.spoke.elapsed() >= self.core.lives.beat_interval * QUIET_BEATS;
        if quiet && !self.swept {
            (self.swept, self.sweep_due) = (true, true);
        }
    }

    /// Writes what is to be written; ends with each write, and never where there is none. May be dropped at any time.
    pub(super) async fn written(&mut self) -> Result<(), Refusal> {
        if self.writing.is_none() {
            self.writing = self.begin()?;
        }
        let Some(writing) = self.writing.as_mut() else { return pending().await };
        let written = writing.await;
        self.writing = None;
        Ok(written?)
    }

    /// Writes the rest, as the stream ends.
    pub(super) async fn close(mut self) {
        self.seen_due = true;
        while self.writing.is_some() || self.seen_due || !self.said.is_empty() {
            if let Err(refusal) = self.written().await {
                return tracing::error!(reason = refusal.reason(), "what a stream said of its bindings is not kept");
            }
        }
    }

    fn begin(&mut self) -> Result<Option<Writing>, StoreError> {
        let mut said = self.said.take();
        if said.is_empty() && std::mem::take(&mut self.sweep_due) {
            said = self.core.unsaid(&self.agent_id, &self.said)?;
        }
        if said.is_empty() && !self.seen_due {
            return Ok(None);
        }
        (self.seen, self.seen_due) = (Some(Instant::now()), false);
        let (core, agent_id, epoch) = (self.core.clone(), self.agent_id.clone(), self.epoch);
        Ok(Some(Box::pin(async move { core.record(&agent_id, epoch, said).await })))
    }
}
