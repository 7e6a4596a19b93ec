//! `secret status`: who holds which version, and how the workloads came along.

use super::args::Format;
use super::output::{Output, rfc3339, since};
use crate::core::{BindingStatus, SecretStatus, State, WorkloadStatus};
use crate::names::quoted;
use crate::store::Phase;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

impl<W: Write> Output<W> {
    pub(super) fn status(&mut self, status: &SecretStatus) -> io::Result<()> {
        if self.format == Format::Json {
            return self.json(&status_json(status));
        }
        let (name, workspace, now) = (quoted(&status.name), &status.workspace, self.now_ms);
        let at = moment(status.committed_at_ms, now);
        match status.deleted {
            true => self.line(&format!(
                "{name} is deleted: version {} is its tombstone (workspace {workspace}), since {at}",
                status.version
            ))?,
            false => self.line(&format!(
                "{name} is at version {} ({}, workspace {workspace}), since {at}",
                status.version, status.kind
            ))?,
        }
        if status.bindings.is_empty() {
            return self.line("No binding of any agent asks for it.");
        }
        self.line(&summary(status))?;
        self.line("")?;
        let rows: Vec<Row> = status.bindings.iter().flat_map(|binding| rows(binding, now)).collect();
        let head = ["AGENT", "NAMESPACE", "BINDING", "WORKLOAD", "VERSION", "STATE", "SINCE"];
        self.list(&head, &rows, |_| Value::Null, |row, _| row.to_vec(), "")?;
        let away: BTreeMap<&str, i64> =
            status.bindings.iter().filter(|b| !b.connected).map(|b| (b.agent.as_str(), b.seen_at_ms)).collect();
        for (agent, seen_at_ms) in away {
            let seen = moment(seen_at_ms, now);
            self.line("")?;
            self.line(&format!(
                "Agent {agent} is not connected: last seen {seen}. Its rows show what was so then; see: ennote-devcloud agent list"
            ))?;
        }
        Ok(())
    }
}

type Row = [String; 7];

/// A binding, then its workloads.
fn rows(binding: &BindingStatus, now_ms: i64) -> Vec<Row> {
    let place = || [plain(&binding.agent), plain(&binding.namespace), plain(&binding.binding)];
    let row = |workload: &str, version: String, state: String, since_ms: i64| {
        let [agent, namespace, name] = place();
        [agent, namespace, name, plain(workload), version, state, moment(since_ms, now_ms)]
    };
    let held = match (binding.version, binding.pin) {
        (0, None) => "none".to_owned(),
        (0, Some(pin)) => format!("none, pinned to {pin}"),
        (version, Some(pin)) => format!("{version}, pinned to {pin}"),
        (version, None) => version.to_string(),
    };
    let mut state = match binding.state {
        State::Failed => "a workload failed".to_owned(),
        State::Refused => "refused".to_owned(),
        State::Denied => "no grant".to_owned(),
        State::Behind => "behind".to_owned(),
        State::RollingOut => "in sync, rolling out".to_owned(),
        State::InSync => "in sync, nothing to roll out".to_owned(),
        State::RolledOut => "in sync, rolled out".to_owned(),
    };
    if let Some(refused) = binding.refused {
        state.push_str(&format!(" (version {refused}: see the binding's conditions)"));
    }
    if !binding.connected {
        state.push_str(", not connected");
    }
    let workload = |workload: &WorkloadStatus| {
        let state = match workload.phase {
            Phase::Pending => "waits",
            Phase::Progressing => "rolling out",
            Phase::Complete => "rolled out",
            Phase::Failed => "failed",
        };
        row(&workload.workload, workload.version.to_string(), state.to_owned(), workload.since_ms)
    };
    let workloads = binding.workloads.iter().map(workload);
    std::iter::once(row("", held, state, binding.since_ms)).chain(workloads).collect()
}

/// The one line to read.
fn summary(status: &SecretStatus) -> String {
    let count = |what: &dyn Fn(&BindingStatus) -> bool| status.bindings.iter().filter(|binding| what(binding)).count();
    let all = status.bindings.len();
    let mut parts = vec![format!("{} of {all} bindings in sync", count(&|b| in_sync(status, b)))];
    for (what, one) in [
        (State::Failed, "with a failed workload"),
        (State::Refused, "refused it"),
        (State::Denied, "without a grant"),
        (State::RollingOut, "rolling out"),
    ] {
        match count(&|binding| binding.state == what) {
            0 => (),
            some => parts.push(format!("{some} {one}")),
        }
    }
    match count(&|binding| !binding.connected) {
        0 => (),
        some => parts.push(format!("{some} of an agent that is not connected")),
    }
    format!("{}.", parts.join(", "))
}

/// Whether a binding's Secret holds what the binding asks for. What an agent says that may not have the secret proves nothing.
fn in_sync(status: &SecretStatus, binding: &BindingStatus) -> bool {
    let wanted = binding.pin.unwrap_or(status.version);
    binding.version == wanted && binding.refused.is_none() && binding.state != State::Denied
}

/// None: it has no workload that restarts.
fn rolled_out(status: &SecretStatus, binding: &BindingStatus) -> Option<bool> {
    (!binding.workloads.is_empty()).then(|| in_sync(status, binding) && binding.state == State::RolledOut)
}

