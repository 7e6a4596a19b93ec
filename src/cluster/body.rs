//! Request bodies that carry plaintext: one buffer of exact size, written by hand, wiped when the last byte is sent.
//!
//! Keys, names and types are of characters that need no JSON escape; metadata is no secret, and written by a library.

use crate::domain::metadata::{Marks, Metadata};
use crate::domain::observed::{FINGERPRINTS, Owner};
use crate::domain::sync_plan::Draft;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use zeroize::Zeroizing;

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The body of a POST.
pub(super) fn create(draft: &Draft) -> Bytes {
    let head = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","type":"{}",{}"metadata":{{"name":"{}",{}}},"data":{{"#,
        draft.kind,
        if draft.immutable { r#""immutable":true,"# } else { "" },
        draft.name,
        metadata(&draft.metadata),
    );
    with_data(&head, draft, "}}")
}

/// The body of a JSON merge patch (RFC 7396) under preconditions; `null` removes a key. The type is in it although it cannot
/// change: that way the API server says when the Secret has another one.
pub(super) fn patch(draft: &Draft, uid: &str, resource_version: &str, drop: &[String]) -> Bytes {
    let head = format!(
        r#"{{"type":"{}","immutable":{},"metadata":{{"uid":"{uid}","resourceVersion":"{resource_version}",{}}},"data":{{"#,
        draft.kind,
        if draft.immutable { "true" } else { "null" },
        metadata(&draft.metadata),
    );
    let separator = if draft.data.is_empty() { "" } else { "," };
    let nulls: Vec<String> = drop.iter().map(|key| format!("\"{key}\":null")).collect();
    let tail = if nulls.is_empty() { "}}".to_owned() } else { format!("{separator}{}}}}}", nulls.join(",")) };
    with_data(&head, draft, &tail)
}

/// Where an apply may land: on this very object in this very state, or wherever there is none.
type Over<'a> = Option<(&'a str, &'a str)>;

