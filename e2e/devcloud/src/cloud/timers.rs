//! The times that end or move a stream. Pure: instants come from the caller.

use std::time::Duration;
use tokio::time::Instant;

/// Without a further declaring ask for this long, a declaration counts as ended.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two beats that declarations cause.
const SPACING: Duration = Duration::from_secs(1);

/// What happens next by time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Send a beat.
    Beat,
    /// Say Drain.
    Drain,
    /// The access token ran out.
    TokenExpired,
    /// The peer said nothing for too long.
    Silent,
    /// The grace after Drain is over.
    Over,
}

/// Deadlines of one stream.
#[derive(Debug)]
pub(super) struct Timers {
    beat_interval: Duration,
    silence: Duration,
    /// None until the first ask is processed.
    beat: Option<Instant>,
    /// A beat that does not wait for its interval.
    early: Option<Instant>,
    /// No early beat before this.
    spaced: Option<Instant>,
    /// None once it was said.
    drain: Option<Instant>,
    token: Instant,
    silent: Instant,
    over: Option<Instant>,
}

impl Timers {
    /// From the moment the stream is opened. `spread` in 0..1 moves the life by up to a fifth either way.
    pub(super) fn start(
        now: Instant,
        beat_interval: Duration,
        silence: Duration,
        life: Duration,
        spread: f64,
        token: Duration,
    ) -> Self {
        let life = life.mul_f64(0.8 + 0.4 * spread.clamp(0.0, 1.0));
        Self {
            beat_interval,
            silence,
            beat: None,
            early: None,
            spaced: None,
            drain: Some(now + life),
            token: now + token,
            silent: now + silence,
            over: None,
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> (Instant, Event) {
        let mut next = (self.token, Event::TokenExpired);
        let others = [
            (Some(self.silent), Event::Silent),
            (self.over, Event::Over),
            (self.drain, Event::Drain),
            (self.beat, Event::Beat),
            (self.early, Event::Beat),
        ];
        for (at, event) in others {
            if let Some(at) = at.filter(|at| *at < next.0) {
                next = (at, event);
            }
        }
        next
    }

    /// A frame came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.silent = now + self.silence;
    }

    /// An ask after the first declared wants. The agent trusts a stream once a beat acknowledges the last ask of its
    /// declaration, so one comes when these asks pause; spaced, so that a stream of asks brings no flood of beats.
    pub(super) fn declared(&mut self, now: Instant) {
        let paused = now + PAUSE;
        self.early = Some(self.spaced.map_or(paused, |spaced| paused.max(spaced)));
    }

    /// A beat is being sent.
    pub(super) fn beaten(&mut self, now: Instant) {
        self.beat = Some(now + self.beat_interval);
        if self.early.take().is_some() {
            self.spaced = Some(now + SPACING);
        }
    }

    /// The token was renewed.
    pub(super) fn renewed(&mut self, now: Instant, life: Duration) {
        self.token = now + life;
    }

    /// Drain is being said; the earliest end counts.
    pub(super) fn draining(&mut self, now: Instant, grace: Duration) {
        self.drain = None;
        self.over = Some(self.over.map_or(now + grace, |over| over.min(now + grace)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_earliest_deadline_comes_first_and_each_is_moved_by_its_own_cause() {
        let now = Instant::now();
        let mut timers = Timers::start(now, 20 * S, 45 * S, 100 * S, 0.5, 30 * S);
        assert_eq!(timers.next(), (now + 30 * S, Event::TokenExpired));
        timers.beaten(now);
        assert_eq!(timers.next(), (now + 20 * S, Event::Beat));
        timers.renewed(now + 15 * S, 900 * S);
        timers.beaten(now + 20 * S);
        timers.beaten(now + 40 * S);
        assert_eq!(timers.next(), (now + 45 * S, Event::Silent));
        timers.heard(now + 44 * S);
        timers.beaten(now + 85 * S);
        assert_eq!(timers.next(), (now + 89 * S, Event::Silent));
        timers.heard(now + 88 * S);
        assert_eq!(timers.next(), (now + 100 * S, Event::Drain));
        timers.draining(now + 100 * S, 3 * S);
        timers.draining(now + 101 * S, 30 * S);
        assert_eq!(timers.next(), (now + 103 * S, Event::Over), "a later grace does not lengthen an earlier one");
    }

    #[test]
    fn a_beat_comes_when_declaring_asks_pause_and_not_often() {
        let now = Instant::now();
        let mut timers = Timers::start(now, 20 * S, 900 * S, 900 * S, 0.5, 900 * S);
        timers.beaten(now);
        timers.declared(now);
        timers.declared(now + PAUSE / 2);
        assert_eq!(timers.next(), (now + PAUSE / 2 + PAUSE, Event::Beat), "once, after the last of them");
        timers.beaten(now + S);
        assert_eq!(timers.next(), (now + 21 * S, Event::Beat), "then the interval again");
        timers.declared(now + S);
        assert_eq!(timers.next(), (now + S + SPACING, Event::Beat), "the next early one is spaced");
        timers.declared(now + 30 * S);
        assert_eq!(timers.next(), (now + 21 * S, Event::Beat), "asks without a pause do not delay the interval");
        timers.beaten(now + 21 * S);
        assert_eq!(timers.next(), (now + 41 * S, Event::Beat), "which acknowledged them");
    }

    #[test]
    fn a_stream_of_declaring_asks_is_no_flood_of_beats() {
        let now = Instant::now();
        let mut timers = Timers::start(now, 20 * S, 900 * S, 900 * S, 0.5, 900 * S);
        timers.beaten(now);
        let mut beats = 0;
        for step in 1..=1000 {
            let at = now + step * (PAUSE + PAUSE / 5);
            if timers.next().0 <= at {
                timers.beaten(timers.next().0);
                beats += 1;
            }
            timers.declared(at);
        }
        // A minute of asks, each of which paused long enough.
        assert!((2..=61).contains(&beats), "{beats}");
    }

    #[test]
    fn the_life_of_a_stream_varies_by_a_fifth_either_way() {
        let now = Instant::now();
        let drain = |spread| Timers::start(now, S, 900 * S, 100 * S, spread, 900 * S).next();
        assert_eq!(drain(0.0), (now + 80 * S, Event::Drain));
        assert_eq!(drain(1.0), (now + 120 * S, Event::Drain));
    }
}
