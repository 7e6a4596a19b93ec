//! Every flag, with its help.

use crate::fault::Fault;
use crate::settings::{Attesting, Lifetimes};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ennote-devcloud init                                    make a cloud in ./devcloud-data
  ennote-devcloud serve --listen 127.0.0.1:8443           run it (another terminal for the rest)
  ennote-devcloud token create --agent shop --namespace shop
  ennote-devcloud secret put 'payments db' --from-env-file payments.env
  ennote-devcloud agent list";

/// An Ennote-compatible cloud in one process, for trying things out, for tests, and for networks without a way out.
#[derive(Parser, Debug)]
#[command(name = "ennote-devcloud", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Data directory. Holds the database, and the key that opens it: keep it private
    #[arg(long, global = true, env = "ENNOTE_DEVCLOUD_DATA", default_value = "devcloud-data", value_name = "DIR")]
    pub data: PathBuf,
    /// How to print
    #[arg(long, short, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a data directory: keys, certificate authority, database
    Init(Init),
    /// Run the cloud until SIGTERM or Ctrl-C
    Serve(Box<Serve>),
    /// Bootstrap tokens, with which agents join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Secrets and their versions
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Agents and what they may have
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Personal access tokens, with which the published ennote CLI comes in
    #[command(subcommand)]
    Pat(PatCommand),
    /// Workspaces, which hold secrets
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// The keys by which agents know this cloud
    #[command(subcommand)]
    Keyset(KeysetCommand),
    /// For tests of agents: break what a server that was started with --allow-faults sends
    #[command(subcommand, hide = true)]
    Fault(FaultCommand),
    /// What a person should look at, newest first: tokens used twice, identities shared
    Alarms,
}

/// `init`.
#[derive(Args, Debug)]
pub struct Init {
    /// Name of the organization
    #[arg(long, default_value = "dev", value_name = "NAME")]
    pub organization: String,
    /// Its first workspace, meant wherever --workspace is left out
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub workspace: String,
    /// Host name or address by which agents reach the server, beside localhost, 127.0.0.1 and ::1. Repeatable
    #[arg(long, value_name = "HOST")]
    pub tls_name: Vec<String>,
}

/// `serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "ENNOTE_DEVCLOUD_LISTEN", default_value = "127.0.0.1:8443", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// File to write IP:PORT to once agents can connect; removed at the end
    #[arg(long, env = "ENNOTE_DEVCLOUD_ADDRESS_FILE", value_name = "FILE")]
    pub address_file: Option<PathBuf>,
    /// Speak plaintext HTTP/2. On loopback addresses only
    #[arg(long, env = "ENNOTE_DEVCLOUD_PLAINTEXT")]
    pub plaintext: bool,
    /// HPKE suites that this cloud has: b (X-Wing, post-quantum) and a (X25519). Of an agent's, the first that is here counts
    #[arg(long, env = "ENNOTE_DEVCLOUD_SUITES", default_value = "b,a", value_delimiter = ',', value_name = "SUITE")]
    pub suites: Vec<crate::suite::Suite>,
    /// For tests of agents, on loopback addresses only: let `fault set` break what is sent
    #[arg(long)]
    pub allow_faults: bool,
    /// A fault that is on from the beginning; see `fault set --help`
    #[arg(long, requires = "allow_faults", value_delimiter = ',', value_name = "NAME", hide_possible_values = true)]
    pub fault: Vec<Fault>,
    /// Log filter, as in `info` or `ennote_devcloud=debug,info`
    #[arg(long, env = "ENNOTE_DEVCLOUD_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Seconds by which this cloud's clock is to be wrong, for tests of agents
    #[arg(long, hide = true, default_value_t = 0, allow_negative_numbers = true, value_name = "SECONDS")]
    pub clock_offset: i64,
    /// Lifetimes.
    #[command(flatten, next_help_heading = "Lifetimes (15m, 20s, 1500ms ...)")]
    pub lives: Lifetimes,
    /// ServiceAccount tokens.
    #[command(flatten, next_help_heading = "ServiceAccount tokens")]
    pub attesting: Attesting,
}

/// `token ...`.
#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    /// Make a bootstrap token: used once, within two hours, to make an agent or to re-enrol one of that name
    #[command(after_help = "\
Example, without the token ever standing on a command line:
  (umask 077; ennote-devcloud token create -q --agent shop --namespace shop > token)
  kubectl -n ennote create secret generic ennote-agent-token --from-file=token
With the keys of its cluster, so that a copy of the token is of no use elsewhere:
  kubectl get --raw /openid/v1/jwks | ennote-devcloud token create --agent shop --namespace shop --jwks -")]
    Create(TokenCreate),
}

