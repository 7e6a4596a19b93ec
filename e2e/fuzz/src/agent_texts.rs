//! What the agent decodes inside a delivery, beside a status, and in a token: payloads, error details, texts.

use crate::vectors::{file, text};
use crate::{Outcome, Target, Verdict, only_if};
use data_encoding::BASE64URL_NOPAD;
use ennote_agent::cloud::retry::{Recovery, asked_pause, problem, recover};
use ennote_agent::crd::Format;
use ennote_agent::domain::content::StampKey;
use ennote_agent::domain::mapping::{Entry, KeyRules, Mapping, Missing, Place, map};
use ennote_agent::domain::name::DataKey;
use ennote_agent::domain::reason::Reason;
use ennote_agent::identity::join::Credentials;
use ennote_agent::identity::trust::root_of_token;
use serde_json::Value;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "agent_payload", stride: 1, seeds: payloads, run: payload },
    Target { name: "agent_status", stride: 1, seeds: statuses, run: status },
    Target {
        name: "agent_token",
        stride: 1,
        seeds: || vec![text(&file("join.json")["bootstrap_token"]).into_bytes()],
        run: token,
    },
];

fn payloads() -> Vec<Vec<u8>> {
    let mut all = vec![text(&file("sealed.json")["payload"]).into_bytes()];
    all.push(br#"{"login":"a","password":"\u0000\ud83d\ude00","n":1e400,"list":[1,{"deep":[true,null]}]}"#.to_vec());
    all.push(br#"{"keysValues":{"A":"1","b.c-d_e":{"x":"y"}},"securityNotes":"no"}"#.to_vec());
    all
}

fn payload(given: &[u8]) -> Verdict {
    let pointers = ["/keysValues", "/login", "/list/1/deep", "/keysValues/A", ""];
    let entry = |(n, at): (usize, &&str)| Entry {
        key: DataKey::parse(&format!("K{n}")).unwrap(),
        place: Place::Pointer(at.parse().unwrap(), Format::Raw),
        missing: Missing::LeaveOut,
    };
    let stamp = StampKey::new(&[0; 32]);
    let _either = map(given, &Mapping::Keys(pointers.iter().enumerate().map(entry).collect()), &stamp);
    let everything = Mapping::Everything(KeyRules::default());
    let Ok(data) = map(given, &everything, &stamp) else { return Ok(Outcome::Refused) };
    // Another parser agrees on the texts: nothing was invented, joined or unescaped twice.
    let value: Value = match serde_json::from_slice(given) {
        Ok(value) => value,
        // It knows no number that a double does not hold; the agent keeps numbers as texts.
        Err(error) if error.to_string().starts_with("number out of range") => return Ok(Outcome::Taken),
        Err(error) => return Err(format!("what is not JSON is a payload: {error}")),
    };
    let fields = value.get("keysValues").filter(|nested| nested.is_object()).unwrap_or(&value);
    let held: usize = data.values().map(|value| value.expose().len()).sum();
    let same = data.iter().all(|(key, value)| match fields.get(key.to_string()) {
        Some(Value::String(text)) => text.as_bytes() == value.expose(),
        other => other.is_some(),
    });
    only_if(same && held <= 1024 * 1024, "a payload gives what it does not hold")
}

fn statuses() -> Vec<Vec<u8>> {
    let mut detailed = ErrorDetails::with_error_info("TOKEN_SPENT", "ennote.io", [("detail".into(), "UID".into())]);
    detailed.set_retry_info(Some(Duration::from_secs(7)));
    let encoded = |code: Code, details: ErrorDetails| {
        [&[code as i32 as u8][..], Status::with_error_details(code, "", details).details()].concat()
    };
    let named = |reason: &str| ErrorDetails::with_error_info(reason, "ennote.io", std::collections::HashMap::new());
    vec![
        encoded(Code::Unauthenticated, detailed),
        encoded(Code::PermissionDenied, named("BANNED")),
        encoded(Code::Aborted, named("SUPERSEDED")),
        encoded(Code::Unavailable, ErrorDetails::with_retry_info(Some(Duration::MAX))),
    ]
}

/// `grpc-status` and `grpc-status-details-bin`: unsigned, so anyone's.
fn status(given: &[u8]) -> Verdict {
    let Some((code, details)) = given.split_first() else { return Ok(Outcome::Refused) };
    let code = Code::from_i32(i32::from(*code) % 17);
    let status = Status::with_details(code, "canary", bytes::Bytes::copy_from_slice(details));
    let recovery = recover(&status);
    if asked_pause(&status).is_some_and(|pause| pause > Duration::from_secs(300)) {
        return Err("the cloud stops the agent for more than five minutes".to_owned());
    }
    let problem = problem(recovery, Some(&status), "cloud:443");
    let by_its_code = match recovery {
        Recovery::Lost | Recovery::InUse => code == Code::Unauthenticated && problem.reason == Reason::IdentityLost,
        Recovery::Rejoin => code == Code::Unauthenticated && problem.reason == Reason::WaitingForCloud,
        Recovery::Banned => code == Code::PermissionDenied && problem.reason == Reason::Banned,
        Recovery::Superseded => code == Code::Aborted && problem.reason == Reason::WaitingForCloud,
        Recovery::BackOff => return Ok(Outcome::Refused),
    };
    only_if(by_its_code && !problem.message.contains("canary"), "a status does what another code is for")
}

/// The bootstrap token's end, and what a ServiceAccount token says of its time.
fn token(given: &[u8]) -> Verdict {
    let given = String::from_utf8_lossy(given).into_owned();
    let issued = Credentials { sa_token: given.clone().into(), ..Credentials::default() }.issued_at_ms();
    if issued.is_some_and(|at| at % 1000 != 0) {
        return Err("a time of no whole second".to_owned());
    }
    let Some(root) = root_of_token(&given) else { return Ok(Outcome::Refused) };
    only_if(given.trim().ends_with(&BASE64URL_NOPAD.encode(&root)), "a root that the token does not end with")
}
