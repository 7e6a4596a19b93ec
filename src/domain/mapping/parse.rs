//! `spec.data` and `spec.keys` to a mapping.

use crate::crd::{DataEntry, EnnoteSecretBindingSpec};
use crate::domain::mapping::{Entry, KeyRules, Mapping, Missing, Place};
use crate::domain::name::DataKey;
use crate::domain::reason::{Problem, Reason};
use crate::domain::template::Template;
use jsonptr::PointerBuf;

/// One takes a twentieth of a second, and nothing else is done meanwhile.
const MAX_HTPASSWDS: usize = 16;

impl Place {
    fn htpasswds(&self) -> usize {
        match self {
            Self::Pointer(..) => 0,
            Self::Template(template) => template.htpasswds(),
        }
    }
}

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
    let htpasswds: usize = parsed.iter().map(|entry| entry.place.htpasswds()).sum();
    if htpasswds > MAX_HTPASSWDS {
        wrong.push(format!(
            "htpasswd stands {htpasswds} times in the templates of spec.data, at most {MAX_HTPASSWDS} are taken"
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_counted_over_all_entries() {
        let entry =
            |n: usize| serde_json::json!({"key": format!("k{n}"), "template": "{{ a | htpasswd(b) }}".repeat(4)});
        let spec = |n: usize| {
            let data: Vec<_> = (0..n).map(entry).collect();
            serde_json::from_value(serde_json::json!({"source": {"secret": "s"}, "data": data})).unwrap()
        };
        assert!(mapping(&spec(4)).is_ok());
        let refused = mapping(&spec(5)).unwrap_err();
        assert!(refused.message.contains("stands 20 times in the templates of spec.data, at most 16"), "{refused}");
    }
}
