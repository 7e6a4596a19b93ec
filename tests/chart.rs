//! The chart, rendered by real helm over many values: what it accepts, what it refuses, and what it gives the agent.
//!
//! helm is $HELM, else the one in PATH. Without it these tests fail: run `make tools`.

use ennote_agent::domain::rights::{Mode, Needs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/ennote-agent")
}

/// Runs helm on the chart with `values` as its only values file. Ok: standard output; Err: standard error.
fn helm(arguments: &[&str], values: &str) -> Result<Result<String, String>, Box<dyn Error>> {
    let program = std::env::var_os("HELM").unwrap_or_else(|| "helm".into());
    let child = Command::new(&program)
        .args(arguments)
        .args(["--values", "-"])
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|e| {
        format!("cannot run helm as {program:?} ({e}). Run `make tools`, which builds it, and `make chart`; or set HELM=/path/to/helm")
    })?;
    child.stdin.take().ok_or("no pipe to helm")?.write_all(values.as_bytes())?;
    let out = child.wait_with_output()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes);
    Ok(if out.status.success() { Ok(text(out.stdout)?) } else { Err(text(out.stderr)?) })
}

/// The objects that the chart renders for release `ennote-agent` in namespace `ennote`.
fn render(values: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    render_for(&["--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"], values)
}

/// The same for a cluster that these arguments tell of.
fn render_for(cluster: &[&str], values: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let chart = chart();
    let arguments = ["template", "ennote-agent", chart.to_str().ok_or("path")?, "--namespace", "ennote"];
    let yaml = helm(&[&arguments, cluster].concat(), values)?.map_err(|e| format!("helm refused {values}: {e}"))?;
    objects(&yaml)
}

fn objects(yaml: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let object: Value = serde::Deserialize::deserialize(document)?;
        if !object.is_null() {
            objects.push(object);
        }
    }
    Ok(objects)
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value, Box<dyn Error>> {
    let found = of_kind(objects, kind).into_iter().find(|o| o["metadata"]["name"] == name);
    found.ok_or_else(|| format!("no {kind} {name} is rendered").into())
}

fn pod(objects: &[Value]) -> Result<&Value, Box<dyn Error>> {
    Ok(&of_kind(objects, "Deployment").first().ok_or("no Deployment")?["spec"]["template"])
}

/// The values of the released chart 1.0.2, whole: a user's file of today.
const RELEASED: &str = r#"
replicaCount: 1
image: {repository: registry-us1.ennote.io/ennote-k8s-agent, pullPolicy: Always, tag: latest}
ennote:
  api: {url: "api.ennote.io:443"}
  k8s: {secretPrefix: "", cleanupOrphans: false}
  auth: {token: "", existingSecretName: "", existingSecretKey: token}
serviceAccount: {create: true, annotations: {}, name: ""}
podSecurityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000}
securityContext:
  capabilities: {drop: [ALL]}
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  seccompProfile: {type: RuntimeDefault}
resources:
  limits: {cpu: 500m, memory: 512Mi}
  requests: {cpu: 100m, memory: 256Mi}
nodeSelector: {}
affinity: {}
tolerations: []
"#;

/// What values.yaml advertises, used, and what the released schema refused although its values.yaml advertised it.
const ACCEPTED: &[&str] = &[
    "{}",
    RELEASED,
    "replicaCount: 0",
    "global: {imageRegistry: example.com}",
    "enabled: true",
    "image: {repository: example.com/agent, tag: v1.2.3, pullPolicy: Never}",
    "image: {digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'}",
    "imagePullSecrets: [{name: pull}]",
    "nameOverride: agent",
    "fullnameOverride: ennote",
    "watchNamespaces: [shop, payments]",
    "ennote: {api: {url: 'https://api1.ennote.io'}}",
    "ennote: {api: {url: 'https://cloud.example.com:8443/'}}",
    "ennote: {api: {url: 'dns:///cloud.example.com:443'}}",
    "ennote: {api: {url: '[fd00::1]:443'}}",
    "ennote: {api: {caCert: \"# our CA\\n-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n\"}}",
    "ennote: {auth: {token: ennt1.a.b.c}}",
    "ennote: {auth: {existingSecretName: ennote-auth-secret, existingSecretKey: bootstrap.token}}",
    "ennote: {auth: {audience: 'https://cloud.example.com/agent-join'}}",
    "ennote: {k8s: {secretPrefix: team-, cleanupOrphans: true}}",
    "rollouts: {consumers: true, reloader: true, argo: true}",
    "rollouts: {argo: true}",
    "rbac: {mode: compatible, secretNames: [payments-db, web.tls]}",
    "admissionPolicy: {create: false}",
    "{rbac: {mode: strict}, admissionPolicy: {installedByPlatform: true, name: platform.ennote}}",
    "trust: {roots: [47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU], minKeyset: 7}",
    "log: {level: 'ennote_agent=debug,info', format: text}",
    "crds: {install: false}",
    "serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/r'}, name: agent}",
    "serviceAccount: {create: false}",
    "networkPolicy: {create: false}",
    "networkPolicy: {apiServerPorts: [8443], dnsPorts: [5353]}",
    "podSecurityContext: {runAsUser: 1000, supplementalGroups: [4], fsGroupChangePolicy: OnRootMismatch, seLinuxOptions: {level: 's0'}}",
    "podSecurityContext: {runAsNonRoot: true, seccompProfile: {type: Localhost, localhostProfile: agent.json}}",
    "podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}",
    "securityContext: {runAsUser: 1000, appArmorProfile: {type: RuntimeDefault}}",
    "resources: {requests: {cpu: 0.5, memory: 67108864}, limits: {cpu: 1, ephemeral-storage: 1Gi, example.com/device: 1}}",
    "resources: null",
    "podAnnotations: {example.com/team: payments}",
    "podLabels: {team: payments}",
    "priorityClassName: system-cluster-critical",
    "nodeSelector: {node-role.kubernetes.io/infra: ''}",
    "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}",
    "tolerations: [{key: infra, operator: Exists, effect: NoSchedule}, {operator: Exists, effect: NoExecute, tolerationSeconds: 60}]",
];

