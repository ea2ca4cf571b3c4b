//! `causeway peer`: who this gateway works with, what they may do, and how they are.

use reqwest::Method;
use serde_json::{Map, Value, json};
use url::Url;

use super::client::Reply;
use super::exit::{Exit, Failure, Outcome};
use super::operator::{Api, OperatorArgs, Reach};
use super::output::{Output, Tone, note, visible};
use super::peer_entry::{self, EntryArgs};
use super::table::{self, cell, field, text};
use crate::domain::base_url;
use crate::domain::id::PeerId;

/// What `causeway peer` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PeerCommand {
    /// Enrol a peer: from now on it is known by its key, and may do what is granted here
    Add(Box<AddArgs>),
    /// Change an enrolled peer: the given keys only. Accepts one that a hub introduced
    Update(Box<UpdateArgs>),
    /// List the peers
    List(OperatorArgs),
    /// Show one peer: who it is, what it may do, how it is
    Show(OneArgs),
    /// Ask a peer now; 0 only if each side proved to the other who it is, and it is well
    Verify(OneArgs),
    /// Give a peer no new work; what is under way goes on
    Drain(WhyArgs),
    /// Cut a peer off at once: open streams, connections and readers included
    Revoke(WhyArgs),
    /// Take a revoked or drained peer back
    Reinstate(WhyArgs),
    /// Forget an enrolled peer
    Remove(OneArgs),
}

/// What `causeway peer add` takes.
#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// The id it is known by here
    #[arg(value_name = "ID", value_parser = PeerId::parse)]
    id: PeerId,
    /// Where its API is, such as https://gw.example.com:8443
    #[arg(long, value_name = "URL", value_parser = peer_entry::url)]
    url: String,
    #[command(flatten)]
    entry: EntryArgs,
    #[command(flatten)]
    at: AtGateway,
}

/// What `causeway peer update` takes.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateArgs {
    /// The peer
    #[arg(value_name = "ID", value_parser = PeerId::parse)]
    id: PeerId,
    /// Where its API is now
    #[arg(long, value_name = "URL", value_parser = peer_entry::url)]
    url: Option<String>,
    #[command(flatten)]
    entry: EntryArgs,
    #[command(flatten)]
    at: AtGateway,
}

/// Which gateway is meant, where `--url` is the peer's.
#[derive(Debug, clap::Args)]
pub(super) struct AtGateway {
    /// The API of a gateway elsewhere. Left out: the gateway of this data directory
    #[arg(long, value_name = "URL", value_parser = base_url::parse)]
    gateway: Option<Url>,
    #[command(flatten)]
    reach: Reach,
}

