//! Which arrivals may be used: the high-water mark of a source, pins, and what a person has accepted.
//!
//! `status.source` is the mark: the highest version seen of exactly that source. It holds against a cloud that was rolled back,
//! and against whoever could make one of its cores sign an old version again.

use crate::crd::{EnnoteSecretBinding, EnnoteSecretBindingStatus, SourceStatus};
use crate::domain::reason::{Problem, Reason};
use crate::domain::request::Request;

/// Annotation on a binding, `ORGANIZATION/VERSION`: from now on follow that organization, from that version on, whatever the
/// mark says. Each value works once.
pub const ACCEPT: &str = "ennote.io/accept";

/// What a person has accepted, not used yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// As annotated.
    pub text: String,
    organization: String,
    from: i64,
}

impl Accepted {
    /// Whether it is for this arrival.
    pub fn frees(&self, arrival: &SourceStatus) -> bool {
        self.organization == arrival.organization && self.from <= arrival.version
    }

    /// Whether the mark is against it: else there is nothing to accept.
    fn is_needed(&self, mark: &SourceStatus) -> bool {
        mark.organization != self.organization || self.from < mark.version
    }
}

/// The acceptance of a binding, if it has one that has not worked yet and that the mark stands against.
///
/// # Errors
/// The sentence to show when the annotation holds something else.
pub fn accepted(binding: &EnnoteSecretBinding) -> Result<Option<Accepted>, String> {
    let mark = binding.status.as_ref().and_then(|status| status.source.as_ref());
    Ok(annotated(binding)?.filter(|accepted| mark.is_some_and(|mark| accepted.is_needed(mark))))
}

/// An acceptance that nothing stands against now is done with, so that it does not count for what comes later.
pub fn moot(binding: &EnnoteSecretBinding) -> Option<String> {
    let mark = binding.status.as_ref()?.source.as_ref()?;
    let accepted = annotated(binding).ok()??;
    (!accepted.is_needed(mark)).then_some(accepted.text)
}

fn annotated(binding: &EnnoteSecretBinding) -> Result<Option<Accepted>, String> {
    let Some(text) = binding.metadata.annotations.as_ref().and_then(|a| a.get(ACCEPT)) else { return Ok(None) };
    let handled = binding.status.as_ref().and_then(|status| status.last_handled.as_ref()?.accept.as_ref());
    if handled == Some(text) {
        return Ok(None);
    }
    let parsed = text.trim().rsplit_once('/').and_then(|(organization, version)| {
        let from = version.parse().ok().filter(|v| *v > 0)?;
        (!organization.is_empty()).then(|| Accepted { text: text.clone(), organization: organization.to_owned(), from })
    });
    let wrong = || format!("{ACCEPT} holds {text:?}; it takes ORGANIZATION/VERSION, for example org_1/7");
    parsed.map(Some).ok_or_else(wrong)
}

/// What was asked for when an arrival came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Exactly this version.
    pub pin: Option<u64>,
    /// Newer than this one; 0: in any case.
    pub known: u64,
}

/// What may become of an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Use it; this is the mark that it leaves.
    Take(SourceStatus),
    /// It is what the target is known to hold, or older: sent twice, as by two streams while one drains. Its effect is there.
    Duplicate,
}

