//! What exists in the cluster where the target should be: metadata only, never a value.

use crate::domain::content::Fingerprints;
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
    /// Labels that our field manager wrote, as they are.
    pub our_labels: BTreeMap<String, String>,
    /// Annotations that our field manager wrote, as they are. Never those of others: one of kubectl's holds the plaintext.
    pub our_annotations: BTreeMap<String, String>,
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