fn preconditions(over: Over<'_>) -> String {
    over.map(|(uid, version)| format!(r#""uid":"{uid}","resourceVersion":"{version}","#)).unwrap_or_default()
}

/// The body of an apply that takes what a patch has just written, under the same preconditions. JSON is YAML.
pub(super) fn take(draft: &Draft, over: Over<'_>) -> Bytes {
    let prints = draft.metadata.annotations.iter().find(|(key, _)| key == FINGERPRINTS);
    let prints: Value = prints.map(|(key, value)| (key.clone(), json!(value))).into_iter().collect();
    let head = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{}",{}"annotations":{prints}}},"data":{{"#,
        draft.name,
        preconditions(over),
    );
    with_data(&head, draft, "}}")
}

/// The body of an apply of all that is wanted.
pub(super) fn apply(draft: &Draft, over: Over<'_>) -> Bytes {
    let wanted = |of: &Marks| of.iter().filter(|(_, value)| value.is_some()).cloned().collect();
    let of = &draft.metadata;
    let owners = draft.owner.clone().map(|owner| vec![owner]);
    let kept = Metadata { labels: wanted(&of.labels), annotations: wanted(&of.annotations), owners };
    let head = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","type":"{}",{}"metadata":{{"name":"{}",{}{}}},"data":{{"#,
        draft.kind,
        if draft.immutable { r#""immutable":true,"# } else { "" },
        draft.name,
        preconditions(over),
        metadata(&kept),
    );
    with_data(&head, draft, "}}")
}

/// The body of a merge patch of metadata alone.
pub(super) fn amend(of: &Metadata, uid: &str, resource_version: &str) -> Bytes {
    Bytes::from(format!(r#"{{"metadata":{{"uid":"{uid}","resourceVersion":"{resource_version}",{}}}}}"#, metadata(of)))
}

/// A merge patch replaces the list of owners, so it is written as a whole.
fn metadata(of: &Metadata) -> String {
    let marks = |of: &Marks| Value::Object(of.iter().map(|(key, value)| (key.clone(), json!(value))).collect());
    let owner = |o: &Owner| {
        let mut all = json!({"apiVersion": o.api_version, "kind": o.kind, "name": o.name, "uid": o.uid});
        for (flag, set) in [("controller", o.controller), ("blockOwnerDeletion", o.blocks)] {
            if set {
                all[flag] = true.into();
            }
        }
        all
    };
    let owners = of.owners.as_ref().map(|owners| Value::Array(owners.iter().map(owner).collect()));
    let owners = owners.map(|owners| format!(r#","ownerReferences":{owners}"#)).unwrap_or_default();
    format!(r#""labels":{},"annotations":{}{owners}"#, marks(&of.labels), marks(&of.annotations))
}

fn with_data(head: &str, draft: &Draft, tail: &str) -> Bytes {
    let encoded = |length: usize| length.div_ceil(3) * 4;
    let values: usize = draft.data.iter().map(|(k, v)| k.as_str().len() + encoded(v.expose().len()) + 6).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(head.len() + values + tail.len()));
    out.extend_from_slice(head.as_bytes());
    for (index, (key, value)) in draft.data.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(key.as_str().as_bytes());
        out.extend_from_slice(b"\":\"");
        let start = out.len();
        out.resize(start + encoded(value.expose().len()), 0);
        let written = STANDARD.encode_slice(value.expose(), &mut out[start..]);
        debug_assert!(written.is_ok(), "the slice has the exact size");
        out.push(b'"');
    }
    out.extend_from_slice(tail.as_bytes());
    Bytes::from_owner(Wiped(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::{DataKey, SecretName};
    use crate::domain::secret_value::SecretValue;

    fn draft(pairs: &[(&str, &str)]) -> Draft {
        let owner =
            Owner { kind: "EnnoteSecretBinding".into(), uid: "u-1".into(), controller: true, ..Owner::default() };
        Draft {
            namespace: "shop".into(),
            name: SecretName::parse("db").unwrap(),
            kind: "Opaque".into(),
            immutable: false,
            metadata: Metadata {
                labels: vec![("app.kubernetes.io/managed-by".into(), Some("ennote-agent".into()))],
                annotations: vec![
                    ("ennote.io/binding".into(), Some("db".into())),
                    ("note".into(), Some("\"quoted\"".into())),
                ],
                owners: Some(vec![owner.clone()]),
            },
            owner: Some(owner),
            data: pairs.iter().map(|(k, v)| (DataKey::parse(k).unwrap(), SecretValue::copy_of(v.as_bytes()))).collect(),
        }
    }

    fn parsed(bytes: Bytes) -> Value {
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn metadata_alone_is_a_patch_without_data() {
        let of = Metadata { labels: vec![("a".into(), None), ("b".into(), Some("1".into()))], ..Metadata::default() };
        let body = parsed(amend(&of, "u", "7"));
        assert_eq!(body["metadata"]["labels"], json!({"a": null, "b": "1"}));
        assert!(body.get("data").is_none() && body["metadata"].get("ownerReferences").is_none());
    }

    #[test]
    fn a_create_body_is_the_secret() {
        let body = parsed(create(&draft(&[("a", "1"), ("b", ""), ("c.d", "\u{0}ü")])));
        assert_eq!(body["data"], json!({"a": "MQ==", "b": "", "c.d": "AMO8"}));
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(body["metadata"]["labels"]["app.kubernetes.io/managed-by"], "ennote-agent");
        assert_eq!((&body["kind"], &body["type"]), (&json!("Secret"), &json!("Opaque")));
        assert_eq!(body["metadata"]["annotations"]["note"], "\"quoted\"");
        assert!(body.get("immutable").is_none());
        assert_eq!(parsed(create(&Draft { immutable: true, ..draft(&[]) }))["immutable"], json!(true));
        assert_eq!(parsed(create(&draft(&[])))["data"], json!({}));
    }

    #[test]
    fn a_patch_body_has_preconditions_and_nulls() {
        let drop = ["old".to_owned(), "older".to_owned()];
        let body = parsed(patch(&draft(&[("a", "1")]), "u", "7", &drop));
        assert_eq!(body["data"], json!({"a": "MQ==", "old": null, "older": null}));
        assert_eq!((&body["metadata"]["uid"], &body["metadata"]["resourceVersion"]), (&json!("u"), &json!("7")));
        assert_eq!((&body["type"], &body["immutable"]), (&json!("Opaque"), &Value::Null));
        assert_eq!(parsed(patch(&draft(&[]), "u", "7", &drop))["data"], json!({"old": null, "older": null}));
        assert_eq!(parsed(patch(&draft(&[]), "u", "7", &[]))["data"], json!({}));
    }

    #[test]
    fn what_is_taken_is_the_data_and_its_record_and_nothing_else() {
        let mut draft = draft(&[("a", "1"), ("b", "")]);
        draft.metadata.annotations.push((FINGERPRINTS.into(), Some("a=x".into())));
        let want = json!({
            "apiVersion": "v1", "kind": "Secret", "data": {"a": "MQ==", "b": ""},
            "metadata": {"name": "db", "uid": "u", "resourceVersion": "7", "annotations": {FINGERPRINTS: "a=x"}},
        });
        assert_eq!(parsed(take(&draft, Some(("u", "7")))), want);
    }

    #[test]
    fn what_is_applied_is_whole_and_takes_nothing_away_by_name() {
        let mut draft = draft(&[("a", "1")]);
        draft.metadata.owners = None;
        draft.metadata.labels.push(("gone".into(), None));
        let body = parsed(apply(&draft, Some(("u", "7"))));
        assert_eq!(body["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "ennote-agent"}));
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u-1", "what is left out would go");
        assert_eq!(
            (&body["metadata"]["uid"], &body["type"], &body["data"]["a"]),
            (&json!("u"), &json!("Opaque"), &json!("MQ=="))
        );
        assert!(parsed(apply(&draft, None))["metadata"].get("uid").is_none());
    }

    #[test]
    fn the_buffer_never_grows() {
        for length in [0, 1, 2, 3, 1000] {
            let value = "x".repeat(length);
            let body = create(&draft(&[("a", &value), ("b", &value)]));
            assert!(parsed(body)["data"]["b"].is_string());
        }
    }
}
