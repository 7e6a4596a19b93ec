//! What somebody with the agent's token may try: each act with what must come of it.

use anyhow::{Context, Result};
use kube::Client;
use serde_json::{Value, json};

/// What must come of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Done.
    Allowed,
    /// Refused by the admission policy, whatever the Role grants.
    ByPolicy,
    /// Refused because the Role does not grant it.
    ByRole,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) what: String,
    pub(crate) want: Want,
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: Value,
}

pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

impl Act {
    pub(crate) fn patch(want: Want, what: &str, path: &str, content_type: &'static str, body: Value) -> Self {
        Self { what: what.to_owned(), want, method: "PATCH", path: path.to_owned(), content_type, body }
    }

    pub(crate) fn new(want: Want, what: &str, method: &'static str, path: &str, body: Value) -> Self {
        Self { what: what.to_owned(), want, method, path: path.to_owned(), content_type: "application/json", body }
    }

    /// HTTP status and the sentence of the answer.
    pub(crate) async fn send(&self, client: &Client) -> Result<(u16, String)> {
        let body = if self.body.is_null() { Vec::new() } else { self.body.to_string().into_bytes() };
        let request = http::Request::builder()
            .method(self.method)
            .uri(&self.path)
            .header("content-type", self.content_type)
            .header("accept", "application/json")
            .body(kube::client::Body::from(body))?;
        let answer = client.send(request).await?;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await?;
        let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok((code, status["message"].as_str().unwrap_or_default().to_owned()))
    }

    /// `None` if it came as it must.
    pub(crate) async fn judge(&self, client: &Client, policy: &str) -> Result<Option<String>> {
        let (code, said) = self.send(client).await.with_context(|| self.what.clone())?;
        let by_policy = said.contains(&format!("ValidatingAdmissionPolicy '{policy}."));
        let fits = match self.want {
            Want::Allowed => (200..300).contains(&code),
            Want::ByPolicy => code == 403 && by_policy,
            Want::ByRole => code == 403 && said.contains(" cannot "),
        };
        let line =
            || format!("{:?} {}: {} {} was answered {code}: {said}", self.want, self.what, self.method, self.path);
        Ok((!fits).then(line))
    }
}

