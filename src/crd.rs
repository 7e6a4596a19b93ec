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
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod rollout;
mod status;

pub use rollout::*;
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
#[x_kube(
    validation = Rule::new("!(has(self.keys) && has(self.data))")
        .message("keys picks and renames the keys of the secret; leave it out where data lists them"),
    validation = Rule::new(typed("kubernetes.io/tls", "['tls.crt', 'tls.key'].all(k, self.data.exists(e, e.key == k))"))
        .message("a Secret of type kubernetes.io/tls needs the keys tls.crt and tls.key in data"),
    validation = Rule::new(typed("kubernetes.io/dockerconfigjson", "self.data.exists(e, e.key == '.dockerconfigjson')"))
        .message("a Secret of type kubernetes.io/dockerconfigjson needs the key .dockerconfigjson in data"),
    validation = Rule::new(typed("kubernetes.io/dockercfg", "self.data.exists(e, e.key == '.dockercfg')"))
        .message("a Secret of type kubernetes.io/dockercfg needs the key .dockercfg in data"),
    validation = Rule::new(typed("kubernetes.io/basic-auth", "self.data.exists(e, e.key == 'username' || e.key == 'password')"))
        .message("a Secret of type kubernetes.io/basic-auth needs the key username or password in data"),
    validation = Rule::new(typed("kubernetes.io/ssh-auth", "self.data.exists(e, e.key == 'ssh-privatekey')"))
        .message("a Secret of type kubernetes.io/ssh-auth needs the key ssh-privatekey in data")
)]
pub struct EnnoteSecretBindingSpec {
    /// Sync (the default) keeps the Secret in step. Observe says in the Ready condition what would change, and writes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,

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

    /// Which keys of the secret to take, and under which names. Only without data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,

    /// When and how workloads restart for a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,

    /// While true the agent leaves the Secret alone: no change is written, no drift repaired, nothing asked of the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// A rule for `data` of a target with this type.
fn typed(kind: &str, holds: &str) -> String {
    format!("!has(self.data) || !has(self.target) || !has(self.target.type) || self.target.type != '{kind}' || {holds}")
}

/// What the agent does for a binding.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Keeps the Secret in step.
    #[default]
    Sync,
    /// Says what would change, and writes nothing.
    Observe,
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

    /// Type of the Secret. Defaults to Opaque. The keys that kubernetes.io/{tls,dockerconfigjson,dockercfg,basic-auth,ssh-auth}
    /// need are checked before anything is written. The type of a Secret cannot change: see ennote.io/recreate.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(
        validation = Rule::new("self.matches('^[-._/a-zA-Z0-9]+$')")
            .message("type must be a Secret's type, for example Opaque or kubernetes.io/tls"),
        validation = Rule::new("!(self in ['kubernetes.io/service-account-token', 'bootstrap.kubernetes.io/token'])")
            .message("type must not be that of a token: Kubernetes would take the Secret as a credential of its own")
    )]
    pub kind: Option<String>,

    /// Labels of the Secret, beside the agent's own. Keys that Kubernetes, the agent or the tool that applies the binding
    /// keep for themselves are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(
        validation = Rule::new(ALLOWED_KEY).message(ALLOWED_KEY_MESSAGE),
        validation = Rule::new(QUALIFIED).message("each label must be a name of letters, digits, '-', '_' and '.', with or without PREFIX/ before it"),
        validation = Rule::new("self.all(k, self[k].matches('^(([a-zA-Z0-9][-._a-zA-Z0-9]*)?[a-zA-Z0-9])?$'))")
            .message("each label's value must be at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit")
    )]
    pub labels: Option<BTreeMap<String, LabelValue>>,

    /// Annotations of the Secret, beside the agent's own. The same keys are refused as in labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(
        validation = Rule::new(ALLOWED_KEY).message(ALLOWED_KEY_MESSAGE),
        validation = Rule::new(QUALIFIED).message("each annotation must be a name of letters, digits, '-', '_' and '.', with or without PREFIX/ before it")
    )]
    pub annotations: Option<BTreeMap<String, AnnotationValue>>,

    /// Whether the API server shall refuse every change of the Secret. A newer version then waits for ennote.io/recreate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,

    /// What happens to the Secret when the binding is deleted. Delete (the default): it goes too. Retain: it is left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// What happens to the Secret when its secret is deleted in Ennote. Defaults to the agent's setting cleanupOrphans, which
    /// is Retain unless it was changed. Deletions of many at once wait for a person: see ennote.io/confirm-deletions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_source_deleted: Option<DeletionPolicy>,
}

