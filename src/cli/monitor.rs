//! `causeway alerts`, `links`, `topology`, `deliveries`: what a running gateway says of itself and its peers.

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::exit::{Exit, Failure, Outcome};
use super::operator::{Api, OperatorArgs};
use super::output::{Output, note};
use super::table::{self, cell, text};
use crate::domain::id::{PeerId, TenantId};

/// Items asked for at once.
const PAGE: usize = 200;

/// What `causeway deliveries` takes.
#[derive(Debug, clap::Args)]
pub(super) struct DeliveriesArgs {
    /// Only forwards to this peer
    #[arg(long, value_name = "ID", value_parser = PeerId::parse)]
    peer: Option<PeerId>,
    /// Only forwards of this tenant
    #[arg(long, value_name = "ID", value_parser = TenantId::parse)]
    tenant: Option<TenantId>,
    /// Only forwards in this state
    #[arg(long, value_parser = ["reserved", "sending", "unknown", "forwarded", "refused", "expired"])]
    state: Option<String>,
    /// How many, the newest first
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Lists what wants attention; fails when something is critical.
pub(super) async fn alerts(args: &OperatorArgs) -> Outcome {
    let reply =
        args.within_running(async |api| api.call(Method::GET, api.url(&["alerts"]), None).await).await?;
    let answer = reply.json();
    let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
    let is_critical = items.iter().any(|alert| alert["severity"] == "critical");
    let exit = if is_critical { Exit::Failed } else { Exit::Done };
    if args.reach.json {
        Output::stdout().json(&reply.body)?;
        return Ok(exit);
    }
    if items.is_empty() {
        note("nothing wants attention");
        return Ok(exit);
    }
    let row =
        |alert: &Value| ["/severity", "/code", "/subject", "/since", "/message"].map(|at| cell(alert, at));
    let rows: Vec<_> = items.iter().map(row).collect();
    table::print(Output::stdout(), ["SEVERITY", "CODE", "SUBJECT", "SINCE", "MESSAGE"], &rows)?;
    Ok(exit)
}

/// Lists the way to each peer.
pub(super) async fn links(args: &OperatorArgs) -> Outcome {
    let items = args.within_running(async |api| api.all(&["links"]).await).await?;
    if args.reach.json {
        Output::stdout().json(json!({ "items": items }).to_string().as_bytes())?;
        return Ok(Exit::Done);
    }
    let row = |link: &Value| {
        let reasons = ["/health/reason", "/readers/last_error", "/standing_reason"];
        let reason = reasons.iter().map(|at| text(link, at)).find(|reason| !reason.is_empty());
        [
            cell(link, "/peer_id"),
            cell(link, "/state"),
            cell(link, "/since"),
            cell(link, "/health/latency_ms"),
            cell(link, "/forwards/in_flight"),
            cell(link, "/readers/running"),
            cell(link, "/readers/failing"),
            reason.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    let heads = ["PEER", "STATE", "SINCE", "MS", "FORWARDS", "READERS", "FAILING", "REASON"];
    table::print(Output::stdout(), heads, &rows)?;
    Ok(Exit::Done)
}

/// Shows which way work may go between the gateway and its peers.
pub(super) async fn topology(args: &OperatorArgs) -> Outcome {
    let reply =
        args.within_running(async |api| api.call(Method::GET, api.url(&["topology"]), None).await).await?;
    if args.reach.json {
        Output::stdout().json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let answer = reply.json();
    let edges = answer.pointer("/topology/edges").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let row = |edge: &Value| {
        let operations = edge["operations"].as_array().map_or(&[][..], Vec::as_slice);
        let operation = |one: &Value| match text(one, "/rule") {
            allowed if allowed.is_empty() => text(one, "/operation"),
            rule => format!("{} ({rule})", text(one, "/operation")),
        };
        let operations: Vec<String> = operations.iter().map(operation).collect();
        let operations = if operations.is_empty() { "-".to_owned() } else { operations.join(", ") };
        [cell(edge, "/from"), cell(edge, "/to"), cell(edge, "/state"), cell(edge, "/proofs"), operations]
    };
    let rows: Vec<_> = edges.iter().map(row).collect();
    table::print(Output::stdout(), ["FROM", "TO", "STATE", "PROOFS", "OPERATIONS"], &rows)?;
    Ok(Exit::Done)
}

/// Lists forwards.
pub(super) async fn deliveries(args: &DeliveriesArgs) -> Outcome {
    let items = args.operator.within_running(async |api| args.read(api).await).await?;
    if args.operator.reach.json {
        Output::stdout().json(json!({ "items": items }).to_string().as_bytes())?;
        return Ok(Exit::Done);
    }
    if items.is_empty() {
        note("there is no such forward");
        return Ok(Exit::Done);
    }
    let row = |delivery: &Value| {
        [
            cell(delivery, "/forward_id"),
            cell(delivery, "/tenant_id"),
            cell(delivery, "/peer_id"),
            cell(delivery, "/state"),
            cell(delivery, "/attempts"),
            cell(delivery, "/created_at"),
            cell(delivery, "/next_attempt_at"),
            cell(delivery, "/last_error/reason"),
        ]
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    let heads = ["FORWARD", "TENANT", "PEER", "STATE", "TRIES", "CREATED", "NEXT TRY", "LAST ERROR"];
    table::print(Output::stdout(), heads, &rows)?;
    Ok(Exit::Done)
}

impl DeliveriesArgs {
    /// As many as are wanted, page after page.
    async fn read(&self, api: &Api) -> Result<Vec<Value>, Failure> {
        let (limit, mut items, mut cursor) = (self.limit as usize, Vec::new(), None::<String>);
        while items.len() < limit {
            let url = self.url(api, (limit - items.len()).min(PAGE), cursor.as_deref());
            let mut page = api.call(Method::GET, url, None).await?.json();
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        Ok(items)
    }

    fn url(&self, api: &Api, limit: usize, cursor: Option<&str>) -> Url {
        let mut url = api.url(&["deliveries"]);
        let asked = [
            ("peer_id", self.peer.as_ref().map(PeerId::as_str)),
            ("tenant_id", self.tenant.as_ref().map(TenantId::as_str)),
            ("state", self.state.as_deref()),
            ("cursor", cursor),
        ];
        let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
        url.query_pairs_mut().append_pair("limit", &limit.to_string()).extend_pairs(asked);
        url
    }
}
