//! Every setting: flag, environment name, default, parsed type. The only reader of the environment.
//!
//! The six names of the released chart (`ENNOTE_API_URL`, `ENNOTE_AUTH_TOKEN`, `ENNOTE_K8S_TARGET_NAMESPACE`,
//! `ENNOTE_K8S_SECRET_PREFIX`, `ENNOTE_K8S_INSTANCE_NAME`, `ENNOTE_K8S_CLEANUP_ORPHANS`) keep working.

use crate::faults::Faults;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use zeroize::Zeroizing;

/// `1.2.3 (0123456789ab)`.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ENNOTE_BUILD_COMMIT"), ")");

/// When the commit that this program was built from was made, Unix milliseconds as text; 0 if that is not known. A moment that
/// has passed, wherever the program runs.
pub const BUILT_MS: &str = env!("ENNOTE_BUILT_MS");

/// Keeps Kubernetes Secrets in step with Ennote.
#[derive(Parser, Debug)]
#[command(name = "ennote-agent", version = BUILD, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands of the binary.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent until SIGTERM.
    Run(Box<RunSettings>),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Print the Secret that a binding and a payload give, offline, by the code that the agent writes it with.
    ///
    /// Values are hidden unless --show-values is given, and a hidden one cannot be applied. Exit code 0: printed; 1: a binding or the
    /// payload does not fit, with the sentence that the condition Ready would have on standard error, and nothing printed; 2: wrong
    /// usage, or a file that cannot be read. The rules of the schema are the API server's: `kubectl apply --dry-run=server -f FILE`.
    Render(RenderSettings),
    /// Look at all that the agent needs, and say what mends it: rights, CRD, identity, clocks, cloud, proxy.
    ///
    /// A line each: `ok`, `FAIL` with whose turn it is and the command that mends it, or `--` for what cannot be looked at. In the pod:
    /// `kubectl exec deploy/ennote-agent -- /ennote-agent doctor`. Writes nothing, joins nothing, uses up no token, shows no secret.
    /// Exit code 0: nothing fails; 1: something does; 2: a setting that is not one.
    Doctor(Box<DoctorSettings>),
    /// Exit 0 if the running agent makes progress (for exec probes; opens no port).
    Healthcheck(HealthcheckSettings),
}

/// Settings of `doctor`: those of `run`, so that in the pod none need to be given.
#[derive(Args, Debug)]
pub struct DoctorSettings {
    /// Those that are looked at.
    #[command(flatten)]
    pub run: RunSettings,
    /// Ask the API server as this user, whom the kubeconfig's may impersonate: system:serviceaccount:NAMESPACE:NAME.
    #[arg(long = "as", value_name = "USER")]
    pub impersonate: Option<String>,
    /// Form of what is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Form,
}

/// How findings are printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line each.
    Text,
    /// One JSON object a line.
    Json,
}

/// Names of the environment variables that name a proxy. Their values may hold credentials, and are not given.
pub fn proxies() -> Vec<String> {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    names.iter().filter(set).map(|name| (*name).to_owned()).collect()
}

/// Settings of `healthcheck`.
#[derive(Args, Debug)]
pub struct HealthcheckSettings {
    /// Where the running agent writes its heartbeat.
    #[arg(long, env = "ENNOTE_HEARTBEAT_FILE", default_value = "/run/ennote/heartbeat")]
    pub heartbeat_file: PathBuf,
    /// Ask for readiness (watches listed, all that Ennote had taken in, session alive) instead of liveness.
    #[arg(long)]
    pub ready: bool,
    /// Seconds without progress of a loop that are a stall: above every deadline of a single call.
    #[arg(long, env = "ENNOTE_STALLED", default_value_t = 120, hide = true)]
    pub stalled: u64,
}

/// Settings of `render`.
#[derive(Args, Debug)]
pub struct RenderSettings {
    /// YAML or JSON with bindings, `-` for standard input. Every EnnoteSecretBinding in it is rendered, other kinds are passed over.
    #[arg(long, short, value_name = "FILE")]
    pub file: PathBuf,
    /// The payload as Ennote holds it, `{"keysValues": {"user": "app"}}`; `-` for standard input. Never given as an argument: every
    /// user of a machine can list those.
    #[arg(long, value_name = "FILE")]
    pub payload: PathBuf,
    /// The agent's setting: put before the name of a Secret whose binding gives no target name.
    #[arg(long, default_value = "")]
    pub secret_prefix: String,
    /// Print the values, base64 as in any Secret.
    #[arg(long)]
    pub show_values: bool,
    /// Form of what is printed.
    #[arg(long, short, value_enum, default_value = "yaml")]
    pub output: OutputFormat,
}

