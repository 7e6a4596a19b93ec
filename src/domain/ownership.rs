//! May we write this Secret, and who holds it if not: ordered checks, the first that speaks decides.
//!
//! Guarantee: of the bindings that aim at one Secret at most one may write it at any time, whatever came in which order: the
//! oldest that lives.

use crate::domain::content::binding_id;
use crate::domain::deletions::NOBODY;
use crate::domain::metadata::is_ours;
use crate::domain::observed::{ADOPT, Existing, MANAGED_BY, Observed, Owner};
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::{RECREATE, Request};
use k8s_openapi::jiff::Timestamp;

/// What the right to a Secret depends on, besides the Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// When the binding was made.
    pub created: Option<Timestamp>,
    /// The uid of the Secret that the binding wrote last.
    pub held: Option<String>,
    /// The other bindings that live and aim at the Secret, or are named by its label.
    pub rivals: Vec<Rival>,
}

/// Another binding of the namespace that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it aims at the same Secret.
    pub aims_here: bool,
    /// Whether it only observes, and so writes nothing for now.
    pub observes: bool,
}

impl Rival {
    fn is_older(&self, request: &Request, rights: &Rights) -> bool {
        (self.created, &self.name) < (rights.created, &request.binding)
    }
}

/// Decides whether the target is ours to write.
///
/// # Errors
/// `Collision` with the holder, `Released`, or a wait for the garbage collector.
pub fn check(request: &Request, observed: &Observed, rights: &Rights) -> Result<(), Problem> {
    if let Some(problem) = of_an_older_binding(request, rights) {
        return Err(problem);
    }
    let Observed::Present(secret) = observed else { return Ok(()) };
    CHECKS.iter().find_map(|check| check(request, secret, rights)).map_or(Ok(()), Err)
}

type Check = fn(&Request, &Existing, &Rights) -> Option<Problem>;

/// The order is the specification.
const CHECKS: [Check; 6] = [released, foreign, of_another_binding, handed_over, of_an_earlier_binding, going_away];

/// The oldest binding that lives has the right, also to a Secret that does not exist yet. One that only observes claims nothing:
/// a look ahead stops nobody.
fn of_an_older_binding(request: &Request, rights: &Rights) -> Option<Problem> {
    let aiming = rights.rivals.iter().filter(|rival| rival.aims_here && !rival.observes);
    let older = aiming.filter(|rival| rival.is_older(request, rights));
    let oldest = older.min_by_key(|rival| (rival.created, &rival.name))?;
    Some(Problem::new(
        Reason::Collision,
        format!(
            "Secret {} is held by EnnoteSecretBinding/{}, which is older and aims at it too; this binding takes over when that \
             one is deleted or aims elsewhere. Or choose another spec.target.name",
            request.target, oldest.name
        ),
    ))
}

fn is_labelled(secret: &Existing) -> bool {
    secret.managed_by.as_deref() == Some(MANAGED_BY.1) && secret.binding_id.is_some()
}

/// Ours, and a person took our label away. That is said, not fought.
fn released(request: &Request, secret: &Existing, rights: &Rights) -> Option<Problem> {
    let ours = rights.held.as_ref() == Some(&secret.uid);
    if !ours || is_labelled(secret) || is_handed(request, secret) {
        return None;
    }
    let (target, namespace) = (&request.target, &request.namespace);
    let owned = if secret.owners.iter().any(|owner| owner.uid == request.uid) {
        "; it still goes with the binding, unless its owner reference is removed"
    } else {
        ""
    };
    Some(Problem::new(
        Reason::Released,
        format!(
            "Secret {target} was released: the label of the agent was taken from it, and the agent leaves it as it is from now \
             on{owned}. To give it back: {}",
            adopting(request, namespace)
        ),
    ))
}