/// Holds an arrival of `source` against what was asked, the mark and what was accepted.
///
/// # Errors
/// `IdentityChanged` for another organization than the mark's, `WrongSource` for another version than the pinned one,
/// `Rollback` below the mark of exactly this source.
pub fn admit(
    arrival: &SourceStatus,
    asked: Asked,
    request: &Request,
    status: &EnnoteSecretBindingStatus,
    accepted: Option<&Accepted>,
) -> Result<Verdict, Problem> {
    let mend = format!(
        "kubectl annotate --overwrite ennotesecretbinding {} -n {} {ACCEPT}={}/{}",
        request.binding, request.namespace, arrival.organization, arrival.version
    );
    let free = accepted.is_some_and(|accepted| accepted.frees(arrival));
    let mark = status.source.as_ref().filter(|_| !free);
    if let Some(mark) = mark.filter(|mark| mark.organization != arrival.organization) {
        return Err(Problem::new(
            Reason::IdentityChanged,
            format!(
                "this binding was synced from organization {:?}, the agent now belongs to {:?}; the Secret is kept as it is. If the new one \
                 is meant: {mend}",
                mark.organization, arrival.organization
            ),
        ));
    }
    let mark = mark.filter(|mark| mark.workspace == arrival.workspace && mark.secret == arrival.secret);
    if let Some(pin) = asked.pin {
        if u64::try_from(arrival.version) != Ok(pin) {
            return Err(Problem::new(
                Reason::WrongSource,
                format!("version {} was sent, {pin} is pinned; the Secret is kept as it is", arrival.version),
            ));
        }
        return Ok(Verdict::Take(mark.unwrap_or(arrival).clone()));
    }
    if let Some(mark) = mark.filter(|mark| arrival.version < mark.version) {
        return Err(Problem::new(
            Reason::Rollback,
            format!(
                "version {} was refused: version {} has been seen; the Secret is kept as it is. If Ennote was restored from a backup, \
                 take its versions from here on: {mend}",
                arrival.version, mark.version
            ),
        ));
    }
    if asked.known > 0 && u64::try_from(arrival.version).is_ok_and(|version| version <= asked.known) {
        return Ok(Verdict::Duplicate);
    }
    Ok(Verdict::Take(arrival.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::LastHandled;
    use crate::domain::ownership::tests::request;
    use serde_json::json;

    const NEWEST: Asked = Asked { pin: None, known: 0 };

    fn source(version: i64) -> SourceStatus {
        SourceStatus { organization: "o".into(), workspace: "w".into(), secret: "payments db".into(), version }
    }

    fn marked(version: i64) -> EnnoteSecretBindingStatus {
        EnnoteSecretBindingStatus { source: Some(source(version)), ..Default::default() }
    }

    fn verdict(arrival: SourceStatus, asked: Asked, accept: Option<&str>) -> Result<i64, Reason> {
        let accepted = accept.map(|text| accepted(&binding(text, None)).unwrap().unwrap());
        match admit(&arrival, asked, &request(), &marked(7), accepted.as_ref()) {
            Ok(Verdict::Take(mark)) => Ok(mark.version),
            Ok(Verdict::Duplicate) => Ok(0),
            Err(problem) => Err(problem.reason),
        }
    }

    fn binding(accept: &str, handled: Option<&str>) -> EnnoteSecretBinding {
        let mut binding: EnnoteSecretBinding = serde_json::from_value(json!({
            "apiVersion": "ennote.io/v1alpha1", "kind": "EnnoteSecretBinding",
            "metadata": {"name": "db", "annotations": {ACCEPT: accept}}, "spec": {"source": {"secret": "s"}},
        }))
        .unwrap();
        let last_handled = Some(LastHandled { accept: handled.map(str::to_owned), ..LastHandled::default() });
        binding.status = Some(EnnoteSecretBindingStatus { last_handled, ..marked(7) });
        binding
    }

    #[test]
    fn versions_never_go_back_and_organizations_never_change() {
        assert_eq!(verdict(source(8), NEWEST, None), Ok(8));
        assert_eq!(verdict(source(7), NEWEST, None), Ok(7), "the same again: a repair");
        assert_eq!(verdict(source(6), NEWEST, None), Err(Reason::Rollback));
        let other = SourceStatus { secret: "other".into(), ..source(1) };
        assert_eq!(verdict(other, NEWEST, None), Ok(1), "another source, another mark");
        let evil = SourceStatus { organization: "evil".into(), ..source(8) };
        assert_eq!(verdict(evil, NEWEST, None), Err(Reason::IdentityChanged));
        let first = admit(&source(1), NEWEST, &request(), &Default::default(), None);
        assert_eq!(first, Ok(Verdict::Take(source(1))));
    }

    #[test]
    fn only_what_is_newer_than_what_was_known_answers_a_want() {
        let above = |known| Asked { pin: None, known };
        assert_eq!(verdict(source(8), above(7), None), Ok(8));
        assert_eq!(verdict(source(8), above(8), None), Ok(0), "sent twice");
        assert_eq!(verdict(source(8), above(9), None), Ok(0));
        assert_eq!(verdict(source(6), above(7), None), Err(Reason::Rollback));
    }

    #[test]
    fn a_pin_takes_exactly_its_version_and_leaves_the_mark() {
        let pin = |version| Asked { pin: Some(version), known: 0 };
        assert_eq!(verdict(source(3), pin(3), None), Ok(7), "below the mark, which stays");
        assert_eq!(verdict(source(9), pin(9), None), Ok(7));
        assert_eq!(verdict(source(8), pin(3), None), Err(Reason::WrongSource));
        assert_eq!(verdict(source(2), pin(3), None), Err(Reason::WrongSource));
        let first = admit(&source(3), pin(3), &request(), &Default::default(), None);
        assert_eq!(first, Ok(Verdict::Take(source(3))), "the first mark");
        let evil = SourceStatus { organization: "evil".into(), ..source(3) };
        assert_eq!(verdict(evil, pin(3), None), Err(Reason::IdentityChanged));
    }

    #[test]
    fn what_a_person_accepts_sets_the_mark_anew() {
        let evil = |version| SourceStatus { organization: "new/org".into(), ..source(version) };
        assert_eq!(verdict(source(5), NEWEST, Some("o/5")), Ok(5));
        assert_eq!(verdict(source(6), NEWEST, Some("o/5")), Ok(6), "the cloud went on meanwhile");
        assert_eq!(verdict(source(4), NEWEST, Some("o/5")), Err(Reason::Rollback));
        assert_eq!(verdict(evil(1), NEWEST, Some(" new/org/1 ")), Ok(1));
        assert_eq!(verdict(evil(1), NEWEST, Some("o/1")), Err(Reason::IdentityChanged));
        assert_eq!(verdict(source(8), NEWEST, Some("o/5")), Ok(8));
        let message = admit(&evil(2), NEWEST, &request(), &marked(7), None).unwrap_err().message;
        assert!(message.ends_with("ennotesecretbinding payments-db -n shop ennote.io/accept=new/org/2"), "{message}");
    }

    #[test]
    fn an_acceptance_works_once_and_nonsense_is_named() {
        assert!(accepted(&binding("o/5", None)).unwrap().is_some());
        assert!(accepted(&binding("o/5", Some("o/4"))).unwrap().is_some());
        assert_eq!(accepted(&binding("o/5", Some("o/5"))), Ok(None));
        assert_eq!(accepted(&binding("o/7", None)), Ok(None), "nothing stands against it");
        assert_eq!(moot(&binding("o/8", None)).as_deref(), Some("o/8"), "nor may it count once the mark is past it");
        assert_eq!((moot(&binding("o/5", None)), moot(&binding("p/9", None))), (None, None));
        assert_eq!(moot(&binding("o/8", Some("o/8"))), None);
        let early = accepted(&binding("new/1", None)).unwrap().unwrap();
        assert!(!early.frees(&source(8)), "waits for its own organization");
        for nonsense in ["", "o", "o/", "/5", "o/0", "o/-1", "o/x"] {
            assert!(accepted(&binding(nonsense, None)).unwrap_err().contains("ORGANIZATION/VERSION"), "{nonsense}");
        }
    }
}
