//! ServiceAccount tokens, made with real keys, one for each rule that can be broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod client;

use client::cluster::{Cluster, Signer};
use ennote_devcloud::attestation::{Attested, Fault, Jwk, Rules, Unverified, parse_jwks};
use serde_json::{Value, json};

fn judge(token: &str, keys: &[Jwk], now_ms: i64) -> Result<Attested, Fault> {
    let audiences = ["https://127.0.0.1/agent-join".to_owned(), "https://cloud.example/agent-join".to_owned()];
    let rules = Rules { audiences: &audiences, now_ms };
    Ok(Unverified::read(token)?.judged(keys, rules)?.0)
}

/// A time at which the claims below are ten seconds old.
const NOW: i64 = 1_000_010_000;

fn claims(cluster: &Cluster) -> Value {
    let mut claims = cluster.claims("jti-1");
    (claims["iat"], claims["nbf"], claims["exp"]) = (1_000_000.into(), 1_000_000.into(), 1_000_600.into());
    claims
}

#[test]
fn a_token_of_each_kind_of_key_proves_its_pod_and_service_account() {
    for signer in [Signer::rsa(), Signer::p256(), Signer::p384(), Signer::ed()] {
        let cluster = Cluster::new(signer);
        let keys = parse_jwks(cluster.jwks().as_bytes()).unwrap();
        let attested = judge(&cluster.token_of(&claims(&cluster)), &keys, NOW).unwrap();
        assert_eq!(attested.subject, "system:serviceaccount:ennote:ennote-agent");
        assert_eq!((attested.namespace.as_str(), attested.service_account.as_str()), ("ennote", "ennote-agent"));
        assert_eq!((attested.uid.as_str(), attested.pod_uid.as_str()), ("uid-1", "pod-1"));
        let of_jti = "5964da055ae31cf8eb7230e190a504899c6f60f07f9f1cd3cade9fbf226e8c28";
        assert_eq!((attested.id.as_str(), attested.expires_at_ms), (of_jti, 1_000_600_000));
    }
    let cluster = Cluster::new(Signer::rsa());
    let keys = parse_jwks(cluster.jwks().as_bytes()).unwrap();
    for alg in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let token = cluster.signed(&json!({"alg": alg, "kid": "key-1"}), &claims(&cluster));
        assert!(judge(&token, &keys, NOW).is_ok(), "{alg}");
    }
}