/// `token create`.
#[derive(Args, Debug)]
pub struct TokenCreate {
    /// Name of the agent. One that exists keeps its id, gets the next epoch, and the namespaces given here
    #[arg(long, value_name = "NAME")]
    pub agent: String,
    /// Kubernetes namespace that may have every secret of the workspace. Repeatable [default: that of --service-account]
    #[arg(long, required_unless_present = "service_account", value_delimiter = ',', value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// The agent's workspace [default: the one of init]
    #[arg(long, short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
    /// How long it can be used [default, and most: the server's --bootstrap-token-life, 2h]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub life: Option<std::time::Duration>,
    /// File with the cluster's signing keys, which the agent's ServiceAccount token has to be signed by; `-`: stdin
    #[arg(long, value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// Issuer that the agent's ServiceAccount token has to name
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// ServiceAccount that the agent has to run as: NAME, or NAMESPACE/NAME
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<String>,
    /// Print nothing but the token
    #[arg(long, short)]
    pub quiet: bool,
}

/// `secret ...`.
#[derive(Subcommand, Debug)]
pub enum SecretCommand {
    /// Write a new version of a secret; it replaces the whole payload
    #[command(
        override_usage = "ennote-devcloud secret put NAME --from-env-file FILE|-\n       \
            ennote-devcloud secret put NAME --from-file KEY=FILE|-\n       \
            ennote-devcloud secret put NAME --payload FILE|-\n       \
            ennote-devcloud secret put NAME -                (lines of stdin)\n       \
            ennote-devcloud secret put NAME KEY=VALUE...     (visible in process lists)",
        after_help = "\
Values on a command line can be read by every user of the machine while the command runs, and stay
in the shell's history. Prefer files and stdin:
  ennote-devcloud secret put 'payments db' --from-env-file payments.env
  pass show payments | tr -d '\\n' | ennote-devcloud secret put 'payments db' --from-file password=-
  ennote-devcloud secret put tls --from-file tls.crt=server.pem --from-file tls.key=server.key
  ennote-devcloud secret put app --payload app.json      {\"keysValues\":{\"PORT\":5432}} keeps numbers
  printf 'LEVEL=debug\\n' | ennote-devcloud secret put app -
For values that are no secret:
  ennote-devcloud secret put app LEVEL=debug 'GREETING=hello world'
Other types name their fields as keys:
  ennote-devcloud secret put mail --type LOGIN_PASSWORD --from-env-file mail.env
(with lines login= and password=)"
    )]
    Put(SecretPut),
    /// Print the payload of a version, by default the newest
    Get(SecretGet),
    /// List secrets
    #[command(visible_alias = "ls")]
    List(SecretList),
    /// List the versions of a secret, newest first; also of a deleted one
    Versions(SecretName),
    /// Show which binding of which agent holds which version, and whether its workloads run it, since when; failed first
    Status(SecretName),
    /// Delete a secret: agents get a signed tombstone, and all its payloads are erased
    #[command(visible_alias = "delete")]
    Rm(SecretName),
}

/// `secret put`.
#[derive(Args, Debug)]
pub struct SecretPut {
    /// Name of the secret; may hold blanks
    pub name: String,
    /// KEY=VALUE, each value a string as it stands; `-` alone reads KEY=VALUE lines, or one JSON payload, from stdin
    #[arg(value_name = "KEY=VALUE")]
    pub values: Vec<String>,
    /// KEY=VALUE lines; # comments and blank lines are skipped, quotes around a value removed. `-`: stdin
    #[arg(long, value_name = "FILE")]
    pub from_env_file: Vec<PathBuf>,
    /// One value from a file, byte for byte; `KEY=-`: stdin. Without KEY= the file is a whole JSON payload, as with --payload
    #[arg(long, value_name = "KEY=FILE")]
    pub from_file: Vec<String>,
    /// The whole payload: one JSON object, stored exactly as it stands. `-`: stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_env_file", "values"])]
    pub payload: Option<PathBuf>,
    /// KEYS_VALUES, LOGIN_PASSWORD, SECURITY_NOTES or TWO_FACTOR [default: what a --payload looks like, else KEYS_VALUES]
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<crate::payload::Kind>,
    /// Workspace [default: the one of init]
    #[arg(long, short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
}

/// `secret get`.
#[derive(Args, Debug)]
pub struct SecretGet {
    /// Name of the secret
    pub name: String,
    /// Version [default: the newest]
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// Workspace [default: the one of init]
    #[arg(long, short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
}

/// `secret list`.
#[derive(Args, Debug)]
pub struct SecretList {
    /// Only of this workspace [default: all]
    #[arg(long, short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
}

/// `secret versions`, `secret status`, `secret rm`.
#[derive(Args, Debug)]
pub struct SecretName {
    /// Name of the secret
    pub name: String,
    /// Workspace [default: the one of init]
    #[arg(long, short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
}

