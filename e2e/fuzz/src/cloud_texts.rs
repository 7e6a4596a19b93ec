//! What devcloud decodes inside a credential and at the `cli.v1` door: tokens, key sets, blobs, requests, payloads.

use crate::vectors::{array, bytes, file, text};
use crate::world::{CLUSTER, NOW, WORLD, claims};
use crate::{Outcome, Target, Verdict, only_if};
use data_encoding::BASE64;
use ennote_devcloud::attestation::{Attested, Fault, Jwk, Rules, Unverified, parse_jwks};
use ennote_devcloud::payload::{Kind, check};
use ennote_devcloud::v1::blob::{self, KemKey};
use ennote_devcloud::v1::session::SessionKey;
use ennote_devcloud::wire_cli::{AddCliSecretRequest, AddMultiCliSecretRequest, GetCliSecretRequest};
use prost::Message;
use serde_json::{Value, json};
use std::sync::LazyLock;

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "cloud_sa_token", stride: 2, seeds: || TOKENS.to_vec(), run: token },
    Target {
        name: "cloud_sa_token_claims_signed",
        stride: 2,
        seeds: || vec![claims().to_string().into_bytes()],
        run: claimed,
    },
    Target { name: "cloud_sa_token_header_signed", stride: 1, seeds: headers, run: header },
    Target { name: "cloud_jwks", stride: 1, seeds: || vec![CLUSTER.jwks.clone().into_bytes()], run: jwks },
    Target { name: "cloud_v1_blob", stride: 23, seeds: || BLOBS.1.clone(), run: v1_blob },
    Target { name: "cloud_v1_session_key", stride: 1, seeds: session_keys, run: session_key },
    Target { name: "cloud_v1_request", stride: 37, seeds: requests, run: request },
    Target { name: "cloud_payload", stride: 1, seeds: payloads, run: payload },
    Target { name: "cloud_pat", stride: 1, seeds: || vec![WORLD.pat.clone().into_bytes()], run: pat },
];

const AUDIENCE: &str = "https://127.0.0.1/agent-join";

static TOKENS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let claims = claims().to_string();
    [(true, r#"{"alg":"RS256","kid":"rsa"}"#), (false, r#"{"alg":"EdDSA","kid":"ed","typ":"JWT"}"#)]
        .map(|(rsa, header)| CLUSTER.signed(rsa, header.as_bytes(), claims.as_bytes()).into_bytes())
});

fn judged(text: &str) -> Result<(Attested, &'static Jwk), Fault> {
    let audiences = [AUDIENCE.to_owned()];
    let (keys, rules) = (&CLUSTER.keys, Rules { audiences: &audiences, now_ms: NOW });
    let unverified = Unverified::read(text)?;
    let _claimed = (unverified.owner().is_ok(), unverified.issuer().map(str::len));
    unverified.judged(keys, rules)
}

fn token(given: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(given) else { return Ok(Outcome::Refused) };
    match judged(text) {
        Ok(_) => {
            only_if(TOKENS.iter().any(|token| token == text.trim().as_bytes()), "a token that nobody signed counts")
        }
        Err(_) => Ok(Outcome::Refused),
    }
}

fn claimed(given: &[u8]) -> Verdict {
    let token = CLUSTER.signed(false, br#"{"alg":"EdDSA","kid":"ed"}"#, given);
    let Ok((attested, _)) = judged(&token) else { return Ok(Outcome::Refused) };
    let said: Value = serde_json::from_slice(given).map_err(|_| "what is not JSON proves something".to_owned())?;
    let number = |name: &str| said[name].as_i64().unwrap_or_default();
    let (iat, exp, now) = (number("iat"), number("exp"), NOW / 1000);
    let audience = said["aud"] == AUDIENCE || said["aud"] == json!([AUDIENCE]);
    let in_time = (1..=1800).contains(&(exp - iat)) && now <= exp + 10 && iat <= now + 30;
    let whole = format!("system:serviceaccount:{}:{}", attested.namespace, attested.service_account);
    let bound = [&attested.uid, &attested.pod_uid, &attested.issuer, &attested.id].iter().all(|text| !text.is_empty());
    only_if(audience && in_time && bound && attested.subject == whole, "a token that breaks a rule counts")
}

fn headers() -> Vec<Vec<u8>> {
    let all = [
        r#"{"alg":"EdDSA","kid":"ed"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","kid":"ed"}"#,
        r#"{"alg":"EdDSA","crit":["x"]}"#,
    ];
    all.map(|header| header.as_bytes().to_vec()).into()
}

/// The token does not choose how it is verified.
fn header(given: &[u8]) -> Verdict {
    let token = CLUSTER.signed(false, given, claims().to_string().as_bytes());
    let Ok((_, key)) = judged(&token) else { return Ok(Outcome::Refused) };
    let said: Value = serde_json::from_slice(given).map_err(|_| "a header that is not JSON".to_owned())?;
    let known = said["alg"] == "EdDSA" || said["alg"] == "Ed25519";
    let named = said.get("kid").is_none_or(|kid| kid.is_null() || kid == "ed");
    let plain = said.get("crit").is_none_or(Value::is_null);
    only_if(known && named && plain && key.kid.as_deref() == Some("ed"), "a token chose how it is verified")
}

fn jwks(given: &[u8]) -> Verdict {
    let Ok(keys) = parse_jwks(given) else { return Ok(Outcome::Refused) };
    let thumbprints: std::collections::BTreeSet<&str> = keys.iter().map(|key| key.thumbprint.as_str()).collect();
    if keys.is_empty() || keys.len() > 16 || thumbprints.len() != keys.len() || given.len() > 64 * 1024 {
        return Err(format!("a set of {} keys, {} of them different", keys.len(), thumbprints.len()));
    }
    // Written anew, each is the same key: there is one form.
    let members: Vec<Value> = keys.iter().map(|key| serde_json::to_value(&key.key).unwrap_or_default()).collect();
    let again = parse_jwks(json!({ "keys": members }).to_string().as_bytes());
    let again = again.map_err(|_| "a key that counts does not count when written anew".to_owned())?;
    let same = keys.iter().map(|key| &key.thumbprint).eq(again.iter().map(|key| &key.thumbprint));
    only_if(same, "a key has two thumbprints")
}

/// The key of the vectors, and the blobs that it opens.
static BLOBS: LazyLock<(KemKey, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let v1 = file("v1.json");
    let key = KemKey::of(&text(&v1["kem_key"]["version"]), &array(&v1["kem_key"]["seed"]));
    (key, vec![bytes(&v1["upload"]["encrypted_blob"]), bytes(&v1["answer"]["encrypted_blob"])])
});