/// (values, what the message must name): slips of the hand, each refused before anything reaches a cluster.
const REFUSED: &[(&str, &str)] = &[
    ("replicas: 1", "replicas"),
    ("replicaCount: 2", "replicaCount"),
    ("image: {tags: latest}", "tags"),
    ("image: {tag: 1.0}", "tag"),
    ("image: {digest: latest}", "digest"),
    ("image: {pullPolicy: always}", "pullPolicy"),
    ("imagePullSecrets: [pull]", "imagePullSecrets"),
    ("watchNamespace: [shop]", "watchNamespace"),
    ("watchNamespaces: shop", "watchNamespaces"),
    ("watchNamespaces: [Shop]", "watchNamespaces"),
    ("watchNamespaces: [shop, shop]", "watchNamespaces"),
    ("watchNamespaces: ['*']", "watchNamespaces"),
    ("ennote: {url: 'a:1'}", "url"),
    ("ennote: {api: {url: api.ennote.io}}", "url"),
    ("ennote: {api: {url: 'http://api.ennote.io:80'}}", "url"),
    ("ennote: {api: {cacert: x}}", "cacert"),
    ("ennote: {api: {caCert: ca.crt}}", "caCert"),
    ("ennote: {auth: {tokn: x}}", "tokn"),
    ("ennote: {auth: {existingSecret: x}}", "existingSecret"),
    ("ennote: {auth: {existingSecretKey: 'a key'}}", "existingSecretKey"),
    ("ennote: {k8s: {secretprefix: x}}", "secretprefix"),
    ("ennote: {k8s: {secretPrefix: Team_}}", "secretPrefix"),
    ("ennote: {k8s: {cleanupOrphans: 'yes'}}", "cleanupOrphans"),
    ("rollouts: {argoRollouts: true}", "argoRollouts"),
    ("rollouts: {consumers: 'yes'}", "consumers"),
    ("rollout: {argo: true}", "rollout"),
    ("trust: {root: []}", "root"),
    ("trust: {roots: [short]}", "roots"),
    ("log: {format: yaml}", "format"),
    ("crds: {enabled: true}", "enabled"),
    ("serviceAccount: {annotation: {}}", "annotation"),
    ("serviceAccount: {annotations: {a: true}}", "annotations"),
    ("networkPolicy: {enabled: false}", "enabled"),
    ("networkPolicy: {apiServerPorts: 443}", "apiServerPorts"),
    ("networkPolicy: {apiServerPorts: []}", "apiServerPorts"),
    ("networkPolicy: {dnsPorts: [0]}", "dnsPorts"),
    ("podSecurityContext: {runAsuser: 1}", "runAsuser"),
    ("securityContext: {readOnlyRootFileSystem: true}", "readOnlyRootFileSystem"),
    ("securityContext: {capabilities: {drops: [ALL]}}", "drops"),
    ("resources: {request: {cpu: 1}}", "request"),
    ("resources: {requests: {memery: 1Mi}}", "memery"),
    ("resources: {requests: {memory: 64MB}}", "memory"),
    ("podAnnotations: {a: 1}", "podAnnotations"),
    ("nodeSelector: [a]", "nodeSelector"),
    ("affinity: {podAffinty: {}}", "podAffinty"),
    ("tolerations: {key: a}", "tolerations"),
    ("tolerations: [{effect: Noschedule}]", "tolerations"),
];

