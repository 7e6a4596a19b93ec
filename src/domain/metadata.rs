//! Labels, annotations and owners of the Secret: what a request asks for, and what of that is not so yet.

use crate::domain::content::Fingerprints;
use crate::domain::deletions::NOBODY;
use crate::domain::observed::{ADOPT, BINDING, BINDING_ID, Existing, FINGERPRINTS, MANAGED_BY, Owner};
use crate::domain::request::Request;
use std::collections::{BTreeMap, BTreeSet};

/// Labels or annotations to write; `None` takes one away.
pub type Marks = Vec<(String, Option<String>)>;

/// What of the metadata is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Labels.
    pub labels: Marks,
    /// Annotations.
    pub annotations: Marks,
    /// All owners, where they are not what they should be.
    pub owners: Option<Vec<Owner>>,
}

/// All of it, for a write of the data: with the fingerprints, and without what we wrote earlier and is no longer asked for.
pub fn whole(request: &Request, secret: Option<&Existing>, prints: &Fingerprints) -> Metadata {
    let nothing = BTreeSet::new();
    let (had_labels, had_annotations) =
        secret.map_or((&nothing, &nothing), |secret| (&secret.our_labels, &secret.our_annotations));
    let mut annotations = marks(annotations(request), had_annotations);
    annotations.retain(|(key, _)| key != FINGERPRINTS);
    annotations.push((FINGERPRINTS.to_owned(), Some(prints.to_annotation())));
    if secret.is_some_and(|secret| !is_ours(request, secret)) {
        annotations.push((ADOPT.to_owned(), None));
    }
    let owners = match secret {
        None => Some(owners(request, &[])),
        Some(secret) => Some(owners(request, &secret.owners)).filter(|owners| !same(owners, &secret.owners)),
    };
    Metadata { labels: marks(labels(request), had_labels), annotations, owners }
}

/// What differs on a Secret that is this binding's, apart from its data; `None` where nothing does. What shall be there is compared
/// by its value, whoever wrote it; what shall not be there is taken away only where it is ours.
pub fn difference(request: &Request, secret: &Existing) -> Option<Metadata> {
    if !is_ours(request, secret) || secret.deleting || secret.owners.iter().any(|owner| owner.uid == NOBODY.1) {
        return None;
    }
    let mut labels = marks(labels(request), &secret.our_labels);
    labels.retain(|(key, value)| value.is_none() || secret.labels.get(key) != value.as_ref());
    let mut annotations = marks(annotations(request), &secret.our_annotations);
    annotations.retain(|(key, value)| {
        let stands = value.as_ref().is_some_and(|value| secret.annotations.holds(key, value));
        key != FINGERPRINTS && !stands
    });
    let found = Metadata {
        labels,
        annotations,
        owners: Some(owners(request, &secret.owners)).filter(|owners| !same(owners, &secret.owners)),
    };
    (found != Metadata::default()).then_some(found)
}

/// Whether it says that it is this binding's, so that nothing of that has to be written.
pub fn is_ours(request: &Request, secret: &Existing) -> bool {
    secret.managed_by.as_deref() == Some(MANAGED_BY.1)
        && secret.binding_id.as_ref() == Some(&request.binding_id())
        && secret.adopt.as_ref() != Some(&request.binding)
}

fn labels(request: &Request) -> BTreeMap<String, String> {
    let mut all = request.shape.labels.clone();
    all.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    all.insert(BINDING_ID.to_owned(), request.binding_id());
    all
}

fn annotations(request: &Request) -> BTreeMap<String, String> {
    let mut all = request.shape.annotations.clone();
    all.insert(BINDING.to_owned(), request.binding.clone());
    all
}

fn marks(wanted: BTreeMap<String, String>, ours: &BTreeSet<String>) -> Marks {
    let gone: Vec<String> = ours.iter().filter(|key| !wanted.contains_key(*key)).cloned().collect();
    wanted.into_iter().map(|(key, value)| (key, Some(value))).chain(gone.into_iter().map(|key| (key, None))).collect()
}

/// Those of others, and ours unless the Secret is to be left behind.
pub fn owners(request: &Request, there: &[Owner]) -> Vec<Owner> {
    let mut owners: Vec<Owner> = there.iter().filter(|owner| !is_binding(owner)).cloned().collect();
    if !request.shape.retain {
        let controlled = owners.iter().any(|owner| owner.controller);
        owners.push(binding_as_owner(request, !controlled));
    }
    owners
}

fn binding_as_owner(request: &Request, controller: bool) -> Owner {
    Owner {
        api_version: "ennote.io/v1alpha1".to_owned(),
        kind: "EnnoteSecretBinding".to_owned(),
        name: request.binding.clone(),
        uid: request.uid.clone(),
        controller,
        blocks: false,
    }
}

/// The binding as an owner of its Secret, unless that is to be left behind.
pub fn owner(request: &Request, secret: Option<&Existing>) -> Option<Owner> {
    let there = secret.map_or(&[][..], |secret| &secret.owners);
    owners(request, there).into_iter().find(|owner| owner.uid == request.uid)
}

/// What makes a Secret that carries another binding's label this one's own, where only its owner may write the label over: the
/// owner reference alone, before everything else. `None` where it is so already, or is not of the agent's at all.
pub fn claim(request: &Request, secret: &Existing) -> Option<Metadata> {
    let of_another = secret.managed_by.as_deref() == Some(MANAGED_BY.1)
        && secret.binding_id.as_ref().is_some_and(|id| *id != request.binding_id())
        && secret.adopt.as_ref() != Some(&request.binding);
    if !of_another || secret.owners.iter().any(|owner| owner.uid == request.uid) {
        return None;
    }
    let mut owners: Vec<Owner> = secret.owners.iter().filter(|owner| !is_binding(owner)).cloned().collect();
    let controlled = owners.iter().any(|owner| owner.controller);
    owners.push(binding_as_owner(request, !controlled));
    Some(Metadata { owners: Some(owners), ..Metadata::default() })
}

