//! The token files, as they are now. No token is shown, only what its claims say of it.

use crate::cloud::credentials::{Facts, Held};
use crate::config::RunSettings;
use crate::doctor::finding::{CLUSTER_ADMIN, Finding};

const CHECK: &str = "identity";

/// Judges both files.
pub(super) fn judge(facts: &Facts, audience: &str, now_ms: i64, run: &RunSettings) -> Finding {
    let (name, namespace) = (&run.instance_name, &run.target_namespace);
    let restart =
        format!("kubectl rollout restart deploy/{name} -n {namespace}, and look at the events of the pod if it stays");
    let token = format!("kubectl create secret generic {name}-auth -n {namespace} --from-file=token=TOKEN_FILE");
    let fail = |says: String, mend: &str| Finding::fail(CHECK, says, CLUSTER_ADMIN, mend);
    let bootstrap = match &facts.bootstrap {
        Held::Unset | Held::Missing(_) | Held::Empty(_) => "no bootstrap token, which is needed once",
        Held::Unreadable(path, why) => {
            return fail(format!("the bootstrap token {} cannot be read: {why}", path.display()), &restart);
        }
        Held::Token { is_bootstrap: true, .. } => "a bootstrap token is there",
        Held::Token { .. } => return fail("what is given as bootstrap token is none of Ennote's".to_owned(), &token),
    };
    let claims = match &facts.service_account {
        Held::Unset => {
            return Finding::skipped(
                CHECK,
                format!("no file with a ServiceAccount token is set, as in the pod; {bootstrap}"),
            );
        }
        Held::Missing(path) => {
            return fail(format!("there is no ServiceAccount token at {}", path.display()), &restart);
        }
        Held::Empty(path) => return fail(format!("{} is empty", path.display()), &restart),
        Held::Unreadable(path, why) => return fail(format!("{} cannot be read: {why}", path.display()), &restart),
        Held::Token { claims: None, .. } => return fail("the ServiceAccount token is not a JWT".to_owned(), &restart),
        Held::Token { claims: Some(claims), .. } => claims,
    };
    if !claims.audiences.iter().any(|one| one == audience) {
        let mend =
            format!("helm upgrade {name} CHART -n {namespace} --reuse-values --set ennote.auth.audience={audience}");
        let are = claims.audiences.join(", ");
        return fail(format!("the ServiceAccount token is for {are:?}, and the cloud asks for {audience:?}"), &mend);
    }
    let left = claims.expires_at_s.map(|at| at.saturating_sub(now_ms.div_euclid(1000)));
    match left {
        Some(left) if left <= 0 => {
            fail(format!("the ServiceAccount token expired {} s ago; the kubelet has not renewed it", -left), &restart)
        }
        Some(left) => Finding::ok(CHECK, format!("ServiceAccount token for {audience}, {left} s left; {bootstrap}")),
        None => {
            fail("the ServiceAccount token never expires: it is not one of a projected volume".to_owned(), &restart)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::credentials::Claims;
    use crate::doctor::judgement::tests::run;
    use std::path::PathBuf;

    const AUDIENCE: &str = "https://api.ennote.io/agent-join";

    fn said(bootstrap: Held, service_account: Held) -> String {
        judge(&Facts { bootstrap, service_account }, AUDIENCE, 1_000_000, &run(&[])).to_string()
    }

    fn token(audience: &str, expires_at_s: Option<i64>) -> Held {
        let claims = Claims { audiences: vec![audience.to_owned()], expires_at_s };
        Held::Token { is_bootstrap: false, claims: Some(claims) }
    }

    #[test]
    fn each_fault_of_a_token_file_is_told_apart() {
        let good = || token(AUDIENCE, Some(1_600));
        let ok = said(Held::Missing(PathBuf::from("/t")), good());
        assert!(ok.starts_with("ok") && ok.contains("600 s left") && ok.contains("no bootstrap token"), "{ok}");
        for (held, says) in [
            (Held::Missing(PathBuf::from("/t")), "no ServiceAccount token at /t"),
            (Held::Empty(PathBuf::from("/t")), "/t is empty"),
            (Held::Unreadable(PathBuf::from("/t"), "permission denied".into()), "/t cannot be read: permission denied"),
            (Held::Token { is_bootstrap: false, claims: None }, "not a JWT"),
            (token(AUDIENCE, Some(990)), "expired 10 s ago"),
            (token(AUDIENCE, Some(1_000)), "expired 0 s ago"),
            (token(AUDIENCE, None), "never expires"),
            (
                token("https://kubernetes.default.svc", Some(1_600)),
                "the cloud asks for \"https://api.ennote.io/agent-join\"",
            ),
        ] {
            let line = said(Held::Unset, held);
            assert!(line.starts_with("FAIL") && line.contains(says) && line.contains("| cluster admin: "), "{line}");
        }
        let line = said(Held::Token { is_bootstrap: false, claims: None }, good());
        assert!(line.starts_with("FAIL") && line.contains("kubectl create secret generic ennote-agent-auth"), "{line}");
        assert!(said(Held::Unset, Held::Unset).starts_with("--"), "outside a pod there is none");
    }
}
