//! The rules for what a verified token says.

use super::Fault;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// exp - iat at most, in seconds.
const MAX_LIFE: i64 = 30 * 60;
/// By how much `iat` and `nbf` may lie ahead of our clock, in seconds.
const LEEWAY: i64 = 30;
/// How long after `exp` a token is still taken, in seconds.
const GRACE: i64 = 10;

/// What a token is held against.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Each of these is this cloud: `https://HOST/agent-join`.
    pub audiences: &'a [String],
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// A token that holds: this pod runs as this ServiceAccount, says the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// `iss`.
    pub issuer: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// The ServiceAccount's namespace.
    pub namespace: String,
    /// The ServiceAccount's name.
    pub service_account: String,
    /// The ServiceAccount's UID.
    pub uid: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// Which token this is: SHA-256 of its `jti`, however long, or of the token where the issuer gives none; hexadecimal.
    pub id: String,
    /// Unix milliseconds.
    pub expires_at_ms: i64,
}

/// Claims as they stand in the token.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<i64>,
    iat: Option<i64>,
    nbf: Option<i64>,
    jti: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// KEP-1205: what a bound token says about its objects.
#[derive(Deserialize)]
struct Kubernetes {
    namespace: Option<String>,
    serviceaccount: Option<Object>,
    pod: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    name: Option<String>,
    uid: Option<String>,
}

impl Claims {
    /// `sub` and the ServiceAccount's UID, by which an enrolment is looked for.
    pub(super) fn owner(&self) -> Result<(&str, &str), Fault> {
        let subject = self.sub.as_deref().ok_or(Fault::Subject)?;
        let account = self.kubernetes.as_ref().and_then(|k| k.serviceaccount.as_ref());
        let uid = account.and_then(|account| account.uid.as_deref()).filter(|uid| !uid.is_empty());
        Ok((subject, uid.ok_or(Fault::Uid)?))
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.iss.as_deref()
    }

    /// All rules but the signature's. `otherwise` names the token where it has no `jti`.
    pub(super) fn judged(self, rules: Rules<'_>, otherwise: String) -> Result<Attested, Fault> {
        let audience = match self.aud.as_ref().ok_or(Fault::Audience)? {
            Audience::One(one) => one,
            Audience::Many(many) => match many.as_slice() {
                [one] => one,
                _ => return Err(Fault::Audience),
            },
        };
        if !rules.audiences.contains(audience) {
            return Err(Fault::Audience);
        }
        let (exp, iat) = self.exp.zip(self.iat).ok_or(Fault::Malformed)?;
        let life = exp.checked_sub(iat).filter(|life| *life > 0).ok_or(Fault::Malformed)?;
        if life > MAX_LIFE {
            return Err(Fault::Life);
        }
        let now = rules.now_ms.div_euclid(1000);
        let begins = self.nbf.unwrap_or(iat).max(iat);
        if now > exp.saturating_add(GRACE) || begins > now.saturating_add(LEEWAY) {
            return Err(Fault::Expired);
        }
        let (subject, uid) = self.owner().map(|(subject, uid)| (subject.to_owned(), uid.to_owned()))?;
        let issuer = self.iss.filter(|issuer| !issuer.is_empty()).ok_or(Fault::Malformed)?;
        let Kubernetes { namespace, serviceaccount, pod } = self.kubernetes.ok_or(Fault::Uid)?;
        let named = namespace.zip(serviceaccount.and_then(|account| account.name)).ok_or(Fault::Subject)?;
        if subject != format!("system:serviceaccount:{}:{}", named.0, named.1) {
            return Err(Fault::Subject);
        }
        let pod_uid = pod.and_then(|pod| pod.uid).filter(|uid| !uid.is_empty()).ok_or(Fault::Unbound)?;
        Ok(Attested {
            issuer,
            subject,
            namespace: named.0,
            service_account: named.1,
            uid,
            pod_uid,
            id: match self.jti.filter(|jti| !jti.is_empty()) {
                Some(jti) => HEXLOWER.encode(&Sha256::digest(jti)),
                None => otherwise,
            },
            expires_at_ms: exp.saturating_mul(1000),
        })
    }
}
