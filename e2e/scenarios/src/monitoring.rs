//! What kube-state-metrics makes of `charts/ennote-agent/monitoring/kube-state-metrics.yaml`, and the alert rules beside it.
//!
//! The program itself cannot be built here: the Go proxy does not serve its module. This follows the rules of its
//! `pkg/customresourcestate/registry_factory.go` (read at c92fe0c5) for the part of the language that our file uses; anything
//! else in the file is an error, so that nothing is taken for checked which is not.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// `charts/ennote-agent/monitoring`.
pub fn folder() -> PathBuf {
    ennote_harness::world::chart().join("monitoring")
}

/// Reads a YAML file of [`folder`].
///
/// # Errors
/// When it is not there or not what it should be.
pub fn read<T: serde::de::DeserializeOwned>(name: &str) -> Result<T> {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_yaml::from_str(&text).with_context(|| path.display().to_string())
}

/// A path into an object, name by name.
pub type Path = Vec<String>;

/// The file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of kube-state-metrics")]
pub struct Config {
    pub kind: String,
    pub spec: Resources,
}

/// `spec` of the file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of kube-state-metrics")]
pub struct Resources {
    pub resources: Vec<Resource>,
}

/// One kind that is watched.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of kube-state-metrics")]
pub struct Resource {
    pub group_version_kind: GroupVersionKind,
    pub metric_name_prefix: String,
    #[serde(rename = "errorLogV")]
    pub error_log_v: u8,
    pub labels_from_path: BTreeMap<String, Path>,
    pub metrics: Vec<Metric>,
}

/// Which kind.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of kube-state-metrics")]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// One family of series.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of kube-state-metrics")]
pub struct Metric {
    pub name: String,
    pub help: String,
    pub each: Each,
}

/// Where its values and labels come from.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of kube-state-metrics")]
pub struct Each {
    pub r#type: String,
    pub gauge: Option<Source>,
    pub info: Option<Source>,
    pub state_set: Option<Source>,
}

/// One of the three forms of [`Each`].
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields of kube-state-metrics")]
pub struct Source {
    pub path: Path,
    pub labels_from_path: BTreeMap<String, Path>,
    pub value_from: Path,
    pub nil_is_zero: bool,
    pub label_name: String,
    pub list: Vec<String>,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number, or one for each element of a list.
    Gauge,
    /// 1, for its labels.
    Info,
    /// One series for each state, 1 for the present one.
    StateSet,
}

impl Each {
    /// The form that its type names, which must be the only one.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn form(&self) -> Result<(Kind, &Source)> {
        match (self.r#type.as_str(), &self.gauge, &self.info, &self.state_set) {
            ("Gauge", Some(gauge), None, None) => Ok((Kind::Gauge, gauge)),
            ("Info", None, Some(info), None) => Ok((Kind::Info, info)),
            ("StateSet", None, None, Some(set)) => Ok((Kind::StateSet, set)),
            (other, ..) => bail!("each.type {other} and its form do not fit"),
        }
    }
}

/// One series with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        write!(f, "{}{{{}}}", self.name, labels.join(","))
    }
}

impl Config {
    /// The resource of the file: there is one.
    ///
    /// # Errors
    /// When it has another number of them.
    pub fn resource(&self) -> Result<&Resource> {
        match &self.spec.resources[..] {
            [one] => Ok(one),
            other => bail!("{} resources", other.len()),
        }
    }

    /// The series of one object.
    ///
    /// # Errors
    /// What kube-state-metrics would log as an error, and what this does not know of its language.
    pub fn series(&self, object: &Value) -> Result<Vec<Series>> {
        let resource = self.resource()?;
        let gvk = &resource.group_version_kind;
        let mut base = labels(object, &resource.labels_from_path);
        for (key, value) in [("group", &gvk.group), ("version", &gvk.version), ("kind", &gvk.kind)] {
            base.insert(format!("customresource_{key}"), value.clone());
        }
        let mut all = Vec::new();
        for metric in &resource.metrics {
            let name = format!("{}_{}", resource.metric_name_prefix, metric.name);
            let values = metric.values(object).with_context(|| name.clone())?;
            all.extend(values.into_iter().map(|(own, value)| {
                // Labels of an element win over those of the object.
                let labels = base.clone().into_iter().chain(own).collect();
                Series { name: name.clone(), labels, value }
            }));
        }
        Ok(all)
    }
}

type Values = Vec<(BTreeMap<String, String>, f64)>;

