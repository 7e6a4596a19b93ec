//! `EnnoteSecretBinding`, `ennote.io/v1alpha1`: the custom resource that users write.
//!
//! Guarantees: what a schema can hold is refused by the API server with a sentence, not by a pod log. Fields are only added,
//! never renamed (there is no port, so no conversion webhook, ever). `crds/` is generated from this file.

#![allow(unreachable_pub, reason = "KubeSchema moves a copy of each struct into a private module")]
#![allow(clippy::duplicated_attributes, reason = "printcolumn repeats its keys")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

mod status;

pub use status::*;

/// What a user asks for: one secret of Ennote as one Kubernetes Secret.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "ennote.io",
    version = "v1alpha1",
    kind = "EnnoteSecretBinding",
    plural = "ennotesecretbindings",
    singular = "ennotesecretbinding",
    shortname = "esb",
    category = "bindings",
    category = "ennote",
    namespaced,
    status = "EnnoteSecretBindingStatus",
    derive = "PartialEq",
    doc = "EnnoteSecretBinding keeps one Kubernetes Secret in step with one secret in Ennote.",
    printcolumn(name = "Secret", type_ = "string", json_path = ".spec.source.secret"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.target.version"),
    printcolumn(name = "Synced", type_ = "date", json_path = ".status.lastSyncTime"),
    printcolumn(name = "Rollout", type_ = "string", json_path = ".status.conditions[?(@.type==\"RolledOut\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Latency",
        type_ = "integer",
        description = "Milliseconds from the commit in the cloud to the written Secret",
        json_path = ".status.syncLatencyMillis",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EnnoteSecretBindingSpec {
    /// Which secret of Ennote to follow.
    pub source: Source,

    /// The Kubernetes Secret to write. Defaults to a Secret with the binding's name, behind the agent's secretPrefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,

    /// The keys of the Secret, one entry each. Absent: every entry of a KEYS_VALUES secret, else every top-level field but
    /// securityNotes. All or nothing: one entry that cannot be resolved, and nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(
        validation = Rule::new("self.size() > 0").message("data must list at least one key; leave it out to take every key of the secret"),
        merge_strategy = ListMerge::Map(vec!["key".into()])
    )]
    pub data: Option<Vec<DataEntry>>,
}

/// Where the payload comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The workspace in Ennote. Defaults to the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self != ''").message("workspace must not be empty; leave it out for the agent's own workspace"))]
    pub workspace: Option<String>,

    /// The name of the secret in that workspace, exactly as Ennote shows it. Blanks inside are allowed.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.trim() != '' && self.trim() == self")
        .message("secret must be the name of a secret in Ennote, without blanks at either end"))]
    pub secret: String,

    /// Hold exactly this version. Leave it out to follow the newest. A newer version then waits until the pin is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self > 0").message("version must be the number of a version, 1 or higher; leave it out to follow the newest"))]
    pub version: Option<i64>,
}

/// The Kubernetes Secret that the binding owns.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of the Secret, in the binding's namespace. Defaults to the binding's name behind the agent's secretPrefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("name must be a Secret's name: lower case letters, digits, '-' and '.', starting and ending with a letter or digit"))]
    pub name: Option<String>,
}

/// One key of the Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DataEntry {
    /// The key in the Secret: letters, digits, '-', '_' and '.'.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')")
        .message("key must be a key that a Secret can hold: letters, digits, '-', '_' and '.'"))]
    pub key: String,

    /// Where in the payload the value stands, as a JSON Pointer (RFC 6901), for example /keysValues/url. Strings are taken
    /// as they are, numbers exactly as they were written, objects and lists as compact JSON.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(/([^~/]|~[01])*)*$')")
        .message("pointer must be a JSON Pointer (RFC 6901): empty, or '/' before each name, for example /keysValues/url"))]
    pub pointer: String,
}

/// The CRD as it is applied: what kube derives, plus the default of `status` that makes kstatus wait for the agent.
///
/// A custom resource without any status counts as ready in kstatus (Helm 4 `--wait`, Flux); with `observedGeneration: -1`
/// it does not. kube-derive has no attribute for a default on `status`, so it is set here.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = EnnoteSecretBinding::crd();
    let unseen: JSONSchemaProps = JSONSchemaProps {
        default: Some(JSON(serde_json::json!({"observedGeneration": -1}))),
        ..JSONSchemaProps::default()
    };
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        if let Some(status) = schema.and_then(|s| s.properties.as_mut()).and_then(|p| p.get_mut("status")) {
            status.default = unseen.default.clone();
        }
    }
    crd
}

/// The CRD as YAML, with a first line that says where it comes from.
///
/// # Errors
/// Only if the CRD cannot be serialized, which would be a bug.
pub fn manifest() -> Result<String, serde_yaml::Error> {
    Ok(format!(
        "# Generated by `make generate` (ennote-agent crd) from src/crd.rs. Do not edit.\n{}",
        serde_yaml::to_string(&definition())?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unseen_binding_is_not_ready_for_kstatus() {
        let yaml = serde_json::to_value(definition()).unwrap();
        let status = &yaml["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(status["default"]["observedGeneration"], -1);
    }

    #[test]
    fn every_field_is_described() {
        fn walk(path: &str, node: &serde_json::Value, missing: &mut Vec<String>) {
            for (name, child) in node["properties"].as_object().into_iter().flatten() {
                let here = format!("{path}.{name}");
                if child["description"].as_str().is_none_or(str::is_empty) {
                    missing.push(here.clone());
                }
                walk(&here, child, missing);
                walk(&here, &child["items"], missing);
            }
        }
        let yaml = serde_json::to_value(definition()).unwrap();
        let root = &yaml["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let mut missing = Vec::new();
        walk("spec", &root["spec"], &mut missing);
        walk("status", &root["status"], &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }
}
