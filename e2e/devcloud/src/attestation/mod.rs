//! What a Kubernetes ServiceAccount token proves, judged offline by the keys of its cluster (PROTOCOL.md, "sa_token"). Pure.
//!
//! A key is found by its `kid` and trusted by its JWK thumbprint (RFC 7638): issuers' names are not unique, and a key id is
//! whatever the issuer says.

mod claims;
mod jwks;
mod token;

pub use claims::{Attested, Rules};
pub use jwks::{BadJwks, Curve, Edwards, Jwk, PublicKey, parse as parse_jwks};
pub use token::Unverified;

/// Why a token proves nothing. Its [`detail`](Fault::detail) goes to the agent, which chooses its sentence by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is none.
    NoCredential,
    /// No agent is enrolled under its issuer.
    IssuerUnknown,
    /// Signed by a key that is not enrolled, or not yet for this purpose.
    KeyUnknown,
    /// Of another ServiceAccount.
    Subject,
    /// Of a ServiceAccount that was made anew since.
    Uid,
    /// Not made for exactly this cloud.
    Audience,
    /// Too late, or too early.
    Expired,
    /// Lives longer than 30 min.
    Life,
    /// Not bound to a pod.
    Unbound,
    /// Shown before by another agent key.
    Replayed,
    /// Key, subject and UID belong to another agent.
    AlreadyEnrolled,
    /// Not a token.
    Malformed,
    /// The signature does not verify, or is of a kind that is never accepted.
    Signature,
}

impl Fault {
    /// ErrorInfo.metadata["detail"].
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoCredential => "NO_CREDENTIAL",
            Self::IssuerUnknown => "ISSUER_UNKNOWN",
            Self::KeyUnknown => "KEY_UNKNOWN",
            Self::Subject => "SUBJECT",
            Self::Uid => "UID",
            Self::Audience => "AUDIENCE",
            Self::Expired => "EXPIRED",
            Self::Life => "LIFE",
            Self::Unbound => "UNBOUND",
            Self::Replayed => "REPLAYED",
            Self::AlreadyEnrolled => "ALREADY_ENROLLED",
            Self::Malformed => "MALFORMED",
            Self::Signature => "SIGNATURE",
        }
    }

    /// What is wrong, and what mends it, for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoCredential => {
                "no credential names an agent of this cloud; an administrator runs: ennote-devcloud token create --agent NAME --namespace NAMESPACE"
            }
            Self::IssuerUnknown => {
                "no agent is enrolled under the issuer of this ServiceAccount token; an administrator runs: ennote-devcloud token create --agent NAME --namespace NAMESPACE"
            }
            Self::KeyUnknown => {
                "the ServiceAccount token is signed by a key that is not enrolled for this; an administrator runs: kubectl get --raw /openid/v1/jwks | ennote-devcloud agent jwks NAME --file -"
            }
            Self::Subject => {
                "the ServiceAccount token is of another ServiceAccount than the enrolled one; an administrator runs: ennote-devcloud token create"
            }
            Self::Uid => {
                "the ServiceAccount was made anew since it was enrolled; an administrator runs: ennote-devcloud token create"
            }
            Self::Audience => {
                "the ServiceAccount token is not made for exactly this cloud: its audience has to be https://HOST/agent-join"
            }
            Self::Expired => "the ServiceAccount token is not valid at this time; the kubelet renews the file",
            Self::Life => {
                "the ServiceAccount token lives longer than 30 min; set expirationSeconds of the volume to 600"
            }
            Self::Unbound => "the ServiceAccount token is not bound to a pod; mount it as a projected volume",
            Self::Replayed => "another agent key has shown this ServiceAccount token; the kubelet renews the file",
            Self::AlreadyEnrolled => {
                "this ServiceAccount is enrolled as another agent; an administrator runs: ennote-devcloud agent revoke NAME"
            }
            Self::Malformed => "the ServiceAccount token cannot be read",
            Self::Signature => "the signature of the ServiceAccount token does not verify",
        }
    }
}