fn status_json(status: &SecretStatus) -> Value {
    let workload = |workload: &WorkloadStatus| {
        json!({
            "workload": workload.workload, "version": workload.version, "phase": workload.phase,
            "since": rfc3339(workload.since_ms),
        })
    };
    let binding = |binding: &BindingStatus| {
        json!({
            "agent": binding.agent, "connected": binding.connected, "last_seen_at": rfc3339(binding.seen_at_ms),
            "namespace": binding.namespace, "binding": binding.binding, "binding_uid": binding.binding_uid,
            "pin": binding.pin, "version": binding.version, "since": rfc3339(binding.since_ms), "refused": binding.refused,
            "state": binding.state, "in_sync": in_sync(status, binding), "rolled_out": rolled_out(status, binding),
            "workloads": binding.workloads.iter().map(workload).collect::<Vec<_>>(),
        })
    };
    let every = |what: &dyn Fn(&BindingStatus) -> bool| !status.bindings.is_empty() && status.bindings.iter().all(what);
    json!({
        "name": status.name, "workspace": status.workspace, "type": status.kind, "version": status.version,
        "deleted": status.deleted, "committed_at": rfc3339(status.committed_at_ms),
        "in_sync": every(&|b| in_sync(status, b)),
        "rolled_out": every(&|b| in_sync(status, b) && rolled_out(status, b) != Some(false)),
        "bindings": status.bindings.iter().map(binding).collect::<Vec<_>>(),
    })
}

/// For programs and for people.
fn moment(at_ms: i64, now_ms: i64) -> String {
    format!("{} ({})", rfc3339(at_ms), since(at_ms, now_ms))
}

/// A name that an agent gave, which a terminal must not obey.
fn plain(given: &str) -> String {
    given.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, status: &SecretStatus) -> String {
        let mut out = Vec::new();
        Output::new(&mut out, format, 200_000).status(status).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn binding(agent: &str, state: State, version: u64) -> BindingStatus {
        BindingStatus {
            agent: agent.into(),
            connected: true,
            seen_at_ms: 80_000,
            namespace: "shop".into(),
            binding: "db".into(),
            binding_uid: "uid".into(),
            pin: None,
            version,
            since_ms: 20_000,
            refused: None,
            state,
            workloads: vec![],
        }
    }

    fn status(bindings: Vec<BindingStatus>) -> SecretStatus {
        SecretStatus {
            name: "payments db".into(),
            workspace: "default".into(),
            kind: "KEYS_VALUES".into(),
            version: 4,
            deleted: false,
            committed_at_ms: 0,
            bindings,
        }
    }

    #[test]
    fn a_person_reads_who_holds_what_since_when_and_what_failed() {
        let workload =
            |workload: &str, phase| WorkloadStatus { workload: workload.into(), version: 4, phase, since_ms: 80_000 };
        let failed = BindingStatus {
            workloads: vec![
                workload("Deployment/web", Phase::Failed),
                workload("Deployment/\u{1b}api", Phase::Complete),
            ],
            ..binding("east", State::Failed, 4)
        };
        let away = BindingStatus { connected: false, ..binding("west", State::Behind, 3) };
        let text = printed(Format::Table, &status(vec![failed, away]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "'payments db' is at version 4 (KEYS_VALUES, workspace default), since 1970-01-01T00:00:00.000Z (3m ago)",
                "1 of 2 bindings in sync, 1 with a failed workload, 1 of an agent that is not connected.",
            ]
        );
        let cells =
            |line: &str| line.split("  ").map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect::<Vec<_>>();
        let at = "1970-01-01T00:01:20.000Z (2m ago)";
        assert_eq!(cells(lines[5])[3..], ["Deployment/web", "4", "failed", at]);
        assert_eq!(cells(lines[6])[3..], ["Deployment/?api", "4", "rolled out", at]);
        assert_eq!(cells(lines[7])[..5], ["west", "shop", "db", "3", "behind, not connected"]);
        assert!(lines[9].contains("Agent west is not connected: last seen") && lines[9].contains(at), "{text}");
        assert!(printed(Format::Table, &status(vec![])).contains("No binding of any agent asks for it."));
        let deleted = SecretStatus { deleted: true, ..status(vec![]) };
        assert!(printed(Format::Table, &deleted).contains("is deleted: version 4 is its tombstone"));
        let refused = BindingStatus { refused: Some(4), pin: Some(3), ..binding("a", State::Refused, 0) };
        let text = printed(Format::Table, &status(vec![refused]));
        assert!(text.contains("none, pinned to 3") && text.contains("refused (version 4: see"), "{text}");
    }

    #[test]
    fn a_program_waits_for_one_word() {
        let parsed = |bindings| serde_json::from_str::<Value>(&printed(Format::Json, &status(bindings))).unwrap();
        for (bindings, in_sync, rolled_out) in [
            (vec![], false, false),
            (vec![binding("a", State::InSync, 4)], true, true),
            (vec![binding("a", State::InSync, 4), binding("b", State::Behind, 3)], false, false),
            (vec![binding("a", State::Denied, 4)], false, false),
            (vec![BindingStatus { refused: Some(4), ..binding("a", State::Refused, 4) }], false, false),
            (vec![BindingStatus { pin: Some(3), ..binding("a", State::InSync, 3) }], true, true),
        ] {
            let json = parsed(bindings);
            assert_eq!((&json["in_sync"], &json["rolled_out"]), (&in_sync.into(), &rolled_out.into()), "{json}");
        }
        let web =
            |phase| vec![WorkloadStatus { workload: "Deployment/web".into(), version: 4, phase, since_ms: 80_000 }];
        let json =
            parsed(vec![BindingStatus { workloads: web(Phase::Progressing), ..binding("a", State::RollingOut, 4) }]);
        assert_eq!((&json["in_sync"], &json["rolled_out"]), (&true.into(), &false.into()));
        let of_it = &json["bindings"][0];
        assert_eq!((&of_it["state"], &of_it["rolled_out"]), (&"rolling-out".into(), &false.into()));
        let shown = json!({
            "workload": "Deployment/web", "version": 4, "phase": "Progressing", "since": "1970-01-01T00:01:20.000Z",
        });
        assert_eq!(of_it["workloads"], json!([shown]));
    }
}