/// Not labelled as ours: never touched, unless a person hands it over.
fn foreign(request: &Request, secret: &Existing, _: &Rights) -> Option<Problem> {
    if is_labelled(secret) || is_handed(request, secret) {
        return None;
    }
    if let Some(owner) = controller(request, secret).filter(|_| secret.adopt.is_some()) {
        return Some(Problem::new(
            Reason::Collision,
            format!(
                "Secret {} exists and is held by {}/{}, which controls it; it was not touched and cannot be adopted. Remove that \
                 owner reference first, or choose another spec.target.name",
                request.target, owner.kind, owner.name
            ),
        ));
    }
    Some(collision(request, secret, &holder(secret)))
}

/// Ours, but of a binding with another name.
fn of_another_binding(request: &Request, secret: &Existing, rights: &Rights) -> Option<Problem> {
    let label = secret.binding_id.as_ref().filter(|label| **label != request.binding_id() && is_labelled(secret))?;
    // Owned by this binding it is ours, whatever somebody made of the label: a write of another binding moves both at once.
    if secret.owners.iter().any(|owner| owner.uid == request.uid) {
        return None;
    }
    let owned = secret.owners.iter().any(is_binding);
    let other = secret.binding.as_deref().unwrap_or("unknown");
    match rights.rivals.iter().find(|rival| binding_id(&rival.name) == *label) {
        // Its owner reference goes by the same write.
        Some(rival) if rival.aims_here && !rival.is_older(request, rights) => None,
        Some(_) if is_handed(request, secret) => None,
        Some(rival) if controller(request, secret).is_some() => Some(Problem::new(
            Reason::Collision,
            format!(
                "Secret {} exists and is held by EnnoteSecretBinding/{}; it was not touched. It is free when that one is deleted or \
                 has written another Secret. Or choose another spec.target.name",
                request.target, rival.name
            ),
        )),
        Some(rival) => Some(collision(request, secret, &format!("EnnoteSecretBinding/{}", rival.name))),
        None if owned => Some(Problem::new(
            Reason::AwaitingCollection,
            format!(
                "Secret {} still belongs to EnnoteSecretBinding/{other}, which is gone; waiting for the garbage collector",
                request.target
            ),
        )),
        // Left behind by a binding that is gone.
        None => None,
    }
}

fn is_binding(owner: &Owner) -> bool {
    owner.kind == "EnnoteSecretBinding"
}

/// Who manages the Secret, if that is not this binding.
fn controller<'a>(request: &Request, secret: &'a Existing) -> Option<&'a Owner> {
    secret.owners.iter().find(|owner| owner.controller && owner.uid != request.uid)
}

/// Whether a person has handed it to this binding. What someone controls is not theirs to hand over.
fn is_handed(request: &Request, secret: &Existing) -> bool {
    secret.adopt.as_ref() == Some(&request.binding) && controller(request, secret).is_none()
}

/// Handed to the garbage collector by us. The reason stays SourceDeleted meanwhile where it was for that: the fuse counts what
/// says so.
fn handed_over(request: &Request, secret: &Existing, _: &Rights) -> Option<Problem> {
    let owner = secret.owners.iter().find(|owner| owner.uid == NOBODY.1)?;
    let target = &request.target;
    Some(if owner.name == NOBODY.0 {
        Problem::new(
            Reason::SourceDeleted,
            format!(
                "{:?} was deleted in Ennote; Secret {target} was handed to the garbage collector, waiting until it is gone",
                request.source.secret
            ),
        )
    } else {
        Problem::new(
            Reason::AwaitingCollection,
            format!("Secret {target} was handed to the garbage collector and is made anew; waiting until it is gone"),
        )
    })
}

/// Of a deleted binding with the same name: the garbage collector will take it, and its deletion wakes us.
fn of_an_earlier_binding(request: &Request, secret: &Existing, _: &Rights) -> Option<Problem> {
    if secret.binding_id.as_ref() != Some(&request.binding_id()) {
        return None;
    }
    let owner = secret.owners.iter().find(|o| is_binding(o) && o.uid != request.uid)?;
    Some(Problem::new(
        Reason::AwaitingCollection,
        format!(
            "Secret {} still belongs to a deleted binding ({}); waiting for the garbage collector",
            request.target, owner.uid
        ),
    ))
}

