//! When restarts may begin.

use crate::crd;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A time in which restarts may begin: it opens by a cron expression on a wall clock, and stays open for so long.
#[derive(Clone, Debug)]
pub struct Window {
    cron: Cron,
    duration: SignedDuration,
    zone: TimeZone,
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.cron.as_str() == other.cron.as_str() && self.duration == other.duration && self.zone == other.zone
    }
}

/// Whether restarts may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// They may.
    Open,
    /// They may from then on.
    At(Timestamp),
    /// Never.
    Never,
}

impl Window {
    /// Parses a window of a binding.
    ///
    /// # Errors
    /// What the schema could not refuse: a cron expression or a time zone that does not exist.
    pub fn parse(window: &crd::Window) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron =
            parser.parse(&window.cron).map_err(|error| format!("{:?} is no cron expression: {error}", window.cron))?;
        let name = window.time_zone.as_deref().unwrap_or("UTC");
        let zone =
            TimeZone::get(name).map_err(|_| format!("{name:?} is no time zone; it takes a name like Europe/Berlin"))?;
        let duration =
            window.duration.length().ok_or_else(|| format!("{:?} is no length of time", window.duration.0))?;
        Ok(Self { cron, duration, zone })
    }

    /// Whether it is open, or when it will be.
    pub fn opening(&self, now: Timestamp) -> Opening {
        let here = now.to_zoned(self.zone.clone());
        let open =
            self.cron.find_previous_occurrence(&here, true).is_ok_and(|began| now < began.timestamp() + self.duration);
        if open {
            return Opening::Open;
        }
        self.cron.find_next_occurrence(&here, false).map_or(Opening::Never, |next| Opening::At(next.timestamp()))
    }
}

/// Whether one of them is open, or when the first will be. Without any, restarts may begin at any time.
pub fn opening(windows: &[Window], now: Timestamp) -> Opening {
    let mut first = if windows.is_empty() { Opening::Open } else { Opening::Never };
    for window in windows {
        first = match (first, window.opening(now)) {
            (Opening::Open, _) | (_, Opening::Open) => Opening::Open,
            (Opening::At(a), Opening::At(b)) => Opening::At(a.min(b)),
            (Opening::Never, other) | (other, Opening::Never) => other,
        };
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(cron: &str, duration: &str, zone: Option<&str>) -> Result<Window, String> {
        Window::parse(&crd::Window {
            cron: cron.into(),
            duration: crd::Span(duration.into()),
            time_zone: zone.map(str::to_owned),
        })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_opens_on_the_wall_clock_of_its_zone() {
        let saturday = window("0 2 * * SAT", "2h", Some("Europe/Berlin")).unwrap();
        // 2026-01-03 is a Saturday; Berlin is an hour ahead of UTC in winter, two in summer.
        assert_eq!(saturday.opening(at("2026-01-03T00:59:59Z")), Opening::At(at("2026-01-03T01:00:00Z")));
        assert_eq!(saturday.opening(at("2026-01-03T01:00:00Z")), Opening::Open);
        assert_eq!(saturday.opening(at("2026-01-03T02:59:59Z")), Opening::Open);
        assert_eq!(saturday.opening(at("2026-01-03T03:00:00Z")), Opening::At(at("2026-01-10T01:00:00Z")));
        assert_eq!(saturday.opening(at("2026-07-04T00:00:00Z")), Opening::Open);
        assert_eq!(window("0 2 * * 6", "2h", None).unwrap().opening(at("2026-07-04T02:00:00Z")), Opening::Open);
        assert_eq!(window("0 2 * * 7", "2h", None), window("0 2 * * 7", "2h", Some("UTC")));
    }

    #[test]
    fn an_hour_that_the_clock_skips_still_opens_a_window() {
        // Berlin goes from 02:00 to 03:00 on 2026-03-29.
        let night = window("30 2 * * *", "1h", Some("Europe/Berlin")).unwrap();
        let Opening::At(next) = night.opening(at("2026-03-29T00:00:00Z")) else { panic!("open") };
        assert!((at("2026-03-29T01:00:00Z")..=at("2026-03-29T01:30:00Z")).contains(&next), "{next}");
    }

    #[test]
    fn a_window_may_be_longer_than_the_time_between_two() {
        assert_eq!(window("0 0 * * *", "30h", None).unwrap().opening(at("2026-01-01T23:59:00Z")), Opening::Open);
    }

    #[test]
    fn one_of_several_is_enough_and_none_is_always() {
        let now = at("2026-01-01T12:00:00Z");
        let (morning, noon) = (window("0 8 * * *", "1h", None).unwrap(), window("0 12 * * *", "1h", None).unwrap());
        assert_eq!(opening(&[], now), Opening::Open);
        assert_eq!(opening(&[morning.clone(), noon.clone()], now), Opening::Open);
        assert_eq!(opening(&[morning, noon], at("2026-01-01T13:00:00Z")), Opening::At(at("2026-01-02T08:00:00Z")));
        assert_eq!(opening(&[window("0 0 30 2 *", "1h", None).unwrap()], now), Opening::Never);
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (cron, zone, why) in [
            ("61 * * * *", None, "no cron expression"),
            ("* * * * * *", None, "no cron expression"),
            ("0 0 * * *", Some("Europe/Nowhere"), "no time zone"),
        ] {
            let error = window(cron, "1h", zone).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
