//! Whether data fits the type of the Secret: what the API server does not look at, or tells only in its own words.
//!
//! <https://kubernetes.io/docs/concepts/configuration/secret/#secret-types>. All faults are named at once, never a value.

use crate::domain::content::StampKey;
use crate::domain::mapping::{MappingError, map};
use crate::domain::request::Request;
use crate::domain::secret_value::SecretData;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The data that a request makes of a payload, fit for the type of its Secret.
///
/// # Errors
/// What does not fit; nothing is returned in part.
pub fn data(payload: &[u8], request: &Request, key: &StampKey) -> Result<SecretData, MappingError> {
    let data = map(payload, &request.mapping, key)?;
    let faults = faults(&request.shape.kind, &data);
    if faults.is_empty() { Ok(data) } else { Err(MappingError::Unfit(faults)) }
}

/// What keeps this data from being a Secret of this type.
fn faults(kind: &str, data: &SecretData) -> Vec<String> {
    let of = |name: &str| data.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value.expose());
    let missing = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .filter(|name| of(name).is_none())
            .map(|name| format!("a Secret of type {kind} needs the key {name}"))
            .collect()
    };
    match kind {
        "kubernetes.io/tls" => {
            let mut faults = missing(&["tls.crt", "tls.key"]);
            if let (Some(certificate), Some(key)) = (of("tls.crt"), of("tls.key")) {
                faults.extend(pair(certificate, key).err().map(str::to_owned));
            }
            faults
        }
        "kubernetes.io/dockerconfigjson" => {
            json(of(".dockerconfigjson"), ".dockerconfigjson", Some("auths"), missing(&[".dockerconfigjson"]))
        }
        "kubernetes.io/dockercfg" => json(of(".dockercfg"), ".dockercfg", None, missing(&[".dockercfg"])),
        "kubernetes.io/basic-auth" if of("username").is_none() && of("password").is_none() => {
            vec![format!("a Secret of type {kind} needs the key username or password")]
        }
        "kubernetes.io/ssh-auth" => {
            let mut faults = missing(&["ssh-privatekey"]);
            if of("ssh-privatekey").is_some_and(<[u8]>::is_empty) {
                faults.push("ssh-privatekey is empty".to_owned());
            }
            faults
        }
        _ => Vec::new(),
    }
}

fn json(value: Option<&[u8]>, name: &str, member: Option<&str>, mut faults: Vec<String>) -> Vec<String> {
    let Some(value) = value else { return faults };
    match serde_json::from_slice::<BTreeMap<String, &RawValue>>(value) {
        Err(_) => faults.push(format!("{name} is not a JSON object")),
        Ok(object) => {
            let held = |member: &str| object.get(member).is_some_and(|value| value.get().starts_with('{'));
            if let Some(member) = member.filter(|member| !held(member)) {
                faults.push(format!("{name} holds no object {member:?}"));
            }
        }
    }
    faults
}

/// Whether the first certificate is that of the private key (RFC 5280: the public key stands in it).
fn pair(certificate: &[u8], key: &[u8]) -> Result<(), &'static str> {
    let certificate = CertificateDer::from_pem_slice(certificate).map_err(|_| "tls.crt holds no certificate in PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no private key in PEM")?;
    let read =
        webpki::EndEntityCert::try_from(&certificate).map_err(|_| "the certificate in tls.crt cannot be read")?;
    let public = public_key(&key).ok_or("tls.key is no RSA, P-256, P-384 or Ed25519 key that the agent can check")?;
    // A SubjectPublicKeyInfo ends with the bits of the key.
    if read.subject_public_key_info().as_ref().ends_with(&public) {
        Ok(())
    } else {
        Err("the certificate in tls.crt is not that of the key in tls.key")
    }
}

fn public_key(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    let random = ring::rand::SystemRandom::new();
    let der = key.secret_der();
    if let PrivateKeyDer::Pkcs1(_) = key {
        return RsaKeyPair::from_der(der).ok().map(|pair| pair.public_key().as_ref().to_vec());
    }
    if let PrivateKeyDer::Sec1(_) = key {
        return sec1_public(der);
    }
    let ecdsa = |algorithm| {
        EcdsaKeyPair::from_pkcs8(algorithm, der, &random).ok().map(|pair| pair.public_key().as_ref().to_vec())
    };
    let ed25519 =
        || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(|pair| pair.public_key().as_ref().to_vec());
    let rsa = || RsaKeyPair::from_pkcs8(der).ok().map(|pair| pair.public_key().as_ref().to_vec());
    ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)
        .or_else(|| ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING))
        .or_else(ed25519)
        .or_else(rsa)
}

