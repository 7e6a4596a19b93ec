//! Whether the CustomResourceDefinition is served, and knows all that this program knows.

use crate::crd;
use crate::doctor::finding::{CLUSTER_ADMIN, Finding};
use serde_json::Value;

const CHECK: &str = "schema";
const MEND: &str = "ennote-agent crd | kubectl apply --server-side --force-conflicts -f -";
/// So many of the fields that are not served are named.
const NAMED: usize = 3;

/// Judges what the API server publishes: `None` where it serves no such kind.
pub(super) fn judge(served: Result<Option<Value>, String>) -> Finding {
    let served = match served {
        Ok(Some(served)) => served,
        Ok(None) => {
            return Finding::fail(CHECK, "no EnnoteSecretBinding is served: the CRD is missing", CLUSTER_ADMIN, MEND);
        }
        Err(error) => {
            return Finding::fail(
                CHECK,
                format!("cannot be read: {error}"),
                CLUSTER_ADMIN,
                "kubectl get --raw /openapi/v3",
            );
        }
    };
    let mut lacking = Vec::new();
    for part in ["spec", "status"] {
        compare(part, &ours()["properties"][part], &served["properties"][part], &mut lacking);
    }
    if lacking.is_empty() {
        return Finding::ok(CHECK, "EnnoteSecretBinding is served with all that this agent knows");
    }
    let rest = lacking.len().saturating_sub(NAMED);
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    lacking.truncate(NAMED);
    let says = format!("the CRD is older than this agent: it lacks {}{more}", lacking.join(", "));
    Finding::fail(CHECK, says, CLUSTER_ADMIN, MEND)
}

fn ours() -> Value {
    let crd = crd::manifest().ok().and_then(|yaml| serde_yaml::from_str::<Value>(&yaml).ok()).unwrap_or_default();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Names what of `ours` is not in `served`: fields, values of enumerations, and rules. What is served besides is newer than this
/// program, and welcome.
fn compare(path: &str, ours: &Value, served: &Value, lacking: &mut Vec<String>) {
    if served.is_null() {
        lacking.push(path.to_owned());
        return;
    }
    let entries = |node: &Value, list: &str| node[list].as_array().cloned().unwrap_or_default();
    let known = entries(served, "enum");
    lacking.extend(entries(ours, "enum").iter().filter(|one| !known.contains(one)).map(|one| format!("{path}={one}")));
    let rules: Vec<Value> =
        entries(served, "x-kubernetes-validations").iter().map(|rule| rule["rule"].clone()).collect();
    let new = entries(ours, "x-kubernetes-validations");
    lacking.extend(new.iter().filter(|rule| !rules.contains(&rule["rule"])).map(|_| format!("a rule of {path}")));
    for (name, child) in ours["properties"].as_object().into_iter().flatten() {
        compare(&format!("{path}.{name}"), child, &served["properties"][name], lacking);
    }
    for inner in ["items", "additionalProperties"] {
        if ours[inner].is_object() {
            compare(path, &ours[inner], &served[inner], lacking);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(edit: impl FnOnce(&mut Value)) -> String {
        let mut served = ours();
        edit(&mut served);
        judge(Ok(Some(served))).to_string()
    }

    #[test]
    fn a_schema_that_lacks_anything_of_ours_is_older() {
        assert!(verdict(|_| ()).starts_with("ok"));
        let newer = |served: &mut Value| served["properties"]["spec"]["properties"]["new"] = json!({"type": "string"});
        assert!(verdict(newer).starts_with("ok"), "what is newer than this program does not hinder it");
        let field = verdict(|served| {
            served["properties"]["spec"]["properties"].as_object_mut().unwrap().remove("suspend");
        });
        assert!(
            field.starts_with("FAIL") && field.contains("spec.suspend") && field.contains("kubectl apply"),
            "{field}"
        );
        let rule = verdict(|served| {
            let data = &mut served["properties"]["spec"]["properties"]["data"];
            data["x-kubernetes-validations"] = json!([]);
        });
        assert!(rule.contains("a rule of spec.data"), "{rule}");
        let value = verdict(|served| served["properties"]["spec"]["properties"]["mode"]["enum"] = json!(["Sync"]));
        assert!(value.contains("spec.mode=\"Observe\""), "{value}");
        assert!(judge(Ok(None)).to_string().contains("the CRD is missing"));
        assert!(judge(Err("no".into())).to_string().starts_with("FAIL"));
        let gone = verdict(|served| served["properties"]["status"] = json!({}));
        assert!(gone.contains(" more"), "{gone}");
    }
}