/// All that may be tried on one workload that has opted in, and on one that has not. `plural` is its resource.
pub(crate) fn on_workloads(namespace: &str, plural: &str) -> Vec<Act> {
    let all = format!("/apis/apps/v1/namespaces/{namespace}/{plural}");
    let opted = format!("{all}/opted");
    let of_template = |fields: Value| json!({"spec": {"template": fields}});
    let of_pod = |fields: Value| json!({"spec": {"template": {"spec": fields}}});
    let of_container = |mut fields: Value| {
        fields["name"] = "c".into();
        json!({"spec": {"template": {"spec": {"containers": [fields]}}}})
    };
    let annotated = |name: &str, value: Value| of_template(json!({"metadata": {"annotations": {name: value}}}));
    let stamp = annotated("ennote.io/content", "abcdefghijklmnopqrstuvwxyz".into());
    let mut with_image = stamp.clone();
    with_image["spec"]["template"]["spec"] = json!({"containers": [{"name": "c", "image": "evil"}]});
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]);
    let mut forbidden = vec![
        ("image", of_container(json!({"image": "evil"}))),
        ("command", of_container(json!({"command": ["sh"]}))),
        ("arguments", of_container(json!({"args": ["-c", "id"]}))),
        ("environment", of_container(json!({"env": [{"name": "A", "value": "b"}]}))),
        ("environment from a Secret", of_container(json!({"envFrom": [{"secretRef": {"name": "foreign"}}]}))),
        ("capabilities", of_container(json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}))),
        ("resources", of_container(json!({"resources": {"limits": {"cpu": "1"}}}))),
        ("image pull policy", of_container(json!({"imagePullPolicy": "Never"}))),
        ("probe", of_container(json!({"livenessProbe": {"exec": {"command": ["id"]}}}))),
        ("lifecycle", of_container(json!({"lifecycle": {"preStop": {"exec": {"command": ["id"]}}}}))),
        ("another container", of_pod(json!({"containers": [{"name": "evil", "image": "evil"}]}))),
        ("init container", of_pod(json!({"initContainers": [{"name": "evil", "image": "evil"}]}))),
        ("volume", of_pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}))),
        ("host network", of_pod(json!({"hostNetwork": true}))),
        ("host processes", of_pod(json!({"hostPID": true}))),
        ("service account", of_pod(json!({"serviceAccountName": "admin"}))),
        ("security context", of_pod(json!({"securityContext": {"runAsUser": 0}}))),
        ("node", of_pod(json!({"nodeName": "node-0"}))),
        ("node selector", of_pod(json!({"nodeSelector": {"a": "b"}}))),
        ("tolerations", of_pod(json!({"tolerations": [{"operator": "Exists"}]}))),
        ("pull secrets", of_pod(json!({"imagePullSecrets": [{"name": "foreign"}]}))),
        ("grace period", of_pod(json!({"terminationGracePeriodSeconds": 1}))),
        ("host aliases", of_pod(json!({"hostAliases": [{"ip": "127.0.0.1", "hostnames": ["a"]}]}))),
        ("template label", of_template(json!({"metadata": {"labels": {"a": "b"}}}))),
        ("another template annotation", annotated("a", "b".into())),
        ("kubectl's restart", annotated("kubectl.kubernetes.io/restartedAt", "now".into())),
        ("a template annotation taken away", annotated("keep", Value::Null)),
        ("a template annotation changed", annotated("keep", "else".into())),
        ("a stamp that is too long", annotated("ennote.io/content", "a".repeat(27).into())),
        ("a stamp that is a text", annotated("ennote.io/content", "password=hunter2".into())),
        ("an empty stamp", annotated("ennote.io/content", "".into())),
        ("a stamp in capitals", annotated("ennote.io/content", "ABCDEFGHIJKLMNOPQRSTUVWXYZ".into())),
        ("a stamp and an image", with_image),
        ("history limit", json!({"spec": {"revisionHistoryLimit": 1}})),
        ("label", json!({"metadata": {"labels": {"a": "b"}}})),
        ("annotation", json!({"metadata": {"annotations": {"a": "b"}}})),
        ("the opt-in", json!({"metadata": {"annotations": {"ennote.io/restart": "never"}}})),
        ("the opt-in of others", json!({"metadata": {"annotations": {"ennote.io/restart": "a,b"}}})),
        ("the opt-in taken away", json!({"metadata": {"annotations": {"ennote.io/restart": null}}})),
        ("the wave", json!({"metadata": {"annotations": {"ennote.io/restart-wave": "-1"}}})),
        ("owner", json!({"metadata": {"ownerReferences": owner}})),
        ("finalizer", json!({"metadata": {"finalizers": ["example.com/a"]}})),
    ];
    if plural == "deployments" {
        forbidden.push(("pause", json!({"spec": {"paused": true}})));
        forbidden.push(("strategy", json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}})));
        forbidden.push(("deadline", json!({"spec": {"progressDeadlineSeconds": 1000}})));
    } else {
        forbidden.push(("strategy", json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}})));
    }
    if plural != "daemonsets" {
        forbidden.push(("replicas", json!({"spec": {"replicas": 0}})));
        let number = json!({"deprecated.daemonset.template.generation": "password=hunter2"});
        forbidden.push(("the number of a DaemonSet's template", json!({"metadata": {"annotations": number}})));
    }
    let kind = |what: &str| format!("{plural}: {what}");
    let mut acts: Vec<Act> = forbidden
        .into_iter()
        .map(|(what, body)| Act::patch(Want::ByPolicy, &kind(what), &opted, STRATEGIC, body))
        .collect();
    let replace = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil"}]);
    acts.push(Act::patch(Want::ByPolicy, &kind("image by JSON patch"), &opted, JSON_PATCH, replace));
    let merged = of_pod(json!({"containers": [{"name": "c", "image": "evil"}]}));
    acts.push(Act::patch(Want::ByPolicy, &kind("image by merge patch"), &opted, MERGE, merged));
    let names = [("deployments", "Deployment"), ("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet")];
    let name = names.into_iter().find(|(of, _)| *of == plural).map_or("", |(_, name)| name);
    let mut applied = of_container(json!({"image": "evil"}));
    applied["apiVersion"] = "apps/v1".into();
    applied["kind"] = name.into();
    let forced = format!("{opted}?fieldManager=ennote-agent&force=true");
    acts.push(Act::patch(Want::ByPolicy, &kind("image by apply"), &forced, APPLY, applied));
    let other = format!("{all}/other");
    acts.push(Act::patch(Want::ByPolicy, &kind("a stamp without an opt-in"), &other, STRATEGIC, stamp.clone()));
    acts.push(Act::patch(Want::ByPolicy, &kind("nothing, without an opt-in"), &other, MERGE, json!({})));
    let never = format!("{all}/never");
    acts.push(Act::patch(Want::ByPolicy, &kind("a stamp against the word"), &never, STRATEGIC, stamp.clone()));
    acts.push(Act::patch(Want::Allowed, &kind("a stamp"), &opted, STRATEGIC, stamp.clone()));
    acts.push(Act::patch(Want::Allowed, &kind("the same stamp again"), &opted, STRATEGIC, stamp));
    acts.push(Act::new(Want::ByRole, &kind("create"), "POST", &all, json!({"metadata": {"name": "new"}})));
    acts.push(Act::new(Want::ByRole, &kind("replace"), "PUT", &opted, json!({"metadata": {"name": "opted"}})));
    acts.push(Act::new(Want::ByRole, &kind("delete"), "DELETE", &opted, Value::Null));
    acts.push(Act::new(Want::ByRole, &kind("delete all"), "DELETE", &all, Value::Null));
    let status = json!({"status": {"observedGeneration": 9}});
    acts.push(Act::patch(Want::ByRole, &kind("status"), &format!("{opted}/status"), MERGE, status));
    if plural != "daemonsets" {
        let scale = json!({"spec": {"replicas": 0}});
        acts.push(Act::patch(Want::ByRole, &kind("scale"), &format!("{opted}/scale"), MERGE, scale));
    }
    acts
}

