//! The metrics file, the alerts and their page fit the CRD and each other. That the alerts fire is a scenario.

use anyhow::{Context, Result, ensure};
use ennote_scenarios::monitoring::{Config, Kind, alerts, read};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn page(name: &str) -> Result<String> {
    let path = ennote_harness::world::tree().join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The schema of a binding, with what it does not say of metadata.
fn schema() -> Result<Value> {
    let crd: Value = serde_yaml::from_str(&page("crds/ennotesecretbindings.yaml")?)?;
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    schema["properties"]["metadata"] = serde_json::json!({"type": "object", "properties": {
        "name": {"type": "string"}, "namespace": {"type": "string"}, "generation": {"type": "integer"},
    }});
    Ok(schema)
}

/// Follows a path; what it says of the element where it ends in a list.
fn follow<'a>(mut here: &'a Value, path: &[String]) -> Result<&'a Value> {
    for name in path {
        here = here["properties"].get(name).with_context(|| format!("{path:?}: there is no {name:?}"))?;
    }
    Ok(if here["type"] == "array" { &here["items"] } else { here })
}

#[test]
fn every_path_of_the_metrics_file_is_a_field_of_the_crd() -> Result<()> {
    let config: Config = read("kube-state-metrics.yaml")?;
    let (schema, resource) = (schema()?, config.resource()?);
    ensure!(config.kind == "CustomResourceStateMetrics");
    for path in resource.labels_from_path.values() {
        ensure!(follow(&schema, path)?["type"] == "string", "{path:?}");
    }
    for metric in &resource.metrics {
        let (kind, source) = metric.each.form()?;
        let element = follow(&schema, &source.path).with_context(|| metric.name.clone())?;
        for path in source.labels_from_path.values() {
            ensure!(follow(element, path)?["type"] == "string", "{}: {path:?}", metric.name);
        }
        let value = follow(element, &source.value_from).with_context(|| metric.name.clone())?;
        let kinds: &[&str] = match kind {
            Kind::Gauge if value["format"] == "date-time" => &["string"],
            Kind::Gauge => &["integer", "boolean"],
            Kind::Info => &["object"],
            Kind::StateSet => &["string"],
        };
        ensure!(kinds.iter().any(|kind| value["type"] == *kind), "{}: {}", metric.name, value["type"]);
        ensure!(!metric.help.is_empty() && kind == Kind::StateSet || source.list.is_empty(), "{}", metric.name);
        ensure!(kind != Kind::Info || metric.name.ends_with("info"), "{}: kube-state-metrics frowns", metric.name);
    }
    Ok(())
}

/// Labels of each metric of ours, with the values that are possible where the file or the CRD lists them.
fn known() -> Result<BTreeMap<String, BTreeMap<String, Vec<String>>>> {
    let config: Config = read("kube-state-metrics.yaml")?;
    let (schema, resource) = (schema()?, config.resource()?);
    let texts =
        |list: &Value| list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let mut known = BTreeMap::new();
    for metric in &resource.metrics {
        let (_, source) = metric.each.form()?;
        let element = follow(&schema, &source.path)?;
        let mut labels: BTreeMap<String, Vec<String>> =
            resource.labels_from_path.keys().map(|label| (label.clone(), vec![])).collect();
        for (label, path) in &source.labels_from_path {
            labels.insert(label.clone(), texts(&follow(element, path)?["enum"]));
        }
        if !source.label_name.is_empty() {
            labels.insert(source.label_name.clone(), source.list.clone());
        }
        known.insert(format!("{}_{}", resource.metric_name_prefix, metric.name), labels);
    }
    Ok(known)
}

/// The selectors of an expression: a metric's name and what its labels must be.
fn selectors(expression: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '"') {
        rest = &rest[at..];
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').map_or("", |(_, after)| after);
            continue;
        }
        let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        rest = after;
        let inside = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        if let Some((matchers, after)) = inside {
            let pairs = matchers.split(", ").filter_map(|m| m.split_once('='));
            let pairs = pairs.map(|(label, value)| (label.to_owned(), value.trim_matches(['"', '~']).to_owned()));
            found.push((name.to_owned(), pairs.collect()));
            rest = after;
        } else if name.contains('_') {
            found.push((name.to_owned(), vec![]));
        }
    }
    found
}

#[test]
fn alerts_name_series_and_labels_that_the_metrics_file_has() -> Result<()> {
    let known = known()?;
    let alerts = alerts()?;
    ensure!(alerts.len() >= 5, "{alerts:?}");
    for alert in &alerts {
        let name = alert["alert"].as_str().context("a name")?;
        let selectors = selectors(alert["expr"].as_str().context("an expression")?);
        ensure!(selectors.iter().any(|(metric, _)| known.contains_key(metric)), "{name}: {selectors:?}");
        let mut labels = BTreeSet::new();
        for (metric, matchers) in &selectors {
            // Of kube-state-metrics itself.
            if metric == "kube_deployment_status_replicas_available" {
                continue;
            }
            let of_metric = known.get(metric).with_context(|| format!("{name}: nothing gives {metric}"))?;
            for (label, value) in matchers {
                let values = of_metric.get(label).with_context(|| format!("{name}: {metric} has no {label}"))?;
                ensure!(values.is_empty() || values.contains(value), "{name}: {label} is never {value}");
            }
            labels.extend(of_metric.keys().cloned());
        }
        let annotations = &alert["annotations"];
        for (which, text) in annotations.as_object().context("annotations")? {
            for used in text.as_str().unwrap_or_default().split("$labels.").skip(1) {
                let label: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                ensure!(labels.contains(&label), "{name}: {which} shows {label}, which no series has");
            }
        }
        ensure!(
            annotations["description"].as_str().is_some_and(|text| text.contains("kubectl ")),
            "{name}: what to run"
        );
        ensure!(["warning", "critical"].iter().any(|s| alert["labels"]["severity"] == *s), "{name}: how bad");
    }
    Ok(())
}

#[test]
fn every_alert_and_every_metric_is_explained() -> Result<()> {
    let text = page("docs/monitoring.md")?;
    for alert in alerts()? {
        let name = alert["alert"].as_str().context("a name")?;
        ensure!(text.contains(&format!("\n### {name}\n")), "docs/monitoring.md has no section {name}");
        let url = alert["annotations"]["runbook_url"].as_str().context("a runbook")?;
        let anchor = format!("/docs/monitoring.md#{}", name.to_lowercase());
        ensure!(url.ends_with(&anchor), "{name}: {url} instead of …{anchor}");
    }
    let headings = text.lines().filter_map(|line| line.strip_prefix("### Ennote")).count();
    ensure!(headings == alerts()?.len(), "docs/monitoring.md explains an alert that there is not");
    for metric in known()?.keys() {
        ensure!(text.contains(&format!("`{metric}")), "docs/monitoring.md does not name {metric}");
    }
    Ok(())
}

#[test]
fn selectors_are_read_as_prometheus_reads_them() {
    let read = selectors("max without (a) (x_y{l=\"v\", m=~\"(w)\"} == 0)\n  unless on () count(z_z) > 0");
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(read, [("x_y".to_owned(), vec![pair("l", "v"), pair("m", "(w)")]), ("z_z".to_owned(), vec![])],);
}