fn v1_blob(given: &[u8]) -> Verdict {
    match blob::open(&BLOBS.0, given) {
        Ok(_) => only_if(BLOBS.1.iter().any(|blob| blob == given), "another blob than the sealed ones opens"),
        Err(_) => Ok(Outcome::Refused),
    }
}

fn session_keys() -> Vec<Vec<u8>> {
    vec![text(&file("v1.json")["session_key"]["session_public_key"]).into_bytes()]
}

fn session_key(given: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(given) else { return Ok(Outcome::Refused) };
    if SessionKey::parse(text).is_err() {
        return Ok(Outcome::Refused);
    }
    let genuine = BASE64.decode(&session_keys()[0]).unwrap_or_default();
    let same = BASE64.decode(given).is_ok_and(|der| der.len() == 44 && der[..12] == genuine[..12]);
    only_if(same, "a session key that is no X25519 SubjectPublicKeyInfo")
}

fn requests() -> Vec<Vec<u8>> {
    let one = AddCliSecretRequest {
        organization_id: "acme".into(),
        workspace_id: "prod".into(),
        name: "payments db".into(),
        r#type: "KEYS_VALUES".into(),
        encrypted_blob: BASE64.encode(&BLOBS.1[0]),
        ..Default::default()
    };
    let get = GetCliSecretRequest { organization_id: "acme".into(), secret_name: "db".into(), ..Default::default() };
    vec![
        AddMultiCliSecretRequest { secrets: vec![one.clone()] }.encode_to_vec(),
        one.encode_to_vec(),
        get.encode_to_vec(),
    ]
}

/// A request as far as its blob: what opens is the sealed one.
fn request(given: &[u8]) -> Verdict {
    let _either = GetCliSecretRequest::decode(given).map(|get| SessionKey::parse(&get.session_public_key).is_ok());
    let many = AddMultiCliSecretRequest::decode(given).map(|many| many.secrets).unwrap_or_default();
    let one = AddCliSecretRequest::decode(given).into_iter();
    let mut taken = Outcome::Refused;
    for secret in many.into_iter().chain(one).take(50) {
        let Ok(blob) = BASE64.decode(secret.encrypted_blob.as_bytes()) else { continue };
        if v1_blob(&blob)? == Outcome::Taken {
            taken = Outcome::Taken;
        }
    }
    Ok(taken)
}

fn payloads() -> Vec<Vec<u8>> {
    let all = [
        r#"{"keysValues":{"A":"1","B":{"C":[1,2.50]}}}"#,
        r#"{"login":"a","password":"b\u00e9"}"#,
        r#"{"securityNotes":"x"}"#,
        r#"{"securityCode":"1","more":null}"#,
    ];
    all.map(|text| text.as_bytes().to_vec()).into()
}

fn payload(given: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(given) else { return Ok(Outcome::Refused) };
    for kind in Kind::ALL {
        if check(text, Some(kind)).is_ok_and(|found| found != kind) {
            return Err("a payload is of another type than the wanted one".to_owned());
        }
    }
    let Ok(kind) = check(text, None) else { return Ok(Outcome::Refused) };
    // What the cloud takes, another parser reads, and the agent can map or say why not.
    let said: Value = serde_json::from_str(text).map_err(|_| "what is not JSON is a payload".to_owned())?;
    let whole = kind.fields().iter().all(|field| match kind {
        Kind::KeysValues => said[*field].is_object(),
        _ => said[*field].is_string(),
    });
    only_if(whole, "a payload without the fields of its type")
}

fn pat(given: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(given) else { return Ok(Outcome::Refused) };
    match WORLD.core.principal(text) {
        Ok(_) => only_if(text == WORLD.pat, "a personal access token that was not given out counts"),
        Err(_) => Ok(Outcome::Refused),
    }
}