/// Metadata of a Secret of a binding.
pub(crate) fn marks(name: &str, binding: &str) -> Value {
    json!({"name": name,
        "labels": {"app.kubernetes.io/managed-by": "ennote-agent", "ennote.io/binding-id": format!("id-of-{binding}")},
        "annotations": {"ennote.io/binding": binding}})
}

/// A Secret with this metadata.
pub(crate) fn secret(metadata: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"A": "b3Vycw=="}})
}

/// All that may be tried on Secrets: `ours` is of binding `mine`, `another` of binding `other`, `released` was ours, `marked` is
/// handed over to `mine`, and `foreign` is somebody else's.
pub(crate) fn on_secrets(namespace: &str) -> Vec<Act> {
    use Want::{Allowed, ByPolicy, ByRole};
    let all = format!("/api/v1/namespaces/{namespace}/secrets");
    let path = |name: &str| format!("{all}/{name}");
    let mut acts = Vec::new();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut new = secret(marks("new", "mine"));
        edit(&mut new);
        new
    };
    let owner = |kind: &str, api: &str, blocks: bool| {
        json!([{"apiVersion": api, "kind": kind, "name": "mine", "uid": "00000000-0000-0000-0000-000000000001",
            "blockOwnerDeletion": blocks}])
    };
    let creations: Vec<(&str, Value)> = vec![
        ("without labels", secret(json!({"name": "new"}))),
        ("without a binding's id", with(&|s| s["metadata"]["labels"]["ennote.io/binding-id"] = Value::Null)),
        ("without a binding's name", with(&|s| s["metadata"]["annotations"] = json!({}))),
        ("as Helm's", with(&|s| s["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm".into())),
        (
            "as a token of a ServiceAccount",
            with(&|s| {
                s["type"] = "kubernetes.io/service-account-token".into();
                s["metadata"]["annotations"]["kubernetes.io/service-account.name"] = "default".into();
            }),
        ),
        ("as a bootstrap token", with(&|s| s["type"] = "bootstrap.kubernetes.io/token".into())),
        ("with an annotation of Kubernetes", with(&|s| s["metadata"]["annotations"]["kubernetes.io/a"] = "b".into())),
        ("with a finalizer", with(&|s| s["metadata"]["finalizers"] = json!(["example.com/a"]))),
        ("with another owner", with(&|s| s["metadata"]["ownerReferences"] = owner("ConfigMap", "v1", false))),
        (
            "with an owner of another group",
            with(&|s| {
                s["metadata"]["ownerReferences"] = owner("EnnoteSecretBinding", "example.com/v1", false);
            }),
        ),
        (
            "with an owner that blocks",
            with(&|s| {
                s["metadata"]["ownerReferences"] = owner("EnnoteSecretBinding", "ennote.io/v1alpha1", true);
            }),
        ),
        ("as a release of Helm", with(&|s| s["metadata"]["labels"]["owner"] = "helm".into())),
        ("of Helm's type", with(&|s| s["type"] = "helm.sh/release.v1".into())),
        ("marked for adoption", with(&|s| s["metadata"]["annotations"]["ennote.io/adopt"] = "mine".into())),
    ];
    for (what, body) in creations {
        acts.push(Act::new(ByPolicy, &format!("a Secret {what}"), "POST", &all, body.clone()));
        let applied = format!("{}?fieldManager=ennote-agent", path("new"));
        acts.push(Act::patch(ByPolicy, &format!("a Secret {what}, by apply"), &applied, APPLY, body));
    }
    acts.push(Act::new(Allowed, "a Secret of its own", "POST", &format!("{all}?dryRun=All"), with(&|_| {})));

    let mut labelled = json!({"metadata": marks("x", "mine"), "data": {"A": "eA=="}});
    // As a patch, it goes to a Secret of whatever name.
    labelled["metadata"].as_object_mut().map(|metadata| metadata.remove("name"));
    for target in ["foreign", "released", "another", "platform-token"] {
        let at = path(target);
        let say = |what: &str| format!("{target}: {what}");
        // What is another binding's may be looked at: it is the agent's all the same. Only its label may not move in one step.
        if target != "another" {
            acts.push(Act::patch(ByPolicy, &say("a look"), &at, MERGE, json!({})));
            acts.push(Act::patch(ByPolicy, &say("a dry look"), &format!("{at}?dryRun=All"), MERGE, json!({})));
            acts.push(Act::patch(ByPolicy, &say("a strategic look"), &at, STRATEGIC, json!({})));
            acts.push(Act::patch(ByPolicy, &say("a look by JSON patch"), &at, JSON_PATCH, json!([])));
            let held = if target == "platform-token" { "b3Vycw==" } else { "dGhlaXJz" };
            let guess = json!([{"op": "test", "path": "/data/A", "value": held}]);
            acts.push(Act::patch(ByPolicy, &say("a right guess"), &at, JSON_PATCH, guess));
            acts.push(Act::patch(ByPolicy, &say("data"), &at, MERGE, json!({"data": {"A": "eA=="}})));
            let mark = json!({"metadata": {"annotations": {"ennote.io/adopt": "mine"}}});
            acts.push(Act::patch(ByPolicy, &say("an adoption mark"), &at, MERGE, mark));
            let finalizers = json!({"metadata": {"finalizers": ["example.com/a"]}});
            acts.push(Act::patch(ByPolicy, &say("a finalizer"), &at, MERGE, finalizers));
        }
        acts.push(Act::patch(ByPolicy, &say("its labels and data"), &at, MERGE, labelled.clone()));
        let mut marked = labelled.clone();
        marked["metadata"]["annotations"]["ennote.io/adopt"] = "mine".into();
        acts.push(Act::patch(ByPolicy, &say("its labels and a mark"), &at, MERGE, marked));
        let mut applied = secret(marks(target, "mine"));
        applied["data"] = json!({"NEW": "eA=="});
        let by = |force: &str| format!("{at}?fieldManager=ennote-agent{force}");
        acts.push(Act::patch(ByPolicy, &say("an apply that takes it"), &by("&force=true"), APPLY, applied));
        acts.push(Act::new(ByRole, &say("read"), "GET", &at, Value::Null));
        acts.push(Act::new(ByRole, &say("delete"), "DELETE", &at, Value::Null));
    }
    let ours = path("ours");
    let own: Vec<(&str, Value)> = vec![
        ("its label taken off", json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}})),
        ("its label changed", json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}})),
        ("its id taken off", json!({"metadata": {"labels": {"ennote.io/binding-id": null}}})),
        ("its id changed", json!({"metadata": {"labels": {"ennote.io/binding-id": "id-of-other"}}})),
        ("its name taken off", json!({"metadata": {"annotations": {"ennote.io/binding": null}}})),
        ("a mark", json!({"metadata": {"annotations": {"ennote.io/adopt": "mine"}}})),
        ("an annotation of Kubernetes", json!({"metadata": {"annotations": {"kubernetes.io/a": "b"}}})),
        ("a finalizer", json!({"metadata": {"finalizers": ["example.com/a"]}})),
        ("another owner", json!({"metadata": {"ownerReferences": owner("Pod", "v1", false)}})),
        (
            "an owner that blocks",
            json!({"metadata": {"ownerReferences": owner("EnnoteSecretBinding", "ennote.io/v1alpha1", true)}}),
        ),
    ];
    for (what, body) in own {
        acts.push(Act::patch(ByPolicy, &format!("ours: {what}"), &ours, MERGE, body));
    }
    let marked = path("marked");
    let mut thief = labelled.clone();
    thief["metadata"] = marks("marked", "thief");
    acts.push(Act::patch(ByPolicy, "marked: by another binding", &marked, MERGE, thief));
    acts.push(Act::patch(ByPolicy, "marked: data without labels", &marked, MERGE, json!({"data": {"A": "eA=="}})));
    let another_mark = json!({"metadata": {"annotations": {"ennote.io/adopt": "thief"}}});
    acts.push(Act::patch(ByPolicy, "marked: another mark", &marked, MERGE, another_mark));
    let hand_over = json!({"metadata": {"ownerReferences": owner("EnnoteSecretBinding", "ennote.io/v1alpha1", false)}});
    let dry = |path: &str| format!("{path}?dryRun=All");
    acts.push(Act::patch(Allowed, "ours: a look", &ours, MERGE, json!({})));
    acts.push(Act::patch(Allowed, "ours: data", &ours, MERGE, json!({"data": {"A": "eA==", "B": null}})));
    acts.push(Act::patch(Allowed, "ours: to the garbage collector", &dry(&ours), MERGE, hand_over));
    acts.push(Act::patch(Allowed, "another: a look", &path("another"), MERGE, json!({})));
    acts.push(Act::patch(Allowed, "marked: a look", &marked, MERGE, json!({})));
    acts.push(Act::patch(Allowed, "marked: taken over", &dry(&marked), MERGE, labelled));
    acts.push(Act::new(ByRole, "all Secrets", "GET", &all, Value::Null));
    acts.push(Act::new(ByRole, "a watch of Secrets", "GET", &format!("{all}?watch=1&timeoutSeconds=1"), Value::Null));
    acts.push(Act::new(ByRole, "delete all Secrets", "DELETE", &all, Value::Null));
    acts.push(Act::new(ByRole, "ours: read", "GET", &ours, Value::Null));
    acts.push(Act::new(ByRole, "ours: delete", "DELETE", &ours, Value::Null));
    acts.push(Act::new(ByRole, "ours: replace", "PUT", &ours, secret(marks("ours", "mine"))));
    acts
}

