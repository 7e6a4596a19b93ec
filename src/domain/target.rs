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

/// Bytes of annotations that a Secret may have of us, of the 256 KiB that Kubernetes takes of all
/// (`TotalAnnotationSizeLimitB` in k8s.io/apimachinery): the rest is for others', and for the binding's name.
const MAX_ANNOTATIONS: usize = 240 * 1024;
/// Bytes that each key takes beside its name in the annotation that records what it holds.
const RECORD: usize = 24;

/// The data that a request makes of a payload, fit for the type of its Secret.
///
/// # Errors
/// What does not fit; nothing is returned in part.
pub fn data(payload: &[u8], request: &Request, key: &StampKey) -> Result<SecretData, MappingError> {
    let data = map(payload, &request.mapping, key)?;
    let recorded: usize = data.keys().map(|key| key.as_str().len() + RECORD).sum();
    let asked: usize = request.shape.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if recorded + asked > MAX_ANNOTATIONS {
        return Err(MappingError::TooManyKeys(data.len()));
    }
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

/// Whether the first certificate is that of the private key (RFC 5280: the public key stands in it). Servers take more kinds of both
/// than can be read here; what cannot be checked is let through, since there would be no way out.
fn pair(certificate: &[u8], key: &[u8]) -> Result<(), &'static str> {
    let certificate = CertificateDer::from_pem_slice(certificate).map_err(|_| "tls.crt holds no certificate in PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no private key in PEM")?;
    if !is_sequence(&certificate) {
        return Err("what stands in the PEM of tls.crt is no certificate");
    }
    if !is_sequence(key.secret_der()) {
        return Err("what stands in the PEM of tls.key is no private key");
    }
    let (Ok(read), Some(public)) = (webpki::EndEntityCert::try_from(&certificate), public_key(&key)) else {
        return Ok(());
    };
    // A SubjectPublicKeyInfo ends with the bits of the key. A point may be written without its second half.
    let info = read.subject_public_key_info();
    let half = match public.len() {
        65 | 97 => &public[1..public.len().div_ceil(2)],
        _ => &public[..],
    };
    if info.as_ref().ends_with(&public) || info.as_ref().ends_with(half) {
        Ok(())
    } else {
        Err("the certificate in tls.crt is not that of the key in tls.key")
    }
}