#[test]
fn everything_that_values_yaml_advertises_is_accepted() -> Outcome {
    for values in ACCEPTED {
        let rendered = render(values)?;
        for object in &rendered {
            for field in [&object["apiVersion"], &object["kind"], &object["metadata"]["name"]] {
                assert!(field.as_str().is_some_and(|s| !s.is_empty()), "{values}: {object}");
            }
        }
        assert_eq!(of_kind(&rendered, "Deployment").len(), 1, "{values}");
    }
    Ok(())
}

/// Each value of values.yaml appears in the list above with another setting than its default, or in the released file.
#[test]
fn the_list_of_accepted_values_is_whole() -> Outcome {
    fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
        match value.as_object() {
            Some(map) if !map.is_empty() => map.iter().for_each(|(k, v)| leaves(&format!("{path}/{k}"), v, found)),
            _ => found.push(path.to_owned()),
        }
    }
    let defaults: Value = serde_yaml::from_str(&std::fs::read_to_string(chart().join("values.yaml"))?)?;
    let mut advertised = Vec::new();
    leaves("", &defaults, &mut advertised);
    let tried: Vec<Value> = ACCEPTED.iter().map(|text| serde_yaml::from_str(text)).collect::<Result<_, _>>()?;
    advertised.retain(|path| !tried.iter().any(|values| values.pointer(path).is_some()));
    assert_eq!(advertised, Vec::<String>::new(), "values that no test sets");
    Ok(())
}

/// Comments promise what the schema takes: every top-level value of values.yaml has one, and is in the schema.
#[test]
fn every_value_has_a_comment_and_a_type() -> Outcome {
    let text = std::fs::read_to_string(chart().join("values.yaml"))?;
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json"))?)?;
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some((name, value)) = line.split_once(':').filter(|(n, _)| n.chars().all(char::is_alphanumeric)) else {
            continue;
        };
        assert!(schema["properties"][name].is_object(), "{name} is not in values.schema.json");
        let above = at.checked_sub(1).is_some_and(|i| lines[i].starts_with('#'));
        let group = value.trim().is_empty();
        assert!(above || group, "{name} has no comment in values.yaml");
    }
    Ok(())
}

#[test]
fn typos_are_refused_with_their_path() -> Outcome {
    for (values, name) in REFUSED {
        let chart = chart();
        let arguments = ["template", "ennote-agent", chart.to_str().ok_or("path")?];
        match helm(&arguments, values)? {
            Ok(_) => return Err(format!("accepted: {values}").into()),
            Err(text) => assert!(
                text.contains("values don't meet the specifications of the schema") && text.contains(name),
                "{values}: {text}"
            ),
        }
    }
    Ok(())
}

#[test]
fn helm_lint_has_nothing_to_say() -> Outcome {
    let chart = chart();
    for values in ACCEPTED {
        let said = helm(&["lint", "--strict", chart.to_str().ok_or("path")?], values)?;
        assert!(said.is_ok(), "{values}: {said:?}");
    }
    Ok(())
}

