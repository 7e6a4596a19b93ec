//! Request bodies that carry plaintext: one buffer of exact size, written by hand, wiped when the last byte is sent.
//!
//! Every name that goes in is of a type whose characters need no JSON escape: keys, names, labels, base64url fingerprints.

use crate::domain::observed::{ADOPT, Owner};
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
    let (owner, uid) = &draft.owner;
    let head = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","type":"Opaque","metadata":{{"name":"{}",{},"ownerReferences":[{{"apiVersion":"ennote.io/v1alpha1","kind":"EnnoteSecretBinding","name":"{owner}","uid":"{uid}","controller":true}}]}},"data":{{"#,
        draft.name,
        metadata(draft),
    );
    with_data(&head, draft, "}}")
}

/// The body of a JSON merge patch (RFC 7396) under preconditions; `null` removes a key.
pub(super) fn patch(draft: &Draft, uid: &str, resource_version: &str, drop: &[String]) -> Bytes {
    let owners = draft.taken.as_ref().map(|others| owners(draft, others)).unwrap_or_default();
    let head = format!(
        r#"{{"metadata":{{"uid":"{uid}","resourceVersion":"{resource_version}",{}{owners}}},"data":{{"#,
        metadata(draft)
    );
    let separator = if draft.data.is_empty() { "" } else { "," };
    let nulls: Vec<String> = drop.iter().map(|key| format!("\"{key}\":null")).collect();
    let tail = if nulls.is_empty() { "}}".to_owned() } else { format!("{separator}{}}}}}", nulls.join(",")) };
    with_data(&head, draft, &tail)
}

/// A merge patch replaces the list, so what others put there is written again.
fn owners(draft: &Draft, others: &[Owner]) -> String {
    let (name, uid) = &draft.owner;
    let ours = json!({
        "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding", "name": name, "uid": uid, "controller": true,
    });
    let others =
        others.iter().map(|o| json!({"apiVersion": o.api_version, "kind": o.kind, "name": o.name, "uid": o.uid}));
    format!(r#","ownerReferences":{}"#, Value::Array(others.chain([ours]).collect()))
}

fn metadata(draft: &Draft) -> String {
    let pairs = |of: &[(&'static str, String)]| {
        of.iter().map(|(key, value)| format!("\"{key}\":\"{value}\"")).collect::<Vec<_>>().join(",")
    };
    let mark = if draft.taken.is_some() { format!(",\"{ADOPT}\":null") } else { String::new() };
    format!(r#""labels":{{{}}},"annotations":{{{}{mark}}}"#, pairs(&draft.labels), pairs(&draft.annotations))
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
        Draft {
            namespace: "shop".into(),
            name: SecretName::parse("db").unwrap(),
            labels: vec![("app.kubernetes.io/managed-by", "ennote-agent".into())],
            annotations: vec![("ennote.io/binding", "db".into())],
            owner: ("db".into(), "u-1".into()),
            taken: None,
            data: pairs.iter().map(|(k, v)| (DataKey::parse(k).unwrap(), SecretValue::copy_of(v.as_bytes()))).collect(),
        }
    }

    fn parsed(bytes: Bytes) -> Value {
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_secret_that_is_taken_gets_our_owner_keeps_the_others_and_loses_the_mark() {
        let other = Owner { kind: "ConfigMap".into(), name: "c".into(), uid: "u-2".into(), ..Owner::default() };
        let body = parsed(patch(&Draft { taken: Some(vec![other]), ..draft(&[("a", "1")]) }, "u", "7", &[]));
        let owners = &body["metadata"]["ownerReferences"];
        assert_eq!((&owners[0]["uid"], &owners[1]["uid"]), (&json!("u-2"), &json!("u-1")));
        assert_eq!(body["metadata"]["annotations"].get("ennote.io/adopt"), Some(&Value::Null));
        let plain = parsed(patch(&draft(&[("a", "1")]), "u", "7", &[]));
        assert!(plain["metadata"].get("ownerReferences").is_none());
        assert!(plain["metadata"]["annotations"].get("ennote.io/adopt").is_none());
    }

    #[test]
    fn a_create_body_is_the_secret() {
        let body = parsed(create(&draft(&[("a", "1"), ("b", ""), ("c.d", "\u{0}ü")])));
        assert_eq!(body["data"], json!({"a": "MQ==", "b": "", "c.d": "AMO8"}));
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(body["metadata"]["labels"]["app.kubernetes.io/managed-by"], "ennote-agent");
        assert_eq!((&body["kind"], &body["type"]), (&json!("Secret"), &json!("Opaque")));
        assert_eq!(parsed(create(&draft(&[])))["data"], json!({}));
    }

    #[test]
    fn a_patch_body_has_preconditions_and_nulls_and_no_owner() {
        let drop = ["old".to_owned(), "older".to_owned()];
        let body = parsed(patch(&draft(&[("a", "1")]), "u", "7", &drop));
        assert_eq!(body["data"], json!({"a": "MQ==", "old": null, "older": null}));
        assert_eq!((&body["metadata"]["uid"], &body["metadata"]["resourceVersion"]), (&json!("u"), &json!("7")));
        assert_eq!(body["metadata"]["ownerReferences"], Value::Null);
        assert_eq!(parsed(patch(&draft(&[]), "u", "7", &drop))["data"], json!({"old": null, "older": null}));
        assert_eq!(parsed(patch(&draft(&[]), "u", "7", &[]))["data"], json!({}));
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