/// How objects are printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// Documents with comments that say what is left out.
    Yaml,
    /// One JSON object a line.
    Json,
}

/// Settings of `run`.
#[derive(Args, Debug)]
pub struct RunSettings {
    /// Address of Ennote Cloud: `HOST:PORT`, `https://HOST[:PORT]` or `dns:///HOST:PORT`. TLS 1.3 only.
    #[arg(long, env = "ENNOTE_API_URL", default_value = "api.ennote.io:443")]
    pub api_url: Address,

    /// Bootstrap token. Prefer --auth-token-file: an environment variable cannot change in a living pod.
    #[arg(long, env = "ENNOTE_AUTH_TOKEN", hide_env_values = true)]
    pub auth_token: Option<TokenText>,

    /// File with the bootstrap token; read again before every attempt to join.
    #[arg(long, env = "ENNOTE_AUTH_TOKEN_FILE")]
    pub auth_token_file: Option<PathBuf>,

    /// File with the pod's projected ServiceAccount token for the cloud's audience.
    #[arg(long, env = "ENNOTE_SA_TOKEN_FILE")]
    pub sa_token_file: Option<PathBuf>,

    /// Audience that this token has to be for, which doctor compares. Default: https://HOST/agent-join with the cloud's host.
    #[arg(long, env = "ENNOTE_AUDIENCE")]
    pub audience: Option<String>,

    /// SHA-256 of the cloud's root keys (base64url), at most two. Default: the hash that ends the bootstrap token.
    #[arg(long, env = "ENNOTE_TRUST_ROOTS", value_delimiter = ',')]
    pub trust_roots: Vec<RootHash>,

    /// No keyset of the cloud below this version is taken, even by an agent that has just started. Raise it after a key of the
    /// cloud was compromised.
    #[arg(long, env = "ENNOTE_TRUST_MIN_KEYSET", default_value_t = 0)]
    pub trust_min_keyset: u64,

    /// PEM file with further CA certificates for the connection to the cloud.
    #[arg(long, env = "ENNOTE_TLS_CA_FILE")]
    pub tls_ca_file: Option<PathBuf>,

    /// Speak plaintext HTTP/2 to the cloud. Refused unless its address is a loopback address.
    #[arg(long, env = "ENNOTE_ALLOW_PLAINTEXT")]
    pub allow_plaintext: bool,

    /// The agent's own namespace.
    #[arg(long, env = "ENNOTE_K8S_TARGET_NAMESPACE", default_value = "default")]
    pub target_namespace: String,

    /// Namespaces to watch. Default: the agent's own.
    #[arg(long, env = "ENNOTE_K8S_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Put before the name of a Secret whose binding gives no target name.
    #[arg(long, env = "ENNOTE_K8S_SECRET_PREFIX", default_value = "")]
    pub secret_prefix: String,

    /// Name of this installation, as shown in the cloud and in Events.
    #[arg(long, env = "ENNOTE_K8S_INSTANCE_NAME", default_value = "ennote-agent")]
    pub instance_name: String,

    /// Delete a Secret when its secret was deleted in the cloud (signed, and under the mass-delete fuse).
    #[arg(long, env = "ENNOTE_K8S_CLEANUP_ORPHANS", default_value = "false", action = clap::ArgAction::Set)]
    pub cleanup_orphans: bool,

    /// How the agent may see Secrets, as its Role grants it.
    #[command(flatten)]
    pub access: AccessSettings,

    /// What may restart beside the workloads that opted in by ennote.io/restart.
    #[command(flatten)]
    pub rollouts: RolloutSettings,

    /// Where to write the heartbeat that `healthcheck` reads. Absent: none is written.
    #[arg(long, env = "ENNOTE_HEARTBEAT_FILE")]
    pub heartbeat_file: Option<PathBuf>,

