//! The API server's audit log, as data: who asked for what and how it was answered.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// User name, as in `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; the HTTP verb in small
    /// letters for a request that is not about a resource.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural of the resource; empty for a request that is not about a resource.
    pub resource: String,
    /// As in `status` or `token`; else empty.
    pub subresource: String,
    /// Namespace; empty for cluster-wide requests.
    pub namespace: String,
    /// Object name; empty for lists and creations whose name is in the body.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// Path and query.
    pub uri: String,
    /// The client's User-Agent.
    pub user_agent: String,
    /// Which credential it showed, as in `JTI=...` for a ServiceAccount token; else empty.
    pub credential: String,
}

impl AuditEvent {
    /// Whether the request is to store something: a dry run is not, and neither is the agent's look at a Secret, an empty patch.
    pub fn is_write(&self) -> bool {
        !self.is_trial() && self.is_of_a_writing_verb()
    }

    /// Whether the agent sends this only to be answered: a dry run that its policy has to refuse, or a look at a Secret.
    pub fn is_trial(&self) -> bool {
        self.uri.contains("dryRun=All") || self.uri.contains("fieldManager=ennote-agent-look")
    }

    fn is_of_a_writing_verb(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether authorization or admission forbade it.
    pub fn is_denied(&self) -> bool {
        self.code == 403
    }
}

/// A place in the audit log; events before it are not of interest any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditMark(pub(crate) u64);

/// The start of the log.
pub const START: AuditMark = AuditMark(0);

/// Reads the whole lines from `mark` on. A watch appears when it starts and again when it ends; both are one event.
pub(crate) fn read(log: &Path, mark: AuditMark) -> Result<(Vec<AuditEvent>, AuditMark)> {
    let mut text = String::new();
    let mut file = match File::open(log) {
        Ok(file) => file,
        // The API server makes it with its first event.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), mark)),
        Err(error) => return Err(error).with_context(|| format!("cannot read the audit log {}", log.display())),
    };
    file.seek(SeekFrom::Start(mark.0))?;
    file.read_to_string(&mut text)?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut seen = std::collections::HashMap::new();
    let mut events = Vec::new();
    for line in text[..whole].lines() {
        let wire: Wire = serde_json::from_str(line).context("the audit log holds a line that is not an event")?;
        let place = *seen.entry(wire.audit_id.clone()).or_insert(events.len());
        let event = AuditEvent::from(wire);
        match events.get_mut(place) {
            Some(earlier) => *earlier = event,
            None => events.push(event),
        }
    }
    Ok((events, AuditMark(mark.0 + whole as u64)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(rename = "auditID")]
    audit_id: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: WireUser,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<WireObject>,
    response_status: Option<WireStatus>,
}

#[derive(Deserialize)]
struct WireUser {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: std::collections::HashMap<String, Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireObject {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct WireStatus {
    #[serde(default)]
    code: u16,
}

impl From<Wire> for AuditEvent {
    fn from(wire: Wire) -> Self {
        let object = wire.object_ref.unwrap_or_default();
        let mut extra = wire.user.extra;
        let credentials = extra.remove("authentication.kubernetes.io/credential-id").unwrap_or_default();
        Self {
            user: wire.user.username,
            verb: wire.verb,
            group: object.api_group,
            resource: object.resource,
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            code: wire.response_status.map_or(0, |status| status.code),
            uri: wire.request_uri,
            user_agent: wire.user_agent,
            credential: credentials.into_iter().next().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, stage: &str, code: u16) -> String {
        format!(
            r#"{{"auditID":"{id}","stage":"{stage}","requestURI":"/api/v1/namespaces/a/secrets","verb":"watch","user":{{"username":"u"}},"objectRef":{{"resource":"secrets","namespace":"a","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":{code}}}}}"#
        )
    }

    #[test]
    fn a_watch_is_one_event_and_a_half_written_line_waits() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.log");
        let whole = format!(
            "{}\n{}\n{}\n",
            line("1", "ResponseStarted", 200),
            line("2", "ResponseComplete", 403),
            line("1", "ResponseComplete", 200)
        );
        std::fs::write(&log, format!("{whole}{{\"audit")).unwrap();
        let (events, mark) = read(&log, START).unwrap();
        assert_eq!(events.iter().map(|event| event.code).collect::<Vec<_>>(), [200, 403]);
        assert!(events[1].is_denied() && !events[1].is_write());
        let patch = |uri: &str| AuditEvent { verb: "patch".to_owned(), uri: uri.to_owned(), ..events[0].clone() };
        assert!(patch("/x?fieldManager=ennote-agent").is_write());
        assert!(!patch("/x?fieldManager=ennote-agent-look").is_write() && !patch("/x?dryRun=All").is_write());
        assert_eq!(mark, AuditMark(whole.len() as u64));
    }

    #[test]
    fn a_log_that_does_not_exist_yet_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("none"), START).unwrap(), (Vec::new(), START));
    }
}