/// Deleted, but held by someone's finalizer.
fn going_away(request: &Request, secret: &Existing, _: &Rights) -> Option<Problem> {
    secret.deleting.then(|| {
        Problem::new(
            Reason::AwaitingCollection,
            format!("Secret {} is being deleted; waiting until it is gone", request.target),
        )
    })
}

/// What somebody controls cannot be handed over, so that step is not shown for it.
fn collision(request: &Request, secret: &Existing, holder: &str) -> Problem {
    let (namespace, target) = (&request.namespace, &request.target);
    let goes = if request.shape.retain { "" } else { "; it goes when the binding is deleted" };
    let handing = match controller(request, secret) {
        Some(_) => String::new(),
        None => format!(
            ". Or hand it over: {} (the keys of the payload are then written over, other keys stay{goes})",
            adopting(request, namespace)
        ),
    };
    Problem::new(
        Reason::Collision,
        format!(
            "Secret {target} exists and is held by {holder}; it was not touched. Choose another spec.target.name, or remove it: \
             kubectl delete secret {target} -n {namespace}{handing}"
        ),
    )
}

/// What to say of a Secret that may be written but cannot change as asked. Only one that is this binding's is made anew for it:
/// what a person hands over is not deleted.
pub fn cannot_become(request: &Request, secret: &Existing) -> Problem {
    let Request { target, binding, namespace, .. } = request;
    let mend = if is_ours(request, secret) {
        format!(
            "To have it deleted and made anew: kubectl annotate --overwrite ennotesecretbinding {binding} -n {namespace} \
             {RECREATE}={}",
            secret.uid
        )
    } else {
        format!(
            "It was handed over and not taken yet, so the agent does not delete it. Set spec.target.type to its own: \
             kubectl get secret {target} -n {namespace} -o jsonpath='{{.type}}{{\"\\n\"}}'. Or remove it: kubectl delete secret \
             {target} -n {namespace}"
        )
    };
    Problem::new(
        Reason::RecreateNeeded,
        format!(
            "Secret {target} cannot become what the spec asks for: it is immutable, or its type is another one, and neither can \
             change. It is kept as it is. {mend}"
        ),
    )
}

