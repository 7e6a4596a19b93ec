//! `spec.data` and `spec.keys` to a mapping.

use crate::crd::{DataEntry, EnnoteSecretBindingSpec};
use crate::domain::mapping::{Entry, KeyRules, Mapping, Missing, Place};
use crate::domain::name::DataKey;
use crate::domain::reason::{Problem, Reason};
use crate::domain::template::Template;
use jsonptr::PointerBuf;

/// Parses the mapping of a spec.
///
/// # Errors
/// `BadMapping` with every entry at fault: what the schema cannot refuse, or an old schema let through.
pub fn mapping(spec: &EnnoteSecretBindingSpec) -> Result<Mapping, Problem> {
    let bad = |text: String| Problem::new(Reason::BadMapping, text);
    let Some(entries) = &spec.data else {
        let rules = spec.keys.as_ref().map(KeyRules::parse).transpose().map_err(bad)?;
        return Ok(Mapping::Everything(rules.unwrap_or_default()));
    };
    let (mut parsed, mut wrong) = (Vec::new(), Vec::new());
    for given in entries {
        match entry(given) {
            Ok(entry) => parsed.push(entry),
            Err(text) => wrong.push(text),
        }
    }
    if wrong.is_empty() { Ok(Mapping::Keys(parsed)) } else { Err(bad(wrong.join("; "))) }
}

fn entry(given: &DataEntry) -> Result<Entry, String> {
    let key = DataKey::parse(&given.key).map_err(|key| format!("a Secret cannot hold the key {key:?}"))?;
    let place = match (&given.pointer, &given.template) {
        (Some(pointer), None) => {
            let parsed = PointerBuf::parse(pointer.as_str())
                .map_err(|_| format!("{key}: {pointer:?} is not a JSON Pointer (RFC 6901)"))?;
            Place::Pointer(parsed, given.format.unwrap_or_default())
        }
        (None, Some(text)) => {
            Place::Template(Template::parse(text).map_err(|why| format!("the template of {key}: {why}"))?)
        }
        _ => return Err(format!("{key}: give a pointer or a template, one of the two")),
    };
    let missing = match (given.optional.unwrap_or_default(), &given.default) {
        (false, _) => Missing::Refuse,
        (true, None) => Missing::LeaveOut,
        (true, Some(text)) => Missing::Default(text.clone()),
    };
    Ok(Entry { key, place, missing })
}
