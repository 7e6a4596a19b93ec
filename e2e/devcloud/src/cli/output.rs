//! Tables for people, JSON for programs. A reader that went away is no error.

use super::args::Format;
use crate::core::{
    AgentEntry, Fetched, KeyEntry, KeysetEntry, ListedKey, NewToken, Revoked, SecretEntry, VersionEntry,
};
use crate::names::quoted;
use crate::store::{Alarm, Grant, Workspace};
use comfy_table::{Table, presets};
use serde_json::{Value, json, value::RawValue};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

/// Where results go.
pub(super) struct Output<W> {
    out: W,
    pub(super) format: Format,
    pub(super) now_ms: i64,
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W, format: Format, now_ms: i64) -> Self {
        Self { out, format, now_ms }
    }

    pub(super) fn token(&mut self, made: &NewToken, quiet: bool) -> io::Result<()> {
        if self.format == Format::Json {
            return self.json(&json!({
                "token": made.token.as_str(),
                "agent": made.agent,
                "workspace": made.workspace,
                "namespaces": made.namespaces,
                "re_enrols": made.re_enrols,
                "expires": rfc3339(made.expires_at_ms),
            }));
        }
        if quiet {
            return self.line(made.token.as_str());
        }
        let what = if made.re_enrols { "re-enrols agent" } else { "makes agent" };
        let (left, names) = (until(made.expires_at_ms, self.now_ms), made.namespaces.join(", "));
        self.line(made.token.as_str())?;
        self.line("")?;
        self.line(&format!("{what} {} of workspace {} for namespaces {names}.", made.agent, made.workspace))?;
        self.line(&format!(
            "Good for one use, for {left}. It is not shown again; give it to the agent as ENNOTE_AUTH_TOKEN_FILE."
        ))
    }

    pub(super) fn put(&mut self, entry: &SecretEntry) -> io::Result<()> {
        self.either(&secret_json(entry), |_| {
            format!(
                "{} is at version {} ({}, workspace {})",
                quoted(&entry.name),
                entry.version,
                entry.kind,
                entry.workspace
            )
        })
    }

    pub(super) fn removed(&mut self, entry: &SecretEntry) -> io::Result<()> {
        self.either(&secret_json(entry), |_| {
            format!(
                "{} is deleted: version {} is its tombstone (workspace {})",
                quoted(&entry.name),
                entry.version,
                entry.workspace
            )
        })
    }

    pub(super) fn secret(&mut self, found: &Fetched) -> io::Result<()> {
        if self.format == Format::Table {
            return self.line(&found.payload);
        }
        // The payload stands in it as it was given: numbers must not pass through a float.
        let payload: &RawValue = serde_json::from_str(&found.payload)?;
        #[derive(serde::Serialize)]
        struct Shown<'a> {
            name: &'a str,
            workspace: &'a str,
            r#type: &'a str,
            version: u64,
            committed_at: String,
            payload: &'a RawValue,
        }
        let shown = Shown {
            name: &found.name,
            workspace: &found.workspace,
            r#type: &found.kind,
            version: found.version,
            committed_at: rfc3339(found.committed_at_ms),
            payload,
        };
        let text = zeroize::Zeroizing::new(serde_json::to_string_pretty(&shown)?);
        self.line(&text)
    }

    pub(super) fn secrets(&mut self, entries: &[SecretEntry]) -> io::Result<()> {
        let rows = |entry: &SecretEntry, now| {
            let age = since(entry.updated_at_ms, now);
            vec![entry.name.clone(), entry.kind.clone(), entry.version.to_string(), age, entry.workspace.clone()]
        };
        let none = "No secrets. Put one: ennote-devcloud secret put NAME --from-env-file FILE";
        self.list(&["NAME", "TYPE", "VERSION", "UPDATED", "WORKSPACE"], entries, secret_json, rows, none)
    }

    pub(super) fn versions(&mut self, entries: &[VersionEntry]) -> io::Result<()> {
        let row = |entry: &VersionEntry, now| {
            vec![entry.version.to_string(), entry.kind.clone(), entry.state.clone(), since(entry.committed_at_ms, now)]
        };
        let shown = |entry: &VersionEntry| {
            let at = rfc3339(entry.committed_at_ms);
            json!({"version": entry.version, "type": entry.kind, "state": entry.state, "committed_at": at})
        };
        self.list(&["VERSION", "TYPE", "STATE", "COMMITTED"], entries, shown, row, "No versions.")
    }

    pub(super) fn agents(&mut self, entries: &[AgentEntry]) -> io::Result<()> {
        let row = |entry: &AgentEntry, now| {
            vec![
                entry.name.clone(),
                entry.id.clone(),
                entry.epoch.to_string(),
                state(entry).to_owned(),
                entry.namespaces.join(","),
                entry.grants.iter().map(grant_text).collect::<Vec<_>>().join("; "),
                renewal(entry),
                since(entry.joined_at_ms, now),
                entry.build.clone(),
            ]
        };
        let shown = |entry: &AgentEntry| {
            json!({
                "name": entry.name, "id": entry.id, "epoch": entry.epoch, "state": state(entry), "connected": entry.streams > 0,
                "streams": entry.streams, "workspace": entry.workspace, "namespaces": entry.namespaces, "grants": entry.grants,
                "renewal": entry.renewal, "issuer": entry.account.as_ref().map(|account| &account.issuer),
                "subject": entry.account.as_ref().map(|account| &account.subject),
                "service_account_uid": entry.account.as_ref().map(|account| &account.uid),
                "revoked": entry.revoked, "banned": entry.banned, "joined_at": rfc3339(entry.joined_at_ms), "build": entry.build,
            })
        };
        let none = "No agents. Make a token for one: ennote-devcloud token create --agent NAME --namespace NAMESPACE";
        let head = ["NAME", "ID", "EPOCH", "STATE", "NAMESPACES", "GRANTS", "RENEWS", "JOINED", "BUILD"];
        self.list(&head, entries, shown, row, none)
    }

    pub(super) fn revoked(&mut self, name: &str, revoked: &Revoked) -> io::Result<()> {
        self.either(&json!({"name": name, "id": revoked.id, "revoked": true}), |_| {
            format!("agent {name} is revoked. To let it in again: ennote-devcloud token create --agent {name} --namespace NAMESPACE")
        })
    }

    pub(super) fn banned(&mut self, name: &str, banned: bool, done: &Revoked) -> io::Result<()> {
        self.either(&json!({"name": name, "id": done.id, "banned": banned}), |_| match banned {
            true => format!("agent {name} is banned. To let it in again: ennote-devcloud agent unban {name}"),
            false => format!("agent {name} is no longer banned; it comes back within its next tries"),
        })
    }

    pub(super) fn alarms(&mut self, entries: &[Alarm]) -> io::Result<()> {
        let row = |alarm: &Alarm, now| {
            let (when, count) = (since(alarm.at_ms, now), alarm.count.to_string());
            vec![when, count, alarm.agent.clone(), alarm.kind.clone(), alarm.sentence.clone()]
        };
        let shown = |alarm: &Alarm| {
            json!({
                "at": rfc3339(alarm.at_ms), "first_at": rfc3339(alarm.first_ms), "count": alarm.count, "agent": alarm.agent,
                "kind": alarm.kind, "sentence": alarm.sentence,
            })
        };
        self.list(&["LAST", "TIMES", "AGENT", "KIND", "WHAT"], entries, shown, row, "No alarms.")
    }

    pub(super) fn keys(&mut self, entries: &[KeyEntry]) -> io::Result<()> {
        let state = |key: &KeyEntry| match (key.joins, key.renews, key.gone_ms) {
            (true, _, None) => "good",
            (true, _, Some(_)) => "good, but no longer listed",
            (false, true, _) => "for renewals; --accept lets it join",
            (false, false, None) => "waits for --accept",
            (false, false, Some(_)) => "gone",
        };
        let origin = |key: &KeyEntry| serde_json::to_value(key.origin).unwrap_or_default();
        let row = |key: &KeyEntry, now| {
            let kid = key.kid.clone().unwrap_or_default();
            let origin = origin(key).as_str().unwrap_or_default().to_owned();
            vec![key.thumbprint.clone(), kid, origin, state(key).to_owned(), since(key.since_ms, now)]
        };
        let shown = |key: &KeyEntry| {
            json!({
                "thumbprint": key.thumbprint, "kid": key.kid, "origin": origin(key), "state": state(key), "proven": key.proven,
                "joins": key.joins, "renews": key.renews, "since": rfc3339(key.since_ms), "gone_since": key.gone_ms.map(rfc3339),
            })
        };
        self.list(&["THUMBPRINT", "KID", "ORIGIN", "STATE", "SINCE"], entries, shown, row, "No keys.")
    }

    pub(super) fn keyset(&mut self, entry: &KeysetEntry) -> io::Result<()> {
        let of = |key: &ListedKey| serde_json::to_value(key.r#use).unwrap_or_default();
        if self.format == Format::Json {
            let keys: Vec<Value> = entry.keys.iter().map(|key| {
                json!({"id": key.id, "use": of(key), "used": key.used, "used_from": key.from_ms.map(rfc3339)})
            }).collect();
            return self.json(&json!({
                "version": entry.version, "issued_at": rfc3339(entry.issued_at_ms), "expires_at": rfc3339(entry.expires_at_ms), "keys": keys,
            }));
        }
        self.line(&format!("version {}, good for {}", entry.version, until(entry.expires_at_ms, self.now_ms)))?;
        let row = |key: &ListedKey, now| {
            let state = match key.from_ms {
                Some(from) => format!("used in {}", until(from, now)),
                None if key.used => "used".to_owned(),
                None => "listed, no longer used".to_owned(),
            };
            vec![key.id.clone(), of(key).as_str().unwrap_or_default().to_owned(), state]
        };
        self.list(&["ID", "USE", "STATE"], &entry.keys, |_| Value::Null, row, "No keys.")
    }

    pub(super) fn granted(&mut self, name: &str, grant: &Grant) -> io::Result<()> {
        self.either(&json!(grant), |_| format!("agent {name}: granted {}", grant_text(grant)))
    }

    pub(super) fn workspace(&mut self, made: &Workspace) -> io::Result<()> {
        self.either(&workspace_json(made), |_| format!("workspace {} is made", made.name))
    }

    pub(super) fn workspaces(&mut self, entries: &[Workspace]) -> io::Result<()> {
        let row = |entry: &Workspace, now| vec![entry.name.clone(), since(entry.created_at_ms, now)];
        self.list(&["NAME", "CREATED"], entries, workspace_json, row, "No workspaces.")
    }

    pub(super) fn either(&mut self, value: &Value, text: impl FnOnce(&Value) -> String) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.line(&text(value)),
        }
    }

    pub(super) fn list<T>(
        &mut self,
        head: &[&str],
        entries: &[T],
        shown: impl Fn(&T) -> Value,
        row: impl Fn(&T, i64) -> Vec<String>,
        none: &str,
    ) -> io::Result<()> {
        if self.format == Format::Json {
            return self.json(&Value::Array(entries.iter().map(shown).collect()));
        }
        if entries.is_empty() {
            return self.line(none);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(head);
        for entry in entries {
            table.add_row(row(entry, self.now_ms));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.line(&table.trim_fmt())
    }

    pub(super) fn json(&mut self, value: &Value) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(&text)
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        match writeln!(self.out, "{text}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

fn secret_json(entry: &SecretEntry) -> Value {
    json!({
        "name": entry.name, "workspace": entry.workspace, "type": entry.kind, "version": entry.version,
        "deleted": entry.deleted, "updated_at": rfc3339(entry.updated_at_ms),
    })
}

fn workspace_json(entry: &Workspace) -> Value {
    json!({"name": entry.name, "created_at": rfc3339(entry.created_at_ms)})
}

fn grant_text(grant: &Grant) -> String {
    let secret = grant.secret.as_deref().map_or_else(|| "all secrets".to_owned(), quoted);
    format!("{}: {secret} of {}", grant.namespace, grant.workspace)
}

fn state(entry: &AgentEntry) -> &'static str {
    match entry.streams {
        _ if entry.banned => "banned",
        _ if entry.revoked => "revoked",
        0 => "offline",
        _ => "connected",
    }
}

fn renewal(entry: &AgentEntry) -> String {
    match &entry.account {
        Some(account) if entry.renewal != "key" => format!("by {} of {}", account.subject, account.issuer),
        _ => "by key alone".to_owned(),
    }
}

pub(super) fn rfc3339(at_ms: i64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    humantime::format_rfc3339_millis(at).to_string()
}

/// `3m ago`, in the largest unit.
pub(super) fn since(at_ms: i64, now_ms: i64) -> String {
    format!("{} ago", roughly(now_ms.saturating_sub(at_ms)))
}

pub(super) fn until(at_ms: i64, now_ms: i64) -> String {
    // Made a moment ago: 1h59m59s is 2h.
    roughly(at_ms.saturating_sub(now_ms).saturating_add(999))
}

fn roughly(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::AccountEntry;

    fn printed(format: Format, write: impl FnOnce(&mut Output<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut Output::new(&mut out, format, 200_000)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_is_a_table_for_people_and_an_array_for_programs() {
        let entry = SecretEntry {
            name: "payments db".into(),
            workspace: "default".into(),
            kind: "KEYS_VALUES".into(),
            version: 12,
            deleted: false,
            updated_at_ms: 0,
        };
        let entries = [entry];
        let table = printed(Format::Table, |o| o.secrets(&entries));
        let lines: Vec<Vec<&str>> =
            table.lines().map(|l| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
        assert_eq!(lines[0], ["NAME", "TYPE", "VERSION", "UPDATED", "WORKSPACE"]);
        assert_eq!(lines[1], ["payments db", "KEYS_VALUES", "12", "3m ago", "default"]);
        let parsed: Value = serde_json::from_str(&printed(Format::Json, |o| o.secrets(&entries))).unwrap();
        assert_eq!(parsed[0]["updated_at"], "1970-01-01T00:00:00.000Z");
        assert_eq!(printed(Format::Json, |o| o.secrets(&[])), "[]\n");
        assert!(printed(Format::Table, |o| o.secrets(&[])).starts_with("No secrets."));
    }

    #[test]
    fn an_agent_is_shown_with_its_state_and_how_it_renews() {
        let entry = AgentEntry {
            name: "shop".into(),
            id: "agt_1".into(),
            workspace: "default".into(),
            namespaces: vec!["ops".into(), "shop".into()],
            grants: vec![Grant { namespace: "ops".into(), workspace: "default".into(), secret: Some("my db".into()) }],
            epoch: 3,
            streams: 1,
            build: "1.2.3 (abc)".into(),
            renewal: "key".into(),
            account: None,
            revoked: false,
            banned: false,
            joined_at_ms: 0,
        };
        let table = printed(Format::Table, |o| o.agents(std::slice::from_ref(&entry)));
        let row = table.lines().nth(1).unwrap();
        for shown in
            ["shop", "agt_1", "3", "connected", "ops,shop", "ops: 'my db' of default", "by key alone", "1.2.3 (abc)"]
        {
            assert!(row.contains(shown), "{shown}: {row}");
        }
        let gone = AgentEntry { streams: 0, ..entry.clone() };
        assert!(printed(Format::Table, |o| o.agents(&[gone])).contains("offline"));
        let account =
            AccountEntry { issuer: "https://i".into(), subject: "system:serviceaccount:n:a".into(), uid: "u".into() };
        let attested = AgentEntry { renewal: "service-account".into(), account: Some(account), ..entry.clone() };
        let shown = printed(Format::Table, |o| o.agents(std::slice::from_ref(&attested)));
        assert!(shown.contains("by system:serviceaccount:n:a of https://i"), "{shown}");
        let parsed: Value = serde_json::from_str(&printed(Format::Json, |o| o.agents(&[attested]))).unwrap();
        assert_eq!((&parsed[0]["renewal"], &parsed[0]["issuer"]), (&"service-account".into(), &"https://i".into()));
        let banned = AgentEntry { banned: true, ..entry.clone() };
        assert!(printed(Format::Table, |o| o.agents(&[banned])).contains("banned"));
        let revoked = AgentEntry { revoked: true, ..entry };
        assert!(printed(Format::Table, |o| o.agents(&[revoked])).contains("revoked"));
    }

    #[test]
    fn a_payload_is_printed_exactly_as_it_was_given() {
        let found = Fetched {
            name: "n".into(),
            workspace: "w".into(),
            kind: "KEYS_VALUES".into(),
            version: 1,
            committed_at_ms: 0,
            payload: zeroize::Zeroizing::new(r#"{"keysValues":{"n":12345678901234567890123.0}}"#.into()),
        };
        assert_eq!(printed(Format::Table, |o| o.secret(&found)), format!("{}\n", found.payload.as_str()));
        assert!(printed(Format::Json, |o| o.secret(&found)).contains("12345678901234567890123.0"));
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        for (ms, text) in
            [(0, "0s"), (119_000, "119s"), (120_000, "2m"), (7_200_000, "2h"), (172_800_000, "2d"), (-5, "0s")]
        {
            assert_eq!(roughly(ms), text);
        }
        assert_eq!(until(7_200_000, 3), "2h");
    }
}
