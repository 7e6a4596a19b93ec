//! A binding, parsed: what is wanted, where, and as which keys.

use crate::crd::EnnoteSecretBinding;
use crate::domain::content::binding_id;
use crate::domain::high_water::ACCEPT;
use crate::domain::name::{DataKey, SecretName};
use crate::domain::payload::Mapping;
use crate::domain::reason::{Problem, Reason};
use jsonptr::PointerBuf;

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
    /// What a person has accepted by annotation, as it stands there.
    pub accepts: Option<String>,
    /// Where the payload comes from.
    pub source: SourceRef,
    /// The Secret to write.
    pub target: SecretName,
    /// How.
    pub mapping: Mapping,
}

impl Request {
    /// Parses a binding. `prefix` goes before a defaulted target name.
    ///
    /// # Errors
    /// What the schema could not refuse, or what an old schema let through.
    pub fn parse(binding: &EnnoteSecretBinding, prefix: &str) -> Result<Self, Problem> {
        let meta = &binding.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let target = match binding.spec.target.as_ref().and_then(|t| t.name.clone()) {
            Some(given) => given,
            None => format!("{prefix}{name}"),
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
            accepts: meta.annotations.as_ref().and_then(|a| a.get(ACCEPT)).cloned(),
            source,
            target,
            mapping: mapping(binding)?,
            binding: name,
        })
    }

    /// The label that ties the target to this binding.
    pub fn binding_id(&self) -> String {
        binding_id(&self.binding)
    }
}

fn mapping(binding: &EnnoteSecretBinding) -> Result<Mapping, Problem> {
    let Some(entries) = &binding.spec.data else { return Ok(Mapping::Everything) };
    let bad = |text: String| Problem::new(Reason::BadMapping, text);
    let keys = entries.iter().map(|entry| {
        let key = DataKey::parse(&entry.key).map_err(|k| bad(format!("a Secret cannot hold the key {k:?}")))?;
        let pointer = PointerBuf::parse(entry.pointer.as_str())
            .map_err(|_| bad(format!("{:?} is not a JSON Pointer (RFC 6901)", entry.pointer)))?;
        Ok((key, pointer))
    });
    Ok(Mapping::Keys(keys.collect::<Result<_, _>>()?))
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
        Request::parse(&serde_json::from_value(binding).unwrap(), "pre-")
    }

    #[test]
    fn a_name_that_is_short_in_characters_may_be_too_long_in_bytes() {
        assert_eq!(parse(&"ключ".repeat(128)).unwrap().target.as_str(), "pre-db");
        assert_eq!(parse(&"鍵".repeat(512)).unwrap_err().reason, Reason::BadMapping);
    }
}
