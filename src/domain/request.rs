//! A binding, parsed: what is wanted, where, and as which keys.

use crate::crd::{DeletionPolicy, EnnoteSecretBinding, EnnoteSecretBindingStatus, Mode, Target};
use crate::domain::content::binding_id;
use crate::domain::high_water::ACCEPT;
use crate::domain::mapping::{self, Mapping};
use crate::domain::name::SecretName;
use crate::domain::reason::{Problem, Reason};
use std::collections::BTreeMap;

/// Before the names of annotations that ask the agent for something.
const PREFIX: &str = "ennote.io/";

/// Annotation on a binding: ask the cloud anew and write what it says, whatever is known. Each value works once.
pub const SYNC: &str = "ennote.io/sync";
/// Annotation on a binding: uid of the Secret that may be deleted and made again, because its type or its data cannot change.
pub const RECREATE: &str = "ennote.io/recreate";
const RENEWING: [&str; 3] = [ACCEPT, SYNC, RECREATE];

/// Bytes of a text in a want; the cloud refuses longer ones.
const MAX_TEXT: usize = 1024;

/// Which secret of Ennote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceRef {
    /// Empty: the agent's own workspace.
    pub workspace: String,
    /// Name of the secret.
    pub secret: String,
    /// Exactly this version.
    pub pin: Option<u64>,
}

/// What the agent's settings say of bindings that do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `secretPrefix`: before the name of a Secret whose binding gives no target name.
    pub secret_prefix: String,
    /// `cleanupOrphans`: whether a Secret goes when its secret was deleted in the cloud.
    pub cleanup_orphans: bool,
}

/// What the Secret shall be, besides its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its type.
    pub kind: String,
    /// Labels that the user asks for.
    pub labels: BTreeMap<String, String>,
    /// Annotations that the user asks for.
    pub annotations: BTreeMap<String, String>,
    /// Whether the API server refuses changes.
    pub immutable: bool,
    /// Whether it is left behind when the binding goes: it then has no owner reference to the binding.
    pub retain: bool,
    /// Whether it goes when the secret was deleted in the cloud.
    pub goes_with_source: bool,
}

/// The annotations `ennote.io/...` of a binding: what persons ask for, as it stands there.
pub type Asks = BTreeMap<String, String>;

/// A binding as the rest of the agent sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Namespace of binding and target.
    pub namespace: String,
    /// Name of the binding.
    pub binding: String,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// What persons ask for by annotation.
    pub asks: Asks,
    /// Whether to write, or only to say what would be.
    pub mode: Mode,
    /// Whether the Secret is left alone.
    pub suspended: bool,
    /// Where the payload comes from.
    pub source: SourceRef,
    /// The Secret to write.
    pub target: SecretName,
    /// What it shall be.
    pub shape: Shape,
    /// How.
    pub mapping: Mapping,
}

impl Request {
    /// Parses a binding.
    ///
    /// # Errors
    /// What the schema could not refuse, or what an old schema let through.
    pub fn parse(binding: &EnnoteSecretBinding, defaults: &Defaults) -> Result<Self, Problem> {
        let meta = &binding.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let target = match binding.spec.target.as_ref().and_then(|t| t.name.clone()) {
            Some(given) => given,
            None => format!("{}{name}", defaults.secret_prefix),
        };
        let target = SecretName::parse(&target).map_err(|text| {
            Problem::new(Reason::BadMapping, format!("{text:?} cannot be the name of a Secret; set spec.target.name"))
        })?;
        let source = SourceRef {
            workspace: binding.spec.source.workspace.clone().unwrap_or_default(),
            secret: binding.spec.source.secret.clone(),
            pin: binding.spec.source.version.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0),
        };
        // The schema counts characters, the wire bytes.
        for (field, text) in [("secret", &source.secret), ("workspace", &source.workspace)] {
            if text.len() > MAX_TEXT {
                let message = format!("spec.source.{field} is {} bytes long, at most {MAX_TEXT} are sent", text.len());
                return Err(Problem::new(Reason::BadMapping, message));
            }
        }
        Ok(Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            asks: asks(binding),
            mode: binding.spec.mode.unwrap_or_default(),
            suspended: binding.spec.suspend.unwrap_or_default(),
            source,
            target,
            shape: shape(binding.spec.target.as_ref(), defaults),
            mapping: mapping::mapping(&binding.spec)?,
            binding: name,
        })
    }

    /// The asks that make everything known of a binding out of date.
    pub fn renewals(&self) -> Asks {
        self.asks
            .iter()
            .filter(|(key, _)| RENEWING.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Whether a person asks to sync again and has not been answered yet.
    pub fn renews(&self, status: &EnnoteSecretBindingStatus) -> bool {
        let handled = status.last_handled.as_ref().and_then(|handled| handled.sync.as_ref());
        self.asks.get(SYNC).is_some_and(|asked| Some(asked) != handled)
    }

    /// The label that ties the target to this binding.
    pub fn binding_id(&self) -> String {
        binding_id(&self.binding)
    }
}

/// What persons ask for by annotation.
pub fn asks(binding: &EnnoteSecretBinding) -> Asks {
    let annotations = binding.metadata.annotations.iter().flatten();
    annotations.filter(|(key, _)| key.starts_with(PREFIX)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What the Secret shall be, besides its data.
pub fn shape(target: Option<&Target>, defaults: &Defaults) -> Shape {
    let target = target.cloned().unwrap_or_default();
    let gone = target.when_source_deleted.map(|policy| policy == DeletionPolicy::Delete);
    Shape {
        kind: target.kind.unwrap_or_else(|| "Opaque".to_owned()),
        labels: target.labels.into_iter().flatten().map(|(key, value)| (key, value.0)).collect(),
        annotations: target.annotations.into_iter().flatten().map(|(key, value)| (key, value.0)).collect(),
        immutable: target.immutable.unwrap_or_default(),
        retain: target.deletion_policy == Some(DeletionPolicy::Retain),
        goes_with_source: gone.unwrap_or(defaults.cleanup_orphans),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(secret: &str) -> Result<Request, Problem> {
        let binding = json!({
            "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
            "metadata": {"name": "db", "namespace": "shop", "uid": "u"},
            "spec": {"source": {"secret": secret}},
        });
        let defaults = Defaults { secret_prefix: "pre-".into(), ..Defaults::default() };
        Request::parse(&serde_json::from_value(binding).unwrap(), &defaults)
    }

    #[test]
    fn each_value_of_the_sync_annotation_asks_once() {
        let mut request = parse("s").unwrap();
        let status = |sync: Option<&str>| EnnoteSecretBindingStatus {
            last_handled: Some(crate::crd::LastHandled { sync: sync.map(str::to_owned), ..Default::default() }),
            ..Default::default()
        };
        assert!(!request.renews(&status(None)), "nobody asks");
        request.asks.insert(SYNC.to_owned(), "2".to_owned());
        assert!(
            request.renews(&Default::default()) && request.renews(&status(None)) && request.renews(&status(Some("1")))
        );
        assert!(!request.renews(&status(Some("2"))));
    }

    #[test]
    fn a_name_that_is_short_in_characters_may_be_too_long_in_bytes() {
        assert_eq!(parse(&"ключ".repeat(128)).unwrap().target.as_str(), "pre-db");
        assert_eq!(parse(&"鍵".repeat(512)).unwrap_err().reason, Reason::BadMapping);
    }
}