/// What commands about one peer take.
#[derive(Debug, clap::Args)]
pub(super) struct OneArgs {
    /// The peer
    #[arg(value_name = "ID", value_parser = PeerId::parse)]
    id: PeerId,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// What commands that change a peer's standing take.
#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Why, for the audit and for whoever looks at the peer
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Does one of them.
pub(super) async fn run(command: PeerCommand) -> Outcome {
    match command {
        PeerCommand::Add(args) => add(&args).await,
        PeerCommand::Update(args) => update(&args).await,
        PeerCommand::List(args) => list(&args).await,
        PeerCommand::Show(args) => show(&args).await,
        PeerCommand::Verify(args) => verify(&args).await,
        PeerCommand::Drain(args) => stand(&args, "drain").await,
        PeerCommand::Revoke(args) => stand(&args, "revoke").await,
        PeerCommand::Reinstate(args) => stand(&args, "reinstate").await,
        PeerCommand::Remove(args) => remove(&args).await,
    }
}

async fn add(args: &AddArgs) -> Outcome {
    let mut entry = Map::from_iter([
        ("peer_id".to_owned(), Value::from(args.id.as_str())),
        ("base_url".to_owned(), Value::from(args.url.as_str())),
    ]);
    args.entry.write_to(&mut entry)?;
    let entry = Value::Object(entry);
    let AtGateway { gateway, reach } = &args.at;
    let reply = reach
        .within(gateway.as_ref(), async |api| api.call(Method::POST, api.url(&["peers"]), Some(&entry)).await)
        .await?;
    told(reach, &reply, "is enrolled")
}

async fn update(args: &UpdateArgs) -> Outcome {
    let AtGateway { gateway, reach } = &args.at;
    let reply = reach
        .within(gateway.as_ref(), async |api| {
            let url = api.url(&["peers", args.id.as_str()]);
            let known = api.call(Method::GET, url.clone(), None).await?.json();
            let Some(Value::Object(mut entry)) = known.pointer("/peer/entry").cloned() else {
                let message = "this gateway does not show a peer's entry to you: give an operator's token";
                return Err(Failure::failed(message));
            };
            if let Some(url) = &args.url {
                entry.insert("base_url".to_owned(), Value::from(url.as_str()));
            }
            args.entry.write_to(&mut entry)?;
            api.call(Method::PUT, url, Some(&Value::Object(entry))).await
        })
        .await?;
    told(reach, &reply, "is changed")
}

async fn list(args: &OperatorArgs) -> Outcome {
    let (items, is_momentary) =
        args.within(async |api| Ok((api.all(&["peers"]).await?, api.is_momentary()))).await?;
    let output = Output::stdout();
    if args.reach.json {
        output.json(json!({ "items": items }).to_string().as_bytes())?;
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        note(
            "there is no peer yet: causeway peer add enrols one, and so does [[peers]] in the configuration",
        );
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = items
        .iter()
        .map(|peer| {
            [
                cell(peer, "/peer_id"),
                cell(peer, "/kind"),
                cell(peer, "/standing"),
                cell(peer, "/domain"),
                cell(peer, "/base_url"),
                health(peer),
            ]
        })
        .collect();
    table::print(output, ["ID", "KIND", "STANDING", "DOMAIN", "URL", "HEALTH"], &rows)?;
    if is_momentary {
        note("no gateway is running, so nobody asks them how they are: causeway peer verify ID does");
    }
    Ok(Exit::Done)
}

async fn show(args: &OneArgs) -> Outcome {
    let reply = args.ask(Method::GET, "").await?;
    let output = Output::stdout();
    if args.operator.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let answer = reply.json();
    let peer = &answer["peer"];
    for (name, pointer) in [
        ("peer", "/peer_id"),
        ("name", "/name"),
        ("kind", "/kind"),
        ("local", "/local"),
        ("url", "/base_url"),
        ("domain", "/domain"),
        ("region", "/region"),
        ("environment", "/environment"),
        ("source", "/source"),
        ("public keys", "/identity/public_keys"),
        ("certificate", "/identity/certificate"),
        ("tls name", "/identity/tls_name"),
        ("operations", "/grants/operations"),
        ("tenants", "/grants/tenants"),
        ("their names", "/grants/tenant_names"),
        ("agents", "/grants/agents"),
        ("regions", "/grants/regions"),
        ("addresses", "/grants/allowed_addresses"),
        ("capabilities", "/capabilities"),
        ("vouched by", "/vouched_by"),
        ("standing", "/standing"),
        ("because", "/standing_reason"),
    ] {
        field(output, name, &text(peer, pointer))?;
    }
    field(output, "health", &health(peer))?;
    field(output, "checked at", &text(peer, "/health/checked_at"))?;
    if peer["config_drift"] == true {
        field(output, "note", "its policy is another one, though it is of this domain")?;
    }
    Ok(Exit::Done)
}

async fn verify(args: &OneArgs) -> Outcome {
    let reply = args.ask(Method::POST, ":verify").await?;
    let (output, answer) = (Output::stdout(), reply.json());
    let peer = &answer["peer"];
    let is_well = is_healthy(peer);
    if args.operator.reach.json {
        output.json(&reply.body)?;
    } else if is_well {
        output.line(verdict(output, peer))?;
    } else {
        return Err(Failure::failed(verdict(Output { style: super::output::Style::Plain }, peer)));
    }
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

async fn stand(args: &WhyArgs, verb: &str) -> Outcome {
    let one = &args.one;
    let body = json!({ "reason": args.reason });
    let reply = one
        .operator
        .within(async |api| {
            let url = api.url(&["peers", &format!("{}:{verb}", one.id)]);
            api.call(Method::POST, url, Some(&body)).await
        })
        .await?;
    let output = Output::stdout();
    if one.operator.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let standing = text(&reply.json(), "/peer/standing");
    output.line(format_args!("peer {} is {}", visible(one.id.as_str()), visible(&standing)))?;
    Ok(Exit::Done)
}

async fn remove(args: &OneArgs) -> Outcome {
    args.ask(Method::DELETE, "").await?;
    // The API answers with nothing.
    if !args.operator.reach.json {
        Output::stdout().line(format_args!("peer {} is removed", visible(args.id.as_str())))?;
    }
    Ok(Exit::Done)
}

impl OneArgs {
    async fn ask(&self, method: Method, verb: &str) -> Result<Reply, Failure> {
        let segment = format!("{}{verb}", self.id);
        self.operator.within(async |api| api.call(method, api.url(&["peers", &segment]), None).await).await
    }
}

/// Asks a peer now, through a gateway; what it is then, or why the gateway cannot ask.
pub(super) async fn verified(api: &Api, id: &str) -> Result<Value, Failure> {
    let reply = api.call(Method::POST, api.url(&["peers", &format!("{id}:verify")]), None).await?;
    Ok(reply.json().get_mut("peer").map(Value::take).unwrap_or_default())
}

/// True when it answered, proved who it is, and is well.
pub(super) fn is_healthy(peer: &Value) -> bool {
    peer.pointer("/health/state").and_then(Value::as_str) == Some("healthy")
}

/// One line that says how a peer is.
pub(super) fn verdict(output: Output, peer: &Value) -> String {
    let tone = if is_healthy(peer) { Tone::Good } else { Tone::Bad };
    let health = health(peer);
    format!("peer {}: {}", visible(&text(peer, "/peer_id")), output.style.paint(tone, visible(&health)))
}

fn health(peer: &Value) -> String {
    let (state, reason) = (cell(peer, "/health/state"), text(peer, "/health/reason"));
    if reason.is_empty() { state } else { format!("{state}: {reason}") }
}

fn told(reach: &Reach, reply: &Reply, what: &str) -> Outcome {
    let output = Output::stdout();
    if reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let answer = reply.json();
    let (id, operations) = (text(&answer, "/peer/peer_id"), text(&answer, "/peer/grants/operations"));
    let tenants = text(&answer, "/peer/grants/tenants");
    output.line(format_args!("peer {} {what}", visible(&id)))?;
    field(output, "operations", &operations)?;
    field(output, "tenants", if tenants.is_empty() { "none" } else { &tenants })?;
    Ok(Exit::Done)
}
