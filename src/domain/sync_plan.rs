//! What a pass needs, and what it will write: decided once, so that the executor only matches on the step.

use crate::crd::EnnoteSecretBindingStatus;
use crate::domain::conditions::is_synced;
use crate::domain::content::{Fingerprints, StampKey};
use crate::domain::drift::intact;
use crate::domain::metadata::{Metadata, is_ours, owner, whole};
use crate::domain::name::{DataKey, SecretName};
use crate::domain::observed::{Existing, Observed, Owner};
use crate::domain::request::Request;
use crate::domain::secret_value::SecretData;

/// The version that the target demonstrably holds for this spec, or 0: the payload is needed in any case.
///
/// `home` is the agent's organization and own workspace, as far as they are known: what was synced from another one is not
/// what is asked for now.
///
/// 0 when the target is absent, was edited, or was written for another generation of the spec or another source.
pub fn known_version(
    request: &Request,
    observed: &Observed,
    status: &EnnoteSecretBindingStatus,
    home: Option<(&str, &str)>,
) -> u64 {
    let Observed::Present(secret) = observed else { return 0 };
    let synced = is_synced(status, request.generation);
    let Some(source) = &status.source else { return 0 };
    let (organization, own) = home.unwrap_or((&source.organization, &source.workspace));
    let workspace = if request.source.workspace.is_empty() { own } else { &request.source.workspace };
    let same_source =
        source.secret == request.source.secret && source.workspace == workspace && source.organization == organization;
    let same_target = status.target.as_ref().is_some_and(|t| t.uid == secret.uid && t.name == request.target.as_str());
    let held = status.held_version().and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
    if synced && same_source && same_target && intact(secret) && is_ours(request, secret) { held } else { 0 }
}

/// What to write.
#[derive(Debug)]
pub enum Step {
    /// POST: cannot overwrite.
    Create(Draft),
    /// Merge patch under these preconditions. `drop` are keys of ours that are no longer wanted.
    Patch {
        /// What it shall hold.
        draft: Draft,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// Keys to remove.
        drop: Vec<String>,
    },
    /// The target holds exactly this.
    Nothing(Box<Existing>),
}

impl Step {
    /// What the Secret shall hold, where anything is to be written.
    pub fn data(&self) -> Option<&SecretData> {
        match self {
            Self::Create(draft) | Self::Patch { draft, .. } => Some(&draft.data),
            Self::Nothing(_) => None,
        }
    }
}

/// A Secret to be written.
#[derive(Debug)]
pub struct Draft {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: SecretName,
    /// Its type.
    pub kind: String,
    /// Whether it refuses changes from then on.
    pub immutable: bool,
    /// Labels, annotations, owners.
    pub metadata: Metadata,
    /// The binding as an owner, unless the Secret is to be left behind.
    pub owner: Option<Owner>,
    /// Plaintext.
    pub data: SecretData,
}

/// A plan and the fingerprints of what the target holds once it is carried out.
#[derive(Debug)]
pub struct SyncPlan {
    /// What to do.
    pub step: Step,
    /// What the target then holds.
    pub prints: Fingerprints,
}

