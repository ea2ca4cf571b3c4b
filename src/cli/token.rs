//! `causeway token`: the tokens that clients and operators bear.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Outcome};
use super::operator::OperatorArgs;
use super::output::{Output, note, shell_word, visible};
use super::table::{self, cell, text};
use crate::domain::api_token::PresentedToken;
use crate::domain::id::{PrincipalId, TenantId};
use crate::domain::scope::{Scope, Scopes};
use crate::domain::units::TextForm;

/// What `causeway token` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print it: standard output holds the token and nothing else
    Create(CreateArgs),
    /// List all tokens; no secret is in it
    List(OperatorArgs),
    /// End a token at once, open streams included
    Revoke(RevokeArgs),
}

/// What `causeway token create` takes.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Whose runs and events it opens
    #[arg(long, value_name = "TENANT", value_parser = TenantId::parse,
          required_unless_present = "admin", conflicts_with = "admin")]
    tenant: Option<TenantId>,
    /// Who acts with it
    #[arg(long, value_name = "PRINCIPAL", value_parser = PrincipalId::parse)]
    principal: PrincipalId,
    /// What it may be used for: runs:forward, runs:read, runs:cancel, events:read, events:ingest
    #[arg(long, value_name = "SCOPES", value_parser = Scopes::parse,
          required_unless_present = "admin", conflicts_with = "admin")]
    scopes: Option<Scopes>,
    /// For an operator instead of a client: opens these commands' API, and nothing else
    #[arg(long)]
    admin: bool,
    /// A note for people, such as where it is kept
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// How long it holds, such as 90d. Left out: until it is revoked
    #[arg(long, value_name = "DURATION", value_parser = <Duration as TextForm>::read)]
    lifetime: Option<Duration>,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// What `causeway token revoke` takes.
#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    /// The token's id, as `causeway token list` shows it; it is a part of the token, but not the secret one
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Makes, lists or ends tokens.
pub(super) async fn run(command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create(args) => create(&args).await,
        TokenCommand::List(args) => list(&args).await,
        TokenCommand::Revoke(args) => revoke(&args).await,
    }
}

async fn create(args: &CreateArgs) -> Outcome {
    let scopes = if args.admin { Scopes::from_iter([Scope::Admin]) } else { args.scopes.unwrap_or_default() };
    let body = json!({
        "tenant_id": args.tenant.as_ref().map_or("", TenantId::as_str),
        "principal_id": args.principal.as_str(),
        "scopes": scopes,
        "label": args.label,
        "lifetime": args.lifetime.map(|lifetime| lifetime.write()),
    });
    let reply = args
        .operator
        .within(async |api| api.call(Method::POST, api.url(&["tokens"]), Some(&body)).await)
        .await?;
    let output = Output::stdout();
    if args.operator.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let answer = reply.json();
    let token = text(&answer, "/token/token");
    if token.is_empty() {
        return Err(Failure::failed("the gateway's answer holds no token"));
    }
    output.line(visible(&token))?;
    let id = text(&answer, "/token/token_id");
    let until = match text(&answer, "/token/expires_at") {
        empty if empty.is_empty() => "until it is revoked".to_owned(),
        end => format!("until {end}"),
    };
    note(format_args!("token {} for {}, {}", visible(&id), holder(&answer["token"]), visible(&until)));
    note("it is shown this once; keep it where only its user can read it");
    note(format_args!("to end it: causeway token revoke {}", shell_word(&visible(&id))));
    Ok(Exit::Done)
}

async fn list(args: &OperatorArgs) -> Outcome {
    let reply = args.within(async |api| api.call(Method::GET, api.url(&["tokens"]), None).await).await?;
    let output = Output::stdout();
    if args.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let answer = reply.json();
    let items = answer.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        note("there is no token yet: causeway token create makes one");
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            [
                cell(item, "/token_id"),
                cell(item, "/tenant_id"),
                cell(item, "/principal_id"),
                cell(item, "/scopes"),
                standing(item),
                cell(item, "/last_used_at"),
                cell(item, "/label"),
            ]
        })
        .collect();
    table::print(output, ["ID", "TENANT", "PRINCIPAL", "SCOPES", "HOLDS", "LAST USED", "LABEL"], &rows)?;
    Ok(Exit::Done)
}

async fn revoke(args: &RevokeArgs) -> Outcome {
    // Whoever has the whole token may give that.
    let id = PresentedToken::parse(&args.id).map_or_else(|| args.id.clone(), |token| token.id.to_string());
    let reply = args
        .operator
        .within(async |api| api.call(Method::DELETE, api.url(&["tokens", &id]), None).await)
        .await?;
    let output = Output::stdout();
    if args.operator.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let token = &reply.json()["token"];
    let (id, holder) = (text(token, "/token_id"), holder(token));
    output.line(format_args!("token {} for {holder} is revoked", visible(&id)))?;
    Ok(Exit::Done)
}

/// Whom a token stands for.
fn holder(token: &Value) -> String {
    let (tenant, principal) = (text(token, "/tenant_id"), text(token, "/principal_id"));
    let principal = visible(&principal);
    if tenant.is_empty() {
        format!("operator {principal}")
    } else {
        format!("{principal} of {}", visible(&tenant))
    }
}

fn standing(token: &Value) -> String {
    match (text(token, "/revoked_at"), text(token, "/expires_at")) {
        (revoked, _) if !revoked.is_empty() => format!("revoked {revoked}"),
        (_, end) if !end.is_empty() => format!("until {end}"),
        _ => "until revoked".to_owned(),
    }
}
