//! `pat ...`: personal access tokens, made, listed and revoked.

use super::args::{Format, PatCommand};
use super::output::{Output, rfc3339, since, until};
use super::run::Ended;
use crate::admin::Client;
use crate::core::{NewPat, PatEntry, PatRequest};
use crate::settings::Lifetimes;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;

pub(super) async fn pat(data: &Path, command: PatCommand, mut out: Output<impl Write>) -> Result<(), Ended> {
    let client = Client::find(data, Lifetimes::default()).await.map_err(Ended::of)?;
    let printed = match command {
        PatCommand::Create(args) => {
            let request = PatRequest { name: args.name, workspace: args.workspace, life: args.life };
            let made = client.create_pat(request).await.map_err(Ended::of)?;
            out.pat(&made, args.quiet)
        }
        PatCommand::List => out.pats(&client.pats().await.map_err(Ended::of)?),
        PatCommand::Revoke { name } => out.pat_revoked(&client.revoke_pat(&name).await.map_err(Ended::of)?),
    };
    printed.map_err(Ended::of)
}

impl<W: Write> Output<W> {
    fn pat(&mut self, made: &NewPat, quiet: bool) -> io::Result<()> {
        if self.format == Format::Json {
            return self.json(&json!({
                "token": made.token.as_str(), "name": made.name, "organization": made.organization,
                "workspace": made.workspace, "expires": rfc3339(made.expires_at_ms),
            }));
        }
        self.line(made.token.as_str())?;
        if quiet {
            return Ok(());
        }
        let (left, organization) = (until(made.expires_at_ms, self.now_ms), &made.organization);
        self.line("")?;
        self.line(&format!(
            "Good for {left}, for workspace {} of organization {organization}. It is not shown again; the ennote CLI takes it as ENNOTE_TOKEN,\nwith ENNOTE_ORGANIZATION_ID={organization} and ENNOTE_WORKSPACE_ID={}.",
            made.workspace, made.workspace
        ))
    }

    fn pats(&mut self, entries: &[PatEntry]) -> io::Result<()> {
        let row = |entry: &PatEntry, now| {
            let ends = if entry.state == "live" { until(entry.expires_at_ms, now) } else { String::new() };
            let age = since(entry.created_at_ms, now);
            vec![entry.name.clone(), entry.state.clone(), entry.workspace.clone(), age, ends, entry.id.clone()]
        };
        let none = "No personal access tokens. Make one: ennote-devcloud pat create --name NAME";
        self.list(&["NAME", "STATE", "WORKSPACE", "CREATED", "EXPIRES IN", "ID"], entries, shown, row, none)
    }

    fn pat_revoked(&mut self, entry: &PatEntry) -> io::Result<()> {
        self.either(&shown(entry), |_| format!("personal access token {} is revoked", entry.name))
    }
}

fn shown(entry: &PatEntry) -> Value {
    json!({
        "name": entry.name, "id": entry.id, "workspace": entry.workspace, "state": entry.state,
        "created_at": rfc3339(entry.created_at_ms), "expires": rfc3339(entry.expires_at_ms),
    })
}