/// Keys of labels and annotations whose meaning is not the user's to give: the agent's, those of Kubernetes, and by which
/// tools know what they applied.
const ALLOWED_KEY: &str = "self.all(k, !k.startsWith('ennote.io/') && !k.startsWith('kubernetes.io/') && !k.startsWith('k8s.io/') \
     && !(k.contains('.kubernetes.io/') && !k.startsWith('app.kubernetes.io/')) && !k.contains('.k8s.io/') \
     && !(k in ['app.kubernetes.io/managed-by', 'app.kubernetes.io/instance']))";
const ALLOWED_KEY_MESSAGE: &str = "keys of ennote.io/, kubernetes.io/ and k8s.io/ are kept for the agent and for Kubernetes, \
     app.kubernetes.io/managed-by and instance for the tool that applies; choose another";
const QUALIFIED: &str = "self.all(k, k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$'))";

/// The value of a label.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct LabelValue(#[schemars(length(max = 63))] pub String);

/// The value of an annotation.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct AnnotationValue(#[schemars(length(max = 1024))] pub String);

/// Whether a Secret goes or stays.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// It is deleted by Kubernetes' garbage collector.
    Delete,
    /// It is left as it is.
    Retain,
}

/// One key of the Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.pointer) != has(self.template)")
        .message("each entry of data takes its value from a pointer or from a template: give one of the two"),
    validation = Rule::new("!has(self.format) || has(self.pointer)")
        .message("format is for the value of a pointer; a template writes its own text"),
    validation = Rule::new("!has(self.default) || (has(self.optional) && self.optional)")
        .message("default stands in for an optional key that is missing: set optional: true with it")
)]
pub struct DataEntry {
    /// The key in the Secret: letters, digits, '-', '_' and '.'.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')")
        .message("key must be a key that a Secret can hold: letters, digits, '-', '_' and '.'"))]
    pub key: String,

    /// Where in the payload the value stands, as a JSON Pointer (RFC 6901), for example /keysValues/url. Empty: the whole
    /// payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(/([^~/]|~[01])*)*$')")
        .message("pointer must be a JSON Pointer (RFC 6901): empty, or '/' before each name, for example /keysValues/url"))]
    pub pointer: Option<String>,

    /// How the value of the pointer is written. Defaults to raw: strings as they are, numbers exactly as they were written,
    /// objects and lists as compact JSON. base64 decodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,

    /// The value as a template over the fields of the payload, for example
    /// postgres://{{ keysValues.user }}:{{ keysValues.pass | urlencode }}@db/app
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    #[x_kube(validation = Rule::new("self != ''").message("template must not be empty"))]
    pub template: Option<String>,

    /// Whether the key may be missing in the payload. It is then left out, or holds the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,

    /// What an optional key holds when it is missing in the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub default: Option<String>,
}

/// How a value is written.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Strings as they are, everything else as compact JSON.
    #[default]
    Raw,
    /// Compact JSON, strings with their quotes.
    Json,
    /// YAML in block style.
    Yaml,
    /// KEY=value lines.
    Dotenv,
    /// A properties file of Java.
    Properties,
    /// The bytes that a base64 text stands for.
    Base64,
}

/// Which keys of the secret to take, and under which names.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Regular expressions (RE2 syntax, found anywhere in the name). Only keys that match one of them are taken; absent or
    /// empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(COMPILES).message("each entry of include must be a regular expression in RE2 syntax"))]
    pub include: Option<Vec<Pattern>>,

    /// Regular expressions. Keys that match one of them are left out, also those that include takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(COMPILES).message("each entry of exclude must be a regular expression in RE2 syntax"))]
    pub exclude: Option<Vec<Pattern>>,

    /// How the names of the keys are rewritten. Absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<Rename>,

    /// Put before each name, after it was rewritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]*$') && !self.startsWith('..')")
        .message("prefix must be of letters, digits, '-', '_' and '.'"))]
    pub prefix: Option<String>,
}

/// An expression that does not compile fails the evaluation, and with it the request.
const COMPILES: &str = "self.all(p, ''.matches(p) in [true, false])";

/// A regular expression.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Pattern(#[schemars(length(max = 256))] pub String);

/// How names of keys are rewritten. Words end at anything but letters and digits, and where a capital follows a small letter.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// `db url` to `DB_URL`.
    UpperSnake,
    /// `DB url` to `db_url`.
    LowerSnake,
    /// `DB url` to `db-url`.
    LowerKebab,
    /// `DB url` to `dbUrl`.
    Camel,
    /// `DB url` to `DbUrl`.
    UpperCamel,
    /// `Db:Url` to `Db__Url`, as .NET reads nested settings from the environment.
    DotnetEnv,
    /// `DB url` to `TF_VAR_db_url`.
    TfVar,
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