#[test]
fn each_broken_rule_has_its_own_fault() {
    type Edit = fn(&mut Value);
    let cases: &[(&str, Edit, Result<(), Fault>)] = &[
        ("as it should be", |_| (), Ok(())),
        ("a single audience as text", |c| c["aud"] = "https://cloud.example/agent-join".into(), Ok(())),
        ("no nbf", |c| drop(c.as_object_mut().unwrap().remove("nbf")), Ok(())),
        ("the longest life", |c| c["exp"] = 1_001_800.into(), Ok(())),
        ("in the leeway", |c| (c["iat"], c["nbf"]) = (1_000_040.into(), 1_000_040.into()), Ok(())),
        ("in the grace", |c| (c["iat"], c["exp"]) = (999_900.into(), 1_000_000.into()), Ok(())),
        ("two audiences", |c| c["aud"] = json!(["https://127.0.0.1/agent-join", "x"]), Err(Fault::Audience)),
        ("no audience", |c| c["aud"] = json!([]), Err(Fault::Audience)),
        ("no aud", |c| drop(c.as_object_mut().unwrap().remove("aud")), Err(Fault::Audience)),
        ("the API server's", |c| c["aud"] = json!(["https://kubernetes.default.svc"]), Err(Fault::Audience)),
        ("another cloud's", |c| c["aud"] = json!(["https://other.example/agent-join"]), Err(Fault::Audience)),
        ("upper case", |c| c["aud"] = json!(["https://CLOUD.example/agent-join"]), Err(Fault::Audience)),
        ("with a port", |c| c["aud"] = json!(["https://127.0.0.1:8443/agent-join"]), Err(Fault::Audience)),
        ("too long a life", |c| c["exp"] = 1_001_801.into(), Err(Fault::Life)),
        ("over", |c| (c["iat"], c["exp"]) = (999_400.into(), 999_999.into()), Err(Fault::Expired)),
        ("issued ahead", |c| (c["iat"], c["exp"]) = (1_000_041.into(), 1_000_600.into()), Err(Fault::Expired)),
        ("not before later", |c| c["nbf"] = 1_000_041.into(), Err(Fault::Expired)),
        ("no exp", |c| drop(c.as_object_mut().unwrap().remove("exp")), Err(Fault::Malformed)),
        ("no iat", |c| drop(c.as_object_mut().unwrap().remove("iat")), Err(Fault::Malformed)),
        ("nbf as text", |c| c["nbf"] = "99999999999".into(), Err(Fault::Malformed)),
        ("exp before iat", |c| c["exp"] = 999_999.into(), Err(Fault::Malformed)),
        ("life that overflows", |c| (c["iat"], c["exp"]) = (i64::MIN.into(), i64::MAX.into()), Err(Fault::Malformed)),
        ("no iss", |c| drop(c.as_object_mut().unwrap().remove("iss")), Err(Fault::Malformed)),
        ("no sub", |c| drop(c.as_object_mut().unwrap().remove("sub")), Err(Fault::Subject)),
        ("a user", |c| c["sub"] = "system:admin".into(), Err(Fault::Subject)),
        ("of two minds", |c| c["kubernetes.io"]["namespace"] = "other".into(), Err(Fault::Subject)),
        ("no UID", |c| c["kubernetes.io"]["serviceaccount"] = json!({"name": "ennote-agent"}), Err(Fault::Uid)),
        ("an empty UID", |c| c["kubernetes.io"]["serviceaccount"]["uid"] = "".into(), Err(Fault::Uid)),
        ("unbound", |c| drop(c["kubernetes.io"].as_object_mut().unwrap().remove("pod")), Err(Fault::Unbound)),
        ("not of Kubernetes", |c| drop(c.as_object_mut().unwrap().remove("kubernetes.io")), Err(Fault::Uid)),
    ];
    for signer in [Signer::rsa(), Signer::p256()] {
        let cluster = Cluster::new(signer);
        let keys = parse_jwks(cluster.jwks().as_bytes()).unwrap();
        for (what, edit, expected) in cases {
            let mut claims = claims(&cluster);
            edit(&mut claims);
            assert_eq!(judge(&cluster.token_of(&claims), &keys, NOW).map(drop), *expected, "{what}");
        }
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_verified() {
    let (cluster, other) = (Cluster::new(Signer::rsa()), Cluster::new(Signer::p256()));
    let keys = parse_jwks(cluster.jwks().as_bytes()).unwrap();
    let claims = claims(&cluster);
    let with = |header: Value| judge(&cluster.signed(&header, &claims), &keys, NOW).map(drop);
    assert_eq!(with(json!({"alg": "RS256"})), Ok(()), "without a kid, every key is tried");
    assert_eq!(with(json!({"alg": "RS256", "kid": "other"})), Err(Fault::KeyUnknown));
    for alg in ["none", "None", "HS256", "ES256", "rs256", ""] {
        assert_eq!(with(json!({"alg": alg, "kid": "key-1"})), Err(Fault::Signature), "{alg}");
    }
    assert_eq!(with(json!({"alg": "RS256", "kid": "key-1", "crit": ["b64"]})), Err(Fault::Malformed));
    assert_eq!(with(json!({"kid": "key-1"})), Err(Fault::Malformed));
    assert_eq!(judge(&other.token_of(&claims), &keys, NOW), Err(Fault::Signature), "another key of the same name");
    let token = cluster.token_of(&claims);
    let (message, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(judge(&format!("{message}."), &keys, NOW), Err(Fault::Signature));
    let mut flipped = signature.to_owned().into_bytes();
    flipped[10] = if flipped[10] == b'A' { b'B' } else { b'A' };
    let flipped = format!("{message}.{}", String::from_utf8(flipped).unwrap());
    assert_eq!(judge(&flipped, &keys, NOW), Err(Fault::Signature));
    let for_rs256: Vec<Jwk> = keys.iter().map(|key| Jwk { alg: Some("RS256".into()), ..key.clone() }).collect();
    let other_alg = cluster.signed(&json!({"alg": "PS256", "kid": "key-1"}), &claims);
    assert_eq!(judge(&other_alg, &for_rs256, NOW), Err(Fault::Signature), "the key is for one algorithm");
    for text in ["x", "a.b", "..", "a.b.c.d", "é.é.é", &"a".repeat(20_000)] {
        assert_eq!(judge(text, &keys, NOW), Err(Fault::Malformed), "{text:.20}");
    }
    assert_eq!(judge(" \n", &keys, NOW), Err(Fault::NoCredential));
}