/// The public key that OpenSSL writes at the end of an EC private key (RFC 5915): an uncompressed point in a BIT STRING.
fn sec1_public(der: &[u8]) -> Option<Vec<u8>> {
    let point = |length: usize| {
        let from = der.len().checked_sub(length)?;
        let header = der.get(from.checked_sub(3)?..from)?;
        (header == [0x03, u8::try_from(length + 1).ok()?, 0x00] && der[from] == 0x04).then(|| der[from..].to_vec())
    };
    point(65).or_else(|| point(97))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::DataKey;
    use crate::domain::secret_value::SecretValue;

    fn said(kind: &str, pairs: &[(&str, &str)]) -> String {
        let value = |v: &str| SecretValue::copy_of(v.as_bytes());
        let data = pairs.iter().map(|(k, v)| (DataKey::parse(k).unwrap(), value(v))).collect();
        faults(kind, &data).join("; ")
    }

    fn issued(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["db".into()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_has_to_be_that_of_its_key() {
        let all = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519].map(issued);
        for (at, (certificate, key)) in all.iter().enumerate() {
            assert_eq!(said("kubernetes.io/tls", &[("tls.crt", certificate), ("tls.key", key)]), "");
            let (_, other) = &all[(at + 1) % all.len()];
            let wrong = said("kubernetes.io/tls", &[("tls.crt", certificate), ("tls.key", other)]);
            assert_eq!(wrong, "the certificate in tls.crt is not that of the key in tls.key");
        }
        let again = issued(&rcgen::PKCS_ED25519);
        assert!(!said("kubernetes.io/tls", &[("tls.crt", &all[2].0), ("tls.key", &again.1)]).is_empty());
        assert!(said("kubernetes.io/tls", &[("tls.crt", "canary"), ("tls.key", &again.1)]).contains("no certificate"));
        assert!(said("kubernetes.io/tls", &[("tls.crt", &again.0), ("tls.key", "canary")]).contains("no private key"));
        assert_eq!(
            said("kubernetes.io/tls", &[]),
            "a Secret of type kubernetes.io/tls needs the key tls.crt; a Secret of type kubernetes.io/tls needs the key tls.key"
        );
    }

    #[test]
    fn a_key_in_the_form_of_openssl_is_known_by_the_point_at_its_end() {
        let mut der = vec![0x30, 0x77];
        der.extend([0x03, 66, 0x00, 0x04]);
        der.extend([9; 64]);
        assert_eq!(sec1_public(&der).unwrap().len(), 65);
        assert_eq!(sec1_public(&[1; 200]), None);
        assert_eq!(sec1_public(&[]), None);
    }

    #[test]
    fn other_types_have_their_keys() {
        for (kind, pairs, want) in [
            ("Opaque", vec![], ""),
            ("example.com/own", vec![], ""),
            ("kubernetes.io/dockerconfigjson", vec![(".dockerconfigjson", r#"{"auths":{}}"#)], ""),
            (
                "kubernetes.io/dockerconfigjson",
                vec![(".dockerconfigjson", r#"{"auths":1}"#)],
                "holds no object \"auths\"",
            ),
            ("kubernetes.io/dockerconfigjson", vec![(".dockerconfigjson", "canary")], "not a JSON object"),
            ("kubernetes.io/dockerconfigjson", vec![], "needs the key .dockerconfigjson"),
            ("kubernetes.io/dockercfg", vec![(".dockercfg", "{}")], ""),
            ("kubernetes.io/basic-auth", vec![("password", "x")], ""),
            ("kubernetes.io/basic-auth", vec![("user", "x")], "username or password"),
            ("kubernetes.io/ssh-auth", vec![("ssh-privatekey", "x")], ""),
            ("kubernetes.io/ssh-auth", vec![("ssh-privatekey", "")], "is empty"),
        ] {
            let told = said(kind, &pairs);
            assert!(if want.is_empty() { told.is_empty() } else { told.contains(want) }, "{kind}: {told}");
            assert!(!told.contains("canary"));
        }
    }
}