fn is_binding(owner: &Owner) -> bool {
    owner.kind == "EnnoteSecretBinding"
}

fn same(wanted: &[Owner], there: &[Owner]) -> bool {
    let uids = |owners: &[Owner]| owners.iter().map(|owner| owner.uid.clone()).collect::<BTreeSet<_>>();
    uids(wanted) == uids(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::observed::Hashed;
    use crate::domain::ownership::tests::{ours, request};

    fn written(request: &Request) -> Existing {
        let (labels, annotations) = (labels(request), annotations(request));
        Existing {
            our_labels: labels.keys().cloned().collect(),
            our_annotations: annotations.keys().cloned().collect(),
            annotations: Hashed::of(&annotations),
            labels,
            ..ours()
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        assert_eq!(difference(&request(), &written(&request())), None);
        let with_prints = |mut secret: Existing| {
            secret.our_annotations.insert(FINGERPRINTS.into());
            secret
        };
        assert_eq!(difference(&request(), &with_prints(written(&request()))), None);
    }

    #[test]
    fn labels_are_added_changed_and_taken_away_and_those_of_others_are_left() {
        let mut asked = request();
        asked.shape.labels.extend([("a".into(), "1".into()), ("b".into(), "2".into())]);
        let mut secret = written(&request());
        secret.our_labels.extend(["b".into(), "gone".into()]);
        secret.labels.extend([("b", "old"), ("gone", "x"), ("theirs", "y")].map(|(k, v)| (k.into(), v.into())));
        let found = difference(&asked, &secret).unwrap();
        let want = [("a", Some("1")), ("b", Some("2")), ("gone", None)];
        assert_eq!(found.labels, want.map(|(k, v)| (k.to_owned(), v.map(str::to_owned))));
        assert_eq!((found.annotations, found.owners), (vec![], None));
    }

    #[test]
    fn what_already_stands_there_is_not_written_again_whoever_wrote_it() {
        let mut asked = request();
        asked.shape.labels.insert("team".into(), "shop".into());
        asked.shape.annotations.insert("note".into(), "x".into());
        // Neither is in our fields: the API server gives a field to whom changes it, and nothing was changed.
        let with = |team: &str, note: &str| {
            let mut secret = written(&request());
            secret.labels.insert("team".into(), team.into());
            let mut all = annotations(&request());
            all.insert("note".into(), note.into());
            Existing { annotations: Hashed::of(&all), ..secret }
        };
        assert_eq!(difference(&asked, &with("shop", "x")), None);
        let found = difference(&asked, &with("other", "y")).unwrap();
        assert_eq!(found.labels, [("team".to_owned(), Some("shop".to_owned()))]);
        assert_eq!(found.annotations, [("note".to_owned(), Some("x".to_owned()))]);
        assert_eq!(difference(&request(), &with("shop", "x")), None, "what is not ours is not taken away");
    }

    #[test]
    fn annotations_of_others_are_compared_and_not_kept() {
        let hashed = Hashed::of(&BTreeMap::from([("a".to_owned(), "canary".to_owned())]));
        assert!(hashed.holds("a", "canary") && !hashed.holds("a", "other") && !hashed.holds("b", "canary"));
        assert_eq!(format!("{hashed:?}"), "{\"a\"}");
    }

    #[test]
    fn the_deletion_policy_is_the_owner_reference() {
        let other = Owner { kind: "ConfigMap".into(), uid: "c".into(), ..Owner::default() };
        let mut secret = written(&request());
        secret.owners.push(other.clone());
        let mut retained = request();
        retained.shape.retain = true;
        assert_eq!(difference(&request(), &secret), None);
        assert_eq!(difference(&retained, &secret).unwrap().owners, Some(vec![other.clone()]), "others stay");
        secret.owners = vec![other];
        let owners = difference(&request(), &secret).unwrap().owners.unwrap();
        assert_eq!((owners.len(), owners[1].uid.as_str()), (2, "uid-1"));
        assert_eq!(difference(&retained, &secret), None);
    }

    #[test]
    fn what_is_not_ours_or_on_its_way_out_is_left_alone() {
        let mut asked = request();
        asked.shape.labels.insert("a".into(), "1".into());
        let changed = |edit: fn(&mut Existing)| {
            let mut secret = written(&request());
            edit(&mut secret);
            difference(&asked, &secret)
        };
        assert!(changed(|_| ()).is_some());
        assert_eq!(changed(|s| s.managed_by = None), None);
        assert_eq!(changed(|s| s.adopt = Some("payments-db".into())), None);
        assert_eq!(changed(|s| s.deleting = true), None);
        assert_eq!(changed(|s| s.owners[0].uid = NOBODY.1.into()), None);
    }

    #[test]
    fn a_secret_that_is_taken_loses_the_mark_and_gets_our_owner() {
        let mut secret = Existing { adopt: Some("payments-db".into()), ..Existing::default() };
        secret.owners.push(Owner { kind: "ConfigMap".into(), uid: "c".into(), ..Owner::default() });
        let all = whole(&request(), Some(&secret), &Fingerprints::default());
        assert!(all.annotations.contains(&(ADOPT.to_owned(), None)));
        assert_eq!(all.owners.unwrap().len(), 2);
        let first = whole(&request(), None, &Fingerprints::default());
        assert_eq!(first.owners.unwrap()[0].uid, "uid-1");
        assert!(first.labels.iter().chain(&first.annotations).all(|(_, value)| value.is_some()));
    }
}
