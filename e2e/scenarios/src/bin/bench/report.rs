//! The figures, as a table for people and as JSON.

use crate::subject::{Burst, Latencies, Restart};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Rows of the table.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<[String; 4]>,
    figures: Vec<Value>,
}

impl Report {
    fn row(&mut self, figure: &str, bare: String, agent: String, ratio: String, json: Value) {
        self.rows.push([figure.to_owned(), bare, agent, ratio]);
        self.figures.push(json);
    }

    /// Latency of one change at a time.
    pub(crate) fn latency(&mut self, bare: &[Duration], agent: &Latencies) {
        for (what, times) in
            [("commit acknowledged -> visible", &agent.acknowledged), ("put sent -> visible", &agent.sent)]
        {
            for percent in [50, 99] {
                let (of_bare, of_agent) = (percentile(bare, percent), percentile(times, percent));
                let ratio = of_agent / of_bare;
                self.row(
                    &format!("{what}, p{percent}"),
                    format!("{of_bare:.2} ms"),
                    format!("{of_agent:.2} ms"),
                    format!("{ratio:.2}x"),
                    json!({"figure": what, "percentile": percent, "bare_ms": of_bare, "agent_ms": of_agent, "ratio": ratio, "samples": times.len()}),
                );
            }
        }
    }

    /// Rates of a burst: against a client that only patches Secrets, and against one that makes both writes of a change.
    pub(crate) fn burst(&mut self, secrets: &Duration, both: &Duration, agent: &Burst, count: usize) {
        let rate = |writes: usize, took: Duration| writes as f64 / took.as_secs_f64();
        let rows = [
            ("burst, writes; bare: Secrets only", rate(count, *secrets), rate(agent.writes, agent.took)),
            ("burst, changes; bare: the same two writes", rate(count, *both), rate(count, agent.took)),
        ];
        for (figure, of_bare, of_agent) in rows {
            let ratio = of_agent / of_bare;
            self.row(
                figure,
                format!("{of_bare:.0}/s"),
                format!("{of_agent:.0}/s"),
                format!("{ratio:.2}x"),
                json!({"figure": figure, "bare_per_s": of_bare, "agent_per_s": of_agent, "ratio": ratio, "changes": count}),
            );
        }
    }

    /// Resident memory.
    pub(crate) fn memory(&mut self, what: &str, bytes: u64) {
        let mib = bytes as f64 / 1024.0 / 1024.0;
        self.row(what, String::new(), format!("{mib:.1} MiB"), String::new(), json!({"figure": what, "bytes": bytes}));
    }

    /// A restart with nothing changed.
    pub(crate) fn restart(&mut self, restart: &Restart, bindings: usize) {
        let millis = restart.ready.as_millis();
        let writes = restart.secret_writes;
        self.row(
            "restart, until ready",
            String::new(),
            format!("{millis} ms"),
            String::new(),
            json!({"figure": "restart_ready", "ms": millis, "bindings": bindings}),
        );
        self.row(
            "restart, Secret writes",
            String::new(),
            writes.to_string(),
            String::new(),
            json!({"figure": "restart_secret_writes", "writes": writes}),
        );
    }

    /// Size of the binary under test.
    pub(crate) fn binary(&mut self, file: &Path) -> Result<()> {
        let bytes = std::fs::metadata(file).with_context(|| format!("no {}", file.display()))?.len();
        let mb = bytes as f64 / 1e6;
        self.row(
            "binary",
            String::new(),
            format!("{mb:.1} MB"),
            String::new(),
            json!({"figure": "binary", "bytes": bytes}),
        );
        Ok(())
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let head = ["figure", "bare client", "agent", "ratio"].map(str::to_owned);
        let rows: Vec<&[String; 4]> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        let mut text = String::from("\n");
        for row in rows {
            let [figure, bare, agent, ratio] = row;
            let [a, b, c, d] = widths;
            text.push_str(&format!("{figure:<a$}  {bare:>b$}  {agent:>c$}  {ratio:>d$}\n"));
        }
        text
    }

    /// For machines.
    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&json!({"figures": self.figures}))? + "\n")
    }
}

/// In milliseconds; nearest rank.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).map_or(f64::NAN, |t| t.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (50.0, 99.0));
        assert_eq!(percentile(&times[..1], 99), 100.0);
        assert!(percentile(&[], 50).is_nan());
    }
}
