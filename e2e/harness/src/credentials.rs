//! What a fresh control plane is given: tokens, the ServiceAccount key, the audit policy, kubeconfigs.

use crate::node;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files that the components read.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) tokens: PathBuf,
    pub(crate) signing_key: SigningKey,
    pub(crate) audit_policy: PathBuf,
    /// What the API server makes at its first start.
    pub(crate) certificates: PathBuf,
    pub(crate) admin: PathBuf,
    pub(crate) controller_manager: PathBuf,
    pub(crate) scheduler: PathBuf,
    pub(crate) kwok: PathBuf,
    /// Of the real node, where one is started.
    pub(crate) node: PathBuf,
}

/// A key pair that ServiceAccount tokens are signed with.
#[derive(Debug, Clone)]
pub(crate) struct SigningKey {
    pub(crate) private: PathBuf,
    pub(crate) public: PathBuf,
}

impl SigningKey {
    pub(crate) fn write(dir: &Path, name: &str) -> Result<Self> {
        let files = Self { private: dir.join(format!("{name}.key")), public: dir.join(format!("{name}.pub")) };
        let key = rcgen::KeyPair::generate().context("cannot make the ServiceAccount key")?;
        write_private(&files.private, key.serialize_pem())?;
        write_private(&files.public, key.public_key_pem())?;
        Ok(files)
    }
}

impl Credentials {
    pub(crate) fn write(dir: &Path, server: &str) -> Result<Self> {
        let files = Self {
            tokens: dir.join("tokens.csv"),
            signing_key: SigningKey::write(dir, "service-account")?,
            audit_policy: dir.join("audit-policy.yaml"),
            certificates: dir.join("certificates"),
            admin: dir.join("kubeconfig"),
            controller_manager: dir.join("kube-controller-manager.kubeconfig"),
            scheduler: dir.join("kube-scheduler.kubeconfig"),
            kwok: dir.join("kwok.kubeconfig"),
            node: dir.join("node.kubeconfig"),
        };
        let node = format!("system:node:{}", node::NAME);
        // As its pods reach it.
        let from_node = format!("https://{}", node::API_SERVER);
        let users = [
            (&files.admin, "admin", "system:masters", server),
            (&files.controller_manager, "system:kube-controller-manager", "", server),
            (&files.scheduler, "system:kube-scheduler", "", server),
            // KWOK plays every kubelet.
            (&files.kwok, "kwok", "system:masters", server),
            (&files.node, &node, "system:nodes", &from_node),
        ];
        let mut tokens = String::new();
        for (kubeconfig, user, group, server) in users {
            let token = random_token()?;
            tokens.push_str(&format!("{token},{user},{user},\"{group}\"\n"));
            let ca = files.certificates.join("apiserver.crt");
            write_private(kubeconfig, kubeconfig_text(server, &ca, &format!("token: {token}"), "default"))?;
        }
        write_private(&files.tokens, &tokens)?;
        write_private(&files.audit_policy, AUDIT_POLICY)?;
        Ok(files)
    }
}

/// A kubeconfig with one cluster, one user and one context; `login` is the user's YAML in one line.
pub(crate) fn kubeconfig_text(server: &str, ca: &Path, login: &str, namespace: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: ennote
contexts: [{{name: ennote, context: {{cluster: ennote, user: ennote, namespace: {namespace}}}}}]
clusters: [{{name: ennote, cluster: {{server: \"{server}\", certificate-authority: \"{}\"}}}}]
users: [{{name: ennote, user: {{{login}}}}}]
",
        ca.display()
    )
}

/// Writes a file that only this user can read, in one step: a reader sees the old or the new text.
pub(crate) fn write_private(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let draft = path.with_extension("draft");
    let write = || {
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        std::io::Write::write_all(&mut file, text.as_ref())?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// Everything at Metadata level, but for the control plane's own bustle.
const AUDIT_POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "kwok"]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"]
- level: Metadata
"#;
