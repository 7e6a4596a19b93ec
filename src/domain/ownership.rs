//! May we write this Secret, and who holds it if not: ordered checks, the first that speaks decides.

use crate::domain::deletions::NOBODY;
use crate::domain::observed::{Existing, MANAGED_BY, Observed};
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;

/// Decides whether the target is ours to write.
///
/// # Errors
/// `Collision` with the holder, or a wait for the garbage collector.
pub fn check(request: &Request, observed: &Observed) -> Result<(), Problem> {
    let Observed::Present(secret) = observed else { return Ok(()) };
    CHECKS.iter().find_map(|check| check(request, secret)).map_or(Ok(()), Err)
}

type Check = fn(&Request, &Existing) -> Option<Problem>;

/// The order is the specification.
const CHECKS: [Check; 5] = [foreign, of_another_binding, handed_over, of_an_earlier_binding, going_away];

/// Not labelled as ours: never touched.
fn foreign(request: &Request, secret: &Existing) -> Option<Problem> {
    (secret.managed_by.as_deref() != Some(MANAGED_BY.1) || secret.binding_id.is_none())
        .then(|| collision(request, &holder(secret)))
}

/// Ours, but of a binding with another name.
fn of_another_binding(request: &Request, secret: &Existing) -> Option<Problem> {
    (secret.binding_id.as_deref() != Some(request.binding_id().as_str())).then(|| {
        let other = secret.binding.as_deref().unwrap_or("unknown");
        collision(request, &format!("EnnoteSecretBinding/{other}"))
    })
}

/// Handed to the garbage collector by us. The reason stays SourceDeleted meanwhile: the fuse counts what says so.
fn handed_over(request: &Request, secret: &Existing) -> Option<Problem> {
    secret.owners.iter().any(|o| o.uid == NOBODY.1).then(|| {
        Problem::new(
            Reason::SourceDeleted,
            format!(
                "{:?} was deleted in Ennote; Secret {} was handed to the garbage collector, waiting until it is gone",
                request.source.secret, request.target
            ),
        )
    })
}

/// Of a deleted binding with the same name: the garbage collector will take it, and its deletion wakes us.
fn of_an_earlier_binding(request: &Request, secret: &Existing) -> Option<Problem> {
    let owner = secret.owners.iter().find(|o| o.kind == "EnnoteSecretBinding" && o.uid != request.uid)?;
    Some(Problem::new(
        Reason::AwaitingCollection,
        format!(
            "Secret {} still belongs to a deleted binding ({}); waiting for the garbage collector",
            request.target, owner.uid
        ),
    ))
}

/// Deleted, but held by someone's finalizer.
fn going_away(request: &Request, secret: &Existing) -> Option<Problem> {
    secret.deleting.then(|| {
        Problem::new(
            Reason::AwaitingCollection,
            format!("Secret {} is being deleted; waiting until it is gone", request.target),
        )
    })
}

fn collision(request: &Request, holder: &str) -> Problem {
    let (namespace, target) = (&request.namespace, &request.target);
    Problem::new(
        Reason::Collision,
        format!(
            "Secret {target} exists and is held by {holder}; it was not touched. Choose another spec.target.name, or remove it: \
             kubectl delete secret {target} -n {namespace}"
        ),
    )
}

fn holder(secret: &Existing) -> String {
    if let Some(owner) = secret.owners.first() {
        return format!("{}/{}", owner.kind, owner.name);
    }
    match (&secret.managed_by, secret.managers.first()) {
        (Some(label), _) => format!("managed-by={label}"),
        (None, Some(manager)) => format!("field manager {manager}"),
        (None, None) => "someone else".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::mapping::{KeyRules, Mapping};
    use crate::domain::name::SecretName;
    use crate::domain::observed::Owner;
    use crate::domain::request::{SourceRef, shape};

    pub(crate) fn request() -> Request {
        Request {
            namespace: "shop".into(),
            binding: "payments-db".into(),
            uid: "uid-1".into(),
            generation: 1,
            asks: Default::default(),
            mode: Default::default(),
            suspended: false,
            source: SourceRef { workspace: String::new(), secret: "payments db".into(), pin: None },
            target: SecretName::parse("payments-db").unwrap(),
            shape: shape(None, &Default::default()),
            mapping: Mapping::Everything(KeyRules::default()),
        }
    }

    pub(crate) fn ours() -> Existing {
        Existing {
            uid: "secret-1".into(),
            resource_version: "10".into(),
            managed_by: Some("ennote-agent".into()),
            binding_id: Some(request().binding_id()),
            binding: Some("payments-db".into()),
            owners: vec![Owner { kind: "EnnoteSecretBinding".into(), name: "payments-db".into(), uid: "uid-1".into() }],
            ..Existing::default()
        }
    }

    fn verdict(edit: impl FnOnce(&mut Existing)) -> Result<(), Problem> {
        let mut secret = ours();
        edit(&mut secret);
        check(&request(), &Observed::Present(Box::new(secret)))
    }

    #[test]
    fn free_and_own_targets_may_be_written() {
        assert_eq!(check(&request(), &Observed::Absent), Ok(()));
        assert_eq!(verdict(|_| ()), Ok(()));
        assert_eq!(verdict(|s| s.owners.clear()), Ok(()), "a restored Secret without owner stays ours");
    }

    #[test]
    fn a_foreign_secret_is_refused_with_its_holder() {
        let refused = |edit: fn(&mut Existing), holder: &str| {
            let problem = verdict(edit).unwrap_err();
            assert_eq!(problem.reason, Reason::Collision);
            assert!(problem.message.contains(holder), "{}", problem.message);
            assert!(problem.message.contains("kubectl delete secret payments-db -n shop"), "{}", problem.message);
        };
        refused(|s| (s.managed_by, s.owners) = (Some("Helm".into()), vec![]), "managed-by=Helm");
        refused(
            |s| (s.binding_id, s.owners[0].kind, s.owners[0].name) = (None, "ExternalSecret".into(), "x".into()),
            "ExternalSecret/x",
        );
        refused(
            |s| (s.managed_by, s.owners, s.managers) = (None, vec![], vec!["kubectl-create".into()]),
            "field manager kubectl-create",
        );
        refused(|s| (s.managed_by, s.owners) = (None, vec![]), "someone else");
        refused(|s| (s.binding_id, s.binding) = (Some("x".into()), Some("other".into())), "EnnoteSecretBinding/other");
    }

    #[test]
    fn what_is_on_its_way_out_is_waited_for() {
        assert_eq!(verdict(|s| s.owners[0].uid = "older".into()).unwrap_err().reason, Reason::AwaitingCollection);
        assert_eq!(
            verdict(|s| s.owners[0].uid = NOBODY.1.into()).unwrap_err().reason,
            Reason::SourceDeleted,
            "the fuse goes on counting it"
        );
        assert_eq!(verdict(|s| s.deleting = true).unwrap_err().reason, Reason::AwaitingCollection);
    }
}