/// The whole of the agent's rights. A change here is a change of what a stolen token may do.
#[test]
fn the_agent_has_exactly_these_rights() -> Outcome {
    let rules = json!([
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "patch"]},
        {"apiGroups": ["ennote.io"], "resources": ["ennotesecretbindings"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["ennote.io"], "resources": ["ennotesecretbindings/status"], "verbs": ["patch"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]);
    assert_eq!(
        serde_json::to_value(Needs { mode: Mode::Strict, ..Needs::default() }.rules())?,
        rules,
        "what the self-check asks for"
    );
    for (values, namespaces) in
        [("{}", vec!["ennote"]), ("watchNamespaces: [shop, payments]", vec!["shop", "payments"])]
    {
        let rendered = render(values)?;
        let roles = of_kind(&rendered, "Role");
        let bindings = of_kind(&rendered, "RoleBinding");
        let places =
            |objects: &[&Value]| objects.iter().map(|o| o["metadata"]["namespace"].clone()).collect::<Vec<_>>();
        assert_eq!(places(&roles), namespaces, "{values}");
        assert_eq!(places(&bindings), namespaces, "{values}");
        for role in &roles {
            assert_eq!(role["rules"], rules, "{values}");
        }
        for binding in &bindings {
            assert_eq!(
                binding["subjects"],
                json!([{"kind": "ServiceAccount", "name": "ennote-agent", "namespace": "ennote"}])
            );
            assert_eq!(
                binding["roleRef"],
                json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": roles[0]["metadata"]["name"]})
            );
        }
        assert_eq!(
            named(&rendered, "ConfigMap", "ennote-agent-config")?["data"]["ENNOTE_K8S_WATCH_NAMESPACES"],
            namespaces.join(",")
        );
    }
    Ok(())
}

/// Rollouts of Argo: in each watched namespace, and only when asked for. The other two settings are no right.
#[test]
fn what_else_may_restart_reaches_the_agent_and_only_argo_adds_a_right() -> Outcome {
    let rollouts =
        json!({"apiGroups": ["argoproj.io"], "resources": ["rollouts"], "verbs": ["get", "list", "watch", "patch"]});
    let needed = serde_json::to_value(Needs { argo: true, mode: Mode::Strict, ..Needs::default() }.rules())?;
    for (values, [consumers, reloader, argo]) in [
        ("watchNamespaces: [shop, payments]", ["false"; 3]),
        ("{watchNamespaces: [shop, payments], rollouts: {consumers: true, reloader: true}}", ["true", "true", "false"]),
        ("{watchNamespaces: [shop, payments], rollouts: {argo: true}}", ["false", "false", "true"]),
    ] {
        let rendered = render(values)?;
        let settings = &named(&rendered, "ConfigMap", "ennote-agent-config")?["data"];
        assert_eq!(settings["ENNOTE_ROLLOUTS_CONSUMERS"], consumers, "{values}");
        assert_eq!(settings["ENNOTE_ROLLOUTS_RELOADER"], reloader, "{values}");
        assert_eq!(settings["ENNOTE_ROLLOUTS_ARGO"], argo, "{values}");
        let roles = of_kind(&rendered, "Role");
        assert_eq!(roles.len(), 2, "{values}");
        for role in roles {
            let rules = role["rules"].as_array().ok_or("rules")?;
            let of_argo: Vec<&Value> = rules.iter().filter(|r| r["apiGroups"] == json!(["argoproj.io"])).collect();
            let wanted: &[&Value] = if argo == "true" { &[&rollouts] } else { &[] };
            assert_eq!(of_argo, wanted, "{values}");
            assert_eq!(rules.len(), 5 + wanted.len(), "{values}: nothing else");
            assert!(argo != "true" || role["rules"] == needed, "{values}: what the self-check asks for");
        }
    }
    Ok(())
}

/// With any values: no right beyond the watched namespaces, no port, nothing that runs but the agent.
#[test]
fn nothing_but_the_agent_is_installed() -> Outcome {
    const KINDS: [&str; 10] = [
        "ConfigMap",
        "CustomResourceDefinition",
        "Deployment",
        "NetworkPolicy",
        "Role",
        "RoleBinding",
        "Secret",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    for values in ACCEPTED {
        let rendered = render(values)?;
        for object in &rendered {
            let kind = object["kind"].as_str().unwrap_or_default();
            assert!(KINDS.contains(&kind), "{values}: {kind}");
            assert!(object["metadata"]["annotations"]["helm.sh/hook"].is_null(), "{values}: a hook: {object}");
        }
        let spec = &pod(&rendered)?["spec"];
        for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"] {
            assert!(spec[field].is_null(), "{values}: {field}");
        }
        let containers = spec["containers"].as_array().ok_or("containers")?;
        assert_eq!(containers.len(), 1, "{values}");
        for field in ["ports", "lifecycle", "command"] {
            assert!(containers[0][field].is_null(), "{values}: {field}");
        }
        assert!(
            !containers[0].to_string().contains("ENNOTE_AUTH_TOKEN\""),
            "{values}: the token is a file, never an environment variable"
        );
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert!(containers[0][probe]["exec"]["command"][0] == "/ennote-agent", "{values}: {probe}");
        }
    }
    Ok(())
}

/// Nothing comes in. Out it goes to names, to the API server, and to the port that the cloud's address has.
#[test]
fn the_network_policy_lets_nothing_in_and_out_only_what_is_needed() -> Outcome {
    for (values, tcp, names) in [
        ("{}", vec![443, 6443], vec![53]),
        ("ennote: {api: {url: 'https://cloud.example.com'}}", vec![443, 6443], vec![53]),
        ("ennote: {api: {url: 'https://cloud.example.com:8443/'}}", vec![443, 6443, 8443], vec![53]),
        ("ennote: {api: {url: 'dns:///cloud.example.com:9000'}}", vec![443, 6443, 9000], vec![53]),
        ("ennote: {api: {url: '[fd00::1]:443'}}", vec![443, 6443], vec![53]),
        ("ennote: {api: {url: 'https://[fd00::1]'}}", vec![443, 6443], vec![53]),
        ("networkPolicy: {apiServerPorts: [16443], dnsPorts: [5353]}", vec![16443, 443], vec![5353]),
    ] {
        let rendered = render(values)?;
        let spec = &named(&rendered, "NetworkPolicy", "ennote-agent")?["spec"];
        let port = |port: &i32, protocol: &str| json!({"port": port, "protocol": protocol});
        let dns: Vec<Value> = names.iter().flat_map(|p| [port(p, "UDP"), port(p, "TCP")]).collect();
        let rest: Vec<Value> = tcp.iter().map(|p| port(p, "TCP")).collect();
        let wanted = json!({
            "podSelector": {"matchLabels": of_kind(&rendered, "Deployment")[0]["spec"]["selector"]["matchLabels"]},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"ports": dns}, {"ports": rest}],
        });
        assert_eq!(*spec, wanted, "{values}");
    }
    assert_eq!(of_kind(&render("networkPolicy: {create: false}")?, "NetworkPolicy").len(), 0);
    Ok(())
}