fn adopting(request: &Request, namespace: &str) -> String {
    format!("kubectl annotate secret {} -n {namespace} {ADOPT}={}", request.target, request.binding)
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
            owners: vec![Owner {
                kind: "EnnoteSecretBinding".into(),
                name: "payments-db".into(),
                uid: "uid-1".into(),
                controller: true,
                ..Owner::default()
            }],
            ..Existing::default()
        }
    }

    fn verdict(edit: impl FnOnce(&mut Existing)) -> Result<(), Problem> {
        let mut secret = ours();
        edit(&mut secret);
        check(&request(), &Observed::Present(Box::new(secret)), &Rights::default())
    }

    #[test]
    fn free_and_own_targets_may_be_written() {
        assert_eq!(check(&request(), &Observed::Absent, &Rights::default()), Ok(()));
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
        refused(
            |s| {
                (s.managed_by, s.adopt, s.owners) = (None, Some("another".into()), vec![]);
            },
            "kubectl annotate secret payments-db -n shop ennote.io/adopt=payments-db",
        );
    }

    #[test]
    fn a_secret_is_adopted_by_the_named_binding_unless_someone_controls_it() {
        let handed = |owner: Owner| {
            verdict(|s| {
                (s.managed_by, s.binding_id, s.adopt) = (None, None, Some("payments-db".into()));
                s.owners = vec![owner];
            })
        };
        let owner = Owner { kind: "Certificate".into(), name: "web".into(), uid: "c".into(), ..Owner::default() };
        assert_eq!(handed(owner.clone()), Ok(()));
        let problem = handed(Owner { controller: true, ..owner }).unwrap_err();
        assert_eq!(problem.reason, Reason::Collision);
        assert!(problem.message.contains("Certificate/web, which controls it"), "{}", problem.message);
    }

    #[test]
    fn a_label_that_was_taken_away_releases_the_secret_until_it_is_given_back() {
        let rights = Rights { held: Some("secret-1".into()), ..Rights::default() };
        let said = |secret: Existing| check(&request(), &Observed::Present(Box::new(secret)), &rights);
        for taken in [Existing { managed_by: None, ..ours() }, Existing { binding_id: None, ..ours() }] {
            let problem = said(taken.clone()).unwrap_err();
            assert_eq!(problem.reason, Reason::Released);
            assert!(problem.message.contains("ennote.io/adopt=payments-db"), "{}", problem.message);
            assert!(problem.message.contains("owner reference"), "{}", problem.message);
            let unowned = said(Existing { owners: vec![], ..taken.clone() }).unwrap_err();
            assert!(!unowned.message.contains("owner reference"), "{}", unowned.message);
            assert_eq!(said(Existing { adopt: Some("payments-db".into()), ..taken.clone() }), Ok(()));
            assert_eq!(said(Existing { uid: "other".into(), ..taken }).unwrap_err().reason, Reason::Collision);
        }
    }

    /// Every set of three bindings that live, whoever wrote the Secret last and whether that one left it behind.
    #[test]
    fn at_most_one_binding_may_write_a_secret_and_it_is_the_oldest_that_lives() {
        let at = |second| Timestamp::from_second(second).unwrap();
        // Two of the same second: the name decides.
        let all = [("b", at(1)), ("a", at(2)), ("c", at(2))];
        let named = |name: &str| Request { binding: name.into(), uid: name.into(), ..request() };
        for live in 1..8_usize {
            let lives = |i: usize| live >> i & 1 == 1;
            let oldest = (0..3).find(|i| lives(*i)).unwrap();
            for (writer, retained) in [(0, true), (0, false), (1, true), (1, false), (2, true), (2, false), (3, true)] {
                let observed = match all.get(writer) {
                    None => Observed::Absent,
                    Some((name, _)) => {
                        let owner = Owner {
                            kind: "EnnoteSecretBinding".into(),
                            uid: (*name).into(),
                            controller: true,
                            ..Owner::default()
                        };
                        Observed::Present(Box::new(Existing {
                            binding_id: Some(named(name).binding_id()),
                            binding: Some((*name).into()),
                            owners: if retained { vec![] } else { vec![owner] },
                            ..ours()
                        }))
                    }
                };
                let may: Vec<usize> = (0..3)
                    .filter(|i| lives(*i))
                    .filter(|i| {
                        let rivals = (0..3).filter(|o| o != i && lives(*o)).map(|o| Rival {
                            name: all[o].0.into(),
                            created: Some(all[o].1),
                            aims_here: true,
                            observes: false,
                        });
                        let rights = Rights { created: Some(all[*i].1), held: None, rivals: rivals.collect() };
                        check(&named(all[*i].0), &observed, &rights).is_ok()
                    })
                    .collect();
                // What a dead binding owns is the garbage collector's, and nobody's until it is gone.
                let collected = writer < 3 && !lives(writer) && !retained;
                let expected = if collected { vec![] } else { vec![oldest] };
                assert_eq!(may, expected, "live {live:03b}, written by {writer}, retained {retained}");
            }
        }
    }

    #[test]
    fn the_way_out_of_what_cannot_change_is_one_that_works() {
        let own = cannot_become(&request(), &ours());
        assert_eq!(own.reason, Reason::RecreateNeeded);
        assert!(own.message.ends_with("-n shop ennote.io/recreate=secret-1"), "{}", own.message);
        let foreign = Existing { managed_by: None, binding_id: None, adopt: Some("payments-db".into()), ..ours() };
        let adopted = cannot_become(&request(), &foreign).message;
        assert!(!adopted.contains(RECREATE) && adopted.contains("Set spec.target.type"), "{adopted}");
        assert!(adopted.ends_with("kubectl delete secret payments-db -n shop"), "{adopted}");
    }

    fn against(rival: Rival, edit: impl FnOnce(&mut Existing)) -> Result<(), Problem> {
        let mut secret = ours();
        edit(&mut secret);
        let rights = Rights { created: Timestamp::from_second(5).ok(), held: None, rivals: vec![rival] };
        check(&request(), &Observed::Present(Box::new(secret)), &rights)
    }

    /// Of the rival `other`, which owns it.
    fn theirs(secret: &mut Existing) {
        secret.binding_id = Some(binding_id("other"));
        (secret.owners[0].name, secret.owners[0].uid) = ("other".into(), "uid-2".into());
    }

    #[test]
    fn a_binding_that_observes_stops_nobody_and_loses_nothing() {
        let rival = |second, aims_here, observes| Rival {
            name: "other".into(),
            created: Timestamp::from_second(second).ok(),
            aims_here,
            observes,
        };
        let refused = against(rival(1, true, false), |_| ()).unwrap_err();
        assert!(refused.message.contains("which is older"), "{}", refused.message);
        assert_eq!(against(rival(1, true, true), |_| ()), Ok(()), "the look ahead of an older one");
        let kept = against(rival(1, true, true), theirs).unwrap_err();
        assert!(kept.reason == Reason::Collision && kept.message.contains("EnnoteSecretBinding/other"), "{kept:?}");
        for observes in [true, false] {
            assert_eq!(against(rival(9, true, observes), theirs), Ok(()), "a younger one, whatever it does now");
        }
        assert_eq!(against(rival(9, false, false), theirs).unwrap_err().reason, Reason::Collision);
    }

    #[test]
    fn a_step_that_cannot_work_is_not_shown() {
        let elsewhere = || Rival { name: "other".into(), created: None, aims_here: false, observes: false };
        let owned = against(elsewhere(), theirs).unwrap_err().message;
        assert!(!owned.contains("ennote.io/adopt") && owned.contains("has written another Secret"), "{owned}");
        let left = |secret: &mut Existing| {
            theirs(secret);
            secret.owners.clear();
        };
        assert!(against(elsewhere(), left).unwrap_err().message.contains("ennote.io/adopt=payments-db"));
        assert_eq!(
            against(elsewhere(), |secret| {
                left(secret);
                secret.adopt = Some("payments-db".into());
            }),
            Ok(())
        );
        let controlled = verdict(|secret| {
            (secret.managed_by, secret.owners[0].kind, secret.owners[0].uid) = (None, "Certificate".into(), "c".into());
        });
        assert!(!controlled.unwrap_err().message.contains("ennote.io/adopt"));
    }

    #[test]
    fn a_label_that_somebody_wrote_over_is_put_back() {
        let over = |secret: &mut Existing| secret.binding_id = Some("anything".into());
        assert_eq!(verdict(over), Ok(()), "nobody collects what this binding owns");
        let named = |secret: &mut Existing| secret.binding_id = Some(binding_id("other"));
        let rival = Rival { name: "other".into(), created: None, aims_here: false, observes: false };
        assert_eq!(against(rival, named), Ok(()));
    }

    #[test]
    fn what_is_on_its_way_out_is_waited_for() {
        assert_eq!(verdict(|s| s.owners[0].uid = "older".into()).unwrap_err().reason, Reason::AwaitingCollection);
        assert_eq!(
            verdict(|s| (s.owners[0].name, s.owners[0].uid) = (NOBODY.0.into(), NOBODY.1.into())).unwrap_err().reason,
            Reason::SourceDeleted,
            "the fuse goes on counting it"
        );
        assert_eq!(verdict(|s| s.deleting = true).unwrap_err().reason, Reason::AwaitingCollection);
    }
}