/// Whether it is one SEQUENCE of DER, which certificates and private keys of all kinds are.
fn is_sequence(der: &[u8]) -> bool {
    let (header, length) = match der {
        [0x30, short @ ..=0x7f, ..] => (2, usize::from(*short)),
        [0x30, 0x81, a, ..] => (3, usize::from(*a)),
        [0x30, 0x82, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        // A Secret holds less than four bytes of length can say.
        [0x30, 0x83, a, b, c, ..] => (5, u32::from_be_bytes([0, *a, *b, *c]) as usize),
        _ => return false,
    };
    der.len() == header + length
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
    use crate::domain::content::Fingerprints;
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

    /// What OpenSSL writes and servers take, but neither ring nor webpki reads; made for these tests.
    const UNCHECKED: [(&str, &str, &str); 5] = [
        (
            "X.509 version 1",
            "-----BEGIN CERTIFICATE-----\n\
             MIIBFTCBvQIUWzfwjJlhlu3TpTtAGC4igguPNkIwCgYIKoZIzj0EAwIwDTELMAkG\n\
             A1UEAwwCZGIwIBcNMjYxMTI1MTA0OTU0WhgPMjEyNjExMDExMDQ5NTRaMA0xCzAJ\n\
             BgNVBAMMAmRiMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEyvyIyPgaReKwTj+3\n\
             Hp+wXXqLzbxdLY6m+y/ab11by0ckRMJg5I6HUe2tppfnLlM9QAGGrJd1Sk22ywhj\n\
             uDYIOzAKBggqhkjOPQQDAgNHADBEAiAmpVNk22zgDKhO3f5Fj0pd/7nr2fT/Nevg\n\
             snjauGY9AAIgU+Bo68/ATx2vBuAwdj+y2MINTbEuNUt7PsHVeiaDA24=\n\
             -----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----\n\
             MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggjIGkbw14vIMKlYb\n\
             22Ry92ulYIc4zuOM11XnWYQ4KC2hRANCAATK/IjI+BpF4rBOP7cen7BdeovNvF0t\n\
             jqb7L9pvXVvLRyREwmDkjodR7a2ml+cuUz1AAYasl3VKTbbLCGO4Ngg7\n\
             -----END PRIVATE KEY-----",
        ),
        (
            "P-521",
            "-----BEGIN CERTIFICATE-----\n\
             MIIB+TCCAVqgAwIBAgIUCTh0FvVdlppZuI+NELJKNI2a1JEwCgYIKoZIzj0EAwIw\n\
             DTELMAkGA1UEAwwCZGIwIBcNMjYxMTI1MTA0OTU1WhgPMjEyNjExMDExMDQ5NTVa\n\
             MA0xCzAJBgNVBAMMAmRiMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAbE/3jXQy\n\
             CLwMhZY4+qe+mRG92n34elf14GfIg0R3XvxwMyfPflm/4xwV3Zzud/hzOFuyAymt\n\
             OnrjAjBJiJVru/gBcc0thM1zyg6luCO4ZJ6l1ucTnhFWXKSiEVlxfSmnqrBs9UQo\n\
             bTT80zvsdy73YA6bdjP3QZI0O59MxOW9i6tJ49ajUzBRMB0GA1UdDgQWBBSJ5TTL\n\
             ntWsUA6j7NFJLO1MjIWuDDAfBgNVHSMEGDAWgBSJ5TTLntWsUA6j7NFJLO1MjIWu\n\
             DDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA4GMADCBiAJCAJJXMG/43mYK\n\
             A/8E4VLvjIDX12pGvbosXg6kt+ZW3rT01Xpl7Q7ouCvMoBOe+woeegtEUCznAsOC\n\
             ePjc6TU/ZuaFAkIBRyv1WTP106YtzKwbYtV4V6PCLJ/K4aWJfh2n53XJTvnJjAlv\n\
             Gq+GB9ZunsocvAkAmehiyjpHGHuFwfXINNg6p54=\n\
             -----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----\n\
             MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIB8X9qWa4vwV28Aar2\n\
             FET5UT2nx/BAOTXfDGMplvezeWf2p99hNMjgsAvRUvQy1pZKVcAf6tOTOmwXTHPa\n\
             PR6j9M6hgYkDgYYABABsT/eNdDIIvAyFljj6p76ZEb3affh6V/XgZ8iDRHde/HAz\n\
             J89+Wb/jHBXdnO53+HM4W7IDKa06euMCMEmIlWu7+AFxzS2EzXPKDqW4I7hknqXW\n\
             5xOeEVZcpKIRWXF9KaeqsGz1RChtNPzTO+x3LvdgDpt2M/dBkjQ7n0zE5b2Lq0nj\n\
             1g==\n\
             -----END PRIVATE KEY-----",
        ),
        (
            "Ed448",
            "-----BEGIN CERTIFICATE-----\n\
             MIIBezCB/KADAgECAhQ9rmSQ6FQJ+fME54cpd/uMgKuErDAFBgMrZXEwDTELMAkG\n\
             A1UEAwwCZGIwIBcNMjYxMTI1MTA0OTU1WhgPMjEyNjExMDExMDQ5NTVaMA0xCzAJ\n\
             BgNVBAMMAmRiMEMwBQYDK2VxAzoASU46Sl5rjfkC0r4cG0GSa9wQKWTI7IxJxa0g\n\
             iKqr2WcEdXoXlx23N2nnKdeEMF426UMZVzYoPQ2Ao1MwUTAdBgNVHQ4EFgQUNRQs\n\
             kkMIcRFjW51zbTKusxhMo00wHwYDVR0jBBgwFoAUNRQskkMIcRFjW51zbTKusxhM\n\
             o00wDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXEDcwBJZzs6Cpy1KvSPWeJWXJ5C3meL\n\
             jseAO7m/8KH1fS03laYiUpGBqtOpVFnTYGLt+tBEkPeZG3mY3wDSv58PXVf4rsAT\n\
             9F1MLbIv0lWvpbzY6G+th9aIyGlFAgIwNC9JgsoSR0QHmXLm5AhWKnNXKnK1CAA=\n\
             -----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----\n\
             MEcCAQAwBQYDK2VxBDsEOV1DYV+2hNFDdCe5KJXtIRC4Xd4Bkc2ZpohYjCgG+cHx\n\
             CWG7dAAPjbyvG/o1P1RixSSSUvwo77sVYQ==\n\
             -----END PRIVATE KEY-----",
        ),
        (
            "RSA of 1024 bits",
            "-----BEGIN CERTIFICATE-----\n\
             MIIB+DCCAWGgAwIBAgIUde5FEPNRHDX1Sa3suknhL8A3Q00wDQYJKoZIhvcNAQEL\n\
             BQAwDTELMAkGA1UEAwwCZGIwIBcNMjYxMTI1MTA0OTU1WhgPMjEyNjExMDExMDQ5\n\
             NTVaMA0xCzAJBgNVBAMMAmRiMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDS\n\
             PMfVC4VaVsiQsTtiRPuXCV18X6gHf+h1gAmXr7L3b//3YL+AujYtgQ6i6ZGY+flA\n\
             ksqwh7O1AVY+rxvTxk/PBwtu5/Ki8Po7myS6hF3SmKYz3kbUDb0fdrcI+t1PpxbY\n\
             z+pIKr9wkGO7gC3GpxN9eNQu5sIpEWIQFwHJHtCU5QIDAQABo1MwUTAdBgNVHQ4E\n\
             FgQUSXsW1j3C+FQY6IpygLsSoEkasbswHwYDVR0jBBgwFoAUSXsW1j3C+FQY6Ipy\n\
             gLsSoEkasbswDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOBgQCNN3dz\n\
             r3x/BnBdJ3yeW+ZSDSZ3iKJpUhPLZJNvrFTV8/alc4ucmqTJB9ryIGPPQ6lCHbfN\n\
             SngTCOGctArDp//1LuXQl3lZoTdu4hNp6zcqIlnjfhOW9gV+VCrVtOtodsi/nBc/\n\
             mUaBx0d2tUom3RqvXKBPElJvss+IO3w/DqW58A==\n\
             -----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----\n\
             MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBANI8x9ULhVpWyJCx\n\
             O2JE+5cJXXxfqAd/6HWACZevsvdv//dgv4C6Ni2BDqLpkZj5+UCSyrCHs7UBVj6v\n\
             G9PGT88HC27n8qLw+jubJLqEXdKYpjPeRtQNvR92twj63U+nFtjP6kgqv3CQY7uA\n\
             LcanE3141C7mwikRYhAXAcke0JTlAgMBAAECgYA/q7i5hOu2GGJVr9dUQ6AOdf+i\n\
             EzZITyyPqV8+WS/SUFEtElftHHgb/+H25NX7hnk+XTaVkAOU5frAsTe0Q3MXq3ya\n\
             R7XkA7yLj2Kp3a81Q9r/As0/rN7epe6nizbDynE11ca9BLVEzeXGj5YIO4+IAAo6\n\
             LnnH1mrlgXnIiT/jAQJBAOkzV3Km6N4wxYPQrmImcEXchsjaGEo8rpdmwEnq6xMP\n\
             MDY53pttD+2DV83RSbOxztjOqpOYL4gXkR/7a9+fH10CQQDmyrTclLu0DoAnCQQv\n\
             GbtvXc/IMCHjgfF7KBMdT+P+wtTGuLv1pqjTB7+Qj5ENE9XXMkUqxJECFZ1zeWOA\n\
             gNspAkAM0vn4IB2mOmBiQ1OTqjF6ZgozeWrkijm/sbLZXcXXonowQTZwraq2kQZ/\n\
             FwdKjnili5ftzeyvOzyL2bOw9HsxAkEAoNfg2GHntwLsGUhVXCYI1QKCTrgMxivH\n\
             iddSCvmkoeZSt/QDOp5dxkT+IteLdZu/SmzEe5vmm5dI1jNhPyuOkQJBAIkNZYpB\n\
             v8LmDgPnIoxUBUbgXVsvl/L2z/S6Ub/4z1HMIuL5a9O4PgvJOrKNVf3SheCmhh5U\n\
             s+RbK8oCAnvqC2Y=\n\
             -----END PRIVATE KEY-----",
        ),
        (
            "PKCS#8 without the public key",
            "-----BEGIN CERTIFICATE-----\n\
             MIIBcTCCARegAwIBAgIUfmxvNozzUPCN9q8a+zSY/IwAA4wwCgYIKoZIzj0EAwIw\n\
             DTELMAkGA1UEAwwCZGIwIBcNMjYxMTI1MTA0OTU1WhgPMjEyNjExMDExMDQ5NTVa\n\
             MA0xCzAJBgNVBAMMAmRiMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEyvyIyPga\n\
             ReKwTj+3Hp+wXXqLzbxdLY6m+y/ab11by0ckRMJg5I6HUe2tppfnLlM9QAGGrJd1\n\
             Sk22ywhjuDYIO6NTMFEwHQYDVR0OBBYEFOfSvfXj5/DGfqJV9Ti0WA8nlhQtMB8G\n\
             A1UdIwQYMBaAFOfSvfXj5/DGfqJV9Ti0WA8nlhQtMA8GA1UdEwEB/wQFMAMBAf8w\n\
             CgYIKoZIzj0EAwIDSAAwRQIhAJr2sa3txkVy28k089lX1kb/yLGg4gaPocjU5X0p\n\
             cwV3AiBr+/WZyCUl66mNyW2kQpV7AJoKrZdzh/Ie6bvdwO89XA==\n\
             -----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----\n\
             MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCCCMgaRvDXi8gwqVhvb\n\
             ZHL3a6VghzjO44zXVedZhDgoLQ==\n\
             -----END PRIVATE KEY-----",
        ),
    ];
    const COMPRESSED: &str = "-----BEGIN CERTIFICATE-----\n\
             MIIBUDCB96ADAgECAhRdKJkD8pvUW7CpNHloZdM999qJljAKBggqhkjOPQQDAjAN\n\
             MQswCQYDVQQDDAJkYjAgFw0yNjExMjUxMDQ5NTVaGA8yMTI2MTEwMTEwNDk1NVow\n\
             DTELMAkGA1UEAwwCZGIwOTATBgcqhkjOPQIBBggqhkjOPQMBBwMiAAPK/IjI+BpF\n\
             4rBOP7cen7BdeovNvF0tjqb7L9pvXVvLR6NTMFEwHQYDVR0OBBYEFAK+HNgymT+t\n\
             DC8sBaloUHHEgZIGMB8GA1UdIwQYMBaAFAK+HNgymT+tDC8sBaloUHHEgZIGMA8G\n\
             A1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAN7zHXokquXPiIDyXeyf\n\
             8RF/NSBo2+BDHms2NERqBTt5AiAHSSVZD2euSJftFJnmfnyZx0hGFpUdvsRGegqw\n\
             jbhP/A==\n\
             -----END CERTIFICATE-----";
    const ITS_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
             MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggjIGkbw14vIMKlYb\n\
             22Ry92ulYIc4zuOM11XnWYQ4KC2hRANCAATK/IjI+BpF4rBOP7cen7BdeovNvF0t\n\
             jqb7L9pvXVvLRyREwmDkjodR7a2ml+cuUz1AAYasl3VKTbbLCGO4Ngg7\n\
             -----END PRIVATE KEY-----";

    #[test]
    fn a_pair_that_cannot_be_checked_is_let_through() {
        for (what, certificate, key) in UNCHECKED {
            assert_eq!(said("kubernetes.io/tls", &[("tls.crt", certificate), ("tls.key", key)]), "", "{what}");
        }
        // A point without its second half is another way to write the same key.
        assert_eq!(said("kubernetes.io/tls", &[("tls.crt", COMPRESSED), ("tls.key", ITS_KEY)]), "");
        let (certificate, key) = issued(&rcgen::PKCS_ECDSA_P256_SHA256);
        for (certificate, key) in [(COMPRESSED, &*key), (&*certificate, ITS_KEY)] {
            let told = said("kubernetes.io/tls", &[("tls.crt", certificate), ("tls.key", key)]);
            assert!(told.contains("is not that of the key"), "{told}");
        }
    }

    #[test]
    fn what_is_no_der_is_refused() {
        let (certificate, key) = issued(&rcgen::PKCS_ED25519);
        let garbage = |label: &str| format!("-----BEGIN {label}-----\nY2FuYXJ5\n-----END {label}-----\n");
        let told = said("kubernetes.io/tls", &[("tls.crt", &garbage("CERTIFICATE")), ("tls.key", &key)]);
        assert!(told.contains("the PEM of tls.crt is no certificate") && !told.contains("canary"), "{told}");
        let told = said("kubernetes.io/tls", &[("tls.crt", &certificate), ("tls.key", &garbage("PRIVATE KEY"))]);
        assert!(told.contains("the PEM of tls.key is no private key"), "{told}");
        for (der, is) in [
            (&[0x30, 0x00][..], true),
            (&[0x30, 0x01], false),
            (&[0x30, 0x81, 0x02, 5, 0], true),
            (&[0x30, 0x82, 0x00, 0x02, 5, 0], true),
            (&[0x30, 0x83, 0x00, 0x00, 0x02, 5, 0], true),
            (&[0x30, 0x80, 0, 0], false),
            (&[0x30], false),
            (&[], false),
            (&[0x31, 0x00], false),
        ] {
            assert_eq!(is_sequence(der), is, "{der:?}");
        }
    }

    #[test]
    fn as_many_keys_as_annotations_can_record() {
        let made = |count: usize, annotation: usize| {
            let pairs: Vec<String> = (0..count).map(|n| format!(r#""key{n:0>7}":"v""#)).collect();
            let spec = serde_json::json!({"source": {"secret": "s"}, "target": {"annotations": {"a": "v".repeat(annotation)}}});
            let mut binding = crate::crd::EnnoteSecretBinding::new("db", serde_json::from_value(spec).unwrap());
            binding.metadata.namespace = Some("ns".into());
            binding.metadata.uid = Some("u".into());
            binding.metadata.generation = Some(1);
            let request = Request::parse(&binding, &Default::default()).unwrap();
            data(format!("{{{}}}", pairs.join(",")).as_bytes(), &request, &StampKey::new(&[0; 32]))
        };
        assert_eq!(made(9000, 0).err(), Some(MappingError::TooManyKeys(9000)));
        assert_eq!(made(7229, 0).err(), Some(MappingError::TooManyKeys(7229)));
        assert_eq!(made(7200, 1000).err(), Some(MappingError::TooManyKeys(7200)));
        let data = made(7200, 900).unwrap();
        let recorded = Fingerprints::of(&StampKey::new(&[0; 32]), &data).to_annotation();
        assert_eq!(recorded.len() + 1, data.len() * (10 + RECORD), "the last has no comma");
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
