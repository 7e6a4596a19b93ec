//! What the answers mean. Pure: every sentence is made here.

use crate::cloud::identity_service::{Greeting, JoinFailure};
use crate::config::RunSettings;
use crate::doctor::finding::{CLUSTER_ADMIN, Finding, NETWORK_ADMIN};
use crate::domain::rights::Lacking;
use crate::identity::join::JoinError;
use crate::identity::trust::TrustError;

/// Clocks may differ by this much, in milliseconds: certificates and tokens are judged by them.
const APART_MS: i64 = 60_000;
/// A keyset that ends sooner is told, in milliseconds.
const HOUR_MS: i64 = 3_600_000;

pub(super) fn settings(run: &RunSettings, trouble: Option<String>) -> Finding {
    match trouble {
        None => {
            let (cloud, namespaces) = (run.api_url.authority(), run.namespaces().join(", "));
            let mode = format!("{:?}", run.access.rbac_mode).to_lowercase();
            Finding::ok("settings", format!("cloud {cloud}; namespaces {namespaces}; rights {mode}"))
        }
        Some(text) => {
            let mend = format!("helm get values {} -n {}, and helm upgrade", run.instance_name, run.target_namespace);
            Finding::fail("settings", text, CLUSTER_ADMIN, mend)
        }
    }
}

pub(super) fn no_cluster(error: &str) -> Finding {
    let mend = "in the pod: allow egress to the API server (networkPolicy.apiServerPorts); outside: set KUBECONFIG";
    Finding::fail("cluster", error, CLUSTER_ADMIN, mend)
}

pub(super) fn rights(namespace: &str, needed: usize, lacking: Result<Option<Lacking>, String>) -> Finding {
    let check = format!("rights in {namespace}");
    match lacking {
        Ok(None) => Finding::ok(check, format!("all {needed} are granted")),
        Ok(Some(lacking)) => {
            let rules = lacking.rules().join(" ");
            let says = format!("may not {}; Role {} lacks {rules}", lacking.verbs(), lacking.role);
            Finding::fail(check, says, CLUSTER_ADMIN, lacking.mend())
        }
        Err(error) => {
            let mend = "kubectl get clusterrolebinding system:basic-user, which lets everybody ask about themselves";
            Finding::fail(check, format!("cannot be asked about: {error}"), CLUSTER_ADMIN, mend)
        }
    }
}

/// `held` is whether the policy refused what it has to refuse to the agent; nobody else is held by it.
pub(super) fn policy(name: &str, namespace: &str, held: Result<bool, String>, user: Option<&str>) -> Finding {
    let check = format!("policy in {namespace}");
    match held {
        Ok(true) => Finding::ok(check, format!("{name} refuses what it has to")),
        Ok(false) if user.is_some_and(|user| !user.starts_with("system:serviceaccount:")) => Finding::skipped(
            check,
            format!("{name} holds the agent alone: ask in its pod, or with --as system:serviceaccount:NAMESPACE:NAME"),
        ),
        Ok(false) => {
            let mend = format!(
                "helm upgrade with admissionPolicy.create=true, or kubectl apply -f examples/platform/admission-policy.yaml \
                 (kubectl get validatingadmissionpolicybinding {name})"
            );
            Finding::fail(check, format!("{name} is not in force, so the agent writes nothing"), CLUSTER_ADMIN, mend)
        }
        Err(error) => {
            let says = format!("{name} cannot be proved: {error}");
            Finding::fail(check, says, CLUSTER_ADMIN, "see the rights below, and kubectl get --raw /readyz?verbose")
        }
    }
}

/// `told` is another clock's time, `now` this machine's.
pub(super) fn clock(check: &str, told: Option<i64>, now: i64, by: &str) -> Finding {
    let Some(told) = told else { return Finding::skipped(check, format!("{by} is not there")) };
    let apart = now.saturating_sub(told);
    if apart.saturating_abs() <= APART_MS {
        return Finding::ok(check, format!("less than a minute from {by}"));
    }
    let side = if apart > 0 { "ahead of" } else { "behind" };
    let says = format!("this machine is {} s {side} {by}", apart.saturating_abs() / 1000);
    Finding::fail(check, says, NETWORK_ADMIN, "timedatectl status on the node, and set right the clock that is wrong")
}