/// Pod Security "restricted", v1.36, field by field
/// (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>).
fn breaches_of_restricted(spec: &Value) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut hold = |ok: bool, what: &str| {
        if !ok {
            breaches.push(what.to_owned());
        }
    };
    let pod = &spec["securityContext"];
    let falsy = |v: &Value| v.is_null() || *v == false;
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        hold(falsy(&spec[field]), field);
    }
    let allowed =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let typed = volume.as_object().is_some_and(|v| v.keys().all(|k| k == "name" || allowed.contains(&k.as_str())));
        hold(typed, &format!("volume {}", volume["name"]));
    }
    for container in
        ["containers", "initContainers"].iter().flat_map(|list| spec[*list].as_array().into_iter().flatten())
    {
        let own = &container["securityContext"];
        let either = |field: &str| if own[field].is_null() { &pod[field] } else { &own[field] };
        hold(falsy(&own["privileged"]), "privileged");
        hold(own["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation");
        hold(*either("runAsNonRoot") == true, "runAsNonRoot");
        hold(*either("runAsUser") != 0, "runAsUser");
        hold(["RuntimeDefault", "Localhost"].iter().any(|t| either("seccompProfile")["type"] == **t), "seccompProfile");
        hold(own["capabilities"]["drop"].as_array().is_some_and(|d| d.contains(&json!("ALL"))), "capabilities.drop");
        let added = own["capabilities"]["add"].as_array().into_iter().flatten();
        hold(added.into_iter().all(|c| c == "NET_BIND_SERVICE"), "capabilities.add");
        hold(own["procMount"].is_null() || own["procMount"] == "Default", "procMount");
        hold(container["ports"].as_array().into_iter().flatten().all(|p| p["hostPort"].is_null()), "hostPort");
        for handler in ["livenessProbe", "readinessProbe", "startupProbe"] {
            hold(
                container[handler]["httpGet"]["host"].is_null() && container[handler]["tcpSocket"]["host"].is_null(),
                handler,
            );
        }
    }
    breaches
}

#[test]
fn the_pod_is_restricted() -> Outcome {
    for values in [
        "{}",
        RELEASED,
        "podSecurityContext: null",
        "podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}",
    ] {
        let rendered = render(values)?;
        let spec = &pod(&rendered)?["spec"];
        assert_eq!(breaches_of_restricted(spec), Vec::<String>::new(), "{values}");
        assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true, "{values}");
        assert_eq!(spec["automountServiceAccountToken"], false, "{values}");
    }
    // The check above can fail.
    for (values, breach) in [
        ("securityContext: {privileged: true}", "privileged"),
        ("securityContext: {allowPrivilegeEscalation: true}", "allowPrivilegeEscalation"),
        ("securityContext: {runAsUser: 0}", "runAsUser"),
        ("securityContext: {runAsNonRoot: false}", "runAsNonRoot"),
        ("securityContext: {seccompProfile: {type: Unconfined}}", "seccompProfile"),
        ("securityContext: {capabilities: {drop: []}}", "capabilities.drop"),
        ("securityContext: {capabilities: {add: [SYS_PTRACE]}}", "capabilities.add"),
        ("securityContext: {procMount: Unmasked}", "procMount"),
    ] {
        assert_eq!(breaches_of_restricted(&pod(&render(values)?)?["spec"]), [breach], "{values}");
    }
    Ok(())
}

