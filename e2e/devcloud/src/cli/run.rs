//! From a parsed command line to an exit code.

use super::args::{
    AgentCommand, Cli, Command, FaultCommand, Init, KeysetCommand, RotatedUse, SecretCommand, TokenCommand,
    WorkspaceCommand,
};
use super::output::Output;
use super::{pats, serve, values};
use crate::admin::Client;
use crate::clock;
use crate::core::{Core, InitOptions, TokenRequest};
use crate::fault::Active;
use crate::settings::Lifetimes;
use crate::store::KeyUse;
use serde_json::json;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// A sentence for people: what is wrong, and what mends it.
#[derive(Debug)]
pub(super) struct Ended(pub(super) String);

impl Ended {
    pub(super) fn of(error: impl Display) -> Self {
        Self(error.to_string())
    }

    pub(super) fn file(path: &Path, source: &io::Error) -> Self {
        Self(format!("cannot use {}: {source}", path.display()))
    }
}

/// Runs a command line.
pub fn main(cli: Cli) -> ExitCode {
    let ran = runtime(&cli.command).and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        // A name that is being resolved holds up nobody.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        ended
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended(text)) => {
            // Nobody may be reading.
            let _unread = writeln!(io::stderr(), "ennote-devcloud: {text}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(command: &Command) -> Result<Runtime, Ended> {
    let mut builder = match command {
        Command::Serve(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build().map_err(|error| Ended(format!("cannot start: {error}")))
}

async fn run(cli: Cli) -> Result<(), Ended> {
    let (data, format) = (cli.data.as_path(), cli.output);
    let out = Output::new(io::stdout().lock(), format, clock::now_ms());
    match cli.command {
        Command::Init(args) => init(data, args, out).await,
        Command::Serve(args) => {
            drop(out);
            serve::serve(data, *args, format).await
        }
        Command::Token(command) => token(data, command, out).await,
        Command::Secret(command) => secret(data, command, out).await,
        Command::Agent(command) => agent(data, command, out).await,
        Command::Pat(command) => pats::pat(data, command, out).await,
        Command::Fault(command) => fault(data, command, out).await,
        Command::Workspace(command) => workspace(data, command, out).await,
        Command::Keyset(command) => keyset(data, command, out).await,
        Command::Alarms => alarms(data, out).await,
    }
}

async fn init(data: &Path, args: Init, mut out: Output<impl Write>) -> Result<(), Ended> {
    let options = InitOptions { organization: args.organization, workspace: args.workspace, tls_names: args.tls_name };
    Core::init(data, &options).await.map_err(Ended::of)?;
    let ca = data.join("ca.crt");
    let value = json!({"data": data, "organization": options.organization, "workspace": options.workspace, "ca": ca});
    out.either(&value, |_| {
        format!(
            "made a cloud in {data}: organization {}, workspace {}\nagents trust {} for TLS; back up {data}/master.key apart from the database\nnext: ennote-devcloud --data {data} serve",
            options.organization,
            options.workspace,
            ca.display(),
            data = data.display(),
        )
    })
    .map_err(Ended::of)
}

async fn token(data: &Path, command: TokenCommand, mut out: Output<impl Write>) -> Result<(), Ended> {
    let TokenCommand::Create(args) = command;
    let client = Client::find(data, Lifetimes::default()).await.map_err(Ended::of)?;
    let jwks = args.jwks.map(|file| values::text(&file, &mut io::stdin().lock())).transpose().map_err(Ended::of)?;
    let request = TokenRequest {
        agent: args.agent,
        namespaces: args.namespace,
        workspace: args.workspace,
        life: args.life,
        jwks,
        issuer: args.issuer,
        service_account: args.service_account,
    };
    let made = client.create_token(request).await.map_err(Ended::of)?;
    out.token(&made, args.quiet).map_err(Ended::of)
}

async fn secret(data: &Path, command: SecretCommand, mut out: Output<impl Write>) -> Result<(), Ended> {
    let client = Client::find(data, Lifetimes::default()).await.map_err(Ended::of)?;
    let printed = match command {
        SecretCommand::Put(args) => {
            let (kind, payload) = values::gather(&args, &mut io::stdin().lock()).map_err(Ended::of)?;
            let put = client.put_secret(args.workspace.as_deref(), &args.name, kind, payload).await;
            out.put(&put.map_err(Ended::of)?)
        }
        SecretCommand::Get(args) => {
            let found = client.secret(args.workspace.as_deref(), &args.name, args.version).await;
            out.secret(&found.map_err(Ended::of)?)
        }
        SecretCommand::List(args) => out.secrets(&client.secrets(args.workspace.as_deref()).await.map_err(Ended::of)?),
        SecretCommand::Versions(args) => {
            out.versions(&client.versions(args.workspace.as_deref(), &args.name).await.map_err(Ended::of)?)
        }
        SecretCommand::Status(args) => {
            out.status(&client.secret_status(args.workspace.as_deref(), &args.name).await.map_err(Ended::of)?)
        }
        SecretCommand::Rm(args) => {
            out.removed(&client.remove_secret(args.workspace.as_deref(), &args.name).await.map_err(Ended::of)?)
        }
    };
    printed.map_err(Ended::of)
}

async fn agent(data: &Path, command: AgentCommand, mut out: Output<impl Write>) -> Result<(), Ended> {
    let client = Client::find(data, Lifetimes::default()).await.map_err(Ended::of)?;
    let printed = match command {
        AgentCommand::List => out.agents(&client.agents().await.map_err(Ended::of)?),
        AgentCommand::Revoke { name } => out.revoked(&name, &client.revoke_agent(&name).await.map_err(Ended::of)?),
        AgentCommand::Ban { name } => out.banned(&name, true, &client.ban_agent(&name, true).await.map_err(Ended::of)?),
        AgentCommand::Unban { name } => {
            out.banned(&name, false, &client.ban_agent(&name, false).await.map_err(Ended::of)?)
        }
        AgentCommand::Keys { name, accept: None } => out.keys(&client.agent_keys(&name).await.map_err(Ended::of)?),
        AgentCommand::Keys { name, accept: Some(thumbprint) } => {
            out.keys(&client.accept_key(&name, thumbprint).await.map_err(Ended::of)?)
        }
        AgentCommand::Jwks { name, file } => {
            let jwks = values::text(&file, &mut io::stdin().lock()).map_err(Ended::of)?;
            out.keys(&client.give_keys(&name, jwks).await.map_err(Ended::of)?)
        }
        AgentCommand::Grant(args) => {
            let granted =
                client.grant(&args.name, &args.namespace, args.workspace.as_deref(), args.secret.as_deref()).await;
            out.granted(&args.name, &granted.map_err(Ended::of)?)
        }
    };
    printed.map_err(Ended::of)
}

async fn keyset(data: &Path, command: KeysetCommand, mut out: Output<impl Write>) -> Result<(), Ended> {
    let client = Client::find(data, Lifetimes::default()).await.map_err(Ended::of)?;
    let entry = match command {
        KeysetCommand::Show => client.keyset().await,
        KeysetCommand::Rotate { r#use } => {
            let uses = match r#use {
                RotatedUse::Join => vec![KeyUse::Join],
                RotatedUse::Payload => vec![KeyUse::Payload],
                RotatedUse::Seal => vec![KeyUse::SealA, KeyUse::SealB],
            };
            client.rotate_keys(uses).await
        }
        KeysetCommand::Drop { id } => client.drop_key(id).await,
    };
    out.keyset(&entry.map_err(Ended::of)?).map_err(Ended::of)
}

async fn alarms(data: &Path, mut out: Output<impl Write>) -> Result<(), Ended> {
    let client = Client::find(data, Lifetimes::default()).await.map_err(Ended::of)?;
    out.alarms(&client.alarms().await.map_err(Ended::of)?).map_err(Ended::of)
}

async fn fault(data: &Path, command: FaultCommand, mut out: Output<impl Write>) -> Result<(), Ended> {
    let faults = match command {
        FaultCommand::Set { fault, secret } => vec![Active { fault, secret }],
        FaultCommand::Clear => vec![],
    };
    let client = Client::connect(data).await.map_err(Ended::of)?;
    let on = client.set_faults(faults).await.map_err(Ended::of)?;
    out.either(&json!(on), |_| format!("faults that are on: {}", on.len())).map_err(Ended::of)
}

async fn workspace(data: &Path, command: WorkspaceCommand, mut out: Output<impl Write>) -> Result<(), Ended> {
    let client = Client::find(data, Lifetimes::default()).await.map_err(Ended::of)?;
    let printed = match command {
        WorkspaceCommand::Create { name } => out.workspace(&client.create_workspace(&name).await.map_err(Ended::of)?),
        WorkspaceCommand::List => out.workspaces(&client.workspaces().await.map_err(Ended::of)?),
    };
    printed.map_err(Ended::of)
}