impl Metric {
    fn values(&self, object: &Value) -> Result<Values> {
        let (kind, source) = self.each.form()?;
        let at = get(object, &source.path);
        let single = std::slice::from_ref(at);
        let elements = at.as_array().map_or(single, Vec::as_slice);
        let mut values = Vec::new();
        for element in elements {
            let found = get(element, &source.value_from);
            let own = labels(element, &source.labels_from_path);
            match kind {
                // An object stands for its entries there; our file has no such gauge.
                Kind::Gauge if found.is_object() || found.is_array() => bail!("{:?} is not a number", source.path),
                Kind::Gauge if found.is_null() && source.nil_is_zero => values.push((own, 0.0)),
                Kind::Gauge if found.is_null() => {}
                Kind::Gauge => values.push((own, number(found)?)),
                Kind::Info => {
                    let entries = element.as_object().into_iter().flatten();
                    let of_entries = entries.map(|(_, entry)| labels(entry, &source.labels_from_path));
                    values.extend(of_entries.chain([own]).filter(|labels| !labels.is_empty()).map(|l| (l, 1.0)));
                }
                Kind::StateSet if found.is_null() => {}
                Kind::StateSet => {
                    let state = found.as_str().context("a state is a text")?;
                    values.extend(source.list.iter().map(|entry| {
                        let mut labels = own.clone();
                        labels.insert(source.label_name.clone(), entry.clone());
                        (labels, if entry == state { 1.0 } else { 0.0 })
                    }));
                }
            }
        }
        Ok(values)
    }
}

fn labels(of: &Value, paths: &BTreeMap<String, Path>) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let found = paths.iter().map(|(label, path)| (label, get(of, path)));
    found.filter(|(_, value)| !value.is_null()).map(|(label, value)| (label.clone(), text(value))).collect()
}

fn get<'a>(of: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(of, |here, name| here.get(name).unwrap_or(&Value::Null))
}

fn number(value: &Value) -> Result<f64> {
    match value {
        Value::Bool(yes) => Ok(f64::from(u8::from(*yes))),
        Value::Number(number) => number.as_f64().context("a number"),
        Value::String(text) => {
            let time: k8s_openapi::jiff::Timestamp = text.parse().with_context(|| format!("{text:?} as a time"))?;
            Ok(time.as_second() as f64)
        }
        _ => bail!("expected a number"),
    }
}

/// The alerts of the rules file.
///
/// # Errors
/// When it is not a PrometheusRule of one group.
pub fn alerts() -> Result<Vec<Value>> {
    let rules: Value = read("alerts.yaml")?;
    ensure!(rules["kind"] == "PrometheusRule", "alerts.yaml is for kubectl apply");
    let groups = rules["spec"]["groups"].as_array().context("groups")?;
    Ok(groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(object: &Value) -> Vec<String> {
        let config: Config = read("kube-state-metrics.yaml").unwrap();
        config
            .series(object)
            .unwrap()
            .into_iter()
            .map(|mut series| {
                series.labels.retain(|label, _| !label.starts_with("customresource_"));
                format!("{series} {}", series.value)
            })
            .collect()
    }

    #[test]
    fn a_binding_that_nobody_has_seen_shows_what_it_has() {
        let unseen = json!({
            "metadata": {"namespace": "shop", "name": "db", "generation": 1},
            "spec": {"source": {"secret": "payments db"}},
            "status": {"observedGeneration": -1},
        });
        let labels = r#"{name="db",namespace="shop"}"#;
        assert_eq!(
            shown(&unseen),
            [
                r#"ennote_binding_info{name="db",namespace="shop",secret="payments db"} 1"#.to_owned(),
                format!("ennote_binding_suspended{labels} 0"),
                format!("ennote_binding_generation{labels} 1"),
                format!("ennote_binding_observed_generation{labels} -1"),
            ]
        );
    }

    #[test]
    fn a_binding_with_a_failed_rollout_shows_everything() {
        let binding = json!({
            "metadata": {"namespace": "shop", "name": "db", "generation": 2},
            "spec": {"source": {"secret": "payments db", "workspace": "w"}, "suspend": true},
            "status": {
                "observedGeneration": 2, "agent": "ennote/agent", "lastSyncTime": "2026-01-01T00:00:00Z", "syncLatencyMillis": 18,
                "conditions": [{"type": "Ready", "status": "False", "reason": "Denied"}],
                "target": {"name": "db", "version": 7, "keys": 3},
                "rollouts": [{"kind": "Deployment", "name": "web", "version": 7, "phase": "Failed"}],
            },
        });
        let shown = shown(&binding).join("\n");
        for line in [
            r#"ennote_binding_info{agent="ennote/agent",name="db",namespace="shop",secret="payments db",target="db",workspace="w"} 1"#,
            r#"ennote_binding_condition{name="db",namespace="shop",reason="Denied",status="True",type="Ready"} 0"#,
            r#"ennote_binding_condition{name="db",namespace="shop",reason="Denied",status="False",type="Ready"} 1"#,
            r#"ennote_binding_condition{name="db",namespace="shop",reason="Denied",status="Unknown",type="Ready"} 0"#,
            r#"ennote_binding_suspended{name="db",namespace="shop"} 1"#,
            r#"ennote_binding_version{name="db",namespace="shop"} 7"#,
            r#"ennote_binding_keys{name="db",namespace="shop"} 3"#,
            r#"ennote_binding_last_sync_time_seconds{name="db",namespace="shop"} 1767225600"#,
            r#"ennote_binding_sync_latency_milliseconds{name="db",namespace="shop"} 18"#,
            r#"ennote_binding_rollout_version{kind="Deployment",name="db",namespace="shop",phase="Failed",workload="web"} 7"#,
        ] {
            assert!(shown.contains(line), "{line}\nis not among\n{shown}");
        }
    }
}
