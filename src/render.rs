//! The Secret that a binding and a payload give, without a cluster and without the cloud.
//!
//! Guarantees: the functions that decide here are those that the controller calls; everything renders, or nothing is given;
//! values leave only when they were asked for, and no complaint holds one.

use crate::config::{OutputFormat, RenderSettings};
use crate::crd::EnnoteSecretBinding;
use crate::domain::content::StampKey;
use crate::domain::metadata::Marks;
use crate::domain::observed::{FINGERPRINTS, Observed};
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::{Defaults, Request};
use crate::domain::secret_value::SecretData;
use crate::domain::sync_plan::{Draft, Step, plan};
use crate::domain::target;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt::Write;
use zeroize::Zeroizing;

/// Stands for a value. It is not base64, so the API server refuses a manifest that holds it.
const HIDDEN: &str = "<hidden>";

const KIND: (&str, &str) = ("ennote.io/v1alpha1", "EnnoteSecretBinding");

/// Why nothing was rendered: a line for each trouble. Names, never values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(Vec<String>);

/// Renders every binding of a file with one payload.
///
/// # Errors
/// What is wrong with any of them; nothing is given in part.
pub fn render(file: &[u8], payload: &[u8], settings: &RenderSettings) -> Result<Zeroizing<String>, Refused> {
    let shown = match settings.file.display().to_string() {
        dash if dash == "-" => "standard input".to_owned(),
        path => path,
    };
    let text = std::str::from_utf8(file).map_err(|_| Refused(vec![format!("{shown} is not UTF-8")]))?;
    let bindings = bindings(text).map_err(|all| Refused(all.into_iter().map(|e| format!("{shown}: {e}")).collect()))?;
    let defaults = Defaults { secret_prefix: settings.secret_prefix.clone(), ..Defaults::default() };
    let mut out = Zeroizing::new(String::new());
    let mut wrong = Vec::new();
    for binding in &bindings {
        let name = binding.metadata.name.as_deref().unwrap_or_default();
        let written = draft(binding, payload, &defaults)
            .map_err(|problem| problem.to_string())
            .and_then(|draft| print(&mut out, binding, &draft, settings));
        wrong.extend(written.err().map(|text| format!("{shown}: {name}: {text}")));
    }
    if bindings.is_empty() {
        wrong.push(format!("{shown} holds no {} of {}", KIND.1, KIND.0));
    }
    if wrong.is_empty() { Ok(out) } else { Err(Refused(wrong)) }
}

/// As the controller does with a delivery, for a Secret that does not exist yet.
fn draft(binding: &EnnoteSecretBinding, payload: &[u8], defaults: &Defaults) -> Result<Draft, Problem> {
    if binding.metadata.name.is_none() {
        return Err(Problem::new(Reason::BadMapping, "metadata.name is missing; the Secret is labelled with it"));
    }
    let request = Request::parse(binding, defaults)?;
    // The key that fingerprints are made with comes with a delivery; what depends on it is not printed.
    let key = StampKey::new(&[0; 32]);
    let data =
        target::data(payload, &request, &key).map_err(|error| Problem::new(error.reason(), error.to_string()))?;
    match plan(&request, &Observed::Absent, data, &key, true).step {
        Step::Create(draft) | Step::Patch { draft, .. } => Ok(draft),
        Step::Nothing(_) => Err(Problem::new(Reason::BadMapping, "there is nothing to write")),
    }
}

