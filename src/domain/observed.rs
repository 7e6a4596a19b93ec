//! What exists in the cluster where the target should be: metadata only, never a value.

use crate::domain::content::{Fingerprints, short_hash};
use std::collections::{BTreeMap, BTreeSet};

/// Field manager of every write to a Secret.
pub const FIELD_MANAGER: &str = "ennote-agent";
/// Label and its value on every Secret of the agent.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "ennote-agent");
/// Label: base32 of the hash of the binding's name.
pub const BINDING_ID: &str = "ennote.io/binding-id";
/// Annotation: name of the binding.
pub const BINDING: &str = "ennote.io/binding";
/// Annotation: fingerprints per key.
pub const FINGERPRINTS: &str = "ennote.io/fingerprints";

/// Annotation that a person sets on a Secret of someone else: the name of the binding that may take it.
pub const ADOPT: &str = "ennote.io/adopt";

/// The target, as far as metadata tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// No such Secret.
    Absent,
    /// There is one.
    Present(Box<Existing>),
}

/// A Secret that exists.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Existing {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion: the precondition of the next write.
    pub resource_version: String,
    /// Label app.kubernetes.io/managed-by.
    pub managed_by: Option<String>,
    /// Label ennote.io/binding-id.
    pub binding_id: Option<String>,
    /// Annotation ennote.io/binding.
    pub binding: Option<String>,
    /// Annotation ennote.io/adopt.
    pub adopt: Option<String>,
    /// Annotation ennote.io/fingerprints, if it can be read.
    pub fingerprints: Option<Fingerprints>,
    /// All labels, as they are.
    pub labels: BTreeMap<String, String>,
    /// All annotations, as hashes.
    pub annotations: Hashed,
    /// Labels that our field manager owns. One that already stood there with the value that we wrote is not among them: the
    /// API server gives a field to whom changes it.
    pub our_labels: BTreeSet<String>,
    /// Annotations that our field manager owns.
    pub our_annotations: BTreeSet<String>,
    /// Owner references.
    pub owners: Vec<Owner>,
    /// Field managers that wrote anything, in the order of the object.
    pub managers: Vec<String>,
    /// Keys under `data` that other field managers own, and which. Only of a Secret that is labelled as ours.
    pub others: BTreeMap<String, String>,
    /// The other field manager that wrote last. Only of a Secret that is labelled as ours.
    pub last_manager: Option<String>,
    /// Keys under `data` that our field manager owns.
    pub our_keys: BTreeSet<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// Annotations that can be compared and not read: others keep whole objects in theirs, and so the plaintext.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hashed(BTreeMap<String, String>);

impl Hashed {
    /// More bytes than any annotation has that is written here: what others keep in longer ones is not even hashed.
    const LONGEST: usize = 16 * 1024;

    /// Of what stands there.
    pub fn of<'a>(annotations: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let short = annotations.into_iter().filter(|(_, value)| value.len() <= Self::LONGEST);
        Self(short.map(|(key, value)| (key.clone(), short_hash(value.as_bytes()))).collect())
    }

    /// Whether this stands there.
    pub fn holds(&self, key: &str, value: &str) -> bool {
        self.0.get(key).is_some_and(|there| *there == short_hash(value.as_bytes()))
    }
}

impl std::fmt::Debug for Hashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One owner reference.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Owner {
    /// API version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it is the one that manages the Secret.
    pub controller: bool,
    /// Whether its foreground deletion waits for the Secret.
    pub blocks: bool,
}
