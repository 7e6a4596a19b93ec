//! What the agent needs to be allowed, which of it is missing, and the text that mends it. The chart's Role is this table, which
//! `tests/chart.rs` holds.

use serde::Serialize;

/// What the agent may do with Secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Reads none: for clusters with the admission policy.
    Strict,
    /// Reads their metadata, and watches it.
    #[default]
    Compatible,
}

/// What decides about the rights that are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The mode.
    pub mode: Mode,
    /// Only Secrets of these names, whatever the mode. Empty: all of a namespace.
    pub secret_names: Vec<String>,
    /// Rollouts of Argo are restarted, too.
    pub argo: bool,
}

/// One rule, as it stands in a Role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// One; "" is the core.
    pub api_groups: [&'static str; 1],
    /// Plural names, with a subresource behind a slash.
    pub resources: Vec<&'static str>,
    /// Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// What is allowed.
    pub verbs: Vec<&'static str>,
}

/// One verb on one resource: what the API server can be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// "" is the core.
    pub group: &'static str,
    /// Plural name, with a subresource behind a slash.
    pub resource: &'static str,
    /// Of one object.
    pub name: Option<String>,
    /// What is to be allowed.
    pub verb: &'static str,
}

const READ: [&str; 3] = ["get", "list", "watch"];
const RESTART: [&str; 4] = ["get", "list", "watch", "patch"];

impl Needs {
    /// The rules of a Role with exactly what is needed.
    pub fn rules(&self) -> Vec<Rule> {
        let rule = |group, resources: &[&'static str], verbs: &[&'static str]| Rule {
            api_groups: [group],
            resources: resources.to_vec(),
            resource_names: vec![],
            verbs: verbs.to_vec(),
        };
        let secrets: &[&str] = match (self.mode, self.secret_names.is_empty()) {
            (Mode::Strict, _) => &["create", "patch"],
            (Mode::Compatible, false) => &["get", "create", "patch"],
            (Mode::Compatible, true) => &["get", "list", "watch", "create", "patch"],
        };
        let mut rules = vec![
            Rule { resource_names: self.secret_names.clone(), ..rule("", &["secrets"], secrets) },
            rule("ennote.io", &["ennotesecretbindings"], &READ),
            rule("ennote.io", &["ennotesecretbindings/status"], &["patch"]),
            rule("apps", &["deployments", "statefulsets", "daemonsets"], &RESTART),
        ];
        if self.argo {
            rules.push(rule("argoproj.io", &["rollouts"], &RESTART));
        }
        rules.push(rule("events.k8s.io", &["events"], &["create", "patch"]));
        rules
    }

    /// The same, one by one.
    pub fn rights(&self) -> Vec<Right> {
        let mut rights = Vec::new();
        for rule in self.rules() {
            let names: Vec<Option<String>> = match rule.resource_names.as_slice() {
                [] => vec![None],
                names => names.iter().cloned().map(Some).collect(),
            };
            for resource in rule.resources {
                for name in &names {
                    rights.extend(rule.verbs.iter().map(|verb| Right {
                        group: rule.api_groups[0],
                        resource,
                        name: name.clone(),
                        verb,
                    }));
                }
            }
        }
        rights
    }
}

/// What is missing in a namespace, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Where.
    pub namespace: String,
    /// The Role of the chart there.
    pub role: String,
    /// What. Never empty.
    pub missing: Vec<Right>,
    /// Nothing of what is needed is granted.
    pub all: bool,
}

impl Lacking {
    /// `None` when nothing is missing.
    pub fn of(namespace: &str, role: &str, needed: usize, missing: Vec<Right>) -> Option<Self> {
        let all = missing.len() >= needed;
        let (namespace, role) = (namespace.to_owned(), role.to_owned());
        (!missing.is_empty()).then_some(Self { namespace, role, missing, all })
    }

    /// What of it is about this resource, if any.
    pub fn only(&self, resource: &str) -> Option<Self> {
        let missing: Vec<Right> = self.missing.iter().filter(|right| right.resource == resource).cloned().collect();
        (!missing.is_empty()).then(|| Self { missing, ..self.clone() })
    }