/// The bindings among the documents of a file, each read to the last field.
fn bindings(text: &str) -> Result<Vec<EnnoteSecretBinding>, Vec<String>> {
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        match serde_yaml::Value::deserialize(document) {
            Ok(value) => found.push(is_binding(&value).map_err(|text| vec![text])?),
            Err(error) => return Err(vec![error.to_string()]),
        }
    }
    // Read again from the text, whose lines a complaint then names.
    let mut bindings = Vec::new();
    for (document, _) in serde_yaml::Deserializer::from_str(text).zip(found).filter(|(_, wanted)| *wanted) {
        let mut unknown = Vec::new();
        let read = serde_ignored::deserialize(document, |path| unknown.push(path.to_string().replace(".?", "")));
        // Those two the type does not hold; they have been looked at.
        unknown.retain(|path| path != "apiVersion" && path != "kind");
        match read {
            Ok(binding) if unknown.is_empty() => bindings.push(binding),
            Ok(_) => wrong.extend(unknown.iter().map(|path| format!("unknown field {path}"))),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if wrong.is_empty() { Ok(bindings) } else { Err(wrong) }
}

/// Whether a document is ours. Another version of our kind is nothing to pass over in silence.
fn is_binding(document: &serde_yaml::Value) -> Result<bool, String> {
    let field = |name: &str| document.get(name).and_then(serde_yaml::Value::as_str).unwrap_or_default();
    match (field("apiVersion"), field("kind")) {
        kind if kind == KIND => Ok(true),
        (version, kind) if kind == KIND.1 => Err(format!("apiVersion of a {kind} is {:?}, not {version:?}", KIND.0)),
        _ => Ok(false),
    }
}

fn print(
    out: &mut String,
    binding: &EnnoteSecretBinding,
    draft: &Draft,
    settings: &RenderSettings,
) -> Result<(), String> {
    let manifest = Manifest { draft, namespace: binding.metadata.namespace.as_deref(), show: settings.show_values };
    let printed = match settings.output {
        OutputFormat::Json => serde_json::to_string(&manifest).map(Zeroizing::new).map_err(|e| e.to_string())?,
        OutputFormat::Yaml => serde_yaml::to_string(&manifest).map(Zeroizing::new).map_err(|e| e.to_string())?,
    };
    match settings.output {
        OutputFormat::Json => writeln!(out, "{}", *printed),
        OutputFormat::Yaml => {
            let separator = if out.is_empty() { "" } else { "---\n" };
            write!(out, "{separator}{}{}", LEFT_OUT, *printed)
        }
    }
    .map_err(|error| error.to_string())
}

const LEFT_OUT: &str = "# As the agent would write it. Left out, because a cluster or Ennote gives it: the owner reference (uid of the binding), the
# annotation ennote.io/fingerprints (keyed by Ennote).
";

/// A Secret as it is printed.
struct Manifest<'a> {
    draft: &'a Draft,
    namespace: Option<&'a str>,
    show: bool,
}

impl Serialize for Manifest<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", "v1")?;
        map.serialize_entry("kind", "Secret")?;
        map.serialize_entry("metadata", &Metadata(self))?;
        map.serialize_entry("type", &self.draft.kind)?;
        if self.draft.immutable {
            map.serialize_entry("immutable", &true)?;
        }
        map.serialize_entry("data", &Data { data: &self.draft.data, show: self.show })?;
        map.end()
    }
}

struct Metadata<'a>(&'a Manifest<'a>);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Manifest { draft, namespace, .. } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", draft.name.as_str())?;
        // Where the binding names none, neither does its Secret: it is that of the apply.
        if let Some(namespace) = namespace {
            map.serialize_entry("namespace", namespace)?;
        }
        map.serialize_entry("labels", &Pairs(&draft.metadata.labels))?;
        map.serialize_entry("annotations", &Pairs(&draft.metadata.annotations))?;
        map.end()
    }
}

struct Pairs<'a>(&'a Marks);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(key, _)| key != FINGERPRINTS).map(|(key, value)| (key, value)))
    }
}

struct Data<'a> {
    data: &'a SecretData,
    show: bool,
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.data.len()))?;
        for (key, value) in self.data {
            if self.show {
                map.serialize_entry(key.as_str(), &*Zeroizing::new(STANDARD.encode(value.expose())))?;
            } else {
                map.serialize_entry(key.as_str(), HIDDEN)?;
            }
        }
        map.end()
    }
}
