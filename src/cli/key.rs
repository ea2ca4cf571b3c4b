//! `causeway key`: who this gateway is to its peers.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Outcome};
use super::operator::OperatorArgs;
use super::output::{Output, visible};
use super::table::{self, cell, field, text};
use crate::domain::units::TextForm;

/// What `causeway key` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Show what peers need to enrol this gateway; makes its key if it has none yet
    Show(ShowArgs),
    /// List the present key, an announced one, and those before
    List(OperatorArgs),
    /// Announce a new key to all peers, to take over after an overlap
    Rotate(RotateArgs),
}

/// What `causeway key show` takes.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Print the public key alone, for scripts
    #[arg(long, conflicts_with = "json")]
    bare: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// What `causeway key rotate` takes.
#[derive(Debug, clap::Args)]
pub(super) struct RotateArgs {
    /// How long the new key is announced before it takes over. Left out: peering.rotation_overlap
    #[arg(long, value_name = "DURATION", value_parser = <Duration as TextForm>::read)]
    overlap: Option<Duration>,
    /// Take the announcement back instead
    #[arg(long, conflicts_with = "overlap")]
    cancel: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Shows or rotates the gateway's key.
pub(super) async fn run(command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::Show(args) => show(&args).await,
        KeyCommand::List(args) => list(&args).await,
        KeyCommand::Rotate(args) => rotate(&args).await,
    }
}

async fn show(args: &ShowArgs) -> Outcome {
    let reply =
        args.operator.within(async |api| api.call(Method::GET, api.url(&["keys"]), None).await).await?;
    let (output, answer) = (Output::stdout(), reply.json());
    if args.operator.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let present = of_state(&answer, "present")
        .ok_or_else(|| Failure::failed("the gateway's answer names no present key"))?;
    let public_key = text(present, "/public_key");
    if args.bare {
        output.line(visible(&public_key))?;
        return Ok(Exit::Done);
    }
    field(output, "gateway", &text(&answer, "/peer_id"))?;
    field(output, "public key", &public_key)?;
    field(output, "key id", &text(present, "/key_id"))?;
    field(output, "certificate", &text(&answer, "/certificate"))?;
    field(output, "state", &state(&answer))?;
    Ok(Exit::Done)
}

async fn list(args: &OperatorArgs) -> Outcome {
    let reply = args.within(async |api| api.call(Method::GET, api.url(&["keys"]), None).await).await?;
    let (output, answer) = (Output::stdout(), reply.json());
    if args.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    print(output, &answer)
}

async fn rotate(args: &RotateArgs) -> Outcome {
    let (verb, body) = match (args.cancel, args.overlap) {
        (true, _) => ("keys:cancel-rotation", json!({})),
        (false, None) => ("keys:rotate", json!({})),
        (false, Some(overlap)) => ("keys:rotate", json!({ "overlap": overlap.write() })),
    };
    let reply =
        args.operator.within(async |api| api.call(Method::POST, api.url(&[verb]), Some(&body)).await).await?;
    let (output, answer) = (Output::stdout(), reply.json());
    if args.operator.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    print(output, &answer)
}

fn print(output: Output, answer: &Value) -> Outcome {
    let rows: Vec<_> = keys(answer)
        .map(|key| [cell(key, "/key_id"), cell(key, "/state"), cell(key, "/at"), cell(key, "/public_key")])
        .collect();
    table::print(output, ["KEY ID", "STATE", "AT", "PUBLIC KEY"], &rows)?;
    Ok(Exit::Done)
}

fn keys(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("keys").and_then(Value::as_array).into_iter().flatten()
}

fn of_state<'a>(answer: &'a Value, state: &str) -> Option<&'a Value> {
    keys(answer).find(|key| key["state"] == state)
}

fn state(answer: &Value) -> String {
    match of_state(answer, "next") {
        None => "present; no successor is announced".to_owned(),
        Some(next) => {
            format!("present; {} takes over at {}", text(next, "/key_id"), text(next, "/at"))
        }
    }
}