    /// Whether one of these is missing.
    pub fn has(&self, resource: &str, verbs: &[&str]) -> bool {
        self.missing.iter().any(|right| right.resource == resource && verbs.contains(&right.verb))
    }

    /// As in `patch secrets; list, watch deployments`.
    pub fn verbs(&self) -> String {
        let of = |rule: &Rule| {
            let names = if rule.resource_names.is_empty() { "" } else { " " };
            format!("{} {}{names}{}", rule.verbs.join(", "), rule.resources.join(", "), rule.resource_names.join(", "))
        };
        rules_of(&self.missing).iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// The rules that the Role lacks, each as YAML on one line.
    pub fn rules(&self) -> Vec<String> {
        rules_of(&self.missing).iter().map(on_one_line).collect()
    }

    /// The command that mends it. Where all is missing, Role or RoleBinding is, and helm makes both.
    pub fn mend(&self) -> String {
        let (namespace, role) = (&self.namespace, &self.role);
        if self.all {
            return format!(
                "helm upgrade {role} CHART --reuse-values with {namespace} in watchNamespaces, which makes the Role and its \
                 RoleBinding"
            );
        }
        let add = |rule: String| format!(r#"{{"op": "add", "path": "/rules/-", "value": {rule}}}"#);
        let rules = rules_of(&self.missing);
        let adds: Vec<String> = rules.iter().filter_map(|rule| serde_json::to_string(rule).ok()).map(add).collect();
        format!("kubectl patch role {role} -n {namespace} --type json -p '[{}]'", adds.join(", "))
    }

    /// For a condition: what is missing, whose turn it is, and the command that mends it.
    pub fn sentence(&self) -> String {
        let Self { namespace, role, .. } = self;
        let verbs = self.verbs();
        if self.all {
            return format!(
                "the agent has none of its rights in {namespace}: {verbs}. Whoever installed the chart: {}",
                self.mend()
            );
        }
        format!(
            "the agent may not {verbs} in {namespace}: Role {role} lacks the rule {}. Whoever installed the chart: helm upgrade, \
             or {}",
            self.rules().join(" and "),
            self.mend()
        )
    }
}

/// The rules that grant exactly these, as few as can be.
fn rules_of(rights: &[Right]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for right in rights {
        let names: Vec<String> = right.name.iter().cloned().collect();
        let same = |rule: &&mut Rule| {
            rule.api_groups == [right.group] && rule.resources == [right.resource] && rule.resource_names == names
        };
        match rules.iter_mut().find(same) {
            Some(rule) => rule.verbs.push(right.verb),
            None => rules.push(Rule {
                api_groups: [right.group],
                resources: vec![right.resource],
                resource_names: names,
                verbs: vec![right.verb],
            }),
        }
    }
    let by_names = join(rules, |a, b| {
        let alike = a.resources == b.resources && !a.resource_names.is_empty() && !b.resource_names.is_empty();
        alike.then(|| a.resource_names.extend(b.resource_names.iter().cloned())).is_some()
    });
    join(by_names, |a, b| {
        let alike = a.resource_names == b.resource_names;
        alike.then(|| a.resources.extend(&b.resources)).is_some()
    })
}

/// Joins rules of the same group and verbs, where `into` takes one into the other.
fn join(rules: Vec<Rule>, into: impl Fn(&mut Rule, &Rule) -> bool) -> Vec<Rule> {
    let mut joined: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = |other: &Rule| other.api_groups == rule.api_groups && other.verbs == rule.verbs;
        if !joined.iter_mut().any(|other| same(other) && into(other, &rule)) {
            joined.push(rule);
        }
    }
    joined
}

/// YAML in the form in which a Role of the chart is written.
fn on_one_line(rule: &Rule) -> String {
    let names = match rule.resource_names.as_slice() {
        [] => String::new(),
        names => format!(", resourceNames: [{}]", names.join(", ")),
    };
    let group = if rule.api_groups[0].is_empty() { r#""""# } else { rule.api_groups[0] };
    let (resources, verbs) = (rule.resources.join(", "), rule.verbs.join(", "));
    format!("{{apiGroups: [{group}], resources: [{resources}]{names}, verbs: [{verbs}]}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn lacking(needs: &Needs, missing: impl Fn(&Right) -> bool) -> Option<Lacking> {
        let rights = needs.rights();
        let (needed, missing) = (rights.len(), rights.into_iter().filter(missing).collect());
        Lacking::of("shop", "ennote-agent", needed, missing)
    }

    fn verbs_on_secrets(mode: Mode, names: &[&str]) -> Vec<&'static str> {
        let secret_names = names.iter().map(|name| (*name).to_owned()).collect();
        Needs { mode, secret_names, argo: false }.rules().remove(0).verbs
    }

    #[test]
    fn the_mode_decides_about_secrets_alone() {
        assert_eq!(verbs_on_secrets(Mode::Compatible, &[]), ["get", "list", "watch", "create", "patch"]);
        assert_eq!(verbs_on_secrets(Mode::Strict, &[]), ["create", "patch"]);
        assert_eq!(verbs_on_secrets(Mode::Strict, &["a"]), ["create", "patch"]);
        assert_eq!(verbs_on_secrets(Mode::Compatible, &["a"]), ["get", "create", "patch"]);
        for mode in [Mode::Strict, Mode::Compatible] {
            let rest = Needs { mode, ..Needs::default() }.rules().split_off(1);
            assert_eq!(rest, Needs::default().rules().split_off(1));
        }
        let argo = Needs { argo: true, ..Needs::default() };
        assert_eq!(argo.rules().len(), Needs::default().rules().len() + 1);
    }

    #[test]
    fn rights_and_rules_are_the_same_thing() {
        let named = Needs { secret_names: vec!["a".into(), "b".into()], argo: true, mode: Mode::Strict };
        for needs in [Needs::default(), Needs { mode: Mode::Strict, ..Needs::default() }, named] {
            assert_eq!(rules_of(&needs.rights()), needs.rules());
            assert!(
                needs.rights().iter().all(|right| !["update", "delete", "deletecollection", "*"].contains(&right.verb))
            );
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_rule_and_the_command() {
        assert_eq!(lacking(&Needs::default(), |_| false), None);
        let one = lacking(&Needs::default(), |r| r.resource == "secrets" && r.verb == "patch").unwrap();
        assert_eq!(
            one.sentence(),
            "the agent may not patch secrets in shop: Role ennote-agent lacks the rule {apiGroups: [\"\"], resources: [secrets], \
             verbs: [patch]}. Whoever installed the chart: helm upgrade, or kubectl patch role ennote-agent -n shop --type json -p \
             '[{\"op\": \"add\", \"path\": \"/rules/-\", \"value\": {\"apiGroups\":[\"\"],\"resources\":[\"secrets\"],\"verbs\":[\"patch\"]}}]'"
        );
        assert!(one.has("secrets", &["patch"]) && !one.has("secrets", &["get"]) && !one.has("deployments", &["patch"]));
        let more = lacking(&Needs::default(), |r| r.verb == "watch" || r.resource == "events").unwrap();
        assert_eq!(
            more.verbs(),
            "watch secrets; watch ennotesecretbindings; watch deployments, statefulsets, daemonsets; create, patch events"
        );
        let all = lacking(&Needs::default(), |_| true).unwrap();
        assert!(
            all.sentence().contains("none of its rights in shop")
                && all.sentence().contains("helm upgrade ennote-agent")
        );
        assert!(!all.sentence().contains("kubectl patch"), "there may be no Role to patch");
    }

    #[test]
    fn a_rule_is_yaml_and_the_patch_holds_the_same() {
        let needs = Needs { secret_names: vec!["a".into(), "b".into()], ..Needs::default() };
        let lacking = lacking(&needs, |r| r.resource == "secrets" && r.verb == "create").unwrap();
        let want =
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["create"]});
        let rules: Vec<Value> = lacking.rules().iter().map(|rule| serde_yaml::from_str(rule).unwrap()).collect();
        assert_eq!(rules, std::slice::from_ref(&want));
        let mend = lacking.mend();
        let patch: Value = serde_json::from_str(mend.split('\'').nth(1).unwrap()).unwrap();
        assert_eq!(patch[0]["value"], want);
        assert_eq!(lacking.verbs(), "create secrets a, b");
    }
}