/// `agent ...`.
#[derive(Subcommand, Debug)]
pub enum AgentCommand {
    /// List agents
    #[command(visible_alias = "ls")]
    List,
    /// End an agent's streams and refuse it from now on; a new bootstrap token for its name lets it in again
    Revoke {
        /// Name of the agent
        name: String,
    },
    /// End an agent's streams and refuse it whatever it shows, new bootstrap tokens too, until it is unbanned
    Ban {
        /// Name of the agent
        name: String,
    },
    /// List the signing keys of an agent's cluster, by which it comes back; or accept one that it reported
    Keys {
        /// Name of the agent
        name: String,
        /// Thumbprint of a reported key, which counts for joins from now on
        #[arg(long, value_name = "THUMBPRINT")]
        accept: Option<String>,
    },
    /// Replace the signing keys of an agent's cluster, after they changed while the agent was away
    #[command(after_help = "\
Example:
  kubectl get --raw /openid/v1/jwks | ennote-devcloud agent jwks shop --file -")]
    Jwks {
        /// Name of the agent
        name: String,
        /// JSON Web Key Set; `-`: stdin
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Take a ban back
    Unban {
        /// Name of the agent
        name: String,
    },
    /// Let a namespace of an agent have a secret, or a whole workspace; waiting bindings are served at once
    #[command(after_help = "\
The condition of a binding that was denied says what to grant:
  ennote-devcloud agent grant shop --namespace shop --secret 'payments db'")]
    Grant(AgentGrant),
}

/// `agent grant`.
#[derive(Args, Debug)]
pub struct AgentGrant {
    /// Name of the agent
    pub name: String,
    /// Kubernetes namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: String,
    /// Workspace [default: the agent's own]
    #[arg(long, short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
    /// One secret [default: all of the workspace]
    #[arg(long, value_name = "SECRET")]
    pub secret: Option<String>,
}

/// `pat ...`.
#[derive(Subcommand, Debug)]
pub enum PatCommand {
    /// Make a personal access token for one workspace: it creates secrets there and reads them, by `cli.v1`
    #[command(after_help = "\
Example, without the token ever standing on a command line:
  export ENNOTE_TOKEN=\"$(ennote-devcloud pat create -q --name ci)\"
  export ENNOTE_ORGANIZATION_ID=dev ENNOTE_WORKSPACE_ID=default
  ennote secret get 'payments db'

A CLI that was made for 127.0.0.1:8443 or localhost:8443 speaks plaintext: serve --plaintext. One made for
dns:///localhost:8443 speaks TLS 1.3 and has to trust the data directory's ca.crt, as by SSL_CERT_FILE.")]
    Create(PatCreate),
    /// List personal access tokens, expired and revoked ones too
    #[command(visible_alias = "ls")]
    List,
    /// Refuse a personal access token from its next call on
    Revoke {
        /// Name of the token
        name: String,
    },
}

/// `pat create`.
#[derive(Args, Debug)]
pub struct PatCreate {
    /// Name of the token; of two with the same, one at most is live
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// The workspace that it may use [default: the one of init]
    #[arg(long, short, value_name = "WORKSPACE")]
    pub workspace: Option<String>,
    /// How long it can be used [default, and most: 30d]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub life: Option<std::time::Duration>,
    /// Print nothing but the token
    #[arg(long, short)]
    pub quiet: bool,
}

/// `keyset ...`.
#[derive(Subcommand, Debug)]
pub enum KeysetCommand {
    /// List the keys
    Show,
    /// Add a key: listed at once, used after the server's --publish-lead; the old ones stay listed
    Rotate {
        /// What the new key is for; seal makes one for each suite
        #[arg(long = "use", value_enum, value_name = "USE")]
        r#use: RotatedUse,
    },
    /// Leave a key out from now on. All streams end, and agents join again; an only key is replaced. An agent without a
    /// ServiceAccount (agent list: renewal key) joins again only with its bootstrap token within --join-retry of its use; later
    /// it needs a new one: token create
    Drop {
        /// Its id, or the first eight characters of it or more
        id: String,
    },
}

/// `keyset rotate --use`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotatedUse {
    /// Signs challenges, access tokens and beats.
    Join,
    /// Signs what is delivered.
    Payload,
    /// Receives credentials.
    Seal,
}

/// `workspace ...`.
#[derive(Subcommand, Debug)]
pub enum WorkspaceCommand {
    /// Make a workspace
    Create {
        /// Its name
        name: String,
    },
    /// List workspaces
    #[command(visible_alias = "ls")]
    List,
}

/// `fault ...`.
#[derive(Subcommand, Debug)]
pub enum FaultCommand {
    /// From now on break what is sent in this way, and in no other
    Set {
        /// How
        fault: Fault,
        /// Whose deliveries [default: those of every secret]
        #[arg(long, value_name = "SECRET")]
        secret: Option<String>,
    },
    /// Break nothing any more
    Clear,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_shows_files_before_values() {
        Cli::command().debug_assert();
        let mut command = Cli::command();
        let put = command.find_subcommand_mut("secret").unwrap().find_subcommand_mut("put").unwrap();
        let help = put.render_long_help().to_string();
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text} is not in the help"));
        assert!(at("--from-env-file FILE|-") < at("KEY=VALUE..."));
        assert!(at("read by every user of the machine") < at("LEVEL=debug 'GREETING"));
    }
}