/// What the Role alone refuses. `policy` begins the names of the admission policies.
pub(crate) fn beyond(namespace: &str, policy: &str) -> Vec<Act> {
    let core = format!("/api/v1/namespaces/{namespace}");
    let bindings = format!("/apis/ennote.io/v1alpha1/namespaces/{namespace}/ennotesecretbindings");
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let named = json!({"metadata": {"name": "x"}});
    let look = Value::Null;
    let foreign = secret(marks("new", "mine"));
    let get = "GET";
    let requests: Vec<(&str, &'static str, String, Value)> = vec![
        ("a token of a ServiceAccount", "POST", format!("{core}/serviceaccounts/default/token"), json!({"spec": {}})),
        ("its own token", "POST", format!("{core}/serviceaccounts/ennote-agent/token"), json!({"spec": {}})),
        ("exec", "POST", format!("{core}/pods/x/exec?command=id"), look.clone()),
        ("a log", get, format!("{core}/pods/x/log"), look.clone()),
        ("a pod", "POST", format!("{core}/pods"), named.clone()),
        ("pods", get, format!("{core}/pods"), look.clone()),
        ("config maps", get, format!("{core}/configmaps"), look.clone()),
        ("a job", "POST", format!("/apis/batch/v1/namespaces/{namespace}/jobs"), named.clone()),
        ("a Secret elsewhere", "POST", "/api/v1/namespaces/default/secrets".to_owned(), foreign),
        ("its own Role", "PATCH", format!("{rbac}/roles/ennote-agent"), json!({"rules": []})),
        ("a RoleBinding", "POST", format!("{rbac}/rolebindings"), named.clone()),
        (
            "its own policy",
            "PATCH",
            format!("{admission}/validatingadmissionpolicies/{policy}.secrets"),
            json!({"spec": {}}),
        ),
        (
            "its own policy, deleted",
            "DELETE",
            format!("{admission}/validatingadmissionpolicies/{policy}.secrets"),
            look.clone(),
        ),
        (
            "its policy's binding, deleted",
            "DELETE",
            format!("{admission}/validatingadmissionpolicybindings/{policy}.secrets"),
            look.clone(),
        ),
        ("a policy of its own", "POST", format!("{admission}/validatingadmissionpolicies"), named.clone()),
        ("a webhook", "POST", format!("{admission}/mutatingwebhookconfigurations"), named.clone()),
        ("the CRD", get, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(), look.clone()),
        ("a binding", "POST", bindings.clone(), named.clone()),
        ("the spec of a binding", "PATCH", format!("{bindings}/mine"), json!({"spec": {"suspend": true}})),
        ("a binding, deleted", "DELETE", format!("{bindings}/mine"), look.clone()),
        ("bindings everywhere", get, "/apis/ennote.io/v1alpha1/ennotesecretbindings".to_owned(), look.clone()),
        ("Secrets everywhere", get, "/api/v1/secrets".to_owned(), look.clone()),
        ("namespaces", get, "/api/v1/namespaces".to_owned(), look.clone()),
        ("nodes", get, "/api/v1/nodes".to_owned(), look.clone()),
        ("events", get, format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"), look),
        ("a lease", "POST", format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"), named.clone()),
        ("a signing request", "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests".to_owned(), named),
    ];
    let act = |(what, method, path, body): (&str, &'static str, String, Value)| match method {
        "PATCH" => Act::patch(Want::ByRole, what, &path, MERGE, body),
        _ => Act::new(Want::ByRole, what, method, &path, body),
    };
    requests.into_iter().map(act).collect()
}