pub(super) fn reach(place: &str, trouble: Option<&(bool, String)>, run: &RunSettings) -> Finding {
    match trouble {
        None if run.allow_plaintext => Finding::ok("cloud", format!("{place} answers, in plaintext on this machine")),
        None => Finding::ok("cloud", format!("{place} answers by TLS 1.3")),
        Some((true, error)) => {
            let (name, namespace) = (&run.instance_name, &run.target_namespace);
            let mend =
                format!("helm upgrade {name} CHART -n {namespace} --reuse-values --set-file ennote.api.caCert=ca.crt");
            let says = format!("nobody whom the agent trusts vouches for the certificate of {place}: {error}");
            Finding::fail("cloud", says, CLUSTER_ADMIN, mend)
        }
        Some((false, error)) => {
            let mend =
                format!("allow the pod to reach {place} directly (firewall, NetworkPolicy, DNS), or start the cloud");
            Finding::fail("cloud", format!("{place} cannot be reached: {error}"), NETWORK_ADMIN, mend)
        }
    }
}

/// `set` are the names of variables that name a proxy. Their values may hold credentials and are not shown.
pub(super) fn proxy(set: &[String], unreachable: bool, place: &str) -> Finding {
    let names = set.join(", ");
    match (set, unreachable) {
        ([], _) => Finding::ok("proxy", "none is set; connections are direct"),
        (_, false) => {
            Finding::ok("proxy", format!("{names} is set, and not used for the cloud, which is reached directly"))
        }
        (_, true) => {
            let mend = format!("allow the pod to reach {place} without the proxy");
            Finding::fail("proxy", format!("{names} is set, but the agent connects directly"), NETWORK_ADMIN, mend)
        }
    }
}

/// What the first answer of a join proves of the cloud's keys.
pub(super) fn root(greeted: &Result<Greeting, JoinFailure>, run: &RunSettings) -> Finding {
    const CHECK: &str = "root";
    let (name, namespace) = (&run.instance_name, &run.target_namespace);
    let pin = format!("helm upgrade {name} CHART -n {namespace} --reuse-values --set trust.roots='{{ROOT}}'");
    let error = match greeted {
        Ok(greeting) => {
            let left = greeting.keyset_expires_at_ms.saturating_sub(greeting.server_time_ms) / HOUR_MS;
            let version = greeting.keyset_version;
            return Finding::ok(CHECK, format!("pinned; keyset {version} counts for {left} h"));
        }
        Err(JoinFailure::Status(status)) => {
            let says = format!("the cloud answered {:?} to a greeting", status.code());
            return Finding::fail(CHECK, says, "cloud admin", format!("kubectl logs deploy/{name} -n {namespace}"));
        }
        Err(JoinFailure::Refused(error)) => error,
    };
    match error {
        // Told by the clock.
        JoinError::Trust(TrustError::ClockDisagrees { .. }) => {
            Finding::skipped(CHECK, "not judged: the clocks disagree")
        }
        JoinError::Trust(TrustError::NoRoot) => Finding::fail(
            CHECK,
            "none is pinned, and there is no bootstrap token, which ends with it",
            CLUSTER_ADMIN,
            pin,
        ),
        JoinError::Trust(TrustError::WrongRoot | TrustError::RootChanged) => {
            let mend =
                format!("if Ennote changed its root on purpose: {pin}; if not, tell Ennote and treat it as an attack");
            Finding::fail(CHECK, error.to_string(), CLUSTER_ADMIN, mend)
        }
        JoinError::Trust(TrustError::OldKeyset | TrustError::Expired | TrustError::BadKeyset)
        | JoinError::Signature(_)
        | JoinError::Mismatch
        | JoinError::Suite => {
            let mend = "look for a proxy between agent and cloud; without one, ask who runs the cloud";
            Finding::fail(CHECK, error.to_string(), NETWORK_ADMIN, mend)
        }
    }
}