/// Plans the write of `data`. The caller has checked ownership. `edited`: the spec is another one than that which was written
/// last, so that also type and immutability have to be.
pub fn plan(request: &Request, observed: &Observed, data: SecretData, key: &StampKey, edited: bool) -> SyncPlan {
    let prints = Fingerprints::of(key, &data);
    let draft = |data, secret| Draft {
        namespace: request.namespace.clone(),
        name: request.target.clone(),
        kind: request.shape.kind.clone(),
        immutable: request.shape.immutable,
        metadata: whole(request, secret, &prints),
        owner: owner(request, secret),
        data,
    };
    let step = match observed {
        Observed::Absent => Step::Create(draft(data, None)),
        Observed::Present(secret)
            if !edited
                && is_ours(request, secret)
                && intact(secret)
                && secret.fingerprints.as_ref() == Some(&prints) =>
        {
            Step::Nothing(secret.clone())
        }
        Observed::Present(secret) => {
            let earlier = secret.fingerprints.iter().flat_map(Fingerprints::keys).map(str::to_owned);
            let mut drop: Vec<String> = secret.our_keys.iter().cloned().chain(earlier).collect();
            drop.retain(|k| DataKey::parse(k).is_ok() && !data.keys().any(|d| d.as_str() == k));
            drop.sort();
            drop.dedup();
            Step::Patch {
                draft: draft(data, Some(&**secret)),
                uid: secret.uid.clone(),
                resource_version: secret.resource_version.clone(),
                drop,
            }
        }
    };
    SyncPlan { step, prints }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{SourceStatus, TargetStatus};
    use crate::domain::conditions::{Freshness, next};
    use crate::domain::observed::FINGERPRINTS;
    use crate::domain::outcome::{Held, Outcome};
    use crate::domain::ownership::tests::{ours, request};
    use crate::domain::secret_value::SecretValue;
    use k8s_openapi::jiff::Timestamp;

    fn data(pairs: &[(&str, &str)]) -> SecretData {
        pairs.iter().map(|(k, v)| (DataKey::parse(k).unwrap(), SecretValue::copy_of(v.as_bytes()))).collect()
    }

    fn key() -> StampKey {
        StampKey::new(&[3; 32])
    }

    fn written(pairs: &[(&str, &str)]) -> Existing {
        let prints = Fingerprints::of(&key(), &data(pairs));
        let our_annotations = [FINGERPRINTS.to_owned()].into();
        let our_keys = prints.keys().map(str::to_owned).collect();
        Existing { our_keys, our_annotations, fingerprints: Some(prints), ..ours() }
    }

    fn source(version: i64) -> SourceStatus {
        SourceStatus { organization: "o".into(), workspace: "w".into(), secret: "payments db".into(), version }
    }

    fn status(version: i64) -> EnnoteSecretBindingStatus {
        let target = TargetStatus {
            name: "payments-db".into(),
            uid: "secret-1".into(),
            resource_version: "10".into(),
            keys: 1,
            version: Some(version),
            other_keys: vec![],
        };
        let held = Held {
            source: source(version),
            content: key_content(),
            target,
            accepted: None,
            written_at: None,
            latency_millis: None,
        };
        next(&Default::default(), &Outcome::Synced(Box::new(held)), Freshness::Fresh, 1, Timestamp::UNIX_EPOCH)
    }

    fn key_content() -> crate::domain::content::Content {
        Fingerprints::of(&key(), &data(&[("a", "1")])).content()
    }

    fn known(edit: impl FnOnce(&mut Request, &mut Existing, &mut EnnoteSecretBindingStatus)) -> u64 {
        let (mut request, mut secret, mut status) = (request(), written(&[("a", "1")]), status(7));
        edit(&mut request, &mut secret, &mut status);
        known_version(&request, &Observed::Present(Box::new(secret)), &status, Some(("o", "w")))
    }

    #[test]
    fn a_payload_is_asked_for_exactly_when_the_target_cannot_be_proved_to_hold_it() {
        assert_eq!(known(|_, _, _| ()), 7);
        assert_eq!(known(|_, s, _| s.resource_version = "99".into()), 7, "a label edited by someone is no reason");
        assert_eq!(known(|r, _, _| r.generation = 2), 0, "the spec was edited");
        assert_eq!(known(|r, _, _| r.source.secret = "other".into()), 0);
        assert_eq!(known(|r, _, _| r.source.workspace = "w".into()), 7, "the same workspace, spelt out");
        assert_eq!(known(|r, _, _| r.source.workspace = "x".into()), 0);
        assert_eq!(known(|_, s, _| s.uid = "new".into()), 0, "deleted and made again");
        assert_eq!(known(|_, s, _| s.our_keys.clear()), 0, "a key was edited by someone else");
        assert_eq!(known(|_, s, _| s.fingerprints = None), 0);
        assert_eq!(known(|_, _, st| *st = Default::default()), 0);
        let target = |version| move |st: &mut EnnoteSecretBindingStatus| st.target.as_mut().unwrap().version = version;
        assert_eq!(known(|_, _, st| target(Some(3))(st)), 3, "pinned below the mark");
        assert_eq!(known(|_, _, st| target(None)(st)), 7, "written by an agent that knew no pins");
        assert_eq!(known_version(&request(), &Observed::Absent, &status(7), None), 0);
        let present = Observed::Present(Box::new(written(&[("a", "1")])));
        let at = |home| known_version(&request(), &present, &status(7), home);
        assert_eq!((at(None), at(Some(("o", "w")))), (7, 7));
        assert_eq!((at(Some(("o", "elsewhere"))), at(Some(("another", "w")))), (0, 0), "enrolled anew, elsewhere");
    }

    #[test]
    fn the_first_write_cannot_overwrite_and_later_ones_carry_their_preconditions() {
        let create = plan(&request(), &Observed::Absent, data(&[("a", "1")]), &key(), false);
        assert!(matches!(create.step, Step::Create(_)));

        let present = Observed::Present(Box::new(Existing {
            our_keys: ["a", "b", "gone"].map(str::to_owned).into(),
            ..written(&[("a", "1"), ("b", "2")])
        }));
        match plan(&request(), &present, data(&[("a", "9")]), &key(), false).step {
            Step::Patch { uid, resource_version, drop, draft } => {
                assert_eq!((uid.as_str(), resource_version.as_str()), ("secret-1", "10"));
                assert_eq!(drop, ["b", "gone"], "a key dropped from the secret leaves the Secret");
                assert_eq!(draft.metadata.owners, None, "it has its owner");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn equal_data_is_not_written_again_unless_it_was_edited() {
        let same = |secret: Existing| {
            plan(&request(), &Observed::Present(Box::new(secret)), data(&[("a", "1")]), &key(), false).step
        };
        assert!(matches!(same(written(&[("a", "1")])), Step::Nothing(_)));
        let edited = Existing { our_keys: Default::default(), ..written(&[("a", "1")]) };
        assert!(matches!(same(edited), Step::Patch { .. }));
    }
}