    /// Seconds that a newer agent of the same identity gets before this one asks whether it still lives.
    #[arg(long, env = "ENNOTE_STAND_BY", default_value_t = 60, hide = true)]
    pub stand_by: u64,

    /// Seconds that another agent over the same binding gets to answer whether it lives.
    #[arg(long, env = "ENNOTE_CLAIM_PATIENCE", default_value_t = 30, hide = true)]
    pub claim_patience: u64,

    /// Log filter, as in `info` or `ennote_agent=debug,info`.
    #[arg(long, env = "ENNOTE_LOG", default_value = "info")]
    pub log: String,

    /// Log format. auto: text on a terminal, JSON elsewhere.
    #[arg(long, env = "ENNOTE_LOG_FORMAT", value_enum, default_value = "auto")]
    pub log_format: LogFormat,

    /// What a scenario makes go wrong inside the process. A release build knows no such setting.
    #[cfg(debug_assertions)]
    #[arg(long, env = "ENNOTE_FAULTS", default_value = "", hide = true)]
    pub faults: Faults,
}

impl RunSettings {
    /// The audience that the cloud asks for.
    pub fn expected_audience(&self) -> String {
        let host = &self.api_url.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        self.audience.clone().unwrap_or_else(|| format!("https://{host}/agent-join"))
    }

    /// What a scenario makes go wrong; nothing, in a release build.
    pub fn faults(&self) -> Faults {
        #[cfg(debug_assertions)]
        return self.faults.clone();
        #[cfg(not(debug_assertions))]
        Faults::default()
    }

    /// The watched namespaces: the given ones without blanks and repeats, else the agent's own.
    pub fn namespaces(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.watch_namespaces.iter().map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        names.sort();
        names.dedup();
        if names.is_empty() { vec![self.target_namespace.clone()] } else { names }
    }
}

/// The agent's rights on Secrets.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct AccessSettings {
    /// strict: Secrets can be created and patched, not read. compatible: they can be read, too.
    #[arg(long, env = "ENNOTE_RBAC_MODE", value_enum, default_value = "compatible")]
    pub rbac_mode: RbacMode,

    /// What the names of the admission policies begin with that hold this agent. Nothing is written in strict mode before the
    /// API server has shown that they are in force.
    #[arg(long, env = "ENNOTE_ADMISSION_POLICY", required_if_eq("rbac_mode", "strict"))]
    pub admission_policy: Option<String>,

    /// The only Secrets that may be written. Default: any. They are created by server-side apply then.
    #[arg(long, env = "ENNOTE_SECRET_NAMES", value_delimiter = ',')]
    pub secret_names: Vec<String>,

    /// Seconds between two looks at a Secret that cannot be watched, a fifth more or less.
    #[arg(long, env = "ENNOTE_LOOK_EVERY", default_value_t = 300, hide = true)]
    pub look_every: u64,

    /// Seconds that a proof of an admission policy counts.
    #[arg(long, env = "ENNOTE_PROOF_LASTS", default_value_t = 60, hide = true)]
    pub proof_lasts: u64,
}

impl AccessSettings {
    /// Whether Secrets can be watched: that takes the right to list all of a namespace.
    pub fn watches(&self) -> bool {
        self.rbac_mode == RbacMode::Compatible && self.secret_names.is_empty()
    }

    /// The admission policies, where something depends on them.
    pub fn policies(&self) -> Option<&str> {
        self.admission_policy.as_deref().filter(|_| self.rbac_mode == RbacMode::Strict)
    }
}

/// What the Role grants on Secrets.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacMode {
    /// create, patch.
    Strict,
    /// get, list, watch, create, patch.
    Compatible,
}