/// A default that fails only in a pod log is a default that nobody sees: one replica, never two agents, memory never swapped.
#[test]
fn one_agent_at_a_time_in_little_memory() -> Outcome {
    let rendered = render("{}")?;
    let deployment = of_kind(&rendered, "Deployment")[0];
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["strategy"], json!({"type": "Recreate"}));
    let container = &pod(&rendered)?["spec"]["containers"][0];
    assert_eq!(
        container["resources"],
        json!({"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}})
    );
    assert_eq!(container["args"], json!(["run"]));
    assert_eq!(container["readinessProbe"]["exec"]["command"], json!(["/ennote-agent", "healthcheck", "--ready"]));
    Ok(())
}

#[test]
fn each_token_has_its_own_audience_and_a_short_life() -> Outcome {
    for (values, audience) in [
        ("{}", "https://api.ennote.io/agent-join"),
        ("ennote: {api: {url: 'https://Cloud.Example.com:8443/'}}", "https://cloud.example.com/agent-join"),
        ("ennote: {api: {url: 'https://cloud.example.com'}}", "https://cloud.example.com/agent-join"),
        ("ennote: {api: {url: 'dns:///cloud.example.com:443'}}", "https://cloud.example.com/agent-join"),
        ("ennote: {api: {url: '[fd00::1]:443'}}", "https://[fd00::1]/agent-join"),
        ("ennote: {auth: {audience: mine}}", "mine"),
    ] {
        let rendered = render(values)?;
        let volumes = pod(&rendered)?["spec"]["volumes"].as_array().ok_or("volumes")?.clone();
        let token = |name: &str| {
            volumes
                .iter()
                .find(|v| v["name"] == name)
                .map(|v| v["projected"]["sources"][0]["serviceAccountToken"].clone())
        };
        assert_eq!(
            token("cloud-token"),
            Some(json!({"path": "sa-token", "audience": audience, "expirationSeconds": 600})),
            "{values}"
        );
        assert_eq!(token("kube-api-access"), Some(json!({"path": "token", "expirationSeconds": 3600})), "{values}");
    }
    Ok(())
}

#[test]
fn the_bootstrap_token_is_mounted_from_the_secret_that_was_named() -> Outcome {
    for (values, name, key, made) in [
        ("{}", "ennote-agent-auth", "token", None),
        ("ennote: {auth: {token: abc}}", "ennote-agent-auth", "token", Some("YWJj")),
        ("ennote: {auth: {token: abc, existingSecretKey: k}}", "ennote-agent-auth", "k", Some("YWJj")),
        ("ennote: {auth: {existingSecretName: mine, existingSecretKey: k}}", "mine", "k", None),
        ("ennote: {auth: {token: abc, existingSecretName: mine}}", "mine", "token", None),
    ] {
        let rendered = render(values)?;
        let made_here: Vec<Value> = of_kind(&rendered, "Secret").iter().map(|s| s["data"][key].clone()).collect();
        assert_eq!(made_here, made.map(|text| json!(text)).into_iter().collect::<Vec<_>>(), "{values}");
        let volumes = pod(&rendered)?["spec"]["volumes"].as_array().ok_or("volumes")?.clone();
        let auth = volumes.iter().find(|v| v["name"] == "auth").map(|v| v["secret"].clone()).unwrap_or_default();
        assert_eq!((&auth["secretName"], &auth["optional"]), (&json!(name), &json!(true)), "{values}");
        assert_eq!(auth["items"], json!([{"key": key, "path": "token"}]), "{values}");
    }
    Ok(())
}

/// Every setting that the chart writes is one that the agent reads, and each file that it names is mounted.
#[test]
fn the_configmap_speaks_the_agents_language() -> Outcome {
    let values = "
ennote: {api: {url: 'dns:///Cloud.example.com:443', caCert: '-----BEGIN CERTIFICATE-----'}, k8s: {secretPrefix: team-, cleanupOrphans: true}}
trust: {roots: [47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU, 57DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU], minKeyset: 12345678}
watchNamespaces: [shop, payments]
";
    let rendered = render(values)?;
    let data = named(&rendered, "ConfigMap", "ennote-agent-config")?["data"].clone();
    let mut command = <ennote_agent::config::Cli as clap::CommandFactory>::command();
    let run = command.find_subcommand_mut("run").ok_or("no subcommand run")?;
    let known: Vec<(String, String)> = run
        .get_arguments()
        .filter_map(|a| Some((a.get_env()?.to_str()?.to_owned(), format!("--{}", a.get_long()?))))
        .collect();
    let mut arguments = vec!["ennote-agent".to_owned(), "run".to_owned()];
    for (name, value) in data.as_object().ok_or("data")? {
        let (_, flag) =
            known.iter().find(|(env, _)| env == name).ok_or_else(|| format!("{name} is no setting of the agent"))?;
        arguments.push(format!("{flag}={}", value.as_str().ok_or("not a string")?));
    }
    let cli = <ennote_agent::config::Cli as clap::Parser>::try_parse_from(arguments)?;
    let ennote_agent::config::Command::Run(run) = cli.command else { return Err("not run".into()) };
    assert_eq!(run.api_url.authority(), "cloud.example.com:443");
    assert_eq!(run.namespaces(), ["payments", "shop"]);
    assert_eq!(run.target_namespace, "ennote");
    assert_eq!(run.expected_audience(), "https://cloud.example.com/agent-join");
    assert_eq!((run.secret_prefix.as_str(), run.cleanup_orphans, run.trust_roots.len()), ("team-", true, 2));
    assert_eq!(run.trust_min_keyset, 12_345_678);
    assert!(run.auth_token.is_none());

    let mounts: Vec<PathBuf> = pod(&rendered)?["spec"]["containers"][0]["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| m["mountPath"].as_str().map(PathBuf::from))
        .collect();
    for file in [&run.auth_token_file, &run.sa_token_file, &run.tls_ca_file, &run.heartbeat_file] {
        let file = file.as_ref().ok_or("a file is not set")?;
        assert!(mounts.iter().any(|m| file.parent() == Some(m)), "{file:?} is on no mount of {mounts:?}");
    }
    Ok(())
}

/// The six environment names of the released image.
#[test]
fn released_settings_keep_their_names() -> Outcome {
    let rendered = render("ennote: {api: {url: 'api1.ennote.io:443'}, k8s: {secretPrefix: a-, cleanupOrphans: true}}")?;
    let data = &named(&rendered, "ConfigMap", "ennote-agent-config")?["data"];
    for (name, value) in [
        ("ENNOTE_API_URL", "api1.ennote.io:443"),
        ("ENNOTE_K8S_TARGET_NAMESPACE", "ennote"),
        ("ENNOTE_K8S_SECRET_PREFIX", "a-"),
        ("ENNOTE_K8S_INSTANCE_NAME", "ennote-agent"),
        ("ENNOTE_K8S_CLEANUP_ORPHANS", "true"),
    ] {
        assert_eq!(data[name], value, "{name}");
    }
    Ok(())
}

#[test]
fn a_change_of_settings_restarts_the_pod_and_a_new_token_does_not() -> Outcome {
    let checksum = |values: &str| -> Result<Value, Box<dyn Error>> {
        Ok(pod(&render(values)?)?["metadata"]["annotations"]["checksum/config"].clone())
    };
    let plain = checksum("{}")?;
    assert!(plain.is_string());
    assert_eq!(checksum("ennote: {auth: {token: abc}}")?, plain);
    assert_ne!(checksum("log: {level: debug}")?, plain);
    assert_ne!(checksum("ennote: {api: {caCert: '-----BEGIN CERTIFICATE-----'}}")?, plain);
    Ok(())
}

#[test]
fn the_crd_outlives_the_release_and_can_be_left_out() -> Outcome {
    let rendered = render("{}")?;
    let crd = of_kind(&rendered, "CustomResourceDefinition")[0];
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let source: Value = serde_yaml::from_str(&ennote_agent::crd::manifest()?)?;
    assert!(crd["spec"] == source["spec"], "the rendered schema is not the generated one: run `make generate`");
    assert_eq!(of_kind(&render("crds: {install: false}")?, "CustomResourceDefinition").len(), 0);
    Ok(())
}

/// An upgrade in place: a Deployment's selector and a RoleBinding's roleRef cannot change.
#[test]
fn an_upgrade_from_the_released_chart_keeps_its_objects() -> Outcome {
    let rendered = render(RELEASED)?;
    let deployment = named(&rendered, "Deployment", "ennote-agent")?;
    let selector = json!({"app.kubernetes.io/name": "ennote-agent", "app.kubernetes.io/instance": "ennote-agent"});
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(pod(&rendered)?["spec"]["containers"][0]["name"], "ennote-agent");
    assert_eq!(named(&rendered, "RoleBinding", "ennote-agent-binding")?["roleRef"]["name"], "ennote-agent");
    named(&rendered, "ServiceAccount", "ennote-agent")?;
    Ok(())
}

/// Examples are what users copy: each parses as what it says it is.
#[test]
fn examples_parse_and_the_roles_never_reach_status() -> Outcome {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let read =
        |name: &str| -> Result<Vec<Value>, Box<dyn Error>> { objects(&std::fs::read_to_string(folder.join(name))?) };
    for name in ["binding.yaml", "binding-mapped.yaml", "binding-template.yaml"] {
        for object in read(name)? {
            let spec = object["spec"].clone();
            let parsed: ennote_agent::crd::EnnoteSecretBinding = serde_json::from_value(object)?;
            assert_eq!(serde_json::to_value(&parsed.spec)?, spec, "{name}: a field that the agent does not know");
            ennote_agent::domain::request::Request::parse(&parsed, &Default::default())
                .map_err(|p| format!("{name}: {p}"))?;
        }
    }
    let kinds: Vec<Value> = read("workloads.yaml")?.iter().map(|o| o["kind"].clone()).collect();
    assert_eq!(kinds, ["Deployment", "StatefulSet", "DaemonSet"]);
    for workload in read("workloads.yaml")? {
        assert_eq!(workload["metadata"]["annotations"]["ennote.io/restart"], "auto");
        let pod: k8s_openapi::api::core::v1::PodSpec =
            serde_json::from_value(workload["spec"]["template"]["spec"].clone())?;
        let pod = serde_json::to_value(pod)?;
        assert!(ennote_agent::rollout::consumers::secrets_read(&pod).contains_key("payments-db"), "{workload}");
    }
    for role in read("platform/roles.yaml")? {
        assert_eq!(role["kind"], "ClusterRole");
        for rule in role["rules"].as_array().into_iter().flatten() {
            assert_eq!(
                (&rule["apiGroups"], &rule["resources"]),
                (&json!(["ennote.io"]), &json!(["ennotesecretbindings"]))
            );
        }
    }
    Ok(())
}

/// Strict where the policies are, whoever brings them; compatible without. The agent is told which, and the policies' names.
#[test]
fn the_mode_follows_the_policies_and_the_agent_knows_their_names() -> Outcome {
    for (values, mode, policies, name) in [
        ("{}", "strict", 4, Some("ennote-agent.ennote")),
        ("rollouts: {argo: true}", "strict", 6, Some("ennote-agent.ennote")),
        ("admissionPolicy: {create: false}", "compatible", 0, None),
        ("rbac: {mode: compatible}", "compatible", 4, None),
        ("admissionPolicy: {installedByPlatform: true}", "strict", 0, Some("ennote-agent.ennote")),
        ("{rbac: {mode: strict}, admissionPolicy: {installedByPlatform: true, name: ours}}", "strict", 0, Some("ours")),
    ] {
        let rendered = render(values)?;
        let settings = &named(&rendered, "ConfigMap", "ennote-agent-config")?["data"];
        assert_eq!(settings["ENNOTE_RBAC_MODE"], mode, "{values}");
        assert_eq!(settings["ENNOTE_ADMISSION_POLICY"].as_str(), name, "{values}");
        let brought = rendered.iter().filter(|o| o["apiVersion"] == "admissionregistration.k8s.io/v1");
        let brought: Vec<&Value> = brought.collect();
        assert_eq!(brought.len(), policies, "{values}");
        for policy in brought.iter().filter(|o| o["kind"] == "ValidatingAdmissionPolicy") {
            assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{values}");
            let name = &policy["metadata"]["name"];
            let bound = named(&rendered, "ValidatingAdmissionPolicyBinding", name.as_str().unwrap_or_default())?;
            assert_eq!(bound["spec"], json!({"policyName": name, "validationActions": ["Deny"]}), "{values}");
        }
        let (mode, argo) = (if mode == "strict" { Mode::Strict } else { Mode::Compatible }, values.contains("argo"));
        let needed = serde_json::to_value(Needs { mode, argo, ..Needs::default() }.rules())?;
        assert_eq!(
            named(&rendered, "Role", "ennote-agent")?["rules"],
            needed,
            "{values}: what the self-check asks for"
        );
    }
    // A cluster that does not serve them.
    let without = render_for(&[], "{}")?;
    assert_eq!(named(&without, "ConfigMap", "ennote-agent-config")?["data"]["ENNOTE_RBAC_MODE"], "compatible");
    assert!(of_kind(&without, "ValidatingAdmissionPolicy").is_empty());
    let chart = chart();
    let arguments = ["template", "ennote-agent", chart.to_str().ok_or("path")?];
    let refused = helm(&arguments, "{rbac: {mode: strict}, admissionPolicy: {create: false}}")?;
    let said = refused.err().ok_or("strict mode was rendered without its policies")?;
    assert!(said.contains("rbac.mode strict is safe only under the admission policies"), "{said}");
    Ok(())
}

#[test]
fn named_secrets_are_all_that_the_role_grants() -> Outcome {
    for (mode, verbs) in [("strict", json!(["create", "patch"])), ("compatible", json!(["get", "create", "patch"]))] {
        let rendered = render(&format!("rbac: {{mode: {mode}, secretNames: [payments-db, tls]}}"))?;
        let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["payments-db", "tls"], "verbs": verbs});
        assert_eq!(named(&rendered, "Role", "ennote-agent")?["rules"][0], rule, "{mode}");
        let of = if mode == "strict" { Mode::Strict } else { Mode::Compatible };
        let names = vec!["payments-db".to_owned(), "tls".to_owned()];
        let needed = Needs { mode: of, secret_names: names, argo: false }.rules();
        assert_eq!(named(&rendered, "Role", "ennote-agent")?["rules"], serde_json::to_value(needed)?, "{mode}");
        let settings = &named(&rendered, "ConfigMap", "ennote-agent-config")?["data"];
        assert_eq!(settings["ENNOTE_SECRET_NAMES"], "payments-db,tls", "{mode}");
    }
    Ok(())
}

/// What a platform team applies is what the chart would bring.
#[test]
fn the_policies_for_a_platform_team_are_the_charts() -> Outcome {
    let rendered = render("rollouts: {argo: true}")?;
    let mut brought: Vec<Value> =
        rendered.into_iter().filter(|o| o["apiVersion"] == "admissionregistration.k8s.io/v1").collect();
    for object in &mut brought {
        object["metadata"].as_object_mut().ok_or("metadata")?.remove("labels");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/platform/admission-policy.yaml");
    let file = objects(&std::fs::read_to_string(file)?)?;
    let by_name = |objects: Vec<Value>| {
        objects.into_iter().map(|o| (format!("{}/{}", o["kind"], o["metadata"]["name"]), o)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(by_name(file), by_name(brought), "run make generate");
    Ok(())
}
