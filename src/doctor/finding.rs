//! What one check found, as one line.

use crate::config::Form;
use serde::Serialize;
use std::fmt;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It has to be mended.
    Fail,
    /// Could not be looked at, for a reason that is told elsewhere or needs no mend.
    Skipped,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub says: String,
    /// Whose turn it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<&'static str>,
    /// What that one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Whoever installed the chart.
pub(super) const CLUSTER_ADMIN: &str = "cluster admin";
/// Whoever runs the machines and the network.
pub(super) const NETWORK_ADMIN: &str = "network admin";

impl Finding {
    /// As it should be.
    pub fn ok(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, says: says.into(), turn: None, mend: None }
    }

    /// Not looked at.
    pub fn skipped(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::ok(check, says) }
    }

    /// To be mended by `turn`.
    pub fn fail(
        check: impl Into<String>,
        says: impl Into<String>,
        turn: &'static str,
        mend: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, turn: Some(turn), mend: Some(mend.into()), ..Self::ok(check, says) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Fail => "FAIL",
            Verdict::Skipped => "--  ",
        };
        write!(f, "{word}  {}: {}", self.check, self.says)?;
        if let (Some(turn), Some(mend)) = (self.turn, &self.mend) {
            write!(f, " | {turn}: {mend}")?;
        }
        Ok(())
    }
}

/// All of them, a line each.
pub fn text(findings: &[Finding], form: Form) -> String {
    let line = |finding: &Finding| match form {
        Form::Text => format!("{finding}\n"),
        Form::Json => serde_json::to_string(finding).unwrap_or_default() + "\n",
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_whose_turn_it_is() {
        let all = [
            Finding::ok("a", "fine"),
            Finding::fail("b", "broken", CLUSTER_ADMIN, "kubectl x"),
            Finding::skipped("c", "not here"),
        ];
        assert_eq!(
            text(&all, Form::Text),
            "ok    a: fine\nFAIL  b: broken | cluster admin: kubectl x\n--    c: not here\n"
        );
        assert_eq!(
            text(&all[1..2], Form::Json),
            "{\"check\":\"b\",\"verdict\":\"fail\",\"says\":\"broken\",\"turn\":\"cluster admin\",\"mend\":\"kubectl x\"}\n"
        );
    }
}