/// What may restart beside the Deployments, StatefulSets and DaemonSets that opted in. Nothing, unless it is set.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RolloutSettings {
    /// Let a binding with `rollout.workloads: Consumers` restart all that reads its Secret.
    #[arg(id = "rollouts_consumers", long = "rollouts-consumers", env = "ENNOTE_ROLLOUTS_CONSUMERS", default_value = "false", action = clap::ArgAction::Set)]
    pub consumers: bool,

    /// Take Reloader's annotations on workloads as an opt-in.
    #[arg(id = "rollouts_reloader", long = "rollouts-reloader", env = "ENNOTE_ROLLOUTS_RELOADER", default_value = "false", action = clap::ArgAction::Set)]
    pub reloader: bool,

    /// Watch and restart Rollouts of Argo Rollouts (argoproj.io), where their CRD is installed.
    #[arg(id = "rollouts_argo", long = "rollouts-argo", env = "ENNOTE_ROLLOUTS_ARGO", default_value = "false", action = clap::ArgAction::Set)]
    pub argo: bool,
}

/// How log lines look.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// A bootstrap token's text. Its Debug form says nothing.
#[derive(Clone)]
pub struct TokenText(Zeroizing<String>);

impl TokenText {
    /// The text, for the one place that seals it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenText {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Zeroizing::new(text.trim().to_owned())))
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// SHA-256 of a root public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootHash(pub [u8; 32]);

impl FromStr for RootHash {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.trim().as_bytes()).map_err(|e| {
            format!("a trust root is the SHA-256 of the cloud's root key in base64url (43 characters): {e}")
        })?;
        let hash = bytes.try_into().map_err(|_| "a trust root is 32 bytes, 43 characters of base64url".to_owned())?;
        Ok(Self(hash))
    }
}

/// Host and port of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or literal address, lower case, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Address {
    /// Whether the host is a literal loopback address or `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not an address: use HOST:PORT, for example api.ennote.io:443");
        if text.starts_with("http://") {
            return Err(
                "http:// is not spoken: use HOST:PORT (and --allow-plaintext for a loopback address)".to_owned()
            );
        }
        let (rest, default_port) = match text.strip_prefix("https://") {
            Some(rest) => (rest.trim_end_matches('/'), Some(443)),
            None => (text.strip_prefix("dns:///").unwrap_or(text), None),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, tail) = v6.split_once(']').ok_or_else(wrong)?;
                (host, tail.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?,
            None => default_port.ok_or_else(wrong)?,
        };
        let v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) || (host.contains(':') && !v6) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_the_forms_that_users_have() {
        for (text, want) in [
            ("api.ennote.io:443", Some("api.ennote.io:443")),
            ("https://API.ennote.io", Some("api.ennote.io:443")),
            ("https://api.ennote.io:8443/", Some("api.ennote.io:8443")),
            ("dns:///localhost:443", Some("localhost:443")),
            ("[::1]:9000", Some("[::1]:9000")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("api.ennote.io", None),
            ("http://api.ennote.io:80", None),
            ("", None),
            (":443", None),
            ("a:b:1", None),
            ("host:0", None),
            ("host:99999", None),
            ("https://user@host", None),
        ] {
            assert_eq!(text.parse::<Address>().ok().map(|a| a.authority()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn nothing_restarts_beyond_opt_in_unless_it_is_set() {
        let parse = |args: &[&str]| match Cli::parse_from([&["ennote-agent", "run"], args].concat()).command {
            Command::Run(run) => run.rollouts,
            _ => RolloutSettings { consumers: true, reloader: true, argo: true },
        };
        assert_eq!(parse(&[]), RolloutSettings::default());
        let one = RolloutSettings { reloader: true, ..RolloutSettings::default() };
        assert_eq!(parse(&["--rollouts-reloader", "true", "--rollouts-argo", "false"]), one);
        let others = RolloutSettings { consumers: true, argo: true, reloader: false };
        assert_eq!(parse(&["--rollouts-consumers", "true", "--rollouts-argo", "true"]), others);
    }

    #[test]
    fn settings_print_without_the_token() {
        let cli = Cli::parse_from(["ennote-agent", "run", "--auth-token", "ennt1.canary"]);
        assert!(!format!("{cli:?}").contains("canary"));
    }

    #[test]
    fn watched_namespaces_default_to_the_agents_own() {
        let parse = |args: &[&str]| match Cli::parse_from([&["ennote-agent", "run"], args].concat()).command {
            Command::Run(run) => run.namespaces(),
            _ => vec![],
        };
        assert_eq!(parse(&["--target-namespace", "shop"]), ["shop"]);
        assert_eq!(parse(&["--watch-namespaces", "b, a,b,"]), ["a", "b"]);
    }
}