/// The cloud's signed time against this machine's; nothing where it gave none.
pub(super) fn clock_of_cloud(greeted: &Result<Greeting, JoinFailure>, now: i64) -> Option<Finding> {
    let told = match greeted {
        Ok(greeting) => greeting.server_time_ms,
        Err(JoinFailure::Refused(JoinError::Trust(TrustError::ClockDisagrees { server_ms, .. }))) => *server_ms,
        Err(_) => return None,
    };
    Some(clock("clock of the cloud", Some(told), now, "the time that the cloud signs"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser;

    pub(in crate::doctor) fn run(args: &[&str]) -> RunSettings {
        match Cli::parse_from([&["ennote-agent", "doctor", "--target-namespace", "shop"], args].concat()).command {
            Command::Doctor(settings) => settings.run,
            _ => panic!("not the doctor"),
        }
    }

    fn holds(finding: &Finding, words: &[&str]) {
        let line = finding.to_string();
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }

    #[test]
    fn clocks_a_minute_apart_are_told_with_the_side() {
        let at = |told, now| clock("clock", told, now, "the other").to_string();
        assert!(at(Some(0), 60_000).starts_with("ok") && at(Some(60_000), 0).starts_with("ok"));
        assert!(at(Some(0), 60_001).contains("60 s ahead of the other") && at(Some(90_000), 0).contains("90 s behind"));
        assert!(at(None, 0).starts_with("--"));
        assert!(at(Some(i64::MIN), i64::MAX).starts_with("FAIL"));
    }

    #[test]
    fn a_cloud_that_is_away_is_told_from_one_that_nobody_vouches_for() {
        let of = |trouble: Option<(bool, String)>| reach("c:443", trouble.as_ref(), &run(&[]));
        holds(&of(None), &["ok", "TLS 1.3"]);
        holds(&of(Some((true, "e".into()))), &["FAIL", "vouches", "--set-file ennote.api.caCert"]);
        holds(&of(Some((false, "e".into()))), &["FAIL", "c:443 cannot be reached", "| network admin: "]);
        holds(&reach("c:443", None, &run(&["--allow-plaintext"])), &["plaintext"]);
    }

    #[test]
    fn a_proxy_is_told_when_it_could_be_the_reason() {
        let set = ["HTTPS_PROXY".to_owned()];
        holds(&proxy(&[], true, "c"), &["ok", "none is set"]);
        holds(&proxy(&set, false, "c"), &["ok", "HTTPS_PROXY", "not used"]);
        holds(&proxy(&set, true, "c"), &["FAIL", "connects directly"]);
    }

    #[test]
    fn a_policy_is_missed_only_by_whom_it_holds() {
        let of = |held, user| policy("p.secrets", "shop", held, user);
        let agent = Some("system:serviceaccount:shop:ennote-agent");
        holds(&of(Ok(true), agent), &["ok", "p.secrets"]);
        holds(&of(Ok(false), agent), &["FAIL", "is not in force", "admissionPolicy.create=true"]);
        holds(&of(Ok(false), None), &["FAIL"]);
        assert!(of(Ok(false), Some("admin")).to_string().starts_with("--"));
        holds(&of(Err("e".into()), agent), &["FAIL", "cannot be proved: e"]);
    }

    #[test]
    fn each_fault_of_the_root_has_its_own_mend() {
        let greeting = Greeting { server_time_ms: 0, keyset_version: 3, keyset_expires_at_ms: 2 * HOUR_MS };
        let refused = |error: TrustError| Err(JoinFailure::Refused(JoinError::Trust(error)));
        let of = |greeted| root(&greeted, &run(&[]));
        holds(&of(Ok(greeting.clone())), &["ok", "keyset 3 counts for 2 h"]);
        holds(&of(refused(TrustError::NoRoot)), &["FAIL", "none is pinned", "--set trust.roots='{ROOT}'"]);
        holds(&of(refused(TrustError::WrongRoot)), &["FAIL", "not the pinned one", "treat it as an attack"]);
        holds(&of(refused(TrustError::OldKeyset)), &["FAIL", "older", "proxy"]);
        let status = JoinFailure::Status(Box::new(tonic::Status::unavailable("canary")));
        holds(&of(Err(status)), &["FAIL", "Unavailable"]);
        let behind = refused(TrustError::ClockDisagrees { server_ms: 0, floor_ms: 600_000 });
        assert!(clock_of_cloud(&behind, 600_000).is_some_and(|told| told.to_string().contains("600 s ahead of")));
        assert!(of(behind).to_string().starts_with("--"));
        assert!(clock_of_cloud(&Ok(greeting), 1).is_some_and(|told| told.to_string().starts_with("ok")));
        assert_eq!(clock_of_cloud(&refused(TrustError::NoRoot), 1), None);
    }

    #[test]
    fn rights_and_settings_say_what_they_are() {
        holds(
            &settings(&run(&["--rbac-mode", "strict", "--admission-policy", "p"]), None),
            &["ok", "namespaces shop", "rights strict"],
        );
        holds(&settings(&run(&[]), Some("the CA file x".into())), &["FAIL", "the CA file x", "helm upgrade"]);
        holds(&rights("shop", 19, Ok(None)), &["ok", "all 19"]);
        holds(&rights("shop", 19, Err("e".into())), &["FAIL", "system:basic-user"]);
        let needed = crate::domain::rights::Needs::default().rights();
        let missing = Lacking::of("shop", "ennote-agent", needed.len(), needed[..1].to_vec());
        holds(&rights("shop", 19, Ok(missing)), &["may not get secrets", "| cluster admin: kubectl patch role"]);
        holds(&no_cluster("e"), &["FAIL", "KUBECONFIG"]);
    }
}
